//! Joining: how a slot becomes active without waiting for anyone and without missing a sequence unnoticed.
//!
//! The slot's owner (who holds its lock) calls [`join`]; see [`crate::publish`] for the writer's side and the three ways
//! in which the two can interleave.

use crate::ring::{Place, Ring, Seek};
use crate::sync::{Ordering, fence};
use crate::table::{Control, Phase, Slot, Table};

/// How often a joiner moves up. Twice is enough: after its bump the writer's next raise counts it in.
const TRIES: u32 = 64;

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

/// Moves up until the writer can no longer be past the cursor.
fn settle(ring: &Ring, slot: Slot<'_>, mut place: Place) -> Place {
    let capacity = ring.geometry.capacity;
    for _ in 0..TRIES {
        // Pairs with the writer's fence between its store of intent and its look at the registration counter.
        fence(Ordering::SeqCst);
        let intent = ring.intent();
        if place.position.saturating_add(capacity) >= intent {
            return place;
        }
        let mut higher = ring.seek(Seek::Oldest);
        if higher.position.saturating_add(capacity) < intent {
            // Intact still, but about to go.
            higher = ring.seek(Seek::Clear);
        }
        if higher.position.saturating_add(capacity) < intent {
            // A writer that stands still in the middle of a large raise; the head never lies below intent - capacity.
            higher = ring.head();
        }
        slot.prepare_jump(place.sequence, higher.sequence);
        slot.move_cursor(higher.position, higher.sequence);
        place = higher;
    }
    place
}
