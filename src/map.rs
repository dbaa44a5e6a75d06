//! The mapping: a file seen as atomic words, and the one primitive that copies payloads through them.
//!
//! This is the only unsafe module of the data path. Payload bytes are moved word by word with `Relaxed`, so a copy that
//! races a writer yields stale bytes, to be discarded by validation, and never undefined behaviour.

use crate::layout::HEADER;
use crate::sync::{AtomicU64, Ordering};
use std::ops::Deref;

/// Words of either file's header.
pub(crate) const HEADER_WORDS: usize = HEADER as usize / 8;

#[cfg(loom)]
pub(crate) use heap::{Map, Window};
#[cfg(not(loom))]
pub(crate) use real::{Held, Map, Window};

#[cfg(not(loom))]
mod real {
    use super::*;
    use crate::error::{Error, Result};
    use crate::guard::{self, Region};
    use memmap2::{Advice, MmapOptions, MmapRaw};
    use std::fs::File;
    use std::ops::Range;
    use std::path::Path;
    use std::sync::Arc;

    /// What is unmapped once nobody holds on to its words any more.
    struct Mapping {
        /// What the guard knows of it. Dropped first: it is forgotten before it is unmapped.
        region: Region,
        raw: MmapRaw,
    }

    /// A whole file, mapped shared. A clone is the same mapping, which ends with the last.
    #[derive(Clone)]
    pub(crate) struct Map {
        words: &'static [AtomicU64],
        header: &'static [AtomicU64; HEADER_WORDS],
        /// The words that positions run through, again and again: a power of two of them.
        lap: &'static [AtomicU64],
        /// Their number less one.
        mask: usize,
        mapping: Arc<Mapping>,
    }

    impl Map {
        /// Maps the first `length` bytes (whole pages, checked against the file's size by the caller).
        ///
        /// `lap` are the bytes that [`Self::at`] runs through. `limit` is the word that, at its largest, keeps everything from counting
        /// as intact, for the guard.
        pub(crate) fn new(
            file: &File,
            path: &Path,
            length: u64,
            lap: Range<u64>,
            writable: bool,
            limit: Option<usize>,
        ) -> Result<Self> {
            let mut options = MmapOptions::new();
            options.len(length as usize);
            let raw = if writable { options.map_raw(file) } else { options.map_raw_read_only(file) }
                .map_err(|source| Error::io("map", path, source))?;
            // SAFETY: the mapping is page-aligned, `length` bytes long and lives as long as `raw`, of which this struct, its clones
            // and whatever holds on to its words own a share until the last borrow of `words` (handed out only under a borrow of them) has ended. Every access to it in
            // this process and in others is a whole atomic word. A read-only map only ever sees loads.
            let words = unsafe { std::slice::from_raw_parts(raw.as_ptr().cast::<AtomicU64>(), length as usize / 8) };
            let header = words.first_chunk().expect("every file begins with a header");
            let lap = &words[lap.start as usize / 8..lap.end as usize / 8];
            assert!(lap.len().is_power_of_two(), "a lap is a power of two");
            let region = guard::register(words, writable, limit);
            Ok(Self { words, header, lap, mask: lap.len() - 1, mapping: Arc::new(Mapping { region, raw }) })
        }

        /// Says whether the file shrank under the mapping, so that its words are no longer the file's.
        pub(crate) fn is_lost(&self) -> bool {
            self.mapping.region.is_lost()
        }

        /// Holds on to `N` words from `at` on, so that they can be used without looking them up again.
        pub(crate) fn hold<const N: usize>(&self, at: usize) -> Held<N> {
            let words = self.words[at..].first_chunk().expect("the words are in the map");
            Held { words, _mapping: Arc::clone(&self.mapping) }
        }

        /// A window with nothing in it.
        pub(crate) fn no_window(&self) -> Window {
            Window { words: &[], _mapping: Arc::clone(&self.mapping) }
        }

        /// Moves a window of this map to the words from one position to another, or to the end of the lap if that comes first.
        #[inline(always)]
        pub(crate) fn open(&self, window: &mut Window, from: u64, to: u64) {
            debug_assert!(Arc::ptr_eq(&self.mapping, &window._mapping));
            let lap = &self.lap[(from >> 3) as usize & self.mask..];
            window.words = &lap[..lap.len().min((to.saturating_sub(from) >> 3) as usize)];
        }

        /// The file's header.
        #[inline(always)]
        pub(crate) fn header(&self) -> &[AtomicU64; HEADER_WORDS] {
            self.header
        }

        /// The word at a position of the endless stream.
        #[inline(always)]
        pub(crate) fn at(&self, position: u64) -> &AtomicU64 {
            // SAFETY: `mask` is the length of `lap` less one, a power of two less one, so what it leaves is below the length.
            unsafe { self.lap.get_unchecked((position >> 3) as usize & self.mask) }
        }

        /// The words of `length` bytes from a position on; `None` if they reach beyond the end of a lap.
        #[inline(always)]
        pub(crate) fn span(&self, position: u64, length: u64) -> Option<&[AtomicU64]> {
            let start = (position >> 3) as usize & self.mask;
            self.lap.get(start..start + (length as usize).div_ceil(8))
        }

        /// Faults every page in now rather than on first use.
        pub(crate) fn prefault(&self, path: &Path, writable: bool) -> Result<()> {
            let advice = if writable { Advice::PopulateWrite } else { Advice::PopulateRead };
            self.mapping.raw.advise(advice).map_err(|source| Error::io("prefault", path, source))
        }

        /// Keeps every page in memory.
        pub(crate) fn lock(&self, path: &Path) -> Result<()> {
            self.mapping.raw.lock().map_err(|source| Error::io("lock the memory of", path, source))
        }
    }

    impl Deref for Map {
        type Target = [AtomicU64];
        #[inline(always)]
        fn deref(&self) -> &[AtomicU64] {
            self.words
        }
    }

    /// A stretch of a lap that somebody works through from its start; what it does not hold is somebody else's case.
    ///
    /// So one comparison, of a length with what is left, is both the bounds check and the question whether anything special is to be done.
    pub(crate) struct Window {
        words: &'static [AtomicU64],
        _mapping: Arc<Mapping>,
    }

    impl Window {
        /// Leaves the first `count` words behind; a window that holds fewer was shut and stays as it is.
        #[inline(always)]
        pub(crate) fn skip(&mut self, count: usize) {
            if let Some(rest) = self.words.get(count..) {
                self.words = rest;
            }
        }

        /// Leaves the first `count` words behind and returns them with the `beyond` ones after them; `None` if it does not hold so many.
        ///
        /// What is stored to those words comes after the move, so that the compiler need not load the window again for fear that they overlap.
        #[inline(always)]
        pub(crate) fn take(&mut self, count: usize, beyond: usize) -> Option<&[AtomicU64]> {
            let words = self.words;
            let taken = words.get(..count + beyond)?;
            self.words = &words[count..];
            Some(taken)
        }

        /// Leaves everything behind.
        #[inline(always)]
        pub(crate) fn shut(&mut self) {
            self.words = &[];
        }
    }

    impl Deref for Window {
        type Target = [AtomicU64];
        #[inline(always)]
        fn deref(&self) -> &[AtomicU64] {
            self.words
        }
    }

    /// Some words of a map, and the mapping, which lives as long.
    pub(crate) struct Held<const N: usize> {
        words: &'static [AtomicU64; N],
        _mapping: Arc<Mapping>,
    }

    impl<const N: usize> Deref for Held<N> {
        type Target = [AtomicU64; N];
        #[inline(always)]
        fn deref(&self) -> &[AtomicU64; N] {
            self.words
        }
    }
}

/// Words on the heap, in the place of a mapping, for the models.
#[cfg(loom)]
mod heap {
    use super::*;
    use std::ops::Range;
    use std::sync::Arc;

    #[derive(Clone)]
    pub(crate) struct Map {
        words: Arc<[AtomicU64]>,
        lap: Range<usize>,
    }

    impl Map {
        /// These words, of which positions run through `lap`.
        pub(crate) fn new(words: impl Iterator<Item = AtomicU64>, lap: Range<usize>) -> Self {
            assert!(lap.len().is_power_of_two());
            Self { words: words.collect(), lap }
        }

        pub(crate) fn header(&self) -> &[AtomicU64; HEADER_WORDS] {
            self.words.first_chunk().expect("every file begins with a header")
        }

        fn index(&self, position: u64) -> usize {
            self.lap.start + ((position >> 3) as usize & (self.lap.len() - 1))
        }

        pub(crate) fn at(&self, position: u64) -> &AtomicU64 {
            &self.words[self.index(position)]
        }

        pub(crate) fn span(&self, position: u64, length: u64) -> Option<&[AtomicU64]> {
            let start = self.index(position);
            self.words[..self.lap.end].get(start..start + (length as usize).div_ceil(8))
        }

        pub(crate) fn no_window(&self) -> Window {
            Window { words: self.words.clone(), range: 0..0 }
        }

        pub(crate) fn open(&self, window: &mut Window, from: u64, to: u64) {
            let start = self.index(from);
            window.range = start..self.lap.end.min(start + (to.saturating_sub(from) >> 3) as usize);
        }
    }

    impl Deref for Map {
        type Target = [AtomicU64];
        fn deref(&self) -> &[AtomicU64] {
            &self.words
        }
    }

    pub(crate) struct Window {
        words: Arc<[AtomicU64]>,
        range: Range<usize>,
    }

    impl Window {
        pub(crate) fn skip(&mut self, count: usize) {
            if count <= self.range.len() {
                self.range.start += count;
            }
        }

        pub(crate) fn take(&mut self, count: usize, beyond: usize) -> Option<&[AtomicU64]> {
            let start = self.range.start;
            if count + beyond > self.range.len() {
                return None;
            }
            self.range.start += count;
            Some(&self.words[start..start + count + beyond])
        }

        pub(crate) fn shut(&mut self) {
            self.range = 0..0;
        }
    }

    impl Deref for Window {
        type Target = [AtomicU64];
        fn deref(&self) -> &[AtomicU64] {
            &self.words[self.range.clone()]
        }
    }
}

/// Asks for the line so many bytes after a word, to write to it soon.
#[inline(always)]
pub(crate) fn prefetch_write(word: &AtomicU64, ahead: usize) {
    #[cfg(not(loom))]
    let line = word.as_ptr().wrapping_byte_add(ahead);
    #[cfg(all(not(loom), target_arch = "x86_64"))]
    // SAFETY: a prefetch touches no memory as far as the program can tell, and any address will do. (By hand: the
    // intrinsic turns into a prefetch for reading unless the whole program is built for newer machines; older ones do nothing here.)
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags));
    }
    #[cfg(all(not(loom), target_arch = "aarch64"))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) line, options(nostack, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = (word, ahead);
}

/// Asks for the line of a word, to read it soon.
#[inline(always)]
pub(crate) fn prefetch_read(word: &AtomicU64) {
    #[cfg(all(not(loom), target_arch = "x86_64"))]
    // SAFETY: a prefetch touches no memory as far as the program can tell.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(all(not(loom), target_arch = "aarch64"))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) word.as_ptr(), options(nostack, preserves_flags));
    }
    #[cfg(any(loom, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = word;
}

/// Words from which on the machine's string copy is faster between cores (`benches/NOTES.md`).
#[cfg(all(not(loom), target_arch = "x86_64"))]
const STRING: usize = 256;

/// Copies words between memory that others may change meanwhile and memory of our own, 16 bytes at a time where it can.
///
/// Assembly, because the compiler neither vectorises atomic accesses nor lets plain ones race. The machine gives each word
/// whole or not at all, which is all that `Relaxed` promises.
///
/// # Safety
/// Both ranges are valid for `words` words, the source for reads, the destination for writes, and they do not overlap.
#[cfg(all(not(loom), target_arch = "x86_64"))]
#[inline(always)]
unsafe fn copy_words(mut from: *const u64, mut to: *mut u64, mut words: usize) {
    use std::arch::asm;
    // SAFETY: each step stays within the `words` left, by the caller's promise.
    unsafe {
        if words >= STRING {
            // The machine's own copy takes whole lines, and does not read those first that it is going to overwrite.
            asm!("rep movsq", inout("rsi") from => _, inout("rdi") to => _, inout("rcx") words => _, options(nostack, preserves_flags));
            return;
        }
        while words >= 8 {
            asm!(
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + 32]",
                "movups {d}, [{from} + 48]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                "movups [{to} + 32], {c}",
                "movups [{to} + 48], {d}",
                from = in(reg) from, to = in(reg) to,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
            (from, to, words) = (from.add(8), to.add(8), words - 8);
        }
        if words == 0 {
            return;
        }
        if words & 4 != 0 {
            asm!(
                "movups {a}, [{from}]",
                "movups {b}, [{from} + 16]",
                "movups [{to}], {a}",
                "movups [{to} + 16], {b}",
                from = in(reg) from, to = in(reg) to, a = out(xmm_reg) _, b = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
            (from, to) = (from.add(4), to.add(4));
        }
        if words & 2 != 0 {
            asm!(
                "movups {a}, [{from}]",
                "movups [{to}], {a}",
                from = in(reg) from, to = in(reg) to, a = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
            (from, to) = (from.add(2), to.add(2));
        }
        if words & 1 != 0 {
            asm!("mov {0}, [{1}]", "mov [{2}], {0}", out(reg) _, in(reg) from, in(reg) to, options(nostack, preserves_flags));
        }
    }
}

/// As above, word by word; every access is volatile, and so whole on the side that is aligned, which the map's always is.
///
/// # Safety
/// As above.
#[cfg(all(not(loom), not(target_arch = "x86_64")))]
#[inline(always)]
unsafe fn copy_words(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: within both ranges by the caller's promise; a volatile access of an aligned word is what a relaxed one compiles to, and
    // an array of bytes may lie anywhere.
    unsafe {
        for word in 0..words {
            match (from.is_aligned(), to.is_aligned()) {
                (true, true) => to.add(word).write_volatile(from.add(word).read_volatile()),
                (true, false) => to.add(word).cast::<[u8; 8]>().write(from.add(word).read_volatile().to_ne_bytes()),
                (false, true) => {
                    to.add(word).write_volatile(u64::from_ne_bytes(from.add(word).cast::<[u8; 8]>().read()))
                }
                (false, false) => unreachable!("one side is the map's"),
            }
        }
    }
}

/// Stores `bytes` into just as many words as they take; the rest of the last word becomes zero.
#[inline(always)]
pub(crate) fn store_bytes(words: &[AtomicU64], bytes: &[u8]) {
    let whole = bytes.len() / 8;
    assert!(bytes.len() <= words.len() * 8);
    #[cfg(not(loom))]
    // SAFETY: `bytes` holds `whole` words and `words` at least as many, in memory that is never the same.
    unsafe {
        copy_words(bytes.as_ptr().cast::<u64>(), words.as_ptr().cast_mut().cast::<u64>(), whole);
    }
    #[cfg(loom)]
    for (word, chunk) in words.iter().zip(bytes.chunks_exact(8)) {
        word.store(u64::from_ne_bytes(chunk.try_into().expect("a chunk of eight")), Ordering::Relaxed);
    }
    let tail = &bytes[whole * 8..];
    if !tail.is_empty() {
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        words[whole].store(u64::from_ne_bytes(last), Ordering::Relaxed);
    }
}

/// Loads all of `words` into the start of `into`, which is at least as long.
#[inline(always)]
pub(crate) fn load_words(words: &[AtomicU64], into: &mut [u64]) {
    let into = &mut into[..words.len()];
    #[cfg(not(loom))]
    // SAFETY: both ranges are `words.len()` long and belong to different allocations.
    unsafe {
        copy_words(words.as_ptr().cast::<u64>(), into.as_mut_ptr(), words.len());
    }
    #[cfg(loom)]
    for (to, word) in into.iter_mut().zip(words) {
        *to = word.load(Ordering::Relaxed);
    }
}

/// The first `length` bytes of some words of our own.
#[inline(always)]
pub(crate) fn bytes_of(words: &[u64], length: usize) -> &[u8] {
    assert!(length <= words.len() * 8);
    // SAFETY: initialised memory of any type without padding is valid as bytes; the length was just checked.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) }
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
    /// Starts at the first of `words`.
    pub(crate) fn new(words: &'a [AtomicU64]) -> Self {
        Self { words, filled: 0, pending: [0; 8] }
    }

    /// Appends; the caller keeps the sum within the words.
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
        store_bytes(&self.words[self.filled / 8..], &bytes[..whole]);
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

/// Borrows the first `length` bytes of some words, for a pinned reader.
///
/// Called by [`crate::stream`] alone, and only for a pinned reader's record that it has validated and not yet committed.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn pinned_bytes(words: &[AtomicU64], length: usize) -> &[u8] {
    assert!(length <= words.len() * 8);
    // SAFETY: the range was just checked, and initialised memory of any alignment is valid as bytes. Nobody writes to it
    // while the slice lives (invariant 3): the caller's slot gates at or below this record until the reader's next call,
    // which ends the borrow, and a pinned reader cannot be evicted while its process lives.
    unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), length) }
}

/// Borrows the first `length` bytes of some words, for the writer to fill in place.
///
/// Called by [`crate::claim`] alone, with a stretch that it has reserved and not yet committed.
#[cfg(not(loom))]
#[inline(always)]
#[allow(clippy::mut_from_ref)]
pub(crate) fn claimed_bytes(words: &[AtomicU64], length: usize) -> &mut [u8] {
    assert!(length <= words.len() * 8);
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
        for length in 0..40usize {
            let space = words(8);
            let bytes: Vec<u8> = (1..=length as u8).collect();
            store_bytes(&space[1..1 + length.div_ceil(8)], &bytes);
            let mut back = vec![0; 8];
            load_words(&space[1..1 + length.div_ceil(8)], &mut back);
            assert_eq!(bytes_of(&back, length), bytes);
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
                let mut filler = Filler::new(&space);
                for piece in [&whole[..a], &whole[a..b], &[], &whole[b..]] {
                    filler.push(piece);
                }
                assert_eq!(filler.filled, whole.len());
                let mut back = vec![0; 8];
                load_words(&space, &mut back);
                assert_eq!(bytes_of(&back, whole.len()), whole, "cut at {a} and {b}");
            }
        }
    }
}
