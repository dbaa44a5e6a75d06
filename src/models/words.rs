//! The word of the models: loom's, or none where nobody touches it; a store may be the last of a writer that dies there.

use loom::sync::atomic as real;
use real::Ordering;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A word of the map. One that no model touches has no loom state, since each fence of loom visits every atomic there is.
pub(crate) struct AtomicU64(Option<real::AtomicU64>);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self(Some(real::AtomicU64::new(value)))
    }

    /// A word that must not be touched.
    pub(super) fn absent() -> Self {
        Self(None)
    }

    #[track_caller]
    fn word(&self) -> &real::AtomicU64 {
        self.0.as_ref().expect("a word that the models were said not to touch: see rig.rs")
    }

    #[track_caller]
    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.word().load(order)
    }

    #[track_caller]
    pub(crate) fn store(&self, value: u64, order: Ordering) {
        step();
        self.word().store(value, order);
    }

    #[track_caller]
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        step();
        self.word().fetch_add(value, order)
    }

    #[track_caller]
    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        step();
        self.word().fetch_or(value, order)
    }

    #[track_caller]
    pub(crate) fn compare_exchange(&self, from: u64, to: u64, yes: Ordering, no: Ordering) -> Result<u64, u64> {
        step();
        self.word().compare_exchange(from, to, yes, no)
    }
}

thread_local! {
    // All threads of a model are coroutines of one thread of the system, so the doomed one is known by its id.
    static DOOM: Cell<Option<(loom::thread::ThreadId, u32)>> = const { Cell::new(None) };
}

struct Died;

/// Counts the doomed thread's stores down, and ends it instead of the last.
fn step() {
    let Some((thread, left)) = DOOM.get() else { return };
    if thread != loom::thread::current().id() {
        return;
    }
    if left == 0 {
        DOOM.set(None);
        resume_unwind(Box::new(Died));
    }
    DOOM.set(Some((thread, left - 1)));
}

/// Runs `life`, which ends before its store number `stores` as if killed there. True if it got that far.
pub(super) fn die_before_store(stores: u32, life: impl FnOnce()) -> bool {
    DOOM.set(Some((loom::thread::current().id(), stores)));
    let died = catch_unwind(AssertUnwindSafe(life));
    DOOM.set(None);
    match died {
        Ok(()) => false,
        Err(cause) if cause.is::<Died>() => true,
        Err(cause) => resume_unwind(cause),
    }
}
