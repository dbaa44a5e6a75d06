//! Sleeping and waking: how a reader parks without ever missing the record that should wake it.
//!
//! | sleeper | writer |
//! |---|---|
//! | 1. reads the wake word | 1. commits |
//! | 2. sets the sleep flag | 2. loads the flag; done if zero |
//! | 3. heavy fence | 3. clears it |
//! | 4. looks for a record again | 4. bumps the wake word |
//! | 5. waits while the wake word is what it read | 5. wakes |
//!
//! Either the writer's load of the flag comes after the fence and sees it, or its commit came before and the sleeper's look sees the record.
//! Reading the wake word after setting the flag, or bumping before clearing, loses a wake-up. The flag is level, not
//! a count: a reader killed in its sleep costs one wake for nothing and no more.

use crate::layout::table::{NEEDS_FENCE, SLEEPING};
use crate::sync::Ordering;
use crate::sys;
use crate::table::Table;

/// Wakes every sleeper: after a publish that met the flag, and whenever the writer's state changes.
pub(crate) fn wake(table: &Table) {
    table.sleep_flag().store(0, Ordering::Relaxed);
    // Release pairs with the sleeper's Acquire load in `prepare`: who read the new word sees the flag cleared, and so sets it again.
    table.wake_word().fetch_add(1, Ordering::Release);
    sys::futex_wake(table.wake_word(), i32::MAX);
}

/// Steps 1 to 3: announces a sleeper. Returns the wake word to wait on, and whether the heavy fence reached the writer.
pub(crate) fn prepare(table: &Table, can_fence: &mut bool) -> u64 {
    let seen = table.wake_word().load(Ordering::Acquire);
    let flag = if *can_fence { SLEEPING } else { SLEEPING | NEEDS_FENCE };
    table.sleep_flag().fetch_or(flag, Ordering::Relaxed);
    if !sys::heavy_fence() && *can_fence {
        // The first failure: say so to the writer, which fences by itself from then on. Until it says that it does, sleeps are short.
        *can_fence = false;
        table.sleep_flag().fetch_or(NEEDS_FENCE, Ordering::Relaxed);
    }
    seen
}

/// Wakes a writer that waits for room.
#[cold]
#[inline(never)]
pub(crate) fn wake_writer(table: &Table) {
    // Release pairs with the writer's Acquire load before its last look at the cursors.
    table.space_word().fetch_add(1, Ordering::Release);
    sys::futex_wake(table.space_word(), 1);
}
