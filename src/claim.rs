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

/// A record being written in place; nobody sees it until [`commit`](Self::commit). Dropping it gives it up.
///
/// Its bytes are whatever was there before: write all that you commit.
#[must_use]
pub struct Claim<'w> {
    writer: &'w mut Writer,
    reserved: Reserved,
    tag: u32,
    length: usize,
    /// Bytes filled through `io::Write`.
    written: usize,
    /// Whether the hot path made the room, and is still open at the same place.
    plain: bool,
}

impl<'w> Claim<'w> {
    #[inline(always)]
    pub(crate) fn new(writer: &'w mut Writer, reserved: Reserved, tag: u32, length: usize, plain: bool) -> Self {
        Self { writer, reserved, tag, length, written: 0, plain }
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
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        claimed_bytes(
            self.writer.publisher.payload(&self.writer.attached.ring, self.reserved, self.length),
            self.length,
        )
    }

    /// Makes the whole claim visible; returns its sequence.
    ///
    /// # Errors
    /// [`PublishError::Forked`]; nothing becomes visible.
    #[inline]
    pub fn commit(self) -> Result<u64, PublishError> {
        let length = self.length;
        self.finish(length)
    }

    /// Makes the first `length` bytes visible and gives the rest back; returns the sequence.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] if that is more than was claimed, [`PublishError::Forked`]; nothing becomes visible.
    #[inline]
    pub fn commit_len(self, length: usize) -> Result<u64, PublishError> {
        if length > self.length {
            return Err(PublishError::TooLarge { length: length as u64, max: self.length as u64 });
        }
        self.finish(length)
    }

    #[inline(always)]
    fn finish(mut self, length: usize) -> Result<u64, PublishError> {
        self.writer.check()?;
        let Writer { publisher, attached, table, .. } = &mut *self.writer;
        if self.plain
            && length == self.length
            && let Some(sequence) = publisher.publish_claimed(&attached.ring, table, self.tag, length)
        {
            return Ok(sequence);
        }
        self.plain = false;
        Ok(self.finish_slow(length))
    }

    #[cold]
    fn finish_slow(&mut self, length: usize) -> u64 {
        let Writer { publisher, attached, table, .. } = &mut *self.writer;
        let reserved = publisher.shorten(self.reserved, length);
        publisher.prepare(&attached.ring, reserved, publisher.head.sequence);
        publisher.commit(&attached.ring, table, reserved, self.tag, length)
    }
}

impl Drop for Claim<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.plain {
            self.writer.open_fast_path();
        }
    }
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
    /// Bytes of the ring that its records take, wherever in it they come to lie.
    size: u64,
}

impl<'w> Batch<'w> {
    pub(crate) fn new(writer: &'w mut Writer) -> Self {
        let next = writer.publisher.head;
        writer.publisher.open_batch(&writer.attached.ring, next.position);
        Self { writer, next, first: None, payload: 0, size: 0 }
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
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        self.push_tagged(0, payload)
    }

    /// Adds a record with a tag.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_tagged(&mut self, tag: u32, payload: &[u8]) -> Result<(), PublishError> {
        self.writer.check()?;
        let most = self.writer.attached.facts.geometry.capacity / 4;
        let sequence = self.next.sequence;
        let Some((commit_word, size)) = self.writer.publisher.push(sequence, payload) else {
            return self.push_slow(tag, payload);
        };
        if self.size + size > most && self.first.is_some() {
            return Err(PublishError::TooLarge { length: self.size + size, max: most });
        }
        let commit = Commit::record(tag, payload.len() as u64);
        if self.first.is_some() {
            // Relaxed: nobody comes here but past the first one's word, whose Release comes later.
            commit_word.store(commit.0, Ordering::Relaxed);
        } else {
            self.first = Some((self.next.position, commit));
        }
        self.writer.publisher.pushed(size);
        self.count(payload.len(), size, self.next.position + size);
        Ok(())
    }

    #[inline(always)]
    fn count(&mut self, payload: usize, size: u64, end: u64) {
        self.payload += payload as u64;
        self.size += size;
        self.next = Place { position: end, sequence: self.next.sequence + 1 };
    }

    #[cold]
    fn push_slow(&mut self, tag: u32, payload: &[u8]) -> Result<(), PublishError> {
        let geometry = self.writer.attached.facts.geometry;
        let size = geometry.record_size((payload.len() as u64).min(geometry.capacity));
        if self.size + size > geometry.capacity / 4 && !self.is_empty() {
            return Err(PublishError::TooLarge { length: self.size + size, max: geometry.capacity / 4 });
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
        publisher.open_batch(&attached.ring, reserved.end);
        self.count(payload.len(), size, reserved.end);
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
