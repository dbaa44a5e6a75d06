//! The state of a bus and its processes, and what must be true of it.

use crate::steps::{actions, step};
use stateright::{Model, Property};

/// Records that the ring holds; a stripe is one record, so that each publish extends the limit.
pub(crate) const CAPACITY: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Free,
    Joining,
    Active,
    Evicted,
    Detached,
}

/// A slot's control word; changed by compare-and-swap only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Control {
    pub(crate) phase: Phase,
    pub(crate) named: bool,
    pub(crate) generation: u8,
}

impl Control {
    pub(crate) fn with(self, phase: Phase) -> Self {
        Self { phase, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) control: Control,
    pub(crate) cursor: u8,
    pub(crate) id: u8,
    /// Whose process holds the kernel's lock on it.
    pub(crate) lock: Option<u8>,
    /// No word of the table: the id with which it was last joined.
    pub(crate) joined: u8,
    /// No word of the table: whether it was promised that nothing from the cursor on is overwritten.
    pub(crate) promised: bool,
}

/// Where a process stands: what it has done, and what its next step will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Rest,
    // A reader, on its way in and out.
    Named,
    WantsKnown(u8),
    Claims,
    Settles(u8),
    Enters(u8, Entry),
    Places(u8, u8),
    Announces(u8, u8, Control),
    Bumps(u8, u8, Control),
    Looks(u8, u8, Control),
    Activates(u8, u8, Control),
    Seated(u8, Control),
    Unlocks(u8),
    UnlocksSlot(u8),
    /// Only with a fault: gave its lock back and has yet to leave the slot.
    LeavesLate(u8),
    /// Only with a fault: set the flag and has yet to take the lock.
    LocksLate(u8, Control),
    // A reaper.
    Reaps(u8),
    Holds(u8),
    GivesBack(u8),
    // An evictor: of a slot, the reader of an id.
    FoundId(u8, u8),
    ReadControl(u8, u8, Control),
    CheckedId(u8, u8, Control),
    // A forgetter.
    HasName,
    WantsSlot(u8),
    Frees(u8),
    ForgetsSlot(u8),
    ForgetsName,
    // A writer: with the next sequence it will give.
    TakesOver,
    Idle(u8),
    Scanned(u8, u8),
    Intends(u8, u8),
    Raises(u8),
    Writes(u8),
    StoresHead(u8),
}

/// Which way a reader came to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    New,
    Known,
    Rejoin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Reader { named: bool },
    Reaper,
    Evictor,
    Forgetter,
    Writer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) role: Role,
    pub(crate) at: At,
    /// How often it may still begin.
    pub(crate) lives: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) slots: Vec<Slot>,
    pub(crate) name_lock: Option<u8>,
    pub(crate) writer_lock: Option<u8>,
    pub(crate) registrations: u8,
    pub(crate) next_id: u8,
    /// Records committed, and what the words of the header say.
    pub(crate) tip: u8,
    pub(crate) head: u8,
    pub(crate) limit: u8,
    pub(crate) intent: u8,
    pub(crate) processes: Vec<Process>,
    /// No word of the bus: the cursor of the named reader, from its first join to an eviction, a gap it is told, or until it is forgotten.
    pub(crate) kept: Option<u8>,
    /// The property that a step itself has broken.
    pub(crate) broken: Option<&'static str>,
}

impl World {
    pub(crate) fn known(&self) -> Option<u8> {
        let named = |slot: &Slot| slot.control.named && slot.control.phase != Phase::Free;
        self.slots.iter().position(named).map(|slot| slot as u8)
    }

    /// Lowest position that a gating slot or the head allows.
    pub(crate) fn lowest(&self) -> u8 {
        let gates = |slot: &&Slot| !matches!(slot.control.phase, Phase::Free | Phase::Evicted);
        let floor = self.limit.saturating_sub(CAPACITY);
        self.slots.iter().filter(gates).map(|slot| slot.cursor.clamp(floor, self.tip)).min().unwrap_or(self.tip)
    }

    /// The kernel's part in a death.
    fn kill(&mut self, process: u8) {
        let mine = |lock: &mut Option<u8>| {
            if *lock == Some(process) {
                *lock = None;
            }
        };
        mine(&mut self.name_lock);
        mine(&mut self.writer_lock);
        self.slots.iter_mut().for_each(|slot| mine(&mut slot.lock));
        self.processes[process as usize].at = At::Rest;
    }

    /// Slots that a process acts on as their owner.
    fn owns(&self, process: &Process) -> Option<u8> {
        match process.at {
            At::Settles(s)
            | At::Enters(s, _)
            | At::Places(s, _)
            | At::Announces(s, ..)
            | At::Bumps(s, ..)
            | At::Looks(s, ..)
            | At::Activates(s, ..)
            | At::Seated(s, _)
            | At::Unlocks(s)
            | At::UnlocksSlot(s)
            | At::LeavesLate(s)
            | At::LocksLate(s, _)
            | At::Holds(s)
            | At::GivesBack(s)
            | At::Frees(s)
            | At::ForgetsSlot(s) => Some(s),
            _ => None,
        }
    }

    /// The control word that a reader believes its slot has.
    fn believes(process: &Process) -> Option<(u8, Control)> {
        match process.at {
            At::Bumps(s, _, control)
            | At::Looks(s, _, control)
            | At::Activates(s, _, control)
            | At::Seated(s, control) => Some((s, control)),
            _ => None,
        }
    }

    fn is_bearer(process: &Process) -> bool {
        let reads = process.role == Role::Reader { named: true };
        let without = matches!(process.at, At::Rest | At::UnlocksSlot(_));
        let forgets = matches!(process.at, At::HasName | At::WantsSlot(_) | At::Frees(_) | At::ForgetsSlot(_));
        reads && !without || forgets || process.at == At::ForgetsName
    }
}

/// Faults that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A slot is claimed by its control word first, and locked then.
    FlagBeforeLock,
    /// A reaper asks whether the owner lives, and does not take the lock.
    ReapWithoutLock,
    /// A reader gives its lock back before it leaves the slot.
    LeaveAfterUnlock,
    /// A new registration has the old one's generation.
    SameGeneration,
    /// Reaping a named reader frees its slot.
    NamedIsFreed,
    /// A joiner becomes active whatever the control word says.
    PlainStore,
    /// A name is used without its lock.
    NameUnlocked,
    /// A joiner does not look at the intent.
    JoinerTrusts,
    /// A writer does not look at the counter again.
    WriterTrusts,
    /// A takeover believes the head.
    HeadTrusted,
    /// A writer does not ask for the lock.
    TwoWriters,
    /// A lock stays when its owner dies.
    LockOutlivesOwner,
}

pub(crate) const ONE_OWNER: &str = "no slot has two owners";
pub(crate) const ONE_BEARER: &str = "no name has two bearers";
pub(crate) const ONE_WRITER: &str = "no bus has two writers";
pub(crate) const NOT_RECLAIMED: &str = "no living reader is reclaimed";
pub(crate) const RIGHT_ONE_EVICTED: &str = "nobody is evicted in another's place";
pub(crate) const EVICTION_STANDS: &str = "an eviction stands";
pub(crate) const NOT_FORGOTTEN: &str = "no gating reader is forgotten";
pub(crate) const NOT_OVERRUN: &str = "no gating reader is overrun";
pub(crate) const SEQUENCE: &str = "no sequence is used twice or skipped";
pub(crate) const NOT_LOST: &str = "no slot is lost";
pub(crate) const GOES_ON: &str = "whoever comes when all have died can go on";
pub(crate) const NOT_BLOCKED: &str = "whoever stands still keeps nobody out of another slot";

/// A bus with some slots, processes and their lives; so many records are published at most.
#[derive(Clone)]
pub(crate) struct Bus {
    slots: u8,
    pub(crate) records: u8,
    processes: Vec<(Role, u8)>,
    pub(crate) fault: Option<Fault>,
}

impl Bus {
    pub(crate) fn new(slots: u8, records: u8, processes: &[(Role, u8)]) -> Self {
        Self { slots, records, processes: processes.to_vec(), fault: None }
    }

    pub(crate) fn with(&self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self.clone() }
    }

    /// Lets one more process run alone from here; whether it comes to `done`.
    fn alone(&self, world: &World, role: Role, done: impl Fn(At) -> bool) -> Option<World> {
        let mut world = world.clone();
        let process = world.processes.len() as u8;
        world.processes.push(Process { role, at: At::Rest, lives: 1 });
        // A writer may publish one more.
        let bus = Self { records: self.records + 1, ..self.clone() };
        for _ in 0..64 {
            if done(world.processes[process as usize].at) {
                world.processes.pop();
                return Some(world);
            }
            let mut moves = Vec::new();
            actions(&bus, &world, process, &mut moves);
            world = step(&bus, &world, process, *moves.first()?);
        }
        None
    }

    /// Everybody dies: then the name's reader, whoever is new, and a writer find all that they need, one after the other.
    fn goes_on(&self, world: &World) -> bool {
        let mut world = world.clone();
        if self.fault != Some(Fault::LockOutlivesOwner) {
            (0..world.processes.len() as u8).for_each(|process| world.kill(process));
        }
        let seated = |at| matches!(at, At::Seated(..));
        let known = world.known().is_some();
        let Some(reader) = self.alone(&world, Role::Reader { named: known }, seated) else { return false };
        // It goes on where it was, unless an intent that nobody took back tells it of a gap.
        let at = |world: &World| world.known().map(|slot| world.slots[slot as usize].cursor);
        if world.kept.is_some_and(|kept| at(&reader) != Some(kept) && kept + CAPACITY >= world.intent) {
            return false;
        }
        // Its owner is gone again, as `alone` leaves nobody behind.
        let mut world = reader;
        let guest = world.processes.len() as u8;
        world.kill_stranger(guest);
        world.slots.iter_mut().for_each(|slot| slot.control.phase = Phase::Evicted);
        let tip = world.tip;
        self.alone(&world, Role::Writer, |at| matches!(at, At::Idle(next) if next == tip + 1)).is_some()
    }

    /// Nobody moves: a newcomer gets every slot that is free or whose unnamed owner is dead.
    fn lets_in(&self, world: &World) -> bool {
        let usable = |slot: &Slot| slot.lock.is_none() && (slot.control.phase == Phase::Free || !slot.control.named);
        !world.slots.iter().any(usable)
            || self.alone(world, Role::Reader { named: false }, |at| matches!(at, At::Seated(..))).is_some()
    }
}

impl World {
    /// Takes the locks from a process that is no longer listed.
    fn kill_stranger(&mut self, process: u8) {
        for lock in self.slots.iter_mut().map(|slot| &mut slot.lock).chain([&mut self.name_lock, &mut self.writer_lock])
        {
            lock.take_if(|owner| *owner == process);
        }
    }
}

/// What a process does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Move {
    Go,
    /// Goes for this slot.
    Slot(u8),
    Leave,
    Die,
}

impl Model for Bus {
    type State = World;
    type Action = (u8, Move);

    fn init_states(&self) -> Vec<World> {
        let free = Control { phase: Phase::Free, named: false, generation: 0 };
        let slot = Slot { control: free, cursor: 0, id: 0, lock: None, joined: 0, promised: false };
        vec![World {
            slots: vec![slot; self.slots as usize],
            name_lock: None,
            writer_lock: None,
            registrations: 0,
            next_id: 1,
            tip: 0,
            head: 0,
            limit: 0,
            intent: 0,
            processes: self.processes.iter().map(|&(role, lives)| Process { role, at: At::Rest, lives }).collect(),
            kept: None,
            broken: None,
        }]
    }

    fn actions(&self, world: &World, all: &mut Vec<(u8, Move)>) {
        for process in 0..world.processes.len() as u8 {
            let mut moves = Vec::new();
            actions(self, world, process, &mut moves);
            if world.processes[process as usize].at != At::Rest {
                moves.push(Move::Die);
            }
            all.extend(moves.into_iter().map(|go| (process, go)));
        }
    }

    fn next_state(&self, world: &World, (process, go): (u8, Move)) -> Option<World> {
        if go != Move::Die {
            return Some(step(self, world, process, go));
        }
        let mut world = world.clone();
        if self.fault == Some(Fault::LockOutlivesOwner) {
            world.processes[process as usize].at = At::Rest;
        } else {
            world.kill(process);
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn at_most_one<T: PartialEq>(all: impl Iterator<Item = T>) -> bool {
            let all: Vec<T> = all.collect();
            all.iter().enumerate().all(|(index, item)| !all[..index].contains(item))
        }
        fn intact(world: &World, property: &'static str) -> bool {
            world.broken != Some(property)
        }
        let mut properties = vec![
            Property::always(ONE_OWNER, |_, world: &World| {
                at_most_one(world.processes.iter().filter_map(|process| world.owns(process)))
            }),
            Property::always(ONE_BEARER, |_, world: &World| {
                world.processes.iter().filter(|process| World::is_bearer(process)).count() <= 1
            }),
            Property::always(ONE_WRITER, |_, world: &World| {
                let writes = |process: &&Process| process.role == Role::Writer && process.at != At::Rest;
                world.processes.iter().filter(writes).count() <= 1
            }),
            Property::always(NOT_RECLAIMED, |_, world: &World| {
                world.processes.iter().filter_map(World::believes).all(|(slot, control)| {
                    let now = world.slots[slot as usize].control;
                    now == control || now == control.with(Phase::Evicted)
                })
            }),
            Property::always(NOT_FORGOTTEN, |_, world: &World| {
                world.kept.is_none_or(|cursor| {
                    let known =
                        world.slots.iter().filter(|slot| slot.control.named && slot.control.phase != Phase::Free);
                    known.map(|slot| slot.cursor).eq([cursor])
                })
            }),
            Property::always(NOT_OVERRUN, |_, world: &World| {
                intact(world, NOT_OVERRUN)
                    && world.slots.iter().filter(|slot| slot.promised).all(|slot| {
                        let gates = !matches!(slot.control.phase, Phase::Free | Phase::Evicted);
                        gates && world.limit <= slot.cursor + CAPACITY
                    })
            }),
            Property::always(RIGHT_ONE_EVICTED, |_, world: &World| intact(world, RIGHT_ONE_EVICTED)),
            Property::always(EVICTION_STANDS, |_, world: &World| intact(world, EVICTION_STANDS)),
            Property::always(SEQUENCE, |_, world: &World| intact(world, SEQUENCE)),
            Property::always(NOT_LOST, |_, world: &World| {
                world.slots.iter().enumerate().all(|(index, slot)| {
                    slot.lock.is_none_or(|owner| {
                        let owner = world.processes.get(owner as usize);
                        owner.is_some_and(|owner| world.owns(owner) == Some(index as u8))
                    })
                })
            }),
            Property::always(GOES_ON, |bus: &Bus, world: &World| bus.goes_on(world)),
            Property::always(NOT_BLOCKED, |bus: &Bus, world: &World| bus.lets_in(world)),
        ];
        // That it happens at all: else the rest would say nothing.
        let roles = |role| self.processes.iter().any(|&(of, lives)| of == role && lives != 0);
        let readers = roles(Role::Reader { named: true }) || roles(Role::Reader { named: false });
        if readers && self.fault.is_none() {
            properties.push(Property::sometimes("a reader dies in its seat", |_, world: &World| {
                world.slots.iter().any(|slot| slot.control.phase == Phase::Active && slot.lock.is_none())
            }));
            properties.push(Property::sometimes("a reader dies while it joins", |_, world: &World| {
                world.slots.iter().any(|slot| slot.control.phase == Phase::Joining && slot.lock.is_none())
            }));
        }
        if roles(Role::Reader { named: true }) && self.fault.is_none() {
            properties.push(Property::sometimes("a name comes back", |_, world: &World| {
                world.processes.iter().any(|process| matches!(process.at, At::Enters(_, Entry::Known)))
            }));
        }
        if roles(Role::Evictor) && self.fault.is_none() {
            properties.push(Property::sometimes("a joiner is evicted", |_, world: &World| {
                let joiner = |process: &Process| matches!(process.at, At::Activates(s, _, joining) if world.slots[s as usize].control != joining);
                world.processes.iter().any(joiner)
            }));
        }
        if roles(Role::Writer) && self.fault.is_none() {
            properties.push(Property::sometimes("a writer dies between commit and head", |_, world: &World| {
                world.tip != world.head && world.writer_lock.is_none()
            }));
            properties.push(Property::sometimes("the ring is full", |bus: &Bus, world: &World| {
                world.tip + 1 > world.lowest() + CAPACITY && world.tip < bus.records
            }));
        }
        properties
    }
}
