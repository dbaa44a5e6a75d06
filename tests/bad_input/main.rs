//! Bad input: whatever lies at a path, whatever the files say, every call ends in a clear error or works; nothing is damaged.

#[path = "../common/mod.rs"]
mod common;
mod contents;
mod fields;
mod leftovers;
mod limits;
mod options;
mod paths;

use common::{Place, roles};
use contents::scribbled;
use lapwing::*;
use paths::stranger;
use std::path::{Path, PathBuf};

roles! { scribbled, stranger }

/// A file that lies beside the ring.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What the ways to attach and to create say of a path, as (call, error); calls that succeeded are left out.
fn errors_at(path: &Path) -> Vec<(&'static str, Error)> {
    let calls: [(&str, Option<Error>); 10] = [
        ("inspect", Bus::inspect(path).err()),
        ("Bus::open", Bus::open(path).err()),
        ("Reader::open", Reader::open(path).err()),
        ("resume", Reader::options().name("who").start(Start::Resume).open(path).err()),
        ("Observer::open", Observer::open(path, Start::Oldest).err()),
        ("Writer::open", Writer::open(path).err()),
        ("standby", Writer::standby(path).err()),
        ("create", Options::new().capacity(4096).create(path).err()),
        ("replace", Options::new().capacity(4096).replace(path).err()),
        ("remove", Bus::remove(path).err()),
    ];
    calls.into_iter().filter_map(|(call, error)| Some((call, error?))).collect()
}

/// The files of a directory, with what is in them; none for what is no regular file.
fn files_in(directory: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let regular = path.symlink_metadata().unwrap().is_file();
            let bytes = regular.then(|| std::fs::read(&path).unwrap());
            (path, bytes)
        })
        .collect();
    files.sort();
    files
}

/// A small bus with a few records and a reader that is away, as its two files.
fn sample(stamped: bool) -> (Vec<u8>, Vec<u8>) {
    let place = Place::new("sample");
    let path = place.bus();
    let mut writer = Options::new().capacity(4096).readers(3).stamped(stamped).create(&path).unwrap();
    let mut reader = Reader::options().name("kept").hold_while_away(true).open(&path).unwrap();
    for n in 0..120u64 {
        writer.try_publish_tagged(n as u32, &vec![n as u8; (n * 13 % 200) as usize]).unwrap();
        if n < 100 {
            assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.sequence() == n));
        }
    }
    drop((reader, writer));
    (std::fs::read(&path).unwrap(), std::fs::read(beside(&path, ".readers")).unwrap())
}

/// Puts the two files of a bus in place.
fn lay_out(path: &Path, (ring, table): &(Vec<u8>, Vec<u8>)) {
    std::fs::write(path, ring).unwrap();
    std::fs::write(beside(path, ".readers"), table).unwrap();
}

fn set_word(bytes: &mut [u8], word: usize, value: u64) {
    bytes[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
}

fn word(bytes: &[u8], word: usize) -> u64 {
    u64::from_ne_bytes(bytes[word * 8..][..8].try_into().unwrap())
}
