//! Registered readers: attach, read, commit, rejoin, leave.

use crate::consume::Step;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::files::{self, Attached, Role};
use crate::join::join;
use crate::layout::{self, ring as at};
use crate::options::Memory;
use crate::registry::Registry;
use crate::report::{Class, Gap, ReaderId, ReaderInfo};
use crate::ring::{Place, Ring, Seek};
use crate::stream::{Filter, Next, Poll, Record, Start, Stream, Wait};
use crate::sync::Ordering;
use crate::sys::{self, LockFile};
use crate::table::{Control, OwnSlot, Phase, Slot, Table, name_lock_byte};
use crate::wake;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a rejoin is tried while the writer evicts it again and again.
const REJOIN_TRIES: u32 = 16;

/// Describes how a reader attaches.
#[derive(Clone, Debug)]
#[must_use]
pub struct ReaderOptions {
    class: Class,
    start: Start,
    name: Option<String>,
    hold: bool,
    hold_for: Duration,
    wait: Wait,
    auto_commit: bool,
    filter: Filter,
    schema: u64,
    memory: Memory,
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
        let seated = self.sit(&attached, &table, &locks)?;
        let Seated { slot, control, place, told, gap } = seated;
        let stream = Stream::new(attached, place, told, self.filter, self.class != Class::Pinned);
        let seat = Seat {
            slot: table.own(slot),
            control,
            locks,
            class: self.class,
            name: self.name.clone(),
            hold: self.hold,
            auto_commit: self.auto_commit,
            dirty: false,
            gap: gap.map_or(Owed::Nothing, Owed::Gap),
            jump_pending: false,
            evicted: false,
        };
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

    /// Takes a slot and makes it active.
    fn sit(&self, attached: &Attached, table: &Table, locks: &LockFile) -> Result<Seated> {
        let ring = &attached.ring;
        let registry = Registry { paths: &attached.paths, table, ring, file: locks.file() };
        let known = match &self.name {
            Some(name) => registry.claim_name(name, locks)?,
            None => None,
        };
        let resumed = known.filter(|_| self.start == Start::Resume);
        let head = ring.head();
        let slot = match known {
            Some(index) => table.slot(index),
            None => table.slot(registry.claim_free(locks, head)?),
        };
        // What the reader has a right to, and where it can begin.
        let (asked, place) = match resumed {
            Some(_) => {
                let cursor = recover_cursor(ring, slot, head);
                (cursor, attached.not_too_old(ring.seek(Seek::Sequence(cursor))))
            }
            None => attached.start(self.start)?,
        };
        let (epoch, closed_epoch) = (ring.get(at::EPOCH), ring.get(at::CLOSED_EPOCH));
        let mut told = if epoch > closed_epoch { closed_epoch } else { closed_epoch.saturating_sub(1) };
        let mut untold = None;
        if resumed.is_some() {
            slot.discard_jump(asked);
            untold = slot.untold_gap(asked);
            told = slot.told_epoch().min(closed_epoch);
        } else {
            slot.reset_books(asked);
            slot.set_told_epoch(told);
        }
        if known.is_none() {
            slot.reset_counters();
        }
        slot.set_name(self.name.as_deref().unwrap_or(""));
        let hold_for = u64::try_from(self.hold_for.as_nanos()).unwrap_or(u64::MAX);
        slot.set_owner(table.next_id(), sys::identity(), hold_for, sys::wall_clock());

        for _ in 0..REJOIN_TRIES {
            if place.sequence > asked {
                slot.prepare_jump(asked, place.sequence);
            }
            let from = slot.control();
            let joining = from.joining(self.class, self.name.is_some(), self.hold);
            if let Some(place) = join(ring, table, slot, from, joining, place) {
                let gap = Gap { first: untold.unwrap_or(asked).min(asked), end: place.sequence };
                let gap = (!gap.is_empty()).then_some(gap);
                return Ok(Seated { slot: slot.index(), control: joining.with(Phase::Active), place, told, gap });
            }
        }
        Err(Error::WrongState { what: "join", why: "the writer evicted this reader each time before it was active" })
    }
}

/// A slot just taken.
struct Seated {
    slot: u32,
    control: Control,
    place: Place,
    told: u64,
    gap: Option<Gap>,
}

/// The sequence of a cursor whose owner may have died between its two words: the header at the position decides; if that is
/// gone, the older word counts, so that a gap may be told too long and never too short.
fn recover_cursor(ring: &Ring, slot: Slot<'_>, head: Place) -> u64 {
    let (position, sequence) = slot.cursor();
    let sequence = sequence.min(head.sequence);
    if position > head.position || !position.is_multiple_of(layout::ALIGN) {
        return sequence;
    }
    if position == head.position {
        return head.sequence;
    }
    let commit = ring.commit_word(position).load(Ordering::Acquire);
    let own = ring.sequence_word(position).load(Ordering::Relaxed);
    if commit != 0 && ring.intact(position) && own >= sequence && own <= head.sequence { own } else { sequence }
}

impl Attached {
    /// Turns a start into what was asked for and where it can begin.
    pub(crate) fn start(&self, start: Start) -> Result<(u64, Place)> {
        let ring = &self.ring;
        let (asked, place) = match start {
            Start::Latest => {
                let head = ring.head();
                return Ok((head.sequence, head));
            }
            Start::Oldest | Start::Resume => {
                let oldest = ring.seek(Seek::Oldest);
                (oldest.sequence, oldest)
            }
            Start::After(sequence) => {
                let next = ring.head().sequence;
                if sequence >= next {
                    return Err(Error::FutureSequence { asked: sequence, next });
                }
                (sequence + 1, ring.seek(Seek::Sequence(sequence + 1)))
            }
            Start::Since(time) => {
                let place = ring.seek(Seek::Time(sys::nanos_of(time)));
                (place.sequence, place)
            }
        };
        Ok((asked, self.not_too_old(place)))
    }

    /// Moves a place up to the first record that is not older than the bus replays.
    pub(crate) fn not_too_old(&self, place: Place) -> Place {
        if self.facts.max_age == 0 {
            return place;
        }
        let young = self.ring.seek(Seek::Time(sys::wall_clock().saturating_sub(self.facts.max_age)));
        if young.sequence > place.sequence { young } else { place }
    }

    pub(crate) fn check_schema(&self, wanted: u64) -> Result<()> {
        if wanted == 0 || wanted == self.facts.schema {
            return Ok(());
        }
        let path = self.paths.ring.clone();
        Err(Error::Incompatible { path, field: "the schema id", expected: wanted, found: self.facts.schema })
    }

    pub(crate) fn prepare_memory(&self, memory: Memory, role: Role) -> Result<()> {
        let map = self.ring.map();
        if memory.prefault {
            map.prefault(&self.paths.ring, role == Role::Writer)?;
        }
        if memory.lock {
            map.lock(&self.paths.ring)?;
        }
        Ok(())
    }
}

/// A registered reader's place in the table, and what it owes it.
struct Seat {
    slot: OwnSlot,
    /// The control word while all is well.
    control: Control,
    locks: LockFile,
    class: Class,
    name: Option<String>,
    hold: bool,
    auto_commit: bool,
    /// Whether something was handed out, or skipped, and is not committed.
    dirty: bool,
    gap: Owed,
    /// Whether a jump over a gap waits for the application's commit.
    jump_pending: bool,
    evicted: bool,
}

/// What the application has to be told, or has been told, of the latest gap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// To be told.
    Gap(Gap),
    /// Told; its next call shows that it knows.
    Receipt,
}

impl Seat {
    /// Moves the cursor to where the stream is.
    #[inline(always)]
    fn commit(&mut self, stream: &Stream, table: &Table) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        let next = stream.consumer.next;
        self.slot.get().move_cursor(next.position, next.sequence);
        let waiting = stream.ring().word(at::WAITING).load(Ordering::Relaxed);
        if waiting != 0 && next.position >= waiting {
            wake::wake_writer(table);
        }
    }

    /// What every call for more begins with: the records handed out before count as handled.
    #[inline(always)]
    fn begin(&mut self, stream: &Stream, table: &Table) -> Option<Gap> {
        if self.auto_commit {
            self.commit(stream, table);
        }
        if self.gap == Owed::Nothing { None } else { self.settle_gap() }
    }

    #[cold]
    fn settle_gap(&mut self) -> Option<Gap> {
        match std::mem::replace(&mut self.gap, Owed::Nothing) {
            Owed::Gap(gap) => {
                self.gap = Owed::Receipt;
                Some(gap)
            }
            Owed::Receipt => {
                self.slot.get().gap_told();
                None
            }
            Owed::Nothing => None,
        }
    }

    /// Looks for the next record, gap or end.
    #[inline(always)]
    fn poll(&mut self, stream: &mut Stream, table: &Table) -> Result<Poll> {
        if let Some(found) = stream.quick() {
            self.dirty = true;
            return Ok(Poll::Record(found));
        }
        self.poll_slow(stream, table)
    }

    /// The same, for whatever is not just the next record.
    #[inline(never)]
    fn poll_slow(&mut self, stream: &mut Stream, table: &Table) -> Result<Poll> {
        match stream.step()? {
            Step::Record(found) => {
                self.dirty = true;
                Ok(Poll::Record(found))
            }
            other => self.poll_other(stream, table, &other),
        }
    }

    /// Everything but a record.
    fn poll_other(&mut self, stream: &mut Stream, table: &Table, step: &Step) -> Result<Poll> {
        let slot = self.slot.get();
        if slot.control() != self.control {
            self.evicted = true;
            let oldest = stream.ring().seek(Seek::Oldest).sequence;
            let first = stream.consumer.next.sequence;
            return Ok(Poll::Evicted(Gap { first, end: oldest.max(first) }));
        }
        match step {
            Step::Closed => Ok(Poll::Closed),
            Step::Lapped => Ok(Poll::Gap(self.jump(stream, table))),
            _ => {
                // Padding and records skipped by the filter are done with, unless something handed out waits for its commit.
                if (self.auto_commit || !self.dirty) && stream.consumer.next.position != slot.position() {
                    self.dirty = true;
                    self.commit(stream, table);
                }
                Ok(stream.on_empty())
            }
        }
    }

    /// Moves a lapped reader up. The gap stays on record until the application comes back for more.
    fn jump(&mut self, stream: &mut Stream, table: &Table) -> Gap {
        if self.jump_pending {
            // The slot can keep one jump ahead of the cursor, so a second one commits the first.
            self.dirty = true;
            self.commit(stream, table);
        }
        let gap = stream.move_up();
        self.slot.get().prepare_jump(gap.first, gap.end);
        self.dirty = true;
        self.jump_pending = !self.auto_commit;
        if self.auto_commit {
            self.commit(stream, table);
        }
        self.gap = Owed::Receipt;
        gap
    }
}

/// A registered reader.
///
/// Each record reaches it once, in order, or it is told exactly which ones did not. Moves between threads, is used by one at a
/// time. Dropping it gives its slot back, or keeps it for its name.
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
    /// [`Error::Corrupt`], [`Error::Forked`].
    #[inline]
    pub fn try_next(&mut self) -> Result<Next<'_>> {
        self.stream.check_fork()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok(Next::Gap(gap));
        }
        if let Some(found) = self.stream.quick() {
            self.seat.dirty = true;
            return Ok(Next::Record(self.stream.record(&found)));
        }
        self.try_next_slow()
    }

    #[inline(never)]
    fn try_next_slow(&mut self) -> Result<Next<'_>> {
        let poll = match self.seat.poll_slow(&mut self.stream, &self.table)? {
            Poll::Empty => self.arm()?,
            other => other,
        };
        Ok(self.hand_out(poll))
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
        self.stream.check_fork()?;
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
            Poll::Empty => stream.look_around()?.unwrap_or(Poll::Empty),
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
        self.stream.check_fork()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok(Next::Gap(gap));
        }
        let Self { stream, table, seat, wait, .. } = self;
        let waits = stream.waits;
        let poll = stream.wait(*wait, deadline, Some(table), |stream| seat.poll(stream, table))?;
        if stream.waits != waits {
            seat.slot.get().count_waits(stream.waits - waits);
        }
        Ok(self.hand_out(poll))
    }

    /// Hands up to `max` records that are there to `handle`, then commits once; returns how many, and why it stopped.
    ///
    /// Stops with [`Next::Empty`] when it has caught up or handed out `max`, and with [`Next::Record`] never.
    ///
    /// # Errors
    /// As [`try_next`](Self::try_next). Records handed out before stay handled.
    pub fn drain(&mut self, max: usize, mut handle: impl FnMut(Record<'_>)) -> Result<(usize, Next<'_>)> {
        self.stream.check_fork()?;
        if let Some(gap) = self.seat.begin(&self.stream, &self.table) {
            return Ok((0, Next::Gap(gap)));
        }
        let mut count = 0;
        let stopped = loop {
            let burst = self.stream.quick_burst(max - count, &mut handle);
            self.seat.dirty |= burst != 0;
            count += burst;
            if count == max {
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

    /// Moves the cursor past the record returned last: it will not be delivered again, and no longer holds the writer up.
    #[inline]
    pub fn commit(&mut self) {
        if !self.stream.forked() {
            self.seat.jump_pending = false;
            self.seat.dirty = true;
            self.seat.commit(&self.stream, &self.table);
        }
    }

    /// Starts reading elsewhere: after an eviction, or to seek. Returns what is skipped between the next record wanted and the new place.
    ///
    /// [`Start::Resume`] means: where it stands, or as close as the ring allows. Going back starts the reader's books anew.
    ///
    /// # Errors
    /// [`Error::FutureSequence`], [`Error::Forked`].
    pub fn rejoin(&mut self, start: Start) -> Result<Gap> {
        self.stream.check_fork()?;
        let Self { stream, table, seat, .. } = self;
        let next = stream.consumer.next.sequence;
        let (asked, mut place) = match start {
            Start::Resume => (next, stream.attached.not_too_old(stream.ring().seek(Seek::Sequence(next)))),
            start => stream.attached.start(start)?,
        };
        let first = asked.min(next);
        let slot = seat.slot.get();
        for _ in 0..REJOIN_TRIES {
            if asked < next {
                slot.reset_books(asked);
            } else {
                slot.discard_jump(next);
                slot.move_cursor(slot.position(), next);
            }
            if place.sequence > first {
                slot.prepare_jump(first, place.sequence);
            }
            let from = slot.control();
            let joining = from.joining(seat.class, seat.name.is_some(), seat.hold);
            if let Some(settled) = join(&stream.attached.ring, table, slot, from, joining, place) {
                seat.control = joining.with(Phase::Active);
                seat.evicted = false;
                seat.dirty = false;
                seat.jump_pending = false;
                seat.gap = Owed::Nothing;
                slot.gap_told();
                stream.consumer.go_to(settled);
                return Ok(Gap { first: first.min(settled.sequence), end: settled.sequence });
            }
            place = stream.attached.ring.seek(Seek::Sequence(place.sequence));
        }
        Err(Error::WrongState { what: "rejoin", why: "the writer evicted this reader each time before it was active" })
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

    /// Returns the epoch: how many writers the bus has had.
    pub fn epoch(&self) -> u64 {
        self.stream.ring().word(at::EPOCH).load(Ordering::Relaxed)
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
        self.stream.check_fork()?;
        self.stream.attached.writer_alive()
    }

    fn slot(&self) -> Slot<'_> {
        self.seat.slot.get()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.stream.forked() {
            return;
        }
        if self.seat.auto_commit && !std::thread::panicking() && !self.seat.evicted {
            self.seat.commit(&self.stream, &self.table);
        }
        let slot = self.seat.slot.get();
        slot.set_detached_at(sys::boot_clock());
        loop {
            let control = slot.control();
            let next = match control.phase() {
                _ if self.seat.name.is_none() => Phase::Free,
                Phase::Evicted => break,
                _ => Phase::Detached,
            };
            if slot.transition(control, control.with(next)) {
                break;
            }
        }
        wake::wake_writer(&self.table);
        // The locks go with the descriptor; a name's lock is given back first, so that nobody finds the name taken and the slot free.
        if let Some(name) = &self.seat.name
            && let Err(error) = self.seat.locks.unlock(&self.stream.attached.paths.table, name_lock_byte(name))
        {
            debug_assert!(false, "{error}");
        }
    }
}
