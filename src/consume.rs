//! The reading half of the protocol: from a place in the ring to the next record, validated, for registered readers and observers alike.
//!
//! # Which line to poll
//!
//! A reader that is behind drains up to the head it last saw and touches no line that the writer is about to write. A reader
//! that has caught up polls the commit word where the next record will be: one cache-line transfer a record. Only when records come
//! one upon the other does it look at the head, to learn how far it may drain, and lets the writer get ahead.

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

/// So many records in a row make a stream, each found after fewer empty looks than this.
const BURST: u64 = 4;
const SOON: u32 = 16;

/// Pauses of a reader that has caught up with a stream: a few hundred nanoseconds, in which the writer gets some dozen records ahead.
const PACE: u32 = 8;
/// Looks that are paced so before the tip itself is polled.
const PACED: u32 = 2;

/// Where a reader is.
pub(crate) struct Consumer {
    /// The next record wanted.
    pub(crate) next: Place,
    /// Everything below is known to be committed.
    seen: u64,
    /// Records found one after the other with hardly any waiting in between: the writer is streaming.
    streak: u64,
    /// Looks since the last record that found nothing.
    empty: u32,
    /// Epoch of the latest close that the application knows of.
    pub(crate) told: u64,
    /// Epoch of the close that it stands at, once it was found.
    pub(crate) closing: u64,
}

impl Consumer {
    pub(crate) fn new(next: Place, told: u64) -> Self {
        Self { next, seen: next.position, streak: BURST, empty: 0, told, closing: told }
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
                    self.empty = self.empty.saturating_add(1);
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
            self.empty = self.empty.saturating_add(1);
        }
        empty
    }

    /// Learns how far it may drain; says whether the stream was closed just here.
    fn at_the_tip(&mut self, ring: &Ring) -> bool {
        if self.streak >= BURST {
            self.seen = ring.head_position();
            if self.next.position >= self.seen && self.empty < PACED {
                self.let_writer_gain();
                self.seen = ring.head_position();
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

    /// Leaves the writer's lines alone for a moment.
    ///
    /// A reader that takes each record the moment it is there makes writer and reader hand over a line a record: some ten million
    /// a second, where a stream that is drained in stretches makes ten times as many. Both states are stable; this leads out of the slow one.
    #[cold]
    fn let_writer_gain(&mut self) {
        for _ in 0..PACE {
            hint::spin_loop();
        }
    }

    /// Moves past a record.
    #[inline(always)]
    pub(crate) fn pass(&mut self, found: &Found) {
        self.next = Place { position: found.end, sequence: found.place.sequence + 1 };
        self.streak = if self.empty < SOON { self.streak.wrapping_add(1) } else { 0 };
        self.empty = 0;
    }

    /// Moves past records that were drained in a stretch.
    #[inline(always)]
    pub(crate) fn pass_to(&mut self, next: Place) {
        self.next = next;
        self.empty = 0;
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
