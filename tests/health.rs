//! Health as one snapshot tells it: slow, stopped and dead are three things.

mod common;

use common::*;
use lapwing::*;
use std::time::Instant;

roles!(idle);

/// Arguments: bus. Registers, reads nothing, and goes when told to.
fn idle(stage: &mut Stage) {
    let _reader = Reader::open(stage.bus()).unwrap();
    stage.say("ready");
    stage.hear_this("go");
}

#[test]
fn a_stopped_process_is_told_from_a_slow_and_from_a_dead_one() {
    let place = Place::new("stopped");
    let mut writer = Options::new().create(place.bus()).unwrap();
    let mut child = Child::start("idle", &place.bus(), &[]);
    child.expect("ready");
    writer.publish(b"unread").unwrap();
    let health = || HealthWatch::default().observe(&inspect(&place.bus()), Instant::now())[0].health;
    assert_eq!(health(), Health::Live);
    child.stop();
    until("it is stopped", || (health() == Health::Stopped).then_some(()));
    assert!(rows(&place.bus())[0].alive);
    child.go_on();
    until("it goes on", || (health() == Health::Live).then_some(()));
    child.kill();
    assert_eq!(health(), Health::Dead);
}
