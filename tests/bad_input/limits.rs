//! Numbers at their edges: a fresh bus whose header is moved to where a stream would be after years.

use crate::common::{Place, assert_balanced};
use crate::set_word;
use lapwing::layout::MAX_POSITION;
use lapwing::*;
use std::path::Path;

const CAPACITY: u64 = 4096;
/// Words of the ring's header.
const LIMIT: usize = 32;
const INTENT: usize = 33;
const HEAD: usize = 48;
const HEAD_SEQUENCE: usize = 49;

/// Makes a bus on which everything before this position, and this sequence, has been published and overwritten.
fn bus_at(path: &Path, position: u64, sequence: u64, stamped: bool) {
    drop(Options::new().capacity(CAPACITY).stamped(stamped).create(path).unwrap());
    let mut ring = std::fs::read(path).unwrap();
    for (word, value) in
        [(HEAD, position), (HEAD_SEQUENCE, sequence), (LIMIT, position + CAPACITY), (INTENT, position + CAPACITY)]
    {
        set_word(&mut ring, word, value);
    }
    std::fs::write(path, ring).unwrap();
}

/// Publishes so many records (or to the end of the stream) to readers of every kind; returns how many there were.
fn run(path: &Path, sequence: u64, count: u64) -> u64 {
    let mut writer = Writer::open(path).unwrap();
    assert_eq!((writer.resumed_at(), writer.epoch()), (sequence, 2));
    let classes = [Class::Gating, Class::Lossy, Class::Pinned];
    let mut readers = classes.map(|class| Reader::options().class(class).start(Start::Oldest).open(path).unwrap());
    let mut late = Reader::options().name("late").start(Start::Oldest).class(Class::Lossy).open(path).unwrap();
    let mut observer = Observer::open(path, Start::Oldest).unwrap();
    let mut published = 0;
    while published < count {
        let payload = vec![published as u8; (published * 37 % 600) as usize];
        match writer.try_publish_tagged(published as u32, &payload) {
            Ok(found) => assert_eq!(found, sequence + published),
            Err(PublishError::Exhausted) => break,
            Err(error) => panic!("{error}"),
        }
        for next in readers.iter_mut().map(Reader::try_next).chain([observer.try_next()]) {
            match next.unwrap() {
                Next::Record(record) => {
                    assert_eq!((record.sequence(), record.tag()), (sequence + published, published as u32));
                    assert_eq!(record.payload(), payload);
                }
                other => panic!("{other:?} after {published}"),
            }
        }
        published += 1;
    }
    // Who slept through it is told exactly what is gone, and starts lead to the sequence.
    let next = sequence + published;
    let oldest = Bus::inspect(path).unwrap().oldest;
    let (mut missed, mut wanted) = (0, sequence);
    loop {
        match late.try_next().unwrap() {
            Next::Gap(gap) => {
                assert_eq!((gap.first, missed), (sequence, 0));
                (missed, wanted) = (gap.count(), gap.end);
            }
            Next::Record(record) => {
                assert_eq!(record.sequence(), wanted);
                wanted += 1;
            }
            Next::Empty => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(wanted, next);
    for first in oldest..next {
        let mut reader = Reader::options().start(Start::After(first - 1)).open(path).unwrap();
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.sequence() == first));
    }
    assert!(
        matches!(Observer::open(path, Start::After(next)), Err(Error::FutureSequence { next: found, .. }) if found == next)
    );
    for reader in readers.iter_mut().chain([&mut late]) {
        assert!(matches!(reader.try_next().unwrap(), Next::Empty));
        assert_balanced(&reader.info().unwrap(), next);
    }
    published
}

#[test]
fn positions_and_sequences_cross_two_to_the_32() {
    for stamped in [false, true] {
        for position in [(1 << 32) - 3 * CAPACITY, (1 << 32) - 16, 1 << 32, (1 << 31) - 1024, (1 << 33) - 2048] {
            for sequence in [(1u64 << 32) - 30, (1 << 32) - 1, 1 << 32, (1 << 31) - 10] {
                let place = Place::new("edge");
                bus_at(&place.bus(), position, sequence, stamped);
                assert_eq!(run(&place.bus(), sequence, 80), 80);
                assert!(Bus::inspect(place.bus()).unwrap().head > position);
            }
        }
    }
}

#[test]
fn the_stream_ends_in_an_error_before_its_last_position() {
    for stamped in [false, true] {
        for before in [8 * CAPACITY, CAPACITY, 608, 64, 48, 32] {
            let place = Place::new("end");
            let path = place.bus();
            bus_at(&path, MAX_POSITION - before, 1 << 50, stamped);
            let published = run(&path, 1 << 50, 10_000);
            assert!(published < 10_000);
            let mut writer = Writer::open(&path).unwrap();
            assert_eq!(writer.resumed_at(), (1 << 50) + published);
            // What does not fit is refused for good; a smaller record may still have room.
            let payload = vec![1; writer.max_record()];
            for _ in 0..3 {
                assert!(matches!(writer.publish(&payload), Err(PublishError::Exhausted)));
                assert!(matches!(writer.claim(0, 900).err(), Some(PublishError::Exhausted)));
                assert!(matches!(writer.batch().push(&payload), Err(PublishError::Exhausted)));
            }
            let mut reader = Reader::open(&path).unwrap();
            let mut more = 0;
            while writer.try_publish(b"").is_ok() {
                assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.is_empty()));
                more += 1;
            }
            assert!(more <= 8 * CAPACITY / 16);
            assert!(Bus::inspect(&path).unwrap().head < MAX_POSITION);
            writer.close_with(1, "no more positions").unwrap();
            assert!(
                matches!(reader.try_next().unwrap(), Next::Closed(closed) if closed.sequence == (1 << 50) + published + more)
            );
            // A new bus begins again.
            drop(reader);
            assert_eq!(Options::new().replace(&path).unwrap().publish(b"again").unwrap(), 0);
        }
    }
}

#[test]
fn a_head_that_no_stream_can_have_is_corrupt() {
    for position in [MAX_POSITION, MAX_POSITION + CAPACITY, 8, (1 << 40) + 1] {
        let place = Place::new("head");
        bus_at(&place.bus(), position, 5, false);
        let error = Writer::open(place.bus()).err().unwrap();
        assert!(matches!(error, Error::Corrupt { .. }), "{position}: {error:?}");
        assert!(error.to_string().contains("head"), "{error}");
        let _ = Bus::inspect(place.bus());
    }
}
