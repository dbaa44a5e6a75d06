//! The `lapwing` command: publish, subscribe, inspect and manage a bus from the shell.

mod args;
mod bench;
mod demo;
mod doctor;
mod episodes;
mod export;
mod failure;
mod frame;
mod inspect;
mod list;
mod manage;
mod manual;
mod publish;
mod report;
mod show;
mod sight;
mod signals;
mod stdout;
mod subscribe;
mod top;
mod units;
mod watch;

use crate::args::{Cli, Command};
use crate::failure::{Exit, Failure};
use crate::report::{Event, Reporter};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = bench::peer() {
        return code;
    }
    let cli = Cli::parse();
    let reporter = Reporter { json: cli.json };
    // A bus that is truncated in use is an error to be told, not a death by signal.
    let guarded = lapwing::guard::install().map_err(Failure::from);
    let result = guarded.and_then(|()| match &cli.command {
        Command::Sub(_) | Command::Stat(_) | Command::Readers(_) | Command::Demo if stdout::was_closed() => {
            Err(Failure::other("standard output is closed"))
        }
        Command::Create(args) => manage::create(args, reporter),
        Command::Pub(args) => publish::run(args, reporter),
        Command::Sub(args) => subscribe::run(args, reporter),
        Command::Stat(args) => show::stat(args, reporter),
        Command::Top(args) => top::run(args),
        Command::Watch(args) => watch::run(args, reporter),
        Command::Inspect(args) => inspect::run(args, cli.json),
        Command::Ls(args) => list::run(args, cli.json),
        Command::Readers(args) => show::readers(&args.path, cli.json),
        Command::Evict(args) => manage::evict(args, reporter),
        Command::Forget(args) => manage::forget(args, reporter),
        Command::Reap(args) => manage::reap(&args.path, reporter),
        Command::Rm(args) => manage::remove(&args.path, reporter),
        Command::Demo => demo::run(cli.json),
        Command::Export(args) => export::run(args, reporter),
        Command::Doctor(args) => doctor::run(args, cli.json),
        Command::Bench(args) => bench::run(args, cli.json),
        Command::Man(args) => manual::man(args),
        Command::Completions(args) => manual::completions(args),
    });
    let exit = match result {
        Ok(exit) => exit,
        Err(Failure::OutputClosed) => Exit::Fine,
        Err(Failure::Told(exit, message)) => {
            reporter.tell(&Event::Error { code: exit as u8, message });
            exit
        }
    };
    ExitCode::from(exit as u8)
}
