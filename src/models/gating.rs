//! Cursors hold the writer up; whoever is evicted while it reads takes nothing torn and is told why; a writer that waits is woken.

use super::rig::{Bus, RECORD, Read, Reader, Writer, explore};
use crate::layout::ring as at;
use crate::publish::Refused;
use crate::report::Class;
use crate::ring::Place;
use crate::sync::Ordering;
use crate::sys;
use crate::table::Phase;
use crate::wake;
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

/// A reader reads and commits while the writer publishes as much as it may: every record, in order, none overtaken.
#[test]
fn a_gating_reader_reads_everything() {
    explore("a gating reader reads everything", 3, || {
        let (bus, mut writer) = Bus::published(128, 32, 1, 4);
        bus.seat(0, Class::Gating, bus.place(1));
        let publish = thread::spawn(move || {
            let mut published = 0;
            for _ in 0..3 {
                published += u64::from(writer.publish().is_ok());
            }
            published
        });
        let mut reader = Reader::new(&bus, bus.place(1));
        for sequence in 1..4 {
            assert_eq!(reader.read_carefully(), Read::Record(sequence, 0));
            reader.commit(0);
        }
        let end = 4 + publish.join().unwrap();
        for sequence in 4..end {
            assert_eq!(reader.read_carefully(), Read::Record(sequence, 0));
        }
        assert_eq!(reader.read_carefully(), Read::Empty);
    });
}

/// Two readers: the writer looks at the slowest alone between scans, and must not forget the other.
#[test]
fn the_runner_up_counts_once_the_slowest_has_moved() {
    explore("the runner-up counts once the slowest has moved", 2, || {
        let (bus, mut writer) = Bus::published(128, 32, 2, 4);
        bus.seat(0, Class::Gating, bus.place(1));
        bus.seat(1, Class::Gating, bus.place(2));
        let publish = thread::spawn(move || {
            for _ in 0..3 {
                let _ = writer.publish();
            }
        });
        let mut reader = Reader::new(&bus, bus.place(1));
        for sequence in 1..4 {
            assert_eq!(reader.read_carefully(), Read::Record(sequence, 0));
            reader.commit(0);
        }
        publish.join().unwrap();
        assert_eq!(Reader::new(&bus, bus.place(2)).read_carefully(), Read::Record(2, 0));
    });
}

/// The same where scans are far apart, as in rings of more than a few records. Nothing here is concurrent.
#[test]
fn the_runner_up_counts_between_scans() {
    explore("the runner-up counts between scans", 0, || {
        let (bus, mut writer) = Bus::published(2048, 32, 2, 64);
        bus.seat(0, Class::Gating, bus.place(2));
        bus.seat(1, Class::Gating, bus.place(3));
        writer.publish().expect("room for one, found by a scan");
        let Place { position, sequence } = bus.place(30);
        bus.table.slot(0).move_cursor(position, sequence);
        writer.publish().expect("room for another, found by a look at the slowest");
        assert!(writer.publish().is_err(), "the other reader was forgotten");
    });
}

/// Publishes; where a reader is in the way, evicts it, as the policy `Evict` does.
fn publish_evicting(writer: &mut Writer) {
    while let Err(refused) = writer.publish() {
        let Refused::Blocked { cursor } = refused else { panic!("{refused:?}") };
        let in_the_way: Vec<u32> = writer.publisher.in_the_way(&writer.bus.table, cursor).collect();
        for slot in in_the_way {
            writer.bus.evict(slot);
        }
        writer.publisher.forget_gate();
    }
}

/// What a gating reader may get: its record, or Lapped, and then its slot says that it was evicted.
fn whole_or_evicted(bus: &Arc<Bus>, own: crate::table::Control) {
    let mut reader = Reader::new(bus, bus.place(1));
    match reader.read_carefully() {
        Read::Record(sequence, _) => assert_eq!(sequence, 1),
        Read::Lapped => {
            let control = bus.table.slot(0).control();
            assert_ne!(control, own, "lapped, and not told why");
            assert_eq!(control, own.with(Phase::Evicted));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_is_evicted_while_it_reads_is_told() {
    explore("who is evicted while it reads is told", 3, || {
        let (bus, mut writer) = Bus::published(128, 64, 1, 5);
        // The oldest that is intact is 2, but its predecessor's header would still be there.
        let (bus, own) = {
            let place = bus.place(2);
            let own = bus.seat(0, Class::Gating, place);
            (bus, own)
        };
        let publish = thread::spawn(move || {
            publish_evicting(&mut writer);
            publish_evicting(&mut writer);
        });
        let mut reader = Reader::new(&bus, bus.place(2));
        match reader.read_carefully() {
            Read::Record(sequence, _) => assert_eq!(sequence, 2),
            Read::Lapped => {
                assert_eq!(bus.table.slot(0).control(), own.with(Phase::Evicted), "lapped, and not told why")
            }
            other => panic!("{other:?}"),
        }
        publish.join().unwrap();
    });
}

/// A third process evicts; the writer merely finds the way free.
#[test]
fn who_is_evicted_by_a_third_is_told() {
    explore("who is evicted by a third is told", 5, || {
        let (bus, mut writer) = Bus::published(128, 32, 1, 4);
        let own = bus.seat(0, Class::Gating, bus.place(1));
        let evict = thread::spawn({
            let bus = bus.clone();
            move || assert!(bus.evict(0))
        });
        let publish = thread::spawn(move || {
            let _ = writer.publish();
            let _ = writer.publish();
        });
        whole_or_evicted(&bus, own);
        evict.join().unwrap();
        publish.join().unwrap();
    });
}

/// Evicted while it joins: the eviction stands, whichever step it met.
#[test]
fn an_eviction_of_a_joiner_stands() {
    explore("an eviction of a joiner stands", 2, || {
        let (bus, mut writer) = Bus::published(128, 64, 1, 5);
        let publish = thread::spawn(move || {
            publish_evicting(&mut writer);
            writer.bus.table.slot(0).control().phase()
        });
        let joined = bus.join(0, Class::Gating, bus.place(2));
        let at_publish = publish.join().unwrap();
        let now = bus.table.slot(0).control().phase();
        match joined {
            Some((place, own)) => {
                let evicted = now == Phase::Evicted;
                assert!(evicted || now == Phase::Active && bus.limit() <= place.position + 128);
                assert!(evicted || bus.table.slot(0).control() == own);
            }
            None => assert_eq!(now, Phase::Evicted),
        }
        assert!(at_publish != Phase::Evicted || now == Phase::Evicted, "an eviction was undone");
    });
}

/// The writer asked to be woken, and sleeps: whoever passes the place it waits for wakes it. No time-out helps it here.
#[test]
fn a_waiting_writer_is_woken() {
    explore("a waiting writer is woken", 3, || {
        let (bus, mut writer) = Bus::published(128, 32, 1, 4);
        bus.seat(0, Class::Gating, bus.place(1));
        bus.ring.set(at::WAITING, 1);
        let publish = thread::spawn(move || {
            // As `Writer::reserve_slow` waits.
            for _ in 0..2 {
                loop {
                    let seen = writer.bus.table.space_word().load(Ordering::Acquire);
                    if writer.publish().is_ok() {
                        break;
                    }
                    sys::futex_wait(writer.bus.table.space_word(), seen, Duration::MAX);
                }
            }
        });
        let mut reader = Reader::new(&bus, bus.place(1));
        for sequence in 1..3 {
            assert_eq!(reader.read_carefully(), Read::Record(sequence, 0));
            reader.commit(0);
            if bus.ring.get(at::WAITING) != 0 {
                wake::wake_writer(&bus.table);
            }
        }
        publish.join().unwrap();
    });
}

/// A reader leaves, and wants its place held: whoever sees it away sees since when, and goes on waiting for it.
#[test]
fn who_is_away_is_waited_for() {
    explore("who is away is waited for", 3, || {
        let (bus, mut writer) = Bus::published(128, 64, 1, 5);
        let slot = bus.table.slot(0);
        slot.set_owner(1, (1, 1), 10, 0, 0);
        let joining = slot.control().joining(Class::Gating, true, true);
        crate::join::join(&bus.ring, &bus.table, slot, slot.control(), joining, bus.place(2)).unwrap();
        let publish = thread::spawn(move || {
            for _ in 0..2 {
                let _ = writer.publish();
            }
        });
        // As `Seat::leave` does.
        slot.set_detached_at(sys::boot_clock());
        assert!(slot.transition(joining.with(Phase::Active), joining.with(Phase::Detached)));
        publish.join().unwrap();
        assert_eq!(Reader::new(&bus, bus.place(2)).read_carefully(), Read::Record(2, 0));
    });
}

/// A reader comes back while its place is held without end, now for a time: no moment of it looks like a hold that ran out.
#[test]
fn who_comes_back_is_waited_for() {
    explore("who comes back is waited for", 3, || {
        let (bus, mut writer) = Bus::published(128, 64, 1, 5);
        let slot = bus.table.slot(0);
        slot.set_owner(1, (1, 1), 0, 0, 0);
        let joining = slot.control().joining(Class::Gating, true, true);
        crate::join::join(&bus.ring, &bus.table, slot, slot.control(), joining, bus.place(2)).unwrap();
        let away = joining.with(Phase::Detached);
        assert!(slot.transition(joining.with(Phase::Active), away));
        let publish = thread::spawn(move || {
            for _ in 0..2 {
                let _ = writer.publish();
            }
        });
        slot.set_owner(1, (2, 2), 10, 0, sys::boot_clock());
        let joining = away.joining(Class::Gating, true, true);
        let joined = crate::join::join(&bus.ring, &bus.table, slot, away, joining, bus.place(2));
        assert_eq!(joined, Some(bus.place(2)), "its place was not held");
        publish.join().unwrap();
        assert_eq!(Reader::new(&bus, bus.place(2)).read_carefully(), Read::Record(2, 0));
    });
}

/// Whoever sees a cursor beyond a gap sees the gap in the books.
#[test]
fn a_jump_is_one_store() {
    explore("a jump is one store", 3, || {
        let bus = Bus::new(128, 64, 1);
        bus.seat(0, Class::Gating, bus.place(1));
        let look = thread::spawn({
            let bus = bus.clone();
            move || {
                let slot = bus.table.slot(0);
                let (_, sequence) = slot.cursor();
                assert_eq!(slot.missed(sequence), sequence - 1);
            }
        });
        let slot = bus.table.slot(0);
        slot.prepare_jump(1, 3);
        slot.move_cursor(3 * RECORD, 3);
        look.join().unwrap();
    });
}
