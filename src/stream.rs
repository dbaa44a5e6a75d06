//! What reader and observer share: the next record copied out, the end of the stream, and waiting for more.

use crate::consume::{Consumer, Found, Glance, Step};
use crate::error::{Error, Result};
use crate::files::Attached;
use crate::layout::{filled_words, ring as at};
use crate::map::{bytes_of, load_words, pinned_bytes};
use crate::report::Gap;
use crate::ring::{Place, Ring, Seek};
use crate::sync::Ordering;
use crate::sys;
use crate::table::Table;
use crate::wake;
use crossbeam_utils::Backoff;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::time::{Duration, Instant, SystemTime};

/// How often a waiting reader looks whether its writer and its files are still there.
const LIVENESS: Duration = Duration::from_millis(100);
/// Longest sleep when nobody can promise a wake-up.
const BLIND: Duration = Duration::from_millis(1);

/// How a reader waits for the next record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// Polls without pause: lowest latency, one core busy.
    Spin,
    /// Polls, and offers its core to others in between.
    Yield,
    /// Polls for a few microseconds, then sleeps until the writer wakes it.
    #[default]
    Park,
}

/// What comes next in the stream. Loss is one of the values, not an error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Next<'a> {
    /// A record.
    Record(Record<'a>),
    /// No record yet (or none before the deadline).
    Empty,
    /// These sequences were missed; the record at the gap's end comes next.
    Gap(Gap),
    /// The reader was evicted, and has missed these sequences so far. It reads on after `rejoin`, which returns the final gap.
    Evicted(Gap),
    /// The writer closed the stream here. Told once per close; a later call waits for the bus to be opened again.
    Closed(Closed),
    /// No writer is alive, and the stream is not closed. Told once per absence; a later call waits for a new one.
    Absent,
    /// The bus was created anew (or removed) and nothing more comes here: attach again.
    Replaced,
    /// The path leads to another bus, to what a removal that died has left of this one, or to nothing, though nobody said so in the bus: nothing
    /// may come here any more.
    Orphaned,
}

/// How and where the stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Sequence that the next record would have had.
    pub sequence: u64,
    /// Epoch of the writer that closed it.
    pub epoch: u64,
    /// The application's code; zero by default.
    pub code: u32,
    /// The application's reason; empty by default.
    pub reason: String,
}

impl Closed {
    /// Reads it from the header; `None` if the stream was never closed.
    pub(crate) fn of(ring: &Ring) -> Option<Self> {
        let sequence = ring.get(at::CLOSED_SEQUENCE);
        let (code, reason) = ring.reason();
        // Read last: words of a close that is just being written carry the epoch of the one before, or none.
        let epoch = ring.get(at::CLOSED_EPOCH);
        (epoch != 0).then_some(Self { sequence, epoch, code, reason })
    }
}

/// One message of the stream.
///
/// Borrows from its reader, so the next call on the reader ends it: copy what has to stay.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub(crate) sequence: u64,
    pub(crate) tag: u32,
    pub(crate) stamp: u64,
    pub(crate) payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// Returns the record's number: 0 for the first of the bus, one more for each.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the tag it was published with.
    #[inline]
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Returns the time it was published at, on a stamped bus; never earlier than that of the record before it.
    pub fn stamp(&self) -> Option<SystemTime> {
        (self.stamp != 0).then(|| sys::time_of(self.stamp))
    }

    /// Returns the message's bytes; at least 8-aligned.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Returns the message as a plain value.
    ///
    /// # Errors
    /// [`Error::WrongSize`] if it has another size than `T`.
    #[cfg(feature = "typed")]
    #[inline]
    pub fn value<T: bytemuck::AnyBitPattern>(&self) -> Result<T> {
        bytemuck::try_pod_read_unaligned(self.payload)
            .map_err(|_| Error::WrongSize { expected: size_of::<T>(), found: self.payload.len() })
    }
}

impl Deref for Record<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        self.payload
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence", &self.sequence)
            .field("tag", &self.tag)
            .field("length", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// A pattern that the tag of wanted records matches: `tag & mask == value`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

impl Filter {
    #[inline(always)]
    pub(crate) fn wants(self, tag: u32) -> bool {
        tag & self.mask == self.value
    }
}

/// [`Next`] without its borrow: what a poll found, before it is handed out.
pub(crate) enum Poll {
    Record(Found),
    Empty,
    Gap(Gap),
    Evicted(Gap),
    Closed,
    Absent,
    Replaced,
    Orphaned,
}

/// What [`Stream::quick`] found.
pub(crate) enum Quick {
    Record(Found),
    /// Plainly nothing: the common case of a reader that polls.
    Empty,
    /// Something else: [`Stream::step`] finds out what.
    Special,
}

/// A place in a mapped ring and everything needed to read on from there.
pub(crate) struct Stream {
    pub(crate) attached: Attached,
    pub(crate) consumer: Consumer,
    /// Where payloads are copied to; grows to the largest record seen.
    buffer: Vec<u64>,
    filter: Filter,
    /// Copy payloads out; otherwise they are borrowed from the ring.
    pub(crate) copies: bool,
    /// Time stamp of the record just taken; zero on a bus without.
    stamp: u64,
    can_fence: bool,
    /// Epoch of the writer whose absence the application knows of.
    absent_told: Option<u64>,
    looked: Option<Instant>,
    pub(crate) waits: u64,
}

impl Stream {
    pub(crate) fn new(attached: Attached, start: Place, told: u64, filter: Filter, copies: bool) -> Self {
        let mut stream = Self {
            consumer: Consumer::new(&attached.ring, start, told),
            attached,
            buffer: Vec::new(),
            filter: Filter::default(),
            copies,
            stamp: 0,
            can_fence: true,
            absent_told: None,
            looked: None,
            waits: 0,
        };
        stream.set_filter(filter);
        stream
    }

    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.filter = filter;
        self.consumer.plain = !self.attached.facts.geometry.stamped && filter == Filter::default();
        self.go_to(self.consumer.next);
    }

    #[inline(always)]
    pub(crate) fn ring(&self) -> &Ring {
        &self.attached.ring
    }

    /// Takes the next record if nothing special is to be done for it, or finds that there is plainly nothing.
    #[inline(always)]
    pub(crate) fn quick(&mut self) -> Quick {
        let ring = &self.attached.ring;
        let (found, payload) = match self.consumer.glance(ring) {
            Glance::Record(found, payload) => (found, payload),
            Glance::Nothing => return self.quickly_empty(),
            Glance::Special => return Quick::Special,
        };
        if self.copies {
            let Some(buffer) = self.buffer.get_mut(..payload.len()) else { return Quick::Special };
            load_words(payload, buffer);
        }
        if !ring.intact(found.place.position) {
            return Quick::Special;
        }
        self.consumer.pass(&found);
        Quick::Record(found)
    }

    /// Says whether the nothing that a glance has just given is all there is to say.
    #[inline(always)]
    fn quickly_empty(&mut self) -> Quick {
        let empty = self.consumer.plainly_empty(&self.attached.ring) && !self.replaced();
        if empty { Quick::Empty } else { Quick::Special }
    }

    /// Hands out records for as long as [`Self::quick`] would find them without looking at the tip, at most `max`, and none behind one that
    /// `handle` refuses; returns how many it took.
    #[inline(always)]
    pub(crate) fn quick_burst(&mut self, max: usize, handle: &mut impl FnMut(Record<'_>) -> bool) -> usize {
        if self.copies { self.burst::<true>(max, handle) } else { self.burst::<false>(max, handle) }
    }

    /// One loop for each way to hand out a payload: it is too short to ask in it.
    #[inline(always)]
    fn burst<const COPIES: bool>(&mut self, max: usize, handle: &mut impl FnMut(Record<'_>) -> bool) -> usize {
        let ring = &self.attached.ring;
        let judge = ring.judge();
        let Some(mut burst) = self.consumer.burst(ring) else { return 0 };
        let buffer = &mut self.buffer[..];
        let first = burst.next.sequence;
        let until = first.saturating_add(max as u64);
        while burst.next.sequence < until {
            let Some((commit, payload, behind)) = burst.glance() else { break };
            let length = commit.length() as usize;
            let bytes = if COPIES {
                let Some(buffer) = buffer.get_mut(..payload.len()) else { break };
                load_words(payload, buffer);
                bytes_of(buffer, length)
            } else {
                pinned_bytes(payload, length)
            };
            let Place { position, sequence } = burst.next;
            if !judge.intact(position) {
                break;
            }
            if !handle(Record { sequence, tag: commit.tag(), stamp: 0, payload: bytes }) {
                break;
            }
            burst = behind;
        }
        let count = burst.next.sequence - first;
        let end = burst.end();
        self.consumer.end_burst(end);
        count as usize
    }

    /// Hands out a record that was just taken; puts it back if `handle` refuses it.
    #[inline(always)]
    pub(crate) fn offer(&mut self, found: &Found, handle: &mut impl FnMut(Record<'_>) -> bool) -> bool {
        let taken = handle(self.record(found));
        if !taken {
            self.consumer.put_back(found);
        }
        taken
    }

    /// Hands out records that are there, at most `max` and none behind one that is refused; returns how many. Whatever else there is, and an
    /// error too, is there for the next call.
    #[inline(never)]
    pub(crate) fn offer_more(&mut self, max: usize, handle: &mut impl FnMut(Record<'_>) -> bool) -> usize {
        let mut count = 0;
        while count < max {
            count += self.quick_burst(max - count, handle);
            if count == max {
                break;
            }
            match self.step() {
                Ok(Step::Record(found)) if self.offer(&found, handle) => count += 1,
                _ => break,
            }
        }
        count
    }

    /// Takes the next wanted record: copied to the buffer, or left in the ring. Everything but a record leaves the place as it is.
    #[inline(never)]
    pub(crate) fn step(&mut self) -> Result<Step> {
        loop {
            let ring = &self.attached.ring;
            match self.consumer.look(ring) {
                Step::Record(found) => {
                    let wanted = self.filter.wants(found.commit.tag());
                    if wanted {
                        if ring.geometry.stamped {
                            self.stamp = ring.stamp_word(found.place.position).load(Ordering::Relaxed);
                        }
                        if self.copies {
                            let largest = ring.geometry.max_record() as usize;
                            if found.length() > largest {
                                return self.too_long(&found, largest);
                            }
                            let payload = found.payload(ring);
                            // With its filling, for the quick path; which has no room for what is too long, and leaves it to this one.
                            let filled = filled_words(found.length());
                            if !make_room(&mut self.buffer, filled, filled_words(largest)) {
                                let source = io::ErrorKind::OutOfMemory.into();
                                return Err(Error::io(
                                    "copy the next record out of",
                                    &self.attached.paths.ring,
                                    source,
                                ));
                            }
                            load_words(payload, &mut self.buffer);
                        }
                    }
                    if !ring.intact(found.place.position) {
                        self.attached.check()?;
                        return Ok(Step::Lapped);
                    }
                    self.consumer.pass(&found);
                    if wanted {
                        return Ok(Step::Record(found));
                    }
                }
                Step::Corrupt(field, expected, found) => {
                    self.attached.check()?;
                    return Err(Error::Corrupt { path: self.attached.paths.ring.clone(), field, expected, found });
                }
                other => {
                    // What looks lapped may be a file that is not there any more.
                    self.attached.check()?;
                    return Ok(other);
                }
            }
        }
    }

    /// A record longer than any that a writer publishes, which a copying reader makes no room for: what a program of somebody else's wrote.
    #[cold]
    fn too_long(&self, found: &Found, largest: usize) -> Result<Step> {
        self.attached.check()?;
        if !self.ring().intact(found.place.position) {
            return Ok(Step::Lapped);
        }
        let (expected, found) = (largest as u64, found.length() as u64);
        Err(Error::Corrupt { path: self.attached.paths.ring.clone(), field: "a record's length", expected, found })
    }

    /// Says whether this ring was recreated or removed, so that nothing is added to it any more.
    #[inline(always)]
    pub(crate) fn replaced(&self) -> bool {
        self.ring().word(at::STATE).load(Ordering::Acquire) == at::REPLACED
    }

    /// Notes that the application is told of the close that the reader stands at.
    pub(crate) fn tell_closed(&mut self) -> Closed {
        let epoch = self.consumer.closing;
        self.consumer.told = epoch;
        match Closed::of(self.ring()) {
            Some(closed) if closed.epoch == epoch => closed,
            // A later writer has closed it again meanwhile, for a reason of its own.
            _ => Closed { sequence: self.consumer.next.sequence, epoch, code: 0, reason: String::new() },
        }
    }

    /// Goes elsewhere.
    pub(crate) fn go_to(&mut self, place: Place) {
        self.consumer.go_to(&self.attached.ring, place);
    }

    /// Where a lapped reader that does not gate goes on.
    pub(crate) fn move_up(&mut self) -> Gap {
        let first = self.consumer.next.sequence;
        let place = self.ring().seek(Seek::Clear);
        self.go_to(place);
        Gap { first, end: place.sequence.max(first) }
    }

    /// Looks after writer and files, as a waiting reader does every 100 ms; what either left behind to read comes first.
    pub(crate) fn look_around<P>(&mut self, poll: &mut P) -> Result<Poll>
    where
        P: FnMut(&mut Self) -> Result<Poll>,
    {
        self.consumer.doubt();
        let alive = self.attached.writer_alive()?;
        // Read after the lock was looked at, which a writer gives back last.
        let (epoch, closed) = (self.ring().get(at::EPOCH), self.ring().get(at::CLOSED_EPOCH));
        let absent = !alive && (epoch == 0 || closed != epoch);
        let moved = self.attached.is_left_behind(alive);
        if !moved && (!absent || self.absent_told == Some(epoch)) {
            return Ok(Poll::Empty);
        }
        Ok(match poll(self)? {
            Poll::Empty if moved => Poll::Orphaned,
            Poll::Empty => {
                self.absent_told = Some(epoch);
                Poll::Absent
            }
            other => other,
        })
    }

    /// Waits until `poll` gives something, or until the deadline, and returns `Empty` then.
    ///
    /// Without a table nobody can wake it, so it then sleeps for a millisecond at most.
    pub(crate) fn wait<P>(
        &mut self,
        wait: Wait,
        deadline: Option<Instant>,
        table: Option<&Table>,
        mut poll: P,
    ) -> Result<Poll>
    where
        P: FnMut(&mut Self) -> Result<Poll>,
    {
        let backoff = Backoff::new();
        let mut turns = 0u32;
        loop {
            match poll(self)? {
                Poll::Empty => {}
                other => return Ok(other),
            }
            turns = turns.wrapping_add(1);
            let park = match wait {
                Wait::Spin => false,
                Wait::Yield => {
                    if turns > 64 {
                        std::thread::yield_now();
                    }
                    false
                }
                Wait::Park => {
                    backoff.snooze();
                    backoff.is_completed()
                }
            };
            // The clock is read now and then only, but before every sleep.
            if !park && !turns.is_multiple_of(256) {
                continue;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| now >= deadline) {
                return Ok(Poll::Empty);
            }
            let looked = *self.looked.get_or_insert(now);
            // A first wait with nobody there is told at once; later ones every 100 ms.
            if now == looked || now.duration_since(looked) >= LIVENESS {
                self.looked = Some(now);
                match self.look_around(&mut poll)? {
                    Poll::Empty => {}
                    other => return Ok(other),
                }
            }
            if park {
                let left = deadline.map_or(LIVENESS, |deadline| deadline.duration_since(now).min(LIVENESS));
                match self.park(left, table, &mut poll)? {
                    Poll::Empty => {}
                    other => return Ok(other),
                }
            }
        }
    }

    /// Announces a sleeper: the wake word to wait on, and whether nobody can promise that it will change in time.
    pub(crate) fn announce(&mut self, table: &Table) -> (u64, bool) {
        let seen = wake::prepare(table, &mut self.can_fence);
        (seen, !self.can_fence && self.ring().get(at::FENCES) == 0)
    }

    /// Sleeps until woken; see [`crate::wake`] for the order of things.
    fn park<P>(&mut self, longest: Duration, table: Option<&Table>, poll: &mut P) -> Result<Poll>
    where
        P: FnMut(&mut Self) -> Result<Poll>,
    {
        let Some(table) = table else {
            std::thread::sleep(longest.min(BLIND));
            return Ok(Poll::Empty);
        };
        let (seen, blind) = self.announce(table);
        let found = poll(self)?;
        if !matches!(found, Poll::Empty) {
            return Ok(found);
        }
        self.waits += 1;
        let longest = if blind { longest.min(BLIND) } else { longest };
        sys::futex_wait(table.wake_word(), seen, longest);
        Ok(Poll::Empty)
    }

    /// Hands out what a poll found.
    #[inline(always)]
    pub(crate) fn present(&mut self, poll: Poll) -> Next<'_> {
        match poll {
            Poll::Record(found) => Next::Record(self.record(&found)),
            Poll::Empty => Next::Empty,
            Poll::Gap(gap) => Next::Gap(gap),
            Poll::Evicted(gap) => Next::Evicted(gap),
            Poll::Closed => Next::Closed(self.tell_closed()),
            Poll::Absent => Next::Absent,
            Poll::Replaced => Next::Replaced,
            Poll::Orphaned => Next::Orphaned,
        }
    }

    /// The record just taken.
    #[inline(always)]
    pub(crate) fn record(&self, found: &Found) -> Record<'_> {
        let payload = if self.copies {
            bytes_of(&self.buffer, found.length())
        } else {
            pinned_bytes(found.payload(self.ring()), found.length())
        };
        Record { sequence: found.place.sequence, tag: found.commit.tag(), stamp: self.stamp, payload }
    }
}

/// Makes a buffer at least so many words long, and at most `most`; says whether there was memory for it. The bus decides how long records are, so
/// a process with little memory has to survive them.
#[inline(never)]
fn make_room(buffer: &mut Vec<u64>, words: usize, most: usize) -> bool {
    if words <= buffer.len() {
        return true;
    }
    let length = words.next_power_of_two().min(most);
    let there = buffer.try_reserve_exact(length - buffer.len()).is_ok();
    if there {
        buffer.resize(length, 0);
    }
    there
}
