//! lapwing through its C interface: the shared library, loaded at run time, called as a C program calls it.
//!
//! `run` builds the library and names it in `LAPWING_C`. The structures are those of `include/lapwing.h`.

use super::{Driver, Error, Facts, Kind, Receiver, Sender};
use crate::job::{At, Idle, Measure};
use crate::record;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

/// Environment variable that names the library.
pub const LIBRARY: &str = "LAPWING_C";

const OK: c_int = 0;
const PREFAULT: u32 = 4;
const START_OLDEST: u32 = 1;
const POLICY_WAIT: u32 = 1;
const FOREVER: i64 = -1;
/// Records taken by one call in a stream.
const BATCH: usize = 256;

#[repr(C)]
struct WriterOptions {
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

#[repr(C)]
struct ReaderOptions {
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

#[repr(C)]
#[derive(Clone, Copy)]
struct Record {
    data: *const u8,
    length: usize,
    sequence: u64,
    stamp_ns: u64,
    tag: u32,
    reserved: u32,
}

const NO_RECORD: Record = Record { data: ptr::null(), length: 0, sequence: 0, stamp_ns: 0, tag: 0, reserved: 0 };

type Handle = *mut c_void;

macro_rules! library {
    ($($name:ident = $symbol:literal: fn($($argument:ty),*);)*) => {
        #[derive(Clone, Copy)]
        struct Library { $($name: unsafe extern "C" fn($($argument),*) -> c_int,)* last_error: unsafe extern "C" fn() -> *const c_char }

        impl Library {
            fn load() -> Result<Self, Error> {
                let path = std::env::var_os(LIBRARY).ok_or("LAPWING_C does not name the C library")?;
                let path = CString::new(path.as_bytes())?;
                // SAFETY: a valid string; the library stays loaded for ever.
                let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
                if library.is_null() {
                    return Err(format!("{path:?} cannot be loaded").into());
                }
                let find = |name: &CStr| {
                    // SAFETY: a library that was loaded, and a valid string.
                    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
                    if found.is_null() { Err(format!("{name:?} is not in the library")) } else { Ok(found) }
                };
                // SAFETY: the signatures are those of the header.
                unsafe {
                    Ok(Self {
                        $($name: std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> c_int>(find($symbol)?),)*
                        last_error: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> *const c_char>(find(c"lapwing_last_error")?),
                    })
                }
            }

            fn check(&self, status: c_int) -> Result<(), Error> {
                if status == OK {
                    return Ok(());
                }
                // SAFETY: never null, and valid until the next call.
                let text = unsafe { CStr::from_ptr((self.last_error)()) };
                Err(format!("status {status}: {}", text.to_string_lossy()).into())
            }
        }
    };
}

library! {
    create = c"lapwing_writer_create": fn(*const c_char, *const WriterOptions, *mut Handle);
    set_policy = c"lapwing_writer_set_policy": fn(Handle, u32, i64);
    publish = c"lapwing_writer_publish": fn(Handle, u32, *const c_void, usize, *mut u64);
    open = c"lapwing_reader_open": fn(*const c_char, *const ReaderOptions, *mut Handle);
    close = c"lapwing_reader_close": fn(*mut Handle);
    next = c"lapwing_reader_next": fn(Handle, i64, *mut Record);
    poll = c"lapwing_reader_poll": fn(Handle, i64, *mut Record, usize, *mut c_void, usize, *mut usize);
}

pub struct LapwingC;

impl Driver for LapwingC {
    const FACTS: Facts = Facts {
        name: "lapwing-c",
        kind: Kind::Lapwing,
        max_readers: 512,
        stream_bytes: 4 << 20,
        // A stripe boundary is work: an eighth of a small ring comes round every few records.
        latency_bytes: 1 << 20,
        max_slots: 65_536,
        stream_idle: Idle::Spin,
        more: &[Measure::Rate, Measure::Wake, Measure::Attach, Measure::Memory],
        setting: "the C interface: lapwing_writer_publish; lapwing_reader_poll of 256 in streams, lapwing_reader_next in ping-pong",
        advice: "include/lapwing.h",
        ..Facts::DEFAULT
    };
    type Sender<const W: usize> = Writer;
    type Receiver<const W: usize> = Reader;

    fn sender<const W: usize>(at: &At) -> Result<Writer, Error> {
        let library = Library::load()?;
        let options = WriterOptions {
            size: size_of::<WriterOptions>() as u32,
            existing: 0,
            capacity: super::lapwing::capacity(at),
            readers: super::lapwing::slots(at),
            mode: 0,
            schema: 0,
            max_age_ns: 0,
            flags: PREFAULT,
            group: 0,
        };
        let path = CString::new(at.path().as_os_str().as_bytes())?;
        let mut writer = ptr::null_mut();
        // SAFETY: valid arguments, by the header.
        unsafe {
            library.check((library.create)(path.as_ptr(), &options, &mut writer))?;
            library.check((library.set_policy)(writer, POLICY_WAIT, FOREVER))?;
        }
        Ok(Writer { library, writer })
    }

    fn receiver<const W: usize>(at: &At, _index: usize) -> Result<Reader, Error> {
        let library = Library::load()?;
        let options = ReaderOptions {
            size: size_of::<ReaderOptions>() as u32,
            flags: if at.job.measure == Measure::Attach { 0 } else { PREFAULT },
            reader_class: 0,
            wait: 0,
            start: START_OLDEST,
            reserved: 0,
            start_at: 0,
            name: ptr::null(),
            hold_ns: 0,
            schema: 0,
            filter_mask: 0,
            filter_value: 0,
        };
        let path = CString::new(at.path().as_os_str().as_bytes())?;
        let mut reader = ptr::null_mut();
        // SAFETY: valid arguments, by the header.
        unsafe { library.check((library.open)(path.as_ptr(), &options, &mut reader))? };
        let batch = if at.is_stream() { BATCH } else { 1 };
        Ok(Reader { library, reader, records: vec![NO_RECORD; batch].into_boxed_slice() })
    }
}

/// Its end is the end of the process.
pub struct Writer {
    library: Library,
    writer: Handle,
}

impl<const W: usize> Sender<W> for Writer {
    #[inline(always)]
    fn send(&mut self, record: &[u64; W]) {
        let bytes = record::bytes(record);
        // SAFETY: a valid handle and slice.
        let status =
            unsafe { (self.library.publish)(self.writer, 0, bytes.as_ptr().cast(), bytes.len(), ptr::null_mut()) };
        assert_eq!(status, OK, "publish");
    }
}

pub struct Reader {
    library: Library,
    reader: Handle,
    records: Box<[Record]>,
}

impl Reader {
    #[inline(always)]
    fn take(&mut self, timeout: i64) -> usize {
        let mut count = 0;
        // SAFETY: a valid handle, and room for as many records as is said.
        let status = unsafe {
            if let [record] = &mut *self.records {
                count = 1;
                (self.library.next)(self.reader, timeout, record)
            } else {
                let (records, room) = (self.records.as_mut_ptr(), self.records.len());
                (self.library.poll)(self.reader, timeout, records, room, ptr::null_mut(), 0, &mut count)
            }
        };
        assert!(status >= 0, "read: {:?}", self.library.check(status));
        if status == OK { count } else { 0 }
    }
}

impl<const W: usize> Receiver<W> for Reader {
    #[inline(always)]
    fn receive(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let count = self.take(0);
        for record in &self.records[..count] {
            // SAFETY: valid until the next call on the reader.
            record::from_bytes(unsafe { std::slice::from_raw_parts(record.data, record.length) }, sink);
        }
        count
    }

    fn receive_parked(&mut self, sink: &mut impl FnMut(&[u64; W])) -> usize {
        let count = self.take(200_000_000);
        for record in &self.records[..count] {
            // SAFETY: valid until the next call on the reader.
            record::from_bytes(unsafe { std::slice::from_raw_parts(record.data, record.length) }, sink);
        }
        count
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: a valid handle, closed once.
        unsafe { (self.library.close)(&mut self.reader) };
    }
}
