//! `inspect`: what is in a bus's files, word by word, of a living, a dead or a damaged bus, as far as it can be read.

mod file;
mod records;

use crate::args::Inspect;
use crate::failure::{Exit, Failure};
use crate::show::{print, to_json};
use crate::units::plural;
use file::Words;
use lapwing::layout::{self, HEADER, RECORD_HEADER, RING_MAGIC, SLOT, TABLE_MAGIC};
use lapwing::{Bus, Error};
use records::{Record, Ring, Shape};
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// `inspect --json`. Field names are a contract, as those of the reports.
#[derive(Serialize)]
struct Dump {
    path: String,
    /// Bytes of the ring's file.
    length: u64,
    ring: Named,
    /// Bytes of the table's file; `null` if it cannot be read.
    table_length: Option<u64>,
    table: Option<Named>,
    slots: Vec<Slot>,
    records: Vec<Record>,
    /// What is wrong with the files.
    problems: Vec<String>,
}

/// Words by name, in the order of the layout.
struct Named(Vec<(&'static str, Value)>);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// A word: a number, or as text where all its bits count.
#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Value {
    Number(u64),
    Bits(String),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Bits(bits) => f.write_str(bits),
        }
    }
}

/// A slot that is or was in use.
#[derive(Serialize)]
struct Slot {
    slot: u64,
    state: String,
    class: String,
    name: Option<String>,
    words: Named,
}

pub(crate) fn run(args: &Inspect, json: bool) -> Result<Exit, Failure> {
    let mut problems = Vec::new();
    // The library's verdict first: it says what an attach would say.
    match Bus::inspect(&args.path) {
        Ok(_) => {}
        Err(error @ (Error::NotFound { .. } | Error::NotReady { .. } | Error::Permission { .. })) => {
            // The table alone may be missing; then the ring is still there to be read.
            if Words::open(&args.path).is_err() {
                return Err(error.into());
            }
            problems.push(error.to_string());
        }
        Err(error) => problems.push(error.to_string()),
    }
    let failed = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => Failure::Told(Exit::NoBus, format!("{}: no such bus", path.display())),
        _ => Failure::Told(Exit::BadBus, format!("{}: cannot be read: {error}", path.display())),
    };
    let mut ring = Words::open(&args.path).map_err(|error| failed(&args.path, &error))?;
    let dump = dump(&mut ring, args, problems).map_err(|error| failed(&args.path, &error))?;
    print(&if json { to_json(&dump)? } else { describe(&dump) })?;
    Ok(if dump.problems.is_empty() { Exit::Fine } else { Exit::BadBus })
}

fn dump(ring: &mut Words, args: &Inspect, mut problems: Vec<String>) -> io::Result<Dump> {
    let header = Header::of(ring, layout::RING_WORDS, 0)?;
    header.check("the ring", RING_MAGIC, &mut problems);
    let mut table_path = args.path.clone().into_os_string();
    table_path.push(".readers");
    let (table_length, table, slots) = table(&PathBuf::from(table_path), &mut problems);
    let records = match shape(&header, ring.length, &mut problems) {
        Some(shape) => {
            let wanted = args.at.unwrap_or_else(|| shape.head_sequence.saturating_sub(args.records));
            ring.refresh();
            Ring { words: ring, shape }.records(wanted, args.records, args.bytes, &mut problems)?
        }
        None => Vec::new(),
    };
    Ok(Dump {
        path: args.path.display().to_string(),
        length: ring.length,
        ring: header.shown(),
        table_length,
        table,
        slots,
        records,
        problems,
    })
}

/// The words of a header or slot that the file is long enough for.
struct Header(Vec<(&'static str, u64)>);

impl Header {
    fn of(words: &mut Words, names: &[(&'static str, usize)], at: u64) -> io::Result<Self> {
        let mut found = Vec::new();
        for &(name, index) in names {
            if let Some(word) = words.word(at + index as u64 * 8)? {
                found.push((name, word));
            }
        }
        Ok(Self(found))
    }

    fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, word)| *word)
    }

    /// Says what of the identity is not as this build has it.
    fn check(&self, whose: &str, magic: u64, problems: &mut Vec<String>) {
        for (name, expected) in
            [("magic", magic), ("byte_order", layout::BYTE_ORDER), ("version", layout::VERSION), ("hash", layout::HASH)]
        {
            match self.get(name) {
                Some(found) if found == expected => {}
                Some(found) => problems.push(format!("{whose}'s {name} is {found:#x}, expected {expected:#x}")),
                None => problems.push(format!("{whose} ends before its {name}")),
            }
        }
    }

    fn shown(&self) -> Named {
        let value = |name, word| match name {
            "magic" | "byte_order" | "hash" | "bus_id" | "schema" | "flags" | "control" => {
                Value::Bits(format!("{word:#018x}"))
            }
            _ => Value::Number(word),
        };
        Named(self.0.iter().map(|&(name, word)| (name, value(name, word))).collect())
    }
}

/// Where the ring's parts lie: as its header says if that can be, else as the file's length suggests.
fn shape(header: &Header, length: u64, problems: &mut Vec<String>) -> Option<Shape> {
    let capacity = header.get("capacity")?;
    if !capacity.is_power_of_two() || !(layout::MIN_CAPACITY..=layout::MAX_CAPACITY).contains(&capacity) {
        problems.push(format!("a ring of {} cannot be: no record can be found", plural(capacity, "byte")));
        return None;
    }
    let mut ring_at = header.get("ring_at")?;
    if ring_at.checked_add(capacity) != Some(length) && (HEADER..length).contains(&length.saturating_sub(capacity)) {
        problems.push(format!("the ring cannot start at byte {ring_at}: taken to be the file's end"));
        ring_at = length - capacity;
    }
    if ring_at < HEADER || ring_at >= length || !ring_at.is_multiple_of(8) {
        problems.push(format!("the ring would start at byte {ring_at} of {length}: no record can be found"));
        return None;
    }
    let stripe = header.get("stripe").filter(|stripe| {
        stripe.is_power_of_two() && *stripe <= capacity && capacity / stripe <= (ring_at - HEADER) / layout::ENTRY
    });
    if stripe.is_none() {
        problems.push("the stripe cannot be: the seek index is not used".to_owned());
    }
    let stamped = header.get("flags")? & layout::STAMPED != 0;
    let index = |name| layout::RING_WORDS.iter().find(|(known, _)| *known == name).map(|&(_, index)| index);
    Some(Shape {
        capacity,
        stripe: stripe.unwrap_or(capacity * 2),
        ring_at,
        record_header: RECORD_HEADER + if stamped { 8 } else { 0 },
        limit_at: index("limit")? as u64 * 8,
        head: header.get("head")?.min(layout::MAX_POSITION),
        head_sequence: header.get("head_sequence")?,
    })
}

/// The table's header and the slots that are or were in use.
fn table(path: &Path, problems: &mut Vec<String>) -> (Option<u64>, Option<Named>, Vec<Slot>) {
    let read = |words: &mut Words, problems: &mut Vec<String>| {
        let header = Header::of(words, layout::TABLE_WORDS, 0)?;
        header.check("the table", TABLE_MAGIC, problems);
        let fits = words.length.saturating_sub(HEADER) / SLOT;
        let count = header.get("slots").unwrap_or(0);
        if count != fits {
            problems.push(format!("the table says {count} slots, its length {fits}"));
        }
        let mut slots = Vec::new();
        for index in 0..count.min(fits).min(layout::MAX_SLOTS) {
            slots.extend(slot(words, index)?);
        }
        Ok::<_, io::Error>((header.shown(), slots))
    };
    let result = Words::open(path).and_then(|mut words| Ok((words.length, read(&mut words, problems)?)));
    match result {
        Ok((length, (header, slots))) => (Some(length), Some(header), slots),
        Err(error) => {
            problems.push(format!("{}: cannot be read: {error}", path.display()));
            (None, None, Vec::new())
        }
    }
}

fn slot(words: &mut Words, index: u64) -> io::Result<Option<Slot>> {
    let at = HEADER + index * SLOT;
    let header = Header::of(words, layout::SLOT_WORDS, at)?;
    let (control, id) = (header.get("control").unwrap_or(0), header.get("id").unwrap_or(0));
    if control == 0 && id == 0 {
        return Ok(None);
    }
    let state = match control & 0xff {
        0 => "free".to_owned(),
        1 => "joining".to_owned(),
        2 => "active".to_owned(),
        3 => "evicted".to_owned(),
        4 => "detached".to_owned(),
        other => format!("unknown ({other})"),
    };
    let class = match control >> 8 & 0xff {
        1 => "gating".to_owned(),
        2 => "lossy".to_owned(),
        3 => "pinned".to_owned(),
        other => format!("unknown ({other})"),
    };
    let length = header.get("name_length").unwrap_or(0).min(layout::MAX_NAME as u64);
    let name = words.bytes(at + layout::SLOT_NAME as u64 * 8, length)?;
    let name = (length != 0).then(|| String::from_utf8_lossy(&name).into_owned());
    Ok(Some(Slot { slot: index, state, class, name, words: header.shown() }))
}

/// Bytes as text, a point for what does not print.
fn printable(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' }).collect()
}

fn describe(dump: &Dump) -> String {
    let mut text = format!("{}, {}\n", dump.path, plural(dump.length, "byte"));
    // Writing to a string does not fail.
    let words = |text: &mut String, words: &Named| {
        for (name, value) in &words.0 {
            let _ = writeln!(text, "  {name:<18}{value}");
        }
    };
    words(&mut text, &dump.ring);
    if let (Some(length), Some(table)) = (dump.table_length, &dump.table) {
        let _ = writeln!(text, "\n{}.readers, {}", dump.path, plural(length, "byte"));
        words(&mut text, table);
    }
    for slot in &dump.slots {
        let _ = write!(text, "\nslot {}  {} {}", slot.slot, slot.state, slot.class);
        let _ = match &slot.name {
            Some(name) => writeln!(text, " {name:?}"),
            None => writeln!(text),
        };
        words(&mut text, &slot.words);
    }
    for record in &dump.records {
        let _ = write!(
            text,
            "\nrecord {}  position {}  {}",
            record.sequence,
            record.position,
            plural(record.length, "byte")
        );
        if record.tag != 0 {
            let _ = write!(text, "  tag {}", record.tag);
        }
        if let Some(stamp) = record.stamp {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(stamp);
            let _ = write!(text, "  {}", humantime::format_rfc3339_nanos(time));
        }
        text.push('\n');
        for (line, bytes) in record.bytes.chunks(16).enumerate() {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(text, "  {:08x}  {:<48} |{}|", line * 16, hex.join(" "), printable(bytes));
        }
        if record.shown < record.length {
            let _ = writeln!(text, "  … {} more", plural(record.length - record.shown, "byte"));
        }
    }
    if dump.records.is_empty() {
        text += "\nno record to show\n";
    }
    if !dump.problems.is_empty() {
        text += "\nproblems\n";
        for problem in &dump.problems {
            let _ = writeln!(text, "  {problem}");
        }
    }
    text
}
