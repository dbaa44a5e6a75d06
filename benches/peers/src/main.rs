//! Measures lapwing, its peers and the physical limit side by side: rounds of interleaved measurements in separate, pinned processes.

mod child;
mod clock;
mod drivers;
mod job;
mod limit;
mod machine;
mod measure;
mod more;
mod peer;
mod plan;
mod plot;
mod record;
mod results;
mod shared;
mod table;

use results::Results;
use std::process::ExitCode;

const USAGE: &str = "\
usage: benches/peers/run [options]
  --rounds N       rounds of interleaved measurements (7)
  --quick          fewer sizes, one reader, shorter windows, 3 rounds
  --measures A,B   only these: latency, throughput, rate, wake, idle, attach, registered, full
  --sizes A,B      only these sizes of the payload, in bytes
  --readers A,B    only with so many readers
  --systems A,B    only these, e.g. 'limit*,lapwing,ringfire'; a star at the end stands for anything
  --json FILE      write every figure of every round
  --svg DIR        write plots
  --list           list the measurements and end
  --window MS      length of a measured window (200; 60 with --quick)
  --cores A,B,..   cores to use, the sender's first (the first ones allowed)
  --slots N        depth of every ring, instead of each driver's own
  --idle KIND      spin, pause or pace:NS for readers of streams, instead of each driver's own
  --sweep          measure each driver's throughput over depths and ways to poll";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == "child") {
        return child::main(&arguments[1..]);
    }
    let plan = match plan::Plan::from_arguments(&arguments) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if plan.list {
        plan.groups().iter().flat_map(|group| &group.jobs).for_each(|job| println!("{}", job.name()));
        return ExitCode::SUCCESS;
    }
    if let Some(status) = machine::own_session(&arguments) {
        return status;
    }
    let mut results = Results::new(machine::describe(&plan, &arguments));
    child::run_all(&plan, &mut results);
    print!("{}", table::render(&results));
    if let Some(path) = &plan.json
        && let Err(error) = std::fs::write(path, results.to_json())
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    if let Some(directory) = &plan.svg
        && let Err(error) = plot::write(&results, directory)
    {
        eprintln!("{}: {error}", directory.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
