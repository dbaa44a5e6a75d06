//! The writer laps an observer, whom it does not wait for: what the observer takes is whole, and it learns when it was lapped.

use super::rig::{Bus, RECORD, Read, Reader, Writer, explore};
use crate::layout::Commit;
use crate::report::Class;
use crate::ring::{Place, Seek};
use loom::thread;
use std::sync::Arc;

/// Four records a lap, a new limit with every second one; 0 to 4 are published, 2 is the oldest that is intact.
///
/// The next publish raises the limit and puts its zero ahead over the commit word of 2; the one after overwrites it.
fn about_to_lap() -> (Arc<Bus>, Writer) {
    let (bus, writer) = Bus::published(128, 64, 1, 5);
    assert_eq!((bus.limit(), writer.publisher.head.position), (192, 160));
    (bus, writer)
}

fn two_more(mut writer: Writer) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        writer.publish().unwrap();
        writer.publish().unwrap();
    })
}

#[test]
fn what_an_observer_takes_is_whole() {
    explore("what an observer takes is whole", 3, || {
        let (bus, writer) = about_to_lap();
        let publish = two_more(writer);
        let mut observer = Reader::new(&bus, bus.place(2));
        // Never empty: 2 was published long ago, so a zero in its place is the next lap's.
        match observer.read_carefully() {
            Read::Record(sequence, _) => assert_eq!(sequence, 2),
            other => assert_eq!(other, Read::Lapped),
        }
        publish.join().unwrap();
        assert_eq!(Reader::new(&bus, bus.place(2)).read(), Read::Lapped);
    });
}

#[test]
fn the_short_cut_is_as_careful() {
    explore("the short cut is as careful", 3, || {
        let (bus, writer) = about_to_lap();
        let publish = two_more(writer);
        let mut observer = Reader::new(&bus, bus.place(2));
        if let Some(read) = observer.read_quickly() {
            assert_eq!(read, Read::Record(2, 0), "and no zero of the next lap");
        }
        publish.join().unwrap();
    });
}

/// Lapped, it moves up, and goes on from a true place.
#[test]
fn a_lapped_observer_moves_up() {
    explore("a lapped observer moves up", 2, || {
        let (bus, writer) = about_to_lap();
        let publish = two_more(writer);
        let mut observer = Reader::new(&bus, bus.place(2));
        if observer.read_carefully() == Read::Lapped {
            let place = bus.ring.seek(Seek::Clear);
            assert_eq!(place, bus.place(place.sequence));
            assert!(place.sequence > 2, "it was told of a gap that is none");
            observer.consumer.go_to(&bus.ring, place);
            match observer.read_carefully() {
                Read::Record(sequence, _) => assert_eq!(sequence, place.sequence),
                Read::Empty => assert!(place.sequence >= 5),
                _ => {}
            }
        }
        publish.join().unwrap();
    });
}

/// The index is overwritten while it is searched.
#[test]
fn a_seek_ends_at_a_true_place() {
    explore("a seek ends at a true place", 1, || {
        let (bus, writer) = about_to_lap();
        let publish = two_more(writer);
        let place = bus.ring.seek(Seek::Sequence(3));
        assert_eq!(place, bus.place(place.sequence));
        assert!((3..=7).contains(&place.sequence));
        publish.join().unwrap();
    });
}

/// The next lap's payload comes to lie where a header was, and looks like one: with the old sequence it makes a record, or padding.
fn no_payload_is_taken_for_a_header(commit: Commit) {
    let (bus, mut writer) = Bus::published(128, 64, 1, 5);
    // An empty record shifts all that follow by half a record: the payload of 6 overwrites the header of 2.
    writer.publish_words(0).unwrap();
    let publish = thread::spawn(move || {
        writer.publish_this(&[commit.0, 9]).unwrap();
    });
    let mut observer = Reader::new(&bus, bus.place(2));
    match observer.read() {
        Read::Record(sequence, _) => assert_eq!(sequence, 2),
        other => assert_eq!(other, Read::Lapped),
    }
    publish.join().unwrap();
}

#[test]
fn no_payload_is_taken_for_a_record() {
    explore("no payload is taken for a record", 3, || no_payload_is_taken_for_a_header(Commit::record(2, 0)));
}

#[test]
fn no_payload_is_taken_for_padding() {
    explore("no payload is taken for padding", 3, || no_payload_is_taken_for_a_header(Commit::padding()));
}

/// The record across a boundary ends above it: the entry is overwritten while the place it names is still intact.
#[test]
fn an_entry_is_older_than_its_place() {
    explore("an entry is older than its place", 2, || {
        let (bus, mut writer) = Bus::published(256, 64, 1, 0);
        writer.publish_words(0).unwrap();
        for _ in 0..8 {
            writer.publish().unwrap();
        }
        // 3 lies at 80, the first record above the boundary at 64, and holds the writer up to just where it overwrites the entry.
        bus.seat(0, Class::Gating, Place { position: 80, sequence: 3 });
        assert_eq!((bus.limit(), writer.publisher.head.position), (320, 288));
        let publish = thread::spawn(move || writer.publish().unwrap());
        let place = bus.ring.seek(Seek::Sequence(3));
        assert_eq!(place.position, place.sequence * RECORD - RECORD / 2, "no place of {}", place.sequence);
        publish.join().unwrap();
        assert_eq!(bus.limit(), 80 + 256);
    });
}

/// The same payload in a header's place, met on the way from a boundary to the wanted record.
#[test]
fn no_payload_leads_a_seek_astray() {
    explore("no payload leads a seek astray", 2, || {
        let (bus, mut writer) = Bus::published(128, 64, 1, 5);
        writer.publish_words(0).unwrap();
        let publish = thread::spawn(move || {
            writer.publish_this(&[Commit::record(2, 48).0, 9]).unwrap();
        });
        let place = bus.ring.seek(Seek::Sequence(3));
        let position = [160, 176, 208].get(place.sequence.wrapping_sub(5) as usize).copied();
        assert_eq!(place.position, position.unwrap_or(place.sequence * RECORD), "no place of {}", place.sequence);
        publish.join().unwrap();
    });
}
