//! A descriptor that is readable while it is worth looking for a record: for epoll, libuv, asio, Qt and tokio.
//!
//! The writer knows nothing of it and pays nothing. A reader that finds nothing announces itself as a sleeper (see [`crate::wake`]) and
//! hands the wake word it read to one thread per process, started when the first descriptor is asked for, which waits on the
//! wake words of all such readers at once and makes the descriptor of each that was woken readable. The reader makes it
//! unreadable again when it next finds nothing, and looks once more afterwards, so no edge is lost.

use crate::error::{Error, Result};
use crate::sync::AtomicU64;
use crate::sync::local::{AtomicBool, AtomicU64 as LocalU64, Ordering as Local};
use crate::sys;
use crate::table::Table;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How often the thread looks whether writers are still alive.
const LIVENESS: Duration = Duration::from_millis(100);
/// Longest wait on behalf of a reader that nobody can promise a wake-up.
const BLIND: Duration = Duration::from_millis(1);

/// A reader's descriptor and what the thread needs to know to make it readable.
struct Watch {
    table: Table,
    event: File,
    /// The ring, for its writer's lock.
    ring: File,
    path: PathBuf,
    /// Zero while nobody waits, else the wake word's low half plus one.
    armed: LocalU64,
    blind: AtomicBool,
    blind_since: Mutex<Option<Instant>>,
    /// Whether a writer was alive when last looked.
    writer_alive: AtomicBool,
}

impl Watch {
    /// Makes the descriptor readable.
    fn signal(&self) -> io::Result<()> {
        match (&self.event).write(&1u64.to_ne_bytes()) {
            // The counter is at its maximum, and so readable.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            other => other.map(drop),
        }
    }

    /// Signals once per arming. A descriptor that cannot be written to has been closed under us; there is nobody to tell.
    fn fire(&self) {
        if self.armed.swap(0, Local::AcqRel) != 0
            && let Err(error) = self.signal()
        {
            debug_assert!(false, "{error}");
        }
    }

    /// Says whether a reader that nobody can promise a wake-up has waited long enough.
    fn is_due(&self, now: Instant) -> bool {
        let mut since = self.blind_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.blind.load(Local::Relaxed)
            && now.duration_since(*since.get_or_insert(now)) >= BLIND
            && since.take().is_some()
    }

    /// Says whether the writer came or went since the last look.
    fn writer_changed(&self) -> bool {
        // A lock that cannot be asked for is the reader's to report, at its own next look.
        // Not while the reader is awake: it looks for itself, and a change taken note of now would not be told when it sleeps.
        if self.armed.load(Local::Acquire) == 0 {
            return false;
        }
        let alive = sys::is_locked(&self.ring, &self.path, 0).unwrap_or(false);
        self.writer_alive.swap(alive, Local::Relaxed) != alive
    }
}

/// The descriptor's owner: a reader.
pub(crate) struct Event {
    watch: Arc<Watch>,
    watcher: Arc<Watcher>,
}

impl Event {
    /// Makes a descriptor, readable at first, and starts the thread if it is the process's first.
    pub(crate) fn new(table: Table, ring: &File, path: PathBuf) -> Result<Self> {
        let failed = |source| Error::io("make an event descriptor for", &path, source);
        let event = sys::event_descriptor().map_err(failed)?;
        let ring = ring.try_clone().map_err(failed)?;
        let watcher = Watcher::of_process().map_err(failed)?;
        let watch = Arc::new(Watch {
            table,
            event,
            ring,
            path: path.clone(),
            armed: LocalU64::new(0),
            blind: AtomicBool::new(false),
            blind_since: Mutex::new(None),
            writer_alive: AtomicBool::new(true),
        });
        watch.signal().map_err(|source| Error::io("signal an event descriptor for", &path, source))?;
        watcher.watches.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&watch));
        Ok(Self { watch, watcher })
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.watch.event.as_fd()
    }

    /// Makes it unreadable.
    pub(crate) fn clear(&self) -> Result<()> {
        self.watch.armed.store(0, Local::Release);
        match (&self.watch.event).read(&mut [0; 8]) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(Error::io("clear an event descriptor for", &self.watch.path, error))
            }
            _ => Ok(()),
        }
    }

    /// Makes it readable now.
    pub(crate) fn signal(&self) -> Result<()> {
        self.watch.signal().map_err(|source| Error::io("signal an event descriptor for", &self.watch.path, source))
    }

    /// Asks the thread to make it readable once the wake word differs from `seen`.
    pub(crate) fn arm(&self, seen: u64, blind: bool) {
        self.watch.blind.store(blind, Local::Relaxed);
        self.watch.armed.store(u64::from(seen as u32) + 1, Local::Release);
        self.watcher.look();
    }
}

/// The thread's words.
struct Watcher {
    /// Bumped when there is something new to wait for.
    turn: AtomicU64,
    watches: Mutex<Vec<Weak<Watch>>>,
    generation: u64,
}

impl Watcher {
    /// The process's thread; a forked child gets one of its own.
    fn of_process() -> io::Result<Arc<Self>> {
        static CURRENT: Mutex<Option<Arc<Watcher>>> = Mutex::new(None);
        // A fork in between would leave the child with a mutex that nobody unlocks.
        let _held = sys::hold_forks();
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = current.as_ref()
            && watcher.generation == sys::fork_generation()
        {
            return Ok(Arc::clone(watcher));
        }
        let watcher = Arc::new(Self {
            turn: AtomicU64::new(0),
            watches: Mutex::new(Vec::new()),
            generation: sys::fork_generation(),
        });
        let own = Arc::clone(&watcher);
        thread::Builder::new().name("lapwing-events".into()).spawn(move || own.run())?;
        *current = Some(Arc::clone(&watcher));
        Ok(watcher)
    }

    /// Makes the thread look again.
    fn look(&self) {
        self.turn.fetch_add(1, crate::sync::Ordering::Release);
        sys::futex_wake(&self.turn, 1);
    }

    fn run(&self) {
        let mut liveness = Instant::now() + LIVENESS;
        loop {
            let turn = self.turn.load(crate::sync::Ordering::Acquire);
            let watches: Vec<Arc<Watch>> = {
                let mut list = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
                list.retain(|watch| watch.strong_count() != 0);
                list.iter().filter_map(Weak::upgrade).collect()
            };
            // However busy some buses are, the others are looked after in time.
            let now = Instant::now();
            if now >= liveness {
                liveness = now + LIVENESS;
                watches.iter().filter(|watch| watch.writer_changed()).for_each(|watch| watch.fire());
            }
            let mut words = vec![(&self.turn, turn)];
            let mut longest = if watches.is_empty() { None } else { Some(liveness - now) };
            for watch in &watches {
                let armed = watch.armed.load(Local::Acquire);
                if armed == 0 {
                    continue;
                }
                let wake = watch.table.wake_word();
                if wake.load(crate::sync::Ordering::Acquire) as u32 != (armed - 1) as u32 || watch.is_due(now) {
                    watch.fire();
                    continue;
                }
                if watch.blind.load(Local::Relaxed) {
                    longest = longest.map(|longest| longest.min(BLIND));
                }
                words.push((wake, armed - 1));
            }
            sys::futex_wait_any(&words, longest);
        }
    }
}
