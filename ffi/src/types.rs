//! The structs of the interface, and how they cross it: by copy, with their size first, never by reference.

use crate::status::*;
use bus::{Class, Closed, Gap, ReaderInfo, Snapshot, State, Stats, WriterState};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most bytes a struct of a later version can have.
const LARGEST_STRUCT: u32 = 4096;
/// Most elements an array from the caller can have.
pub(crate) const LARGEST_ARRAY: usize = 1 << 20;

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

// ---- across the border ----------------------------------------------------------------------------------------

/// The size that the caller's struct says it has.
///
/// # Safety
/// `from` is null or valid for a read of a `u32`.
unsafe fn size_of_theirs<T: Sized32>(from: *const T, what: &str) -> Result<u32, c_int> {
    if from.is_null() {
        return Err(null(what));
    }
    // SAFETY: by the caller's promise.
    let size = unsafe { from.cast::<u32>().read_unaligned() };
    if size < size_of::<T>() as u32 || size > LARGEST_STRUCT {
        return Err(fail(
            LAPWING_E_SIZE,
            format_args!("{what}: size is {size}, expected {}; set it to sizeof the struct", size_of::<T>()),
        ));
    }
    Ok(size)
}

/// Reads a struct; members that this version does not know must be zero.
///
/// # Safety
/// `from` is null or valid for reads of as many bytes as its size says.
pub(crate) unsafe fn read<T: Sized32>(from: *const T, what: &str) -> Result<Option<T>, c_int> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let size = unsafe { size_of_theirs(from, what)? } as usize;
    for at in size_of::<T>()..size {
        // SAFETY: within the size, by the caller's promise.
        if unsafe { from.cast::<u8>().add(at).read() } != 0 {
            return Err(fail(
                LAPWING_E_SIZE,
                format_args!("{what}: byte {at} is set, but this library knows {} bytes only", size_of::<T>()),
            ));
        }
    }
    // SAFETY: the struct is no longer than its size, and any bits are a valid one.
    Ok(Some(unsafe { from.read_unaligned() }))
}

/// Where a struct goes that the caller owns, its size checked.
pub(crate) struct Out<T> {
    to: *mut T,
    size: u32,
}

impl<T: Sized32> Out<T> {
    /// # Safety
    /// `to` is null or valid for writes of as many bytes as its size says, until this call of the caller's ends.
    pub(crate) unsafe fn new(to: *mut T, what: &str) -> Result<Self, c_int> {
        // SAFETY: by the caller's promise.
        Ok(Self { to, size: unsafe { size_of_theirs(to, what)? } })
    }

    /// Writes the struct, the caller's size kept, members that only the caller knows zero.
    pub(crate) fn write(&self, value: &T) {
        // SAFETY: as `new` was promised; the size was checked to hold the struct.
        unsafe {
            let ours = size_of::<T>();
            self.to.write_unaligned(*value);
            self.to.cast::<u8>().add(ours).write_bytes(0, self.size as usize - ours);
            self.to.cast::<u32>().write_unaligned(self.size);
        }
    }
}

/// An array of infos that the caller owns; the size in its first element is that of each.
pub(crate) struct Infos {
    first: *mut lapwing_reader_info,
    size: u32,
    capacity: usize,
    count: *mut usize,
}

impl Infos {
    /// # Safety
    /// `first` is valid for writes of `capacity` elements of the size in the first, `count` is null or valid for a write.
    pub(crate) unsafe fn new(
        first: *mut lapwing_reader_info,
        capacity: usize,
        count: *mut usize,
    ) -> Result<Self, c_int> {
        check_count(capacity, "capacity")?;
        if capacity == 0 {
            return Ok(Self { first, size: 0, capacity, count });
        }
        // SAFETY: by the caller's promise.
        let size = unsafe { size_of_theirs(first, "readers[0]")? };
        Ok(Self { first, size, capacity, count })
    }

    /// Writes as many as there is room for, and how many there are.
    pub(crate) fn write(&self, readers: &[ReaderInfo]) -> Status {
        for (at, reader) in readers.iter().take(self.capacity).enumerate() {
            // SAFETY: within the array, as `new` was promised.
            let to = unsafe { self.first.byte_add(at * self.size as usize) };
            Out { to, size: self.size }.write(&lapwing_reader_info::of(reader));
        }
        // SAFETY: as `new` was promised.
        unsafe { put(self.count, readers.len()) };
        Ok(if readers.len() > self.capacity && self.capacity != 0 { LAPWING_TRUNCATED } else { LAPWING_OK })
    }
}

/// Writes a value the caller may not want.
///
/// # Safety
/// `to` is null or valid for a write.
#[inline(always)]
pub(crate) unsafe fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { to.write_unaligned(value) };
    }
}

#[cold]
pub(crate) fn null(what: &str) -> c_int {
    fail(LAPWING_E_NULL, format_args!("{what} is NULL"))
}

#[cold]
pub(crate) fn bad(what: &str, value: u64, allowed: &str) -> c_int {
    fail(LAPWING_E_ARGUMENT, format_args!("{what} is {value}, which is none of {allowed}"))
}

pub(crate) fn check_count(count: usize, what: &str) -> Result<(), c_int> {
    if count <= LARGEST_ARRAY {
        Ok(())
    } else {
        Err(fail(LAPWING_E_ARGUMENT, format_args!("{what} is {count}, more than {LARGEST_ARRAY}")))
    }
}

pub(crate) fn check_flags(flags: u32, known: u32) -> Result<(), c_int> {
    if flags & !known == 0 {
        Ok(())
    } else {
        Err(fail(LAPWING_E_ARGUMENT, format_args!("flags are {flags:#x}, but only {known:#x} mean something here")))
    }
}

/// Borrows the caller's bytes for one call.
///
/// # Safety
/// `data` is null or valid for reads of `length` bytes while the borrow lives.
#[inline(always)]
pub(crate) unsafe fn bytes<'a>(data: *const c_void, length: usize, max: usize) -> Result<&'a [u8], c_int> {
    if isize::try_from(length).is_err() {
        return Err(too_large(length, max));
    }
    if data.is_null() {
        return if length == 0 { Ok(&[]) } else { Err(null("data")) };
    }
    // SAFETY: by the caller's promise; not null, and no longer than a slice may be.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

/// The same where nothing but bytes that are there will do.
///
/// # Safety
/// As [`bytes`].
#[inline(always)]
pub(crate) unsafe fn plain_bytes<'a>(data: *const c_void, length: usize) -> Option<&'a [u8]> {
    if data.is_null() || isize::try_from(length).is_err() {
        return None;
    }
    // SAFETY: by the caller's promise; not null, and no longer than a slice may be.
    Some(unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

#[cold]
pub(crate) fn too_large(length: usize, max: usize) -> c_int {
    fail_to_publish(&bus::PublishError::TooLarge { length: length as u64, max: max as u64 })
}

/// Borrows a path for one call.
///
/// # Safety
/// `path` is null or a string that ends in zero, unchanged while the borrow lives.
pub(crate) unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path, c_int> {
    if path.is_null() {
        return Err(null("path"));
    }
    // SAFETY: by the caller's promise.
    Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
}

/// Borrows a text for one call; null is none.
///
/// # Safety
/// `text` is null or a string that ends in zero, unchanged while the borrow lives.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<Option<&'a str>, c_int> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    match text.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(fail(LAPWING_E_ARGUMENT, format_args!("{what} is not UTF-8"))),
    }
}

/// A text in an array, cut short at a whole character, zeros behind it.
fn array_of<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    let end = text.floor_char_boundary_to(N - 1);
    for (to, &from) in array.iter_mut().zip(&text.as_bytes()[..end]) {
        *to = from as c_char;
    }
    array
}

trait FloorCharBoundary {
    fn floor_char_boundary_to(&self, most: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_to(&self, most: usize) -> usize {
        let mut end = self.len().min(most);
        while !self.is_char_boundary(end) {
            end -= 1;
        }
        end
    }
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn nanos_since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, nanos)
}

/// A time-out: negative is without end.
#[inline(always)]
pub(crate) fn timeout(ns: i64) -> Option<Duration> {
    u64::try_from(ns).ok().map(Duration::from_nanos)
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
