//! Where reading begins: from what a reader asks for to a place in the ring.

use crate::error::{Error, Result};
use crate::files::Attached;
use crate::layout;
use crate::ring::{Place, Ring, Seek};
use crate::sync::Ordering;
use crate::sys;
use crate::table::Slot;
use std::time::SystemTime;

/// Where a reader starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the next record to be published.
    #[default]
    Latest,
    /// With the oldest record in the ring.
    Oldest,
    /// With the record after this sequence; what of it is gone comes as a gap.
    After(u64),
    /// With the first record of at least this time on a stamped bus, else with one shortly before it.
    Since(SystemTime),
    /// Where the reader of this name left off; with the oldest record if the name is new. Registered readers only.
    Resume,
}

impl Attached {
    /// Turns a start into what was asked for and where it can begin.
    pub(crate) fn start(&self, start: Start) -> Result<(u64, Place)> {
        let ring = &self.ring;
        let (asked, place) = match start {
            Start::Latest => {
                let head = ring.head();
                return Ok((head.sequence, head));
            }
            Start::Oldest | Start::Resume => {
                let oldest = ring.seek(Seek::Oldest);
                (oldest.sequence, oldest)
            }
            Start::After(sequence) => {
                let next = ring.head().sequence;
                if sequence >= next {
                    return Err(Error::FutureSequence { asked: sequence, next });
                }
                (sequence + 1, ring.seek(Seek::Sequence(sequence + 1)))
            }
            Start::Since(time) => {
                let place = ring.seek(Seek::Time(sys::nanos_of(time)));
                (place.sequence, place)
            }
        };
        Ok((asked, self.not_too_old(place)))
    }

    /// Moves a place up to the first record that is not older than the bus replays.
    pub(crate) fn not_too_old(&self, place: Place) -> Place {
        if self.facts.max_age == 0 {
            return place;
        }
        let young = self.ring.seek(Seek::Time(sys::wall_clock().saturating_sub(self.facts.max_age)));
        if young.sequence > place.sequence { young } else { place }
    }
}

/// The cursor of a slot whose owner may have died between its two words: the header at the position decides; if that is gone, the
/// older word counts, so that a gap may be told too long and never too short.
pub(crate) fn recover_cursor(ring: &Ring, slot: Slot<'_>, head: Place) -> Place {
    let (position, sequence) = slot.cursor();
    let sequence = sequence.min(head.sequence);
    if position > head.position || !position.is_multiple_of(layout::ALIGN) {
        return Place { position: 0, sequence };
    }
    if position == head.position {
        return head;
    }
    let commit = ring.commit_word(position).load(Ordering::Acquire);
    let own = ring.sequence_word(position).load(Ordering::Relaxed);
    let decides = commit != 0 && ring.intact(position) && own >= sequence && own <= head.sequence;
    Place { position, sequence: if decides { own } else { sequence } }
}

/// Where a reader whose cursor the table remembers goes on: right there if that is intact, which the seek index, that knows the
/// boundaries of stripes only, could miss by a stripe; else at the oldest record after it.
pub(crate) fn resume(ring: &Ring, cursor: Place) -> Place {
    if ring.holds(cursor) && ring.leads_on(cursor) { cursor } else { ring.seek(Seek::Sequence(cursor.sequence)) }
}
