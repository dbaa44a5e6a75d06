//! Registered readers: attach, read, commit, rejoin, leave.

use crate::error::{Error, Result};
use crate::event::Event;
use crate::files::{self, Role};
use crate::layout::{self, ring as at};
use crate::options::Memory;
use crate::report::{Class, Gap, ReaderId, ReaderInfo};
use crate::seat::Seat;
use crate::start::Start;
use crate::stream::{Filter, Next, Poll, Quick, Record, Stream, Wait};
use crate::sync::Ordering;
use crate::table::{Slot, Table};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// Describes how a reader attaches.
#[derive(Clone, Debug)]
#[must_use]
pub struct ReaderOptions {
    pub(crate) class: Class,
    pub(crate) start: Start,
    pub(crate) name: Option<String>,
    pub(crate) hold: bool,
    pub(crate) hold_for: Duration,
    pub(crate) wait: Wait,
    pub(crate) auto_commit: bool,
    pub(crate) filter: Filter,
    pub(crate) schema: u64,
    pub(crate) memory: Memory,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self {
            class: Class::Gating,
            start: Start::Latest,
            name: None,
            hold: false,
            hold_for: Duration::ZERO,
            wait: Wait::Park,
            auto_commit: true,
            filter: Filter::default(),
            schema: 0,
            memory: Memory::default(),
        }
    }
}

impl ReaderOptions {
    /// Sets the class; gating by default.
    pub fn class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Sets where to start; with the next record by default.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Gives the reader a name of 1 to 64 bytes: its cursor outlives its process, and only one living process can have it.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Lets the named reader hold the writer up while it is away, so that it misses nothing; off by default.
    pub fn hold_while_away(mut self, yes: bool) -> Self {
        self.hold = yes;
        self
    }

    /// Holds the writer up at most so long while away, counted from when its absence was noticed; implies
    /// [`hold_while_away`](Self::hold_while_away). Zero means without end.
    pub fn hold_for(mut self, time: Duration) -> Self {
        self.hold = true;
        self.hold_for = time;
        self
    }

    /// Sets how `next` waits; parking by default.
    pub fn wait(mut self, wait: Wait) -> Self {
        self.wait = wait;
        self
    }

    /// Moves the cursor by itself on each call for the next record (the default), or only on [`Reader::commit`].
    pub fn auto_commit(mut self, yes: bool) -> Self {
        self.auto_commit = yes;
        self
    }

    /// Delivers only records with `tag & mask == value`; the others count as delivered, and their payload is never touched.
    pub fn filter(mut self, mask: u32, value: u32) -> Self {
        self.filter = Filter { mask, value };
        self
    }

    /// Refuses a bus of another schema; zero accepts any.
    pub fn schema(mut self, id: u64) -> Self {
        self.schema = id;
        self
    }

    /// Faults the reader's mapping in when it attaches.
    pub fn prefault(mut self, yes: bool) -> Self {
        self.memory.prefault = yes;
        self
    }

    /// Locks the reader's mapping into memory.
    pub fn lock_memory(mut self, yes: bool) -> Self {
        self.memory.lock = yes;
        self
    }

    /// Attaches and registers. Waits for no other reader, and makes none miss anything.
    ///
    /// A gap between where the reader asked to start and where it could comes as its first [`Next::Gap`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotReady`], [`Error::NotABus`], [`Error::Incompatible`], [`Error::Corrupt`],
    /// [`Error::Permission`] from the files; [`Error::InvalidOption`]; [`Error::NameTaken`]; [`Error::TableFull`];
    /// [`Error::PinnedForbidden`]; [`Error::FutureSequence`].
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Reader> {
        self.validate()?;
        let (attached, table) = files::attach(path.as_ref(), Role::Reader)?;
        attached.check_schema(self.schema)?;
        if self.class == Class::Pinned && attached.facts.flags & at::NO_PINNED != 0 {
            return Err(Error::PinnedForbidden { path: path.as_ref().into() });
        }
        attached.prepare_memory(self.memory, Role::Reader)?;
        let locks = attached.table_locks()?;
        let taken = Seat::take(self, &attached, &table, locks);
        attached.check()?;
        let (seat, place, told) = taken?;
        let stream = Stream::new(attached, place, told, self.filter, self.class != Class::Pinned);
        Ok(Reader { stream, table, seat, wait: self.wait, event: None })
    }

    fn validate(&self) -> Result<()> {
        let invalid = |field, value: String, allowed| Err(Error::InvalidOption { field, value, allowed });
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > layout::MAX_NAME || name.chars().any(char::is_control))
        {
            return invalid("name", format!("{name:?}"), "1 to 64 bytes without control characters");
        }
        if self.name.is_none() && self.start == Start::Resume {
            return invalid("start", "resume".into(), "resume needs a name");
        }
        if self.name.is_none() && self.hold {
            return invalid("hold_while_away", "true".into(), "holding while away needs a name");
        }
        Ok(())
    }
}

/// A registered reader.
///
/// Each record reaches it once, in order, or it is told exactly which ones did not. Moves between threads, is used by one at a
/// time. Dropping it gives its slot back, or keeps it for its name; the record returned last then counts as not handled, so
/// [`commit`](Self::commit) first if it was.
///
/// ```
/// use lapwing::{Next, Options, Reader};
/// # let path = std::env::temp_dir().join(format!("lapwing-doc-reader-{}", std::process::id()));
/// # let _ = lapwing::Bus::remove(&path);
/// let mut writer = Options::new().create(&path)?;
/// let mut reader = Reader::open(&path)?;
/// writer.publish(b"hello")?;
/// match reader.next()? {
///     Next::Record(record) => assert_eq!(record.payload(), b"hello"),
///     Next::Gap(gap) => println!("{gap}"),
///     other => println!("{other:?}"),
/// }
/// # drop(writer);
/// # lapwing::Bus::remove(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    stream: Stream,
    table: Table,
    seat: Seat,
    wait: Wait,
    event: Option<Event>,
}

impl Reader {
    /// Attaches as a gating reader that starts with the next record.
    ///
    /// # Errors
    /// As [`ReaderOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        ReaderOptions::default().open(path)
    }

    /// Starts from the default options.
    pub fn options() -> ReaderOptions {
        ReaderOptions::default()
    }

    /// Returns what comes next without waiting and without a system call.
    ///
    /// Unless it was turned off, this first commits the cursor: the record returned before counts as handled.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Forked`], [`Error::Truncated`].
    #[inline]
    pub fn try_next(&mut self) -> Result<Next<'_>> {
        match self.quick() {
            Quick::Record(found) => Ok(Next::Record(self.stream.record(&found))),
            Quick::Empty => Ok(Next::Empty),
            Quick::Special => self.try_next_slow(),
        }
    }

    /// Does what [`try_next`](Self::try_next) does as long as nothing special is to be done: `Some(None)` is [`Next::Empty`]; at `None` nothing but the
    /// commit that it begins with has happened, and `try_next` knows better. For the C interface, which would only take results apart again.
    #[doc(hidden)]
    #[inline(always)]
    pub fn next_plainly(&mut self) -> Option<Option<Record<'_>>> {
        match self.quick() {
            Quick::Record(found) => Some(Some(self.stream.record(&found))),
            Quick::Empty => Some(None),
            Quick::Special => None,
        }
    }

    #[inline(always)]
    fn quick(&mut self) -> Quick {
        if self.stream.attached.is_disturbed() || self.seat.is_special() {
            return Quick::Special;
        }
        self.seat.commit(&self.stream, &self.table);
        match self.stream.quick() {
            Quick::Record(found) => {
                self.seat.dirty = true;
                Quick::Record(found)
            }
            Quick::Empty if self.event.is_none() && self.seat.is_seated() => Quick::Empty,
            _ => Quick::Special,
        }
    }

    #[inline(never)]
    fn try_next_slow(&mut self) -> Result<Next<'_>> {
        self.stream.attached.check()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok(Next::Gap(gap));
        }
        let poll = self.poll_once()?;
        Ok(self.hand_out(poll))
    }

    #[inline(never)]
    fn poll_once(&mut self) -> Result<Poll> {
        match self.seat.poll_slow(&mut self.stream, &self.table)? {
            Poll::Empty => self.arm(),
            other => Ok(other),
        }
    }

    /// Returns a descriptor that is readable while it is worth calling [`try_next`](Self::try_next) or [`drain`](Self::drain).
    ///
    /// Wait for it to be readable (`poll`, `epoll`, level or edge triggered), then read until [`Next::Empty`], which makes it
    /// unreadable again; never read from it yourself. It may be readable for nothing. Asking for it starts one thread per
    /// process and makes each `Empty` a few system calls; it costs the writer what a parked reader costs.
    ///
    /// # Errors
    /// [`Error::Io`] without a descriptor or thread to be had, [`Error::Forked`].
    pub fn event_fd(&mut self) -> Result<BorrowedFd<'_>> {
        self.stream.attached.check()?;
        let event = match self.event.take() {
            Some(event) => event,
            None => {
                let attached = &self.stream.attached;
                Event::new(self.table.clone(), &attached.ring_file, attached.paths.ring.clone())?
            }
        };
        Ok(self.event.insert(event).descriptor())
    }

    /// Found nothing: sees to it that the descriptor, if there is one, becomes readable when there is something.
    fn arm(&mut self) -> Result<Poll> {
        let Self { stream, table, seat, event, .. } = self;
        let Some(event) = event else { return Ok(Poll::Empty) };
        event.clear()?;
        let (seen, blind) = stream.announce(table);
        let found = match seat.poll_slow(stream, table)? {
            Poll::Empty => stream.look_around(&mut |stream| seat.poll_slow(stream, table))?,
            other => other,
        };
        if let Poll::Empty = found {
            event.arm(seen, blind);
        } else {
            event.signal()?;
        }
        Ok(found)
    }

    fn hand_out(&mut self, poll: Poll) -> Next<'_> {
        let next = self.stream.present(poll);
        if let Next::Closed(closed) = &next {
            self.seat.slot.get().set_told_epoch(closed.epoch);
        }
        next
    }

    /// Returns what comes next; waits for it without end.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    // An iterator lends no records.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Next<'_>> {
        self.next_until(None)
    }

    /// Returns what comes next; waits for it at most so long, and returns [`Next::Empty`] then.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Next<'_>> {
        self.next_until(Instant::now().checked_add(timeout))
    }

    fn next_until(&mut self, deadline: Option<Instant>) -> Result<Next<'_>> {
        self.stream.attached.check()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok(Next::Gap(gap));
        }
        let poll = self.wait_until(deadline)?;
        Ok(self.hand_out(poll))
    }

    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<Poll> {
        let Self { stream, table, seat, wait, .. } = self;
        let waits = stream.waits;
        let poll = stream.wait(*wait, deadline, Some(table), |stream| seat.poll(stream, table))?;
        if stream.waits != waits {
            seat.slot.get().count_waits(stream.waits - waits);
        }
        Ok(poll)
    }

    /// Hands up to `max` records that are there to `handle`, then commits once; returns how many, and why it stopped.
    ///
    /// Stops with [`Next::Empty`] when it has caught up or handed out `max`, and with [`Next::Record`] never. To find out that it has caught
    /// up costs a look at the line that the writer writes next: who waits for lone records is faster with [`try_next`](Self::try_next).
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next). Records handed out before stay handled.
    pub fn drain(&mut self, max: usize, mut handle: impl FnMut(Record<'_>)) -> Result<(usize, Next<'_>)> {
        self.stream.attached.check()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok((0, Next::Gap(gap)));
        }
        let mut count = 0;
        let stopped = loop {
            let burst = self.stream.quick_burst(max - count, &mut |record| {
                handle(record);
                true
            });
            self.seat.dirty |= burst != 0;
            count += burst;
            if count == max {
                if let Some(event) = &self.event {
                    // There may be more: another edge for those who wait for one.
                    event.signal()?;
                }
                break Ok(Poll::Empty);
            }
            let poll = match self.seat.poll(&mut self.stream, &self.table) {
                Ok(Poll::Empty) => self.arm(),
                other => other,
            };
            match poll {
                Ok(Poll::Record(found)) => {
                    handle(self.stream.record(&found));
                    count += 1;
                }
                other => break other,
            }
        };
        if self.seat.auto_commit {
            self.seat.commit(&self.stream, &self.table);
        }
        let poll = stopped?;
        Ok((count, self.hand_out(poll)))
    }

    /// Hands up to `max` records that are there to `handle`, waiting for the first one at most so long (`None`: without end); returns how many
    /// it took, and what there is if it took none.
    ///
    /// `handle` can refuse a record by returning false: it then stays the next one. The records count as handled when more is asked for, as
    /// with [`next`](Self::next); what comes after them (a gap, an end) is left for that call.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next), before any record was handed out.
    #[inline]
    pub fn next_many(
        &mut self,
        max: usize,
        timeout: Option<Duration>,
        mut handle: impl FnMut(Record<'_>) -> bool,
    ) -> Result<(usize, Next<'_>)> {
        self.stream.attached.check()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok((0, Next::Gap(gap)));
        }
        if max == 0 {
            return Ok((0, Next::Empty));
        }
        let mut count = self.stream.quick_burst(max, &mut handle);
        if count == 0 {
            let poll = match timeout {
                Some(Duration::ZERO) => self.poll_once()?,
                timeout => self.wait_until(timeout.and_then(|timeout| Instant::now().checked_add(timeout)))?,
            };
            let Poll::Record(found) = poll else { return Ok((0, self.hand_out(poll))) };
            count = usize::from(self.stream.offer(&found, &mut handle));
        }
        self.seat.dirty = true;
        if count != 0 && count < max {
            count += self.stream.offer_more(max - count, &mut handle);
        }
        Ok((count, Next::Empty))
    }

    /// Moves the cursor past the record returned last: it will not be delivered again, and no longer holds the writer up.
    #[inline]
    pub fn commit(&mut self) {
        if !self.stream.attached.is_forked() {
            self.seat.commit_all(&self.stream, &self.table);
        }
    }

    /// Starts reading elsewhere: after an eviction, or to seek. Returns what is skipped between the next record wanted and the new place.
    ///
    /// [`Start::Resume`] means: where it stands, or as close as the ring allows. Going back starts the reader's books anew. Whatever
    /// was returned before counts as handled from here on, under manual commit too.
    ///
    /// # Errors
    /// [`Error::FutureSequence`], [`Error::Forked`].
    pub fn rejoin(&mut self, start: Start) -> Result<Gap> {
        self.stream.attached.check()?;
        self.seat.rejoin(&mut self.stream, &self.table, start)
    }

    /// Returns the reader's registration.
    pub fn id(&self) -> ReaderId {
        ReaderId(self.slot().id())
    }

    /// Returns the reader's name.
    pub fn name(&self) -> Option<&str> {
        self.seat.name.as_deref()
    }

    /// Returns the reader's class.
    pub fn class(&self) -> Class {
        self.seat.class
    }

    /// Returns the sequence of the next record it will look at.
    pub fn next_sequence(&self) -> u64 {
        self.stream.consumer.next.sequence
    }

    /// Returns the first sequence it was to read.
    pub fn start_sequence(&self) -> u64 {
        self.slot().start()
    }

    /// Returns what was kept for its name and lies before where it asked to start, if anything: sequences that it will not get.
    ///
    /// Never anything after [`Start::Resume`].
    pub fn passed_over(&self) -> Option<Gap> {
        self.seat.passed_over
    }

    /// Returns the epoch: how many writers the bus has had.
    pub fn epoch(&self) -> u64 {
        self.stream.ring().word(at::EPOCH).load(Ordering::Relaxed)
    }

    /// Returns the sequence that the latest writer began with.
    pub fn resumed_at(&self) -> u64 {
        self.stream.ring().get(at::RESUMED_AT)
    }

    /// Returns the largest payload the bus takes, in bytes.
    pub fn max_record(&self) -> usize {
        self.stream.attached.facts.geometry.max_record() as usize
    }

    /// Describes this reader as the table shows it: books, lag and counters. The cursor is that of the last commit.
    ///
    /// `None` if somebody who may write the table has freed the slot under it.
    pub fn info(&self) -> Option<ReaderInfo> {
        let head = self.stream.ring().head();
        ReaderInfo::of(self.slot(), &self.stream.attached.facts.geometry, head.position, head.sequence, true)
    }

    /// Says whether a writer is alive: the kernel's word.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Forked`].
    pub fn writer_alive(&self) -> Result<bool> {
        self.stream.attached.check()?;
        self.stream.attached.writer_alive()
    }

    fn slot(&self) -> Slot<'_> {
        self.seat.slot.get()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.stream.attached.is_forked() {
            self.seat.leave(&self.stream, &self.table);
        }
    }
}
