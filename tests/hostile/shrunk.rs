//! Files that shrink while they are mapped: an error on the handle with the guard, the process's death without.

use crate::common::*;
use crate::exercise::table_of;
use crate::{LONGEST, Place};
use lapwing::layout::HEADER;
use lapwing::*;
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

const WHO: [&str; 6] = ["writer", "gating", "pinned", "lossy", "event", "observer"];

fn guard(stage: &Stage) {
    match stage.argument(2) {
        "guarded" => guard::install().unwrap(),
        "bare" => {}
        other => panic!("guarded or bare, not {other}"),
    }
}

fn truncate(file: &Path, length: u64) {
    OpenOptions::new().write(true).open(file).unwrap().set_len(length).unwrap();
}

/// Arguments: bus, one of `WHO`, `guarded` or `bare`. Writes or reads at full speed until that fails; says how.
pub(crate) fn victim(stage: &mut Stage) {
    guard(stage);
    let bus = stage.bus();
    let who = stage.argument(1);
    let mut seen = 0u64;
    // Said once some laps have passed, so that whatever is to happen happens in full flight.
    let warm = |seen: &mut u64| {
        *seen += 1;
        if *seen == 2000 {
            stage.say("warm");
        }
    };
    let error = match who {
        "writer" => {
            let mut writer = Writer::standby(&bus).unwrap();
            writer.set_policy(Policy::Wait(Some(DEADLINE)));
            stage.say("ready");
            stage.hear_this("go");
            loop {
                match writer.publish(&payload(writer.next_sequence(), LONGEST)) {
                    Ok(_) => warm(&mut seen),
                    Err(PublishError::Failed(error)) => break error,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        "observer" => {
            let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
            stage.say("ready");
            loop {
                match observer.next() {
                    Ok(Next::Record(record)) => {
                        assert_whole(&record, LONGEST);
                        warm(&mut seen);
                    }
                    Ok(Next::Gap(_) | Next::Absent) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => break error,
                }
            }
        }
        _ => {
            let class = match who {
                "pinned" => Class::Pinned,
                "lossy" => Class::Lossy,
                _ => Class::Gating,
            };
            let mut reader = Reader::options().class(class).open(&bus).unwrap();
            if who == "event" {
                // From here on a thread of the library's own looks at the table, too.
                reader.event_fd().unwrap();
            }
            stage.say("ready");
            loop {
                let next = if who == "event" { reader.try_next() } else { reader.next() };
                match next {
                    Ok(Next::Record(record)) => {
                        if class == Class::Pinned {
                            // Its bytes may turn into zeros at any time, and into nothing else.
                            let (found, wanted) = (record.payload().to_vec(), payload(record.sequence(), LONGEST));
                            assert_eq!(found.len(), wanted.len());
                            assert!(found.iter().zip(&wanted).all(|(found, wanted)| found == wanted || *found == 0));
                        } else {
                            assert_whole(&record, LONGEST);
                        }
                        warm(&mut seen);
                    }
                    Ok(Next::Gap(_)) => assert_eq!(class, Class::Lossy),
                    Ok(Next::Absent | Next::Empty) => {}
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => break error,
                }
            }
        }
    };
    let Error::Truncated { path } = &error else { panic!("{who}: {error:?}") };
    assert!(error.to_string().contains("truncated while it was in use"), "{error}");
    stage.say(format!("truncated {}", path.display()));
}

/// Starts everybody in `who`, lets them run for some laps, truncates a file, and hands them back.
fn truncated(place: &Place, who: &[&'static str], how: &str, file: &Path, length: u64) -> Vec<(&'static str, Child)> {
    let bus = place.bus();
    drop(Options::new().capacity(1 << 16).readers(8).create(&bus).unwrap());
    let mut victims: Vec<_> = who.iter().map(|&who| (who, Child::start("victim", &bus, &[&who, &how]))).collect();
    for (_, victim) in &mut victims {
        victim.expect("ready");
    }
    victims[0].1.tell("go");
    for (_, victim) in &mut victims {
        victim.expect("warm");
    }
    truncate(file, length);
    victims
}

#[test]
fn with_the_guard_whoever_uses_a_file_that_shrinks_gets_an_error() {
    // All of it; all but the header.
    for length in [0, HEADER] {
        let place = Place::new("shrunk-ring");
        let bus = place.bus();
        for (who, mut victim) in truncated(&place, &WHO, "guarded", &bus, length) {
            assert_eq!(victim.expect("truncated"), bus.display().to_string(), "{who}, {length}");
            victim.finish();
        }
        // The bus is refused from now on, and one more can be made once the file is gone.
        let Err(error) = Reader::open(&bus) else { panic!("attached to a truncated ring") };
        assert!(matches!(error, Error::NotABus { .. } | Error::Corrupt { .. }), "{error:?}");
        std::fs::remove_file(&bus).unwrap();
        assert_eq!(Options::new().replace(&bus).unwrap().publish(b"anew").unwrap(), 0);
    }
    for length in [0, HEADER] {
        let place = Place::new("shrunk-table");
        let bus = place.bus();
        let table = table_of(&bus);
        for (who, mut victim) in truncated(&place, &WHO[..5], "guarded", &table, length) {
            assert_eq!(victim.expect("truncated"), table.display().to_string(), "{who}, {length}");
            victim.finish();
        }
        assert!(matches!(Reader::open(&bus), Err(Error::NotABus { .. } | Error::Corrupt { .. })));
        assert_eq!(Options::new().replace(&bus).unwrap().publish(b"anew").unwrap(), 0);
    }
}

#[test]
fn without_the_guard_the_process_dies_and_nobody_else() {
    let place = Place::new("bare");
    let bus = place.bus();
    for (who, victim) in truncated(&place, &["writer", "gating"], "bare", &bus, 0) {
        assert_eq!(victim.ended().signal(), Some(Signal::SIGBUS as i32), "{who}");
    }
}

#[test]
fn an_observer_goes_on_without_the_table() {
    let place = Place::new("observer");
    let bus = place.bus();
    let mut writer = Options::new().capacity(1 << 16).readers(8).create(&bus).unwrap();
    let mut observer = Child::start("holder", &bus, &[&"observer", &"guarded"]);
    observer.expect("ready");
    writer.publish(&payload(0, LONGEST)).unwrap();
    observer.expect("record 0");
    // Nobody in this process touches the table any more.
    drop(writer);
    truncate(&table_of(&bus), 0);
    // It waits for what it can still see: that the path leads elsewhere.
    drop(Options::new().replace(&bus).unwrap());
    observer.expect("replaced");
    observer.finish();
}

/// Arguments: bus, `observer` or `pinned`, `guarded` or `bare`. Reads a record, and says what becomes of it and what comes next.
pub(crate) fn holder(stage: &mut Stage) {
    guard(stage);
    let bus = stage.bus();
    if stage.argument(1) == "observer" {
        let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
        stage.say("ready");
        loop {
            match observer.next().unwrap() {
                Next::Record(record) => {
                    assert_whole(&record, LONGEST);
                    stage.say(format!("record {}", record.sequence()));
                }
                Next::Absent => {}
                Next::Replaced | Next::Orphaned => break stage.say("replaced"),
                other => panic!("{other:?}"),
            }
        }
        return;
    }
    let mut reader = Reader::options().class(Class::Pinned).start(Start::Oldest).open(&bus).unwrap();
    let Next::Record(record) = reader.next().unwrap() else { panic!() };
    let before = record.payload().to_vec();
    assert!(before.iter().any(|&byte| byte != 0));
    stage.say("holding");
    stage.hear_this("look");
    let after = record.payload().to_vec();
    stage.say(if after.iter().all(|&byte| byte == 0) { "zeros" } else { "intact" });
    let Err(Error::Truncated { path }) = reader.next().map(drop) else { panic!("no error") };
    assert_eq!(path, bus);
    assert!(matches!(reader.try_next(), Err(Error::Truncated { .. })));
    assert!(matches!(reader.rejoin(Start::Oldest), Err(Error::Truncated { .. })));
    drop(reader);
    // Another bus in the same process is not concerned, nor is one that comes later.
    let other = bus.with_file_name("other");
    let mut writer = Options::new().create(&other).unwrap();
    let mut reader = Reader::open(&other).unwrap();
    writer.publish(b"here").unwrap();
    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.payload() == b"here"));
    stage.say("fine");
}

#[test]
fn a_pinned_record_turns_into_zeros_and_the_process_lives() {
    let place = Place::new("pinned");
    let bus = place.bus();
    let mut writer = Options::new().capacity(1 << 16).readers(8).create(&bus).unwrap();
    writer.publish(&[7; 100]).unwrap();
    let mut holder = Child::start("holder", &bus, &[&"pinned", &"guarded"]);
    holder.expect("holding");
    drop(writer);
    truncate(&bus, 0);
    holder.tell("look");
    holder.expect("zeros");
    holder.expect("fine");
    holder.finish();
}

/// Arguments: bus, nothing, `guarded`. Attaches in every way, again and again, until told to stop.
pub(crate) fn attacher(stage: &mut Stage) {
    guard(stage);
    let bus = stage.bus();
    let (send, stop) = std::sync::mpsc::channel();
    let (mut worked, mut failed) = (0u64, 0u64);
    stage.say("ready");
    std::thread::scope(|scope| {
        scope.spawn(|| send.send(stage.hear()).unwrap());
        while stop.try_recv().is_err() {
            let results = [
                Bus::inspect(&bus).map(drop),
                Bus::open(&bus).and_then(|bus| bus.snapshot()).map(drop),
                Reader::options().start(Start::Oldest).open(&bus).and_then(|mut reader| reader.try_next().map(drop)),
                Observer::open(&bus, Start::Oldest).and_then(|mut observer| observer.try_next().map(drop)),
                Writer::open(&bus).and_then(|mut writer| match writer.publish(b"a record") {
                    Err(PublishError::Failed(error)) => Err(error),
                    _ => Ok(()),
                }),
            ];
            for result in results {
                match result {
                    Ok(()) => worked += 1,
                    Err(_) => failed += 1,
                }
            }
        }
    });
    stage.say(format!("done {worked} {failed}"));
}

#[test]
fn attaching_while_files_shrink_and_grow_is_an_error_at_worst() {
    let place = Place::new("flicker");
    let bus = place.bus();
    let mut writer = Options::new().capacity(4096).readers(4).create(&bus).unwrap();
    for n in 0..20 {
        writer.publish(&payload(n, LONGEST)).unwrap();
    }
    drop(writer);
    let whole = [bus.clone(), table_of(&bus)].map(|file| (std::fs::read(&file).unwrap(), file));
    let mut attacher = Child::start("attacher", &bus, &[&"", &"guarded"]);
    attacher.expect("ready");
    let mut random = Random::seeded("flicker");
    let since = std::time::Instant::now();
    while since.elapsed().as_secs() < setting("LAPWING_SECONDS", 2) {
        let (bytes, file) = &whole[random.below(2) as usize];
        truncate(file, random.below(bytes.len() as u64));
        // Not by `std::fs::write`, which truncates to nothing first.
        std::os::unix::fs::FileExt::write_all_at(&OpenOptions::new().write(true).open(file).unwrap(), bytes, 0)
            .unwrap();
    }
    attacher.tell("stop");
    let line = attacher.expect("done");
    println!("attaching while files flicker: (worked, failed) {line}");
    assert!(line.split(' ').all(|count| count != "0"), "{line}");
    attacher.finish();
}
