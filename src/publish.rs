//! The writer's half of the protocol: reserve, write, commit, and extend the limit without overrunning anyone.
//!
//! Nothing here knows of files, locks or clocks of the kernel, so the models run this very code.
//!
//! # The hot path
//!
//! The writer works its way through a [`Window`]: the words from head to the next stripe boundary, or to the limit if that comes first.
//! What fits into it, zero ahead included, needs nothing special: no wrap, no index entry, no reader to think of. So the one
//! comparison that checks the bounds decides all of that, and stands for whatever else the slow path is for (time stamps,
//! a writer that has to fence, a batch under way): then the window is shut. Everything that does not fit goes through
//! [`Publisher::reserve_slow`], about once a stripe.
//!
//! # Extending the limit
//!
//! The writer may write below `limit`. To raise it, it needs a *gate*: no gating cursor plus capacity lies lower. A gate
//! built by a scan goes stale when a reader joins behind it. The joiner announces itself (slot, then counter), the writer announces
//! what it wants (`intent`), each fences, and each looks at the other's word:
//!
//! 1. joiner's bump before the writer's look at the counter: the writer scans again and lowers intent to what the joiner allows;
//! 2. the writer's intent before the joiner's look: the joiner moves up above `intent - capacity`, and reports the gap;
//! 3. both: the joiner may move up without need, which costs it a reported gap, and never a silent one.
//!
//! Neither is impossible: that is what the two `SeqCst` fences exclude. One word for limit and intent fails: a retracted
//! limit makes validating readers discard what is intact, and a writer that dies between raise and retract leaves a lie.

use crate::layout::{
    ALIGN, ALIGN_WORDS, CACHE_LINE, Commit, Geometry, MAX_POSITION, RECORD_HEADER_WORDS, filled_words, ring as at,
    table,
};
use crate::map::{Filler, Window, prefetch_write, store_bytes};
use crate::ring::{Place, Ring};
use crate::sync::{AtomicU64, Ordering, fence, hint, light_fence};
use crate::sys;
use crate::table::{Phase, Slot, Table};
use crate::wake;

/// Why a reservation failed; nothing was changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Gating cursors below this position are in the way.
    Blocked {
        cursor: u64,
    },
    TooLarge,
    Exhausted,
}

/// A reserved stretch of the ring.
#[derive(Clone, Copy)]
pub(crate) struct Reserved {
    /// Where the stream was before; a padding record goes here if the record itself wraps.
    pub(crate) from: u64,
    /// Where the record starts.
    pub(crate) start: u64,
    /// Where the next one will.
    pub(crate) end: u64,
    /// Whether it reaches a stripe boundary, and so owes the index an entry.
    crossing: bool,
}

/// A gating reader's lag crossed a threshold (percent of the ring).
pub(crate) struct Warned {
    pub(crate) slot: u32,
    pub(crate) percent: u8,
}

/// The writer's state: what only it writes, kept locally, and what it last saw of the readers.
pub(crate) struct Publisher {
    pub(crate) head: Place,
    /// What the hot path may write, from head on; see the module's head.
    window: Window,
    /// The same for a batch, from its next record on.
    batch: Window,
    limit: u64,
    geometry: Geometry,
    /// Whether readers cannot make this process fence, so that it must by itself.
    fences: bool,
    /// Payload bytes not yet added to the header's counter.
    bytes: u64,
    gate: Gate,
    /// Whether the last raise of the limit got less than it wanted, because of a reader.
    starved: bool,
    pub(crate) warned: Vec<Warned>,
}

/// What the last scan found: nobody's cursor was below `lowest`.
struct Gate {
    /// Lowest gating cursor.
    lowest: u64,
    /// Its slot, and the lowest cursor of all others: between scans only the slowest is looked at again.
    slowest: Option<u32>,
    runner_up: u64,
    /// Slots that gated at the scan. Complete while the registration counter stands.
    gating: Vec<u32>,
    /// Registration counter before the scan that built `gating`.
    registrations: u64,
    /// Limit at which the next scan is due, for warnings.
    next_scan: u64,
    /// Highest threshold warned of, by slot.
    warned: Vec<u8>,
}

/// How far ahead of the next record lines are fetched for writing, in bytes: those of a lap ago are in the readers' caches, and the store buffer
/// alone reaches only some lines ahead.
const PREFETCH: usize = 512;
/// Bytes that one record fetches at most.
const PREFETCHED: usize = 8192;

/// How often, and how many pauses apart, a writer with a full ring looks whether its slowest reader has gained.
const GAIN_LOOKS: u32 = 32;
const GAIN_PAUSES: u32 = 16;

/// Thresholds of the early warning, in percent of the ring.
const THRESHOLDS: [u8; 3] = [90, 75, FIRST_THRESHOLD];
const FIRST_THRESHOLD: u8 = 50;

impl Gate {
    /// Nothing below this position plus the ring is wanted by anyone.
    fn limit(&self, capacity: u64) -> u64 {
        self.lowest + capacity
    }
}

impl Publisher {
    /// Goes on where the ring's words say the stream stands. Called with the writer's lock held.
    ///
    /// `Err` names the field that contradicts the others: field, expected, found.
    pub(crate) fn take_over(ring: &Ring, table: &Table, fences: bool) -> Result<Self, (&'static str, u64, u64)> {
        let geometry = ring.geometry;
        let (head, limit) = (ring.get(at::HEAD), ring.get(at::LIMIT));
        if !head.is_multiple_of(ALIGN) || head >= MAX_POSITION {
            return Err(("head", MAX_POSITION, head));
        }
        if !limit.is_multiple_of(ALIGN) || limit < head || limit - head > geometry.capacity {
            return Err(("limit", head, limit));
        }
        let sequence = ring.get(at::HEAD_SEQUENCE);
        if sequence > MAX_POSITION {
            return Err(("the head's sequence", MAX_POSITION, sequence));
        }
        let head = walk_to_tip(ring, Place { position: head, sequence }, limit);
        ring.void_entries_above(head.position);
        ring.set(at::INTENT, limit);
        let gate = Gate {
            lowest: 0,
            slowest: None,
            runner_up: 0,
            gating: Vec::with_capacity(geometry.slots as usize),
            registrations: table.registrations().wrapping_sub(1),
            next_scan: 0,
            warned: vec![0; geometry.slots as usize],
        };
        let (window, batch) = (ring.map().no_window(), ring.map().no_window());
        let mut publisher =
            Self { head, window, batch, limit, geometry, fences, bytes: 0, gate, starved: false, warned: Vec::new() };
        publisher.store_head(ring, head);
        publisher.open_fast_path(ring);
        Ok(publisher)
    }

    /// Publishes a record that needs nothing special; `None` leaves it to the slow path.
    #[inline(always)]
    pub(crate) fn publish(&mut self, ring: &Ring, table: &Table, tag: u32, payload: &[u8]) -> Option<u64> {
        let (commit_word, words) = fill(&mut self.window, self.head.sequence, payload)?;
        show(commit_word, words, tag, payload.len());
        Some(self.shown(ring, table, words, payload.len()))
    }

    /// Makes a claimed record visible that [`Self::reserve`] made room for, at its full length.
    #[inline(always)]
    pub(crate) fn publish_claimed(&mut self, ring: &Ring, table: &Table, tag: u32, length: usize) -> Option<u64> {
        let words = RECORD_HEADER_WORDS + filled_words(length);
        let [commit_word, sequence_word, ..] = self.window.take(words, 0)? else { return None };
        sequence_word.store(self.head.sequence, Ordering::Relaxed);
        show(commit_word, words, tag, length);
        Some(self.shown(ring, table, words, length))
    }

    /// Moves head past a record that was made visible, and wakes; returns its sequence.
    #[inline(always)]
    fn shown(&mut self, ring: &Ring, table: &Table, words: usize, length: usize) -> u64 {
        let Place { position, sequence } = self.head;
        self.bytes += length as u64;
        self.store_head(ring, Place { position: position + words as u64 * 8, sequence: sequence + 1 });
        light_fence();
        self.wake_sleepers(ring, table);
        sequence
    }

    /// Writes a batch's next record, without its commit word if it is `hidden`, if it needs nothing special; returns its size.
    ///
    /// The batch has opened its window with [`Self::open_batch`].
    #[inline(always)]
    pub(crate) fn push(&mut self, sequence: u64, commit: Commit, payload: &[u8], hidden: bool) -> Option<u64> {
        let (commit_word, words) = fill(&mut self.batch, sequence, payload)?;
        if !hidden {
            // Relaxed: nobody comes here but past the word of the batch's first record, whose Release comes later.
            commit_word.store(commit.0, Ordering::Relaxed);
        }
        fetch_ahead(commit_word, words);
        Some(words as u64 * 8)
    }

    /// Reserves room at the head if nothing special is to be done; nothing is visible and nothing committed.
    #[inline(always)]
    pub(crate) fn reserve(&self, length: usize) -> Option<Reserved> {
        let start = self.head.position;
        // A length beyond any bound is above this one too, and the slow path refuses it.
        let size = self.geometry.record_size((length as u64).min(MAX_POSITION));
        let fits = size as usize / 8 + ALIGN_WORDS <= self.window.len();
        fits.then_some(Reserved { from: start, start, end: start + size, crossing: false })
    }

    /// Reserves a record that starts at or above `from` (above head inside a batch).
    ///
    /// The hot path is closed until [`Self::open_fast_path`], so that a reservation which is forgotten costs a look and no more.
    #[cold]
    pub(crate) fn reserve_slow(
        &mut self,
        ring: &Ring,
        table: &Table,
        from: u64,
        length: u64,
    ) -> Result<Reserved, Refused> {
        let capacity = self.geometry.capacity;
        if length > self.geometry.max_record() {
            return Err(Refused::TooLarge);
        }
        let size = self.geometry.record_size(length);
        let to_end = capacity - (from & (capacity - 1));
        let start = if size <= to_end { from } else { from + to_end };
        let end = start + size;
        if end + ALIGN >= MAX_POSITION {
            return Err(Refused::Exhausted);
        }
        if end + ALIGN > self.limit {
            self.extend(ring, table, end + ALIGN)?;
        }
        self.close_fast_path();
        Ok(Reserved { from, start, end, crossing: end >= self.geometry.boundary_above(from) })
    }

    /// Raises the limit for the next record, if that is all it needs: so a full ring, whose readers make room record by record, costs not much
    /// more than one with room. True if the fast path now holds it.
    #[inline(never)]
    pub(crate) fn follow_readers(&mut self, ring: &Ring, table: &Table, length: usize) -> bool {
        let from = self.head.position;
        let needed = from + self.geometry.record_size((length as u64).min(MAX_POSITION)) + ALIGN;
        let follows = self.starved
            && needed > self.limit
            && needed <= self.plain_below_boundary(from)
            && self.extend(ring, table, needed).is_ok();
        if follows {
            self.open_fast_path(ring);
        }
        follows
    }

    /// Up to where records that start at `from` need nothing special, zero ahead included.
    fn plain_below(&self, from: u64) -> u64 {
        self.plain_below_boundary(from).min(self.limit)
    }

    /// The same if there were no limit.
    fn plain_below_boundary(&self, from: u64) -> u64 {
        let special = self.geometry.stamped || self.fences;
        if special { 0 } else { self.geometry.boundary_above(from) }
    }

    /// Lets the hot path serve the records from head on.
    #[inline]
    pub(crate) fn open_fast_path(&mut self, ring: &Ring) {
        let from = self.head.position;
        let below = self.plain_below(from);
        ring.map().open(&mut self.window, from, below);
    }

    /// Sends the next records at the head through the slow path.
    #[inline]
    pub(crate) fn close_fast_path(&mut self) {
        self.window.shut();
    }

    /// Lets the hot path serve a batch whose next record starts at `from` and that may take `room` more bytes; that of lone records is closed.
    #[inline]
    pub(crate) fn open_batch(&mut self, ring: &Ring, from: u64, room: u64) {
        self.close_fast_path();
        // The zero ahead is nobody's room.
        let below = self.plain_below(from).min(from + room + ALIGN);
        ring.map().open(&mut self.batch, from, below);
    }

    /// Raises the limit to at least `needed`.
    fn extend(&mut self, ring: &Ring, table: &Table, needed: u64) -> Result<(), Refused> {
        let capacity = self.geometry.capacity;
        let want = self.geometry.boundary_above(needed - 1);
        let registrations = table.registrations();
        if registrations != self.gate.registrations {
            // Before intent is stored: a reader that came back must not see one that was only meant until it was noticed, and move up for it.
            self.scan(table, registrations);
        } else if want > self.gate.limit(capacity) || want >= self.gate.next_scan {
            self.look(table, want, needed);
        }
        if needed > self.gate.limit(capacity) {
            return Err(Refused::Blocked { cursor: needed - capacity });
        }
        let target = want.min(self.gate.limit(capacity));
        // The fence pairs with the joiner's, between its bump and its load of intent.
        ring.set(at::INTENT, target);
        fence(Ordering::SeqCst);
        let registrations = table.registrations();
        let target = if registrations == self.gate.registrations {
            target
        } else {
            self.scan(table, registrations);
            let lowered = target.min(self.gate.limit(capacity)).max(self.limit);
            ring.set(at::INTENT, lowered);
            if needed > lowered {
                // Nothing is taken: a reader that joins now need not move up for it.
                ring.set(at::INTENT, self.limit);
                return Err(Refused::Blocked { cursor: needed - capacity });
            }
            lowered
        };
        self.starved = target < want;
        self.limit = target;
        // The fence above is the release that the second fence of `intact` pairs with: who was lapped sees why. The one below keeps every later
        // store to ring and index under the limit; it pairs with the readers' Acquire fence between their copy and their load of limit.
        ring.set(at::LIMIT, target);
        fence(Ordering::Release);
        Ok(())
    }

    /// When the ring is full: gives the slowest reader some microseconds to make room for more than one record.
    ///
    /// A raise of the limit costs both sides a few cache-line transfers. Taken record by record they would be most of the work,
    /// and the reader has a ring full of records to go on with.
    pub(crate) fn let_readers_gain(&self, table: &Table) {
        let Some(slowest) = self.gate.slowest.filter(|_| self.starved) else { return };
        let enough = self.gate.lowest + self.geometry.stripe.min(self.geometry.capacity / 16);
        for _ in 0..GAIN_LOOKS {
            if table.slot(slowest).position() >= enough {
                break;
            }
            for _ in 0..GAIN_PAUSES {
                hint::spin_loop();
            }
        }
    }

    /// Looks at the slowest reader again, and at all of them if that is not enough or a scan is due.
    fn look(&mut self, table: &Table, want: u64, needed: u64) {
        let capacity = self.geometry.capacity;
        if want < self.gate.next_scan
            && let Some(slot) = self.gate.slowest
        {
            let cursor = self.clamp(table.slot(slot).position());
            self.gate.lowest = self.gate.lowest.max(cursor.min(self.gate.runner_up));
            if needed <= self.gate.limit(capacity) {
                return;
            }
        }
        let registrations = table.registrations();
        self.scan(table, registrations);
    }

    /// Builds the gate from every gating cursor. `registrations` was loaded before.
    fn scan(&mut self, table: &Table, registrations: u64) {
        let (head, capacity) = (self.head.position, self.geometry.capacity);
        let mut gating = std::mem::take(&mut self.gate.gating);
        if registrations != self.gate.registrations {
            gating.clear();
            gating.extend(0..self.geometry.slots as u32);
        }
        let (mut lowest, mut runner_up, mut slowest, mut calm) = (u64::MAX, u64::MAX, None, true);
        // Each cursor's line is in its reader's cache: asked for together, they come together.
        gating.iter().for_each(|&index| table.slot(index).prefetch_cursor());
        gating.retain(|&index| {
            let slot = table.slot(index);
            if !gates(slot) {
                // It comes back only by a join, which moves the counter.
                self.gate.warned[index as usize] = 0;
                return false;
            }
            let cursor = self.clamp(slot.position());
            if cursor < lowest {
                (runner_up, lowest, slowest) = (lowest, cursor, Some(index));
            } else {
                runner_up = runner_up.min(cursor);
            }
            calm &= self.warn(index, head - cursor.min(head));
            true
        });
        self.gate.gating = gating;
        self.gate.registrations = registrations;
        self.gate.lowest = lowest.min(head) & !(ALIGN - 1);
        self.gate.runner_up = runner_up.min(head) & !(ALIGN - 1);
        self.gate.slowest = slowest;
        // Cursors only grow, so nobody crosses the first threshold before head is that far above the lowest: until then a scan would find
        // nothing to tell. Where one is crossed already, an eighth of a lap further.
        let (soon, first) = (head + capacity / 8, self.gate.lowest + capacity / 100 * u64::from(FIRST_THRESHOLD));
        self.gate.next_scan = if calm { soon.max(first) } else { soon };
    }

    /// A cursor, kept within what it can honestly be: the table is not trusted.
    fn clamp(&self, cursor: u64) -> u64 {
        cursor.clamp(self.limit.saturating_sub(self.geometry.capacity), self.head.position)
    }

    /// Warns once per episode and threshold; an episode ends below the first threshold's half. Says whether none is under way.
    fn warn(&mut self, slot: u32, lag: u64) -> bool {
        let percent = (lag.saturating_mul(100) / self.geometry.capacity) as u8;
        let told = &mut self.gate.warned[slot as usize];
        match THRESHOLDS.into_iter().find(|&threshold| percent >= threshold) {
            Some(threshold) if threshold > *told => {
                *told = threshold;
                if self.warned.len() < self.geometry.slots as usize * THRESHOLDS.len() {
                    self.warned.push(Warned { slot, percent: threshold });
                }
            }
            None if percent < FIRST_THRESHOLD / 2 => *told = 0,
            _ => {}
        }
        *told == 0
    }

    /// Slots in the way of a cursor position: those that gate below it.
    pub(crate) fn in_the_way<'t>(&self, table: &'t Table, cursor: u64) -> impl Iterator<Item = u32> + use<'t, '_> {
        table.slots().filter(move |&slot| self.is_in_the_way(slot, cursor)).map(|slot| slot.index())
    }

    /// Says whether the reader in a slot gates below a cursor position.
    pub(crate) fn is_in_the_way(&self, slot: Slot<'_>, cursor: u64) -> bool {
        gates(slot) && self.clamp(slot.position()) < cursor
    }

    /// Makes the next reservation look at every slot again, after evictions and reaping.
    ///
    /// Always true, for the end of a condition.
    pub(crate) fn forget_gate(&mut self) -> bool {
        self.gate.next_scan = 0;
        true
    }

    /// The words of a reserved payload of `length` bytes.
    #[inline(always)]
    pub(crate) fn payload<'r>(&self, ring: &'r Ring, reserved: Reserved, length: usize) -> &'r [AtomicU64] {
        ring.payload(reserved.start, length).expect("a reservation never crosses the end of a lap")
    }

    /// The same reservation for a shorter payload.
    pub(crate) fn shorten(&self, reserved: Reserved, length: usize) -> Reserved {
        Reserved { end: reserved.start + self.geometry.record_size(length as u64), ..reserved }
    }

    // ---- writing ----------------------------------------------------------------------------------------------

    /// Writes everything of a record but payload and commit words: zero ahead, sequence, stamp, index.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, ring: &Ring, reserved: Reserved, sequence: u64) {
        self.zero_ahead(ring, reserved);
        ring.sequence_word(reserved.start).store(sequence, Ordering::Relaxed);
        if self.geometry.stamped {
            let now = self.next_time(ring, sys::wall_clock());
            ring.stamp_word(reserved.start).store(now, Ordering::Relaxed);
        }
        if reserved.crossing {
            self.index(ring, reserved, sequence);
        }
    }

    /// Stores the zero ahead: whatever an earlier lap left there is no record. Relaxed, ordered by the commit word's Release.
    ///
    /// It comes first, so that the record's own line is not given up to a polling reader between the stores to it; for a record that is
    /// written in place, that is when it is claimed.
    #[inline(always)]
    pub(crate) fn zero_ahead(&self, ring: &Ring, reserved: Reserved) {
        ring.commit_word(reserved.end).store(0, Ordering::Relaxed);
    }

    /// Writes the index entry of every boundary that the record reaches or crosses, and what else is due once a stripe.
    #[cold]
    fn index(&mut self, ring: &Ring, reserved: Reserved, sequence: u64) {
        self.flush_counters(ring);
        let stripe = self.geometry.stripe;
        let time =
            if self.geometry.stamped { ring.get(at::LATEST_TIME) } else { self.next_time(ring, sys::coarse_clock()) };
        for k in reserved.from / stripe + 1..=reserved.end / stripe {
            // The padding's own start may lie on no boundary, but the record's may: it is then the first at it.
            let end = if k * stripe <= reserved.start && reserved.start != reserved.from {
                Place { position: reserved.start, sequence }
            } else {
                Place { position: reserved.end, sequence: sequence + 1 }
            };
            ring.set_entry(k * stripe, end, time);
        }
    }

    /// A time that never runs backwards.
    fn next_time(&self, ring: &Ring, now: u64) -> u64 {
        let time = now.max(ring.get(at::LATEST_TIME));
        ring.set(at::LATEST_TIME, time);
        time
    }

    /// Stores the commit words of a prepared record: last the one that makes it visible, if `visible`; else returns it.
    ///
    /// Release pairs with the readers' Acquire load of the commit word: who sees it sees payload, sequence and zero ahead.
    #[inline(always)]
    pub(crate) fn seal(&self, ring: &Ring, reserved: Reserved, sequence: u64, commit: Commit, visible: bool) -> Commit {
        if reserved.from == reserved.start {
            if visible {
                ring.commit_word(reserved.start).store(commit.0, Ordering::Release);
            }
            return commit;
        }
        ring.commit_word(reserved.start).store(commit.0, Ordering::Relaxed);
        ring.sequence_word(reserved.from).store(sequence, Ordering::Relaxed);
        if visible {
            ring.commit_word(reserved.from).store(Commit::padding().0, Ordering::Release);
        }
        Commit::padding()
    }

    /// Makes a lone record visible and wakes who sleeps. Returns its sequence.
    #[inline(always)]
    pub(crate) fn commit(&mut self, ring: &Ring, table: &Table, reserved: Reserved, tag: u32, length: usize) -> u64 {
        let sequence = self.head.sequence;
        self.seal(ring, reserved, sequence, Commit::record(tag, length as u64), true);
        prefetch_write(ring.commit_word(reserved.end), PREFETCH);
        self.bytes += length as u64;
        self.advance(ring, table, Place { position: reserved.end, sequence: sequence + 1 });
        sequence
    }

    /// Writes a payload of one piece and makes it visible.
    #[inline(always)]
    pub(crate) fn write(&mut self, ring: &Ring, table: &Table, reserved: Reserved, tag: u32, payload: &[u8]) -> u64 {
        self.prepare(ring, reserved, self.head.sequence);
        store_bytes(self.payload(ring, reserved, payload.len()), payload);
        self.commit(ring, table, reserved, tag, payload.len())
    }

    /// Writes a payload of several pieces and makes it visible.
    pub(crate) fn write_parts(
        &mut self,
        ring: &Ring,
        table: &Table,
        reserved: Reserved,
        tag: u32,
        parts: &[&[u8]],
    ) -> u64 {
        let length = parts.iter().map(|part| part.len()).sum();
        self.prepare(ring, reserved, self.head.sequence);
        let mut filler = Filler::new(self.payload(ring, reserved, length));
        parts.iter().for_each(|part| filler.push(part));
        self.commit(ring, table, reserved, tag, length)
    }

    /// Moves head over what was made visible, and wakes.
    #[inline(always)]
    pub(crate) fn advance(&mut self, ring: &Ring, table: &Table, head: Place) {
        self.store_head(ring, head);
        if self.fences {
            full_fence();
        } else {
            light_fence();
        }
        self.wake_sleepers(ring, table);
    }

    /// Stores head: sequence, then position. Release each pairs with the Acquire loads of [`Ring::head`].
    #[inline(always)]
    fn store_head(&mut self, ring: &Ring, head: Place) {
        self.head = head;
        ring.word(at::HEAD_SEQUENCE).store(head.sequence, Ordering::Release);
        ring.word(at::HEAD).store(head.position, Ordering::Release);
    }

    /// Wakes who sleeps. The fence before it pairs with the sleeper's heavy fence between its store of the flag and its last look.
    #[inline(always)]
    fn wake_sleepers(&mut self, ring: &Ring, table: &Table) {
        let flag = table.sleep_flag().load(Ordering::Relaxed);
        if flag != 0 {
            self.wake(ring, table, flag);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&mut self, ring: &Ring, table: &Table, flag: u64) {
        if flag & table::NEEDS_FENCE != 0 && !self.fences {
            // Somebody cannot make this process fence; from now on it does by itself, and says so.
            self.fences = true;
            self.close_fast_path();
            ring.set(at::FENCES, 1);
        }
        wake::wake(table);
    }

    /// Adds what was counted locally to the header's counters.
    pub(crate) fn flush_counters(&mut self, ring: &Ring) {
        ring.set(at::BYTES, ring.get(at::BYTES).wrapping_add(std::mem::take(&mut self.bytes)));
    }

    /// Counts payload bytes that a batch made visible.
    pub(crate) fn count_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

/// Fetches as many lines further ahead as a record of so many words takes, behind it, so that a stream of them finds its lines there.
#[inline(always)]
fn fetch_ahead(commit_word: &AtomicU64, words: usize) {
    let (end, size) = (words * 8, (words * 8).min(PREFETCHED));
    for line in (0..size).step_by(CACHE_LINE as usize) {
        prefetch_write(commit_word, end + PREFETCH + line);
    }
}

/// Stores the commit word of a record of so many words, and fetches lines for later ones.
///
/// Release pairs with the readers' Acquire load of the commit word: who sees it sees payload, sequence and zero ahead.
#[inline(always)]
fn show(commit_word: &AtomicU64, words: usize, tag: u32, length: usize) {
    commit_word.store(Commit::record(tag, length as u64).0, Ordering::Release);
    fetch_ahead(commit_word, words);
}

/// Writes all of a record but its commit word at the start of a window, which moves past it; returns that word, and how many words it takes.
///
/// `None` if it does not fit with its zero ahead. Only for records without a time stamp.
#[inline(always)]
fn fill<'w>(window: &'w mut Window, sequence: u64, payload: &[u8]) -> Option<(&'w AtomicU64, usize)> {
    let words = RECORD_HEADER_WORDS + filled_words(payload.len());
    let record = window.take(words, ALIGN_WORDS)?;
    // The zero ahead, see `zero_ahead`.
    record[words].store(0, Ordering::Relaxed);
    record[1].store(sequence, Ordering::Relaxed);
    store_bytes(&record[RECORD_HEADER_WORDS..], payload);
    Some((&record[0], words))
}

/// Says whether the reader in a slot holds the writer up at all.
fn gates(slot: Slot<'_>) -> bool {
    let control = slot.control();
    control.class().gates()
        && match control.phase() {
            Phase::Joining | Phase::Active => true,
            Phase::Detached => slot.still_holds(control, sys::boot_clock()),
            Phase::Free | Phase::Evicted => false,
        }
}

/// The fence of a writer that nobody else can make fence: out of line, so that the hot path of all others holds none.
#[cold]
#[inline(never)]
fn full_fence() {
    fence(Ordering::SeqCst);
}

/// Follows committed records from head to the first zero: what a writer published before it could store head.
fn walk_to_tip(ring: &Ring, head: Place, limit: u64) -> Place {
    let mut place = head;
    let mut first = true;
    loop {
        if ring.commit_word(place.position).load(Ordering::Relaxed) == 0 || place.position >= limit {
            return place;
        }
        if first {
            // Sequence is stored before position, so head's may count this record, or this batch, already.
            let own = ring.sequence_word(place.position).load(Ordering::Relaxed);
            if own <= place.sequence && place.sequence - own <= ring.geometry.capacity / ALIGN {
                place.sequence = own;
            }
            first = false;
        }
        match ring.look(place) {
            crate::ring::Look::Record(header) if header.end <= limit => {
                place.sequence += u64::from(!header.commit.is_padding());
                place.position = header.end;
            }
            _ => return place,
        }
    }
}
