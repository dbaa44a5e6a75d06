//! A bus and its model, side by side: applies an operation to both and compares what each says.

use crate::common::{Place as Directory, Random};
use crate::ops::{Ask, From, How, Length, Op, Shape};
use crate::reading::{Ending, Handle, Seat, Stamps, Watcher};
use crate::stream::{Place, Record, Stream};
use lapwing::*;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

/// Byte of the ring's header at which limit lies; intent follows.
pub(crate) const LIMIT: u64 = 256;

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) _directory: Directory,
    pub(crate) path: PathBuf,
    pub(crate) ring: File,
    pub(crate) writer: Option<Writer>,
    pub(crate) epoch: u64,
    pub(crate) ending: Option<Ending>,
    pub(crate) stream: Stream,
    pub(crate) seats: BTreeMap<u32, Seat>,
    pub(crate) readers: Vec<Handle>,
    pub(crate) watchers: Vec<Watcher>,
    pub(crate) stamps: Stamps,
    pub(crate) ids: HashSet<u64>,
    /// Makes each payload another.
    pub(crate) salt: u64,
    pub(crate) bytes: u64,
    pub(crate) evictions: u64,
    pub(crate) takeovers: u64,
    /// Readers that the writer evicted since its events were looked at.
    pub(crate) evicted: Vec<(u64, Gap)>,
}

/// Why a publish must fail.
#[derive(Debug)]
enum Refusal {
    TooLarge,
    /// Readers in the way, by id.
    Overrun(HashSet<u64>),
}

impl World {
    pub(crate) fn new(shape: Shape) -> Self {
        let directory = Directory::new("model");
        let path = directory.bus();
        let options = Options::new().capacity(shape.capacity).stamped(shape.stamped).readers(shape.slots);
        let writer = options.create(&path).unwrap();
        let stream = Stream::new(shape.capacity, shape.stamped);
        assert_eq!(writer.max_record(), stream.max_record());
        Self {
            shape,
            ring: File::open(&path).unwrap(),
            _directory: directory,
            path,
            writer: Some(writer),
            epoch: 1,
            ending: None,
            stream,
            seats: BTreeMap::new(),
            readers: Vec::new(),
            watchers: Vec::new(),
            stamps: Stamps::default(),
            ids: HashSet::new(),
            salt: 0,
            bytes: 0,
            evictions: 0,
            takeovers: 0,
            evicted: Vec::new(),
        }
    }

    pub(crate) fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("there is always a writer between operations")
    }

    pub(crate) fn header_word(&self, byte: u64) -> u64 {
        let mut word = [0; 8];
        self.ring.read_exact_at(&mut word, byte).unwrap();
        u64::from_ne_bytes(word)
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match *op {
            Op::Publish { length, tag, how } => self.publish(length, tag, how),
            Op::Batch { ref lengths, commit } => self.batch(lengths, commit),
            Op::Policy(policy) => self.writer().set_policy(policy),
            Op::Laps { count, length } => self.laps(count, length),
            Op::Join(joiner) => self.join(joiner),
            Op::Read { who, count, ask } => {
                if let Some(index) = pick(who, self.readers.len()) {
                    for _ in 0..count {
                        self.read(index, ask);
                    }
                }
            }
            Op::Commit { who } => {
                if let Some(index) = pick(who, self.readers.len()) {
                    let handle = &mut self.readers[index];
                    handle.reader.commit();
                    (handle.jumped, handle.dirty) = (false, false);
                    self.seats.get_mut(&handle.slot).unwrap().move_cursor(handle.eyes.next);
                }
            }
            Op::Leave { who } => {
                if let Some(index) = pick(who, self.readers.len()) {
                    self.leave(index);
                }
            }
            Op::Rejoin { who, from } => {
                if let Some(index) = pick(who, self.readers.len()) {
                    self.rejoin(index, from);
                }
            }
            Op::Evict { who, by_writer } => self.evict(who, by_writer),
            Op::Forget { name } => self.forget(name),
            Op::Reap => assert!(self.writer().reap().unwrap().is_empty()),
            Op::Observe { from, filter } => self.observe(from, filter),
            Op::Watch { who, count, ask } => {
                if let Some(index) = pick(who, self.watchers.len()) {
                    for _ in 0..count {
                        self.watch(index, ask);
                    }
                }
            }
            Op::Seek { who, from } => {
                if let Some(index) = pick(who, self.watchers.len()) {
                    self.seek(index, from);
                }
            }
            Op::Unobserve { who } => {
                if let Some(index) = pick(who, self.watchers.len()) {
                    self.watchers.swap_remove(index);
                }
            }
            Op::Takeover => self.takeover(),
            Op::Close { code, reason } => self.close(code, reason),
        }
    }

    // ---- publishing -------------------------------------------------------------------------------------------

    fn length(&self, length: Length) -> usize {
        let max = self.stream.max_record();
        match length {
            Length::Small(n) => n,
            Length::Part(part) => max * usize::from(part) / 65536,
            Length::Largest(less) => max - less,
            Length::TooLarge(more) => max + 1 + more,
        }
    }

    fn payload(&mut self, length: usize) -> Vec<u8> {
        self.salt += 1;
        let mut random = Random::from(self.salt);
        (0..length.div_ceil(8)).flat_map(|_| random.next().to_ne_bytes()).take(length).collect()
    }

    /// Lowest cursor of those that gate, within what it can be.
    fn gate(&self) -> u64 {
        let head = self.stream.head().position;
        let cursors = self.seats.values().filter(|seat| seat.gates()).map(|seat| seat.cursor.position);
        cursors.min().unwrap_or(head).clamp(self.stream.floor().min(head), head)
    }

    /// What a publish that begins at `from` must do, evictions included.
    fn reserve(&mut self, policy: Policy, from: u64, length: usize) -> std::result::Result<(u64, u64), Refusal> {
        if length > self.stream.max_record() {
            return Err(Refusal::TooLarge);
        }
        let (start, end) = self.stream.lay(from, length);
        let needed = end + 16;
        if needed <= self.stream.limit || needed <= self.gate() + self.stream.capacity {
            return Ok((start, end));
        }
        let cursor = needed - self.stream.capacity;
        let in_the_way = |seat: &Seat| seat.gates() && seat.cursor.position < cursor;
        let head = self.stream.head().sequence;
        let alive: HashSet<u32> = self.readers.iter().map(|handle| handle.slot).collect();
        if policy == Policy::Evict {
            let pinned = |seat: &Seat| seat.class == Class::Pinned && alive.contains(&seat.slot);
            // Nobody is evicted for a record that a pinned reader keeps out anyway.
            let spared = self.seats.values().any(|seat| in_the_way(seat) && pinned(seat));
            for seat in self.seats.values_mut().filter(|seat| !spared && in_the_way(seat)) {
                seat.state = State::Evicted;
                seat.evictions += 1;
                self.evictions += 1;
                self.evicted.push((seat.id, Gap { first: seat.cursor.sequence, end: head }));
            }
        }
        let blockers: HashSet<u64> = self.seats.values().filter(|seat| in_the_way(seat)).map(|seat| seat.id).collect();
        if blockers.is_empty() { Ok((start, end)) } else { Err(Refusal::Overrun(blockers)) }
    }

    /// Takes over the limit that the writer has set, and checks that it was allowed to.
    fn follow_limit(&mut self, end: Option<u64>) {
        let limit = self.header_word(LIMIT);
        let old = self.stream.limit;
        match end {
            Some(end) if end + 16 > old => {
                assert!(limit >= end + 16, "written above the limit {limit}");
                let allowed = self.gate() + self.stream.capacity;
                assert!(limit <= allowed, "the limit {limit} is beyond what the readers allow, {allowed}");
                assert!(limit <= (end + 16).next_multiple_of(self.stream.stripe));
            }
            _ => assert_eq!(limit, old),
        }
        self.stream.limit = limit;
    }

    fn publish(&mut self, length: Length, tag: u32, how: How) {
        let length = self.length(length);
        let payload = self.payload(length);
        let policy = if matches!(how, How::Try) { Policy::Refuse } else { self.writer().policy() };
        let head = self.stream.head();
        let expected = self.reserve(policy, head.position, length);
        let mut writer = self.writer.take().unwrap();
        let mut published = payload.len();
        let result = match how {
            How::Try => writer.try_publish_tagged(tag, &payload).map(Some),
            How::Publish => writer.publish_tagged(tag, &payload).map(Some),
            How::Vectored(a, b) => {
                let cut = |part: u8| length * usize::from(part) / 256;
                let (a, b) = (cut(a.min(b)), cut(a.max(b)));
                writer.publish_vectored(tag, &[&payload[..a], &payload[a..b], &payload[b..]]).map(Some)
            }
            How::Claim | How::ClaimShort(_) | How::ClaimAbort => writer.claim(tag, length).map(|mut claim| {
                assert_eq!(claim.len(), length);
                match how {
                    How::ClaimShort(part) => {
                        published = length * usize::from(part) / 256;
                        claim.write_all(&payload[..published]).unwrap();
                        Some(claim.commit_len(published).unwrap())
                    }
                    How::ClaimAbort => {
                        // What is left behind looks like committed records.
                        claim.as_mut_slice().fill(1);
                        None
                    }
                    _ => {
                        claim.as_mut_slice().copy_from_slice(&payload);
                        Some(claim.commit().unwrap())
                    }
                }
            }),
        };
        self.writer = Some(writer);
        self.follow_limit(expected.as_ref().ok().map(|place| place.1));
        let (start, _) = match (expected, result) {
            (Ok(place), Ok(Some(sequence))) => {
                assert_eq!(sequence, head.sequence);
                place
            }
            (Ok(_), Ok(None)) => return,
            (Err(refusal), Err(error)) => return self.refused(&refusal, &error, length, head),
            (expected, result) => panic!("publish said {result:?}, the model {expected:?}"),
        };
        let payload = payload[..published].to_vec();
        self.bytes += published as u64;
        let end = start + self.stream.size(published);
        self.stream.records.push(Record { tag, payload, from: head.position, start, end });
    }

    /// Compares how a record was refused that would have followed on `at`.
    fn refused(&self, refusal: &Refusal, error: &PublishError, length: usize, at: Place) {
        match (refusal, error) {
            (Refusal::TooLarge, PublishError::TooLarge { length: found, max }) => {
                assert_eq!((*found, *max), (length as u64, self.stream.max_record() as u64));
            }
            (Refusal::Overrun(blockers), PublishError::WouldOverrun(overrun)) => {
                assert_eq!(overrun.sequence, at.sequence);
                assert_eq!(overrun.needed, self.stream.size(length));
                let found: HashSet<u64> = overrun.readers.iter().map(|reader| reader.id.0).collect();
                assert_eq!(&found, blockers);
                assert!(overrun.readers.is_sorted_by(|a, b| a.lag_bytes >= b.lag_bytes));
                overrun.readers.iter().for_each(|row| self.compare_row(row, at));
            }
            _ => panic!("refused with {error:?}, the model says {refusal:?}"),
        }
    }

    fn batch(&mut self, lengths: &[Length], commit: bool) {
        let head = self.stream.head();
        let policy = self.writer().policy();
        let mut writer = self.writer.take().unwrap();
        let mut records: Vec<Record> = Vec::new();
        let mut batch = writer.batch();
        for &length in lengths {
            let length = self.length(length);
            let payload = self.payload(length);
            let from = records.last().map_or(head.position, |record| record.end);
            let tag = self.salt as u32;
            let result = batch.push_tagged(tag, &payload);
            let size = records.iter().map(|record| record.end - record.start).sum::<u64>() + self.stream.size(length);
            let max = self.stream.capacity / 4;
            if !records.is_empty() && size > max {
                let Err(PublishError::TooLarge { length, max: allowed }) = result else { panic!("{result:?}") };
                assert_eq!((length, allowed), (size, max));
                continue;
            }
            let expected = self.reserve(policy, from, length);
            self.follow_limit(expected.as_ref().ok().map(|place| place.1));
            match (expected, result) {
                (Ok((start, end)), Ok(())) => records.push(Record { tag, payload, from, start, end }),
                (Err(refusal), Err(error)) => {
                    let sequence = head.sequence + records.len() as u64;
                    self.refused(&refusal, &error, length, Place { position: from, sequence });
                }
                (expected, result) => panic!("a batch's push said {result:?}, the model {expected:?}"),
            }
            assert_eq!(batch.len(), records.len());
        }
        if commit {
            assert_eq!(batch.commit().unwrap(), head.sequence..head.sequence + records.len() as u64);
            self.bytes += records.iter().map(|record| record.payload.len() as u64).sum::<u64>();
            self.stream.records.append(&mut records);
        } else {
            drop(batch);
        }
        self.writer = Some(writer);
    }

    /// Publishes until so many records are out; readers that are in the way read on.
    fn laps(&mut self, count: u16, length: Length) {
        for n in 0..count {
            let before = self.stream.head().sequence;
            self.publish(length, u32::from(n), How::Try);
            if self.stream.head().sequence != before {
                continue;
            }
            for index in 0..self.readers.len() {
                // A gap may come first.
                self.read(index, Ask::Drain(1000));
                self.read(index, Ask::Drain(1000));
                if !self.readers[index].auto {
                    self.apply(&Op::Commit { who: index as u8 });
                }
            }
        }
    }

    // ---- writers ----------------------------------------------------------------------------------------------

    fn takeover(&mut self) {
        self.check_events();
        self.writer = None;
        assert_eq!(Bus::inspect(&self.path).unwrap().writer.state, WriterState::Absent);
        self.takeovers += 1;
        self.open_writer();
    }

    fn close(&mut self, code: u32, reason: u8) {
        self.check_events();
        let reason: String = "why not? ".chars().cycle().take(usize::from(reason)).collect();
        self.writer.take().unwrap().close_with(code, &reason).unwrap();
        self.ending = Some(Ending { place: self.stream.head(), epoch: self.epoch, code, reason });
        assert_eq!(Bus::inspect(&self.path).unwrap().writer.state, WriterState::Closed);
        // Half of the time readers look before the next writer does.
        if code.is_multiple_of(2) {
            (0..self.readers.len()).for_each(|index| self.read(index, Ask::Try));
            (0..self.watchers.len()).for_each(|index| self.watch(index, Ask::Try));
        }
        self.open_writer();
    }

    fn open_writer(&mut self) {
        let writer = Writer::open(&self.path).unwrap();
        self.epoch += 1;
        assert_eq!((writer.resumed_at(), writer.epoch()), (self.stream.head().sequence, self.epoch));
        self.writer = Some(writer);
    }

    // ---- checking ---------------------------------------------------------------------------------------------

    fn check_events(&mut self) {
        let evicted = std::mem::take(&mut self.evicted);
        let mut events = Vec::new();
        for event in self.writer().events() {
            match event {
                WriterEvent::Evicted { reader, at_most } => events.push((reader.id.0, at_most)),
                WriterEvent::Reaped { reader } => panic!("a living reader was reaped: {reader}"),
                _ => {}
            }
        }
        assert_eq!(events, evicted);
    }

    fn compare_row(&self, row: &ReaderInfo, head: Place) {
        let seat = &self.seats[&row.slot];
        let pending = head.sequence - seat.cursor.sequence;
        let alive = seat.alive(&self.readers);
        assert_eq!((row.id.0, &row.name, row.class, row.state), (seat.id, &seat.name, seat.class, seat.state));
        assert_eq!((row.alive, row.hold, row.pid), (alive, seat.hold, std::process::id()));
        assert_eq!(row.evictable, seat.state != State::Evicted && !(alive && seat.class == Class::Pinned));
        assert_eq!((row.start, row.cursor), (seat.start, seat.cursor.sequence), "{row:?}\n{seat:?}");
        assert_eq!((row.missed, row.pending, row.lag_records), (seat.missed, pending, pending), "{row:?}\n{seat:?}");
        assert_eq!(row.delivered + row.missed + row.pending, head.sequence - seat.start, "{row:?}");
        assert_eq!(row.lag_bytes, (head.position - seat.cursor.position).min(self.stream.capacity));
        assert_eq!((row.evictions, row.waits), (seat.evictions, 0));
    }

    pub(crate) fn check(&mut self) {
        self.check_events();
        let head = self.stream.head();
        let seen = Bus::inspect(&self.path).unwrap();
        assert_eq!((seen.head, seen.sequence, seen.limit), (head.position, head.sequence, self.stream.limit));
        assert_eq!(seen.oldest, self.stream.oldest().sequence);
        assert_eq!((seen.writer.state, seen.writer.epoch), (WriterState::Alive, self.epoch));
        let rows = seen.readers.unwrap();
        assert_eq!(rows.iter().map(|row| row.slot).collect::<Vec<_>>(), self.seats.keys().copied().collect::<Vec<_>>());
        rows.iter().for_each(|row| self.compare_row(row, head));
        assert_eq!(self.writer().readers().unwrap(), rows);
        for handle in &self.readers {
            let own = handle.reader.info().unwrap();
            assert_eq!(Some(&own), rows.iter().find(|row| row.slot == handle.slot));
        }
        let stats = self.writer().stats();
        assert_eq!((stats.published, stats.bytes), (head.sequence, self.bytes));
        assert_eq!((stats.evictions, stats.takeovers), (self.evictions, self.takeovers));
        assert_eq!((stats.reaped, stats.waits), (0, 0));
    }

    /// Everybody reads to the end, and the books are closed.
    pub(crate) fn finish(mut self) {
        let evicted =
            |world: &Self| world.readers.iter().position(|handle| world.seats[&handle.slot].state == State::Evicted);
        while let Some(index) = evicted(&self) {
            self.rejoin(index, From::Resume);
        }
        for index in 0..self.readers.len() {
            for _ in 0..4 {
                self.read(index, Ask::Drain(usize::MAX));
            }
            self.apply(&Op::Commit { who: index as u8 });
        }
        for index in 0..self.watchers.len() {
            for _ in 0..4 {
                self.watch(index, Ask::Drain(usize::MAX));
            }
        }
        self.check();
        let head = self.stream.head();
        for handle in &self.readers {
            assert_eq!(self.seats[&handle.slot].cursor, head);
        }
        assert_eq!(
            self.writer().wait_for_readers(Some(Duration::ZERO)).unwrap(),
            self.gate() == head.position || {
                // Only those that live are waited for.
                self.seats
                    .values()
                    .filter(|seat| seat.gates())
                    .all(|seat| !seat.alive(&self.readers) || seat.cursor == head)
            }
        );
    }
}

/// Chooses among those that are there.
pub(crate) fn pick(who: u8, count: usize) -> Option<usize> {
    (count != 0).then(|| usize::from(who) % count)
}
