//! What processes do, one access to shared words or one system call a step.

use crate::world::{At, Bus, CAPACITY, Control, Entry, Fault, Move, Phase, Role, World};
use crate::world::{EVICTION_STANDS, NOT_OVERRUN, RIGHT_ONE_EVICTED, SEQUENCE};

/// The moves that a process has; none if it waits for something.
pub(crate) fn actions(bus: &Bus, world: &World, process: u8, moves: &mut Vec<Move>) {
    let me = world.processes[process as usize];
    let free = |slot: u8| world.slots[slot as usize].lock.is_none();
    let slots = || 0..world.slots.len() as u8;
    match me.at {
        At::Rest if me.lives == 0 => {}
        At::Rest => match me.role {
            Role::Reader { named: true } | Role::Forgetter => {
                if world.name_lock.is_none() || bus.fault == Some(Fault::NameUnlocked) {
                    moves.push(Move::Go);
                }
            }
            Role::Reader { named: false } => moves.push(Move::Go),
            Role::Writer => {
                if world.writer_lock.is_none() || bus.fault == Some(Fault::TwoWriters) {
                    moves.push(Move::Go);
                }
            }
            // `Registry::reap` looks before it asks for the lock.
            Role::Reaper => moves.extend(slots().filter(|&s| worth_reaping(world, s)).map(Move::Slot)),
            Role::Evictor => {
                let taken = |s: &u8| world.slots[*s as usize].control.phase != Phase::Free;
                moves.extend(slots().filter(taken).map(Move::Slot));
            }
        },
        // `Registry::claim_free`: slots that are free, or unnamed and unlocked.
        At::Claims => {
            let usable = |s: &u8| {
                let control = world.slots[*s as usize].control;
                let flagged = bus.fault == Some(Fault::FlagBeforeLock) && control.phase != Phase::Free;
                (control.phase == Phase::Free || !control.named) && free(*s) && !flagged
            };
            moves.extend(slots().filter(usable).map(Move::Slot));
        }
        At::WantsKnown(s) | At::WantsSlot(s) | At::LocksLate(s, _) => {
            if free(s) {
                moves.push(Move::Go);
            }
        }
        At::Seated(s, control) => {
            let slot = world.slots[s as usize];
            if slot.control != control || slot.cursor < world.tip {
                moves.push(Move::Go);
            }
            moves.push(Move::Leave);
        }
        At::Idle(next) => {
            if next < bus.records && next < world.lowest() + CAPACITY {
                moves.push(Move::Go);
            }
            moves.push(Move::Leave);
        }
        _ => moves.push(Move::Go),
    }
}

fn worth_reaping(world: &World, slot: u8) -> bool {
    let control = world.slots[slot as usize].control;
    match control.phase {
        Phase::Free | Phase::Detached => false,
        Phase::Evicted => !control.named,
        Phase::Joining | Phase::Active => true,
    }
}

/// Where a process is after a move, and the world with it.
pub(crate) fn step(bus: &Bus, world: &World, process: u8, go: Move) -> World {
    let mut world = world.clone();
    let at = match world.processes[process as usize].role {
        Role::Reader { named } => read(bus, &mut world, process, named, go),
        Role::Reaper => reap(bus, &mut world, process, go),
        Role::Evictor => evict(&mut world, process, go),
        Role::Forgetter => forget(&mut world, process),
        Role::Writer => write(bus, &mut world, process, go),
    };
    let me = &mut world.processes[process as usize];
    // A reaper's rounds are not counted: they lead back to where they began.
    if me.at == At::Rest && at != At::Rest && me.role != Role::Reaper {
        me.lives -= 1;
    }
    me.at = at;
    world
}

/// `Registry::settle`: a dead owner's slot goes out of use. Its compare-and-swap is tried until it succeeds, so this is one step.
fn settle(bus: &Bus, world: &mut World, s: u8) {
    let slot = &mut world.slots[s as usize];
    let freed = bus.fault == Some(Fault::NamedIsFreed);
    let next = match slot.control.phase {
        Phase::Free | Phase::Detached => return,
        Phase::Evicted if slot.control.named => return,
        Phase::Joining | Phase::Active if slot.control.named && !freed => Phase::Detached,
        _ => Phase::Free,
    };
    slot.control = slot.control.with(next);
    slot.promised &= next == Phase::Detached;
}

/// A reader: `Seat::take`, `join`, `Seat::poll`, `Seat::rejoin`, `Seat::leave`.
fn read(bus: &Bus, world: &mut World, process: u8, named: bool, go: Move) -> At {
    let oldest = world.limit.saturating_sub(CAPACITY);
    match world.processes[process as usize].at {
        At::Rest if named => {
            world.name_lock = Some(process);
            At::Named
        }
        At::Rest => At::Claims,
        At::Named => world.known().map_or(At::Claims, At::WantsKnown),
        At::WantsKnown(s) => {
            world.slots[s as usize].lock = Some(process);
            At::Enters(s, Entry::Known)
        }
        At::Claims => {
            let Move::Slot(s) = go else { unreachable!("a claim names its slot") };
            let slot = &mut world.slots[s as usize];
            if bus.fault == Some(Fault::FlagBeforeLock) {
                slot.control = Control { phase: Phase::Joining, named, generation: slot.control.generation + 1 };
                slot.cursor = oldest;
                return At::LocksLate(s, slot.control);
            }
            slot.lock = Some(process);
            At::Settles(s)
        }
        At::LocksLate(s, joining) => {
            world.slots[s as usize].lock = Some(process);
            At::Bumps(s, oldest, joining)
        }
        At::Settles(s) => {
            settle(bus, world, s);
            let slot = &mut world.slots[s as usize];
            if slot.control.phase == Phase::Free {
                return At::Enters(s, Entry::New);
            }
            slot.lock = None;
            At::Claims
        }
        // Who owns the slot from now on, and where it begins.
        At::Enters(s, entry) => {
            let slot = &mut world.slots[s as usize];
            if entry != Entry::Rejoin {
                slot.id = world.next_id;
                world.next_id += 1;
            }
            let place = if entry == Entry::New { oldest } else { slot.cursor.max(oldest) };
            At::Places(s, place)
        }
        // `join`: the cursor first.
        At::Places(s, place) => {
            let slot = &mut world.slots[s as usize];
            slot.cursor = place;
            At::Announces(s, place, slot.control)
        }
        At::Announces(s, place, from) => {
            let slot = &mut world.slots[s as usize];
            if slot.control != from {
                return At::Places(s, place);
            }
            let generation = from.generation + u8::from(bus.fault != Some(Fault::SameGeneration));
            slot.control = Control { phase: Phase::Joining, named, generation };
            slot.joined = slot.id;
            At::Bumps(s, place, slot.control)
        }
        At::Bumps(s, place, joining) => {
            world.registrations += 1;
            let looks = bus.fault != Some(Fault::JoinerTrusts);
            if looks { At::Looks(s, place, joining) } else { At::Activates(s, place, joining) }
        }
        At::Looks(s, place, joining) => {
            if place + CAPACITY >= world.intent {
                return At::Activates(s, place, joining);
            }
            // Also where the writer is about to take its intent back: a gap that was not needed, but is told.
            let higher = world.head;
            let slot = &mut world.slots[s as usize];
            slot.cursor = higher;
            slot.promised = false;
            world.kept = world.kept.filter(|_| !named);
            At::Activates(s, higher, joining)
        }
        At::Activates(s, place, joining) => {
            let slot = &mut world.slots[s as usize];
            let evicted = slot.control != joining;
            if evicted && bus.fault != Some(Fault::PlainStore) {
                return At::Places(s, place);
            }
            if evicted && slot.control == joining.with(Phase::Evicted) {
                world.broken = Some(EVICTION_STANDS);
            }
            let slot = &mut world.slots[s as usize];
            slot.control = joining.with(Phase::Active);
            slot.promised = true;
            if named {
                world.kept = Some(slot.cursor);
            }
            At::Seated(s, slot.control)
        }
        At::Seated(s, control) if go == Move::Leave => {
            let slot = &mut world.slots[s as usize];
            if bus.fault == Some(Fault::LeaveAfterUnlock) {
                slot.lock = None;
                return At::LeavesLate(s);
            }
            let _ = control;
            leave(world, s, named);
            At::Unlocks(s)
        }
        At::LeavesLate(s) => {
            leave(world, s, named);
            if named && world.name_lock == Some(process) {
                world.name_lock = None;
            }
            At::Rest
        }
        At::Seated(s, control) => {
            let slot = &mut world.slots[s as usize];
            if slot.control != control {
                return At::Enters(s, Entry::Rejoin);
            }
            if slot.cursor + CAPACITY < world.limit {
                world.broken = Some(NOT_OVERRUN);
            }
            slot.cursor += 1;
            if named {
                world.kept = Some(slot.cursor);
            }
            At::Seated(s, control)
        }
        At::Unlocks(s) => {
            if named && world.name_lock == Some(process) {
                world.name_lock = None;
            }
            At::UnlocksSlot(s)
        }
        At::UnlocksSlot(s) => {
            world.slots[s as usize].lock = None;
            At::Rest
        }
        other => unreachable!("no reader is at {other:?}"),
    }
}

/// `Seat::leave`: an eviction of a named reader stays on record.
fn leave(world: &mut World, s: u8, named: bool) {
    let slot = &mut world.slots[s as usize];
    let next = match slot.control.phase {
        _ if !named => Phase::Free,
        Phase::Evicted => Phase::Evicted,
        _ => Phase::Detached,
    };
    slot.control = slot.control.with(next);
    slot.promised &= next == Phase::Detached;
}

/// `Registry::reap`.
fn reap(bus: &Bus, world: &mut World, process: u8, go: Move) -> At {
    match world.processes[process as usize].at {
        At::Rest => {
            let Move::Slot(s) = go else { unreachable!("a reaper names its slot") };
            At::Reaps(s)
        }
        At::Reaps(s) => {
            let slot = &mut world.slots[s as usize];
            if slot.lock.is_some() {
                return At::Rest;
            }
            if bus.fault == Some(Fault::ReapWithoutLock) {
                return At::GivesBack(s);
            }
            slot.lock = Some(process);
            At::Holds(s)
        }
        At::Holds(s) => {
            settle(bus, world, s);
            At::GivesBack(s)
        }
        At::GivesBack(s) => {
            if bus.fault == Some(Fault::ReapWithoutLock) {
                settle(bus, world, s);
            } else {
                world.slots[s as usize].lock = None;
            }
            At::Rest
        }
        other => unreachable!("no reaper is at {other:?}"),
    }
}

/// `Registry::find` and `Registry::evict`, of the reader that was there at first.
fn evict(world: &mut World, process: u8, go: Move) -> At {
    match world.processes[process as usize].at {
        At::Rest => {
            let Move::Slot(s) = go else { unreachable!("an evictor names its slot") };
            At::FoundId(s, world.slots[s as usize].id)
        }
        At::FoundId(s, id) => match world.slots[s as usize].control {
            control if matches!(control.phase, Phase::Free | Phase::Evicted) => At::Rest,
            control => At::ReadControl(s, id, control),
        },
        At::ReadControl(s, id, control) if world.slots[s as usize].id == id => At::CheckedId(s, id, control),
        At::ReadControl(..) => At::Rest,
        At::CheckedId(s, id, control) => {
            let slot = &mut world.slots[s as usize];
            if slot.control != control {
                return At::FoundId(s, id);
            }
            slot.control = control.with(Phase::Evicted);
            slot.promised = false;
            if control.named {
                world.kept = None;
            }
            // A name's lives are one reader; the word may bear the id of one that has not joined yet.
            let slot = world.slots[s as usize];
            if !control.named && slot.joined != id && slot.id != id {
                world.broken = Some(RIGHT_ONE_EVICTED);
            }
            At::Rest
        }
        other => unreachable!("no evictor is at {other:?}"),
    }
}

/// `Registry::forget`.
fn forget(world: &mut World, process: u8) -> At {
    match world.processes[process as usize].at {
        At::Rest => {
            world.name_lock = Some(process);
            At::HasName
        }
        At::HasName => world.known().map_or(At::ForgetsName, At::WantsSlot),
        At::WantsSlot(s) => {
            world.slots[s as usize].lock = Some(process);
            At::Frees(s)
        }
        At::Frees(s) => {
            let slot = &mut world.slots[s as usize];
            slot.control = slot.control.with(Phase::Free);
            slot.promised = false;
            world.kept = None;
            At::ForgetsSlot(s)
        }
        At::ForgetsSlot(s) => {
            world.slots[s as usize].lock = None;
            At::ForgetsName
        }
        At::ForgetsName => {
            world.name_lock = None;
            At::Rest
        }
        other => unreachable!("no forgetter is at {other:?}"),
    }
}

/// A writer: `Publisher::take_over`, `Publisher::extend`, and a publish. A scan is one step; loom takes it apart.
fn write(bus: &Bus, world: &mut World, process: u8, go: Move) -> At {
    match world.processes[process as usize].at {
        At::Rest => {
            world.writer_lock = Some(process);
            At::TakesOver
        }
        At::TakesOver => {
            let next = if bus.fault == Some(Fault::HeadTrusted) { world.head } else { world.tip };
            world.intent = world.limit;
            world.head = next;
            At::Idle(next)
        }
        At::Idle(_) if go == Move::Leave => {
            world.writer_lock = None;
            At::Rest
        }
        At::Idle(next) => At::Scanned(next, world.registrations),
        At::Scanned(next, seen) => {
            world.intent = next + 1;
            At::Intends(next, seen)
        }
        At::Intends(next, seen) => {
            let stale = world.registrations != seen && bus.fault != Some(Fault::WriterTrusts);
            if stale && next + 1 > world.lowest() + CAPACITY {
                world.intent = world.limit;
                return At::Idle(next);
            }
            At::Raises(next)
        }
        At::Raises(next) => {
            world.limit = world.limit.max(next + 1);
            At::Writes(next)
        }
        At::Writes(next) => {
            if next != world.tip {
                world.broken = Some(SEQUENCE);
            }
            world.tip = next + 1;
            At::StoresHead(next)
        }
        At::StoresHead(next) => {
            world.head = next + 1;
            At::Idle(next + 1)
        }
        other => unreachable!("no writer is at {other:?}"),
    }
}
