//! The demo's application behind each reader: takes its output line by line, at the speed it is told, and keeps its own books.

use super::cast::record;
use crate::report::Range;
use std::io::{BufRead, BufReader};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A slow handler takes so many records, then rests so long: 2,500 a second.
const SLOW_BATCH: u64 = 50;
const SLOW_REST: Duration = Duration::from_millis(20);

/// What a handler has seen. All readers of the demo start at sequence 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Handled {
    pub(crate) next: u64,
    pub(crate) delivered: u64,
    /// Records that came a second time, after a crash.
    pub(crate) again: u64,
    /// Records whose content was not that of their sequence.
    pub(crate) wrong: u64,
    /// Where the sequence jumped.
    pub(crate) jumps: Vec<Range>,
}

impl Handled {
    /// Takes a line: sequence, tab, record, newline.
    fn line(&mut self, line: &str) {
        let Some((sequence, content)) = line.split_once('\t') else {
            self.wrong += 1;
            return;
        };
        let Ok(sequence) = sequence.parse::<u64>() else {
            self.wrong += 1;
            return;
        };
        self.wrong += u64::from(content != record(sequence));
        if sequence < self.next {
            self.again += 1;
            return;
        }
        if sequence > self.next {
            self.jumps.push(Range { first: self.next, end: sequence, count: sequence - self.next });
        }
        self.delivered += 1;
        self.next = sequence + 1;
    }
}

#[derive(Default)]
struct Shared {
    handled: Handled,
    slow: bool,
}

/// Handles what one reader delivers, over all its processes.
#[derive(Default)]
pub(crate) struct Handler {
    shared: Arc<Mutex<Shared>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handler {
    /// Handles a process's output until it ends.
    pub(crate) fn take(&self, output: ChildStdout) {
        let shared = self.shared.clone();
        let thread = std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            let mut taken = 0u64;
            loop {
                line.clear();
                // Half a line at the end is what a killed process did not get out: it comes again.
                match output.read_line(&mut line) {
                    Ok(1..) if line.ends_with('\n') => {}
                    _ => return,
                }
                let mut shared = lock(&shared);
                shared.handled.line(line.trim_end_matches('\n'));
                let rest = shared.slow && taken.is_multiple_of(SLOW_BATCH);
                drop(shared);
                if rest {
                    std::thread::sleep(SLOW_REST);
                }
                taken += 1;
            }
        });
        lock(&self.threads).push(thread);
    }

    /// Slows the handler down, or lets it go as fast as it can.
    pub(crate) fn slow_down(&self, yes: bool) {
        lock(&self.shared).slow = yes;
    }

    /// Returns what it has seen so far.
    pub(crate) fn account(&self) -> Handled {
        lock(&self.shared).handled.clone()
    }

    /// Waits for the end of what its processes wrote.
    pub(crate) fn join(&self) {
        for thread in lock(&self.threads).drain(..) {
            // What a thread that panicked has seen shows in the books.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_know_repeats_jumps_and_wrong_content() {
        let mut handled = Handled::default();
        for sequence in [0, 1, 1, 0, 2, 5, 6] {
            handled.line(&format!("{sequence}\t{}", record(sequence)));
        }
        assert_eq!((handled.delivered, handled.again, handled.wrong, handled.next), (5, 2, 0, 7));
        assert_eq!(handled.jumps, [Range { first: 3, end: 5, count: 2 }]);
        handled.line("7\tsomething else");
        handled.line("no tab");
        handled.line("x\ty");
        assert_eq!(handled.wrong, 3);
    }
}
