//! Words of the table, any of them, as anything.
#![no_main]

use lapwing_fuzz::{HISTORY, change, survive};

libfuzzer_sys::fuzz_target!(|changes: &[u8]| {
    let (ring, mut table) = HISTORY.clone();
    change(&mut table, 0, changes);
    survive(&ring, &table);
});
