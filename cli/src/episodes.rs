//! Keeps recurring reports readable: the same complaint about the same reader is told at once, then at most every few seconds.

use crate::report::{Event, Outcome};
use lapwing::WriterEvent;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a complaint told is not repeated.
const QUIET: Duration = Duration::from_secs(5);
/// Complaints remembered; readers come and go.
const REMEMBERED: usize = 1024;

/// What a complaint is about: the reader's id, and the share of the ring (zero for an overrun).
type Complaint = (u64, u8);

#[derive(Default)]
pub(crate) struct Episodes {
    told: HashMap<Complaint, (Instant, u64)>,
    /// Overruns noticed, told or not.
    pub(crate) overruns: u64,
    pub(crate) evicted: u64,
}

impl Episodes {
    /// Turns what the writer noticed into what is to be told now.
    pub(crate) fn digest(&mut self, events: Vec<WriterEvent>, outcome: Outcome, now: Instant) -> Vec<Event> {
        events.into_iter().filter_map(|event| self.one(event, outcome, now)).collect()
    }

    fn one(&mut self, event: WriterEvent, outcome: Outcome, now: Instant) -> Option<Event> {
        Some(match event {
            WriterEvent::Warning { percent, reader } => {
                let coalesced = self.due((reader.id.0, percent), now)?;
                Event::Warning { percent, coalesced, reader: (&reader).into() }
            }
            WriterEvent::Overrun(overrun) => {
                self.overruns += 1;
                if outcome == Outcome::Refused {
                    // The refusal itself ends the command, with the report.
                    return None;
                }
                // Told if it is news of any of its readers: who else is in the way at that moment varies.
                let due: Vec<_> = overrun.readers.iter().map(|reader| self.due((reader.id.0, 0), now)).collect();
                let coalesced = due.into_iter().flatten().max()?;
                Event::overrun(&overrun, outcome, overrun.waited, coalesced)
            }
            WriterEvent::Evicted { reader, at_most } => {
                self.evicted += 1;
                Event::Evicted { reader: (&reader).into(), at_most: Some(at_most.into()) }
            }
            WriterEvent::Reaped { reader } => Event::Reaped { reader: (&reader).into() },
            WriterEvent::Coalesced { count } => Event::Coalesced { count },
            // What later versions notice has no words here yet.
            _ => return None,
        })
    }

    /// Says whether a complaint is to be told now, and how many like it were kept back since the last time.
    fn due(&mut self, complaint: Complaint, now: Instant) -> Option<u64> {
        if self.told.len() >= REMEMBERED {
            self.told.retain(|_, (told, _)| now.duration_since(*told) < QUIET);
        }
        let (told, kept) = match self.told.get_mut(&complaint) {
            Some(entry) => entry,
            None => {
                self.told.insert(complaint, (now, 0));
                return Some(0);
            }
        };
        if now.duration_since(*told) < QUIET {
            *kept += 1;
            return None;
        }
        *told = now;
        Some(std::mem::take(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_is_told_at_once_then_now_and_then_with_its_count() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        assert_eq!(episodes.due((1, 50), start), Some(0));
        assert_eq!(episodes.due((1, 75), start), Some(0));
        assert_eq!(episodes.due((2, 50), start), Some(0));
        assert_eq!(episodes.due((1, 50), start + QUIET / 3), None);
        assert_eq!(episodes.due((1, 50), start + QUIET / 2), None);
        assert_eq!(episodes.due((1, 50), start + QUIET), Some(2));
        assert_eq!(episodes.due((1, 50), start + QUIET), None);
        assert_eq!(episodes.due((1, 50), start + QUIET * 2), Some(1));
    }

    #[test]
    fn its_memory_is_bounded_once_complaints_are_old() {
        let mut episodes = Episodes::default();
        let start = Instant::now();
        for id in 0..10 * REMEMBERED as u64 {
            episodes.due((id, 0), start + QUIET * id as u32);
        }
        assert!(episodes.told.len() <= REMEMBERED);
    }
}
