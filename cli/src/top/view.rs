//! Draws `top`: everything it says, it says in words and bars; colour only helps.

use super::state::{App, Mode, Row, Seen};
use crate::units::{bytes, count, seconds};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Clear, Paragraph, Row as TableRow, Table, TableState};
use std::time::Duration;

const KEYS: &str = "q quit  ↑↓ select  s sort  r reverse  / filter  space freeze  e evict  ? help";
const HELP: [&str; 15] = [
    "↑ ↓ PgUp PgDn   select a reader",
    "Tab ← →         next or previous bus",
    "s               sort: lag, health, rate, missed, idle, name",
    "r               reverse the order",
    "/               filter by name, id, process, class, state, health",
    "Esc             clear the filter",
    "space           freeze the picture; looking goes on",
    "e               evict the selected reader, after a question",
    "q               quit",
    "",
    "live      reads, or has nothing to read",
    "lagging   far behind            stalled   behind, does not read",
    "stopped   its process is        dead      its process is gone",
    "joining   not active yet        detached  away, its place is kept",
    "evicted   may rejoin",
];

/// Widths of a reader's columns beside its name and its bar, which share what is left.
const FIXED: [u16; 8] = [7, 6, 8, 8, 5, 6, 6, 6];

/// The styles of this picture.
#[derive(Clone, Copy)]
struct Palette {
    colour: bool,
}

impl Palette {
    fn of(self, colour: Color) -> Style {
        if self.colour { Style::new().fg(colour) } else { Style::new() }
    }

    fn share(self, percent: f64) -> Style {
        self.of(match percent {
            p if p < 50.0 => Color::Green,
            p if p < 75.0 => Color::Yellow,
            p if p < 90.0 => Color::LightRed,
            _ => Color::Red,
        })
    }

    fn health(self, word: &str) -> Style {
        match word {
            "live" => self.of(Color::Green),
            "lagging" => self.of(Color::Yellow),
            "joining" | "detached" => self.of(Color::Cyan),
            "evicted" => self.of(Color::Magenta),
            // Stalled, stopped, dead: seen without colour too.
            _ => self.of(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    fn writer(self, word: &str) -> Style {
        match word {
            "alive" => self.of(Color::Green),
            "absent" | "replaced" => self.of(Color::Red).add_modifier(Modifier::BOLD),
            _ => self.of(Color::Cyan),
        }
    }
}

pub(crate) fn draw(frame: &mut Frame<'_>, app: &App) {
    let palette = Palette { colour: app.colour };
    let buses = if app.views.len() > 1 { app.views.len().min(5) as u16 + 1 } else { 0 };
    let [title, list, summary, table, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(buses),
        Constraint::Length(4),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title_line(app, title.width), title);
    if buses != 0 {
        draw_buses(frame, app, palette, list);
    }
    draw_summary(frame, app, palette, summary);
    draw_readers(frame, app, palette, table);
    frame.render_widget(foot_line(app), foot);
    if app.mode == Mode::Help {
        draw_help(frame);
    }
}

fn title_line(app: &App, width: u16) -> Line<'static> {
    let order = format!("by {}{}", app.sort.word(), if app.reversed { ", reversed" } else { "" });
    let mut right = Vec::new();
    if app.frozen {
        right.push("FROZEN".to_owned());
    }
    if !app.filter.is_empty() {
        right.push(format!("only {:?}", app.filter));
    }
    right.push(order);
    let right = right.join("  ");
    let left = format!("lapwing top  {}", app.view().path.escape_debug());
    let room = usize::from(width).saturating_sub(right.chars().count() + 1);
    let left = fit(&left, room);
    Line::from(format!("{left:<room$} {right}")).style(Style::new().add_modifier(Modifier::REVERSED))
}

fn foot_line(app: &App) -> Line<'static> {
    match (&app.mode, &app.message) {
        (Mode::Filter, _) => Line::from(vec!["filter: ".bold(), app.filter.clone().into(), "▏".into()]),
        (Mode::Confirm(eviction), _) => {
            Line::from(format!("evict {}? it is told its gap and may rejoin  y/n", eviction.words)).bold()
        }
        (_, Some(message)) => Line::from(message.clone()).bold(),
        _ => Line::from(KEYS),
    }
}

/// A bar of `width` cells, empty only at zero and full only at the end.
fn bar(percent: f64, width: u16) -> String {
    let cells = usize::from(width);
    let eighths = (percent.clamp(0.0, 100.0) / 100.0 * (8 * cells) as f64).ceil() as usize;
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let bar = "█".repeat(eighths / 8) + rest;
    format!("{bar:·<cells$}")
}

/// Cuts a text that is too long, and shows that it did.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(Some('…').filter(|_| width != 0)).collect()
}

/// A rate or a count in at most five characters.
fn short(number: f64) -> String {
    let mut number = number;
    for unit in ["", "k", "M", "G", "T"] {
        if number < 999.5 {
            let digits = if unit.is_empty() || number >= 99.95 { 0 } else { 1 };
            return format!("{number:.digits$}{unit}");
        }
        number /= 1000.0;
    }
    format!("{number:.0}P")
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or("-".to_owned(), short)
}

fn idle(row: &Row) -> String {
    match row.idle() {
        None => "-".to_owned(),
        Some(ms) if ms < 100_000 => seconds(Duration::from_millis(ms)).replace(' ', ""),
        Some(ms) if ms < 6_000_000 => format!("{}min", ms / 60_000),
        Some(ms) => format!("{}h", ms / 3_600_000),
    }
}

/// The share of the ring between the slowest reader that holds the writer up and the head, and who that is.
fn held(seen: &Seen) -> (f64, Option<String>) {
    let gates = |row: &&Row| {
        let reader = &row.reader;
        reader.class != "lossy"
            && (matches!(reader.state.as_str(), "active" | "joining") || reader.state == "detached" && reader.hold)
    };
    let slowest = seen.rows.iter().flatten().filter(gates).max_by(|a, b| a.lag_percent().total_cmp(&b.lag_percent()));
    slowest.map_or((0.0, None), |row| (row.lag_percent(), Some(row.name())))
}

fn draw_buses(frame: &mut Frame<'_>, app: &App, palette: Palette, area: Rect) {
    // The shown one stays in sight.
    let room = usize::from(area.height.saturating_sub(1)).max(1);
    let first = (app.bus + 1).saturating_sub(room);
    let wide = usize::from(area.width).saturating_sub(54).max(8);
    let lines = app.views.iter().enumerate().skip(first).take(room).map(|(index, view)| {
        let mark = if index == app.bus { "▸ " } else { "  " };
        let path = fit(&view.path.escape_debug().to_string(), wide);
        let mut spans = vec![Span::from(format!("{mark}{path:<wide$}  "))];
        match (&view.error, &view.seen) {
            (Some(error), _) => spans.push(Span::from(error.clone()).style(palette.writer("absent"))),
            (None, None) => spans.push(Span::from("not looked at yet")),
            (None, Some(seen)) => {
                let (percent, _) = held(seen);
                let registered = seen.rows.as_ref().map_or("?".to_owned(), |rows| rows.len().to_string());
                spans.extend([
                    Span::styled(format!("{:<8}", seen.writer), palette.writer(&seen.writer)),
                    Span::from(format!("{:>7}/s  ", rate(seen.rate))),
                    Span::styled(bar(percent, 10), palette.share(percent)),
                    Span::from(format!("{percent:>4.0} %  {}/{registered} served", seen.served)),
                ]);
            }
        }
        let line = Line::from(spans);
        if index == app.bus { line.bold() } else { line }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn draw_summary(frame: &mut Frame<'_>, app: &App, palette: Palette, area: Rect) {
    let view = app.view();
    let mut lines = Vec::new();
    if let Some(error) = &view.error {
        lines.push(Line::from(error.clone()).style(palette.writer("absent")));
    }
    if let Some(seen) = &view.seen {
        lines.extend(summary(seen, palette, area.width));
    } else if view.error.is_none() {
        lines.push(Line::from("not looked at yet"));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn summary(seen: &Seen, palette: Palette, width: u16) -> [Line<'static>; 4] {
    let mut writer = vec![Span::from("writer   "), Span::styled(seen.writer.clone(), palette.writer(&seen.writer))];
    if seen.epoch != 0 {
        writer.push(Span::from(format!(" process {} number {}", seen.writer_pid, seen.epoch)));
    }
    let byte_rate = seen.byte_rate.map_or("-".to_owned(), |rate| bytes(rate as u64));
    let waits = match seen.wait_rate {
        Some(rate) if rate > 0.0 => format!("{} waits, {}/s", count(seen.waits), short(rate)),
        _ => format!("{} waits", count(seen.waits)),
    };
    writer.push(Span::from(format!("  {} rec/s  {byte_rate}/s  {waits}", rate(seen.rate))));

    let (percent, who) = held(seen);
    let cells = width.saturating_sub(52).clamp(10, 60);
    let ring = vec![
        Span::from(format!("ring     {:<8} ", bytes(seen.capacity))),
        Span::styled(bar(percent, cells), palette.share(percent)),
        Span::from(format!(" {percent:.0} % held")),
        Span::from(who.filter(|_| percent > 0.0).map_or(String::new(), |who| format!(" by {}", fit(&who, 16)))),
    ];

    let readers = match &seen.rows {
        None => "readers  unknown: permission denied to read the table".to_owned(),
        Some(rows) => {
            format!("readers  {} registered, {} served, {} slots", rows.len(), seen.served, seen.slots)
        }
    };
    let events = format!(
        "stream   {} records  overruns {}  warnings {}  evictions {}  reaped {}  takeovers {}",
        count(seen.sequence),
        short(seen.overruns as f64),
        short(seen.warnings as f64),
        short(seen.evictions as f64),
        short(seen.reaped as f64),
        short(seen.takeovers as f64),
    );
    [Line::from(writer), Line::from(ring), Line::from(readers), Line::from(events)]
}

fn draw_readers(frame: &mut Frame<'_>, app: &App, palette: Palette, area: Rect) {
    let rows = app.rows();
    // A column of space after each, and the mark of the selected one.
    let left = area.width.saturating_sub(FIXED.iter().sum::<u16>() + FIXED.len() as u16 + 1 + 2);
    let cells = (left / 3).clamp(4, 30);
    let name = left.saturating_sub(cells).max(4);
    let [pid, class, state, health, lag, per_second, missed, progress] = FIXED;
    let widths = [name, pid, class, state, health, cells, lag, per_second, missed, progress].map(Constraint::Length);
    let right = |text: String| Cell::from(Line::from(text).alignment(Alignment::Right));
    let head = TableRow::new([
        Cell::from("READER"),
        right("PID".to_owned()),
        Cell::from("CLASS"),
        Cell::from("STATE"),
        Cell::from("HEALTH"),
        Cell::from("LAG"),
        right(String::new()),
        right("REC/S".to_owned()),
        right("MISSED".to_owned()),
        right("IDLE".to_owned()),
    ])
    .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let lines = rows.iter().map(|row| {
        let percent = row.lag_percent();
        let reader = &row.reader;
        TableRow::new([
            Cell::from(fit(&row.name(), usize::from(name))),
            right(reader.pid.to_string()),
            Cell::from(reader.class.clone()),
            Cell::from(reader.state.clone()),
            Cell::from(row.health().to_owned()).style(palette.health(row.health())),
            Cell::from(bar(percent, cells)).style(palette.share(percent)),
            right(format!("{percent:.0} %")),
            right(rate(row.rate)),
            right(short(reader.missed as f64)),
            right(idle(row)),
        ])
    });
    let table = Table::new(lines, widths)
        .header(head)
        .column_spacing(1)
        .highlight_symbol("▸ ")
        .highlight_spacing(ratatui::widgets::HighlightSpacing::Always)
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD));
    let selected = (!rows.is_empty()).then(|| app.selected_row(&rows));
    frame.render_stateful_widget(table, area, &mut TableState::new().with_selected(selected));
}

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (area.width.min(72), area.height.min(HELP.len() as u16 + 2));
    let popup = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, popup);
    let text: Vec<_> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" keys and words ")), popup);
}
