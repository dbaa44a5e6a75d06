//! `ls`: finds buses by the mark that each ring begins with.

use crate::args::Ls;
use crate::failure::{Exit, Failure};
use crate::show::{self, Writer, align, to_json};
use crate::sight::Sight;
use crate::units::{bytes, count};
use lapwing::{HealthLimits, layout};
use nix::libc;
use serde::Serialize;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Directories within directories; beyond it a tree is no place for buses.
const DEEPEST: usize = 64;

/// One line of `ls --json`.
#[derive(Serialize)]
struct Found {
    path: String,
    capacity: Option<u64>,
    sequence: Option<u64>,
    writer: Option<Writer>,
    registered: Option<usize>,
    served: Option<usize>,
    /// Why a bus cannot be looked at; `null` if it can.
    error: Option<String>,
}

pub(crate) fn run(args: &Ls, json: bool) -> Result<Exit, Failure> {
    let mut search = Search { recursive: args.recursive, rings: Vec::new(), unseen: Vec::new() };
    search.directory(&args.directory, 0).map_err(|error| {
        Failure::other(format!("{}: cannot look for buses there: {error}", args.directory.display()))
    })?;
    search.rings.sort();
    let found: Vec<_> = search.rings.iter().map(|path| describe(path)).collect();
    let text = if json {
        found.iter().map(to_json).collect::<Result<String, _>>()?
    } else if found.is_empty() {
        "no bus\n".to_owned()
    } else {
        table(&found)
    };
    for (path, error) in &search.unseen {
        eprintln!("lapwing: {}: not looked at: {error}", path.display());
    }
    show::print(&text)
}

struct Search {
    recursive: bool,
    rings: Vec<PathBuf>,
    /// What may hold a bus and could not be looked at.
    unseen: Vec<(PathBuf, io::Error)>,
}

impl Search {
    fn directory(&mut self, directory: &Path, depth: usize) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let path = entry.path();
            let seen = match entry.file_type() {
                Ok(kind) if kind.is_file() => begins_like_a_ring(&path).map(|is| {
                    // A ring that is not in its place yet.
                    let unfinished = path.extension().is_some_and(|extension| extension == "new");
                    if is && !unfinished {
                        self.rings.push(path.clone());
                    }
                }),
                Ok(kind) if kind.is_dir() && self.recursive && depth < DEEPEST => self.directory(&path, depth + 1),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match seen {
                // Gone since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.unseen.push((path, error)),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn begins_like_a_ring(path: &Path) -> io::Result<bool> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let mut mark = [0; 8];
    match file.read_exact(&mut mark) {
        Ok(()) => Ok(u64::from_ne_bytes(mark) == layout::RING_MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn describe(path: &Path) -> Found {
    let shown = path.display().to_string();
    match Sight::new(path, HealthLimits::default()).look() {
        Ok(look) => Found {
            path: shown,
            capacity: Some(look.snapshot.capacity),
            sequence: Some(look.snapshot.sequence),
            writer: Some((&look.snapshot.writer).into()),
            registered: look.registered(),
            served: look.served(),
            error: None,
        },
        Err(error) => Found {
            path: shown,
            capacity: None,
            sequence: None,
            writer: None,
            registered: None,
            served: None,
            error: Some(error.to_string()),
        },
    }
}

fn table(found: &[Found]) -> String {
    let head = ["BUS", "RING", "RECORDS", "WRITER", "PID", "READERS", "SERVED", ""].map(str::to_owned);
    let number = |number: Option<usize>| number.map_or("-".to_owned(), |number| count(number as u64));
    let rows = found.iter().map(|bus| {
        [
            bus.path.escape_debug().to_string(),
            bus.capacity.map_or("-".to_owned(), bytes),
            bus.sequence.map_or("-".to_owned(), count),
            bus.writer.as_ref().map_or("-".to_owned(), |writer| writer.state.clone()),
            bus.writer.as_ref().filter(|writer| writer.pid != 0).map_or("-".to_owned(), |w| w.pid.to_string()),
            number(bus.registered),
            number(bus.served),
            bus.error.clone().unwrap_or_default(),
        ]
    });
    let left = [true, false, false, true, false, false, false, true];
    align(&std::iter::once(head).chain(rows).collect::<Vec<_>>(), &left)
}
