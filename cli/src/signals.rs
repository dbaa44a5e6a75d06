//! SIGINT and SIGTERM as a request to finish, which the loops look at.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Time to finish; an output that takes nothing more must not keep the process.
const GRACE: Duration = Duration::from_secs(2);

static STOP: OnceLock<()> = OnceLock::new();
/// Whoever waits for time to pass.
static WAITING: (Mutex<()>, Condvar) = (Mutex::new(()), Condvar::new());

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
            // Not between a waiter's look and its sleep.
            drop(WAITING.0.lock());
            WAITING.1.notify_all();
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

/// Lets time pass, but not beyond a request to finish; says whether there is one.
pub(crate) fn wait(time: Duration) -> bool {
    let (lock, asked) = &WAITING;
    let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
    drop(asked.wait_timeout_while(held, time, |()| !stopped()).unwrap_or_else(PoisonError::into_inner));
    stopped()
}
