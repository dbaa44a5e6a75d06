//! `export`: what is scraped is what `stat` says, and no asker, however odd, keeps it from answering or makes it grow.

mod support;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use prometheus_parse::{Scrape, Value as Number};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Deref;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use support::schema;
use support::{PATIENCE, Place, Process, numbered, run, stat, until};

/// An exporter on a port of its own.
struct Exporter {
    process: Process,
    site: Site,
}

impl Deref for Exporter {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

/// Where it is asked.
struct Site {
    address: String,
}

impl Exporter {
    fn start(paths: &[&str]) -> Self {
        let mut process = Process::spawn(&[&["--json", "export", "--listen", "127.0.0.1:0"], paths].concat());
        let serving = process.expect("serving");
        schema::validate("export", &serving);
        assert_eq!(serving["public"], false);
        let site = Site { address: serving["address"].as_str().expect("an address").to_owned() };
        Self { process, site }
    }

    /// Its memory in KiB.
    fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of the kernel's");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("it lives").count()
    }
}

impl Site {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a time-out");
        stream
    }

    /// The whole answer to a request.
    fn ask(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        answer
    }

    fn text(&self) -> String {
        let answer = self.ask("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        assert!(body.ends_with("# EOF\n"), "{body}");
        body.to_owned()
    }

    fn scrape(&self) -> Samples {
        Samples::of(&self.text())
    }

    /// Scrapes until it is as expected.
    fn until(&self, what: &str, done: impl Fn(&Samples) -> bool) -> Samples {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let samples = self.scrape();
            if done(&samples) {
                return samples;
            }
            assert!(Instant::now() < deadline, "{what}: {samples:?}");
        }
    }
}

#[derive(Debug)]
struct Samples(Vec<(String, HashMap<String, String>, f64)>);

impl Samples {
    /// Parsed by a parser of others.
    fn of(text: &str) -> Self {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).expect("what a parser takes");
        let samples = scrape.samples.into_iter().map(|sample| {
            let (Number::Counter(value) | Number::Gauge(value) | Number::Untyped(value)) = sample.value else {
                panic!("{sample:?}")
            };
            let labels = sample.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            (sample.metric, labels, value)
        });
        Self(samples.collect())
    }

    fn find(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |found: &HashMap<String, String>| {
            labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
        };
        let mut found = self.0.iter().filter(|(name, labels, _)| name == metric && fits(labels));
        let value = found.next().map(|(.., value)| *value);
        assert!(found.next().is_none(), "{metric} {labels:?} is there twice: {self:?}");
        value
    }
}

#[test]
fn a_scrape_says_what_stat_says() {
    let place = Place::created(&["--capacity", "64KiB"]);
    let bus = place.bus();
    let mut one = Process::spawn(&["--json", "sub", &bus, "--name", "one"]);
    one.expect("attached");
    let mut halted = Process::spawn(&["--json", "sub", &bus, "--name", "halted"]);
    halted.expect("attached");
    halted.signal(Signal::SIGSTOP);
    assert_eq!(run(&["pub", &bus, "--keep-open"], &numbered(500)).code, 0);
    let stat = until(&bus, "it reads all", |stat| {
        stat["readers"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|reader| reader["name"] == "one" && reader["pending"] == 0)
    });
    let exporter = Exporter::start(&[&bus]);
    let samples = exporter.scrape();
    let of = [("bus", bus.as_str())];
    for (metric, value) in [
        ("lapwing_up", json!(1)),
        ("lapwing_ring_capacity_bytes", stat["capacity"].clone()),
        ("lapwing_reader_slots", stat["slots"].clone()),
        ("lapwing_readers_registered", json!(2)),
        ("lapwing_readers_served", json!(1)),
        ("lapwing_writer_epoch", stat["writer"]["epoch"].clone()),
        ("lapwing_next_sequence", json!(500)),
        ("lapwing_oldest_sequence", stat["oldest"].clone()),
        ("lapwing_published_records_total", json!(500)),
        ("lapwing_published_bytes_total", stat["stats"]["bytes"].clone()),
        ("lapwing_warnings_total", stat["stats"]["warnings"].clone()),
    ] {
        assert_eq!(samples.find(metric, &of), value.as_f64(), "{metric}");
    }
    let state = |state: &str| samples.find("lapwing_writer_state", &[of[0], ("state", state)]);
    assert_eq!((state("absent"), state("alive"), state("closed")), (Some(1.0), Some(0.0), Some(0.0)));
    for reader in stat["readers"].as_array().expect("a list") {
        let name = reader["name"].as_str().expect("a name");
        let labels = [of[0], ("name", name), ("class", "gating")];
        for (metric, field) in [
            ("lapwing_reader_lag_bytes", "lag_bytes"),
            ("lapwing_reader_lag_records", "lag_records"),
            ("lapwing_reader_delivered_records_total", "delivered"),
            ("lapwing_reader_missed_records_total", "missed"),
            ("lapwing_reader_pid", "pid"),
        ] {
            assert_eq!(samples.find(metric, &labels), reader[field].as_f64(), "{metric} of {name}");
        }
        let health = |word: &str| samples.find("lapwing_reader_health", &[labels[0], labels[1], ("health", word)]);
        let stopped = f64::from(u8::from(name == "halted"));
        assert_eq!(
            (health("stopped"), health("live"), health("dead")),
            (Some(stopped), Some(1.0 - stopped), Some(0.0))
        );
    }
    halted.kill();
}

#[test]
fn each_family_has_its_help_and_each_unit_its_suffix() {
    let place = Place::created(&[]);
    let mut reader = Process::spawn(&["--json", "sub", &place.bus()]);
    reader.expect("attached");
    let exporter = Exporter::start(&[&place.bus()]);
    let text = exporter.text();
    let words = |prefix: &str| -> Vec<(String, String)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
    };
    let (help, kinds, units) = (words("# HELP "), words("# TYPE "), words("# UNIT "));
    assert_eq!(help.len(), kinds.len());
    assert!(help.len() > 25 && help.iter().all(|(name, help)| name.starts_with("lapwing_") && help.len() > 10));
    let mut names: Vec<_> = kinds.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), kinds.len(), "a family is there twice");
    assert!(
        kinds.iter().all(|(_, kind)| kind == "counter" || kind == "gauge"),
        "a text file's collector knows no more: {kinds:?}"
    );
    assert!(units.len() >= 6 && units.iter().all(|(name, unit)| name.ends_with(unit)), "{units:?}");
}

#[test]
fn the_dashboard_asks_for_nothing_that_is_not_exported() {
    let place = Place::created(&[]);
    let mut reader = Process::spawn(&["--json", "sub", &place.bus()]);
    reader.expect("attached");
    let samples = Exporter::start(&[&place.bus()]).scrape();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/grafana/lapwing.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(path).expect("it is there")).expect("JSON");
    let mut asked = 0;
    for target in dashboard["panels"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("a list"))
    {
        let expr = target["expr"].as_str().expect("an expression");
        for name in
            expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("lapwing_"))
        {
            assert!(samples.0.iter().any(|(metric, ..)| metric == name), "{name} in {expr}");
            asked += 1;
        }
    }
    assert!(asked > 10);
}

#[test]
fn a_missing_bus_is_down_until_it_is_there_and_a_damaged_one_later() {
    let place = Place::created(&[]);
    let late = place.path("late");
    let exporter = Exporter::start(&[&place.bus(), &late]);
    let up = |samples: &Samples, bus: &str| samples.find("lapwing_up", &[("bus", bus)]);
    let samples = exporter.scrape();
    assert_eq!((up(&samples, &place.bus()), up(&samples, &late)), (Some(1.0), Some(0.0)));
    assert_eq!(run(&["create", &late], b"").code, 0);
    exporter.until("it comes", |samples| up(samples, &late) == Some(1.0));
    fs::write(place.bus(), b"scribbled").expect("it is ours");
    let samples = exporter.until("it goes", |samples| up(samples, &place.bus()) == Some(0.0));
    assert_eq!(samples.find("lapwing_next_sequence", &[("bus", &place.bus())]), None);
    let Exporter { mut process, .. } = exporter;
    for (event, path) in [("down", &late), ("up", &late), ("down", &place.bus())] {
        let told = process.expect(event);
        schema::validate("export", &told);
        assert_eq!(told["path"], *path);
    }
}

#[test]
fn what_is_no_bus_ends_it_at_once() {
    let place = Place::created(&[]);
    fs::write(place.path("text"), b"no bus").expect("a new file");
    let ran = run(&["--json", "export", &place.path("text"), "--listen", "127.0.0.1:0"], b"");
    assert_eq!(ran.code, 6);
    schema::validate("export", &ran.last());
    assert!(ran.last()["message"].as_str().expect("words").contains("not a bus"));
    assert_eq!(run(&["export"], b"").code, 2);
    assert_eq!(run(&["export", &place.bus(), &place.bus()], b"").code, 2);
    assert_eq!(run(&["export", &place.bus(), "--every", "1s"], b"").code, 2);
    let taken = Exporter::start(&[&place.bus()]);
    let ran = run(&["export", &place.bus(), "--listen", &taken.address], b"");
    assert!(ran.code == 1 && ran.stderr.contains("--listen"), "{}", ran.stderr);
}

#[test]
fn a_text_file_is_written_whole_once_or_again_and_again() {
    let place = Place::created(&[]);
    let file = place.path("lapwing.prom");
    assert_eq!(run(&["export", &place.bus(), "--textfile", &file], b"").code, 0);
    let samples = Samples::of(&fs::read_to_string(&file).expect("it was written"));
    assert_eq!(samples.find("lapwing_up", &[("bus", &place.bus())]), Some(1.0));
    let ran = run(&["export", &place.path("nothing"), "--textfile", &file], b"");
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    let samples = Samples::of(&fs::read_to_string(&file).expect("it was written"));
    assert_eq!(samples.find("lapwing_up", &[("bus", &place.path("nothing"))]), Some(0.0));
    assert_eq!(run(&["export", &place.bus(), "--textfile", &place.path("no/file")], b"").code, 1);

    let _again = Process::spawn(&["export", &place.bus(), "--textfile", &file, "--every", "10ms"]);
    assert_eq!(run(&["pub", &place.bus()], &numbered(7)).code, 0);
    let deadline = Instant::now() + PATIENCE;
    while Samples::of(&fs::read_to_string(&file).expect("it is always there")).find("lapwing_next_sequence", &[])
        != Some(7.0)
    {
        assert!(Instant::now() < deadline, "it is not written again");
    }
    drop(_again);
    let left = fs::read_dir(place.path(""))
        .expect("the place")
        .flatten()
        .map(|entry| entry.file_name().into_string().expect("plain"));
    assert_eq!(left.filter(|name| name.starts_with("lapwing.prom")).count(), 1);
}

#[test]
fn names_of_every_kind_are_escaped() {
    let place = Place::created(&[]);
    // No reader may call itself so, but whoever may write the table can.
    let name = "a\"b\\c\nd{},=#é";
    let mut reader = Process::spawn(&["--json", "sub", &place.bus(), "--name", &"x".repeat(name.len())]);
    reader.expect("attached");
    let of_first_slot = lapwing::layout::HEADER + 49 * 8;
    let table = fs::OpenOptions::new().write(true).open(place.path("bus.readers")).expect("it is ours");
    table.write_all_at(name.as_bytes(), of_first_slot).expect("it is long enough");
    let text = Exporter::start(&[&place.bus()]).text();
    let wanted = "name=\"a\\\"b\\\\c\\nd{},=#é\"";
    let of_readers: Vec<_> = text.lines().filter(|line| line.starts_with("lapwing_reader_lag_bytes{")).collect();
    assert!(of_readers.len() == 1 && of_readers[0].contains(wanted), "{of_readers:?}");
}

#[test]
fn odd_requests_get_a_plain_answer() {
    let place = Place::created(&[]);
    let exporter = Exporter::start(&[&place.bus()]);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("GET /metrics/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405"),
        ("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        ("GET /metrics?x=y HTTP/1.0\r\n\r\n", "200"),
        ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
        ("nonsense\r\n\r\n", "400"),
        ("GET /metrics HTTP/9.9\r\n\r\n", "400"),
    ] {
        let answer = exporter.ask(request);
        let line = answer.lines().next().unwrap_or_default();
        assert!(line.contains(&format!(" {status} ")), "{request:?}: {answer}");
    }
    exporter.scrape();
}

#[test]
fn half_requests_huge_heads_and_a_thousand_silent_connections_neither_stop_it_nor_make_it_grow() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(4096)), hard).expect("up to the hard limit");
    let place = Place::created(&[]);
    let exporter = Exporter::start(&[&place.bus()]);
    for _ in 0..20 {
        exporter.scrape();
    }
    let (memory, descriptors) = (exporter.resident(), exporter.descriptors());

    // A head that never ends: it is cut off, however long the asker goes on.
    let mut endless = exporter.connect();
    endless.write_all(b"GET /metrics HTTP/1.1\r\n").expect("it reads");
    let line = format!("X-Filler: {}\r\n", "f".repeat(1000));
    let mut sent = 0;
    while endless.write_all(line.as_bytes()).is_ok() {
        sent += line.len();
        assert!(sent < 64 << 20, "it reads without end");
    }

    let mut silent = Vec::new();
    for number in 0..1000 {
        let mut stream = exporter.connect();
        // A half request, nothing at all, or a whole one whose answer nobody takes.
        let part = [&b"GET /metr"[..], b"", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"][number % 3];
        // It may have been shown out already.
        let _ = stream.write_all(part);
        silent.push(stream);
        if number % 100 == 99 {
            exporter.scrape();
        }
    }
    assert!(exporter.descriptors() < descriptors + 300, "{} descriptors", exporter.descriptors());
    let grown = exporter.resident().saturating_sub(memory);
    assert!(grown < 16 << 10, "it grew by {grown} KiB");
    exporter.scrape();
    drop(silent);

    // All at once.
    let site = &exporter.site;
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| (0..20).for_each(|_| drop(site.scrape())));
        }
    });
    let grown = exporter.resident().saturating_sub(memory);
    assert!(grown < 16 << 10, "it grew by {grown} KiB");
}

#[test]
fn a_half_request_is_given_up_by_itself() {
    let place = Place::created(&[]);
    let exporter = Exporter::start(&[&place.bus()]);
    let mut half = exporter.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("it reads");
    half.shutdown(Shutdown::Write).expect("it is open");
    let mut rest = Vec::new();
    // Reset or closed, but not kept.
    let _ = half.read_to_end(&mut rest);
    let mut slow = exporter.connect();
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").expect("it reads");
    slow.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes a time-out");
    let mut answer = Vec::new();
    let ended = slow.read_to_end(&mut answer);
    let timed_out = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection is kept for ever");
    exporter.scrape();
    let _ = stat(&place.bus());
}
