//! `pub`: standard input to records, at the input's pace or a given one, under a policy for readers in the way.

use crate::args::{PolicyWord, Publish};
use crate::episodes::Episodes;
use crate::failure::{Exit, Failure};
use crate::frame::{Cutter, InFrame};
use crate::manage;
use crate::report::{Event, Outcome, Reporter, Summary, millis};
use crate::signals;
use lapwing::{Overrun, Policy, PublishError, Writer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// The first wait for readers is short, so that their report comes at once; between later ones signals are looked at.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const NEXT_WAIT: Duration = Duration::from_millis(100);
/// How often signals are looked at while there is no input.
const INPUT_WAIT: u16 = 250;
/// Longest reason that a stream is closed with, in bytes.
const REASON: usize = 120;

pub(crate) fn run(args: &Publish, reporter: Reporter) -> Result<Exit, Failure> {
    if let Some(why) = args.contradiction() {
        return Err(Failure::usage(why));
    }
    let mut writer = open(args)?;
    // Not earlier: until the lock is ours, a signal may end the process as it likes.
    signals::install()?;
    let max = writer.max_record();
    if let InFrame::Fixed(length) = args.frame
        && length > max
    {
        return Err(PublishError::TooLarge { length: length as u64, max: max as u64 }.into());
    }
    if args.standby || writer.resumed_at() != 0 {
        reporter.tell(&Event::Takeover { epoch: writer.epoch(), sequence: Some(writer.resumed_at()) });
    }
    // The policy's turn comes when a record was refused, so that what went before it is visible while it waits.
    writer.set_policy(Policy::Refuse);
    let mut publisher = Publisher {
        policy: args.policy,
        timeout: args.timeout.0,
        reporter,
        episodes: Episodes::default(),
        tally: Tally::default(),
        writer,
    };
    let started = Instant::now();
    let result = publisher.pump(args);
    publisher.report();
    if let Err(Failure::Told(exit, message)) = &result
        && *exit != Exit::Refused
    {
        reporter.tell(&Event::Error { code: *exit as u8, message: message.clone() });
    }
    publisher.finish(result, args.keep_open, started)
}

fn open(args: &Publish) -> Result<Writer, Failure> {
    let opened = match (args.create, args.standby) {
        (true, true) => manage::options(&args.geometry).standby(&args.path),
        (true, false) => manage::options(&args.geometry).open_or_create(&args.path),
        (false, true) => Writer::standby(&args.path),
        (false, false) => Writer::open(&args.path),
    };
    opened.map_err(|error| if args.create { manage::place(error, &args.path) } else { error.into() })
}

#[derive(Default)]
struct Tally {
    first: Option<u64>,
    last: Option<u64>,
    records: u64,
    bytes: u64,
    waited: Duration,
}

impl Tally {
    fn add(&mut self, first: u64, records: u64, bytes: u64) {
        if records != 0 {
            self.first.get_or_insert(first);
            self.last = Some(first + records - 1);
            self.records += records;
            self.bytes += bytes;
        }
    }
}

struct Publisher {
    writer: Writer,
    policy: PolicyWord,
    timeout: Option<Duration>,
    reporter: Reporter,
    episodes: Episodes,
    tally: Tally,
}

/// Why a batch was committed.
enum Stop {
    /// The input read so far is used up.
    Drained,
    /// No more records are due, or the batch is as large as it may be.
    Enough,
    /// Readers are in the way of the next record.
    Blocked,
    Failed(Failure),
}

impl Publisher {
    /// Publishes the input to its end.
    fn pump(&mut self, args: &Publish) -> Result<(), Failure> {
        let stdin = io::stdin();
        // Without the standard library's own buffer in between: what has arrived is published before more is waited for.
        let mut input = File::from(stdin.as_fd().try_clone_to_owned().map_err(|error| Failure::input(&error))?);
        let mut cutter = Cutter::new(args.frame, self.writer.max_record());
        let mut pace = args.rate.map(|rate| Pace::new(rate, Instant::now()));
        loop {
            while self.publish_available(&mut cutter, pace.as_mut())? {}
            if cutter.ended() {
                return Ok(());
            }
            let idle = Instant::now();
            loop {
                if signals::stopped() {
                    // Whatever is left is no whole record.
                    return Ok(());
                }
                let mut fds = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
                match poll(&mut fds, PollTimeout::from(INPUT_WAIT)) {
                    Ok(0) | Err(nix::Error::EINTR) => {}
                    // Reading says better what is wrong.
                    Ok(_) | Err(_) => break,
                }
            }
            cutter.fill(&mut input).map_err(|error| Failure::input(&error))?;
            if let Some(pace) = &mut pace {
                pace.pardon(idle, Instant::now());
            }
        }
    }

    /// Publishes a batch of what the cutter holds; false once that is used up.
    fn publish_available(&mut self, cutter: &mut Cutter, pace: Option<&mut Pace>) -> Result<bool, Failure> {
        let due = match &pace {
            Some(pace) if matches!(cutter.peek(), Ok(Some(_))) => pace.wait()?,
            _ => u64::MAX,
        };
        let mut bytes = 0;
        let mut batch = self.writer.batch();
        let stop = loop {
            if batch.len() as u64 >= due {
                break Stop::Enough;
            }
            let record = match cutter.peek() {
                Ok(Some(record)) => record,
                Ok(None) => break Stop::Drained,
                Err(broken) => break Stop::Failed(Failure::other(broken.to_string())),
            };
            match batch.push(record) {
                Ok(()) => {
                    bytes += record.len() as u64;
                    cutter.consume();
                }
                Err(PublishError::TooLarge { .. }) if !batch.is_empty() => break Stop::Enough,
                Err(PublishError::WouldOverrun(_)) => break Stop::Blocked,
                Err(error) => break Stop::Failed(error.into()),
            }
        };
        let range = batch.commit()?;
        let records = range.end - range.start;
        self.tally.add(range.start, records, bytes);
        let mut passed = records;
        let result = match stop {
            Stop::Drained => Ok(false),
            Stop::Enough => Ok(true),
            Stop::Blocked => self.publish_blocked(cutter).map(|()| {
                passed += 1;
                true
            }),
            Stop::Failed(failure) => Err(failure),
        };
        if let Some(pace) = pace {
            pace.passed(passed);
        }
        self.report();
        result
    }

    /// Publishes the next record, which readers are in the way of, under the policy.
    fn publish_blocked(&mut self, cutter: &mut Cutter) -> Result<(), Failure> {
        let Ok(Some(record)) = cutter.peek() else { return Ok(()) };
        let since = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let left = self.timeout.map(|timeout| timeout.saturating_sub(since.elapsed()));
            self.writer.set_policy(match self.policy {
                PolicyWord::Refuse => Policy::Refuse,
                PolicyWord::Evict => Policy::Evict,
                PolicyWord::Wait => Policy::Wait(Some(left.map_or(wait, |left| left.min(wait)))),
            });
            let result = self.writer.publish(record);
            self.writer.set_policy(Policy::Refuse);
            // Also while it waits: the report is of use only as long as there is something to be done.
            self.report();
            let overrun = match result {
                Ok(sequence) => {
                    self.tally.add(sequence, 1, record.len() as u64);
                    self.tally.waited += since.elapsed();
                    cutter.consume();
                    return Ok(());
                }
                Err(PublishError::WouldOverrun(overrun)) => overrun,
                Err(error) => return Err(error.into()),
            };
            if self.policy != PolicyWord::Wait {
                return Err(self.refuse(&overrun, Outcome::Refused, since.elapsed()));
            }
            if self.timeout.is_some_and(|timeout| since.elapsed() >= timeout) {
                self.tally.waited += since.elapsed();
                return Err(self.refuse(&overrun, Outcome::Timeout, since.elapsed()));
            }
            if signals::stopped() {
                self.tally.waited += since.elapsed();
                return Err(stopped());
            }
            wait = NEXT_WAIT;
        }
    }

    fn refuse(&self, overrun: &Overrun, outcome: Outcome, waited: Duration) -> Failure {
        self.reporter.tell(&Event::overrun(overrun, outcome, waited, 0));
        Failure::Told(Exit::Refused, "refused because readers would be overrun".to_owned())
    }

    /// Tells what the writer has noticed.
    fn report(&mut self) {
        let events = self.writer.events();
        if events.is_empty() {
            return;
        }
        let outcome = match self.policy {
            PolicyWord::Refuse => Outcome::Refused,
            PolicyWord::Wait => Outcome::Waiting,
            PolicyWord::Evict => Outcome::Evicting,
        };
        for event in self.episodes.digest(events, outcome, Instant::now()) {
            self.reporter.tell(&event);
        }
    }

    /// Closes the stream, unless it is to stay open, and tells how it went.
    fn finish(self, result: Result<(), Failure>, keep_open: bool, started: Instant) -> Result<Exit, Failure> {
        let (exit, reason) = match result {
            Ok(()) => (Exit::Fine, String::new()),
            Err(Failure::Told(exit, reason)) => (exit, reason),
            Err(Failure::OutputClosed) => (Exit::Fine, String::new()),
        };
        let (tally, episodes) = (self.tally, self.episodes);
        let summary = Summary {
            published: Some(tally.records),
            first: tally.first,
            last: tally.last,
            bytes: tally.bytes,
            elapsed_ms: millis(started.elapsed()),
            epoch: Some(self.writer.epoch()),
            closed: Some(!keep_open),
            overruns: Some(episodes.overruns),
            waited_ms: Some(millis(tally.waited)),
            evicted: Some(episodes.evicted),
            ..Summary::default()
        };
        if !keep_open {
            self.writer.close_with(u32::from(exit as u8), cut(&reason))?;
        }
        self.reporter.tell(&Event::Summary(summary));
        Ok(exit)
    }
}

/// As much of a reason as the bus keeps.
fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

fn stopped() -> Failure {
    Failure::other("stopped by a signal before all that was read had been published")
}

/// When each record is due: counted from the start, so that a delay is caught up and does not shift all that follow.
struct Pace {
    rate: f64,
    origin: Instant,
    passed: u64,
}

impl Pace {
    fn new(rate: f64, origin: Instant) -> Self {
        Self { rate, origin, passed: 0 }
    }

    /// When the record after this many is due.
    fn due(&self, passed: u64) -> Instant {
        let after = Duration::try_from_secs_f64(passed as f64 / self.rate).unwrap_or(Duration::MAX);
        // A date beyond the clock's end is never reached, and the loop that waits for it looks at signals.
        self.origin.checked_add(after).unwrap_or(self.origin + Duration::from_secs(1 << 32))
    }

    /// How many are due now.
    fn count(&self, now: Instant) -> u64 {
        // Rounds down, and up to the record whose time is just now.
        let due = (now.saturating_duration_since(self.origin).as_secs_f64() * self.rate) as u64 + 1;
        due.saturating_sub(self.passed)
    }

    /// Waits until one is due; returns how many are.
    fn wait(&self) -> Result<u64, Failure> {
        loop {
            let now = Instant::now();
            let due = self.count(now);
            if due != 0 {
                return Ok(due);
            }
            if signals::stopped() {
                return Err(stopped());
            }
            let left = self.due(self.passed).saturating_duration_since(now);
            std::thread::sleep(left.clamp(Duration::from_micros(1), NEXT_WAIT));
        }
    }

    fn passed(&mut self, records: u64) {
        self.passed = self.passed.saturating_add(records);
    }

    /// Time spent waiting for input is no delay to be caught up.
    fn pardon(&mut self, since: Instant, now: Instant) {
        let late = now.saturating_duration_since(self.due(self.passed).max(since));
        self.origin += late;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_counts_from_its_start_and_catches_up() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, start);
        assert_eq!(pace.count(start), 1);
        pace.passed(1);
        assert_eq!(pace.count(start), 0);
        assert_eq!(pace.due(1), start + Duration::from_millis(100));
        assert_eq!(pace.count(start + Duration::from_millis(450)), 4);
        pace.passed(1);
        assert_eq!(pace.count(start + Duration::from_millis(450)), 3);
    }

    #[test]
    fn waiting_for_input_is_no_debt() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, start);
        pace.passed(1);
        // The input came after ten seconds; the next record is due then, not a hundred at once.
        let now = start + Duration::from_secs(10);
        pace.pardon(start, now);
        assert_eq!(pace.due(1), now);
        // An input that was there in time changes nothing.
        let soon = now + Duration::from_millis(10);
        pace.passed(1);
        pace.pardon(now, soon);
        assert_eq!(pace.due(1), now);
    }
}
