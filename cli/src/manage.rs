//! `create`, `evict`, `forget`, `reap`, `rm`: one action each, one result each.

use crate::args::{Create, Evict, Forget, Geometry};
use crate::failure::{Exit, Failure};
use crate::report::{Event, Reader, Reporter, Summary};
use lapwing::{Bus, Error, Gap, Options, ReaderId};
use std::path::Path;

/// The options of a new bus.
pub(crate) fn options(geometry: &Geometry) -> Options {
    Options::new()
        .capacity(geometry.capacity)
        .readers(geometry.readers)
        .mode(geometry.mode)
        .schema(geometry.schema)
        .pinned(!geometry.no_pinned)
}

/// Where a bus is to be created, "not found" means its directory.
pub(crate) fn place(error: Error, path: &Path) -> Failure {
    match error {
        Error::NotFound { .. } => {
            Failure::other(format!("{}: cannot create it: its directory does not exist", path.display()))
        }
        error => error.into(),
    }
}

fn tell(reporter: Reporter, event: &Event) -> Result<(), Failure> {
    reporter.result(event).map_err(|error| Failure::output(&error))
}

pub(crate) fn create(args: &Create, reporter: Reporter) -> Result<Exit, Failure> {
    options(&args.geometry).build(&args.path).map_err(|error| place(error, &args.path))?;
    tell(
        reporter,
        &Event::Created {
            path: args.path.display().to_string(),
            capacity: args.geometry.capacity,
            readers: args.geometry.readers,
            schema: args.geometry.schema,
        },
    )?;
    Ok(Exit::Fine)
}

pub(crate) fn evict(args: &Evict, reporter: Reporter) -> Result<Exit, Failure> {
    let bus = Bus::open(&args.path)?;
    let readers = bus.snapshot()?.readers.unwrap_or_default();
    let by_id = args.reader.parse().ok().and_then(|id| readers.iter().find(|reader| reader.id == ReaderId(id)));
    let by_name = || readers.iter().find(|reader| reader.name.as_deref() == Some(&args.reader));
    let Some(reader) = by_id.or_else(by_name) else {
        return Err(Failure::other(format!(
            "{}: no reader has the id or the name {:?}; `lapwing readers` lists them",
            args.path.display(),
            args.reader
        )));
    };
    match bus.evict(reader.id)? {
        Some(evicted) => {
            let at_most = Gap { first: evicted.cursor, end: evicted.cursor + evicted.pending };
            tell(reporter, &Event::Evicted { reader: Reader::from(&evicted), at_most: Some(at_most.into()) })?;
        }
        // It was evicted before; that is what was asked for.
        None => tell(reporter, &Event::Evicted { reader: Reader::from(reader), at_most: None })?,
    }
    Ok(Exit::Fine)
}

pub(crate) fn forget(args: &Forget, reporter: Reporter) -> Result<Exit, Failure> {
    Bus::open(&args.path)?.forget(&args.name)?;
    tell(reporter, &Event::Forgotten { name: args.name.clone() })?;
    Ok(Exit::Fine)
}

pub(crate) fn reap(path: &Path, reporter: Reporter) -> Result<Exit, Failure> {
    let reaped = Bus::open(path)?.reap()?;
    for reader in &reaped {
        tell(reporter, &Event::Reaped { reader: Reader::from(reader) })?;
    }
    tell(reporter, &Event::Summary(Summary { reaped: Some(reaped.len() as u64), ..Summary::default() }))?;
    Ok(Exit::Fine)
}

pub(crate) fn remove(path: &Path, reporter: Reporter) -> Result<Exit, Failure> {
    Bus::remove(path)?;
    tell(reporter, &Event::Removed { path: path.display().to_string() })?;
    Ok(Exit::Fine)
}
