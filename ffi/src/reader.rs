//! The reading calls, the same for registered readers and observers.
//!
//! Handing out and committing are the core's: a reader without `LAPWING_MANUAL_COMMIT` commits when it is asked for more, and what a poll has
//! no room for is put back, so that it is neither delivered nor committed.

use crate::border::*;
use crate::handle::{Handle, Kind};
use crate::status::*;
use crate::types::*;
use bus::{Class, Closed, Gap, Next, Observer, Reader, ReaderOptions, Record, Start, Wait};
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes that a poll without the caller's buffer gathers, beyond which it stops.
const ARENA: usize = 1 << 20;

enum Source {
    Reader(Reader),
    Observer(Observer),
}

pub struct Body {
    source: Source,
    /// Payloads lie in the ring, and stay there until they are committed.
    pinned: bool,
    told: Told,
    /// Payloads of a poll without the caller's buffer.
    arena: Vec<u64>,
}

/// What the reader was told last, for those who ask.
struct Told {
    gap: Gap,
    closed: Option<Closed>,
}

impl Kind for Body {
    const MAGIC: u32 = u32::from_ne_bytes(*b"LWrd");
    const NAME: &'static str = "reader";
}

/// The header's `lapwing_reader`.
#[allow(non_camel_case_types)]
pub type lapwing_reader = Handle<Body>;

impl lapwing_record {
    #[inline(always)]
    fn of(record: &Record<'_>, data: *const u8) -> Self {
        Self { stamp_ns: record.stamp().map_or(0, nanos_since_1970), ..Self::unstamped(record, data) }
    }

    #[inline(always)]
    fn unstamped(record: &Record<'_>, data: *const u8) -> Self {
        Self {
            data: data.cast(),
            length: record.payload().len(),
            sequence: record.sequence(),
            stamp_ns: 0,
            tag: record.tag(),
            reserved: 0,
        }
    }
}

impl Source {
    #[inline(always)]
    fn next_many(
        &mut self,
        max: usize,
        timeout_ns: i64,
        take: impl FnMut(Record<'_>) -> bool,
    ) -> bus::Result<(usize, Next<'_>)> {
        match self {
            Self::Reader(reader) => reader.next_many(max, timeout(timeout_ns), take),
            Self::Observer(observer) => observer.next_many(max, timeout(timeout_ns), take),
        }
    }
}

impl Told {
    /// The status of what came in place of a record.
    #[cold]
    #[inline(never)]
    fn note(&mut self, taken: bus::Result<(usize, Next<'_>)>) -> Status {
        Ok(match taken.map(|(_, next)| next) {
            Ok(Next::Empty) => LAPWING_EMPTY,
            Ok(Next::Gap(gap)) => {
                self.gap = gap;
                LAPWING_GAP
            }
            Ok(Next::Evicted(gap)) => {
                self.gap = gap;
                LAPWING_EVICTED
            }
            Ok(Next::Closed(closed)) => {
                self.closed = Some(closed);
                LAPWING_CLOSED
            }
            Ok(Next::Absent) => LAPWING_ABSENT,
            Ok(Next::Replaced) => LAPWING_REPLACED,
            Ok(Next::Orphaned) => LAPWING_ORPHANED,
            Ok(_) => return Err(fail(LAPWING_E_OTHER, "something this version of the C interface has no name for")),
            Err(error) => return Err(fail_with(error)),
        })
    }
}

impl Body {
    fn reader(&mut self) -> Result<&mut Reader, c_int> {
        match &mut self.source {
            Source::Reader(reader) => Ok(reader),
            Source::Observer(_) => Err(fail(LAPWING_E_STATE, "an observer is not registered")),
        }
    }

    /// Takes one record, which stays in the reader's memory, or says that there is none, as long as nothing special is to be done.
    ///
    /// # Safety
    /// `to` is valid for a write.
    #[inline(always)]
    unsafe fn next_plainly(&mut self, timeout_ns: i64, to: *mut lapwing_record) -> Option<c_int> {
        let Source::Reader(reader) = &mut self.source else { return None };
        let Some(record) = reader.next_plainly()? else {
            return if timeout_ns == 0 { Some(LAPWING_EMPTY) } else { None };
        };
        // A stamped record is nothing plain. SAFETY: by the caller's promise.
        unsafe { to.write_unaligned(lapwing_record::unstamped(&record, record.payload().as_ptr())) };
        Some(LAPWING_OK)
    }

    /// The same, whatever is to be done; see the header.
    ///
    /// # Safety
    /// `to` is valid for a write.
    #[cold]
    #[inline(never)]
    unsafe fn next(&mut self, timeout_ns: i64, to: *mut lapwing_record) -> Status {
        let take = |record: Record<'_>| {
            // SAFETY: by the caller's promise.
            unsafe { to.write_unaligned(lapwing_record::of(&record, record.payload().as_ptr())) };
            true
        };
        match self.source.next_many(1, timeout_ns, take) {
            Ok((1, _)) => Ok(LAPWING_OK),
            other => self.told.note(other),
        }
    }

    /// Takes many records into the caller's buffer, or if that is null into the arena, or not at all from a pinned reader; see the header.
    ///
    /// # Safety
    /// `records` is valid for writes of `max` elements, and `max` is not zero; `buffer` is null or valid for writes of `size` bytes.
    #[inline(always)]
    unsafe fn poll(
        &mut self,
        timeout_ns: i64,
        records: *mut lapwing_record,
        max: usize,
        buffer: *mut u8,
        size: usize,
    ) -> Result<(usize, c_int), c_int> {
        // Payloads start at multiples of 8, whatever the buffer itself starts at.
        let used = if buffer.is_null() { 0 } else { buffer.align_offset(8) };
        let in_place = buffer.is_null() && self.pinned;
        let mut sink = Sink { records, count: 0, in_place, buffer, size, used, arena: &mut self.arena, refused: None };
        // SAFETY: by the caller's promise, and no more than `max` are handed out.
        let handle = |record: Record<'_>| unsafe { sink.take(&record) };
        let (count, next) = self.source.next_many(max, timeout_ns, handle).map_err(fail_with)?;
        if count == 0 {
            let Some(refused) = sink.refused else { return Ok((0, self.told.note(Ok((0, next)))?)) };
            // SAFETY: `max` is not zero.
            unsafe { records.write_unaligned(refused) };
            let length = refused.length;
            if buffer.is_null() {
                return Err(fail(LAPWING_E_IO, format_args!("no memory for the next record's {length} bytes")));
            }
            return Err(fail(
                LAPWING_E_TOO_SMALL,
                format_args!("the next record has {length} bytes, the buffer {size} (aligned by 8)"),
            ));
        }
        if buffer.is_null() && !in_place {
            // SAFETY: `count` of them were written, by distances.
            unsafe { sink.point_into_arena() };
        }
        Ok((count, LAPWING_OK))
    }
}

/// Where the records of a poll go.
struct Sink<'a> {
    records: *mut lapwing_record,
    count: usize,
    /// Payloads stay in the ring.
    in_place: bool,
    /// Where payloads go, if not null and not in place; else to the arena.
    buffer: *mut u8,
    size: usize,
    used: usize,
    arena: &'a mut Vec<u64>,
    /// The record there was no room for, or no memory.
    refused: Option<lapwing_record>,
}

impl Sink<'_> {
    /// Takes a record, unless there is no room for it.
    ///
    /// # Safety
    /// There is room for one more record, and `buffer` is null or valid for writes of `size` bytes.
    #[inline(always)]
    unsafe fn take(&mut self, record: &Record<'_>) -> bool {
        let payload = record.payload();
        let data = if self.used < self.size && payload.len() <= self.size - self.used {
            // SAFETY: `used + payload.len()` is within the caller's buffer, which no record lies in. (Without a buffer the size is zero.)
            unsafe {
                let to = self.buffer.add(self.used);
                payload.as_ptr().copy_to_nonoverlapping(to, payload.len());
                to
            }
        } else {
            match self.elsewhere(record) {
                Some(data) => data,
                None => return false,
            }
        };
        self.used += payload.len().next_multiple_of(8);
        // SAFETY: by the caller's promise.
        unsafe { self.records.add(self.count).write_unaligned(lapwing_record::of(record, data)) };
        self.count += 1;
        true
    }

    /// Where the payload goes if the caller's buffer has no room for it, or there is none.
    #[cold]
    #[inline(never)]
    fn elsewhere(&mut self, record: &Record<'_>) -> Option<*const u8> {
        let payload = record.payload();
        if self.buffer.is_null() {
            return if self.in_place { Some(payload.as_ptr()) } else { self.gather(record) };
        }
        if payload.is_empty() && self.used <= self.size {
            return Some(self.buffer.wrapping_add(self.used));
        }
        self.refused = Some(lapwing_record::of(record, std::ptr::null()));
        None
    }

    /// Copies a payload to the arena, unless that has enough. The arena may still move: returns the distance from its start.
    fn gather(&mut self, record: &Record<'_>) -> Option<*const u8> {
        if self.used >= ARENA {
            return None;
        }
        let payload = record.payload();
        let end = self.used / 8 + payload.len().div_ceil(8);
        if self.arena.len() < end {
            let length = end.next_power_of_two();
            if self.arena.try_reserve_exact(length - self.arena.len()).is_err() {
                self.refused = Some(lapwing_record::of(record, std::ptr::null()));
                return None;
            }
            self.arena.resize(length, 0);
        }
        // SAFETY: the arena has just been made long enough, and is not where the payload lies.
        unsafe {
            let to = self.arena.as_mut_ptr().cast::<u8>().add(self.used);
            payload.as_ptr().copy_to_nonoverlapping(to, payload.len());
        }
        Some(std::ptr::without_provenance(self.used))
    }

    /// Makes pointers of the distances, now that the arena stays where it is.
    ///
    /// # Safety
    /// `count` records were written, with distances for data.
    unsafe fn point_into_arena(&self) {
        for at in 0..self.count {
            // SAFETY: by the caller's promise; each distance lies within the arena.
            unsafe {
                let data = &raw mut (*self.records.add(at)).data;
                data.write_unaligned(self.arena.as_ptr().byte_add(data.read_unaligned().addr()).cast());
            }
        }
    }
}

// ---- opening and closing ------------------------------------------------------------------------------------

fn start_of(start: u32, at: u64) -> Result<Start, c_int> {
    Ok(match start {
        LAPWING_START_LATEST => Start::Latest,
        LAPWING_START_OLDEST => Start::Oldest,
        LAPWING_START_AFTER => Start::After(at),
        LAPWING_START_SINCE => Start::Since(UNIX_EPOCH + Duration::from_nanos(at)),
        LAPWING_START_RESUME => Start::Resume,
        other => return Err(bad("start", other.into(), "LAPWING_START_...")),
    })
}

/// Opens a reader or an observer.
///
/// # Safety
/// The name is null or a string.
unsafe fn open(path: &std::path::Path, given: &lapwing_reader_options) -> Result<Body, c_int> {
    check_flags(given.flags, LAPWING_MANUAL_COMMIT | LAPWING_HOLD_WHILE_AWAY | LAPWING_PREFAULT | LAPWING_LOCK_MEMORY)?;
    let has = |flag| given.flags & flag != 0;
    let class = match given.reader_class {
        0 | LAPWING_CLASS_GATING => Some(Class::Gating),
        LAPWING_CLASS_LOSSY => Some(Class::Lossy),
        LAPWING_CLASS_PINNED => Some(Class::Pinned),
        LAPWING_CLASS_OBSERVER => None,
        other => return Err(bad("reader_class", other.into(), "LAPWING_CLASS_...")),
    };
    let wait = match given.wait {
        LAPWING_WAIT_PARK => Wait::Park,
        LAPWING_WAIT_YIELD => Wait::Yield,
        LAPWING_WAIT_SPIN => Wait::Spin,
        other => return Err(bad("wait", other.into(), "LAPWING_WAIT_...")),
    };
    let start = start_of(given.start, given.start_at)?;
    // SAFETY: by the caller's promise.
    let name = unsafe { text(given.name, "name", bus::layout::MAX_NAME)? };
    let source = match class {
        Some(class) => {
            let mut options = ReaderOptions::default()
                .class(class)
                .start(start)
                .wait(wait)
                .auto_commit(!has(LAPWING_MANUAL_COMMIT))
                .hold_while_away(has(LAPWING_HOLD_WHILE_AWAY))
                .filter(given.filter_mask, given.filter_value)
                .schema(given.schema)
                .prefault(has(LAPWING_PREFAULT))
                .lock_memory(has(LAPWING_LOCK_MEMORY));
            if let Some(name) = name {
                options = options.name(name);
            }
            if given.hold_ns != 0 {
                options = options.hold_for(Duration::from_nanos(given.hold_ns));
            }
            Source::Reader(options.open(path).map_err(fail_with)?)
        }
        None => {
            if name.is_some() || given.hold_ns != 0 || given.flags != 0 || given.schema != 0 {
                return Err(fail(
                    LAPWING_E_INVALID_OPTION,
                    "an observer has no name, schema or flags: set start, wait and filter only",
                ));
            }
            let mut observer = Observer::open(path, start).map_err(fail_with)?;
            observer.set_wait(wait);
            observer.set_filter(given.filter_mask, given.filter_value);
            Source::Observer(observer)
        }
    };
    Ok(Body {
        source,
        pinned: class == Some(Class::Pinned),
        told: Told { gap: Gap { first: 0, end: 0 }, closed: None },
        arena: Vec::new(),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_open(
    path: *const c_char,
    options: *const lapwing_reader_options,
    reader: *mut *mut lapwing_reader,
) -> c_int {
    guard(|| {
        if reader.is_null() {
            return Err(null("the address for the reader"));
        }
        // SAFETY: as the header asks of the caller; options that are all zero are the defaults.
        unsafe {
            put(reader, std::ptr::null_mut());
            let path = crate::border::path(path)?;
            let given = read(options, "options")?;
            let given = given.unwrap_or_else(|| std::mem::zeroed());
            Handle::give(open(path, &given)?, reader)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_close(reader: *mut *mut lapwing_reader) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { Handle::close(reader) }
}

// ---- reading --------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_next(
    reader: *mut lapwing_reader,
    timeout_ns: i64,
    record: *mut lapwing_record,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        let plain = |body: &mut Body| if record.is_null() { None } else { body.next_plainly(timeout_ns, record) };
        Handle::with_plainly(reader, plain, move |body| {
            if record.is_null() {
                return Err(null("record"));
            }
            body.next(timeout_ns, record)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_poll(
    reader: *mut lapwing_reader,
    timeout_ns: i64,
    records: *mut lapwing_record,
    max: usize,
    buffer: *mut c_void,
    size: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            if count.is_null() || records.is_null() {
                return Err(null(if count.is_null() { "count" } else { "records" }));
            }
            put(count, 0);
            if max == 0 || max > LARGEST_ARRAY {
                return Err(bad("max", max as u64, "1 to 1048576"));
            }
            if buffer.is_null() && size != 0 {
                return Err(null("buffer"));
            }
            let (taken, status) = body.poll(timeout_ns, records, max, buffer.cast(), size)?;
            put(count, taken);
            Ok(status)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_commit(reader: *mut lapwing_reader) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            body.reader()?.commit();
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_rejoin(
    reader: *mut lapwing_reader,
    start: u32,
    start_at: u64,
    gap: *mut lapwing_gap,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            let start = start_of(start, start_at)?;
            let missed = match &mut body.source {
                Source::Reader(reader) => reader.rejoin(start).map_err(fail_with)?,
                Source::Observer(observer) => {
                    let from = observer.next_sequence();
                    observer.seek(start).map_err(fail_with)?;
                    let to = observer.next_sequence();
                    Gap { first: from.min(to), end: to }
                }
            };
            body.told.gap = missed;
            put(gap, missed.into());
            Ok(LAPWING_OK)
        })
    }
}

// ---- asking -----------------------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_get_gap(reader: *mut lapwing_reader, gap: *mut lapwing_gap) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            if gap.is_null() {
                return Err(null("gap"));
            }
            put(gap, body.told.gap.into());
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_get_closed(reader: *mut lapwing_reader, closed: *mut lapwing_closed) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            let out = Out::new(closed, "closed")?;
            let Some(closed) = &body.told.closed else {
                return Err(fail(LAPWING_E_STATE, "this reader has not met the end of a stream"));
            };
            out.write(&lapwing_closed::of(closed));
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_describe(reader: *mut lapwing_reader, info: *mut lapwing_reader_info) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            let out = Out::new(info, "info")?;
            let Some(found) = body.reader()?.info() else {
                return Err(fail(LAPWING_E_NO_SUCH_READER, "somebody has freed this reader's slot"));
            };
            out.write(&lapwing_reader_info::of(&found));
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_get_position(
    reader: *mut lapwing_reader,
    position: *mut lapwing_position,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            let out = Out::new(position, "position")?;
            let mut position = lapwing_position {
                size: 0,
                writer_alive: 0,
                next_sequence: 0,
                start_sequence: 0,
                epoch: 0,
                max_record: 0,
            };
            let alive = match &body.source {
                Source::Reader(reader) => {
                    position.next_sequence = reader.next_sequence();
                    position.start_sequence = reader.start_sequence();
                    position.epoch = reader.epoch();
                    position.max_record = reader.max_record() as u64;
                    reader.writer_alive()
                }
                Source::Observer(observer) => {
                    position.next_sequence = observer.next_sequence();
                    position.epoch = observer.epoch();
                    position.max_record = observer.max_record() as u64;
                    observer.writer_alive()
                }
            };
            position.writer_alive = alive.map_err(fail_with)?.into();
            out.write(&position);
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_get_fd(reader: *mut lapwing_reader, fd: *mut c_int) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(reader, |body| {
            if fd.is_null() {
                return Err(null("fd"));
            }
            put(fd, body.reader()?.event_fd().map_err(fail_with)?.as_raw_fd());
            Ok(LAPWING_OK)
        })
    }
}
