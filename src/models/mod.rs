//! The protocol's own code under loom: every interleaving, and every value that a weakly ordered machine may load, of small scenes.
//!
//! Run by `.ci/loom`; `.ci/mutate` weakens the code line by line and requires that one of these fails. One theme a file:
//!
//! | module | shows |
//! |---|---|
//! | `publishing` | a record is whole or absent, Latest is a true place, padding, the zero ahead |
//! | `lapping` | an observer that the writer laps never takes a torn record, nor a zero for "nothing yet" |
//! | `joining` | joins against the limit's extension: whoever is active is never overrun, and a refusal takes nothing back |
//! | `gating` | cursors hold the writer up; whoever is evicted while it reads is told so; a writer that waits is woken |
//! | `sleeping` | no lost wake-up |
//! | `takeover` | a writer dies at each of its stores, the next one goes on, readers notice nothing |
//! | `closing` | the end of the stream, its sequence and its reason |
//!
//! What loom does not model, and so nothing here shows:
//!
//! - *Load buffering*: a load that is executed after a later store of its thread. The Release of a cursor's store (what was
//!   copied out was read before) needs it, as does every pair whose first half is a load. `tests/litmus` covers these.
//! - *Late stores*: one word's stores take effect in the order in which loom executes them; a store that becomes
//!   visible after a later one of its thread shows as old values in loads, never in a read-modify-write.
//! - *membarrier*, modelled as a full fence on both sides, which is what the pair amounts to; or as missing.
//! - Fences of `SeqCst` are stronger in loom than in the language: each happens before the next one. Orderings that such a fence
//!   would hide show in the scenes without membarrier.
//! - More than seven stores to a word: loom forgets the oldest. No scene has that many while others may still load them.
//! - The futex's time-out: a sleeper that nobody wakes is a deadlock here.
//! - A kill that finds two stores in another order than the program's; a writer here dies between two of them. See `tests/killed`.
//! - `stream`, `seat`, `writer` and what else needs the kernel. What they do call by call is repeated in `rig`, each with its origin.

mod closing;
mod gating;
mod joining;
mod lapping;
mod publishing;
mod rig;
mod sleeping;
mod takeover;
pub(crate) mod words;
