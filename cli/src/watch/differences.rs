//! What happened between two looks at a bus, told from their differences: nothing is asked of writer or readers.
//!
//! What came and went again between two looks leaves no trace but a counter, and is told as a count.

use crate::report::Reader;
use crate::sight::Look;
use crate::units::{count, plural};
use lapwing::{Health, ReaderHealth, ReaderInfo, Stats, WriterInfo, WriterState};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;

/// Shares of the ring that are worth a warning, in percent.
const WARNINGS: [u8; 3] = [50, 75, 90];
/// How far below a share a lag must fall before crossing it again is news.
const REARM: f64 = 10.0;

/// Something that happened.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Happening {
    /// The first look at a bus.
    Watching {
        sequence: u64,
        writer: String,
        registered: Option<usize>,
        served: Option<usize>,
    },
    /// A reader registered; `resumed` if under a name that was known.
    Joined {
        resumed: bool,
        reader: Reader,
    },
    /// A reader left by itself; if it has a name, its place is kept.
    Left {
        reader: Reader,
    },
    /// Its lag crossed this share of the ring, and so many lower ones with it.
    Warning {
        percent: u8,
        coalesced: u64,
        reader: Reader,
    },
    /// The writer met readers in its way; those far behind now.
    Overrun {
        coalesced: u64,
        readers: Vec<Reader>,
    },
    /// A reader was evicted; it may have rejoined already.
    Evicted {
        coalesced: u64,
        reader: Reader,
    },
    /// A dead reader's slot was reclaimed; if it has a name, its place is kept.
    Reaped {
        reader: Reader,
    },
    /// A reader missed records.
    Gap {
        count: u64,
        missed: u64,
        reader: Reader,
    },
    /// A reader's health became this.
    Live {
        was: String,
        reader: Reader,
    },
    Lagging {
        was: String,
        reader: Reader,
    },
    Stalled {
        was: String,
        reader: Reader,
    },
    Stopped {
        was: String,
        reader: Reader,
    },
    Joining {
        was: String,
        reader: Reader,
    },
    Dead {
        was: String,
        reader: Reader,
    },
    /// No writer is alive, and the stream is not closed.
    WriterAbsent {
        sequence: u64,
    },
    /// A writer began or took over.
    Takeover {
        epoch: u64,
        pid: u32,
        sequence: u64,
        coalesced: u64,
    },
    /// The stream ended before `sequence`.
    Closed {
        sequence: u64,
        epoch: u64,
        code: u32,
        reason: String,
    },
    /// The path leads to a new bus.
    Replaced {
        sequence: u64,
    },
    /// The bus is gone.
    Removed,
    /// So many more events of a kind happened and left only a counter.
    Coalesced {
        of: &'static str,
        count: u64,
    },
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let also = |f: &mut fmt::Formatter<'_>, more: u64| {
            if more == 0 { Ok(()) } else { write!(f, " (and {} more since the last look)", count(more)) }
        };
        let became = |f: &mut fmt::Formatter<'_>, word: &str, was: &str, reader: &Reader| {
            write!(f, "{word}, was {was}: {reader}")
        };
        match self {
            Self::Watching { sequence, writer, registered, served } => {
                write!(f, "watching: writer {writer}, {} published", plural(*sequence, "record"))?;
                match (registered, served) {
                    (Some(registered), Some(served)) => {
                        write!(f, ", {} registered, {served} served", plural(*registered as u64, "reader"))
                    }
                    _ => f.write_str(", readers unknown: permission denied to read the table"),
                }
            }
            Self::Joined { resumed, reader } => write!(f, "{}: {reader}", if *resumed { "resumed" } else { "joined" }),
            Self::Left { reader } => write!(f, "left: {reader}"),
            Self::Warning { percent, reader, .. } => write!(f, "warning: {percent} % of the ring: {reader}"),
            Self::Overrun { coalesced, readers } => {
                f.write_str("overrun: readers were in the writer's way")?;
                also(f, *coalesced)?;
                readers.iter().enumerate().try_for_each(|(i, reader)| {
                    write!(f, "{} {reader}", if i == 0 { "; far behind now:" } else { ";" })
                })
            }
            Self::Evicted { coalesced, reader } => {
                write!(f, "evicted: {reader}")?;
                also(f, *coalesced)
            }
            Self::Reaped { reader } => write!(f, "reclaimed the slot of a dead reader: {reader}"),
            Self::Gap { count: new, missed, reader } => {
                write!(f, "gap: {} missed, {} in all: {reader}", plural(*new, "record"), count(*missed))
            }
            Self::Live { was, reader } => became(f, "live", was, reader),
            Self::Lagging { was, reader } => became(f, "lagging", was, reader),
            Self::Stalled { was, reader } => became(f, "stalled", was, reader),
            Self::Stopped { was, reader } => became(f, "stopped", was, reader),
            Self::Joining { was, reader } => became(f, "joining", was, reader),
            Self::Dead { was, reader } => became(f, "dead", was, reader),
            Self::WriterAbsent { sequence } => {
                write!(f, "writer absent; the stream is not closed, next would be sequence {sequence}")
            }
            Self::Takeover { epoch, pid, sequence, coalesced } => {
                write!(f, "takeover: writer {epoch} of this bus, process {pid}, goes on at sequence {sequence}")?;
                also(f, *coalesced)
            }
            Self::Closed { sequence, code, reason, .. } => {
                write!(f, "closed before sequence {sequence}, code {code}")?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {}", reason.escape_debug()) }
            }
            Self::Replaced { sequence } => write!(f, "replaced by a new bus, after sequence {sequence} of the old one"),
            Self::Removed => f.write_str("removed"),
            Self::Coalesced { of, count: more } => {
                write!(f, "{} of kind {of:?} since the last look that left only a counter", plural(*more, "more event"))
            }
        }
    }
}

/// A counter of the writer's, and how much of it was told.
struct Counter {
    told: u64,
    /// Whether what was told may be counted later, or never: the writer looks for warnings at its own times.
    loose: bool,
}

impl Counter {
    /// What was counted beyond what was told; told from now on.
    fn rest(&mut self, now: u64) -> u64 {
        let rest = now.saturating_sub(self.told);
        // Others evict and reap as well, and the writer does not count that.
        self.told = if self.loose { self.told.max(now) } else { now };
        rest
    }
}

struct Known {
    info: ReaderInfo,
    health: Health,
    /// Highest share of the ring told in this episode.
    warned: u8,
}

/// What the last look saw.
struct Before {
    bus: u64,
    sequence: u64,
    writer: WriterInfo,
    stats: Stats,
    readers: HashMap<(u32, u64), Known>,
    warnings: Counter,
    evictions: Counter,
    reaped: Counter,
    /// Highest registration seen to begin: those between it and the next came and went.
    last_id: Option<u64>,
}

/// Compares each look with the one before.
pub(crate) struct Differences {
    before: Option<Before>,
}

impl Differences {
    pub(crate) fn new() -> Self {
        Self { before: None }
    }

    /// Says whether there was a look.
    pub(crate) fn has_seen(&self) -> bool {
        self.before.is_some()
    }

    pub(crate) fn since_last(&mut self, look: &Look) -> Vec<Happening> {
        let mut told = Vec::new();
        match &mut self.before {
            Some(before) if before.bus == look.snapshot.bus_id => {
                before.writer(look, &mut told);
                before.readers(look, &mut told);
                before.counters(look, &mut told);
                before.sequence = look.snapshot.sequence;
            }
            before => {
                if let Some(old) = before {
                    told.push(Happening::Replaced { sequence: old.sequence });
                }
                *before = Some(Before::first(look, &mut told));
            }
        }
        told
    }
}

impl Before {
    fn first(look: &Look, told: &mut Vec<Happening>) -> Self {
        let snapshot = &look.snapshot;
        told.push(Happening::Watching {
            sequence: snapshot.sequence,
            writer: snapshot.writer.state.to_string(),
            registered: look.registered(),
            served: look.served(),
        });
        let mut new = Self {
            bus: snapshot.bus_id,
            sequence: snapshot.sequence,
            writer: snapshot.writer.clone(),
            stats: snapshot.stats,
            readers: HashMap::new(),
            warnings: Counter { told: snapshot.stats.warnings, loose: true },
            evictions: Counter { told: snapshot.stats.evictions, loose: false },
            reaped: Counter { told: snapshot.stats.reaped, loose: false },
            last_id: None,
        };
        for (info, health) in look.pairs() {
            if let Some(word) = became(health, Health::Live, (info, health).into()) {
                told.push(word);
            }
            new.readers.insert(key(info), Known { info: info.clone(), health: health.health, warned: 0 });
        }
        new
    }

    fn writer(&mut self, look: &Look, told: &mut Vec<Happening>) {
        let now = &look.snapshot.writer;
        let old = std::mem::replace(&mut self.writer, now.clone());
        if let Some(closed) = now.closed.as_ref().filter(|_| now.closed != old.closed) {
            told.push(Happening::Closed {
                sequence: closed.sequence,
                epoch: closed.epoch,
                code: closed.code,
                reason: closed.reason.clone(),
            });
        }
        if now.epoch > old.epoch {
            let event = Happening::Takeover {
                epoch: now.epoch,
                pid: now.pid,
                sequence: now.resumed_at,
                coalesced: now.epoch - old.epoch - 1,
            };
            // A close of this writer comes after it began.
            let closed_it = now.closed.as_ref().is_some_and(|closed| closed.epoch == now.epoch);
            let at = told.len() - usize::from(closed_it && now.closed != old.closed);
            told.insert(at, event);
        }
        if now.state == WriterState::Absent && (old.state != WriterState::Absent || now.epoch != old.epoch) {
            told.push(Happening::WriterAbsent { sequence: look.snapshot.sequence });
        }
    }

    fn readers(&mut self, look: &Look, told: &mut Vec<Happening>) {
        if look.snapshot.readers.is_none() {
            return;
        }
        let mut old = std::mem::take(&mut self.readers);
        let mut here = Vec::new();
        for (info, health) in look.pairs() {
            here.push((info, health, old.remove(&key(info))));
        }
        // Who is gone, first: a name that was resumed comes after.
        let mut gone: Vec<_> = old.into_values().collect();
        gone.sort_by_key(|known| known.info.id);
        let named =
            |name: &str| here.iter().any(|(info, _, known)| known.is_none() && info.name.as_deref() == Some(name));
        let mut names = HashMap::new();
        for known in gone {
            // Its name goes on under another registration.
            match known.info.name.as_deref().filter(|name| named(name)) {
                Some(name) => drop(names.insert(name.to_owned(), known.info)),
                None if known.health == Health::Dead => {
                    self.reaped.told += 1;
                    told.push(Happening::Reaped { reader: (&known.info).into() });
                }
                // It had left, or been evicted; that was told.
                None if matches!(known.health, Health::Detached | Health::Evicted) => {}
                None => told.push(Happening::Left { reader: (&known.info).into() }),
            }
        }
        let new: Vec<u64> = here.iter().filter(|(_, _, known)| known.is_none()).map(|(info, _, _)| info.id.0).collect();
        if let Some(&highest) = new.iter().max() {
            if let Some(last) = self.last_id {
                let passed = highest.saturating_sub(last).saturating_sub(new.len() as u64);
                if passed != 0 {
                    told.push(Happening::Coalesced { of: "joined", count: passed });
                }
            }
            self.last_id = self.last_id.max(Some(highest));
        }
        for (info, health, known) in here {
            let reader = || Reader::from((info, health));
            let known = known.unwrap_or_else(|| {
                let resumed = info.name.as_ref().and_then(|name| names.remove(name));
                told.push(Happening::Joined { resumed: resumed.is_some(), reader: reader() });
                // What it missed while away is told to it, and here, when it is back.
                let mut before = info.clone();
                before.missed = resumed.map_or(0, |old: ReaderInfo| old.missed);
                Known { info: before, health: Health::Live, warned: 0 }
            });
            let warned = self.one(info, health, &known, told);
            self.readers.insert(key(info), Known { info: info.clone(), health: health.health, warned });
        }
    }

    /// What happened to a reader that was there before; returns the share of the ring told of.
    fn one(&mut self, info: &ReaderInfo, health: &ReaderHealth, known: &Known, told: &mut Vec<Happening>) -> u8 {
        let reader = || Reader::from((info, health));
        let evictions = info.evictions.saturating_sub(known.info.evictions);
        if evictions != 0 {
            self.evictions.told += evictions;
            told.push(Happening::Evicted { coalesced: evictions - 1, reader: reader() });
        }
        let missed = info.missed.saturating_sub(known.info.missed);
        if missed != 0 {
            told.push(Happening::Gap { count: missed, missed: info.missed, reader: reader() });
        }
        if health.health == Health::Detached && known.health != Health::Detached {
            if known.health == Health::Dead {
                self.reaped.told += 1;
                told.push(Happening::Reaped { reader: reader() });
            } else {
                told.push(Happening::Left { reader: reader() });
            }
        } else if health.health != known.health
            && let Some(word) = became(health, known.health, reader())
        {
            told.push(word);
        }
        if matches!(health.health, Health::Detached | Health::Evicted) {
            return 0;
        }
        let crossed = || WARNINGS.into_iter().filter(|&percent| health.lag_percent >= f64::from(percent));
        let level = crossed().max().unwrap_or(0);
        if level > known.warned {
            let news = crossed().filter(|&percent| percent > known.warned).count() as u64;
            self.warnings.told += news;
            told.push(Happening::Warning { percent: level, coalesced: news - 1, reader: reader() });
            level
        } else if health.lag_percent + REARM < f64::from(known.warned) {
            level
        } else {
            known.warned
        }
    }

    fn counters(&mut self, look: &Look, told: &mut Vec<Happening>) {
        let stats = look.snapshot.stats;
        let episodes = stats.episodes.saturating_sub(self.stats.episodes);
        if episodes != 0 {
            let behind = f64::from(WARNINGS[0]);
            let mut far: Vec<_> = look
                .pairs()
                .filter(|(info, health)| info.class.gates() && health.lag_percent >= behind)
                .filter(|(_, health)| !matches!(health.health, Health::Evicted | Health::Detached))
                .map(Reader::from)
                .collect();
            far.sort_by_key(|reader| std::cmp::Reverse(reader.lag_bytes));
            told.push(Happening::Overrun { coalesced: episodes - 1, readers: far });
        }
        for (of, rest) in [
            ("warning", self.warnings.rest(stats.warnings)),
            ("evicted", self.evictions.rest(stats.evictions)),
            ("reaped", self.reaped.rest(stats.reaped)),
        ] {
            if rest != 0 {
                told.push(Happening::Coalesced { of, count: rest });
            }
        }
        self.stats = stats;
    }
}

fn key(info: &ReaderInfo) -> (u32, u64) {
    (info.slot, info.id.0)
}

/// The event of a health that is news by itself; leaving and being evicted have their own.
fn became(health: &ReaderHealth, was: Health, reader: Reader) -> Option<Happening> {
    if health.health == was {
        return None;
    }
    let was = was.to_string();
    Some(match health.health {
        Health::Live => Happening::Live { was, reader },
        Health::Lagging => Happening::Lagging { was, reader },
        Health::Stalled => Happening::Stalled { was, reader },
        Health::Stopped => Happening::Stopped { was, reader },
        Health::Joining => Happening::Joining { was, reader },
        Health::Dead => Happening::Dead { was, reader },
        _ => return None,
    })
}
