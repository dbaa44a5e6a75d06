//! Handles: opaque to the caller, checked at every call for kind, process and concurrent use.

use crate::status::*;
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is inside a handle.
pub trait Kind {
    /// First word of a live handle of this kind.
    const MAGIC: u64;
    /// Its name in messages.
    const NAME: &'static str;
}

/// What a caller's pointer leads to.
#[repr(C)]
pub struct Handle<T> {
    magic: AtomicU64,
    generation: u64,
    busy: AtomicU32,
    body: UnsafeCell<T>,
}

const IDLE: u32 = 0;
const BUSY: u32 = 1;
const POISONED: u32 = 2;

/// First word of a handle that was closed, for as long as its memory stays as it was.
const CLOSED: u64 = 0x6465_736f_6c63_2e2e;

/// Counts forks; only children change it.
static GENERATION: AtomicU64 = AtomicU64::new(0);

extern "C" fn after_fork_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// Leaves a handle poisoned if a call panics.
struct Bomb<'a>(&'a AtomicU32);

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        self.0.store(POISONED, Ordering::Relaxed);
    }
}

impl<T: Kind> Handle<T> {
    /// Makes a handle of `body` and gives it to the caller.
    ///
    /// # Safety
    /// `out` is valid for a write.
    pub(crate) unsafe fn give(body: T, out: *mut *mut Self) -> Status {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // SAFETY: the handler does one atomic addition. Without memory for it there is no check, and nothing better to do.
            unsafe { libc::pthread_atfork(None, None, Some(after_fork_child)) };
        });
        let handle = Box::new(Self {
            magic: AtomicU64::new(T::MAGIC),
            generation: generation(),
            busy: AtomicU32::new(IDLE),
            body: UnsafeCell::new(body),
        });
        // SAFETY: by the caller's promise.
        unsafe { out.write_unaligned(Box::into_raw(handle)) };
        Ok(LAPWING_OK)
    }

    /// Checks that a pointer is a live handle of this kind.
    ///
    /// # Safety
    /// `handle` is null, or leads to 8 readable bytes, and to a whole handle if those are the magic.
    #[inline(always)]
    unsafe fn check<'a>(handle: *mut Self) -> Result<&'a Self, c_int> {
        // SAFETY: by the caller's promise; alignment is looked at before the first read.
        let sound =
            handle.is_aligned() && !handle.is_null() && unsafe { (*handle).magic.load(Ordering::Relaxed) } == T::MAGIC;
        if sound {
            // SAFETY: it has the magic, so it is a whole handle.
            Ok(unsafe { &*handle })
        } else {
            Err(Self::not_a_handle(handle))
        }
    }

    #[cold]
    #[inline(never)]
    fn not_a_handle(handle: *mut Self) -> c_int {
        if handle.is_null() {
            fail(LAPWING_E_NULL, format_args!("the {} is NULL", T::NAME))
        } else {
            fail(LAPWING_E_HANDLE, format_args!("this is not a {} (another kind of handle, or closed)", T::NAME))
        }
    }

    #[cold]
    #[inline(never)]
    fn not_idle(busy: u32) -> c_int {
        if busy == POISONED {
            fail(
                LAPWING_E_PANIC,
                format_args!("an earlier call on this {} met a bug; only closing it is left", T::NAME),
            )
        } else {
            fail(LAPWING_E_BUSY, format_args!("another thread is in a call on this {}", T::NAME))
        }
    }

    #[cold]
    #[inline(never)]
    fn forked() -> c_int {
        fail(LAPWING_E_FORKED, format_args!("this {} was opened before a fork; the child has to open its own", T::NAME))
    }

    /// Runs `call` with the body, unless the handle cannot be used; no panic passes.
    ///
    /// # Safety
    /// As [`Self::check`].
    #[inline(always)]
    pub(crate) unsafe fn with(handle: *mut Self, call: impl FnOnce(&mut T) -> Status) -> c_int {
        guard(|| {
            // SAFETY: by the caller's promise.
            let checked = unsafe { Self::check(handle)? };
            if checked.generation != generation() {
                return Err(Self::forked());
            }
            let busy = checked.busy.load(Ordering::Relaxed);
            if busy != IDLE {
                return Err(Self::not_idle(busy));
            }
            checked.busy.store(BUSY, Ordering::Relaxed);
            let bomb = Bomb(&checked.busy);
            // SAFETY: the flag says that no other call uses the body. (Two threads that get here in the same instant break the
            // documented rule of one at a time; the flag makes that visible nearly always, at the price of a load and a store.)
            let status = call(unsafe { &mut *checked.body.get() });
            std::mem::forget(bomb);
            checked.busy.store(IDLE, Ordering::Relaxed);
            status
        })
    }

    /// Takes the handle away from the caller, whose pointer becomes null, and ends it with `end` (which is not run in a forked child).
    ///
    /// # Safety
    /// `place` is null or valid for reads and writes; what it holds is as for [`Self::check`].
    pub(crate) unsafe fn take(
        place: *mut *mut Self,
        may: impl FnOnce(&mut T) -> Status,
        end: impl FnOnce(T) -> Status,
    ) -> c_int {
        guard(|| {
            if place.is_null() {
                return Err(fail(LAPWING_E_NULL, format_args!("the address of the {} is NULL", T::NAME)));
            }
            // SAFETY: by the caller's promise.
            let handle = unsafe { place.read_unaligned() };
            if handle.is_null() {
                // Closed already: the usual double close.
                return Ok(LAPWING_OK);
            }
            // SAFETY: by the caller's promise.
            let checked = unsafe { Self::check(handle)? };
            let forked = checked.generation != generation();
            // In a child the flag may be that of a call of the parent that never ends here.
            if !forked && checked.busy.load(Ordering::Relaxed) == BUSY {
                return Err(Self::not_idle(BUSY));
            }
            if !forked {
                // SAFETY: as in `with`.
                may(unsafe { &mut *checked.body.get() })?;
            }
            checked.magic.store(CLOSED, Ordering::Relaxed);
            // SAFETY: by the caller's promise.
            unsafe { place.write_unaligned(std::ptr::null_mut()) };
            // SAFETY: it was made by `give`, and the magic, now gone, says that it was not taken before.
            let body = unsafe { Box::from_raw(handle) }.body.into_inner();
            if forked {
                drop(body);
                return Err(Self::forked());
            }
            end(body)
        })
    }
}
