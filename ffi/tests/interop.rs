//! The matrix {Rust, C, C++, Python} writers x readers: one bus, a reader of each language attached all along, and writers of each language
//! one after the other, each taking over from the last. Every record arrives everywhere, once, in order, byte for byte.
//!
//! And the stories, once per foreign language with Rust on the other side: a gap, an eviction, a resume after a kill, takeovers both ways.
//!
//! `LAPWING_INTEROP_RECORDS` says how many records each writer publishes; 5000 by default.

mod common;

use bus::{Bus, Next, Options, PublishError, Reader, Start, Writer};
use common::{Place, ROOT, built, compile, python};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

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
    drop(Options::new().capacity(1 << 20).create(&place.bus).expect("a bus"));
    let mut readers: Vec<(&str, Child, BufReader<_>)> = speakers
        .iter()
        .map(|speaker| {
            let mut child =
                (speaker.command)().arg("read").arg(&place.bus).stdout(Stdio::piped()).spawn().expect("a reader");
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
            .arg(&place.bus)
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
    let names: Vec<_> = speakers.iter().map(|speaker| speaker.language).collect();
    eprintln!("read alike in {names:?}; writer, records, sum:\n{written}");
    assert_eq!(Bus::inspect(&place.bus).expect("a bus").writer.epoch, speakers.len() as u64 + 1);
}

/// A foreign process that answers each line with one.
struct Puppet {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Puppet {
    fn start(speaker: &Speaker, what: &str, path: &Path, arguments: &[&str]) -> Self {
        let mut command = (speaker.command)();
        command.arg(what).arg(path).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, output }
    }

    /// Its next line: a word, and the numbers after it.
    fn hear(&mut self) -> (String, Vec<u64>) {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        let mut words = line.split_whitespace();
        let word = words.next().expect("a word").to_string();
        (word, words.map(|number| number.parse().expect("a number")).collect())
    }

    fn ask(&mut self, what: &str) -> (String, Vec<u64>) {
        writeln!(self.child.stdin.as_mut().expect("its input"), "{what}").expect("it listens");
        self.hear()
    }

    fn expect(&mut self, what: &str, word: &str, numbers: &[u64]) {
        assert_eq!(self.ask(what), (word.into(), numbers.to_vec()));
    }

    fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }

    fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().expect("it ends").success());
    }
}

fn small(place: &Place) -> Writer {
    Options::new().capacity(4096).create(&place.bus).expect("a bus")
}

/// Runs a story with each foreign language.
fn each(story: &str, tell: impl Fn(&Speaker, &Place)) {
    for speaker in speakers().iter().skip(1) {
        eprintln!("{story} in {}", speaker.language);
        let place = Place::new(&format!("{story}-{}", speaker.language));
        tell(speaker, &place);
    }
}

#[test]
fn a_lapped_reader_is_told_its_gap() {
    each("gap", |speaker, place| {
        let mut writer = small(place);
        let mut reader = Puppet::start(speaker, "tell", &place.bus, &["lossy", ""]);
        assert_eq!(reader.hear().0, "attached");
        for _ in 0..1000 {
            writer.publish(b"tick").expect("nobody is in the way");
        }
        let (word, gap) = reader.ask("next");
        assert_eq!((word.as_str(), gap[0]), ("gap", 0));
        for sequence in gap[1]..1000 {
            reader.expect("next", "record", &[sequence]);
        }
        writer.publish(b"tick").expect("room");
        reader.expect("next", "record", &[1000]);
        reader.finish();
    });
}

#[test]
fn an_evicted_reader_is_told_and_rejoins() {
    each("eviction", |speaker, place| {
        let mut writer = small(place);
        let mut reader = Puppet::start(speaker, "tell", &place.bus, &["gating", ""]);
        assert_eq!(reader.hear().0, "attached");
        let refused = loop {
            match writer.try_publish(b"tick") {
                Ok(_) => {}
                Err(PublishError::WouldOverrun(refused)) => break refused,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(refused.readers.iter().map(|reader| reader.pid).collect::<Vec<_>>(), [reader.child.id()]);
        assert!(writer.evict(refused.readers[0].id).expect("it can be"));
        for _ in 0..100 {
            writer.publish(b"tock").expect("room");
        }
        let mut next = 0;
        let lost = loop {
            match reader.ask("next") {
                (word, numbers) if word == "record" => assert_eq!(numbers, [next], "in order"),
                (word, numbers) if word == "evicted" => break numbers,
                other => panic!("{other:?}"),
            }
            next += 1;
        };
        assert_eq!(lost[0], next);
        let (word, gap) = reader.ask("rejoin");
        assert_eq!((word.as_str(), gap[0]), ("rejoined", next));
        assert!(gap[1] >= lost[1]);
        for sequence in gap[1]..refused.sequence + 100 {
            reader.expect("next", "record", &[sequence]);
        }
        let books = writer.readers().expect("a table").remove(0);
        assert_eq!(books.missed, gap[1] - gap[0]);
        reader.finish();
    });
}

#[test]
fn a_killed_reader_resumes() {
    each("resume", |speaker, place| {
        let mut writer = small(place);
        let mut reader = Puppet::start(speaker, "tell", &place.bus, &["gating", "phoenix"]);
        assert_eq!(reader.hear().0, "attached");
        for _ in 0..5 {
            writer.publish(b"tick").expect("room");
        }
        for sequence in 0..3 {
            reader.expect("next", "record", &[sequence]);
        }
        reader.kill();
        let mut reader = Puppet::start(speaker, "tell", &place.bus, &["gating", "phoenix"]);
        assert_eq!(reader.hear().0, "attached");
        // The last one it was given was not committed.
        for sequence in 2..5 {
            reader.expect("next", "record", &[sequence]);
        }
        reader.finish();
    });
}

#[test]
fn writers_take_over_from_each_other() {
    each("takeover", |speaker, place| {
        drop(small(place));
        let mut reader = Reader::options().start(Start::Oldest).open(&place.bus).expect("a bus");
        let mut writer = Puppet::start(speaker, "hold", &place.bus, &[]);
        assert_eq!(writer.hear(), ("writer".into(), vec![0]));
        writer.expect("first", "published", &[0]);
        writer.kill();
        let mut ours = Writer::standby(&place.bus).expect("it is dead");
        assert_eq!(ours.resumed_at(), 1);
        ours.publish(b"second").expect("room");
        drop(ours);
        let mut writer = Puppet::start(speaker, "hold", &place.bus, &[]);
        assert_eq!(writer.hear(), ("writer".into(), vec![2]));
        writer.expect("third", "published", &[2]);
        writer.finish();
        for sequence in 0..3 {
            assert!(matches!(reader.next().expect("it reads"), Next::Record(record) if record.sequence() == sequence));
        }
        assert!(matches!(reader.next().expect("it reads"), Next::Absent));
    });
}
