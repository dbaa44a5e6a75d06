//! Registration: readers that join and leave while the writer publishes without pause never skip, and never make another skip.

mod common;

use common::*;
use lapwing::*;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

roles!(writer, fast, joiner, crowd);

/// Capacity and longest record of a ring of eight stripes, and of one of many, where the writer looks at all readers now and then only.
const SMALL: (u64, usize) = (16 << 10, 200);
const LARGE: (u64, usize) = (2 << 20, 8000);
/// Far beyond anything that readers who all read could make a writer wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Every role's second argument.
fn longest(stage: &Stage) -> usize {
    stage.number(1) as usize
}

/// Arguments: bus, longest. Publishes without pause until told to stop, then closes; says what it published.
fn writer(stage: &mut Stage) {
    let mut writer = Writer::standby(stage.bus()).unwrap();
    let longest = longest(stage);
    writer.set_policy(Policy::Wait(Some(PATIENCE)));
    stage.say("publishing");
    let told_to_stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stage.hear_this("stop");
            told_to_stop.store(true, Relaxed);
        });
        while !told_to_stop.load(Relaxed) {
            let payload = payload(writer.next_sequence(), longest);
            writer.publish(&payload).unwrap();
        }
    });
    let published = writer.next_sequence();
    writer.close().unwrap();
    stage.say(format!("published {published}"));
}

/// Arguments: bus, longest. Drains everything, from the first record to the end.
fn fast(stage: &mut Stage) {
    let mut reader = Reader::options().wait(Wait::Yield).open(stage.bus()).unwrap();
    stage.say("ready");
    let mut tally = Tally::of(&reader);
    follow(stage, &mut reader, &mut tally, longest(stage));
    settle(stage, &reader, &tally);
}

/// Arguments: bus, longest, seed. After a random delay registers, and reads slowly for a while; several times.
fn joiner(stage: &mut Stage) {
    let mut random = Random::from(stage.number(2));
    stage.say("ready");
    for _ in 0..4 {
        for _ in 0..random.below(100_000) {
            std::hint::spin_loop();
        }
        visit(&stage.bus(), longest(stage), &mut random, &[Class::Gating, Class::Pinned]);
    }
    stage.say("done");
}

/// Registers, reads some records and leaves. What it came too late for is told as a gap at first; from then on nothing is skipped.
fn visit(bus: &Path, longest: usize, random: &mut Random, classes: &[Class]) {
    let class = classes[random.below(classes.len() as u64) as usize];
    let start = if random.below(2) == 0 { Start::Oldest } else { Start::Latest };
    let mut reader = Reader::options().class(class).start(start).open(bus).unwrap();
    let mut tally = Tally::of(&reader);
    let joined_behind = Gap { first: tally.start, end: reader.next_sequence() };
    let wanted = 1 + random.below(100);
    let slowness = random.below(2000);
    // Time for the writer to overrun whoever it has not noticed.
    for _ in 0..random.below(500_000) {
        std::hint::spin_loop();
    }
    while tally.delivered < wanted {
        match reader.next_timeout(PATIENCE).unwrap() {
            Next::Record(record) => {
                tally.record(&record);
                assert_whole(&record, longest);
            }
            Next::Gap(gap) => {
                let at_first = tally.next == tally.start && gap == joined_behind;
                assert!(class == Class::Lossy || at_first, "a {class} reader skipped {gap}: {tally:?}");
                tally.gap(gap);
            }
            Next::Closed(_) => break,
            other => panic!("{other:?}"),
        }
        for _ in 0..slowness {
            std::hint::spin_loop();
        }
    }
    // Its own books, while the writer goes on.
    reader.commit();
    let row = reader.info().unwrap();
    assert_eq!((row.start, row.cursor), (tally.start, tally.next));
    assert_eq!((row.delivered, row.missed), (tally.delivered, tally.missed));
}

/// Arguments: bus, longest, seed, members, seconds. That many readers at a time, which join and leave.
fn crowd(stage: &mut Stage) {
    let end = Instant::now() + Duration::from_secs(stage.number(4));
    let (bus, longest) = (stage.bus(), longest(stage));
    let (seed, members) = (stage.number(2), stage.number(3));
    let visits: u64 = std::thread::scope(|scope| {
        let member = |member| {
            let bus = &bus;
            move || {
                let mut random = Random::from(seed.wrapping_add(member));
                let mut visits = 0;
                while Instant::now() < end {
                    visit(bus, longest, &mut random, &[Class::Gating, Class::Gating, Class::Pinned, Class::Lossy]);
                    visits += 1;
                }
                visits
            }
        };
        let threads: Vec<_> = (0..members).map(|n| scope.spawn(member(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    stage.say(format!("visits {visits}"));
}

fn new_bus(place: &Place, (capacity, longest): (u64, usize)) -> (Child, Child) {
    let bus = place.bus();
    drop(Options::new().capacity(capacity).create(&bus).unwrap());
    let mut fast = Child::start("fast", &bus, &[&longest]);
    fast.expect("ready");
    let mut writer = Child::start("writer", &bus, &[&longest]);
    writer.expect("publishing");
    (writer, fast)
}

/// Stops the writer, and checks that the reader that was there from the first record to the last missed none.
fn end(place: &Place, mut writer: Child, mut fast: Child) -> u64 {
    let bus = place.bus();
    writer.tell("stop");
    let published: u64 = writer.expect("published").parse().unwrap();
    writer.finish();
    let tally = settle_all(&bus, [&mut fast]).remove(0);
    assert_eq!((tally.start, tally.delivered, tally.missed), (0, published, 0));
    fast.finish();
    let seen = inspect(&bus);
    assert_eq!((seen.stats.evictions, seen.stats.reaped, seen.sequence), (0, 0, published));
    let rows = seen.readers.unwrap();
    assert!(rows.is_empty(), "{rows:?}");
    published
}

#[test]
fn nobody_skips_while_slow_readers_register() {
    let mut random = Random::seeded("registration");
    for round in 0..setting("LAPWING_ROUNDS", 20) {
        let shape = if round % 2 == 0 { SMALL } else { LARGE };
        let place = Place::new("registration");
        let bus = place.bus();
        let (writer, fast) = new_bus(&place, shape);
        let mut joiner = |_| Child::start("joiner", &bus, &[&shape.1, &random.next()]);
        let mut joiners: Vec<_> = (0..3).map(&mut joiner).collect();
        for joiner in &mut joiners {
            joiner.expect("ready");
        }
        // One of them is stopped wherever it happens to be, in the middle of its registration perhaps, and goes on later.
        for _ in 0..random.below(50_000) {
            std::hint::spin_loop();
        }
        let unlucky = &joiners[random.below(3) as usize];
        unlucky.stop();
        for _ in 0..random.below(200_000) {
            std::hint::spin_loop();
        }
        unlucky.go_on();
        for mut joiner in joiners {
            joiner.expect("done");
            joiner.finish();
        }
        end(&place, writer, fast);
    }
}

#[test]
fn a_storm_of_readers_joins_and_leaves() {
    let seconds = setting("LAPWING_SECONDS", 3);
    let mut random = Random::seeded("storm");
    let place = Place::new("storm");
    let bus = place.bus();
    let (writer, fast) = new_bus(&place, SMALL);
    let start = |_| Child::start("crowd", &bus, &[&SMALL.1, &random.next(), &16, &seconds]);
    let crowds: Vec<_> = (0..4).map(start).collect();
    let mut visits = 0;
    for mut crowd in crowds {
        let line = crowd.line_within(Duration::from_secs(seconds) + DEADLINE);
        visits += line.strip_prefix("visits ").unwrap().parse::<u64>().unwrap();
        crowd.finish();
    }
    let published = end(&place, writer, fast);
    println!("storm: {visits} visits, {published} records");
    assert!(visits >= 64);
}
