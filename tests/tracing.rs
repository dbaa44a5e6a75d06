//! State changes as `tracing` events: each told once, with who and where; publishing and reading tell nothing.

mod common;

use lapwing::{Bus, Next, Observer, Options, Policy, Reader, Start, Writer};
use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber};

type Fields = BTreeMap<String, String>;

/// Keeps the events of this crate.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<(Level, Fields)>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "lapwing"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        panic!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Gather(Fields::new());
        event.record(&mut fields);
        self.0.lock().expect("no panic under this lock").push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Gather(Fields);

impl Visit for Gather {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Log {
    /// Takes what was told since the last call.
    fn take(&self) -> Vec<(Level, Fields)> {
        std::mem::take(&mut *self.0.lock().expect("no panic under this lock"))
    }

    /// The words told, in order.
    fn words(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, fields)| fields["event"].clone()).collect()
    }

    /// The only event told.
    #[track_caller]
    fn only(&self, word: &str, level: Level, expected: &[(&str, &str)]) -> Fields {
        let mut told = self.take();
        assert_eq!(told.len(), 1, "{told:?}");
        let (found, fields) = told.remove(0);
        assert_eq!((fields["event"].as_str(), found), (word, level), "{fields:?}");
        for (name, value) in expected {
            assert_eq!(fields.get(*name).map(String::as_str), Some(*value), "{name} in {fields:?}");
        }
        fields
    }
}

const BUS: &str = "LAPWING_TRACED_BUS";

#[test]
fn each_change_is_told_once_with_who_and_where() {
    if let Some(path) = std::env::var_os(BUS) {
        // The other process of this test: a reader that dies.
        let _reader = Reader::options().name("mortal").open(path).expect("it joins");
        std::process::abort();
    }
    let place = common::Place::new("tracing");
    let path = place.bus();
    let shown = path.display().to_string();
    let log = Log::default();
    with_default(log.clone(), || {
        let options = Options::new().capacity(4096);
        options.build(&path).expect("a new bus");
        let created = log.only("created", Level::INFO, &[("path", &shown), ("capacity", "4096"), ("slots", "128")]);
        assert_ne!(created["bus_id"], "0");

        let mut writer = Writer::open(&path).expect("there is none yet");
        log.only("attached", Level::INFO, &[("path", &shown), ("role", "writer"), ("epoch", "1"), ("sequence", "0")]);
        let mut reader = Reader::options().name("one").open(&path).expect("it joins");
        log.only(
            "joined",
            Level::INFO,
            &[("path", &shown), ("reader", "1"), ("name", "one"), ("class", "gating"), ("missed", "0")],
        );
        drop(Observer::open(&path, Start::Oldest).expect("it attaches"));
        log.only("attached", Level::INFO, &[("role", "observer")]);

        // The hot paths say nothing.
        for _ in 0..3 {
            writer.publish(b"record").expect("there is room");
            assert!(matches!(reader.next().expect("it is there"), Next::Record(_)));
        }
        assert!(log.take().is_empty());

        // Unread, so that the writer has to evict; the third record was handed out and does not count as handled yet.
        writer.set_policy(Policy::Evict);
        for _ in 0..100 {
            writer.publish(&[0; 64]).expect("it evicts");
        }
        let pid = std::process::id().to_string();
        log.only("evicted", Level::WARN, &[("reader", "1"), ("name", "one"), ("pid", &pid), ("cursor", "2")]);
        reader.rejoin(Start::Latest).expect("it rejoins");
        log.only("joined", Level::INFO, &[("name", "one")]);

        let died = common::own_command(&[])
            .args(["--exact", "each_change_is_told_once_with_who_and_where"])
            .env(BUS, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("it runs");
        assert!(!died.success());
        assert_eq!(Bus::open(&path).expect("it is there").reap().expect("it reaps").len(), 1);
        log.only("reaped", Level::WARN, &[("path", &shown), ("name", "mortal")]);

        drop(writer);
        let writer = Writer::open(&path).expect("the last one is gone");
        let told = log.take();
        assert_eq!((told.len(), told[0].0), (2, Level::WARN), "{told:?}");
        assert_eq!((told[0].1["event"].as_str(), told[0].1["sequence"].as_str()), ("takeover", "103"));
        assert_eq!((told[0].1["left_by"].as_str(), told[1].1["epoch"].as_str()), (pid.as_str(), "2"));
        writer.close_with(7, "done").expect("it closes");
        log.only("closed", Level::INFO, &[("epoch", "2"), ("sequence", "103"), ("code", "7"), ("reason", "done")]);

        drop(options.replace(&path).expect("nobody writes"));
        assert_eq!(log.words(), ["replaced", "created", "attached"]);
        drop(reader);
        Bus::remove(&path).expect("nobody writes");
        log.only("removed", Level::INFO, &[("path", &shown)]);
    });
}
