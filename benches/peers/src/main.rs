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
mod targets;

use results::Results;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "\
usage: benches/peers/run [options]
  --rounds N       rounds of interleaved measurements (7)
  --quick          fewer sizes, one reader, shorter windows, 3 rounds
  --measures A,B   only these: latency, throughput, rate, wake, idle, attach, memory, registered, full
  --sizes A,B      only these sizes of the payload, in bytes
  --readers A,B    only with so many readers
  --systems A,B    only these, e.g. 'limit*,lapwing,ringfire'; a star at the end stands for anything
  --out DIR        write table.md, results.json (every figure of every round) and plots as SVG
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
    let outcome = match arguments.first().map(String::as_str) {
        Some("plots") => plots(&arguments[1..]),
        _ => measure(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::FAILURE
    })
}

fn measure(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let plan = match plan::Plan::from_arguments(arguments) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{message}\n\n{USAGE}");
            return Ok(ExitCode::from(2));
        }
    };
    if plan.list {
        plan.groups().iter().flat_map(|group| &group.jobs).for_each(|job| println!("{}", job.name()));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(status) = machine::own_session(arguments) {
        return Ok(status);
    }
    let mut results = Results::new(machine::describe(&plan, arguments));
    child::run_all(&plan, &mut results)?;
    let text = table::render(&results);
    print!("{text}");
    if let Some(directory) = &plan.out {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("table.md"), text)?;
        results.write(&directory.join("results.json"))?;
        plot::write(&results, directory)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws the plots of a run that was kept: `plots FILE DIR`.
fn plots(arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let [file, directory] = arguments else { return Err("plots wants results.json and a directory".into()) };
    plot::write(&Results::read(Path::new(file))?, Path::new(directory))?;
    Ok(ExitCode::SUCCESS)
}
