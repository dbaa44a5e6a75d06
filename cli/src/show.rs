//! `stat` and `readers`: a snapshot as JSON, or as text that a person likes to read.

use crate::args;
use crate::failure::{Exit, Failure};
use crate::report::{Check, Event, Reader, Reporter, millis};
use crate::sight::{Look, Sight};
use crate::signals;
use crate::units::{bytes, count, percent, plural};
use lapwing::{HealthLimits, ReaderHealth, ReaderInfo, State, WriterInfo};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

/// How far apart two looks are that a verdict needs.
const AGAIN: Duration = Duration::from_millis(50);

/// `stat --json`. Field names are a contract, as those of the reports.
#[derive(Serialize)]
struct Stat {
    path: String,
    /// As text: it needs all 64 bits, which many readers of JSON do not keep.
    bus_id: String,
    capacity: u64,
    stripe: u64,
    slots: u32,
    max_record: u64,
    schema: u64,
    stamped: bool,
    max_age_ms: Option<u64>,
    pinned_allowed: bool,
    writer: Writer,
    head: u64,
    limit: u64,
    sequence: u64,
    oldest: u64,
    stats: Stats,
    /// Slots taken, and readers that records reach: one can be registered and not be served.
    registered: Option<usize>,
    served: Option<usize>,
    /// `null` without permission to read the table.
    readers: Option<Vec<Reader>>,
}

#[derive(Serialize)]
pub(crate) struct Writer {
    pub(crate) pid: u32,
    epoch: u64,
    pub(crate) state: String,
    resumed_at: u64,
    closed: Option<Closed>,
}

#[derive(Serialize)]
struct Closed {
    sequence: u64,
    epoch: u64,
    code: u32,
    reason: String,
}

#[derive(Serialize)]
struct Stats {
    published: u64,
    bytes: u64,
    waits: u64,
    episodes: u64,
    evictions: u64,
    reaped: u64,
    takeovers: u64,
    warnings: u64,
}

impl From<&WriterInfo> for Writer {
    fn from(writer: &WriterInfo) -> Self {
        Self {
            pid: writer.pid,
            epoch: writer.epoch,
            state: writer.state.to_string(),
            resumed_at: writer.resumed_at,
            closed: writer.closed.as_ref().map(|closed| Closed {
                sequence: closed.sequence,
                epoch: closed.epoch,
                code: closed.code,
                reason: closed.reason.clone(),
            }),
        }
    }
}

impl From<&Look> for Stat {
    fn from(look: &Look) -> Self {
        let snapshot = &look.snapshot;
        let stats = &snapshot.stats;
        Self {
            path: snapshot.path.display().to_string(),
            bus_id: format!("{:016x}", snapshot.bus_id),
            capacity: snapshot.capacity,
            stripe: snapshot.stripe,
            slots: snapshot.slots,
            max_record: snapshot.max_record,
            schema: snapshot.schema,
            stamped: snapshot.stamped,
            max_age_ms: snapshot.max_age.map(millis),
            pinned_allowed: snapshot.pinned_allowed,
            writer: (&snapshot.writer).into(),
            head: snapshot.head,
            limit: snapshot.limit,
            sequence: snapshot.sequence,
            oldest: snapshot.oldest,
            stats: Stats {
                published: stats.published,
                bytes: stats.bytes,
                waits: stats.waits,
                episodes: stats.episodes,
                evictions: stats.evictions,
                reaped: stats.reaped,
                takeovers: stats.takeovers,
                warnings: stats.warnings,
            },
            registered: look.registered(),
            served: look.served(),
            readers: look.table(),
        }
    }
}

pub(crate) fn stat(args: &args::Stat, reporter: Reporter) -> Result<Exit, Failure> {
    signals::install()?;
    let limits = HealthLimits {
        lagging_percent: args.fail_lag.unwrap_or(args.limits.lagging),
        stalled_after: args.fail_stalled.unwrap_or(args.limits.stalled_after),
    };
    let mut sight = Sight::new(&args.path, limits);
    loop {
        let look = settled(&mut sight, args.fail_stalled.filter(|_| !args.watch))?;
        let stat = Stat::from(&look);
        print(&if reporter.json { to_json(&stat)? } else { describe(&stat) })?;
        let failed = failures(&look, args);
        failed.iter().for_each(|event| reporter.tell(event));
        if !failed.is_empty() {
            return Ok(Exit::CheckFailed);
        }
        if !args.watch || signals::wait(args.interval) {
            return Ok(Exit::Fine);
        }
        if !reporter.json {
            print("\n")?;
        }
    }
}

/// Looks as often as it takes: twice if a lag may need a verdict, and until each reader has moved or has not for `stalled`.
fn settled(sight: &mut Sight, stalled: Option<Duration>) -> Result<Look, Failure> {
    let mut look = sight.look()?;
    let limit = f64::from(sight.limits().lagging_percent);
    if look.pairs().any(|(_, health)| health.lag_percent >= limit && !health.far_behind) && !signals::wait(AGAIN) {
        look = sight.look()?;
    }
    let Some(stalled) = stalled else { return Ok(look) };
    loop {
        // Once seen to move, or to have nothing to read, is enough.
        let open = look.pairs().any(|(info, health)| {
            is_here(info) && info.pending != 0 && health.last_progress.is_none() && !health.stuck
        });
        if !open {
            return Ok(look);
        }
        if signals::wait((stalled / 20).clamp(Duration::from_millis(5), Duration::from_millis(250))) {
            return Err(Failure::other("interrupted before the readers were watched for long enough"));
        }
        look = sight.look()?;
    }
}

/// Whether a reader ought to read.
fn is_here(reader: &ReaderInfo) -> bool {
    matches!(reader.state, State::Active | State::Joining)
}

/// Whether a reader may hold the writer up or lose records.
fn matters(reader: &ReaderInfo) -> bool {
    is_here(reader) || reader.state == State::Detached && reader.hold
}

/// The checks that fail.
fn failures(look: &Look, args: &args::Stat) -> Vec<Event> {
    let lag = |info: &ReaderInfo, health: &ReaderHealth| args.fail_lag.is_some() && matters(info) && health.far_behind;
    let stall = |info: &ReaderInfo, health: &ReaderHealth| args.fail_stalled.is_some() && is_here(info) && health.stuck;
    let failed = look.pairs().flat_map(|(info, health)| {
        let checks = [(Check::Lag, lag(info, health)), (Check::Stalled, stall(info, health))];
        checks.into_iter().filter(|(_, failed)| *failed).map(move |(check, _)| (check, info, health))
    });
    failed.map(|(check, info, health)| Event::CheckFailed { check, reader: (info, health).into() }).collect()
}

pub(crate) fn readers(path: &Path, json: bool) -> Result<Exit, Failure> {
    let look = settled(&mut Sight::new(path, HealthLimits::default()), None)?;
    let Some(readers) = look.table() else {
        return Err(Failure::other(format!("{}.readers: permission denied to read the table", path.display())));
    };
    let text = if json {
        readers.iter().map(to_json).collect::<Result<String, _>>()?
    } else if readers.is_empty() {
        "no registered readers\n".to_owned()
    } else {
        table(&readers, look.snapshot.capacity)
    };
    print(&text)
}

pub(crate) fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::other(error.to_string())),
    }
}

pub(crate) fn print(text: &str) -> Result<Exit, Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Fine)
}

fn describe(stat: &Stat) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:<9}{value}");
    };
    line("bus", format!("{}  (id {})", stat.path, stat.bus_id));
    let writer = &stat.writer;
    let mut who = writer.state.clone();
    if writer.epoch != 0 {
        who += &format!(", process {}, number {} of this bus", writer.pid, writer.epoch);
    }
    if let Some(closed) = writer.closed.as_ref().filter(|closed| closed.epoch == writer.epoch) {
        who += &format!(", at sequence {}, code {}", closed.sequence, closed.code);
        if !closed.reason.is_empty() {
            who += &format!(": {}", closed.reason.escape_debug());
        }
    }
    line("writer", who);
    let published = format!("{} published ({})", plural(stat.sequence, "record"), bytes(stat.stats.bytes));
    let kept = match stat.sequence - stat.oldest.min(stat.sequence) {
        0 => "none kept".to_owned(),
        kept => format!("{} kept, from sequence {}", count(kept), stat.oldest),
    };
    line("stream", format!("{published}, {kept}"));
    let ring = format!("{} in stripes of {}", bytes(stat.capacity), bytes(stat.stripe));
    line("ring", format!("{ring}, records up to {}", plural(stat.max_record, "byte")));
    let mut options = Vec::new();
    if stat.schema != 0 {
        options.push(format!("schema {:#x}", stat.schema));
    }
    if stat.stamped {
        options.push("time stamps".to_owned());
    }
    if let Some(age) = stat.max_age_ms {
        options.push(format!("replays at most {}", humantime::format_duration(std::time::Duration::from_millis(age))));
    }
    if !stat.pinned_allowed {
        options.push("no pinned readers".to_owned());
    }
    if !options.is_empty() {
        line("options", options.join(", "));
    }
    let stats = &stat.stats;
    let since = [
        (stats.episodes, "overrun"),
        (stats.waits, "wait"),
        (stats.warnings, "warning"),
        (stats.evictions, "eviction"),
        (stats.reaped, "reaped reader"),
        (stats.takeovers, "takeover"),
    ];
    let since: Vec<_> =
        since.iter().filter(|(number, _)| *number != 0).map(|&(number, noun)| plural(number, noun)).collect();
    line("events", if since.is_empty() { "none".to_owned() } else { since.join(", ") });
    match &stat.readers {
        None => line("readers", "unknown: permission denied to read the table".to_owned()),
        Some(readers) => {
            let served = count(stat.served.unwrap_or(0) as u64);
            let slots = plural(u64::from(stat.slots), "slot");
            line("readers", format!("{} registered, {served} served, {slots}", count(readers.len() as u64)));
            if !readers.is_empty() {
                text += "\n";
                text += &table(readers, stat.capacity);
            }
        }
    }
    text
}

/// The readers, one a line, the lag as its share of the ring too.
fn table(readers: &[Reader], capacity: u64) -> String {
    let head =
        ["ID", "NAME", "PID", "CLASS", "STATE", "HEALTH", "LAG", "", "OF RING", "DELIVERED", "MISSED", "PENDING", ""];
    let rows = readers.iter().map(|reader| {
        let state = match reader.state.as_str() {
            "detached" if reader.hold => "detached, holds",
            state => state,
        };
        [
            reader.id.to_string(),
            reader.name.as_ref().map_or("-".to_owned(), |name| name.escape_debug().to_string()),
            reader.pid.to_string(),
            reader.class.clone(),
            state.to_owned(),
            reader.condition.as_ref().map_or(String::new(), |condition| condition.health.clone()),
            bytes(reader.lag_bytes),
            bar(reader.lag_bytes, capacity),
            percent(reader.lag_bytes, capacity),
            count(reader.delivered),
            count(reader.missed),
            count(reader.pending),
            if reader.evictable { String::new() } else { "cannot be evicted".to_owned() },
        ]
    });
    let left = [false, true, false, true, true, true, false, true, false, false, false, false, true];
    align(&std::iter::once(head.map(str::to_owned)).chain(rows).collect::<Vec<_>>(), &left)
}

/// A lag as eight cells.
fn bar(part: u64, whole: u64) -> String {
    const CELLS: usize = 8;
    let eighths = (u128::from(part.min(whole)) * 8 * CELLS as u128).div_ceil(u128::from(whole.max(1))) as usize;
    let rest = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][eighths % 8];
    let bar: String =
        std::iter::repeat_n('█', eighths / 8).chain(Some(rest)).chain(std::iter::repeat(' ')).take(CELLS).collect();
    format!("▕{bar}▏")
}

/// Pads columns to their widest cell; two spaces apart, none at the end of a line.
pub(crate) fn align<const N: usize>(rows: &[[String; N]], left: &[bool; N]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            let parts = if left[column] { [cell.as_str(), &pad] } else { [&pad, cell.as_str()] };
            line.extend(parts);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_padded_to_their_widest_cell() {
        let rows = [["A".to_owned(), "NUMBER".to_owned()], ["long".to_owned(), "1".to_owned()]];
        assert_eq!(align(&rows, &[true, false]), "A     NUMBER\nlong       1\n");
    }

    #[test]
    fn bars_are_empty_only_at_zero_and_full_only_at_the_end() {
        assert_eq!(bar(0, 100), "▕        ▏");
        assert_eq!(bar(1, 1 << 40), "▕▏       ▏");
        assert_eq!(bar(50, 100), "▕████    ▏");
        assert_eq!(bar(100, 100), "▕████████▏");
        assert_eq!(bar(200, 100), "▕████████▏");
        assert_eq!(bar(0, 0), "▕        ▏");
    }
}
