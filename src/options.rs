//! The options of a new bus, validated before anything is touched.

use crate::error::{Error, Result};
use crate::files::{self, Access, Facts, IfTaken, Paths, Role, WriterLocks};
use crate::layout::{self, Geometry, ring as at};
use crate::sys;
use crate::writer::Writer;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Describes a bus to be created.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("lapwing-doc-options-{}", std::process::id()));
/// # let _ = lapwing::Bus::remove(&path);
/// let mut writer = lapwing::Options::new().capacity(1 << 20).readers(16).create(&path)?;
/// writer.publish(b"first")?;
/// # drop(writer);
/// # lapwing::Bus::remove(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    capacity: u64,
    readers: u32,
    access: Access,
    schema: u64,
    pinned: bool,
    stamped: bool,
    max_age: Duration,
    pub(crate) memory: Memory,
}

/// What to do with a mapping's pages ahead of their use.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) prefault: bool,
    pub(crate) lock: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity: 4 << 20,
            readers: 128,
            access: Access { mode: 0o600, group: None },
            schema: 0,
            pinned: true,
            stamped: false,
            max_age: Duration::ZERO,
            memory: Memory::default(),
        }
    }
}

/// What to do about a bus that is there already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Refuse,
    Open,
    /// Open, once its writer is gone.
    Await,
    Replace,
}

impl Options {
    /// Starts from the defaults: 4 MiB, 128 readers, mode 600, no schema, pinned readers allowed, no time stamps, no age limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the ring's size in bytes: a power of two from 4 KiB to 1 TiB. The largest record is a quarter of it.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = bytes;
        self
    }

    /// Sets how many readers can be registered at a time: 1 to 65536, 512 bytes each.
    pub fn readers(mut self, slots: u32) -> Self {
        self.readers = slots;
        self
    }

    /// Sets the permission bits of the ring, as for `chmod`: who may read it may register, who may write it may be the writer.
    ///
    /// The table gets read and write for whoever may read the ring. The owner's bits must hold read and write.
    pub fn mode(mut self, mode: u32) -> Self {
        self.access.mode = mode;
        self
    }

    /// Sets the group of the files.
    pub fn group(mut self, gid: u32) -> Self {
        self.access.group = Some(gid);
        self
    }

    /// Sets the schema id that readers may ask for; zero means none.
    pub fn schema(mut self, id: u64) -> Self {
        self.schema = id;
        self
    }

    /// Allows or forbids pinned readers, which cannot be evicted while they live.
    pub fn pinned(mut self, allowed: bool) -> Self {
        self.pinned = allowed;
        self
    }

    /// Gives each record a time stamp: eight bytes and a look at the clock per record.
    pub fn stamped(mut self, yes: bool) -> Self {
        self.stamped = yes;
        self
    }

    /// Sets the age beyond which records are not replayed to readers that join; implies [`stamped`](Self::stamped). Zero means no limit.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Faults the writer's mapping in when it is made.
    pub fn prefault(mut self, yes: bool) -> Self {
        self.memory.prefault = yes;
        self
    }

    /// Locks the writer's mapping into memory.
    pub fn lock_memory(mut self, yes: bool) -> Self {
        self.memory.lock = yes;
        self
    }

    /// Creates the bus and becomes its writer.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] before anything is touched; [`Error::AlreadyExists`]; [`Error::WriterBusy`] if someone else is
    /// just creating it; [`Error::NoSpace`], [`Error::Unsupported`], [`Error::Permission`] from the file system, with nothing left behind.
    pub fn create(&self, path: impl AsRef<Path>) -> Result<Writer> {
        self.make(path.as_ref(), Existing::Refuse)
    }

    /// Creates the bus for others, without becoming its writer.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn build(&self, path: impl AsRef<Path>) -> Result<()> {
        let (path, paths) = (path.as_ref(), Paths::of(path.as_ref()));
        let facts = self.facts()?;
        let mut locks = self.lock_for(path, &paths, Existing::Refuse)?;
        files::build(&paths, &facts, self.access, &mut locks)
    }

    /// Opens the bus if there is one (its own options then stand), else creates it; becomes its writer.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`Writer::open`].
    pub fn open_or_create(&self, path: impl AsRef<Path>) -> Result<Writer> {
        self.make(path.as_ref(), Existing::Open)
    }

    /// As [`open_or_create`](Self::open_or_create), but waits until the bus has no other writer and nobody else is creating it.
    ///
    /// # Errors
    /// As [`open_or_create`](Self::open_or_create), without [`Error::WriterBusy`].
    pub fn standby(&self, path: impl AsRef<Path>) -> Result<Writer> {
        self.make(path.as_ref(), Existing::Await)
    }

    /// Creates the bus anew, whatever was published there; becomes its writer.
    ///
    /// Readers of the old bus drain what they can and are then told that it was replaced. A file that is not a bus is never replaced.
    ///
    /// # Errors
    /// As [`create`](Self::create), and [`Error::NotABus`].
    pub fn replace(&self, path: impl AsRef<Path>) -> Result<Writer> {
        self.make(path.as_ref(), Existing::Replace)
    }

    fn make(&self, path: &Path, existing: Existing) -> Result<Writer> {
        let facts = self.facts()?;
        let paths = Paths::of(path);
        let mut locks = self.lock_for(path, &paths, existing)?;
        let opens = matches!(existing, Existing::Open | Existing::Await);
        if !opens || files::is_vacant(&paths) {
            files::build(&paths, &facts, self.access, &mut locks)?;
        }
        Writer::with_locks(path, locks, self.memory)
    }

    /// Takes the writer's lock, once it is clear that what is there may be touched.
    fn lock_for(&self, path: &Path, paths: &Paths, existing: Existing) -> Result<WriterLocks> {
        let check = || match existing {
            _ if files::is_vacant(paths) => Ok(()),
            Existing::Refuse => Err(Error::AlreadyExists { path: path.into() }),
            // Whatever is wrong with it is said before anybody waits for its writer.
            Existing::Open | Existing::Await => files::attach_ring(path, Role::Writer).map(drop),
            Existing::Replace => files::check_replaceable(paths),
        };
        // Before, so that no lock file is left beside what is none of ours; and again, since it may have come meanwhile.
        check()?;
        let if_taken = if existing == Existing::Await { IfTaken::Wait } else { IfTaken::Fail };
        let locks = WriterLocks::take(paths, self.access, if_taken)?;
        check()?;
        Ok(locks)
    }

    /// Validates.
    fn facts(&self) -> Result<Facts> {
        let invalid = |field, value: String, allowed| Err(Error::InvalidOption { field, value, allowed });
        if !self.capacity.is_power_of_two() || !(layout::MIN_CAPACITY..=layout::MAX_CAPACITY).contains(&self.capacity) {
            return invalid(
                "capacity",
                self.capacity.to_string(),
                "a power of two from 4096 (4KiB) to 1099511627776 (1TiB)",
            );
        }
        if !(1..=layout::MAX_SLOTS).contains(&u64::from(self.readers)) {
            return invalid("readers", self.readers.to_string(), "1 to 65536");
        }
        if self.access.mode & !0o666 != 0 || self.access.mode & 0o600 != 0o600 {
            let value = format!("{:o}", self.access.mode);
            return invalid(
                "mode",
                value,
                "octal permissions without execute bits that let the owner read and write, such as 600 or 640",
            );
        }
        let stamped = self.stamped || !self.max_age.is_zero();
        Ok(Facts {
            bus_id: new_bus_id()?,
            geometry: Geometry::new(self.capacity, u64::from(self.readers), stamped),
            schema: self.schema,
            flags: if stamped { at::STAMPED } else { 0 } | if self.pinned { 0 } else { at::NO_PINNED },
            max_age: u64::try_from(self.max_age.as_nanos()).unwrap_or(u64::MAX),
        })
    }
}

/// A number that no other bus has.
fn new_bus_id() -> Result<u64> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; 8];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|source| Error::io("read", path, source))?;
    Ok(u64::from_ne_bytes(bytes) ^ sys::wall_clock())
}
