//! What calls return: the numbers, their names, and the text of a thread's last error.

use bus::{Error, PublishError};
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char, c_int};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `Err` carries a negative status whose text has been kept.
pub(crate) type Status = Result<c_int, c_int>;

macro_rules! statuses {
    ($($name:ident = $value:literal),* $(,)?) => {
        $(pub(crate) const $name: c_int = $value;)*

        /// All of them, for the comparison with the header.
        #[cfg(test)]
        pub(crate) const STATUSES: &[(&str, c_int)] = &[$((stringify!($name), $value)),*];

        /// The name of a status, as in the header.
        fn name_of(status: c_int) -> Option<&'static CStr> {
            Some(match status {
                // SAFETY: the literal ends in its only zero byte: names are identifiers.
                $($value => const { unsafe { CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) } },)*
                _ => return None,
            })
        }
    };
}

// Numbers are never used again: a status that goes leaves a hole.
statuses! {
    LAPWING_OK = 0,
    LAPWING_EMPTY = 1,
    LAPWING_GAP = 2,
    LAPWING_EVICTED = 3,
    LAPWING_CLOSED = 4,
    LAPWING_ABSENT = 5,
    LAPWING_REPLACED = 6,
    LAPWING_ORPHANED = 7,
    LAPWING_WOULD_OVERRUN = 8,
    LAPWING_TIMEOUT = 9,
    LAPWING_ALREADY = 10,
    LAPWING_TRUNCATED = 11,
    LAPWING_INTERRUPTED = 12,
    LAPWING_E_NULL = -1,
    LAPWING_E_HANDLE = -2,
    LAPWING_E_FORKED = -3,
    LAPWING_E_BUSY = -4,
    LAPWING_E_STATE = -5,
    LAPWING_E_SIZE = -6,
    LAPWING_E_ARGUMENT = -7,
    LAPWING_E_TOO_SMALL = -8,
    LAPWING_E_PANIC = -9,
    LAPWING_E_OTHER = -10,
    LAPWING_E_NOT_FOUND = -20,
    LAPWING_E_NOT_READY = -21,
    LAPWING_E_ALREADY_EXISTS = -22,
    LAPWING_E_WRITER_BUSY = -23,
    LAPWING_E_NOT_A_BUS = -24,
    LAPWING_E_INCOMPATIBLE = -25,
    LAPWING_E_CORRUPT = -26,
    LAPWING_E_INVALID_OPTION = -27,
    LAPWING_E_TABLE_FULL = -28,
    LAPWING_E_NAME_TAKEN = -29,
    LAPWING_E_NAME_UNKNOWN = -30,
    LAPWING_E_NO_SUCH_READER = -31,
    LAPWING_E_NOT_EVICTABLE = -32,
    LAPWING_E_PINNED_FORBIDDEN = -33,
    LAPWING_E_FUTURE_SEQUENCE = -34,
    LAPWING_E_PERMISSION = -35,
    LAPWING_E_NO_SPACE = -36,
    LAPWING_E_UNSUPPORTED = -37,
    LAPWING_E_IO = -38,
    LAPWING_E_TOO_LARGE = -39,
    LAPWING_E_EXHAUSTED = -40,
    LAPWING_E_FILE_TRUNCATED = -41,
}

/// Bytes of a thread's last error, the zero at its end included.
const TEXT: usize = 1024;

thread_local! {
    // Constant and without a destructor, so that it can be used at any time in a thread's life.
    static LAST: UnsafeCell<[u8; TEXT]> = const { UnsafeCell::new([0; TEXT]) };
}

/// Writes into the thread's buffer, cut short at a whole character.
struct Text {
    at: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let take = cut(text, TEXT - 1 - self.at).len();
        LAST.with(|last| {
            // SAFETY: the cell belongs to this thread, and no reference into it outlives this closure; what was handed out is a
            // raw pointer, documented to be valid until the thread's next call.
            let last = unsafe { &mut *last.get() };
            last[self.at..self.at + take].copy_from_slice(&text.as_bytes()[..take]);
            self.at += take;
            last[self.at] = 0;
        });
        if take == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// The start of a text, at most so many bytes of it, cut at a whole character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Keeps the text of an error and returns its status.
#[cold]
#[inline(never)]
pub(crate) fn fail(status: c_int, text: impl fmt::Display) -> c_int {
    let mut last = Text { at: 0 };
    // Cut short is good enough, and says so to nobody.
    let _cut = write!(last, "{text}").is_err();
    status
}

/// The status of an error of the library.
#[cold]
pub(crate) fn fail_with(error: Error) -> c_int {
    let status = match error {
        Error::NotFound { .. } => LAPWING_E_NOT_FOUND,
        Error::NotReady { .. } => LAPWING_E_NOT_READY,
        Error::AlreadyExists { .. } => LAPWING_E_ALREADY_EXISTS,
        Error::WriterBusy { .. } => LAPWING_E_WRITER_BUSY,
        Error::NotABus { .. } => LAPWING_E_NOT_A_BUS,
        Error::Incompatible { .. } => LAPWING_E_INCOMPATIBLE,
        Error::Corrupt { .. } => LAPWING_E_CORRUPT,
        Error::InvalidOption { .. } => LAPWING_E_INVALID_OPTION,
        Error::TableFull { .. } => LAPWING_E_TABLE_FULL,
        Error::NameTaken { .. } => LAPWING_E_NAME_TAKEN,
        Error::NameUnknown { .. } => LAPWING_E_NAME_UNKNOWN,
        Error::NoSuchReader { .. } => LAPWING_E_NO_SUCH_READER,
        Error::NotEvictable { .. } => LAPWING_E_NOT_EVICTABLE,
        Error::PinnedForbidden { .. } => LAPWING_E_PINNED_FORBIDDEN,
        Error::FutureSequence { .. } => LAPWING_E_FUTURE_SEQUENCE,
        Error::WrongState { .. } => LAPWING_E_STATE,
        Error::Truncated { .. } => LAPWING_E_FILE_TRUNCATED,
        Error::Forked => LAPWING_E_FORKED,
        Error::Permission { .. } => LAPWING_E_PERMISSION,
        Error::NoSpace { .. } => LAPWING_E_NO_SPACE,
        Error::Unsupported { .. } => LAPWING_E_UNSUPPORTED,
        Error::Io { .. } => LAPWING_E_IO,
        _ => LAPWING_E_OTHER,
    };
    fail(status, error)
}

/// The status of a record that was not published, all reasons but readers in its way.
#[cold]
pub(crate) fn fail_to_publish(error: PublishError) -> c_int {
    let status = match error {
        PublishError::TooLarge { .. } => LAPWING_E_TOO_LARGE,
        PublishError::Exhausted => LAPWING_E_EXHAUSTED,
        PublishError::Forked => LAPWING_E_FORKED,
        PublishError::Failed(error) => return fail_with(error),
        _ => LAPWING_E_OTHER,
    };
    fail(status, error)
}

/// Runs the body of an export: no panic passes it.
#[inline(always)]
pub(crate) fn guard(body: impl FnOnce() -> Status) -> c_int {
    let body = || {
        #[cfg(test)]
        planted::panic_if_planted();
        body()
    };
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status) | Err(status)) => status,
        Err(payload) => {
            let text = if let Some(text) = payload.downcast_ref::<&str>() {
                text
            } else if let Some(text) = payload.downcast_ref::<String>() {
                text
            } else {
                "no text"
            };
            let status = fail(LAPWING_E_PANIC, format_args!("a bug in lapwing, please report it: {text}"));
            // Dropping it may run anything, and so panic once more.
            std::mem::forget(payload);
            status
        }
    }
}

/// Returns the text of the latest negative status that a call on this thread returned.
#[unsafe(no_mangle)]
pub extern "C" fn lapwing_last_error() -> *const c_char {
    LAST.with(|last| last.get().cast_const().cast())
}

/// Returns the name of a status.
#[unsafe(no_mangle)]
pub extern "C" fn lapwing_status_name(status: c_int) -> *const c_char {
    name_of(status).unwrap_or(c"LAPWING_UNKNOWN").as_ptr()
}

/// Returns the library's version as text.
#[unsafe(no_mangle)]
pub extern "C" fn lapwing_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version holds no zero byte"),
    };
    VERSION.as_ptr()
}

/// Panics on demand, for the test that every export catches one.
#[cfg(test)]
pub(crate) mod planted {
    use std::cell::Cell;

    thread_local! {
        pub(crate) static PLANTED: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn panic_if_planted() {
        assert!(!PLANTED.get(), "planted");
    }
}
