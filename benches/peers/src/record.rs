//! The records that are sent, and the check that each of them arrived whole.
//!
//! Every cache line of a record starts with its stamp (the sequence plus a constant), and so does its last word; the words between hold a
//! pattern. The reader compares the first and the last word, and the sum over all words, with what they must be. The same code checks
//! lapwing, the peers and the limit.

use std::ptr;

/// Added to the sequence, so that memory full of zeros is no valid record.
const STAMP: u64 = 0x5EED_0000_0000_0001;
/// Bytes of records held ready: little enough for the first-level cache.
const READY_BYTES: usize = 16 << 10;

/// Returns how many words of a record carry the stamp.
const fn stamps(words: usize) -> u64 {
    (words.div_ceil(8) + if (words - 1).is_multiple_of(8) { 0 } else { 1 }) as u64
}

fn filler(word: usize) -> u64 {
    (word as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

const fn is_stamp(word: usize, words: usize) -> bool {
    word.is_multiple_of(8) || word == words - 1
}

/// Views a record as bytes.
#[inline(always)]
pub fn bytes<const W: usize>(record: &[u64; W]) -> &[u8] {
    // SAFETY: a word array has no padding, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(record.as_ptr().cast(), W * 8) }
}

/// Hands bytes to `sink` as a record, in place if they are aligned.
#[inline(always)]
pub fn from_bytes<const W: usize>(bytes: &[u8], sink: &mut impl FnMut(&[u64; W])) {
    assert_eq!(bytes.len(), W * 8, "a record of another length arrived");
    let start = bytes.as_ptr();
    if start.addr().is_multiple_of(align_of::<u64>()) {
        // SAFETY: length and alignment were checked above.
        sink(unsafe { &*start.cast::<[u64; W]>() });
    } else {
        // SAFETY: the length was checked above; the read is unaligned.
        sink(&unsafe { ptr::read_unaligned(start.cast::<[u64; W]>()) });
    }
}

#[repr(C, align(64))]
struct Ready<const W: usize>([u64; W]);

/// Records in the sender's own memory, stamped some records ahead, as an application would have them ready.
///
/// Without the distance a copy with wide loads would wait for the narrow stores of the stamp, which no real sender sees.
pub struct Source<const W: usize> {
    ready: Box<[Ready<W>]>,
    next: u64,
}

impl<const W: usize> Source<W> {
    pub fn new() -> Self {
        let count = (READY_BYTES / (W * 8)).clamp(2, 16).next_power_of_two();
        let mut ready: Vec<Ready<W>> = Vec::with_capacity(count);
        for sequence in 0..count {
            // SAFETY: zero is a valid word; built in place because a large array on the stack is slow to compile.
            unsafe {
                let slot = ready.as_mut_ptr().add(sequence).cast::<u64>();
                for word in 0..W {
                    slot.add(word).write(filler(word));
                }
                ready.set_len(sequence + 1);
            }
            Self::stamp(&mut ready[sequence], sequence as u64);
        }
        Self { ready: ready.into_boxed_slice(), next: 0 }
    }

    #[inline(always)]
    fn stamp(record: &mut Ready<W>, sequence: u64) {
        let stamp = STAMP.wrapping_add(sequence);
        let mut word = 0;
        while word < W {
            record.0[word] = stamp;
            word += 8;
        }
        record.0[W - 1] = stamp;
    }

    /// Returns the next record.
    // An iterator lends nothing.
    #[allow(clippy::should_implement_trait)]
    #[inline(always)]
    pub fn next(&mut self) -> &[u64; W] {
        let mask = self.ready.len() - 1;
        // The record sent last is free again: it becomes the last one in line.
        if self.next > 0 {
            let sequence = self.next + mask as u64;
            Self::stamp(&mut self.ready[sequence as usize & mask], sequence);
        }
        let record = &self.ready[self.next as usize & mask].0;
        self.next += 1;
        record
    }

    /// Counts the records handed out.
    pub fn sent(&self) -> u64 {
        self.next
    }
}

/// What a reader got.
#[derive(Debug)]
pub struct Checker<const W: usize> {
    /// Sequence of the next record.
    pub next: u64,
    pub delivered: u64,
    pub missed: u64,
    /// Torn, repeated or foreign records.
    pub wrong: u64,
    fill: u64,
}

impl<const W: usize> Checker<W> {
    pub fn new() -> Self {
        let fill = (0..W).filter(|&word| !is_stamp(word, W)).fold(0_u64, |sum, word| sum.wrapping_add(filler(word)));
        Self { next: 0, delivered: 0, missed: 0, wrong: 0, fill }
    }

    #[inline(always)]
    pub fn check(&mut self, record: &[u64; W]) {
        let stamp = STAMP.wrapping_add(self.next);
        let sum = record.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
        if record[0] == stamp && record[W - 1] == stamp && sum == stamp.wrapping_mul(stamps(W)).wrapping_add(self.fill)
        {
            self.next += 1;
            self.delivered += 1;
        } else {
            self.odd(record[0], record[W - 1], sum);
        }
    }

    #[cold]
    #[inline(never)]
    fn odd(&mut self, first: u64, last: u64, sum: u64) {
        let whole = first == last && sum == first.wrapping_mul(stamps(W)).wrapping_add(self.fill);
        let sequence = first.wrapping_sub(STAMP);
        if whole && sequence > self.next && sequence - self.next < 1 << 48 {
            self.missed += sequence - self.next;
            self.next = sequence + 1;
            self.delivered += 1;
        } else {
            self.wrong += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole<const W: usize>() {
        let mut source = Source::<W>::new();
        let mut checker = Checker::<W>::new();
        for _ in 0..100 {
            checker.check(source.next());
        }
        assert_eq!((checker.delivered, checker.missed, checker.wrong), (100, 0, 0));
        source.next();
        checker.check(source.next());
        assert_eq!((checker.delivered, checker.missed, checker.wrong), (101, 1, 0));
        for word in 0..W {
            let mut torn = *source.next();
            checker.next = source.sent() - 1;
            let before = checker.wrong;
            torn[word] = torn[word].wrapping_add(1);
            checker.check(&torn);
            assert!(checker.wrong == before + 1 || W == 1, "word {word} of {W}");
        }
    }

    #[test]
    fn whole_records_pass_and_torn_ones_do_not() {
        whole::<1>();
        whole::<4>();
        whole::<6>();
        whole::<8>();
        whole::<32>();
        whole::<128>();
    }
}
