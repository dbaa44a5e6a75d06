//! How a reader is: one word for it, the same in every tool, decided from snapshots taken one after the other.
//!
//! *Dead*, *stopped*, *joining*, *detached* and *evicted* are facts: the kernel's word or the slot's, and one snapshot tells them. *Lagging*
//! and *stalled* are verdicts on how a reader moves, and no single snapshot tells them: a verdict on the lag changes when two snapshots in a
//! row agree, and time without progress is added up from intervals of which none counts for more than half of what it takes. So
//! one burst, one clock that steps, or a tool that was itself stopped for a while makes nobody sick.
//!
//! | word | when, the first that fits |
//! |---|---|
//! | detached | the slot says so: it has a name and is away |
//! | evicted | the slot says so |
//! | dead | no process holds the slot's lock |
//! | joining | the slot says so; takes microseconds, so one that lasts is stuck |
//! | stopped | its process is stopped (a signal, a terminal); caught up or not |
//! | stalled | behind, and its cursor did not move for [`HealthLimits::stalled_after`] |
//! | lagging | its lag is at least [`HealthLimits::lagging_percent`] of the ring |
//! | live | none of these |

use crate::bus::Snapshot;
use crate::report::{ReaderId, ReaderInfo, State};
use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

/// How a reader is, in one word.
///
/// The words are listed from the best to the worst; [`HealthWatch`] decides which one fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Health {
    /// Reads, or has nothing to read.
    Live,
    /// Reads, and is far behind.
    Lagging,
    /// Is behind and does not read.
    Stalled,
    /// Its process is stopped.
    Stopped,
    /// Is about to become active.
    Joining,
    /// Its process is gone, and nobody reclaimed its slot yet.
    Dead,
    /// Has a name and is away; its cursor is kept.
    Detached,
    /// Was evicted; may rejoin.
    Evicted,
}

impl Health {
    /// Every word, the best first.
    pub const ALL: [Self; 8] = [
        Self::Live,
        Self::Lagging,
        Self::Stalled,
        Self::Stopped,
        Self::Joining,
        Self::Dead,
        Self::Detached,
        Self::Evicted,
    ];

    /// Says whether records reach the reader: one that is registered need not be served.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Live | Self::Lagging)
    }

    /// Returns the word, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Lagging => "lagging",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
            Self::Joining => "joining",
            Self::Dead => "dead",
            Self::Detached => "detached",
            Self::Evicted => "evicted",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// From when on a reader is called lagging or stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// Lag in percent of the ring; 50 by default, the writer's first warning.
    pub lagging_percent: u8,
    /// Time without progress while behind; 5 s by default.
    pub stalled_after: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self { lagging_percent: 50, stalled_after: Duration::from_secs(5) }
    }
}

/// What a [`HealthWatch`] says about one reader.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReaderHealth {
    /// Its registration.
    pub id: ReaderId,
    /// The word.
    pub health: Health,
    /// How long the word has been this one; zero when it is new.
    pub since: Duration,
    /// Its lag in percent of the ring, 0 to 100.
    pub lag_percent: f64,
    /// How long ago its cursor was last seen to move; `None` if it never was.
    pub last_progress: Option<Duration>,
    /// How long it has been behind without moving, whatever the reason.
    pub stuck_for: Duration,
    /// The verdict on its lag, whatever the word: at least [`HealthLimits::lagging_percent`].
    pub far_behind: bool,
    /// The verdict on its progress, whatever the word: none for [`HealthLimits::stalled_after`].
    pub stuck: bool,
}

/// Watches the readers of one bus and says how each of them is.
///
/// Feed it snapshots of the same bus. What [`Health::Stalled`] and [`Health::Lagging`] need is more than one of them: after the first,
/// no reader is called either.
///
/// ```
/// use lapwing::{Bus, Health, HealthLimits, HealthWatch, Options, Reader};
/// use std::time::{Duration, Instant};
/// # let path = std::env::temp_dir().join(format!("lapwing-doc-health-{}", std::process::id()));
/// # let _ = Bus::remove(&path);
/// let mut writer = Options::new().create(&path)?;
/// let reader = Reader::open(&path)?;
/// writer.publish(b"unread")?;
///
/// let mut watch = HealthWatch::new(HealthLimits { stalled_after: Duration::from_secs(2), ..HealthLimits::default() });
/// let start = Instant::now();
/// for second in 0..3 {
///     let seen = watch.observe(&Bus::inspect(&path)?, start + Duration::from_secs(second));
///     assert_eq!(seen[0].health, if second < 2 { Health::Live } else { Health::Stalled });
/// }
/// # drop((writer, reader));
/// # Bus::remove(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct HealthWatch {
    limits: HealthLimits,
    /// The bus that was looked at last, and when.
    last: Option<(u64, Instant)>,
    known: HashMap<(u32, ReaderId), Track>,
}

/// What is remembered of a reader.
#[derive(Debug)]
struct Track {
    cursor: u64,
    /// Whether its lag was above the limit when last looked at, and the verdict.
    was_far_behind: bool,
    far_behind: bool,
    was_behind: bool,
    stuck_for: Duration,
    /// The same, each interval counted for half the limit at most.
    counted: Duration,
    last_progress: Option<Duration>,
    health: Health,
    since: Duration,
}

impl HealthWatch {
    /// Starts without having seen anything.
    pub fn new(limits: HealthLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes a snapshot in, taken at `now`, and says how each of its readers is, in their order; nothing without permission to read
    /// the table.
    ///
    /// A reader that is no longer registered is forgotten; a snapshot of another bus (the path leads to a new one) starts anew.
    pub fn observe(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<ReaderHealth> {
        let readers = snapshot.readers.as_deref().unwrap_or_default();
        self.look(snapshot.bus_id, snapshot.capacity, readers, now)
    }

    fn look(&mut self, bus: u64, capacity: u64, readers: &[ReaderInfo], now: Instant) -> Vec<ReaderHealth> {
        let passed = match self.last {
            Some((same, last)) if same == bus => now.saturating_duration_since(last),
            _ => {
                self.known.clear();
                Duration::ZERO
            }
        };
        self.last = Some((bus, now));
        self.known.retain(|&(slot, id), _| readers.iter().any(|reader| (reader.slot, reader.id) == (slot, id)));
        readers.iter().map(|reader| self.one(reader, capacity, passed)).collect()
    }

    fn one(&mut self, reader: &ReaderInfo, capacity: u64, passed: Duration) -> ReaderHealth {
        let lag_percent = (reader.lag_bytes as f64 * 100.0 / capacity.max(1) as f64).min(100.0);
        let far_behind = lag_percent >= f64::from(self.limits.lagging_percent);
        let half = self.limits.stalled_after / 2;
        let track = match self.known.entry((reader.slot, reader.id)) {
            std::collections::hash_map::Entry::Occupied(entry) => {
                let track = entry.into_mut();
                track.learn(reader, far_behind, passed, half);
                track
            }
            std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Track::new(reader, far_behind)),
        };
        let health = track.judge(reader, self.limits);
        track.since = if health == track.health { track.since + passed } else { Duration::ZERO };
        track.health = health;
        ReaderHealth {
            id: reader.id,
            health,
            since: track.since,
            lag_percent,
            last_progress: track.last_progress,
            stuck_for: track.stuck_for,
            far_behind: track.far_behind,
            stuck: track.is_stuck(self.limits),
        }
    }
}

impl Track {
    fn new(reader: &ReaderInfo, far_behind: bool) -> Self {
        Self {
            cursor: reader.cursor,
            was_far_behind: far_behind,
            far_behind: false,
            was_behind: reader.pending != 0,
            stuck_for: Duration::ZERO,
            counted: Duration::ZERO,
            last_progress: None,
            health: Health::Live,
            since: Duration::ZERO,
        }
    }

    fn learn(&mut self, reader: &ReaderInfo, far_behind: bool, passed: Duration, half: Duration) {
        if far_behind == self.was_far_behind {
            self.far_behind = far_behind;
        }
        self.was_far_behind = far_behind;
        if reader.cursor != self.cursor {
            self.cursor = reader.cursor;
            self.last_progress = Some(Duration::ZERO);
            (self.stuck_for, self.counted) = (Duration::ZERO, Duration::ZERO);
        } else {
            self.last_progress = self.last_progress.map(|ago| ago + passed);
            // Behind at both ends of the interval, or it had nothing to read for a part of it.
            if reader.pending != 0 && self.was_behind {
                self.stuck_for += passed;
                self.counted += passed.min(half);
            }
        }
        self.was_behind = reader.pending != 0;
    }

    fn is_stuck(&self, limits: HealthLimits) -> bool {
        self.was_behind && self.counted >= limits.stalled_after
    }

    fn judge(&self, reader: &ReaderInfo, limits: HealthLimits) -> Health {
        match reader.state {
            State::Detached => Health::Detached,
            State::Evicted => Health::Evicted,
            _ if !reader.alive => Health::Dead,
            State::Joining => Health::Joining,
            State::Active if reader.stopped => Health::Stopped,
            State::Active if self.is_stuck(limits) => Health::Stalled,
            State::Active if self.far_behind => Health::Lagging,
            State::Active => Health::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Class;

    const CAPACITY: u64 = 1000;
    const SECOND: Duration = Duration::from_secs(1);

    fn reader(cursor: u64, lag: u64) -> ReaderInfo {
        ReaderInfo {
            id: ReaderId(1),
            slot: 0,
            name: None,
            pid: 7,
            process_start: 1,
            class: Class::Gating,
            state: State::Active,
            alive: true,
            stopped: false,
            evictable: true,
            hold: false,
            lag_records: lag,
            lag_bytes: lag,
            start: 0,
            cursor,
            delivered: cursor,
            missed: 0,
            pending: lag,
            evictions: 0,
            waits: 0,
        }
    }

    /// A watch with a clock of its own.
    struct World {
        watch: HealthWatch,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { watch: HealthWatch::default(), now: Instant::now() }
        }

        fn after(&mut self, passed: Duration, reader: &ReaderInfo) -> ReaderHealth {
            self.now += passed;
            let seen = self.watch.look(1, CAPACITY, std::slice::from_ref(reader), self.now);
            assert_eq!(seen.len(), 1);
            seen[0]
        }
    }

    #[test]
    fn facts_need_one_snapshot_and_go_before_verdicts() {
        let with = |change: fn(&mut ReaderInfo)| {
            let mut reader = reader(0, 900);
            change(&mut reader);
            World::new().after(SECOND, &reader).health
        };
        assert_eq!(with(|_| {}), Health::Live);
        assert_eq!(with(|r| r.alive = false), Health::Dead);
        assert_eq!(with(|r| r.stopped = true), Health::Stopped);
        assert_eq!(with(|r| r.state = State::Joining), Health::Joining);
        assert_eq!(with(|r| (r.state, r.stopped) = (State::Joining, true)), Health::Joining);
        assert_eq!(with(|r| (r.state, r.alive) = (State::Joining, false)), Health::Dead);
        assert_eq!(with(|r| (r.state, r.alive) = (State::Detached, false)), Health::Detached);
        assert_eq!(with(|r| (r.state, r.alive) = (State::Evicted, false)), Health::Evicted);
    }

    #[test]
    fn behind_without_progress_becomes_stalled_and_progress_ends_it() {
        let mut world = World::new();
        for second in 0..5 {
            let seen = world.after(SECOND, &reader(3, 10 + second));
            assert_eq!((seen.health, seen.stuck_for), (Health::Live, SECOND * second as u32));
        }
        let seen = world.after(SECOND, &reader(3, 20));
        assert_eq!((seen.health, seen.since, seen.stuck_for), (Health::Stalled, Duration::ZERO, SECOND * 5));
        assert_eq!((seen.last_progress, seen.health.is_served()), (None, false));
        let seen = world.after(SECOND, &reader(3, 20));
        assert_eq!((seen.health, seen.since), (Health::Stalled, SECOND));
        let seen = world.after(SECOND, &reader(4, 19));
        assert_eq!((seen.health, seen.stuck_for), (Health::Live, Duration::ZERO));
        assert_eq!(seen.last_progress, Some(Duration::ZERO));
    }

    #[test]
    fn a_reader_with_nothing_to_read_is_not_stuck_and_its_clock_starts_with_the_next_record() {
        let mut world = World::new();
        for _ in 0..100 {
            assert_eq!(world.after(SECOND, &reader(3, 0)).health, Health::Live);
        }
        let seen = world.after(SECOND, &reader(3, 1));
        assert_eq!((seen.health, seen.stuck_for), (Health::Live, Duration::ZERO));
        assert_eq!(world.after(SECOND, &reader(3, 1)).stuck_for, SECOND);
    }

    #[test]
    fn one_long_interval_or_a_clock_that_goes_back_makes_nobody_stalled() {
        let mut world = World::new();
        world.after(SECOND, &reader(3, 10));
        // This tool was stopped for an hour, and perhaps the reader with it.
        assert_eq!(world.after(SECOND * 3600, &reader(3, 10)).health, Health::Live);
        assert_eq!(world.after(SECOND, &reader(3, 10)).health, Health::Live);
        let before = world.now;
        world.now -= SECOND * 1000;
        assert_eq!(world.after(SECOND, &reader(3, 10)).health, Health::Live);
        world.now = before;
        assert_eq!(world.after(Duration::ZERO, &reader(3, 10)).health, Health::Stalled);
    }

    #[test]
    fn rare_looks_still_find_a_stalled_reader() {
        let mut world = World::new();
        let looks: Vec<_> = (0..4).map(|_| world.after(SECOND * 60, &reader(3, 10)).health).collect();
        assert_eq!(looks, [Health::Live, Health::Live, Health::Stalled, Health::Stalled]);
    }

    #[test]
    fn lagging_takes_two_snapshots_in_a_row_and_so_does_its_end() {
        let mut world = World::new();
        let looks: Vec<_> = [499, 500, 499, 500, 500, 499, 500, 499, 499]
            .iter()
            .enumerate()
            .map(|(n, &lag)| world.after(SECOND, &reader(n as u64, lag)).health == Health::Lagging)
            .collect();
        assert_eq!(looks, [false, false, false, false, true, true, true, true, false]);
    }

    #[test]
    fn another_registration_or_another_bus_starts_anew() {
        let mut world = World::new();
        for _ in 0..8 {
            world.after(SECOND, &reader(3, 10));
        }
        let other = ReaderInfo { id: ReaderId(2), ..reader(3, 10) };
        assert_eq!(world.after(SECOND, &other).health, Health::Live);
        assert_eq!(world.watch.known.len(), 1);
        for _ in 0..8 {
            world.after(SECOND, &other);
        }
        let seen = world.watch.look(2, CAPACITY, &[other], world.now + SECOND);
        assert_eq!((seen[0].health, seen[0].stuck_for), (Health::Live, Duration::ZERO));
        assert_eq!(world.watch.look(2, CAPACITY, &[], world.now), []);
        assert_eq!(world.watch.known.len(), 0);
    }

    #[test]
    fn shares_stay_in_their_range() {
        let seen = World::new().after(SECOND, &reader(3, u64::MAX));
        assert_eq!(seen.lag_percent, 100.0);
        let seen = HealthWatch::default().look(1, 0, &[reader(3, 0)], Instant::now());
        assert_eq!(seen[0].lag_percent, 0.0);
    }
}
