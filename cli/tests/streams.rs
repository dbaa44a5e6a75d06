//! Data through a bus: byte for byte, in every frame, through crashes, closed pipes and broken input.

mod support;

use nix::sys::signal::Signal;
use serde_json::json;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Place, Process, numbered, run, stat, until};

/// A text with long and short lines: this package's own sources, some times over.
fn corpus(at_least: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let sources = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).expect("the sources");
    for source in sources {
        let path = source.expect("an entry").path();
        if path.is_file() {
            text.extend(fs::read(path).expect("a source"));
            text.push(b'\n');
        }
    }
    text.repeat(at_least / text.len() + 1)
}

/// Bytes of every kind, the same on each run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| next()).collect()
}

#[test]
fn a_text_comes_out_of_every_reader_as_it_went_in() {
    let place = Place::created(&["--capacity", "256KiB"]);
    let bus = place.bus();
    let text = corpus(4 << 20);
    let mut readers: Vec<_> =
        [&[][..], &["--class", "pinned"], &["--name", "named"], &["--name", "p", "--class", "pinned"]]
            .into_iter()
            .map(|extra| Process::spawn(&[&["--json", "sub", &bus], extra].concat()))
            .collect();
    for reader in &mut readers {
        reader.expect("attached");
    }
    let ran = run(&["--json", "pub", &bus, "--policy", "wait"], &text);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let lines = text.iter().filter(|&&byte| byte == b'\n').count();
    let summary = ran.last();
    assert_eq!(
        (&summary["published"], &summary["first"], &summary["last"]),
        (&json!(lines), &json!(0), &json!(lines - 1))
    );
    for reader in readers {
        let ran = reader.end();
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(ran.stdout == text, "{} bytes of {}: {}", ran.stdout.len(), text.len(), ran.stderr);
    }
}

/// Publishes to a new bus, then reads all of it.
fn through(input: &[u8], into: &[&str], out: &[&str]) -> Vec<u8> {
    let place = Place::created(&[]);
    let bus = place.bus();
    let ran = run(&[&["--json", "pub", &bus], into].concat(), input);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let ran = run(&[&["--json", "sub", &bus, "--from", "oldest"], out].concat(), b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    ran.stdout
}

#[test]
fn every_frame_keeps_its_records() {
    for text in ["", "\n", "a\n", "\n\nb\r\n\n"] {
        assert_eq!(through(text.as_bytes(), &[], &[]), text.as_bytes(), "{text:?}");
    }
    assert_eq!(through(b"a\nlast", &[], &[]), b"a\nlast\n");
    assert_eq!(through(b"a\nlast", &[], &["--frame", "raw"]), b"alast");
    assert_eq!(through(b"a\n\nb\n", &[], &["--with-seq"]), b"0\ta\n1\t\n2\tb\n");

    let noise = noise(600_000);
    assert!(through(&noise[..64_000], &["--frame", "fixed:64"], &["--frame", "raw"]) == noise[..64_000]);
    let mut framed = Vec::new();
    let mut rest = &noise[..];
    for length in (0..).map(|n| n * n * 7 % 70_001) {
        let length = rest.len().min(length);
        framed.extend((length as u32).to_le_bytes());
        framed.extend(&rest[..length]);
        rest = &rest[length..];
        if rest.is_empty() {
            break;
        }
    }
    assert!(through(&framed, &["--frame", "len32"], &["--frame", "len32"]) == framed);
}

#[test]
fn broken_input_is_a_clear_error_after_what_was_whole() {
    let huge = [b'x'; 5000];
    for (input, frame, words) in [
        (&b"\x01\0\0\0a\x02\0"[..], "len32", "input record 2: the input ends after 2 of the 4 bytes of its length"),
        (b"\x01\0\0\0a\x05\0\0\0ab", "len32", "input record 2: the input ends after 2 of its 5 bytes"),
        (b"\x01\0\0\0a\xff\xff\xff\xff", "len32", "4,294,967,295 bytes is too large, this bus takes 1,008"),
        (b"aab", "fixed:2", "input record 2: the input ends after 1 of its 2 bytes"),
        (&[b"a\n", &huge[..]].concat(), "lines", "is too large, this bus takes 1,008"),
    ] {
        let place = Place::created(&["--capacity", "4KiB"]);
        let bus = place.bus();
        let ran = run(&["--json", "pub", &bus, "--frame", frame], input);
        assert_eq!(ran.code, 1, "{}", ran.stderr);
        let message = ran.event("error")["message"].as_str().expect("words").to_owned();
        assert!(message.contains(words), "{message}");
        assert_eq!((&ran.last()["event"], &ran.last()["published"]), (&json!("summary"), &json!(1)));
        // Readers are told that it did not end well.
        let ran = run(&["--json", "sub", &bus, "--from", "oldest"], b"");
        assert_eq!((ran.code, ran.stdout.len() - 1), (0, if frame == "fixed:2" { 2 } else { 1 }));
        assert_eq!(ran.event("closed")["code"], 1);
    }
    let place = Place::created(&["--capacity", "4KiB"]);
    let ran = run(&["pub", &place.bus(), "--frame", "fixed:1009"], &[0; 2000]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("1,009 bytes") && ran.stderr.contains("1,008"), "{}", ran.stderr);
}

#[test]
fn a_lone_line_is_not_kept_back() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let (mut reader, output) = Process::with_output(&["--json", "sub", &bus]);
    reader.expect("attached");
    let mut output = BufReader::new(output);
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    let mut stdin = writer.stdin.take().expect("it is piped");
    for n in 0..20 {
        // The next line goes in only when the last one has come out.
        writeln!(stdin, "line {n}").expect("the writer lives");
        let mut line = String::new();
        output.read_line(&mut line).expect("the reader lives");
        assert_eq!(line, format!("line {n}\n"));
    }
    drop(stdin);
    assert_eq!((writer.end().code, reader.end().code), (0, 0));
}

#[test]
fn a_rate_is_not_exceeded() {
    let place = Place::created(&[]);
    let started = Instant::now();
    let ran = run(&["--json", "pub", &place.bus(), "--rate", "100"], &numbered(31));
    assert_eq!((ran.code, &ran.last()["published"]), (0, &json!(31)));
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[test]
fn pub_creates_only_when_told_to_and_sub_waits_for_it() {
    let place = Place::new();
    let bus = place.bus();
    let reader = Process::spawn(&["--json", "sub", &bus, "--from", "oldest", "--wait-for-bus", "none"]);
    let ran = run(&["--json", "pub", &bus, "--create", "--capacity", "64KiB"], b"x\n");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(reader.end().stdout, b"x\n");
    assert_eq!(stat(&bus)["capacity"], 65536);
    // The bus that is there stands.
    assert_eq!(run(&["pub", &bus, "--create"], b"y\n").code, 0);
    assert_eq!(stat(&bus)["capacity"], 65536);
}

#[test]
fn the_end_of_the_stream_and_the_absence_of_a_writer_are_two_things() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let ran = run(&["--json", "pub", &bus, "--keep-open"], b"a\nb\n");
    assert_eq!((ran.code, &ran.last()["closed"]), (0, &json!(false)));
    assert_eq!(stat(&bus)["writer"]["state"], "absent");
    let ran = run(&["--json", "sub", &bus, "--from", "oldest", "--until-absent"], b"");
    assert_eq!((ran.code, ran.stdout.as_slice()), (4, &b"a\nb\n"[..]), "{}", ran.stderr);
    assert_eq!(ran.event("writer_absent")["sequence"], 2);

    let mut reader = Process::spawn(&["--json", "sub", &bus, "--from", "after:0"]);
    reader.expect("writer_absent");
    let ran = run(&["--json", "pub", &bus], b"c\n");
    assert_eq!((ran.code, &ran.last()["first"], &ran.last()["closed"]), (0, &json!(2), &json!(true)));
    let ran = reader.end();
    assert_eq!((ran.code, ran.stdout.as_slice()), (0, &b"b\nc\n"[..]), "{}", ran.stderr);
    assert_eq!(ran.event("takeover")["sequence"], 2);
    assert_eq!((&ran.event("closed")["sequence"], &ran.event("closed")["code"]), (&json!(3), &json!(0)));
    assert_eq!(stat(&bus)["writer"]["state"], "closed");
}

#[test]
fn count_ends_after_so_many() {
    let place = Place::created(&[]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus], &numbered(100)).code, 0);
    let args = ["--json", "sub", &bus, "--from", "oldest", "--name", "counting", "--count", "7"];
    let ran = run(&args, b"");
    assert_eq!((ran.code, ran.stdout), (0, numbered(7)), "{}", ran.stderr);
    assert_eq!(stat(&bus)["readers"][0]["delivered"], 7);
    let ran = run(&["--json", "sub", &bus, "--from", "resume", "--name", "counting"], b"");
    assert!(ran.event("attached").get("passed_over").is_none());
    assert_eq!((ran.code, ran.stdout), (0, numbered(100)[numbered(7).len()..].to_vec()), "{}", ran.stderr);
}

#[test]
fn a_name_that_does_not_resume_is_told_what_it_passes_over() {
    let place = Place::created(&[]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus], &numbered(100)).code, 0);
    let args = ["--json", "sub", &bus, "--name", "kept", "--hold-while-away"];
    assert_eq!(run(&[&args[..], &["--from", "oldest", "--count", "7"]].concat(), b"").code, 0);
    let ran = run(&args, b"");
    assert_eq!((ran.code, ran.stdout.len()), (0, 0), "{}", ran.stderr);
    assert_eq!(ran.event("attached")["passed_over"], json!({"first": 7, "end": 100, "count": 93}));
}

#[test]
fn a_killed_reader_resumes_with_repeats_and_without_a_hole() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    let total = 60_000;
    let text = numbered(total);
    let args = ["--json", "sub", &bus, "--name", "phoenix", "--hold-while-away", "--with-seq"];
    let mut reader = Process::spawn(&args);
    reader.expect("attached");
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    let mut stdin = writer.stdin.take().expect("it is piped");
    let feeder = std::thread::spawn(move || stdin.write_all(&text));
    let mut outputs = Vec::new();
    for round in 1..=5 {
        until(&bus, "it reads on", |stat| stat["readers"][0]["delivered"].as_u64() > Some(round * total / 8));
        outputs.push(reader.kill());
        reader = Process::spawn(&[&args[..], &["--from", "resume"]].concat());
        reader.expect("attached");
    }
    assert_eq!(writer.end().code, 0);
    feeder.join().expect("it ends").expect("the writer read it all");
    let ran = reader.end();
    assert_eq!((ran.code, &ran.last()["missed"]), (0, &json!(0)), "{}", ran.stderr);
    outputs.push(ran.stdout);
    let mut next = 0;
    for output in outputs {
        let whole = output.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in output[..whole].split_inclusive(|&byte| byte == b'\n') {
            let line = std::str::from_utf8(line).expect("text");
            let (sequence, record) = line.split_once('\t').expect("a sequence");
            let sequence: u64 = sequence.parse().expect("a number");
            assert!(sequence <= next, "{next} to {sequence} skipped");
            assert_eq!(record, format!("line {sequence} of this text\n"));
            next = next.max(sequence + 1);
        }
    }
    assert_eq!(next, total);
    let books = &stat(&bus)["readers"][0];
    assert_eq!((&books["delivered"], &books["missed"], &books["pending"]), (&json!(total), &json!(0), &json!(0)));
}

#[test]
fn a_standby_carries_on_where_the_killed_writer_stopped() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut reader = Process::spawn(&["--json", "sub", &bus]);
    reader.expect("attached");
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    let mut stdin = writer.stdin.take().expect("it is piped");
    stdin.write_all(&numbered(50)).expect("the writer lives");
    until(&bus, "all is published", |stat| stat["sequence"] == 50);

    let second = run(&["pub", &bus], b"never\n");
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains(&writer.pid().to_string()), "{}", second.stderr);

    let mut standby = Process::spawn(&["--json", "pub", &bus, "--standby"]);
    standby
        .stdin
        .take()
        .expect("it is piped")
        .write_all(&numbered(100)[numbered(50).len()..])
        .expect("a pipe has room");
    writer.kill();
    assert_eq!(standby.expect("takeover")["sequence"], 50);
    assert_eq!(standby.end().code, 0);
    let ran = reader.end();
    assert_eq!((ran.code, ran.stdout), (0, numbered(100)), "{}", ran.stderr);
}

#[test]
fn of_standbys_that_start_at_once_one_creates_the_bus_and_the_others_follow() {
    for _ in 0..5 {
        let place = Place::new();
        let bus = place.bus();
        // Large enough for the creation to take a while.
        let args = ["--json", "pub", &bus, "--create", "--standby", "--keep-open", "--capacity", "64MiB"];
        let mut writers: Vec<_> = (0..3).map(|_| Process::spawn(&args)).collect();
        for writer in &mut writers {
            // Dropped at once, so that whoever is first makes way.
            writer.stdin.take().expect("it is piped").write_all(b"a\n").expect("a pipe has room");
        }
        let first = |writer: Process| {
            let ran = writer.end();
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            ran.last()["first"].as_u64().expect("a sequence")
        };
        let mut firsts: Vec<_> = writers.into_iter().map(first).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2]);
    }
}

#[test]
fn lossy_readers_and_observers_are_told_their_gaps_and_end_with_5() {
    for class in ["lossy", "observer"] {
        let place = Place::created(&["--capacity", "4KiB"]);
        let bus = place.bus();
        let mut reader = Process::spawn(&["--json", "sub", &bus, "--class", class, "--with-seq"]);
        reader.expect("attached");
        reader.signal(Signal::SIGSTOP);
        assert_eq!(run(&["pub", &bus, "--policy", "refuse"], &numbered(1000)).code, 0);
        reader.signal(Signal::SIGCONT);
        let ran = reader.end();
        assert_eq!(ran.code, 5, "{}", ran.stderr);
        let events = support::Ran::events(&ran.stderr);
        let missed: u64 = events
            .iter()
            .filter(|event| event["event"] == "gap")
            .map(|gap| gap["count"].as_u64().expect("a count"))
            .sum();
        let delivered = ran.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64;
        assert_eq!((missed + delivered, &ran.last()["missed"]), (1000, &json!(missed)), "{}", ran.stderr);
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let place = Place::created(&[]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus, "--keep-open"], &numbered(50_000)).code, 0);
    for args in [vec!["sub", &bus, "--from", "oldest"], vec!["stat", &bus], vec!["--json", "stat", &bus]] {
        let (process, output) = Process::with_output(&args);
        drop(output);
        let ran = process.end();
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.stderr);
        let noise = ran.stderr.lines().filter(|line| !line.contains("attached")).count();
        assert_eq!(noise, 0, "{}", ran.stderr);
    }
    // The records that nobody took come again.
    let (process, mut output) = Process::with_output(&["sub", &bus, "--from", "oldest", "--name", "cut"]);
    output.read_exact(&mut [0; 100]).expect("records");
    drop(output);
    assert_eq!(process.end().code, 0);
    let delivered = stat(&bus)["readers"][0]["delivered"].as_u64().expect("a number");
    let pipe = 1 << 20;
    assert!(delivered < pipe / 10, "{delivered} of 50,000 through a pipe that nobody read");
}

#[test]
fn a_reader_that_waits_notices_that_nobody_takes_its_output() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    until(&bus, "there is a writer", |stat| stat["writer"]["state"] == "alive");
    let (mut reader, output) = Process::with_output(&["--json", "sub", &bus]);
    reader.expect("attached");
    drop(output);
    assert_eq!(reader.end().code, 0);
    assert_eq!(stat(&bus)["readers"], json!([]));
    drop(writer.stdin.take());
    assert_eq!(writer.end().code, 0);
}

#[test]
fn an_output_that_fails_is_an_error_and_commits_nothing() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let Ok(full) = full else {
        eprintln!("skipped: no /dev/full here");
        return;
    };
    let place = Place::created(&[]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus], b"a\n").code, 0);
    let args = ["--json", "sub", &bus, "--from", "oldest", "--name", "full"];
    let (process, _) = Process::to(&args, Stdio::from(full));
    let ran = process.end();
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.event("error")["message"].as_str().expect("words").contains("standard output"));
    assert_eq!((&ran.last()["delivered"], &ran.last()["next"]), (&json!(0), &json!(0)), "{}", ran.stderr);
    assert_eq!(stat(&bus)["readers"][0]["delivered"], 0);
}

#[test]
fn an_output_that_was_closed_before_the_start_takes_nothing() {
    let place = Place::created(&[]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus], b"a\n").code, 0);
    for (args, code) in [
        (vec!["sub", &bus, "--from", "oldest", "--name", "closed"], 1),
        (vec!["stat", &bus], 1),
        (vec!["readers", &bus], 1),
        (vec!["pub", &bus], 0),
    ] {
        let script = "exec \"$@\" >&-";
        let mut command = Command::new("sh");
        let shell = command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_lapwing")]).args(&args);
        let output = shell.stdin(Stdio::null()).output().expect("a shell");
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {words}");
        assert_eq!(words.contains("standard output is closed"), code == 1, "{args:?}: {words}");
    }
    assert_eq!(stat(&bus)["readers"], json!([]));
    // Nothing was closed here, though it ends in the same place.
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").expect("the null device");
    let (process, _) = Process::to(&["--json", "sub", &bus, "--from", "oldest"], Stdio::from(null));
    let ran = process.end();
    assert_eq!((ran.code, &ran.last()["delivered"]), (0, &json!(1)), "{}", ran.stderr);
}

#[test]
fn signals_end_both_sides_cleanly() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let place = Place::created(&[]);
        let bus = place.bus();
        let mut reader = Process::spawn(&["--json", "sub", &bus, "--name", "kept"]);
        reader.expect("attached");
        let mut writer = Process::spawn(&["--json", "pub", &bus]);
        let mut stdin = writer.stdin.take().expect("it is piped");
        stdin.write_all(b"a\nb\nunfinished").expect("the writer lives");
        until(&bus, "both are handled", |stat| stat["readers"][0]["delivered"] == 2);
        reader.signal(signal);
        let ran = reader.end();
        assert_eq!((ran.code, ran.stdout), (0, b"a\nb\n".to_vec()), "{}", ran.stderr);
        writer.signal(signal);
        let ran = writer.end();
        assert_eq!((ran.code, &ran.last()["published"]), (0, &json!(2)), "{}", ran.stderr);
        let after = stat(&bus);
        assert_eq!((&after["writer"]["state"], &after["readers"][0]["state"]), (&json!("closed"), &json!("detached")));
    }
}

#[test]
fn removing_or_replacing_the_bus_is_told_to_readers() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut reader = Process::spawn(&["--json", "sub", &bus]);
    reader.expect("attached");
    assert_eq!(run(&["rm", &bus], b"").code, 0);
    reader.expect("replaced");
    assert_eq!(reader.end().code, 3);
}

#[test]
fn a_signal_also_ends_who_waits_for_the_other_side() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    // The output is taken by nobody, so the reader gets stuck in it, and then the writer in the reader.
    let (mut reader, output) = Process::with_output(&["--json", "sub", &bus, "--name", "stuck"]);
    reader.expect("attached");
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    let mut stdin = writer.stdin.take().expect("it is piped");
    let feeder = std::thread::spawn(move || stdin.write_all(&numbered(100_000)));
    writer.expect("overrun");
    // Stuck for good: the writer has slept many times, and the reader has not moved.
    let (mut delivered, mut waits) = (u64::MAX, 0);
    until(&bus, "both are stuck", |stat| {
        let now = stat["readers"][0]["delivered"].as_u64().expect("a number");
        let waited = stat["stats"]["waits"].as_u64().expect("a number");
        if now != delivered {
            (delivered, waits) = (now, waited);
        }
        waited >= waits + 100
    });
    writer.signal(Signal::SIGTERM);
    let ran = writer.end();
    assert_eq!((ran.code, &ran.last()["event"]), (1, &json!("summary")), "{}", ran.stderr);
    let published = ran.last()["published"].clone();
    assert!(feeder.join().expect("it ends").is_err());
    reader.signal(Signal::SIGTERM);
    assert_eq!(reader.end().code, 1);
    drop(output);
    let ran = run(&["--json", "sub", &bus, "--name", "stuck", "--from", "resume"], b"");
    assert_eq!((ran.code, &ran.last()["missed"], &ran.last()["next"]), (0, &json!(0), &published), "{}", ran.stderr);
}
