//! Records written in place, and batches of records made visible by one release.

use crate::error::PublishError;
use crate::layout::Commit;
use crate::map::{claimed_bytes, store_bytes};
use crate::publish::Reserved;
use crate::ring::Place;
use crate::sync::Ordering;
use crate::writer::Writer;
use std::io;
use std::ops::Range;

// What a caller does with a claim or a batch is inlined wherever it is: a result as large as an error's, returned through memory, costs as much as
// all the rest.

/// A record being written in place; nobody sees it until [`commit`](Self::commit). Dropping it gives it up.
///
/// Its bytes are whatever was there before: write all that you commit.
#[must_use]
pub struct Claim<'w> {
    lent: Lent<'w>,
    reserved: Reserved,
    tag: u32,
    length: usize,
    /// Bytes filled through `io::Write`.
    written: usize,
}

/// The writer while a claim has it. Apart from the claim, all of which would have to lie in memory if it were dropped as a whole.
struct Lent<'w> {
    writer: &'w mut Writer,
    /// Whether the hot path made the room, and is still open at the same place.
    plain: bool,
}

impl Drop for Lent<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.plain {
            self.writer.open_fast_path();
        }
    }
}

impl<'w> Claim<'w> {
    #[inline(always)]
    pub(crate) fn new(writer: &'w mut Writer, reserved: Reserved, tag: u32, length: usize, plain: bool) -> Self {
        Self { lent: Lent { writer, plain }, reserved, tag, length, written: 0 }
    }

    /// Returns the bytes claimed.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Says whether the claim is for an empty record.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Borrows the bytes to write to; 8-aligned.
    ///
    /// A reader that was lapped may look at these bytes while they change; it discards what it saw.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let Writer { publisher, attached, .. } = &*self.lent.writer;
        claimed_bytes(publisher.payload(&attached.ring, self.reserved, self.length), self.length)
    }

    /// Makes the whole claim visible; returns its sequence.
    ///
    /// # Errors
    /// [`PublishError::Forked`]; nothing becomes visible.
    #[inline(always)]
    pub fn commit(self) -> Result<u64, PublishError> {
        let length = self.length;
        self.finish(length)
    }

    /// Makes the first `length` bytes visible and gives the rest back; returns the sequence.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] if that is more than was claimed, [`PublishError::Forked`]; nothing becomes visible.
    #[inline(always)]
    pub fn commit_len(self, length: usize) -> Result<u64, PublishError> {
        if length > self.length {
            return Err(PublishError::TooLarge { length: length as u64, max: self.length as u64 });
        }
        self.finish(length)
    }

    #[inline(always)]
    fn finish(mut self, length: usize) -> Result<u64, PublishError> {
        self.lent.writer.check()?;
        let Writer { publisher, attached, table, .. } = &mut *self.lent.writer;
        if self.lent.plain
            && length == self.length
            && let Some(sequence) = publisher.publish_claimed(&attached.ring, table, self.tag, length)
        {
            return Ok(sequence);
        }
        self.lent.plain = false;
        Ok(finish_slow(self.lent.writer, self.reserved, self.tag, length))
    }
}

#[cold]
#[inline(never)]
fn finish_slow(writer: &mut Writer, reserved: Reserved, tag: u32, length: usize) -> u64 {
    let Writer { publisher, attached, table, .. } = writer;
    let reserved = publisher.shorten(reserved, length);
    publisher.prepare(&attached.ring, reserved, publisher.head.sequence);
    publisher.commit(&attached.ring, table, reserved, tag, length)
}

/// Fills the claim from its start; what does not fit is `WriteZero`, as for a slice.
impl io::Write for Claim<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at = self.written;
        let count = bytes.len().min(self.length - at);
        self.as_mut_slice()[at..at + count].copy_from_slice(&bytes[..count]);
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Records that become visible together, in order. Dropping it gives all of them up.
#[must_use]
pub struct Batch<'w> {
    writer: &'w mut Writer,
    /// Where the next record goes.
    next: Place,
    /// The commit word that makes everything visible, and its position.
    first: Option<(u64, Commit)>,
    /// Payload bytes so far.
    payload: u64,
    /// Its start, as if its records lay one behind the other: what they take of the ring is what lies between it and the next.
    start: u64,
}

impl<'w> Batch<'w> {
    pub(crate) fn new(writer: &'w mut Writer) -> Self {
        let next = writer.publisher.head;
        let mut batch = Self { writer, next, first: None, payload: 0, start: next.position };
        batch.open();
        batch
    }

    /// Lets the hot path serve the next records, up to what a batch may take.
    #[inline(always)]
    fn open(&mut self) {
        let room = self.most() - self.size();
        let Writer { publisher, attached, .. } = &mut *self.writer;
        publisher.open_batch(&attached.ring, self.next.position, room);
    }

    /// Bytes of the ring that its records take, wherever in it they come to lie.
    #[inline(always)]
    fn size(&self) -> u64 {
        self.next.position - self.start
    }

    /// Bytes of the ring that a batch may take.
    #[inline(always)]
    fn most(&self) -> u64 {
        self.writer.attached.facts.geometry.capacity / 4
    }

    /// Counts the records pushed.
    pub fn len(&self) -> usize {
        (self.next.sequence - self.writer.publisher.head.sequence) as usize
    }

    /// Says whether nothing was pushed.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Adds a record; waits, refuses or evicts by the writer's policy if readers are in the way.
    ///
    /// # Errors
    /// As [`Writer::publish`]; [`PublishError::TooLarge`] also if the batch, each record with its header and filling
    /// ([`record_size`](crate::layout::record_size)), would exceed a quarter of the ring. The batch keeps what it has, and can be committed.
    #[inline(always)]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        self.push_tagged(0, payload)
    }

    /// Adds a record with a tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline(always)]
    pub fn push_tagged(&mut self, tag: u32, payload: &[u8]) -> Result<(), PublishError> {
        if self.writer.attached.is_disturbed() {
            return self.push_slow(tag, payload);
        }
        let Place { position, sequence } = self.next;
        let commit = Commit::record(tag, payload.len() as u64);
        let hidden = self.first.is_none();
        let Some(size) = self.writer.publisher.push(sequence, commit, payload, hidden) else {
            return self.push_slow(tag, payload);
        };
        if hidden {
            self.first = Some((position, commit));
        }
        self.count(payload.len(), position + size);
        Ok(())
    }

    #[inline(always)]
    fn count(&mut self, payload: usize, end: u64) {
        self.payload += payload as u64;
        self.next = Place { position: end, sequence: self.next.sequence + 1 };
    }

    #[cold]
    #[inline(never)]
    fn push_slow(&mut self, tag: u32, payload: &[u8]) -> Result<(), PublishError> {
        self.writer.check()?;
        let geometry = self.writer.attached.facts.geometry;
        let size = self.size() + geometry.record_size((payload.len() as u64).min(geometry.capacity));
        if size > self.most() && !self.is_empty() {
            return Err(PublishError::TooLarge { length: size, max: self.most() });
        }
        let reserved = self.writer.reserve_by_policy(self.next, payload.len())?;
        let Writer { publisher, attached, .. } = &mut *self.writer;
        publisher.prepare(&attached.ring, reserved, self.next.sequence);
        store_bytes(publisher.payload(&attached.ring, reserved, payload.len()), payload);
        let commit = Commit::record(tag, payload.len() as u64);
        let hidden = self.first.is_none();
        let visible = publisher.seal(&attached.ring, reserved, self.next.sequence, commit, !hidden);
        if hidden {
            self.first = Some((reserved.from, visible));
        }
        // Padding is not the batch's.
        self.start += reserved.start - reserved.from;
        self.count(payload.len(), reserved.end);
        self.open();
        Ok(())
    }

    /// Makes all records visible at once; returns their sequences.
    ///
    /// # Errors
    /// [`PublishError::Forked`]; nothing becomes visible.
    #[inline]
    pub fn commit(self) -> Result<Range<u64>, PublishError> {
        self.writer.check()?;
        let Writer { publisher, attached, table, .. } = &mut *self.writer;
        let start = publisher.head.sequence;
        if let Some((position, commit)) = self.first {
            // Release pairs with the readers' Acquire load of the commit word: who sees it sees the whole batch.
            attached.ring.commit_word(position).store(commit.0, Ordering::Release);
            publisher.count_bytes(self.payload);
            publisher.advance(&attached.ring, table, self.next);
        }
        Ok(start..self.next.sequence)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let Writer { publisher, attached, .. } = &mut *self.writer;
        publisher.open_fast_path(&attached.ring);
    }
}
