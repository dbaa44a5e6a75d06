//! Words of the records: headers, most of all. Behind a sound header, unlike `ring`.
#![no_main]

use lapwing_fuzz::{CAPACITY, HISTORY, change, survive};

libfuzzer_sys::fuzz_target!(|changes: &[u8]| {
    let (mut ring, table) = HISTORY.clone();
    let start = ring.len() - CAPACITY as usize;
    change(&mut ring, start, changes);
    survive(&ring, &table);
});
