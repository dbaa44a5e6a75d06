//! `demo`: ten seconds of a bus at work, and the proof that every record is accounted for.
//!
//! Everything is done by real processes with the command's own words: `pub` writes, `sub` reads. This process feeds the
//! writers, is the handler behind each reader, and kills.

mod cast;
mod handler;
mod ledger;
mod screen;

use crate::failure::{Exit, Failure};
use crate::report::{Event, Range};
use crate::signals;
use cast::{Cast, Feed, Told};
use handler::Handler;
use lapwing::{Bus, Options, Snapshot};
use ledger::Account;
use screen::Screen;
use std::collections::HashMap;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// About a second and a half of records, so that the demo stays short and the lag is easy to see.
const CAPACITY: u64 = 2 << 20;
/// Records a second.
const RATE: &str = "20000";
/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the picture is drawn anew.
const FRAME: Duration = Duration::from_millis(100);

const FAST: &str = "fast";
const SLOW: &str = "slow";
const CRASHING: &str = "crashing";
const OBSERVER: &str = "observer";
const WRITER: &str = "writer";
const STANDBY: &str = "standby";

pub(crate) fn run(json: bool) -> Result<Exit, Failure> {
    signals::install()?;
    let screen = Screen::new(json, CAPACITY, &[FAST, SLOW, CRASHING, OBSERVER]);
    // Dropped on every way out: ends the processes and removes the files.
    let (cast, told) = Cast::assemble()?;
    let mut demo = Demo {
        handlers: [FAST, SLOW, CRASHING, OBSERVER].into_iter().map(|name| (name, Handler::default())).collect(),
        cast,
        told,
        screen,
        facts: Facts::default(),
        last_frame: Instant::now(),
        last_sequence: 0,
    };
    demo.play()?;
    demo.settle()
}

/// What the processes told.
#[derive(Default)]
struct Facts {
    attached: HashMap<&'static str, u64>,
    warned_of_slow: bool,
    overrun_by_slow: bool,
    slow_evicted: bool,
    takeover: Option<u64>,
    gaps: HashMap<&'static str, Vec<Range>>,
    errors: Vec<String>,
}

impl Facts {
    fn note(&mut self, Told { who, event }: &Told) {
        let is_slow = |name: &Option<String>| name.as_deref() == Some(SLOW);
        match event {
            Event::Attached { .. } => *self.attached.entry(who).or_default() += 1,
            Event::Warning { reader, .. } => self.warned_of_slow |= is_slow(&reader.name),
            Event::Overrun { readers, .. } => {
                self.overrun_by_slow |= readers.iter().any(|reader| is_slow(&reader.name));
            }
            Event::Evicted { reader, at_most: Some(_) } => self.slow_evicted |= is_slow(&reader.name),
            Event::Takeover { sequence, .. } if *who == STANDBY => self.takeover = *sequence,
            Event::Gap(range) => self.gaps.entry(who).or_default().push(*range),
            Event::Error { message, .. } => self.errors.push(format!("{who}: {message}")),
            _ => {}
        }
    }

    fn attachments(&self, who: &str) -> u64 {
        self.attached.get(who).copied().unwrap_or(0)
    }
}

struct Demo {
    handlers: HashMap<&'static str, Handler>,
    cast: Cast,
    told: Receiver<Told>,
    screen: Screen,
    facts: Facts,
    last_frame: Instant,
    last_sequence: u64,
}

impl Demo {
    fn play(&mut self) -> Result<(), Failure> {
        drop(Options::new().capacity(CAPACITY).readers(16).create(self.cast.bus())?);
        for (who, extra) in [
            (FAST, &["--name", FAST][..]),
            (SLOW, &["--name", SLOW]),
            (CRASHING, &["--name", CRASHING, "--hold-while-away"]),
            (OBSERVER, &["--class", OBSERVER]),
        ] {
            self.read(who, extra)?;
        }
        for who in [FAST, SLOW, CRASHING, OBSERVER] {
            self.until("the readers attach", |demo| demo.facts.attachments(who) != 0)?;
        }
        self.act("One writer, 20,000 records a second; three readers and an observer, each its own process.")?;
        let feed = self.cast.publish(WRITER, &["--rate", RATE])?;
        feed.from(0);
        self.until("the writer publishes", |demo| demo.sequence().is_some_and(|next| next != 0))?;
        let standby = self.cast.publish(STANDBY, &["--standby", "--policy", "evict", "--rate", RATE])?;
        self.pass(1000)?;

        self.act("\"slow\" now takes 2,500 a second. The writer hears of it by name, and waits: nothing is lost.")?;
        self.handlers[SLOW].slow_down(true);
        self.until("the writer is warned of \"slow\"", |demo| demo.facts.warned_of_slow)?;
        self.until("the writer reports \"slow\" in its way", |demo| demo.facts.overrun_by_slow)?;
        self.pass(500)?;
        self.act("\"slow\" is quick again; the writer catches up with its rate.")?;
        self.handlers[SLOW].slow_down(false);
        self.pass(700)?;

        self.act("kill -9 \"crashing\": its place is kept, and holds the writer up if need be.")?;
        self.cast.kill(CRASHING)?;
        self.pass(600)?;
        self.act("\"crashing\" starts again under its name, and resumes where it was.")?;
        self.read(CRASHING, &["--name", CRASHING, "--hold-while-away", "--from", "resume"])?;
        self.until("\"crashing\" resumes", |demo| demo.facts.attachments(CRASHING) == 2)?;
        self.pass(700)?;

        self.act("kill -9 the writer: the standby goes on with the next sequence, the readers notice nothing else.")?;
        self.cast.kill(WRITER)?;
        self.until("the standby takes over", |demo| demo.facts.takeover.is_some())?;
        // The application's part: what was not published before is published now, and nothing twice.
        standby.from(self.facts.takeover.unwrap_or(0));
        self.pass(900)?;

        self.act("\"slow\" is slow again, and this writer evicts: it loses records, and both sides are told which.")?;
        self.handlers[SLOW].slow_down(true);
        self.until("\"slow\" is evicted", |demo| demo.facts.slow_evicted)?;
        self.pass(300)?;
        self.handlers[SLOW].slow_down(false);
        self.until("\"slow\" is told its gap", |demo| demo.facts.gaps.contains_key(SLOW))?;
        self.pass(300)?;
        self.act("The writer closes the stream; the readers drain it and end.")?;
        Feed::end(standby);
        self.until("the processes end", |demo| demo.cast.all_ended())
    }

    /// Starts a reader and the handler of its output.
    fn read(&mut self, who: &'static str, extra: &[&str]) -> Result<(), Failure> {
        let output = self.cast.subscribe(who, extra)?;
        self.handlers[who].take(output);
        Ok(())
    }

    fn act(&mut self, text: &str) -> Result<(), Failure> {
        self.screen.act(text)
    }

    fn snapshot(&self) -> Option<Snapshot> {
        Bus::inspect(self.cast.bus()).ok()
    }

    fn sequence(&self) -> Option<u64> {
        self.snapshot().map(|snapshot| snapshot.sequence)
    }

    fn pass(&mut self, ms: u64) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_millis(ms);
        while Instant::now() < until {
            self.turn()?;
        }
        Ok(())
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            if Instant::now() > deadline {
                return Err(Failure::other(format!("waited in vain for this: {what}")));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Takes what was told within a frame, and draws.
    fn turn(&mut self) -> Result<(), Failure> {
        if signals::stopped() {
            return Err(Failure::other("stopped by a signal"));
        }
        if let Ok(told) = self.told.recv_timeout(FRAME / 4) {
            self.facts.note(&told);
            self.screen.told(&told)?;
        }
        let elapsed = self.last_frame.elapsed();
        if elapsed >= FRAME
            && let Some(snapshot) = self.snapshot()
        {
            let rate = (snapshot.sequence - self.last_sequence.min(snapshot.sequence)) as f64 / elapsed.as_secs_f64();
            let observed = self.handlers[OBSERVER].account().next;
            self.screen.draw(&snapshot, rate, snapshot.sequence - observed.min(snapshot.sequence))?;
            self.last_frame = Instant::now();
            self.last_sequence = snapshot.sequence;
        }
        Ok(())
    }

    /// Compares both sides' books, and says whether everything was as promised.
    fn settle(mut self) -> Result<Exit, Failure> {
        self.cast.join();
        self.handlers.values().for_each(Handler::join);
        while let Ok(told) = self.told.try_recv() {
            self.facts.note(&told);
            self.screen.told(&told)?;
        }
        let snapshot = Bus::inspect(self.cast.bus())?;
        let registered = snapshot.readers.as_deref().unwrap_or_default();
        let mut rows = Vec::new();
        let mut checks = Vec::new();
        for who in [FAST, SLOW, CRASHING, OBSERVER] {
            let handled = self.handlers[who].account();
            let told = self.facts.gaps.remove(who).unwrap_or_default();
            checks.push((format!("{who:?}: each record is the one its sequence says"), handled.wrong == 0));
            checks.push((format!("{who:?}: each jump in the sequences was told, and no other"), handled.jumps == told));
            let own = Account::of_handler(who, &handled, &told, snapshot.sequence);
            if let Some(reader) = registered.iter().find(|reader| reader.name.as_deref() == Some(who)) {
                let bus = Account::of_bus(who, reader, snapshot.sequence);
                checks.push((format!("{who:?}: the bus and the reader count alike"), bus.agrees(&own)));
                rows.push(bus);
            } else if who != OBSERVER {
                checks.push((format!("{who:?}: the bus kept its books"), false));
            }
            rows.push(own);
        }
        let missed = |who| rows.iter().filter(|row| row.who == who).map(|row| row.missed).max().unwrap_or(u64::MAX);
        checks.push(("the writer was warned of \"slow\" by name".into(), self.facts.warned_of_slow));
        checks.push((
            "the writer reported \"slow\" in its way before anything was lost".into(),
            self.facts.overrun_by_slow,
        ));
        checks.push(("\"slow\" was evicted and told its exact gap".into(), missed(SLOW) != 0));
        checks.push(("\"crashing\" resumed without a gap".into(), missed(CRASHING) == 0));
        checks.push(("the standby went on without a gap".into(), self.facts.takeover.is_some_and(|at| at != 0)));
        checks.push(("no process met an error".into(), self.facts.errors.is_empty()));
        let ended = self.cast.ended_with(|who| if who == SLOW { Exit::Missed } else { Exit::Fine });
        checks.push(("each process ended by itself, and \"slow\" with the exit code for missed records".into(), ended));
        let sums = rows.iter().all(Account::holds);
        checks.push(("published = delivered + missed + pending for every reader".into(), sums));
        self.screen.verdict(&rows, &checks)?;
        Ok(if checks.iter().all(|(_, holds)| *holds) { Exit::Fine } else { Exit::Other })
    }
}
