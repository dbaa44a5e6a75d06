//! The command's contract: exit codes, JSON fields, and what each report says.

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use support::{Place, Process, numbered, run, stat, until};

fn fields(value: &Value, names: &[&str]) {
    for name in names {
        assert!(value.get(name).is_some(), "no {name} in {value}");
    }
}

const READER: [&str; 12] = [
    "id",
    "name",
    "pid",
    "class",
    "state",
    "lag_records",
    "lag_bytes",
    "alive",
    "evictable",
    "delivered",
    "missed",
    "pending",
];

#[test]
fn a_missing_bus_is_exit_code_3() {
    let place = Place::new();
    let bus = place.bus();
    for args in [
        vec!["pub", &bus],
        vec!["pub", &bus, "--standby"],
        vec!["sub", &bus],
        vec!["sub", &bus, "--class", "observer"],
        vec!["sub", &bus, "--wait-for-bus", "20ms"],
        vec!["stat", &bus],
        vec!["readers", &bus],
        vec!["evict", &bus, "1"],
        vec!["forget", &bus, "x"],
        vec!["reap", &bus],
        vec!["rm", &bus],
    ] {
        let ran = run(&args, b"");
        assert_eq!((ran.code, ran.stdout), (3, vec![]), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(&bus), "{args:?}: {}", ran.stderr);
        let ran = run(&[&["--json"], &args[..]].concat(), b"");
        assert_eq!((ran.last()["event"].clone(), ran.last()["code"].clone()), (json!("error"), json!(3)));
    }
}

#[test]
fn words_and_values_out_of_range_are_exit_code_2_and_touch_nothing() {
    let place = Place::new();
    let bus = place.bus();
    for args in [
        vec![],
        vec!["fly"],
        vec!["create"],
        vec!["create", &bus, "--capacity", "0"],
        vec!["create", &bus, "--capacity", "3MiB"],
        vec!["create", &bus, "--capacity", "4MB"],
        vec!["create", &bus, "--capacity", "2TiB"],
        vec!["create", &bus, "--readers", "0"],
        vec!["create", &bus, "--readers", "65537"],
        vec!["create", &bus, "--mode", "777"],
        vec!["create", &bus, "--mode", "9"],
        vec!["create", &bus, "--schema", "x"],
        vec!["pub", &bus, "--policy", "hope"],
        vec!["pub", &bus, "--timeout", "5"],
        vec!["pub", &bus, "--policy", "evict", "--timeout", "5s"],
        vec!["pub", &bus, "--frame", "fixed:0"],
        vec!["pub", &bus, "--frame", "raw"],
        vec!["pub", &bus, "--rate", "0"],
        vec!["pub", &bus, "--capacity", "8MiB"],
        vec!["sub", &bus, "--class", "eager"],
        vec!["sub", &bus, "--from", "after:x"],
        vec!["sub", &bus, "--from", "resume"],
        vec!["sub", &bus, "--from", "resume", "--class", "observer"],
        vec!["sub", &bus, "--name", "x", "--class", "observer"],
        vec!["sub", &bus, "--hold-while-away"],
        vec!["sub", &bus, "--count", "0"],
        vec!["sub", &bus, "--frame", "fixed:8"],
    ] {
        let ran = run(&args, b"");
        assert_eq!((ran.code, ran.stdout), (2, vec![]), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(fs::read_dir(place.path("")).expect("the place").count(), 0);
}

#[test]
fn names_out_of_range_are_exit_code_2() {
    let place = Place::created(&[]);
    for name in ["", "a\nb", &"x".repeat(65)] {
        let ran = run(&["sub", &place.bus(), "--name", name], b"");
        assert_eq!(ran.code, 2, "{name:?}: {}", ran.stderr);
    }
}

#[test]
fn what_is_no_bus_is_exit_code_6_and_stays_as_it_is() {
    let place = Place::created(&[]);
    let good = fs::read(place.bus()).expect("the ring");
    let write = |name: &str, bytes: &[u8]| {
        let path = place.path(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let mut flipped = good.clone();
    flipped[8] ^= 0xff;
    let directory = place.path("directory");
    fs::create_dir(&directory).expect("a directory");
    let link = place.path("link");
    std::os::unix::fs::symlink(place.bus(), &link).expect("a link");
    let fifo = place.path("fifo");
    nix::unistd::mkfifo(fifo.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    for path in [
        write("empty", b""),
        write("text", b"This is a text and not a bus.\n".repeat(1000).as_slice()),
        write("short", &good[..good.len() / 2]),
        write("header", &good[..512]),
        write("flipped", &flipped),
        directory,
        link,
        fifo,
    ] {
        let before = fs::metadata(&path).expect("it is there").modified().expect("a time");
        for args in [vec!["stat", &path], vec!["sub", &path], vec!["pub", &path], vec!["rm", &path]] {
            // Whether a bus that is damaged behind its mark may be removed is for the library to say.
            let ran = run(&args, b"");
            if args[0] == "rm" && ran.code == 0 {
                assert!(path.ends_with("short") || path.ends_with("flipped"), "{path} was removed");
                continue;
            }
            assert_eq!((ran.code, ran.stdout), (6, vec![]), "{args:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(&path), "{args:?}: {}", ran.stderr);
            assert_eq!(fs::symlink_metadata(&path).map(|_| ()).ok(), Some(()));
            assert_eq!(fs::metadata(&path).expect("it is there").modified().expect("a time"), before, "{args:?}");
        }
    }
}

#[test]
fn create_stat_and_rm() {
    let place = Place::new();
    let bus = place.bus();
    let options = ["--capacity", "64KiB", "--readers", "3", "--mode", "640", "--schema", "0x2a", "--no-pinned"];
    let ran = run(&[&["--json", "create", &bus], &options[..]].concat(), b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert_eq!(ran.json(), json!({"event": "created", "path": bus, "capacity": 65536, "readers": 3, "schema": 42}));
    assert_eq!(fs::metadata(&bus).expect("the ring").permissions().mode() & 0o777, 0o640);
    let again = run(&["create", &bus], b"");
    assert_eq!(again.code, 1, "{}", again.stderr);

    let stat = stat(&bus);
    fields(
        &stat,
        &["writer", "head", "limit", "capacity", "sequence", "oldest", "readers", "stats", "schema", "slots"],
    );
    fields(&stat["writer"], &["pid", "epoch", "state"]);
    assert_eq!((&stat["capacity"], &stat["sequence"], &stat["readers"]), (&json!(65536), &json!(0), &json!([])));
    assert_eq!((&stat["pinned_allowed"], &stat["schema"]), (&json!(false), &json!(42)));
    assert_eq!(run(&["sub", &bus, "--class", "pinned"], b"").code, 1);

    let words = run(&["stat", &bus], b"");
    assert!(String::from_utf8_lossy(&words.stdout).contains("64 KiB"));
    assert_eq!(run(&["--json", "rm", &bus], b"").json(), json!({"event": "removed", "path": bus}));
    assert_eq!(fs::read_dir(place.path("")).expect("the place").count(), 0);
    let nowhere = place.path("no/bus");
    assert_eq!(run(&["create", &nowhere], b"").code, 1);
}

#[test]
fn readers_are_listed_with_every_field() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut named = Process::spawn(&["--json", "sub", &bus, "--name", "one", "--hold-while-away"]);
    let attached = named.expect("attached");
    let mut lossy = Process::spawn(&["--json", "sub", &bus, "--class", "lossy"]);
    lossy.expect("attached");
    let listed = run(&["--json", "readers", &bus], b"");
    let lines: Vec<Value> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).expect("one object a line"))
        .collect();
    assert_eq!(lines.len(), 2);
    // They sleep and wake meanwhile.
    let at_rest = |reader: &Value| {
        let mut reader = reader.clone();
        reader["waits"] = Value::Null;
        reader
    };
    let told: Vec<Value> = stat(&bus)["readers"].as_array().expect("a list").iter().map(at_rest).collect();
    assert_eq!(lines.iter().map(at_rest).collect::<Vec<_>>(), told);
    lines.iter().for_each(|reader| fields(reader, &READER));
    let one = lines.iter().find(|reader| reader["name"] == "one").expect("the named one");
    assert_eq!((&one["id"], &one["pid"]), (&attached["id"], &json!(named.pid())));
    assert_eq!((&one["class"], &one["state"], &one["alive"]), (&json!("gating"), &json!("active"), &json!(true)));
    let words = String::from_utf8_lossy(&run(&["readers", &bus], b"").stdout).into_owned();
    assert!(words.contains("one") && words.contains("lossy") && words.lines().count() == 3, "{words}");

    // Its name is taken while it lives, and kept when it is gone.
    let second = run(&["--json", "sub", &bus, "--name", "one"], b"");
    assert_eq!(second.code, 1);
    assert!(second.last()["message"].as_str().expect("words").contains(&named.pid().to_string()));
    named.signal(Signal::SIGTERM);
    assert_eq!(named.end().code, 0);
    let away = &stat(&bus)["readers"];
    let one = away.as_array().expect("a list").iter().find(|reader| reader["name"] == "one").expect("its slot");
    assert_eq!((&one["state"], &one["alive"]), (&json!("detached"), &json!(false)));
    let forgotten = run(&["--json", "forget", &bus, "one"], b"");
    assert_eq!((forgotten.code, forgotten.json()), (0, json!({"event": "forgotten", "name": "one"})));
    assert_eq!(run(&["forget", &bus, "one"], b"").code, 1);
}

/// A bus with a stopped reader that the writer will be in trouble with.
fn stopped(extra: &[&str]) -> (Place, Process) {
    let place = Place::created(&["--capacity", "64KiB"]);
    let mut reader = Process::spawn(&[&["--json", "sub", &place.bus(), "--name", "stopped"], extra].concat());
    reader.expect("attached");
    reader.signal(Signal::SIGSTOP);
    (place, reader)
}

fn names_the_stopped_one(overrun: &Value, reader: &Process) {
    fields(overrun, &["sequence", "readers"]);
    let readers = overrun["readers"].as_array().expect("a list");
    assert_eq!(readers.len(), 1, "{overrun}");
    fields(&readers[0], &READER);
    assert_eq!((&readers[0]["name"], &readers[0]["pid"]), (&json!("stopped"), &json!(reader.pid())));
    assert_eq!((&readers[0]["alive"], &readers[0]["evictable"]), (&json!(true), &json!(true)));
    assert!(readers[0]["lag_bytes"].as_u64() > Some(60_000) && readers[0]["lag_records"].as_u64() > Some(0));
}

#[test]
fn refuse_names_the_reader_and_is_exit_code_7() {
    let (place, reader) = stopped(&[]);
    let input = numbered(10_000);
    let ran = run(&["--json", "pub", &place.bus(), "--policy", "refuse", "--keep-open"], &input);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let overrun = ran.event("overrun");
    names_the_stopped_one(&overrun, &reader);
    assert_eq!(overrun["outcome"], "refused");
    assert_eq!(ran.stderr.matches("\"overrun\"").count(), 1, "{}", ran.stderr);
    let summary = ran.last();
    assert_eq!((&summary["event"], &summary["published"]), (&json!("summary"), &overrun["sequence"]));
    assert_eq!(stat(&place.bus())["sequence"], overrun["sequence"]);
}

#[test]
fn wait_reports_at_once_and_again_at_its_deadline() {
    let (place, reader) = stopped(&[]);
    let args = ["--json", "pub", &place.bus(), "--policy", "wait", "--timeout", "300ms", "--keep-open"];
    let ran = run(&args, &numbered(10_000));
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    let overruns: Vec<Value> =
        support::Ran::events(&ran.stderr).into_iter().filter(|event| event["event"] == "overrun").collect();
    assert_eq!(overruns.len(), 2, "{}", ran.stderr);
    overruns.iter().for_each(|overrun| names_the_stopped_one(overrun, &reader));
    assert_eq!((&overruns[0]["outcome"], &overruns[1]["outcome"]), (&json!("waiting"), &json!("timeout")));
    assert!(overruns[1]["waited_ms"].as_u64() >= Some(300));
    let warnings = ran.stderr.matches("\"warning\"").count();
    assert!((1..=3).contains(&warnings), "{}", ran.stderr);
}

#[test]
fn wait_goes_on_once_the_reader_does() {
    let (place, reader) = stopped(&[]);
    let input = numbered(10_000);
    let mut writer = Process::spawn(&["--json", "pub", &place.bus()]);
    let mut stdin = writer.stdin.take().expect("it is piped");
    let sent = input.clone();
    let feeder = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent));
    names_the_stopped_one(&writer.expect("overrun"), &reader);
    reader.signal(Signal::SIGCONT);
    assert_eq!(writer.end().code, 0);
    feeder.join().expect("it ends").expect("the writer read it all");
    let ran = reader.end();
    assert_eq!((ran.code, ran.stdout == input), (0, true), "{}", ran.stderr);
}

#[test]
fn evict_goes_on_and_both_sides_know_what_was_lost() {
    let (place, mut reader) = stopped(&["--with-seq"]);
    let ran = run(&["--json", "pub", &place.bus(), "--policy", "evict"], &numbered(10_000));
    assert_eq!((ran.code, &ran.last()["published"]), (0, &json!(10_000)), "{}", ran.stderr);
    let evicted = ran.event("evicted");
    assert_eq!(evicted["reader"]["name"], "stopped");
    fields(&evicted["at_most"], &["first", "end", "count"]);

    reader.signal(Signal::SIGCONT);
    let gap = reader.expect("gap");
    let (first, end) = (gap["first"].as_u64().expect("a number"), gap["end"].as_u64().expect("a number"));
    assert_eq!(gap["count"], json!(end - first));
    let id = reader.pid();
    let ran = reader.end();
    assert_eq!(ran.code, 5, "{}", ran.stderr);
    let sequences: Vec<u64> = String::from_utf8_lossy(&ran.stdout)
        .lines()
        .map(|line| line.split_once('\t').and_then(|(sequence, _)| sequence.parse().ok()).expect("a sequence"))
        .collect();
    assert_eq!(sequences, (0..first).chain(end..10_000).collect::<Vec<_>>());
    let summary = ran.last();
    assert_eq!((&summary["delivered"], &summary["missed"]), (&json!(sequences.len()), &json!(end - first)));
    // The bus says the same.
    let books = stat(&place.bus())["readers"][0].clone();
    assert_eq!((&books["pid"], &books["state"]), (&json!(id), &json!("detached")));
    assert_eq!((&books["delivered"], &books["missed"]), (&summary["delivered"], &summary["missed"]));
    assert_eq!(books["pending"], 0);
}

#[test]
fn evict_by_name_or_id_lets_the_reader_go_on_where_it_was() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut reader = Process::spawn(&["--json", "sub", &bus, "--name", "7th"]);
    let id = reader.expect("attached")["id"].to_string();
    let mut writer = Process::spawn(&["--json", "pub", &bus]);
    for word in ["7th", id.as_str()] {
        let ran = run(&["--json", "evict", &bus, word], b"");
        assert_eq!((ran.code, &ran.json()["event"]), (0, &json!("evicted")), "{}", ran.stderr);
        assert_eq!(ran.json()["reader"]["name"], "7th");
        reader.expect("evicted");
        until(&bus, "it rejoins", |stat| stat["readers"][0]["state"] == "active");
    }
    assert_eq!(run(&["evict", &bus, "nobody"], b"").code, 1);
    let mut stdin = writer.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, b"a\nb\n").expect("the writer lives");
    drop(stdin);
    assert_eq!(writer.end().code, 0);
    let ran = reader.end();
    assert_eq!((ran.code, ran.stdout), (0, b"a\nb\n".to_vec()), "{}", ran.stderr);
}

#[test]
fn a_killed_reader_is_reaped_by_command_or_by_a_writer_in_need() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    let dead = || {
        let mut reader = Process::spawn(&["--json", "sub", &bus]);
        let id = reader.expect("attached")["id"].clone();
        reader.kill();
        id
    };
    let id = dead();
    assert_eq!(stat(&bus)["readers"][0]["alive"], false);
    let ran = run(&["--json", "reap", &bus], b"");
    let events = support::Ran::events(&String::from_utf8_lossy(&ran.stdout));
    assert_eq!((&events[0]["event"], &events[0]["reader"]["id"]), (&json!("reaped"), &id));
    assert_eq!((&events[1]["event"], &events[1]["reaped"]), (&json!("summary"), &json!(1)));
    assert_eq!(stat(&bus)["readers"], json!([]));

    let id = dead();
    let ran = run(&["--json", "pub", &bus, "--policy", "refuse"], &numbered(10_000));
    assert_eq!((ran.code, &ran.event("reaped")["reader"]["id"]), (0, &id), "{}", ran.stderr);
}

#[test]
fn a_full_table_is_told_with_its_numbers() {
    let place = Place::created(&["--readers", "1"]);
    let mut reader = Process::spawn(&["--json", "sub", &place.bus()]);
    reader.expect("attached");
    let ran = run(&["sub", &place.bus()], b"");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("all 1 reader slots"), "{}", ran.stderr);
}

#[test]
fn a_future_sequence_is_an_error_with_both_numbers() {
    let place = Place::created(&[]);
    for sequence in ["0", "41", "18446744073709551615"] {
        let ran = run(&["sub", &place.bus(), "--from", &format!("after:{sequence}")], b"");
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(&format!("sequence {sequence}")), "{}", ran.stderr);
    }
}

#[test]
fn help_and_version_are_fine() {
    for word in ["create", "pub", "sub", "stat", "readers", "evict", "forget", "reap", "rm", "demo"] {
        let ran = run(&[word, "--help"], b"");
        assert_eq!(ran.code, 0, "{word}");
    }
    let help = String::from_utf8_lossy(&run(&["pub", "--help"], b"").stdout).into_owned();
    assert!(help.contains("--timeout") && help.contains("[default: none]") && help.contains("[default: wait]"));
    assert_eq!(run(&["--version"], b"").code, 0);
}
