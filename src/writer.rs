//! The writer: takes over, publishes under a policy, deals with the readers in its way, closes.

use crate::claim::{Batch, Claim};
use crate::error::{Error, PublishError, Result};
use crate::files::{self, Access, Attached, IfTaken, Paths, Role, WriterLocks};
use crate::layout::{self, ring as at};
use crate::options::Memory;
use crate::publish::{Publisher, Refused, Reserved, Warned};
use crate::registry::Registry;
use crate::report::{Gap, Overrun, ReaderId, ReaderInfo, State, WriterEvent};
use crate::ring::Place;
use crate::sync::Ordering;
use crate::sys::{self, LockFile};
use crate::table::Table;
use crate::trace::changed;
use crate::wake;
use crossbeam_utils::Backoff;
use std::collections::VecDeque;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What `publish` does about readers that a record would overrun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Publishes nothing and returns the report.
    #[default]
    Refuse,
    /// Waits for them, at most so long if a time is given, and then returns the report.
    Wait(Option<Duration>),
    /// Evicts them, each told its exact gap; returns the report only if one cannot be evicted (pinned and alive).
    Evict,
}

/// Counters of a bus since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Records published.
    pub published: u64,
    /// Payload bytes published; brought up to date about once a stripe.
    pub bytes: u64,
    /// How often the writer slept for readers.
    pub waits: u64,
    /// How often readers got in the writer's way.
    pub episodes: u64,
    /// Readers evicted by the writer.
    pub evictions: u64,
    /// Dead readers' slots reclaimed by the writer.
    pub reaped: u64,
    /// Writers that took over from one that did not close.
    pub takeovers: u64,
    /// Early warnings given.
    pub warnings: u64,
}

impl Stats {
    pub(crate) fn of(ring: &crate::ring::Ring, published: u64) -> Self {
        Self {
            published,
            bytes: ring.get(at::BYTES),
            waits: ring.get(at::WAITS),
            episodes: ring.get(at::EPISODES),
            evictions: ring.get(at::EVICTIONS),
            reaped: ring.get(at::REAPED),
            takeovers: ring.get(at::TAKEOVERS),
            warnings: ring.get(at::WARNINGS),
        }
    }
}

/// How often a call clears readers out of its way before it takes them for what they are: somebody who may write the table puts them there.
const ROUNDS: u32 = 32;
/// Longest sleep of a writer that waits for readers: what bounds the harm of a lost or late wake.
const LONGEST_SLEEP: Duration = Duration::from_millis(1);
/// Events kept for [`Writer::events`]; older ones are counted and dropped.
const MAX_EVENTS: usize = 1024;

/// The one writer of a bus.
///
/// Moves between threads, is used by one at a time. Dropping it without [`close`](Self::close) leaves the stream open, as a crash would:
/// readers keep their places and wait for the next writer.
pub struct Writer {
    pub(crate) publisher: Publisher,
    pub(crate) attached: Attached,
    pub(crate) table: Table,
    policy: Policy,
    epoch: u64,
    resumed_at: u64,
    events: VecDeque<WriterEvent>,
    dropped_events: u64,
    /// Whether readers are known to be in the way, so that the episode is reported once.
    in_episode: bool,
    table_locks: LockFile,
    _locks: WriterLocks,
}

impl Writer {
    /// Opens a bus and becomes its writer, going on where the last one stopped or died.
    ///
    /// # Errors
    /// [`Error::WriterBusy`] while another writer is alive; [`Error::NotFound`], [`Error::NotReady`], [`Error::NotABus`],
    /// [`Error::Incompatible`], [`Error::Corrupt`], [`Error::Permission`] from the files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::enter(path.as_ref(), IfTaken::Fail)
    }

    /// Waits until the bus has no writer (the kernel says so the moment the other is gone, whatever it died of), then becomes it.
    ///
    /// # Errors
    /// As [`open`](Self::open), without [`Error::WriterBusy`].
    pub fn standby(path: impl AsRef<Path>) -> Result<Self> {
        Self::enter(path.as_ref(), IfTaken::Wait)
    }

    /// As [`standby`](Self::standby), but a signal handler that ran in this thread ends the wait, if it was installed without `SA_RESTART`.
    ///
    /// # Errors
    /// As [`standby`](Self::standby); [`Error::Io`] of the kind [`Interrupted`](std::io::ErrorKind::Interrupted) after a signal.
    pub fn standby_until_signal(path: impl AsRef<Path>) -> Result<Self> {
        Self::enter(path.as_ref(), IfTaken::WaitUntilSignal)
    }

    fn enter(path: &Path, if_taken: IfTaken) -> Result<Self> {
        let paths = Paths::of(path);
        // Whatever is wrong with the ring is said before a lock file is made beside it.
        drop(files::attach_ring(path, Role::Writer)?);
        let mode =
            fs::symlink_metadata(path).map_err(|source| Error::io("look at", path, source))?.permissions().mode();
        let locks = WriterLocks::take(&paths, Access { mode: mode & 0o666, group: None }, if_taken)?;
        Self::with_locks(path, locks, Memory::default())
    }

    pub(crate) fn with_locks(path: &Path, mut locks: WriterLocks, memory: Memory) -> Result<Self> {
        let (attached, table) = match files::attach(path, Role::Writer) {
            Err(Error::NotReady { .. }) => {
                files::finish_replacement(&Paths::of(path))?;
                files::attach(path, Role::Writer)?
            }
            other => other?,
        };
        locks.show_presence(&attached)?;
        attached.prepare_memory(memory, Role::Writer)?;
        let table_locks = attached.table_locks()?;
        let fences = !sys::register_light_fences();
        let publisher = Publisher::take_over(&attached.ring, &table, fences)
            .map_err(|(field, expected, found)| Error::Corrupt { path: path.into(), field, expected, found });
        attached.check()?;
        let publisher = publisher?;
        let ring = &attached.ring;
        let (pid, start) = sys::identity();
        let last = ring.get(at::EPOCH);
        if last >= layout::MAX_POSITION {
            return Err(Error::Corrupt {
                path: path.into(),
                field: "the epoch",
                expected: layout::MAX_POSITION,
                found: last,
            });
        }
        if last != 0 && ring.get(at::CLOSED_EPOCH) != last {
            ring.set(at::TAKEOVERS, ring.get(at::TAKEOVERS).wrapping_add(1));
            changed!(
                warn,
                "takeover",
                path,
                epoch = last + 1,
                left_by = ring.get(at::WRITER_PID),
                sequence = publisher.head.sequence,
            );
        }
        let resumed_at = publisher.head.sequence;
        ring.set(at::WRITER_PID, pid);
        ring.set(at::WRITER_START, start);
        ring.set(at::RESUMED_AT, resumed_at);
        ring.set(at::WAITING, 0);
        // Whoever meant to remove or replace this ring died before it did: its path leads here.
        ring.set(at::STATE, 0);
        ring.set(at::FENCES, u64::from(fences));
        // Release, so that who sees the new epoch sees whose it is.
        ring.word(at::EPOCH).store(last + 1, Ordering::Release);
        // Whoever slept through the change of writers looks again.
        wake::wake(&table);
        changed!(info, "attached", path, role = "writer", epoch = last + 1, sequence = resumed_at);
        Ok(Self {
            publisher,
            attached,
            table,
            policy: Policy::default(),
            epoch: last + 1,
            resumed_at,
            events: VecDeque::new(),
            dropped_events: 0,
            in_episode: false,
            table_locks,
            _locks: locks,
        })
    }

    /// Returns the sequence this writer began with: everything before it was published by its predecessors.
    pub fn resumed_at(&self) -> u64 {
        self.resumed_at
    }

    /// Returns how many writers the bus has had, this one included.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the sequence the next record will have.
    pub fn next_sequence(&self) -> u64 {
        self.publisher.head.sequence
    }

    /// Returns the largest payload in bytes.
    pub fn max_record(&self) -> usize {
        self.attached.facts.geometry.max_record() as usize
    }

    /// Returns the ring's size in bytes.
    pub fn capacity(&self) -> u64 {
        self.attached.facts.geometry.capacity
    }

    /// Returns the path of the bus.
    pub fn path(&self) -> &Path {
        &self.attached.paths.ring
    }

    /// Sets what `publish` does about readers in the way.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Returns the standing policy.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    // ---- publishing ---------------------------------------------------------------------------------------------

    #[inline(always)]
    pub(crate) fn check(&self) -> std::result::Result<(), PublishError> {
        Ok(self.attached.check()?)
    }

    /// Publishes a record unless it would overrun a reader; returns its sequence.
    ///
    /// # Errors
    /// [`PublishError::WouldOverrun`] with every reader in the way; nothing was written. [`PublishError::TooLarge`],
    /// [`PublishError::Exhausted`], [`PublishError::Forked`].
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        self.publish_by(Policy::Refuse, 0, payload)
    }

    /// As [`try_publish`](Self::try_publish), with a tag that readers can filter on.
    ///
    /// # Errors
    /// As [`try_publish`](Self::try_publish).
    #[inline]
    pub fn try_publish_tagged(&mut self, tag: u32, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        self.publish_by(Policy::Refuse, tag, payload)
    }

    /// Publishes a record under the standing policy; returns its sequence.
    ///
    /// # Errors
    /// As [`try_publish`](Self::try_publish), after the policy has had its say.
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        self.publish_by(self.policy, 0, payload)
    }

    /// As [`publish`](Self::publish), with a tag that readers can filter on.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline]
    pub fn publish_tagged(&mut self, tag: u32, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        self.publish_by(self.policy, tag, payload)
    }

    /// Does what [`publish_tagged`](Self::publish_tagged) does as long as nothing special is to be done; at `None` nothing has happened yet, and
    /// that knows better. For the C interface, which would only take results apart again.
    #[doc(hidden)]
    #[inline(always)]
    pub fn publish_plainly(&mut self, tag: u32, payload: &[u8]) -> Option<u64> {
        if self.attached.is_disturbed() {
            return None;
        }
        self.publisher.publish(&self.attached.ring, &self.table, tag, payload)
    }

    #[inline(always)]
    fn publish_by(&mut self, policy: Policy, tag: u32, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        match self.publish_plainly(tag, payload) {
            Some(sequence) => Ok(sequence),
            None => self.publish_slow(policy, tag, payload),
        }
    }

    /// Publishes a record for which a reader may just have made room, if it has and nothing else is to be done.
    #[cold]
    #[inline(never)]
    fn publish_slow(&mut self, policy: Policy, tag: u32, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        self.check()?;
        // Who waits for readers waits for more than one record's room.
        let waits = matches!(policy, Policy::Wait(_));
        if !waits
            && self.publisher.follow_readers(&self.attached.ring, &self.table, payload.len())
            // Not if the table went away under that look: it would have held nobody up.
            && let Some(sequence) = self.publish_plainly(tag, payload)
        {
            self.in_episode = false;
            self.note_warnings();
            return Ok(sequence);
        }
        self.publish_slowest(policy, tag, payload)
    }

    #[cold]
    #[inline(never)]
    fn publish_slowest(&mut self, policy: Policy, tag: u32, payload: &[u8]) -> std::result::Result<u64, PublishError> {
        let reserved = self.reserve_slow(policy, self.publisher.head, payload.len())?;
        let sequence = self.publisher.write(&self.attached.ring, &self.table, reserved, tag, payload);
        self.publisher.open_fast_path(&self.attached.ring);
        Ok(sequence)
    }

    /// Publishes several slices as one record, under the standing policy; returns its sequence.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub fn publish_vectored(&mut self, tag: u32, parts: &[&[u8]]) -> std::result::Result<u64, PublishError> {
        self.check()?;
        let length = parts.iter().map(|part| part.len()).sum();
        let reserved = match self.publisher.reserve(length) {
            Some(reserved) => reserved,
            None => self.reserve_slow(self.policy, self.publisher.head, length)?,
        };
        let sequence = self.publisher.write_parts(&self.attached.ring, &self.table, reserved, tag, parts);
        self.publisher.open_fast_path(&self.attached.ring);
        Ok(sequence)
    }

    /// Publishes a plain value under the standing policy; returns its sequence.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[cfg(feature = "typed")]
    #[inline]
    pub fn publish_value<T: bytemuck::NoUninit>(&mut self, value: &T) -> std::result::Result<u64, PublishError> {
        self.publish(bytemuck::bytes_of(value))
    }

    /// Claims room for a record of `length` bytes, to be written in place, under the standing policy.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline(always)]
    pub fn claim(&mut self, tag: u32, length: usize) -> std::result::Result<Claim<'_>, PublishError> {
        self.check()?;
        let plain = self.publisher.reserve(length);
        let reserved = match plain {
            Some(reserved) => reserved,
            None => self.reserve_by_policy(self.publisher.head, length)?,
        };
        self.publisher.zero_ahead(&self.attached.ring, reserved);
        Ok(Claim::new(self, reserved, tag, length, plain.is_some()))
    }

    /// Lets the hot path go on at the head, after a claim that was not its own.
    #[cold]
    pub(crate) fn open_fast_path(&mut self) {
        self.publisher.open_fast_path(&self.attached.ring);
    }

    /// Starts a batch: records that become visible together.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    #[cold]
    pub(crate) fn reserve_by_policy(
        &mut self,
        from: Place,
        length: usize,
    ) -> std::result::Result<Reserved, PublishError> {
        self.reserve_slow(self.policy, from, length)
    }

    /// Reserves with everything that the hot path leaves out: wrap, index, limit, and readers in the way.
    fn reserve_slow(
        &mut self,
        policy: Policy,
        from: Place,
        length: usize,
    ) -> std::result::Result<Reserved, PublishError> {
        let mut effort = Effort::default();
        if let Policy::Wait(_) = policy {
            self.publisher.let_readers_gain(&self.table);
        }
        let result = loop {
            let seen = self.table.space_word().load(Ordering::Acquire);
            match self.publisher.reserve_slow(&self.attached.ring, &self.table, from.position, length as u64) {
                Ok(reserved) => break Ok(reserved),
                Err(Refused::TooLarge) => {
                    let max = self.attached.facts.geometry.max_record();
                    break Err(PublishError::TooLarge { length: length as u64, max });
                }
                Err(Refused::Exhausted) => break Err(PublishError::Exhausted),
                Err(Refused::Blocked { cursor }) => {
                    match self.make_way(policy, Blocked { cursor, seen, from, length }, &mut effort) {
                        Ok(()) => {}
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        if effort.wait.is_some() {
            self.attached.ring.set(at::WAITING, 0);
        }
        // A table that is not there any more holds nobody up: nothing is overwritten on its word.
        let result = self.check().and(result);
        if result.is_ok() {
            self.in_episode = false;
        }
        self.note_warnings();
        result
    }

    /// Deals with the readers in the way; on `Ok` the reservation is tried again.
    fn make_way(
        &mut self,
        policy: Policy,
        blocked: Blocked,
        effort: &mut Effort,
    ) -> std::result::Result<(), PublishError> {
        effort.rounds += 1;
        let in_vain = effort.rounds > ROUNDS;
        if !in_vain && self.reap_in_the_way(blocked.cursor)? {
            return Ok(());
        }
        let waited = effort.wait.as_ref().map_or(Duration::ZERO, |wait| wait.since.elapsed());
        if !self.in_episode {
            // What the same scan saw comes before.
            self.note_warnings();
            let overrun = self.overrun(&blocked, waited)?;
            if overrun.readers.is_empty() && !in_vain {
                // They made way just now.
                self.publisher.forget_gate();
                return Ok(());
            }
            self.in_episode = true;
            self.count(at::EPISODES);
            self.note(WriterEvent::Overrun(overrun));
        }
        match policy {
            Policy::Refuse => {}
            Policy::Evict => {
                if !in_vain && self.evict_in_the_way(blocked.cursor)? {
                    return Ok(());
                }
            }
            Policy::Wait(limit) => {
                let left = limit.map(|limit| limit.saturating_sub(waited));
                if left != Some(Duration::ZERO) {
                    self.sleep(&blocked, left, effort);
                    return Ok(());
                }
            }
        }
        let overrun = self.overrun(&blocked, waited)?;
        if overrun.readers.is_empty() && !in_vain {
            self.publisher.forget_gate();
            return Ok(());
        }
        Err(PublishError::WouldOverrun(Box::new(overrun)))
    }

    /// Sleeps until a reader passes the position wanted, for a millisecond at most.
    fn sleep(&mut self, blocked: &Blocked, left: Option<Duration>, effort: &mut Effort) {
        let wait = effort.wait.get_or_insert_with(|| Waiting { since: Instant::now(), backoff: Backoff::new() });
        if !wait.backoff.is_completed() {
            wait.backoff.snooze();
            return;
        }
        // Ask for a stretch rather than one record's room, so that the two sides do not take turns record by record.
        let wanted = (blocked.cursor + self.capacity() / 8).min(self.publisher.head.position);
        self.attached.ring.word(at::WAITING).store(wanted.max(1), Ordering::Relaxed);
        self.count(at::WAITS);
        sys::futex_wait(
            self.table.space_word(),
            blocked.seen,
            left.map_or(LONGEST_SLEEP, |left| left.min(LONGEST_SLEEP)),
        );
        // Who sleeps in between takes no core, and has to find those who die meanwhile.
        effort.rounds = 0;
    }

    /// Reclaims dead readers in the way; true if there were any.
    fn reap_in_the_way(&mut self, cursor: u64) -> Result<bool> {
        let slots: Vec<u32> = self.publisher.in_the_way(&self.table, cursor).collect();
        let mut any = false;
        for slot in slots {
            let reaped = self.registry().reap(self.table.slot(slot), &self.table_locks, self.publisher.head)?;
            any |= self.note_reaped(reaped);
        }
        // Someone may also have left between the scan and this look: then nobody is in the way, and the next try finds out.
        Ok(any || self.publisher.in_the_way(&self.table, cursor).next().is_none() && self.publisher.forget_gate())
    }

    fn note_reaped(&mut self, reaped: Option<ReaderInfo>) -> bool {
        let Some(reader) = reaped else { return false };
        self.publisher.forget_gate();
        self.count(at::REAPED);
        self.note(WriterEvent::Reaped { reader });
        true
    }

    /// Evicts readers in the way; false if one of them cannot be.
    fn evict_in_the_way(&mut self, cursor: u64) -> Result<bool> {
        let head = self.publisher.head;
        let mut victims = Vec::new();
        for slot in self.publisher.in_the_way(&self.table, cursor) {
            match self.registry().info(slot, head)? {
                // Nobody is evicted for a record that one pinned reader keeps out anyway.
                Some(info) if !info.evictable && info.state != State::Evicted => return Ok(false),
                Some(info) => victims.push(info),
                None => {}
            }
        }
        for victim in victims {
            // It may have made way meanwhile, or another may sit there.
            if !self.publisher.is_in_the_way(self.table.slot(victim.slot), cursor) {
                continue;
            }
            match self.registry().evict(self.table.slot(victim.slot), victim.id, head) {
                Ok(evicted) => self.note_evicted(evicted),
                Err(Error::NotEvictable { .. } | Error::WrongState { .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.publisher.forget_gate();
        Ok(true)
    }

    fn note_evicted(&mut self, evicted: Option<ReaderInfo>) {
        if let Some(reader) = evicted {
            self.publisher.forget_gate();
            self.count(at::EVICTIONS);
            let at_most = Gap { first: reader.cursor, end: self.publisher.head.sequence };
            self.note(WriterEvent::Evicted { reader, at_most });
        }
    }

    fn overrun(&self, blocked: &Blocked, waited: Duration) -> Result<Overrun> {
        let registry = self.registry();
        let slots = self.publisher.in_the_way(&self.table, blocked.cursor);
        let mut readers =
            slots.filter_map(|slot| registry.info(slot, blocked.from).transpose()).collect::<Result<Vec<_>>>()?;
        readers.sort_by_key(|reader| std::cmp::Reverse(reader.lag_bytes));
        let needed = self.attached.facts.geometry.record_size(blocked.length as u64);
        Ok(Overrun { sequence: blocked.from.sequence, needed, waited, readers })
    }

    // ---- readers ------------------------------------------------------------------------------------------------

    fn registry(&self) -> Registry<'_> {
        Registry {
            paths: &self.attached.paths,
            table: &self.table,
            ring: &self.attached.ring,
            file: self.table_locks.file(),
        }
    }

    /// Describes every registered reader.
    ///
    /// # Errors
    /// [`Error::Io`] from the locks, [`Error::Forked`].
    pub fn readers(&self) -> Result<Vec<ReaderInfo>> {
        self.attached.check()?;
        self.registry().list(self.publisher.head)
    }

    /// Evicts a reader: it no longer holds the writer up, and is told its gap. False if it was evicted already.
    ///
    /// # Errors
    /// [`Error::NoSuchReader`]; [`Error::NotEvictable`] for a living pinned reader.
    pub fn evict(&mut self, id: ReaderId) -> Result<bool> {
        self.attached.check()?;
        let slot = self.registry().find(id)?.index();
        let evicted = self.registry().evict(self.table.slot(slot), id, self.publisher.head)?;
        let any = evicted.is_some();
        self.note_evicted(evicted);
        Ok(any)
    }

    /// Reclaims the slots of dead readers and returns who they were; named ones are kept as detached.
    ///
    /// # Errors
    /// [`Error::Io`] from the locks.
    pub fn reap(&mut self) -> Result<Vec<ReaderInfo>> {
        self.attached.check()?;
        let reaped = self.registry().reap_all(&self.table_locks, self.publisher.head)?;
        for reader in &reaped {
            self.note_reaped(Some(reader.clone()));
        }
        Ok(reaped)
    }

    /// Takes what was noticed since the last call: warnings, overruns, evictions, reaped readers.
    pub fn events(&mut self) -> Vec<WriterEvent> {
        let mut events: Vec<_> = self.events.drain(..).collect();
        let count = std::mem::take(&mut self.dropped_events);
        if count != 0 {
            events.insert(0, WriterEvent::Coalesced { count });
        }
        events
    }

    fn note(&mut self, event: WriterEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.dropped_events += 1;
        }
        self.events.push_back(event);
    }

    #[inline]
    fn note_warnings(&mut self) {
        if !self.publisher.warned.is_empty() {
            self.note_all_warnings();
        }
    }

    #[cold]
    fn note_all_warnings(&mut self) {
        while let Some(Warned { slot, percent }) = self.publisher.warned.pop() {
            self.count(at::WARNINGS);
            // A probe that fails leaves the reader counted as alive; it is no reason to fail a publish.
            let alive = self.registry().alive(slot).unwrap_or(true);
            let Place { position, sequence } = self.publisher.head;
            let geometry = &self.attached.facts.geometry;
            if let Some(reader) = ReaderInfo::of(self.table.slot(slot), geometry, position, sequence, alive) {
                self.note(WriterEvent::Warning { percent, reader });
            }
        }
    }

    fn count(&self, counter: usize) {
        let ring = &self.attached.ring;
        ring.set(counter, ring.get(counter).wrapping_add(1));
    }

    /// Waits until every gating reader that lives has read all records, at most so long if a time is given. True if they have.
    ///
    /// # Errors
    /// [`Error::Io`] from the locks, [`Error::Forked`].
    pub fn wait_for_readers(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.attached.check()?;
        let head = self.publisher.head;
        let since = Instant::now();
        let done = loop {
            let seen = self.table.space_word().load(Ordering::Acquire);
            self.attached.ring.word(at::WAITING).store(head.position.max(1), Ordering::Relaxed);
            if let Err(error) = self.reap_in_the_way(head.position) {
                self.attached.ring.set(at::WAITING, 0);
                return Err(error);
            }
            let mut behind = self.publisher.in_the_way(&self.table, head.position);
            let registry = self.registry();
            if !behind.any(|slot| registry.alive(slot).unwrap_or(true)) {
                break true;
            }
            let left =
                timeout.map_or(LONGEST_SLEEP, |timeout| timeout.saturating_sub(since.elapsed()).min(LONGEST_SLEEP));
            if left.is_zero() {
                break false;
            }
            sys::futex_wait(self.table.space_word(), seen, left);
        };
        self.attached.ring.set(at::WAITING, 0);
        Ok(done)
    }

    /// Returns the bus's counters.
    pub fn stats(&mut self) -> Stats {
        if !self.attached.is_forked() {
            self.publisher.flush_counters(&self.attached.ring);
        }
        Stats::of(&self.attached.ring, self.publisher.head.sequence)
    }

    // ---- the end ------------------------------------------------------------------------------------------------

    /// Closes the stream: readers drain it and are then told, parked ones at once.
    ///
    /// # Errors
    /// [`Error::Forked`].
    pub fn close(self) -> Result<()> {
        self.close_with(0, "")
    }

    /// As [`close`](Self::close), with a code and a reason of at most 120 bytes for the readers.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a longer reason (the stream then stays open), [`Error::Forked`].
    pub fn close_with(self, code: u32, reason: &str) -> Result<()> {
        self.attached.check()?;
        if reason.len() > layout::MAX_REASON {
            return Err(Error::InvalidOption {
                field: "reason",
                value: format!("{reason:?}"),
                allowed: "at most 120 bytes",
            });
        }
        self.attached.ring.close(self.publisher.head, self.epoch, code, reason);
        wake::wake(&self.table);
        changed!(
            info,
            "closed",
            self.path(),
            epoch = self.epoch,
            sequence = self.publisher.head.sequence,
            code = code,
            reason = reason,
        );
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.attached.is_forked() {
            self.publisher.flush_counters(&self.attached.ring);
            self.attached.ring.set(at::WAITING, 0);
        }
    }
}

/// A reservation that readers are in the way of.
struct Blocked {
    /// Gating cursors below this position are in the way.
    cursor: u64,
    /// The space word before the last look at the cursors.
    seen: u64,
    /// Where the record would go: behind what its batch holds already.
    from: Place,
    length: usize,
}

/// What a call has done so far to get its room.
#[derive(Default)]
struct Effort {
    /// Tries that ended with readers in the way, since the last sleep.
    rounds: u32,
    wait: Option<Waiting>,
}

/// A wait for readers that is under way.
struct Waiting {
    since: Instant,
    backoff: Backoff,
}
