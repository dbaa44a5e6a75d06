//! The storm: processes are killed, stopped, evicted and replaced at random under load; afterwards everybody's books agree and nothing is left.
//!
//! Two writers, of which one stands by; named readers that come back after each death; readers that join and leave; and one that lives
//! through it all, pinned, to which each record has to come once. Every payload follows from its sequence, and who is killed has
//! noted outside the bus what it had done, so that the next life can be held to it.
//!
//! `LAPWING_CYCLES` and `LAPWING_SECONDS` make it longer (`.ci/storm`, `.ci/long storm`), `LAPWING_SEED` repeats its choices.

mod common;

use common::*;
use lapwing::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

roles!(writer, named, visitor, witness);

const CAPACITY: u64 = 16 << 10;
const LONGEST: usize = 200;
const SLOTS: u32 = 12;

/// What a process notes outside the bus, so that its next life can be held to it. One system call a note: a kill leaves the old one or the new.
struct Notes(File);

impl Notes {
    fn open(bus: &Path, of: &str) -> Self {
        let path = bus.with_file_name(format!("{of}.notes"));
        Self(File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap())
    }

    /// Some numbers; `None` before the first note.
    fn read<const N: usize>(&self) -> Option<[u64; N]> {
        let mut bytes = vec![0; 8 * N];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        Some(std::array::from_fn(|n| u64::from_ne_bytes(bytes[8 * n..][..8].try_into().unwrap())))
    }

    fn write<const N: usize>(&self, numbers: [u64; N]) {
        let bytes: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
        assert_eq!(self.0.write_at(&bytes, 0).unwrap(), bytes.len());
    }
}

// ---- roles ----------------------------------------------------------------------------------------------------------

/// Arguments: bus, seed. Stands by, takes over and publishes until told to stop, then closes.
fn writer(stage: &mut Stage) {
    let mut random = Random::from(stage.number(1));
    let notes = Notes::open(&stage.bus(), "writer");
    stage.say("ready");
    let mut writer = Writer::standby(stage.bus()).unwrap();
    let [published, attempted, epoch] = notes.read().unwrap_or_default();
    let resumed = writer.resumed_at();
    assert!((published..=attempted).contains(&resumed), "resumed at {resumed}, must be in {published}..={attempted}");
    assert!(writer.epoch() > epoch, "the epoch stood still: {epoch}");
    stage.say(format!("resumed {resumed}"));
    let told_to_stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.hear_this("stop");
            told_to_stop.store(true, Relaxed);
        });
        while !told_to_stop.load(Relaxed) {
            let policies = [Policy::Refuse, Policy::Evict, Policy::Wait(Some(Duration::from_millis(3)))];
            writer.set_policy(policies[random.below(3) as usize]);
            let (next, epoch) = (writer.next_sequence(), writer.epoch());
            let count = if random.below(8) == 0 { 1 + random.below(6) } else { 1 };
            notes.write([next, next + count, epoch]);
            match publish(&mut writer, count, random.below(4) == 0) {
                Ok(()) => assert_eq!(writer.next_sequence(), next + count),
                Err(PublishError::WouldOverrun(overrun)) => {
                    assert!(!overrun.readers.is_empty());
                    assert_eq!(writer.next_sequence(), next, "refused, and yet something was published");
                    std::thread::yield_now();
                }
                Err(error) => panic!("{error}"),
            }
            writer.events();
        }
    });
    let next = writer.next_sequence();
    notes.write([next, next, writer.epoch()]);
    writer.close().unwrap();
    stage.say(format!("closed {next}"));
}

/// Publishes so many records: one by itself or written in place, several as a batch.
fn publish(writer: &mut Writer, count: u64, in_place: bool) -> std::result::Result<(), PublishError> {
    let next = writer.next_sequence();
    if count > 1 {
        let mut batch = writer.batch();
        for sequence in next..next + count {
            batch.push(&payload(sequence, LONGEST))?;
        }
        let _ = batch.commit();
        return Ok(());
    }
    let bytes = payload(next, LONGEST);
    if in_place {
        let mut claim = writer.claim(0, bytes.len())?;
        claim.as_mut_slice().copy_from_slice(&bytes);
        let _ = claim.commit();
    } else {
        writer.publish(&bytes)?;
    }
    Ok(())
}

/// Arguments: bus, name. Goes on where its last life stopped, to the end of the stream.
fn named(stage: &mut Stage) {
    let name = stage.argument(1).to_string();
    let notes = Notes::open(&stage.bus(), &name);
    let mut reader =
        Reader::options().name(&name).hold_while_away(true).start(Start::Resume).open(stage.bus()).unwrap();
    let start = reader.start_sequence();
    // Handled so far, missed so far, where it all began, and whether the last that it handled was a record.
    let [mut handled, mut missed, began, mut record_last] = notes.read().unwrap_or([start, 0, start, 0]);
    assert_eq!(start, began, "the books begin elsewhere");
    notes.write([handled, missed, began, record_last]);
    stage.say("ready");
    let mut next = None;
    let mut note = |first: u64, end: u64, is_gap: bool| {
        match next {
            Some(next) => assert_eq!(first, next, "skipped or repeated"),
            // The record, or the gap, that the last life had been given when it died may come again.
            None => {
                let again = if is_gap { end } else { first + 1 };
                assert!(first <= handled && again >= handled, "{name} comes back to {first}..{end}, was at {handled}");
            }
        }
        next = Some(end);
        if is_gap {
            // A gap that is told again counts once. A record that was handled and not committed counts as missed, if it is gone since.
            let uncommitted = record_last != 0 && first + 1 == handled;
            missed += end - if uncommitted { first } else { first.max(handled) };
        }
        handled = handled.max(end);
        record_last = u64::from(!is_gap);
        notes.write([handled, missed, began, record_last]);
    };
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => {
                assert_whole(&record, LONGEST);
                note(record.sequence(), record.sequence() + 1, false);
            }
            Next::Gap(gap) => note(gap.first, gap.end, true),
            Next::Evicted(_) => {
                let gap = reader.rejoin(Start::Resume).unwrap();
                if !gap.is_empty() {
                    note(gap.first, gap.end, true);
                }
            }
            Next::Absent => {}
            Next::Closed(closed) => {
                assert_eq!(closed.sequence, handled);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    reader.commit();
    let row = reader.info().unwrap();
    assert_eq!((row.start, row.cursor, row.missed), (began, handled, missed), "the books differ: {row:?}");
    assert_balanced(&row, handled);
    stage.say(format!("closed {handled} {missed}"));
    stage.hear_this("leave");
}

/// Arguments: bus, seed. Joins, reads for a while, leaves; without end.
fn visitor(stage: &mut Stage) {
    let mut random = Random::from(stage.number(1));
    stage.say("ready");
    loop {
        let classes = [Class::Gating, Class::Gating, Class::Lossy, Class::Pinned];
        let class = classes[random.below(4) as usize];
        let start = if random.below(2) == 0 { Start::Oldest } else { Start::Latest };
        let mut reader = match Reader::options().class(class).start(start).open(stage.bus()) {
            Ok(reader) => reader,
            // Evicted at each try: the library has given up, and so may a visitor.
            Err(Error::WrongState { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        let mut tally = Tally::of(&reader);
        for _ in 0..1 + random.below(200) {
            match reader.next_timeout(Duration::from_millis(20)).unwrap() {
                Next::Record(record) => {
                    tally.record(&record);
                    assert_whole(&record, LONGEST);
                }
                Next::Gap(gap) => {
                    let at_first = tally.next == tally.start;
                    assert!(class == Class::Lossy || at_first, "a {class} reader skipped {gap}: {tally:?}");
                    tally.gap(gap);
                }
                Next::Evicted(gap) => {
                    assert_ne!(class, Class::Pinned);
                    assert_eq!(gap.first, tally.next);
                    break;
                }
                Next::Empty | Next::Absent => {}
                Next::Closed(_) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Arguments: bus. Sees every record once, from the first to the last.
fn witness(stage: &mut Stage) {
    let mut reader = Reader::options().class(Class::Pinned).start(Start::Oldest).open(stage.bus()).unwrap();
    let mut tally = Tally::of(&reader);
    let before = descriptors();
    stage.say(format!("ready {}", reader.id()));
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
    assert_eq!((tally.start, tally.missed), (0, 0));
    assert_eq!(descriptors(), before, "descriptors leaked");
    settle(stage, &reader, &tally);
}

// ---- what may leak ----------------------------------------------------------------------------------------------------

/// What the open descriptors of this process lead to, the numbers of pipes and the like aside.
fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let targets = entries.filter_map(|path| std::fs::read_link(path).ok());
    let mut all: Vec<_> =
        targets.map(|target| target.to_string_lossy().split(':').next().unwrap().to_string()).collect();
    all.retain(|target| !target.starts_with("/proc/"));
    all.sort();
    all
}

/// Locks that the kernel knows of on the files of a directory.
fn locks(directory: &Path) -> Vec<String> {
    let inodes: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| format!(":{}", entry.unwrap().metadata().unwrap().ino()))
        .collect();
    let all = std::fs::read_to_string("/proc/locks").unwrap();
    let on_ours = |line: &&str| line.split_whitespace().any(|word| inodes.iter().any(|inode| word.ends_with(inode)));
    all.lines().filter(on_ours).map(String::from).collect()
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<_> = entries.filter(|name| !name.ends_with(".notes")).collect();
    all.sort();
    all
}

// ---- the storm --------------------------------------------------------------------------------------------------------

struct Cast {
    bus: PathBuf,
    /// By role and, for the named, name.
    players: BTreeMap<String, Child>,
    /// Who is stopped, and until which cycle.
    stopped: BTreeMap<String, u64>,
    witness: (Child, ReaderId),
}

impl Cast {
    fn new(bus: &Path, random: &mut Random) -> Self {
        let mut witness = Child::start("witness", bus, &[]);
        let id = ReaderId(witness.expect("ready").parse().unwrap());
        let mut cast =
            Self { bus: bus.into(), players: BTreeMap::new(), stopped: BTreeMap::new(), witness: (witness, id) };
        for player in ["writer-0", "writer-1", "named-0", "named-1", "named-2", "visitor-0", "visitor-1"] {
            cast.enter(player, random);
        }
        cast
    }

    fn enter(&mut self, player: &str, random: &mut Random) {
        let role = player.split('-').next().unwrap();
        let mut child = match role {
            "named" => Child::start(role, &self.bus, &[&player]),
            _ => Child::start(role, &self.bus, &[&random.next()]),
        };
        child.expect("ready");
        self.players.insert(player.into(), child);
    }

    fn any(&self, random: &mut Random) -> String {
        self.players.keys().nth(random.below(self.players.len() as u64) as usize).unwrap().clone()
    }

    /// Somebody dies, and its next life begins.
    fn kill(&mut self, player: &str, random: &mut Random) {
        self.stopped.remove(player);
        self.players.get_mut(player).unwrap().kill_alive();
        self.enter(player, random);
    }

    fn stop(&mut self, player: &str, until: u64) {
        if self.stopped.insert(player.into(), until).is_none() {
            self.players[player].stop();
        }
    }

    fn go_on(&mut self, cycle: u64) {
        let due: Vec<_> =
            self.stopped.iter().filter(|(_, until)| **until <= cycle).map(|(name, _)| name.clone()).collect();
        for name in due {
            self.stopped.remove(&name);
            self.players[&name].go_on();
        }
    }

    /// Evicts somebody from outside, or reaps.
    fn interfere(&self, random: &mut Random) {
        let outside = Bus::open(&self.bus).unwrap();
        if random.below(3) == 0 {
            outside.reap().unwrap();
            return;
        }
        let rows = outside.snapshot().unwrap().readers.unwrap();
        let row = &rows[random.below(rows.len() as u64) as usize];
        match outside.evict(row.id) {
            Ok(_) => assert_ne!(row.id, self.witness.1, "the witness was evicted"),
            Err(Error::NotEvictable { .. }) => assert_eq!(row.class, Class::Pinned),
            Err(Error::NoSuchReader { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn after_the_storm_the_books_agree_and_nothing_is_left() {
    let (cycles, seconds) = (setting("LAPWING_CYCLES", 60), setting("LAPWING_SECONDS", 0));
    let mut random = Random::seeded("storm");
    let place = Place::new("storm");
    let bus = place.bus();
    let mine = descriptors();
    drop(Options::new().capacity(CAPACITY).readers(SLOTS).create(&bus).unwrap());
    let mut cast = Cast::new(&bus, &mut random);
    let since = Instant::now();
    let (mut cycle, mut kills, mut stops) = (0, 0, 0);
    while cycle < cycles || since.elapsed() < Duration::from_secs(seconds) {
        cycle += 1;
        match random.below(8) {
            0..=3 => {
                let player = cast.any(&mut random);
                cast.kill(&player, &mut random);
                kills += 1;
            }
            4 => {
                let player = cast.any(&mut random);
                cast.stop(&player, cycle + 1 + random.below(4));
                stops += 1;
            }
            _ => cast.interfere(&mut random),
        }
        cast.go_on(cycle);
        // With nobody stopped the stream goes on, whatever has just happened to whom.
        if cast.stopped.is_empty() {
            let before = inspect(&bus).sequence;
            let more = random.below(300);
            until("the stream to go on", || (inspect(&bus).sequence >= before + more).then_some(()));
        }
    }
    cast.go_on(u64::MAX);
    end(&bus, cast);
    let seen = inspect(&bus);
    let stats = &seen.stats;
    println!(
        "{cycle} cycles: {kills} kills, {stops} stops, {} takeovers, {} evictions, {} reaped, {} records",
        stats.takeovers, stats.evictions, stats.reaped, seen.sequence
    );
    nothing_is_left(&place, seen.sequence);
    assert_eq!(descriptors(), mine, "descriptors leaked");
}

/// The writer closes, everybody reads to the end and compares books, all leave.
fn end(bus: &Path, cast: Cast) {
    let Cast { mut players, witness: (mut witness, _), .. } = cast;
    let mut take = |role: &str| -> Vec<(String, Child)> {
        let names: Vec<_> = players.keys().filter(|name| name.starts_with(role)).cloned().collect();
        names.into_iter().map(|name| players.remove_entry(&name).unwrap()).collect()
    };
    // The one that stands by would go on where the other closes.
    let writers = take("writer");
    let pid = until("a writer", || {
        let pid = inspect(bus).writer.pid;
        writers.iter().any(|(_, writer)| writer.pid() == pid).then_some(pid)
    });
    let (active, standby): (Vec<_>, Vec<_>) = writers.into_iter().partition(|(_, writer)| writer.pid() == pid);
    for (_, mut writer) in standby {
        writer.kill_alive();
    }
    for (_, mut writer) in active {
        writer.tell("stop");
        writer.finish();
    }
    settle_all(bus, [&mut witness]);
    witness.finish();
    for (name, mut named) in take("named") {
        named.expect("closed");
        named.tell("leave");
        named.finish();
        let row = common::named(bus, &name).unwrap_or_else(|| panic!("{name} was forgotten"));
        assert_eq!(row.pending, 0, "{row:?}");
    }
    // Visitors end with the stream, or die with it.
    for (_, mut visitor) in take("visitor") {
        visitor.kill();
    }
    assert_ledgers(bus);
}

/// Every slot, lock and file is as it was.
fn nothing_is_left(place: &Place, sequence: u64) {
    let bus = place.bus();
    assert_eq!(locks(place.directory()), Vec::<String>::new(), "locks of the dead");
    let mut writer = Writer::open(&bus).unwrap();
    assert_eq!(writer.resumed_at(), sequence);
    writer.reap().unwrap();
    let left = writer.readers().unwrap();
    assert!(left.iter().all(|row| row.name.is_some() && !row.alive), "{left:?}");
    let outside = Bus::open(&bus).unwrap();
    for row in left {
        outside.forget(row.name.as_deref().unwrap()).unwrap();
    }
    let readers: Vec<_> = (0..SLOTS).map(|_| Reader::open(&bus).unwrap()).collect();
    assert!(matches!(Reader::open(&bus), Err(Error::TableFull { .. })));
    drop((readers, outside));
    assert_eq!(writer.publish(b"on").unwrap(), sequence);
    drop(writer);
    assert_eq!(locks(place.directory()), Vec::<String>::new(), "locks of handles that are closed");
    assert_eq!(files(place.directory()), ["bus", "bus.lock", "bus.readers"]);
    Bus::remove(&bus).unwrap();
    assert_eq!(files(place.directory()), Vec::<String>::new());
}
