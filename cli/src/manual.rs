//! `man` and `completions`: what packagers install beside the command, made from its own command line.

use crate::args::{Cli, Completions, Man};
use crate::failure::{Exit, Failure};
use clap::CommandFactory;
use std::io::{self, Write};

/// Writes `lapwing.1` and one page for each command.
pub(crate) fn man(args: &Man) -> Result<Exit, Failure> {
    clap_mangen::generate_to(Cli::command(), &args.dir).map_err(|error| {
        Failure::other(format!("{}: cannot write the manual pages into it: {error}", args.dir.display()))
    })?;
    Ok(Exit::Fine)
}

/// Prints a shell's completions.
pub(crate) fn completions(args: &Completions) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lapwing", &mut script);
    io::stdout().write_all(&script).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Fine)
}
