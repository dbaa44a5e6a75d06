//! Operating a bus: `stat` with its checks, `ls`, `watch` and `inspect`, and the schemas of what they tell.

mod support;

use lapwing::{Next, Options, Policy, Reader, Start, Writer};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use support::schema::{self, Schema};
use support::{Lines, Place, Process, Ran, numbered, run, stat, until};

#[test]
fn every_schema_is_sound_and_that_of_a_command() {
    let help = String::from_utf8_lossy(&run(&["--help"], b"").stdout).into_owned();
    for name in schema::names() {
        let command = name.strip_suffix(".json").expect("only schemas");
        Schema::of(command);
        let known = help.lines().any(|line| line.split_whitespace().next() == Some(command));
        assert!(known || command == "common", "{command} is no command");
    }
}

#[test]
fn a_line_that_a_schema_does_not_know_is_refused() {
    let told = |line: Value| std::panic::catch_unwind(|| Schema::of("ls").check(&line.to_string())).is_ok();
    let line = json!({"path": "b", "capacity": 4096, "sequence": 0, "writer": null, "registered": 0, "served": 0, "error": null});
    assert!(told(line.clone()));
    for (field, value) in [("capacity", json!("4096")), ("renamed", json!(1)), ("sequence", json!(-1))] {
        let mut wrong = line.clone();
        wrong[field] = value;
        assert!(!told(wrong), "{field}");
    }
    let mut short = line;
    short.as_object_mut().expect("an object").remove("served");
    assert!(!told(short));
}

#[test]
fn stat_checks_lag_and_progress() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    let mut reader = Process::spawn(&["--json", "sub", &bus, "--name", "sick"]);
    reader.expect("attached");
    let well = run(&["--json", "stat", &bus, "--fail-lag", "10%", "--fail-stalled", "50ms"], b"");
    assert_eq!((well.code, well.stderr.as_str()), (0, ""));
    assert_eq!((&well.json()["registered"], &well.json()["served"]), (&json!(1), &json!(1)));
    reader.signal(Signal::SIGSTOP);
    until(&bus, "it is stopped", |stat| stat["readers"][0]["health"] == "stopped");
    assert_eq!(run(&["stat", &bus, "--fail-lag", "10%"], b"").code, 0);
    let ran = run(&["--json", "pub", &bus, "--policy", "refuse", "--keep-open"], &numbered(450));
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let ran = run(&["--json", "stat", &bus, "--fail-lag", "30%"], b"");
    assert_eq!(ran.code, 8, "{}", ran.stderr);
    let told = ran.event("check_failed");
    assert_eq!((&told["check"], &told["reader"]["name"]), (&json!("lag"), &json!("sick")));
    assert!(told["reader"]["lag_percent"].as_f64() >= Some(30.0), "{told}");
    assert_eq!(ran.json()["readers"][0]["health"], "stopped");
    assert_eq!(run(&["stat", &bus, "--fail-lag", "90%"], b"").code, 0);

    let ran = run(&["--json", "stat", &bus, "--fail-stalled", "100ms"], b"");
    assert_eq!((ran.code, &ran.event("check_failed")["check"]), (8, &json!("stalled")), "{}", ran.stderr);
    assert!(ran.json()["readers"][0]["stuck_ms"].as_u64() >= Some(100), "{}", ran.json());
    let words = run(&["stat", &bus, "--fail-stalled", "100ms"], b"");
    assert!(
        words.stderr.contains("check failed: no progress: reader") && words.stderr.contains("sick"),
        "{}",
        words.stderr
    );
    let ran = run(&["--json", "stat", &bus, "--watch", "--interval", "20ms", "--fail-stalled", "100ms"], b"");
    let lines = Ran::events(&String::from_utf8_lossy(&ran.stdout));
    assert!(ran.code == 8 && lines.len() > 1 && lines[0]["readers"][0]["stuck_ms"] == 0, "{lines:?}");
    reader.signal(Signal::SIGCONT);
    until(&bus, "it reads on", |stat| stat["readers"][0]["pending"] == 0);
    assert_eq!(run(&["stat", &bus, "--fail-lag", "1%", "--fail-stalled", "100ms"], b"").code, 0);
    // Dead and behind is no progress either; evicted and away is no business of this check.
    reader.signal(Signal::SIGSTOP);
    run(&["pub", &bus, "--keep-open"], &numbered(10));
    reader.kill();
    assert_eq!(stat(&bus)["readers"][0]["health"], "dead");
    assert_eq!(run(&["stat", &bus, "--fail-stalled", "50ms"], b"").code, 8);
    run(&["reap", &bus], b"");
    assert_eq!(stat(&bus)["readers"][0]["health"], "detached");
    assert_eq!(run(&["stat", &bus, "--fail-stalled", "50ms", "--fail-lag", "1%"], b"").code, 0);
    for args in [["--fail-lag", "0%"], ["--fail-lag", "101%"], ["--fail-stalled", "5"], ["--lagging", "x"]] {
        assert_eq!(run(&[&["stat", &bus], &args[..]].concat(), b"").code, 2, "{args:?}");
    }
    for args in [&["--fail-lag", "9%", "--lagging", "9%"][..], &["--interval", "1s"]] {
        assert_eq!(run(&[&["stat", &bus], args].concat(), b"").code, 2, "{args:?}");
    }
}

#[test]
fn ls_finds_buses_and_says_which_are_damaged() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let directory = place.path("");
    fs::create_dir(place.path("deep")).expect("a directory");
    let deep = place.path("deep/bus");
    assert_eq!(run(&["create", &deep], b"").code, 0);
    let mut damaged = fs::read(place.bus()).expect("the ring");
    damaged.truncate(6000);
    fs::write(place.path("damaged"), damaged).expect("a file");
    fs::write(place.path("other"), "no bus at all").expect("a file");
    fs::write(place.path("short"), "LAP").expect("a file");
    std::os::unix::fs::symlink(place.bus(), place.path("link")).expect("a link");
    let listed = |args: &[&str]| {
        let ran = run(&[&["--json", "ls", &directory], args].concat(), b"");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        Ran::events(&String::from_utf8_lossy(&ran.stdout))
    };
    let found = listed(&[]);
    let paths: Vec<_> = found.iter().map(|line| line["path"].as_str().expect("a path").to_owned()).collect();
    assert_eq!(paths, [place.bus(), place.path("damaged")]);
    assert_eq!((&found[0]["capacity"], &found[0]["writer"]["state"]), (&json!(65536), &json!("never")));
    assert!(found[1]["error"].as_str().is_some_and(|error| error.contains("length")), "{}", found[1]);
    assert_eq!(listed(&["--recursive"]).len(), 3);
    let words = String::from_utf8_lossy(&run(&["ls", &directory], b"").stdout).into_owned();
    assert!(words.starts_with("BUS") && words.lines().count() == 3, "{words}");
    let nowhere = run(&["--json", "ls", &place.path("nowhere")], b"");
    assert_eq!((nowhere.code, &nowhere.last()["code"]), (1, &json!(1)));
}

#[test]
fn watch_tells_what_happens() {
    let place = Place::new();
    let bus = place.bus();
    assert_eq!(run(&["--json", "watch", &bus], b"").code, 3);
    let mut writer = Options::new().capacity(64 << 10).create(&bus).expect("a bus");
    writer.set_policy(Policy::Refuse);
    let mut watch = Lines::of(&["--json", "watch", &bus, "--interval", "20ms", "--stalled-after", "200ms"]);
    let first = watch.event("watching");
    assert_eq!((&first["registered"], &first["writer"]), (&json!(0), &json!("alive")));

    let mut slow = Process::spawn(&["--json", "sub", &bus, "--name", "slow"]);
    slow.expect("attached");
    let joined = watch.event("joined");
    assert_eq!((&joined["reader"]["name"], &joined["resumed"]), (&json!("slow"), &json!(false)));
    slow.signal(Signal::SIGSTOP);
    let stopped = watch.event("stopped");
    assert_eq!((&stopped["was"], &stopped["reader"]["pid"]), (&json!("live"), &json!(slow.pid())));
    while writer.publish(&[7; 1000]).is_ok() {}
    let warning = watch.event("warning");
    assert!(warning["percent"].as_u64() >= Some(50), "{warning}");
    // In whichever order the looks see them.
    let overrun = if watch.said.contains("\"overrun\"") { json!({"coalesced": 0}) } else { watch.event("overrun") };
    assert!(overrun["coalesced"].is_u64());
    assert_eq!(run(&["evict", &bus, "slow"], b"").code, 0);
    assert_eq!(watch.event("evicted")["reader"]["name"], "slow");
    while !writer.publish(&[8; 1000]).is_ok_and(|sequence| sequence > 200) {}
    slow.signal(Signal::SIGCONT);
    let gap = watch.event("gap");
    assert_eq!((&gap["count"], &gap["reader"]["name"]), (&gap["missed"], &json!("slow")));
    slow.signal(Signal::SIGTERM);
    assert_eq!(watch.event("left")["reader"]["state"], "detached");
    assert_eq!(slow.end().code, 5);

    // A reader that does not read, though it could.
    let mut idle = Reader::options().name("slow").open(&bus).expect("its name is free");
    assert_eq!(watch.event("joined")["resumed"], true);
    writer.publish(b"unread").expect("there is room");
    let stalled = watch.event("stalled");
    assert!(stalled["reader"]["stuck_ms"].as_u64() >= Some(200), "{stalled}");
    while let Next::Record(_) = idle.try_next().expect("the bus") {}
    idle.commit();
    watch.event("live");
    drop(idle);
    let mut dead = Process::spawn(&["--json", "sub", &bus]);
    dead.expect("attached");
    dead.kill();
    watch.event("dead");
    assert_eq!(run(&["reap", &bus], b"").code, 0);
    watch.event("reaped");

    drop(writer);
    watch.event("writer_absent");
    let writer = Writer::open(&bus).expect("it is free");
    let takeover = watch.event("takeover");
    assert_eq!((&takeover["epoch"], &takeover["sequence"]), (&json!(2), &json!(writer.next_sequence())));
    writer.close_with(7, "done").expect("it closes");
    let closed = watch.event("closed");
    assert_eq!((&closed["code"], &closed["reason"]), (&json!(7), &json!("done")));
    let writer = Options::new().capacity(128 << 10).replace(&bus).expect("a new bus in its place");
    watch.event("replaced");
    watch.event("watching");
    drop(writer);
    assert_eq!(run(&["rm", &bus], b"").code, 0);
    watch.event("removed");
    assert_eq!(watch.process.end().code, 0);
    let told = schema::seen("watch");
    let all: BTreeSet<_> =
        ["joined", "left", "warning", "evicted", "reaped", "gap", "stalled"].map(str::to_owned).into();
    assert!(told.is_superset(&all), "{told:?}");
}

#[test]
fn watch_counts_what_came_and_went_between_two_looks() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut watch = Lines::of(&["--json", "watch", &bus, "--interval", "400ms"]);
    watch.event("watching");
    // Told once its number is known, from two that stayed.
    let _first = Reader::open(&bus).expect("a slot");
    watch.event("joined");
    for _ in 0..5 {
        drop(Reader::open(&bus).expect("a slot"));
    }
    let _last = Reader::open(&bus).expect("a slot");
    watch.event("joined");
    let counted: u64 = Ran::events(&watch.said)
        .iter()
        .filter(|event| event["event"] == "coalesced" && event["of"] == "joined")
        .filter_map(|event| event["count"].as_u64())
        .sum();
    let told = Ran::events(&watch.said).iter().filter(|event| event["event"] == "joined").count() as u64;
    assert_eq!(counted + told, 7, "{}", watch.said);
    watch.process.signal(Signal::SIGTERM);
    assert_eq!(watch.process.end().code, 0);
}

fn inspect(bus: &str, args: &[&str]) -> (i32, Value) {
    let ran = run(&[&["--json", "inspect", bus], args].concat(), b"");
    (ran.code, ran.json())
}

fn sequences(dump: &Value) -> Vec<u64> {
    let records = dump["records"].as_array().expect("a list");
    records.iter().map(|record| record["sequence"].as_u64().expect("a number")).collect()
}

#[test]
fn inspect_shows_the_records_that_were_published() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    let mut writer = Writer::open(&bus).expect("the bus");
    let mut reader = Reader::options().name("a reader").start(Start::Latest).open(&bus).expect("a slot");
    reader.commit();
    writer.publish_tagged(9, b"first").expect("there is room");
    for n in 1..40u32 {
        writer.publish(format!("record {n}").as_bytes()).expect("there is room");
    }
    let (code, dump) = inspect(&bus, &[]);
    assert_eq!((code, &dump["problems"]), (0, &json!([])));
    assert_eq!(sequences(&dump), (30..40).collect::<Vec<_>>());
    assert_eq!(dump["records"][9]["text"], "record 39");
    assert_eq!((&dump["slots"][0]["name"], &dump["slots"][0]["state"]), (&json!("a reader"), &json!("active")));
    assert_eq!(dump["ring"]["head_sequence"], 40);
    let (_, dump) = inspect(&bus, &["--at", "0", "--records", "1", "--bytes", "3"]);
    let record = &dump["records"][0];
    assert_eq!((&record["hex"], &record["text"], &record["length"]), (&json!("666972"), &json!("fir"), &json!(5)));
    assert_eq!((&record["tag"], &record["position"]), (&json!(9), &json!(0)));
    // Lap after lap, wherever the last one ends; the reader is in nobody's way any more.
    drop(reader);
    for n in 40..5000u64 {
        writer.publish(&vec![n as u8; (n % 700) as usize]).expect("there is room");
        if n % 97 == 0 {
            let (code, dump) = inspect(&bus, &["--records", "5"]);
            assert_eq!((code, sequences(&dump)), (0, (n - 4..=n).collect()), "{}", dump["problems"]);
            let oldest = stat(&bus)["oldest"].as_u64().expect("a number");
            let (_, dump) = inspect(&bus, &["--at", "0", "--records", "100000", "--bytes", "1"]);
            let all = sequences(&dump);
            assert!(all.first() <= Some(&oldest) && all.last() == Some(&n) && all.windows(2).all(|w| w[0] + 1 == w[1]));
        }
    }
    let words = String::from_utf8_lossy(&run(&["inspect", &bus], b"").stdout).into_owned();
    assert!(words.contains("record 4999  position") && words.contains("|"), "{words}");
}

#[test]
fn inspect_goes_as_far_as_a_damaged_file_lets_it() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    assert_eq!(run(&["pub", &bus], &numbered(100)).code, 0);
    let good = fs::read(&bus).expect("the ring");
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        fs::write(&bus, bytes).expect("the ring");
        let (code, dump) = inspect(&bus, &[]);
        assert_eq!(code, 6, "{dump}");
        assert_ne!(dump["problems"], json!([]));
        dump
    };
    let last: Vec<u64> = (90..100).collect();
    let word = |bytes: &mut Vec<u8>, at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    // A foreign mark or version, and no index: the records are still there.
    assert_eq!(sequences(&damage(&|bytes| bytes[0] ^= 0xff)), last);
    assert_eq!(sequences(&damage(&|bytes| word(bytes, 16, 99))), last);
    assert_eq!(sequences(&damage(&|bytes| word(bytes, 48, 3))), last);
    // A ring that starts elsewhere than it says.
    assert_eq!(sequences(&damage(&|bytes| word(bytes, 96, 17))), last);
    // A record in the middle that is none.
    let at = good.windows(7).position(|bytes| bytes == b"line 95").expect("the record");
    let dump = damage(&|bytes| {
        bytes[at - 16] = 0xf0;
        bytes[0] ^= 0xff;
    });
    assert_eq!(sequences(&dump), (90..95).collect::<Vec<_>>());
    assert!(dump["problems"].to_string().contains("commit word"), "{}", dump["problems"]);
    // Nothing to go by.
    for length in [0, 5, 8, 100, 4096, 5000, 8192, 8200, 70_000] {
        damage(&|bytes| bytes.truncate(length));
    }
    for value in [0, 1, 4097, 1 << 40, u64::MAX] {
        for at in (0..128).step_by(8).chain([256, 384, 392]) {
            fs::write(&bus, {
                let mut bytes = good.clone();
                word(&mut bytes, at, value);
                bytes
            })
            .expect("the ring");
            let (code, _) = inspect(&bus, &["--at", "3"]);
            assert!(matches!(code, 0 | 6), "{at} {value}");
        }
    }
    fs::write(&bus, vec![0xff; good.len()]).expect("the ring");
    assert_eq!(inspect(&bus, &[]).0, 6);
    fs::write(&bus, &good).expect("the ring");
    let table = format!("{bus}.readers");
    fs::write(&table, vec![0xff; 5000]).expect("the table");
    let (code, dump) = inspect(&bus, &[]);
    assert_eq!((code, sequences(&dump)), (6, last.clone()));
    fs::remove_file(&table).expect("the table");
    let (code, dump) = inspect(&bus, &[]);
    assert_eq!((code, sequences(&dump), &dump["table"]), (6, last, &Value::Null));
    let ran = run(&["--json", "inspect", &place.path("")], b"");
    assert_eq!((ran.code, &ran.last()["code"]), (6, &json!(6)), "{}", ran.stderr);
    assert_eq!(run(&["inspect", &place.path("nowhere")], b"").code, 3);
}

#[test]
fn top_without_a_terminal_says_what_else_there_is() {
    let place = Place::created(&[]);
    let ran = run(&["top", &place.bus()], b"");
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("needs a terminal") && ran.stderr.contains("stat --watch"), "{}", ran.stderr);
}
