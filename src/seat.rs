//! A registered reader's place in the table: taking it, moving its cursor, and what it owes when it is lapped or evicted.

use crate::consume::Step;
use crate::error::{Error, Result};
use crate::files::Attached;
use crate::join::join;
use crate::layout::ring as at;
use crate::reader::ReaderOptions;
use crate::registry::{LOOKS, Registry};
use crate::report::{Class, Gap};
use crate::ring::{Place, Seek};
use crate::start::{Start, recover_cursor, resume};
use crate::stream::{Poll, Quick, Stream};
use crate::sync::Ordering;
use crate::sys::{self, LockFile};
use crate::table::{Control, OwnSlot, Phase, Table, lock_byte, name_lock_byte};
use crate::trace::changed;
use crate::wake;

/// How often a join is tried while the writer evicts the reader again and again.
const JOIN_TRIES: u32 = 16;

/// A registered reader's place in the table, and what it owes it.
pub(crate) struct Seat {
    pub(crate) slot: OwnSlot,
    /// The control word while all is well.
    control: Control,
    locks: LockFile,
    pub(crate) class: Class,
    pub(crate) name: Option<String>,
    hold: bool,
    pub(crate) auto_commit: bool,
    /// Whether something was handed out, or skipped, and is not committed.
    pub(crate) dirty: bool,
    gap: Owed,
    /// Position for which a waiting writer was woken last.
    woken_for: u64,
    /// Whether a call for more begins with anything but committing what was handed out: no automatic commit, or something owed.
    special: bool,
    /// Whether a jump over a gap waits for the application's commit.
    jump_pending: bool,
    evicted: bool,
    /// What was kept for its name and lies before where it asked to start.
    pub(crate) passed_over: Option<Gap>,
}

/// What the application has to be told, or has been told, of the latest gap.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// To be told.
    Gap(Gap),
    /// Told; its next call shows that it knows.
    Receipt,
}

impl Seat {
    /// Takes a slot and makes it active; returns the seat and where to read from.
    pub(crate) fn take(
        options: &ReaderOptions,
        attached: &Attached,
        table: &Table,
        locks: LockFile,
    ) -> Result<(Self, Place, u64)> {
        let ring = &attached.ring;
        let registry = Registry { paths: &attached.paths, table, ring, file: locks.file() };
        let known = match &options.name {
            Some(name) => registry.claim_name(name, &locks)?,
            None => None,
        };
        let resumed = known.filter(|_| options.start == Start::Resume);
        let head = ring.head();
        let slot = match known {
            Some(index) => table.slot(index),
            None => table.slot(registry.claim_free(&locks, head)?),
        };
        let kept = known.map(|_| recover_cursor(ring, slot, head));
        // What the reader has a right to, and where it can begin.
        let (asked, place) = match kept.filter(|_| resumed.is_some()) {
            Some(cursor) => (cursor.sequence, attached.not_too_old(resume(ring, cursor))),
            None => attached.start(options.start)?,
        };
        let passed_over =
            kept.map(|cursor| Gap { first: cursor.sequence, end: asked }).filter(|passed| !passed.is_empty());
        let (epoch, closed_epoch) = (ring.get(at::EPOCH), ring.get(at::CLOSED_EPOCH));
        // A stream that is closed now is told to be, again to a reader that comes back; an earlier end only to one that was not told.
        let mut told = if epoch > closed_epoch { closed_epoch } else { closed_epoch.saturating_sub(1) };
        let mut untold = None;
        if resumed.is_some() {
            slot.discard_jump(asked);
            untold = slot.untold_gap(asked);
            told = told.min(slot.told_epoch());
        } else {
            slot.reset_books(asked);
            slot.set_told_epoch(told);
        }
        if known.is_none() {
            // A name that is there stays untouched: a death half-way through writing it would orphan the slot.
            slot.reset_counters();
            slot.set_name(options.name.as_deref().unwrap_or(""));
        }
        let hold_for = u64::try_from(options.hold_for.as_nanos()).unwrap_or(u64::MAX);
        slot.set_owner(table.next_id(), sys::identity(), hold_for, sys::wall_clock(), sys::boot_clock());

        for _ in 0..JOIN_TRIES {
            if place.sequence > asked {
                slot.prepare_jump(asked, place.sequence);
            }
            let from = slot.control();
            let joining = from.joining(options.class, options.name.is_some(), options.hold);
            if let Some(place) = join(ring, table, slot, from, joining, place) {
                let gap = Gap { first: untold.unwrap_or(asked).min(asked), end: place.sequence };
                let mut seat = Self {
                    slot: table.own(slot.index()),
                    control: joining.with(Phase::Active),
                    locks,
                    class: options.class,
                    name: options.name.clone(),
                    hold: options.hold,
                    auto_commit: options.auto_commit,
                    dirty: false,
                    gap: Owed::Nothing,
                    woken_for: 0,
                    special: !options.auto_commit,
                    jump_pending: false,
                    evicted: false,
                    passed_over,
                };
                if !gap.is_empty() {
                    seat.owe(Owed::Gap(gap));
                }
                seat.tell_joined(attached, place, gap);
                return Ok((seat, place, told));
            }
        }
        Err(Error::WrongState { what: "join", why: "the writer evicted this reader each time before it was active" })
    }

    #[cfg_attr(not(feature = "tracing"), allow(unused_variables))]
    fn tell_joined(&self, attached: &Attached, place: Place, gap: Gap) {
        changed!(
            info,
            "joined",
            attached.paths.ring,
            reader = self.slot.get().id(),
            name = self.name.as_deref(),
            class = %self.class,
            sequence = place.sequence,
            missed = gap.count(),
        );
    }

    /// Moves the cursor to where the stream is.
    #[inline(always)]
    pub(crate) fn commit(&mut self, stream: &Stream, table: &Table) {
        if !self.dirty {
            return;
        }
        self.dirty = false;
        let next = stream.consumer.next;
        self.slot.get().move_cursor(next.position, next.sequence);
        let waiting = stream.ring().word(at::WAITING).load(Ordering::Relaxed);
        if waiting != 0 && next.position >= waiting {
            self.wake_writer(table, waiting);
        }
    }

    /// Wakes the writer that waits for a position, once: it may take longer to wake up than this reader to take the next
    /// records. A wake that comes to nothing costs it a millisecond, as ever.
    #[cold]
    #[inline(never)]
    fn wake_writer(&mut self, table: &Table, waiting: u64) {
        if self.woken_for != waiting {
            self.woken_for = waiting;
            wake::wake_writer(table);
        }
    }

    /// Moves the cursor on the application's word.
    pub(crate) fn commit_all(&mut self, stream: &Stream, table: &Table) {
        self.jump_pending = false;
        self.dirty = true;
        self.commit(stream, table);
    }

    /// Says whether a call for more begins with anything but committing what was handed out.
    #[inline(always)]
    pub(crate) fn is_special(&self) -> bool {
        self.special
    }

    /// What every call for more begins with: the records handed out before count as handled.
    #[inline(always)]
    pub(crate) fn begin(&mut self, stream: &Stream, table: &Table) -> Option<Gap> {
        if self.special {
            return self.begin_specially(stream, table);
        }
        self.commit(stream, table);
        None
    }

    #[cold]
    fn begin_specially(&mut self, stream: &Stream, table: &Table) -> Option<Gap> {
        if self.auto_commit {
            self.commit(stream, table);
        }
        match self.gap {
            Owed::Gap(gap) => {
                self.owe(Owed::Receipt);
                Some(gap)
            }
            Owed::Receipt => {
                self.slot.get().gap_told();
                self.owe(Owed::Nothing);
                None
            }
            Owed::Nothing => None,
        }
    }

    fn owe(&mut self, gap: Owed) {
        self.gap = gap;
        self.special = !self.auto_commit || gap != Owed::Nothing;
    }

    /// Says whether nobody has evicted the reader.
    #[inline(always)]
    pub(crate) fn is_seated(&self) -> bool {
        self.slot.get().control() == self.control
    }

    /// Looks for the next record, gap or end.
    #[inline(always)]
    pub(crate) fn poll(&mut self, stream: &mut Stream, table: &Table) -> Result<Poll> {
        match stream.quick() {
            Quick::Record(found) => {
                self.dirty = true;
                Ok(Poll::Record(found))
            }
            Quick::Empty if !self.dirty && self.is_seated() => Ok(Poll::Empty),
            _ => self.poll_slow(stream, table),
        }
    }

    /// The same, for whatever is not just the next record.
    #[inline(never)]
    pub(crate) fn poll_slow(&mut self, stream: &mut Stream, table: &Table) -> Result<Poll> {
        // A second turn is for a reader that had only padding overwritten; lapped again so soon, it finds out at its next call.
        for _ in 0..2 {
            // Asked before the look: what the look finds empty then stays so.
            let replaced = stream.replaced();
            let found = match stream.step()? {
                Step::Record(found) => {
                    self.dirty = true;
                    Some(Poll::Record(found))
                }
                other => {
                    let found = self.poll_other(stream, table, &other, replaced);
                    // What looks evicted may be a table that is not there any more.
                    stream.attached.check()?;
                    found
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(Poll::Empty)
    }

    /// Everything but a record; `None` if it moved up without missing anything.
    fn poll_other(&mut self, stream: &mut Stream, table: &Table, step: &Step, replaced: bool) -> Option<Poll> {
        let slot = self.slot.get();
        if !self.is_seated() {
            self.evicted = true;
            let oldest = stream.ring().seek(Seek::Oldest).sequence;
            let first = stream.consumer.next.sequence;
            return Some(Poll::Evicted(Gap { first, end: oldest.max(first) }));
        }
        if let Step::Lapped = step {
            return self.jump(stream, table).map(Poll::Gap);
        }
        // Padding and records skipped by the filter are done with, unless something handed out waits for its commit.
        if (self.auto_commit || !self.dirty) && stream.consumer.next.position != slot.position() {
            self.dirty = true;
            self.commit(stream, table);
        }
        Some(match step {
            Step::Closed => Poll::Closed,
            _ if replaced => Poll::Replaced,
            _ => Poll::Empty,
        })
    }

    /// Moves a lapped reader up. The gap stays on record until the application comes back for more.
    ///
    /// `None` if only the padding before the next record was overwritten, and nothing is missed.
    fn jump(&mut self, stream: &mut Stream, table: &Table) -> Option<Gap> {
        if self.jump_pending {
            // The slot can keep one jump ahead of the cursor, so a second one commits the first.
            self.jump_pending = false;
            self.dirty = true;
            self.commit(stream, table);
        }
        let gap = stream.move_up();
        if gap.is_empty() {
            return None;
        }
        self.slot.get().prepare_jump(gap.first, gap.end);
        self.dirty = true;
        self.jump_pending = !self.auto_commit;
        if self.auto_commit {
            self.commit(stream, table);
        }
        self.owe(Owed::Receipt);
        Some(gap)
    }

    /// Starts reading elsewhere, after an eviction or to seek; returns what is skipped.
    pub(crate) fn rejoin(&mut self, stream: &mut Stream, table: &Table, start: Start) -> Result<Gap> {
        let next = stream.consumer.next.sequence;
        let (asked, mut place) = match start {
            Start::Resume => {
                // Its own place, which the index need not reach down to.
                let (ring, own) = (stream.ring(), stream.consumer.next);
                let place = if ring.intact(own.position) { own } else { ring.seek(Seek::Sequence(next)) };
                (next, stream.attached.not_too_old(place))
            }
            start => stream.attached.start(start)?,
        };
        let first = match self.gap {
            Owed::Gap(gap) => gap.first.min(asked.min(next)),
            _ => asked.min(next),
        };
        let slot = table.slot(self.slot.get().index());
        if self.gap == Owed::Receipt {
            slot.gap_told();
        }
        for _ in 0..JOIN_TRIES {
            let counted = if asked < next {
                slot.reset_books(first);
                first
            } else {
                slot.discard_jump(next);
                slot.move_cursor(slot.position(), next);
                next
            };
            if place.sequence > first {
                slot.prepare_gap(first, counted, place.sequence);
            }
            let from = slot.control();
            let joining = from.joining(self.class, self.name.is_some(), self.hold);
            if let Some(settled) = join(&stream.attached.ring, table, slot, from, joining, place) {
                self.control = joining.with(Phase::Active);
                self.evicted = false;
                self.dirty = false;
                self.jump_pending = false;
                self.woken_for = 0;
                self.owe(Owed::Receipt);
                stream.go_to(settled);
                let gap = Gap { first: first.min(settled.sequence), end: settled.sequence };
                self.tell_joined(&stream.attached, settled, gap);
                return Ok(gap);
            }
            place = stream.attached.ring.seek(Seek::Sequence(place.sequence));
        }
        Err(Error::WrongState { what: "rejoin", why: "the writer evicted this reader each time before it was active" })
    }

    /// Gives the slot back, or keeps it for its name.
    ///
    /// The cursor stays where it is: who leaves early may not have handled the last record.
    pub(crate) fn leave(&self, stream: &Stream, table: &Table) {
        let slot = self.slot.get();
        slot.set_detached_at(sys::boot_clock());
        // Somebody who may write the table can keep it changing: then it is left to whoever reclaims it.
        for _ in 0..LOOKS {
            let control = slot.control();
            let next = match control.phase() {
                _ if self.name.is_none() => Phase::Free,
                Phase::Evicted => break,
                _ => Phase::Detached,
            };
            if slot.transition(control, control.with(next)) {
                break;
            }
        }
        wake::wake_writer(table);
        // The locks go with the descriptor, but here at once; what cannot be given back now is given back then. A name's first, so that
        // nobody finds the name taken and the slot free.
        let name = self.name.as_deref().map(name_lock_byte);
        for byte in name.into_iter().chain([lock_byte(slot.index())]) {
            let _later = self.locks.unlock(&stream.attached.paths.table, byte);
        }
    }
}
