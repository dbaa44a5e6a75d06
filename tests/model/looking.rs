//! What readers and observers see: each call on the bus, compared with the model's.

use crate::ops::{Ask, From};
use crate::reading::{Ending, Expect, Eyes, Reads, Stamps, Watcher, compare};
use crate::stream::Stream;
use crate::world::World;
use lapwing::*;

impl World {
    pub(crate) fn read(&mut self, index: usize, ask: Ask) {
        let Self { readers, seats, stream, ending, stamps, .. } = self;
        let handle = &mut readers[index];
        let seat = seats.get_mut(&handle.slot).unwrap();
        let ending = ending.as_ref();
        let ask =
            if matches!(ask, Ask::Next) && !handle.something_there(seat, stream, ending) { Ask::Try } else { ask };
        let owed = handle.begin(seat);
        if let Ask::Drain(max) = ask {
            let mut wanted = Vec::new();
            let then = loop {
                if let Some(gap) = owed {
                    break Expect::Gap(gap);
                }
                if wanted.len() == max {
                    break Expect::Empty;
                }
                match handle.poll(seat, stream, ending) {
                    Expect::Record(sequence) => wanted.push(sequence),
                    other => break other,
                }
            };
            if handle.auto && std::mem::take(&mut handle.dirty) {
                seat.move_cursor(handle.eyes.next);
            }
            drained(&mut handle.reader, max, &wanted, &then, stream, ending, stamps);
        } else {
            let expected = owed.map_or_else(|| handle.poll(seat, stream, ending), Expect::Gap);
            compare(&handle.reader.ask(ask).unwrap(), &expected, stream, ending, stamps);
        }
        assert_eq!(handle.reader.next_sequence(), handle.eyes.next.sequence);
    }

    pub(crate) fn observe(&mut self, from: From, filter: Option<u32>) {
        let (asked_for, start) = self.start(from);
        let result = Observer::open(&self.path, asked_for);
        if asked_for == Start::Resume {
            return assert!(matches!(result.err(), Some(Error::InvalidOption { field: "start", .. })));
        }
        let Some((asked, place)) = start else {
            return assert!(matches!(result.err(), Some(Error::FutureSequence { .. })));
        };
        let mut observer = result.unwrap();
        if let Some(value) = filter {
            observer.set_filter(1, value);
        }
        let gap = Gap { first: asked, end: place.sequence };
        let owed = (!gap.is_empty()).then_some(gap);
        self.watchers.push(Watcher { observer, eyes: Eyes { next: place, told: self.told(), filter }, owed });
        if self.watchers.len() > 4 {
            self.watchers.remove(0);
        }
    }

    pub(crate) fn seek(&mut self, index: usize, from: From) {
        let (asked_for, start) = self.start(from);
        let watcher = &mut self.watchers[index];
        let result = watcher.observer.seek(asked_for);
        if asked_for == Start::Resume {
            return assert!(matches!(result, Err(Error::InvalidOption { field: "start", .. })), "{result:?}");
        }
        let Some((asked, place)) = start else {
            return assert!(matches!(result, Err(Error::FutureSequence { .. })));
        };
        result.unwrap();
        watcher.eyes.next = place;
        let gap = Gap { first: asked, end: place.sequence };
        watcher.owed = (!gap.is_empty()).then_some(gap);
    }

    pub(crate) fn watch(&mut self, index: usize, ask: Ask) {
        let Self { watchers, stream, ending, stamps, .. } = self;
        let watcher = &mut watchers[index];
        let ending = ending.as_ref();
        let ask = if matches!(ask, Ask::Next) && !watcher.something_there(stream, ending) { Ask::Try } else { ask };
        let owed = watcher.owed.take();
        if let Ask::Drain(max) = ask {
            let mut wanted = Vec::new();
            let then = loop {
                if let Some(gap) = owed {
                    break Expect::Gap(gap);
                }
                if wanted.len() == max {
                    break Expect::Empty;
                }
                match watcher.poll(stream, ending) {
                    Expect::Record(sequence) => wanted.push(sequence),
                    other => break other,
                }
            };
            drained(&mut watcher.observer, max, &wanted, &then, stream, ending, stamps);
        } else {
            let expected = owed.map_or_else(|| watcher.poll(stream, ending), Expect::Gap);
            compare(&watcher.observer.ask(ask).unwrap(), &expected, stream, ending, stamps);
        }
        assert_eq!(watcher.observer.next_sequence(), watcher.eyes.next.sequence);
    }
}

fn drained(
    from: &mut dyn Reads,
    max: usize,
    wanted: &[u64],
    then: &Expect,
    stream: &Stream,
    ending: Option<&Ending>,
    stamps: &mut Stamps,
) {
    let mut found = Vec::new();
    let (count, next) = from
        .drain_into(max, &mut |record| {
            stamps.check(&record, record.sequence(), stream);
            found.push(record.sequence());
        })
        .unwrap();
    assert_eq!(count, found.len());
    assert_eq!(found, wanted);
    compare(&next, then, stream, ending, stamps);
}
