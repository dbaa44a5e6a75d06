//! What the fuzz targets share: a bus with some history whose files are spoiled, and everything a program can do with it.

#[path = "../tests/hostile/exercise.rs"]
mod exercise;

use exercise::{exercise, history, table_of};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Bytes of the ring, at the end of its file.
pub const CAPACITY: u64 = exercise::CAPACITY;

/// Word of both files that ties them together.
const BUS_ID: usize = 4;

/// Where the bus lies: in a directory that `.ci/fuzz` makes and removes.
static BUS: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = std::env::var_os("LAPWING_FUZZ").expect("LAPWING_FUZZ names a directory; see .ci/fuzz");
    PathBuf::from(directory).join("bus")
});

/// The files as they were before anything was done to them: ring and table.
pub static HISTORY: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| history(&BUS));

/// Does everything with a bus of these files. The table gets the ring's bus id: two that do not match are waited for, and nothing else.
pub fn survive(ring: &[u8], table: &[u8]) {
    let mut table = table.to_vec();
    if let (Some(own), Some(id)) = (table.get_mut(BUS_ID * 8..(BUS_ID + 1) * 8), ring.get(BUS_ID * 8..(BUS_ID + 1) * 8))
    {
        own.copy_from_slice(id);
    }
    std::fs::write(&*BUS, ring).expect("there is room");
    std::fs::write(table_of(&BUS), table).expect("there is room");
    exercise(&BUS);
}

/// Changes words as the fuzzer says: two bytes to tell which, of those from `start` on, eight for the value.
pub fn change(bytes: &mut [u8], start: usize, changes: &[u8]) {
    let words = (bytes.len() - start) / 8;
    for change in changes.chunks_exact(10) {
        let (which, value) = change.split_at(2);
        let word = usize::from(u16::from_le_bytes([which[0], which[1]])) % words;
        bytes[start + word * 8..][..8].copy_from_slice(value);
    }
}
