//! The C interface of lapwing. Its manual is `include/lapwing.h`; here is how it keeps what the manual promises.
//!
//! - **No panic passes.** Every export runs inside [`status::guard`]; a handle whose call panicked is poisoned.
//! - **Nothing is trusted.** Handles carry a magic, the fork they were made after and a flag of the call that runs
//!   ([`handle`]); structs cross by copy, with their size checked ([`border`]); out pointers may be misaligned.
//! - **A record is committed when the caller comes back for more, or says so.** Core readers are opened with manual commit; [`reader`]
//!   commits at the beginning of the next call, whatever mixture of single calls and polls that is.
//! - **Nothing on the hot paths allocates** once a handle's own buffers have grown to the records they carry.

// The header is where every function's contract stands; here it would be said twice.
#![allow(clippy::missing_safety_doc, missing_docs)]

pub mod border;
pub mod bus_calls;
pub mod handle;
pub mod process;
pub mod reader;
pub mod status;
pub mod types;
pub mod writer;

#[cfg(test)]
mod tests;
