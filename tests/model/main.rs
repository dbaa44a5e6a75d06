//! Any shape: random operations on a bus, each checked against a model that is plain arithmetic over a list of records.
//!
//! The model knows which records every reader must see, which gaps it must be told, and what every row of the table must say; all of
//! it is compared after every step. `PROPTEST_CASES` sets how many histories are tried (then with a new seed each run), and
//! `PROPTEST_RNG_SEED` repeats a run.

#[path = "../common/mod.rs"]
mod common;
mod joining;
mod looking;
mod ops;
mod reading;
mod stream;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

#[test]
fn any_history_is_what_the_model_says() {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 150;
        if std::env::var_os("PROPTEST_RNG_SEED").is_none() {
            config.rng_seed = RngSeed::Fixed(0x1a9_3149);
        }
    }
    let history = (ops::shape(), prop::collection::vec(ops::op(), 1..160));
    let result = TestRunner::new(config).run(&history, |(shape, ops)| {
        let mut world = world::World::new(shape);
        for op in &ops {
            world.apply(op);
            world.check();
        }
        world.finish();
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A gap that grew twice before it was told, and grows again when the reader starts elsewhere: what was missed is counted once.
#[test]
fn a_gap_that_grows_is_counted_once() {
    use lapwing::Class;
    use ops::{From, How, Joiner, Length, Op};
    let join = |class, from, name| Op::Join(Joiner { class, from, name, hold: false, auto: false, filter: None });
    let rejoin = |who, from| Op::Rejoin { who, from };
    let history = [
        Op::Laps { count: 28, length: Length::Small(0) },
        join(Class::Gating, From::Latest, None),
        Op::Laps { count: 25, length: Length::Part(8388) },
        join(Class::Gating, From::SinceEver, None),
        join(Class::Lossy, From::After(25), Some(0)),
        rejoin(39, From::Latest),
        rejoin(15, From::Oldest),
        rejoin(42, From::Latest),
        Op::Leave { who: 64 },
        Op::Leave { who: 11 },
        Op::Publish { length: Length::Part(10468), tag: 0, how: How::Try },
        rejoin(0, From::Resume),
        Op::Leave { who: 0 },
        Op::Laps { count: 2, length: Length::Part(14629) },
        join(Class::Gating, From::Resume, Some(0)),
        rejoin(0, From::SinceEver),
    ];
    let mut world = world::World::new(ops::Shape { capacity: 4096, stamped: false, slots: 3 });
    for op in &history {
        world.apply(op);
        world.check();
    }
    world.finish();
}

/// A gap that the application has not committed, then only padding lost, and behind it records that the filter skips: the reader's place is told
/// by the second, and nothing is there.
#[test]
fn lost_padding_is_no_gap_and_ends_the_one_before() {
    use lapwing::Class;
    use ops::{Ask, From, How, Joiner, Length, Op};
    let publish = |count, length, tag| (0..count).map(move |_| Op::Publish { length, tag, how: How::Try });
    let read = |count, ask| Op::Read { who: 0, count, ask };
    for last in [Ask::Try, Ask::Timeout, Ask::Next, Ask::Drain(9)] {
        let mut history = vec![Op::Join(Joiner {
            class: Class::Lossy,
            from: From::Latest,
            name: None,
            hold: false,
            auto: false,
            filter: Some(1),
        })];
        // The first two are overwritten.
        history.extend(publish(5, Length::Largest(0), 1));
        history.push(read(4, Ask::Try));
        // Up to where the next one does not fit before the end of the lap.
        history.extend(publish(2, Length::Largest(0), 1).chain(publish(1, Length::Small(0), 1)));
        history.push(read(3, Ask::Try));
        history.extend(publish(3, Length::Largest(0), 0));
        history.push(read(1, last));
        let mut world = world::World::new(ops::Shape { capacity: 4096, stamped: false, slots: 3 });
        for op in &history {
            world.apply(op);
            world.check();
        }
        world.finish();
    }
}
