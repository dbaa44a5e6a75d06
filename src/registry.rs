//! Who owns which slot: claiming, reaping and evicting, decided by the kernel's locks and never by a pid or a clock.
//!
//! A reader holds the write lock on its slot's byte before it touches the slot, so a claim has one owner and death at any instruction
//! releases it. Reaping takes the same lock, changes the slot, and gives the lock back.

use crate::error::{Error, Result};
use crate::files::Paths;
use crate::layout::{Geometry, ring as at};
use crate::report::{ReaderId, ReaderInfo, State};
use crate::ring::{Place, Ring};
use crate::sys::{self, LockFile};
use crate::table::{Phase, Slot, Table, lock_byte, name_lock_byte};
use crate::trace::changed;
use std::fs::File;
use std::time::Duration;

/// How often a slot's lock is asked for while a reaper holds it for a moment, a millisecond apart.
const REAPER_TRIES: u32 = 200;

/// How often a slot is looked at, or its control word moved on, that changes meanwhile. No reader's changes that often: whoever may write the
/// table can make it, and nobody may be kept in a loop by it.
pub(crate) const LOOKS: u32 = 8;

const SPOILED: &str = "its slot changes without pause: somebody who may write the table spoils it";

/// A view of the table together with what it takes to tell the living from the dead.
#[derive(Clone, Copy)]
pub(crate) struct Registry<'a> {
    pub(crate) paths: &'a Paths,
    pub(crate) table: &'a Table,
    pub(crate) ring: &'a Ring,
    pub(crate) file: &'a File,
}

impl<'a> Registry<'a> {
    fn geometry(&self) -> &'a Geometry {
        &self.ring.geometry
    }

    /// Says whether a process other than the owner of `file` holds the slot.
    pub(crate) fn alive(&self, slot: u32) -> Result<bool> {
        sys::is_locked(self.file, &self.paths.table, lock_byte(slot))
    }

    /// Describes a slot against `head`; `None` if it is free.
    pub(crate) fn info(&self, slot: u32, head: Place) -> Result<Option<ReaderInfo>> {
        let words = self.table.slot(slot);
        let look = || {
            let before = words.control();
            let alive = self.alive(slot)?;
            let mut info = ReaderInfo::of(words, self.geometry(), head.position, head.sequence, alive);
            if let Some(info) = &mut info
                && self.ring.get(at::FLAGS) & at::NO_PINNED != 0
            {
                // Who says it is pinned where that is forbidden is lying, and the table is not trusted.
                info.evictable = info.state != State::Evicted;
            }
            // Else a reader may have taken the slot after its lock was looked at: it would seem dead on arrival.
            Ok((info, alive || words.control() == before))
        };
        // A slot that changes more often than this is not a reader's doing.
        for _ in 1..LOOKS {
            if let (info, true) = look()? {
                return Ok(info);
            }
        }
        Ok(look()?.0)
    }

    /// Describes every registered reader.
    pub(crate) fn list(&self, head: Place) -> Result<Vec<ReaderInfo>> {
        let taken = self.table.slots().filter(|slot| slot.control().phase() != Phase::Free);
        taken.filter_map(|slot| self.info(slot.index(), head).transpose()).collect()
    }

    /// Finds a reader by id.
    pub(crate) fn find(&self, id: ReaderId) -> Result<Slot<'a>> {
        let taken = |slot: &Slot<'_>| slot.control().phase() != Phase::Free && slot.id() == id.0;
        self.table.slots().find(taken).ok_or(Error::NoSuchReader { id: id.0 })
    }

    /// Evicts a reader from its slot: it gates no longer. `None` if it was evicted already or has left.
    ///
    /// # Errors
    /// [`Error::NotEvictable`] for a living pinned reader; [`Error::WrongState`] if somebody spoils the slot without pause.
    pub(crate) fn evict(&self, slot: Slot<'_>, id: ReaderId, head: Place) -> Result<Option<ReaderInfo>> {
        for _ in 0..LOOKS {
            let control = slot.control();
            if matches!(control.phase(), Phase::Free | Phase::Evicted) {
                return Ok(None);
            }
            let Some(info) = self.info(slot.index(), head)?.filter(|info| info.id == id) else { return Ok(None) };
            if info.state != State::Evicted && !info.evictable {
                return Err(Error::NotEvictable { id: info.id.0, pid: info.pid });
            }
            if slot.transition(control, control.with(Phase::Evicted)) {
                slot.count_eviction();
                changed!(
                    warn,
                    "evicted",
                    self.paths.ring,
                    reader = info.id.0,
                    name = info.name.as_deref(),
                    pid = info.pid,
                    cursor = info.cursor,
                    pending = info.pending,
                );
                return Ok(Some(info));
            }
        }
        Err(Error::WrongState { what: "evict", why: SPOILED })
    }

    /// Reclaims the slot if its owner is dead; `None` if it lives or there was nothing to do. `locks` is no reader's own descriptor.
    pub(crate) fn reap(&self, slot: Slot<'_>, locks: &LockFile, head: Place) -> Result<Option<ReaderInfo>> {
        let control = slot.control();
        let pointless = match control.phase() {
            Phase::Free | Phase::Detached => true,
            Phase::Evicted => control.is_named(),
            Phase::Joining | Phase::Active => false,
        };
        if pointless || !locks.try_write(&self.paths.table, lock_byte(slot.index()))? {
            return Ok(None);
        }
        let reaped = self.settle(slot, head);
        locks.unlock(&self.paths.table, lock_byte(slot.index()))?;
        Ok(reaped)
    }

    /// Takes a dead owner's slot out of use; the caller holds the slot's lock. `None` if its owner left by itself meanwhile, or if it is no
    /// owner who changes it.
    fn settle(&self, slot: Slot<'_>, head: Place) -> Option<ReaderInfo> {
        for _ in 0..LOOKS {
            let control = slot.control();
            let next = match control.phase() {
                Phase::Free | Phase::Detached => return None,
                Phase::Evicted if control.is_named() => return None,
                Phase::Joining | Phase::Active if control.is_named() => Phase::Detached,
                _ => Phase::Free,
            };
            let info = ReaderInfo::of(slot, self.geometry(), head.position, head.sequence, false);
            slot.set_detached_at(sys::boot_clock());
            if slot.transition(control, control.with(next)) {
                changed!(
                    warn,
                    "reaped",
                    self.paths.ring,
                    reader = info.as_ref().map(|info| info.id.0),
                    name = info.as_ref().and_then(|info| info.name.as_deref()),
                    pid = info.as_ref().map(|info| info.pid),
                );
                return info;
            }
        }
        None
    }

    /// Reclaims every dead reader's slot.
    pub(crate) fn reap_all(&self, locks: &LockFile, head: Place) -> Result<Vec<ReaderInfo>> {
        self.table.slots().filter_map(|slot| self.reap(slot, locks, head).transpose()).collect()
    }

    /// Takes the lock of a name, then finds its slot if it has one; holds both when it returns.
    ///
    /// # Errors
    /// [`Error::NameTaken`] while a living process holds the name.
    pub(crate) fn claim_name(&self, name: &str, locks: &LockFile) -> Result<Option<u32>> {
        let known = || self.table.slots().find(|slot| slot.is_named(name));
        if !locks.try_write(&self.paths.table, name_lock_byte(name))? {
            let pid = known().map(|slot| slot.pid()).filter(|&pid| pid != 0);
            return Err(Error::NameTaken { name: name.into(), pid });
        }
        let Some(slot) = known() else { return Ok(None) };
        // The name is ours, so only a reaper can hold the slot, and only for a moment.
        for _ in 0..REAPER_TRIES {
            if locks.try_write(&self.paths.table, lock_byte(slot.index()))? {
                return Ok(Some(slot.index()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // The descriptor may outlive this call.
        locks.unlock(&self.paths.table, name_lock_byte(name))?;
        Err(Error::NameTaken { name: name.into(), pid: Some(slot.pid()).filter(|&pid| pid != 0) })
    }

    /// Claims a free slot, or one whose unnamed owner is dead; holds its lock when it returns.
    ///
    /// # Errors
    /// [`Error::TableFull`].
    pub(crate) fn claim_free(&self, locks: &LockFile, head: Place) -> Result<u32> {
        // The second pass reclaims the dead; those after it wait for slots that are free, but whose last owner or reaper still holds the lock.
        for pass in 0..REAPER_TRIES {
            let reclaim = pass != 0;
            let mut about_to_be_free = false;
            for slot in self.table.slots() {
                let usable = |slot: Slot<'_>| {
                    let control = slot.control();
                    control.phase() == Phase::Free || reclaim && !control.is_named()
                };
                if !usable(slot) {
                    continue;
                }
                if !locks.try_write(&self.paths.table, lock_byte(slot.index()))? {
                    about_to_be_free |= slot.control().phase() == Phase::Free;
                    continue;
                }
                if reclaim {
                    self.settle(slot, head);
                }
                if slot.control().phase() == Phase::Free {
                    return Ok(slot.index());
                }
                locks.unlock(&self.paths.table, lock_byte(slot.index()))?;
            }
            if reclaim {
                if !about_to_be_free {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let list = self.list(head)?;
        Err(Error::TableFull {
            path: self.paths.table.clone(),
            slots: self.geometry().slots,
            live: list.iter().filter(|reader| reader.alive).count() as u64,
            detached: list.iter().filter(|reader| !reader.alive).count() as u64,
        })
    }

    /// Forgets a name whose reader is away: its slot becomes free.
    pub(crate) fn forget(&self, name: &str, locks: &LockFile) -> Result<()> {
        let Some(index) = self.claim_name(name, locks)? else {
            locks.unlock(&self.paths.table, name_lock_byte(name))?;
            return Err(Error::NameUnknown { name: name.into() });
        };
        let slot = self.table.slot(index);
        let forgotten = (0..LOOKS).any(|_| {
            let control = slot.control();
            control.phase() == Phase::Free || slot.transition(control, control.with(Phase::Free))
        });
        locks.unlock(&self.paths.table, lock_byte(index))?;
        locks.unlock(&self.paths.table, name_lock_byte(name))?;
        if forgotten { Ok(()) } else { Err(Error::WrongState { what: "forget", why: SPOILED }) }
    }
}
