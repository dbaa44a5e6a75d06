//! Holes punched into files while they are mapped: no signal, only zeros where something was.

use crate::common::*;
use crate::exercise::table_of;
use crate::{LONGEST, Place};
use lapwing::layout::{COMMITTED, HEADER};
use lapwing::*;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::OpenOptions;
use std::ops::Range;
use std::path::Path;

fn punch(file: &Path, bytes: Range<u64>) {
    let file = OpenOptions::new().write(true).open(file).unwrap();
    let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, how, bytes.start as i64, (bytes.end - bytes.start) as i64).unwrap();
}

/// A bus with some records, all in the ring's second page and later.
fn scene(place: &Place) -> Writer {
    let mut writer = Options::new().capacity(1 << 16).readers(8).create(place.bus()).unwrap();
    writer.publish(&[1; 4000]).unwrap();
    writer.publish(&[2; 4000]).unwrap();
    writer
}

fn assert_wiped(what: &str, result: Result<Next<'_>>, bus: &Path) {
    let Err(Error::Corrupt { path, field, expected, found }) = result else { panic!("{what}: {result:?}") };
    assert_eq!((path.as_path(), field, expected, found), (bus, "a record's commit word", COMMITTED, 0), "{what}");
}

#[test]
fn a_hole_in_the_ring_is_corrupt_to_who_reads_there() {
    let place = Place::new("hole");
    let bus = place.bus();
    let mut writer = scene(&place);
    let start = std::fs::metadata(&bus).unwrap().len() - (1 << 16);
    let oldest = |class| Reader::options().class(class).start(Start::Oldest).open(&bus).unwrap();
    let mut readers = [Class::Gating, Class::Pinned, Class::Lossy].map(oldest);
    let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
    // Who has come to the tip before the record is there does not look at the head first.
    let mut at_the_tip = Reader::open(&bus).unwrap();
    for _ in 0..100 {
        assert!(matches!(at_the_tip.try_next().unwrap(), Next::Empty));
    }
    for reader in &mut readers {
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.sequence() == 0));
    }
    assert!(matches!(observer.try_next().unwrap(), Next::Record(record) if record.sequence() == 0));
    for byte in 3..8 {
        writer.publish(&[byte; 4000]).unwrap();
    }
    // Everything from the second page on.
    punch(&bus, start + 4096..start + (1 << 16));
    for reader in &mut readers {
        // Record 1 begins below the hole.
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.sequence() == 1));
        assert_wiped("waiting", reader.next(), &bus);
        assert_wiped("again", reader.next_timeout(DEADLINE), &bus);
        assert_wiped("polling", until_failure(|| reader.try_next().map(|next| !matches!(next, Next::Empty))), &bus);
        assert_wiped("draining", until_failure(|| reader.drain(9, |_| ()).map(|drained| drained.0 != 0)), &bus);
    }
    assert!(matches!(observer.try_next().unwrap(), Next::Record(record) if record.sequence() == 1));
    assert_wiped("observing", observer.next(), &bus);
    assert_wiped("at the tip", until_failure(|| at_the_tip.try_next().map(|next| !matches!(next, Next::Empty))), &bus);
    // From the next record on everything is as before.
    for reader in &mut readers {
        reader.rejoin(Start::Latest).unwrap();
    }
    observer.seek(Start::Latest).unwrap();
    let sequence = writer.publish(&payload(writer.next_sequence(), LONGEST)).unwrap();
    for reader in &mut readers {
        let gap = reader.try_next();
        let next = if matches!(gap, Ok(Next::Gap(_))) { reader.try_next() } else { gap };
        let Ok(Next::Record(record)) = next else { panic!("{next:?}") };
        assert_eq!(record.sequence(), sequence);
        assert_whole(&record, LONGEST);
    }
    let next = observer.next().unwrap();
    assert!(matches!(next, Next::Gap(_) | Next::Record(_)), "{next:?}");
}

/// Polls until it fails, which it has to, soon.
fn until_failure(mut poll: impl FnMut() -> Result<bool>) -> Result<Next<'static>> {
    for _ in 0..10_000 {
        if poll()? {
            panic!("something where nothing is");
        }
    }
    Ok(Next::Empty)
}

#[test]
fn a_hole_in_the_header_closes_the_door_and_the_writer_goes_on() {
    let place = Place::new("hole");
    let bus = place.bus();
    let mut writer = scene(&place);
    let mut reader = Reader::open(&bus).unwrap();
    punch(&bus, 0..HEADER);
    assert!(matches!(reader.try_next().unwrap(), Next::Empty));
    for _ in 0..1000 {
        let sequence = writer.publish(&payload(writer.next_sequence(), LONGEST)).unwrap();
        let Next::Record(record) = reader.next().unwrap() else { panic!() };
        assert_eq!(record.sequence(), sequence);
        assert_whole(&record, LONGEST);
    }
    let errors = [
        Bus::inspect(&bus).err(),
        Reader::open(&bus).err(),
        Observer::open(&bus, Start::Oldest).err(),
        Writer::open(&bus).err(),
        Options::new().replace(&bus).err(),
    ];
    for error in errors {
        let Some(Error::NotABus { path, why }) = error else { panic!("{error:?}") };
        assert_eq!(path, bus);
        assert!(why.contains("starts with 0x0"), "{why}");
    }
}

#[test]
fn a_hole_in_the_table_evicts_and_everybody_is_told() {
    let place = Place::new("hole");
    let bus = place.bus();
    let mut writer = scene(&place);
    let mut readers = [Class::Gating, Class::Pinned, Class::Lossy]
        .map(|class| Reader::options().class(class).start(Start::Oldest).open(&bus).unwrap());
    let length = std::fs::metadata(table_of(&bus)).unwrap().len();
    punch(&table_of(&bus), HEADER..length);
    // Nobody is there any more as far as the writer can tell.
    for _ in 0..100 {
        writer.publish(&[3; 4000]).unwrap();
    }
    for reader in &mut readers {
        let Next::Evicted(gap) = reader.next().unwrap() else { panic!() };
        assert_eq!(gap.first, 0);
        let gap = reader.rejoin(Start::Oldest).unwrap();
        assert!(gap.first == 0 && !gap.is_empty());
        let Next::Record(record) = reader.next().unwrap() else { panic!() };
        assert_eq!((record.sequence(), record.payload()), (gap.end, &[3; 4000][..]));
    }
}
