//! The writer's calls.

use crate::border::*;
use crate::handle::{Handle, Kind};
use crate::status::*;
use crate::types::*;
use bus::{Claim, Error, Options, Overrun, Policy, PublishError, ReaderId, ReaderInfo, Writer, WriterEvent};
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};
use std::io::ErrorKind;
use std::ptr::NonNull;
use std::time::Duration;

pub struct Body {
    /// Borrows `writer`, which nobody touches while it is there.
    claim: Option<Claim<'static>>,
    writer: NonNull<Writer>,
    max: usize,
    overrun: Option<Box<Overrun>>,
    events: VecDeque<WriterEvent>,
    /// Reused by vectored publishes; empty between calls.
    parts: Vec<&'static [u8]>,
}

// SAFETY: the writer is owned, and it and its claim may move between threads.
unsafe impl Send for Body {}

impl Kind for Body {
    const MAGIC: u32 = u32::from_ne_bytes(*b"LWwr");
    const NAME: &'static str = "writer";
}

/// The header's `lapwing_writer`.
#[allow(non_camel_case_types)]
pub type lapwing_writer = Handle<Body>;

impl Drop for Body {
    fn drop(&mut self) {
        self.claim = None;
        // SAFETY: made from a box, dropped once, and its only borrow is gone.
        drop(unsafe { Box::from_raw(self.writer.as_ptr()) });
    }
}

impl Body {
    fn new(writer: Writer) -> Self {
        Self {
            claim: None,
            max: writer.max_record(),
            writer: NonNull::from(Box::leak(Box::new(writer))),
            overrun: None,
            events: VecDeque::new(),
            parts: Vec::with_capacity(16),
        }
    }

    /// The writer, unless a claim borrows it.
    #[inline(always)]
    fn writer(&mut self) -> Result<&mut Writer, c_int> {
        self.writer_if_free().ok_or_else(claimed)
    }

    #[inline(always)]
    fn writer_if_free(&mut self) -> Option<&mut Writer> {
        if self.claim.is_some() {
            return None;
        }
        // SAFETY: owned by this body, borrowed as long as the body is, and no claim borrows it.
        Some(unsafe { self.writer.as_mut() })
    }

    #[inline(always)]
    fn done(&mut self, result: Result<u64, PublishError>, sequence: *mut u64) -> Status {
        match result {
            Ok(published) => {
                // SAFETY: as the header asks of the caller.
                unsafe { put(sequence, published) };
                Ok(LAPWING_OK)
            }
            Err(error) => self.refused(error),
        }
    }

    #[cold]
    #[inline(never)]
    fn refused(&mut self, error: PublishError) -> Status {
        if let PublishError::WouldOverrun(overrun) = error {
            self.overrun = Some(overrun);
            return Ok(LAPWING_WOULD_OVERRUN);
        }
        Err(fail_to_publish(error))
    }
}

#[cold]
fn claimed() -> c_int {
    fail(LAPWING_E_STATE, "a claim is being written: commit or abort it first")
}

#[cold]
fn unclaimed() -> c_int {
    fail(LAPWING_E_STATE, "there is no claim")
}

// ---- opening and closing ------------------------------------------------------------------------------------

/// Opens by `open` and gives the caller a handle.
///
/// # Safety
/// `out` is null or valid for a write.
unsafe fn open(out: *mut *mut lapwing_writer, open: impl FnOnce() -> Result<Writer, c_int>) -> c_int {
    guard(|| {
        if out.is_null() {
            return Err(null("the address for the writer"));
        }
        // SAFETY: by the caller's promise.
        unsafe {
            put(out, std::ptr::null_mut());
            Handle::give(Body::new(open()?), out)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_create(
    path: *const c_char,
    options: *const lapwing_writer_options,
    writer: *mut *mut lapwing_writer,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        open(writer, || {
            let path = crate::border::path(path)?;
            let (options, existing) = match read(options, "options")? {
                None => (Options::new(), LAPWING_EXISTING_REFUSE),
                Some(given) => (options_of(&given)?, given.existing),
            };
            match existing {
                LAPWING_EXISTING_REFUSE => options.create(path),
                LAPWING_EXISTING_OPEN => options.open_or_create(path),
                LAPWING_EXISTING_REPLACE => options.replace(path),
                other => return Err(bad("existing", other.into(), "LAPWING_EXISTING_...")),
            }
            .map_err(fail_with)
        })
    }
}

fn options_of(given: &lapwing_writer_options) -> Result<Options, c_int> {
    check_flags(
        given.flags,
        LAPWING_STAMPED | LAPWING_NO_PINNED | LAPWING_PREFAULT | LAPWING_LOCK_MEMORY | LAPWING_GROUP,
    )?;
    let has = |flag| given.flags & flag != 0;
    let mut options = Options::new()
        .schema(given.schema)
        .stamped(has(LAPWING_STAMPED))
        .max_age(Duration::from_nanos(given.max_age_ns))
        .pinned(!has(LAPWING_NO_PINNED))
        .prefault(has(LAPWING_PREFAULT))
        .lock_memory(has(LAPWING_LOCK_MEMORY));
    if given.capacity != 0 {
        options = options.capacity(given.capacity);
    }
    if given.readers != 0 {
        options = options.readers(given.readers);
    }
    if given.mode != 0 {
        options = options.mode(given.mode);
    }
    if has(LAPWING_GROUP) {
        options = options.group(given.group);
    }
    Ok(options)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_open(path: *const c_char, writer: *mut *mut lapwing_writer) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { open(writer, || Writer::open(crate::border::path(path)?).map_err(fail_with)) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_standby(path: *const c_char, writer: *mut *mut lapwing_writer) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        open(writer, || {
            Writer::standby_until_signal(crate::border::path(path)?).map_err(|error| match error {
                Error::Io { source, .. } if source.kind() == ErrorKind::Interrupted => LAPWING_INTERRUPTED,
                error => fail_with(error),
            })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_close(
    writer: *mut *mut lapwing_writer,
    code: u32,
    reason: *const c_char,
) -> c_int {
    let checked = Cell::new("");
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::take(
            writer,
            |_| {
                checked.set(text(reason, "reason", bus::layout::MAX_REASON)?.unwrap_or(""));
                Ok(LAPWING_OK)
            },
            |mut body| {
                body.claim = None;
                let mut body = std::mem::ManuallyDrop::new(body);
                // SAFETY: made from a box, taken once: the body, in `ManuallyDrop`, will not.
                let writer = *Box::from_raw(body.writer.as_ptr());
                // SAFETY: dropped once each; they are plain values beside the writer.
                drop((body.overrun.take(), std::mem::take(&mut body.events), std::mem::take(&mut body.parts)));
                writer.close_with(code, checked.get()).map_err(fail_with)?;
                Ok(LAPWING_OK)
            },
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_abandon(writer: *mut *mut lapwing_writer) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { Handle::close(writer) }
}

// ---- publishing -----------------------------------------------------------------------------------------------

/// Publishes one buffer; `publish` is asked where something special is to be done.
///
/// # Safety
/// As the header asks of the caller of `lapwing_writer_publish`.
#[inline(always)]
unsafe fn publish_by(
    writer: *mut lapwing_writer,
    tag: u32,
    data: *const c_void,
    length: usize,
    sequence: *mut u64,
    publish: impl FnOnce(&mut Writer, u32, &[u8]) -> Result<u64, PublishError>,
) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        let plain = |body: &mut Body| {
            let payload = plain_bytes(data, length)?;
            put(sequence, body.writer_if_free()?.publish_plainly(tag, payload)?);
            Some(LAPWING_OK)
        };
        Handle::with_plainly(writer, plain, move |body| {
            let payload = bytes(data, length, body.max)?;
            let result = publish(body.writer()?, tag, payload);
            body.done(result, sequence)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_publish(
    writer: *mut lapwing_writer,
    tag: u32,
    data: *const c_void,
    length: usize,
    sequence: *mut u64,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { publish_by(writer, tag, data, length, sequence, Writer::publish_tagged) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_try_publish(
    writer: *mut lapwing_writer,
    tag: u32,
    data: *const c_void,
    length: usize,
    sequence: *mut u64,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { publish_by(writer, tag, data, length, sequence, Writer::try_publish_tagged) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_publish_vectored(
    writer: *mut lapwing_writer,
    tag: u32,
    parts: *const lapwing_slice,
    count: usize,
    sequence: *mut u64,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            check_count(count, "count")?;
            if parts.is_null() && count != 0 {
                return Err(null("parts"));
            }
            body.parts.clear();
            let mut length = 0;
            for at in 0..count {
                let part = parts.add(at).read_unaligned();
                body.parts.push(bytes(part.data, part.length, body.max)?);
                length = part.length.saturating_add(length);
                if length > body.max {
                    return Err(too_large(length, body.max));
                }
            }
            let parts = std::mem::take(&mut body.parts);
            let result = body.writer().map(|writer| writer.publish_vectored(tag, &parts));
            body.parts = parts;
            // What they borrow ends with this call.
            body.parts.clear();
            body.done(result?, sequence)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_publish_batch(
    writer: *mut lapwing_writer,
    messages: *const lapwing_message,
    count: usize,
    first: *mut u64,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            check_count(count, "count")?;
            if messages.is_null() && count != 0 {
                return Err(null("messages"));
            }
            let max = body.max;
            let mut batch = body.writer()?.batch();
            for at in 0..count {
                let message = messages.add(at).read_unaligned();
                if let Err(error) = batch.push_tagged(message.tag, bytes(message.data, message.length, max)?) {
                    drop(batch);
                    return body.refused(error);
                }
            }
            let result = batch.commit().map(|published| published.start);
            body.done(result, first)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_claim(
    writer: *mut lapwing_writer,
    tag: u32,
    length: usize,
    data: *mut *mut c_void,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            if data.is_null() {
                return Err(null("the address for the data"));
            }
            put(data, std::ptr::null_mut());
            if length > body.max {
                return Err(too_large(length, body.max));
            }
            body.writer()?;
            // The claim keeps this borrow; `Body::writer` hands out no other meanwhile, and `Body::drop` ends the claim first.
            let writer: &'static mut Writer = &mut *body.writer.as_ptr();
            match writer.claim(tag, length) {
                Ok(mut claim) => {
                    put(data, claim.as_mut_slice().as_mut_ptr().cast());
                    body.claim = Some(claim);
                    Ok(LAPWING_OK)
                }
                Err(error) => body.refused(error),
            }
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_commit(
    writer: *mut lapwing_writer,
    length: usize,
    sequence: *mut u64,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let claim = body.claim.take().ok_or_else(unclaimed)?;
            if length > claim.len() {
                let error = too_large(length, claim.len());
                body.claim = Some(claim);
                return Err(error);
            }
            let result = claim.commit_len(length);
            body.done(result, sequence)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_abort(writer: *mut lapwing_writer) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            drop(body.claim.take().ok_or_else(unclaimed)?);
            Ok(LAPWING_OK)
        })
    }
}

// ---- readers in the way -----------------------------------------------------------------------------------------

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_set_policy(writer: *mut lapwing_writer, policy: u32, timeout_ns: i64) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let policy = match policy {
                LAPWING_POLICY_REFUSE => Policy::Refuse,
                LAPWING_POLICY_WAIT => Policy::Wait(timeout(timeout_ns)),
                LAPWING_POLICY_EVICT => Policy::Evict,
                other => return Err(bad("policy", other.into(), "LAPWING_POLICY_...")),
            };
            body.writer()?.set_policy(policy);
            Ok(LAPWING_OK)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_get_overrun(
    writer: *mut lapwing_writer,
    overrun: *mut lapwing_overrun,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let out = Out::new(overrun, "overrun")?;
            let infos = Infos::new(readers, capacity, count)?;
            let Some(report) = &body.overrun else {
                return Err(fail(LAPWING_E_STATE, "nothing would have been overrun so far"));
            };
            out.write(&lapwing_overrun {
                size: 0,
                reserved: 0,
                sequence: report.sequence,
                needed: report.needed,
                waited_ns: nanos(report.waited),
            });
            infos.write(&report.readers)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_take_event(
    writer: *mut lapwing_writer,
    event: *mut lapwing_event,
    reader: *mut lapwing_reader_info,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let out = Out::new(event, "event")?;
            let who = if reader.is_null() { None } else { Some(Out::new(reader, "reader")?) };
            if body.events.is_empty() {
                let events = body.writer()?.events();
                body.events.extend(events);
            }
            let Some(event) = body.events.pop_front() else { return Ok(LAPWING_EMPTY) };
            let mut told = lapwing_event {
                size: 0,
                kind: LAPWING_EVENT_OTHER,
                percent: 0,
                reserved: 0,
                count: 0,
                gap: lapwing_gap { first: 0, end: 0 },
            };
            let about = match event {
                WriterEvent::Warning { percent, reader } => {
                    told.kind = LAPWING_EVENT_WARNING;
                    told.percent = percent.into();
                    Some(reader)
                }
                WriterEvent::Overrun(overrun) => {
                    told.kind = LAPWING_EVENT_OVERRUN;
                    told.count = overrun.readers.len() as u64;
                    let slowest = overrun.readers.first().cloned();
                    body.overrun = Some(Box::new(overrun));
                    slowest
                }
                WriterEvent::Evicted { reader, at_most } => {
                    told.kind = LAPWING_EVENT_EVICTED;
                    told.gap = at_most.into();
                    Some(reader)
                }
                WriterEvent::Reaped { reader } => {
                    told.kind = LAPWING_EVENT_REAPED;
                    Some(reader)
                }
                WriterEvent::Coalesced { count } => {
                    told.kind = LAPWING_EVENT_COALESCED;
                    told.count = count;
                    None
                }
                _ => None,
            };
            out.write(&told);
            if let (Some(who), Some(about)) = (who, about) {
                who.write(&lapwing_reader_info::of(&about));
            }
            Ok(LAPWING_OK)
        })
    }
}

/// Tells the caller of the readers that `which` gives.
///
/// # Safety
/// As the header asks of the caller of `lapwing_writer_list_readers`.
unsafe fn tell(
    writer: *mut lapwing_writer,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
    which: impl FnOnce(&mut Writer) -> bus::Result<Vec<ReaderInfo>>,
) -> c_int {
    // SAFETY: by the caller's promise.
    unsafe {
        Handle::with(writer, |body| {
            let infos = Infos::new(readers, capacity, count)?;
            infos.write(&which(body.writer()?).map_err(fail_with)?)
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_list_readers(
    writer: *mut lapwing_writer,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { tell(writer, readers, capacity, count, |writer| writer.readers()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_evict(writer: *mut lapwing_writer, reader: u64) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let evicted = body.writer()?.evict(ReaderId(reader)).map_err(fail_with)?;
            Ok(if evicted { LAPWING_OK } else { LAPWING_ALREADY })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_reap(
    writer: *mut lapwing_writer,
    readers: *mut lapwing_reader_info,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe { tell(writer, readers, capacity, count, Writer::reap) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_wait_for_readers(writer: *mut lapwing_writer, timeout_ns: i64) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let done = body.writer()?.wait_for_readers(timeout(timeout_ns)).map_err(fail_with)?;
            Ok(if done { LAPWING_OK } else { LAPWING_TIMEOUT })
        })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn lapwing_writer_describe(writer: *mut lapwing_writer, info: *mut lapwing_writer_info) -> c_int {
    // SAFETY: as the header asks of the caller.
    unsafe {
        Handle::with(writer, |body| {
            let out = Out::new(info, "info")?;
            let writer = body.writer()?;
            out.write(&lapwing_writer_info {
                size: 0,
                reserved: 0,
                next_sequence: writer.next_sequence(),
                resumed_at: writer.resumed_at(),
                epoch: writer.epoch(),
                capacity: writer.capacity(),
                max_record: writer.max_record() as u64,
                stats: writer.stats().into(),
            });
            Ok(LAPWING_OK)
        })
    }
}
