//! The layout's golden file: what a certain history leaves in the two files, word by word, the same on every machine.
//!
//! `LAPWING_BLESS=1 cargo test --test golden` writes it anew, after a change of the layout that is meant.

mod common;

use common::Place;
use lapwing::layout::HEADER;
use lapwing::*;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const CAPACITY: u64 = 4096;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bus.txt")
}

fn table_of(bus: &Path) -> PathBuf {
    format!("{}.readers", bus.display()).into()
}

/// Words whose value is another each time, by the layout's documentation: they are there, and that is all.
const RING_VARIES: [usize; 5] = [
    4,  // bus id
    13, // time of creation
    16, // the writer's pid
    17, // its start time
    71, // latest time
];
/// Says whether the writer has to fence, which is the kernel's matter.
const FENCES: usize = 18;
const TABLE_VARIES: [usize; 1] = [4];
/// Of a slot: pid, start time, joined at, detached at.
const SLOT_VARIES: [usize; 4] = [3, 4, 6, 8];

/// What happens: tags, lengths of every kind, a wrap, an eviction, a gap, a name that stays, a close with a reason.
fn history(bus: &Path) {
    let mut writer = Options::new().capacity(CAPACITY).readers(2).schema(0x5eed).create(bus).unwrap();
    let mut named = Reader::options().name("golden").hold_while_away(true).auto_commit(false).open(bus).unwrap();
    let gating = Reader::open(bus).unwrap();
    writer.set_policy(Policy::Evict);
    for n in 0..40u64 {
        let payload: Vec<u8> = (0..n * 7 % 300).map(|byte| (byte + n) as u8).collect();
        writer.publish_tagged(n as u32 * 3, &payload).unwrap();
    }
    drop(gating);
    let gap = named.rejoin(Start::After(35)).unwrap();
    assert_eq!(gap, Gap { first: 0, end: 36 });
    assert!(matches!(named.try_next().unwrap(), Next::Record(record) if record.sequence() == 36));
    named.commit();
    writer.close_with(7, "as it was").unwrap();
    drop(named);
}

fn words(file: &Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect()
}

/// Every word that is not zero; of those that vary only that they are not.
fn dump(bus: &Path) -> String {
    let header = HEADER as usize / 8;
    let ring_at = words(bus).len() - CAPACITY as usize / 8;
    let mut text = String::new();
    for (file, words) in [("ring", words(bus)), ("table", words(&table_of(bus)))] {
        for (index, &word) in words.iter().enumerate().filter(|(_, word)| **word != 0) {
            if file == "ring" && index == FENCES {
                continue;
            }
            let varies = match file {
                // The times in the index.
                "ring" => RING_VARIES.contains(&index) || (header..ring_at).contains(&index) && index % 4 == 3,
                _ => TABLE_VARIES.contains(&index) || index >= header && SLOT_VARIES.contains(&((index - header) % 64)),
            };
            let value = if varies { "varies".into() } else { format!("{word:016x}") };
            writeln!(text, "{file} {index} {value}").unwrap();
        }
    }
    text
}

#[test]
fn a_history_leaves_the_golden_words() {
    let place = Place::new("golden");
    history(&place.bus());
    let found = dump(&place.bus());
    if std::env::var_os("LAPWING_BLESS").is_some() {
        std::fs::create_dir_all(golden().parent().unwrap()).unwrap();
        std::fs::write(golden(), &found).unwrap();
    }
    let wanted = std::fs::read_to_string(golden()).unwrap();
    for (found, wanted) in found.lines().zip(wanted.lines()) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.lines().count(), wanted.lines().count());
}

#[test]
fn the_golden_words_are_a_bus() {
    let place = Place::new("golden");
    let bus = place.bus();
    // Lengths as the golden headers give them.
    let wanted = std::fs::read_to_string(golden()).unwrap();
    let mut files = [Vec::new(), Vec::new()];
    for line in wanted.lines() {
        let [file, index, value] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let words = &mut files[usize::from(file == "table")];
        let index: usize = index.parse().unwrap();
        words.resize(words.len().max(index + 1), 0u64);
        words[index] = if value == "varies" { 1 } else { u64::from_str_radix(value, 16).unwrap() };
    }
    for (words, (path, length)) in files.iter_mut().zip([(bus.clone(), 11), (table_of(&bus), 6)]) {
        let bytes = words[length];
        words.resize(bytes as usize / 8, 0);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(path, bytes).unwrap();
    }
    let seen = Bus::inspect(&bus).unwrap();
    assert_eq!((seen.capacity, seen.slots, seen.schema, seen.sequence), (CAPACITY, 2, 0x5eed, 40));
    let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
    let mut next = seen.oldest;
    loop {
        match observer.try_next().unwrap() {
            Next::Gap(gap) => assert_eq!(gap, Gap { first: 0, end: next }),
            Next::Record(record) => {
                let payload: Vec<u8> = (0..next * 7 % 300).map(|byte| (byte + next) as u8).collect();
                assert_eq!((record.sequence(), record.tag(), record.payload()), (next, next as u32 * 3, &payload[..]));
                next += 1;
            }
            Next::Closed(closed) => {
                assert_eq!((closed.sequence, closed.code, closed.reason.as_str()), (40, 7, "as it was"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(next, 40);
    // The next writer goes on, and the name is known.
    let mut writer = Writer::open(&bus).unwrap();
    assert_eq!((writer.resumed_at(), writer.epoch()), (40, 2));
    let reader = Reader::options().name("golden").hold_while_away(true).start(Start::Resume).open(&bus).unwrap();
    assert_eq!(reader.next_sequence(), 37);
    assert_eq!(writer.publish(b"on").unwrap(), 40);
}
