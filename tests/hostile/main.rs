//! Files that hold anything, a table that anybody may write to while it is in use, files that shrink or lose pieces while they are mapped:
//! no panic, no hang, no memory outside the maps, and other readers' data stays right.
//!
//! Times: `LAPWING_SECONDS` (the live tests, 2 by default), `PROPTEST_CASES`; both print what repeats a failure.
#![cfg(target_os = "linux")]

#[path = "../common/mod.rs"]
mod common;
mod exercise;
mod holes;
mod live;
mod shrunk;
mod signals;
mod spoiled;
mod vandal;

use common::{Place, roles};
use live::scribbler;
use shrunk::{attacher, holder, victim};
use signals::{chained, ignoring, unchained};

roles! { scribbler, victim, holder, attacher, chained, unchained, ignoring }

/// Longest payload of the tests here that prove what they read.
const LONGEST: usize = 200;
