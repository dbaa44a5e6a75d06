//! The reading half of the protocol: from a place in the ring to the next record, validated, for registered readers and observers alike.
//!
//! # Which line to poll
//!
//! A reader that is behind drains up to the head it last saw and touches no line that the writer is about to write. A reader
//! that has caught up polls the commit word where the next record will be: one cache-line transfer a record. Only when records come
//! one upon the other, or were there before it looked, does it look at the head, to learn how far it may drain; and it lets a
//! writer that streams get ahead.
//!
//! What it may take without looking at either is its [`Window`]: the committed words from the next record on. A shut window stands for
//! everything else (the tip, a wrap, the end of the stream), so the comparison that checks the bounds decides all of that.

use crate::layout::{COMMITTED, Commit, RECORD_HEADER, RECORD_HEADER_WORDS, filled_words, ring as at};
use crate::map::Window;
use crate::ring::{Look, Place, Ring};
use crate::sync::{AtomicU64, Ordering, hint};
use crate::sys;
use std::time::Duration;

/// A record's header, and where it lies.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) commit: Commit,
    /// Words up to the next record.
    words: usize,
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

/// What a glance at the next record gave.
pub(crate) enum Glance<'a> {
    /// A plain record, with the words of its payload and filling; not validated yet.
    Record(Found, &'a [AtomicU64]),
    /// The reader is at the tip and no record is there; not validated either, see [`Consumer::plainly_empty`].
    Nothing,
    /// Something else: [`Consumer::look`] finds out what.
    Special,
}

/// What the window can be opened to.
enum Tip {
    Open,
    Nothing,
    Special,
}

/// So many records in a row make a stream, if they come closer together than two of its records could by ping-pong between most cores; after each
/// pause that shows that they did not, twice as many, up to a bound.
const BURST: u64 = 16;
const LONGEST_BURST: u64 = 4096;
const SOON: Duration = Duration::from_nanos(200);

/// Pauses of a reader that has caught up with a stream: about a microsecond, in which the writer gets some hundred records ahead.
const PACE: u32 = 24;
/// Empty looks after which the head is asked whether there really is nothing.
const DOUBT: u32 = 1 << 12;

/// Bytes that a stream should be ahead: a reader that drains less takes the lines away from under the writer.
const GAIN: u64 = 4096;
/// Looks that are paced so before the tip itself is polled.
const PACED: u32 = 2;

/// Where a reader is.
pub(crate) struct Consumer {
    /// The next record wanted.
    pub(crate) next: Place,
    /// From `next` on, or shut: see the module's head.
    window: Window,
    /// Whether all that is wanted of a record is its payload: no time stamp, no filter. Otherwise the window stays shut.
    pub(crate) plain: bool,
    /// What the next record probably is like.
    alike: Alike,
    /// Everything below is known to be committed.
    seen: u64,
    /// Records found one after the other with hardly any waiting in between, as of `counted`.
    streak: u64,
    /// A streak as long as this means that the writer is streaming.
    burst: u64,
    /// Sequence up to which records are counted in `streak`, and when the last of them was, in ticks.
    counted: u64,
    counted_at: u64,
    /// Ticks between the records of a stream, at most.
    soon: u64,
    /// Looks since the last record that found nothing.
    empty: u32,
    /// Epoch of the latest close that the application knows of.
    pub(crate) told: u64,
    /// Epoch of the close that it stands at, once it was found.
    pub(crate) closing: u64,
}

impl Consumer {
    pub(crate) fn new(ring: &Ring, next: Place, told: u64) -> Self {
        Self {
            next,
            window: ring.map().no_window(),
            plain: !ring.geometry.stamped,
            alike: Alike::EMPTY,
            seen: next.position,
            streak: BURST,
            burst: BURST,
            counted: next.sequence,
            counted_at: 0,
            soon: sys::ticks_in(SOON),
            empty: 0,
            told,
            closing: told,
        }
    }

    /// Looks at the next record; its payload is not validated yet.
    #[inline(always)]
    pub(crate) fn look(&mut self, ring: &Ring) -> Step {
        self.window.shut();
        // Twice, since padding is followed by a record.
        for _ in 0..2 {
            let at_the_tip = self.next.position >= self.seen;
            if at_the_tip {
                self.count();
                self.streams(ring);
            }
            let look = ring.look(self.next);
            // Asked after the look, so that a close that came before the record found is told before it.
            if at_the_tip && self.is_at_the_end(ring) {
                return Step::Closed;
            }
            match look {
                Look::Record(header) if !header.commit.is_padding() => {
                    let words = ((header.end - self.next.position) / 8) as usize;
                    return Step::Record(Found { place: self.next, commit: header.commit, words });
                }
                Look::Record(padding) => {
                    if !ring.intact(self.next.position) {
                        return Step::Lapped;
                    }
                    self.next.position = padding.end;
                }
                Look::Empty => {
                    self.empty += 1;
                    if self.empty > DOUBT || !at_the_tip {
                        self.empty = PACED;
                        if ring.is_wiped(self.next.position) {
                            return Step::Corrupt("a record's commit word", COMMITTED, 0);
                        }
                    }
                    return Step::Empty;
                }
                Look::Lapped => return Step::Lapped,
                Look::Corrupt(field, expected, found) => return Step::Corrupt(field, expected, found),
            }
        }
        Step::Empty
    }

    /// The next record if it is a plain one.
    #[inline(always)]
    pub(crate) fn glance(&mut self, ring: &Ring) -> Glance<'_> {
        if self.window.len() < RECORD_HEADER_WORDS {
            match self.open_window(ring) {
                Tip::Open => {}
                Tip::Nothing => return Glance::Nothing,
                Tip::Special => return Glance::Special,
            }
        }
        let Some((commit, payload, _)) = plain(&self.window, self.next.sequence, &mut self.alike) else {
            return Glance::Special;
        };
        let words = RECORD_HEADER_WORDS + payload.len();
        Glance::Record(Found { place: self.next, commit, words }, payload)
    }

    /// Learns what can be taken from here on.
    #[inline(always)]
    fn open_window(&mut self, ring: &Ring) -> Tip {
        if !self.plain {
            return Tip::Special;
        }
        if self.next.position >= self.seen {
            self.count();
            if !self.streams(ring) {
                // Acquire pairs with the Release store of the commit word; a close before that record is seen, too.
                let commit = Commit(ring.commit_word(self.next.position).load(Ordering::Acquire));
                if !commit.is_plain() {
                    return if commit.0 == 0 { Tip::Nothing } else { Tip::Special };
                }
                self.seen = self.next.position + ring.geometry.record_size(commit.length());
                if self.empty == 0 {
                    // It was there at the first look, so there may be more: the reader is behind.
                    self.seen = self.seen.max(ring.head_position());
                }
            }
            if self.is_at_the_end(ring) {
                return Tip::Special;
            }
        }
        ring.map().open(&mut self.window, self.next.position, self.seen);
        Tip::Open
    }

    /// Says whether the nothing that a glance has just given is all there is to say: no close, not lapped.
    #[inline(always)]
    pub(crate) fn plainly_empty(&mut self, ring: &Ring) -> bool {
        let empty = self.empty < DOUBT && ring.closed_since(self.told).is_none() && ring.intact(self.next.position);
        if empty {
            self.empty += 1;
        }
        empty
    }

    /// Counts the records passed since it was last at the tip.
    #[inline(always)]
    fn count(&mut self) {
        let passed = self.next.sequence.wrapping_sub(self.counted);
        if passed != 0 {
            let now = sys::ticks();
            let soon = now.wrapping_sub(self.counted_at) < passed.saturating_mul(self.soon);
            self.streak = if soon { self.streak.saturating_add(passed) } else { 0 };
            (self.counted, self.counted_at) = (self.next.sequence, now);
            self.empty = 0;
        }
    }

    /// In a stream, looks how far head has come; says whether there is more to drain.
    #[inline(always)]
    fn streams(&mut self, ring: &Ring) -> bool {
        if self.streak < self.burst {
            return false;
        }
        self.seen = ring.head_position();
        if self.next.position + GAIN > self.seen && self.empty < PACED {
            self.let_writer_gain(ring);
        }
        self.next.position < self.seen
    }

    /// Keeps within the stream's end; says whether it is just here.
    #[inline(always)]
    fn is_at_the_end(&mut self, ring: &Ring) -> bool {
        let Some((epoch, closed)) = ring.closed_since(self.told) else { return false };
        // Bounded first: who asks twice gets the same answer.
        self.seen = self.seen.min(closed);
        let end = self.next.position >= closed;
        if end {
            self.closing = epoch;
        }
        end
    }

    /// Leaves the writer's lines alone for a moment.
    ///
    /// A reader that takes each record the moment it is there makes writer and reader hand over a line a record: some ten million
    /// a second, where a stream that is drained in stretches makes ten times as many. Both states are stable; this leads out of the slow one.
    ///
    /// A writer that waits for an answer to each record gains nothing by it. Between cores that share a cache that is as fast as a slow stream
    /// between others, and only this tells the two apart.
    #[cold]
    fn let_writer_gain(&mut self, ring: &Ring) {
        for _ in 0..PACE {
            hint::spin_loop();
        }
        self.seen = ring.head_position();
        if ring.get(at::HEAD_SEQUENCE) > self.next.sequence + 1 {
            self.burst = BURST;
        } else {
            self.burst = (2 * self.burst).min(LONGEST_BURST);
            self.streak = 0;
        }
    }

    /// Moves past a record.
    #[inline(always)]
    pub(crate) fn pass(&mut self, found: &Found) {
        let Place { position, sequence } = found.place;
        self.window.skip(found.words);
        self.next = Place { position: position + found.words as u64 * 8, sequence: sequence + 1 };
    }

    /// Moves back before the record that was passed last: it comes again.
    #[inline(always)]
    pub(crate) fn put_back(&mut self, found: &Found) {
        self.window.shut();
        self.next = found.place;
    }

    /// The records that can be taken without another look, to be worked through in a stretch that ends with [`Self::end_burst`].
    #[inline(always)]
    pub(crate) fn burst(&mut self, ring: &Ring) -> Option<Burst<'_>> {
        if self.window.len() < RECORD_HEADER_WORDS && !matches!(self.open_window(ring), Tip::Open) {
            return None;
        }
        Some(Burst { words: &self.window, next: self.next, alike: self.alike })
    }

    /// Moves past what a burst has taken.
    #[inline(always)]
    pub(crate) fn end_burst(&mut self, end: End) {
        self.window.skip(((end.next.position - self.next.position) / 8) as usize);
        (self.next, self.alike) = (end.next, end.alike);
    }

    /// Makes the next look that finds nothing ask the head as well.
    pub(crate) fn doubt(&mut self) {
        self.empty = self.empty.max(DOUBT);
    }

    /// Goes elsewhere.
    pub(crate) fn go_to(&mut self, ring: &Ring, place: Place) {
        *self = Self { plain: self.plain, ..Self::new(ring, place, self.told) };
    }
}

/// A stretch of committed records, with the place of the first that is not taken yet.
#[derive(Clone, Copy)]
pub(crate) struct Burst<'a> {
    words: &'a [AtomicU64],
    pub(crate) next: Place,
    alike: Alike,
}

/// Where a burst ended.
pub(crate) struct End {
    next: Place,
    alike: Alike,
}

impl<'a> Burst<'a> {
    /// The next record if it is a plain one, with the words of its payload and filling, not validated yet, and the burst behind it.
    #[inline(always)]
    pub(crate) fn glance(&self) -> Option<(Commit, &'a [AtomicU64], Self)> {
        let Place { position, sequence } = self.next;
        let mut alike = self.alike;
        let (commit, payload, words) = plain(self.words, sequence, &mut alike)?;
        let end = position + RECORD_HEADER + alike.words as u64 * 8;
        Some((commit, payload, Self { words, next: Place { position: end, sequence: sequence + 1 }, alike }))
    }

    pub(crate) fn end(&self) -> End {
        End { next: self.next, alike: self.alike }
    }
}

/// The shape of the record before, and the words of its payload and filling.
///
/// Where a record starts follows from the length of the one before, so that reading is a chain of loads, each waiting for the one before it to
/// arrive from the other core. But most records are like the one before: as that is told by a branch, the processor goes on before it knows.
#[derive(Clone, Copy)]
struct Alike {
    /// That of a plain record.
    shape: u32,
    words: usize,
}

impl Alike {
    /// A plain record without payload.
    const EMPTY: Self = Self { shape: Commit::record(0, 0).shape(), words: 0 };

    /// Out of line, so that it stays a branch. `None` if that is no plain record.
    #[cold]
    #[inline(never)]
    fn to(commit: Commit) -> Option<Self> {
        commit.is_plain().then(|| Self { shape: commit.shape(), words: filled_words(commit.length() as usize) })
    }
}

/// The plain record of this sequence at the start of some words: its commit word, the words of its payload and filling, and those behind it.
#[inline(always)]
fn plain<'w>(
    words: &'w [AtomicU64],
    sequence: u64,
    alike: &mut Alike,
) -> Option<(Commit, &'w [AtomicU64], &'w [AtomicU64])> {
    let [commit, own, rest @ ..] = words else { return None };
    // Relaxed: whoever opened the window has acquired all that lies in it.
    let commit = Commit(commit.load(Ordering::Relaxed));
    if commit.shape() != alike.shape {
        *alike = Alike::to(commit)?;
    }
    if own.load(Ordering::Relaxed) != sequence {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(alike.words)?;
    Some((commit, payload, rest))
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
