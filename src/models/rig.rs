//! A bus small enough for loom, and what readers and writers of the library do with the protocol, call by call.

use super::words::AtomicU64;
use crate::consume::{Consumer, Found, Glance, Step};
use crate::layout::{self, ALIGN, Commit, Geometry, ring as at, slot, table};
use crate::map::{Map, bytes_of, load_words, store_bytes};
use crate::publish::{Publisher, Refused};
use crate::report::Class;
use crate::ring::{Place, Ring};
use crate::sync::Ordering;
use crate::table::{Control, Phase, Table};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64 as Counter, Ordering as Order};
use std::time::Instant;

/// Records of the models are 32 bytes in the ring: header and two words.
pub(super) const RECORD: u64 = 32;
const PAYLOAD: usize = 16;

/// The shared words. Not loom's `Arc`: it is no part of the protocol.
pub(super) struct Bus {
    pub(super) ring: Ring,
    pub(super) table: Table,
}

fn words(count: u64, touched: impl Fn(usize) -> bool) -> impl Iterator<Item = AtomicU64> {
    (0..count as usize).map(move |word| if touched(word) { AtomicU64::new(0) } else { AtomicU64::absent() })
}

impl Bus {
    /// A fresh bus. Real ones have at least eight stripes; the fewer here, the fewer index entries loom has to follow.
    pub(super) fn new(capacity: u64, stripe: u64, slots: u64) -> Arc<Self> {
        Self::with(capacity, stripe, slots, false)
    }

    /// The same with the text of a close's reason, sixteen words that no other scene touches.
    pub(super) fn with(capacity: u64, stripe: u64, slots: u64, reasons: bool) -> Arc<Self> {
        let geometry = Geometry { capacity, stripe, ..Geometry::new(4096, slots, false) };
        let lap = geometry.ring_at() as usize / 8..geometry.ring_length() as usize / 8;
        let index = layout::HEADER as usize / 8;
        let index = index..index + (geometry.stripes() * layout::ENTRY / 8) as usize;
        let ring = words(geometry.ring_length() / 8, |word| {
            let header = [
                at::FENCES,
                at::LIMIT,
                at::INTENT,
                at::WAITING,
                at::CLOSED_EPOCH,
                at::CLOSED_SEQUENCE,
                at::CLOSED_POSITION,
                at::HEAD,
                at::HEAD_SEQUENCE,
                at::BYTES,
                at::LATEST_TIME,
                at::REASON,
            ];
            let reason = at::REASON_TEXT..at::REASON_TEXT + layout::MAX_REASON / 8;
            header.contains(&word) || reasons && reason.contains(&word) || index.contains(&word) || lap.contains(&word)
        });
        let slots_at = layout::HEADER as usize / 8;
        let table_words = words(geometry.table_length() / 8, |word| match word.checked_sub(slots_at) {
            None => [table::REGISTRATIONS, table::SLEEP, table::WAKE, table::SPACE].contains(&word),
            Some(word) => {
                let word = word % (layout::SLOT as usize / 8);
                let control = slot::CONTROL..=slot::EVICTIONS;
                let books = slot::MISSED[0].0..=slot::GAP_END;
                control.contains(&word) || [slot::POSITION, slot::SEQUENCE].contains(&word) || books.contains(&word)
            }
        });
        Arc::new(Self {
            ring: Ring::new(Map::new(ring, lap.clone()), geometry),
            table: Table::new(Map::new(table_words, 0..1), slots),
        })
    }

    /// A bus whose writer has published `count` records of 32 bytes, and that writer.
    pub(super) fn published(capacity: u64, stripe: u64, slots: u64, count: u64) -> (Arc<Self>, Writer) {
        let bus = Self::new(capacity, stripe, slots);
        let mut writer = Writer::take_over(&bus, false);
        for _ in 0..count {
            writer.publish().expect("nobody gates yet");
        }
        (bus, writer)
    }

    /// The place of a record where all have 32 bytes.
    pub(super) fn place(&self, sequence: u64) -> Place {
        Place { position: sequence * RECORD, sequence }
    }

    pub(super) fn limit(&self) -> u64 {
        self.ring.get(at::LIMIT)
    }

    /// Seats a reader in a slot while nothing else runs.
    pub(super) fn seat(&self, slot: u32, class: Class, place: Place) -> Control {
        self.join(slot, class, place).expect("nobody evicts yet").1
    }

    /// Joins as `ReaderOptions::open` does once it has the slot's lock: books, then [`crate::join::join`].
    pub(super) fn join(&self, slot: u32, class: Class, place: Place) -> Option<(Place, Control)> {
        let slot = self.table.slot(slot);
        slot.reset_books(place.sequence);
        let from = slot.control();
        let joining = from.joining(class, false, false);
        let place = crate::join::join(&self.ring, &self.table, slot, from, joining, place)?;
        Some((place, joining.with(Phase::Active)))
    }

    /// Evicts as `Registry::evict` does; false if there was nobody to evict.
    pub(super) fn evict(&self, slot: u32) -> bool {
        let slot = self.table.slot(slot);
        loop {
            let control = slot.control();
            if matches!(control.phase(), Phase::Free | Phase::Evicted) {
                return false;
            }
            if slot.transition(control, control.with(Phase::Evicted)) {
                return true;
            }
        }
    }
}

/// The one writer.
pub(super) struct Writer {
    pub(super) bus: Arc<Bus>,
    pub(super) publisher: Publisher,
    /// Goes into every payload, so that records of two writers differ.
    pub(super) mark: u64,
}

impl Writer {
    pub(super) fn take_over(bus: &Arc<Bus>, fences: bool) -> Self {
        let publisher = Publisher::take_over(&bus.ring, &bus.table, fences).expect("the words agree");
        Self { bus: bus.clone(), publisher, mark: 0 }
    }

    /// Publishes the next record, two words long.
    pub(super) fn publish(&mut self) -> Result<u64, Refused> {
        self.publish_words(2)
    }

    /// Publishes the next record with so many words of payload.
    pub(super) fn publish_words(&mut self, count: usize) -> Result<u64, Refused> {
        self.publish_this(&payload(self.publisher.head.sequence, self.mark)[..count])
    }

    /// As `Writer::publish` does: the hot path if it will do, else the slow one.
    pub(super) fn publish_this(&mut self, words: &[u64]) -> Result<u64, Refused> {
        let Self { bus, publisher, .. } = self;
        let Place { position, sequence } = publisher.head;
        let bytes = bytes_of(words, words.len() * 8);
        if let Some(sequence) = publisher.publish(&bus.ring, &bus.table, sequence as u32, bytes) {
            return Ok(sequence);
        }
        if publisher.follow_readers(&bus.ring, &bus.table, bytes.len())
            && let Some(sequence) = publisher.publish(&bus.ring, &bus.table, sequence as u32, bytes)
        {
            return Ok(sequence);
        }
        let slow = publisher.reserve_slow(&bus.ring, &bus.table, position, bytes.len() as u64)?;
        let sequence = publisher.write(&bus.ring, &bus.table, slow, sequence as u32, bytes);
        publisher.open_fast_path(&bus.ring);
        Ok(sequence)
    }

    /// Publishes a batch of two records, as `Batch` does.
    pub(super) fn publish_batch(&mut self) {
        let Self { bus, publisher, mark } = self;
        let (ring, mut next, mut first) = (&bus.ring, publisher.head, None);
        for _ in 0..2 {
            let words = payload(next.sequence, *mark);
            let bytes = bytes_of(&words, PAYLOAD);
            let commit = Commit::record(next.sequence as u32, PAYLOAD as u64);
            publisher.open_batch(ring, next.position, ring.geometry.capacity / 4);
            let end = if let Some(size) = publisher.push(next.sequence, commit, bytes, first.is_none()) {
                first = first.or(Some((next.position, commit)));
                next.position + size
            } else {
                let reserved =
                    publisher.reserve_slow(ring, &bus.table, next.position, PAYLOAD as u64).expect("nobody gates");
                publisher.prepare(ring, reserved, next.sequence);
                store_bytes(publisher.payload(ring, reserved, PAYLOAD), bytes);
                let visible = publisher.seal(ring, reserved, next.sequence, commit, first.is_some());
                first = first.or(Some((reserved.from, visible)));
                reserved.end
            };
            next = Place { position: end, sequence: next.sequence + 1 };
        }
        let (position, commit) = first.expect("two records");
        ring.commit_word(position).store(commit.0, Ordering::Release);
        publisher.advance(ring, &bus.table, next);
        publisher.open_fast_path(&bus.ring);
    }

    /// Makes room for the next record and leaves it at that, as an abandoned claim does: its publish will find the limit raised.
    pub(super) fn make_room(&mut self) {
        let from = self.publisher.head.position;
        self.publisher.reserve_slow(&self.bus.ring, &self.bus.table, from, PAYLOAD as u64).expect("nobody gates yet");
        self.publisher.open_fast_path(&self.bus.ring);
    }
}

/// What a record of that number says.
pub(super) fn payload(sequence: u64, mark: u64) -> [u64; 2] {
    [sequence << 16 | mark << 8 | 1, sequence << 16 | mark << 8 | 2]
}

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// The sequence, and the mark of the writer.
    Record(u64, u64),
    Empty,
    Lapped,
    Closed,
}

pub(super) struct Reader {
    pub(super) bus: Arc<Bus>,
    pub(super) consumer: Consumer,
}

impl Reader {
    pub(super) fn new(bus: &Arc<Bus>, place: Place) -> Self {
        Self { bus: bus.clone(), consumer: Consumer::new(&bus.ring, place, 0) }
    }

    /// Reads as `Seat::poll` does: the short cuts, then the long way.
    pub(super) fn read(&mut self) -> Read {
        self.read_quickly().unwrap_or_else(|| self.read_carefully())
    }

    /// Reads as `Stream::quick` does; `None` if it leaves the matter to the long way.
    pub(super) fn read_quickly(&mut self) -> Option<Read> {
        let ring = &self.bus.ring;
        let (found, payload) = match self.consumer.glance(ring) {
            Glance::Record(found, payload) => (found, payload),
            Glance::Nothing => return self.consumer.plainly_empty(ring).then_some(Read::Empty),
            Glance::Special => return None,
        };
        let mut copy = [0; 2];
        if payload.len() > copy.len() {
            return None;
        }
        load_words(payload, &mut copy);
        if !ring.intact(found.place.position) {
            return None;
        }
        Some(self.check(&found, copy))
    }

    /// Reads as `Stream::step` does.
    pub(super) fn read_carefully(&mut self) -> Read {
        let ring = &self.bus.ring;
        match self.consumer.look(ring) {
            Step::Record(found) => {
                let mut copy = [0; 2];
                let payload = found.payload(ring);
                let sound = payload.len() <= copy.len();
                if sound {
                    load_words(payload, &mut copy);
                }
                if !ring.intact(found.place.position) {
                    return Read::Lapped;
                }
                assert!(sound, "a length that nobody published");
                self.check(&found, copy)
            }
            Step::Empty => Read::Empty,
            Step::Closed => Read::Closed,
            Step::Lapped => Read::Lapped,
            Step::Corrupt(field, expected, found) => panic!("corrupt: {field}: {found:#x} for {expected:#x}"),
        }
    }

    /// Whoever hands out a record answers for all of it.
    fn check(&mut self, found: &Found, copy: [u64; 2]) -> Read {
        let Place { sequence, position } = found.place;
        assert_eq!(u64::from(found.commit.tag()), sequence, "torn header at {position}");
        let mark = if found.length() == 0 { 0 } else { copy[0] >> 8 & 0xff };
        let mut expected = payload(sequence, mark);
        expected[found.length() / 8..].fill(0);
        assert_eq!(copy, expected, "torn payload of {sequence} at {position}");
        self.consumer.pass(found);
        Read::Record(sequence, mark)
    }

    /// Commits the cursor, as `Seat::commit` does.
    pub(super) fn commit(&self, slot: u32) {
        let Place { position, sequence } = self.consumer.next;
        self.bus.table.slot(slot).move_cursor(position, sequence);
    }
}

/// Runs a scene through loom with at most so many preemptions, unless the environment says otherwise, and prints how many executions.
pub(super) fn explore(name: &str, preemptions: usize, scene: impl Fn() + Send + Sync + 'static) {
    let since = Instant::now();
    let executions = executions_of(preemptions, scene);
    println!("{name}: {executions} executions, {:.1} s", since.elapsed().as_secs_f64());
}

/// The same for a scene with a writer that dies before its store 0, 1, 2 and so on, until it lives to the end.
///
/// The scene gets the number of stores, and says whether the writer died.
pub(super) fn explore_deaths<S>(name: &str, preemptions: usize, scene: S)
where
    S: Fn(u32) -> bool + Copy + Send + Sync + 'static,
{
    let since = Instant::now();
    let mut executions = 0;
    for stores in 0.. {
        let died = Arc::new(AtomicBool::new(false));
        let tell = died.clone();
        executions += executions_of(preemptions, move || tell.store(scene(stores), Order::Relaxed));
        if !died.load(Order::Relaxed) {
            assert!(stores > 8, "only {stores} stores: it died of something else");
            println!("{name}: {stores} deaths, {executions} executions, {:.1} s", since.elapsed().as_secs_f64());
            return;
        }
    }
}

fn executions_of(preemptions: usize, scene: impl Fn() + Send + Sync + 'static) -> u64 {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    let executions = Arc::new(Counter::new(0));
    let counter = executions.clone();
    builder.check(move || {
        counter.fetch_add(1, Order::Relaxed);
        scene();
    });
    executions.load(Order::Relaxed)
}

const _: () = assert!(RECORD.is_multiple_of(ALIGN) && RECORD == layout::RECORD_HEADER + PAYLOAD as u64);
