//! Writer death: killed between and inside publishes, again and again, with standbys that carry on without a seam.

mod common;

use common::*;
use lapwing::*;
use std::os::unix::fs::FileExt;
use std::path::Path;

roles!(writer, reader);

const CAPACITY: u64 = 64 << 10;
const LONGEST: usize = 3000;

/// How a writer publishes until it is killed.
const MODES: [&str; 6] = ["plain", "batch", "claim", "in-claim", "in-batch", "finish"];

/// Arguments: bus, mode, seed. A standby that takes over and publishes without pause; says each sequence once publish has returned it.
fn writer(stage: &mut Stage) {
    stage.say("waiting");
    let mut writer = Writer::standby(stage.bus()).unwrap();
    writer.set_policy(Policy::Wait(None));
    stage.say(format!("resumed {} {}", writer.resumed_at(), writer.epoch()));
    let mut random = Random::from(stage.number(2));
    let mode = stage.argument(1);
    let mut count = 20 + random.below(60);
    if mode == "finish" {
        for _ in 0..count {
            stage.say(plain(&mut writer));
        }
        return writer.close().unwrap();
    }
    loop {
        match mode {
            "plain" => stage.say(plain(&mut writer)),
            "claim" => stage.say(claim(&mut writer).commit().unwrap()),
            "batch" => {
                let next = writer.next_sequence();
                let batch = batch(&mut writer, random.below(8));
                stage.say(format!("about {next} {}", next + batch.len() as u64));
                batch.commit().unwrap().for_each(|sequence| stage.say(sequence));
            }
            _ if count > 0 => {
                stage.say(plain(&mut writer));
                count -= 1;
            }
            "in-claim" => {
                let _unfinished = claim(&mut writer);
                stage.say("inside");
                stage.hear();
            }
            "in-batch" => {
                let _unfinished = batch(&mut writer, 8);
                stage.say("inside");
                stage.hear();
            }
            other => panic!("no mode {other:?}"),
        }
    }
}

fn plain(writer: &mut Writer) -> u64 {
    let payload = payload(writer.next_sequence(), LONGEST);
    writer.publish(&payload).unwrap()
}

fn claim(writer: &mut Writer) -> Claim<'_> {
    let payload = payload(writer.next_sequence(), LONGEST);
    let mut claim = writer.claim(0, payload.len()).unwrap();
    claim.as_mut_slice().copy_from_slice(&payload);
    claim
}

/// Up to five records, as many as a batch may hold.
fn batch(writer: &mut Writer, count: u64) -> Batch<'_> {
    let next = writer.next_sequence();
    let mut batch = writer.batch();
    for sequence in next..next + count.min(5) {
        batch.push(&payload(sequence, LONGEST)).unwrap();
    }
    batch
}

/// Arguments: bus, class, way of waiting. Reads through all deaths to the end.
fn reader(stage: &mut Stage) {
    let class = if stage.argument(1) == "pinned" { Class::Pinned } else { Class::Gating };
    let wait = if stage.argument(2) == "yield" { Wait::Yield } else { Wait::Park };
    let mut reader = Reader::options().class(class).wait(wait).open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    let id = reader.id();
    let mut tally = Tally::of(&reader);
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => {
                tally.record(&record);
                assert_whole(&record, LONGEST);
            }
            Next::Absent => {}
            Next::Closed(closed) => {
                assert_eq!(closed.sequence, tally.next);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.id(), id);
    settle(stage, &reader, &tally);
}

/// What a killed writer had said.
#[derive(Default)]
struct Said {
    /// The last sequence that publish returned.
    last: Option<u64>,
    /// The batch that it was about to commit then or had committed: first sequence, end.
    about: Option<(u64, u64)>,
}

impl Said {
    fn of(lines: &[String]) -> Self {
        let mut said = Self::default();
        for line in lines {
            if let Some(batch) = line.strip_prefix("about ") {
                said.about = batch.split_once(' ').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap()));
            } else if line != "inside" {
                let sequence = line.parse().unwrap();
                assert!(said.last.is_none_or(|last| sequence == last + 1), "{sequence} after {:?}", said.last);
                said.last = Some(sequence);
            }
        }
        said
    }

    /// Where the next writer may resume, if this one began at `start`: all that was returned is there; of what was under way, everything
    /// or nothing.
    fn resumes(&self, mode: &str, start: u64) -> Vec<u64> {
        let next = self.last.map_or(start, |last| last + 1);
        match (mode, self.about) {
            ("in-claim" | "in-batch" | "finish", _) => vec![next],
            ("batch", None) => vec![next],
            ("batch", Some((first, end))) if next == first => vec![first, end],
            ("batch", Some((_, end))) => vec![end],
            _ => vec![next, next + 1],
        }
    }
}

fn next_writer(bus: &Path, mode: &str, random: &mut Random) -> Child {
    let mut child = Child::start("writer", bus, &[&mode, &random.next()]);
    child.expect("waiting");
    child
}

#[test]
fn standbys_take_over_from_killed_writers_without_a_seam() {
    let rounds = setting("LAPWING_ROUNDS", 20);
    let mut random = Random::seeded("takeover");
    let place = Place::new("takeover");
    let bus = place.bus();
    drop(Options::new().capacity(CAPACITY).create(&bus).unwrap());

    let kinds = [("gating", "park"), ("gating", "yield"), ("pinned", "park")];
    let mut readers: Vec<_> = kinds.iter().map(|(class, wait)| Child::start("reader", &bus, &[class, wait])).collect();
    let ids: Vec<_> = readers.iter_mut().map(|reader| reader.expect("ready")).collect();

    let mut resumes = vec![0];
    let mut active = next_writer(&bus, MODES[0], &mut random);
    for round in 0..=rounds {
        let resumed = active.expect("resumed");
        let (sequence, epoch) = resumed.split_once(' ').unwrap();
        let sequence: u64 = sequence.parse().unwrap();
        assert_eq!(epoch.parse::<u64>().unwrap(), round + 2);
        assert!(resumes.contains(&sequence), "resumed at {sequence}, not one of {resumes:?}");
        assert_eq!(inspect(&bus).writer.resumed_at, sequence);
        if round == rounds {
            resumes = Said::of(&active.rest()).resumes("finish", sequence);
            active.finish();
            break;
        }
        let mode = MODES[(round % 5) as usize];
        let next = if round + 1 == rounds { "finish" } else { MODES[((round + 1) % 5) as usize] };
        // The next one waits for the lock before this one dies.
        let standby = next_writer(&bus, next, &mut random);
        let mut said = Vec::new();
        if mode.starts_with("in-") {
            while said.last().is_none_or(|line| line != "inside") {
                said.push(active.line());
            }
        } else {
            for _ in 0..random.below(120) {
                said.push(active.line());
            }
        }
        active.kill();
        said.extend(active.rest());
        resumes = Said::of(&said).resumes(mode, sequence);
        active = standby;
    }
    let published = resumes[0];
    let tallies = settle_all(&bus, &mut readers);
    for tally in tallies {
        assert_eq!((tally.start, tally.delivered, tally.missed), (0, published, 0));
    }
    // Nobody had to register again, and nobody was dropped on the way.
    let seen = inspect(&bus);
    let mut rows = seen.readers.unwrap();
    rows.retain(|row| !ids.contains(&row.id.to_string()));
    assert!(rows.is_empty(), "{rows:?}");
    // The writer that created the bus was dropped without a close: that is a take-over too.
    assert_eq!((seen.stats.takeovers, seen.writer.epoch, seen.sequence), (rounds + 1, rounds + 2, published));
    assert_eq!(seen.writer.state, WriterState::Closed);
    for reader in readers {
        reader.finish();
    }
}

#[test]
fn an_epoch_that_comes_and_goes_unread_is_whole_all_the_same() {
    // Readers stand still while three writers come, publish and die; they find all of it afterwards.
    let mut random = Random::seeded("unread");
    let place = Place::new("unread");
    let bus = place.bus();
    drop(Options::new().capacity(1 << 20).create(&bus).unwrap());
    let mut reader = Child::start("reader", &bus, &[&"gating", &"park"]);
    reader.expect("ready");
    reader.stop();
    for _ in 0..3 {
        let mut writer = next_writer(&bus, "in-batch", &mut random);
        while writer.line() != "inside" {}
        writer.kill();
    }
    let mut last = next_writer(&bus, "finish", &mut random);
    last.expect("resumed");
    let said = last.rest();
    last.finish();
    reader.go_on();
    let tally = settle_all(&bus, [&mut reader]).remove(0);
    let next = Said::of(&said).last.unwrap() + 1;
    assert_eq!((tally.start, tally.delivered, tally.missed), (0, next, 0));
    reader.finish();
}

/// Byte of the ring at which the head's position lies, the sequence after it; see the crate's layout.
const HEAD: u64 = 384;

#[test]
fn a_writer_killed_between_commit_and_head_has_published() {
    // No kill hits those few instructions often enough, so the head is put back by hand: both words of it, or the position alone.
    let place = Place::new("head");
    let bus = place.bus();
    drop(Options::new().capacity(4096).create(&bus).unwrap());
    let mut reader = Reader::open(&bus).unwrap();
    let mut tally = Tally::of(&reader);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&bus).unwrap();
    let mut random = Random::from(1);
    for round in 0..400 {
        let mut writer = Writer::standby(&bus).unwrap();
        assert_eq!(writer.resumed_at(), tally.next);
        let mut before = [0; 16];
        file.read_exact_at(&mut before, HEAD).unwrap();
        let count = 1 + random.below(3);
        let mut batch = writer.batch();
        for sequence in tally.next..tally.next + count {
            batch.push(&payload(sequence, 200)).unwrap();
        }
        batch.commit().unwrap();
        drop(writer);
        let put_back = if round % 2 == 0 { 16 } else { 8 };
        file.write_all_at(&before[..put_back], HEAD).unwrap();
        // The reader has seen it, so it must not be taken back.
        if round % 4 < 2 {
            read(&mut reader, &mut tally, count);
            assert_eq!(Writer::standby(&bus).unwrap().resumed_at(), tally.next);
        } else {
            assert_eq!(Writer::standby(&bus).unwrap().resumed_at(), tally.next + count);
            read(&mut reader, &mut tally, count);
        }
        reader.commit();
        tally.assert_both(&reader, &bus);
    }
}

fn read(reader: &mut Reader, tally: &mut Tally, count: u64) {
    for _ in 0..count {
        let Next::Record(record) = reader.try_next().unwrap() else { panic!("{tally:?}") };
        tally.record(&record);
        assert_whole(&record, 200);
    }
}
