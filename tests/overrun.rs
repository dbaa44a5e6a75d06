//! Overrun: what the writer is told, and what it may do, when a reader has yet to read what a record would overwrite.

mod common;

use common::*;
use lapwing::*;
use std::path::Path;
use std::time::Duration;

roles!(reader, pinned);

const CAPACITY: u64 = 16 << 10;
const LONGEST: usize = 700;
const SEVEN: usize = 7;

/// Arguments: bus, class, name. Reads to the end.
fn reader(stage: &mut Stage) {
    let class = match stage.argument(1) {
        "gating" => Class::Gating,
        "lossy" => Class::Lossy,
        _ => Class::Pinned,
    };
    let mut options = Reader::options().class(class);
    if !stage.argument(2).is_empty() {
        options = options.name(stage.argument(2));
    }
    let mut reader = options.open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    let mut tally = Tally::of(&reader);
    follow(stage, &mut reader, &mut tally, LONGEST);
    settle(stage, &reader, &tally);
}

/// Arguments: bus. Borrows the first record and keeps looking at it.
fn pinned(stage: &mut Stage) {
    let mut reader = Reader::options().class(Class::Pinned).open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    let Next::Record(record) = reader.next().unwrap() else { panic!() };
    assert_whole(&record, LONGEST);
    stage.say("borrowed");
    while stage.hear() == "look" {
        assert_whole(&record, LONGEST);
        stage.say("whole");
    }
}

struct Scene {
    place: Place,
    writer: Writer,
    seven: Vec<Child>,
    slow: Child,
    slow_id: ReaderId,
}

/// A bus with seven live gating readers and a stopped one that has read the first hundred records and no more.
fn scene(name: &str, class: Class, slow_name: &str) -> Scene {
    let place = Place::new(name);
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut seven: Vec<_> =
        (0..SEVEN).map(|n| Child::start("reader", &bus, &[&"gating", &format!("live-{n}")])).collect();
    let mut slow = Child::start("reader", &bus, &[&class, &slow_name]);
    for child in &mut seven {
        child.expect("ready");
    }
    let slow_id = ReaderId(slow.expect("ready").parse().unwrap());
    writer.set_policy(Policy::Wait(Some(DEADLINE)));
    for _ in 0..10 {
        for _ in 0..10 {
            publish(&mut writer).unwrap();
        }
        // A lossy reader, too: nobody waits for it.
        caught_up(&writer, None);
    }
    slow.stop();
    writer.set_policy(Policy::Refuse);
    writer.events();
    Scene { place, writer, seven, slow, slow_id }
}

fn publish(writer: &mut Writer) -> std::result::Result<u64, PublishError> {
    let payload = payload(writer.next_sequence(), LONGEST);
    writer.publish(&payload)
}

/// Waits until every reader but this one has read everything.
fn caught_up(writer: &Writer, but: Option<ReaderId>) {
    until("readers to catch up", || {
        let behind = |reader: &ReaderInfo| Some(reader.id) != but && reader.cursor < writer.next_sequence();
        (!writer.readers().unwrap().iter().any(behind)).then_some(())
    });
}

/// Publishes until the stopped reader alone is in the way, by whatever policy stands; returns the report.
fn fill(writer: &mut Writer, slow: ReaderId) -> Box<Overrun> {
    loop {
        match publish(writer) {
            Ok(_) => {}
            Err(PublishError::WouldOverrun(_)) => {
                caught_up(writer, Some(slow));
                match publish(writer) {
                    Ok(_) => {}
                    Err(PublishError::WouldOverrun(overrun)) => return overrun,
                    Err(error) => panic!("{error}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Checks that a report names the slow reader, alone and in full.
fn assert_names_slow(overrun: &Overrun, scene: &Scene, class: Class) {
    let sequence = scene.writer.next_sequence();
    assert_eq!(overrun.sequence, sequence);
    let [reader] = &overrun.readers[..] else { panic!("{overrun}") };
    assert_eq!(
        (reader.id, reader.name.as_deref(), reader.pid, reader.class, reader.state, reader.alive),
        (scene.slow_id, Some("slow"), scene.slow.pid(), class, State::Active, true)
    );
    assert_eq!(reader.evictable, class != Class::Pinned);
    assert_eq!((reader.cursor, reader.lag_records), (100, sequence - 100));
    let (least, most) = (CAPACITY - overrun.needed - 2 * CAPACITY / 8, CAPACITY);
    assert!((least..=most).contains(&reader.lag_bytes), "{reader:?}");
    assert!(overrun.needed >= 16, "{overrun:?}");
}

/// Ends the stream and settles everybody's books; returns the tallies of the seven, then the slow one's.
fn end(scene: Scene, slow_is_there: bool) -> Vec<Tally> {
    let Scene { place, writer, mut seven, mut slow, .. } = scene;
    let bus = place.bus();
    let published = writer.next_sequence();
    writer.close().unwrap();
    let tallies = settle_all(&bus, seven.iter_mut().chain(slow_is_there.then_some(&mut slow)));
    for tally in &tallies[..SEVEN] {
        assert_eq!((tally.delivered, tally.missed), (published, 0));
    }
    for child in seven {
        child.finish();
    }
    if slow_is_there {
        slow.finish();
    }
    assert_ledgers(&bus);
    tallies
}

/// What a refusal must leave as it is: head, and everything behind the header.
fn written(bus: &Path) -> (u64, u64, u64, Vec<u8>) {
    let seen = inspect(bus);
    (seen.head, seen.sequence, seen.limit, std::fs::read(bus).unwrap().split_off(4096))
}

#[test]
fn refuse_writes_nothing_and_names_the_stopped_reader_alone() {
    let mut scene = scene("refuse", Class::Gating, "slow");
    let bus = scene.place.bus();
    fill(&mut scene.writer, scene.slow_id);
    let before = written(&bus);
    for _ in 0..3 {
        let Err(PublishError::WouldOverrun(overrun)) = publish(&mut scene.writer) else { panic!() };
        assert_names_slow(&overrun, &scene, Class::Gating);
        assert_eq!(overrun.waited, Duration::ZERO);
    }
    assert!(written(&bus) == before, "a refused publish wrote something");
    // Before it was in the way it was warned of, once for each threshold.
    let events = scene.writer.events();
    let warned = |event: &WriterEvent| match event {
        WriterEvent::Warning { percent, reader } if reader.id == scene.slow_id => Some(*percent),
        _ => None,
    };
    let warnings: Vec<_> = events.iter().filter_map(warned).collect();
    assert!(warnings.is_sorted_by(|a, b| a < b) && warnings.last() == Some(&90), "{warnings:?}");
    let episodes = events.iter().filter(|event| matches!(event, WriterEvent::Overrun(_))).count();
    assert!(episodes >= 1);

    scene.slow.go_on();
    caught_up(&scene.writer, None);
    publish(&mut scene.writer).unwrap();
    let published = scene.writer.next_sequence();
    let slow = end(scene, true).pop().unwrap();
    assert_eq!((slow.delivered, slow.missed), (published, 0));
}

/// Lets a stopped process go on.
struct GoOnWhenDropped(u32);

impl Drop for GoOnWhenDropped {
    fn drop(&mut self) {
        signal(self.0, libc::SIGCONT);
    }
}

#[test]
fn wait_reports_at_its_deadline_and_goes_on_when_the_reader_does() {
    let mut scene = scene("wait", Class::Gating, "slow");
    let bus = scene.place.bus();
    let deadline = Duration::from_millis(50);
    scene.writer.set_policy(Policy::Wait(Some(deadline)));
    fill(&mut scene.writer, scene.slow_id);
    let before = written(&bus);
    let Err(PublishError::WouldOverrun(overrun)) = publish(&mut scene.writer) else { panic!() };
    assert!(overrun.waited >= deadline);
    assert_names_slow(&overrun, &scene, Class::Gating);
    assert!(written(&bus) == before, "a publish that gave up wrote something");

    // Without a deadline it waits until the reader goes on: first the wait, then the SIGCONT.
    scene.writer.set_policy(Policy::Wait(None));
    let waits = scene.writer.stats().waits;
    let slow = scene.slow.pid();
    let writer = &mut scene.writer;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _in_any_case = GoOnWhenDropped(slow);
            until("the writer to wait", || (inspect(&bus).stats.waits > waits).then_some(()));
        });
        assert_eq!(publish(writer).unwrap(), overrun.sequence);
    });
    let published = scene.writer.next_sequence();
    let slow = end(scene, true).pop().unwrap();
    assert_eq!((slow.delivered, slow.missed), (published, 0));
}

#[test]
fn evict_goes_on_and_the_evicted_reader_is_told_its_exact_gap() {
    let mut scene = scene("evict", Class::Gating, "slow");
    let bus = scene.place.bus();
    fill(&mut scene.writer, scene.slow_id);
    scene.writer.events();
    scene.writer.set_policy(Policy::Evict);
    let evicted_at = publish(&mut scene.writer).unwrap();
    let evictions: Vec<_> = scene
        .writer
        .events()
        .into_iter()
        .filter_map(|event| match event {
            WriterEvent::Evicted { reader, at_most } => Some((reader.id, at_most)),
            _ => None,
        })
        .collect();
    assert_eq!(evictions, [(scene.slow_id, Gap { first: 100, end: evicted_at })]);
    assert_eq!(named(&bus, "slow").unwrap().state, State::Evicted);
    // On for some laps; the seven gate.
    scene.writer.set_policy(Policy::Wait(Some(DEADLINE)));
    for _ in 0..500 {
        publish(&mut scene.writer).unwrap();
    }
    let oldest = inspect(&bus).oldest;
    assert!(oldest > evicted_at);
    scene.slow.go_on();
    assert_eq!(scene.slow.expect("evicted"), format!("100 {oldest}"));
    assert_eq!(scene.slow.expect("rejoined"), format!("100 {oldest}"));
    let row = named(&bus, "slow").unwrap();
    assert_eq!((row.state, row.evictions, row.missed, row.id), (State::Active, 1, oldest - 100, scene.slow_id));
    // It gates again, and misses nothing more.
    for _ in 0..500 {
        publish(&mut scene.writer).unwrap();
    }
    assert_eq!(scene.writer.stats().evictions, 1);
    let published = scene.writer.next_sequence();
    let slow = end(scene, true).pop().unwrap();
    assert_eq!((slow.delivered, slow.missed), (published - (oldest - 100), oldest - 100));
}

#[test]
fn a_killed_reader_is_reclaimed_and_reported_without_a_wait() {
    for name in ["slow", ""] {
        let mut scene = scene("killed", Class::Gating, name);
        let bus = scene.place.bus();
        fill(&mut scene.writer, scene.slow_id);
        scene.writer.events();
        scene.slow.kill();
        // The policy forbids any wait.
        publish(&mut scene.writer).unwrap();
        let events = scene.writer.events();
        let reaped = |event: &WriterEvent| match event {
            WriterEvent::Reaped { reader } => Some(reader.clone()),
            _ => None,
        };
        let reaped: Vec<_> = events.iter().filter_map(reaped).collect();
        let [reader] = &reaped[..] else { panic!("{events:?}") };
        assert_eq!((reader.id, reader.pid, reader.alive), (scene.slow_id, scene.slow.pid(), false));
        assert_eq!((reader.cursor, reader.name.as_deref()), (100, Some(name).filter(|name| !name.is_empty())));
        assert_eq!(scene.writer.stats().reaped, 1);
        // A name keeps its place, and no longer gates; nobody else's slot was touched.
        let rows = rows(&bus);
        assert_eq!(rows.len(), SEVEN + usize::from(!name.is_empty()));
        assert!(rows.iter().all(|row| row.alive == (row.id != scene.slow_id)));
        if !name.is_empty() {
            let row = named(&bus, name).unwrap();
            assert_eq!((row.state, row.alive, row.hold), (State::Detached, false, false));
        }
        scene.writer.set_policy(Policy::Wait(Some(DEADLINE)));
        for _ in 0..300 {
            publish(&mut scene.writer).unwrap();
        }
        end(scene, false);
    }
}

#[test]
fn a_pinned_reader_is_never_overwritten_while_alive() {
    let place = Place::new("pinned");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut child = Child::start("pinned", &bus, &[]);
    let id = ReaderId(child.expect("ready").parse().unwrap());
    publish(&mut writer).unwrap();
    child.expect("borrowed");
    writer.set_policy(Policy::Evict);
    // Running and stopped alike.
    for stopped in [false, true] {
        let overrun = loop {
            match publish(&mut writer) {
                Ok(_) => {}
                Err(PublishError::WouldOverrun(overrun)) => break overrun,
                Err(error) => panic!("{error}"),
            }
        };
        let [reader] = &overrun.readers[..] else { panic!("{overrun}") };
        assert_eq!((reader.id, reader.class, reader.alive, reader.evictable), (id, Class::Pinned, true, false));
        assert!(matches!(writer.evict(id), Err(Error::NotEvictable { pid, .. }) if pid == child.pid()));
        assert!(matches!(Bus::open(&bus).unwrap().evict(id), Err(Error::NotEvictable { .. })));
        assert!(writer.reap().unwrap().is_empty());
        assert_eq!(writer.stats().evictions, 0);
        if !stopped {
            child.tell("look");
            child.expect("whole");
            child.stop();
        } else {
            child.go_on();
            child.tell("look");
            child.expect("whole");
        }
    }
    child.kill();
    publish(&mut writer).unwrap();
    assert!(writer.events().iter().any(|event| matches!(event, WriterEvent::Reaped { reader } if reader.id == id)));
    assert!(rows(&bus).is_empty());
    for _ in 0..300 {
        publish(&mut writer).unwrap();
    }
}

#[test]
fn a_stopped_lossy_reader_never_gates_and_learns_its_gap() {
    let mut scene = scene("lossy", Class::Lossy, "slow");
    let bus = scene.place.bus();
    scene.writer.set_policy(Policy::Wait(Some(DEADLINE)));
    for _ in 0..500 {
        publish(&mut scene.writer).unwrap();
    }
    let row = named(&bus, "slow").unwrap();
    assert_eq!((row.state, row.cursor, row.alive), (State::Active, 100, true));
    scene.slow.go_on();
    let gap: Vec<u64> = scene.slow.expect("gap").split(' ').map(|word| word.parse().unwrap()).collect();
    let (oldest, sequence) = (inspect(&bus).oldest, scene.writer.next_sequence());
    assert!(gap[0] == 100 && (oldest..sequence).contains(&gap[1]), "{gap:?}, oldest {oldest}");
    let slow = end(scene, true).pop().unwrap();
    assert_eq!((slow.start, slow.next, slow.missed), (0, sequence, gap[1] - 100));
}

#[test]
fn the_writer_can_wait_until_everybody_has_read_everything() {
    let mut scene = scene("read", Class::Gating, "");
    let bus = scene.place.bus();
    for _ in 0..5 {
        publish(&mut scene.writer).unwrap();
    }
    assert!(!scene.writer.wait_for_readers(Some(Duration::from_millis(20))).unwrap(), "one stands still");
    // The others have read it by and by, and nobody was evicted.
    caught_up(&scene.writer, Some(scene.slow_id));
    let slow = scene.slow.pid();
    let writer = &mut scene.writer;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _in_any_case = GoOnWhenDropped(slow);
            until("the writer to wait", || (std::fs::read(&bus).unwrap()[WAITING..][..8] != [0; 8]).then_some(()));
        });
        assert!(writer.wait_for_readers(None).unwrap());
    });
    assert!(writer.readers().unwrap().iter().all(|reader| reader.cursor == writer.next_sequence()));
    // Nor is the dead waited for.
    scene.slow.stop();
    publish(&mut scene.writer).unwrap();
    scene.slow.kill();
    assert!(scene.writer.wait_for_readers(None).unwrap());
    let reaped = |event: &WriterEvent| matches!(event, WriterEvent::Reaped { reader } if reader.id == scene.slow_id);
    assert_eq!(scene.writer.events().iter().filter(|event| reaped(event)).count(), 1);
    end(scene, false);
}

/// Byte of the ring at which a waiting writer says which position it waits for; see the crate's layout.
const WAITING: usize = 34 * 8;

#[test]
fn a_warning_comes_before_the_overrun_it_warns_of() {
    let place = Place::new("order");
    let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
    let _reader = Reader::open(place.bus()).unwrap();
    // So large that a ring is full before it was looked at eight times.
    while writer.publish(&[0; 700]).is_ok() {}
    let events = writer.events();
    let overrun = events.iter().position(|event| matches!(event, WriterEvent::Overrun(_))).expect("an overrun");
    assert!(matches!(events[overrun - 1], WriterEvent::Warning { percent: 75 | 90, .. }), "{events:?}");
    assert_eq!(overrun, events.len() - 1, "{events:?}");
}

#[test]
fn an_evicted_reader_that_was_not_overtaken_misses_nothing() {
    let place = Place::new("spared");
    let bus = place.bus();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let mut reader = Reader::open(&bus).unwrap();
    let mut tally = Tally::of(&reader);
    publish(&mut writer).unwrap();
    assert!(tally.count(reader.next().unwrap()).is_none());
    reader.commit();
    // The ring is full to the last byte that the reader leaves, and it is evicted for the writer to go on, which then does not.
    let overrun = loop {
        match publish(&mut writer) {
            Ok(_) => {}
            Err(PublishError::WouldOverrun(overrun)) => break overrun,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(writer.evict(reader.id()).unwrap());
    assert_eq!(reader.rejoin(Start::Resume).unwrap().count(), 0);
    while tally.count(reader.try_next().unwrap()).is_none() {}
    assert_eq!((tally.next, tally.missed), (overrun.sequence, 0));
    tally.assert_both(&reader, &bus);
}
