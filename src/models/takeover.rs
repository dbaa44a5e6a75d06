//! A writer dies before each of its stores in turn; the next one takes over, and readers need to do nothing.

use super::rig::{Bus, Read, Reader, Writer, explore};
use super::words::die_before_store;
use crate::ring::Seek;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Order};

/// Runs a scene with a writer that dies before its store 0, 1, 2 and so on, until it lives to the end.
fn at_each_store(name: &'static str, preemptions: usize, scene: impl Fn(u32) -> bool + Copy + Send + Sync + 'static) {
    for stores in 0.. {
        let died = Arc::new(AtomicBool::new(false));
        let tell = died.clone();
        explore(name, preemptions, move || tell.store(scene(stores), Order::Relaxed));
        if !died.load(Order::Relaxed) {
            assert!(stores > 8, "only {stores} stores: it died of something else");
            return;
        }
    }
}

/// The first writer publishes one record and maybe dies; the second, marked, publishes one more. True if the first died.
fn two_lives(bus: &Arc<Bus>, mut first: Writer, stores: u32) -> (bool, u64) {
    let died = die_before_store(stores, || drop(first.publish()));
    let mut second = Writer::take_over(bus, false);
    second.mark = 1;
    let resumed_at = second.publisher.head.sequence;
    second.publish().unwrap();
    (died, resumed_at)
}

/// A reader across the takeover: each sequence once, whole, from the one writer that published it.
#[test]
fn a_reader_notices_nothing() {
    at_each_store("a reader notices nothing", 2, |stores| {
        // The record extends the limit, crosses a stripe and ends where an old record begins.
        let (bus, first) = Bus::published(128, 64, 1, 5);
        let mut reader = Reader::new(&bus, bus.place(5));
        let life = thread::spawn({
            let bus = bus.clone();
            move || two_lives(&bus, first, stores)
        });
        let read = reader.read_carefully();
        let (died, resumed_at) = life.join().unwrap();
        let mark_of_5 = u64::from(resumed_at == 5);
        assert!(resumed_at == 5 || resumed_at == 6);
        assert!(died || resumed_at == 6);
        match read {
            Read::Empty => assert_eq!(reader.read_carefully(), Read::Record(5, mark_of_5)),
            read => assert_eq!(read, Read::Record(5, mark_of_5), "a record was published twice"),
        }
        if resumed_at == 6 {
            assert_eq!(reader.read_carefully(), Read::Record(6, 1));
        }
        assert_eq!(reader.read_carefully(), Read::Empty);
        died
    });
}

/// Who starts at Latest or at the oldest while writers change finds a true place.
#[test]
fn places_stay_true() {
    at_each_store("places stay true", 1, |stores| {
        let (bus, first) = Bus::published(128, 64, 1, 5);
        let life = thread::spawn({
            let bus = bus.clone();
            move || two_lives(&bus, first, stores)
        });
        let latest = bus.ring.head();
        assert_eq!(latest, bus.place(latest.sequence));
        let found = bus.ring.seek(Seek::Sequence(6));
        assert_eq!(found, bus.place(found.sequence));
        assert!((5..=7).contains(&found.sequence));
        let (died, _) = life.join().unwrap();
        died
    });
}

/// The same for a record that wraps, with its padding.
#[test]
fn a_wrapping_record_is_whole_or_absent() {
    at_each_store("a wrapping record is whole or absent", 2, |stores| {
        let (bus, mut first) = Bus::published(256, 128, 1, 0);
        first.publish_words(0).unwrap();
        for _ in 0..7 {
            first.publish().unwrap();
        }
        assert_eq!(first.publisher.head.position, 240);
        let mut reader = Reader::new(&bus, first.publisher.head);
        let life = thread::spawn({
            let bus = bus.clone();
            move || two_lives(&bus, first, stores)
        });
        let read = reader.read_carefully();
        let (died, resumed_at) = life.join().unwrap();
        let mark_of_8 = u64::from(resumed_at == 8);
        if read == Read::Empty {
            assert_eq!(reader.read_carefully(), Read::Record(8, mark_of_8));
        } else {
            assert_eq!(read, Read::Record(8, mark_of_8));
        }
        died
    });
}
