//! The life of slots, locks and writers as a state machine, explored whole: every order of every step of every process, a death at each.
//!
//! What the loom models show of single words, this shows of the protocol above them: who may own a slot, a name, the bus, and that
//! whoever dies leaves nothing that the next one cannot use. `world` holds the state and what must be true of it, `steps` what a
//! process does, each step as one access to shared memory or one system call, named after the code that does it.
//!
//! A model that cannot fail shows nothing: the second half plants faults, and each must be found, by the property it breaks.

mod steps;
mod world;

use stateright::{Checker, HasDiscoveries, Model};
use world::{Bus, Fault, Role};

const NAMED: Role = Role::Reader { named: true };
const UNNAMED: Role = Role::Reader { named: false };

/// How often something may happen: `LAPWING_FULL=1` is for the release build, some minutes and gigabytes.
fn lives(short: u8, full: u8) -> u8 {
    if std::env::var_os("LAPWING_FULL").is_some() { full } else { short }
}

/// Explores everything and requires that every property holds.
fn holds(name: &str, bus: Bus) {
    let checker = bus.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    checker.assert_properties();
}

/// Explores a bus with a fault until the property is seen to break.
fn breaks(property: &'static str, bus: Bus) {
    let found = HasDiscoveries::AnyOf([property].into());
    let checker = bus.checker().finish_when(found).spawn_bfs().join();
    println!("{property}: broken within {} states", checker.unique_state_count());
    let path = checker.discovery(property).unwrap_or_else(|| panic!("nobody notices: {property}"));
    assert!(!path.into_actions().is_empty());
}

#[test]
fn two_processes_want_one_name() {
    holds(
        "two processes want one name",
        Bus::new(2, 1, &[(NAMED, 2), (NAMED, 1), (Role::Reaper, 1), (Role::Evictor, 1)]),
    );
}

#[test]
fn a_name_is_forgotten_while_its_reader_comes_and_goes() {
    holds(
        "a name is forgotten while its reader comes and goes",
        Bus::new(1, 1, &[(NAMED, 2), (Role::Forgetter, 1), (Role::Evictor, 1), (Role::Reaper, 1)]),
    );
}

#[test]
fn readers_crowd_for_one_slot() {
    holds(
        "readers crowd for one slot",
        Bus::new(1, 0, &[(UNNAMED, 2), (UNNAMED, lives(1, 2)), (Role::Reaper, 1), (Role::Evictor, lives(1, 2))]),
    );
}

#[test]
fn the_named_and_the_unnamed_share_two_slots() {
    holds(
        "the named and the unnamed share two slots",
        Bus::new(2, 0, &[(NAMED, 2), (UNNAMED, lives(1, 2)), (Role::Reaper, 1), (Role::Evictor, lives(0, 1))]),
    );
}

#[test]
fn writers_take_over_while_readers_join() {
    holds("writers take over while readers join", Bus::new(1, 3, &[(Role::Writer, 2), (Role::Writer, 1), (NAMED, 2)]));
}

#[test]
fn a_writer_meets_joins_evictions_and_reaping() {
    holds(
        "a writer meets joins, evictions and reaping",
        Bus::new(1, 3, &[(Role::Writer, 1), (UNNAMED, lives(1, 2)), (Role::Evictor, 1), (Role::Reaper, 1)]),
    );
}

#[test]
#[ignore = "millions of states: .ci/long states"]
fn everybody_at_once() {
    holds("everybody at once", Bus::new(1, 3, &[(Role::Writer, 1), (NAMED, 2), (UNNAMED, 1), (Role::Evictor, 1)]));
}

#[test]
fn a_flag_set_before_the_lock_is_found() {
    let crowd = Bus::new(1, 0, &[(UNNAMED, 1), (UNNAMED, 1), (Role::Reaper, 1)]);
    breaks(world::NOT_RECLAIMED, crowd.with(Fault::FlagBeforeLock));
    breaks(world::ONE_OWNER, crowd.with(Fault::FlagBeforeLock));
}

#[test]
fn other_faults_are_found() {
    let crowd = Bus::new(1, 0, &[(UNNAMED, 2), (UNNAMED, 1), (Role::Reaper, 1), (Role::Evictor, 1)]);
    let name = Bus::new(1, 1, &[(NAMED, 2), (Role::Reaper, 1), (Role::Evictor, 1)]);
    let writers = Bus::new(1, 3, &[(Role::Writer, 1), (Role::Writer, 1), (NAMED, 1)]);
    for (fault, property, bus) in [
        (Fault::ReapWithoutLock, world::NOT_RECLAIMED, &crowd),
        (Fault::LeaveAfterUnlock, world::NOT_RECLAIMED, &crowd),
        (Fault::SameGeneration, world::RIGHT_ONE_EVICTED, &crowd),
        (Fault::NamedIsFreed, world::NOT_FORGOTTEN, &name),
        (Fault::PlainStore, world::EVICTION_STANDS, &name),
        (Fault::NameUnlocked, world::ONE_BEARER, &Bus::new(2, 1, &[(NAMED, 1), (NAMED, 1)])),
        (Fault::JoinerTrusts, world::NOT_OVERRUN, &writers),
        (Fault::WriterTrusts, world::NOT_OVERRUN, &writers),
        (Fault::HeadTrusted, world::SEQUENCE, &writers),
        (Fault::TwoWriters, world::ONE_WRITER, &writers),
        (Fault::LockOutlivesOwner, world::GOES_ON, &crowd),
    ] {
        println!("{fault:?}");
        breaks(property, bus.with(fault));
    }
}
