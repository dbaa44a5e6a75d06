//! One bus: its three files, its writer, its readers.

use super::{Finding, machine};
use crate::failure::{Exit, Failure};
use crate::sight::Sight;
use crate::units::{bytes, percent, plural};
use lapwing::{Bus, Class, Health, HealthLimits, ReaderInfo, Snapshot, State, WriterState, layout};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::statfs::{FUSE_SUPER_MAGIC, FsType, NFS_SUPER_MAGIC, SMB_SUPER_MAGIC, TMPFS_MAGIC, statfs};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a reader moves is seen in so many looks, so far apart.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// The findings, and the exit code of a bus that cannot be looked at.
pub(super) fn check(path: &Path) -> (Vec<Finding>, Option<Exit>) {
    let names = Names::of(path);
    let snapshot = match Bus::inspect(path) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            let mut findings = names.remains();
            let Failure::Told(exit, message) = Failure::from(error) else { return (findings, Some(Exit::Other)) };
            findings.insert(
                0,
                Finding::fault("bus", message, format!("if it is not needed: lapwing rm {}", path.display())),
            );
            return (findings, Some(exit));
        }
    };
    let what =
        format!("{} ring, {} of records kept", bytes(snapshot.capacity), bytes(snapshot.head.min(snapshot.capacity)));
    let mut findings = vec![Finding::ok("bus", what), file_system(path), names.table(&snapshot), names.lock(&snapshot)];
    findings.extend(names.permissions());
    findings.extend(names.half_made());
    findings.push(writer(&snapshot));
    findings.push(fences(&names));
    if let Some(readers) = &snapshot.readers {
        findings.push(slots(readers, snapshot.slots, path));
        findings.push(namespaces(&snapshot, readers));
        findings.extend(away(&snapshot, readers, path));
        findings.extend(sick(path));
    }
    (findings, None)
}

/// The files that make a bus, and those of a creation under way.
struct Names {
    ring: PathBuf,
    table: PathBuf,
    lock: PathBuf,
    new_ring: PathBuf,
    new_table: PathBuf,
}

impl Names {
    fn of(path: &Path) -> Self {
        let with = |suffix: &str| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            ring: path.into(),
            table: with(".readers"),
            lock: with(".lock"),
            new_ring: with(".new"),
            new_table: with(".readers.new"),
        }
    }

    fn remove(&self) -> String {
        format!("lapwing rm {}", self.ring.display())
    }

    /// What is there without a ring.
    fn remains(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.ring.exists() && starts_as_table(&self.table) && !being_created(&self.ring) {
            let found = format!("{} is there, its ring is not: an orphan", self.table.display());
            findings.push(Finding::warning("table", found, self.remove()));
        }
        findings.extend(self.half_made());
        findings
    }

    fn half_made(&self) -> Option<Finding> {
        let made: Vec<_> = [&self.new_ring, &self.new_table].into_iter().filter(|path| path.exists()).collect();
        let first = made.first()?;
        (!is_locked(&self.lock, 0)).then(|| {
            Finding::warning(
                "creation",
                format!("{}: left by a creator that died half-way", first.display()),
                format!("the next writer finishes or redoes it; if the bus is not needed: {}", self.remove()),
            )
        })
    }

    fn table(&self, snapshot: &Snapshot) -> Finding {
        const CHECK: &str = "table";
        const BUS_ID: u64 = 4 * 8;
        let shown = self.table.display();
        let anew = format!("end its processes, then {}, and create it again", self.remove());
        match word(&self.table, BUS_ID) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Finding::note(
                CHECK,
                format!("{shown} may not be read by this user: readers cannot be looked at"),
                "run this as a user who may subscribe",
            ),
            Err(error) => Finding::fault(CHECK, format!("{shown}: {error}: no reader can register"), anew),
            Ok(id) if id != snapshot.bus_id => Finding::fault(
                CHECK,
                format!(
                    "{shown} belongs to another bus ({id:016x}, the ring is {:016x}): no reader can register",
                    snapshot.bus_id
                ),
                format!("a replacement died half-way: starting its writer again finishes it; else {anew}"),
            ),
            Ok(_) => Finding::ok(CHECK, "belongs to this ring"),
        }
    }

    fn lock(&self, snapshot: &Snapshot) -> Finding {
        const CHECK: &str = "lock_file";
        let alive = snapshot.writer.state == WriterState::Alive;
        match (self.lock.exists(), alive) {
            (true, _) => Finding::ok(CHECK, if alive { "held by the writer" } else { "there" }),
            (false, false) => Finding::ok(CHECK, "not there; the next writer makes it"),
            (false, true) => Finding::fault(
                CHECK,
                format!("{} was removed under a living writer: a second one could start", self.lock.display()),
                "end the writer and start it again, before anything else opens the bus for writing",
            ),
        }
    }

    fn permissions(&self) -> Vec<Finding> {
        const CHECK: &str = "permissions";
        let mode = |path: &Path| fs::symlink_metadata(path).ok().map(|meta| meta.permissions().mode() & 0o666);
        let Some(ring) = mode(&self.ring) else { return Vec::new() };
        let (read, write) = (ring & 0o444, ring & 0o222);
        let (table_wanted, lock_allowed) = (read | read >> 1, write | write << 1);
        let mut findings = Vec::new();
        if let Some(table) = mode(&self.table).filter(|table| table & table_wanted != table_wanted) {
            findings.push(Finding::warning(
                CHECK,
                format!("who may read the ring ({ring:03o}) cannot write the table ({table:03o}), so cannot register"),
                format!("chmod {:o} {}", table | table_wanted, self.table.display()),
            ));
        }
        if let Some(lock) = mode(&self.lock).filter(|lock| lock & !lock_allowed != 0) {
            findings.push(Finding::warning(
                CHECK,
                format!("who may not publish (ring {ring:03o}) can open the writer's lock ({lock:03o}), and so keep writers away"),
                format!("chmod {:o} {}", lock & lock_allowed, self.lock.display()),
            ));
        }
        if findings.is_empty() {
            findings.push(Finding::ok(CHECK, format!("{ring:03o}, table and lock accordingly")));
        }
        findings
    }
}

/// Opens what may be anything, without waiting for the other end of a fifo.
fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

/// The word at a byte of a file.
fn word(path: &Path, at: u64) -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    open(path)?.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Says whether a file begins as the table of a bus does.
pub(super) fn starts_as_table(path: &Path) -> bool {
    word(path, 0).is_ok_and(|word| word == layout::TABLE_MAGIC)
}

/// Says whether somebody is at work on a bus of this name right now.
pub(super) fn being_created(bus: &Path) -> bool {
    is_locked(&Names::of(bus).lock, 0)
}

fn is_locked(path: &Path, byte: i64) -> bool {
    let mut probe = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    open(path).is_ok_and(|file| fcntl(&file, FcntlArg::F_OFD_GETLK(&mut probe)).is_ok())
        && probe.l_type != libc::F_UNLCK as libc::c_short
}

fn file_system(path: &Path) -> Finding {
    const CHECK: &str = "file_system";
    const REMOTE: [(FsType, &str); 3] =
        [(NFS_SUPER_MAGIC, "NFS"), (SMB_SUPER_MAGIC, "SMB"), (FUSE_SUPER_MAGIC, "a FUSE file system")];
    let kind = match statfs(path) {
        Ok(stat) => stat.filesystem_type(),
        Err(errno) => {
            return Finding::warning(CHECK, format!("it cannot be told: {}", errno.desc()), "look at the mount");
        }
    };
    if kind == TMPFS_MAGIC {
        return Finding::ok(CHECK, "in memory");
    }
    let advice = "put the bus into a memory file system such as /dev/shm";
    match REMOTE.iter().find(|(magic, _)| *magic == kind) {
        Some((_, name)) => Finding::fault(
            CHECK,
            format!("{name}: locks and memory of other machines or daemons are not dependable"),
            advice,
        ),
        None => Finding::note(CHECK, "on a disk: the kernel writes every page that was published to it", advice),
    }
}

/// A process as `/proc` shows it to this one.
struct Seen {
    stopped: bool,
    time: Option<u64>,
}

/// `None` if there is no process of this number here.
fn process(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command in parentheses may hold anything, so the state is looked for behind the last one.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    Some(Seen {
        stopped: matches!(state, Some('T' | 't')),
        time: machine::namespace(Path::new("/"), &pid.to_string(), "time"),
    })
}

fn writer(snapshot: &Snapshot) -> Finding {
    const CHECK: &str = "writer";
    let writer = &snapshot.writer;
    let pid = writer.pid;
    match writer.state {
        WriterState::Alive if process(pid).is_some_and(|seen| seen.stopped) => Finding::warning(
            CHECK,
            format!("process {pid} is stopped: nothing is published"),
            format!("kill -CONT {pid}; or end it, and a standby takes over"),
        ),
        WriterState::Alive => Finding::ok(CHECK, format!("alive, process {pid}, number {} of this bus", writer.epoch)),
        WriterState::Never => Finding::note(CHECK, "there has been none yet", "start it"),
        WriterState::Absent => Finding::warning(
            CHECK,
            format!("process {pid} is gone and did not close the stream: readers wait"),
            "start it again: it goes on with the next sequence; a standby (lapwing pub --standby) would have taken over",
        ),
        WriterState::Closed => Finding::ok(CHECK, "closed the stream"),
        _ => Finding::warning(CHECK, format!("the bus is {}", writer.state), "attach again by its path"),
    }
}

/// Whether the writer has to execute a fence with each record, and for whom.
fn fences(names: &Names) -> Finding {
    const CHECK: &str = "fences";
    const WRITER_FENCES: u64 = layout::LINE + 2 * 8;
    const SLEEP_FLAG: u64 = 2 * layout::LINE;
    const READER_CANNOT: u64 = 2;
    let advice = "allow the system call membarrier to it, then start it again";
    if word(&names.ring, WRITER_FENCES).is_ok_and(|word| word != 0) {
        Finding::note(CHECK, "the writer executes one with each record: it cannot register for membarrier", advice)
    } else if word(&names.table, SLEEP_FLAG).is_ok_and(|word| word & READER_CANNOT != 0) {
        Finding::note(CHECK, "the writer executes one with each record: a reader cannot use membarrier", advice)
    } else {
        Finding::ok(CHECK, "publishing needs none")
    }
}

fn slots(readers: &[ReaderInfo], slots: u32, path: &Path) -> Finding {
    const CHECK: &str = "slots";
    let (used, all) = (readers.len() as u64, u64::from(slots));
    let found = format!("{used} of {all} in use");
    let away = readers.iter().filter(|reader| reader.state == State::Detached).count();
    let advice = format!(
        "forget names that do not come back ({away} are away): lapwing forget {} NAME; or create the bus with more slots",
        path.display()
    );
    match used {
        _ if used >= all => Finding::warning(CHECK, format!("{found}: nobody else can register"), advice),
        _ if used * 10 >= all * 9 => Finding::note(CHECK, found, advice),
        _ => Finding::ok(CHECK, found),
    }
}

/// Clocks and process numbers mean the same only inside one namespace.
fn namespaces(snapshot: &Snapshot, readers: &[ReaderInfo]) -> Finding {
    const CHECK: &str = "namespaces";
    let writer =
        (snapshot.writer.state == WriterState::Alive).then_some(("the writer".to_owned(), snapshot.writer.pid));
    let living = readers.iter().filter(|reader| reader.alive && reader.state != State::Detached);
    let all: Vec<_> = writer.into_iter().chain(living.map(|reader| (name_of(reader), reader.pid))).collect();
    let hidden: Vec<_> = all.iter().filter(|(_, pid)| process(*pid).is_none()).map(|(who, _)| who.as_str()).collect();
    let mut times: Vec<u64> = all.iter().filter_map(|(_, pid)| process(*pid)?.time).collect();
    times.sort_unstable();
    times.dedup();
    if times.len() > 1 {
        return Finding::warning(
            CHECK,
            "writer and readers are in different time namespaces: how long a reader that is away holds the writer up is counted wrongly",
            "run them in one time namespace",
        );
    }
    if !hidden.is_empty() {
        return Finding::note(
            CHECK,
            format!("alive, but not to be seen here under their process number: {}", hidden.join(", ")),
            "they are in another container: the process numbers shown are that container's",
        );
    }
    Finding::ok(CHECK, "its processes are seen here")
}

fn name_of(reader: &ReaderInfo) -> String {
    match &reader.name {
        Some(name) => format!("reader {} {:?}", reader.id, name),
        None => format!("reader {}", reader.id),
    }
}

/// Named readers that are away, but hold the writer up.
fn away(snapshot: &Snapshot, readers: &[ReaderInfo], path: &Path) -> Vec<Finding> {
    let holding =
        readers.iter().filter(|reader| reader.state == State::Detached && reader.hold && reader.class.gates());
    holding
        .map(|reader| {
            let lag = percent(reader.lag_bytes, snapshot.capacity);
            let found = format!("{} is away and gates: {lag} of the ring is kept for it", name_of(reader));
            let name = reader.name.as_deref().unwrap_or_default();
            Finding::warning(
                "held_while_away",
                found,
                format!("start it again; or let the writer go on: lapwing evict {0} {1}, or for good: lapwing forget {0} {name:?}", path.display(), reader.id),
            )
        })
        .collect()
}

/// Readers that are dead, stopped, or do not move.
fn sick(path: &Path) -> Vec<Finding> {
    let mut sight = Sight::new(path, HealthLimits { stalled_after: BETWEEN_LOOKS, ..HealthLimits::default() });
    let mut last = sight.look();
    for _ in 1..LOOKS {
        std::thread::sleep(BETWEEN_LOOKS);
        last = sight.look();
    }
    let last = match last {
        Ok(last) => last,
        Err(error) => {
            let again = format!("lapwing doctor {}", path.display());
            return vec![Finding::warning("readers", format!("the bus changed under the check: {error}"), again)];
        }
    };
    let mut findings = Vec::new();
    for (reader, seen) in last.pairs() {
        let (who, pid) = (name_of(reader), reader.pid);
        let evict = format!("lapwing evict {} {}", path.display(), reader.id);
        let lag = format!("{:.0} % of the ring behind", seen.lag_percent);
        let (check, found, advice) = match seen.health {
            Health::Dead => (
                "dead_readers",
                format!("{who}: process {pid} is dead, its slot is still taken"),
                format!("lapwing reap {}", path.display()),
            ),
            Health::Stopped => (
                "stopped_readers",
                format!("{who}: process {pid} is stopped, {lag}"),
                format!("kill -CONT {pid}; or {evict}"),
            ),
            Health::Joining => (
                "joining_readers",
                format!("{who}: process {pid} does not finish to join"),
                format!("look at the process; or {evict}"),
            ),
            Health::Stalled => (
                "stalled_readers",
                format!("{who}: process {pid} does not read, {lag}"),
                format!("look at its handler; or {evict}"),
            ),
            Health::Lagging => (
                "lagging_readers",
                format!("{who}: process {pid} reads, {lag}"),
                "make its handler faster, or the ring larger".to_owned(),
            ),
            _ => continue,
        };
        findings.push(match reader.class {
            // It never holds the writer up.
            Class::Lossy if seen.health != Health::Dead => Finding::note(check, found, advice),
            _ => Finding::warning(check, found, advice),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok("readers", plural(last.health.len() as u64, "registered reader") + ", none sick"));
    }
    findings
}
