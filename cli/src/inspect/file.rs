//! Words and bytes of a file that may be short, foreign, damaged or changing: read, never mapped, so nothing in it is a fault.

use nix::libc;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Bytes read at a time.
const PAGE: u64 = 64 << 10;

pub(crate) struct Words {
    file: File,
    pub(crate) length: u64,
    page: Vec<u8>,
    page_at: u64,
}

impl Words {
    /// Opens a regular file; anything else is an error of kind `InvalidInput`.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // NONBLOCK: opening a fifo must not wait for its other end.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        Ok(Self { file, length: meta.len(), page: Vec::new(), page_at: 0 })
    }

    /// Up to `length` bytes at `at`; fewer where the file ends.
    pub(crate) fn bytes(&self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = length.min(self.length.saturating_sub(at));
        let mut bytes = vec![0; length as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// The word at a byte as it is now; `None` beyond the end.
    pub(crate) fn fresh(&self, at: u64) -> io::Result<Option<u64>> {
        let bytes = self.bytes(at, 8)?;
        Ok(bytes.as_slice().try_into().ok().map(u64::from_ne_bytes))
    }

    /// The same from the page that was read last: older, and fast for neighbours.
    pub(crate) fn word(&mut self, at: u64) -> io::Result<Option<u64>> {
        let page_at = at / PAGE * PAGE;
        if self.page.is_empty() || page_at != self.page_at {
            (self.page, self.page_at) = (self.bytes(page_at, PAGE)?, page_at);
        }
        let from = (at - page_at) as usize;
        let bytes = self.page.get(from..).and_then(|bytes| bytes.first_chunk());
        Ok(bytes.map(|bytes| u64::from_ne_bytes(*bytes)))
    }

    /// Forgets the page, so that what is read next is new.
    pub(crate) fn refresh(&mut self) {
        self.page.clear();
    }
}
