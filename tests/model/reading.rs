//! The model's readers: what each must see next, and what the table must say of it.

use crate::ops::Ask;
use crate::stream::{Place, Stream};
use lapwing::{Class, Gap, Next, Observer, Reader, Record, Result, State};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// The latest end of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) place: Place,
    pub(crate) epoch: u64,
    pub(crate) code: u32,
    pub(crate) reason: String,
}

/// What the next call must return.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    Record(u64),
    Empty,
    Gap(Gap),
    Evicted(Gap),
    Closed,
}

/// What lies where a reader looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Record(u64),
    Empty,
    Lapped,
    Closed,
}

/// Where a reader or observer looks, whatever the table says of it.
#[derive(Clone, Debug)]
pub(crate) struct Eyes {
    pub(crate) next: Place,
    /// Epoch of the latest close it knows of.
    pub(crate) told: u64,
    pub(crate) filter: Option<u32>,
}

impl Eyes {
    /// Looks, and goes past what it may: the record it returns, padding, and records it does not want.
    fn look(&mut self, stream: &Stream, ending: Option<&Ending>) -> Seen {
        loop {
            if ending.is_some_and(|ending| ending.epoch > self.told && self.next.position >= ending.place.position) {
                return Seen::Closed;
            }
            if self.next.position < stream.floor() {
                return Seen::Lapped;
            }
            let Some(record) = stream.records.get(self.next.sequence as usize) else { return Seen::Empty };
            let sequence = self.next.sequence;
            self.next = Place { position: record.end, sequence: sequence + 1 };
            if self.filter.is_none_or(|value| record.tag & 1 == value) {
                return Seen::Record(sequence);
            }
        }
    }

    /// Whether a call would return at once. Who had only padding overwritten goes on behind it, where there may be nothing.
    fn something_there(&self, stream: &Stream, ending: Option<&Ending>) -> bool {
        let mut eyes = self.clone();
        loop {
            match eyes.look(stream, ending) {
                Seen::Empty => return false,
                Seen::Lapped if eyes.move_up(stream).is_empty() => {}
                _ => return true,
            }
        }
    }

    /// Where one goes on that the writer has overtaken.
    fn move_up(&mut self, stream: &Stream) -> Gap {
        let first = self.next.sequence;
        self.next = stream.clear();
        Gap { first, end: self.next.sequence.max(first) }
    }
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    pub(crate) slot: u32,
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) class: Class,
    pub(crate) hold: bool,
    pub(crate) state: State,
    pub(crate) start: u64,
    pub(crate) cursor: Place,
    pub(crate) missed: u64,
    /// A gap ahead of the cursor: counts as missed, with its total, once the cursor is past it.
    pub(crate) jump: Option<(u64, u64)>,
    /// A gap that the reader may not know of.
    pub(crate) untold: Option<Gap>,
    pub(crate) told: u64,
    pub(crate) evictions: u64,
}

impl Seat {
    pub(crate) fn gates(&self) -> bool {
        self.class.gates() && (self.state == State::Active || self.state == State::Detached && self.hold)
    }

    pub(crate) fn alive(&self, handles: &[Handle]) -> bool {
        handles.iter().any(|handle| handle.slot == self.slot)
    }

    pub(crate) fn move_cursor(&mut self, to: Place) {
        self.cursor = to;
        if let Some((end, total)) = self.jump
            && end <= to.sequence
        {
            (self.missed, self.jump) = (total, None);
        }
    }

    pub(crate) fn prepare_jump(&mut self, gap: Gap) {
        let before = match self.jump {
            Some((end, total)) if end <= gap.first => total,
            _ => self.missed,
        };
        self.jump = Some((gap.end, before + gap.count()));
        let first = match self.untold {
            Some(untold) if untold.end == gap.first && gap.first != 0 => untold.first,
            _ => gap.first,
        };
        self.untold = Some(Gap { first, end: gap.end });
    }

    pub(crate) fn reset_books(&mut self, start: u64) {
        (self.start, self.missed, self.jump, self.untold) = (start, 0, None, None);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    Gap(Gap),
    /// Told; the next call shows that the reader knows.
    Receipt,
}

/// A registered reader and what the model knows of it.
pub(crate) struct Handle {
    pub(crate) reader: Reader,
    pub(crate) slot: u32,
    pub(crate) auto: bool,
    pub(crate) eyes: Eyes,
    pub(crate) owed: Owed,
    /// Whether something was handed out that is not committed.
    pub(crate) dirty: bool,
    /// Whether a gap waits for the application's commit.
    pub(crate) jumped: bool,
    pub(crate) told_evicted: bool,
}

impl Handle {
    /// What every call begins with.
    pub(crate) fn begin(&mut self, seat: &mut Seat) -> Option<Gap> {
        if self.auto && std::mem::take(&mut self.dirty) {
            seat.move_cursor(self.eyes.next);
        }
        match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Gap(gap) => {
                self.owed = Owed::Receipt;
                Some(gap)
            }
            Owed::Receipt => {
                seat.untold = None;
                None
            }
            Owed::Nothing => None,
        }
    }

    /// The next thing, and where it leaves the reader.
    pub(crate) fn poll(&mut self, seat: &mut Seat, stream: &Stream, ending: Option<&Ending>) -> Expect {
        let seen = self.eyes.look(stream, ending);
        if seen == Seen::Lapped && seat.state != State::Evicted {
            return self.lapped(seat, stream, ending);
        }
        if let Seen::Record(sequence) = seen {
            self.dirty = true;
            return Expect::Record(sequence);
        }
        if seat.state == State::Evicted {
            self.told_evicted = true;
            let first = self.eyes.next.sequence;
            return Expect::Evicted(Gap { first, end: stream.oldest().sequence.max(first) });
        }
        // Records that the filter skipped are done with, unless one handed out before them waits for its commit.
        if self.auto || !self.dirty {
            seat.move_cursor(self.eyes.next);
            self.dirty = false;
        }
        match seen {
            Seen::Closed => {
                self.eyes.told = ending.expect("a close was seen").epoch;
                seat.told = self.eyes.told;
                Expect::Closed
            }
            Seen::Empty | Seen::Lapped | Seen::Record(_) => Expect::Empty,
        }
    }

    fn lapped(&mut self, seat: &mut Seat, stream: &Stream, ending: Option<&Ending>) -> Expect {
        assert_eq!(seat.class, Class::Lossy, "a reader that gates was overtaken: {seat:?}");
        if std::mem::take(&mut self.jumped) {
            // With the first gap goes whatever was handed out behind it.
            seat.move_cursor(self.eyes.next);
            self.dirty = false;
        }
        let gap = self.eyes.move_up(stream);
        if gap.is_empty() {
            // Only the padding before its next record was overwritten: then is no gap.
            return self.poll(seat, stream, ending);
        }
        seat.prepare_jump(gap);
        (self.jumped, self.dirty, self.owed) = (!self.auto, !self.auto, Owed::Receipt);
        if self.auto {
            seat.move_cursor(self.eyes.next);
        }
        Expect::Gap(gap)
    }

    /// Whether a blocking call would return at once.
    pub(crate) fn something_there(&self, seat: &Seat, stream: &Stream, ending: Option<&Ending>) -> bool {
        matches!(self.owed, Owed::Gap(_)) || seat.state == State::Evicted || self.eyes.something_there(stream, ending)
    }
}

/// An observer and what the model knows of it.
pub(crate) struct Watcher {
    pub(crate) observer: Observer,
    pub(crate) eyes: Eyes,
    pub(crate) owed: Option<Gap>,
}

impl Watcher {
    pub(crate) fn poll(&mut self, stream: &Stream, ending: Option<&Ending>) -> Expect {
        match self.eyes.look(stream, ending) {
            Seen::Record(sequence) => Expect::Record(sequence),
            Seen::Empty => Expect::Empty,
            Seen::Lapped => match self.eyes.move_up(stream) {
                gap if gap.is_empty() => self.poll(stream, ending),
                gap => Expect::Gap(gap),
            },
            Seen::Closed => {
                self.eyes.told = ending.expect("a close was seen").epoch;
                Expect::Closed
            }
        }
    }

    pub(crate) fn something_there(&self, stream: &Stream, ending: Option<&Ending>) -> bool {
        self.owed.is_some() || self.eyes.something_there(stream, ending)
    }
}

/// The calls that readers and observers share.
pub(crate) trait Reads {
    fn ask(&mut self, ask: Ask) -> Result<Next<'_>>;
    fn drain_into(&mut self, max: usize, handle: &mut dyn FnMut(Record<'_>)) -> Result<(usize, Next<'_>)>;
}

macro_rules! reads {
    ($type:ty) => {
        impl Reads for $type {
            fn ask(&mut self, ask: Ask) -> Result<Next<'_>> {
                match ask {
                    Ask::Next => self.next(),
                    Ask::Timeout => self.next_timeout(Duration::ZERO),
                    Ask::Try | Ask::Drain(_) => self.try_next(),
                }
            }

            fn drain_into(&mut self, max: usize, handle: &mut dyn FnMut(Record<'_>)) -> Result<(usize, Next<'_>)> {
                self.drain(max, handle)
            }
        }
    };
}
reads!(Reader);
reads!(Observer);

/// Time stamps seen so far: a record's never changes, and none is earlier than that of a record before it.
#[derive(Default)]
pub(crate) struct Stamps(HashMap<u64, SystemTime>);

impl Stamps {
    /// Compares a record with what was published.
    pub(crate) fn check(&mut self, record: &Record<'_>, sequence: u64, stream: &Stream) {
        let published = &stream.records[sequence as usize];
        assert_eq!(record.sequence(), sequence);
        assert_eq!(record.tag(), published.tag, "tag of {sequence}");
        assert!(record.payload() == published.payload, "payload of {sequence}: {:?}", record.payload());
        assert!(record.payload().as_ptr().addr().is_multiple_of(8));
        assert_eq!(record.stamp().is_some(), stream.stamped);
        let Some(stamp) = record.stamp() else { return };
        assert_eq!(*self.0.entry(sequence).or_insert(stamp), stamp);
        for (neighbour, earlier) in [(sequence.wrapping_sub(1), true), (sequence + 1, false)] {
            if let Some(&other) = self.0.get(&neighbour) {
                assert!(if earlier { other <= stamp } else { stamp <= other }, "time runs backwards at {sequence}");
            }
        }
    }
}

/// Compares what came with what had to come.
pub(crate) fn compare(
    next: &Next<'_>,
    expected: &Expect,
    stream: &Stream,
    ending: Option<&Ending>,
    stamps: &mut Stamps,
) {
    match (next, expected) {
        (Next::Record(record), Expect::Record(sequence)) => stamps.check(record, *sequence, stream),
        (Next::Empty, Expect::Empty) => {}
        (Next::Gap(gap), Expect::Gap(wanted)) => {
            assert_eq!(gap, wanted);
            assert!(!gap.is_empty(), "an empty gap was reported: {gap:?}");
        }
        (Next::Evicted(gap), Expect::Evicted(wanted)) => assert_eq!(gap, wanted),
        (Next::Closed(closed), Expect::Closed) => {
            let ending = ending.expect("the stream was closed");
            assert_eq!((closed.sequence, closed.epoch), (ending.place.sequence, ending.epoch));
            assert_eq!((closed.code, &closed.reason), (ending.code, &ending.reason));
        }
        _ => panic!("{next:?} came, the model says {expected:?}"),
    }
}
