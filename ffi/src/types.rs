//! The structs and constants of the header, and the library's values in them.

use crate::border::{array_of, nanos};
use bus::{Class, Closed, Gap, ReaderInfo, Snapshot, State, Stats, WriterState};
use std::ffi::{c_char, c_void};

/// A plain struct of the header whose first member is its size in bytes.
///
/// # Safety
/// `repr(C)`, first field `size: u32`, no padding, every bit pattern is valid.
pub(crate) unsafe trait Sized32: Copy {}

macro_rules! structs {
    ($($(#[$sized:ident])? struct $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types, missing_docs)]
        pub struct $name { $(pub $field: $type,)* }

        // No padding: the fields' sizes add up.
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);
        $(structs!(@$sized $name);)?

        #[cfg(test)]
        impl $name {
            /// Name, offset and size of each field, for the comparison with the header.
            pub(crate) fn fields() -> Vec<(&'static str, &'static str, usize)> {
                vec![$((stringify!($field), stringify!($type), std::mem::offset_of!($name, $field))),*]
            }
        }
    )*
        #[cfg(test)]
        #[allow(clippy::type_complexity)]
        pub(crate) fn all() -> Vec<(&'static str, usize, Vec<(&'static str, &'static str, usize)>)> {
            vec![$((stringify!($name), size_of::<$name>(), $name::fields())),*]
        }
    };
    (@sized $name:ident) => {
        // SAFETY: `structs` makes it `repr(C)` and has just checked that there is no padding; the fields are integers, arrays of them, and
        // pointers that are never followed without a check. Each has `size: u32` first, or `read` and `write` would not compile.
        unsafe impl Sized32 for $name {}
        const _: () = assert!(std::mem::offset_of!($name, size) == 0);
    };
}

structs! {
    struct lapwing_slice {
        data: *const c_void,
        length: usize,
    }
    struct lapwing_message {
        data: *const c_void,
        length: usize,
        tag: u32,
        reserved: u32,
    }
    struct lapwing_record {
        data: *const c_void,
        length: usize,
        sequence: u64,
        stamp_ns: u64,
        tag: u32,
        reserved: u32,
    }
    struct lapwing_gap {
        first: u64,
        end: u64,
    }
    #[sized]
    struct lapwing_writer_options {
        size: u32,
        existing: u32,
        capacity: u64,
        readers: u32,
        mode: u32,
        schema: u64,
        max_age_ns: u64,
        flags: u32,
        group: u32,
    }
    #[sized]
    struct lapwing_reader_options {
        size: u32,
        flags: u32,
        reader_class: u32,
        wait: u32,
        start: u32,
        reserved: u32,
        start_at: u64,
        name: *const c_char,
        hold_ns: u64,
        schema: u64,
        filter_mask: u32,
        filter_value: u32,
    }
    #[sized]
    struct lapwing_reader_info {
        size: u32,
        slot: u32,
        id: u64,
        pid: u32,
        reader_class: u32,
        state: u32,
        flags: u32,
        lag_records: u64,
        lag_bytes: u64,
        start: u64,
        cursor: u64,
        delivered: u64,
        missed: u64,
        pending: u64,
        evictions: u64,
        waits: u64,
        name: [c_char; 72],
    }
    #[sized]
    struct lapwing_overrun {
        size: u32,
        reserved: u32,
        sequence: u64,
        needed: u64,
        waited_ns: u64,
    }
    #[sized]
    struct lapwing_event {
        size: u32,
        kind: u32,
        percent: u32,
        reserved: u32,
        count: u64,
        gap: lapwing_gap,
    }
    #[sized]
    struct lapwing_closed {
        size: u32,
        code: u32,
        sequence: u64,
        epoch: u64,
        reason: [c_char; 128],
    }
    struct lapwing_stats {
        published: u64,
        bytes: u64,
        waits: u64,
        episodes: u64,
        evictions: u64,
        reaped: u64,
        takeovers: u64,
        warnings: u64,
    }
    #[sized]
    struct lapwing_writer_info {
        size: u32,
        reserved: u32,
        next_sequence: u64,
        resumed_at: u64,
        epoch: u64,
        capacity: u64,
        max_record: u64,
        stats: lapwing_stats,
    }
    #[sized]
    struct lapwing_position {
        size: u32,
        writer_alive: u32,
        next_sequence: u64,
        start_sequence: u64,
        epoch: u64,
        max_record: u64,
    }
    #[sized]
    struct lapwing_snapshot {
        size: u32,
        writer_state: u32,
        writer_pid: u32,
        slots: u32,
        flags: u32,
        reserved: u32,
        bus_id: u64,
        capacity: u64,
        stripe: u64,
        max_record: u64,
        schema: u64,
        max_age_ns: u64,
        epoch: u64,
        resumed_at: u64,
        closed_epoch: u64,
        closed_sequence: u64,
        closed_code: u64,
        head: u64,
        limit: u64,
        next_sequence: u64,
        oldest_sequence: u64,
        stats: lapwing_stats,
    }
}

macro_rules! constants {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(pub(crate) const $name: u32 = $value;)*
        /// All of them, for the comparison with the header.
        #[cfg(test)]
        pub(crate) const CONSTANTS: &[(&str, u32)] = &[$((stringify!($name), $value)),*];
    };
}

constants! {
    LAPWING_EXISTING_REFUSE = 0,
    LAPWING_EXISTING_OPEN = 1,
    LAPWING_EXISTING_REPLACE = 2,
    LAPWING_STAMPED = 1,
    LAPWING_NO_PINNED = 2,
    LAPWING_PREFAULT = 4,
    LAPWING_LOCK_MEMORY = 8,
    LAPWING_GROUP = 16,
    LAPWING_MANUAL_COMMIT = 32,
    LAPWING_HOLD_WHILE_AWAY = 64,
    LAPWING_READERS_KNOWN = 128,
    LAPWING_CLASS_GATING = 1,
    LAPWING_CLASS_LOSSY = 2,
    LAPWING_CLASS_PINNED = 3,
    LAPWING_CLASS_OBSERVER = 4,
    LAPWING_START_LATEST = 0,
    LAPWING_START_OLDEST = 1,
    LAPWING_START_AFTER = 2,
    LAPWING_START_SINCE = 3,
    LAPWING_START_RESUME = 4,
    LAPWING_WAIT_PARK = 0,
    LAPWING_WAIT_YIELD = 1,
    LAPWING_WAIT_SPIN = 2,
    LAPWING_POLICY_REFUSE = 0,
    LAPWING_POLICY_WAIT = 1,
    LAPWING_POLICY_EVICT = 2,
    LAPWING_STATE_JOINING = 1,
    LAPWING_STATE_ACTIVE = 2,
    LAPWING_STATE_EVICTED = 3,
    LAPWING_STATE_DETACHED = 4,
    LAPWING_READER_ALIVE = 1,
    LAPWING_READER_EVICTABLE = 2,
    LAPWING_READER_HOLDS = 4,
    LAPWING_WRITER_NEVER = 0,
    LAPWING_WRITER_ALIVE = 1,
    LAPWING_WRITER_ABSENT = 2,
    LAPWING_WRITER_CLOSED = 3,
    LAPWING_WRITER_REPLACED = 4,
    LAPWING_EVENT_WARNING = 1,
    LAPWING_EVENT_OVERRUN = 2,
    LAPWING_EVENT_EVICTED = 3,
    LAPWING_EVENT_REAPED = 4,
    LAPWING_EVENT_COALESCED = 5,
    LAPWING_EVENT_OTHER = 6,
}

// ---- from the library's values ----------------------------------------------------------------------------------

impl From<Gap> for lapwing_gap {
    fn from(gap: Gap) -> Self {
        Self { first: gap.first, end: gap.end }
    }
}

impl lapwing_reader_info {
    pub(crate) fn of(reader: &ReaderInfo) -> Self {
        let flag = |yes, flag| if yes { flag } else { 0 };
        Self {
            size: size_of::<Self>() as u32,
            slot: reader.slot,
            id: reader.id.0,
            pid: reader.pid,
            reader_class: match reader.class {
                Class::Gating => LAPWING_CLASS_GATING,
                Class::Lossy => LAPWING_CLASS_LOSSY,
                Class::Pinned => LAPWING_CLASS_PINNED,
            },
            state: match reader.state {
                State::Joining => LAPWING_STATE_JOINING,
                State::Active => LAPWING_STATE_ACTIVE,
                State::Evicted => LAPWING_STATE_EVICTED,
                State::Detached => LAPWING_STATE_DETACHED,
            },
            flags: flag(reader.alive, LAPWING_READER_ALIVE)
                | flag(reader.evictable, LAPWING_READER_EVICTABLE)
                | flag(reader.hold, LAPWING_READER_HOLDS),
            lag_records: reader.lag_records,
            lag_bytes: reader.lag_bytes,
            start: reader.start,
            cursor: reader.cursor,
            delivered: reader.delivered,
            missed: reader.missed,
            pending: reader.pending,
            evictions: reader.evictions,
            waits: reader.waits,
            name: array_of(reader.name.as_deref().unwrap_or("")),
        }
    }
}

impl lapwing_closed {
    pub(crate) fn of(closed: &Closed) -> Self {
        Self {
            size: size_of::<Self>() as u32,
            code: closed.code,
            sequence: closed.sequence,
            epoch: closed.epoch,
            reason: array_of(&closed.reason),
        }
    }
}

impl From<Stats> for lapwing_stats {
    fn from(stats: Stats) -> Self {
        Self {
            published: stats.published,
            bytes: stats.bytes,
            waits: stats.waits,
            episodes: stats.episodes,
            evictions: stats.evictions,
            reaped: stats.reaped,
            takeovers: stats.takeovers,
            warnings: stats.warnings,
        }
    }
}

impl lapwing_snapshot {
    pub(crate) fn of(bus: &Snapshot) -> Self {
        let flag = |yes, flag| if yes { flag } else { 0 };
        let closed = bus.writer.closed.as_ref();
        Self {
            size: size_of::<Self>() as u32,
            writer_state: match bus.writer.state {
                WriterState::Never => LAPWING_WRITER_NEVER,
                WriterState::Alive => LAPWING_WRITER_ALIVE,
                WriterState::Closed => LAPWING_WRITER_CLOSED,
                WriterState::Replaced => LAPWING_WRITER_REPLACED,
                _ => LAPWING_WRITER_ABSENT,
            },
            writer_pid: bus.writer.pid,
            slots: bus.slots,
            flags: flag(bus.stamped, LAPWING_STAMPED)
                | flag(!bus.pinned_allowed, LAPWING_NO_PINNED)
                | flag(bus.readers.is_some(), LAPWING_READERS_KNOWN),
            reserved: 0,
            bus_id: bus.bus_id,
            capacity: bus.capacity,
            stripe: bus.stripe,
            max_record: bus.max_record,
            schema: bus.schema,
            max_age_ns: bus.max_age.map_or(0, nanos),
            epoch: bus.writer.epoch,
            resumed_at: bus.writer.resumed_at,
            closed_epoch: closed.map_or(0, |closed| closed.epoch),
            closed_sequence: closed.map_or(0, |closed| closed.sequence),
            closed_code: closed.map_or(0, |closed| u64::from(closed.code)),
            head: bus.head,
            limit: bus.limit,
            next_sequence: bus.sequence,
            oldest_sequence: bus.oldest,
            stats: bus.stats.into(),
        }
    }
}
