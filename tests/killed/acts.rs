//! What the child does: a world set up unseen, then one operation between two marks, with its page of facts kept up to date.

use super::facts::{Fact, Page, payload};
use super::trace::mark;
use lapwing::*;
use std::path::{Path, PathBuf};

/// Which handles the child holds at its first mark, and so which ones the test may hold beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The child is the writer.
    Writer,
    /// The child reads, or acts on readers; the test may be the writer.
    Reader,
    /// There is no bus yet.
    Creator,
}

/// Every operation.
pub(crate) const ACTS: &[(&str, Side)] = &[
    ("create", Side::Creator),
    ("replace", Side::Writer),
    ("remove", Side::Reader),
    ("publish-small", Side::Writer),
    ("publish-empty", Side::Writer),
    ("publish-crossing", Side::Writer),
    ("publish-large", Side::Writer),
    ("publish-wrapping", Side::Writer),
    ("publish-large-wrapping", Side::Writer),
    ("publish-to-the-end", Side::Writer),
    ("publish-stamped", Side::Writer),
    ("publish-vectored", Side::Writer),
    ("batch-small", Side::Writer),
    ("batch-wrapping", Side::Writer),
    ("claim", Side::Writer),
    ("claim-shortened", Side::Writer),
    ("claim-dropped", Side::Writer),
    ("evict-by-policy", Side::Writer),
    ("evict", Side::Writer),
    ("reap", Side::Writer),
    ("reap-in-the-way", Side::Writer),
    ("close", Side::Writer),
    ("drop-writer", Side::Writer),
    ("open-writer", Side::Reader),
    ("attach", Side::Reader),
    ("join-named", Side::Reader),
    ("resume", Side::Reader),
    ("resume-with-gap", Side::Reader),
    ("read", Side::Reader),
    ("commit", Side::Reader),
    ("drain", Side::Reader),
    ("detach", Side::Reader),
    ("leave", Side::Reader),
    ("rejoin", Side::Reader),
    ("rejoin-back", Side::Reader),
    ("jump", Side::Reader),
    ("evict-from-outside", Side::Reader),
    ("reap-from-outside", Side::Reader),
    ("forget", Side::Reader),
];

/// Bytes of the ring, and records of 48 bytes that fill it.
pub(crate) const CAPACITY: u64 = 4096;
const LAP: u64 = CAPACITY / 64;
pub(crate) const SLOTS: u32 = 8;
/// A bus that replaces another has this capacity, to be told apart.
pub(crate) const OTHER_CAPACITY: u64 = 8192;

struct World {
    bus: PathBuf,
    page: Page,
    writer: Option<Writer>,
    hold: Option<Reader>,
    other: Option<Reader>,
}

impl World {
    /// A bus with `records` of 48 bytes published; "hold" is 5 behind, an unnamed reader 3.
    fn new(bus: &Path, records: u64, stamped: bool, class: Class) -> Self {
        let page = Page::open(bus);
        let writer = Options::new().capacity(CAPACITY).readers(SLOTS).stamped(stamped).create(bus).unwrap();
        let hold = Reader::options().name("hold").hold_while_away(true).class(class).auto_commit(false).open(bus);
        let other = Reader::options().auto_commit(false).open(bus).unwrap();
        let mut world =
            Self { bus: bus.into(), page, writer: Some(writer), hold: Some(hold.unwrap()), other: Some(other) };
        for n in 0..records {
            world.writer().publish(&payload(n, 48)).unwrap();
            world.follow(5, 3);
        }
        world.page.set(Fact::Published, records);
        world.page.set(Fact::Attempted, records);
        world.page.set(Fact::Hold, 2);
        world.page.set(Fact::Class, class as u64);
        world
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    fn hold(&mut self) -> &mut Reader {
        self.hold.as_mut().unwrap()
    }

    /// Lets both readers read until they are so many behind.
    fn follow(&mut self, hold: u64, other: u64) {
        let head = self.writer().next_sequence();
        for (reader, lag) in [(&mut self.hold, hold), (&mut self.other, other)] {
            let reader = reader.as_mut().unwrap();
            while reader.next_sequence() + lag < head {
                assert!(matches!(reader.try_next().unwrap(), Next::Record(_)));
                reader.commit();
            }
        }
        self.know_cursor();
    }

    fn know_cursor(&mut self) {
        let next = self.hold().next_sequence();
        self.page.set(Fact::Committed, next);
        self.page.set(Fact::Given, next);
    }

    /// Publishes into a full ring without anyone reading, evicting whoever is in the way.
    fn run_over(&mut self, records: u64) {
        self.writer().set_policy(Policy::Evict);
        for _ in 0..records {
            let n = self.writer().next_sequence();
            self.writer().publish(&payload(n, 48)).unwrap();
            self.page.set(Fact::Attempted, n + 1);
            self.page.set(Fact::Published, n + 1);
        }
    }

    fn attempt(&mut self, records: u64) -> u64 {
        let n = self.writer().next_sequence();
        self.page.set(Fact::Attempted, n + records);
        n
    }

    fn published(&mut self) {
        let next = self.writer().next_sequence();
        self.page.set(Fact::Published, next);
    }

    /// Takes what "hold" gets next; what was taken before is committed by that only with automatic commits.
    fn take(&mut self) {
        match self.hold.as_mut().unwrap().try_next().unwrap() {
            Next::Record(record) => self.page.set(Fact::Given, record.sequence() + 1),
            Next::Gap(gap) => tell_gap(&self.page, gap),
            other => panic!("{other:?}"),
        }
    }

    /// Ends the writer, as a crash would.
    fn without_writer(mut self) -> Self {
        self.writer = None;
        self
    }

    /// Copies the bus to its real place, where no handle is open: whoever used it is dead there.
    fn left_behind_at(self, bus: &Path) -> Self {
        for suffix in ["", ".readers", ".lock"] {
            let at = |path: &Path| format!("{}{suffix}", path.display());
            std::fs::copy(at(&self.bus), at(bus)).unwrap();
        }
        self
    }
}

fn tell_gap(page: &Page, gap: Gap) {
    page.set(Fact::GapFirst, gap.first);
    page.set(Fact::GapEnd, gap.end);
    page.set(Fact::Given, gap.end);
}

/// Sets the world up, stops at a mark, performs the operation, and stops at the next.
pub(crate) fn perform(bus: &Path, act: &str) {
    let at = |records| World::new(bus, records, false, Class::Gating);
    let publish = |records: u64, lengths: &[usize]| {
        let mut world = at(records);
        mark();
        for &length in lengths {
            let n = world.attempt(1);
            world.writer().publish(&payload(n, length)).unwrap();
            world.published();
        }
        mark();
    };
    let batch = |records: u64, lengths: &[usize]| {
        let mut world = at(records);
        let n = world.attempt(lengths.len() as u64);
        world.page.set(Fact::Whole, 1);
        mark();
        let mut batch = world.writer().batch();
        for (sequence, &length) in (n..).zip(lengths) {
            batch.push(&payload(sequence, length)).unwrap();
        }
        let _ = batch.commit();
        world.published();
        mark();
    };
    match act {
        "create" => {
            let page = Page::open(bus);
            page.set(Fact::Missing, 1);
            mark();
            let writer = Options::new().capacity(CAPACITY).readers(SLOTS).create(bus).unwrap();
            page.set(Fact::Missing, 0);
            mark();
            drop(writer);
        }
        "replace" => {
            let world = at(LAP + 7).without_writer();
            mark();
            let writer = Options::new().capacity(OTHER_CAPACITY).readers(SLOTS).replace(bus).unwrap();
            mark();
            drop((writer, world));
        }
        "remove" => {
            let world = at(LAP + 7).without_writer();
            world.page.set(Fact::Missing, 1);
            mark();
            Bus::remove(bus).unwrap();
            mark();
        }
        "publish-small" => publish(2 * LAP + 9, &[48, 1]),
        "publish-empty" => publish(2 * LAP + 9, &[0]),
        "publish-crossing" => publish(2 * LAP + 15, &[200]),
        "publish-large" => publish(2 * LAP + 10, &[1008]),
        "publish-wrapping" => publish(2 * LAP + 62, &[300]),
        "publish-large-wrapping" => publish(2 * LAP + 50, &[1008]),
        "publish-to-the-end" => publish(2 * LAP + 63, &[48, 5]),
        "publish-stamped" => {
            let mut world = World::new(bus, LAP, true, Class::Gating);
            mark();
            for length in [40, 700, 700, 3] {
                let n = world.attempt(1);
                world.writer().publish(&payload(n, length)).unwrap();
                world.published();
            }
            mark();
        }
        "publish-vectored" => {
            let mut world = at(2 * LAP + 61);
            mark();
            let n = world.attempt(1);
            let whole = payload(n, 77);
            world.writer().publish_vectored(5, &[&whole[..3], &[], &whole[3..40], &whole[40..]]).unwrap();
            world.published();
            mark();
        }
        "batch-small" => batch(2 * LAP + 9, &[48, 0, 17]),
        "batch-wrapping" => batch(2 * LAP + 58, &[100, 90, 100, 100, 100, 48]),
        "claim" => {
            let mut world = at(2 * LAP + 9);
            mark();
            let n = world.attempt(1);
            let mut claim = world.writer().claim(0, 200).unwrap();
            claim.as_mut_slice().copy_from_slice(&payload(n, 200));
            let _ = claim.commit();
            world.published();
            mark();
        }
        "claim-shortened" => {
            let mut world = at(2 * LAP + 60);
            mark();
            let n = world.attempt(1);
            let mut claim = world.writer().claim(0, 900).unwrap();
            claim.as_mut_slice()[..20].copy_from_slice(&payload(n, 20));
            claim.commit_len(20).unwrap();
            world.published();
            mark();
        }
        "claim-dropped" => {
            let mut world = at(2 * LAP + 60);
            mark();
            let mut claim = world.writer().claim(0, 900).unwrap();
            claim.as_mut_slice().fill(0xff);
            drop(claim);
            let n = world.attempt(1);
            world.writer().publish(&payload(n, 30)).unwrap();
            world.published();
            mark();
        }
        "evict-by-policy" => {
            let mut world = at(2 * LAP + 9);
            while let Ok(n) = {
                let n = world.attempt(1);
                world.writer().try_publish(&payload(n, 48))
            } {
                world.page.set(Fact::Published, n + 1);
            }
            world.writer().set_policy(Policy::Evict);
            mark();
            for _ in 0..8 {
                let n = world.attempt(1);
                world.writer().publish(&payload(n, 48)).unwrap();
                world.published();
            }
            mark();
        }
        "evict" => {
            let mut world = at(2 * LAP + 9);
            let id = world.hold().id();
            mark();
            world.writer().evict(id).unwrap();
            mark();
        }
        "reap" | "reap-in-the-way" => {
            let mut world = World::new(&bus.with_file_name("before"), 2 * LAP + 9, false, Class::Gating);
            if act == "reap-in-the-way" {
                while let Ok(n) = {
                    let n = world.attempt(1);
                    world.writer().try_publish(&payload(n, 48))
                } {
                    world.page.set(Fact::Published, n + 1);
                }
            }
            let world = world.left_behind_at(bus);
            let mut writer = Writer::open(bus).unwrap();
            mark();
            if act == "reap" {
                assert_eq!(writer.reap().unwrap().len(), 2);
            } else {
                assert!(matches!(writer.try_publish(&payload(0, 48)), Err(PublishError::WouldOverrun(_))));
            }
            mark();
            drop(world);
        }
        "close" => {
            let mut world = at(2 * LAP + 9);
            let writer = world.writer.take().unwrap();
            mark();
            writer.close_with(7, "the end of the stream").unwrap();
            mark();
        }
        "drop-writer" => {
            let mut world = at(2 * LAP + 9);
            mark();
            world.writer = None;
            mark();
        }
        "open-writer" => {
            // The files are where the test has put them, and so are the facts.
            let _page = Page::open(bus);
            mark();
            let writer = Writer::open(bus).unwrap();
            mark();
            drop(writer);
        }
        _ => read(bus, act, at),
    }
}

/// The operations of readers, and on readers from outside.
fn read(bus: &Path, act: &str, at: impl Fn(u64) -> World) {
    match act {
        "attach" => {
            let world = at(2 * LAP + 9).without_writer();
            mark();
            let reader = Reader::options().start(Start::Oldest).open(bus).unwrap();
            mark();
            drop((reader, world));
        }
        "join-named" => {
            let world = at(2 * LAP + 9).without_writer();
            mark();
            let reader = Reader::options().name("second").hold_while_away(true).open(bus).unwrap();
            mark();
            drop((reader, world));
        }
        "resume" | "resume-with-gap" => {
            let mut world = at(2 * LAP + 9);
            if act == "resume-with-gap" {
                world.run_over(2 * LAP);
            }
            let mut world = world.without_writer();
            world.hold = None;
            resume(bus, &mut world);
        }
        "resume-here" => {
            let page = Page::open(bus);
            let mut world = World { bus: bus.into(), page, writer: None, hold: None, other: None };
            resume(bus, &mut world);
        }
        "read" => {
            let mut world = at(2 * LAP + 9).without_writer();
            let next = world.hold().next_sequence();
            world.hold = None;
            world.hold = Reader::options().name("hold").hold_while_away(true).start(Start::Resume).open(bus).ok();
            assert_eq!(world.hold().next_sequence(), next);
            mark();
            for _ in 0..3 {
                world.take();
                let given = world.page.read().get(Fact::Given);
                // Each call commits what the call before it has given.
                world.page.set(Fact::Committed, given - 1);
            }
            mark();
        }
        "commit" => {
            let mut world = at(2 * LAP + 9).without_writer();
            world.take();
            world.take();
            mark();
            world.hold().commit();
            let given = world.page.read().get(Fact::Given);
            world.page.set(Fact::Committed, given);
            mark();
        }
        "drain" => {
            let mut world = at(2 * LAP + 9).without_writer();
            let World { page, hold, .. } = &mut world;
            mark();
            let (count, _) =
                hold.as_mut().unwrap().drain(4, |record| page.set(Fact::Given, record.sequence() + 1)).unwrap();
            assert_eq!(count, 4);
            mark();
        }
        "detach" => {
            let mut world = at(2 * LAP + 9).without_writer();
            mark();
            world.hold = None;
            mark();
        }
        "leave" => {
            let mut world = at(2 * LAP + 9).without_writer();
            mark();
            world.other = None;
            mark();
        }
        "rejoin" => {
            let mut world = at(2 * LAP + 9);
            world.run_over(2 * LAP);
            let mut world = world.without_writer();
            mark();
            let gap = world.hold().rejoin(Start::Oldest).unwrap();
            tell_gap(&world.page, gap);
            world.take();
            world.hold().commit();
            let given = world.page.read().get(Fact::Given);
            world.page.set(Fact::Committed, given);
            mark();
        }
        "rejoin-back" => {
            let mut world = at(2 * LAP + 9).without_writer();
            // Going back is what the application asked for: any record from the oldest on may come next.
            world.page.set(Fact::Committed, 0);
            world.page.set(Fact::Start, u64::MAX);
            mark();
            world.hold().rejoin(Start::Oldest).unwrap();
            mark();
        }
        "jump" => {
            let mut world = World::new(bus, 2 * LAP + 9, false, Class::Lossy);
            world.run_over(2 * LAP);
            let mut world = world.without_writer();
            mark();
            world.take();
            world.take();
            world.hold().commit();
            let given = world.page.read().get(Fact::Given);
            world.page.set(Fact::Committed, given);
            world.take();
            mark();
        }
        "evict-from-outside" | "reap-from-outside" | "forget" => {
            let before = bus.with_file_name("before");
            let alive = act == "evict-from-outside";
            let mut world = World::new(if alive { bus } else { &before }, 2 * LAP + 9, false, Class::Gating);
            let id = world.hold().id();
            let mut world = world.without_writer();
            if !alive {
                world = world.left_behind_at(bus);
            }
            let seen = Bus::open(bus).unwrap();
            if act == "forget" {
                world.page.set(Fact::Hold, 1);
            }
            mark();
            match act {
                "evict-from-outside" => assert!(seen.evict(id).unwrap().is_some()),
                "reap-from-outside" => assert_eq!(seen.reap().unwrap().len(), 2),
                _ => seen.forget("hold").unwrap(),
            }
            if act == "forget" {
                world.page.set(Fact::Hold, 0);
            }
            mark();
            drop(world);
        }
        other => panic!("no act {other:?}"),
    }
}

/// Attaches under the name and takes what comes first.
fn resume(bus: &Path, world: &mut World) {
    let class = match world.page.read().get(Fact::Class) {
        2 => Class::Lossy,
        3 => Class::Pinned,
        _ => Class::Gating,
    };
    let options = Reader::options().name("hold").hold_while_away(true).class(class).auto_commit(false);
    mark();
    world.hold = Some(options.start(Start::Resume).open(bus).unwrap());
    world.take();
    world.take();
    world.hold().commit();
    let given = world.page.read().get(Fact::Given);
    world.page.set(Fact::Committed, given);
    mark();
}

/// The operations that open something, as a program would that expects them to fail.
pub(crate) const OPENINGS: &[&str] = &["create", "replace", "open-writer", "attach", "join-named", "resume"];

/// Performs one of [`OPENINGS`] between two marks; what came of it.
pub(crate) fn attempt(bus: &Path, act: &str) -> Result<()> {
    let mut world = None;
    if act == "create" {
        Page::open(bus).set(Fact::Missing, 1);
    } else {
        let mut there = World::new(bus, 2 * LAP + 9, false, Class::Gating).without_writer();
        if act == "resume" {
            there.hold = None;
        }
        world = Some(there);
    }
    let options = Options::new().capacity(if act == "create" { CAPACITY } else { OTHER_CAPACITY }).readers(SLOTS);
    let hold = |name| Reader::options().name(name).hold_while_away(true);
    mark();
    // Dropped only after the second mark, so that what fails is the opening.
    let (result, opened): (_, Option<Box<dyn std::any::Any>>) = match act {
        "create" => split(options.create(bus)),
        "replace" => split(options.replace(bus)),
        "open-writer" => split(Writer::open(bus)),
        "attach" => split(Reader::options().start(Start::Oldest).open(bus)),
        "join-named" => split(hold("second").open(bus)),
        "resume" => split(hold("hold").start(Start::Resume).open(bus)),
        other => panic!("{other:?} opens nothing"),
    };
    mark();
    drop((opened, world));
    result
}

fn split<T: 'static>(result: Result<T>) -> (Result<()>, Option<Box<dyn std::any::Any>>) {
    match result {
        Ok(handle) => (Ok(()), Some(Box::new(handle))),
        Err(error) => (Err(error), None),
    }
}
