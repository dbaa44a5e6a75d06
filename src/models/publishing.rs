//! Publish against read: a record is whole or absent, `Latest` is a true place, and what an earlier lap left behind is no record.

use super::rig::{Bus, Read, Reader, explore};
use crate::ring::Place;
use loom::thread;

/// Second lap: the bytes under the records to come are those of old records.
#[test]
fn a_record_is_whole_or_absent() {
    explore("a record is whole or absent", 2, || {
        let (bus, mut writer) = Bus::published(256, 128, 1, 8);
        let mut reader = Reader::new(&bus, writer.publisher.head);
        let publish = thread::spawn(move || {
            writer.publish().unwrap();
            writer.publish().unwrap();
        });
        let mut next = 8;
        for _ in 0..3 {
            match reader.read() {
                Read::Record(sequence, _) => {
                    assert_eq!(sequence, next);
                    next += 1;
                }
                Read::Empty => {}
                other => panic!("{other:?} though nothing was overwritten"),
            }
        }
        publish.join().unwrap();
        while next < 10 {
            assert_eq!(reader.read(), Read::Record(next, 0));
            next += 1;
        }
        assert_eq!(reader.read(), Read::Empty);
    });
}

/// The same without the short cut, which hides some of what the long way sees.
#[test]
fn a_record_is_whole_the_long_way_too() {
    explore("a record is whole the long way too", 3, || {
        let (bus, mut writer) = Bus::published(256, 128, 1, 8);
        let mut reader = Reader::new(&bus, writer.publisher.head);
        let publish = thread::spawn(move || {
            writer.publish().unwrap();
            writer.publish().unwrap();
        });
        for _ in 0..2 {
            assert!(matches!(reader.read_carefully(), Read::Record(..) | Read::Empty));
        }
        publish.join().unwrap();
    });
}

/// The record wraps: padding at the end of the ring, the record at its start, visible together.
#[test]
fn padding_and_its_record_come_together() {
    explore("padding and its record come together", 3, || {
        let (bus, mut writer) = Bus::published(256, 128, 1, 0);
        writer.publish_words(0).unwrap();
        for _ in 0..7 {
            writer.publish().unwrap();
        }
        writer.make_room();
        let start = writer.publisher.head;
        assert_eq!(start, Place { position: 240, sequence: 8 });
        let mut reader = Reader::new(&bus, start);
        let publish = thread::spawn(move || writer.publish().unwrap());
        for _ in 0..2 {
            match reader.read() {
                Read::Record(sequence, _) => assert_eq!(sequence, 8),
                other => assert_eq!(other, Read::Empty),
            }
        }
        publish.join().unwrap();
        while reader.consumer.next.sequence == 8 {
            assert_eq!(reader.read(), Read::Record(8, 0));
        }
        assert_eq!(reader.consumer.next, Place { position: 288, sequence: 9 });
    });
}

/// Position and sequence of head are two words; whoever loads them gets a pair that belongs together.
#[test]
fn latest_is_a_true_place() {
    explore("latest is a true place", 3, || {
        let (bus, mut writer) = Bus::published(256, 128, 1, 8);
        let publish = thread::spawn(move || {
            writer.publish().unwrap();
            writer.publish().unwrap();
        });
        let place = bus.ring.head();
        assert_eq!(place, bus.place(place.sequence));
        assert!((8..=10).contains(&place.sequence));
        let mut reader = Reader::new(&bus, place);
        match reader.read_carefully() {
            Read::Record(sequence, _) => assert_eq!(sequence, place.sequence),
            other => assert_eq!(other, Read::Empty),
        }
        publish.join().unwrap();
    });
}

/// The records of a batch become visible together, and in order, whether its first record is a plain one or reaches a stripe boundary.
#[test]
fn a_batch_comes_as_a_whole() {
    for published in [7, 8] {
        explore("a batch comes as a whole", 3, move || {
            let (bus, mut writer) = Bus::published(256, 128, 1, published);
            let mut reader = Reader::new(&bus, writer.publisher.head);
            let publish = thread::spawn(move || writer.publish_batch());
            if reader.read_carefully() == Read::Record(published, 0) {
                assert_eq!(reader.read_carefully(), Read::Record(published + 1, 0));
            }
            publish.join().unwrap();
        });
    }
}
