//! Killed anywhere: at each instruction of each operation, at each system call, and inside the recovery from such a death.
//!
//! A child performs one operation under ptrace. After each instruction that changed a file of the bus, the files are copied: that is what
//! would be left had everybody died there, since the kernel's locks die with their owners. The test then opens each copy as
//! whoever comes next would, and checks that nothing was lost and that the bus goes on. Beside that, children are really
//! killed at each system call, with a living writer or reader beside them.
//!
//! `LAPWING_FULL=1` checks everything; otherwise a sample, by a printed seed. The release build is the one that counts
//! (`cargo test --release --test killed`): without optimisation opening a bus takes a million instructions, and those are left out.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "killed/acts.rs"]
mod acts;
#[path = "killed/check.rs"]
mod check;
mod common;
#[path = "killed/facts.rs"]
mod facts;
#[path = "killed/raw.rs"]
mod raw;
#[path = "killed/trace.rs"]
mod trace;

use acts::{ACTS, OPENINGS, Side};
use check::{Living, check};
use common::{Place, Random, Stage, setting};
use facts::{Facts, Page};
use lapwing::*;
use raw::Shared;
use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use trace::{Stop, Traced};

common::roles! { actor, opener, onlooker }

/// Performs an operation between two marks.
fn actor(stage: &mut Stage) {
    trace::be_traced();
    stage.say(format!("thread {}", trace::thread_id()));
    acts::perform(&stage.bus(), stage.argument(1));
}

/// Performs an opening between two marks, and says what came of it.
fn opener(stage: &mut Stage) {
    trace::be_traced();
    stage.say(format!("thread {}", trace::thread_id()));
    match acts::attempt(&stage.bus(), stage.argument(1)) {
        Ok(()) => stage.say("opened"),
        Err(error) => stage.say(format!("error {error}")),
    }
}

/// Looks at the table between two marks, and says which of its rows cannot be, given that nobody dies.
fn onlooker(stage: &mut Stage) {
    trace::be_traced();
    stage.say(format!("thread {}", trace::thread_id()));
    let bus = Bus::open(stage.bus()).unwrap();
    trace::mark();
    let snapshot = bus.snapshot().unwrap();
    trace::mark();
    let rows = snapshot.readers.unwrap();
    let dead: Vec<_> = rows.iter().filter(|row| !row.alive && row.state != State::Detached).collect();
    stage.say(format!("dead {dead:?}"));
}

const SUFFIXES: [&str; 5] = ["", ".readers", ".lock", ".new", ".readers.new"];

fn with_suffix(bus: &Path, suffix: &str) -> PathBuf {
    format!("{}{suffix}", bus.display()).into()
}

/// What would be left of everything at a moment.
#[derive(Clone)]
struct Remains {
    files: [Option<Vec<u8>>; 5],
    facts: Facts,
}

impl Remains {
    fn put(&self, bus: &Path) {
        for (suffix, bytes) in SUFFIXES.iter().zip(&self.files) {
            if let Some(bytes) = bytes {
                std::fs::write(with_suffix(bus, suffix), bytes).unwrap();
            }
        }
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        self.facts.0.hash(&mut hasher);
        hasher.finish()
    }
}

/// Sees every change of a bus's files.
struct Watch {
    bus: PathBuf,
    page: Page,
    maps: [Option<(u64, u64, Shared)>; 5],
    last: Remains,
}

impl Watch {
    fn new(bus: &Path) -> Self {
        let page = Page::open(bus);
        let last = Remains { files: Default::default(), facts: page.read() };
        let mut watch = Self { bus: bus.into(), page, maps: Default::default(), last };
        watch.look(true);
        watch
    }

    /// Whether anything changed since the last look. Names and lengths of files change only by system calls.
    fn look(&mut self, called: bool) -> bool {
        let mut changed = false;
        for (index, suffix) in SUFFIXES.iter().enumerate() {
            if !called {
                changed |= self.compare(index);
                continue;
            }
            let path = with_suffix(&self.bus, suffix);
            let meta = std::fs::symlink_metadata(&path).ok();
            let id = meta.map(|meta| (meta.ino(), meta.len()));
            let Some((inode, length)) = id else {
                changed |= self.last.files[index].take().is_some();
                self.maps[index] = None;
                continue;
            };
            if length == 0 {
                changed |= self.last.files[index].replace(Vec::new()).is_none_or(|old| !old.is_empty());
                self.maps[index] = None;
                continue;
            }
            if !matches!(&self.maps[index], Some((i, l, _)) if (*i, *l) == (inode, length)) {
                let map = Shared::of(&File::options().read(true).write(true).open(&path).unwrap());
                self.maps[index] = Some((inode, length, map));
            }
            changed |= self.compare(index);
        }
        let facts = self.page.read();
        changed |= facts != self.last.facts;
        self.last.facts = facts;
        changed
    }

    /// Compares a file with its last copy.
    fn compare(&mut self, index: usize) -> bool {
        let Some((_, _, map)) = &self.maps[index] else { return false };
        let bytes = map.bytes();
        let changed = self.last.files[index].as_deref() != Some(bytes);
        if changed {
            self.last.files[index] = Some(bytes.to_vec());
        }
        changed
    }
}

/// Leads a child through an operation, instruction by instruction; what would be left after each that changed something.
fn remains_of(act: &str, before: Option<&Remains>) -> (u64, Vec<Remains>) {
    let place = Place::new(act);
    let bus = place.bus();
    prepare(&bus, before);
    let mut traced = Traced::start("actor", &bus, &[&act]);
    let mut watch = Watch::new(&bus);
    let mut remains = vec![watch.last.clone()];
    let mut steps = 0;
    while traced.step() == Stop::Step {
        steps += 1;
        if watch.look(traced.stepped_a_call()) {
            remains.push(watch.last.clone());
        }
    }
    (steps, remains)
}

fn prepare(bus: &Path, before: Option<&Remains>) {
    if let Some(before) = before {
        before.put(bus);
        let page = Page::open(bus);
        for (index, value) in before.facts.0.iter().enumerate() {
            page.set_raw(index, *value);
        }
    }
}

/// Kill points checked, and those after which something did not hold.
#[derive(Default)]
struct Tally {
    points: usize,
    failed: Vec<String>,
}

impl Tally {
    /// Checks a bus on which somebody died.
    fn check(&mut self, what: String, bus: &Path, facts: &Facts, living: Living) {
        self.points += 1;
        if catch_unwind(AssertUnwindSafe(|| check(bus, facts, living))).is_err() {
            eprintln!("^ {what}; {facts:?}");
            self.failed.push(what);
        }
    }

    /// Checks what would be left if everybody had died.
    fn check_remains(&mut self, what: String, remains: &Remains) {
        let place = Place::new("remains");
        remains.put(&place.bus());
        self.check(what, &place.bus(), &remains.facts, Living::default());
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        println!("{} kill points checked", self.points);
        if !std::thread::panicking() {
            assert!(
                self.failed.is_empty(),
                "after {} of them something does not hold: {:#?}",
                self.failed.len(),
                self.failed
            );
        }
    }
}

fn full() -> bool {
    setting("LAPWING_FULL", 0) == 1
}

/// Operations of so many instructions that they are stepped through in the release build only.
fn too_long(act: &str) -> bool {
    let long = ["create", "replace", "remove", "attach", "join-named", "resume", "resume-with-gap"].contains(&act);
    if cfg!(debug_assertions) && long {
        eprintln!("{act}: not stepped through in a debug build");
        return true;
    }
    false
}

/// A sample, in the long form a larger one.
fn sample<T>(random: &mut Random, mut all: Vec<T>, few: usize, many: usize) -> Vec<T> {
    while all.len() > if full() { many } else { few } {
        let index = random.below(all.len() as u64) as usize;
        all.swap_remove(index);
    }
    all
}

/// The remains of an operation's setting, for operations that begin with files somebody left.
fn crashed(act: &str, random: &mut Random, few: usize, many: usize) -> Vec<Remains> {
    let (_, remains) = remains_of(act, None);
    let mut seen = HashSet::new();
    let distinct = remains.into_iter().filter(|remains| seen.insert(remains.digest())).collect();
    sample(random, distinct, few, many)
}

#[test]
fn whoever_dies_at_any_instruction_leaves_a_bus_that_goes_on() {
    let mut random = Random::seeded("instructions");
    let acts: Vec<_> = ACTS.iter().filter(|act| act.0 != "open-writer" && !too_long(act.0)).collect();
    let mut tally = Tally::default();
    let mut steps = 0;
    for (act, _) in sample(&mut random, acts, if cfg!(debug_assertions) { 8 } else { 20 }, usize::MAX) {
        let (stepped, remains) = remains_of(act, None);
        let changes = remains.len();
        let chosen = sample(&mut random, remains.into_iter().enumerate().collect(), 60, usize::MAX);
        println!("{act}: {stepped} instructions, {changes} changes, {} checked", chosen.len());
        steps += stepped;
        for (number, remains) in chosen {
            tally.check_remains(format!("{act}, after change {number} of {changes}"), &remains);
        }
    }
    println!("{steps} instructions stepped");
}

#[test]
fn whoever_dies_in_a_recovery_leaves_a_bus_that_goes_on() {
    let mut random = Random::seeded("recoveries");
    if cfg!(debug_assertions) {
        eprintln!("recoveries: not stepped through in a debug build");
        return;
    }
    let mut tally = Tally::default();
    let mut recoveries = 0;
    let nested = [
        ("publish-large-wrapping", "open-writer"),
        ("batch-wrapping", "open-writer"),
        ("replace", "open-writer"),
        ("rejoin", "resume-here"),
        ("jump", "resume-here"),
        ("resume-with-gap", "resume-here"),
    ];
    for (first, second) in sample(&mut random, nested.to_vec(), 3, usize::MAX) {
        for (number, before) in crashed(first, &mut random, 2, 12).iter().enumerate() {
            let (_, remains) = remains_of(second, Some(before));
            let changes = remains.len();
            recoveries += 1;
            for (change, remains) in sample(&mut random, remains.into_iter().enumerate().collect(), 20, 40) {
                tally.check_remains(format!("{second} after {first} {number}, change {change} of {changes}"), &remains);
            }
        }
    }
    println!("{recoveries} recoveries stepped");
}

/// What lives beside a child that is about to die.
fn company(bus: &Path, side: Side, act: &str) -> Living {
    let reader = || Some(Reader::open(bus).unwrap());
    match side {
        Side::Creator => Living::default(),
        Side::Writer => Living { writer: None, reader: reader() },
        // Removing a bus, and becoming its writer, is for when there is none.
        Side::Reader if act == "remove" || act == "open-writer" => Living { writer: None, reader: reader() },
        Side::Reader => Living { writer: Some(Writer::open(bus).unwrap()), reader: reader() },
    }
}

/// Runs an operation to its `kill`-th stop at a system call and kills it there; false if it has fewer.
fn kill_at_call(tally: &mut Tally, act: &str, side: Side, before: Option<&Remains>, kill: usize) -> bool {
    let place = Place::new(act);
    let bus = place.bus();
    prepare(&bus, before);
    let mut traced = Traced::start("actor", &bus, &[&act]);
    let living = company(&bus, side, act);
    let mut ended = false;
    for _ in 0..=kill {
        if traced.next_call() == Stop::Mark {
            ended = true;
            break;
        }
    }
    drop(traced);
    let facts = Page::open(&bus).read();
    tally.check(format!("{act}, killed at stop {kill}"), &bus, &facts, living);
    !ended
}

#[test]
fn the_living_go_on_when_a_process_is_killed_at_any_system_call() {
    let mut random = Random::seeded("system calls");
    let mut tally = Tally::default();
    let crashed = crashed("publish-large-wrapping", &mut random, 1, 1);
    for &(act, side) in ACTS {
        let before = (act == "open-writer").then(|| &crashed[0]);
        let mut kill = 0;
        // Every stop, or now and then one.
        let stride = |random: &mut Random| if full() { 1 } else { 1 + random.below(24) as usize };
        while kill_at_call(&mut tally, act, side, before, kill) {
            kill += stride(&mut random);
        }
    }
}

/// Runs an operation for so many instructions and kills it there; false if it has fewer.
fn kill_at_step(tally: &mut Tally, act: &str, side: Side, steps: u64) -> bool {
    let place = Place::new(act);
    let bus = place.bus();
    let mut traced = Traced::start("actor", &bus, &[&act]);
    let living = company(&bus, side, act);
    let ended = (0..steps).any(|_| traced.step() == Stop::Mark);
    drop(traced);
    let facts = Page::open(&bus).read();
    tally.check(format!("{act}, killed after {steps} instructions"), &bus, &facts, living);
    !ended
}

#[test]
fn the_living_go_on_when_a_process_is_killed_at_some_instruction() {
    let mut random = Random::seeded("some instructions");
    let mut tally = Tally::default();
    let acts: Vec<_> = ACTS.iter().filter(|act| act.0 != "open-writer" && !too_long(act.0)).collect();
    for &(act, side) in sample(&mut random, acts, 10, usize::MAX) {
        let mut steps = 0;
        // Further and further apart, so that long operations are met as often as short ones.
        while kill_at_step(&mut tally, act, side, steps) {
            steps += 1 + random.below(if full() { 40 + steps / 8 } else { 400 + steps });
        }
    }
}

/// Whether the application could be told of a failure of this call: calls on files, and what maps them.
fn may_fail((number, arguments): (i64, [u64; 6])) -> bool {
    match number {
        libc::SYS_openat
        | libc::SYS_read
        | libc::SYS_pread64
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_lseek
        | libc::SYS_fcntl
        | libc::SYS_fallocate
        | libc::SYS_fchmod
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_membarrier => true,
        libc::SYS_mmap => arguments[4] as i32 >= 0,
        _ => false,
    }
}

/// Runs an opening whose `fail`-th call that may fail does, with `errno`; false if it has fewer.
fn fail_a_call(tally: &mut Tally, act: &str, fail: usize, errno: i32) -> bool {
    let place = Place::new(act);
    let bus = place.bus();
    let mut traced = Traced::start("opener", &bus, &[&act]);
    let (mut count, mut failed) = (0, None);
    while traced.next_call() == Stop::Call {
        if traced.entering() && may_fail(traced.call()) {
            if count == fail {
                failed = Some(traced.call().0);
                traced.fail_call(errno);
            }
            count += 1;
        }
    }
    let mut child = traced.let_go();
    let outcome = child.line();
    child.finish();
    let facts = Page::open(&bus).read();
    tally.check(
        format!("{act}, call {fail} ({failed:?}) failed with {errno}: {outcome}"),
        &bus,
        &facts,
        Living::default(),
    );
    failed.is_some()
}

#[test]
fn a_system_call_that_fails_is_an_error_and_nothing_else() {
    let mut random = Random::seeded("failing calls");
    let mut tally = Tally::default();
    for act in OPENINGS {
        for errno in [libc::EINTR, libc::EAGAIN, libc::EMFILE, libc::ENOSPC, libc::ENOMEM] {
            let mut fail = 0;
            while fail_a_call(&mut tally, act, fail, errno) {
                fail += if full() { 1 } else { 1 + random.below(16) as usize };
            }
        }
    }
}

/// Whether a call is one on open-file-description locks.
fn is_lock((number, arguments): (i64, [u64; 6])) -> bool {
    number == libc::SYS_fcntl
        && [libc::F_OFD_SETLK, libc::F_OFD_SETLKW, libc::F_OFD_GETLK].contains(&(arguments[1] as i32))
}

#[test]
fn a_file_system_without_the_locks_is_refused_by_name() {
    let mut tally = Tally::default();
    for act in OPENINGS {
        for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::ENOLCK] {
            let place = Place::new(act);
            let bus = place.bus();
            let mut traced = Traced::start("opener", &bus, &[&act]);
            while traced.next_call() == Stop::Call {
                if traced.entering() && is_lock(traced.call()) {
                    traced.fail_call(errno);
                }
            }
            let mut child = traced.let_go();
            let outcome = child.line();
            child.finish();
            let named = ["error ", bus.to_str().unwrap(), "no open-file-description locks here", "network file system"];
            assert!(named.iter().all(|part| outcome.contains(part)), "{act}, {errno}: {outcome}");
            assert!(*act != "create" || !bus.exists(), "{errno}: a bus was left");
            let facts = Page::open(&bus).read();
            tally.check(format!("{act} without locks ({errno})"), &bus, &facts, Living::default());
        }
    }
}

#[test]
fn nobody_who_comes_while_the_table_is_looked_at_seems_dead() {
    // The name comes back between each two calls of the look; all looks but one find it before or after.
    let mut call = 0;
    loop {
        let place = Place::new("onlooker");
        let bus = place.bus();
        let _writer = Options::new().capacity(4096).readers(4).create(&bus).unwrap();
        let named = Reader::options().name("hold").hold_while_away(true);
        drop(named.open(&bus).unwrap());
        let mut traced = Traced::start("onlooker", &bus, &[]);
        let mut comes_back = None;
        let mut count = 0;
        while traced.next_call() == Stop::Call {
            if !traced.entering() {
                if count == call {
                    comes_back = Some(named.open(&bus).unwrap());
                }
                count += 1;
            }
        }
        let mut child = traced.let_go();
        assert_eq!(child.expect("dead"), "[]", "it came back after call {call}");
        child.finish();
        if comes_back.is_none() {
            assert!(call > 0, "a look at the table takes a system call at least");
            return;
        }
        call += 1;
    }
}
