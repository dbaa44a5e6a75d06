//! The hot paths: a million records are published and read without an allocation and without a system call.

mod common;

use common::{Place, Stage, roles};
use lapwing::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

const RECORDS: u64 = 1_000_000;

// ---- allocations ------------------------------------------------------------------------------------------------

/// Counts what each thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

fn asked() -> u64 {
    ASKED.with(Cell::get)
}

// SAFETY: every call is the system allocator's own; counting touches a thread's own cell and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs it once to warm up (buffers grow to the largest record), then for good; asserts that the second time asked for no memory.
fn assert_asks_for_nothing(what: &str, mut run: impl FnMut(u64)) {
    run(1000);
    let before = asked();
    run(RECORDS);
    assert_eq!(asked() - before, 0, "{what} allocated");
}

fn record(next: Next<'_>) -> Record<'_> {
    match next {
        Next::Record(record) => record,
        other => panic!("{other:?} instead of a record"),
    }
}

#[test]
fn the_allocator_counts() {
    let before = asked();
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(asked() - before, 2);
}

#[test]
fn publishing_and_reading_one_by_one_allocates_nothing() {
    let payload = [7; 1000];
    for (stamped, class) in
        [(false, Class::Gating), (true, Class::Gating), (false, Class::Pinned), (true, Class::Lossy)]
    {
        let place = Place::new("alone");
        let mut writer = Options::new().capacity(1 << 16).stamped(stamped).create(place.bus()).unwrap();
        let mut reader = Reader::options().class(class).open(place.bus()).unwrap();
        assert_asks_for_nothing(&format!("one by one, {class}, stamped {stamped}"), |records| {
            for n in 0..records {
                let length = (n * 7 % 1001) as usize;
                writer.try_publish_tagged(n as u32, &payload[..length]).unwrap();
                assert_eq!(record(reader.try_next().unwrap()).payload().len(), length);
            }
        });
        assert_eq!(writer.next_sequence(), reader.next_sequence());
    }
}

#[test]
fn every_other_way_allocates_nothing_either() {
    let place = Place::new("ways");
    let mut writer = Options::new().capacity(1 << 16).create(place.bus()).unwrap();
    let mut gating = Reader::options().auto_commit(false).open(place.bus()).unwrap();
    let mut picky = Reader::options().class(Class::Pinned).filter(1, 1).open(place.bus()).unwrap();
    let mut observer = Observer::open(place.bus(), Start::Latest).unwrap();
    let payload = [7; 600];
    assert_asks_for_nothing("batch, claim, vectored, drain, filter, observer", |records| {
        for n in 0..records / 8 {
            let length = (n * 7 % 601) as usize;
            let mut claim = writer.claim(1, length).unwrap();
            claim.write_all(&payload[..length / 2]).unwrap();
            claim.commit_len(length / 2).unwrap();
            drop(writer.claim(0, length).unwrap());
            writer.publish_vectored(2, &[&payload[..length], b"", b"end"]).unwrap();
            writer.publish_value(&n).unwrap();
            let mut batch = writer.batch();
            for tag in 0..5 {
                batch.push_tagged(tag, &payload[..length]).unwrap();
            }
            batch.commit().unwrap();
            assert_eq!(gating.drain(100, |record| assert!(record.len() <= 603)).unwrap().0, 8);
            gating.commit();
            let mut odd = 0;
            while let Next::Record(record) = picky.try_next().unwrap() {
                assert_eq!(record.tag() % 2, 1);
                odd += 1;
            }
            assert_eq!(odd, 3);
            assert_eq!(observer.drain(100, |_| {}).unwrap().0, 8);
        }
    });
}

// ---- system calls -----------------------------------------------------------------------------------------------

/// Nobody has these process numbers: calls with them are landmarks in the trace.
const BEGIN: i32 = 424_242_424;
const END: i32 = 242_424_242;

fn landmark(number: i32) {
    // SAFETY: asks for a number about a process; touches no memory.
    unsafe { libc::getpgid(number) };
}

/// Publishes and reads, busy polling, between two landmarks.
fn pairs(stage: &mut Stage) {
    let mut writer = Options::new().capacity(1 << 16).create(stage.bus()).unwrap();
    let mut reader = Reader::open(stage.bus()).unwrap();
    let mut observer = Observer::open(stage.bus(), Start::Latest).unwrap();
    let payload = [7; 64];
    let mut pair = |n: u64| {
        assert_eq!(writer.try_publish(&payload).unwrap(), n);
        loop {
            match reader.try_next().unwrap() {
                Next::Record(record) => break assert_eq!(record.sequence(), n),
                Next::Empty => {}
                other => panic!("{other:?}"),
            }
        }
        // It finds nothing more, and that costs no call either.
        assert!(matches!(reader.try_next().unwrap(), Next::Empty));
        assert_eq!(record(observer.try_next().unwrap()).sequence(), n);
    };
    (0..1000).for_each(&mut pair);
    landmark(BEGIN);
    (1000..1000 + RECORDS).for_each(&mut pair);
    landmark(END);
}

/// What the trace must show: one call.
fn one_call(_: &mut Stage) {
    landmark(BEGIN);
    // SAFETY: as above.
    unsafe { libc::getppid() };
    landmark(END);
}

roles! { pairs, one_call }

/// The system calls that a role's thread makes between its landmarks; `None` if this machine cannot trace.
fn calls_of(role: &str, bus: &Path) -> Option<Vec<String>> {
    let trace = bus.with_extension("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["child_role", "--exact", "--nocapture", "--test-threads=1", "-q"])
        .env("LAPWING_TEST_ROLE", role)
        .env("LAPWING_TEST_ARGUMENTS", bus)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: system calls are not counted, strace does not start: {error}");
            return None;
        }
    };
    let words = String::from_utf8_lossy(&output.stderr);
    if words.contains("ptrace") && words.contains("not permitted") {
        eprintln!("SKIPPED: system calls are not counted, this process may not trace: {words}");
        return None;
    }
    assert!(output.status.success(), "{role} ended with {}: {words}", output.status);
    let trace = std::fs::read_to_string(&trace).unwrap();
    let begin = trace.lines().position(|line| line.contains(&format!("getpgid({BEGIN})"))).expect("the first landmark");
    let mut lines = trace.lines().skip(begin);
    let thread = lines.next().and_then(|line| line.split_ascii_whitespace().next()).expect("a thread's number");
    let mut calls = Vec::new();
    for line in lines.filter_map(|line| line.strip_prefix(thread)) {
        if line.contains(&format!("getpgid({END})")) {
            return Some(calls);
        }
        calls.push(line.trim().to_string());
    }
    panic!("the second landmark is missing");
}

#[test]
fn a_million_records_take_no_system_call() {
    let place = Place::new("calls");
    let Some(calls) = calls_of("one_call", &place.bus()) else { return };
    assert!(calls.len() == 1 && calls[0].starts_with("getppid()"), "the trace shows {calls:?}");
    let calls = calls_of("pairs", &place.bus()).unwrap();
    assert!(calls.is_empty(), "{} system calls, the first: {:?}", calls.len(), &calls[..calls.len().min(5)]);
}
