//! What `top` shows, and what keys do to it: free of the terminal.

use crate::report::Reader;
use crate::sight::Look;
use lapwing::{Health, ReaderId};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

/// A bus at one moment, with what changed since the moment before.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) writer: String,
    pub(crate) writer_pid: u32,
    pub(crate) epoch: u64,
    pub(crate) capacity: u64,
    pub(crate) sequence: u64,
    /// Records and payload bytes a second, and how often a second the writer slept for readers; unknown at first.
    pub(crate) rate: Option<f64>,
    pub(crate) byte_rate: Option<f64>,
    pub(crate) wait_rate: Option<f64>,
    pub(crate) waits: u64,
    pub(crate) overruns: u64,
    pub(crate) warnings: u64,
    pub(crate) evictions: u64,
    pub(crate) reaped: u64,
    pub(crate) takeovers: u64,
    pub(crate) slots: u32,
    pub(crate) served: usize,
    /// `None` without permission to read the table.
    pub(crate) rows: Option<Vec<Row>>,
}

/// A reader.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) reader: Reader,
    pub(crate) rate: Option<f64>,
}

impl Row {
    pub(crate) fn name(&self) -> String {
        let reader = &self.reader;
        reader.name.as_ref().map_or_else(|| format!("#{}", reader.id), |name| name.escape_debug().to_string())
    }

    pub(crate) fn health(&self) -> &str {
        self.reader.condition.as_ref().map_or("", |condition| &condition.health)
    }

    pub(crate) fn lag_percent(&self) -> f64 {
        self.reader.condition.as_ref().map_or(0.0, |condition| condition.lag_percent)
    }

    /// Milliseconds since its cursor was seen to move.
    pub(crate) fn idle(&self) -> Option<u64> {
        self.reader.condition.as_ref().and_then(|condition| condition.last_progress_ms)
    }

    /// How much it takes somebody to look after it: most of all who may hold the writer up and does not read.
    fn severity(&self) -> usize {
        use Health::*;
        let order = [Live, Evicted, Detached, Lagging, Joining, Stopped, Dead, Stalled];
        order.iter().position(|health| health.as_str() == self.health()).unwrap_or(0)
    }

    fn matches(&self, filter: &str) -> bool {
        let reader = &self.reader;
        let (id, pid, name) = (reader.id.to_string(), reader.pid.to_string(), self.name().to_lowercase());
        [&id, &pid, &name, &reader.class, &reader.state, self.health()].iter().any(|text| text.contains(filter))
    }
}

/// What a rate needs of the moment before.
struct Mark {
    at: Instant,
    bus: u64,
    sequence: u64,
    bytes: u64,
    waits: u64,
    cursors: HashMap<u64, u64>,
}

/// A bus in the picture.
pub(crate) struct View {
    pub(crate) path: String,
    pub(crate) seen: Option<Seen>,
    /// Why it cannot be looked at now.
    pub(crate) error: Option<String>,
    mark: Option<Mark>,
}

impl View {
    fn take(&mut self, look: &Look) {
        let snapshot = &look.snapshot;
        let stats = &snapshot.stats;
        let mark = Mark {
            at: look.at,
            bus: snapshot.bus_id,
            sequence: snapshot.sequence,
            bytes: stats.bytes,
            waits: stats.waits,
            cursors: look.pairs().map(|(info, _)| (info.id.0, info.cursor)).collect(),
        };
        let before = self.mark.replace(mark).filter(|before| before.bus == snapshot.bus_id);
        let seconds = before.as_ref().map(|before| look.at.duration_since(before.at).as_secs_f64());
        let rate = |now: u64, then: Option<u64>| {
            let (then, seconds) = (then?, seconds.filter(|&seconds| seconds > 0.0)?);
            Some(now.saturating_sub(then) as f64 / seconds)
        };
        let rows = look.pairs().map(|pair| Row {
            reader: pair.into(),
            rate: rate(pair.0.cursor, before.as_ref().and_then(|before| before.cursors.get(&pair.0.id.0).copied())),
        });
        self.seen = Some(Seen {
            writer: snapshot.writer.state.to_string(),
            writer_pid: snapshot.writer.pid,
            epoch: snapshot.writer.epoch,
            capacity: snapshot.capacity,
            sequence: snapshot.sequence,
            rate: rate(snapshot.sequence, before.as_ref().map(|before| before.sequence)),
            byte_rate: rate(stats.bytes, before.as_ref().map(|before| before.bytes)),
            wait_rate: rate(stats.waits, before.as_ref().map(|before| before.waits)),
            waits: stats.waits,
            overruns: stats.episodes,
            warnings: stats.warnings,
            evictions: stats.evictions,
            reaped: stats.reaped,
            takeovers: stats.takeovers,
            slots: snapshot.slots,
            served: look.served().unwrap_or(0),
            rows: snapshot.readers.is_some().then(|| rows.collect()),
        });
    }
}

/// What readers are sorted by, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Lag,
    Health,
    Rate,
    Missed,
    Idle,
    Name,
}

impl Sort {
    const ALL: [Self; 6] = [Self::Lag, Self::Health, Self::Rate, Self::Missed, Self::Idle, Self::Name];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::Health => "health",
            Self::Rate => "rate",
            Self::Missed => "missed",
            Self::Idle => "idle",
            Self::Name => "name",
        }
    }

    fn compare(self, a: &Row, b: &Row) -> Ordering {
        match self {
            Self::Lag => b.lag_percent().total_cmp(&a.lag_percent()),
            Self::Health => b.severity().cmp(&a.severity()),
            Self::Rate => b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0)),
            Self::Missed => b.reader.missed.cmp(&a.reader.missed),
            // Never seen to move is the longest.
            Self::Idle => b.idle().unwrap_or(u64::MAX).cmp(&a.idle().unwrap_or(u64::MAX)),
            Self::Name => a.name().cmp(&b.name()),
        }
        .then_with(|| a.reader.id.cmp(&b.reader.id))
    }
}

/// A reader to evict, and how to call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Eviction {
    pub(crate) bus: usize,
    pub(crate) reader: ReaderId,
    pub(crate) words: String,
}

/// What keys mean at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Normal,
    /// They spell the filter.
    Filter,
    /// They answer whether to evict.
    Confirm(Eviction),
    Help,
}

/// What the loop is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Quit,
    Evict(Eviction),
}

pub(crate) struct App {
    pub(crate) views: Vec<View>,
    /// The bus whose readers are shown.
    pub(crate) bus: usize,
    /// The reader that is selected, wherever sorting puts it.
    pub(crate) selected: Option<u64>,
    pub(crate) sort: Sort,
    pub(crate) reversed: bool,
    pub(crate) filter: String,
    pub(crate) mode: Mode,
    pub(crate) frozen: bool,
    pub(crate) message: Option<String>,
    pub(crate) colour: bool,
}

impl App {
    pub(crate) fn new(paths: Vec<String>, colour: bool) -> Self {
        let view = |path| View { path, seen: None, error: None, mark: None };
        Self {
            views: paths.into_iter().map(view).collect(),
            bus: 0,
            selected: None,
            sort: Sort::Lag,
            reversed: false,
            filter: String::new(),
            mode: Mode::Normal,
            frozen: false,
            message: None,
            colour,
        }
    }

    pub(crate) fn update(&mut self, bus: usize, look: lapwing::Result<Look>) {
        if self.frozen {
            return;
        }
        let view = &mut self.views[bus];
        match look {
            Ok(look) => {
                view.take(&look);
                view.error = None;
            }
            Err(error) => view.error = Some(error.to_string()),
        }
    }

    pub(crate) fn say(&mut self, message: String) {
        self.message = Some(message);
    }

    pub(crate) fn view(&self) -> &View {
        &self.views[self.bus]
    }

    /// The readers of the bus that is shown, filtered and sorted.
    pub(crate) fn rows(&self) -> Vec<&Row> {
        let filter = self.filter.to_lowercase();
        let rows = self.view().seen.iter().flat_map(|seen| seen.rows.iter().flatten());
        let mut rows: Vec<_> = rows.filter(|row| row.matches(&filter)).collect();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        if self.reversed {
            rows.reverse();
        }
        rows
    }

    /// Where the selected reader is among the rows; the first if it is gone.
    pub(crate) fn selected_row(&self, rows: &[&Row]) -> usize {
        rows.iter().position(|row| Some(row.reader.id) == self.selected).unwrap_or(0)
    }

    fn select(&mut self, step: isize) {
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let at = self.selected_row(&rows).saturating_add_signed(step).min(last);
        self.selected = rows.get(at).map(|row| row.reader.id);
    }

    fn turn_to(&mut self, bus: usize) {
        self.bus = bus % self.views.len();
        self.selected = None;
    }

    /// Asks whether to evict the selected reader.
    fn ask(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected_row(&rows)) else {
            return self.say("no reader to evict".to_owned());
        };
        let reader = &row.reader;
        let words = format!("reader {} {} (process {})", reader.id, row.name(), reader.pid);
        if reader.evictable {
            self.mode = Mode::Confirm(Eviction { bus: self.bus, reader: ReaderId(reader.id), words });
        } else if reader.state == "evicted" {
            self.say(format!("{words} is evicted already"));
        } else {
            self.say(format!("{words} is pinned and lives: it cannot be evicted"));
        }
    }

    pub(crate) fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Some(Action::Quit);
        }
        match std::mem::replace(&mut self.mode, Mode::Normal) {
            Mode::Normal => return self.normal(key.code),
            Mode::Filter => match key.code {
                KeyCode::Enter => {}
                KeyCode::Esc => self.filter.clear(),
                code => {
                    self.mode = Mode::Filter;
                    match code {
                        KeyCode::Backspace => drop(self.filter.pop()),
                        KeyCode::Char(c) => self.filter.push(c),
                        _ => {}
                    }
                }
            },
            // Only a clear yes does it.
            Mode::Confirm(eviction) if matches!(key.code, KeyCode::Char('y' | 'Y')) => {
                return Some(Action::Evict(eviction));
            }
            Mode::Confirm(_) => self.say("nobody was evicted".to_owned()),
            Mode::Help => {}
        }
        None
    }

    fn normal(&mut self, code: KeyCode) -> Option<Action> {
        self.message = None;
        match code {
            KeyCode::Char('q') => return Some(Action::Quit),
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Down | KeyCode::Char('j') => self.select(1),
            KeyCode::Up | KeyCode::Char('k') => self.select(-1),
            KeyCode::PageDown => self.select(10),
            KeyCode::PageUp => self.select(-10),
            KeyCode::Home => self.select(isize::MIN),
            KeyCode::End => self.select(isize::MAX),
            KeyCode::Tab | KeyCode::Right => self.turn_to(self.bus + 1),
            KeyCode::BackTab | KeyCode::Left => self.turn_to(self.bus + self.views.len() - 1),
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('/') => self.mode = Mode::Filter,
            KeyCode::Char(' ' | 'f') => self.frozen = !self.frozen,
            KeyCode::Char('e') => self.ask(),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            _ => {}
        }
        None
    }
}
