//! Support for the tests: places that clean up, child processes that play a role, payloads that prove themselves, ledgers.
//!
//! A test binary that needs children declares them once, with [`roles!`]. [`Child::start`] runs the same binary again; the two talk in
//! lines over the child's standard input and output. A child never outlives the test that started it.

#![allow(dead_code, unused_macros, unused_imports)] // Each test binary uses a part of it.

mod stranger;

pub(crate) use stranger::{become_a_stranger, can_become_another};

use lapwing::{Bus, Gap, Next, Reader, ReaderId, ReaderInfo, Record, Snapshot, Start};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fmt::{Debug, Display};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long anything may take on a loaded machine before a test fails loudly. No outcome depends on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

// ---- places -----------------------------------------------------------------------------------------------------

/// A directory of its own in memory (or among the temporary files), removed with all it holds when dropped, also by a panic.
pub(crate) struct Place {
    directory: PathBuf,
}

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let shm = Path::new("/dev/shm");
        let base = if shm.is_dir() { shm.into() } else { std::env::temp_dir() };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("lapwing-test-{}-{count}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        Self { directory }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the test's bus lies.
    pub(crate) fn bus(&self) -> PathBuf {
        self.directory.join("bus")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

// ---- waiting for events -------------------------------------------------------------------------------------------

/// Asks again and again until there is an answer; panics, naming `what`, if there is none within the deadline.
pub(crate) fn until<T>(what: impl Display, mut ask: impl FnMut() -> Option<T>) -> T {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(since.elapsed() < DEADLINE, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The table's row of the reader of this name.
pub(crate) fn named(path: &Path, name: &str) -> Option<ReaderInfo> {
    rows(path).into_iter().find(|reader| reader.name.as_deref() == Some(name))
}

/// Every row of the table.
pub(crate) fn rows(path: &Path) -> Vec<ReaderInfo> {
    inspect(path).readers.expect("the table can be read")
}

pub(crate) fn inspect(path: &Path) -> Snapshot {
    Bus::inspect(path).unwrap()
}

// ---- child processes ----------------------------------------------------------------------------------------------

const ROLE: &str = "LAPWING_TEST_ROLE";
const ARGUMENTS: &str = "LAPWING_TEST_ARGUMENTS";
/// What lines of a child begin with; others are the test harness's.
const MARK: char = '@';

/// A role that a child process can play: its name, and what it does.
pub(crate) type Role = (&'static str, fn(&mut Stage));

/// Declares the roles of a test binary's children: `roles! { reader, writer }` names functions that take a [`Stage`].
macro_rules! roles {
    ($($role:ident),+ $(,)?) => {
        #[test]
        fn child_role() {
            $crate::common::play(&[$((stringify!($role), $role)),+]);
        }
    };
}
pub(crate) use roles;

/// In a child: plays the role it was started for and ends the process. In the test's own process: nothing.
pub(crate) fn play(roles: &[Role]) {
    let Ok(wanted) = std::env::var(ROLE) else { return };
    // SAFETY: a plain system call that touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // The harness may have left a line unfinished.
    println!();
    let role = roles.iter().find(|role| role.0 == wanted).unwrap_or_else(|| panic!("no role {wanted:?} in this test"));
    let arguments = std::env::var(ARGUMENTS).unwrap().split('\x1f').map(String::from).collect();
    (role.1)(&mut Stage { arguments });
    std::process::exit(0);
}

/// The command that starts this test binary again, as the last words of another program's command line if one is given.
///
/// For another machine's binaries `LAPWING_TEST_RUNNER` names the emulator that runs them.
pub(crate) fn own_command(program: &[&str]) -> Command {
    let runner = std::env::var("LAPWING_TEST_RUNNER").unwrap_or_default();
    let words = program.iter().copied().chain(runner.split_whitespace()).map(OsString::from);
    let mut words = words.chain([std::env::current_exe().unwrap().into()]);
    let mut command = Command::new(words.next().expect("the binary at least"));
    command.args(words);
    command
}

/// A child's side of the conversation.
pub(crate) struct Stage {
    arguments: Vec<String>,
}

impl Stage {
    pub(crate) fn argument(&self, index: usize) -> &str {
        &self.arguments[index]
    }

    pub(crate) fn number(&self, index: usize) -> u64 {
        self.argument(index).parse().unwrap()
    }

    /// The bus is every role's first argument.
    pub(crate) fn bus(&self) -> PathBuf {
        self.argument(0).into()
    }

    /// Says a line, in one write: what was said before a kill is said whole.
    pub(crate) fn say(&self, line: impl Display) {
        let line = format!("{MARK}{line}\n");
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            std::process::exit(1);
        }
    }

    /// Waits for a line; ends the process if the test is gone.
    pub(crate) fn hear(&self) -> String {
        let mut line = String::new();
        if std::io::stdin().read_line(&mut line).unwrap() == 0 {
            std::process::exit(1);
        }
        line.trim_end().into()
    }

    /// Waits for this very line.
    pub(crate) fn hear_this(&self, line: &str) {
        assert_eq!(self.hear(), line);
    }
}

/// A child process that plays a role. Killed when dropped.
pub(crate) struct Child {
    role: String,
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    waited: bool,
}

impl Child {
    /// Starts a role of this test binary on a bus.
    pub(crate) fn start(role: &str, bus: &Path, arguments: &[&dyn Display]) -> Self {
        Self::start_under(&[], role, bus, arguments)
    }

    /// The same, started by another program, such as `unshare`, that is given the command line to run.
    pub(crate) fn start_under(program: &[&str], role: &str, bus: &Path, arguments: &[&dyn Display]) -> Self {
        let mut all = vec![bus.to_str().unwrap().to_string()];
        all.extend(arguments.iter().map(|argument| argument.to_string()));
        let mut process = own_command(program)
            .args(["child_role", "--exact", "--nocapture", "--test-threads=1", "-q"])
            .env(ROLE, role)
            .env(ARGUMENTS, all.join("\x1f"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix(MARK)
                    && send.send(line.to_string()).is_err()
                {
                    break;
                }
            }
        });
        Self { role: role.into(), stdin: process.stdin.take(), process, lines, waited: false }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    fn id(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// Says a line to the child.
    pub(crate) fn tell(&mut self, line: impl Display) {
        let stdin = self.stdin.as_mut().expect("nothing more was to be said");
        stdin
            .write_all(format!("{line}\n").as_bytes())
            .unwrap_or_else(|error| panic!("{} is gone: {error}", self.role));
    }

    /// Waits for the child's next line; `None` once it has ended and everything was heard.
    pub(crate) fn hear(&mut self) -> Option<String> {
        self.hear_within(DEADLINE)
    }

    fn hear_within(&mut self, deadline: Duration) -> Option<String> {
        match self.lines.recv_timeout(deadline) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} (process {}) says nothing", self.role, self.pid()),
        }
    }

    /// Waits for the next line, which has to come.
    pub(crate) fn line(&mut self) -> String {
        self.line_within(DEADLINE)
    }

    /// The same, for what takes its time.
    pub(crate) fn line_within(&mut self, deadline: Duration) -> String {
        let line = self.hear_within(deadline);
        line.unwrap_or_else(|| panic!("{} (process {}) ended without a word", self.role, self.pid()))
    }

    /// Waits for the next line, which has to start with this word, and returns the rest.
    pub(crate) fn expect(&mut self, word: &str) -> String {
        let line = self.line();
        match line.strip_prefix(word) {
            Some(rest) => rest.trim_start().into(),
            None => panic!("{} (process {}) said {line:?} instead of {word:?}", self.role, self.pid()),
        }
    }

    /// What has been said and not heard so far.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Everything said until it ends.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.hear()).collect()
    }

    /// Stops the process as a debugger or a terminal would, and returns once it stands still.
    pub(crate) fn stop(&self) {
        signal(self.pid(), libc::SIGSTOP);
        let status = waitpid(self.id(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) {
        signal(self.pid(), libc::SIGCONT);
    }

    /// Kills it and buries it; what it had said can still be heard.
    pub(crate) fn kill(&mut self) {
        self.kill_unburied();
        self.process.wait().unwrap();
        self.waited = true;
    }

    /// The same; it must not have ended before by itself.
    pub(crate) fn kill_alive(&mut self) {
        signal(self.pid(), libc::SIGKILL);
        let status = self.process.wait().unwrap();
        self.waited = true;
        let by_us = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
        assert!(by_us, "{} ended by itself with {status}", self.role);
    }

    /// Kills it and leaves it a zombie.
    pub(crate) fn kill_unburied(&self) {
        signal(self.pid(), libc::SIGKILL);
        waitid(Id::Pid(self.id()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }

    /// Waits for it to end, however it does.
    pub(crate) fn ended(mut self) -> ExitStatus {
        self.stdin = None;
        self.rest();
        self.waited = true;
        self.process.wait().unwrap()
    }

    /// Ends its input and waits for it to end well.
    pub(crate) fn finish(mut self) {
        self.stdin = None;
        // Its output must not stop it.
        let rest = self.rest();
        let status = self.process.wait().unwrap();
        self.waited = true;
        assert!(status.success(), "{} ended with {status}, last words {rest:?}", self.role);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.waited {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

pub(crate) fn signal(pid: u32, signal: i32) {
    // SAFETY: touches no memory; the process is a child that has not been waited for, so the pid is its own.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

// ---- random numbers -----------------------------------------------------------------------------------------------

/// A small generator (splitmix64): the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// From `LAPWING_SEED` if it is set, else from the clock; prints the seed, so that a failure can be repeated.
    pub(crate) fn seeded(test: &str) -> Self {
        let clock = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var("LAPWING_SEED").map_or_else(|_| clock(), |seed| seed.parse().unwrap());
        println!("{test}: LAPWING_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn from(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A number from the environment, or the default.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

// ---- payloads -----------------------------------------------------------------------------------------------------

/// The payload of a sequence: length (at most `longest`) and every byte follow from the sequence, so that any other's is noticed.
pub(crate) fn payload(sequence: u64, longest: usize) -> Vec<u8> {
    let mut random = Random::from(sequence);
    let length = random.below(longest as u64 + 1) as usize;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_ne_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Checks a record made of [`payload`].
pub(crate) fn assert_whole(record: &Record<'_>, longest: usize) {
    let (sequence, wanted) = (record.sequence(), payload(record.sequence(), longest));
    assert!(record.payload() == wanted, "record {sequence} is torn or another's: {:?}", record.payload());
}

// ---- ledgers ------------------------------------------------------------------------------------------------------

/// What an application saw of a stream, kept apart from the bus's own books, and checked for order as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) start: u64,
    /// The next sequence to come.
    pub(crate) next: u64,
    pub(crate) delivered: u64,
    pub(crate) missed: u64,
}

impl Tally {
    pub(crate) fn new(start: u64) -> Self {
        Self { start, next: start, delivered: 0, missed: 0 }
    }

    pub(crate) fn of(reader: &Reader) -> Self {
        Self::new(reader.start_sequence())
    }

    /// Counts a record, which has to be the next one.
    pub(crate) fn record(&mut self, record: &Record<'_>) {
        assert_eq!(record.sequence(), self.next, "a record was skipped or repeated: {self:?}");
        self.next += 1;
        self.delivered += 1;
    }

    /// Counts a gap, which has to begin with the next sequence.
    pub(crate) fn gap(&mut self, gap: Gap) {
        assert_eq!(gap.first, self.next, "{self:?}");
        assert!(gap.end > gap.first, "an empty gap: {gap:?}");
        self.missed += gap.count();
        self.next = gap.end;
    }

    /// Counts whatever comes; hands back what is neither record nor gap.
    pub(crate) fn count<'a>(&mut self, next: Next<'a>) -> Option<Next<'a>> {
        match next {
            Next::Record(record) => self.record(&record),
            Next::Gap(gap) => self.gap(gap),
            other => return Some(other),
        }
        None
    }

    /// As a line: for a child to say and the test to read.
    pub(crate) fn to_line(&self) -> String {
        format!("{} {} {} {}", self.start, self.next, self.delivered, self.missed)
    }

    pub(crate) fn from_line(line: &str) -> Self {
        let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [start, next, delivered, missed] = numbers[..] else { panic!("no tally: {line:?}") };
        Self { start, next, delivered, missed }
    }

    /// Compares with a row of the table on a bus at rest, whose next sequence is `sequence`.
    pub(crate) fn assert_row(&self, row: &ReaderInfo, sequence: u64) {
        let books = (row.start, row.cursor, row.delivered, row.missed);
        assert_eq!(books, (self.start, self.next, self.delivered, self.missed), "{row:?}");
        assert_balanced(row, sequence);
    }

    /// Compares with both sides' books, the reader's own and the table's seen from outside; the bus is at rest.
    pub(crate) fn assert_both(&self, reader: &Reader, bus: &Path) {
        let seen = inspect(bus);
        self.assert_row(&reader.info().unwrap(), seen.sequence);
        let rows = seen.readers.unwrap();
        let row = rows.iter().find(|row| row.id == reader.id()).expect("the reader has a row");
        self.assert_row(row, seen.sequence);
    }
}

/// published = delivered + missed + pending.
pub(crate) fn assert_balanced(row: &ReaderInfo, sequence: u64) {
    assert_eq!(sequence - row.start, row.delivered + row.missed + row.pending, "{row:?}");
    assert_eq!(row.pending, sequence - row.cursor, "{row:?}");
}

/// The same for every row of a bus at rest.
pub(crate) fn assert_ledgers(bus: &Path) {
    let seen = inspect(bus);
    for row in seen.readers.as_deref().unwrap() {
        assert_balanced(row, seen.sequence);
    }
}

// ---- readers that play along ----------------------------------------------------------------------------------------

/// In a child: reads records made of [`payload`] up to the end of the stream, and says what else it meets: `gap FIRST END`,
/// `evicted FIRST END` and, having rejoined where it stood, `rejoined FIRST END`, `absent`.
pub(crate) fn follow(stage: &Stage, reader: &mut Reader, tally: &mut Tally, longest: usize) {
    loop {
        match reader.next().unwrap() {
            Next::Record(record) => {
                tally.record(&record);
                assert_whole(&record, longest);
            }
            Next::Gap(gap) => {
                tally.gap(gap);
                stage.say(format!("gap {} {}", gap.first, gap.end));
            }
            Next::Evicted(gap) => {
                stage.say(format!("evicted {} {}", gap.first, gap.end));
                let gap = reader.rejoin(Start::Resume).unwrap();
                if !gap.is_empty() {
                    tally.gap(gap);
                }
                stage.say(format!("rejoined {} {}", gap.first, gap.end));
            }
            Next::Absent => stage.say("absent"),
            Next::Closed(closed) => {
                assert_eq!(closed.sequence, tally.next);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// In a child that stands at the end of the stream: says `closed`, and compares its tally with both sides' books when told to.
pub(crate) fn settle(stage: &Stage, reader: &Reader, tally: &Tally) {
    stage.say(format!("closed {} {}", reader.id(), tally.to_line()));
    stage.hear_this("settle");
    tally.assert_both(reader, &stage.bus());
    stage.say("settled");
    stage.hear_this("leave");
}

/// The test's side of [`settle`] for all of its readers: waits until each has closed, and compares every ledger; returns the tallies.
pub(crate) fn settle_all<'a>(bus: &Path, readers: impl IntoIterator<Item = &'a mut Child>) -> Vec<Tally> {
    let mut readers: Vec<_> = readers.into_iter().collect();
    let closed = |child: &mut &mut Child| {
        loop {
            let line = child.line();
            match line.strip_prefix("closed ") {
                Some(rest) => break rest.to_string(),
                // It may have been there before the first writer.
                None => assert_eq!(line, "absent"),
            }
        }
    };
    let said: Vec<String> = readers.iter_mut().map(closed).collect();
    let seen = inspect(bus);
    let rows = seen.readers.unwrap();
    let mut tallies = Vec::new();
    for line in said {
        let (id, tally) = line.split_once(' ').unwrap();
        let (id, tally) = (id.parse().unwrap(), Tally::from_line(tally));
        let row = rows.iter().find(|row| row.id == ReaderId(id)).expect("the reader has a row");
        tally.assert_row(row, seen.sequence);
        tallies.push(tally);
    }
    for child in &mut readers {
        child.tell("settle");
        child.expect("settled");
    }
    for child in readers {
        child.tell("leave");
    }
    tallies
}
