//! Memory that two processes share: the control words of a measurement, and the raw rings of the limit.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A shared mapping of a file.
pub struct Mapping {
    base: *mut u8,
    length: usize,
}

// SAFETY: the mapping is plain memory; who uses it synchronises through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates the file with zeros and maps it, every page present.
    pub fn create(path: &Path, length: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(length as u64)?;
        Self::map(&file, length)
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len() as usize;
        Self::map(&file, length)
    }

    fn map(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: a new shared mapping of a file that this harness alone uses and never shortens.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { base: base.cast(), length })
    }

    /// Returns the address of the byte at `offset`.
    #[inline(always)]
    pub fn at(&self, offset: usize) -> *mut u8 {
        debug_assert!(offset < self.length);
        // SAFETY: within the mapping, by the callers' arithmetic.
        unsafe { self.base.add(offset) }
    }

    /// Returns the word at `offset`.
    #[inline(always)]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: aligned, within the mapping, and alive as long as it.
        unsafe { &*self.at(offset).cast::<AtomicU64>() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`; nothing borrowed from it outlives it.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

const LINE: usize = 128;

/// The words through which the processes of one measurement agree on what they do.
pub struct Control(Mapping);

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident = $index:expr;)*) => {
        impl Control {
            $($(#[$doc])* #[inline(always)] pub fn $name(&self) -> &AtomicU64 { self.0.word($index * LINE) })*
        }
    };
}

words! {
    /// Senders that exist.
    created = 0;
    /// Receivers that are attached.
    attached = 1;
    /// Senders that know their receivers.
    connected = 2;
    /// Processes ready for the start.
    ready = 3;
    /// Where the measured window starts, in ticks; zero until it is known.
    window_start = 4;
    window_end = 5;
    /// The side that times has seen enough.
    stop = 6;
    /// Records sent in all, plus one; zero while the sender runs.
    sent = 7;
    /// Receivers that are through.
    finished = 8;
    /// Records that all handles of a reading process have taken.
    drained = 9;
    /// Measure's own use.
    turn = 10;
    /// Somebody failed: everybody gives up.
    failed = 11;
}

/// Longest wait for another process.
const PATIENCE: Duration = Duration::from_secs(20);

impl Control {
    pub fn create(path: &Path) -> io::Result<Self> {
        Mapping::create(path, 16 * LINE).map(Self)
    }

    pub fn open(path: &Path) -> io::Result<Self> {
        Mapping::open(path).map(Self)
    }

    /// Adds one to a count and waits until it reaches `count`.
    pub fn meet(&self, word: &AtomicU64, count: u64) -> Result<(), String> {
        word.fetch_add(1, Ordering::AcqRel);
        self.wait_for(word, count)
    }

    /// Waits until a word reaches `count`.
    pub fn wait_for(&self, word: &AtomicU64, count: u64) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while word.load(Ordering::Acquire) < count {
            self.check()?;
            if Instant::now() > deadline {
                return Err(format!("waited in vain for {count} at a meeting point"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    pub fn check(&self) -> Result<(), String> {
        if self.failed().load(Ordering::Relaxed) != 0 { Err("another process failed".into()) } else { Ok(()) }
    }

    pub fn fail(&self) {
        self.failed().store(1, Ordering::Release);
    }
}
