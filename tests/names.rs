//! Durable names: taken, held while away, held for a time, evicted while away, forgotten, resumed after a kill.

mod common;

use common::*;
use lapwing::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

roles!(resumer, holder);

const CAPACITY: u64 = 16 << 10;
const LONGEST: usize = 300;

/// Arguments: bus, name, way of committing. Resumes under its name and says each record, once it is dealt with.
fn resumer(stage: &mut Stage) {
    let by_hand = stage.argument(2) == "by-hand";
    let options = Reader::options().name(stage.argument(1)).start(Start::Resume);
    let mut reader = options.hold_while_away(true).auto_commit(!by_hand).open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.next_sequence()));
    let mut tally = Tally::new(reader.next_sequence());
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => {
                tally.record(&record);
                assert_whole(&record, LONGEST);
                stage.say(record.sequence());
            }
            Next::Closed(_) => break,
            other => panic!("{other:?}"),
        }
        reader.commit();
    }
    stage.say("closed");
    stage.hear_this("leave");
}

/// Arguments: bus, name, milliseconds to hold (`0` without end, nothing for no hold). Reads until told to stand, then waits to be killed.
fn holder(stage: &mut Stage) {
    let mut options = Reader::options().name(stage.argument(1));
    options = match stage.argument(2) {
        "" => options,
        "0" => options.hold_while_away(true),
        time => options.hold_for(Duration::from_millis(time.parse().unwrap())),
    };
    let mut reader = options.open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    while stage.hear() == "read" {
        assert!(matches!(reader.next().unwrap(), Next::Record(_)));
        reader.commit();
        stage.say(format!("at {}", reader.next_sequence()));
    }
}

fn publish(writer: &mut Writer) -> std::result::Result<u64, PublishError> {
    let payload = payload(writer.next_sequence(), LONGEST);
    writer.publish(&payload)
}

/// A bus with a named reader that has read three records of ten and was then killed.
fn scene(place: &Place, hold: &str) -> (Writer, ReaderId) {
    let mut writer = Options::new().capacity(CAPACITY).create(place.bus()).unwrap();
    let mut child = Child::start("holder", &place.bus(), &[&"away", &hold]);
    let id = child.expect("ready").parse().unwrap();
    for _ in 0..10 {
        publish(&mut writer).unwrap();
    }
    for sequence in 1..=3 {
        child.tell("read");
        assert_eq!(child.expect("at"), sequence.to_string());
    }
    child.kill();
    (writer, ReaderId(id))
}

/// Publishes until a refusal, which has to name the reader that is away, alone.
fn fill(writer: &mut Writer, id: ReaderId) -> Box<Overrun> {
    loop {
        match publish(writer) {
            Ok(_) => {}
            Err(PublishError::WouldOverrun(overrun)) => {
                let [reader] = &overrun.readers[..] else { panic!("{overrun}") };
                assert_eq!((reader.id, reader.name.as_deref()), (id, Some("away")));
                assert_eq!((reader.state, reader.alive, reader.evictable), (State::Detached, false, true));
                assert_eq!((reader.cursor, reader.hold), (3, true));
                return overrun;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Resumes under the name, and reads to the tip: what came, and both sides' books.
fn resume(bus: &Path) -> (Reader, Tally) {
    let mut reader = Reader::options().name("away").start(Start::Resume).open(bus).unwrap();
    let mut tally = Tally { start: 0, next: 3, delivered: 3, missed: 0 };
    loop {
        match tally.count(reader.try_next().unwrap()) {
            None => {}
            Some(Next::Empty) => break,
            Some(other) => panic!("{other:?}"),
        }
    }
    tally.assert_both(&reader, bus);
    (reader, tally)
}

#[test]
fn a_name_that_is_taken_names_its_process() {
    let place = Place::new("taken");
    let bus = place.bus();
    let _writer = Options::new().create(&bus).unwrap();
    let mut child = Child::start("holder", &bus, &[&"taken", &""]);
    child.expect("ready");
    for start in [Start::Latest, Start::Oldest, Start::Resume] {
        for class in [Class::Gating, Class::Lossy, Class::Pinned] {
            let Err(error) = Reader::options().name("taken").class(class).start(start).open(&bus) else { panic!() };
            assert!(matches!(&error, Error::NameTaken { name, pid } if name == "taken" && *pid == Some(child.pid())));
            assert!(error.to_string().contains(&format!("process {}", child.pid())), "{error}");
        }
    }
    assert!(matches!(Bus::open(&bus).unwrap().forget("taken"), Err(Error::NameTaken { .. })));
    // Neither attempt left anything behind.
    assert_eq!(rows(&bus).len(), 1);
    child.kill();
    drop(Reader::options().name("taken").start(Start::Resume).open(&bus).unwrap());
}

#[test]
fn a_reader_that_holds_while_away_misses_nothing() {
    for hold in ["0", "3600000"] {
        let place = Place::new("hold");
        let (mut writer, id) = scene(&place, hold);
        let overrun = fill(&mut writer, id);
        writer.set_policy(Policy::Wait(Some(Duration::from_millis(20))));
        assert!(matches!(publish(&mut writer), Err(PublishError::WouldOverrun(_))));
        let (reader, tally) = resume(&place.bus());
        assert_eq!((tally.delivered, tally.missed), (overrun.sequence, 0));
        publish(&mut writer).unwrap();
        drop(reader);
    }
}

#[test]
fn a_reader_that_holds_no_more_is_told_its_exact_gap() {
    // It holds for a millisecond from when its absence is noticed, or not at all.
    for hold in ["1", ""] {
        let place = Place::new("hold-for");
        let (mut writer, _) = scene(&place, hold);
        writer.set_policy(Policy::Wait(Some(DEADLINE)));
        for _ in 0..500 {
            publish(&mut writer).unwrap();
        }
        assert_eq!(named(&place.bus(), "away").unwrap().state, State::Detached);
        let oldest = inspect(&place.bus()).oldest;
        let (reader, tally) = resume(&place.bus());
        assert!(oldest > 3);
        assert_eq!((tally.missed, tally.delivered), (oldest - 3, 510 - (oldest - 3)));
        assert_eq!(writer.stats().evictions, 0);
        drop(reader);
    }
}

#[test]
fn a_name_that_starts_elsewhere_is_told_what_it_passes_over() {
    let passed = |first, end| Some(Gap { first, end });
    for (start, expected) in [
        (Start::Latest, passed(3, 10)),
        (Start::After(5), passed(3, 6)),
        (Start::After(2), None),
        (Start::Oldest, None),
        (Start::Resume, None),
    ] {
        let place = Place::new("elsewhere");
        let (_writer, _) = scene(&place, "0");
        let reader = Reader::options().name("away").start(start).open(place.bus()).unwrap();
        assert_eq!(reader.passed_over(), expected, "{start:?}");
        let new = Reader::options().name("new").start(start).open(place.bus()).unwrap();
        assert_eq!(new.passed_over(), None, "{start:?}");
    }
}

#[test]
fn a_reader_that_is_away_can_be_evicted() {
    let place = Place::new("evict-away");
    let (mut writer, id) = scene(&place, "0");
    let overrun = fill(&mut writer, id);
    writer.events();
    writer.set_policy(Policy::Evict);
    for _ in 0..500 {
        publish(&mut writer).unwrap();
    }
    let evicted = |event: &WriterEvent| match event {
        WriterEvent::Evicted { reader, at_most } => Some((reader.id, *at_most)),
        _ => None,
    };
    let events: Vec<_> = writer.events().iter().filter_map(evicted).collect();
    assert_eq!(events, [(id, Gap { first: 3, end: overrun.sequence })]);
    let oldest = inspect(&place.bus()).oldest;
    let (reader, tally) = resume(&place.bus());
    assert_eq!(tally.missed, oldest - 3);
    assert_eq!(reader.info().unwrap().evictions, 1);
}

#[test]
fn a_forgotten_name_is_new_again() {
    let place = Place::new("forget");
    let (mut writer, id) = scene(&place, "0");
    fill(&mut writer, id);
    let bus = Bus::open(place.bus()).unwrap();
    assert!(matches!(bus.forget("nobody"), Err(Error::NameUnknown { name }) if name == "nobody"));
    bus.forget("away").unwrap();
    assert!(rows(&place.bus()).is_empty());
    assert!(matches!(bus.forget("away"), Err(Error::NameUnknown { .. })));
    for _ in 0..200 {
        publish(&mut writer).unwrap();
    }
    let oldest = inspect(&place.bus()).oldest;
    let mut reader = Reader::options().name("away").start(Start::Resume).open(place.bus()).unwrap();
    assert_eq!((reader.start_sequence(), reader.info().unwrap().missed), (oldest, 0));
    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.sequence() == oldest));
}

#[test]
fn resuming_after_each_kill_loses_nothing() {
    let mut random = Random::seeded("resume");
    for committing in ["automatic", "by-hand"] {
        let place = Place::new("resume");
        let bus = place.bus();
        let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
        writer.set_policy(Policy::Wait(Some(DEADLINE)));
        let mut child = Child::start("resumer", &bus, &[&"durable", &committing]);
        assert_eq!(child.expect("ready"), "0");
        let stop = AtomicBool::new(false);
        let mut next = 0;
        // Only the first record after a start may be one that was said before.
        let mut heard = |line: &str, first: &mut bool| {
            let sequence: u64 = line.parse().unwrap();
            let again = std::mem::take(first) && sequence + 1 == next;
            assert!(sequence == next || again, "{sequence} instead of {next}");
            next = sequence + 1;
        };
        let published = std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            let publisher = scope.spawn(|| {
                while !stop.load(Relaxed) {
                    publish(&mut writer).unwrap();
                }
                let published = writer.next_sequence();
                writer.close().unwrap();
                published
            });
            let mut first = true;
            for _ in 0..setting("LAPWING_ROUNDS", 20) {
                for _ in 0..random.below(60) {
                    heard(&child.line(), &mut first);
                }
                child.kill();
                child.rest().iter().for_each(|line| heard(line, &mut first));
                child = Child::start("resumer", &bus, &[&"durable", &committing]);
                child.expect("ready");
                first = true;
            }
            stop.store(true, Relaxed);
            loop {
                match child.line().as_str() {
                    "closed" => break,
                    line => heard(line, &mut first),
                }
            }
            publisher.join().unwrap()
        });
        assert_eq!(next, published);
        let row = named(&bus, "durable").unwrap();
        Tally { start: 0, next: published, delivered: published, missed: 0 }.assert_row(&row, published);
        child.tell("leave");
        child.finish();
    }
}

/// Ends the writer's thread when the test fails.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
