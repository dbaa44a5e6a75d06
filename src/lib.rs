//! A broadcast bus between processes of one machine: one writer, many readers, a ring in a memory-mapped file, no daemon.
//!
//! **No event is ever lost in silence.** Each record reaches each registered reader, or both sides are told: the writer which
//! reader would be overrun, before anything is overwritten, and the reader exactly which sequences it missed.
//!
//! # Words
//!
//! *bus*, *writer*, *reader* (registered), *observer* (unregistered, read-only), *record* (one message), *sequence* (number of a record,
//! from 0, one more each), *position* (byte offset in the endless stream), *head* (position after the last committed record),
//! *cursor* (a reader's position), *limit* (the writer may write below it), *overrun* (writing where a reader has yet to read), *lag*
//! (head minus cursor), *gap* (half-open range of sequences lost), *evict*, *slot* (a reader's entry in the table), *health* (how a reader is,
//! in one word), *epoch* (count of writers),
//! *claim* and *commit* (write in place), *pinned* (a reader that borrows from the ring).
//!
//! # How the modules fit together
//!
//! ```text
//!  options   writer  claim     reader  observer     bus ── health    what a program calls
//!                │                 └──┬───┘
//!                │                 stream                        waiting, end of stream
//!    files ──────┼──── registry ──────┤                          names, modes, who owns which slot
//!                │                    │
//!             publish ──── join ── consume                       the protocol, free of the kernel
//!                └───── ring · table · wake ────┘
//!                 layout · map · guard · sync · sys              words, mapping, lost files, atomics, kernel
//! ```
//!
//! [`layout`] documents the files to the bit; the protocol's reasoning stands at the head of `publish`, `join`, `consume` and `wake`.

#![warn(missing_docs)]
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(target_pointer_width = "64"))]
compile_error!("positions and lengths are 64 bits wide, and files are mapped whole: lapwing needs a 64-bit machine");

pub mod layout;

#[cfg(all(feature = "async", not(loom)))]
mod asynchronous;
#[cfg(not(loom))]
mod bus;
#[cfg(not(loom))]
mod claim;
mod consume;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod files;
#[cfg(not(loom))]
pub mod guard;
#[cfg(not(loom))]
mod health;
mod join;
mod map;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod observer;
#[cfg(not(loom))]
mod options;
mod publish;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod registry;
mod report;
mod ring;
#[cfg(not(loom))]
mod seat;
#[cfg(not(loom))]
mod start;
#[cfg(not(loom))]
mod stream;
mod sync;
mod sys;
mod table;
#[cfg(not(loom))]
mod trace;
mod wake;
#[cfg(not(loom))]
mod writer;

#[cfg(all(feature = "async", not(loom)))]
pub use asynchronous::{Item, OwnedRecord, ReaderStream};

#[cfg(not(loom))]
pub use crate::{
    bus::{Bus, Snapshot, WriterInfo, WriterState},
    claim::{Batch, Claim},
    error::{Error, PublishError, Result},
    health::{Health, HealthLimits, HealthWatch, ReaderHealth},
    observer::Observer,
    options::Options,
    reader::{Reader, ReaderOptions},
    start::Start,
    stream::{Closed, Next, Record, Wait},
    writer::{Policy, Stats, Writer},
};
pub use report::{Class, Gap, Overrun, ReaderId, ReaderInfo, State, WriterEvent};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
