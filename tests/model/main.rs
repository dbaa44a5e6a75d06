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
