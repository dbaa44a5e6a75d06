//! How the demo shows itself: bars and lines on a terminal, lines alone elsewhere, or JSON.

use super::cast::Told;
use super::ledger::{self, Account};
use crate::failure::Failure;
use crate::report::Event;
use crate::units::{count, percent};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lapwing::Snapshot;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the lag is told where there are no bars.
const PLAIN: Duration = Duration::from_secs(1);

pub(crate) struct Screen {
    started: Instant,
    json: bool,
    capacity: u64,
    bars: Option<Bars>,
    last_plain: Instant,
}

struct Bars {
    all: MultiProgress,
    writer: ProgressBar,
    readers: Vec<(&'static str, ProgressBar)>,
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours; a wrong one would cost the looks and nothing else.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ ")
}

impl Screen {
    pub(crate) fn new(json: bool, capacity: u64, readers: &[&'static str]) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let bars = (!json && !dumb && io::stdout().is_terminal()).then(|| {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
            let add = |template: &str, name| {
                let bar = all.add(ProgressBar::new(capacity));
                bar.set_style(style(template));
                bar.set_prefix(name);
                bar
            };
            let writer = add("  {prefix:10} {msg}", "writer");
            let readers =
                readers.iter().map(|&name| (name, add("  {prefix:10} ▕{bar:40.green}▏ {msg}", name))).collect();
            Bars { all, writer, readers }
        });
        let now = Instant::now();
        Self { started: now, json, capacity, bars, last_plain: now }
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        let written = match &self.bars {
            Some(bars) => bars.all.println(text),
            None => writeln!(io::stdout(), "{text}"),
        };
        written.map_err(|error| Failure::output(&error))
    }

    fn json(&self, event: &str, value: &serde_json::Value) -> Result<(), Failure> {
        let mut object = serde_json::json!({ "event": event });
        if let (Some(object), Some(more)) = (object.as_object_mut(), value.as_object()) {
            object.extend(more.clone());
        }
        self.line(&object.to_string())
    }

    /// Announces what happens next.
    pub(crate) fn act(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return self.json("act", &serde_json::json!({ "text": text }));
        }
        self.line("")?;
        self.line(&format!("{:5.1} s  {text}", self.started.elapsed().as_secs_f64()))
    }

    /// Shows what a process told.
    pub(crate) fn told(&self, told: &Told) -> Result<(), Failure> {
        if self.json {
            return self.json("told", &serde_json::json!({ "by": told.who, "report": told.event }));
        }
        if matches!(told.event, Event::WriterAbsent { sequence: 0 }) {
            // Before the first writer.
            return Ok(());
        }
        let text = told.event.to_string().replace('\n', "\n                     ");
        self.line(&format!("         {:>10}: {text}", told.who))
    }

    /// Shows rate and lag.
    pub(crate) fn draw(&mut self, snapshot: &Snapshot, rate: f64, observer_behind: u64) -> Result<(), Failure> {
        let readers = snapshot.readers.as_deref().unwrap_or_default();
        let find = |name: &str| readers.iter().find(|reader| reader.name.as_deref() == Some(name));
        let per_second = rate.max(0.0).round() as u64;
        let rate = count(per_second);
        if let Some(bars) = &self.bars {
            bars.writer.set_message(format!("{rate:>7} records/s, {} in all", count(snapshot.sequence)));
            for (name, bar) in &bars.readers {
                let Some(reader) = find(name) else {
                    bar.set_message(format!("{} records behind, not registered", count(observer_behind)));
                    continue;
                };
                let colour = match reader.lag_bytes * 4 / self.capacity {
                    0 | 1 => "green",
                    2 => "yellow",
                    _ => "red",
                };
                bar.set_style(style(&format!("  {{prefix:10}} ▕{{bar:40.{colour}}}▏ {{msg}}")));
                bar.set_position(reader.lag_bytes);
                let away = if reader.alive { "" } else { ", away" };
                bar.set_message(format!("{:>6} of the ring{away}", percent(reader.lag_bytes, self.capacity)));
            }
            return Ok(());
        }
        if self.last_plain.elapsed() < PLAIN {
            return Ok(());
        }
        self.last_plain = Instant::now();
        if self.json {
            let lags: serde_json::Map<_, _> =
                readers.iter().filter_map(|reader| Some((reader.name.clone()?, reader.lag_bytes.into()))).collect();
            let value = serde_json::json!({ "records_per_second": per_second, "sequence": snapshot.sequence, "lag_bytes": lags });
            return self.json("rate", &value);
        }
        let lags: String = readers
            .iter()
            .map(|reader| {
                let name = reader.name.as_deref().unwrap_or("-");
                format!(", {name} {}", percent(reader.lag_bytes, self.capacity))
            })
            .collect();
        self.line(&format!(
            "{:5.1} s  {rate} records/s; lag{}",
            self.started.elapsed().as_secs_f64(),
            &lags[1.min(lags.len())..]
        ))
    }

    /// Shows the accounts and the checks.
    pub(crate) fn verdict(&mut self, accounts: &[Account], checks: &[(String, bool)]) -> Result<(), Failure> {
        if let Some(bars) = self.bars.take() {
            bars.all.clear().map_err(|error| Failure::output(&error))?;
        }
        if self.json {
            for account in accounts {
                let mut value = serde_json::json!(account);
                value["holds"] = account.holds().into();
                self.json("ledger", &value)?;
            }
            for (text, holds) in checks {
                self.json("check", &serde_json::json!({ "text": text, "holds": holds }))?;
            }
            return Ok(());
        }
        self.line("")?;
        self.line(&ledger::table(accounts))?;
        for (text, holds) in checks {
            self.line(&format!("  {}  {text}", if *holds { "✓" } else { "FAILED" }))?;
        }
        Ok(())
    }
}
