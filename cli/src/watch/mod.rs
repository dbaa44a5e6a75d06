//! `watch`: what happens to a bus, one line an event, until interrupted or until the bus is gone.

mod differences;

use crate::args::Watch;
use crate::failure::{Exit, Failure};
use crate::report::Reporter;
use crate::show::{print, to_json};
use crate::sight::Sight;
use crate::signals;
use differences::{Differences, Happening};
use lapwing::Error;
use serde::Serialize;
use std::time::SystemTime;

/// One line of `watch --json`. Field names are a contract, as those of the reports.
#[derive(Serialize)]
struct Line<'a> {
    /// When it was seen: it happened since the look before.
    at: String,
    path: &'a str,
    #[serde(flatten)]
    event: &'a Happening,
}

pub(crate) fn run(args: &Watch, reporter: Reporter) -> Result<Exit, Failure> {
    signals::install()?;
    let path = args.path.display().to_string();
    let tell = |event: &Happening| {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let line = if reporter.json { to_json(&Line { at, path: &path, event })? } else { format!("{at} {event}\n") };
        print(&line).map(drop)
    };
    let mut sight = Sight::new(&args.path, args.limits.into());
    let mut differences = Differences::new();
    loop {
        match sight.look() {
            Ok(look) => differences.since_last(&look).iter().try_for_each(&tell)?,
            // Not there at the start is an error; later it is the last event.
            Err(Error::NotFound { .. }) if differences.has_seen() => {
                tell(&Happening::Removed)?;
                return Ok(Exit::Fine);
            }
            // Between the two renames of a replacement.
            Err(Error::NotReady { .. }) if differences.has_seen() => {}
            Err(error) => return Err(error.into()),
        }
        if signals::wait(args.interval) {
            return Ok(Exit::Fine);
        }
    }
}
