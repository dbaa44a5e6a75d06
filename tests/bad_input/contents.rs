//! Files that were cut short, come from another version or machine, or were scribbled on, word by word.

use crate::common::{Child, Place, Random, Stage};
use crate::{beside, errors_at, files_in, lay_out, sample, set_word, word};
use lapwing::layout::{BYTE_ORDER, HASH, RING_MAGIC, SLOT, TABLE_MAGIC, VERSION};
use lapwing::*;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

#[test]
fn a_file_cut_short_anywhere_is_refused() {
    let whole = sample(false);
    for length in (0..whole.0.len()).step_by(512) {
        let place = Place::new("short");
        lay_out(&place.bus(), &(whole.0[..length].to_vec(), whole.1.clone()));
        assert_refused(&format!("a ring of {length} bytes"), &place, &place.bus(), length >= 4096);
    }
    for length in (0..whole.1.len()).step_by(512) {
        let place = Place::new("short");
        lay_out(&place.bus(), &(whole.0.clone(), whole.1[..length].to_vec()));
        let table = beside(&place.bus(), ".readers");
        assert_refused(&format!("a table of {length} bytes"), &place, &table, length >= 4096);
    }
    // Too long is as wrong.
    let place = Place::new("long");
    lay_out(&place.bus(), &([&whole.0[..], &[0; 4096]].concat(), whole.1));
    assert_refused("a ring too long", &place, &place.bus(), true);
}

/// A file with a header is corrupt (its length contradicts it), one without is not a bus. Both name the file.
fn assert_refused(what: &str, place: &Place, file: &Path, has_header: bool) {
    let ring = place.bus();
    let before = files_in(place.directory());
    let calls = [
        ("inspect", Bus::inspect(&ring).err()),
        ("Bus::open", Bus::open(&ring).err()),
        ("Reader::open", Reader::open(&ring).err()),
        ("Writer::open", Writer::open(&ring).err()),
        ("Observer::open", Observer::open(&ring, Start::Oldest).err()),
    ];
    for (call, error) in calls {
        let Some(error) = error else {
            // An observer does without the table.
            assert!(call == "Observer::open" && file != ring, "{what}: {call} works");
            continue;
        };
        let right = match &error {
            Error::NotABus { path, .. } => !has_header && path == file,
            Error::Corrupt { path, .. } => has_header && path == file,
            _ => false,
        };
        assert!(right, "{what}, {call}: {error:?}");
    }
    let mut after = files_in(place.directory());
    after.retain(|(path, _)| *path != beside(&ring, ".lock"));
    assert_eq!(after, before, "{what}: something was changed");
}

#[test]
fn another_version_byte_order_or_layout_is_named_with_both_values() {
    let whole = sample(false);
    let fields = [
        (1, "byte order", vec![BYTE_ORDER.swap_bytes(), 0, BYTE_ORDER + 1]),
        (2, "version", vec![VERSION - 1, VERSION + 1, u64::MAX, VERSION.swap_bytes()]),
        (3, "hash", vec![HASH ^ 1, 0, HASH.swap_bytes()]),
    ];
    for of_table in [false, true] {
        for (index, name, values) in &fields {
            for &value in values {
                let place = Place::new("version");
                let mut files = whole.clone();
                let (bytes, file) = if of_table {
                    (&mut files.1, beside(&place.bus(), ".readers"))
                } else {
                    (&mut files.0, place.bus())
                };
                let needed = word(bytes, *index);
                set_word(bytes, *index, value);
                lay_out(&place.bus(), &files);
                for (call, error) in errors_at(&place.bus()) {
                    if ["create", "replace", "remove"].contains(&call) {
                        // There is a bus, and one may be rid of it.
                        assert!(call == "create" && matches!(error, Error::AlreadyExists { .. }), "{call}: {error:?}");
                        continue;
                    }
                    let Error::Incompatible { path, field, expected, found } = &error else {
                        panic!("{call}: {error:?}")
                    };
                    assert_eq!((path, *expected, *found), (&file, needed, value), "{call}");
                    assert!(field.contains(name), "{call}: {error}");
                    let text = error.to_string();
                    assert!(text.contains(&format!("{value:#x}")) && text.contains(&format!("{needed:#x}")), "{text}");
                }
                assert!(!place.bus().exists(), "the last call removed it");
            }
        }
        for magic in [RING_MAGIC, TABLE_MAGIC, RING_MAGIC.swap_bytes()] {
            if magic == if of_table { TABLE_MAGIC } else { RING_MAGIC } {
                continue;
            }
            let place = Place::new("magic");
            let mut files = whole.clone();
            set_word(if of_table { &mut files.1 } else { &mut files.0 }, 0, magic);
            lay_out(&place.bus(), &files);
            for result in [Reader::open(place.bus()).map(drop), Writer::open(place.bus()).map(drop)] {
                assert!(matches!(result, Err(Error::NotABus { .. })), "{result:?}");
            }
        }
    }
}

// ---- scribbled words ----------------------------------------------------------------------------------------------

const RING: u64 = 0;
const TABLE: u64 = 1;
/// Words that the header of either file uses; the rest of it is reserved.
const HEADER_WORDS: usize = 96;
/// The index of the sample, and the first records of its ring.
const INDEX: std::ops::Range<usize> = 512..544;
const RECORDS: std::ops::Range<usize> = 1024..1064;
/// Ring and table are matched by it; a mismatch is waited out, so it is tried less often.
const BUS_ID: usize = 4;

/// Does everything that can be done with what is there; nothing of it may panic or last.
struct Everything {
    writer: Option<Writer>,
    readers: Vec<Reader>,
    observer: Option<Observer>,
}

impl Everything {
    fn open(path: &Path, brief: bool) -> Self {
        let _ = Bus::inspect(path);
        let mut readers = Vec::new();
        for (class, start, name) in [
            (Class::Gating, Start::Resume, Some("kept")),
            (Class::Lossy, Start::Oldest, None),
            (Class::Pinned, Start::After(110), None),
            (Class::Gating, Start::Since(SystemTime::now()), Some("one too many")),
        ] {
            let mut options = Reader::options().class(class).start(start);
            if let Some(name) = name {
                options = options.name(name);
            }
            readers.extend(options.open(path).ok());
            if brief {
                break;
            }
        }
        Self { writer: Writer::open(path).ok(), readers, observer: Observer::open(path, Start::Oldest).ok() }
    }

    fn read(&mut self) {
        for reader in &mut self.readers {
            for _ in 0..200 {
                if !matches!(reader.try_next(), Ok(Next::Record(_) | Next::Gap(_))) {
                    break;
                }
            }
            let _ = (reader.info(), reader.writer_alive(), reader.next_sequence(), reader.epoch());
            let _ = reader.drain(200, |record| assert!(record.len() <= 4096));
            let _ = reader.next_timeout(Duration::ZERO);
            reader.commit();
        }
        if let Some(observer) = &mut self.observer {
            let mut stamps = 0;
            let _ = observer.drain(200, |record| stamps += u64::from(record.stamp().is_some()));
            let _ = observer.next_timeout(Duration::ZERO);
            let _ = observer.seek(Start::Oldest);
            let _ = observer.drain(200, |_| {});
        }
    }

    fn write(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        for policy in [Policy::Refuse, Policy::Wait(Some(Duration::ZERO)), Policy::Evict] {
            writer.set_policy(policy);
            for length in (0..1000).step_by(90) {
                let _ = writer.publish(&vec![1; length]);
                let _ = writer.claim(0, length).map(|claim| claim.commit_len(length / 2));
            }
            let mut batch = writer.batch();
            for length in 0..20 {
                let _ = batch.push(&vec![2; length]);
            }
            let _ = batch.commit();
        }
        let rows = writer.readers().unwrap_or_default();
        for row in rows {
            let _ = (row.to_string(), writer.evict(row.id));
        }
        let _ = (writer.reap(), writer.events(), writer.stats());
        let _ = writer.wait_for_readers(Some(Duration::ZERO));
    }

    fn finish(mut self, path: &Path, brief: bool) {
        self.read();
        self.write();
        self.read();
        for reader in &mut self.readers {
            let _ = reader.rejoin(Start::Oldest);
        }
        self.write();
        self.read();
        if let Some(writer) = self.writer.take() {
            let _ = writer.close_with(3, "the end");
        }
        self.read();
        drop(self);
        if brief {
            return;
        }
        if let Ok(bus) = Bus::open(path) {
            let _ = bus.snapshot().map(|seen| seen.readers.unwrap_or_default().iter().map(ToString::to_string).count());
            let _ = (bus.evict(ReaderId(1)), bus.reap(), bus.forget("kept"), bus.forget("one too many"));
        }
        let _ = Bus::inspect(path);
    }
}

/// In a child, so that a crash or a hang is seen and attributed: says each word before it is scribbled on.
pub(crate) fn scribbled(stage: &mut Stage) {
    let path = stage.bus();
    let (file, live) = (stage.number(1), stage.number(2) != 0);
    let sample = sample(false);
    let words: Vec<usize> = if file == RING {
        (0..HEADER_WORDS).chain(INDEX).chain(RECORDS).collect()
    } else {
        // And the slots: one that is kept for a name, and one that is free.
        (0..HEADER_WORDS).chain(512..512 + 2 * SLOT as usize / 8).collect()
    };
    let mut random = Random::from(file);
    for word in words {
        let values = [0, 1, u64::MAX, random.next(), random.next() % 8192];
        let brief = word == BUS_ID;
        for &value in if brief { &values[..1] } else { &values[..] } {
            stage.say(format_args!("{} word {word} = {value:#x}", if file == RING { "ring" } else { "table" }));
            lay_out(&path, &sample);
            let opened = live.then(|| Everything::open(&path, brief));
            let target = if file == RING { path.clone() } else { beside(&path, ".readers") };
            let target = OpenOptions::new().write(true).open(target).unwrap();
            target.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
            let everything = opened.unwrap_or_else(|| Everything::open(&path, brief));
            everything.finish(&path, brief);
            for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
    }
    stage.say("done");
}

/// Runs the child to its end. A panic, a crash or a hang fails with the word that caused it.
fn assert_survives(file: u64, live: u64) {
    let place = Place::new("scribbled");
    let mut child = Child::start("scribbled", &place.bus(), &[&file, &live]);
    let mut last = String::from("nothing");
    loop {
        match child.hear() {
            Some(line) if line == "done" => break,
            Some(line) => last = line,
            None => panic!("the process that met this ended (live: {live}): {last}"),
        }
    }
    child.finish();
}

#[test]
fn any_word_of_the_ring_may_be_anything_when_it_is_attached_to() {
    assert_survives(RING, 0);
}

#[test]
fn any_word_of_the_ring_may_become_anything_under_those_attached() {
    assert_survives(RING, 1);
}

#[test]
fn any_word_of_the_table_may_be_anything_when_it_is_attached_to() {
    assert_survives(TABLE, 0);
}

#[test]
fn any_word_of_the_table_may_become_anything_under_those_attached() {
    assert_survives(TABLE, 1);
}
