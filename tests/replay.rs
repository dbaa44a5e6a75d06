//! Where every start leads: one table, each answer exact to the sequence, for every kind of reader.
//!
//! The bus has a ring of 4096 bytes and eight stripes; every record takes 64 bytes, so record `n` lies at `64 n` and there are eight to
//! a stripe. After `n` records the limit is the next stripe boundary above `64 n + 16`, and the oldest record kept is the one at limit - 4096:
//! after 100 records it is number 40, after 1000 number 944.

mod common;

use common::{Place, assert_balanced, inspect, named};
use lapwing::layout::{ENTRY, HEADER};
use lapwing::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

const CAPACITY: u64 = 4096;
const STRIPE: u64 = 512;
const RECORD: u64 = 64;
/// Where the ring begins in its file: after the header and eight entries of the index, at a whole page.
const RING_AT: u64 = 8192;

/// A time that patched records bear; each is a microsecond after the one before.
fn time(sequence: u64) -> u64 {
    1_000_000_000_000 + sequence * 1000
}

fn at(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Registered(Class),
    Observer,
}

const KINDS: [Kind; 4] =
    [Kind::Registered(Class::Gating), Kind::Registered(Class::Lossy), Kind::Registered(Class::Pinned), Kind::Observer];

/// What a start must lead to.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// Everything from this sequence on, and nothing missed.
    From(u64),
    /// First a gap, then everything from its end on.
    Gap(u64, u64),
    /// An error, with the next sequence in it.
    Future(u64),
}

/// Starts, and what they lead to.
type Table<'a> = &'a [(Start, Answer)];

use Answer::{From as Exactly, Future, Gap as Missing};

/// A reader of any kind.
enum Any {
    Reader(Box<Reader>),
    Observer(Box<Observer>),
}

impl Any {
    fn open(kind: Kind, path: &Path, start: Start) -> Result<Self> {
        Ok(match kind {
            Kind::Registered(class) => Self::Reader(Box::new(Reader::options().class(class).start(start).open(path)?)),
            Kind::Observer => Self::Observer(Box::new(Observer::open(path, start)?)),
        })
    }

    fn next(&mut self) -> Next<'_> {
        match self {
            Self::Reader(reader) => reader.try_next().unwrap(),
            Self::Observer(observer) => observer.try_next().unwrap(),
        }
    }

    /// Everything there is, gaps and sequences, up to `Empty`.
    fn all(&mut self) -> (Vec<Gap>, Vec<u64>) {
        let (mut gaps, mut sequences) = (Vec::new(), Vec::new());
        loop {
            match self.next() {
                Next::Record(record) => {
                    assert_eq!(record.payload(), payload(record.sequence(), record.stamp().is_some()));
                    sequences.push(record.sequence());
                }
                Next::Gap(gap) => {
                    assert!(sequences.is_empty(), "a gap after records: {gap:?}");
                    gaps.push(gap);
                }
                Next::Empty => return (gaps, sequences),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Fills a record up to 64 bytes.
fn payload(sequence: u64, stamped: bool) -> Vec<u8> {
    sequence.to_ne_bytes().into_iter().cycle().take(if stamped { 40 } else { 48 }).collect()
}

fn publish(writer: &mut Writer, until: u64, stamped: bool) {
    for sequence in writer.next_sequence()..until {
        assert_eq!(writer.try_publish(&payload(sequence, stamped)).unwrap(), sequence);
    }
}

struct World {
    place: Place,
    writer: Writer,
    stamped: bool,
    published: u64,
}

impl World {
    fn new(stamped: bool, max_age: Duration, published: u64) -> Self {
        let place = Place::new("replay");
        let options = Options::new().capacity(CAPACITY).stamped(stamped).max_age(max_age);
        let mut writer = options.create(place.bus()).unwrap();
        publish(&mut writer, published, stamped);
        Self { place, writer, stamped, published }
    }

    /// Sets the time of records, and of the index entries of the boundaries at their ends.
    fn set_times(&self, sequences: std::ops::Range<u64>, time: impl Fn(u64) -> u64) {
        let file = OpenOptions::new().write(true).open(self.place.bus()).unwrap();
        let write = |word: u64, byte: u64| file.write_all_at(&word.to_ne_bytes(), byte).unwrap();
        for sequence in sequences {
            let position = sequence * RECORD;
            if self.stamped {
                write(time(sequence), RING_AT + position % CAPACITY + 16);
            }
            let end = position + RECORD;
            if end.is_multiple_of(STRIPE) {
                write(time(sequence), HEADER + end / STRIPE % (CAPACITY / STRIPE) * ENTRY + 24);
            }
        }
    }

    fn assert_answer(&self, what: &str, opened: Result<Any>, answer: Answer) {
        let what = format!("{what}, {} published, stamped {}", self.published, self.stamped);
        let (gap, first) = match answer {
            Exactly(first) => (None, first),
            Missing(first, end) => (Some(Gap { first, end }), end),
            Future(next) => {
                let Err(Error::FutureSequence { next: found, .. }) = opened else { panic!("{what}: no error") };
                return assert_eq!(found, next, "{what}");
            }
        };
        let mut reader = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let (gaps, sequences) = reader.all();
        assert_eq!(gaps, gap.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(sequences, (first..self.published).collect::<Vec<_>>(), "{what}");
        if let Any::Reader(reader) = &reader {
            let row = reader.info().unwrap();
            assert_balanced(&row, self.published);
            assert_eq!(row.missed, gap.map_or(0, |gap| gap.count()), "{what}");
            assert_eq!((row.start, row.cursor), (gap.map_or(first, |gap| gap.first), self.published), "{what}");
        }
    }

    /// Tries every kind of reader: as it attaches, and as one seeks that had read everything.
    fn assert_starts(&self, table: Table<'_>) {
        for &(start, answer) in table {
            for kind in KINDS {
                let what = format!("{start:?} as {kind:?}");
                self.assert_answer(&what, Any::open(kind, &self.place.bus(), start), answer);
                let sought = match Any::open(kind, &self.place.bus(), Start::Latest).unwrap() {
                    Any::Observer(mut observer) => observer.seek(start).map(|()| Any::Observer(observer)),
                    Any::Reader(mut reader) => reader.rejoin(start).map(|gap| {
                        let told = if let Missing(first, end) = answer { Gap { first, end } } else { gap };
                        assert_eq!((gap, gap.is_empty()), (told, !matches!(answer, Missing(..))), "{what}, rejoined");
                        Any::Reader(reader)
                    }),
                };
                // `rejoin` returns the gap; `seek` leaves it to the next call.
                match (answer, &sought) {
                    (Missing(_, end), Ok(Any::Reader(_))) => self.assert_sought(&what, sought.unwrap(), end),
                    (Exactly(first), Ok(Any::Reader(_))) => self.assert_sought(&what, sought.unwrap(), first),
                    _ => self.assert_answer(&format!("{what}, sought"), sought, answer),
                }
            }
        }
    }

    fn assert_sought(&self, what: &str, mut reader: Any, first: u64) {
        let (gaps, sequences) = reader.all();
        assert!(gaps.is_empty(), "{what}, rejoined: {gaps:?}");
        assert_eq!(sequences, (first..self.published).collect::<Vec<_>>(), "{what}, rejoined");
        let Any::Reader(reader) = reader else { panic!("not a reader") };
        assert_balanced(&reader.info().unwrap(), self.published);
    }
}

#[test]
fn every_start_leads_where_the_table_says() {
    use Start::{After, Latest, Oldest};
    let tables: [(&str, u64, Table<'_>); 4] = [
        (
            "empty",
            0,
            &[
                (Latest, Exactly(0)),
                (Oldest, Exactly(0)),
                (After(0), Future(0)),
                (After(7), Future(0)),
                (After(u64::MAX), Future(0)),
            ],
        ),
        (
            "all retained",
            10,
            &[
                (Latest, Exactly(10)),
                (Oldest, Exactly(0)),
                (After(0), Exactly(1)),
                (After(4), Exactly(5)),
                (After(8), Exactly(9)),
                // Caught up.
                (After(9), Exactly(10)),
                (After(10), Future(10)),
                (After(11), Future(10)),
                (After(u64::MAX - 1), Future(10)),
                (After(u64::MAX), Future(10)),
            ],
        ),
        (
            "partly overwritten",
            100,
            &[
                (Latest, Exactly(100)),
                (Oldest, Exactly(40)),
                (After(0), Missing(1, 40)),
                (After(37), Missing(38, 40)),
                (After(38), Missing(39, 40)),
                (After(39), Exactly(40)),
                (After(40), Exactly(41)),
                (After(46), Exactly(47)),
                (After(47), Exactly(48)),
                (After(48), Exactly(49)),
                (After(98), Exactly(99)),
                (After(99), Exactly(100)),
                (After(100), Future(100)),
                (After(u64::MAX), Future(100)),
            ],
        ),
        (
            "many laps on",
            1000,
            &[
                (Latest, Exactly(1000)),
                (Oldest, Exactly(944)),
                (After(0), Missing(1, 944)),
                (After(99), Missing(100, 944)),
                (After(942), Missing(943, 944)),
                (After(943), Exactly(944)),
                (After(999), Exactly(1000)),
                (After(1000), Future(1000)),
            ],
        ),
    ];
    for (what, published, table) in tables {
        for stamped in [false, true] {
            println!("{what}, stamped {stamped}");
            let world = World::new(stamped, Duration::ZERO, published);
            let limit = if published == 0 { 0 } else { (published * RECORD + 16).next_multiple_of(STRIPE) };
            assert_eq!(inspect(&world.place.bus()).limit, limit);
            world.assert_starts(table);
        }
    }
}

#[test]
fn a_time_leads_to_the_first_record_that_bears_it_or_a_later_one() {
    let ever = at(0) - Duration::from_secs(1);
    let never = at(0) + Duration::from_secs(1 << 40);
    let since = |nanos| Start::Since(at(nanos));
    for (published, oldest) in [(0, 0), (3, 0), (8, 0), (100, 40), (1000, 944)] {
        let world = World::new(true, Duration::ZERO, published);
        world.set_times(oldest..published, time);
        let mut table = vec![
            (Start::Since(ever), Exactly(oldest)),
            (since(0), Exactly(oldest)),
            (since(time(oldest) - 1), Exactly(oldest)),
            (since(time(published)), Exactly(published)),
            (Start::Since(never), Exactly(published)),
        ];
        for sequence in oldest..published {
            table.push((since(time(sequence)), Exactly(sequence)));
            table.push((since(time(sequence) + 1), Exactly(sequence + 1)));
        }
        world.assert_starts(&table);
    }
    // Many of one time, across a stripe boundary: the first of them.
    let world = World::new(true, Duration::ZERO, 100);
    world.set_times(40..100, |sequence| if (70..76).contains(&sequence) { time(70) } else { time(sequence) });
    world.assert_starts(&[
        (since(time(70)), Exactly(70)),
        (since(time(69) + 1), Exactly(70)),
        (since(time(70) + 1), Exactly(76)),
    ]);
}

#[test]
fn without_stamps_a_time_leads_to_the_last_stripe_that_begins_before_it() {
    let since = |nanos| Start::Since(at(nanos));
    // A boundary bears the time of the record that ends there.
    let world = World::new(false, Duration::ZERO, 100);
    world.set_times(32..100, time);
    world.assert_starts(&[
        (since(0), Exactly(40)),
        (since(time(39)), Exactly(40)),
        (since(time(47)), Exactly(40)),
        (since(time(47) + 1), Exactly(48)),
        (since(time(55)), Exactly(48)),
        (since(time(55) + 1), Exactly(56)),
        (since(time(95)), Exactly(88)),
        (since(time(95) + 1), Exactly(96)),
        (since(u64::MAX), Exactly(96)),
    ]);
    for published in [0, 3, 7] {
        let world = World::new(false, Duration::ZERO, published);
        world.assert_starts(&[(since(0), Exactly(0)), (since(u64::MAX), Exactly(0))]);
    }
    let world = World::new(false, Duration::ZERO, 8);
    world.set_times(0..8, time);
    world.assert_starts(&[(since(time(7)), Exactly(0)), (since(time(7) + 1), Exactly(8))]);
}

/// Where a name left off, how far the stream went on, and what it finds.
#[test]
fn a_name_resumes_exactly_where_it_left() {
    let cases: [(u64, u64, Answer); 9] = [
        (0, 0, Exactly(0)),
        (0, 10, Exactly(0)),
        (4, 10, Exactly(4)),
        (10, 10, Exactly(10)),
        (10, 100, Missing(10, 40)),
        (39, 100, Missing(39, 40)),
        (40, 100, Exactly(40)),
        (99, 100, Exactly(99)),
        (10, 1000, Missing(10, 944)),
    ];
    for (left, published, answer) in cases {
        for class in [Class::Gating, Class::Lossy, Class::Pinned] {
            for stamped in [false, true] {
                let mut world = World::new(stamped, Duration::ZERO, 0);
                let path = world.place.bus();
                let named = Reader::options().name("who").class(class);
                let mut reader = named.clone().open(&path).unwrap();
                for sequence in 0..left {
                    publish(&mut world.writer, sequence + 1, stamped);
                    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.sequence() == sequence));
                    reader.commit();
                }
                drop(reader);
                publish(&mut world.writer, published, stamped);
                world.published = published;
                let reader = named.start(Start::Resume).open(&path).unwrap();
                assert_eq!(reader.start_sequence(), 0, "the books go on");
                let row = reader.info().unwrap();
                assert_balanced(&row, published);
                let gap = if let Missing(first, end) = answer { end - first } else { 0 };
                assert_eq!((row.delivered, row.missed), (left, gap));
                let mut any = Any::Reader(Box::new(reader));
                let (gaps, sequences) = any.all();
                let (gap, first) = match answer {
                    Missing(first, end) => (vec![Gap { first, end }], end),
                    Exactly(first) => (vec![], first),
                    Future(_) => unreachable!("nobody resumes in the future"),
                };
                let what = format!("left at {left}, {published} published, {class}");
                assert_eq!(gaps, gap, "{what}");
                assert_eq!(sequences, (first..published).collect::<Vec<_>>(), "{what}");
            }
        }
    }
    // A name that nobody knows begins with the oldest.
    let world = World::new(false, Duration::ZERO, 100);
    for class in [Class::Gating, Class::Lossy, Class::Pinned] {
        let options = Reader::options().name(format!("new {class}")).class(class).start(Start::Resume);
        let opened = options.open(world.place.bus()).map(|reader| Any::Reader(Box::new(reader)));
        world.assert_answer("resume under a new name", opened, Exactly(40));
    }
}

#[test]
fn a_name_that_holds_while_it_is_away_finds_everything() {
    let mut world = World::new(false, Duration::ZERO, 0);
    let path = world.place.bus();
    let options = Reader::options().name("holder").hold_while_away(true).start(Start::Resume);
    drop(options.open(&path).unwrap());
    // Sixteen bytes of the ring stay free for the zero ahead of the last record.
    publish(&mut world.writer, 63, false);
    let Err(PublishError::WouldOverrun(overrun)) = world.writer.try_publish(&payload(63, false)) else {
        panic!("the reader that is away was overrun")
    };
    let [reader] = &overrun.readers[..] else { panic!("{overrun}") };
    assert_eq!((reader.name.as_deref(), reader.alive, reader.state), (Some("holder"), false, State::Detached));
    assert_eq!((reader.lag_records, reader.lag_bytes), (63, 63 * 64));
    world.published = 63;
    let opened = options.open(&path).map(|reader| Any::Reader(Box::new(reader)));
    world.assert_answer("resume", opened, Exactly(0));
    // Evicted while away, it is told what it missed, to the sequence.
    let id = named(&path, "holder").unwrap().id;
    assert!(world.writer.evict(id).unwrap());
    publish(&mut world.writer, 200, false);
    world.published = 200;
    let mut any = Any::Reader(Box::new(options.open(&path).unwrap()));
    let oldest = inspect(&path).oldest;
    assert_eq!(oldest, 144);
    assert_eq!(any.all(), (vec![Gap { first: 63, end: 144 }], (144..200).collect()));
    let Any::Reader(reader) = any else { panic!("not a reader") };
    let row = reader.info().unwrap();
    assert_eq!((row.delivered, row.missed, row.pending), (63 + 56, 81, 0));
}

/// Attached readers that are overtaken: who gates only by an eviction, the others at any time.
#[test]
fn who_is_overtaken_is_told_the_exact_gap() {
    for stamped in [false, true] {
        let mut world = World::new(stamped, Duration::ZERO, 5);
        let path = world.place.bus();
        let mut gating = Reader::options().start(Start::Oldest).open(&path).unwrap();
        let mut lossy = Reader::options().class(Class::Lossy).start(Start::After(2)).open(&path).unwrap();
        let observer = Observer::open(&path, Start::Oldest).unwrap();
        assert!(matches!(gating.try_next().unwrap(), Next::Record(record) if record.sequence() == 0));
        assert!(matches!(lossy.try_next().unwrap(), Next::Record(record) if record.sequence() == 3));
        world.writer.set_policy(Policy::Evict);
        for sequence in 5..100 {
            world.writer.publish(&payload(sequence, stamped)).unwrap();
        }
        // The first kept is 40; who does not gate goes on an eighth of the ring above that.
        assert!(matches!(gating.try_next().unwrap(), Next::Evicted(gap) if gap == (Gap { first: 1, end: 40 })));
        assert_eq!(gating.rejoin(Start::Resume).unwrap(), Gap { first: 1, end: 40 });
        let mut gating = Any::Reader(Box::new(gating));
        assert_eq!(gating.all(), (vec![], (40..100).collect()));
        let mut lossy = Any::Reader(Box::new(lossy));
        assert_eq!(lossy.all(), (vec![Gap { first: 4, end: 48 }], (48..100).collect()));
        let mut observer = Any::Observer(Box::new(observer));
        assert_eq!(observer.all(), (vec![Gap { first: 0, end: 48 }], (48..100).collect()));
        let rows = inspect(&path).readers.unwrap();
        for row in &rows {
            assert_balanced(row, 100);
        }
        let books: Vec<_> = rows.iter().map(|row| (row.start, row.delivered, row.missed)).collect();
        assert_eq!(books, [(0, 61, 39), (3, 53, 44)]);
        // Back to where nothing is: the gap begins with the sequence asked for.
        let Any::Reader(mut reader) = gating else { panic!("not a reader") };
        assert_eq!(reader.rejoin(Start::After(9)).unwrap(), Gap { first: 10, end: 40 });
        let row = reader.info().unwrap();
        assert_eq!((row.start, row.delivered, row.missed, row.pending), (10, 0, 30, 60));
    }
}

#[test]
fn records_that_are_too_old_are_not_replayed_and_the_gap_says_so() {
    use Start::{After, Latest, Oldest};
    let hour = Duration::from_secs(3600);
    let now = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let mut world = World::new(true, hour, 45);
    let path = world.place.bus();
    // Who is attached is not concerned: what it has yet to read is in the ring.
    let mut lossy = Any::open(Kind::Registered(Class::Lossy), &path, Latest).unwrap();
    let mut observer = Any::open(Kind::Observer, &path, Latest).unwrap();
    let named = Reader::options().name("left at 45").class(Class::Lossy);
    drop(named.open(&path).unwrap());
    publish(&mut world.writer, 100, true);
    world.published = 100;
    let old = now() - 2 * hour.as_nanos() as u64;
    world.set_times(40..70, |sequence| old + sequence);
    world.assert_starts(&[
        (Latest, Exactly(100)),
        (Oldest, Missing(40, 70)),
        (After(0), Missing(1, 70)),
        (After(50), Missing(51, 70)),
        (After(68), Missing(69, 70)),
        (After(69), Exactly(70)),
        (After(80), Exactly(81)),
        (After(99), Exactly(100)),
        (After(100), Future(100)),
        (Start::Since(at(0)), Missing(40, 70)),
        (Start::Since(at(old + 60)), Missing(60, 70)),
        (Start::Since(at(old + 70)), Exactly(70)),
    ]);
    assert_eq!(inspect(&path).oldest, 70);
    let mut resumed = Any::Reader(Box::new(named.clone().start(Start::Resume).open(&path).unwrap()));
    assert_eq!(resumed.all(), (vec![Gap { first: 45, end: 70 }], (70..100).collect()));
    let opened = named.name("new").start(Start::Resume).open(&path).map(|reader| Any::Reader(Box::new(reader)));
    world.assert_answer("resume under a new name", opened, Missing(40, 70));
    assert_eq!(lossy.all(), (vec![], (45..100).collect()));
    assert_eq!(observer.all(), (vec![], (45..100).collect()));

    // Nothing is young enough.
    world.set_times(40..100, |sequence| old + sequence);
    world.assert_starts(&[
        (Latest, Exactly(100)),
        (Oldest, Missing(40, 100)),
        (After(98), Missing(99, 100)),
        (After(99), Exactly(100)),
    ]);
    assert_eq!(inspect(&path).oldest, 100);
}
