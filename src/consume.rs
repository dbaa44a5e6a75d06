//! The reading half of the protocol: from a place in the ring to the next record, validated, for registered readers and observers alike.
//!
//! # Which line to poll
//!
//! A reader that is behind drains up to the head it last saw and touches no line that the writer is about to write. A reader
//! that has caught up polls the commit word where the next record will be: one cache-line transfer a record. Only after
//! a record was there without waiting does it look at the head, to learn how far behind it is.

use crate::layout::Commit;
use crate::map::load_bytes;
use crate::ring::{Look, Place, Ring};

/// A record's header at a validated place, and where its payload lies.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) commit: Commit,
    /// Where the next record starts.
    end: u64,
    /// First word of the payload.
    word: usize,
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

/// Where a reader is.
pub(crate) struct Consumer {
    /// The next record wanted.
    pub(crate) next: Place,
    /// Everything below is known to be committed.
    seen: u64,
    /// Whether the last look found a record, so that there may be more behind it.
    streak: bool,
    /// Epoch of the latest close that the application knows of.
    pub(crate) told: u64,
}

impl Consumer {
    pub(crate) fn new(next: Place, told: u64) -> Self {
        Self { next, seen: next.position, streak: true, told }
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
                    let word = ring.geometry.word_at(self.next.position) + (ring.geometry.record_header() / 8) as usize;
                    return Step::Record(Found { place: self.next, commit: header.commit, end: header.end, word });
                }
                Look::Record(padding) => {
                    if !ring.intact(self.next.position) {
                        return Step::Lapped;
                    }
                    self.next.position = padding.end;
                }
                Look::Empty => {
                    self.streak = false;
                    return Step::Empty;
                }
                Look::Lapped => return Step::Lapped,
                Look::Corrupt(field, expected, found) => return Step::Corrupt(field, expected, found),
            }
        }
        Step::Empty
    }

    /// Learns how far it may drain; says whether the stream was closed just here.
    fn at_the_tip(&mut self, ring: &Ring) -> bool {
        if self.streak {
            self.seen = ring.head_position();
        }
        if let Some(closed) = ring.closed_since(self.told) {
            if self.next.position >= closed {
                return true;
            }
            self.seen = self.seen.min(closed);
        }
        false
    }

    /// Moves past a record.
    #[inline(always)]
    pub(crate) fn pass(&mut self, found: &Found) {
        self.next = Place { position: found.end, sequence: found.place.sequence + 1 };
        self.streak = true;
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

    pub(crate) fn word(&self) -> usize {
        self.word
    }

    /// Copies the payload out; false if the writer overtook the copy, whose bytes then mean nothing.
    #[inline(always)]
    pub(crate) fn copy(&self, ring: &Ring, into: &mut [u8]) -> bool {
        load_bytes(ring.words(), self.word, into);
        ring.intact(self.place.position)
    }

    /// Says whether header and payload read so far were intact.
    #[inline(always)]
    pub(crate) fn intact(&self, ring: &Ring) -> bool {
        ring.intact(self.place.position)
    }
}
