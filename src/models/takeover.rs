//! A writer dies before each of its stores in turn; the next one takes over, and readers need to do nothing.

use super::rig::{Bus, RECORD, Read, Reader, Writer, explore_deaths};
use super::words::die_before_store;
use crate::layout::ring as at;
use crate::report::Class;
use crate::ring::Seek;
use loom::thread;
use std::sync::Arc;

/// The first writer publishes one record and maybe dies; the second, marked, publishes one more. True if the first died.
fn two_lives(bus: &Arc<Bus>, mut first: Writer, stores: u32) -> (bool, u64) {
    let died = die_before_store(stores, || drop(first.publish()));
    let mut second = Writer::take_over(bus, false);
    second.mark = 1;
    assert_eq!(bus.ring.get(at::INTENT), bus.limit(), "an intent of the dead");
    let resumed_at = second.publisher.head.sequence;
    second.publish().unwrap();
    (died, resumed_at)
}

/// A reader across the takeover: each sequence once, whole, from the one writer that published it.
#[test]
fn a_reader_notices_nothing() {
    explore_deaths("a reader notices nothing", 2, |stores| {
        // The record extends the limit, crosses a stripe and ends where an old record begins.
        let (bus, first) = Bus::published(128, 64, 1, 5);
        let mut reader = Reader::new(&bus, bus.place(5));
        let life = thread::spawn({
            let bus = bus.clone();
            move || two_lives(&bus, first, stores)
        });
        let mut read = reader.read_carefully();
        if read == Read::Empty {
            read = reader.read_carefully();
        }
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

/// Who starts at Latest while writers change finds a true place.
#[test]
fn latest_stays_a_true_place() {
    explore_deaths("latest stays a true place", 2, |stores| {
        let (bus, first) = Bus::published(128, 64, 1, 5);
        let life = thread::spawn({
            let bus = bus.clone();
            move || two_lives(&bus, first, stores)
        });
        let latest = bus.ring.head();
        assert_eq!(latest, bus.place(latest.sequence));
        let (died, _) = life.join().unwrap();
        died
    });
}

/// A dead writer left index entries of a record that never came to be; the next one's records end elsewhere.
#[test]
fn entries_of_the_dead_mislead_nobody() {
    explore_deaths("entries of the dead mislead nobody", 2, |stores| {
        let (bus, mut first) = Bus::published(128, 32, 1, 5);
        let died = die_before_store(stores, || drop(first.publish()));
        let mut second = Writer::take_over(&bus, false);
        let resumed_at = second.publisher.head;
        assert_eq!(resumed_at, bus.place(resumed_at.sequence));
        let publish = thread::spawn(move || {
            for _ in 0..3 {
                second.publish_words(0).unwrap();
            }
        });
        let found = bus.ring.seek(Seek::Sequence(7));
        let small = found.sequence.saturating_sub(resumed_at.sequence);
        let position = (found.sequence - small) * RECORD + small * RECORD / 2;
        assert_eq!(found.position, position, "no place of {}", found.sequence);
        publish.join().unwrap();
        died
    });
}

/// The same for a record that wraps, with its padding.
#[test]
fn a_wrapping_record_is_whole_or_absent() {
    explore_deaths("a wrapping record is whole or absent", 2, |stores| {
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

/// A batch appears as a whole or not at all, whenever its writer dies.
#[test]
fn a_batch_is_whole_or_absent() {
    explore_deaths("a batch is whole or absent", 2, |stores| {
        let (bus, mut first) = Bus::published(128, 64, 1, 4);
        let mut reader = Reader::new(&bus, bus.place(4));
        let life = thread::spawn({
            let bus = bus.clone();
            move || {
                let died = die_before_store(stores, || first.publish_batch());
                let mut second = Writer::take_over(&bus, false);
                second.mark = 1;
                let resumed_at = second.publisher.head.sequence;
                second.publish().unwrap();
                (died, resumed_at)
            }
        });
        let read = [reader.read_carefully(), reader.read_carefully()];
        let (died, resumed_at) = life.join().unwrap();
        assert!(resumed_at == 4 || resumed_at == 6, "half a batch");
        let mark = u64::from(resumed_at == 4);
        for (read, sequence) in read.into_iter().filter(|read| *read != Read::Empty).zip(4..) {
            assert_eq!(read, Read::Record(sequence, if sequence == resumed_at { 1 } else { mark }));
        }
        died
    });
}

/// The new writer knows nothing of the readers but what the table says, and overruns none of them.
#[test]
fn the_readers_of_the_dead_are_waited_for() {
    explore_deaths("the readers of the dead are waited for", 1, |stores| {
        let (bus, mut first) = Bus::published(128, 64, 2, 3);
        bus.seat(1, Class::Gating, bus.place(2));
        let life = thread::spawn({
            let bus = bus.clone();
            move || {
                let died = die_before_store(stores, || {
                    for _ in 0..4 {
                        let _ = first.publish();
                    }
                });
                let mut second = Writer::take_over(&bus, false);
                for _ in 0..4 {
                    let _ = second.publish();
                }
                died
            }
        });
        let asked = bus.place(1);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let died = life.join().unwrap();
        assert!(bus.limit() <= joined.position + 128, "the joiner was overrun");
        assert!(bus.limit() <= bus.place(2).position + 128, "the old reader was overrun");
        assert_eq!(Reader::new(&bus, bus.place(2)).read_carefully(), Read::Record(2, 0));
        died
    });
}
