//! A guard against files that shrink while they are mapped: the fault becomes an error on the handle instead of the process's death.
//!
//! Who may write a bus's file can truncate it. Whoever touches a page beyond the new end then gets `SIGBUS`, which kills by default.
//! With the guard [installed](install), the handler puts private memory in the place of the whole mapping and marks it lost: the access
//! that faulted goes on (with zeros, which are content like any other to code that trusts no content), and the handle's call, or at the
//! latest its next one, fails with [`Error::Truncated`]. Nothing is delivered from the substitute: in a ring's, the limit lies beyond every
//! position, so no record in it counts as intact. Other handles of the process go on as before; the lost one can only be dropped.
//!
//! A library does not touch the signals of the program it is linked into unasked, so this is off until the program asks. The `lapwing`
//! command does. Installed or not it costs the hot paths nothing: they compare one word, which counts the process's forks and faults.
//!
//! # What it does not cover
//!
//! - A hole punched into a file, and the rest of the page in which a truncated file ends, read as zeros and raise no signal. A record that
//!   lay there is [`Error::Corrupt`] to readers, at the latest after 100 ms of waiting; a reader whose slot was wiped counts as evicted.
//! - A pinned record, and a claim's bytes, that the application holds while the file shrinks: they turn into zeros under it. A system call
//!   that is given such memory fails with `EFAULT`.
//! - The record being published at that moment: it may be returned as published, as if the file had shrunk just afterwards.
//! - A thread that blocks `SIGBUS`: the kernel then kills the process, whatever is installed.
//! - A program that installs a handler later and does not pass on what is not its own.
//! - A kernel without memory for the substitute, memory that failed (`BUS_MCEERR_AR`), and every fault outside the bus's files: they go
//!   to whoever handled them before.

use crate::error::{Error, Result};
use crate::sync::AtomicU64;
use crate::sync::local::{AtomicBool, AtomicPtr, AtomicU64 as LocalU64, Ordering as Order, fence};
use crate::sys;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

/// A mapping as the handler needs to know it.
struct Entry {
    /// Moves whenever the rest is about to change, so that the handler never acts upon a mixture.
    version: LocalU64,
    /// Address; zero while the entry is free, one while it is being filled in.
    start: LocalU64,
    /// Bytes.
    length: LocalU64,
    writable: AtomicBool,
    /// The word that keeps everything from counting as intact, plus one; zero for none.
    limit: LocalU64,
    lost: AtomicBool,
}

/// What an entry says of a mapping.
#[derive(Clone, Copy)]
struct Known {
    start: u64,
    length: u64,
    writable: bool,
    limit: u64,
}

/// A piece of the list of entries; lists only grow, so the handler can walk them.
struct Chunk {
    entries: [Entry; 32],
    next: AtomicPtr<Chunk>,
}

static ENTRIES: Chunk = Chunk::new();

impl Chunk {
    const fn new() -> Self {
        Self { entries: [const { Entry::new() }; 32], next: AtomicPtr::new(ptr::null_mut()) }
    }

    fn next(&self) -> Option<&'static Self> {
        // SAFETY: null, or a chunk that was leaked by `after` and is never freed.
        unsafe { self.next.load(Order::Acquire).as_ref() }
    }

    /// The next piece, made if there is none.
    fn after(&self) -> &'static Self {
        self.next().unwrap_or_else(|| {
            let new = Box::into_raw(Box::new(Self::new()));
            let (pointer, spare) = match self.next.compare_exchange(ptr::null_mut(), new, Order::AcqRel, Order::Acquire)
            {
                Ok(_) => (new, None),
                Err(other) => (other, Some(new)),
            };
            // SAFETY: the spare one came from `Box::into_raw` above and nobody else has seen it; the one in the list is never freed.
            unsafe {
                drop(spare.map(|spare| Box::from_raw(spare)));
                &*pointer
            }
        })
    }
}

impl Entry {
    const fn new() -> Self {
        Self {
            version: LocalU64::new(0),
            start: LocalU64::new(0),
            length: LocalU64::new(0),
            writable: AtomicBool::new(false),
            limit: LocalU64::new(0),
            lost: AtomicBool::new(false),
        }
    }

    fn is_claimed(&self) -> bool {
        self.start.compare_exchange(0, 1, Order::Acquire, Order::Relaxed).is_ok()
    }

    fn fill(&self, known: Known) {
        self.version.fetch_add(1, Order::Relaxed);
        // Pairs with the fence in `known`: who reads what is stored below finds the version moved.
        fence(Order::Release);
        self.length.store(known.length, Order::Relaxed);
        self.writable.store(known.writable, Order::Relaxed);
        self.limit.store(known.limit, Order::Relaxed);
        self.lost.store(false, Order::Relaxed);
        // Release pairs with the Acquire in `known`: who sees the address sees the rest.
        self.start.store(known.start, Order::Release);
    }

    /// In the handler: the mapping, unless the entry is free or changing. (That of the faulting access is neither: its handle is in use.)
    fn known(&self) -> Option<Known> {
        let version = self.version.load(Order::Acquire);
        let start = self.start.load(Order::Acquire);
        let known = Known {
            start,
            length: self.length.load(Order::Relaxed),
            writable: self.writable.load(Order::Relaxed),
            limit: self.limit.load(Order::Relaxed),
        };
        fence(Order::Acquire);
        (start > 1 && self.version.load(Order::Relaxed) == version).then_some(known)
    }

    /// In the handler: puts private memory in the mapping's place. False if the kernel has none.
    fn substitute(&self, Known { start, length, writable, limit }: Known) -> bool {
        let length = length as usize;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, wherever the kernel likes.
        let fresh = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
        if fresh == libc::MAP_FAILED {
            return false;
        }
        if let Some(limit) = (limit as usize).checked_sub(1) {
            // SAFETY: the word lies in a file's header, and so in the new mapping, which is ours alone as yet.
            unsafe { &*fresh.cast::<AtomicU64>().add(limit) }.store(u64::MAX, crate::sync::Ordering::Relaxed);
        }
        if !writable {
            // SAFETY: exactly the new mapping. Failure leaves it writable, which nobody uses.
            unsafe { libc::mprotect(fresh, length, libc::PROT_READ) };
        }
        // Before anybody can meet the substitute: first the reason to fail, then the word that makes handles look for it.
        self.lost.store(true, Order::Relaxed);
        sys::count_fault();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: the new mapping moves, in one step, onto exactly the range of a mapping of ours that is in use by the access that
        // faulted, hence still mapped; its owner unmaps the same range later. References into it stay valid: they see other values, which
        // atomic words may take at any time.
        let moved = unsafe { libc::mremap(fresh, length, length, flags, start as *mut libc::c_void) };
        moved != libc::MAP_FAILED
    }
}

/// A mapping known to the handler, until this is dropped.
pub(crate) struct Region(&'static Entry);

impl Region {
    /// Says whether the file shrank under the mapping.
    pub(crate) fn is_lost(&self) -> bool {
        self.0.lost.load(Order::Relaxed)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Release pairs with the Acquire of who claims the entry next.
        self.0.start.store(0, Order::Release);
    }
}

/// Makes a mapping known to the handler. `limit` is the word that, at its largest, keeps everything from counting as intact.
pub(crate) fn register(words: &'static [AtomicU64], writable: bool, limit: Option<usize>) -> Region {
    let mut chunk = &ENTRIES;
    let entry = loop {
        if let Some(entry) = chunk.entries.iter().find(|entry| entry.is_claimed()) {
            break entry;
        }
        chunk = chunk.after();
    };
    entry.fill(Known {
        start: words.as_ptr() as u64,
        length: size_of_val(words) as u64,
        writable,
        limit: limit.map_or(0, |limit| limit as u64 + 1),
    });
    Region(entry)
}

/// What handled the signal before; written once, before the handler is installed.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);
// SAFETY: written under `install`'s once, before any reader (the handler) can run.
unsafe impl Sync for Before {}
static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::zeroed()));

/// Installs the guard for this process; once is enough, and more does no harm.
///
/// Call it early, before other threads install handlers of their own. A handler for `SIGBUS` that the program installed before keeps
/// getting every fault that is not a bus file's; one that it installs afterwards has to pass on what it does not know (as this one does).
///
/// The [module](self) says what the guard covers, and what not.
///
/// ```
/// lapwing::guard::install()?;
/// # Ok::<(), lapwing::Error>(())
/// ```
///
/// # Errors
/// [`Error::Io`] if the kernel refuses the handler.
pub fn install() -> Result<()> {
    static DONE: OnceLock<std::result::Result<(), i32>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        // SAFETY: an all-zero sigaction is valid; the handler below has the signature that SA_SIGINFO asks for, and does only what is
        // async-signal-safe. Nobody reads `BEFORE` until the second call has installed the handler.
        unsafe {
            if libc::sigaction(libc::SIGBUS, ptr::null(), (*BEFORE.0.get()).as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            // The handler before is run from this one, so what it wants blocked is blocked.
            action.sa_mask = (*BEFORE.0.get()).assume_init_ref().sa_mask;
            if libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap_or(0));
            }
        }
        Ok(())
    });
    let path = Path::new("SIGBUS");
    done.map_err(|errno| Error::io("install a handler for", path, io::Error::from_raw_os_error(errno)))
}

extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    const BUS_ADRERR: i32 = 2;
    // SAFETY: errno is this thread's; the kernel passes a valid siginfo to a SA_SIGINFO handler, with an address for this signal.
    let (errno, code, address) = unsafe { (*libc::__errno_location(), (*info).si_code, (*info).si_addr() as u64) };
    let ours = code == BUS_ADRERR && substitute_at(address);
    if !ours {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Whether the address lies in a mapping of ours, which then is replaced.
fn substitute_at(address: u64) -> bool {
    let mut chunk = Some(&ENTRIES);
    while let Some(here) = chunk {
        for entry in &here.entries {
            if let Some(known) = entry.known()
                && address.wrapping_sub(known.start) < known.length
            {
                return entry.substitute(known);
            }
        }
        chunk = here.next();
    }
    false
}

/// Does what would have been done without the guard.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written before this handler was installed, and never since.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler.
    let sent = unsafe { (*info).si_code } <= 0;
    match before.sa_sigaction {
        // What somebody sent can be ignored, a fault cannot.
        libc::SIG_IGN if sent => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: an all-zero sigaction is the default disposition; `sigaction` and `raise` are async-signal-safe. A faulting access is
            // repeated, and the kernel does the rest; what somebody sent is not, so it is raised, and delivered on return.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &raw const default, ptr::null_mut());
                if sent {
                    libc::raise(signal);
                }
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: the program installed it with SA_SIGINFO, so that is its signature.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: the program installed it without SA_SIGINFO, so that is its signature.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
