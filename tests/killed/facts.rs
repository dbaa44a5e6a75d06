//! What the application knows at a moment: a page of words that the child keeps and the test reads, apart from the bus.

use crate::raw::Shared;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::Ordering;

/// The words, by what they say.
#[derive(Clone, Copy)]
pub(crate) enum Fact {
    /// Records that a call has returned as published.
    Published,
    /// Records that may have been published, counting the call under way.
    Attempted,
    /// Whether the call under way publishes all of its records or none.
    Whole,
    /// The reader "hold": the next sequence after what it has committed for sure.
    Committed,
    /// The same: the next sequence after all that it was given, records or told gaps.
    Given,
    /// The gap it was told, if any.
    GapFirst,
    GapEnd,
    /// Whether "hold" is known: 0 no, 1 perhaps, 2 yes.
    Hold,
    /// Class of "hold": 1 gating, 2 lossy, 3 pinned.
    Class,
    /// Whether there may be no bus, or an unfinished one.
    Missing,
    /// Start of the books of "hold" if it is certain, else `u64::MAX`.
    Start,
    /// How many there are.
    Count,
}

/// A copy of all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Facts(pub(crate) [u64; Fact::Count as usize]);

impl Facts {
    pub(crate) fn get(&self, fact: Fact) -> u64 {
        self.0[fact as usize]
    }
}

/// The page itself.
pub(crate) struct Page(Shared);

impl Page {
    /// Beside the bus, but none of its files.
    pub(crate) fn open(bus: &Path) -> Self {
        let path = bus.with_file_name("facts");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(4096).unwrap();
        Self(Shared::of(&file))
    }

    pub(crate) fn set(&self, fact: Fact, value: u64) {
        self.set_raw(fact as usize, value);
    }

    /// Sets the word of a number, for copying.
    pub(crate) fn set_raw(&self, index: usize, value: u64) {
        self.0.word(index).store(value, Ordering::SeqCst);
    }

    pub(crate) fn read(&self) -> Facts {
        Facts(std::array::from_fn(|index| self.0.word(index).load(Ordering::SeqCst)))
    }
}

/// The payload of a sequence at a length.
pub(crate) fn payload(sequence: u64, length: usize) -> Vec<u8> {
    let mut random = crate::common::Random::from(sequence << 16 ^ length as u64);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}
