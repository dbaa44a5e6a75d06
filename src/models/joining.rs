//! Joins against the limit's extension: once a gating reader is active, nothing it has yet to read is overwritten; a gap is told exactly.

use super::rig::{Bus, RECORD, Read, Reader, Writer, explore, explore_deaths};
use super::words::die_before_store;
use crate::layout::ring as at;
use crate::report::Class;
use crate::ring::{Place, Seek};
use crate::table::Phase;
use loom::thread;
use std::sync::Arc;

/// Publishes until it is refused, `count` times at most. A refusal must leave the limit alone, and what is intended is never more than what was taken:
/// whoever joins later would move up for it.
fn publish_some(mut writer: Writer, count: usize) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        for done in 0..count {
            let before = writer.bus.limit();
            if writer.publish().is_err() {
                assert_eq!(writer.bus.limit(), before, "refused, yet the limit moved");
                assert_eq!(writer.bus.ring.get(at::INTENT), before, "refused, yet it still intends to");
                return done;
            }
            assert_eq!(writer.bus.ring.get(at::INTENT), writer.bus.limit(), "it intends more than it took");
        }
        count
    })
}

/// What every join has to keep, once all is quiet: nothing from the cursor on is gone, and the books say what was skipped.
fn holds(bus: &Arc<Bus>, asked: Place, joined: Place) {
    assert_eq!(joined, bus.place(joined.sequence));
    assert!(joined.sequence >= asked.sequence);
    assert!(bus.limit() <= joined.position + bus.ring.geometry.capacity, "an active reader was overrun");
    let slot = bus.table.slot(0);
    assert_eq!(slot.control().phase(), Phase::Active);
    assert_eq!(slot.cursor(), (joined.position, joined.sequence));
    assert_eq!(slot.missed(joined.sequence), joined.sequence - asked.sequence);
}

fn read_on(bus: &Arc<Bus>, joined: Place, end: u64) {
    let mut reader = Reader::new(bus, joined);
    for sequence in joined.sequence..end {
        assert_eq!(reader.read_carefully(), Read::Record(sequence, 0));
    }
    assert_eq!(reader.read_carefully(), Read::Empty);
}

/// Replay: the joiner starts at the very record that the next publish would overwrite. Each publish extends the limit.
///
/// The counter's ordering takes two extensions to matter: one that sees the bump but not the slot, and the next that trusts it.
#[test]
fn a_replaying_joiner_is_not_overrun() {
    explore("a replaying joiner is not overrun", 2, || {
        let (bus, writer) = Bus::published(128, 32, 1, 4);
        let asked = bus.ring.seek(Seek::Oldest);
        assert_eq!(asked, bus.place(1));
        let publish = publish_some(writer, 2);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let mut reader = Reader::new(&bus, joined);
        match reader.read_carefully() {
            Read::Record(sequence, _) => assert_eq!(sequence, joined.sequence),
            other => assert!(other == Read::Empty && joined.sequence >= 4, "{other:?}"),
        }
        let end = 4 + publish.join().unwrap() as u64;
        holds(&bus, asked, joined);
        read_on(&bus, joined, end);
    });
}

/// The same in a slot whose last owner left it with a cursor far ahead: the phase must not be seen before the new cursor.
#[test]
fn an_old_cursor_in_the_slot_fools_nobody() {
    explore("an old cursor in the slot fools nobody", 2, || {
        let (bus, writer) = Bus::published(128, 32, 1, 4);
        bus.table.slot(0).move_cursor(4 * RECORD, 4);
        let asked = bus.place(1);
        let publish = publish_some(writer, 2);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        publish.join().unwrap();
        holds(&bus, asked, joined);
    });
}

/// Latest: the joiner learns where head is, and the writer may be a whole lap further before it is active.
#[test]
fn a_joiner_at_latest_is_not_overrun() {
    explore("a joiner at latest is not overrun", 2, || {
        let (bus, writer) = Bus::published(128, 64, 1, 3);
        let publish = publish_some(writer, 3);
        let asked = bus.ring.head();
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let end = 3 + publish.join().unwrap() as u64;
        holds(&bus, asked, joined);
        read_on(&bus, joined, end);
    });
}

/// A joiner and a reader that is there already: joining makes the other miss nothing, and the slower of the two counts.
#[test]
fn a_joiner_makes_nobody_else_miss_anything() {
    explore("a joiner makes nobody else miss anything", 2, || {
        let (bus, writer) = Bus::published(128, 64, 2, 5);
        let there = bus.place(3);
        bus.seat(1, Class::Gating, there);
        let publish = publish_some(writer, 2);
        let asked = bus.place(2);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let end = 5 + publish.join().unwrap() as u64;
        holds(&bus, asked, joined);
        assert!(bus.limit() <= there.position + 128);
        read_on(&bus, there, end);
    });
}

/// A raise that gets less than it wanted, for a joiner's sake, intends no more than that.
#[test]
fn a_raise_is_lowered_for_a_joiner() {
    explore("a raise is lowered for a joiner", 2, || {
        let (bus, writer) = Bus::published(128, 64, 2, 5);
        let publish = publish_some(writer, 1);
        let asked = bus.place(3);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        assert_eq!(publish.join().unwrap(), 1);
        holds(&bus, asked, joined);
        read_on(&bus, joined, 6);
    });
}

/// A reader that is active far up goes back to the oldest record: also a join, from a slot that gates already.
#[test]
fn who_seeks_back_is_not_overrun() {
    explore("who seeks back is not overrun", 2, || {
        let (bus, writer) = Bus::published(128, 32, 1, 4);
        bus.seat(0, Class::Gating, bus.place(4));
        let publish = publish_some(writer, 2);
        let asked = bus.place(1);
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let end = 4 + publish.join().unwrap() as u64;
        holds(&bus, asked, joined);
        read_on(&bus, joined, end);
    });
}

/// A publish that raised its intent and then took it back, for a joiner's sake: observers lose nothing by it.
#[test]
fn a_refused_publish_takes_nothing_away() {
    explore("a refused publish takes nothing away", 2, || {
        let (bus, writer) = Bus::published(128, 32, 1, 4);
        let publish = publish_some(writer, 1);
        let observe = thread::spawn({
            let mut observer = Reader::new(&bus, bus.place(1));
            move || observer.read_carefully()
        });
        bus.join(0, Class::Gating, bus.place(1)).unwrap();
        let published = publish.join().unwrap();
        let read = observe.join().unwrap();
        assert!(published == 1 || read == Read::Record(1, 0), "{read:?}, though nothing was published");
    });
}

/// A record for which the joiner leaves some room and not enough: what was intended is taken back whole.
#[test]
fn a_refused_large_publish_intends_nothing() {
    explore("a refused large publish intends nothing", 2, || {
        let (bus, mut writer) = Bus::published(256, 32, 1, 8);
        let publish = thread::spawn(move || {
            let before = writer.bus.limit();
            if writer.publish_this(&[0; 6]).is_err() {
                assert_eq!(writer.bus.ring.get(at::INTENT), before, "refused, yet it still intends to");
            }
        });
        bus.join(0, Class::Gating, bus.place(2)).unwrap();
        publish.join().unwrap();
    });
}

/// A writer that stands still before any store of an extension, and may go on any time: who joins meanwhile is above its intent.
///
/// Both stand still in turn, so there is nothing for loom to interleave.
#[test]
fn a_stopped_writer_overruns_no_joiner() {
    explore_deaths("a stopped writer overruns no joiner", 0, |stores| {
        let (bus, mut writer) = Bus::published(256, 32, 1, 8);
        let asked = bus.ring.seek(Seek::Oldest);
        // As large as they come: the intent is further up than a joiner moves at first.
        let died = die_before_store(stores, || drop(writer.publish_this(&[0; 6])));
        let (joined, _) = bus.join(0, Class::Gating, asked).unwrap();
        let intent = bus.ring.get(at::INTENT);
        assert!(intent <= joined.position + 256, "intends {intent}, joined at {}", joined.position);
        died
    });
}
