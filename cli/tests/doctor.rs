//! `doctor`: each finding about a bus produced for real, the exit code, and the schema.

mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::schema;
use support::{Place, Process, Ran, numbered, run};

/// What it found, and its exit code; both checked against each other and the schema.
fn doctor(bus: &str) -> (Vec<Value>, i32) {
    let ran = run(&["--json", "doctor", bus], b"");
    let mut lines = Ran::events(&String::from_utf8(ran.stdout).expect("text"));
    lines.iter().for_each(|line| schema::validate("doctor", line));
    let verdict = lines.pop().expect("a verdict");
    assert_eq!((&verdict["event"], &verdict["code"]), (&"verdict".into(), &ran.code.into()));
    for (level, counted) in [("ok", "ok"), ("note", "notes"), ("warning", "warnings"), ("fault", "faults")] {
        let found = lines.iter().filter(|finding| finding["level"] == level).count();
        assert_eq!(verdict[counted], found, "{level}");
    }
    (lines, ran.code)
}

/// The findings of one check, told as `LEVEL: FOUND → ADVICE`.
fn told(lines: &[Value], check: &str) -> Vec<String> {
    let of = lines.iter().filter(|finding| finding["check"] == check);
    of.map(|f| format!("{}: {} → {}", f["level"].as_str().expect("a word"), f["found"], f["advice"])).collect()
}

#[track_caller]
fn expect(lines: &[Value], check: &str, parts: &[&str]) {
    let told = told(lines, check);
    assert!(
        told.iter().any(|line| parts.iter().all(|part| line.contains(part))),
        "{check}, {parts:?}: {told:#?} in {lines:#?}"
    );
}

#[test]
fn a_bus_in_order_has_no_finding_above_a_note() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut reader = Process::spawn(&["--json", "sub", &bus]);
    reader.expect("attached");
    let mut writer = Process::spawn(&["pub", &bus]);
    support::until(&bus, "the writer is there", |stat| stat["writer"]["state"] == "alive");
    let (lines, _) = doctor(&bus);
    for check in ["bus", "table", "lock_file", "permissions", "writer", "fences", "slots", "namespaces", "readers"] {
        expect(&lines, check, &["ok: "]);
    }
    drop(writer.stdin.take());
    let words = String::from_utf8(run(&["doctor", &bus], b"").stdout).expect("text");
    assert!(words.contains("this machine") && words.contains("shared memory") && words.contains(&bus), "{words}");
}

#[test]
fn the_machine_is_checked_without_a_bus() {
    let ran = run(&["--json", "doctor"], b"");
    let lines = Ran::events(&String::from_utf8(ran.stdout).expect("text"));
    lines.iter().for_each(|line| schema::validate("doctor", line));
    let checks = [
        "shared_memory",
        "membarrier",
        "huge_pages",
        "cpu_governor",
        "isolated_cores",
        "locked_memory",
        "namespaces",
        "leftovers",
    ];
    for check in checks {
        assert!(!told(&lines, check).is_empty(), "{check}: {lines:#?}");
    }
    assert!([0, 9].contains(&ran.code));
}

#[test]
fn readers_dead_stopped_stalled_and_away_are_told_apart_with_what_to_do() {
    let place = Place::created(&["--capacity", "256KiB", "--readers", "5"]);
    let bus = place.bus();
    let start = |extra: &[&str]| {
        let mut reader = Process::spawn(&[&["--json", "sub", &bus], extra].concat());
        reader.expect("attached");
        reader
    };
    let dead = start(&[]);
    let dead_pid = dead.pid().to_string();
    dead.kill();
    let away = start(&["--name", "away", "--hold-while-away"]);
    away.signal(Signal::SIGTERM);
    assert_eq!(away.end().code, 0);
    let stopped = start(&["--name", "halted"]);
    stopped.signal(Signal::SIGSTOP);
    let lossy = start(&["--class", "lossy"]);
    lossy.signal(Signal::SIGSTOP);
    // Nobody reads its output: it stands in its handler once the pipe is full, which is before the ring is.
    let (mut stuck, _output) = Process::with_output(&["--json", "sub", &bus, "--name", "stuck"]);
    stuck.expect("attached");
    let ran = run(&["pub", &bus, "--keep-open", "--policy", "refuse"], &numbered(3800));
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let (lines, code) = doctor(&bus);
    assert_eq!(code, 9);
    expect(&lines, "slots", &["warning", "5 of 5", "lapwing forget", "1 are away"]);
    expect(&lines, "writer", &["warning", "did not close", "standby"]);
    expect(&lines, "dead_readers", &["warning", &dead_pid, "lapwing reap"]);
    expect(&lines, "held_while_away", &["warning", "away", "lapwing evict", "lapwing forget"]);
    expect(&lines, "stopped_readers", &["warning", "halted", &format!("kill -CONT {}", stopped.pid())]);
    expect(&lines, "stopped_readers", &["note", &lossy.pid().to_string()]);
    expect(&lines, "stalled_readers", &["warning", "stuck", "handler"]);
    stopped.kill();
    lossy.kill();
    stuck.kill();
}

#[test]
fn a_stopped_writer_is_told() {
    let place = Place::created(&[]);
    let writer = Process::spawn(&["pub", &place.bus()]);
    support::until(&place.bus(), "the writer is there", |stat| stat["writer"]["state"] == "alive");
    writer.signal(Signal::SIGSTOP);
    let (lines, code) = doctor(&place.bus());
    assert_eq!(code, 9);
    expect(&lines, "writer", &["warning", "stopped", &format!("kill -CONT {}", writer.pid())]);
    writer.kill();
}

#[test]
fn a_lock_file_removed_under_the_writer_is_a_fault() {
    let place = Place::created(&[]);
    let writer = Process::spawn(&["pub", &place.bus()]);
    support::until(&place.bus(), "the writer is there", |stat| stat["writer"]["state"] == "alive");
    fs::remove_file(place.path("bus.lock")).expect("it is there");
    let (lines, code) = doctor(&place.bus());
    assert_eq!(code, 10);
    expect(&lines, "lock_file", &["fault", "second one"]);
    writer.kill();
}

#[test]
fn tables_that_are_missing_foreign_or_orphaned() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let other = Place::created(&[]);
    fs::copy(other.path("bus.readers"), place.path("bus.readers")).expect("both are there");
    let (lines, code) = doctor(&bus);
    assert_eq!(code, 10);
    expect(&lines, "table", &["fault", "another bus"]);

    fs::remove_file(place.path("bus.readers")).expect("it is there");
    let (lines, code) = doctor(&bus);
    assert_eq!(code, 10);
    expect(&lines, "table", &["fault", "no reader can register"]);

    fs::remove_file(other.bus()).expect("it is there");
    fs::write(other.path("bus.new"), b"half").expect("a new file");
    let (lines, code) = doctor(&other.bus());
    assert_eq!(code, 3);
    expect(&lines, "bus", &["fault"]);
    expect(&lines, "table", &["warning", "orphan", "lapwing rm"]);
    expect(&lines, "creation", &["warning", "half-way"]);
    assert_eq!(run(&["rm", &other.bus()], b"").code, 0);
}

#[test]
fn permissions_that_do_not_fit_each_other() {
    let place = Place::created(&["--mode", "640"]);
    let set =
        |name: &str, mode| fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
    expect(&doctor(&place.bus()).0, "permissions", &["ok", "640"]);
    set("bus.readers", 0o640);
    set("bus.lock", 0o660);
    let (lines, code) = doctor(&place.bus());
    assert_eq!(code, 9);
    expect(&lines, "permissions", &["warning", "cannot register", "chmod 660"]);
    expect(&lines, "permissions", &["warning", "keep writers away", "chmod 600"]);
}

#[test]
fn what_is_no_bus_or_a_damaged_one_is_a_fault_with_the_usual_code() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let whole = fs::read(&bus).expect("it is there");
    let damaged = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(place.path(name), bytes).expect("a new file");
        let (lines, code) = doctor(&place.path(name));
        expect(&lines, "bus", &["fault", name]);
        code
    };
    assert_eq!(damaged("empty", &|bytes| bytes.clear()), 6);
    assert_eq!(damaged("short", &|bytes| bytes.truncate(5000)), 6);
    assert_eq!(damaged("text", &|bytes| bytes.fill(b'x')), 6);
    assert_eq!(damaged("other-machine", &|bytes| bytes[8..16].reverse()), 6);
    assert_eq!(damaged("future", &|bytes| bytes[16] = 99), 6);
    assert_eq!(damaged("capacity", &|bytes| bytes[40..48].fill(0xff)), 6);
    let (lines, code) = doctor(&place.path(""));
    assert_eq!(code, 6);
    expect(&lines, "bus", &["fault", "a directory"]);
    assert_eq!(doctor(&place.path("nothing")).1, 3);
}
