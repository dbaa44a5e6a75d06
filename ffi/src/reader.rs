//! The reading calls, the same for registered readers and observers.
//!
//! The core readers below never commit by themselves. What was handed out is `owed`, and the beginning of the next call for more
//! commits it, whether it was one record or a poll of many. A record that did not fit into the caller's buffer is `held`: it has left the
//! core's reader, so until it is delivered nothing is committed that would include it.

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
    /// Commit by asking for more.
    auto: bool,
    /// Something was handed out that is not committed.
    owed: bool,
    /// Payloads lie in the ring, and stay there until they are committed.
    pinned: bool,
    max_record: u64,
    /// A record that was taken and did not fit. It borrows from the source, which is not called while it is there.
    held: Option<Record<'static>>,
    /// What came after the last records of a poll.
    pending: c_int,
    gap: Gap,
    closed: Option<Closed>,
    /// Payloads of a poll without the caller's buffer.
    arena: Vec<u64>,
}

impl Kind for Body {
    const MAGIC: u64 = 0x7265_6461_6572_706c;
    const NAME: &'static str = "reader";
}

/// The header's `lapwing_reader`.
#[allow(non_camel_case_types)]
pub type lapwing_reader = Handle<Body>;

impl lapwing_record {
    #[inline(always)]
    fn of(record: &Record<'_>, data: *const u8) -> Self {
        Self {
            data: data.cast(),
            length: record.payload().len(),
            sequence: record.sequence(),
            stamp_ns: record.stamp().map_or(0, nanos_since_1970),
            tag: record.tag(),
            reserved: 0,
        }
    }
}

impl Source {
    #[inline(always)]
    fn next(&mut self, timeout_ns: i64) -> bus::Result<Next<'_>> {
        if timeout_ns != 0 {
            return self.wait(timeout(timeout_ns));
        }
        match self {
            Self::Reader(reader) => reader.try_next(),
            Self::Observer(observer) => observer.try_next(),
        }
    }

    #[inline(never)]
    fn wait(&mut self, timeout: Option<Duration>) -> bus::Result<Next<'_>> {
        match (self, timeout) {
            (Self::Reader(reader), None) => reader.next(),
            (Self::Reader(reader), Some(timeout)) => reader.next_timeout(timeout),
            (Self::Observer(observer), None) => observer.next(),
            (Self::Observer(observer), Some(timeout)) => observer.next_timeout(timeout),
        }
    }

    #[inline(always)]
    fn commit(&mut self) {
        if let Self::Reader(reader) = self {
            reader.commit();
        }
    }
}

/// What a call for one record gave.
enum Taken<'a> {
    Record(Record<'a>),
    Other(c_int),
}

impl Body {
    /// What every call for more begins with: what was handed out before counts as handled.
    #[inline(always)]
    fn begin(&mut self) {
        if self.owed && self.auto && self.held.is_none() {
            self.owed = false;
            self.source.commit();
        }
    }

    /// The next record, or what there is instead. A record counts as handed out.
    #[inline(always)]
    fn take(&mut self, timeout_ns: i64) -> Result<Taken<'_>, c_int> {
        if self.held.is_some() || self.pending != LAPWING_OK {
            return Ok(self.leftover());
        }
        match self.source.next(timeout_ns) {
            Ok(Next::Record(record)) => {
                self.owed = true;
                Ok(Taken::Record(record))
            }
            Ok(Next::Empty) => Ok(Taken::Other(LAPWING_EMPTY)),
            Ok(Next::Gap(gap)) => {
                self.owed = true;
                self.gap = gap;
                Ok(Taken::Other(LAPWING_GAP))
            }
            Ok(Next::Evicted(gap)) => {
                self.gap = gap;
                Ok(Taken::Other(LAPWING_EVICTED))
            }
            Ok(Next::Closed(closed)) => {
                self.closed = Some(closed);
                Ok(Taken::Other(LAPWING_CLOSED))
            }
            Ok(Next::Absent) => Ok(Taken::Other(LAPWING_ABSENT)),
            Ok(Next::Replaced) => Ok(Taken::Other(LAPWING_REPLACED)),
            Ok(Next::Orphaned) => Ok(Taken::Other(LAPWING_ORPHANED)),
            Ok(_) => Err(fail(LAPWING_E_OTHER, "something this version of the C interface has no name for")),
            Err(error) => Err(fail_with(&error)),
        }
    }

    #[cold]
    fn leftover(&mut self) -> Taken<'_> {
        if let Some(record) = self.held.take() {
            self.owed = true;
            return Taken::Record(record);
        }
        Taken::Other(std::mem::replace(&mut self.pending, LAPWING_OK))
    }

    fn reader(&mut self) -> Result<&mut Reader, c_int> {
        match &mut self.source {
            Source::Reader(reader) => Ok(reader),
            Source::Observer(_) => Err(fail(LAPWING_E_STATE, "an observer is not registered")),
        }
    }

    /// Takes many records; see the header.
    ///
    /// # Safety
    /// `records` is valid for writes of `max` elements, `buffer` null or valid for writes of `size` bytes.
    unsafe fn poll(
        &mut self,
        timeout_ns: i64,
        records: *mut lapwing_record,
        max: usize,
        buffer: *mut u8,
        size: usize,
    ) -> Result<(usize, c_int), c_int> {
        self.begin();
        // Payloads start at multiples of 8, whatever the buffer itself starts at.
        let skip = if buffer.is_null() { 0 } else { buffer.align_offset(8) };
        let in_place = buffer.is_null() && self.pinned;
        let mut arena = std::mem::take(&mut self.arena);
        let (mut count, mut used) = (0, 0);
        let stopped = loop {
            if count == max || (buffer.is_null() && used >= ARENA) {
                break Ok(LAPWING_OK);
            }
            let record = match self.take(if count == 0 { timeout_ns } else { 0 }) {
                Ok(Taken::Record(record)) => record,
                Ok(Taken::Other(status)) => break Ok(status),
                Err(status) => break Err(status),
            };
            let payload = record.payload();
            let data = if in_place {
                payload.as_ptr()
            } else if buffer.is_null() {
                let words = payload.len().div_ceil(8);
                if arena.len() < used / 8 + words {
                    arena.resize((used / 8 + words).next_power_of_two(), 0);
                }
                // SAFETY: the arena has just been made long enough, and is not where the payload lies.
                unsafe {
                    payload.as_ptr().copy_to_nonoverlapping(arena.as_mut_ptr().cast::<u8>().add(used), payload.len());
                }
                // The arena may still move: for now the distance from its start.
                std::ptr::without_provenance(used)
            } else if size.saturating_sub(skip).saturating_sub(used) >= payload.len() {
                // SAFETY: `skip + used + payload.len()` is within the caller's buffer, which no record lies in.
                unsafe {
                    let to = buffer.add(skip + used);
                    payload.as_ptr().copy_to_nonoverlapping(to, payload.len());
                    to
                }
            } else {
                let taken = lapwing_record::of(&record, std::ptr::null());
                // SAFETY: the payload lies in the source, which is not called until the record is delivered or the source goes.
                self.held = Some(unsafe { std::mem::transmute::<Record<'_>, Record<'static>>(record) });
                if count != 0 {
                    break Ok(LAPWING_OK);
                }
                // SAFETY: `max` is not zero here.
                unsafe { records.write_unaligned(taken) };
                let length = taken.length;
                let error = format_args!("the next record has {length} bytes, the buffer {size} (aligned by 8)");
                break Err(fail(LAPWING_E_TOO_SMALL, error));
            };
            let taken = lapwing_record::of(&record, data);
            used += taken.length.next_multiple_of(8);
            // SAFETY: `count` is below `max`.
            unsafe { records.add(count).write_unaligned(taken) };
            count += 1;
        };
        if buffer.is_null() && !in_place {
            for at in 0..count {
                // SAFETY: written above; the distance lies within the arena.
                unsafe {
                    let data = &raw mut (*records.add(at)).data;
                    data.write_unaligned(arena.as_ptr().byte_add(data.read_unaligned().addr()).cast());
                }
            }
        }
        self.arena = arena;
        match stopped {
            // Errors come again by themselves, and an empty ring shows at the next call.
            Err(_) | Ok(LAPWING_EMPTY) if count != 0 => Ok((count, LAPWING_OK)),
            Ok(status) if count != 0 => {
                self.pending = status;
                Ok((count, LAPWING_OK))
            }
            Ok(status) => Ok((count, status)),
            Err(status) => Err(status),
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
    let name = unsafe { text(given.name, "name")? };
    let (source, max_record) = match class {
        Some(class) => {
            let mut options = ReaderOptions::default()
                .class(class)
                .start(start)
                .wait(wait)
                .auto_commit(false)
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
            let reader = options.open(path).map_err(|error| fail_with(&error))?;
            let max_record = reader.max_record() as u64;
            (Source::Reader(reader), max_record)
        }
        None => {
            if name.is_some() || given.hold_ns != 0 || given.flags != 0 || given.schema != 0 {
                return Err(fail(
                    LAPWING_E_INVALID_OPTION,
                    "an observer has no name, schema or flags: set start, wait and filter only",
                ));
            }
            let mut observer = Observer::open(path, start).map_err(|error| fail_with(&error))?;
            observer.set_wait(wait);
            observer.set_filter(given.filter_mask, given.filter_value);
            let max_record = bus::Bus::inspect(path).map_err(|error| fail_with(&error))?.max_record;
            (Source::Observer(observer), max_record)
        }
    };
    Ok(Body {
        source,
        auto: !has(LAPWING_MANUAL_COMMIT),
        owed: false,
        pinned: class == Some(Class::Pinned),
        max_record,
        held: None,
        pending: LAPWING_OK,
        gap: Gap { first: 0, end: 0 },
        closed: None,
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
            let path = crate::types::path(path)?;
            let given = read(options, "options")?;
            let given = given.unwrap_or_else(|| std::mem::zeroed());
            Handle::give(open(path, &given)?, reader)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_reader_close(reader: *mut *mut lapwing_reader) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::take(
            reader,
            |_| Ok(LAPWING_OK),
            |body: Body| {
                drop(body);
                Ok(LAPWING_OK)
            },
        )
    }
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
        Handle::with(reader, |body| {
            if record.is_null() {
                return Err(null("record"));
            }
            body.begin();
            match body.take(timeout_ns)? {
                Taken::Record(taken) => {
                    record.write_unaligned(lapwing_record::of(&taken, taken.payload().as_ptr()));
                    Ok(LAPWING_OK)
                }
                Taken::Other(status) => Ok(status),
            }
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
            body.reader()?;
            if body.held.is_none() {
                body.owed = false;
                body.source.commit();
            }
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
            if body.held.is_some() {
                return Err(fail(
                    LAPWING_E_STATE,
                    "a record that did not fit into the buffer waits to be fetched first",
                ));
            }
            body.begin();
            let missed = match &mut body.source {
                Source::Reader(reader) => reader.rejoin(start).map_err(|error| fail_with(&error))?,
                Source::Observer(observer) => {
                    let from = observer.next_sequence();
                    observer.seek(start).map_err(|error| fail_with(&error))?;
                    let to = observer.next_sequence();
                    Gap { first: from.min(to), end: to }
                }
            };
            body.owed = false;
            body.pending = LAPWING_OK;
            body.gap = missed;
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
            put(gap, body.gap.into());
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
            let Some(closed) = &body.closed else {
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
            let (next_sequence, start_sequence, epoch, alive) = match &body.source {
                Source::Reader(reader) => {
                    (reader.next_sequence(), reader.start_sequence(), reader.epoch(), reader.writer_alive())
                }
                Source::Observer(observer) => (observer.next_sequence(), 0, observer.epoch(), observer.writer_alive()),
            };
            out.write(&lapwing_position {
                size: 0,
                writer_alive: alive.map_err(|error| fail_with(&error))?.into(),
                next_sequence: body.held.as_ref().map_or(next_sequence, |held| held.sequence()),
                start_sequence,
                epoch,
                max_record: body.max_record,
            });
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
            put(fd, body.reader()?.event_fd().map_err(|error| fail_with(&error))?.as_raw_fd());
            Ok(LAPWING_OK)
        })
    }
}
