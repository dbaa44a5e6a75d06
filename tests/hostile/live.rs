//! A table that changes under everybody's hands.

use crate::common::*;
use crate::exercise::table_of;
use crate::{LONGEST, Place};
use lapwing::layout::{HEADER, SLOT};
use lapwing::*;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Arguments: bus, seed, `stranger` or `same`. Changes random words of the table, about a thousand a second, until it is told to stop.
pub(crate) fn scribbler(stage: &mut Stage) {
    let mut random = Random::from(stage.number(1));
    if stage.argument(2) == "stranger" {
        become_a_stranger();
        let denied = File::options().write(true).open(stage.bus()).unwrap_err();
        assert_eq!(denied.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let table = File::options().write(true).open(table_of(&stage.bus())).unwrap();
    let words = table.metadata().unwrap().len() / 8;
    let (send, stop) = channel();
    stage.say("scribbling");
    let ears = std::thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
        send.send(()).unwrap();
    });
    let mut count = 0u64;
    let since = Instant::now();
    while stop.recv_timeout(Duration::from_millis(1)).is_err() {
        // However late it wakes, it keeps its rate.
        while count < since.elapsed().as_millis() as u64 {
            let slot = SLOT / 8;
            let word = match random.below(4) {
                0 => random.below(words),
                1 => 16 + random.below(64),
                // The first words of slots in use.
                _ => HEADER / 8 + random.below(4) * slot + random.below(40),
            };
            let value = match random.below(5) {
                0 => 0,
                1 => random.next(),
                2 => random.below(8) | random.below(4) << 8 | random.below(4) << 16,
                3 => 1 << random.below(64),
                _ => random.below(100_000),
            };
            table.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
            count += 1;
        }
    }
    ears.join().unwrap();
    stage.say(format!("scribbled {count}"));
}

/// What a stream gave: right, in order, and how much.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) next: Option<u64>,
    pub(crate) records: u64,
    pub(crate) missed: u64,
    pub(crate) evictions: u64,
}

impl Seen {
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        assert_whole(record, LONGEST);
        if let Some(next) = self.next {
            assert_eq!(record.sequence(), next, "skipped or repeated in silence");
        }
        self.next = Some(record.sequence() + 1);
        self.records += 1;
    }

    pub(crate) fn gap(&mut self, gap: Gap) {
        if let Some(next) = self.next {
            assert_eq!(gap.first, next, "{gap}");
        }
        self.next = Some(gap.end);
        self.missed += gap.count();
    }
}

/// Reads until told to stop, through evictions and errors.
fn read_on(bus: &Path, class: Class, attached: &Barrier, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut first = Some(Reader::options().class(class).open(bus).unwrap());
    attached.wait();
    'attach: while !stop.load(Ordering::Acquire) {
        // The table may be full of nonsense, or no table at all, for a moment.
        let opened = first.take().map_or_else(|| Reader::options().class(class).open(bus), Ok);
        let Ok(mut reader) = opened else { continue };
        seen.next = None;
        while !stop.load(Ordering::Acquire) {
            match reader.next_timeout(Duration::from_millis(20)) {
                Ok(Next::Record(record)) => seen.record(&record),
                Ok(Next::Gap(gap)) => seen.gap(gap),
                Ok(Next::Empty | Next::Absent) => {}
                Ok(Next::Evicted(gap)) => {
                    assert!(seen.next.is_none_or(|next| gap.first == next), "{gap}");
                    seen.evictions += 1;
                    match reader.rejoin(Start::Resume) {
                        Ok(gap) if gap.is_empty() => {}
                        Ok(gap) => seen.gap(gap),
                        Err(_) => continue 'attach,
                    }
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => continue 'attach,
            }
        }
    }
    seen
}

#[test]
fn a_table_scribbled_on_while_in_use_harms_nobody_s_data() {
    let mut random = Random::seeded("scribbling");
    let place = Place::new("scribble");
    let bus = place.bus();
    std::fs::set_permissions(place.directory(), Permissions::from_mode(0o755)).unwrap();
    let mut writer = Options::new().capacity(1 << 16).readers(16).mode(0o644).create(&bus).unwrap();
    let who = if can_become_another("that the scribbler may write the table alone") { "stranger" } else { "same" };
    let stop = Arc::new(AtomicBool::new(false));
    let published = Arc::new(AtomicU64::new(0));
    let attached = Arc::new(Barrier::new(4));
    let mut readers = Vec::new();
    for class in [Class::Gating, Class::Lossy, Class::Gating] {
        let (bus, stop, attached) = (bus.clone(), stop.clone(), attached.clone());
        readers.push(std::thread::spawn(move || read_on(&bus, class, &attached, &stop)));
    }
    // Whoever attaches later may be refused, if the table's identity is scribbled on.
    attached.wait();
    let mut scribbler = Child::start("scribbler", &bus, &[&random.next(), &who]);
    scribbler.expect("scribbling");
    let observing = {
        let (bus, stop) = (bus.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut seen = Seen::default();
            let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
            while !stop.load(Ordering::Acquire) {
                match observer.next_timeout(Duration::from_millis(20)).unwrap() {
                    Next::Record(record) => seen.record(&record),
                    Next::Gap(gap) => seen.gap(gap),
                    Next::Empty => {}
                    other => panic!("{other:?}"),
                }
            }
            seen
        })
    };
    let writing = {
        let (stop, published) = (stop.clone(), published.clone());
        std::thread::spawn(move || {
            let mut refused = 0u64;
            while !stop.load(Ordering::Acquire) {
                let n = writer.next_sequence();
                // Mostly waits a little, as one that wants no losses would; then evicts, as it may.
                writer.set_policy(Policy::Wait(Some(Duration::from_millis(2))));
                let bytes = payload(n, LONGEST);
                if writer.publish(&bytes).is_err() {
                    refused += 1;
                    writer.set_policy(Policy::Evict);
                    match writer.publish(&bytes) {
                        // Nonsense may say that a living reader is pinned; such a one cannot be evicted.
                        Ok(_) | Err(PublishError::WouldOverrun(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                let _ = writer.events();
                published.store(writer.next_sequence(), Ordering::Release);
            }
            (writer, refused)
        })
    };
    let since = Instant::now();
    let time = Duration::from_secs(setting("LAPWING_SECONDS", 2));
    let mut last = 0;
    while since.elapsed() < time {
        // Alive means: it goes on, whatever is scribbled.
        last = until("the writer goes on", || Some(published.load(Ordering::Acquire)).filter(|&now| now > last));
        for thread in readers.iter().chain([&observing]) {
            assert!(!thread.is_finished(), "a reader died; see above");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    scribbler.tell("stop");
    let scribbled = scribbler.expect("scribbled");
    stop.store(true, Ordering::Release);
    let (mut writer, refused) = writing.join().unwrap();
    let mut given = Vec::new();
    for reader in readers {
        let seen = reader.join().unwrap();
        given.push((seen.records, seen.missed, seen.evictions));
    }
    let seen = observing.join().unwrap();
    println!(
        "{} words scribbled, {} records published, {refused} refused; (records, missed, evictions): {given:?}, observer {:?}",
        scribbled.trim(),
        published.load(Ordering::Acquire),
        (seen.records, seen.missed),
    );
    assert!(seen.records > 0 && given.iter().all(|given| given.0 > 0));

    // Once it stops, whoever may act on the table clears it, and everything is as before.
    let outside = Bus::open(&bus);
    let Ok(outside) = outside else {
        return println!("the table's identity was scribbled on: the bus has to be replaced");
    };
    let _ = writer.reap().unwrap();
    for row in outside.snapshot().unwrap().readers.unwrap() {
        let _ = outside.evict(row.id);
        if let Some(name) = row.name {
            let _ = outside.forget(&name);
        }
    }
    let _ = writer.reap().unwrap();
    let mut reader = Reader::open(&bus).unwrap();
    let n = writer.publish(b"as before").unwrap();
    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.sequence() == n));
}
