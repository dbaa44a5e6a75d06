//! What crosses the interface, checked as it does: structs by copy, with their size first, and the caller's arrays, bytes and texts.

use crate::status::*;
use crate::types::{Sized32, lapwing_reader_info};
use bus::ReaderInfo;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most bytes a struct of a later version can have.
const LARGEST_STRUCT: u32 = 4096;
/// Most elements an array from the caller can have.
pub(crate) const LARGEST_ARRAY: usize = 1 << 20;

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
    fail_to_publish(bus::PublishError::TooLarge { length: length as u64, max: max as u64 })
}

/// Borrows a path for one call. One that no system call takes is refused before anything copies it.
///
/// # Safety
/// `path` is null or a string that ends in zero, unchanged while the borrow lives.
pub(crate) unsafe fn path<'a>(path: *const c_char) -> Result<&'a Path, c_int> {
    if path.is_null() {
        return Err(null("path"));
    }
    // SAFETY: by the caller's promise.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    if path.len() >= libc::PATH_MAX as usize {
        let length = path.len();
        return Err(fail(LAPWING_E_IO, format_args!("the path has {length} bytes, {} are too many", libc::PATH_MAX)));
    }
    Ok(Path::new(OsStr::from_bytes(path)))
}

/// Borrows a text of at most `most` bytes for one call; null is none.
///
/// # Safety
/// `text` is null or a string that ends in zero, unchanged while the borrow lives.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str, most: usize) -> Result<Option<&'a str>, c_int> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: by the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    let length = text.count_bytes();
    if length > most {
        return Err(fail(LAPWING_E_INVALID_OPTION, format_args!("{what} has {length} bytes, more than {most}")));
    }
    match text.to_str() {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(fail(LAPWING_E_ARGUMENT, format_args!("{what} is not UTF-8"))),
    }
}

/// A text in an array, cut short at a whole character, zeros behind it.
pub(crate) fn array_of<const N: usize>(text: &str) -> [c_char; N] {
    let mut array = [0; N];
    for (to, &from) in array.iter_mut().zip(cut(text, N - 1).as_bytes()) {
        *to = from as c_char;
    }
    array
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
