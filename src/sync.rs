//! The one seam through which every atomic comes, switchable to loom's.
//!
//! Words that live in shared memory are [`AtomicU64`] and nothing else. Under `cfg(loom)` they are
//! loom's, so the very protocol code of this crate is what the models explore.

#[cfg(not(loom))]
pub(crate) use std::{
    hint,
    sync::atomic::{AtomicU64, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
// In the models a word may be one that nobody touches, and its stores may be the last of a writer that dies there.
#[cfg(all(loom, test))]
pub(crate) use crate::models::words::AtomicU64;
#[cfg(all(loom, not(test)))]
pub(crate) use loom::sync::atomic::AtomicU64;

/// A pause means nothing to the models.
#[cfg(loom)]
pub(crate) mod hint {
    pub(crate) fn spin_loop() {}
}

/// Words of this process alone (fork generation, descriptor registry): never shared, never modelled.
pub(crate) mod local {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering, fence};
}

/// Keeps the compiler from moving a later load above an earlier store.
///
/// The cheap half of an asymmetric fence: the other half is [`crate::sys::heavy_fence`], which makes every
/// running thread of the writer's process execute a full fence. loom knows no such pair, so it gets a full fence.
#[inline(always)]
pub(crate) fn light_fence() {
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(loom)]
    crate::sys::light_fence();
}
