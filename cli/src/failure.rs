//! What ends a command early, and the exit code that says so.

use crate::units;
use lapwing::{Error, PublishError};
use std::fmt;
use std::io;

/// The exit codes: a contract with scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Fine = 0,
    Other = 1,
    Usage = 2,
    NoBus = 3,
    WriterAbsent = 4,
    Missed = 5,
    BadBus = 6,
    Refused = 7,
    CheckFailed = 8,
    Warned = 9,
    Fault = 10,
}

/// Why a command stopped.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told, with its exit code.
    Told(Exit, String),
    /// Nobody reads the output any more: no failure at all.
    OutputClosed,
}

impl Failure {
    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::Told(Exit::Other, message.into())
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Told(Exit::Usage, message.into())
    }

    /// A failed write to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::other(format!("cannot write to standard output: {error}"))
        }
    }

    /// A failed read of standard input.
    pub(crate) fn input(error: &io::Error) -> Self {
        Self::other(format!("cannot read standard input: {error}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::NotFound { .. } | Error::NotReady { .. } => Exit::NoBus,
            Error::NotABus { .. } | Error::Incompatible { .. } | Error::Corrupt { .. } | Error::Truncated { .. } => {
                Exit::BadBus
            }
            Error::InvalidOption { .. } => Exit::Usage,
            _ => Exit::Other,
        };
        Self::Told(exit, error.to_string())
    }
}

impl From<PublishError> for Failure {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::WouldOverrun(_) => Self::Told(Exit::Refused, error.to_string()),
            PublishError::TooLarge { length, max } => Self::other(too_large(length, max)),
            PublishError::Failed(error) => error.into(),
            _ => Self::other(error.to_string()),
        }
    }
}

/// The message for a record that the bus does not take.
pub(crate) fn too_large(length: u64, max: u64) -> String {
    format!(
        "a record of {} is too large, this bus takes {}; split it, or create the bus with a larger capacity",
        units::plural(length, "byte"),
        units::count(max)
    )
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(_, message) => f.write_str(message),
            Self::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}
