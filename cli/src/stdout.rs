//! Says whether standard output was closed before the program began, as by `>&-`.
//!
//! The runtime then puts `/dev/null` in its place, where records would count as handled and be lost in silence.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

static CLOSED: AtomicBool = AtomicBool::new(false);

/// Looks before the runtime does.
// SAFETY: it runs before `main`, where it needs nothing that the runtime sets up: two system calls and a store.
#[ctor::ctor(unsafe)]
fn look() {
    let there = |path: &str| fs::symlink_metadata(path).is_ok();
    // Without /proc nothing is known.
    CLOSED.store(there("/proc/self/fd") && !there("/proc/self/fd/1"), Ordering::Relaxed);
}

pub(crate) fn was_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}
