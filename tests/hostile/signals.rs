//! The guard and the program's own handlers: whatever is none of the guard's reaches who handled it before.

use crate::Place;
use crate::common::{Child, Stage};
use lapwing::*;
use memmap2::MmapMut;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// Reads a word of a mapped file that has been truncated: a fault that is no bus's.
fn fault_elsewhere(bus: &Path) {
    let file =
        std::fs::File::options().read(true).write(true).create_new(true).open(bus.with_extension("own")).unwrap();
    file.set_len(8192).unwrap();
    // SAFETY: what the file's shrinking does to the mapping is what this is about; no reference into it is used.
    let map = unsafe { MmapMut::map_mut(&file) }.unwrap();
    file.set_len(0).unwrap();
    // SAFETY: the address is mapped; the access faults, and does not return.
    unsafe { map.as_ptr().add(4096).read_volatile() };
}

fn handle_bus_by(handler: SigHandler) {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers here are async-signal-safe: they make plain system calls.
    unsafe { sigaction(Signal::SIGBUS, &action) }.unwrap();
}

const OWN: i32 = 77;

/// The program's own handler, which does not return to the access that faulted.
extern "C" fn own_handler(_: i32) {
    // SAFETY: ends the process, and touches nothing.
    unsafe { libc::_exit(OWN) };
}

/// Arguments: bus. Survives a truncated bus by the guard; then meets a fault of its own, which its own handler gets.
pub(crate) fn chained(stage: &mut Stage) {
    handle_bus_by(SigHandler::Handler(own_handler));
    guard::install().unwrap();
    guard::install().unwrap();
    assert_lost(&stage.bus());
    fault_elsewhere(&stage.bus());
}

/// Arguments: bus. The same without a handler of its own.
pub(crate) fn unchained(stage: &mut Stage) {
    guard::install().unwrap();
    assert_lost(&stage.bus());
    fault_elsewhere(&stage.bus());
}

/// Arguments: bus. Ignores the signal when it is sent; the guard works all the same, and is not put out of action by it.
pub(crate) fn ignoring(stage: &mut Stage) {
    handle_bus_by(SigHandler::SigIgn);
    guard::install().unwrap();
    raise(Signal::SIGBUS).unwrap();
    assert_lost(&stage.bus());
    stage.say("alive");
    // A fault cannot be ignored.
    fault_elsewhere(&stage.bus());
}

/// Makes a bus, truncates it in use, and finds an error on its handles, on each at its next call.
fn assert_lost(bus: &Path) {
    let mut writer = Options::new().capacity(1 << 16).create(bus).unwrap();
    let mut reader = Reader::open(bus).unwrap();
    let mut observer = Observer::open(bus, Start::Oldest).unwrap();
    let outside = Bus::open(bus).unwrap();
    // More mappings than a piece of the guard's list holds; some are gone again.
    let mut many: Vec<_> = (0..100).map(|_| Observer::open(bus, Start::Oldest).unwrap()).collect();
    drop(many.drain(20..60));
    writer.publish(b"a record").unwrap();
    std::fs::File::options().write(true).open(bus).unwrap().set_len(0).unwrap();
    // The first call may find out or still succeed, the next one fails.
    let _ = writer.publish(b"lost");
    assert!(matches!(writer.publish(b"lost"), Err(PublishError::Failed(Error::Truncated { .. }))));
    assert!(matches!(writer.readers(), Err(Error::Truncated { .. })));
    assert!(matches!(writer.claim(0, 1), Err(PublishError::Failed(Error::Truncated { .. }))));
    assert!(matches!(reader.try_next(), Err(Error::Truncated { .. })));
    assert!(matches!(reader.drain(9, |_| ()), Err(Error::Truncated { .. })));
    assert!(matches!(observer.try_next(), Err(Error::Truncated { .. })));
    assert!(matches!(outside.snapshot(), Err(Error::Truncated { .. })));
    for observer in &mut many {
        assert!(matches!(observer.next(), Err(Error::Truncated { .. })));
    }
    assert!(matches!(writer.close(), Err(Error::Truncated { .. })));
}

#[test]
fn a_fault_elsewhere_goes_to_the_program_s_own_handler() {
    let place = Place::new("chained");
    assert_eq!(Child::start("chained", &place.bus(), &[]).ended().code(), Some(OWN));
}

#[test]
fn a_fault_elsewhere_kills_a_program_without_a_handler() {
    let place = Place::new("unchained");
    assert_eq!(Child::start("unchained", &place.bus(), &[]).ended().signal(), Some(Signal::SIGBUS as i32));
}

#[test]
fn a_signal_that_is_sent_and_ignored_stays_ignored() {
    let place = Place::new("ignoring");
    let mut child = Child::start("ignoring", &place.bus(), &[]);
    child.expect("alive");
    assert_eq!(child.ended().signal(), Some(Signal::SIGBUS as i32));
}
