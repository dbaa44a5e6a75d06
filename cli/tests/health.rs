//! Every state of a reader, produced for real, is shown right by every tool that shows it: `stat`, `watch`,
//! `export`, and `top` in a terminal.
//!
//! Needs tmux: `.ci/operations` installs it and runs this. A join is paused by tracing the process that joins, between two of its instructions.

mod support;

use lapwing::{Health, Next, Options, Policy, Reader, Writer};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use prometheus_parse::Scrape;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::{Lines, PATIENCE, Place, Process, run};

const CAPACITY: u64 = 4 << 20;
/// Where the first slot lies in the table, and the byte that its owner keeps locked.
const FIRST_SLOT: u64 = 4096;
const JOINING: u8 = 1;

/// A terminal of 80 by 24 with a command in it.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(place: &Place, args: &[&str]) -> Self {
        let terminal = Self { socket: place.path("tmux") };
        let lapwing = env!("CARGO_BIN_EXE_lapwing");
        let command = [&["-u", "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", lapwing], args].concat();
        terminal.tmux(&command);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let ran = Command::new("tmux").arg("-S").arg(&self.socket).args(args).env("TERM", "xterm-256color").output();
        let ran = ran.expect("tmux is installed (`.ci/operations` does that)");
        assert!(ran.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8_lossy(&ran.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Looks at the screen until it is as wanted.
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]);
            if wanted(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "{what}:\n{screen}");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Its own server, on its own socket.
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

/// Stops a process that is about to join, when its slot says that it is joining: neither before nor after.
fn pause_in_join(joiner: &Process, create: impl FnOnce() -> Writer, table: &Path) -> Writer {
    let pid = Pid::from_raw(joiner.pid() as i32);
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL).expect("a child");
    ptrace::interrupt(pid).expect("it runs");
    let stopped = || match waitpid(pid, None).expect("a child that is traced") {
        WaitStatus::Exited(..) | WaitStatus::Signaled(..) => panic!("it ended before it joined"),
        _ => {}
    };
    stopped();
    let writer = create();
    let table = File::open(table).expect("the table");
    let owned = || {
        let mut probe = nix::libc::flock {
            l_type: nix::libc::F_WRLCK as i16,
            l_whence: nix::libc::SEEK_SET as i16,
            l_start: FIRST_SLOT as i64,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&table, FcntlArg::F_OFD_GETLK(&mut probe)).expect("locks");
        probe.l_type != nix::libc::F_UNLCK as i16
    };
    // From system call to system call until it owns the slot, then instruction by instruction.
    while !owned() {
        ptrace::syscall(pid, None).expect("it is stopped");
        stopped();
    }
    let mut state = [0];
    while state[0] != JOINING {
        assert!(state[0] == 0, "it joined in one instruction: {state:?}");
        match ptrace::step(pid, None) {
            Ok(()) => stopped(),
            Err(Errno::EINTR) => {}
            Err(error) => panic!("{error}"),
        }
        table.read_exact_at(&mut state, FIRST_SLOT).expect("the slot");
    }
    writer
}

/// Scrapes until each reader's health is as wanted: by name, the one word that holds.
fn scraped_until(
    what: &str,
    address: &str,
    wanted: impl Fn(&BTreeMap<String, &'static str>) -> bool,
) -> BTreeMap<String, &'static str> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let scrape = Scrape::parse(body.lines().map(|line| Ok(line.to_owned()))).expect("what a parser takes");
        let health: Vec<_> = scrape
            .samples
            .iter()
            .filter(|sample| {
                sample.metric == "lapwing_reader_health" && sample.value == prometheus_parse::Value::Gauge(1.0)
            })
            .map(|sample| {
                let word = Health::ALL.iter().find(|health| Some(health.as_str()) == sample.labels.get("health"));
                (sample.labels.get("name").expect("a name").to_owned(), word.expect("a word").as_str())
            })
            .collect();
        let by_name: BTreeMap<_, _> = health.iter().cloned().collect();
        assert_eq!(by_name.len(), health.len(), "one word for each reader: {health:?}");
        if wanted(&by_name) {
            return by_name;
        }
        assert!(Instant::now() < deadline, "{what}: {by_name:?}");
    }
}

/// Publishes a little at a time; the reader stays as far behind as it is, and reads.
fn go_on(writer: &mut Writer, lagging: &mut Reader, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        writer.publish(b"and on").expect("there is room for minutes of this");
        assert!(matches!(lagging.try_next().expect("the bus"), Next::Record(_)));
        lagging.commit();
        // What it reads is larger than what comes: slowly, so that it lags to the end.
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs tmux; .ci/operations runs it"]
fn every_state_is_shown_right_by_every_tool() {
    let place = Place::new();
    let bus = place.bus();
    let joining = Process::spawn(&["--json", "sub", &bus, "--name", "r-joining", "--wait-for-bus", "none"]);
    let create = || Options::new().capacity(CAPACITY).create(&bus).expect("a bus");
    let mut writer = pause_in_join(&joining, create, Path::new(&format!("{bus}.readers")));
    writer.set_policy(Policy::Refuse);

    let limits = ["--stalled-after", "1s"];
    let mut exporter = Process::spawn(&["--json", "export", &bus, "--listen", "127.0.0.1:0"]);
    let serving = exporter.expect("serving");
    let address = serving["address"].as_str().expect("an address");
    let mut watch = Lines::of(&[&["--json", "watch", &bus], &limits[..]].concat());
    watch.until("joining", |line| line["event"] == "joining" && line["reader"]["name"] == "r-joining");

    let sub = |name: &str| {
        let mut process = Process::spawn(&["--json", "sub", &bus, "--name", name]);
        process.expect("attached");
        process
    };
    let (_live, detached, stopped, victim, dead) =
        (sub("r-live"), sub("r-detached"), sub("r-stopped"), sub("r-evicted"), sub("r-dead"));
    // A handler that sleeps: nobody takes what it writes.
    let (mut stalled, _unread) = Process::with_output(&["--json", "sub", &bus, "--name", "r-stalled"]);
    stalled.expect("attached");
    let mut lagging = Reader::options().name("r-lagging").open(&bus).expect("a slot");
    detached.signal(Signal::SIGTERM);
    assert_eq!(detached.end().code, 0);
    stopped.signal(Signal::SIGSTOP);
    victim.signal(Signal::SIGSTOP);
    dead.kill();
    for n in 0..CAPACITY * 6 / 10 / 1024 {
        writer.publish(&[n as u8; 1000]).expect("there is room");
    }

    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Also if an assertion fails.
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _done = Done(&done);
        scope.spawn(|| go_on(&mut writer, &mut lagging, &done));

        let top = Terminal::new(&place, &[&["top", &bus, "--interval", "200ms"], &limits[..]].concat());
        top.until("top shows them", |screen| screen.contains("r-evicted"));
        // Evict one from the screen: filter, ask, answer.
        top.keys(&["/", "r-evicted", "Enter"]);
        top.until("only it", |screen| screen.contains("r-evicted") && !screen.contains("r-live"));
        top.keys(&["e"]);
        top.until("a question", |screen| screen.contains("y/n"));
        top.keys(&["y"]);
        top.until("an answer", |screen| screen.contains("evicted reader"));
        top.keys(&["Escape"]);

        let expected: BTreeMap<_, _> =
            ["joining", "live", "detached", "stopped", "evicted", "dead", "stalled", "lagging"]
                .map(|health| (format!("r-{health}"), health))
                .into();
        // The terminal.
        let right = |screen: &str| {
            expected.iter().all(|(name, health)| {
                screen.lines().any(|line| {
                    let mut words = line.trim_start_matches('▸').split_whitespace();
                    words.next() == Some(name) && words.nth(3) == Some(health)
                })
            })
        };
        let screen = top.until("every state in top", right);
        assert!(screen.contains("8 registered, 2 served"), "{screen}");
        top.tmux(&["resize-window", "-x", "60", "-y", "12"]);
        top.until("a smaller screen", |screen| {
            screen.contains("REC/S") && screen.lines().all(|line| line.chars().count() <= 60)
        });
        // The snapshots.
        let mut stat = Lines::of(&[&["--json", "stat", &bus, "--watch", "--interval", "200ms"], &limits[..]].concat());
        let line = stat.until("every state in stat", |line| {
            let readers = line["readers"].as_array().expect("a list");
            let seen: BTreeMap<_, _> = readers
                .iter()
                .map(|reader| {
                    (reader["name"].as_str().expect("a name").to_owned(), reader["health"].as_str().expect("a word"))
                })
                .collect();
            seen == expected
        });
        assert_eq!((line["registered"].as_u64(), line["served"].as_u64()), (Some(8), Some(2)));
        // What is scraped, after a parser of others.
        let health = scraped_until("every state in a scrape", address, |health| *health == expected);
        assert_eq!(health.len(), 8);
        // The events: each reader's last one says how it is.
        let told = |name: &str, said: &str| {
            let lines = support::Ran::events(said);
            let last = lines.iter().rfind(|line| line["reader"]["name"] == name && line["event"] != "warning");
            last.map_or(String::new(), |line| line["event"].as_str().expect("a word").to_owned())
        };
        for (name, health) in &expected {
            let wanted = match *health {
                "detached" => "left",
                "live" => "joined",
                health => health,
            };
            while told(name, &watch.said) != wanted {
                watch.until(&format!("{wanted} of {name}"), |line| line["reader"]["name"] == **name);
            }
        }
        // And back: what goes on is well again.
        stopped.signal(Signal::SIGCONT);
        watch.until("it is live again", |line| line["event"] == "live" && line["reader"]["name"] == "r-stopped");
    });
    assert_eq!(run(&["stat", &bus, "--fail-stalled", "200ms"], b"").code, 8);
    assert!(fs::exists(&bus).expect("the place"));
}
