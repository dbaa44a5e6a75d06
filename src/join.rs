//! Joining: how a slot becomes active without waiting for anyone and without missing a sequence unnoticed.
//!
//! The slot's owner (who holds its lock) calls [`join`]; see [`crate::publish`] for the writer's side and the three ways
//! in which the two can interleave.

use crate::ring::{Place, Ring, Seek};
use crate::sync::{Ordering, fence};
use crate::table::{Control, Phase, Slot, Table};

/// Makes a slot active from `place` on, or from further up if the writer is past it.
///
/// `from` is the control word that the caller saw, `joining` the one to set. Returns where the reader really starts, or `None` if
/// it was evicted on the way (the slot is then `Evicted`, and the books are settled for where it stood).
pub(crate) fn join(
    ring: &Ring,
    table: &Table,
    slot: Slot<'_>,
    from: Control,
    joining: Control,
    place: Place,
) -> Option<Place> {
    slot.move_cursor(place.position, place.sequence);
    if !slot.transition(from, joining) {
        return None;
    }
    table.register();
    let place = if joining.class().gates() { settle(ring, slot, place) } else { place };
    // A plain store would erase an eviction.
    slot.transition(joining, joining.with(Phase::Active)).then_some(place)
}

/// Moves up if the writer may be past the cursor.
///
/// One look is enough: of all its raises the writer began at most one without seeing the bump, and that one shows here. Each later one
/// counts the slot in, wherever its cursor is seen to be.
fn settle(ring: &Ring, slot: Slot<'_>, place: Place) -> Place {
    // Pairs with the writer's fence between its store of intent and its look at the registration counter.
    fence(Ordering::SeqCst);
    let intent = ring.intent();
    let is_clear = |place: &Place| place.position.saturating_add(ring.geometry.capacity) >= intent;
    if is_clear(&place) {
        return place;
    }
    // The oldest may be intact still, but about to go. The head never lies below intent - capacity, even if a writer stands still in
    // the middle of a large raise.
    let higher = [Seek::Oldest, Seek::Clear].into_iter().map(|seek| ring.seek(seek)).find(is_clear);
    let higher = higher.unwrap_or_else(|| ring.head());
    slot.prepare_jump(place.sequence, higher.sequence);
    slot.move_cursor(higher.position, higher.sequence);
    higher
}
