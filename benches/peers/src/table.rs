//! The results as text: first where a peer wins, then every group of measurements.

use crate::job::Measure;
use crate::peer::Kind;
use crate::results::{Group, Results, Row, Spread};
use crate::targets;
use std::fmt::Write;

/// A figure as the table shows it.
pub struct Column {
    pub figure: &'static str,
    pub unit: &'static str,
    scale: f64,
    /// More is better.
    pub more: bool,
    /// A peer that is better here is named at the top.
    decides: bool,
}

const fn ns(figure: &'static str, decides: bool) -> Column {
    Column { figure, unit: "ns", scale: 1.0, more: false, decides }
}

const LATENCY: &[Column] = &[ns("p50", true), ns("p90", false), ns("p99", true), ns("p99.9", true), ns("max", false)];
const THROUGHPUT: &[Column] = &[
    Column { figure: "rate", unit: "M/s delivered", scale: 1e6, more: true, decides: true },
    Column { figure: "bytes", unit: "GB/s", scale: 1e9, more: true, decides: false },
    Column { figure: "sent", unit: "M/s sent", scale: 1e6, more: true, decides: false },
    Column { figure: "share", unit: "% delivered", scale: 0.01, more: true, decides: false },
];
const RATE: &[Column] = &[
    ns("p50", true),
    ns("p90", false),
    ns("p99", true),
    ns("p99.9", true),
    ns("max", false),
    Column { figure: "late", unit: "% sent late", scale: 0.01, more: false, decides: false },
    Column { figure: "share", unit: "% delivered", scale: 0.01, more: true, decides: false },
];
const WAKE: &[Column] = &[ns("p50", true), ns("p90", false), ns("p99", false), ns("p99.9", false), ns("send", false)];
const COST: &[Column] = &[ns("p50", true), ns("p90", false)];
const FULL: &[Column] = &[
    ns("mean", true),
    ns("p50", false),
    ns("free mean", false),
    ns("free p50", false),
    Column { figure: "to free", unit: "times", scale: 1.0, more: false, decides: false },
    Column { figure: "refused", unit: "%", scale: 0.01, more: false, decides: false },
];
const fn kib(figure: &'static str) -> Column {
    Column { figure, unit: "KiB", scale: 1024.0, more: false, decides: true }
}

const MEMORY: &[Column] = &[kib("reader"), kib("sender"), kib("files"), kib("files a reader")];
const IDLE: &[Column] = &[Column { figure: "cpu", unit: "% of a core", scale: 1.0, more: false, decides: false }];

pub fn columns(measure: Measure) -> &'static [Column] {
    match measure {
        Measure::Throughput => THROUGHPUT,
        Measure::Idle => IDLE,
        Measure::Memory => MEMORY,
        Measure::Rate => RATE,
        Measure::Wake => WAKE,
        Measure::Registered => COST,
        Measure::Full => FULL,
        Measure::Latency | Measure::Attach => LATENCY,
    }
}

pub fn more_is_better(measure: Measure) -> bool {
    columns(measure)[0].more
}

/// What lapwing is measured against in a group: the limit that does the same work.
pub fn reference(group: &Group) -> Option<&Row> {
    let job = &group.rows.first()?.job;
    let name = match job.measure {
        Measure::Latency => "limit-slot",
        Measure::Throughput if job.size <= 56 => "limit-slot-gated",
        Measure::Throughput if job.size < 1024 => "limit-tail",
        Measure::Throughput => "limit-copy",
        Measure::Wake => "limit-futex",
        Measure::Rate => "limit-slot-gated",
        _ => return None,
    };
    group.rows.iter().find(|row| row.who == name)
}

fn figure(spread: Option<Spread>, scale: f64) -> String {
    spread.map_or_else(String::new, |spread| {
        let show = |value: f64| {
            let value = value / scale;
            if value < 10.0 {
                format!("{value:.2}")
            } else if value < 1000.0 {
                format!("{value:.1}")
            } else {
                format!("{value:.0}")
            }
        };
        format!("{} ({}..{})", show(spread.median), show(spread.min), show(spread.max))
    })
}

pub fn ratio(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |spread| format!("{:.2} ({:.2}..{:.2})", spread.median, spread.min, spread.max))
}

fn better(column: &Column, one: f64, other: f64) -> bool {
    if column.more { one > other } else { one < other }
}

/// Finds the lapwing variant with the best median; where everything is to be delivered, among those that do.
fn best<'a>(group: &'a Group, column: &Column, lossless: bool) -> Option<(&'a Row, f64)> {
    group
        .rows
        .iter()
        .filter(|row| row.kind == Kind::Lapwing && (row.lossless || !lossless))
        .filter_map(|row| Some((row, row.spread(column.figure)?.median)))
        .reduce(|best, row| if better(column, row.1, best.1) { row } else { best })
}

pub fn render(results: &Results) -> String {
    let mut out = String::new();
    defeats(&mut out, results);
    failures(&mut out, results);
    out.push_str(&targets::render(results));
    out.push_str("\n## Where and how\n\n");
    for (name, value) in &results.machine.facts {
        let _ = writeln!(out, "- {name}: {value}");
    }
    for group in &results.groups {
        render_group(&mut out, group);
    }
    settings(&mut out, results);
    out
}

fn settings(out: &mut String, results: &Results) {
    out.push_str(
        "\n## Settings\n\n\
         Each as its own documentation advises for the measure. The ring's depth and the way to poll stand in each table; `--sweep` tries \
         others. The effort was not equal: lapwing was tuned by means of these measurements, its peers were not. Every record is \
         checked by every reader; polls that find nothing are not counted.\n\n",
    );
    let took_part = |who: &str| results.groups.iter().flat_map(|group| &group.rows).any(|row| row.job.driver == who);
    for setting in results.settings.iter().filter(|setting| took_part(&setting.who)) {
        let lossy = if setting.lossless { "" } else { " (lossy)" };
        let advice = if setting.advice.is_empty() { String::new() } else { format!(" [{}]", setting.advice) };
        let _ = writeln!(out, "- {}{lossy}: {}{advice}", setting.who, setting.setting);
    }
}

/// Where a peer wins, the table says so first.
fn defeats(out: &mut String, results: &Results) {
    let mut lines = Vec::new();
    for group in &results.groups {
        let Some(first) = group.rows.first() else { continue };
        for column in columns(first.job.measure).iter().filter(|column| column.decides) {
            for row in group.rows.iter().filter(|row| matches!(row.kind, Kind::Peer | Kind::InProcess)) {
                let Some((ours, value)) = best(group, column, row.lossless) else { continue };
                let Some(theirs) = row.spread(column.figure) else { continue };
                if better(column, theirs.median, value) {
                    let lossy = if row.lossless { "" } else { ", lossy" };
                    let inside = if row.kind == Kind::InProcess { ", inside one process" } else { "" };
                    lines.push(format!(
                        "- {} {}: {}{lossy}{inside} {} against {} of {}; ratio {}",
                        group.name,
                        column.figure,
                        row.who,
                        figure(Some(theirs), column.scale),
                        figure(ours.spread(column.figure), column.scale),
                        ours.who,
                        ratio(ours.ratio(column.figure, row)),
                    ));
                }
            }
        }
    }
    out.push_str("## Where a peer wins\n\n");
    if lines.is_empty() {
        out.push_str("- nowhere in this run\n");
    }
    lines.iter().for_each(|line| {
        let _ = writeln!(out, "{line}");
    });
}

fn failures(out: &mut String, results: &Results) {
    let mut lines = Vec::new();
    lines.extend(results.missing.iter().map(|peer| format!("- {peer} DID NOT BUILD HERE")));
    for group in &results.groups {
        for row in group.rows.iter().filter(|row| !row.failures.is_empty()) {
            let times = row.failures.len();
            lines.push(format!("- {} {}: {times} times, at last: {}", group.name, row.who, row.failures[times - 1]));
        }
    }
    if !lines.is_empty() {
        out.push_str("\n## FAILED\n\n");
        lines.iter().for_each(|line| {
            let _ = writeln!(out, "{line}");
        });
    }
}

fn render_group(out: &mut String, group: &Group) {
    let Some(first) = group.rows.first() else { return };
    let crowded = if first.job.crowded { " (more processes than cores: all yield)" } else { "" };
    let _ = writeln!(out, "\n## {}{crowded}\n", group.name);
    let columns = columns(first.job.measure);
    let reference = reference(group);
    let main = &columns[0];
    let mut lines = vec![vec!["who".to_string()]];
    lines[0].extend(columns.iter().map(|column| format!("{} {}", column.figure, column.unit)));
    if let Some(reference) = reference {
        lines[0].push(format!("{} to {}", main.figure, reference.who));
    }
    lines[0].push("ring".into());
    let mut rows: Vec<&Row> = group.rows.iter().collect();
    let key = |row: &Row| {
        row.spread(main.figure).map_or(f64::INFINITY, |spread| if main.more { -spread.median } else { spread.median })
    };
    rows.sort_by(|one, other| {
        (one.kind == Kind::InProcess).cmp(&(other.kind == Kind::InProcess)).then(key(one).total_cmp(&key(other)))
    });
    for row in &rows {
        let mark = match row.kind {
            Kind::Lapwing => "**",
            _ => "",
        };
        let note = if row.disturbed > 0 { format!(" !{}", row.disturbed) } else { String::new() };
        let mut line = vec![format!("{mark}{}{mark}{note}", row.who)];
        line.extend(columns.iter().map(|column| figure(row.spread(column.figure), column.scale)));
        if let Some(reference) = reference {
            line.push(ratio(row.ratio(main.figure, reference)));
        }
        line.push(format!("{} {:?}", row.job.slots, row.job.idle));
        lines.push(line);
    }
    markdown(out, &lines);
    let ours: Vec<&&Row> = rows.iter().filter(|row| row.kind == Kind::Lapwing).collect();
    let others: Vec<&&Row> = rows.iter().filter(|row| matches!(row.kind, Kind::Peer | Kind::InProcess)).collect();
    if ours.is_empty() || others.is_empty() {
        return;
    }
    for column in columns.iter().filter(|column| column.decides) {
        let mut lines = vec![vec![format!("{}, ratio to", column.figure)]];
        lines[0].extend(ours.iter().map(|row| row.who.clone()));
        for other in &others {
            let mut line = vec![other.who.clone()];
            line.extend(ours.iter().map(|row| ratio(row.ratio(column.figure, other))));
            lines.push(line);
        }
        out.push('\n');
        markdown(out, &lines);
    }
}

/// Writes lines as a table; the first is the heading.
pub fn markdown(out: &mut String, lines: &[Vec<String>]) {
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _ = writeln!(out, "| {} |", rules.join(" | "));
        }
    }
}
