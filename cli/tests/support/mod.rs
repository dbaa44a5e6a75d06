//! What the end-to-end tests share: a place for a bus, and processes whose reports are waited for.

// Each test binary uses a part of it, and none exports it.
#![allow(dead_code, unreachable_pub)]

pub mod schema;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Nothing here takes long; a busy machine may.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of its own for each test, in memory if possible.
pub struct Place(PathBuf);

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.into() } else { std::env::temp_dir() };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("lapwing-cli-test-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub fn bus(&self) -> String {
        self.path("bus")
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a plain path").to_owned()
    }

    /// A new bus.
    pub fn created(extra: &[&str]) -> Self {
        let place = Self::new();
        let bus = place.bus();
        let run = run(&[&["create", &bus], extra].concat(), b"");
        assert_eq!(run.code, 0, "{}", run.stderr);
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapwing"));
    command.args(args);
    command
}

/// A process that has ended.
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// The reports on standard error, or the results on standard output.
    pub fn events(text: &str) -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).expect("one JSON object on standard output")
    }

    pub fn event(&self, name: &str) -> Value {
        let found = Self::events(&self.stderr).into_iter().find(|event| event["event"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {}", self.stderr))
    }

    pub fn last(&self) -> Value {
        Self::events(&self.stderr).pop().expect("a report")
    }
}

/// Runs a command to its end.
pub fn run(args: &[&str], input: &[u8]) -> Ran {
    let mut process = Process::spawn(args);
    if let Some(mut stdin) = process.stdin.take() {
        // A command that fails early reads nothing.
        let _ = stdin.write_all(input);
    }
    process.end()
}

/// A process under way; killed if the test fails.
pub struct Process {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: String,
    output: Option<Receiver<Vec<u8>>>,
    /// Whose schema each line that it tells has to fit.
    schema: Option<schema::Schema>,
}

impl Process {
    /// Starts it with all its output gathered.
    pub fn spawn(args: &[&str]) -> Self {
        let (mut process, mut stdout) = Self::with_output(args);
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stdout.read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
        process.output = Some(output);
        process
    }

    /// Starts it with its output in the test's hands.
    pub fn with_output(args: &[&str]) -> (Self, ChildStdout) {
        let (mut process, stdout) = Self::to(args, Stdio::piped());
        process.stdin = process.child.stdin.take();
        (process, stdout.expect("it is piped"))
    }

    /// Starts it with its output elsewhere.
    pub fn to(args: &[&str], stdout: Stdio) -> (Self, Option<ChildStdout>) {
        let mut child =
            command(args).stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let stdout = child.stdout.take();
        let schema = schema::of(args);
        (Self { child, stdin: None, lines, said: String::new(), output: None, schema }, stdout)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).expect("it is a child of this process");
        // It stops when it next runs, which the kernel does not say.
        while signal == Signal::SIGSTOP && !self.is_stopped() {
            std::thread::yield_now();
        }
    }

    fn is_stopped(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a child not waited for");
        status.lines().any(|line| line.starts_with("State:") && line.contains("T (stopped)"))
    }

    /// Waits for a report.
    pub fn expect(&mut self, name: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {name} after:\n{}", self.said));
            self.said += &line;
            self.said.push('\n');
            self.schema.iter().for_each(|schema| schema.check(&line));
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ran {
        drop(self.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        let mut said = std::mem::take(&mut self.said);
        // The stream ends with the process.
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.schema.iter().for_each(|schema| schema.check(&line));
                    said += &line;
                    said.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end after:\n{said}"),
            }
        }
        let stdout = match self.output.take() {
            Some(output) => output.recv_timeout(PATIENCE).expect("its output ends"),
            None => Vec::new(),
        };
        let status = self.child.wait().expect("it is a child of this process");
        if let Some(schema) = self.schema.as_ref().filter(|schema| !schema.data_on_stdout()) {
            String::from_utf8_lossy(&stdout).lines().for_each(|line| schema.check(line));
        }
        Ran { code: status.code().unwrap_or(-1), stdout, stderr: said }
    }

    /// Kills it as `kill -9` does; returns what it had written.
    pub fn kill(mut self) -> Vec<u8> {
        self.child.kill().expect("it is a child of this process");
        self.child.wait().expect("it is a child of this process");
        self.output.take().map_or(Vec::new(), |output| output.recv_timeout(PATIENCE).expect("its output ends"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines a process writes to standard output, each held against its schema.
pub struct Lines {
    pub process: Process,
    stdout: BufReader<ChildStdout>,
    schema: schema::Schema,
    pub said: String,
}

impl Lines {
    pub fn of(args: &[&str]) -> Self {
        let (process, stdout) = Process::with_output(args);
        let schema = schema::of(args).expect("a command that tells JSON");
        Self { process, stdout: BufReader::new(stdout), schema, said: String::new() }
    }

    /// Reads on until a line is as wanted.
    pub fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            self.stdout.read_line(&mut line).expect("lines of text");
            assert!(!line.is_empty(), "no {what} in:\n{}", self.said);
            self.schema.check(&line);
            let value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
            self.said += &line;
            if wanted(&value) {
                return value;
            }
        }
    }

    pub fn event(&mut self, name: &str) -> Value {
        self.until(name, |line| line["event"] == name)
    }
}

/// Lines that are easy to tell apart.
pub fn numbered(count: u64) -> Vec<u8> {
    (0..count).flat_map(|n| format!("line {n} of this text\n").into_bytes()).collect()
}

/// A snapshot.
pub fn stat(bus: &str) -> Value {
    let run = run(&["--json", "stat", bus], b"");
    assert_eq!(run.code, 0, "{}", run.stderr);
    run.json()
}

/// Looks at the bus until it is as expected.
pub fn until(bus: &str, what: &str, mut done: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stat = stat(bus);
        if done(&stat) {
            return stat;
        }
        assert!(Instant::now() < deadline, "{what}: {stat}");
    }
}
