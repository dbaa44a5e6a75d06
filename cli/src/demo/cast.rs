//! The demo's processes: started with the command's own words, listened to, killed, and cleared away whatever happens.

use crate::failure::{Exit, Failure};
use crate::report::Event;
use std::cell::RefCell;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

/// Records fed at a time.
const CHUNK: u64 = 64;

/// A report of one of the processes.
pub(crate) struct Told {
    pub(crate) who: &'static str,
    pub(crate) event: Event,
}

/// The record of a sequence: it says which one it is, so that a handler can tell.
pub(crate) fn record(sequence: u64) -> String {
    format!("{sequence:010} {:016x} no event is lost in silence", sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

struct Process {
    who: &'static str,
    child: Child,
}

pub(crate) struct Cast {
    directory: PathBuf,
    bus: PathBuf,
    processes: Vec<Process>,
    listeners: RefCell<Vec<JoinHandle<()>>>,
    told: Sender<Told>,
}

impl Cast {
    /// Makes a place for the bus: in memory if there is such a file system.
    pub(crate) fn assemble() -> Result<(Self, Receiver<Told>), Failure> {
        let name = format!("lapwing-demo-{}", std::process::id());
        let places = [PathBuf::from("/dev/shm"), std::env::temp_dir()];
        let made = places.iter().map(|place| place.join(&name)).find(|path| fs::create_dir(path).is_ok());
        let Some(directory) = made else {
            return Err(Failure::other(format!(
                "cannot make a directory {name} in /dev/shm or the temporary directory"
            )));
        };
        let (told, reports) = mpsc::channel();
        let bus = directory.join("bus");
        Ok((Self { directory, bus, processes: Vec::new(), listeners: RefCell::default(), told }, reports))
    }

    pub(crate) fn bus(&self) -> &Path {
        &self.bus
    }

    fn start(&mut self, who: &'static str, word: &str, extra: &[&str]) -> Result<&mut Child, Failure> {
        let failed = |error: io::Error| Failure::other(format!("cannot start the process {who}: {error}"));
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["--json", word]).arg(&self.bus).args(extra);
        let (stdin, stdout) =
            if word == "pub" { (Stdio::piped(), Stdio::null()) } else { (Stdio::null(), Stdio::piped()) };
        let mut child = command.stdin(stdin).stdout(stdout).stderr(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(stderr) = child.stderr.take() {
            let told = self.told.clone();
            let listener = std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    // Anything else, such as a panic's message, is an error to be told as well.
                    let event = serde_json::from_str(&line).unwrap_or(Event::Error { code: 1, message: line });
                    if told.send(Told { who, event }).is_err() {
                        return;
                    }
                }
            });
            self.listeners.borrow_mut().push(listener);
        }
        self.processes.push(Process { who, child });
        self.processes
            .last_mut()
            .map(|process| &mut process.child)
            .ok_or_else(|| Failure::other("a process that was just started is gone"))
    }

    /// Starts a reader; returns its output.
    pub(crate) fn subscribe(&mut self, who: &'static str, extra: &[&str]) -> Result<ChildStdout, Failure> {
        let child = self.start(who, "sub", &[&["--with-seq"], extra].concat())?;
        child.stdout.take().ok_or_else(|| Failure::other(format!("{who} has no output")))
    }

    /// Starts a writer; it publishes once its feed is told from where.
    pub(crate) fn publish(&mut self, who: &'static str, extra: &[&str]) -> Result<Feed, Failure> {
        let child = self.start(who, "pub", extra)?;
        let input = child.stdin.take().ok_or_else(|| Failure::other(format!("{who} has no input")))?;
        Ok(Feed::new(input))
    }

    /// Kills a process as `kill -9` does.
    pub(crate) fn kill(&mut self, who: &str) -> Result<(), Failure> {
        let Some(at) = self.processes.iter().position(|process| process.who == who) else {
            return Err(Failure::other(format!("there is no process {who} to kill")));
        };
        let mut process = self.processes.swap_remove(at);
        process
            .child
            .kill()
            .and_then(|()| process.child.wait())
            .map(drop)
            .map_err(|error| Failure::other(format!("cannot kill {who}: {error}")))
    }

    /// Says whether all processes have ended.
    pub(crate) fn all_ended(&mut self) -> bool {
        self.processes.iter_mut().all(|process| matches!(process.child.try_wait(), Ok(Some(_))))
    }

    /// Says whether all processes that were not killed here have ended with the exit codes wanted.
    pub(crate) fn ended_with(&mut self, wanted: impl Fn(&str) -> Exit) -> bool {
        self.processes.iter_mut().all(|Process { who, child }| {
            let code = i32::from(wanted(who) as u8);
            matches!(child.try_wait(), Ok(Some(status)) if status.code() == Some(code))
        })
    }

    /// Waits for the last reports of processes that have ended.
    pub(crate) fn join(&self) {
        for listener in self.listeners.borrow_mut().drain(..) {
            // A listener that panicked has told all it could.
            let _ = listener.join();
        }
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // Those that have ended are past both.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What feeds a writer's standard input, from the sequence it is told on.
pub(crate) struct Feed {
    begin: Sender<u64>,
    /// Dropped to end the input.
    _go_on: Sender<()>,
}

impl Feed {
    fn new(input: ChildStdin) -> Self {
        let (begin, started) = mpsc::channel();
        let (go_on, ended) = mpsc::channel();
        // Ends with the writer, or when this process drops its feed.
        std::thread::spawn(move || {
            if let Ok(first) = started.recv() {
                // A writer that was killed reads no more.
                let _ = feed(input, first, &ended);
            }
        });
        Self { begin, _go_on: go_on }
    }

    /// Says which sequence comes first.
    pub(crate) fn from(&self, first: u64) {
        // A feed that has gone already has nobody to feed.
        let _ = self.begin.send(first);
    }

    /// Ends the input.
    pub(crate) fn end(self) {}
}

fn feed(mut input: ChildStdin, first: u64, ended: &Receiver<()>) -> io::Result<()> {
    let mut next = first;
    while ended.try_recv() != Err(TryRecvError::Disconnected) {
        let mut chunk = String::new();
        for sequence in next..next + CHUNK {
            chunk += &record(sequence);
            chunk.push('\n');
        }
        input.write_all(chunk.as_bytes())?;
        next += CHUNK;
    }
    Ok(())
}
