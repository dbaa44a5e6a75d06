//! What only `unsafe` can do here: a breakpoint, and memory that is shared with the traced child.

use memmap2::MmapRaw;
use std::fs::File;
use std::sync::atomic::AtomicU64;

/// Traps. Only ever executed under a tracer, which takes the trap.
pub(crate) fn breakpoint() {
    // SAFETY: a breakpoint changes no register and no memory.
    unsafe { std::arch::asm!("int3") };
}

/// A file's bytes, which a child may have mapped as well.
pub(crate) struct Shared(MmapRaw);

impl Shared {
    /// Maps the file as long as it is now; nobody in these tests makes it shorter.
    pub(crate) fn of(file: &File) -> Self {
        Self(MmapRaw::map_raw(file).unwrap())
    }

    /// A word that everybody uses atomically.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.0.len() / 8);
        // SAFETY: mapped as long as `self`, page-aligned, and the index is within.
        unsafe { &*self.0.as_ptr().cast::<AtomicU64>().add(index) }
    }

    /// The bytes as they are, for as long as the child that changes them stands still.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and that long as long as `self`; looked at between two steps of the only process that writes to it.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}
