//! Sleep and wake: a parked reader wakes for every publish. The futex here has no time-out, so a lost wake-up is a deadlock.

use super::rig::{Bus, Read, Reader, Writer, explore};
use crate::layout::ring as at;
use crate::sync::Ordering;
use crate::sys;
use crate::wake;
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

/// Reads up to `end`, parking as `Stream::park` does.
fn read_parking(bus: &Arc<Bus>, start: u64, end: u64) {
    let mut reader = Reader::new(bus, bus.place(start));
    let mut next = start;
    let mut can_fence = true;
    while next < end {
        let mut read = reader.read_carefully();
        if read == Read::Empty {
            let seen = wake::prepare(&bus.table, &mut can_fence);
            let blind = !can_fence && bus.ring.get(at::FENCES) == 0;
            read = reader.read_carefully();
            if read == Read::Empty {
                let longest = if blind { Duration::ZERO } else { Duration::MAX };
                sys::futex_wait(bus.table.wake_word(), seen, longest);
                continue;
            }
        }
        assert_eq!(read, Read::Record(next, 0));
        next += 1;
    }
}

/// With `special` records, each goes the slow way, as one with a time stamp does, or one that reaches a stripe boundary.
fn scene(fences: bool, special: bool, sleepers: usize) {
    let bus = Bus::new(256, 128, 1);
    let mut writer = Writer::take_over(&bus, fences);
    writer.make_room();
    let sleep: Vec<_> = (1..sleepers)
        .map(|_| {
            let bus = bus.clone();
            thread::spawn(move || read_parking(&bus, 0, 2))
        })
        .collect();
    let publish = thread::spawn(move || {
        for _ in 0..2 {
            if special {
                writer.publisher.close_fast_path();
            }
            writer.publish().unwrap();
        }
        writer
    });
    read_parking(&bus, 0, 2);
    let mut writer = publish.join().unwrap();
    sleep.into_iter().for_each(|sleeper| sleeper.join().unwrap());
    // Nobody sleeps any more. A flag that was left behind costs one wake, and the publish after it is free again.
    writer.publish().unwrap();
    assert_eq!(bus.table.sleep_flag().load(Ordering::Relaxed), 0);
}

/// Two publishes: a lost wake-up takes a first one that clears the flag.
#[test]
fn a_sleeper_wakes_for_every_publish() {
    explore("a sleeper wakes for every publish", 4, || scene(false, false, 1));
}

#[test]
fn a_sleeper_wakes_for_every_special_record() {
    explore("a sleeper wakes for every special record", 4, || scene(false, true, 1));
}

/// A writer that membarrier does not reach fences by itself.
#[test]
fn a_writer_that_fences_wakes_too() {
    explore("a writer that fences wakes too", 4, || scene(true, false, 1));
}

#[test]
fn two_sleepers_wake_for_every_publish() {
    explore("two sleepers wake for every publish", 2, || scene(false, false, 2));
}

/// The kernel offers the reader no membarrier: it sleeps for a moment at a time until the writer says that it fences by itself.
#[test]
fn a_reader_without_membarrier_wakes_too() {
    explore("a reader without membarrier wakes too", 3, || {
        sys::model::set_membarrier(false);
        scene(false, false, 1);
    });
}
