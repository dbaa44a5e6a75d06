//! How a stream ends or is interrupted: writer gone, closed, replaced, removed, unlinked; and how each reaches readers that are asleep.

mod common;

use common::*;
use lapwing::*;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

roles!(sleeper, writer);

const CAPACITY: u64 = 16 << 10;

/// Arguments: bus, kind. Waits for whatever comes, and says it, until told by the end of its input.
fn sleeper(stage: &mut Stage) {
    let class = match stage.argument(1) {
        "observer" => return observe(stage),
        "lossy" => Class::Lossy,
        "pinned" => Class::Pinned,
        _ => Class::Gating,
    };
    let mut reader = Reader::options().class(class).open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    while tell(stage, &reader.next().unwrap()) {}
    stage.hear_this("leave");
}

fn observe(stage: &Stage) {
    let mut observer = Observer::open(stage.bus(), Start::Latest).unwrap();
    stage.say("ready observer");
    while tell(stage, &observer.next().unwrap()) {}
    stage.hear_this("leave");
}

/// Says what came; false if nothing more will.
fn tell(stage: &Stage, next: &Next<'_>) -> bool {
    match next {
        Next::Record(record) => stage.say(format!("record {} {}", record.sequence(), record.payload().escape_ascii())),
        Next::Closed(closed) => {
            stage.say(format!("closed {} {} {} {}", closed.sequence, closed.epoch, closed.code, closed.reason));
        }
        Next::Absent => stage.say("absent"),
        Next::Replaced => stage.say("replaced"),
        Next::Orphaned => stage.say("orphaned"),
        other => panic!("{other:?}"),
    }
    !matches!(next, Next::Replaced | Next::Orphaned)
}

/// Arguments: bus. Becomes the writer, publishes one record and waits to be killed.
fn writer(stage: &mut Stage) {
    let mut writer = Writer::standby(stage.bus()).unwrap();
    stage.say(format!("resumed {}", writer.resumed_at()));
    writer.publish(b"one").unwrap();
    stage.hear();
}

const KINDS: [&str; 4] = ["gating", "lossy", "pinned", "observer"];

/// One reader of each kind, all asleep.
fn sleepers(bus: &Path) -> Vec<Child> {
    let mut sleepers: Vec<_> = KINDS.iter().map(|kind| Child::start("sleeper", bus, &[kind])).collect();
    for sleeper in &mut sleepers {
        sleeper.expect("ready");
    }
    asleep(&sleepers);
    sleepers
}

/// Waits until each of them sleeps in the kernel (waiting for a record: it has nothing else to wait for).
fn asleep(sleepers: &[Child]) {
    for sleeper in sleepers {
        until("a reader to park", || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.pid())).unwrap();
            stat.rsplit_once(')').unwrap().1.starts_with(" S ").then_some(())
        });
    }
}

fn all_say(sleepers: &mut [Child], line: &str) {
    for (sleeper, kind) in sleepers.iter_mut().zip(KINDS) {
        assert_eq!(sleeper.line(), line, "{kind}");
    }
}

fn assert_silent(sleepers: &[Child]) {
    for (sleeper, kind) in sleepers.iter().zip(KINDS) {
        assert_eq!(sleeper.heard(), [""; 0], "{kind}");
    }
}

fn leave(sleepers: Vec<Child>) {
    for mut sleeper in sleepers {
        sleeper.tell("leave");
        sleeper.finish();
    }
}

#[test]
fn parked_readers_learn_that_their_writer_died_and_go_on_with_the_next() {
    let place = Place::new("died");
    let bus = place.bus();
    drop(Options::new().capacity(CAPACITY).create(&bus).unwrap());
    let mut first = Child::start("writer", &bus, &[]);
    assert_eq!(first.expect("resumed"), "0");
    until("the first record", || (inspect(&bus).sequence == 1).then_some(()));
    let mut sleepers = sleepers(&bus);
    let ids: Vec<_> = rows(&bus).into_iter().map(|row| row.id).collect();
    // A living writer that publishes nothing is not absent, however long it takes; nor is a stopped one.
    first.stop();
    asleep(&sleepers);
    assert_silent(&sleepers);
    first.kill();
    all_say(&mut sleepers, "absent");
    let mut second = Child::start("writer", &bus, &[]);
    assert_eq!(second.expect("resumed"), "1");
    all_say(&mut sleepers, "record 1 one");
    // Told once per absence.
    asleep(&sleepers);
    assert_silent(&sleepers);
    second.kill();
    all_say(&mut sleepers, "absent");
    assert_eq!(rows(&bus).into_iter().map(|row| row.id).collect::<Vec<_>>(), ids);
    assert_eq!(inspect(&bus).writer.state, WriterState::Absent);
}

#[test]
fn a_close_reaches_parked_readers_with_its_reason_and_the_stream_goes_on() {
    let place = Place::new("closed");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    writer.publish(b"before").unwrap();
    let mut sleepers = sleepers(&bus);
    assert_silent(&sleepers);
    writer.close_with(42, "maintenance until four").unwrap();
    all_say(&mut sleepers, "closed 1 1 42 maintenance until four");
    let closed = inspect(&bus).writer;
    assert_eq!(closed.state, WriterState::Closed);
    let closed = closed.closed.unwrap();
    assert_eq!((closed.sequence, closed.code, &closed.reason[..]), (1, 42, "maintenance until four"));
    // Opened again, it goes on, and is closed anew.
    asleep(&sleepers);
    let mut writer = Writer::open(&bus).unwrap();
    writer.publish(b"after").unwrap();
    all_say(&mut sleepers, "record 1 after");
    writer.close().unwrap();
    all_say(&mut sleepers, "closed 2 2 0 ");
    assert_silent(&sleepers);
    // A reason that is too long closes nothing.
    let writer = Writer::open(&bus).unwrap();
    assert!(matches!(writer.close_with(0, &"long".repeat(31)), Err(Error::InvalidOption { field: "reason", .. })));
    all_say(&mut sleepers, "absent");
}

#[test]
fn a_close_is_told_after_everything_before_it() {
    let place = Place::new("drained");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| Reader::open(&bus).unwrap()).collect();
    for n in 0..3u8 {
        writer.publish(&[n]).unwrap();
    }
    writer.close_with(1, "end").unwrap();
    let mut writer = Writer::open(&bus).unwrap();
    writer.publish(&[3]).unwrap();
    for reader in &mut readers {
        for n in 0..3u8 {
            assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.payload() == [n]));
        }
        assert!(matches!(reader.next().unwrap(), Next::Closed(closed) if (closed.sequence, closed.code) == (3, 1)));
        assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.payload() == [3]));
        assert!(matches!(reader.try_next().unwrap(), Next::Empty));
    }
    assert_ledgers(&bus);
}

/// What happens to a bus under readers that are asleep, and what each of them has to say then.
fn replaced_by(name: &str, said: &str, act: impl FnOnce(&Path) -> Option<Writer>) {
    let place = Place::new(name);
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    writer.publish(b"old").unwrap();
    let mut sleepers = sleepers(&bus);
    writer.close().unwrap();
    all_say(&mut sleepers, "closed 1 1 0 ");
    asleep(&sleepers);
    let new = act(&bus);
    if let Some(mut new) = new {
        // Nothing of the new bus reaches readers of the old one.
        assert_eq!(new.publish(b"new").unwrap(), 0);
        all_say(&mut sleepers, said);
        leave(sleepers);
        assert!(rows(&bus).is_empty());
        let mut reader = Reader::options().start(Start::Oldest).open(&bus).unwrap();
        assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.payload() == b"new"));
    } else {
        all_say(&mut sleepers, said);
        leave(sleepers);
        assert!(matches!(Reader::open(&bus), Err(Error::NotFound { .. } | Error::NotReady { .. })));
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn unlink(bus: &Path) {
    for suffix in ["", ".readers", ".lock"] {
        std::fs::remove_file(with_suffix(bus, suffix)).unwrap();
    }
}

#[test]
fn readers_of_a_replaced_bus_are_told() {
    replaced_by("replaced", "replaced", |bus| Some(Options::new().capacity(CAPACITY * 2).replace(bus).unwrap()));
}

#[test]
fn readers_of_a_removed_bus_are_told() {
    replaced_by("removed", "replaced", |bus| {
        Bus::remove(bus).unwrap();
        None
    });
}

#[test]
fn readers_of_an_unlinked_bus_are_told() {
    replaced_by("unlinked", "orphaned", |bus| {
        unlink(bus);
        None
    });
}

/// A removal takes the table first. Nobody tells the readers if its author dies there, and nobody can publish to the ring any more.
#[test]
fn readers_of_a_bus_whose_removal_ended_half_way_are_told() {
    replaced_by("half-removed", "orphaned", |bus| {
        std::fs::remove_file(with_suffix(bus, ".readers")).unwrap();
        None
    });
}

#[test]
fn readers_of_a_bus_that_was_unlinked_and_created_anew_are_told() {
    replaced_by("recreated", "orphaned", |bus| {
        unlink(bus);
        Some(Options::new().capacity(CAPACITY).create(bus).unwrap())
    });
}

#[test]
fn records_too_old_are_not_replayed_and_are_an_exact_gap() {
    let age = Duration::from_millis(100);
    let place = Place::new("age");
    let bus = place.bus();
    // Every record's stamp, as a reader sees it that was there from the start.
    let mut writer = Options::new().capacity(16 << 20).max_age(age).create(&bus).unwrap();
    assert_eq!(inspect(&bus).max_age, Some(age));
    let mut witness = Reader::open(&bus).unwrap();
    let mut stamps = Vec::new();
    until("a moment at which some records are too old and some are not", || {
        for _ in 0..5 {
            writer.publish(&[0; 1000]).unwrap();
        }
        while let Next::Record(record) = witness.try_next().unwrap() {
            assert_eq!(record.sequence(), stamps.len() as u64);
            stamps.push(record.stamp().unwrap());
        }
        assert!(stamps.is_sorted());
        let before = SystemTime::now();
        let oldest = inspect(&bus).oldest;
        let mut reader = Reader::options().start(Start::Oldest).open(&bus).unwrap();
        let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
        let (first, mut tally) = (reader.next_sequence(), Tally::of(&reader));
        let after = SystemTime::now();
        // Exact to the record, but for the time that the test itself took.
        let too_old = |at: SystemTime| stamps.iter().filter(|&&stamp| stamp < at - age).count() as u64;
        let exact = too_old(before)..=too_old(after);
        assert!(exact.contains(&first), "{first} instead of {exact:?} of {}", stamps.len());
        assert!(tally.start == 0 && oldest <= first);
        loop {
            match tally.count(reader.try_next().unwrap()) {
                None => {}
                Some(Next::Empty) => break,
                Some(other) => panic!("{other:?}"),
            }
        }
        // All that is in the ring was either delivered or told of.
        let total = stamps.len() as u64;
        assert_eq!((tally.next, tally.delivered), (total, total - first));
        tally.assert_both(&reader, &bus);
        let mut seen = Tally::new(0);
        while seen.count(observer.try_next().unwrap()).is_none() {}
        assert_eq!(seen.next, total);
        (first > tally.start && first < total).then_some(())
    });
    // Though they are in the ring still: the witness had all of them, and one that is behind gets them.
    let mut behind = Reader::open(&bus).unwrap();
    let sequence = writer.publish(b"grows old").unwrap();
    let published = SystemTime::now();
    until("it to be too old", || (published.elapsed().unwrap() > age).then_some(()));
    assert!(matches!(behind.next().unwrap(), Next::Record(record) if record.sequence() == sequence));
}
