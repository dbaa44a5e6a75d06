//! The ring as everybody sees it: header words, record headers, what is intact, and where a sequence lies.

use crate::layout::{self, ALIGN, COMMITTED, Commit, ENTRY, Geometry, HEADER, MAX_POSITION, ring as at};
use crate::map::{Map, bytes_of, load_words, store_bytes};
use crate::sync::{AtomicU64, Ordering, fence};

/// A place in the stream: a position and the sequence of the record that starts (or will start) there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
}

/// A record's header that made sense; what it says counts only once the place is found intact.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) commit: Commit,
    /// Where the next record starts.
    pub(crate) end: u64,
}

/// What lies at a position.
pub(crate) enum Look {
    /// A record or padding.
    Record(Header),
    /// Nothing yet.
    Empty,
    /// It was overwritten: the reader was lapped.
    Lapped,
    /// Intact, yet no header can look like this: field, expected, found.
    Corrupt(&'static str, u64, u64),
}

/// Where to look for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seek {
    /// The oldest record that is intact.
    Oldest,
    /// The record of this sequence, or the oldest if that is gone.
    Sequence(u64),
    /// The first record of at least this time; without time stamps some record before it, at most a stripe too early.
    Time(u64),
    /// The oldest record, some way above the edge: for those whom the writer does not wait for.
    Clear,
}

/// How often a look that the writer overtakes is tried again before the head is taken instead.
const TRIES: u32 = 64;

/// The ring's words, and how to read them.
pub(crate) struct Ring {
    map: Map,
    pub(crate) geometry: Geometry,
}

/// Says of what was read whether it was intact.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    limit: &'a AtomicU64,
    capacity: u64,
}

impl Judge<'_> {
    /// Says whether what was read at `position` before this call was intact.
    ///
    /// The Acquire fence pairs with the writer's Release fence between its store of limit and its stores to the ring: if any
    /// word read so far came from above the old limit, the new limit is seen here.
    #[inline(always)]
    pub(crate) fn intact(self, position: u64) -> bool {
        fence(Ordering::Acquire);
        // No overflow: positions stay below 2^62, whatever a file says.
        let intact = position + self.capacity >= self.limit.load(Ordering::Relaxed);
        if !intact {
            // Who was lapped sees why: an eviction comes before the limit that overtakes its reader.
            fence(Ordering::Acquire);
        }
        intact
    }
}

impl Ring {
    pub(crate) fn new(map: Map, geometry: Geometry) -> Self {
        Self { map, geometry }
    }

    #[inline(always)]
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// A word of the header.
    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.map.header()[index]
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    /// The commit word of the record at a position.
    #[inline(always)]
    pub(crate) fn commit_word(&self, position: u64) -> &AtomicU64 {
        self.map.at(position)
    }

    /// The sequence word of the record at a position.
    #[inline(always)]
    pub(crate) fn sequence_word(&self, position: u64) -> &AtomicU64 {
        self.map.at(position | 8)
    }

    /// The time stamp of the record at a position, on a stamped bus.
    #[inline(always)]
    pub(crate) fn stamp_word(&self, position: u64) -> &AtomicU64 {
        self.map.at(position + 16)
    }

    /// The words of a payload of `length` bytes of the record at a position; `None` if no record of that length can lie there.
    #[inline(always)]
    pub(crate) fn payload(&self, position: u64, length: usize) -> Option<&[AtomicU64]> {
        self.map.span(position + self.geometry.record_header, length as u64)
    }

    /// Position after the last committed record. Acquire pairs with the writer's Release of head: every record below it can be read.
    #[inline(always)]
    pub(crate) fn head_position(&self) -> u64 {
        self.word(at::HEAD).load(Ordering::Acquire)
    }

    /// Limit that the writer may be about to take; ordered by the fence before it.
    pub(crate) fn intent(&self) -> u64 {
        self.get(at::INTENT)
    }

    /// Lowest position whose bytes are intact.
    pub(crate) fn floor(&self) -> u64 {
        self.get(at::LIMIT).min(MAX_POSITION).saturating_sub(self.geometry.capacity)
    }

    /// Says whether what was read at `position` before this call was intact.
    #[inline(always)]
    pub(crate) fn intact(&self, position: u64) -> bool {
        self.judge().intact(position)
    }

    /// What says whether something was intact, at hand for a loop.
    #[inline(always)]
    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge { limit: self.word(at::LIMIT), capacity: self.geometry.capacity }
    }

    /// Says whether there is nothing at a position below head: what was committed there has been wiped, by a hole punched into the file.
    pub(crate) fn is_wiped(&self, position: u64) -> bool {
        // Acquire (in `head_position`) pairs with the Release of head: the commit words below it are there. A zero that the writer itself
        // stores, a lap later, comes with a limit that tells.
        self.head_position() > position
            && self.commit_word(position).load(Ordering::Relaxed) == 0
            && self.intact(position)
    }

    /// Looks at the header at a place. A record is not validated yet; everything else is.
    #[inline(always)]
    pub(crate) fn look(&self, place: Place) -> Look {
        // Acquire pairs with the Release store of the commit word: payload and sequence are there.
        let commit = Commit(self.commit_word(place.position).load(Ordering::Acquire));
        if commit.0 == 0 {
            return if self.intact(place.position) { Look::Empty } else { Look::Lapped };
        }
        let sequence = self.sequence_word(place.position).load(Ordering::Relaxed);
        let length = commit.length();
        let to_end = self.geometry.capacity - (place.position & (self.geometry.capacity - 1));
        let size = if commit.is_padding() { to_end } else { self.geometry.record_size(length) };
        let sound = sequence == place.sequence && commit.0 & COMMITTED != 0 && size <= to_end;
        if sound {
            return Look::Record(Header { commit, end: place.position + size });
        }
        self.unsound(place, commit, sequence, size, to_end)
    }

    #[cold]
    fn unsound(&self, place: Place, commit: Commit, sequence: u64, size: u64, to_end: u64) -> Look {
        if !self.intact(place.position) {
            Look::Lapped
        } else if commit.0 & COMMITTED == 0 {
            Look::Corrupt("a record's commit word", COMMITTED, commit.0)
        } else if sequence != place.sequence {
            Look::Corrupt("a record's sequence", place.sequence, sequence)
        } else {
            Look::Corrupt("a record's size", to_end, size)
        }
    }

    /// The place after the last committed record.
    ///
    /// The writer stores sequence, then position, Release each; loading them the other way round, the sequence may be the newer
    /// one. Then a record lies at the position, and its own sequence is the right one.
    pub(crate) fn head(&self) -> Place {
        let mut place = Place::default();
        for _ in 0..TRIES {
            // Rounded and bounded, whatever the file says: no index may come from it unchecked.
            place.position = self.head_position().min(MAX_POSITION) & !(ALIGN - 1);
            place.sequence = self.word(at::HEAD_SEQUENCE).load(Ordering::Acquire).min(MAX_POSITION);
            if self.commit_word(place.position).load(Ordering::Acquire) == 0 {
                if self.intact(place.position) {
                    return place;
                }
            } else {
                place.sequence = self.sequence_word(place.position).load(Ordering::Relaxed).min(MAX_POSITION);
                if self.intact(place.position) {
                    return place;
                }
            }
        }
        // Lapped between two loads every time: possible only for a file that contradicts itself, or a reader hardly ever scheduled.
        // The place is checked again by whoever reads there.
        place
    }

    /// Says whether a place is intact, and one where a record starts or the next will.
    pub(crate) fn holds(&self, place: Place) -> bool {
        let head = self.head();
        if place == head {
            return true;
        }
        place.position < head.position
            // Whoever reads there loads both again; a record that is taken for another here is found by way of the index.
            && self.commit_word(place.position).load(Ordering::Relaxed) & COMMITTED != 0
            && self.sequence_word(place.position).load(Ordering::Relaxed) == place.sequence
            && self.intact(place.position)
    }

    fn entry(&self, boundary: u64) -> usize {
        let number = (boundary / self.geometry.stripe) % self.geometry.stripes();
        ((HEADER + number * ENTRY) / 8) as usize
    }

    /// Writes the entry of a boundary; the caller is the writer and stores limit first, the commit word afterwards.
    pub(crate) fn set_entry(&self, boundary: u64, end: Place, time: u64) {
        let entry = self.entry(boundary);
        for (word, value) in [boundary, end.position, end.sequence, time].into_iter().enumerate() {
            self.map[entry + word].store(value, Ordering::Relaxed);
        }
    }

    /// Voids entries that promise more than `head`, left behind by a writer that died before its commit.
    pub(crate) fn void_entries_above(&self, head: u64) {
        for number in 0..self.geometry.stripes() {
            let entry = ((HEADER + number * ENTRY) / 8) as usize;
            if self.map[entry + 1].load(Ordering::Relaxed) > head {
                self.map[entry].store(u64::MAX, Ordering::Relaxed);
            }
        }
    }

    /// The entry of a boundary, with its time, if it counts.
    fn place_at(&self, boundary: u64, head: u64) -> Option<(Place, u64)> {
        let entry = self.entry(boundary);
        let [found, position, sequence, time] = [0, 1, 2, 3].map(|word| self.map[entry + word].load(Ordering::Relaxed));
        let sound = found == boundary
            && position >= boundary
            && position <= head
            && sequence <= MAX_POSITION
            && position.is_multiple_of(ALIGN)
            && self.intact(boundary);
        sound.then_some((Place { position, sequence }, time))
    }

    /// Finds where to start reading; the head if nothing else is to be had.
    ///
    /// A binary search over the stripes, then header by header: exact to the sequence, and bounded by one stripe whatever the ring's size.
    pub(crate) fn seek(&self, seek: Seek) -> Place {
        for _ in 0..TRIES {
            if let Some(place) = self.try_seek(seek) {
                return place;
            }
        }
        self.head()
    }

    fn try_seek(&self, seek: Seek) -> Option<Place> {
        let Geometry { stripe, capacity, .. } = self.geometry;
        let head = self.head();
        let floor = self.floor();
        let mut lowest = floor;
        if let Seek::Clear = seek {
            lowest = lowest.saturating_add(capacity / 8).min(head.position);
        }
        let mut first = lowest.div_ceil(stripe);
        let last = (head.position / stripe).min(first.saturating_add(self.geometry.stripes()));
        let start = if lowest == 0 {
            first = 1;
            Some(Place::default())
        } else {
            // The lowest entry that counts; one is missing only where a takeover voided it.
            let found = (first..=last).find_map(|k| Some((k, self.place_at(k * stripe, head.position)?.0)));
            if let Some((k, _)) = found {
                first = k;
            }
            found.map(|(_, place)| place)
        };
        let Some(mut place) = start else {
            // No boundary between floor and head: everything intact lies behind the head.
            return (self.floor() == floor).then_some(head);
        };
        let before = |at: (Place, u64)| match seek {
            Seek::Oldest | Seek::Clear => false,
            Seek::Sequence(sequence) => at.0.sequence <= sequence,
            Seek::Time(time) => at.1 < time,
        };
        // Invariant: the wanted place is not below `place`, which is the boundary `low`'s (or the lowest).
        let (mut low, mut high) = (first.saturating_sub(1), last + 1);
        while high > low + 1 {
            let middle = low + (high - low) / 2;
            match self.place_at(middle * stripe, head.position) {
                Some(at) if before(at) => (place, low) = (at.0, middle),
                _ => high = middle,
            }
        }
        self.walk(place, seek, head)
    }

    /// Says whether a record starts at `from`: whether headers lead from there to the next one that the index knows of, or to head.
    ///
    /// For places that come from the table, which nobody trusts: a payload can look like a header.
    pub(crate) fn leads_on(&self, from: Place) -> bool {
        let stripe = self.geometry.stripe;
        let head = self.head();
        let boundaries = from.position / stripe + 1..=head.position / stripe;
        let mut known = boundaries.take(self.geometry.stripes() as usize);
        let known = known.find_map(|k| self.place_at(k * stripe, head.position)).map_or(head, |(place, _)| place);
        let mut place = from;
        while place.position < known.position {
            let Look::Record(header) = self.look(place) else { return false };
            place.position = header.end;
            place.sequence += u64::from(!header.commit.is_padding());
        }
        place == known && self.intact(from.position)
    }

    /// Walks headers from `place` to the wanted one; `None` if the writer overtook the walk.
    fn walk(&self, mut place: Place, seek: Seek, head: Place) -> Option<Place> {
        let stamped = self.geometry.stamped;
        for _ in 0..=self.geometry.capacity / ALIGN {
            let arrived = match seek {
                Seek::Oldest | Seek::Clear => true,
                Seek::Sequence(sequence) => place.sequence >= sequence,
                Seek::Time(_) => !stamped,
            };
            if arrived || place.position >= head.position {
                break;
            }
            let Look::Record(header) = self.look(place) else { return None };
            let stamp = if stamped && !header.commit.is_padding() {
                self.stamp_word(place.position).load(Ordering::Relaxed)
            } else {
                0
            };
            if !self.intact(place.position) {
                return None;
            }
            if let Seek::Time(time) = seek
                && stamped
                && !header.commit.is_padding()
                && stamp >= time
            {
                break;
            }
            place.position = header.end;
            place.sequence += u64::from(!header.commit.is_padding());
        }
        self.intact(place.position).then_some(place)
    }

    /// The latest close, as epoch and position, if its epoch is later than `told`.
    ///
    /// Acquire pairs with the Release in [`Self::close`]: position, sequence and reason are those of that epoch (or a later one).
    #[inline(always)]
    pub(crate) fn closed_since(&self, told: u64) -> Option<(u64, u64)> {
        let epoch = self.word(at::CLOSED_EPOCH).load(Ordering::Acquire);
        (epoch > told).then(|| (epoch, self.get(at::CLOSED_POSITION)))
    }

    /// Marks the end of the stream at `head`; the caller is the writer, and wakes everybody afterwards.
    pub(crate) fn close(&self, head: Place, epoch: u64, code: u32, reason: &str) {
        self.set_reason(code, reason);
        self.set(at::CLOSED_SEQUENCE, head.sequence);
        self.set(at::CLOSED_POSITION, head.position);
        self.word(at::CLOSED_EPOCH).store(epoch, Ordering::Release);
    }

    /// The reason the stream was closed for: code and text.
    pub(crate) fn reason(&self) -> (u32, String) {
        let head = self.get(at::REASON);
        let length = ((head >> 32) as usize).min(layout::MAX_REASON);
        let mut text = [0; layout::MAX_REASON / 8];
        load_words(&self.map[at::REASON_TEXT..][..text.len()], &mut text);
        (head as u32, String::from_utf8_lossy(bytes_of(&text, length)).into_owned())
    }

    fn set_reason(&self, code: u32, text: &str) {
        let mut bytes = [0; layout::MAX_REASON];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        store_bytes(&self.map[at::REASON_TEXT..], &bytes);
        self.set(at::REASON, u64::from(code) | (text.len() as u64) << 32);
    }
}
