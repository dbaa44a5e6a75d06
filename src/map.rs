//! The mapping: a file seen as atomic words, and the one primitive that copies payloads through them.
//!
//! This is the only unsafe module of the data path. Payload bytes are moved word by word with `Relaxed`, so a copy that
//! races a writer yields stale bytes, to be discarded by validation, and never undefined behaviour.

use crate::sync::{AtomicU64, Ordering};
use std::ops::Deref;

#[cfg(not(loom))]
pub(crate) use real::Map;

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::error::{Error, Result};
    use memmap2::{Advice, MmapOptions, MmapRaw};
    use std::fs::File;
    use std::path::Path;

    /// A whole file, mapped shared.
    pub(crate) struct Map {
        words: &'static [AtomicU64],
        raw: MmapRaw,
    }

    impl Map {
        /// Maps the first `length` bytes (a multiple of 8, checked against the file's size by the caller).
        pub(crate) fn new(file: &File, path: &Path, length: u64, writable: bool) -> Result<Self> {
            let mut options = MmapOptions::new();
            options.len(length as usize);
            let raw = if writable { options.map_raw(file) } else { options.map_raw_read_only(file) }
                .map_err(|source| Error::io("map", path, source))?;
            // SAFETY: the mapping is page-aligned, `length` bytes long and lives as long as `raw`, which this struct owns and
            // drops after the last borrow of `words` (handed out only under a borrow of `self`). Every access to it in
            // this process and in others is a whole atomic word. A read-only map only ever sees loads.
            let words = unsafe { std::slice::from_raw_parts(raw.as_ptr().cast::<AtomicU64>(), length as usize / 8) };
            Ok(Self { words, raw })
        }

        /// Faults every page in now rather than on first use.
        pub(crate) fn prefault(&self, path: &Path, writable: bool) -> Result<()> {
            let advice = if writable { Advice::PopulateWrite } else { Advice::PopulateRead };
            self.raw.advise(advice).map_err(|source| Error::io("prefault", path, source))
        }

        /// Keeps every page in memory.
        pub(crate) fn lock(&self, path: &Path) -> Result<()> {
            self.raw.lock().map_err(|source| Error::io("lock the memory of", path, source))
        }
    }

    impl Deref for Map {
        type Target = [AtomicU64];
        #[inline(always)]
        fn deref(&self) -> &[AtomicU64] {
            self.words
        }
    }
}

/// Words on the heap, in the place of a mapping, for the models.
#[cfg(loom)]
pub(crate) struct Map(std::sync::Arc<[AtomicU64]>);

#[cfg(loom)]
impl Map {
    pub(crate) fn heap(words: usize) -> Self {
        Self((0..words).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn share(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(loom)]
impl Deref for Map {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}

/// Stores `bytes` into the words from `at` on; the rest of the last word becomes zero.
#[inline(always)]
pub(crate) fn store_bytes(words: &[AtomicU64], at: usize, bytes: &[u8]) {
    let words = &words[at..at + bytes.len().div_ceil(8)];
    let chunks = bytes.chunks_exact(8);
    let tail = chunks.remainder();
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_ne_bytes(chunk.try_into().expect("a chunk of eight")), Ordering::Relaxed);
    }
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        words[words.len() - 1].store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Loads `bytes.len()` bytes from the words from `at` on.
#[inline(always)]
pub(crate) fn load_bytes(words: &[AtomicU64], at: usize, bytes: &mut [u8]) {
    let words = &words[at..at + bytes.len().div_ceil(8)];
    let mut chunks = bytes.chunks_exact_mut(8);
    for (word, chunk) in words.iter().zip(&mut chunks) {
        chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
    }
    let tail = chunks.into_remainder();
    if !tail.is_empty() {
        let last = words[words.len() - 1].load(Ordering::Relaxed).to_ne_bytes();
        tail.copy_from_slice(&last[..tail.len()]);
    }
}

/// Stores pieces of any length one after the other, as if they were one slice.
pub(crate) struct Filler<'a> {
    words: &'a [AtomicU64],
    /// Bytes stored or pending so far.
    filled: usize,
    /// The bytes of the word that is not complete yet.
    pending: [u8; 8],
}

impl<'a> Filler<'a> {
    /// Starts at word `at`; room for `length` bytes is checked here, once.
    pub(crate) fn new(words: &'a [AtomicU64], at: usize, length: usize) -> Self {
        Self { words: &words[at..at + length.div_ceil(8)], filled: 0, pending: [0; 8] }
    }

    /// Appends; the caller keeps the sum within the length given to [`Self::new`].
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        let held = self.filled % 8;
        if held != 0 {
            let take = bytes.len().min(8 - held);
            self.pending[held..held + take].copy_from_slice(&bytes[..take]);
            self.filled += take;
            bytes = &bytes[take..];
            if !self.filled.is_multiple_of(8) {
                self.flush();
                return;
            }
            self.words[self.filled / 8 - 1].store(u64::from_ne_bytes(self.pending), Ordering::Relaxed);
        }
        let whole = bytes.len() / 8 * 8;
        store_bytes(self.words, self.filled / 8, &bytes[..whole]);
        self.pending = [0; 8];
        self.pending[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
        self.filled += bytes.len();
        self.flush();
    }

    /// Stores the incomplete word, so that every byte pushed so far is in place.
    fn flush(&self) {
        if !self.filled.is_multiple_of(8) {
            self.words[self.filled / 8].store(u64::from_ne_bytes(self.pending), Ordering::Relaxed);
        }
    }
}

/// Borrows `length` bytes from word `at` on, for a pinned reader.
///
/// Called by [`crate::stream`] alone, and only for a pinned reader's record that it has validated and not yet committed.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn pinned_bytes(words: &[AtomicU64], at: usize, length: usize) -> &[u8] {
    let words = &words[at..at + length.div_ceil(8)];
    // SAFETY: the range was just checked, and initialised memory of any alignment is valid as bytes. Nobody writes to it
    // while the slice lives (invariant 3): the caller's slot gates at or below this record until the reader's next call,
    // which ends the borrow, and a pinned reader cannot be evicted while its process lives.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) }
}

/// Borrows `length` bytes from word `at` on, for the writer to fill in place.
///
/// Called by [`crate::claim`] alone, with a stretch that it has reserved and not yet committed.
#[cfg(not(loom))]
#[inline(always)]
#[allow(clippy::mut_from_ref)]
pub(crate) fn claimed_bytes(words: &[AtomicU64], at: usize, length: usize) -> &mut [u8] {
    let words = &words[at..at + length.div_ceil(8)];
    // SAFETY: the range was just checked, lies inside `UnsafeCell`s of a writable map, and is borrowed once: the claim borrows the
    // one writer exclusively. It lies between head and limit, where no reader takes anything: whoever still looks there was lapped,
    // loads whole words, and discards what it got (invariant 2).
    unsafe { std::slice::from_raw_parts_mut(words.as_ptr().cast_mut().cast::<u8>(), length) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn words(n: usize) -> Vec<AtomicU64> {
        (0..n).map(|_| AtomicU64::new(u64::MAX)).collect()
    }

    #[test]
    fn bytes_come_back_at_every_length() {
        for length in 0..40 {
            let space = words(8);
            let bytes: Vec<u8> = (1..=length as u8).collect();
            store_bytes(&space, 1, &bytes);
            let mut back = vec![0; length];
            load_bytes(&space, 1, &mut back);
            assert_eq!(back, bytes);
            assert_eq!(space[0].load(Ordering::Relaxed), u64::MAX);
            assert_eq!(space[1 + length.div_ceil(8)].load(Ordering::Relaxed), u64::MAX);
        }
    }

    #[test]
    fn pieces_equal_the_whole() {
        let whole: Vec<u8> = (0..61).collect();
        for a in 0..20 {
            for b in a..40 {
                let space = words(8);
                let mut filler = Filler::new(&space, 0, whole.len());
                for piece in [&whole[..a], &whole[a..b], &[], &whole[b..]] {
                    filler.push(piece);
                }
                assert_eq!(filler.filled, whole.len());
                let mut back = vec![0; whole.len()];
                load_bytes(&space, 0, &mut back);
                assert_eq!(back, whole, "cut at {a} and {b}");
            }
        }
    }
}
