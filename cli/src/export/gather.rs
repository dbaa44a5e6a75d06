//! Looks at the buses, at most so often however many ask, and keeps how each reader is.

use super::metrics;
use crate::failure::{Exit, Failure};
use crate::report::{Event, Reporter};
use crate::sight::{Look, Sight};
use lapwing::HealthLimits;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An answer younger than this is given again: whoever scrapes in a loop costs the bus nothing.
const FRESH: Duration = Duration::from_millis(100);

/// A bus as it was last seen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) path: String,
    /// `None` while it cannot be looked at.
    pub(super) bus: Option<Look>,
}

struct Watched {
    sight: Sight,
    /// What keeps it from being looked at, so that it is told once.
    trouble: Option<String>,
}

impl Watched {
    fn look(&mut self, reporter: Reporter) -> View {
        let path = self.sight.path().display().to_string();
        let found = self.sight.look();
        let trouble = found.as_ref().err().map(ToString::to_string);
        if trouble != self.trouble {
            reporter.tell(&match trouble.clone() {
                Some(message) => Event::Down { path: path.clone(), message },
                None => Event::Up { path: path.clone() },
            });
            self.trouble = trouble;
        }
        View { path, bus: found.ok() }
    }
}

struct State {
    watched: Vec<Watched>,
    last: Option<(Instant, String)>,
}

pub(super) struct Gatherer {
    state: Mutex<State>,
    reporter: Reporter,
}

impl Gatherer {
    /// Looks at each bus; says whether one is missing, which may come later.
    ///
    /// # Errors
    /// What is there and is no usable bus will not become one.
    pub(super) fn new(paths: &[PathBuf], reporter: Reporter) -> Result<(Self, bool), Failure> {
        let mut missing = false;
        let mut watched: Vec<Watched> = Vec::new();
        for path in paths {
            if watched.iter().any(|other| other.sight.path() == path) {
                return Err(Failure::usage(format!("{} is given twice", path.display())));
            }
            let mut sight = Sight::new(path, HealthLimits::default());
            match sight.look().map_err(Failure::from) {
                Err(Failure::Told(Exit::NoBus, _)) => missing = true,
                Err(failure) => return Err(failure),
                Ok(_) => {}
            }
            watched.push(Watched { sight, trouble: None });
        }
        Ok((Self { state: Mutex::new(State { watched, last: None }), reporter }, missing))
    }

    /// The metrics as OpenMetrics text, not older than a moment.
    pub(super) fn text(&self) -> Result<String, Failure> {
        // A panic of another thread would have left nothing half-done that a new look does not mend.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, text)) = &state.last
            && at.elapsed() < FRESH
        {
            return Ok(text.clone());
        }
        let views = state.watched.iter_mut().map(|watched| watched.look(self.reporter)).collect();
        let text = metrics::encode(views)?;
        state.last = Some((Instant::now(), text.clone()));
        Ok(text)
    }
}
