//! Finds records in a ring by the documentation of the layout alone, in a damaged one as far as it goes.
//!
//! The way to a record leads from a place that is known to be a record's start, header by header. Such places are the start of the
//! stream and the seek index; where neither helps, whatever looks like three headers in a row.

use super::file::Words;
use lapwing::layout::{ALIGN, COMMITTED, ENTRY, HEADER, MAX_LENGTH, MAX_POSITION, PADDING, RECORD_HEADER, record_size};
use serde::Serialize;
use std::io;

/// Headers that must follow each other before a place that nothing vouches for is taken for a record's start.
const CONVINCING: usize = 3;

/// Where a ring's parts lie, after its header or what could be made of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    pub(crate) stripe: u64,
    pub(crate) ring_at: u64,
    pub(crate) record_header: u64,
    /// Byte of the word `limit`.
    pub(crate) limit_at: u64,
    pub(crate) head: u64,
    pub(crate) head_sequence: u64,
}

/// A record as it lies in the ring.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
    pub(crate) tag: u32,
    pub(crate) length: u64,
    /// Nanoseconds since 1970; `null` if the bus has no time stamps.
    pub(crate) stamp: Option<u64>,
    /// The first bytes, two digits each; `shown` says how many.
    pub(crate) shown: u64,
    pub(crate) hex: String,
    /// The same as text; what does not print is a point.
    pub(crate) text: String,
    #[serde(skip)]
    pub(crate) bytes: Vec<u8>,
}

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    position: u64,
    sequence: u64,
}

/// What lies at a place.
enum Found {
    Record { tag: u32, length: u64, next: Place },
    Padding { next: Place },
    Nothing,
    Wrong(String),
}

pub(crate) struct Ring<'a> {
    pub(crate) words: &'a mut Words,
    pub(crate) shape: Shape,
}

impl Ring<'_> {
    /// Reads up to `count` records from `wanted` on (or the oldest after it); says what was wrong on the way.
    pub(crate) fn records(
        &mut self,
        wanted: u64,
        count: u64,
        show: u64,
        problems: &mut Vec<String>,
    ) -> io::Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        let Some(mut place) = self.start(wanted)? else {
            if self.shape.head_sequence != 0 && count != 0 {
                problems.push("no record was found in the ring".to_owned());
            }
            return Ok(records);
        };
        // No more than a lap, whatever the headers say.
        let end = place.position + self.shape.capacity;
        while (records.len() as u64) < count && place.position < end {
            match self.at(place)? {
                Found::Padding { next } => place = next,
                Found::Record { tag, length, next } => {
                    if place.sequence >= wanted {
                        let record = self.read(place, tag, length, show)?;
                        // A living writer may have come round meanwhile.
                        if self.floor()? > place.position {
                            problems.push(format!("record {} was overwritten while it was read", place.sequence));
                            break;
                        }
                        records.push(record);
                    }
                    place = next;
                }
                Found::Nothing => {
                    if place.position < self.shape.head {
                        problems.push(format!(
                            "the records end at position {} (sequence {}), before the head at {} (sequence {})",
                            place.position, place.sequence, self.shape.head, self.shape.head_sequence
                        ));
                    }
                    break;
                }
                Found::Wrong(why) => {
                    if self.floor()? > place.position {
                        problems.push(format!("position {} was overwritten while it was read", place.position));
                    } else {
                        problems.push(format!("position {}: {why}", place.position));
                    }
                    break;
                }
            }
        }
        Ok(records)
    }

    /// Position below which the writer may be writing.
    fn floor(&self) -> io::Result<u64> {
        let limit = self.words.fresh(self.shape.limit_at)?.unwrap_or(0).min(MAX_POSITION);
        Ok(limit.saturating_sub(self.shape.capacity))
    }

    fn byte(&self, position: u64) -> u64 {
        self.shape.ring_at + position % self.shape.capacity
    }

    fn at(&mut self, place: Place) -> io::Result<Found> {
        let Shape { capacity, record_header, .. } = self.shape;
        let byte = self.byte(place.position);
        let (Some(commit), Some(sequence)) = (self.words.word(byte)?, self.words.word(byte + 8)?) else {
            return Ok(Found::Wrong("the file ends here".to_owned()));
        };
        if commit == 0 {
            return Ok(Found::Nothing);
        }
        if commit & COMMITTED == 0 {
            return Ok(Found::Wrong(format!("the commit word {commit:#x} is not that of a record")));
        }
        if sequence != place.sequence {
            return Ok(Found::Wrong(format!("the record there has sequence {sequence}, expected {}", place.sequence)));
        }
        let left = capacity - place.position % capacity;
        if commit & PADDING != 0 {
            return Ok(Found::Padding { next: Place { position: place.position + left, ..place } });
        }
        let length = commit >> 2 & MAX_LENGTH;
        let size = record_size(record_header, length);
        if size > left || size > capacity / 4 {
            return Ok(Found::Wrong(format!("a record of {length} bytes does not fit")));
        }
        let next = Place { position: place.position + size, sequence: place.sequence.wrapping_add(1) };
        Ok(Found::Record { tag: (commit >> 32) as u32, length, next })
    }

    fn read(&mut self, place: Place, tag: u32, length: u64, show: u64) -> io::Result<Record> {
        let byte = self.byte(place.position);
        let stamp =
            if self.shape.record_header > RECORD_HEADER { self.words.word(byte + RECORD_HEADER)? } else { None };
        let bytes = self.words.bytes(byte + self.shape.record_header, length.min(show))?;
        Ok(Record {
            position: place.position,
            sequence: place.sequence,
            tag,
            length,
            stamp,
            shown: bytes.len() as u64,
            hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            text: super::printable(&bytes),
            bytes,
        })
    }

    /// A place at or before the wanted sequence, as close as can be; else the first after it.
    fn start(&mut self, wanted: u64) -> io::Result<Option<Place>> {
        let floor = self.floor()?;
        let mut places = Vec::new();
        if floor == 0 {
            places.push(Place { position: 0, sequence: 0 });
        }
        let Shape { capacity, stripe, head, .. } = self.shape;
        for entry in 0..capacity / stripe {
            let at = HEADER + entry * ENTRY;
            let (Some(boundary), Some(position), Some(sequence)) =
                (self.words.word(at)?, self.words.word(at + 8)?, self.words.word(at + 16)?)
            else {
                continue;
            };
            let sound = boundary.is_multiple_of(stripe)
                && boundary / stripe % (capacity / stripe) == entry
                && (boundary..=head).contains(&position)
                && position.is_multiple_of(ALIGN)
                && boundary >= floor
                && sequence <= MAX_POSITION;
            if sound && boundary != 0 {
                places.push(Place { position, sequence });
            }
        }
        places.sort_by_key(|place| place.sequence);
        // The head is no record yet.
        places.retain(|place| place.position < head);
        let before = places.iter().rev().find(|place| place.sequence <= wanted).copied();
        // What the index says is believed once a record is there.
        for place in before.into_iter().chain(places) {
            if matches!(self.at(place)?, Found::Record { .. } | Found::Padding { .. }) {
                return Ok(Some(place));
            }
        }
        self.search(floor)
    }

    /// The first place from `floor` on where records follow each other.
    fn search(&mut self, floor: u64) -> io::Result<Option<Place>> {
        let Shape { capacity, .. } = self.shape;
        let mut position = floor.next_multiple_of(ALIGN);
        let end = position.saturating_add(capacity);
        while position < end {
            let byte = self.byte(position);
            if self.words.word(byte)?.is_some_and(|commit| commit & COMMITTED != 0)
                && let Some(sequence) = self.words.word(byte + 8)?
                && sequence <= MAX_POSITION
            {
                let start = Place { position, sequence };
                if self.convinces(start)? {
                    return Ok(Some(start));
                }
            }
            position += ALIGN;
        }
        Ok(None)
    }

    fn convinces(&mut self, start: Place) -> io::Result<bool> {
        let mut place = start;
        for _ in 0..CONVINCING {
            place = match self.at(place)? {
                Found::Record { next, .. } | Found::Padding { next } => next,
                // The last records of a stream.
                Found::Nothing => return Ok(place != start),
                Found::Wrong(_) => return Ok(false),
            };
        }
        Ok(true)
    }
}
