//! Who lives, where pids mislead: reused, the same in two namespaces, or that of a process whose first thread has ended.

mod common;

use common::*;
use lapwing::*;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::path::{Path, PathBuf};
use std::process::Command;

roles!(member, headless);

/// Arguments: bus, `reader` or `writer`, name. Is one, and does what it is told.
fn member(stage: &mut Stage) {
    let bus = stage.bus();
    let ready = || stage.say(format!("ready {}", std::process::id()));
    if stage.argument(1) == "writer" {
        let mut writer = Writer::standby(&bus).unwrap();
        ready();
        loop {
            match stage.hear().as_str() {
                "publish" => stage.say(format!("published {}", writer.publish(b"a record").unwrap())),
                "reap" => {
                    let names: Vec<_> = writer.reap().unwrap().into_iter().filter_map(|reader| reader.name).collect();
                    stage.say(format!("reaped {}", names.join(" ")));
                }
                _ => return,
            }
        }
    }
    let mut reader = Reader::options().name(stage.argument(2)).open(&bus).unwrap();
    ready();
    while stage.hear() == "next" {
        match reader.next().unwrap() {
            Next::Record(record) => stage.say(format!("record {}", record.sequence())),
            Next::Absent => stage.say("absent"),
            other => panic!("{other:?}"),
        }
    }
}

fn new_bus(place: &Place) -> PathBuf {
    drop(Options::new().capacity(16 << 10).readers(8).create(place.bus()).unwrap());
    place.bus()
}

/// The pid that a member announces, once it is ready.
fn ready(member: &mut Child) -> u32 {
    member.expect("ready").parse().unwrap()
}

fn alive(bus: &Path, name: &str) -> bool {
    named(bus, name).unwrap().alive
}

// ---- namespaces ---------------------------------------------------------------------------------------------------

/// Namespaces of users and of processes, so that the process started is number 1 there.
const APART: [&str; 6] = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"];

/// Says loudly that a test was not made; true if it can be.
fn can_be_apart(test: &str) -> bool {
    let works = Command::new(APART[0]).args(&APART[1..]).arg("true").status().is_ok_and(|status| status.success());
    if !works {
        eprintln!("SKIPPED: {test} needs `unshare` and the right to make user and pid namespaces");
    }
    works
}

#[test]
fn liveness_is_right_across_namespaces() {
    if !can_be_apart("liveness_is_right_across_namespaces") {
        return;
    }
    let place = Place::new("namespaces");
    let bus = new_bus(&place);
    let mut writer = Child::start_under(&APART, "member", &bus, &[&"writer", &""]);
    let mut reader = Child::start_under(&APART, "member", &bus, &[&"reader", &"apart"]);
    let mut neighbour = Child::start("member", &bus, &[&"reader", &"here"]);
    // Both are number 1 where they live, as is somebody else altogether here.
    assert_eq!((ready(&mut writer), ready(&mut reader)), (1, 1));
    ready(&mut neighbour);
    let seen = inspect(&bus);
    assert_eq!((seen.writer.state, seen.writer.pid), (WriterState::Alive, 1));
    assert!(alive(&bus, "apart") && alive(&bus, "here"));
    assert_eq!(named(&bus, "apart").unwrap().pid, 1);
    assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { pid: Some(1), .. })));
    let taken = Reader::options().name("apart").open(&bus);
    assert!(matches!(taken, Err(Error::NameTaken { pid: Some(1), .. })));
    writer.tell("reap");
    assert_eq!(writer.expect("reaped"), "");
    writer.tell("publish");
    writer.expect("published 0");
    for member in [&mut reader, &mut neighbour] {
        member.tell("next");
        member.expect("record 0");
    }
    // The writer, in a third place, finds that the reader is dead, whose pid is that of a living process here and there.
    reader.kill();
    until("the reader's death", || (!alive(&bus, "apart")).then_some(()));
    writer.tell("reap");
    assert_eq!(writer.expect("reaped"), "apart");
    assert!(alive(&bus, "here"));
    // And a reader that its writer is.
    let mut reader = Child::start_under(&APART, "member", &bus, &[&"reader", &"apart"]);
    ready(&mut reader);
    writer.kill();
    for member in [&mut reader, &mut neighbour] {
        member.tell("next");
        // The one that comes back under its name reads again what it had not committed.
        let mut said = member.line();
        if said == "record 0" {
            member.tell("next");
            said = member.line();
        }
        assert_eq!(said, "absent");
    }
    let mut writer = Child::start_under(&APART, "member", &bus, &[&"writer", &""]);
    assert_eq!(ready(&mut writer), 1);
    writer.tell("publish");
    writer.expect("published 1");
    for member in [&mut reader, &mut neighbour] {
        member.tell("next");
        member.expect("record 1");
    }
}

// ---- pids ---------------------------------------------------------------------------------------------------------

/// Starts a member whose pid is a given one; `None`, said loudly, where that cannot be had.
fn start_as(pid: u32, bus: &Path, name: &str) -> Option<Child> {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    // Others take pids, too.
    for _ in 0..300 {
        if let Err(error) = std::fs::write(LAST, (pid - 1).to_string()) {
            eprintln!("SKIPPED: a pid is reused: {LAST} cannot be written to: {error}");
            return None;
        }
        let mut child = Child::start("member", bus, &[&"reader", &name]);
        ready(&mut child);
        if child.pid() == pid {
            return Some(child);
        }
        child.kill();
    }
    eprintln!("SKIPPED: a pid is reused: {pid} was never to be had");
    None
}

#[test]
fn a_reused_pid_is_never_taken_for_the_old_reader() {
    let place = Place::new("reused");
    let bus = new_bus(&place);
    let mut old = Child::start("member", &bus, &[&"reader", &"old"]);
    let pid = ready(&mut old);
    old.kill();
    assert!(!alive(&bus, "old"));
    // Its own bus, so that nothing but the pid ties the two together.
    let elsewhere = Place::new("elsewhere");
    let Some(new) = start_as(pid, &new_bus(&elsewhere), "new") else { return };
    let row = named(&bus, "old").unwrap();
    assert_eq!((row.pid, row.alive), (pid, false), "process {pid} lives, and is another");
    drop(new);
    // On the same bus, side by side.
    let Some(new) = start_as(pid, &bus, "new") else { return };
    let [old_row, new_row] = ["old", "new"].map(|name| named(&bus, name).unwrap());
    assert_eq!((old_row.pid, old_row.alive, new_row.pid, new_row.alive), (pid, false, pid, true));
    let mut writer = Writer::open(&bus).unwrap();
    let reaped: Vec<_> = writer.reap().unwrap().into_iter().filter_map(|reader| reader.name).collect();
    assert!(reaped.contains(&"old".into()) && !reaped.contains(&"new".into()), "{reaped:?}");
    assert!(alive(&bus, "new"));
    drop(new);
}

/// Ends the thread that it interrupts, and nothing else.
extern "C" fn end_thread(_: i32) {
    // SAFETY: ends this thread without unwinding: what its frames hold stays where it is, and nobody returns to them.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Arguments: bus. Its first thread ends; another, with a reader and a writer, stays until told to leave.
fn headless(stage: &mut Stage) {
    let bus = stage.bus();
    let first = std::process::id();
    let action = SigAction::new(SigHandler::Handler(end_thread), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler makes one system call.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    // SAFETY: touches no memory; the first thread has the process's number.
    assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, first, first, libc::SIGUSR1) }, 0);
    let stat = || std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    until("the end of the first thread", || stat().contains(") Z ").then_some(()));
    let mut writer = Writer::standby(&bus).unwrap();
    let mut reader = Reader::options().name("headless").open(&bus).unwrap();
    stage.say("ready");
    stage.hear_this("publish");
    stage.say(writer.publish(b"a record").unwrap());
    assert!(matches!(reader.next().unwrap(), Next::Record(_)));
    stage.hear_this("leave");
}

#[test]
fn a_process_lives_on_when_its_first_thread_ends() {
    let place = Place::new("headless");
    let bus = new_bus(&place);
    let mut child = Child::start("headless", &bus, &[]);
    child.expect("ready");
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.pid())).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
    for _ in 0..3 {
        let seen = inspect(&bus);
        assert_eq!((seen.writer.state, seen.writer.pid), (WriterState::Alive, child.pid()));
        assert!(alive(&bus, "headless"));
        assert!(Bus::open(&bus).unwrap().reap().unwrap().is_empty());
        assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { .. })));
    }
    child.tell("publish");
    child.expect("0");
    child.tell("leave");
    child.finish();
    assert_eq!(inspect(&bus).writer.state, WriterState::Absent);
    assert!(!alive(&bus, "headless"));
}
