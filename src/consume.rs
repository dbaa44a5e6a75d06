//! The reading half of the protocol: from a place in the ring to the next record, validated, for registered readers and observers alike.
//!
//! # Which line to poll
//!
//! A reader that is behind drains up to the head it last saw and touches no line that the writer is about to write. A reader
//! that has caught up polls the commit word where the next record will be: one cache-line transfer a record. Only after
//! a record was there without waiting does it look at the head, to learn how far behind it is.

use crate::layout::Commit;
use crate::ring::{Look, Place, Ring};
use crate::sync::{AtomicU64, Ordering, hint};

/// A record's header, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) commit: Commit,
    /// Where the next record starts.
    end: u64,
}

/// What a look at the next record gave.
pub(crate) enum Step {
    Record(Found),
    Empty,
    /// The stream was closed here, and the application has not been told.
    Closed,
    Lapped,
    Corrupt(&'static str, u64, u64),
}

/// Pauses of a reader that has just caught up.
const PACE: u32 = 2;

/// Where a reader is.
pub(crate) struct Consumer {
    /// The next record wanted.
    pub(crate) next: Place,
    /// Everything below is known to be committed.
    seen: u64,
    /// Records found one after the other without waiting: from the second on there may be more behind.
    streak: u64,
    /// Epoch of the latest close that the application knows of.
    pub(crate) told: u64,
    /// Epoch of the close that it stands at, once it was found.
    pub(crate) closing: u64,
}

impl Consumer {
    pub(crate) fn new(next: Place, told: u64) -> Self {
        Self { next, seen: next.position, streak: 2, told, closing: told }
    }

    /// Looks at the next record; its payload is not validated yet.
    #[inline(always)]
    pub(crate) fn look(&mut self, ring: &Ring) -> Step {
        // Twice, since padding is followed by a record.
        for _ in 0..2 {
            if self.next.position >= self.seen && self.at_the_tip(ring) {
                return Step::Closed;
            }
            match ring.look(self.next) {
                Look::Record(header) if !header.commit.is_padding() => {
                    return Step::Record(Found { place: self.next, commit: header.commit, end: header.end });
                }
                Look::Record(padding) => {
                    if !ring.intact(self.next.position) {
                        return Step::Lapped;
                    }
                    self.next.position = padding.end;
                }
                Look::Empty => {
                    self.streak = 0;
                    return Step::Empty;
                }
                Look::Lapped => return Step::Lapped,
                Look::Corrupt(field, expected, found) => return Step::Corrupt(field, expected, found),
            }
        }
        Step::Empty
    }

    /// The next record if it is a plain one, with the words of its payload and filling; `None` says nothing, see [`Self::look`].
    #[inline(always)]
    pub(crate) fn glance<'r>(&mut self, ring: &'r Ring) -> Option<(Found, &'r [AtomicU64])> {
        let place = self.next;
        if place.position >= self.seen && self.at_the_tip(ring) {
            return None;
        }
        let (commit, size, payload) = ring.plain(place)?;
        Some((Found { place, commit, end: place.position + size }, payload))
    }

    /// Says whether, after a glance that gave nothing, there is plainly nothing: no record, no close, not lapped.
    #[inline(always)]
    pub(crate) fn plainly_empty(&mut self, ring: &Ring) -> bool {
        let empty = self.next.position >= self.seen
            && ring.closed_since(self.told).is_none()
            && ring.commit_word(self.next.position).load(Ordering::Acquire) == 0
            && ring.intact(self.next.position);
        if empty {
            self.streak = 0;
        }
        empty
    }

    /// Learns how far it may drain; says whether the stream was closed just here.
    fn at_the_tip(&mut self, ring: &Ring) -> bool {
        if self.streak >= 2 {
            self.seen = ring.head_position();
            if self.next.position >= self.seen {
                self.caught_up();
            }
        }
        if let Some((epoch, closed)) = ring.closed_since(self.told) {
            // Bounded first: who asks twice gets the same answer.
            self.seen = self.seen.min(closed);
            if self.next.position >= closed {
                self.closing = epoch;
                return true;
            }
        }
        false
    }

    /// After a burst: leaves the writer's lines alone for a moment, so that it can get ahead, and polls the tip from then on.
    #[cold]
    fn caught_up(&mut self) {
        self.streak = 0;
        for _ in 0..PACE {
            hint::spin_loop();
        }
    }

    /// Moves past a record.
    #[inline(always)]
    pub(crate) fn pass(&mut self, found: &Found) {
        self.next = Place { position: found.end, sequence: found.place.sequence + 1 };
        self.streak = self.streak.wrapping_add(1);
    }

    /// The position below which everything is known to be committed.
    #[inline(always)]
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Goes elsewhere.
    pub(crate) fn go_to(&mut self, place: Place) {
        *self = Self::new(place, self.told);
    }
}

impl Found {
    pub(crate) fn length(&self) -> usize {
        self.commit.length() as usize
    }

    /// The payload's words.
    #[inline(always)]
    pub(crate) fn payload<'r>(&self, ring: &'r Ring) -> &'r [AtomicU64] {
        ring.payload(self.place.position, self.length()).unwrap_or_default()
    }
}
