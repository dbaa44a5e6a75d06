//! SIGINT and SIGTERM as a request to finish, which the loops look at.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::OnceLock;
use std::time::Duration;

/// Time to finish; an output that takes nothing more must not keep the process.
const GRACE: Duration = Duration::from_secs(2);

static STOP: OnceLock<()> = OnceLock::new();

/// Turns the two signals into [`stopped`]. A second one, or the end of the grace, ends the process at once: a reader then
/// counts as crashed, and its records are delivered again.
pub(crate) fn install() -> Result<(), Failure> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM]).map_err(|error| Failure::other(format!("cannot handle signals: {error}")))?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            if STOP.set(()).is_err() {
                std::process::exit(1);
            }
            std::thread::spawn(|| {
                std::thread::sleep(GRACE);
                std::process::exit(1);
            });
        }
    });
    Ok(())
}

/// Says whether the process was asked to finish.
pub(crate) fn stopped() -> bool {
    STOP.get().is_some()
}
