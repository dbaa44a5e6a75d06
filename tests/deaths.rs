//! Deaths in every state: asleep, active, in pairs; what is reported, how often, and that it costs nobody else anything. And races for a bus.

mod common;

use common::*;
use lapwing::layout::HEADER;
use lapwing::*;
use std::os::unix::fs::FileExt;
use std::path::Path;

roles!(reader, contender, standby);

const CAPACITY: u64 = 16 << 10;

/// Words of the table's header.
const SLEEP_FLAG: u64 = 32;
const WAKE_WORD: u64 = 48;

fn table_word(bus: &Path, word: u64) -> u64 {
    assert!(word * 8 < HEADER);
    let mut bytes = [0; 8];
    let table = std::fs::File::open(format!("{}.readers", bus.display())).unwrap();
    table.read_exact_at(&mut bytes, word * 8).unwrap();
    u64::from_ne_bytes(bytes)
}

/// Arguments: bus, name or nothing. Reads whatever comes, asleep in between.
fn reader(stage: &mut Stage) {
    let mut options = Reader::options();
    if !stage.argument(1).is_empty() {
        options = options.name(stage.argument(1));
    }
    let mut reader = options.open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    loop {
        if let Next::Record(record) = reader.next().unwrap() {
            let sequence = record.sequence();
            reader.commit();
            stage.say(format!("read {sequence}"));
        }
    }
}

/// Arguments: bus. Tries to become the writer when told to.
fn contender(stage: &mut Stage) {
    stage.say("ready");
    stage.hear_this("go");
    match Writer::open(stage.bus()) {
        Ok(writer) => {
            stage.say(format!("won {}", writer.epoch()));
            stage.hear_this("leave");
        }
        Err(Error::WriterBusy { pid, .. }) => {
            stage.say(format!("lost {}", pid.map_or(String::new(), |pid| pid.to_string())));
            stage.hear_this("leave");
        }
        Err(error) => panic!("{error}"),
    }
}

/// Arguments: bus. Waits to become the writer, publishes one record, and waits.
fn standby(stage: &mut Stage) {
    stage.say("ready");
    let mut writer = Writer::standby(stage.bus()).unwrap();
    stage.say(format!("resumed {}", writer.resumed_at()));
    while stage.hear() == "publish" {
        stage.say(writer.publish(b"by the one who stood by").unwrap());
    }
}

fn asleep(child: &Child) {
    until("a process to sleep", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
        stat.rsplit_once(')').unwrap().1.starts_with(" S ").then_some(())
    });
}

fn reaped(writer: &mut Writer) -> Vec<ReaderId> {
    let told = |event| if let WriterEvent::Reaped { reader } = event { Some(reader.id) } else { None };
    writer.events().into_iter().filter_map(told).collect()
}

/// Killed asleep (and so with the sleep flag set) or active: one wake for nothing at most; reported once; its slot, and nobody else's, is free.
#[test]
fn a_reader_that_dies_asleep_costs_one_wake_and_is_reported_once() {
    let place = Place::new("asleep");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).readers(2).create(&bus).unwrap();
    let mut other = Reader::open(&bus).unwrap();
    for round in 0..3 {
        let mut child = Child::start("reader", &bus, &[&""]);
        let id = ReaderId(child.expect("ready").parse().unwrap());
        let sequence = writer.publish(b"first").unwrap();
        assert_eq!(child.expect("read"), sequence.to_string());
        until("the flag", || (table_word(&bus, SLEEP_FLAG) != 0).then_some(()));
        asleep(&child);
        child.kill();
        assert_ne!(table_word(&bus, SLEEP_FLAG), 0, "killed asleep, yet the flag is down");
        let before = table_word(&bus, WAKE_WORD);
        for n in 0..100 {
            writer.publish(b"to nobody who sleeps").unwrap();
            assert_eq!((table_word(&bus, SLEEP_FLAG), table_word(&bus, WAKE_WORD)), (0, before + 1), "publish {n}");
            assert!(matches!(other.try_next().unwrap(), Next::Record(_)));
            other.commit();
        }
        if round == 2 {
            // Its slot is taken by a newcomer, without anybody reaping.
            drop(Reader::open(&bus).unwrap());
            assert!(reaped(&mut writer).is_empty());
        } else {
            assert_eq!(writer.reap().unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [id]);
            assert!(writer.reap().unwrap().is_empty());
            assert_eq!(reaped(&mut writer), [id]);
            assert!(reaped(&mut writer).is_empty());
        }
        let rows = rows(&bus);
        assert!(matches!(&rows[..], [row] if row.id == other.id() && row.state == State::Active), "{rows:?}");
        while let Next::Record(_) = other.try_next().unwrap() {}
        let row = other.info().unwrap();
        assert_eq!((row.pending, row.missed, row.evictions), (0, 0, 0));
    }
}

/// The dead keep their names, and their places if they asked for it; whoever lives under another name notices nothing.
#[test]
fn a_named_reader_that_dies_asleep_is_away_and_its_name_free() {
    let place = Place::new("away");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut child = Child::start("reader", &bus, &[&"dead"]);
    let id = child.expect("ready");
    writer.publish(b"first").unwrap();
    assert_eq!(child.expect("read"), "0");
    asleep(&child);
    child.kill();
    let row = named(&bus, "dead").unwrap();
    assert_eq!((row.alive, row.state), (false, State::Active), "nobody has looked yet");
    writer.publish(b"second").unwrap();
    assert_eq!(writer.reap().unwrap().iter().map(|row| row.id.to_string()).collect::<Vec<_>>(), [id]);
    assert_eq!(named(&bus, "dead").unwrap().state, State::Detached);
    let mut next = Reader::options().name("dead").start(Start::Resume).open(&bus).unwrap();
    assert!(matches!(next.try_next().unwrap(), Next::Record(record) if record.sequence() == 1));
}

#[test]
fn of_many_who_want_to_write_one_does_and_all_others_learn_who() {
    let place = Place::new("contenders");
    let bus = place.bus();
    drop(Options::new().capacity(CAPACITY).create(&bus).unwrap());
    for round in 1..=4 {
        let mut contenders: Vec<_> = (0..4).map(|_| Child::start("contender", &bus, &[])).collect();
        for contender in &mut contenders {
            contender.expect("ready");
        }
        for contender in &mut contenders {
            contender.tell("go");
        }
        let said: Vec<_> = contenders.iter_mut().map(|contender| (contender.pid(), contender.line())).collect();
        let winners: Vec<_> = said.iter().filter(|(_, line)| line.starts_with("won")).collect();
        assert_eq!(winners.len(), 1, "{said:?}");
        let (winner, line) = winners[0];
        assert_eq!(*line, format!("won {}", 1 + round));
        for (_, line) in said.iter().filter(|(pid, _)| pid != winner) {
            // Who asks before the winner has written its name may find the last one's, or none; whoever asks again, the right one.
            assert!(line.starts_with("lost"), "{line}");
        }
        assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { pid, .. }) if pid == Some(*winner)));
        for mut contender in contenders {
            contender.tell("leave");
            contender.finish();
        }
    }
}

/// A stopped writer is the writer, however long; one that stands by takes over when it dies, and no sooner.
#[test]
fn a_stopped_writer_is_not_succeeded_and_a_dead_one_at_once() {
    let place = Place::new("stopped");
    let bus = place.bus();
    drop(Options::new().capacity(CAPACITY).create(&bus).unwrap());
    let mut first = Child::start("standby", &bus, &[]);
    first.expect("ready");
    first.expect("resumed 0");
    let mut second = Child::start("standby", &bus, &[]);
    second.expect("ready");
    asleep(&second);
    first.stop();
    for _ in 0..3 {
        asleep(&second);
        assert!(second.heard().is_empty());
        let seen = inspect(&bus);
        assert_eq!((seen.writer.state, seen.writer.pid, seen.writer.epoch), (WriterState::Alive, first.pid(), 2));
    }
    first.go_on();
    first.tell("publish");
    assert_eq!(first.line(), "0");
    first.stop();
    first.kill();
    second.expect("resumed 1");
    second.tell("publish");
    assert_eq!(second.line(), "1");
    let seen = inspect(&bus);
    assert_eq!((seen.writer.state, seen.writer.pid, seen.writer.epoch), (WriterState::Alive, second.pid(), 3));
}
