//! A bus seen from outside: inspect, evict, reap, forget, remove, without being its writer or one of its readers.

use crate::error::{Error, Result};
use crate::files::{self, Attached, Role};
use crate::layout::ring as at;
use crate::registry::Registry;
use crate::report::{ReaderId, ReaderInfo};
use crate::ring::Seek;
use crate::stream::Closed;
use crate::sync::Ordering;
use crate::sys::{self, LockFile};
use crate::table::Table;
use crate::writer::Stats;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How the writer of a bus stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterState {
    /// The bus has never had one.
    Never,
    /// A process holds the writer's lock.
    Alive,
    /// The last one is gone and did not close the stream.
    Absent,
    /// The last one closed the stream.
    Closed,
    /// The bus was created anew or removed; this is the old one.
    Replaced,
}

impl std::fmt::Display for WriterState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Never => "never",
            Self::Alive => "alive",
            Self::Absent => "absent",
            Self::Closed => "closed",
            Self::Replaced => "replaced",
        })
    }
}

/// The writer of a bus as seen at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterInfo {
    /// Its process (the last one's, if it is gone) as it announced itself; zero before the first.
    pub pid: u32,
    /// How many writers there were.
    pub epoch: u64,
    /// How it stands.
    pub state: WriterState,
    /// Sequence that it began with.
    pub resumed_at: u64,
    /// How the stream was closed the last time.
    pub closed: Option<Closed>,
}

/// Everything about a bus at one moment; every number may have moved on since.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Where it lies.
    pub path: PathBuf,
    /// Its identity, the same in ring and table.
    pub bus_id: u64,
    /// Bytes of the ring.
    pub capacity: u64,
    /// Bytes of a stripe.
    pub stripe: u64,
    /// Reader slots.
    pub slots: u32,
    /// Largest payload in bytes.
    pub max_record: u64,
    /// Schema id; zero for none.
    pub schema: u64,
    /// Whether records carry time stamps.
    pub stamped: bool,
    /// Age beyond which records are not replayed.
    pub max_age: Option<Duration>,
    /// Whether pinned readers may register.
    pub pinned_allowed: bool,
    /// The writer.
    pub writer: WriterInfo,
    /// Position after the last record.
    pub head: u64,
    /// Position below which the writer may write.
    pub limit: u64,
    /// Sequence of the next record.
    pub sequence: u64,
    /// Oldest sequence that can be replayed.
    pub oldest: u64,
    /// Counters.
    pub stats: Stats,
    /// The registered readers; `None` without permission to read the table.
    pub readers: Option<Vec<ReaderInfo>>,
}

impl Snapshot {
    fn of(attached: &Attached, table: Option<(&Table, &File)>) -> Result<Self> {
        let ring = &attached.ring;
        let facts = &attached.facts;
        let alive = attached.writer_alive()?;
        // Read after the lock was looked at, which a writer gives back last.
        let epoch = ring.word(at::EPOCH).load(Ordering::Acquire);
        let closed = Closed::of(ring);
        let state = if ring.get(at::STATE) == at::REPLACED {
            WriterState::Replaced
        } else if alive {
            WriterState::Alive
        } else if epoch == 0 {
            WriterState::Never
        } else if closed.as_ref().is_some_and(|closed| closed.epoch == epoch) {
            WriterState::Closed
        } else {
            WriterState::Absent
        };
        let head = ring.head();
        let readers = match table {
            Some((table, file)) => {
                let mut readers = Registry { paths: &attached.paths, table, ring, file }.list(head)?;
                for reader in &mut readers {
                    reader.stopped = reader.alive && sys::is_stopped(reader.pid, reader.process_start);
                }
                Some(readers)
            }
            None => None,
        };
        let snapshot = Self {
            path: attached.paths.ring.clone(),
            bus_id: facts.bus_id,
            capacity: facts.geometry.capacity,
            stripe: facts.geometry.stripe,
            slots: facts.geometry.slots as u32,
            max_record: facts.geometry.max_record(),
            schema: facts.schema,
            stamped: facts.geometry.stamped,
            max_age: (facts.max_age != 0).then(|| Duration::from_nanos(facts.max_age)),
            pinned_allowed: facts.flags & at::NO_PINNED == 0,
            writer: WriterInfo {
                pid: ring.get(at::WRITER_PID) as u32,
                epoch,
                state,
                resumed_at: ring.get(at::RESUMED_AT),
                closed,
            },
            head: head.position,
            limit: ring.get(at::LIMIT),
            sequence: head.sequence,
            oldest: attached.not_too_old(ring.seek(Seek::Oldest)).sequence,
            stats: Stats::of(ring, head.sequence),
            readers,
        };
        // What was read from files that are not there any more describes nothing.
        attached.check()?;
        match table {
            Some((table, _)) if table.is_lost() => Err(Error::Truncated { path: attached.paths.table.clone() }),
            _ => Ok(snapshot),
        }
    }
}

/// A bus attached without a role, for tools.
///
/// ```
/// use lapwing::{Bus, Options, Reader};
/// # let path = std::env::temp_dir().join(format!("lapwing-doc-bus-{}", std::process::id()));
/// # let _ = Bus::remove(&path);
/// let mut writer = Options::new().create(&path)?;
/// let reader = Reader::open(&path)?;
/// writer.publish(b"unread")?;
/// let snapshot = Bus::inspect(&path)?;
/// assert_eq!(snapshot.sequence, 1);
/// assert_eq!(snapshot.readers.unwrap()[0].pending, 1);
/// # drop((writer, reader));
/// # Bus::remove(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Bus {
    attached: Attached,
    table: Table,
    locks: LockFile,
    /// One descriptor's locks do not keep its own threads apart.
    acting: Mutex<()>,
}

impl Bus {
    /// Looks at a bus without disturbing it: both files are mapped read-only, and no lock is taken.
    ///
    /// # Errors
    /// As [`ReaderOptions::open`](crate::ReaderOptions::open) from the files. No permission on the table is no error.
    pub fn inspect(path: impl AsRef<Path>) -> Result<Snapshot> {
        let mut attached = files::attach_ring(path.as_ref(), Role::Reader)?;
        match attached.table(false) {
            Ok(Some((table, file))) => Snapshot::of(&attached, Some((&table, &file))),
            // Replaced between the two looks, or not ours to read.
            Ok(None) | Err(Error::Permission { .. } | Error::NotFound { .. }) => Snapshot::of(&attached, None),
            Err(error) => Err(error),
        }
    }

    /// Attaches to act on readers; needs write permission on the table.
    ///
    /// # Errors
    /// As [`ReaderOptions::open`](crate::ReaderOptions::open) from the files.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let (attached, table) = files::attach(path.as_ref(), Role::Reader)?;
        let locks = attached.table_locks()?;
        Ok(Self { attached, table, locks, acting: Mutex::new(()) })
    }

    fn registry(&self) -> Result<Registry<'_>> {
        let Self { attached, table, locks, .. } = self;
        attached.check()?;
        Ok(Registry { paths: &attached.paths, table, ring: &attached.ring, file: locks.file() })
    }

    /// Looks at the bus.
    ///
    /// # Errors
    /// [`Error::Io`] from the locks, [`Error::Forked`].
    pub fn snapshot(&self) -> Result<Snapshot> {
        self.registry()?;
        Snapshot::of(&self.attached, Some((&self.table, self.locks.file())))
    }

    /// Evicts a reader; returns it as it stood, or `None` if it was evicted already.
    ///
    /// # Errors
    /// [`Error::NoSuchReader`]; [`Error::NotEvictable`] for a living pinned reader; [`Error::WrongState`] while somebody who may write the
    /// table changes the slot without pause.
    pub fn evict(&self, id: ReaderId) -> Result<Option<ReaderInfo>> {
        let registry = self.registry()?;
        registry.evict(registry.find(id)?, id, self.attached.ring.head())
    }

    /// Reclaims the slots of dead readers and returns who they were; named ones are kept as detached.
    ///
    /// # Errors
    /// [`Error::Io`] from the locks.
    pub fn reap(&self) -> Result<Vec<ReaderInfo>> {
        let _alone = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        self.registry()?.reap_all(&self.locks, self.attached.ring.head())
    }

    /// Forgets a name whose reader is away; its place in the stream is lost.
    ///
    /// # Errors
    /// [`Error::NameUnknown`]; [`Error::NameTaken`] while a living process has the name; [`Error::WrongState`] while somebody who may write
    /// the table changes the slot without pause.
    pub fn forget(&self, name: &str) -> Result<()> {
        let _alone = self.acting.lock().unwrap_or_else(PoisonError::into_inner);
        self.registry()?.forget(name, &self.locks)
    }

    /// Removes a bus that has no living writer, and whatever a creator that died left behind. Its readers are told that it was replaced.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::NotABus`] for any other file; [`Error::WriterBusy`].
    pub fn remove(path: impl AsRef<Path>) -> Result<()> {
        files::remove(path.as_ref())
    }
}
