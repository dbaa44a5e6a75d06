//! `top`: buses at work in the terminal. This is the loop; [`state`] is what is shown and what keys do to it, [`view`] draws it.

mod state;
mod view;

#[cfg(test)]
mod picture;

use crate::args::Top;
use crate::failure::{Exit, Failure};
use crate::sight::Sight;
use crate::signals;
use lapwing::Bus;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use state::{Action, App, Eviction};
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for a key, so that a signal is seen.
const SIGNALS: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Top) -> Result<Exit, Failure> {
    if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
        return Err(Failure::other("top needs a terminal; `lapwing stat --watch` shows the same without one"));
    }
    let mut sights: Vec<_> = args.paths.iter().map(|path| Sight::new(path, args.limits.into())).collect();
    // A bus that is not there now is an error; later it may come and go.
    for sight in &mut sights {
        sight.look()?;
    }
    signals::install()?;
    let colour = !args.no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut app = App::new(args.paths.iter().map(|path| path.display().to_string()).collect(), colour);
    let failed = |error: io::Error| Failure::other(format!("cannot use the terminal: {error}"));
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let result = watch(&mut app, &mut sights, &mut terminal, args.interval).map_err(failed);
    ratatui::try_restore().map_err(failed)?;
    result?;
    Ok(Exit::Fine)
}

fn watch(app: &mut App, sights: &mut [Sight], terminal: &mut DefaultTerminal, interval: Duration) -> io::Result<()> {
    let mut next = Instant::now();
    while !signals::stopped() {
        if Instant::now() >= next {
            for (index, sight) in sights.iter_mut().enumerate() {
                // A frozen picture does not change, but health goes on being judged.
                let look = sight.look();
                app.update(index, look);
            }
            next = Instant::now() + interval;
        }
        terminal.draw(|frame| view::draw(frame, app))?;
        let patience = next.saturating_duration_since(Instant::now()).min(SIGNALS);
        if !event::poll(patience)? {
            continue;
        }
        // A resize is an event too, and drawing is what it takes.
        let Event::Key(key) = event::read()? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match app.key(key) {
            Some(Action::Quit) => return Ok(()),
            Some(Action::Evict(eviction)) => {
                let outcome = evict(sights[eviction.bus].path(), &eviction);
                app.say(outcome);
                next = Instant::now();
            }
            None => {}
        }
    }
    Ok(())
}

/// Evicts a reader; says what came of it.
fn evict(path: &Path, eviction: &Eviction) -> String {
    match Bus::open(path).and_then(|bus| bus.evict(eviction.reader)) {
        Ok(Some(reader)) => format!("evicted {reader}"),
        Ok(None) => format!("{} was evicted already", eviction.words),
        Err(error) => error.to_string(),
    }
}
