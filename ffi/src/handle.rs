//! Handles: opaque to the caller, checked at every call for kind, process and concurrent use.

use crate::status::*;
use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is inside a handle.
pub trait Kind {
    /// Marks a live handle of this kind.
    const MAGIC: u32;
    /// Its name in messages.
    const NAME: &'static str;
}

/// What a caller's pointer leads to.
#[repr(C)]
pub struct Handle<T> {
    /// The magic above, and below it what is on, so that one comparison says that a call may begin.
    word: AtomicU64,
    generation: u32,
    body: UnsafeCell<T>,
}

/// Lower halves of the word.
const READY: u32 = 1;
const BUSY: u32 = 0;
const POISONED: u32 = u32::MAX;
const CLOSED: u32 = u32::MAX - 1;

/// Counts forks, from 1; only children change it.
static GENERATION: AtomicU32 = AtomicU32::new(1);

extern "C" fn after_fork_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

#[inline(always)]
fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Leaves a handle poisoned if a call panics.
struct Bomb<'a>(&'a AtomicU64, u64);

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

impl<T: Kind> Handle<T> {
    const fn word(state: u32) -> u64 {
        (T::MAGIC as u64) << 32 | state as u64
    }

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
        let word = AtomicU64::new(Self::word(READY));
        let handle = Box::new(Self { word, generation: generation(), body: UnsafeCell::new(body) });
        // SAFETY: by the caller's promise.
        unsafe { out.write_unaligned(Box::into_raw(handle)) };
        Ok(LAPWING_OK)
    }

    /// Checks that a pointer is a handle of this kind that is not closed, whatever else is wrong with it; returns it and its state.
    ///
    /// # Safety
    /// `handle` is null, or leads to 8 readable bytes, and to a whole handle if those begin with the magic.
    #[inline]
    unsafe fn check<'a>(handle: *mut Self) -> Result<(&'a Self, u32), c_int> {
        if !handle.is_null() && handle.is_aligned() {
            // SAFETY: by the caller's promise; aligned and not null.
            let word = unsafe { (*handle).word.load(Ordering::Relaxed) };
            let state = word as u32;
            if word == Self::word(state) && state != CLOSED {
                // SAFETY: it has the magic, so it is a whole handle.
                return Ok((unsafe { &*handle }, state));
            }
        }
        Err(Self::not_a_handle(handle))
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

    /// Says why no call can begin.
    ///
    /// # Safety
    /// As [`Self::check`].
    #[cold]
    #[inline(never)]
    unsafe fn refusal(handle: *mut Self) -> c_int {
        // SAFETY: by the caller's promise.
        match unsafe { Self::check(handle) } {
            Err(status) => status,
            // In a child the state may be that of a call of the parent, which never ends here.
            Ok((handle, _)) if handle.generation != generation() => Self::forked(),
            Ok((_, POISONED)) => fail(
                LAPWING_E_PANIC,
                format_args!("an earlier call on this {} met a bug; only closing it is left", T::NAME),
            ),
            Ok(_) => Self::busy(),
        }
    }

    #[cold]
    fn busy() -> c_int {
        fail(LAPWING_E_BUSY, format_args!("another thread is in a call on this {}", T::NAME))
    }

    #[cold]
    fn forked() -> c_int {
        fail(LAPWING_E_FORKED, format_args!("this {} was opened before a fork; the child has to open its own", T::NAME))
    }

    /// Runs `call` with the body, unless the handle cannot be used; no panic passes.
    ///
    /// # Safety
    /// As [`Self::check`].
    #[inline(always)]
    pub(crate) unsafe fn with(handle: *mut Self, call: impl FnOnce(&mut T) -> Status) -> c_int {
        // SAFETY: by the caller's promise.
        unsafe { Self::enter(handle, |handle, body| handle.unless_forked(body, call)) }
    }

    /// As [`Self::with`], but tries `plain` first, before it asks whether the process forked: `plain` finds that out by itself, and gives `None`
    /// then, and whenever it leaves the matter, untouched, to `call`.
    ///
    /// # Safety
    /// As [`Self::check`].
    #[inline(always)]
    pub(crate) unsafe fn with_plainly(
        handle: *mut Self,
        plain: impl FnOnce(&mut T) -> Option<c_int>,
        call: impl FnOnce(&mut T) -> Status,
    ) -> c_int {
        // Out of line, and by value, so that what is not plain costs the plain case neither registers nor room on the stack.
        #[cold]
        #[inline(never)]
        fn out_of_line(call: impl FnOnce() -> Status) -> Status {
            call()
        }
        let both = |handle: &Self, body: &mut T| match plain(body) {
            Some(status) => Ok(status),
            None => out_of_line(move || handle.unless_forked(body, call)),
        };
        // SAFETY: by the caller's promise.
        unsafe { Self::enter(handle, both) }
    }

    #[inline(always)]
    fn unless_forked(&self, body: &mut T, call: impl FnOnce(&mut T) -> Status) -> Status {
        if self.generation == generation() { call(body) } else { Err(Self::forked()) }
    }

    /// Runs `call`, which sees to forks, with the body, unless the handle cannot be used; no panic passes.
    ///
    /// # Safety
    /// As [`Self::check`].
    #[inline(always)]
    unsafe fn enter(handle: *mut Self, call: impl FnOnce(&Self, &mut T) -> Status) -> c_int {
        guard(|| {
            // SAFETY: by the caller's promise; not null, and aligned.
            let word = |handle: *mut Self| unsafe { (*handle).word.load(Ordering::Relaxed) };
            if handle.is_null() || !handle.is_aligned() || word(handle) != Self::word(READY) {
                // SAFETY: by the caller's promise.
                return Err(unsafe { Self::refusal(handle) });
            }
            // SAFETY: it has the magic, so it is a whole handle.
            let handle = unsafe { &*handle };
            handle.word.store(Self::word(BUSY), Ordering::Relaxed);
            let bomb = Bomb(&handle.word, Self::word(POISONED));
            // SAFETY: the word says that no other call uses the body. (Two threads that get here in the same instant break the
            // documented rule of one at a time; the word makes that visible nearly always, at the price of a load and two stores.)
            let status = call(handle, unsafe { &mut *handle.body.get() });
            std::mem::forget(bomb);
            handle.word.store(Self::word(READY), Ordering::Relaxed);
            status
        })
    }

    /// Closes a handle whose end is no more than dropping what is in it.
    ///
    /// # Safety
    /// As [`Self::take`].
    pub(crate) unsafe fn close(place: *mut *mut Self) -> c_int {
        let end = |body| {
            drop(body);
            Ok(LAPWING_OK)
        };
        // SAFETY: by the caller's promise.
        unsafe { Self::take(place, |_| Ok(LAPWING_OK), end) }
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
            let (checked, state) = unsafe { Self::check(handle)? };
            let forked = checked.generation != generation();
            if !forked {
                if state == BUSY {
                    return Err(Self::busy());
                }
                // SAFETY: as in `with`.
                may(unsafe { &mut *checked.body.get() })?;
            }
            checked.word.store(Self::word(CLOSED), Ordering::Relaxed);
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
