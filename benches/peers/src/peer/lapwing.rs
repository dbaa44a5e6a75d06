//! lapwing itself: every class of reader, and every way to publish.

use super::{Driver, Error, Facts, Kind, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use crate::record::{self, Source};
use lapwing::{Class, Next, Observer, Options, Policy, Reader, Start, Wait, Writer};

/// Returns the size of the ring: as many bytes as a ring of bare payloads has. A record takes a quarter at most.
pub fn capacity(at: &At) -> u64 {
    (at.job.ring_bytes().max(8 * at.job.size).max(4096) as u64).next_power_of_two()
}

/// Returns how many readers can register.
pub fn slots(at: &At) -> u32 {
    at.job.readers.next_power_of_two().max(128) as u32
}

/// Records in a batch.
const BATCH: usize = 32;
/// Records handed over by one `drain`.
const DRAIN: usize = 256;

/// How the reader reads.
pub const COPY: u8 = 0;
pub const DRAINS: u8 = 1;
pub const PINNED: u8 = 2;
pub const LOSSY: u8 = 3;
pub const OBSERVER: u8 = 4;

/// How the writer publishes.
pub const PUBLISH: u8 = 0;
pub const CLAIM: u8 = 1;
pub const BATCHES: u8 = 2;

/// A way to read and a way to publish.
pub struct Lapwing<const READ: u8, const WRITE: u8>;

const fn name(read: u8, write: u8) -> &'static str {
    match (read, write) {
        (COPY, PUBLISH) => "lapwing",
        (DRAINS, PUBLISH) => "lapwing-drain",
        (PINNED, PUBLISH) => "lapwing-pinned",
        (LOSSY, PUBLISH) => "lapwing-lossy",
        (OBSERVER, PUBLISH) => "lapwing-observer",
        (COPY, CLAIM) => "lapwing-claim",
        (DRAINS, BATCHES) => "lapwing-batch",
        (PINNED, BATCHES) => "lapwing-pinned-batch",
        _ => panic!("no such variant"),
    }
}

const fn setting(read: u8, write: u8) -> &'static str {
    match (read, write) {
        (COPY, PUBLISH) => "publish, try_next one by one (copied out)",
        (DRAINS, PUBLISH) => "publish, drain (copied out, one commit for up to 256 records)",
        (PINNED, PUBLISH) => {
            "publish; a pinned reader (borrowed from the ring), drain in streams, try_next in ping-pong"
        }
        (LOSSY, PUBLISH) => "publish; a lossy reader, drain in streams, try_next in ping-pong",
        (OBSERVER, PUBLISH) => "publish; an observer, drain in streams, try_next in ping-pong",
        (COPY, CLAIM) => "claim and commit, try_next (copied out)",
        (DRAINS, BATCHES) => "batches of 32, drain",
        (PINNED, BATCHES) => "batches of 32, drain by a pinned reader",
        _ => panic!("no such variant"),
    }
}

impl<const READ: u8, const WRITE: u8> Driver for Lapwing<READ, WRITE> {
    const FACTS: Facts = Facts {
        name: name(READ, WRITE),
        kind: Kind::Lapwing,
        lossless: READ != LOSSY && READ != OBSERVER,
        max_readers: 512,
        // The default capacity.
        stream_bytes: 4 << 20,
        // A stripe boundary is work: an eighth of a small ring comes round every few records.
        latency_bytes: 1 << 20,
        max_slots: 65_536,
        stream_idle: Idle::Spin,
        more: match (READ, WRITE) {
            (COPY, PUBLISH) => &[
                Measure::Rate,
                Measure::Wake,
                Measure::Idle,
                Measure::Attach,
                Measure::Memory,
                Measure::Registered,
                Measure::Full,
            ],
            (PINNED, PUBLISH) => &[Measure::Rate, Measure::Registered],
            (OBSERVER, PUBLISH) => &[Measure::Attach, Measure::Memory],
            _ => &[],
        },
        not: if WRITE == BATCHES || READ == DRAINS { &[Measure::Latency] } else { &[] },
        setting: setting(READ, WRITE),
        advice: "its own documentation",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Publisher<WRITE>;
    type Receiver<const W: usize> = Listener<READ>;

    fn sender<const W: usize>(at: &At) -> Result<Publisher<WRITE>, Error> {
        let mut writer = Options::new().capacity(capacity(at)).readers(slots(at)).prefault(true).create(at.path())?;
        writer.set_policy(Policy::Wait(None));
        Ok(Publisher { writer })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Listener<READ>, Error> {
        let path = at.path();
        if READ == OBSERVER {
            let mut observer = Observer::open(path, Start::Oldest)?;
            observer.set_wait(Wait::Park);
            return Ok(Listener { reader: None, observer: Some(observer), stream: at.is_stream() });
        }
        let class = match READ {
            PINNED => Class::Pinned,
            LOSSY => Class::Lossy,
            _ => Class::Gating,
        };
        let options = Reader::options().class(class).start(Start::Oldest).prefault(at.job.measure != Measure::Attach);
        Ok(Listener { reader: Some(options.open(path)?), observer: None, stream: at.is_stream() })
    }
}

pub struct Publisher<const WRITE: u8> {
    writer: Writer,
}

impl<const W: usize, const WRITE: u8> Sender<W> for Publisher<WRITE> {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        let bytes = record::bytes(record);
        if WRITE == CLAIM {
            let mut claim = self.writer.claim(0, bytes.len()).expect("claim");
            claim.as_mut_slice().copy_from_slice(bytes);
            let _ = claim.commit();
        } else {
            self.writer.publish(bytes).expect("publish");
        }
    }

    #[inline(always)]
    fn send_many(&mut self, source: &mut Source<W>, count: usize) {
        if WRITE != BATCHES {
            for _ in 0..count {
                self.send(source.next());
            }
            return;
        }
        // A batch takes at most a quarter of the ring.
        let fits = (self.writer.max_record() / (W * 8 + 32)).clamp(1, BATCH);
        let mut left = count;
        while left > 0 {
            let size = left.min(fits);
            let mut batch = self.writer.batch();
            for _ in 0..size {
                batch.push(record::bytes(source.next())).expect("push");
            }
            let _ = batch.commit();
            left -= size;
        }
    }

    fn try_send(&mut self, record: &[u64; W]) -> bool {
        self.writer.try_publish(record::bytes(record)).is_ok()
    }
}

pub struct Listener<const READ: u8> {
    reader: Option<Reader>,
    observer: Option<Observer>,
    stream: bool,
}

/// Hands over what a call for one record returned.
#[inline(always)]
fn one<const W: usize>(next: lapwing::Result<Next<'_>>, sink: &mut impl FnMut(&[u64; W])) -> usize {
    match next {
        Ok(Next::Record(record)) => {
            record::from_bytes(record.payload(), sink);
            1
        }
        other => nothing(other),
    }
}

fn nothing(next: lapwing::Result<Next<'_>>) -> usize {
    match next {
        Ok(Next::Empty | Next::Gap(_)) => 0,
        // The sender is gone: what it sent is here already.
        Ok(Next::Absent | Next::Closed(_) | Next::Replaced | Next::Orphaned) => 0,
        other => panic!("unexpected: {other:?}"),
    }
}

/// Drains a reader or an observer; the sink sees each record.
macro_rules! drain {
    ($from:expr, $sink:expr) => {
        match $from.drain(DRAIN, |record| record::from_bytes(record.payload(), $sink)) {
            Ok((count, Next::Empty)) => count,
            Ok((count, next)) => count + nothing(Ok(next)),
            Err(error) => panic!("drain: {error}"),
        }
    };
}

impl<const W: usize, const READ: u8> Receiver<W> for Listener<READ> {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let singly = READ == COPY || !self.stream;
        if READ == OBSERVER {
            let observer = self.observer.as_mut().expect("an observer");
            return if singly { one(observer.try_next(), sink) } else { drain!(observer, sink) };
        }
        let reader = self.reader.as_mut().expect("a reader");
        if singly { one(reader.try_next(), sink) } else { drain!(reader, sink) }
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let timeout = std::time::Duration::from_millis(200);
        match (self.reader.as_mut(), self.observer.as_mut()) {
            (Some(reader), _) => one(reader.next_timeout(timeout), sink),
            (_, Some(observer)) => one(observer.next_timeout(timeout), sink),
            _ => unreachable!("one of them is there"),
        }
    }
}
