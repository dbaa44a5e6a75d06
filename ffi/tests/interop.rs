//! The matrix {Rust, C, C++, Python} writers x readers: one bus, a reader of each language attached all along, and writers of each language
//! one after the other, each taking over from the last. Every record arrives everywhere, once, in order, byte for byte.
//!
//! `LAPWING_INTEROP_RECORDS` says how many records each writer publishes; 5000 by default.

mod common;

use bus::{Bus, Options};
use common::{Place, ROOT, built, compile, python};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A program of one language that knows `read` and `write`.
struct Speaker {
    language: &'static str,
    command: Box<dyn Fn() -> Command>,
}

fn program(language: &'static str, path: PathBuf) -> Speaker {
    Speaker { language, command: Box::new(move || Command::new(&path)) }
}

fn speakers() -> Vec<Speaker> {
    let mut all = vec![program("Rust", built().join("examples/interop"))];
    all.extend(compile("ffi/tests/interop/interop.c").map(|path| program("C", path)));
    all.extend(compile("ffi/tests/interop/interop.cpp").map(|path| program("C++", path)));
    if python().is_some() {
        let command = || {
            let mut command = python().expect("it was there");
            command.arg(format!("{ROOT}/ffi/tests/interop/interop.py"));
            command
        };
        all.push(Speaker { language: "Python", command: Box::new(command) });
    }
    all
}

#[test]
fn every_language_reads_what_every_language_writes() {
    let records = std::env::var("LAPWING_INTEROP_RECORDS").unwrap_or("5000".into());
    let place = Place::new("interop");
    let speakers = speakers();
    drop(Options::new().capacity(1 << 20).create(&place.0).expect("a bus"));
    let mut readers: Vec<(&str, Child, BufReader<_>)> = speakers
        .iter()
        .map(|speaker| {
            let mut child =
                (speaker.command)().arg("read").arg(&place.0).stdout(Stdio::piped()).spawn().expect("a reader");
            let mut output = BufReader::new(child.stdout.take().expect("its output"));
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            assert_eq!(line, "attached\n", "{}", speaker.language);
            (speaker.language, child, output)
        })
        .collect();
    let mut written = String::new();
    for (which, speaker) in speakers.iter().enumerate() {
        let end = if which + 1 == speakers.len() { "end" } else { "leave" };
        let output = (speaker.command)()
            .arg("write")
            .arg(&place.0)
            .args([&which.to_string(), &records, end])
            .stderr(Stdio::inherit())
            .output()
            .expect("a writer");
        assert!(output.status.success(), "the writer in {}: {}", speaker.language, output.status);
        written += &String::from_utf8(output.stdout).expect("numbers");
    }
    assert_eq!(written.lines().count(), speakers.len());
    for (language, mut child, mut output) in readers.drain(..) {
        let mut read = String::new();
        output.read_to_string(&mut read).expect("sums");
        assert!(child.wait().expect("it ends").success(), "the reader in {language}");
        assert_eq!(read, written, "the reader in {language}");
    }
    assert_eq!(Bus::inspect(&place.0).expect("a bus").writer.epoch, speakers.len() as u64 + 1);
}
