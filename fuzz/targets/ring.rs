//! Arbitrary bytes as the ring's file; the corpus begins with a whole one.
#![no_main]

use lapwing_fuzz::{HISTORY, survive};

libfuzzer_sys::fuzz_target!(
    init: {
        // Before the corpus is read.
        std::fs::write("fuzz/corpus/ring/whole", &HISTORY.0).expect("the corpus can be written to");
    },
    |bytes: &[u8]| survive(bytes, &HISTORY.1)
);
