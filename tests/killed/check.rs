//! The invariants of a bus on which a process has died: whoever comes next finds it whole, and it goes on.

use super::acts::{CAPACITY, OTHER_CAPACITY, SLOTS};
use super::facts::{Fact, Facts, payload};
use crate::common::DEADLINE;
use lapwing::*;
use std::path::Path;

/// Handles of the living, opened before the death.
#[derive(Default)]
pub(crate) struct Living {
    pub(crate) writer: Option<Writer>,
    pub(crate) reader: Option<Reader>,
}

/// What a reader was given, in order and whole.
struct Story {
    next: Option<u64>,
    /// Sequences told as missed, earlier lives included.
    told: Vec<(u64, u64)>,
}

impl Story {
    /// Reads on to the tip; the first thing that comes lies in `from`.
    fn read(&mut self, reader: &mut Reader, from: std::ops::RangeInclusive<u64>) -> usize {
        let mut count = 0;
        loop {
            let first = match reader.try_next().unwrap() {
                Next::Record(record) => {
                    let sequence = record.sequence();
                    assert!(record.payload() == payload(sequence, record.payload().len()), "record {sequence} is torn");
                    (sequence, sequence + 1)
                }
                Next::Gap(gap) => {
                    assert!(!gap.is_empty());
                    self.told.push((gap.first, gap.end));
                    (gap.first, gap.end)
                }
                Next::Closed(_) => continue,
                Next::Empty => return count,
                other => panic!("{other:?} instead of a record"),
            };
            match self.next {
                None => assert!(from.contains(&first.0), "starts with {}, must be in {from:?}", first.0),
                Some(next) => assert_eq!(first.0, next, "skipped or repeated"),
            }
            self.next = Some(first.1);
            count += 1;
        }
    }

    /// Distinct sequences missed.
    fn missed(&self) -> u64 {
        let mut told = self.told.clone();
        told.sort_unstable();
        let mut end = 0;
        told.iter()
            .map(|&(a, b)| {
                let a = a.max(end);
                end = end.max(b);
                b.saturating_sub(a)
            })
            .sum()
    }
}

/// Everything that has to hold. Panics with what does not.
pub(crate) fn check(bus: &Path, facts: &Facts, mut living: Living) {
    let writer = match living.writer.take() {
        Some(writer) => writer,
        None => match Writer::open(bus) {
            Ok(writer) => writer,
            Err(Error::NotFound { .. } | Error::NotReady { .. }) if facts.get(Fact::Missing) == 1 => {
                return check_missing(bus, living);
            }
            Err(error) => panic!("no takeover: {error}"),
        },
    };
    let replaced = Bus::inspect(bus).unwrap().capacity == OTHER_CAPACITY;
    if replaced {
        if let Some(mut reader) = living.reader.take() {
            expect_replaced(&mut reader);
        }
        return check_bus(bus, writer, living, &Facts([0; Fact::Count as usize]));
    }
    check_bus(bus, writer, living, facts);
}

/// A bus that was not finished, or is half removed: it can be created.
fn check_missing(bus: &Path, mut living: Living) {
    assert!(matches!(Reader::open(bus), Err(Error::NotFound { .. } | Error::NotReady { .. })));
    if let Some(mut reader) = living.reader.take() {
        expect_replaced(&mut reader);
    }
    let writer = Options::new().capacity(CAPACITY).readers(SLOTS).create(bus).unwrap();
    check_bus(bus, writer, living, &Facts([0; Fact::Count as usize]));
}

/// A reader of a bus that is gone learns it.
fn expect_replaced(reader: &mut Reader) {
    // A deadline that passed while this process did not run is not the end of the matter.
    let mut late = 0;
    loop {
        match reader.next_timeout(DEADLINE).unwrap() {
            Next::Replaced | Next::Orphaned => return,
            Next::Absent | Next::Record(_) => {}
            Next::Empty if late < 3 => late += 1,
            other => panic!("{other:?} though the bus is gone"),
        }
    }
}

fn check_bus(bus: &Path, mut writer: Writer, mut living: Living, facts: &Facts) {
    // The sequence goes on: nothing that was returned as published is lost, nothing that was not begun is there.
    let (low, high) = (facts.get(Fact::Published), facts.get(Fact::Attempted));
    let head = writer.next_sequence();
    assert!((low..=high).contains(&head), "goes on with {head}, must be in {low}..={high}");
    assert!(facts.get(Fact::Whole) == 0 || head == low || head == high, "a batch is there in part: {head}");

    // What is in the ring is in order and whole.
    let mut observer = Observer::open(bus, Start::Oldest).unwrap();
    let mut next = observer.next_sequence();
    loop {
        match observer.try_next().unwrap() {
            Next::Record(record) => {
                assert_eq!(record.sequence(), next);
                assert!(record.payload() == payload(next, record.payload().len()), "record {next} is torn");
                next += 1;
            }
            Next::Closed(closed) => assert_eq!(closed.sequence, head),
            Next::Empty => break,
            other => panic!("{other:?} for an observer"),
        }
    }
    assert_eq!(next, head);

    // A reader that lives missed nothing; it joined when the head was at `Published`, or lived through the call under way.
    let mut live_story = Story { next: None, told: Vec::new() };
    if let Some(reader) = &mut living.reader {
        live_story.read(reader, 0..=head);
        assert_eq!(reader.next_sequence(), head);
        live_story.next = Some(head);
    }

    // The gating reader that died goes on where it was, by name.
    let rows = writer.readers().unwrap();
    let known = rows.iter().any(|row| row.name.as_deref() == Some("hold"));
    match facts.get(Fact::Hold) {
        0 => assert!(!known, "a forgotten name is known"),
        1 => {}
        _ => assert!(known, "a gating reader was forgotten: {rows:?}"),
    }
    let class = match facts.get(Fact::Class) {
        2 => Class::Lossy,
        3 => Class::Pinned,
        _ => Class::Gating,
    };
    let options = Reader::options().name("hold").hold_while_away(true).class(class);
    let mut hold = options.start(if known { Start::Resume } else { Start::Latest }).open(bus).unwrap();
    let mut story = Story { next: None, told: vec![(facts.get(Fact::GapFirst), facts.get(Fact::GapEnd))] };
    if known {
        let (committed, given) = (facts.get(Fact::Committed), facts.get(Fact::Given));
        assert!(hold.next_sequence() >= committed, "resumes at {}, below {committed}", hold.next_sequence());
        story.read(&mut hold, committed..=given);
        if story.next.is_none() {
            assert!((committed..=given).contains(&hold.next_sequence()));
        }
    }
    assert_eq!(hold.next_sequence(), head);
    story.next = Some(head);

    // Whoever else died can be reclaimed: no slot is lost, and nobody who lives is touched.
    writer.reap().unwrap();
    assert!(writer.reap().unwrap().is_empty(), "reaped twice");
    let reaped = |event| if let WriterEvent::Reaped { reader } = event { Some(reader.id) } else { None };
    let mut reported: Vec<_> = writer.events().into_iter().filter_map(reaped).collect();
    let count = reported.len();
    reported.sort();
    reported.dedup();
    assert_eq!(reported.len(), count, "a death is reported twice");
    let outside = Bus::open(bus).unwrap();
    for row in writer.readers().unwrap() {
        match row.name.as_deref() {
            Some("hold") => {}
            Some(name) => {
                drop(Reader::options().name(name).start(Start::Resume).open(bus).unwrap());
                outside.forget(name).unwrap();
            }
            None => assert!(row.alive, "a dead reader's slot was not reclaimed: {row}"),
        }
    }
    let taken = writer.readers().unwrap().len();
    assert_eq!(taken, 1 + usize::from(living.reader.is_some()));
    let slots = outside.snapshot().unwrap().slots;
    let guests: Vec<_> = (taken..slots as usize).map(|_| Reader::open(bus).unwrap()).collect();
    assert!(matches!(Reader::open(bus), Err(Error::TableFull { .. })));
    drop(guests);

    // Publishing and reading go on, through some laps.
    let mut publish = |writer: &mut Writer, sequence: u64, length: usize| {
        let mut tried = 0;
        loop {
            match writer.try_publish(&payload(sequence, length)) {
                Ok(published) => return assert_eq!(published, sequence),
                Err(PublishError::WouldOverrun(overrun)) => {
                    let mut read = story.read(&mut hold, 0..=0);
                    if let Some(reader) = &mut living.reader {
                        read += live_story.read(reader, 0..=0);
                        let _ = reader.try_next().unwrap();
                    }
                    // The last record counts as handled with the next call.
                    let _ = hold.try_next().unwrap();
                    tried += 1;
                    assert!(read > 0 && tried < 3, "nobody can make room: {overrun}");
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    for sequence in head..head + 200 {
        publish(&mut writer, sequence, (sequence * 37 % 900) as usize);
    }
    let head = writer.next_sequence();
    story.read(&mut hold, 0..=0);
    assert_eq!(story.next, Some(head));
    if let Some(reader) = &mut living.reader {
        live_story.read(reader, 0..=0);
        assert_eq!(live_story.next, Some(head));
        assert_eq!(live_story.missed(), 0, "a living gating reader missed something");
    }

    // The books agree: the table's, and what the application was told.
    let row = hold.info().unwrap();
    assert_eq!((row.cursor, row.pending), (head, 0), "{row:?}");
    let missed = story.missed();
    if row.missed != missed {
        // A gap that the dead reader was told and had not committed is not in the books: what its successor was told counts.
        assert!(facts.get(Fact::Committed) < facts.get(Fact::GapEnd), "{row:?} {:?}", story.told);
        story.told.remove(0);
        assert_eq!(row.missed, story.missed(), "{row:?} {:?}", story.told);
    }
    if known && facts.get(Fact::Start) != u64::MAX {
        assert_eq!((row.start, row.delivered), (facts.get(Fact::Start), head - row.start - row.missed));
    }

    writer.close().unwrap();
    assert!(matches!(hold.try_next().unwrap(), Next::Closed(closed) if closed.sequence == head));
    drop((hold, observer, outside, living));
    Bus::remove(bus).unwrap();
    let left: Vec<_> = std::fs::read_dir(bus.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("bus"))
        .collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
