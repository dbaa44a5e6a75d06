//! `stat` and `readers`: a snapshot as JSON, or as text that a person likes to read.

use crate::failure::{Exit, Failure};
use crate::report::{Reader, millis};
use crate::units::{bytes, count, percent, plural};
use lapwing::{Bus, Snapshot};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

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
    /// `null` without permission to read the table.
    readers: Option<Vec<Reader>>,
}

#[derive(Serialize)]
struct Writer {
    pid: u32,
    epoch: u64,
    state: String,
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

impl From<&Snapshot> for Stat {
    fn from(snapshot: &Snapshot) -> Self {
        let Snapshot { writer, stats, .. } = snapshot;
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
            writer: Writer {
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
            },
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
            readers: readers_of(snapshot),
        }
    }
}

fn readers_of(snapshot: &Snapshot) -> Option<Vec<Reader>> {
    snapshot.readers.as_ref().map(|readers| readers.iter().map(Reader::from).collect())
}

pub(crate) fn stat(path: &Path, json: bool) -> Result<Exit, Failure> {
    let stat = Stat::from(&Bus::inspect(path)?);
    print(&if json { to_json(&stat)? } else { describe(&stat) })
}

pub(crate) fn readers(path: &Path, json: bool) -> Result<Exit, Failure> {
    let snapshot = Bus::inspect(path)?;
    let Some(readers) = readers_of(&snapshot) else {
        return Err(Failure::other(format!("{}.readers: permission denied to read the table", path.display())));
    };
    let text = if json {
        readers.iter().map(to_json).collect::<Result<String, _>>()?
    } else if readers.is_empty() {
        "no registered readers\n".to_owned()
    } else {
        table(&readers, snapshot.capacity)
    };
    print(&text)
}

fn to_json(value: &impl Serialize) -> Result<String, Failure> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(Failure::other(error.to_string())),
    }
}

fn print(text: &str) -> Result<Exit, Failure> {
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
            line("readers", format!("{} of {}", count(readers.len() as u64), plural(u64::from(stat.slots), "slot")));
            if !readers.is_empty() {
                text += "\n";
                text += &table(readers, stat.capacity);
            }
        }
    }
    text
}

/// The readers, one a line, the lag as its share of the ring too.
pub(crate) fn table(readers: &[Reader], capacity: u64) -> String {
    let head = ["ID", "NAME", "PID", "CLASS", "STATE", "LAG", "", "OF RING", "DELIVERED", "MISSED", "PENDING", ""];
    let rows = readers.iter().map(|reader| {
        let state = match (reader.state.as_str(), reader.alive) {
            ("joining" | "active", false) => format!("{}, dead", reader.state),
            ("detached", _) if reader.hold => "detached, holds".to_owned(),
            (state, _) => state.to_owned(),
        };
        [
            reader.id.to_string(),
            reader.name.as_ref().map_or("-".to_owned(), |name| name.escape_debug().to_string()),
            reader.pid.to_string(),
            reader.class.clone(),
            state,
            bytes(reader.lag_bytes),
            bar(reader.lag_bytes, capacity),
            percent(reader.lag_bytes, capacity),
            count(reader.delivered),
            count(reader.missed),
            count(reader.pending),
            if reader.evictable { String::new() } else { "cannot be evicted".to_owned() },
        ]
    });
    let left = [false, true, false, true, true, false, true, false, false, false, false, true];
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
