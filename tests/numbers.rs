//! Numbers and interruptions: records around every stripe boundary and wrap, numbers at the end of 64 bits, signals in every wait,
//! clocks that step.

mod common;

use common::*;
use lapwing::*;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

roles!(reader, blocked, standby);

const CAPACITY: u64 = 4096;
const STRIPE: u64 = CAPACITY / 8;

fn ring_word(bus: &Path, word: u64) -> u64 {
    let mut bytes = [0; 8];
    File::open(bus).unwrap().read_exact_at(&mut bytes, word * 8).unwrap();
    u64::from_ne_bytes(bytes)
}

fn set_ring_word(bus: &Path, word: u64, value: u64) {
    File::options().write(true).open(bus).unwrap().write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
}

// ---- stripes --------------------------------------------------------------------------------------------------------

/// Records that end before, at and beyond each boundary, at every wrap: each is there once, whole, and every start leads to it.
#[test]
fn records_lie_right_at_every_boundary_and_wrap() {
    let lengths = [0, 1, 16, 17, 48, 240, 256, 496, 497, 512, 513, 1008];
    for first in (0..STRIPE).step_by(48) {
        for length in lengths {
            let place = Place::new("stripes");
            let bus = place.bus();
            let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
            let mut reader = Reader::open(&bus).unwrap();
            let payload = |sequence: u64| -> Vec<u8> {
                let length = if sequence == 0 { first as usize } else { length };
                (0..length).map(|at| (sequence * 31 + at as u64) as u8).collect()
            };
            let laps = 3 * CAPACITY / (length as u64 + 16);
            for sequence in 0..laps {
                assert_eq!(writer.try_publish(&payload(sequence)).unwrap(), sequence);
                match reader.try_next().unwrap() {
                    Next::Record(record) => assert!(record.payload() == payload(sequence), "{sequence} is another's"),
                    other => panic!("{other:?} instead of {sequence}"),
                }
                reader.commit();
            }
            // The index, at a head that lies elsewhere each time.
            let seen = inspect(&bus);
            assert!(seen.sequence - seen.oldest >= (CAPACITY - STRIPE) / (length as u64 + 48) - 1, "{seen:?}");
            for sequence in (seen.oldest..laps).step_by(7).chain([laps - 1]) {
                let start = if sequence == seen.oldest { Start::Oldest } else { Start::After(sequence - 1) };
                let mut observer = Observer::open(&bus, start).unwrap();
                match observer.try_next().unwrap() {
                    Next::Record(record) => {
                        assert!(record.sequence() == sequence && record.payload() == payload(sequence));
                    }
                    other => panic!("{other:?} instead of {sequence}"),
                }
            }
            // A takeover finds the same tip.
            drop(writer);
            assert_eq!(Writer::open(&bus).unwrap().resumed_at(), laps);
        }
    }
}

// ---- the end of 64 bits -----------------------------------------------------------------------------------------------

#[test]
fn numbers_at_the_end_of_64_bits_are_errors_and_no_more() {
    let place = Place::new("ends");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).stamped(true).create(&bus).unwrap();
    for sequence in 0..100 {
        writer.publish(&payload(sequence, 60)).unwrap();
    }
    for asked in [100, u64::MAX, u64::MAX - 1, 1 << 63, (1 << 62) + 1] {
        let error = Reader::options().start(Start::After(asked)).open(&bus).err().unwrap();
        assert!(matches!(error, Error::FutureSequence { asked: found, next: 100 } if found == asked), "{error:?}");
    }
    let late = [SystemTime::UNIX_EPOCH + Duration::from_secs(u64::MAX / 4), SystemTime::now() + DEADLINE];
    for time in late {
        let mut reader = Reader::options().start(Start::Since(time)).open(&bus).unwrap();
        assert!(matches!(reader.try_next().unwrap(), Next::Empty), "a time to come");
    }
    for time in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 40)] {
        let reader = Reader::options().start(Start::Since(time)).open(&bus).unwrap();
        assert_eq!(reader.next_sequence(), inspect(&bus).oldest, "a time long past");
    }
    for id in [0, u64::MAX, 1 << 63] {
        assert!(matches!(writer.evict(ReaderId(id)), Err(Error::NoSuchReader { id: found }) if found == id));
    }
    let mut reader = Reader::options().name("long").hold_while_away(true).hold_for(Duration::MAX).open(&bus).unwrap();
    assert!(matches!(reader.next_timeout(Duration::ZERO).unwrap(), Next::Empty));
    drop(reader);
    // An hour that never ends is held.
    while writer.try_publish(&[1; 60]).is_ok() {}
    assert_eq!(named(&bus, "long").unwrap().state, State::Detached);
    writer.set_policy(Policy::Wait(Some(Duration::ZERO)));
    assert!(matches!(writer.publish(&[1; 60]), Err(PublishError::WouldOverrun(_))));
    assert!(writer.wait_for_readers(Some(Duration::ZERO)).is_ok());
}

// ---- signals ----------------------------------------------------------------------------------------------------------

extern "C" fn ignore(_: libc::c_int) {}

/// Makes SIGUSR1 interrupt system calls, and do nothing else.
fn be_interrupted() {
    // SAFETY: all zeros are a valid sigaction (no flags: calls are not restarted), and the handler touches nothing.
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut())
    };
    assert_eq!(set, 0);
}

/// Arguments: bus. Reads in its sleep.
fn reader(stage: &mut Stage) {
    be_interrupted();
    let mut reader = Reader::open(stage.bus()).unwrap();
    stage.say("ready");
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => stage.say(record.sequence()),
            Next::Closed(_) => return,
            other => panic!("{other:?} for a signal"),
        }
    }
}

/// Arguments: bus. Publishes into a full ring, and waits as long as it takes.
fn blocked(stage: &mut Stage) {
    be_interrupted();
    let mut writer = Writer::open(stage.bus()).unwrap();
    while writer.try_publish(&[1; 100]).is_ok() {}
    writer.set_policy(Policy::Wait(None));
    stage.say("full");
    writer.publish(&[1; 100]).unwrap();
    stage.say("published");
}

/// Arguments: bus.
fn standby(stage: &mut Stage) {
    be_interrupted();
    stage.say("ready");
    let writer = Writer::standby(stage.bus()).unwrap();
    stage.say(writer.resumed_at());
}

/// Sends it signals, each of them while it sleeps.
fn disturb(child: &Child, times: usize) {
    for _ in 0..times {
        until("a process to sleep", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
            stat.rsplit_once(')').unwrap().1.starts_with(" S ").then_some(())
        });
        signal(child.pid(), libc::SIGUSR1);
    }
}

#[test]
fn signals_end_no_wait() {
    let place = Place::new("signals");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut child = Child::start("reader", &bus, &[]);
    child.expect("ready");
    for sequence in 0..10 {
        disturb(&child, 20);
        assert!(child.heard().is_empty());
        writer.publish(b"record").unwrap();
        assert_eq!(child.line(), sequence.to_string());
    }
    writer.close().unwrap();
    child.finish();

    let mut slow = Reader::open(&bus).unwrap();
    let mut child = Child::start("blocked", &bus, &[]);
    child.expect("full");
    disturb(&child, 50);
    assert!(child.heard().is_empty());
    while !child.heard().contains(&"published".to_string()) {
        let _ = slow.try_next().unwrap();
        slow.commit();
    }
    child.finish();

    let writer = Writer::open(&bus).unwrap();
    let mut child = Child::start("standby", &bus, &[]);
    child.expect("ready");
    disturb(&child, 50);
    assert!(child.heard().is_empty());
    let next = writer.next_sequence();
    drop(writer);
    assert_eq!(child.line(), next.to_string());
    child.finish();
}

// ---- clocks -----------------------------------------------------------------------------------------------------------

/// Word of the ring's header: the latest time that a record or an index entry bears.
const LATEST_TIME: u64 = 71;

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64
}

/// A clock that was set back is a bus whose latest time lies ahead; one that was set forth, one whose latest time is long ago.
#[test]
fn a_clock_that_steps_leaves_times_in_order() {
    const HOUR: u64 = 3_600_000_000_000;
    for stamped in [true, false] {
        let place = Place::new("clock");
        let bus = place.bus();
        let mut writer = Options::new().capacity(CAPACITY).stamped(stamped).create(&bus).unwrap();
        let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
        let (mut latest, mut stamps) = (0, Vec::new());
        // Back an hour, forth, and back by a day.
        for step in [0, HOUR, 0, 24 * HOUR] {
            if step != 0 {
                set_ring_word(&bus, LATEST_TIME, now() + step);
            }
            for _ in 0..20 {
                writer.publish(&[7; 100]).unwrap();
                let Next::Record(record) = observer.try_next().unwrap() else { panic!("no record") };
                stamps.extend(record.stamp());
            }
            let time = ring_word(&bus, LATEST_TIME);
            assert!(time >= latest && time >= step, "times run backwards: {time} after {latest}");
            latest = time;
        }
        assert_eq!(stamps.len(), if stamped { 80 } else { 0 });
        assert!(stamps.is_sorted(), "{stamps:?}");
        // Whatever time is asked for, what comes is in order and bears at least that time, or comes before it without stamps.
        let oldest = inspect(&bus).oldest;
        for back in [0, 1, HOUR, 25 * HOUR, 48 * HOUR] {
            let asked = latest.saturating_sub(back);
            let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(asked);
            let mut reader = Reader::options().start(Start::Since(time)).open(&bus).unwrap();
            let first = reader.next_sequence();
            assert!(first >= oldest);
            while let Next::Record(record) = reader.try_next().unwrap() {
                assert!(record.stamp().is_none_or(|stamp| stamp >= time));
            }
            if stamped && first > oldest {
                assert!(stamps[first as usize - 1] < time, "a record of that time was left out");
            }
        }
    }
}
