//! A registered reader that shares no code with lapwing (`ffi/tests/c/stranger.c`, written from docs/LAYOUT.md and docs/READER.md) on live buses:
//! it gates, sleeps and is woken, is evicted and joins again, dies and is reaped, and hands its name over in both directions. Where the page's order
//! matters only while somebody else comes in between, it is led there step by step.

mod common;
#[cfg(target_arch = "x86_64")]
#[path = "stranger/led.rs"]
mod led;
#[cfg(target_arch = "x86_64")]
#[path = "stranger/steps.rs"]
mod steps;

use bus::{Error, Next, Options, Overrun, Policy, PublishError, Reader, ReaderInfo, Start, State, Writer};
use common::{Place, ROOT, compile};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// No wait here takes as long; a wake-up that is lost lasts 20 s in the stranger's sleep.
const LONG: Duration = Duration::from_secs(15);

struct Stranger {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Stranger {
    fn start(program: &PathBuf, place: &Place, arguments: &[&str]) -> Self {
        let mut child = Command::new(program)
            .arg(&place.bus)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let input = child.stdin.take();
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line.trim_end().into()
    }

    fn expect(&mut self, expected: &str) {
        assert_eq!(self.line(), expected);
    }

    /// Lets a lazy one commit the record that it printed last.
    fn go_on(&mut self) {
        self.input.as_mut().expect("its input").write_all(b"\n").expect("it reads");
    }

    fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }

    fn ends(mut self) {
        self.expect("closed");
        assert!(self.child.wait().expect("it ends").success());
    }
}

fn payload(i: u64) -> Vec<u8> {
    vec![i as u8; (i * 31 % 97) as usize]
}

fn line_of(i: u64) -> String {
    let payload = payload(i);
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{i} {} {} {:016x}", i as u32, payload.len(), payload.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

fn publish(writer: &mut Writer) -> Result<u64, PublishError> {
    let next = writer.next_sequence();
    writer.publish_tagged(next as u32, &payload(next))
}

/// Publishes until a reader is in the way.
fn publish_all(writer: &mut Writer) -> Box<Overrun> {
    let laps = writer.next_sequence() + 100_000;
    while writer.next_sequence() < laps {
        match publish(writer) {
            Ok(_) => {}
            Err(PublishError::WouldOverrun(overrun)) => return overrun,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("nobody was in the way, lap after lap: {:?}", writer.readers());
}

fn only_reader(writer: &Writer) -> ReaderInfo {
    let mut readers = writer.readers().expect("the table");
    assert_eq!(readers.len(), 1, "{readers:?}");
    readers.remove(0)
}

/// `published` is how many records there are.
fn assert_books(info: &ReaderInfo, published: u64, missed: u64) {
    assert_eq!(info.delivered + info.missed + info.pending, published - info.start, "{info:?}");
    assert_eq!(info.missed, missed, "{info:?}");
}

fn setup(name: &str) -> Option<(PathBuf, Place, Writer)> {
    let program = compile("ffi/tests/c/stranger.c")?;
    let place = Place::new(name);
    let writer = Options::new().capacity(1 << 16).readers(4).create(&place.bus).expect("a bus");
    Some((program, place, writer))
}

#[test]
fn a_gating_stranger_misses_nothing_and_sleeps_soundly() {
    let Some((program, place, mut writer)) = setup("stranger-gating") else { return };
    writer.set_policy(Policy::Wait(Some(LONG)));
    let mut stranger = Stranger::start(&program, &place, &[]);
    stranger.expect("joined 0");
    let reader = std::thread::spawn(move || {
        let mut next = 0;
        loop {
            let line = stranger.line();
            if line == "closed" {
                break;
            }
            assert_eq!(line, line_of(next));
            next += 1;
        }
        assert!(stranger.child.wait().expect("it ends").success());
        next
    });
    // Many laps at full speed: whatever it has not read stands in the writer's way.
    for _ in 0..100_000 {
        publish(&mut writer).expect("it reads on");
    }
    // And one at a time, each after the last was committed: it may be awake, falling asleep, or asleep.
    for _ in 0..3000 {
        assert!(
            writer.wait_for_readers(Some(LONG)).expect("no error"),
            "a wake-up was lost: {:?}",
            only_reader(&writer)
        );
        publish(&mut writer).expect("room");
    }
    assert!(writer.wait_for_readers(Some(LONG)).expect("no error"));
    let info = only_reader(&writer);
    assert_eq!((info.state, info.alive, info.pending, info.delivered), (State::Active, true, 0, 103_000));
    assert!(info.waits > 0, "it never slept");
    assert_books(&info, 103_000, 0);
    writer.close().expect("an end");
    assert_eq!(reader.join().expect("all lines were right"), 103_000);
    assert_eq!(
        bus::Bus::inspect(&place.bus).expect("a bus").readers.map(|list| list.len()),
        Some(0),
        "its slot is free"
    );
}

#[test]
fn a_stranger_is_seen_in_the_way_evicted_and_told() {
    let Some((program, place, mut writer)) = setup("stranger-evicted") else { return };
    let mut stranger = Stranger::start(&program, &place, &["lazy"]);
    stranger.expect("joined 0");
    // It prints the first record, and commits nothing: the ring fills up.
    let overrun = publish_all(&mut writer);
    let [ref info] = overrun.readers[..] else { panic!("{overrun:?}") };
    assert_eq!((info.pid, info.alive, info.evictable, info.cursor), (stranger.child.id(), true, true, 0));
    stranger.expect(&line_of(0));
    writer.set_policy(Policy::Evict);
    let published = 20_000;
    while writer.next_sequence() < published {
        publish(&mut writer).expect("nobody is in the way");
    }
    assert_eq!(only_reader(&writer).state, State::Evicted);
    // From here on it is not held back, and neither is it evicted again.
    stranger.go_on();
    stranger.expect("evicted");
    let gap = stranger.line();
    let (first, end) = gap.strip_prefix("gap ").and_then(|gap| gap.split_once(' ')).expect("a gap");
    let end: u64 = end.parse().expect("a number");
    assert_eq!(first, "1");
    assert!(end > 1 && end < published, "{end}");
    writer.close().expect("an end");
    for sequence in end..published {
        stranger.expect(&line_of(sequence));
        if sequence == published - 1 {
            let readers = bus::Bus::inspect(&place.bus).expect("a bus").readers.expect("its table");
            assert_eq!((readers[0].evictions, readers[0].delivered), (1, sequence - end + 1));
            assert_books(&readers[0], published, end - 1);
        }
        stranger.go_on();
    }
    stranger.ends();
}

#[test]
fn a_stranger_that_dies_makes_room() {
    let Some((program, place, mut writer)) = setup("stranger-dead") else { return };
    let strangers: Vec<_> = (0..4)
        .map(|_| {
            let mut stranger = Stranger::start(&program, &place, &["lazy"]);
            stranger.expect("joined 0");
            stranger
        })
        .collect();
    let id = writer.readers().expect("the table")[0].id;
    assert!(matches!(Reader::open(&place.bus), Err(Error::TableFull { live: 4, .. })), "four slots, four strangers");
    for stranger in strangers {
        stranger.kill();
    }
    let reaped = writer.reap().expect("no error");
    assert_eq!((reaped.len(), reaped[0].id), (4, id));
    // A stranger finds slots of the dead by itself.
    let mut others: Vec<_> = (0..3).map(|_| Reader::open(&place.bus).expect("a slot")).collect();
    let mut dead = Stranger::start(&program, &place, &["lazy"]);
    dead.expect("joined 0");
    dead.kill();
    let mut stranger = Stranger::start(&program, &place, &[]);
    stranger.expect("joined 0");
    publish(&mut writer).expect("room");
    writer.close().expect("an end");
    stranger.expect(&line_of(0));
    stranger.ends();
    for reader in &mut others {
        assert!(matches!(reader.next().expect("no error"), Next::Record(record) if record.sequence() == 0));
    }
}

#[test]
fn a_name_goes_from_stranger_to_reader_and_back() {
    let Some((program, place, mut writer)) = setup("stranger-named") else { return };
    let named = || Reader::options().name("shared").start(Start::Resume).hold_while_away(true).open(&place.bus);
    let mut stranger = Stranger::start(&program, &place, &["name=shared", "resume", "lazy"]);
    stranger.expect("joined 0");
    for _ in 0..10 {
        publish(&mut writer).expect("room");
    }
    for sequence in 0..4 {
        stranger.expect(&line_of(sequence));
        if sequence < 3 {
            stranger.go_on();
        }
    }
    let taken = named();
    assert!(
        matches!(&taken, Err(Error::NameTaken { name, pid }) if name == "shared" && *pid == Some(stranger.child.id())),
        "{:?}",
        taken.err()
    );
    stranger.kill();
    // The fourth was not committed, so it comes again; nothing else does, and nothing is missed.
    let mut reader = named().expect("the name is free");
    for sequence in 3..7 {
        assert!(matches!(reader.next().expect("no error"), Next::Record(record) if record.sequence() == sequence));
    }
    reader.commit();
    drop(reader);
    // It held the writer up while nobody was there.
    let refused = publish_all(&mut writer);
    assert_eq!((refused.readers[0].name.as_deref(), refused.readers[0].alive), (Some("shared"), false));
    let mut stranger = Stranger::start(&program, &place, &["name=shared", "resume"]);
    stranger.expect("joined 7");
    let last = writer.next_sequence();
    writer.close().expect("an end");
    for sequence in 7..last {
        stranger.expect(&line_of(sequence));
    }
    stranger.ends();
    let readers = bus::Bus::inspect(&place.bus).expect("a bus").readers.expect("its table");
    assert_eq!((readers.len(), readers[0].state, readers[0].delivered), (1, State::Detached, last));
    assert_books(&readers[0], last, 0);
}

#[test]
fn a_lapped_stranger_is_told_exactly() {
    let Some((program, place, mut writer)) = setup("stranger-lossy") else { return };
    let mut stranger = Stranger::start(&program, &place, &["lossy", "lazy"]);
    stranger.expect("joined 0");
    let published = 20_000;
    while writer.next_sequence() < published {
        publish(&mut writer).expect("a lossy reader is in nobody's way");
    }
    writer.close().expect("an end");
    let (mut next, mut missed) = (0, 0);
    while next < published {
        let line = stranger.line();
        if let Some(gap) = line.strip_prefix("gap ") {
            let (first, end) = gap.split_once(' ').expect("two numbers");
            assert_eq!(first.parse(), Ok(next));
            let end: u64 = end.parse().expect("a number");
            missed += end - next;
            next = end;
        } else {
            assert_eq!(line, line_of(next));
            next += 1;
            if next == published {
                let readers = bus::Bus::inspect(&place.bus).expect("a bus").readers.expect("its table");
                assert_books(&readers[0], published, missed);
            }
            stranger.go_on();
        }
    }
    assert!(missed > 0, "it was lapped");
    stranger.ends();
}

#[test]
fn a_stranger_that_comes_back_is_told_the_end_that_it_did_not_live_to_see() {
    let Some((program, place, mut writer)) = setup("stranger-told") else { return };
    let named = || Stranger::start(&program, &place, &["name=shared", "resume", "lazy"]);
    let mut stranger = named();
    stranger.expect("joined 0");
    for _ in 0..3 {
        publish(&mut writer).expect("room");
    }
    stranger.expect(&line_of(0));
    stranger.go_on();
    stranger.expect(&line_of(1));
    stranger.kill();
    writer.close().expect("an end");
    // The stream has gone on by the time that it comes back.
    let mut writer = Writer::open(&place.bus).expect("there is no writer");
    publish(&mut writer).expect("room");
    let mut stranger = named();
    stranger.expect("joined 1");
    for sequence in 1..3 {
        stranger.expect(&line_of(sequence));
        stranger.go_on();
    }
    stranger.ends();
    // Told once.
    let mut stranger = named();
    stranger.expect("joined 3");
    stranger.expect(&line_of(3));
    stranger.go_on();
    writer.close().expect("an end");
    stranger.ends();
}

#[test]
fn the_page_names_the_hash_of_this_layout() {
    let page = fs::read_to_string(format!("{ROOT}/docs/READER.md")).expect("the page");
    let (hash, version) = (bus::layout::HASH, bus::layout::VERSION);
    assert!(
        page.contains(&format!("version ({version}), hash ({hash:#018x})")),
        "docs/READER.md, and stranger.c: {hash:#018x}"
    );
}
