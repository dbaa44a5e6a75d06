//! The three files of a bus: names, modes, checks, creation, replacement, removal. Everything here happens off the data path.
//!
//! A bus is built under other names and renamed into place, table first, ring last: the rename of the ring is what creates (or
//! replaces) the bus. Whoever dies in between leaves `PATH.new` behind, and the next writer finishes or redoes it, under the
//! writer's lock. Ring and table carry the same bus id; who meets a pair that does not match tries again, a bounded number of times.

use crate::error::{Error, Result};
use crate::layout::{self, Geometry, HASH, HEADER, ring as at, table as tat};
use crate::map::Map;
use crate::options::Memory;
use crate::ring::Ring;
use crate::sync::Ordering;
use crate::sys::{self, LockFile, Origin};
use crate::table::Table;
use crate::trace::changed;
use crate::wake;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often an attach looks again at a pair of files that do not belong together, a millisecond apart.
const PAIR_TRIES: u32 = 100;

/// The names of a bus's files.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) ring: PathBuf,
    pub(crate) table: PathBuf,
    pub(crate) lock: PathBuf,
    new_ring: PathBuf,
    new_table: PathBuf,
}

impl Paths {
    /// Absolute, so that a change of the working directory changes nothing.
    pub(crate) fn of(path: &Path) -> Self {
        // Only an empty path, or no working directory, has no absolute form: the first call with it then says so.
        let path = &std::path::absolute(path).unwrap_or_else(|_| path.into());
        let with = |suffix: &str| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        };
        Self {
            ring: path.into(),
            table: with(".readers"),
            lock: with(".lock"),
            new_ring: with(".new"),
            new_table: with(".readers.new"),
        }
    }
}

/// What identifies a file whatever its name.
pub(crate) type FileId = (u64, u64);

fn id_of(meta: &fs::Metadata) -> FileId {
    (meta.dev(), meta.ino())
}

/// The file that a path leads to now, if any.
pub(crate) fn id_at(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().map(|meta| id_of(&meta))
}

/// Modes and owner of new files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
}

impl Access {
    /// Who may read the ring may write the table.
    fn table_mode(self) -> u32 {
        let readers = self.mode & 0o444;
        readers | readers >> 1
    }

    /// Who may write the ring may lock the lock file, and nobody else may open it.
    fn lock_mode(self) -> u32 {
        let writers = self.mode & 0o222;
        writers | writers << 1
    }
}

/// What the ring's header says for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) bus_id: u64,
    pub(crate) geometry: Geometry,
    pub(crate) schema: u64,
    pub(crate) flags: u64,
    /// Nanoseconds; zero for none.
    pub(crate) max_age: u64,
}

/// A bus whose files are open and mapped.
pub(crate) struct Attached {
    origin: Origin,
    pub(crate) paths: Paths,
    pub(crate) facts: Facts,
    pub(crate) ring: Ring,
    pub(crate) ring_file: File,
    pub(crate) ring_id: FileId,
    /// Of the table that belongs to the ring, once it was opened.
    table_id: Option<FileId>,
    /// The table that this handle cannot do without, if any.
    table: Option<Table>,
}

/// How much a handle may do with the files.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Reader,
}

fn open(path: &Path, write: bool) -> Result<File> {
    // NONBLOCK: opening a fifo must not wait for its other end.
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    let file =
        OpenOptions::new().read(true).write(write).custom_flags(flags).open(path).map_err(|source| {
            match source.raw_os_error() {
                Some(libc::ELOOP) => not_a_bus(path, "a symbolic link"),
                Some(libc::EISDIR) => not_a_bus(path, "a directory"),
                Some(libc::ENXIO) => not_a_bus(path, "a fifo or socket"),
                _ => Error::io(if write { "write to" } else { "read" }, path, source),
            }
        })?;
    let kind = file.metadata().map_err(|source| Error::io("look at", path, source))?.file_type();
    if kind.is_file() {
        Ok(file)
    } else {
        Err(not_a_bus(path, if kind.is_dir() { "a directory" } else { "not a regular file" }))
    }
}

fn not_a_bus(path: &Path, why: impl Into<String>) -> Error {
    Error::NotABus { path: path.into(), why: why.into() }
}

/// The words of a file's header, read (not mapped, so that a short file is no fault).
fn header_of(file: &File, path: &Path, magic: u64) -> Result<(Vec<u64>, fs::Metadata)> {
    let meta = file.metadata().map_err(|source| Error::io("look at", path, source))?;
    if meta.len() < HEADER {
        return Err(not_a_bus(path, format!("{} bytes long, shorter than the header's {HEADER}", meta.len())));
    }
    let mut bytes = vec![0; HEADER as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|source| Error::io("read", path, source))?;
    let words: Vec<u64> =
        bytes.chunks_exact(8).map(|chunk| u64::from_ne_bytes(chunk.try_into().expect("a chunk of eight"))).collect();
    if words[at::MAGIC] != magic {
        return Err(not_a_bus(path, format!("it starts with {:#x}, not with {magic:#x}", words[at::MAGIC])));
    }
    for (field, word, expected) in [
        ("the byte order mark", at::BYTE_ORDER, layout::BYTE_ORDER),
        ("the layout version", at::VERSION, layout::VERSION),
        ("the layout hash", at::HASH, HASH),
    ] {
        if words[word] != expected {
            return Err(Error::Incompatible { path: path.into(), field, expected, found: words[word] });
        }
    }
    Ok((words, meta))
}

/// Checks every field of a ring's header against the others and against the file's real size.
fn facts_of(file: &File, path: &Path) -> Result<(Facts, FileId)> {
    let (words, meta) = header_of(file, path, layout::RING_MAGIC)?;
    let wrong = |field, expected, found| Err(Error::Corrupt { path: path.into(), field, expected, found });
    let (capacity, slots) = (words[at::CAPACITY], words[at::SLOTS]);
    if !capacity.is_power_of_two() || !(layout::MIN_CAPACITY..=layout::MAX_CAPACITY).contains(&capacity) {
        return wrong("the capacity", layout::MIN_CAPACITY, capacity);
    }
    if !(1..=layout::MAX_SLOTS).contains(&slots) {
        return wrong("the number of slots", layout::MAX_SLOTS, slots);
    }
    let flags = words[at::FLAGS];
    if flags & !(at::STAMPED | at::NO_PINNED) != 0 {
        return wrong("the flags", at::STAMPED | at::NO_PINNED, flags);
    }
    let geometry = Geometry::new(capacity, slots, flags & at::STAMPED != 0);
    for (field, expected, found) in [
        ("the stripe", geometry.stripe, words[at::STRIPE]),
        ("the ring's offset", geometry.ring_at(), words[at::RING_AT]),
        ("the length in the header", geometry.ring_length(), words[at::LENGTH]),
        ("the file's length", geometry.ring_length(), meta.len()),
    ] {
        if expected != found {
            return wrong(field, expected, found);
        }
    }
    let facts =
        Facts { bus_id: words[at::BUS_ID], geometry, schema: words[at::SCHEMA], flags, max_age: words[at::MAX_AGE] };
    Ok((facts, id_of(&meta)))
}

/// Opens the table of a bus; `None` if its bus id is another.
fn open_table(path: &Path, facts: &Facts, write: bool) -> Result<Option<(File, FileId)>> {
    let file = open(path, write)?;
    let (words, meta) = header_of(&file, path, layout::TABLE_MAGIC)?;
    if words[tat::BUS_ID] != facts.bus_id {
        return Ok(None);
    }
    for (field, expected, found) in [
        ("the number of slots", facts.geometry.slots, words[tat::SLOTS]),
        ("the length in the header", facts.geometry.table_length(), words[tat::LENGTH]),
        ("the file's length", facts.geometry.table_length(), meta.len()),
    ] {
        if expected != found {
            return Err(Error::Corrupt { path: path.into(), field, expected, found });
        }
    }
    Ok(Some((file, id_of(&meta))))
}

/// Opens the ring, saying apart "nothing there" and "not there yet".
fn open_ring(paths: &Paths, write: bool) -> Result<File> {
    open(&paths.ring, write).map_err(|error| match error {
        Error::NotFound { path } if paths.new_ring.exists() || paths.new_table.exists() => {
            Error::NotReady { path, why: "its creation was begun and has not been finished" }
        }
        error => error,
    })
}

/// Opens and maps ring and table of a bus, both of the same bus id.
pub(crate) fn attach(path: &Path, role: Role) -> Result<(Attached, Table)> {
    let paths = Paths::of(path);
    for _ in 0..PAIR_TRIES {
        let attached = attach_ring(path, role)?;
        match open_table(&paths.table, &attached.facts, true) {
            Ok(Some((file, table_id))) => {
                let table = map_table(&file, &paths.table, attached.facts.geometry, true)?;
                return Ok((Attached { table_id: Some(table_id), table: Some(table.clone()), ..attached }, table));
            }
            Ok(None) => {}
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Error::NotReady { path: path.into(), why: "its ring and its table belong to different buses" })
}

/// Opens and maps the ring alone.
pub(crate) fn attach_ring(path: &Path, role: Role) -> Result<Attached> {
    let origin = Origin::now();
    let paths = Paths::of(path);
    let write = role == Role::Writer;
    let ring_file = open_ring(&paths, write)?;
    let (facts, ring_id) = facts_of(&ring_file, path)?;
    let lap = facts.geometry.ring_at()..facts.geometry.ring_length();
    let map = Map::new(&ring_file, path, facts.geometry.ring_length(), lap, write, Some(at::LIMIT))?;
    let ring = Ring::new(map, facts.geometry);
    Ok(Attached { origin, ring, ring_file, ring_id, table_id: None, table: None, paths, facts })
}

fn map_table(file: &File, path: &Path, geometry: Geometry, write: bool) -> Result<Table> {
    let map = Map::new(file, path, geometry.table_length(), 0..HEADER, write, None)?;
    Ok(Table::new(map, geometry.slots))
}

impl Attached {
    /// Fails if the process forked since this was attached, or lost one of its files.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_disturbed() { self.check_disturbed() } else { Ok(()) }
    }

    /// Says whether [`Self::check`] has to look more closely.
    #[inline(always)]
    pub(crate) fn is_disturbed(&self) -> bool {
        !self.origin.is_undisturbed()
    }

    #[cold]
    #[inline(never)]
    fn check_disturbed(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked);
        }
        self.origin.settle(|| {
            if self.ring.map().is_lost() {
                return Err(Error::Truncated { path: self.paths.ring.clone() });
            }
            if self.table.as_ref().is_some_and(Table::is_lost) {
                return Err(Error::Truncated { path: self.paths.table.clone() });
            }
            Ok(())
        })
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.origin.is_forked()
    }

    /// Maps the table if this process may (`write`) and if it still belongs to this ring.
    pub(crate) fn table(&mut self, write: bool) -> Result<Option<(Table, File)>> {
        let Some((file, id)) = open_table(&self.paths.table, &self.facts, write)? else { return Ok(None) };
        self.table_id = Some(id);
        Ok(Some((map_table(&file, &self.paths.table, self.facts.geometry, write)?, file)))
    }

    /// Opens a descriptor for locks on the table that is mapped.
    pub(crate) fn table_locks(&self) -> Result<LockFile> {
        let locks = LockFile::open(|| open(&self.paths.table, true))?;
        self.same(locks.file(), &self.paths.table, self.table_id)?;
        Ok(locks)
    }

    fn same(&self, file: &File, path: &Path, id: Option<FileId>) -> Result<()> {
        let meta = file.metadata().map_err(|source| Error::io("look at", path, source))?;
        if Some(id_of(&meta)) == id {
            Ok(())
        } else {
            Err(Error::NotReady { path: path.into(), why: "it was replaced a moment ago" })
        }
    }

    /// Says whether the path leads to another bus, or to none, so that nobody will publish to this ring any more.
    ///
    /// A removal takes the table first, and a replacement brings its own first: if its author dies there, the ring alone does not tell. Neither
    /// is done beside a living writer, who needs the table's name no more.
    pub(crate) fn is_left_behind(&self, writer_alive: bool) -> bool {
        let table_moved = || self.table_id.is_some() && id_at(&self.paths.table) != self.table_id;
        id_at(&self.paths.ring) != Some(self.ring_id) || !writer_alive && table_moved()
    }

    /// Says whether a writer is alive: the kernel's word.
    pub(crate) fn writer_alive(&self) -> Result<bool> {
        sys::is_locked(&self.ring_file, &self.paths.ring, 0)
    }

    pub(crate) fn check_schema(&self, wanted: u64) -> Result<()> {
        if wanted == 0 || wanted == self.facts.schema {
            return Ok(());
        }
        let path = self.paths.ring.clone();
        Err(Error::Incompatible { path, field: "the schema id", expected: wanted, found: self.facts.schema })
    }

    pub(crate) fn prepare_memory(&self, memory: Memory, role: Role) -> Result<()> {
        let map = self.ring.map();
        if memory.prefault {
            map.prefault(&self.paths.ring, role == Role::Writer)?;
        }
        if memory.lock {
            map.lock(&self.paths.ring)?;
        }
        Ok(())
    }
}

// ---- the writer's lock --------------------------------------------------------------------------------------

/// What who wants to be the writer does while another one is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfTaken {
    Fail,
    Wait,
    /// Until a signal was handled.
    WaitUntilSignal,
}

/// The locks that make a process the writer; the kernel drops them with it.
pub(crate) struct WriterLocks {
    _lock: LockFile,
    presence: Option<LockFile>,
}

impl WriterLocks {
    /// Takes the lock that decides who the writer is. If another writer has it, fails with its name, or waits.
    pub(crate) fn take(paths: &Paths, access: Access, if_taken: IfTaken) -> Result<Self> {
        loop {
            let lock = LockFile::open(|| open_lock(&paths.lock, access))?;
            match if_taken {
                IfTaken::Wait => lock.wait_write(&paths.lock, 0, false)?,
                IfTaken::WaitUntilSignal => lock.wait_write(&paths.lock, 0, true)?,
                IfTaken::Fail if lock.try_write(&paths.lock, 0)? => {}
                IfTaken::Fail => {
                    return Err(Error::WriterBusy { path: paths.ring.clone(), pid: announced_writer(paths) });
                }
            }
            // Someone may have removed the bus, and this file with it, while we waited: then the lock decides nothing.
            let meta = lock.file().metadata().map_err(|source| Error::io("look at", &paths.lock, source))?;
            if id_at(&paths.lock) == Some(id_of(&meta)) {
                return Ok(Self { _lock: lock, presence: None });
            }
        }
    }

    /// Shows readers that a writer is there.
    pub(crate) fn show_presence(&mut self, attached: &Attached) -> Result<()> {
        let presence = self.show_presence_at(&attached.paths.ring)?;
        attached.same(presence.file(), &attached.paths.ring, Some(attached.ring_id))
    }

    /// The same for a ring that is not in its place yet, so that whoever attaches the moment it is finds its writer alive.
    fn show_presence_at(&mut self, path: &Path) -> Result<&LockFile> {
        let presence = LockFile::open(|| open(path, false))?;
        if !presence.try_read(path, 0)? {
            return Err(Error::WrongState {
                what: "show readers that a writer is there",
                why: "another process holds a write lock on the ring, which only this bus's writer may open for writing",
            });
        }
        Ok(self.presence.insert(presence))
    }
}

fn open_lock(path: &Path, access: Access) -> Result<File> {
    match open(path, true) {
        Err(Error::NotFound { .. }) => {}
        other => return other,
    }
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let mode = access.lock_mode();
    match OpenOptions::new().read(true).write(true).create_new(true).mode(mode).custom_flags(flags).open(path) {
        Ok(file) => {
            set_access(&file, path, mode, access.group)?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => open(path, true),
        Err(source) => Err(Error::io("create", path, source)),
    }
}

/// The writer's pid as its ring's header says it.
fn announced_writer(paths: &Paths) -> Option<u32> {
    let file = open(&paths.ring, false).ok()?;
    let (words, _) = header_of(&file, &paths.ring, layout::RING_MAGIC).ok()?;
    u32::try_from(words[at::WRITER_PID]).ok().filter(|&pid| pid != 0)
}

fn set_access(file: &File, path: &Path, mode: u32, group: Option<u32>) -> Result<()> {
    // The group first, so that the mode lets no other group in meanwhile.
    if let Some(group) = group {
        std::os::unix::fs::fchown(file, None, Some(group))
            .map_err(|source| Error::io("set the group of", path, source))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(|source| Error::io("set the mode of", path, source))
}

// ---- creation, replacement, removal ---------------------------------------------------------------------------

/// Builds the files of a bus and renames them into place. The caller holds the writer's lock.
pub(crate) fn build(paths: &Paths, facts: &Facts, access: Access, locks: &mut WriterLocks) -> Result<()> {
    let old = attach(&paths.ring, Role::Writer).ok();
    let result = build_new(paths, facts, access)
        .and_then(|()| locks.show_presence_at(&paths.new_ring).map(drop))
        .and_then(|()| rename(&paths.new_table, &paths.table));
    if result.is_err() {
        discard_new(paths);
        if id_at(&paths.ring).is_none() {
            // Nor a lock for a bus that there is not; who waits for it looks whether it is still the one of this name.
            discard(&paths.lock);
        }
        return result;
    }
    rename(&paths.new_ring, &paths.ring)?;
    if let Some((old, table)) = old {
        mark_replaced(&old.ring, &table);
        changed!(info, "replaced", paths.ring, bus_id = old.facts.bus_id, by = facts.bus_id);
    }
    changed!(
        info,
        "created",
        paths.ring,
        bus_id = facts.bus_id,
        capacity = facts.geometry.capacity,
        slots = facts.geometry.slots,
    );
    Ok(())
}

fn build_new(paths: &Paths, facts: &Facts, access: Access) -> Result<()> {
    discard_new(paths);
    let geometry = facts.geometry;
    let table = create_file(&paths.new_table, geometry.table_length(), access.table_mode(), access.group)?;
    let mut words = [0; 16];
    words[tat::BYTE_ORDER] = layout::BYTE_ORDER;
    words[tat::VERSION] = layout::VERSION;
    words[tat::HASH] = HASH;
    words[tat::BUS_ID] = facts.bus_id;
    words[tat::SLOTS] = geometry.slots;
    words[tat::LENGTH] = geometry.table_length();
    write_identity(&table, &paths.new_table, &words, layout::TABLE_MAGIC)?;

    let ring = create_file(&paths.new_ring, geometry.ring_length(), access.mode, access.group)?;
    words = [0; 16];
    words[at::BYTE_ORDER] = layout::BYTE_ORDER;
    words[at::VERSION] = layout::VERSION;
    words[at::HASH] = HASH;
    words[at::BUS_ID] = facts.bus_id;
    words[at::CAPACITY] = geometry.capacity;
    words[at::STRIPE] = geometry.stripe;
    words[at::SLOTS] = geometry.slots;
    words[at::SCHEMA] = facts.schema;
    words[at::FLAGS] = facts.flags;
    words[at::MAX_AGE] = facts.max_age;
    words[at::LENGTH] = geometry.ring_length();
    words[at::RING_AT] = geometry.ring_at();
    words[at::CREATED] = sys::wall_clock();
    write_identity(&ring, &paths.new_ring, &words, layout::RING_MAGIC)
}

fn create_file(path: &Path, length: u64, mode: u32, group: Option<u32>) -> Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode & 0o600)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| Error::io("create", path, source))?;
    sys::allocate(&file, path, length)?;
    set_access(&file, path, mode, group)?;
    Ok(file)
}

/// Writes the first line of a header, magic last.
fn write_identity(file: &File, path: &Path, words: &[u64; 16], magic: u64) -> Result<()> {
    let map = Map::new(file, path, HEADER, 0..HEADER, true, None)?;
    for (word, &value) in map.iter().zip(words) {
        word.store(value, Ordering::Relaxed);
    }
    // Release pairs with whoever finds the magic: the rest of the line is there.
    map[at::MAGIC].store(magic, Ordering::Release);
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|source| Error::io("rename", from, source))
}

/// Removes what a creator left half-way. What cannot be removed shows when the file is created again.
fn discard_new(paths: &Paths) {
    discard(&paths.new_ring);
    discard(&paths.new_table);
}

fn discard(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        debug_assert!(error.kind() != io::ErrorKind::InvalidInput);
    }
}

fn mark_replaced(ring: &Ring, table: &Table) {
    ring.word(at::STATE).store(at::REPLACED, Ordering::Release);
    wake::wake(table);
}

/// Finishes a replacement whose author died between its two renames. The caller holds the writer's lock.
pub(crate) fn finish_replacement(paths: &Paths) -> Result<()> {
    let Ok(file) = open(&paths.new_ring, false) else { return Ok(()) };
    let Ok((facts, _)) = facts_of(&file, &paths.new_ring) else { return Ok(()) };
    if open_table(&paths.table, &facts, false)?.is_none() {
        return Ok(());
    }
    if let Ok(old) = attach_ring(&paths.ring, Role::Writer) {
        // Its table is gone from the path, so its sleepers find out by themselves, within their 100 ms.
        old.ring.word(at::STATE).store(at::REPLACED, Ordering::Release);
    }
    rename(&paths.new_ring, &paths.ring)
}

/// Says whether a bus can be built here without replacing anything: nothing is there, or a ring whose removal ended half-way.
///
/// A removal takes the table first and a creation brings the ring last, so nothing else leaves a ring without any table.
pub(crate) fn is_vacant(paths: &Paths) -> bool {
    let tables = [&paths.table, &paths.new_table];
    id_at(&paths.ring).is_none()
        || tables.into_iter().all(|table| id_at(table).is_none()) && attach_ring(&paths.ring, Role::Writer).is_ok()
}

/// Removes a bus and everything its creators may have left. Fails while a writer is alive.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let paths = Paths::of(path);
    let ring_there = id_at(&paths.ring).is_some();
    if ring_there {
        check_replaceable(&paths)?;
    } else if ![&paths.table, &paths.lock, &paths.new_ring, &paths.new_table].iter().any(|path| path.exists()) {
        return Err(Error::NotFound { path: path.into() });
    }
    let _locks = WriterLocks::take(&paths, Access { mode: 0o600, group: None }, IfTaken::Fail)?;
    let old = attach(&paths.ring, Role::Writer).ok();
    let unlink = |path: &PathBuf| match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, source)),
        _ => Ok(()),
    };
    // The table shows whether files can be removed here at all, before readers are told that the ring is.
    unlink(&paths.table)?;
    if let Some((old, table)) = old {
        mark_replaced(&old.ring, &table);
    }
    [&paths.ring, &paths.new_ring, &paths.new_table, &paths.lock].into_iter().try_for_each(unlink)?;
    changed!(info, "removed", paths.ring);
    Ok(())
}

/// Refuses to replace or unlink what is not a bus; one that cannot be attached to any more still is one by its magic.
pub(crate) fn check_replaceable(paths: &Paths) -> Result<()> {
    let file = open(&paths.ring, false)?;
    match header_of(&file, &paths.ring, layout::RING_MAGIC) {
        Ok(_) | Err(Error::Incompatible { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
