//! What whoever may write the table can do: hold the writer up until it evicts, let the writer overrun a reader (which is told), and wake
//! sleepers for nothing. (And truncate it: see `shrunk`.)

use crate::common::*;
use crate::exercise::table_of;
use crate::live::Seen;
use crate::{LONGEST, Place};
use lapwing::layout::{HEADER, SLOT};
use lapwing::*;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

/// Somebody who may write the table, and knows its layout.
struct Vandal(File);

/// Words of a slot, as the layout's documentation gives them.
const CONTROL: u64 = 0;
const HOLD_FOR: u64 = 5;
const POSITION: u64 = 16;
const ACTIVE: u64 = 2;
const DETACHED: u64 = 4;
const GATING: u64 = 1 << 8;
const HOLDS: u64 = 1 << 16;
const NAMED: u64 = 1 << 17;
/// Words of the table's header.
const SLEEP: u64 = 32;
const REGISTRATIONS: u64 = 16;
const WAKE: u64 = 48;

impl Vandal {
    fn new(bus: &Path) -> Self {
        Self(OpenOptions::new().read(true).write(true).open(table_of(bus)).unwrap())
    }

    fn write(&self, word: u64, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
    }

    fn write_slot(&self, slot: u64, word: u64, value: u64) {
        self.write((HEADER + slot * SLOT) / 8 + word, value);
    }

    /// Writes to slots as `deed` says, with a number that counts up, without pause until the test is done.
    fn without_pause<T>(self, deed: impl Fn(&Self, u64) + Sync, test: impl FnOnce() -> T) -> T {
        let (stop, started) = (AtomicBool::new(false), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                deed(&self, 0);
                started.wait();
                for n in 1.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    deed(&self, n);
                }
            });
            started.wait();
            // The vandal ends also if the test fails.
            let result = catch_unwind(AssertUnwindSafe(test));
            stop.store(true, Ordering::Release);
            result.unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

/// Publishes into a ring that is always full because of a vandal; the most readers that a single call dealt with.
fn most_dealt_with(writer: &mut Writer) -> u64 {
    let dealt_with = |writer: &mut Writer| {
        let stats = writer.stats();
        stats.reaped + stats.evictions
    };
    let mut most = 0;
    for _ in 0..2000 {
        let before = dealt_with(writer);
        let n = writer.next_sequence();
        match writer.publish(&payload(n, LONGEST)) {
            Ok(_) | Err(PublishError::WouldOverrun(_)) => {}
            Err(error) => panic!("{error}"),
        }
        most = most.max(dealt_with(writer) - before);
    }
    most
}

#[test]
fn it_cannot_keep_a_publish_from_ending() {
    for policy in [Policy::Refuse, Policy::Evict, Policy::Wait(Some(Duration::from_millis(1)))] {
        // A dead reader that is there again as soon as it is reclaimed.
        let place = Place::new("undead");
        let mut writer = Options::new().capacity(4096).readers(8).create(place.bus()).unwrap();
        writer.set_policy(policy);
        let undead = |vandal: &Vandal, n| {
            vandal.write_slot(3, POSITION, 0);
            vandal.write(REGISTRATIONS, n);
            vandal.write_slot(3, CONTROL, ACTIVE | GATING);
        };
        let most = Vandal::new(&place.bus()).without_pause(undead, || most_dealt_with(&mut writer));
        assert!(most <= 64, "{policy:?}: one call reclaimed a reader {most} times");
        // A living one whose slot is another one at each look, and is in the way again as soon as it is evicted.
        let place = Place::new("other");
        let mut writer = Options::new().capacity(4096).readers(8).create(place.bus()).unwrap();
        writer.set_policy(policy);
        let reader = Reader::open(place.bus()).unwrap();
        let other = |vandal: &Vandal, n: u64| {
            vandal.write_slot(0, CONTROL, n << 32 | ACTIVE | GATING);
            vandal.write_slot(0, POSITION, 0);
            vandal.write(REGISTRATIONS, n);
        };
        let most = Vandal::new(&place.bus()).without_pause(other, || most_dealt_with(&mut writer));
        assert!(most <= 64, "{policy:?}: one call evicted a reader {most} times");
        // With the vandal gone all is as it was.
        drop(reader);
        writer.set_policy(Policy::Evict);
        let n = writer.next_sequence();
        assert_eq!(writer.publish(&payload(n, LONGEST)).unwrap(), n);
    }
}

#[test]
fn it_cannot_keep_an_eviction_or_a_leave_from_ending() {
    let place = Place::new("whirl");
    let mut writer = Options::new().capacity(4096).readers(8).create(place.bus()).unwrap();
    let whirl = |vandal: &Vandal, n: u64| vandal.write_slot(0, CONTROL, n << 32 | ACTIVE | GATING | NAMED);
    for _ in 0..50 {
        let reader = Reader::options().name("whirled").open(place.bus()).unwrap();
        Vandal::new(&place.bus()).without_pause(whirl, || {
            for _ in 0..20 {
                match writer.evict(reader.id()) {
                    Ok(_) | Err(Error::WrongState { what: "evict", .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            drop(reader);
            match Bus::open(place.bus()).unwrap().forget("whirled") {
                Ok(()) | Err(Error::WrongState { what: "forget", .. }) => {}
                Err(error) => panic!("{error}"),
            }
        });
    }
}

fn fill(writer: &mut Writer) -> PublishError {
    loop {
        let n = writer.next_sequence();
        if let Err(error) = writer.try_publish(&payload(n, LONGEST)) {
            return error;
        }
    }
}

#[test]
fn it_can_gate_until_it_is_evicted() {
    let place = Place::new("gate");
    let mut writer = Options::new().capacity(4096).readers(8).create(place.bus()).unwrap();
    let vandal = Vandal::new(&place.bus());
    // An active reader that is nobody: its lock is free, so it is reaped, and the writer goes on.
    vandal.write_slot(3, CONTROL, ACTIVE | GATING);
    vandal.write_slot(3, POSITION, 0);
    for _ in 0..200 {
        let n = writer.next_sequence();
        writer.try_publish(&payload(n, LONGEST)).unwrap();
    }
    assert!(writer.events().iter().any(|event| matches!(event, WriterEvent::Reaped { reader } if reader.slot == 3)));
    // One that is away and holds, for ever: refused with its name on it, until the writer's owner decides.
    vandal.write_slot(3, HOLD_FOR, 0);
    vandal.write_slot(3, CONTROL, DETACHED | GATING | HOLDS | NAMED);
    // The scan of a join sees it.
    drop(Reader::open(place.bus()).unwrap());
    let PublishError::WouldOverrun(overrun) = fill(&mut writer) else { panic!() };
    assert_eq!(overrun.readers.iter().map(|reader| reader.slot).collect::<Vec<_>>(), [3]);
    assert!(overrun.readers[0].evictable);
    writer.set_policy(Policy::Evict);
    let n = writer.next_sequence();
    assert_eq!(writer.publish(&payload(n, LONGEST)).unwrap(), n);
}

#[test]
fn a_reader_it_ungates_is_told() {
    for (word, value) in
        [(CONTROL, 0), (CONTROL, ACTIVE | 2 << 8), (CONTROL, 3), (POSITION, u64::MAX), (POSITION, 1 << 40)]
    {
        let place = Place::new("ungate");
        let mut writer = Options::new().capacity(4096).readers(8).create(place.bus()).unwrap();
        let mut victim = Reader::open(place.bus()).unwrap();
        let vandal = Vandal::new(&place.bus());
        assert!(matches!(fill(&mut writer), PublishError::WouldOverrun(_)));
        vandal.write_slot(0, word, value);
        writer.set_policy(Policy::Wait(Some(DEADLINE)));
        for _ in 0..100 {
            let n = writer.next_sequence();
            writer.publish(&payload(n, LONGEST)).unwrap();
            if word == POSITION {
                vandal.write_slot(0, word, value);
            }
        }
        // Overrun, but neither in silence nor with wrong data.
        let mut seen = Seen { next: Some(0), ..Seen::default() };
        loop {
            match victim.try_next().unwrap() {
                Next::Record(record) => seen.record(&record),
                Next::Gap(gap) => seen.gap(gap),
                Next::Evicted(gap) => {
                    assert_eq!(Some(gap.first), seen.next);
                    seen.gap(victim.rejoin(Start::Resume).unwrap());
                }
                Next::Empty => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen.missed > 0);
        assert_eq!(seen.next, Some(writer.next_sequence()));
        assert_eq!(seen.records + seen.missed, writer.next_sequence());
    }
}

#[test]
fn it_can_wake_for_nothing_and_keep_nobody_asleep() {
    let place = Place::new("wake");
    let mut writer = Options::new().capacity(1 << 16).readers(8).create(place.bus()).unwrap();
    let mut reader = Reader::open(place.bus()).unwrap();
    let vandal = Vandal::new(&place.bus());
    let stop = Arc::new(AtomicBool::new(false));
    let vandalism = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut random = Random::from(7);
            while !stop.load(Ordering::Acquire) {
                // Bumps (without a wake), and clears of the flag that a sleeper has set, which would lose a wake-up.
                vandal.write(WAKE, random.next());
                vandal.write(SLEEP, random.below(4));
                vandal.write(SLEEP, 0);
            }
        })
    };
    // Every record arrives, at the latest with the sleeper's own look every 100 ms.
    for n in 0..20 {
        writer.publish(&payload(n, LONGEST)).unwrap();
        match reader.next_timeout(DEADLINE).unwrap() {
            Next::Record(record) => assert_eq!(record.sequence(), n),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(reader.next_timeout(Duration::from_millis(50)).unwrap(), Next::Empty));
    stop.store(true, Ordering::Release);
    vandalism.join().unwrap();
}
