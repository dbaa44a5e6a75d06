//! The layout of the two files, word by word: enough to write a reader without this crate. How a registered one joins, reads, sleeps and leaves,
//! step by step, is the page `docs/READER.md`, here the module `reader`.
//!
//! Every shared byte belongs to a 64-bit word in the machine's own byte order. Words are grouped in lines of
//! 128 bytes (two cache lines of x86, one of some ARM cores) on every architecture, so that two words which
//! different processes write never share a line. Offsets below are in words unless they say bytes.
//!
//! # The ring, `PATH`
//!
//! Written by the writer only; everybody else maps it read-only.
//!
//! ```text
//! byte 0      identity   magic, byte order, version, hash, bus id, capacity, stripe, slots, schema, flags, largest age, length of
//!                        the file, byte at which the ring starts, time of creation: constant once ready
//!      128    writer     pid, start time, fence mode, sequence of the last takeover
//!      256    limit      limit, intent, waiting, state, epoch; epoch, sequence and position of the last close
//!      384    head       position after the last committed record, its sequence + 1
//!      512    counters   bytes, waits, episodes, evictions, reaped, takeovers, warnings, latest time
//!      640    close      code and length of the reason, 120 bytes of text
//!      768    reserved, zero
//!      4096   seek index one entry of 4 words a stripe: boundary, end, sequence, time
//!      ...    ring       capacity bytes, starting at a multiple of 4096
//! ```
//!
//! Each line names its words in their order, the first one at the line's start. The magic is the bytes `LAPWING\0` (`LAPWTBL\0` in the
//! table), the byte order mark the number 0x0102030405060708, lengths are bytes, times nanoseconds since 1970. Flags: 1 records carry time
//! stamps, 2 pinned readers are refused. State: 1 the ring was replaced or removed. The stream is closed if the epoch of its last
//! close equals epoch. Close: the code in the low half, the length in the high one.
//!
//! # A record
//!
//! Starts at a multiple of 16, takes a multiple of 16, and never crosses the end of the ring. One that would take 48 bytes takes 64: as long as records
//! are of one size, each then lies in a cache line of its own, and none in two.
//!
//! ```text
//! word 0   commit word    63           32 31             2    1         0
//!                        | user tag      | payload length | padding | committed |
//! word 1   sequence
//! word 2   time stamp in nanoseconds since 1970 (only on a stamped bus)
//!          payload, then whatever fills the record up
//! ```
//!
//! A commit word of zero means: not there yet. A padding record fills the ring up to its end, carries the
//! sequence of the record after it, and uses up no sequence itself. Ahead of the last record there is always a zero commit
//! word, so whatever an earlier lap left behind it is harmless.
//!
//! A reader at position `p` loads the commit word (`Acquire`), bounds the length, copies, executes an
//! `Acquire` fence, loads `limit`, and accepts if and only if `p >= limit - capacity`. A zero is accepted in the same way
//! before it counts as "nothing yet".
//!
//! # The seek index
//!
//! The entry of stripe boundary `b` lies at `(b / stripe) % stripes`. Its `end` is the first record boundary at or
//! above `b`, its `sequence` that of the record that starts (or will start) there, its `time` about when
//! the record across `b` was published; times never run backwards. An entry counts if its `boundary` is `b`, `end` is not above
//! head, and, after an `Acquire` fence, `b >= limit - capacity`.
//!
//! # The table, `PATH.readers`
//!
//! Mapped read-write by every registered reader; nobody trusts a word of it.
//!
//! ```text
//! byte 0      identity       magic, byte order, version, hash, bus id, slots, length
//!      128    registrations  bumped by every join; next reader id
//!      256    sleep flag     bit 0: somebody sleeps; bit 1: somebody cannot use membarrier
//!      384    wake word      low half is the futex that sleeping readers wait on
//!      512    space word     low half is the futex that a waiting writer waits on
//!      4096   slots          512 bytes each
//! ```
//!
//! # A slot
//!
//! ```text
//! byte 0    control   state and class and flags and generation; id, start, pid, start time, hold time,
//!                     detached at, told epoch, joined at, evictions
//!      128  cursor    position, then sequence: the next record this reader wants
//!      256  counters  two pairs (missed, as of sequence), waits, the gap to be told
//!      384  name      length, 64 bytes
//! ```
//!
//! The control word is `state | class << 8 | flags << 16 | generation << 32`; each transition is a compare-and-swap on
//! the whole of it. Of the two missed pairs the one with the largest "as of" that is not above the cursor's sequence counts: that
//! makes a jump over a gap one store (the cursor's), so a crash cannot leave the two apart.
//!
//! # Locks
//!
//! Liveness is never a word in a file, always an open-file-description lock, which the kernel drops with its owner.
//!
//! | file | byte | kind | held by |
//! |---|---|---|---|
//! | `PATH.lock` | 0 | write | the writer |
//! | `PATH` | 0 | read | the writer, for readers to test |
//! | `PATH.readers` | the slot's first byte | write | the reader in that slot, or who reaps it |
//! | `PATH.readers` | 2⁶² + hash of a name | write | the reader of that name |

#[cfg(doc)]
#[doc = include_str!("../docs/READER.md")]
pub mod reader {}

/// Bytes of a line: the unit in which words are kept apart.
pub const LINE: u64 = 128;
/// Words of a line.
pub(crate) const LINE_WORDS: usize = (LINE / 8) as usize;
/// Bytes of either file's header.
pub const HEADER: u64 = 4096;
/// Bytes to which records are aligned.
pub const ALIGN: u64 = 16;
/// Bytes of a cache line, of which a record takes a whole one rather than [`STRADDLING`] bytes.
pub const CACHE_LINE: u64 = 64;
/// Size that no record has: of those that fit a cache line the only one that would put every other record into two.
pub const STRADDLING: u64 = 48;
/// Bytes of a record's header without a time stamp.
pub const RECORD_HEADER: u64 = 16;
/// Words of a record's header without a time stamp, and of a unit of alignment.
pub(crate) const RECORD_HEADER_WORDS: usize = (RECORD_HEADER / 8) as usize;
pub(crate) const ALIGN_WORDS: usize = (ALIGN / 8) as usize;
/// Bytes of a slot.
pub const SLOT: u64 = 512;
/// Bytes of an entry of the seek index.
pub const ENTRY: u64 = 32;
/// Version of this layout.
pub const VERSION: u64 = 1;
/// First word of a ring, as bytes the same on every machine.
pub const RING_MAGIC: u64 = u64::from_ne_bytes(*b"LAPWING\0");
/// First word of a table.
pub const TABLE_MAGIC: u64 = u64::from_ne_bytes(*b"LAPWTBL\0");
/// Second word of both files: reads differently on a machine of the other byte order.
pub const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;
/// Positions stay below this; at 10 GB/s it is reached after fourteen years.
pub const MAX_POSITION: u64 = 1 << 62;
/// Smallest capacity in bytes.
pub const MIN_CAPACITY: u64 = 4096;
/// Largest capacity in bytes.
pub const MAX_CAPACITY: u64 = 1 << 40;
/// Most slots a table can have.
pub const MAX_SLOTS: u64 = 65536;
/// Longest name of a reader in bytes.
pub const MAX_NAME: usize = 64;
/// Longest reason of a close in bytes.
pub const MAX_REASON: usize = 120;
/// Bit that the commit word of every record carries.
pub const COMMITTED: u64 = 1;
/// Bit that marks a padding record.
pub const PADDING: u64 = 2;
/// Largest length a commit word can carry.
pub const MAX_LENGTH: u64 = (1 << 30) - 1;
/// Byte of the table on which name locks start.
pub(crate) const NAME_LOCKS: u64 = 1 << 62;

/// Words of the ring's header.
pub(crate) mod ring {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const BYTE_ORDER: usize = 1;
    pub(crate) const VERSION: usize = 2;
    pub(crate) const HASH: usize = 3;
    pub(crate) const BUS_ID: usize = 4;
    pub(crate) const CAPACITY: usize = 5;
    pub(crate) const STRIPE: usize = 6;
    pub(crate) const SLOTS: usize = 7;
    pub(crate) const SCHEMA: usize = 8;
    pub(crate) const FLAGS: usize = 9;
    pub(crate) const MAX_AGE: usize = 10;
    pub(crate) const LENGTH: usize = 11;
    pub(crate) const RING_AT: usize = 12;
    pub(crate) const CREATED: usize = 13;

    pub(crate) const WRITER_PID: usize = 16;
    pub(crate) const WRITER_START: usize = 17;
    pub(crate) const FENCES: usize = 18;
    pub(crate) const RESUMED_AT: usize = 19;

    pub(crate) const LIMIT: usize = 32;
    pub(crate) const INTENT: usize = 33;
    pub(crate) const WAITING: usize = 34;
    pub(crate) const STATE: usize = 35;
    pub(crate) const EPOCH: usize = 36;
    pub(crate) const CLOSED_EPOCH: usize = 37;
    pub(crate) const CLOSED_SEQUENCE: usize = 38;
    pub(crate) const CLOSED_POSITION: usize = 39;

    pub(crate) const HEAD: usize = 48;
    pub(crate) const HEAD_SEQUENCE: usize = 49;

    pub(crate) const BYTES: usize = 64;
    pub(crate) const WAITS: usize = 65;
    pub(crate) const EPISODES: usize = 66;
    pub(crate) const EVICTIONS: usize = 67;
    pub(crate) const REAPED: usize = 68;
    pub(crate) const TAKEOVERS: usize = 69;
    pub(crate) const WARNINGS: usize = 70;
    pub(crate) const LATEST_TIME: usize = 71;

    /// Code in the low half, length of the text in the high half.
    pub(crate) const REASON: usize = 80;
    pub(crate) const REASON_TEXT: usize = 81;

    /// Flag: each record carries a time stamp.
    pub(crate) const STAMPED: u64 = 1;
    /// Flag: pinned readers are refused.
    pub(crate) const NO_PINNED: u64 = 2;

    /// State: this ring was recreated under its path, or removed.
    pub(crate) const REPLACED: u64 = 1;
}

/// Words of the table's header.
pub(crate) mod table {
    pub(crate) const MAGIC: usize = 0;
    pub(crate) const BYTE_ORDER: usize = 1;
    pub(crate) const VERSION: usize = 2;
    pub(crate) const HASH: usize = 3;
    pub(crate) const BUS_ID: usize = 4;
    pub(crate) const SLOTS: usize = 5;
    pub(crate) const LENGTH: usize = 6;

    pub(crate) const REGISTRATIONS: usize = 16;
    pub(crate) const NEXT_ID: usize = 17;
    pub(crate) const SLEEP: usize = 32;
    pub(crate) const WAKE: usize = 48;
    pub(crate) const SPACE: usize = 64;

    /// Sleep flag: somebody sleeps, or is about to.
    pub(crate) const SLEEPING: u64 = 1;
    /// Sleep flag: somebody cannot run the heavy side of the asymmetric fence.
    pub(crate) const NEEDS_FENCE: u64 = 2;
}

/// Words of a slot.
pub(crate) mod slot {
    pub(crate) const CONTROL: usize = 0;
    pub(crate) const ID: usize = 1;
    pub(crate) const START: usize = 2;
    pub(crate) const PID: usize = 3;
    pub(crate) const PROCESS_START: usize = 4;
    pub(crate) const HOLD_FOR: usize = 5;
    pub(crate) const DETACHED_AT: usize = 6;
    pub(crate) const TOLD_EPOCH: usize = 7;
    pub(crate) const JOINED_AT: usize = 8;
    pub(crate) const EVICTIONS: usize = 9;

    pub(crate) const POSITION: usize = 16;
    pub(crate) const SEQUENCE: usize = 17;

    /// Two pairs of (missed, as of sequence).
    pub(crate) const MISSED: [(usize, usize); 2] = [(32, 33), (34, 35)];
    pub(crate) const WAITS: usize = 36;
    /// A gap that the reader may not have been told of; none if the end is zero.
    pub(crate) const GAP_FIRST: usize = 37;
    pub(crate) const GAP_END: usize = 38;

    pub(crate) const NAME_LENGTH: usize = 48;
    pub(crate) const NAME: usize = 49;
}

/// Name and index of each word of the ring's header that a tool shows, in their order.
pub const RING_WORDS: &[(&str, usize)] = &[
    ("magic", ring::MAGIC),
    ("byte_order", ring::BYTE_ORDER),
    ("version", ring::VERSION),
    ("hash", ring::HASH),
    ("bus_id", ring::BUS_ID),
    ("capacity", ring::CAPACITY),
    ("stripe", ring::STRIPE),
    ("slots", ring::SLOTS),
    ("schema", ring::SCHEMA),
    ("flags", ring::FLAGS),
    ("max_age", ring::MAX_AGE),
    ("length", ring::LENGTH),
    ("ring_at", ring::RING_AT),
    ("created", ring::CREATED),
    ("writer_pid", ring::WRITER_PID),
    ("writer_start", ring::WRITER_START),
    ("fences", ring::FENCES),
    ("resumed_at", ring::RESUMED_AT),
    ("limit", ring::LIMIT),
    ("intent", ring::INTENT),
    ("waiting", ring::WAITING),
    ("state", ring::STATE),
    ("epoch", ring::EPOCH),
    ("closed_epoch", ring::CLOSED_EPOCH),
    ("closed_sequence", ring::CLOSED_SEQUENCE),
    ("closed_position", ring::CLOSED_POSITION),
    ("head", ring::HEAD),
    ("head_sequence", ring::HEAD_SEQUENCE),
    ("bytes", ring::BYTES),
    ("waits", ring::WAITS),
    ("episodes", ring::EPISODES),
    ("evictions", ring::EVICTIONS),
    ("reaped", ring::REAPED),
    ("takeovers", ring::TAKEOVERS),
    ("warnings", ring::WARNINGS),
    ("latest_time", ring::LATEST_TIME),
    ("reason", ring::REASON),
];

/// The same of the table's header.
pub const TABLE_WORDS: &[(&str, usize)] = &[
    ("magic", table::MAGIC),
    ("byte_order", table::BYTE_ORDER),
    ("version", table::VERSION),
    ("hash", table::HASH),
    ("bus_id", table::BUS_ID),
    ("slots", table::SLOTS),
    ("length", table::LENGTH),
    ("registrations", table::REGISTRATIONS),
    ("next_id", table::NEXT_ID),
    ("sleep", table::SLEEP),
    ("wake", table::WAKE),
    ("space", table::SPACE),
];

/// The same of a slot, counted from its start.
pub const SLOT_WORDS: &[(&str, usize)] = &[
    ("control", slot::CONTROL),
    ("id", slot::ID),
    ("start", slot::START),
    ("pid", slot::PID),
    ("process_start", slot::PROCESS_START),
    ("hold_for", slot::HOLD_FOR),
    ("detached_at", slot::DETACHED_AT),
    ("told_epoch", slot::TOLD_EPOCH),
    ("joined_at", slot::JOINED_AT),
    ("evictions", slot::EVICTIONS),
    ("position", slot::POSITION),
    ("sequence", slot::SEQUENCE),
    ("missed_a", slot::MISSED[0].0),
    ("missed_a_as_of", slot::MISSED[0].1),
    ("missed_b", slot::MISSED[1].0),
    ("missed_b_as_of", slot::MISSED[1].1),
    ("waits", slot::WAITS),
    ("gap_first", slot::GAP_FIRST),
    ("gap_end", slot::GAP_END),
    ("name_length", slot::NAME_LENGTH),
];

/// Index of the slot's word at which the name's bytes start.
pub const SLOT_NAME: usize = slot::NAME;
/// Flag of the ring's header: each record carries a time stamp.
pub const STAMPED: u64 = ring::STAMPED;

/// Fingerprint of every offset and size above, stored in both files and compared on attach.
///
/// FNV-1a over the numbers in the order they appear here.
#[rustfmt::skip]
pub const HASH: u64 = {
    let facts = [
        LINE, HEADER, ALIGN, RECORD_HEADER, SLOT, ENTRY, VERSION, COMMITTED, PADDING, MAX_LENGTH, NAME_LOCKS,
        CACHE_LINE, STRADDLING,
        ring::BUS_ID as u64, ring::CAPACITY as u64, ring::STRIPE as u64, ring::SLOTS as u64, ring::SCHEMA as u64,
        ring::FLAGS as u64, ring::MAX_AGE as u64, ring::LENGTH as u64, ring::RING_AT as u64, ring::CREATED as u64,
        ring::WRITER_PID as u64, ring::WRITER_START as u64, ring::FENCES as u64, ring::RESUMED_AT as u64,
        ring::LIMIT as u64, ring::INTENT as u64, ring::WAITING as u64, ring::STATE as u64, ring::EPOCH as u64,
        ring::CLOSED_EPOCH as u64, ring::CLOSED_SEQUENCE as u64, ring::CLOSED_POSITION as u64, ring::HEAD as u64,
        ring::HEAD_SEQUENCE as u64, ring::BYTES as u64, ring::WAITS as u64, ring::EPISODES as u64,
        ring::EVICTIONS as u64, ring::REAPED as u64, ring::TAKEOVERS as u64, ring::WARNINGS as u64,
        ring::LATEST_TIME as u64, ring::REASON as u64, ring::REASON_TEXT as u64, table::REGISTRATIONS as u64,
        table::NEXT_ID as u64, table::SLEEP as u64, table::WAKE as u64, table::SPACE as u64, slot::CONTROL as u64,
        slot::ID as u64, slot::START as u64, slot::PID as u64, slot::PROCESS_START as u64, slot::HOLD_FOR as u64,
        slot::DETACHED_AT as u64, slot::TOLD_EPOCH as u64, slot::JOINED_AT as u64, slot::EVICTIONS as u64,
        slot::POSITION as u64, slot::SEQUENCE as u64, slot::MISSED[0].0 as u64, slot::MISSED[0].1 as u64,
        slot::MISSED[1].0 as u64, slot::MISSED[1].1 as u64, slot::WAITS as u64, slot::GAP_FIRST as u64,
        slot::GAP_END as u64, slot::NAME_LENGTH as u64, slot::NAME as u64,
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut i = 0;
    while i < facts.len() {
        let mut byte = 0;
        while byte < 8 {
            hash = (hash ^ ((facts[i] >> (8 * byte)) & 0xff)).wrapping_mul(0x0100_0000_01b3);
            byte += 1;
        }
        i += 1;
    }
    hash
};

// The facts hold every offset but those below, so none moves unseen: with a new value comes, from the first release on, a new VERSION.
const GOLDEN_HASH: u64 = 0xfc2e_92eb_1590_9b5f;
const _: () = assert!(HASH == GOLDEN_HASH);
// What is looked at before the hash: the same words in both files, in every version.
const _: () = assert!(ring::MAGIC == 0 && ring::BYTE_ORDER == 1 && ring::VERSION == 2 && ring::HASH == 3);
const _: () = assert!(table::MAGIC == 0 && table::BYTE_ORDER == 1 && table::VERSION == 2 && table::HASH == 3);
const _: () = assert!(ring::BUS_ID == table::BUS_ID && table::SLOTS == 5 && table::LENGTH == 6);

const fn line_of(word: usize) -> usize {
    word / LINE_WORDS
}

// Words written by different sides lie in different lines, and groups stay inside theirs.
const _: () = {
    assert!(line_of(ring::CREATED) == 0);
    assert!(line_of(ring::WRITER_PID) == 1 && line_of(ring::RESUMED_AT) == 1);
    assert!(line_of(ring::LIMIT) == 2 && line_of(ring::CLOSED_POSITION) == 2);
    assert!(line_of(ring::HEAD) == 3 && line_of(ring::HEAD_SEQUENCE) == 3);
    assert!(line_of(ring::BYTES) == 4 && line_of(ring::LATEST_TIME) == 4);
    assert!(line_of(ring::REASON) == 5 && line_of(ring::REASON_TEXT + MAX_REASON / 8 - 1) == 5);
    assert!(line_of(table::LENGTH) == 0);
    assert!(line_of(table::REGISTRATIONS) == 1 && line_of(table::NEXT_ID) == 1);
    assert!(line_of(table::SLEEP) == 2 && line_of(table::WAKE) == 3 && line_of(table::SPACE) == 4);
    assert!(line_of(slot::CONTROL) == 0 && line_of(slot::EVICTIONS) == 0);
    assert!(line_of(slot::POSITION) == 1 && line_of(slot::SEQUENCE) == 1);
    assert!(line_of(slot::MISSED[0].0) == 2 && line_of(slot::GAP_END) == 2);
    assert!(line_of(slot::NAME_LENGTH) == 3 && line_of(slot::NAME + MAX_NAME / 8 - 1) == 3);
    assert!(SLOT == 4 * LINE && HEADER.is_multiple_of(LINE) && ALIGN.is_multiple_of(8));
    assert!(MAX_CAPACITY < MAX_POSITION && ENTRY == 32);
};

/// Bytes that a record of so many bytes takes with its filling; see the module's head. `benches/NOTES.md` has what it gives.
#[inline(always)]
const fn filled(bytes: u64) -> u64 {
    let size = (bytes + ALIGN - 1) & !(ALIGN - 1);
    if size == STRADDLING { CACHE_LINE } else { size }
}

/// Returns the bytes a record takes in the ring: its header ([`RECORD_HEADER`], 8 more with a time stamp), payload and filling.
#[inline(always)]
pub const fn record_size(header: u64, payload: u64) -> u64 {
    filled(header + payload)
}

/// Words of a payload and its filling, in a record without a time stamp. No overflow: nothing in memory is longer than `isize::MAX`.
#[inline(always)]
pub(crate) const fn filled_words(payload: usize) -> usize {
    ((filled(payload as u64 + RECORD_HEADER) - RECORD_HEADER) / 8) as usize
}

/// The sizes a bus was created with, and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Bytes of the ring, a power of two.
    pub(crate) capacity: u64,
    /// Bytes of a stripe, a power of two.
    pub(crate) stripe: u64,
    /// Slots of the table.
    pub(crate) slots: u64,
    /// Whether records carry a time stamp.
    pub(crate) stamped: bool,
    /// Bytes from a record's start to its payload.
    pub(crate) record_header: u64,
}

impl Geometry {
    /// Stripes of about 64 KiB, at least 8 and at most 4096 of them.
    pub(crate) const fn new(capacity: u64, slots: u64, stamped: bool) -> Self {
        let mut stripes = capacity >> 16;
        if stripes < 8 {
            stripes = 8;
        }
        if stripes > 4096 {
            stripes = 4096;
        }
        let record_header = RECORD_HEADER + if stamped { 8 } else { 0 };
        Self { capacity, stripe: capacity / stripes, slots, stamped, record_header }
    }

    /// The first stripe boundary above a position.
    #[inline(always)]
    pub(crate) const fn boundary_above(&self, position: u64) -> u64 {
        (position | (self.stripe - 1)) + 1
    }

    pub(crate) const fn stripes(&self) -> u64 {
        self.capacity / self.stripe
    }

    /// Byte at which the ring starts.
    pub(crate) const fn ring_at(&self) -> u64 {
        (HEADER + self.stripes() * ENTRY).next_multiple_of(4096)
    }

    pub(crate) const fn ring_length(&self) -> u64 {
        self.ring_at() + self.capacity
    }

    pub(crate) const fn table_length(&self) -> u64 {
        HEADER + self.slots * SLOT
    }

    /// Bytes a record takes in the ring.
    #[inline(always)]
    pub(crate) const fn record_size(&self, payload: u64) -> u64 {
        record_size(self.record_header, payload)
    }

    /// Largest payload: a quarter of the ring with its header, and never more than the commit word can say.
    pub(crate) const fn max_record(&self) -> u64 {
        let quarter = self.capacity / 4 - self.record_header;
        if quarter < MAX_LENGTH { quarter } else { MAX_LENGTH }
    }
}

/// A commit word, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit(pub(crate) u64);

impl Commit {
    #[inline(always)]
    pub(crate) const fn record(tag: u32, length: u64) -> Self {
        Self((tag as u64) << 32 | length << 2 | COMMITTED)
    }

    pub(crate) const fn padding() -> Self {
        Self(COMMITTED | PADDING)
    }

    /// All but the tag: what the words after it depend on.
    #[inline(always)]
    pub(crate) const fn shape(self) -> u32 {
        self.0 as u32
    }

    /// Whether it is that of a committed record, neither padding nor nothing.
    #[inline(always)]
    pub(crate) const fn is_plain(self) -> bool {
        self.0 & (COMMITTED | PADDING) == COMMITTED
    }

    #[inline(always)]
    pub(crate) const fn is_padding(self) -> bool {
        self.0 & PADDING != 0
    }

    #[inline(always)]
    pub(crate) const fn length(self) -> u64 {
        (self.0 >> 2) & MAX_LENGTH
    }

    #[inline(always)]
    pub(crate) const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_capacity_has_at_least_eight_stripes() {
        for shift in 12..=40 {
            let geometry = Geometry::new(1 << shift, 128, false);
            assert!(geometry.stripes() >= 8 && geometry.stripe.is_power_of_two());
            assert!(geometry.record_size(geometry.max_record()) <= geometry.capacity / 4);
            assert!(geometry.ring_at().is_multiple_of(4096));
        }
    }

    #[test]
    fn records_of_one_size_that_fit_a_line_each_lie_in_one() {
        for stamped in [false, true] {
            let geometry = Geometry::new(1 << 20, 128, stamped);
            for payload in 0..=CACHE_LINE - geometry.record_header {
                let size = geometry.record_size(payload);
                assert!(size >= payload + geometry.record_header && size.is_multiple_of(ALIGN));
                assert!((0..64).all(|n| n * size % CACHE_LINE + size <= CACHE_LINE), "{payload} bytes take {size}");
                if !stamped {
                    assert_eq!(filled_words(payload as usize) as u64 * 8 + RECORD_HEADER, size);
                }
            }
        }
    }

    #[test]
    fn a_commit_word_keeps_its_parts_apart() {
        let word = Commit::record(u32::MAX, MAX_LENGTH);
        assert_eq!((word.tag(), word.length(), word.is_padding()), (u32::MAX, MAX_LENGTH, false));
        assert_eq!(Commit::record(0, 0).0, COMMITTED);
        assert!(Commit::padding().is_padding());
    }
}
