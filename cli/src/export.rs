//! `export`: what `stat` shows, for a monitoring system, over HTTP or in a file.

mod gather;
mod metrics;
mod server;

use crate::args::Export;
use crate::failure::{Exit, Failure};
use crate::report::Reporter;
use gather::Gatherer;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub(crate) fn run(args: &Export, reporter: Reporter) -> Result<Exit, Failure> {
    let (gatherer, missing) = Gatherer::new(&args.paths, reporter)?;
    match (&args.textfile, args.every) {
        (None, _) => server::serve(args.listen, gatherer, reporter),
        (Some(file), None) => {
            write(file, &gatherer)?;
            Ok(if missing { Exit::NoBus } else { Exit::Fine })
        }
        (Some(file), Some(pause)) => rewrite(file, &gatherer, pause),
    }
}

/// Replaces the file in one step, so that nobody reads half of it.
fn write(file: &Path, gatherer: &Gatherer) -> Result<(), Failure> {
    let mut new = file.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let written = fs::write(&new, gatherer.text()?).and_then(|()| fs::rename(&new, file));
    written.map_err(|error| {
        // What was written of it, if anything, is of no use.
        let _ = fs::remove_file(&new);
        Failure::other(format!("{}: cannot write it: {error}", file.display()))
    })
}

fn rewrite(file: &Path, gatherer: &Gatherer, pause: Duration) -> Result<Exit, Failure> {
    loop {
        write(file, gatherer)?;
        std::thread::sleep(pause);
    }
}
