//! The C, C++ and Python tests and examples, compiled against the header and the library, and run.
//!
//! `.ci/ffi` runs the same programs under sanitizers and valgrind (all but the one that limits its memory).

mod common;

use common::{Place, ROOT, compile, python};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

fn run(source: &str) {
    let Some(program) = compile(source) else { return };
    let place = Place::new(&source.replace('/', "-"));
    let output = Command::new(&program).env("LAPWING_TEST_DIR", &place.directory).output().expect("it runs");
    assert!(output.status.success(), "{source}:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn misuse_ends_in_a_status() {
    run("ffi/tests/c/misuse.c");
}

#[test]
fn everything_works_through_the_header() {
    run("ffi/tests/c/behaviour.c");
}

#[test]
fn a_process_without_memory_goes_on() {
    run("ffi/tests/c/memory.c");
}

#[test]
fn the_wrapper_works() {
    run("ffi/tests/cpp/wrapper.cpp");
}

#[test]
fn the_python_package_works() {
    let Some(mut python) = python() else { return };
    let place = Place::new("python");
    python.env("LAPWING_TEST_DIR", &place.directory);
    let output = python.args(["-m", "unittest", "discover", "-s"]).arg(format!("{ROOT}/python/tests")).output();
    let output = output.expect("python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A publisher's input arrives at every subscriber; those that are there from the start, and those that come later.
#[test]
fn the_examples_talk_to_each_other() {
    let sources = ["c/publisher.c", "cpp/publisher.cpp", "c/subscriber.c", "cpp/subscriber.cpp", "c/epoll.c"];
    let programs: Option<Vec<_>> = sources.iter().map(|source| compile(&format!("examples/{source}"))).collect();
    let Some(programs) = programs else { return };
    let subscribers =
        [(&programs[2], None), (&programs[3], None), (&programs[3], Some("--poll")), (&programs[4], None)];
    let lines = 500;
    let mut input = String::new();
    let mut expected = String::new();
    for i in 0..lines {
        let text = "x".repeat(i % 90);
        writeln!(input, "{text}").expect("memory");
        writeln!(expected, "{i} {text}").expect("memory");
    }
    for publisher in &programs[..2] {
        let place = Place::new("examples");
        let mut child = Command::new(publisher).arg(&place.bus).stdin(Stdio::piped()).spawn().expect("a publisher");
        let mut to = child.stdin.take().expect("its input");
        to.write_all(input.as_bytes()).expect("it reads");
        // The publisher has made the bus by the time the subscribers are let in: they try until then.
        let begun = std::time::Instant::now();
        while bus::Bus::inspect(&place.bus).is_err() {
            assert!(begun.elapsed().as_secs() < 30, "no bus after 30 s");
            std::thread::yield_now();
        }
        let early: Vec<_> = subscribers
            .iter()
            .map(|(program, option)| {
                let mut command = Command::new(program);
                command
                    .arg(&place.bus)
                    .args(*option)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped());
                command.spawn().expect("a subscriber")
            })
            .collect();
        let mut early: Vec<_> = early.into_iter().map(|mut child| (child.stdin.take(), child)).collect();
        if let Some(stderr) = early[0].1.stderr.as_mut() {
            let mut line = String::new();
            BufReader::new(stderr).read_line(&mut line).expect("a line");
            assert_eq!(line, "attached\n");
        }
        drop(to);
        assert!(child.wait().expect("it ends").success());
        for (_input, child) in &mut early {
            let mut output = String::new();
            child.stdout.take().expect("its output").read_to_string(&mut output).expect("text");
            assert!(child.wait().expect("it ends").success());
            assert_eq!(output, expected);
        }
    }
}

#[test]
fn the_overrun_example_tells_the_story() {
    let Some(program) = compile("examples/c/overrun.c") else { return };
    let place = Place::new("overrun");
    let output = Command::new(program).arg(&place.bus).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("would overrun 1 reader"), "{text}");
    assert!(lines[1].starts_with("slow, ") && lines[1].ends_with(" records behind, alive"), "{text}");
    assert!(lines[2].starts_with("missed ") && lines[2].contains("from 0 up to"), "{text}");
}
