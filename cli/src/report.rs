//! Everything the command tells besides data: each event's JSON fields and its words for people, in one place.
//!
//! Field names are a contract with scripts. Fields may be added; none is renamed or removed.

use crate::units;
use lapwing::{Gap, Overrun, ReaderHealth, ReaderInfo};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

/// A reader as every report and listing shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reader {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) pid: u32,
    pub(crate) class: String,
    pub(crate) state: String,
    pub(crate) lag_records: u64,
    pub(crate) lag_bytes: u64,
    pub(crate) alive: bool,
    pub(crate) evictable: bool,
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
    pub(crate) pending: u64,
    pub(crate) start: u64,
    pub(crate) cursor: u64,
    pub(crate) hold: bool,
    pub(crate) slot: u32,
    pub(crate) evictions: u64,
    pub(crate) waits: u64,
    /// Of tools that look at the bus; a writer's own reports do not judge.
    #[serde(flatten)]
    pub(crate) condition: Option<Condition>,
}

/// How a reader is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Condition {
    pub(crate) health: String,
    /// How long the word has been this one, as far as was seen.
    pub(crate) health_since_ms: u64,
    pub(crate) lag_percent: f64,
    /// `null` if its cursor was not seen to move.
    pub(crate) last_progress_ms: Option<u64>,
    /// How long it has been behind without moving, as far as was seen.
    pub(crate) stuck_ms: u64,
    /// Whether its process is stopped.
    pub(crate) stopped: bool,
}

impl From<(&ReaderInfo, &ReaderHealth)> for Reader {
    fn from((info, health): (&ReaderInfo, &ReaderHealth)) -> Self {
        let condition = Condition {
            health: health.health.to_string(),
            health_since_ms: millis(health.since),
            lag_percent: (health.lag_percent * 100.0).round() / 100.0,
            last_progress_ms: health.last_progress.map(millis),
            stuck_ms: millis(health.stuck_for),
            stopped: info.stopped,
        };
        Self { condition: Some(condition), ..Self::from(info) }
    }
}

impl From<&ReaderInfo> for Reader {
    fn from(info: &ReaderInfo) -> Self {
        Self {
            id: info.id.0,
            name: info.name.clone(),
            pid: info.pid,
            class: info.class.to_string(),
            state: info.state.to_string(),
            lag_records: info.lag_records,
            lag_bytes: info.lag_bytes,
            alive: info.alive,
            evictable: info.evictable,
            delivered: info.delivered,
            missed: info.missed,
            pending: info.pending,
            start: info.start,
            cursor: info.cursor,
            hold: info.hold,
            slot: info.slot,
            evictions: info.evictions,
            waits: info.waits,
            condition: None,
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reader {}", self.id)?;
        if let Some(name) = &self.name {
            write!(f, " {name:?}")?;
        }
        let alive = if self.alive { "alive" } else { "no live process" };
        write!(f, " (process {}, {}, {}, {alive}", self.pid, self.class, self.state)?;
        match &self.condition {
            Some(condition) => write!(f, ", {})", condition.health)?,
            None => f.write_str(")")?,
        }
        write!(f, ", {}, {} behind", units::plural(self.lag_records, "record"), units::bytes(self.lag_bytes))
    }
}

/// A half-open range of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) count: u64,
}

impl From<Gap> for Range {
    fn from(gap: Gap) -> Self {
        Self { first: gap.first, end: gap.end, count: gap.count() }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => write!(f, "no record"),
            1 => write!(f, "1 record, sequence {}", self.first),
            count => write!(f, "{} records, sequences {} to {}", units::count(count), self.first, self.end - 1),
        }
    }
}

/// What the writer does about the readers in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Waiting,
    Evicting,
    Refused,
    Timeout,
}

/// What `stat` can be told to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    Lag,
    Stalled,
}

/// How a `pub`, `sub` or `reap` ended. Each command fills the fields that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// `pub`: records published by this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) published: Option<u64>,
    /// `sub`: records delivered by this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delivered: Option<u64>,
    /// `sub`: records missed, each told in a `gap`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missed: Option<u64>,
    /// `reap`: slots reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reaped: Option<u64>,
    /// First and last sequence published or delivered; `null` if none was.
    pub(crate) first: Option<u64>,
    pub(crate) last: Option<u64>,
    /// `sub`: first sequence wanted, and the next one: `next - start = delivered + missed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) start: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<u64>,
    /// Payload bytes.
    pub(crate) bytes: u64,
    pub(crate) elapsed_ms: u64,
    /// `pub`: the writer's epoch, and whether it closed the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closed: Option<bool>,
    /// `pub`: how often readers got in the way, how long it waited for them, how many it evicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) overruns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waited_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) evicted: Option<u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reaped) = self.reaped {
            return write!(f, "reclaimed {}", units::plural(reaped, "slot"));
        }
        let (verb, records) = match self.published {
            Some(published) => ("published", published),
            None => ("delivered", self.delivered.unwrap_or(0)),
        };
        write!(f, "{verb} {}", units::plural(records, "record"))?;
        if let (Some(first), Some(last)) = (self.first, self.last) {
            write!(f, ", sequences {first} to {last}, {}", units::bytes(self.bytes))?;
            write!(f, " in {}", units::seconds(Duration::from_millis(self.elapsed_ms)))?;
        }
        match self.missed {
            None | Some(0) => {}
            Some(missed) => write!(f, "; missed {}", units::count(missed))?,
        }
        if let (Some(overruns @ 1..), Some(waited)) = (self.overruns, self.waited_ms) {
            let waited = units::seconds(Duration::from_millis(waited));
            write!(f, "; readers were in the way {} ({waited})", units::plural(overruns, "time"))?;
        }
        if let Some(evicted @ 1..) = self.evicted {
            write!(f, "; {}", units::plural(evicted, "eviction"))?;
        }
        match self.closed {
            Some(true) => f.write_str("; stream closed"),
            Some(false) => f.write_str("; stream left open"),
            None => Ok(()),
        }
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A bus was created.
    Created { path: String, capacity: u64, readers: u32, schema: u64 },
    /// A reader or observer is in place: whatever is published from `sequence` on reaches it. What was kept for its name and lies before
    /// its start does not.
    Attached {
        id: Option<u64>,
        name: Option<String>,
        class: String,
        sequence: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        passed_over: Option<Range>,
    },
    /// A record would overrun readers; nothing was written. `coalesced` counts like episodes since the last line.
    Overrun { sequence: u64, needed: u64, waited_ms: u64, outcome: Outcome, coalesced: u64, readers: Vec<Reader> },
    /// A reader's lag crossed this share of the ring.
    Warning { percent: u8, coalesced: u64, reader: Reader },
    /// A reader was evicted; from the writer's side it will have missed this much at most.
    Evicted {
        reader: Reader,
        #[serde(skip_serializing_if = "Option::is_none")]
        at_most: Option<Range>,
    },
    /// A dead reader's slot was reclaimed.
    Reaped { reader: Reader },
    /// Events that were dropped for want of room.
    Coalesced { count: u64 },
    /// A reader's loss.
    Gap(Range),
    /// No writer is alive, and the stream is not closed. `sequence` is the next one wanted.
    WriterAbsent { sequence: u64 },
    /// Another writer goes on with this sequence (`null` if the next one came before that could be seen).
    Takeover { epoch: u64, sequence: Option<u64> },
    /// The stream ended before `sequence`.
    Closed { sequence: u64, epoch: u64, code: u32, reason: String },
    /// The bus was created anew or removed; nothing more comes.
    Replaced { sequence: u64 },
    /// The path leads elsewhere now; nothing more comes.
    Orphaned { sequence: u64 },
    /// A name was forgotten.
    Forgotten { name: String },
    /// A bus was removed.
    Removed { path: String },
    /// A reader failed a check of `stat`.
    CheckFailed { check: Check, reader: Reader },
    /// `export`: metrics are served here from now on; `public` if other machines can ask too.
    Serving { address: String, public: bool },
    /// `export`: a bus cannot be looked at.
    Down { path: String, message: String },
    /// `export`: it can again.
    Up { path: String },
    /// The result.
    Summary(Summary),
    /// What ended the command early.
    Error { code: u8, message: String },
}

impl Event {
    /// The writer's report, with what it does about it.
    pub(crate) fn overrun(overrun: &Overrun, outcome: Outcome, waited: Duration, coalesced: u64) -> Self {
        Self::Overrun {
            sequence: overrun.sequence,
            needed: overrun.needed,
            waited_ms: millis(waited),
            outcome,
            coalesced,
            readers: overrun.readers.iter().map(Reader::from).collect(),
        }
    }
}

/// Whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { path, capacity, readers, .. } => {
                write!(f, "created {path}: {}, {}", units::bytes(*capacity), units::plural(u64::from(*readers), "slot"))
            }
            Self::Attached { id, name, class, sequence, passed_over } => {
                write!(f, "attached, {class}")?;
                if let Some(id) = id {
                    write!(f, " reader {id}")?;
                }
                if let Some(name) = name {
                    write!(f, " {name:?}")?;
                }
                write!(f, ", from sequence {sequence}")?;
                passed_over.map_or(Ok(()), |range| {
                    write!(f, "; passes over {range}, kept for its name (--from resume would get them)")
                })
            }
            Self::Overrun { sequence, waited_ms, outcome, coalesced, readers, .. } => {
                write!(f, "overrun: record {sequence} would overwrite what ")?;
                write!(f, "{} yet to read; ", if readers.len() == 1 { "a reader has" } else { "readers have" })?;
                let waited = units::seconds(Duration::from_millis(*waited_ms));
                match outcome {
                    Outcome::Waiting => f.write_str("waiting")?,
                    Outcome::Evicting => f.write_str("evicting")?,
                    Outcome::Refused => f.write_str("refused")?,
                    Outcome::Timeout => write!(f, "given up after {waited}")?,
                }
                write_coalesced(f, *coalesced)?;
                readers.iter().try_for_each(|reader| write!(f, "\n  {reader}"))
            }
            Self::Warning { percent, coalesced, reader } => {
                write!(f, "warning: {percent} % of the ring: {reader}")?;
                write_coalesced(f, *coalesced)
            }
            Self::Evicted { reader, at_most } => {
                write!(f, "evicted {reader}")?;
                at_most.map_or(Ok(()), |range| write!(f, "; misses at most {range}"))
            }
            Self::Reaped { reader } => write!(f, "reclaimed the slot of a dead reader: {reader}"),
            Self::Coalesced { count } => write!(f, "{} dropped", units::plural(*count, "report")),
            Self::Gap(range) => write!(f, "gap: missed {range}"),
            Self::WriterAbsent { sequence } => {
                write!(f, "writer absent; the stream is not closed, next would be sequence {sequence}")
            }
            Self::Takeover { epoch, sequence } => {
                write!(f, "takeover: writer {epoch} of this bus goes on")?;
                sequence.map_or(Ok(()), |sequence| write!(f, " at sequence {sequence}"))
            }
            Self::Closed { sequence, code, reason, .. } => {
                write!(f, "closed before sequence {sequence}")?;
                if *code != 0 {
                    write!(f, ", code {code}")?;
                }
                if reason.is_empty() { Ok(()) } else { write!(f, ": {}", reason.escape_debug()) }
            }
            Self::Replaced { sequence } => {
                write!(f, "the bus was created anew or removed before sequence {sequence}; attach again")
            }
            Self::Orphaned { sequence } => {
                write!(f, "the path leads elsewhere now, nothing comes after sequence {sequence}; attach again")
            }
            Self::Forgotten { name } => write!(f, "forgot {name:?}"),
            Self::Removed { path } => write!(f, "removed {path}"),
            Self::CheckFailed { check, reader } => {
                let percent = reader.condition.as_ref().map_or(0.0, |condition| condition.lag_percent);
                match check {
                    Check::Lag => write!(f, "check failed: {percent:.0} % of the ring: {reader}"),
                    Check::Stalled => write!(f, "check failed: no progress: {reader}"),
                }
            }
            Self::Serving { address, public } => {
                write!(f, "serving http://{address}/metrics")?;
                if *public { f.write_str(", to other machines too") } else { Ok(()) }
            }
            Self::Down { message, .. } => write!(f, "down: {message}"),
            Self::Up { path } => write!(f, "up: {path}"),
            Self::Summary(summary) => summary.fmt(f),
            Self::Error { message, .. } => f.write_str(message),
        }
    }
}

fn write_coalesced(f: &mut fmt::Formatter<'_>, count: u64) -> fmt::Result {
    if count == 0 { Ok(()) } else { write!(f, " ({} more since the last report)", units::count(count)) }
}

/// Writes events, one a line, as JSON or in words.
#[derive(Clone, Copy)]
pub(crate) struct Reporter {
    pub(crate) json: bool,
}

impl Reporter {
    fn line(self, event: &Event) -> String {
        if self.json {
            // Maps with string keys and plain numbers: nothing that JSON could refuse.
            serde_json::to_string(event).unwrap_or_default() + "\n"
        } else {
            format!("lapwing: {event}\n")
        }
    }

    /// Tells on standard error. A closed one is no reason to stop moving data.
    pub(crate) fn tell(self, event: &Event) {
        let _ = io::stderr().write_all(self.line(event).as_bytes());
    }

    /// Tells a command's result on standard output.
    pub(crate) fn result(self, event: &Event) -> io::Result<()> {
        let line = self.line(event);
        // On standard output there is nothing else to tell it from.
        let line = if self.json { &line } else { line.trim_start_matches("lapwing: ") };
        io::stdout().write_all(line.as_bytes())?;
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reader() -> Reader {
        Reader {
            id: 7,
            name: Some("slow".into()),
            pid: 42,
            class: "gating".into(),
            state: "active".into(),
            lag_records: 3,
            lag_bytes: 2048,
            alive: true,
            evictable: true,
            delivered: 5,
            missed: 0,
            pending: 3,
            start: 0,
            cursor: 5,
            hold: false,
            slot: 0,
            evictions: 0,
            waits: 1,
            condition: None,
        }
    }

    fn value(event: &Event) -> Value {
        serde_json::from_str(&Reporter { json: true }.line(event)).expect("one JSON object")
    }

    #[test]
    fn field_names_are_those_of_the_contract() {
        let overrun = value(&Event::Overrun {
            sequence: 8,
            needed: 32,
            waited_ms: 0,
            outcome: Outcome::Waiting,
            coalesced: 0,
            readers: vec![reader()],
        });
        assert_eq!((&overrun["event"], &overrun["sequence"]), (&json!("overrun"), &json!(8)));
        assert_eq!(overrun["outcome"], "waiting");
        let one = &overrun["readers"][0];
        for (field, expected) in [
            ("id", json!(7)),
            ("name", json!("slow")),
            ("pid", json!(42)),
            ("class", json!("gating")),
            ("state", json!("active")),
            ("lag_records", json!(3)),
            ("lag_bytes", json!(2048)),
            ("alive", json!(true)),
            ("evictable", json!(true)),
            ("delivered", json!(5)),
            ("missed", json!(0)),
            ("pending", json!(3)),
        ] {
            assert_eq!(one[field], expected, "{field}");
        }
        let gap = value(&Event::Gap(Gap { first: 3, end: 9 }.into()));
        assert_eq!(gap, json!({"event": "gap", "first": 3, "end": 9, "count": 6}));
        let summary = value(&Event::Summary(Summary { published: Some(0), ..Summary::default() }));
        assert_eq!((&summary["event"], &summary["published"]), (&json!("summary"), &json!(0)));
        assert!(summary["first"].is_null() && summary["last"].is_null() && summary.get("delivered").is_none());
    }

    #[test]
    fn each_event_reads_back_as_itself() {
        for event in [
            Event::Warning { percent: 75, coalesced: 2, reader: reader() },
            Event::Evicted { reader: reader(), at_most: Some(Gap { first: 0, end: 1 }.into()) },
            Event::Evicted { reader: reader(), at_most: None },
            Event::Reaped { reader: reader() },
            Event::WriterAbsent { sequence: u64::MAX },
            Event::Takeover { epoch: 2, sequence: Some(3) },
            Event::Takeover { epoch: 2, sequence: None },
            Event::Closed { sequence: 1, epoch: 1, code: 2, reason: "a \"quote\"\nand a line".into() },
            Event::Summary(Summary { delivered: Some(1), missed: Some(2), ..Summary::default() }),
            Event::Error { code: 3, message: "no".into() },
        ] {
            let line = Reporter { json: true }.line(&event);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            assert_eq!(serde_json::from_str::<Event>(&line).expect(&line), event);
        }
    }

    #[test]
    fn words_name_the_reader_and_stay_on_their_line() {
        let words = Event::Warning { percent: 75, coalesced: 0, reader: reader() }.to_string();
        assert_eq!(
            words,
            "warning: 75 % of the ring: reader 7 \"slow\" (process 42, gating, active, alive), 3 records, 2 KiB behind"
        );
        let closed = Event::Closed { sequence: 1, epoch: 1, code: 0, reason: "two\nlines".into() }.to_string();
        assert_eq!(closed, "closed before sequence 1: two\\nlines");
    }
}
