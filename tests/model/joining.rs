//! Registered readers come, go elsewhere, leave, are evicted and forgotten: in the bus and in the model.

use crate::ops::{From, Joiner};
use crate::reading::{Eyes, Handle, Owed, Seat};
use crate::stream::Place;
use crate::world::{LIMIT, World, pick};
use lapwing::*;
use std::time::{Duration, SystemTime};

impl World {
    /// What to ask for, the sequence that means, and where it leads; only the first if it must be refused.
    pub(crate) fn start(&self, from: From) -> (Start, Option<(u64, Place)>) {
        let head = self.stream.head();
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33);
        let at = |place: Place| Some((place.sequence, place));
        match from {
            From::Latest => (Start::Latest, at(head)),
            From::Oldest => (Start::Oldest, at(self.stream.oldest())),
            From::After(behind) if behind <= head.sequence => {
                let after = head.sequence - behind;
                (Start::After(after), Some((after + 1, self.stream.place_of(after + 1))))
            }
            From::After(_) => (Start::After(u64::MAX), None),
            From::Future(ahead) => (Start::After(head.sequence + ahead), None),
            From::SinceEver => (Start::Since(SystemTime::UNIX_EPOCH), at(self.stream.since_ever())),
            From::SinceNever => (Start::Since(far), at(self.stream.since_never())),
            From::Resume => (Start::Resume, at(self.stream.oldest())),
        }
    }

    /// The latest close that a reader without a past knows of.
    pub(crate) fn told(&self) -> u64 {
        let closed = self.ending.as_ref().map_or(0, |ending| ending.epoch);
        if self.epoch > closed { closed } else { closed.saturating_sub(1) }
    }

    pub(crate) fn join(&mut self, joiner: Joiner) {
        let Joiner { class, from, name, hold, auto, filter } = joiner;
        let name = name.map(|name| format!("reader {name}"));
        let mut options = Reader::options().class(class).auto_commit(auto);
        if let Some(name) = &name {
            options = options.name(name).hold_while_away(hold);
        } else if hold {
            let result = options.hold_while_away(true).open(&self.path);
            return assert!(matches!(result.err(), Some(Error::InvalidOption { field: "hold_while_away", .. })));
        }
        if let Some(value) = filter {
            options = options.filter(1, value);
        }
        let (asked_for, start) = self.start(from);
        let result = options.start(asked_for).open(&self.path);
        if asked_for == Start::Resume && name.is_none() {
            return assert!(matches!(result.err(), Some(Error::InvalidOption { field: "start", .. })));
        }
        let known = self.seats.values().find(|seat| name.is_some() && seat.name == name).cloned();
        if let Some(seat) = &known
            && seat.alive(&self.readers)
        {
            let pid = Some(std::process::id());
            return assert!(matches!(result.err(), Some(Error::NameTaken { pid: found, .. }) if found == pid));
        }
        if known.is_none() && self.seats.len() == self.shape.slots as usize {
            let alive = self.readers.len() as u64;
            let Some(Error::TableFull { slots, live, detached, .. }) = result.err() else {
                panic!("the table is full")
            };
            let slots_wanted = u64::from(self.shape.slots);
            return assert_eq!((slots, live, detached), (slots_wanted, alive, slots_wanted - alive));
        }
        let Some((mut asked, mut place)) = start else {
            return assert!(matches!(result.err(), Some(Error::FutureSequence { .. })));
        };
        let reader = result.unwrap();

        let free = (0..self.shape.slots).find(|slot| !self.seats.contains_key(slot));
        let mut seat = known.clone().unwrap_or(Seat {
            slot: free.unwrap_or(0),
            id: 0,
            name: None,
            class,
            hold,
            state: State::Joining,
            start: 0,
            cursor: place,
            missed: 0,
            jump: None,
            untold: None,
            told: 0,
            evictions: 0,
        });
        let mut told = self.told();
        let mut first = asked;
        if known.is_some() && asked_for == Start::Resume {
            asked = seat.cursor.sequence;
            place = self.again(seat.cursor, &reader);
            seat.jump = seat.jump.filter(|&(end, _)| end <= asked);
            first = seat.untold.filter(|gap| gap.end == asked && !gap.is_empty()).map_or(asked, |gap| gap.first);
            told = told.min(seat.told);
        } else {
            seat.reset_books(asked);
            seat.told = told;
        }
        if place.sequence > asked {
            seat.prepare_jump(Gap { first: asked, end: place.sequence });
        }
        seat.move_cursor(place);
        place = self.settle(&mut seat, class, &reader);
        (seat.class, seat.hold, seat.name, seat.id) = (class, hold, name.clone(), reader.id().0);
        seat.state = State::Active;
        assert!(self.ids.insert(seat.id), "an id was used twice");
        let gap = Gap { first, end: place.sequence };
        let owed = if gap.is_empty() { Owed::Nothing } else { Owed::Gap(gap) };
        let eyes = Eyes { next: place, told, filter };
        assert_eq!((reader.name(), reader.class()), (name.as_deref(), class));
        assert_eq!((reader.next_sequence(), reader.start_sequence()), (place.sequence, seat.start));
        let slot = seat.slot;
        let (dirty, jumped, told_evicted) = (false, false, false);
        self.readers.push(Handle { reader, slot, auto, eyes, owed, dirty, jumped, told_evicted });
        self.seats.insert(slot, seat);
    }

    /// Where a reader goes on that stood here: here, unless it was overwritten. Before or behind the padding is the same place.
    fn again(&self, place: Place, reader: &Reader) -> Place {
        if place.position < self.stream.floor() {
            return self.stream.place_of(place.sequence);
        }
        let found = self.stream.head().position - reader.info().unwrap().lag_bytes;
        let start = self.stream.records.get(place.sequence as usize).map_or(place.position, |record| record.start);
        if found == start { Place { position: start, ..place } } else { place }
    }

    /// A reader that gates stays clear of what the writer may be about to take: an extension it could not complete shows as an
    /// intent above the limit, and then the reader may start higher than it need have, with the gap told.
    fn settle(&mut self, seat: &mut Seat, class: Class, reader: &Reader) -> Place {
        let reach = self.header_word(LIMIT + 8).saturating_sub(self.stream.capacity);
        let place = seat.cursor;
        if !class.gates() || place.position >= reach {
            return place;
        }
        let found = reader.next_sequence();
        assert!((place.sequence..=self.stream.head().sequence).contains(&found));
        let higher =
            if found == self.stream.clear().sequence { self.stream.clear() } else { self.stream.place_of(found) };
        assert!(higher.position >= reach, "a reader became active at {higher:?}, below the writer's intent, {reach}");
        seat.prepare_jump(Gap { first: place.sequence, end: found });
        seat.move_cursor(higher);
        higher
    }

    pub(crate) fn rejoin(&mut self, index: usize, from: From) {
        let (asked_for, start) = self.start(from);
        let mut handle = self.readers.swap_remove(index);
        let next = handle.eyes.next.sequence;
        let result = handle.reader.rejoin(asked_for);
        let Some((mut asked, mut place)) = start else {
            assert!(matches!(result.err(), Some(Error::FutureSequence { .. })));
            return self.readers.push(handle);
        };
        if asked_for == Start::Resume {
            (asked, place) = (next, self.again(handle.eyes.next, &handle.reader));
        }
        let mut seat = self.seats.remove(&handle.slot).unwrap();
        // A gap that it was not told yet is part of what it is told now.
        let owed = if let Owed::Gap(gap) = handle.owed { gap.first } else { next };
        if handle.owed == Owed::Receipt {
            seat.untold = None;
        }
        let first = asked.min(next).min(owed);
        if asked < next {
            seat.reset_books(first);
            if place.sequence > first {
                seat.prepare_jump(Gap { first, end: place.sequence });
            }
        } else {
            seat.jump = seat.jump.filter(|&(end, _)| end <= next);
            seat.move_cursor(Place { sequence: next, ..seat.cursor });
            seat.jump = Some((place.sequence, seat.missed + place.sequence - next));
            if place.sequence > first {
                seat.untold = Some(Gap { first, end: place.sequence });
            }
        }
        seat.move_cursor(place);
        let class = seat.class;
        place = self.settle(&mut seat, class, &handle.reader);
        assert_eq!(result.unwrap(), Gap { first, end: place.sequence });
        seat.state = State::Active;
        handle.eyes.next = place;
        handle.owed = Owed::Receipt;
        (handle.dirty, handle.jumped, handle.told_evicted) = (false, false, false);
        self.seats.insert(handle.slot, seat);
        self.readers.push(handle);
    }

    pub(crate) fn leave(&mut self, index: usize) {
        let handle = self.readers.swap_remove(index);
        let mut seat = self.seats.remove(&handle.slot).unwrap();
        if seat.name.is_some() {
            if seat.state != State::Evicted {
                seat.state = State::Detached;
            }
            self.seats.insert(handle.slot, seat);
        }
        drop(handle);
    }

    pub(crate) fn evict(&mut self, who: u8, by_writer: bool) {
        let Some(index) = pick(who, self.seats.len()) else { return };
        let slot = *self.seats.keys().nth(index).unwrap();
        let seat = self.seats[&slot].clone();
        let id = ReaderId(seat.id);
        let result = if by_writer {
            self.writer().evict(id)
        } else {
            Bus::open(&self.path).unwrap().evict(id).map(|row| row.is_some())
        };
        if seat.class == Class::Pinned && seat.alive(&self.readers) && seat.state != State::Evicted {
            return assert!(matches!(result, Err(Error::NotEvictable { id, .. }) if id == seat.id), "{result:?}");
        }
        assert_eq!(result.unwrap(), seat.state != State::Evicted);
        if seat.state == State::Evicted {
            return;
        }
        let seat = self.seats.get_mut(&slot).unwrap();
        seat.state = State::Evicted;
        seat.evictions += 1;
        if by_writer {
            self.evictions += 1;
            self.evicted.push((id.0, Gap { first: seat.cursor.sequence, end: self.stream.head().sequence }));
        }
    }

    pub(crate) fn forget(&mut self, name: u8) {
        let name = format!("reader {name}");
        let result = Bus::open(&self.path).unwrap().forget(&name);
        match self.seats.values().find(|seat| seat.name.as_ref() == Some(&name)) {
            None => assert!(matches!(result, Err(Error::NameUnknown { .. })), "{result:?}"),
            Some(seat) if seat.alive(&self.readers) => {
                assert!(matches!(result, Err(Error::NameTaken { .. })), "{result:?}");
            }
            Some(seat) => {
                result.unwrap();
                let slot = seat.slot;
                self.seats.remove(&slot);
            }
        }
    }
}
