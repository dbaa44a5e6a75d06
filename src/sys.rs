//! What the kernel does for the bus: locks, futex, membarrier, clocks, who a process is, and forks.
//!
//! Locks are open-file-description locks: the kernel drops them with their owner, whatever it died of. They
//! sit on descriptors of their own, never on one that is mapped (a mapping keeps its description, and so its
//! locks, alive), and a forked child closes them at once.

#[cfg(not(loom))]
pub(crate) use real::*;

/// Nanoseconds of a `SystemTime` since 1970, clamped into a word.
pub(crate) fn nanos_of(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// The `SystemTime` of such nanoseconds.
pub(crate) fn time_of(nanos: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos)
}

#[cfg(not(loom))]
mod real {
    use crate::error::{Error, Result};
    use crate::sync::local::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64 as LocalU64, Ordering as Order};
    use crate::sync::{AtomicU64, Ordering, fence};
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};
    use std::fs::File;
    use std::mem::ManuallyDrop;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::sync::OnceLock;
    use std::time::Duration;

    // ---- locks ------------------------------------------------------------------------------------------

    fn region(kind: libc::c_int, byte: u64) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte as libc::off_t,
            l_len: 1,
            l_pid: 0,
        }
    }

    /// Says whether somebody else holds a lock on `byte` that would keep a write lock away.
    pub(crate) fn is_locked(file: &File, path: &Path, byte: u64) -> Result<bool> {
        let mut probe = region(libc::F_WRLCK, byte);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut probe)).map_err(|e| lock_error(e, path))?;
        Ok(probe.l_type != libc::F_UNLCK as libc::c_short)
    }

    fn lock_error(errno: Errno, path: &Path) -> Error {
        match errno {
            Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOLCK => Error::Unsupported {
                path: path.into(),
                what: "open-file-description locks",
                why: "the file system does not offer them (a network file system?); use /dev/shm or a local one",
            },
            errno => Error::io("lock", path, errno.into()),
        }
    }

    /// A descriptor for locks alone: registered so that a forked child drops it, never mapped.
    pub(crate) struct LockFile {
        file: ManuallyDrop<File>,
        entry: &'static AtomicI32,
        generation: u64,
    }

    impl LockFile {
        /// Opens by `open`, with forks held off until the descriptor is registered.
        pub(crate) fn open(open: impl FnOnce() -> Result<File>) -> Result<Self> {
            install_fork_handlers();
            let _gate = ForkGate::close();
            let file = open()?;
            let entry = register(file.as_raw_fd());
            Ok(Self { file: ManuallyDrop::new(file), entry, generation: fork_generation() })
        }

        pub(crate) fn file(&self) -> &File {
            &self.file
        }

        /// Takes the write lock on `byte` if nobody holds it.
        pub(crate) fn try_write(&self, path: &Path, byte: u64) -> Result<bool> {
            self.try_lock(libc::F_WRLCK, path, byte)
        }

        /// Takes the read lock on `byte` if nobody holds a write lock.
        pub(crate) fn try_read(&self, path: &Path, byte: u64) -> Result<bool> {
            self.try_lock(libc::F_RDLCK, path, byte)
        }

        fn try_lock(&self, kind: libc::c_int, path: &Path, byte: u64) -> Result<bool> {
            match fcntl(&*self.file, FcntlArg::F_OFD_SETLK(&region(kind, byte))) {
                Ok(_) => Ok(true),
                Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
                Err(errno) => Err(lock_error(errno, path)),
            }
        }

        /// Waits in the kernel until the write lock on `byte` is free, and takes it; a signal that was handled ends the wait, or not.
        pub(crate) fn wait_write(&self, path: &Path, byte: u64, until_signal: bool) -> Result<()> {
            loop {
                match fcntl(&*self.file, FcntlArg::F_OFD_SETLKW(&region(libc::F_WRLCK, byte))) {
                    Ok(_) => return Ok(()),
                    Err(Errno::EINTR) if until_signal => return Err(Error::io("wait for", path, Errno::EINTR.into())),
                    Err(Errno::EINTR) => {}
                    Err(errno) => return Err(lock_error(errno, path)),
                }
            }
        }

        /// Gives the lock on `byte` back.
        pub(crate) fn unlock(&self, path: &Path, byte: u64) -> Result<()> {
            fcntl(&*self.file, FcntlArg::F_OFD_SETLK(&region(libc::F_UNLCK, byte)))
                .map(drop)
                .map_err(|e| lock_error(e, path))
        }
    }

    impl Drop for LockFile {
        fn drop(&mut self) {
            // In a forked child the descriptor is closed already and its number may be someone else's.
            if self.generation == fork_generation() {
                let _gate = ForkGate::close();
                // A program that another thread is starting (by `posix_spawn`, which runs no fork handlers) has a copy of the descriptor until
                // its exec; closing ours alone would leave the locks with it. If unlocking fails, closing is all that is left.
                let all = libc::flock { l_len: 0, ..region(libc::F_UNLCK, 0) };
                let _or_by_closing = fcntl(&*self.file, FcntlArg::F_OFD_SETLK(&all));
                self.entry.store(FREE_ENTRY, Order::Relaxed);
                // SAFETY: dropped once, here, and not used afterwards.
                unsafe { ManuallyDrop::drop(&mut self.file) };
            }
        }
    }

    // ---- forks ------------------------------------------------------------------------------------------

    static GENERATION: LocalU64 = LocalU64::new(0);
    static INCIDENTS: LocalU64 = LocalU64::new(0);
    static GATE: AtomicBool = AtomicBool::new(false);
    static DESCRIPTORS: Chunk = Chunk::new();
    const FREE_ENTRY: i32 = -1;

    /// A piece of the list of lock descriptors; lists only grow, so a child can walk them.
    struct Chunk {
        entries: [AtomicI32; 64],
        next: AtomicPtr<Chunk>,
    }

    impl Chunk {
        const fn new() -> Self {
            Self { entries: [const { AtomicI32::new(FREE_ENTRY) }; 64], next: AtomicPtr::new(std::ptr::null_mut()) }
        }

        fn next(&self) -> Option<&'static Chunk> {
            // SAFETY: null, or a chunk that was leaked by `register` and is never freed.
            unsafe { self.next.load(Order::Acquire).as_ref() }
        }
    }

    /// Counts forks: a handle made before one must not be used after it in the child.
    #[inline(always)]
    pub(crate) fn fork_generation() -> u64 {
        GENERATION.load(Order::Relaxed)
    }

    /// Counts forks and faults together: the one word that hot paths compare.
    #[inline(always)]
    fn incidents() -> u64 {
        // Acquire pairs with `count_fault`: who sees a fault counted sees which file it lost.
        INCIDENTS.load(Order::Acquire)
    }

    /// Notes that a file was lost; async-signal-safe.
    pub(crate) fn count_fault() {
        // Release pairs with the load above.
        INCIDENTS.fetch_add(1, Order::Release);
    }

    /// What the process had been through when a handle was made. A fork ends the handle; a fault may have lost one of its files.
    pub(crate) struct Origin {
        forks: u64,
        incidents: LocalU64,
    }

    impl Origin {
        pub(crate) fn now() -> Self {
            Self { forks: fork_generation(), incidents: LocalU64::new(incidents()) }
        }

        /// Says whether nothing happened since.
        #[inline(always)]
        pub(crate) fn is_undisturbed(&self) -> bool {
            self.incidents.load(Order::Relaxed) == INCIDENTS.load(Order::Relaxed)
        }

        pub(crate) fn is_forked(&self) -> bool {
            self.forks != fork_generation()
        }

        /// Forgets what happened so far if `harmless` says, afterwards, that the handle was not concerned.
        pub(crate) fn settle(&self, harmless: impl FnOnce() -> Result<()>) -> Result<()> {
            let seen = incidents();
            harmless()?;
            self.incidents.store(seen, Order::Relaxed);
            Ok(())
        }
    }

    /// Keeps `fork` waiting while a descriptor is opened or closed.
    pub(crate) struct ForkGate;

    impl ForkGate {
        fn close() -> Self {
            lock_gate();
            Self
        }
    }

    impl Drop for ForkGate {
        fn drop(&mut self) {
            GATE.store(false, Order::Release);
        }
    }

    /// Keeps `fork` waiting until the guard is dropped.
    pub(crate) fn hold_forks() -> ForkGate {
        install_fork_handlers();
        ForkGate::close()
    }

    fn lock_gate() {
        while GATE.compare_exchange_weak(false, true, Order::Acquire, Order::Relaxed).is_err() {
            std::thread::yield_now();
        }
    }

    extern "C" fn before_fork() {
        lock_gate();
    }

    extern "C" fn after_fork_parent() {
        GATE.store(false, Order::Release);
    }

    extern "C" fn after_fork_child() {
        GENERATION.fetch_add(1, Order::Relaxed);
        INCIDENTS.fetch_add(1, Order::Relaxed);
        let mut chunk = Some(&DESCRIPTORS);
        while let Some(here) = chunk {
            for entry in &here.entries {
                let descriptor = entry.swap(FREE_ENTRY, Order::Relaxed);
                if descriptor != FREE_ENTRY {
                    // SAFETY: a registered descriptor is open, and its owner in this child (a handle from before
                    // the fork) never touches it again: see `LockFile::drop`. `close` is async-signal-safe.
                    unsafe { libc::close(descriptor) };
                }
            }
            chunk = here.next();
        }
        GATE.store(false, Order::Release);
    }

    fn install_fork_handlers() {
        static ONCE: OnceLock<()> = OnceLock::new();
        ONCE.get_or_init(|| {
            // SAFETY: the handlers touch only statics and async-signal-safe calls. Failure (no memory) leaves forks
            // without the courtesy; there is nothing better to do then.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_parent), Some(after_fork_child)) };
        });
    }

    fn register(descriptor: i32) -> &'static AtomicI32 {
        let mut chunk = &DESCRIPTORS;
        loop {
            for entry in &chunk.entries {
                if entry.compare_exchange(FREE_ENTRY, descriptor, Order::Relaxed, Order::Relaxed).is_ok() {
                    return entry;
                }
            }
            chunk = chunk.next().unwrap_or_else(|| {
                // Under the gate, so nobody else appends at the same time.
                let new: &'static Chunk = Box::leak(Box::new(Chunk::new()));
                chunk.next.store(std::ptr::from_ref(new).cast_mut(), Order::Release);
                new
            });
        }
    }

    // ---- sleeping and waking ------------------------------------------------------------------------------

    /// Address of the 32-bit futex in a 64-bit word: its low half.
    fn futex_of(word: &AtomicU64) -> *mut u32 {
        let half = word.as_ptr().cast::<u32>();
        if cfg!(target_endian = "big") { half.wrapping_add(1) } else { half }
    }

    /// Sleeps while the low half of `word` equals that of `seen`, for at most `timeout`.
    ///
    /// Returns on a wake, a changed word, a signal or the time-out alike: the caller looks again anyway.
    pub(crate) fn futex_wait(word: &AtomicU64, seen: u64, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().min(1 << 30) as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        // SAFETY: FUTEX_WAIT reads the word, which is mapped for the borrow's life, and the time-out; not PRIVATE, since
        // the word is shared between processes.
        unsafe { libc::syscall(libc::SYS_futex, futex_of(word), libc::FUTEX_WAIT, seen as u32, &raw const timeout) };
    }

    /// Wakes up to `count` sleepers of `word`.
    pub(crate) fn futex_wake(word: &AtomicU64, count: i32) {
        // SAFETY: FUTEX_WAKE only uses the address, which is mapped for the borrow's life.
        unsafe { libc::syscall(libc::SYS_futex, futex_of(word), libc::FUTEX_WAKE, count) };
    }

    /// Most words that the kernel waits on at once.
    const MAX_WAIT_ANY: usize = 128;

    /// Sleeps while the low half of each word equals what was seen, for at most `timeout`.
    ///
    /// What the kernel cannot wait on (before Linux 5.16, or beyond 128 words) is looked at every millisecond instead.
    pub(crate) fn futex_wait_any(words: &[(&AtomicU64, u64)], timeout: Option<Duration>) {
        #[repr(C)]
        struct Waiter {
            value: u64,
            address: u64,
            flags: u32,
            reserved: u32,
        }
        const FUTEX2_SIZE_U32: u32 = 2;
        let moved = || words.iter().any(|(word, seen)| word.load(Ordering::Acquire) as u32 != *seen as u32);
        let deadline = timeout.map(|timeout| clock(libc::CLOCK_MONOTONIC).saturating_add(timeout.as_nanos() as u64));
        let waiters: Vec<Waiter> = words
            .iter()
            .take(MAX_WAIT_ANY)
            .map(|(word, seen)| Waiter {
                value: u64::from(*seen as u32),
                address: futex_of(word) as u64,
                flags: FUTEX2_SIZE_U32,
                reserved: 0,
            })
            .collect();
        let mut supported = words.len() <= MAX_WAIT_ANY;
        loop {
            if moved() {
                return;
            }
            let now = clock(libc::CLOCK_MONOTONIC);
            if deadline.is_some_and(|deadline| now >= deadline) {
                return;
            }
            let slice = if supported { u64::MAX } else { now + 1_000_000 };
            let until = deadline.unwrap_or(u64::MAX).min(slice);
            let until = libc::timespec {
                tv_sec: (until / 1_000_000_000).min(1 << 40) as libc::time_t,
                tv_nsec: (until % 1_000_000_000) as libc::c_long,
            };
            // SAFETY: reads `waiters.len()` waiters and the time-out; each address is that of a mapped word for the borrow's life.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_futex_waitv,
                    waiters.as_ptr(),
                    waiters.len(),
                    0,
                    &raw const until,
                    libc::CLOCK_MONOTONIC,
                )
            };
            // Not there, or refused by a sandbox.
            if result == -1 && !matches!(Errno::last(), Errno::EAGAIN | Errno::EINTR | Errno::ETIMEDOUT) {
                supported = false;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// A new event descriptor: non-blocking, closed on exec.
    pub(crate) fn event_descriptor() -> std::io::Result<File> {
        use std::os::fd::FromRawFd;
        // SAFETY: touches no memory; a descriptor that is returned is open and nobody else's.
        unsafe {
            match libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) {
                -1 => Err(std::io::Error::last_os_error()),
                descriptor => Ok(File::from_raw_fd(descriptor)),
            }
        }
    }

    const MEMBARRIER_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
    const MEMBARRIER_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: membarrier touches no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Asks that other processes' heavy fences reach this one's threads; false if the kernel cannot.
    pub(crate) fn register_light_fences() -> bool {
        membarrier(MEMBARRIER_REGISTER_GLOBAL_EXPEDITED)
    }

    /// Executes a full fence here and, if possible, on every running thread of every registered process.
    ///
    /// False if only the fence here happened: then the other side has to fence for itself.
    pub(crate) fn heavy_fence() -> bool {
        fence(Ordering::SeqCst);
        membarrier(MEMBARRIER_GLOBAL_EXPEDITED)
    }

    // ---- files, clocks, processes -------------------------------------------------------------------------

    /// Gives the file all of its blocks, so that a full file system is an error now and no fault later.
    pub(crate) fn allocate(file: &File, path: &Path, length: u64) -> Result<()> {
        loop {
            match fallocate(file, FallocateFlags::empty(), 0, length as libc::off_t) {
                Ok(()) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                    return Err(Error::Unsupported {
                        path: path.into(),
                        what: "fallocate",
                        why: "the file system cannot reserve blocks (a network file system?); use /dev/shm or a local one",
                    });
                }
                Err(errno @ (Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT)) => {
                    return Err(Error::NoSpace { path: path.into(), needed: length, source: errno.into() });
                }
                Err(errno) => return Err(Error::io("reserve space for", path, errno.into())),
            }
        }
    }

    fn clock(id: libc::clockid_t) -> u64 {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes one timespec. The clocks asked for exist on every kernel this crate runs on.
        unsafe { libc::clock_gettime(id, &raw mut now) };
        (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
    }

    /// Nanoseconds since 1970; may step.
    pub(crate) fn wall_clock() -> u64 {
        clock(libc::CLOCK_REALTIME)
    }

    /// The same, a few milliseconds coarse and cheaper.
    pub(crate) fn coarse_clock() -> u64 {
        clock(libc::CLOCK_REALTIME_COARSE)
    }

    /// Nanoseconds since boot, sleep included; never steps.
    pub(crate) fn boot_clock() -> u64 {
        clock(libc::CLOCK_BOOTTIME)
    }

    /// The processor's own count of time: no system call, and good enough to tell a stream from a trickle.
    #[inline(always)]
    pub(crate) fn ticks() -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has the counter, and Linux lets everybody read it.
        unsafe {
            std::arch::x86_64::_rdtsc()
        }
        #[cfg(target_arch = "aarch64")]
        {
            let now: u64;
            // SAFETY: reads a register that Linux lets everybody read.
            unsafe { std::arch::asm!("mrs {}, cntvct_el0", out(reg) now, options(nomem, nostack, preserves_flags)) };
            now
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        boot_clock()
    }

    /// About how many ticks pass in a time; never zero.
    pub(crate) fn ticks_in(time: Duration) -> u64 {
        #[cfg(target_arch = "x86_64")]
        // Counters run at 2 to 4 GHz; nobody cares which.
        let per_second = 2_500_000_000u64;
        #[cfg(target_arch = "aarch64")]
        let per_second = {
            let frequency: u64;
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack, preserves_flags))
            };
            frequency
        };
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let per_second = 1_000_000_000u64;
        (time.as_nanos() * u128::from(per_second) / 1_000_000_000).max(1) as u64
    }

    /// This process: pid and start time (clock ticks since boot), to show, never to decide by.
    pub(crate) fn identity() -> (u64, u64) {
        let start = proc_stat("self").map_or(0, |(_, start)| start);
        (u64::from(std::process::id()), start)
    }

    /// Says whether the process that started at `start` is stopped; false if there is no telling.
    pub(crate) fn is_stopped(pid: u32, start: u64) -> bool {
        start != 0 && proc_stat(&pid.to_string()) == Some(('T', start))
    }

    /// State and start time of a process.
    fn proc_stat(process: &str) -> Option<(char, u64)> {
        let stat = std::fs::read(format!("/proc/{process}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // Fields 3 and 22; the command in parentheses may hold anything, so count from behind it.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((state, fields.nth(18)?.parse().ok()?))
    }
}

#[cfg(loom)]
pub(crate) use model::*;

/// The kernel as the models see it: a futex made of a mutex and condition variables, and a clock that stands still.
#[cfg(loom)]
pub(crate) mod model {
    use crate::sync::{AtomicU64, Ordering, fence};
    use loom::sync::{Condvar, Mutex};
    use std::cell::Cell;
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::time::Duration;

    thread_local! {
        // The threads of a model are coroutines of one thread, so this is the model's own.
        static MEMBARRIER: Cell<bool> = const { Cell::new(true) };
    }

    /// Says whether the kernel of this model offers membarrier; it does unless told otherwise.
    pub(crate) fn set_membarrier(works: bool) {
        MEMBARRIER.set(works);
    }

    /// membarrier, modelled as the full fence that it is at least, here and in [`light_fence`].
    pub(crate) fn heavy_fence() -> bool {
        fence(Ordering::SeqCst);
        MEMBARRIER.get()
    }

    /// What membarrier makes of the writer's compiler fence.
    pub(crate) fn light_fence() {
        if MEMBARRIER.get() {
            fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn wall_clock() -> u64 {
        0
    }

    pub(crate) fn coarse_clock() -> u64 {
        0
    }

    pub(crate) fn boot_clock() -> u64 {
        1_000_000
    }

    pub(crate) fn ticks() -> u64 {
        0
    }

    pub(crate) fn ticks_in(_: Duration) -> u64 {
        1
    }

    loom::lazy_static! {
        // The kernel's queues, by the address of their word. What is promised and no more: a wake finds whoever waited before
        // it, and who comes later finds the word changed.
        static ref QUEUES: Mutex<HashMap<usize, Arc<Condvar>>> = Mutex::new(HashMap::new());
    }

    /// Sleeps while `word` equals `seen`. Up to a millisecond is a pause; anything longer has no end, so that a lost wake-up
    /// shows as a deadlock.
    pub(crate) fn futex_wait(word: &AtomicU64, seen: u64, timeout: Duration) {
        if timeout <= Duration::from_millis(1) {
            loom::thread::yield_now();
            return;
        }
        let mut queues = QUEUES.lock().expect("no panic under this lock");
        if word.load(Ordering::Relaxed) == seen {
            let queue =
                queues.entry(std::ptr::from_ref(word) as usize).or_insert_with(|| Arc::new(Condvar::new())).clone();
            drop(queue.wait(queues).expect("no panic under this lock"));
        }
    }

    pub(crate) fn futex_wake(word: &AtomicU64, count: i32) {
        let queues = QUEUES.lock().expect("no panic under this lock");
        if let Some(queue) = queues.get(&(std::ptr::from_ref(word) as usize)) {
            if count == 1 { queue.notify_one() } else { queue.notify_all() }
        }
    }
}
