//! Errors as values: what was expected, what was found, and what to do about it.

use crate::report::Overrun;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of everything but publishing.
pub type Result<T> = std::result::Result<T, Error>;

/// What can keep a call from doing its work; loss of records is never one of these, see [`Gap`](crate::Gap).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no bus at this path.
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A bus is being created here, or its creator died half-way.
    NotReady {
        /// Where it was looked for.
        path: PathBuf,
        /// What is missing.
        why: &'static str,
    },
    /// There is something at this path already, a bus or not.
    AlreadyExists {
        /// Where it lies.
        path: PathBuf,
    },
    /// Another writer is alive.
    WriterBusy {
        /// The bus.
        path: PathBuf,
        /// The writer's process as it announced itself, if it got that far.
        pid: Option<u32>,
    },
    /// The path leads to something that is not a bus.
    NotABus {
        /// What was opened.
        path: PathBuf,
        /// What it is instead.
        why: String,
    },
    /// A bus, but of another layout, byte order or kind than this program's.
    Incompatible {
        /// The file.
        path: PathBuf,
        /// The field that differs.
        field: &'static str,
        /// What this program needs.
        expected: u64,
        /// What the file says.
        found: u64,
    },
    /// A bus whose content contradicts itself.
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The word or record that is wrong.
        field: &'static str,
        /// What it should be, or its bound.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// An option is out of its range.
    InvalidOption {
        /// Its name.
        field: &'static str,
        /// The value given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Every slot is taken.
    TableFull {
        /// The table.
        path: PathBuf,
        /// Slots it has.
        slots: u64,
        /// Slots of living readers.
        live: u64,
        /// Slots kept for names whose readers are away.
        detached: u64,
    },
    /// A living process holds this name.
    NameTaken {
        /// The name.
        name: String,
        /// Its process as it announced itself, if it got that far.
        pid: Option<u32>,
    },
    /// No reader of this name is known.
    NameUnknown {
        /// The name.
        name: String,
    },
    /// No reader has this id (any more).
    NoSuchReader {
        /// The id.
        id: u64,
    },
    /// The reader is pinned and alive: it borrows from the ring and cannot be evicted.
    NotEvictable {
        /// Its id.
        id: u64,
        /// Its process.
        pid: u32,
    },
    /// The bus was created without pinned readers.
    PinnedForbidden {
        /// The bus.
        path: PathBuf,
    },
    /// A start after a sequence that has not been published.
    FutureSequence {
        /// The sequence that was said to be known.
        asked: u64,
        /// The next one that will be published.
        next: u64,
    },
    /// The call makes sense only for a registered reader that was evicted, or for another class.
    WrongState {
        /// What was tried.
        what: &'static str,
        /// Why it cannot be.
        why: &'static str,
    },
    /// The bytes of a record are not a value of the type asked for.
    WrongSize {
        /// Bytes of the type.
        expected: usize,
        /// Bytes of the record.
        found: usize,
    },
    /// A file of the bus shrank while it was mapped. Without [`guard::install`](crate::guard::install) that is the process's death by `SIGBUS`.
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// The handle was made before a `fork` and is used in the child.
    Forked,
    /// The process may not open this file so.
    Permission {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
    },
    /// The file system is full; nothing was created.
    NoSpace {
        /// The file.
        path: PathBuf,
        /// Bytes it needs.
        needed: u64,
        /// The kernel's word.
        source: io::Error,
    },
    /// The file system or kernel lacks something the bus cannot do without.
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
        /// What to do.
        why: &'static str,
    },
    /// Another call of the operating system failed.
    Io {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::Permission { path: path.into(), what },
            // What cannot be created for want of its directory is another matter.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory if what != "create" => {
                Self::NotFound { path: path.into() }
            }
            _ => Self::Io { what, path: path.into(), source },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { path } => {
                write!(f, "{}: no bus there; create it first, or wait for its writer", path.display())
            }
            Self::NotReady { path, why } => {
                write!(f, "{}: not ready: {why}; try again, or create it anew if its creator died", path.display())
            }
            Self::AlreadyExists { path } => {
                write!(f, "{}: something is there already; if it is a bus, open, replace or remove it", path.display())
            }
            Self::WriterBusy { path, pid: Some(pid) } => {
                write!(f, "{}: process {pid} is the writer; wait for it as a standby, or end it first", path.display())
            }
            Self::WriterBusy { path, pid: None } => {
                write!(f, "{}: another process holds the writer's lock; wait for it as a standby", path.display())
            }
            Self::NotABus { path, why } => write!(f, "{}: not a bus: {why}", path.display()),
            Self::Incompatible { path, field, expected, found } => write!(
                f,
                "{}: incompatible: {field} is {found:#x}, this program needs {expected:#x}; use the version that created it, or replace the bus",
                path.display()
            ),
            Self::Corrupt { path, field, expected, found } => write!(
                f,
                "{}: corrupt: {field} is {found:#x}, expected {expected:#x}; the bus has to be replaced",
                path.display()
            ),
            Self::InvalidOption { field, value, allowed } => write!(f, "{field} cannot be {value}; allowed: {allowed}"),
            Self::TableFull { path, slots, live, detached } => write!(
                f,
                "{}: all {slots} reader slots are taken ({live} by living readers, {detached} kept for names that are away); \
                 end or forget readers, or create the bus with more slots",
                path.display()
            ),
            Self::NameTaken { name, pid: Some(pid) } => {
                write!(f, "the name {name:?} is taken by process {pid}; choose another, or end that process")
            }
            Self::NameTaken { name, pid: None } => write!(f, "the name {name:?} is taken by a living process"),
            Self::NameUnknown { name } => write!(f, "no reader of the name {name:?} is known; `readers` lists them"),
            Self::NoSuchReader { id } => write!(f, "no reader has the id {id} now; `readers` lists them"),
            Self::NotEvictable { id, pid } => write!(
                f,
                "reader {id} (process {pid}) is pinned and alive, so it cannot be evicted; end that process, or wait for it"
            ),
            Self::PinnedForbidden { path } => {
                write!(f, "{}: created without pinned readers; attach as gating instead", path.display())
            }
            Self::FutureSequence { asked, next } => write!(
                f,
                "sequence {asked} has not been published, the next one is {next}; is this the stream you left?"
            ),
            Self::WrongState { what, why } => write!(f, "cannot {what}: {why}"),
            Self::WrongSize { expected, found } => {
                write!(f, "the record has {found} bytes, the type asked for has {expected}")
            }
            Self::Truncated { path } => write!(
                f,
                "{}: truncated while it was in use, by somebody who may write it; the bus has to be replaced",
                path.display()
            ),
            Self::Forked => write!(f, "this handle was made before a fork; the child has to open its own"),
            Self::Permission { path, what } => {
                write!(f, "{}: permission denied to {what} it; check its mode, owner and directory", path.display())
            }
            Self::NoSpace { path, needed, .. } => write!(
                f,
                "{}: no room for {needed} bytes on its file system; free some, or choose a smaller capacity or another place",
                path.display()
            ),
            Self::Unsupported { path, what, why } => write!(f, "{}: no {what} here: {why}", path.display()),
            Self::Io { what, path, source } => write!(f, "{}: cannot {what} it: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoSpace { source, .. } | Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why a record was not published. Nothing was written, except where it says otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// Readers have yet to read what this record would overwrite: here they are. Wait, give up, or evict.
    WouldOverrun(Box<Overrun>),
    /// The record (or the whole batch) is larger than the ring takes.
    TooLarge {
        /// Bytes given.
        length: u64,
        /// Bytes allowed.
        max: u64,
    },
    /// The stream has reached its last position (after 2⁶² bytes); replace the bus.
    Exhausted,
    /// The handle was made before a `fork` and is used in the child.
    Forked,
    /// Looking after the readers in the way failed in the operating system, or a file of the bus was lost ([`Error::Truncated`]).
    Failed(Error),
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldOverrun(overrun) => overrun.fmt(f),
            Self::TooLarge { length, max } => {
                write!(
                    f,
                    "{length} bytes in one record or batch, but this bus takes {max}; split it, or create the bus with a larger capacity"
                )
            }
            Self::Exhausted => write!(f, "the stream has reached its last position; replace the bus"),
            Self::Forked => Error::Forked.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Error> for PublishError {
    fn from(error: Error) -> Self {
        match error {
            Error::Forked => Self::Forked,
            error => Self::Failed(error),
        }
    }
}
