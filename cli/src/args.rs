//! The command line: words, options, defaults and the manual that `--help` prints.

use crate::frame::{InFrame, OutFrame, parse_in_frame};
use crate::units::{
    Timeout, parse_duration, parse_mode, parse_number, parse_percent, parse_rate, parse_size, parse_timeout,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lapwing::HealthLimits;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

const AFTER: &str = "\
Exit codes:
  0  fine; also when nobody reads standard output any more
  1  any other error
  2  usage: an unknown word, or a value out of its range
  3  no such bus
  4  writer absent (sub --until-absent)
  5  records were missed, after delivering the rest
  6  not a bus, an incompatible one, or a corrupt one
  7  refused because readers would be overrun
  8  a check failed (stat --fail-lag, --fail-stalled)
  9  doctor: the worst finding is a warning
 10  doctor: the worst finding is a fault

Data goes to standard output, everything else to standard error. A bus is three files: PATH, PATH.readers and PATH.lock; \
a place in memory, such as /dev/shm/NAME, is the usual one.";

/// A broadcast bus between processes of one machine: one writer, many readers, no event lost in silence.
#[derive(Debug, Parser)]
#[command(name = "lapwing", version, after_long_help = AFTER, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// Tell results and reports as JSON, one object a line, with stable field names
    ///
    /// `pub` and `sub` tell them on standard error, the others on standard output. By default they are told in words.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a bus
    Create(Create),
    /// Publish standard input, one record after the other
    #[command(after_long_help = AFTER)]
    Pub(Publish),
    /// Write the records of a bus to standard output
    #[command(after_long_help = AFTER)]
    Sub(Subscribe),
    /// Show everything about a bus; it is not disturbed by that
    #[command(after_long_help = AFTER)]
    Stat(Stat),
    /// Find the buses of a directory
    Ls(Ls),
    /// View buses at work in the terminal: writer, ring, and each reader's lag and health; they are not disturbed by that
    Top(Top),
    /// Tell what happens to a bus, one line an event; it is not disturbed by that
    ///
    /// joined, left, warning (50, 75, 90 % of the ring), overrun, evicted, reaped, gap, lagging, stalled, stopped, dead, live, writer_absent,
    /// takeover, closed, replaced, removed. What came and went between two looks is counted (coalesced).
    Watch(Watch),
    /// Dump header, slots and records of a bus, living, dead or damaged, as far as they can be read
    ///
    /// Exits with 6 if anything is wrong with the files, after showing what there is.
    #[command(after_long_help = AFTER)]
    Inspect(Inspect),
    /// Show the registered readers of a bus; it is not disturbed by that
    Readers(AtPath),
    /// Evict a reader: it holds the writer up no longer, is told its exact gap, and may rejoin
    ///
    /// A pinned reader cannot be evicted while its process lives (exit code 1).
    Evict(Evict),
    /// Forget a name whose reader is away; its place in the stream is lost
    Forget(Forget),
    /// Reclaim the slots of dead readers; named ones are kept as detached, for their name
    Reap(AtPath),
    /// Remove a bus that has no living writer; its readers are told
    Rm(AtPath),
    /// Watch a bus at work for about ten seconds: readers fast, slow, crashing and resuming, and a writer that is killed
    ///
    /// Real processes on a bus of their own, which is removed at the end. Exits with 0 only if every record is accounted for.
    Demo,
    /// Serve what `stat` shows to a monitoring system, as OpenMetrics; the buses are not disturbed by that
    #[command(after_long_help = AFTER)]
    Export(Export),
    /// Check this machine, and a bus, and say what to do about each finding; nothing is changed by that
    ///
    /// Without PATH: the machine alone. The exit code says the worst finding: 0 nothing or notes, 9 a warning, 10 a fault,
    /// 3 no such bus, 6 not a usable bus.
    #[command(after_long_help = AFTER)]
    Doctor(Doctor),
    /// Measure latency and throughput on this machine, beside what its cache lines can do at most
    ///
    /// Real processes, each pinned to a processor, on a bus of their own, which is removed at the end. Every measurement is taken in
    /// rounds, the bus and the bare cache lines in turn, so that both see the same machine.
    Bench(Bench),
    /// Write the manual pages, one for each command, into a directory
    Man(Man),
    /// Write the completions of a shell to standard output
    Completions(Completions),
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// Paths of the buses; one that is missing is told, and shown as down until it is there
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// Address and port to serve HTTP on, at /metrics; any other than a loopback address shows the buses to the network
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub(crate) listen: SocketAddr,
    /// Write them to this file instead, replaced in one step, as a textfile collector reads it
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    pub(crate) textfile: Option<PathBuf>,
    /// Write the file anew so often: a duration such as 10s; by default once
    ///
    /// Written once, it calls no reader lagging or stalled: that takes more than one look.
    #[arg(long, value_name = "TIME", requires = "textfile", value_parser = parse_duration)]
    pub(crate) every: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Path of a bus
    pub(crate) path: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// How long to measure, all in all: a duration such as 30s, at least 1s
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_bench_time)]
    pub(crate) time: Duration,
    /// Round trips a second in the latency measurement; each has its time, and is late from that time on
    #[arg(long, value_name = "N", default_value = "50000", value_parser = parse_rate)]
    pub(crate) rate: f64,
    /// Bytes of a record in the latency measurement: 16 to 65536
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=65536))]
    pub(crate) size: u32,
    /// Processors to use, such as 2,3,6; the writer is on the first (by default cores that share a last-level cache)
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) cpus: Vec<usize>,
    /// Directory for the buses, which take some 10 MiB
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    pub(crate) dir: PathBuf,
    /// Write plots into this directory: latency.svg, throughput-by-size.svg, throughput-by-readers.svg
    #[arg(long, value_name = "DIR")]
    pub(crate) svg: Option<PathBuf>,
}

fn parse_bench_time(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time) => Ok(time),
        _ => Err("from 1s to 1h".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Directory to write them into; it has to exist
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
pub(crate) struct AtPath {
    /// Path of the bus
    pub(crate) path: PathBuf,
}

/// From when on a reader is called lagging or stalled; what the words mean is told by `lapwing stat --help`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Limits {
    /// Lag from which on a reader is called lagging, as a share of the ring
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = parse_percent)]
    pub(crate) lagging: u8,
    /// Time without progress while behind after which a reader is called stalled
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub(crate) stalled_after: Duration,
}

impl From<Limits> for HealthLimits {
    fn from(limits: Limits) -> Self {
        Self { lagging_percent: limits.lagging, stalled_after: limits.stalled_after }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Stat {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// Look again and again, until interrupted or a check fails
    #[arg(long)]
    pub(crate) watch: bool,
    /// How often --watch looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration, requires = "watch")]
    pub(crate) interval: Duration,
    /// Fail (exit code 8) if a reader's lag is at least this share of the ring, twice in a row
    ///
    /// Counts whoever may hold the writer up or lose records: not those evicted, nor those who are away and do not gate. From this share on
    /// a reader is called lagging.
    #[arg(long, value_name = "SHARE", value_parser = parse_percent, conflicts_with = "lagging")]
    pub(crate) fail_lag: Option<u8>,
    /// Fail (exit code 8) if a reader is behind and does not read for this long; takes that long to find out
    ///
    /// Whatever the reason: also if its process is stopped or dead; not those evicted or away. After this time a reader is called stalled.
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "stalled_after")]
    pub(crate) fail_stalled: Option<Duration>,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Where to look
    #[arg(default_value = "/dev/shm")]
    pub(crate) directory: PathBuf,
    /// Look into its directories too; links are not followed
    #[arg(long, short)]
    pub(crate) recursive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Paths of the buses
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    /// Use no colour; by default colour is used unless the variable NO_COLOR is set
    #[arg(long)]
    pub(crate) no_color: bool,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// How often to look
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = parse_duration)]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// How many records to show
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) records: u64,
    /// Sequence of the first record to show; by default the last ones are shown
    #[arg(long, value_name = "SEQ")]
    pub(crate) at: Option<u64>,
    /// How many bytes of each record to show
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) bytes: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Evict {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// The reader: its id, or its name
    pub(crate) reader: String,
}

#[derive(Debug, Args)]
pub(crate) struct Forget {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// The name to forget
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Path of the bus; nothing may be there
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) geometry: Geometry,
}

/// What a new bus is like.
#[derive(Debug, Args)]
pub(crate) struct Geometry {
    /// Size of the ring: bytes, or a number with KiB, MiB, GiB or TiB; a power of two from 4KiB to 1TiB
    ///
    /// The largest record is a quarter of it.
    #[arg(long, value_name = "SIZE", default_value = "4MiB", value_parser = parse_size)]
    pub(crate) capacity: u64,
    /// How many readers can be registered at a time: 1 to 65536, 512 bytes each
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) readers: u32,
    /// Permission bits of the ring, octal: who may read it may subscribe, who may write it may publish
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse_mode)]
    pub(crate) mode: u32,
    /// Schema id that programs may check when they attach: a number, decimal or 0x…; 0 means none
    #[arg(long, value_name = "N", default_value = "0", value_parser = parse_number)]
    pub(crate) schema: u64,
    /// Forbid pinned readers, which cannot be evicted while they live (by default they are allowed)
    #[arg(long)]
    pub(crate) no_pinned: bool,
}

impl Geometry {
    fn is_default(&self) -> bool {
        (self.capacity, self.readers, self.mode, self.schema, self.no_pinned) == (4 << 20, 128, 0o600, 0, false)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyWord {
    /// Publish nothing more, report the readers in the way, and end with exit code 7
    Refuse,
    /// Wait for them, as long as --timeout says; then as refuse
    Wait,
    /// Evict them and go on; each is told its exact gap. As refuse for a living pinned one
    Evict,
}

#[derive(Debug, Args)]
pub(crate) struct Publish {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// Create the bus if there is none, as the options under "New bus" say
    #[arg(long)]
    pub(crate) create: bool,
    /// What to do about readers that the next record would overrun
    #[arg(long, value_enum, default_value_t = PolicyWord::Wait)]
    pub(crate) policy: PolicyWord,
    /// How long to wait for readers in the way under --policy wait: a duration such as 5s, or none for without end
    ///
    /// When it has passed, the readers are reported and the exit code is 7.
    #[arg(long, value_name = "TIME", default_value = "none", value_parser = parse_timeout)]
    pub(crate) timeout: Timeout,
    /// How standard input is cut into records: lines, len32 or fixed:N
    ///
    /// lines: each line without its newline, a last line without newline as well. len32: a length in four bytes, the lowest first,
    /// then so many bytes. fixed:N: N bytes each.
    #[arg(long, value_name = "FRAME", default_value = "lines", value_parser = parse_in_frame)]
    pub(crate) frame: InFrame,
    /// Records a second, a fraction if need be; by default as fast as input and readers allow
    ///
    /// Each record has its time, counted from the start: what readers delay is caught up, what the input delays is not.
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub(crate) rate: Option<f64>,
    /// Leave the stream open at the end, for the next writer; by default it is closed and readers are told
    #[arg(long)]
    pub(crate) keep_open: bool,
    /// Wait until the bus has no other writer, then take over; by default another writer is an error
    #[arg(long)]
    pub(crate) standby: bool,
    #[command(flatten, next_help_heading = "New bus (with --create)")]
    pub(crate) geometry: Geometry,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClassWord {
    /// Registered; the writer never overwrites what it has not read, unless told to evict it
    Gating,
    /// Registered, but never holds the writer up; told its gaps
    Lossy,
    /// As gating, without a copy of each record; cannot be evicted while it lives
    Pinned,
    /// Not registered: needs only read permission on PATH, never holds the writer up; told its gaps
    Observer,
}

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartAt {
    Latest,
    Oldest,
    After(u64),
    Since(Duration),
    Resume,
}

fn parse_from(text: &str) -> Result<StartAt, String> {
    match text {
        "latest" => Ok(StartAt::Latest),
        "oldest" => Ok(StartAt::Oldest),
        "resume" => Ok(StartAt::Resume),
        _ => match text.split_once(':') {
            Some(("after", sequence)) => sequence
                .parse()
                .map(StartAt::After)
                .map_err(|_| "after:SEQ needs a sequence: a whole number of at most 64 bits".to_owned()),
            Some(("since", time)) => parse_duration(time).map(StartAt::Since),
            _ => Err("one of latest, oldest, after:SEQ, since:DURATION, resume".to_owned()),
        },
    }
}

#[derive(Debug, Args)]
pub(crate) struct Subscribe {
    /// Path of the bus
    pub(crate) path: PathBuf,
    /// Name of the reader, 1 to 64 bytes: its place in the stream is kept when it ends or crashes (by default it has none)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How the reader stands to the writer
    #[arg(long, value_enum, default_value_t = ClassWord::Gating)]
    pub(crate) class: ClassWord,
    /// Where to start: latest, oldest, after:SEQ, since:DURATION or resume
    ///
    /// latest: with the next record. oldest: with the oldest in the ring. after:SEQ: with the record after this sequence.
    /// since:DURATION: with records published so long ago, such as since:30s, and some from
    /// just before unless the bus has time stamps. resume: where the reader of this --name left off,
    /// or with the oldest if the name is new. What is gone already is told as a gap.
    #[arg(long, value_name = "START", default_value = "latest", value_parser = parse_from)]
    pub(crate) from: StartAt,
    /// End after so many records; by default at the end of the stream
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// How records are written to standard output
    #[arg(long, value_enum, default_value_t = OutFrame::Lines)]
    pub(crate) frame: OutFrame,
    /// Put the sequence and a tab before each record; within len32 the length counts them (off by default)
    #[arg(long)]
    pub(crate) with_seq: bool,
    /// Wait for the bus to appear: a duration such as 5s, or none for without end; by default a missing bus is exit code 3 at once
    #[arg(long, value_name = "TIME", value_parser = parse_timeout)]
    pub(crate) wait_for_bus: Option<Timeout>,
    /// Hold the writer up while the named reader is away, so that it misses nothing (by default it does not)
    #[arg(long, requires = "name")]
    pub(crate) hold_while_away: bool,
    /// End with exit code 4 when no writer is alive; by default that is told once, and the next writer waited for
    ///
    /// If records were missed as well, the exit code is 5.
    #[arg(long)]
    pub(crate) until_absent: bool,
}

impl Subscribe {
    /// Says which options cannot go together.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let (named, observer) = (self.name.is_some(), self.class == ClassWord::Observer);
        match () {
            () if observer && named => Some("--class observer is not registered, so it cannot have a --name"),
            () if observer && self.from == StartAt::Resume => {
                Some("--class observer has no place to resume at; use --from oldest or after:SEQ")
            }
            () if !named && self.from == StartAt::Resume => Some("--from resume needs the --name to resume under"),
            () if self.hold_while_away && self.class == ClassWord::Lossy => {
                Some("--class lossy never holds the writer up, so --hold-while-away means nothing for it")
            }
            () => None,
        }
    }
}

impl Publish {
    /// Says which options cannot go together.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        if self.policy != PolicyWord::Wait && self.timeout.0.is_some() {
            return Some("--timeout says how long --policy wait waits; the other policies do not wait");
        }
        (!self.create && !self.geometry.is_default())
            .then_some("--capacity, --readers, --mode, --schema and --no-pinned describe a new bus; they need --create")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn sub(words: &[&str]) -> Subscribe {
        match Cli::try_parse_from(["lapwing", "sub", "bus"].iter().chain(words)).map(|cli| cli.command) {
            Ok(Command::Sub(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let args = sub(&[]);
        assert_eq!((args.class, args.from, args.frame), (ClassWord::Gating, StartAt::Latest, OutFrame::Lines));
        let Ok(Command::Pub(args)) = Cli::try_parse_from(["lapwing", "pub", "bus"]).map(|cli| cli.command) else {
            panic!("pub takes a path alone");
        };
        assert_eq!((args.policy, args.timeout, args.frame), (PolicyWord::Wait, Timeout(None), InFrame::Lines));
        assert!(args.geometry.is_default());
    }

    #[test]
    fn starts() {
        assert_eq!(parse_from("after:18446744073709551615"), Ok(StartAt::After(u64::MAX)));
        assert_eq!(parse_from("since:30s"), Ok(StartAt::Since(Duration::from_secs(30))));
        for text in ["", "after", "after:", "after:-1", "after:18446744073709551616", "since:", "since:5", "Latest"] {
            assert!(parse_from(text).is_err(), "{text}");
        }
    }

    #[test]
    fn contradictions_are_usage_errors() {
        assert!(sub(&["--from", "resume"]).contradiction().is_some());
        assert!(sub(&["--from", "resume", "--name", "a"]).contradiction().is_none());
        assert!(sub(&["--class", "observer", "--name", "a"]).contradiction().is_some());
        assert!(sub(&["--class", "observer", "--from", "resume"]).contradiction().is_some());
        assert!(sub(&["--class", "lossy", "--name", "a", "--hold-while-away"]).contradiction().is_some());
    }
}
