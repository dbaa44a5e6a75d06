//! The table: reader slots as words, their states and transitions. Nobody trusts what it holds.

use crate::layout::{self, LINE_WORDS, slot as at, table as header};
#[cfg(not(loom))]
use crate::map::Held;
use crate::map::{Map, bytes_of, load_words, prefetch_read, store_bytes};
use crate::report::Class;
use crate::sync::{AtomicU64, Ordering};

const SLOT_WORDS: usize = layout::SLOT as usize / 8;
const _: () = assert!(SLOT_WORDS == 4 * LINE_WORDS);

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Free = 0,
    Joining = 1,
    Active = 2,
    Evicted = 3,
    Detached = 4,
}

/// A slot's control word: phase, class, flags, generation. Every transition is a compare-and-swap on the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control(pub(crate) u64);

const HOLD: u64 = 1 << 16;
const NAMED: u64 = 1 << 17;

impl Control {
    /// The first word of a new registration in a slot that was `self`.
    pub(crate) fn joining(self, class: Class, named: bool, hold: bool) -> Self {
        let generation = (self.0 >> 32).wrapping_add(1) << 32;
        let flags = if hold { HOLD } else { 0 } | if named { NAMED } else { 0 };
        Self(generation | flags | (class as u64) << 8 | Phase::Joining as u64)
    }

    pub(crate) fn with(self, phase: Phase) -> Self {
        Self(self.0 & !0xff | phase as u64)
    }

    /// The phase; a byte that is none counts as evicted, which gates nobody and can be reclaimed.
    pub(crate) fn phase(self) -> Phase {
        match self.0 & 0xff {
            0 => Phase::Free,
            1 => Phase::Joining,
            2 => Phase::Active,
            4 => Phase::Detached,
            _ => Phase::Evicted,
        }
    }

    pub(crate) fn class(self) -> Class {
        Class::from_bits((self.0 >> 8) as u8)
    }

    /// Whether the reader gates while it is away.
    pub(crate) fn holds(self) -> bool {
        self.0 & HOLD != 0
    }

    pub(crate) fn is_named(self) -> bool {
        self.0 & NAMED != 0
    }
}

/// The table's words.
#[derive(Clone)]
pub(crate) struct Table {
    map: Map,
    slots: u64,
}

/// A slot that its owner keeps at hand.
#[cfg(not(loom))]
pub(crate) struct OwnSlot {
    words: Held<SLOT_WORDS>,
    index: u32,
}

#[cfg(not(loom))]
impl OwnSlot {
    #[inline(always)]
    pub(crate) fn get(&self) -> Slot<'_> {
        Slot { words: &self.words, index: self.index }
    }
}

impl Table {
    pub(crate) fn new(map: Map, slots: u64) -> Self {
        Self { map, slots }
    }

    /// Says whether the file shrank under the mapping.
    #[cfg(not(loom))]
    pub(crate) fn is_lost(&self) -> bool {
        self.map.is_lost()
    }

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.slots).map(|index| self.slot(index as u32))
    }

    /// Keeps a slot at hand.
    #[cfg(not(loom))]
    pub(crate) fn own(&self, index: u32) -> OwnSlot {
        OwnSlot { words: self.map.hold(Self::word_of(index)), index }
    }

    fn word_of(index: u32) -> usize {
        layout::HEADER as usize / 8 + index as usize * SLOT_WORDS
    }

    pub(crate) fn slot(&self, index: u32) -> Slot<'_> {
        let at = Self::word_of(index);
        let words = self.map[at..].first_chunk().expect("the map holds every slot of its geometry");
        Slot { words, index }
    }

    /// Counts joins, so that the writer knows whether its last scan saw them all.
    ///
    /// Acquire pairs with the Release of [`Self::register`]: who reads the new count sees the Joining slot.
    #[inline]
    pub(crate) fn registrations(&self) -> u64 {
        self.map.header()[header::REGISTRATIONS].load(Ordering::Acquire)
    }

    /// Announces a slot that has just become Joining.
    pub(crate) fn register(&self) {
        self.map.header()[header::REGISTRATIONS].fetch_add(1, Ordering::Release);
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.map.header()[header::NEXT_ID].fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    #[inline(always)]
    pub(crate) fn sleep_flag(&self) -> &AtomicU64 {
        &self.map.header()[header::SLEEP]
    }

    pub(crate) fn wake_word(&self) -> &AtomicU64 {
        &self.map.header()[header::WAKE]
    }

    pub(crate) fn space_word(&self) -> &AtomicU64 {
        &self.map.header()[header::SPACE]
    }
}

/// Byte of the table's file that the owner of a slot keeps locked.
pub(crate) const fn lock_byte(index: u32) -> u64 {
    layout::HEADER + index as u64 * layout::SLOT
}

/// Byte of the table's file that the reader of a name keeps locked (FNV-1a of the name).
pub(crate) fn name_lock_byte(name: &str) -> u64 {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    layout::NAME_LOCKS + (hash >> 3)
}

/// One reader's words.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a> {
    words: &'a [AtomicU64; SLOT_WORDS],
    index: u32,
}

impl Slot<'_> {
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    fn get(&self, word: usize) -> u64 {
        self.words[word].load(Ordering::Relaxed)
    }

    fn set(&self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Relaxed);
    }

    /// Acquire pairs with [`Self::transition`]: who sees a phase sees what was stored before it.
    #[inline(always)]
    pub(crate) fn control(&self) -> Control {
        Control(self.words[at::CONTROL].load(Ordering::Acquire))
    }

    /// Moves from one control word to another; false if someone else was faster.
    ///
    /// Release pairs with [`Self::control`]'s Acquire.
    pub(crate) fn transition(&self, from: Control, to: Control) -> bool {
        self.words[at::CONTROL].compare_exchange(from.0, to.0, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// The cursor's position. Acquire pairs with [`Self::move_cursor`]: what the reader copied out before it moved on was
    /// read before the writer, having seen the cursor, overwrites it.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.words[at::POSITION].load(Ordering::Acquire)
    }

    /// Asks for the cursor's line, to look at it soon.
    pub(crate) fn prefetch_cursor(&self) {
        prefetch_read(&self.words[at::POSITION]);
    }

    /// The cursor: position and sequence.
    pub(crate) fn cursor(&self) -> (u64, u64) {
        (self.position(), self.words[at::SEQUENCE].load(Ordering::Acquire))
    }

    /// Moves the cursor: position, then sequence. Release, see [`Self::position`].
    #[inline(always)]
    pub(crate) fn move_cursor(&self, position: u64, sequence: u64) {
        self.words[at::POSITION].store(position, Ordering::Release);
        self.words[at::SEQUENCE].store(sequence, Ordering::Release);
    }

    /// Records missed, for a cursor at `sequence`.
    pub(crate) fn missed(&self, sequence: u64) -> u64 {
        let [a, b] = at::MISSED.map(|(missed, as_of)| (self.get(missed), self.get(as_of)));
        match (a.1 <= sequence, b.1 <= sequence) {
            (true, true) => {
                if a.1 >= b.1 {
                    a.0
                } else {
                    b.0
                }
            }
            (true, false) => a.0,
            (false, true) => b.0,
            (false, false) => 0,
        }
    }

    /// Prepares a jump of the cursor from `from` to the later `to`: it takes effect with the move of the cursor.
    ///
    /// The gap stays on record until [`Self::gap_told`], so that an owner that dies in between leaves it to the next.
    pub(crate) fn prepare_jump(&self, from: u64, to: u64) {
        self.prepare_gap(from, from, to);
    }

    /// The same where the gap to be told begins at `first`, before the cursor: what is missed up to `from` is in the books already.
    pub(crate) fn prepare_gap(&self, first: u64, from: u64, to: u64) {
        if self.get(at::GAP_END) != first || first == 0 {
            self.set(at::GAP_END, 0);
            self.words[at::GAP_FIRST].store(first, Ordering::Release);
        }
        self.words[at::GAP_END].store(to, Ordering::Release);
        let missed = self.missed(from).saturating_add(to.saturating_sub(from));
        let [a, b] = at::MISSED;
        // Overwrite the pair that does not count now: the one above the cursor, else the older.
        let a_counts = self.get(a.1) <= from && (self.get(b.1) > from || self.get(a.1) >= self.get(b.1));
        let (value, as_of) = if a_counts { b } else { a };
        self.set(as_of, u64::MAX);
        self.words[value].store(missed, Ordering::Release);
        self.words[as_of].store(to, Ordering::Release);
    }

    /// The first sequence of a gap that leads up to the cursor and that nobody may have been told of.
    pub(crate) fn untold_gap(&self, sequence: u64) -> Option<u64> {
        let (first, end) = (self.get(at::GAP_FIRST), self.get(at::GAP_END));
        // The end may lie above the cursor: a further jump that was prepared and not made.
        let untold = first < sequence && sequence <= end;
        if untold {
            self.words[at::GAP_END].store(sequence, Ordering::Release);
        }
        untold.then_some(first)
    }

    /// Notes that the reader knows of its gap.
    pub(crate) fn gap_told(&self) {
        self.set(at::GAP_END, 0);
    }

    /// Forgets a jump that was prepared but not made, by an owner that died in between.
    pub(crate) fn discard_jump(&self, sequence: u64) {
        for (_, as_of) in at::MISSED {
            if self.get(as_of) > sequence {
                self.set(as_of, u64::MAX);
            }
        }
    }

    /// Starts the books anew at `sequence`.
    pub(crate) fn reset_books(&self, sequence: u64) {
        let [a, b] = at::MISSED;
        self.set(b.1, u64::MAX);
        self.set(a.0, 0);
        self.set(a.1, 0);
        self.set(b.0, 0);
        self.set(at::GAP_END, 0);
        self.set(at::START, sequence);
    }

    pub(crate) fn start(&self) -> u64 {
        self.get(at::START)
    }

    pub(crate) fn id(&self) -> u64 {
        self.get(at::ID)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.get(at::PID) as u32
    }

    pub(crate) fn process_start(&self) -> u64 {
        self.get(at::PROCESS_START)
    }

    /// Writes who owns the slot from now on.
    pub(crate) fn set_owner(&self, id: u64, (pid, process_start): (u64, u64), hold_for: u64, now: u64, boot: u64) {
        self.set(at::ID, id);
        self.set(at::PID, pid);
        self.set(at::PROCESS_START, process_start);
        // Away until now, as far as the writer can tell; the clock first, so that no moment looks like a hold that ran out.
        self.set_detached_at(boot);
        self.words[at::HOLD_FOR].store(hold_for, Ordering::Release);
        self.set(at::JOINED_AT, now);
    }

    /// Clears the counters that belong to a registration's whole life.
    pub(crate) fn reset_counters(&self) {
        self.set(at::EVICTIONS, 0);
        self.set(at::WAITS, 0);
    }

    /// Latest close this reader has been told of, as an epoch.
    pub(crate) fn told_epoch(&self) -> u64 {
        self.get(at::TOLD_EPOCH)
    }

    pub(crate) fn set_told_epoch(&self, epoch: u64) {
        self.set(at::TOLD_EPOCH, epoch);
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.get(at::EVICTIONS)
    }

    pub(crate) fn count_eviction(&self) {
        self.words[at::EVICTIONS].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn waits(&self) -> u64 {
        self.get(at::WAITS)
    }

    pub(crate) fn count_waits(&self, count: u64) {
        self.set(at::WAITS, self.get(at::WAITS).wrapping_add(count));
    }

    /// Notes when the reader went away, by the boot clock.
    pub(crate) fn set_detached_at(&self, now: u64) {
        self.set(at::DETACHED_AT, now);
    }

    /// Whether a reader that is away still holds the writer up, `now` by the boot clock.
    pub(crate) fn still_holds(&self, control: Control, now: u64) -> bool {
        // Acquire pairs with the Release in `set_owner`: who sees the new time sees the clock it counts from.
        let hold_for = self.words[at::HOLD_FOR].load(Ordering::Acquire);
        control.holds() && (hold_for == 0 || now < self.get(at::DETACHED_AT).saturating_add(hold_for))
    }

    pub(crate) fn name(&self) -> Option<String> {
        let length = (self.get(at::NAME_LENGTH) as usize).min(layout::MAX_NAME);
        if length == 0 {
            return None;
        }
        let mut name = [0; layout::MAX_NAME / 8];
        load_words(&self.words[at::NAME..][..name.len()], &mut name);
        Some(String::from_utf8_lossy(bytes_of(&name, length)).into_owned())
    }

    pub(crate) fn set_name(&self, name: &str) {
        self.set(at::NAME_LENGTH, 0);
        let mut bytes = [0; layout::MAX_NAME];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        store_bytes(&self.words[at::NAME..], &bytes);
        self.words[at::NAME_LENGTH].store(name.len() as u64, Ordering::Release);
    }

    /// Whether the slot is that of this name.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let control = self.control();
        control.phase() != Phase::Free && control.is_named() && self.name().as_deref() == Some(name)
    }
}
