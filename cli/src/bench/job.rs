//! What a measuring process is told, what it answers, and the coordinator's side of that talk.
//!
//! A process gets its job as one line of standard input, says `ready` when it is attached and pinned, begins at the next line,
//! and answers with one line. It ends with its input, so that none outlives the coordinator by more than one measurement.

use super::topology::pin;
use super::{bus, line};
use crate::failure::Failure;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// The argument that makes the command one of these processes; not one of its words, so it is in no help and no completion.
const ROLE: &str = "bench-peer";
const READY: &str = "ready";

/// Round trips, each begun at its time.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Trips {
    pub(super) rate: f64,
    pub(super) size: usize,
    pub(super) time: Duration,
}

/// As many records as go through.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) size: usize,
    pub(super) readers: usize,
    pub(super) time: Duration,
}

/// A fifth of a measurement's time passes before anything counts.
pub(super) fn warm_up(time: Duration) -> Duration {
    time / 5
}

/// What one process does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Job {
    /// Publishes on one bus and waits for the answer on the other.
    Ping { there: PathBuf, back: PathBuf, trips: Trips },
    /// Answers each record of one bus on the other.
    Echo { there: PathBuf, back: PathBuf },
    /// Publishes as fast as the readers allow.
    Publish { bus: PathBuf, flow: Flow },
    /// Reads and checks every record.
    Read { bus: PathBuf },
    /// Both sides of the round trips on bare cache lines, as threads: a line does not know whose cores want it.
    BareTrips { cpus: [usize; 2], trips: Trips },
    /// The same for the flow, a processor for the writer and for each reader.
    BareFlow { cpus: Vec<usize>, flow: Flow },
}

/// A job with where and how it is done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) job: Job,
    pub(super) cpu: usize,
    /// Whether others need the same processor: then who waits offers it to them.
    pub(super) shares: bool,
}

/// What a process found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Latencies in nanoseconds, each with how often it was found.
    Trips(Vec<(u64, u64)>),
    /// Records that counted, in how much time; and all of them with the sum of their first words.
    Flow {
        counted: u64,
        time: Duration,
        all: Tally,
    },
    Read(Tally),
    Echoed,
    Failed(String),
}

/// Records and the sum of their first words, which both sides must agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) sum: u64,
}

impl Tally {
    #[inline(always)]
    pub(super) fn add(&mut self, first_word: u64) {
        self.records += 1;
        self.sum = self.sum.wrapping_add(first_word);
    }
}

/// Latencies from a nanosecond to a minute, to three digits.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Says whether this process is one of these, and if so does its job.
pub(crate) fn serve() -> Option<std::process::ExitCode> {
    if std::env::args_os().nth(1)? != ROLE {
        return None;
    }
    let answer = work().unwrap_or_else(|failure| Answer::Failed(failure.to_string()));
    let told = serde_json::to_string(&answer).map_err(io::Error::from).and_then(|line| say(&line));
    Some(if told.is_ok() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush())
}

fn work() -> Result<Answer, Failure> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| Failure::input(&error))?;
    let order: Order =
        serde_json::from_str(&line).map_err(|error| Failure::usage(format!("no job on standard input: {error}")))?;
    pin(order.cpu)?;
    let shares = order.shares;
    match order.job {
        Job::Ping { there, back, trips } => bus::ping(&there, &back, trips, shares),
        Job::Echo { there, back } => bus::echo(&there, &back, shares),
        Job::Publish { bus, flow } => bus::publish(&bus, flow, shares),
        Job::Read { bus } => bus::read(&bus, shares),
        Job::BareTrips { cpus, trips } => line::trips(cpus, trips, shares),
        Job::BareFlow { cpus, flow } => line::flow(&cpus, flow, shares),
    }
}

/// Says that everything is in place, and waits for the word to begin.
pub(super) fn wait_for_start() -> Result<(), Failure> {
    say(READY).map_err(|error| Failure::output(&error))?;
    let mut line = String::new();
    match io::stdin().read_line(&mut line) {
        Ok(0) => Err(Failure::other("the coordinator is gone")),
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::input(&error)),
    }
}

/// A process at work; ended when dropped.
struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(order: &Order) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::other(format!("cannot start a process to measure: {error}"));
        let mut child = Command::new(std::env::current_exe().map_err(failed)?)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::other("a process to measure has no pipes"));
        };
        let mut peer = Self { child, stdin, stdout: BufReader::new(stdout) };
        let order = serde_json::to_string(order).map_err(|error| failed(error.into()))?;
        writeln!(peer.stdin, "{order}").map_err(failed)?;
        match peer.line()?.trim() {
            READY => Ok(peer),
            other => Err(Self::failure(other)),
        }
    }

    fn begin(&mut self) -> Result<(), Failure> {
        writeln!(self.stdin).map_err(|error| Failure::other(format!("a process that is measured is gone: {error}")))
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => Err(Failure::other("a process that is measured ended without an answer")),
            Ok(_) => Ok(line),
            Err(error) => Err(Failure::other(format!("a process that is measured cannot be heard: {error}"))),
        }
    }

    fn answer(&mut self) -> Result<Answer, Failure> {
        let line = self.line()?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(_)) | Err(_) => Err(Self::failure(line.trim())),
            Ok(answer) => Ok(answer),
        }
    }

    fn failure(line: &str) -> Failure {
        match serde_json::from_str(line) {
            Ok(Answer::Failed(message)) => Failure::other(message),
            _ => Failure::other(format!("a process that is measured said: {line}")),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Ended by itself, unless something failed.
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has all orders carried out at the same time; each begins when all are ready, the last one last.
pub(super) fn carry_out(orders: &[Order]) -> Result<Vec<Answer>, Failure> {
    let mut peers = orders.iter().map(Peer::start).collect::<Result<Vec<_>, _>>()?;
    peers.iter_mut().try_for_each(Peer::begin)?;
    peers.iter_mut().map(Peer::answer).collect()
}
