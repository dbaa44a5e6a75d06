//! What is said about readers: who they are, how far behind, what they missed, and who is in the writer's way.

use crate::layout::Geometry;
use crate::table::{Phase, Slot};
use std::fmt;
use std::time::Duration;

/// Identifies one registration of one reader; never used twice on a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

impl fmt::Display for ReaderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How a registered reader stands to the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// The writer never overwrites what it has not read, unless told to evict it. Records are copied out.
    #[default]
    Gating = 1,
    /// Visible, but never holds the writer up; it counts what it missed.
    Lossy = 2,
    /// Gating, and borrows records from the ring without a copy; cannot be evicted while its process lives.
    Pinned = 3,
}

impl Class {
    pub(crate) fn from_bits(bits: u8) -> Self {
        match bits {
            2 => Self::Lossy,
            3 => Self::Pinned,
            _ => Self::Gating,
        }
    }

    /// Says whether the writer waits for readers of this class.
    pub const fn gates(self) -> bool {
        !matches!(self, Self::Lossy)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gating => "gating",
            Self::Lossy => "lossy",
            Self::Pinned => "pinned",
        })
    }
}

/// Where a registered reader is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// About to become active; gates already.
    Joining,
    /// Reads.
    Active,
    /// Was evicted; may rejoin.
    Evicted,
    /// Has a name and is away; its cursor is kept.
    Detached,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Evicted => "evicted",
            Self::Detached => "detached",
        })
    }
}

/// Sequences that a reader missed: from `first` up to, but not including, `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Gap {
    /// First sequence missed.
    pub first: u64,
    /// First sequence after the gap.
    pub end: u64,
}

impl Gap {
    /// Counts the sequences missed.
    pub const fn count(&self) -> u64 {
        self.end.saturating_sub(self.first)
    }

    /// Says whether nothing was missed.
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} missed, sequences {} up to {}", self.count(), self.first, self.end)
    }
}

/// A registered reader as seen at one moment; every number may have moved on since.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderInfo {
    /// Its registration.
    pub id: ReaderId,
    /// Its place in the table.
    pub slot: u32,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its process (the last one, if it is away), as it announced itself.
    pub pid: u32,
    /// When that process started, in clock ticks since boot, as it announced it; zero if it could not tell.
    pub process_start: u64,
    /// Its class.
    pub class: Class,
    /// Its state.
    pub state: State,
    /// Whether a process holds the slot's lock: the kernel's word, not the table's.
    pub alive: bool,
    /// Whether its process is stopped (by a signal or its terminal), to show, never to decide by. Only a [`Snapshot`](crate::Snapshot) looks;
    /// a writer's reports do not, and say false.
    pub stopped: bool,
    /// Whether `evict` would succeed.
    pub evictable: bool,
    /// Whether it gates while it is away.
    pub hold: bool,
    /// Records it has yet to read.
    pub lag_records: u64,
    /// Bytes of the ring it has yet to read.
    pub lag_bytes: u64,
    /// First sequence it was to read.
    pub start: u64,
    /// Next sequence it wants.
    pub cursor: u64,
    /// Records it has read: `cursor - start - missed`.
    pub delivered: u64,
    /// Records it missed, each reported to it.
    pub missed: u64,
    /// Records it has yet to read: `head - cursor`, in records.
    pub pending: u64,
    /// How often it was evicted.
    pub evictions: u64,
    /// How often it slept.
    pub waits: u64,
}

impl ReaderInfo {
    /// Reads a slot; `None` if it is free. `alive` is the word of the slot's lock.
    pub(crate) fn of(slot: Slot<'_>, geometry: &Geometry, head: u64, sequence: u64, alive: bool) -> Option<Self> {
        let control = slot.control();
        let state = match control.phase() {
            Phase::Free => return None,
            Phase::Joining => State::Joining,
            Phase::Active => State::Active,
            Phase::Evicted => State::Evicted,
            Phase::Detached => State::Detached,
        };
        let (position, cursor) = slot.cursor();
        let cursor = cursor.min(sequence);
        let start = slot.start().min(cursor);
        let missed = slot.missed(cursor).min(cursor - start);
        let lag_bytes = head.saturating_sub(position).min(geometry.capacity);
        Some(Self {
            id: ReaderId(slot.id()),
            slot: slot.index(),
            name: slot.name(),
            pid: slot.pid(),
            process_start: slot.process_start(),
            class: control.class(),
            state,
            alive,
            stopped: false,
            evictable: control.phase() != Phase::Evicted && !(alive && control.class() == Class::Pinned),
            hold: control.holds(),
            lag_records: sequence - cursor,
            lag_bytes,
            start,
            cursor,
            delivered: cursor - start - missed,
            missed,
            pending: sequence - cursor,
            evictions: slot.evictions(),
            waits: slot.waits(),
        })
    }
}

impl fmt::Display for ReaderInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reader {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        write!(
            f,
            " (process {}, {}, {}, {}) is {} records, {} bytes behind",
            self.pid,
            self.class,
            self.state,
            if self.alive { "alive" } else { "dead" },
            self.lag_records,
            self.lag_bytes
        )
    }
}

/// The report of a publish that would overrun readers; nothing was written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Overrun {
    /// Sequence the record would have had.
    pub sequence: u64,
    /// Bytes of the ring it needs.
    pub needed: u64,
    /// How long the writer waited for the readers, under a policy that waits.
    pub waited: Duration,
    /// Every reader in the way, the slowest first.
    pub readers: Vec<ReaderInfo>,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {} would overrun {} reader(s)", self.sequence, self.readers.len())?;
        for (i, reader) in self.readers.iter().enumerate() {
            write!(f, "{} {reader}", if i == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

/// Something the writer noticed about its readers; each is told once per episode.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WriterEvent {
    /// A reader's lag crossed this share of the ring: 50, 75 or 90 percent.
    Warning {
        /// The share in percent.
        percent: u8,
        /// Who.
        reader: ReaderInfo,
    },
    /// A publish met readers in its way; one event from the first refusal until the next success.
    Overrun(Overrun),
    /// A reader was evicted by this writer.
    Evicted {
        /// Who, as it stood then.
        reader: ReaderInfo,
        /// What it will have missed at most: it may have been reading at that very moment.
        at_most: Gap,
    },
    /// A dead reader's slot was reclaimed.
    Reaped {
        /// Who, as it stood then.
        reader: ReaderInfo,
    },
    /// Events that were dropped because nobody fetched them.
    Coalesced {
        /// How many.
        count: u64,
    },
}
