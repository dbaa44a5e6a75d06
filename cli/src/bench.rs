//! `bench`: what the bus does on this machine, and beside it what bare cache lines do, measured in turn.

mod bus;
mod job;
mod line;
mod plot;
mod report;
mod topology;

use crate::args::Bench;
use crate::failure::{Exit, Failure};
use crate::show::{print, to_json};
use crate::signals;
use indicatif::{ProgressBar, ProgressStyle};
use job::{Answer, Flow, Job, Order, Tally, Trips, carry_out};
use lapwing::{Bus, Options};
use report::{Latencies, Point, Rates, Report, Settings};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use topology::Machine;

/// Bytes of a ring: small enough for the caches, large enough that the writer is not held up by each hiccup of a reader.
const CAPACITY: u64 = 4 << 20;
/// Payloads of the throughput measurement in bytes.
const SIZES: [usize; 6] = [16, 64, 256, 1024, 4096, 16384];
/// Payload at which more readers are tried, and how many.
const SHARED_SIZE: usize = 64;
const READERS: [usize; 4] = [1, 2, 4, 8];
/// Each measurement is taken so often, if there is time.
const ROUNDS: u32 = 5;
/// Latency is measured for so many times as long as a throughput.
const LATENCY_WEIGHT: u32 = 4;
/// Starting and ending the processes of a measurement.
const OVERHEAD: Duration = Duration::from_millis(25);

pub(crate) use job::serve as peer;

pub(crate) fn run(args: &Bench, json: bool) -> Result<Exit, Failure> {
    signals::install()?;
    let machine = Machine::look(&args.cpus)?;
    if let Some(dir) = &args.svg {
        fs::create_dir_all(dir)
            .map_err(|error| Failure::other(format!("{}: cannot make it: {error}", dir.display())))?;
    }
    let place = Place::make(&args.dir)?;
    let plan = Plan::of(args, &machine);
    let report = plan.measure(&place, machine)?;
    if let Some(dir) = &args.svg {
        plot::write(&report, dir)?;
    }
    print(&if json { to_json(&report)? } else { report.to_string() })
}

/// A directory for the buses; removed when dropped.
struct Place(PathBuf);

impl Place {
    fn make(base: &Path) -> Result<Self, Failure> {
        let path = base.join(format!("lapwing-bench-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| {
            Failure::other(format!("{}: cannot make it: {error}; choose another --dir", path.display()))
        })?;
        Ok(Self(path))
    }

    /// A new bus for one measurement.
    fn bus(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.0.join(name);
        if path.exists() {
            Bus::remove(&path)?;
        }
        Options::new().capacity(CAPACITY).readers(16).prefault(true).build(&path)?;
        Ok(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            // Nobody is left to act on it but who runs the command.
            eprintln!("lapwing: {}: cannot remove it: {error}", self.0.display());
        }
    }
}

/// What is measured, and for how long.
struct Plan {
    settings: Settings,
    /// Size and number of readers.
    points: Vec<(usize, usize)>,
    trips: Trips,
    flow_time: Duration,
}

impl Plan {
    fn of(args: &Bench, machine: &Machine) -> Self {
        let mut points: Vec<(usize, usize)> = SIZES.iter().map(|&size| (size, 1)).collect();
        // Up to four share processors if need be; more only where each has its own.
        let more = READERS.iter().filter(|&&readers| readers > 1 && (readers <= 4 || machine.has_room_for(readers)));
        points.extend(more.map(|&readers| (SHARED_SIZE, readers)));
        let rounds = ROUNDS.min((args.time.as_secs() / 2).max(1) as u32);
        let a_round = (args.time / rounds).saturating_sub(OVERHEAD * 2 * (points.len() as u32 + 1));
        let unit = (a_round / (2 * (points.len() as u32 + LATENCY_WEIGHT))).max(Duration::from_millis(20));
        let trips = Trips { rate: args.rate, size: args.size as usize, time: unit * LATENCY_WEIGHT };
        let settings = Settings {
            rounds,
            capacity: CAPACITY,
            latency_rate: args.rate,
            latency_size: args.size,
            latency_ms: crate::report::millis(trips.time),
            throughput_ms: crate::report::millis(unit),
        };
        Self { settings, points, trips, flow_time: unit }
    }

    fn measure(&self, place: &Place, machine: Machine) -> Result<Report, Failure> {
        let rounds = self.settings.rounds;
        let bar = ProgressBar::new(u64::from(rounds) * 2 * (self.points.len() as u64 + 1));
        // The template is ours; a wrong one would cost the looks and nothing else.
        let style = ProgressStyle::with_template("{msg:36} ▕{bar:30}▏ {percent:>3} %, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("█▉▊▋▌▍▎▏ "));
        let mut latency = [job::histogram(), job::histogram()];
        let mut rates = vec![[const { Vec::new() }; 2]; self.points.len()];
        for round in 0..rounds {
            // In turn, and who comes first changes from round to round.
            let order: [usize; 2] = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for which in order {
                bar.set_message(format!("round trips, {}", SUBJECTS[which]));
                let found = if which == BUS { self.bus_trips(place, &machine)? } else { self.bare_trips(&machine)? };
                for (value, count) in found {
                    latency[which].saturating_record_n(value, count);
                }
                next(&bar)?;
            }
            for (&(size, readers), rates) in self.points.iter().zip(&mut rates) {
                let flow = Flow { size, readers, time: self.flow_time };
                for which in order {
                    bar.set_message(format!("{size} bytes, {readers} reader(s), {}", SUBJECTS[which]));
                    let found =
                        if which == BUS { bus_flow(place, &machine, flow)? } else { bare_flow(&machine, flow)? };
                    rates[which].push(found);
                    next(&bar)?;
                }
            }
        }
        bar.finish_and_clear();
        let throughput = self.points.iter().zip(rates).map(|(&(size, readers), [bus, bare])| {
            let bus = Rates::of(bus, size);
            let bare = Rates::of(bare, size);
            let share = bus.records / bare.records;
            Point { size, readers, own_processors: machine.has_room_for(readers), bus, bare, share }
        });
        let throughput = throughput.collect();
        let [bus, bare] = latency;
        let latency = Latencies { bus: report::Percentiles::of(&bus), bare: report::Percentiles::of(&bare) };
        Ok(Report {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            settings: self.settings.clone(),
            latency,
            throughput,
            histograms: [bus, bare],
        })
    }

    fn bus_trips(&self, place: &Place, machine: &Machine) -> Result<Vec<(u64, u64)>, Failure> {
        let (there, back) = (place.bus("there")?, place.bus("back")?);
        let shares = !machine.has_room_for(1);
        let orders = [
            Order { job: Job::Echo { there: there.clone(), back: back.clone() }, cpu: machine.reader_cpu(0), shares },
            Order { job: Job::Ping { there, back, trips: self.trips }, cpu: machine.writer_cpu(), shares },
        ];
        match carry_out(&orders)?.pop() {
            Some(Answer::Trips(found)) => Ok(found),
            other => Err(strange(other)),
        }
    }

    fn bare_trips(&self, machine: &Machine) -> Result<Vec<(u64, u64)>, Failure> {
        let cpus = [machine.writer_cpu(), machine.reader_cpu(0)];
        let job = Job::BareTrips { cpus, trips: self.trips };
        match carry_out(&[Order { job, cpu: cpus[0], shares: !machine.has_room_for(1) }])?.pop() {
            Some(Answer::Trips(found)) => Ok(found),
            other => Err(strange(other)),
        }
    }
}

const SUBJECTS: [&str; 2] = ["the bus", "bare lines"];
const BUS: usize = 0;

fn next(bar: &ProgressBar) -> Result<(), Failure> {
    bar.inc(1);
    if signals::stopped() { Err(Failure::other("stopped by a signal; nothing to tell yet")) } else { Ok(()) }
}

fn strange(answer: Option<Answer>) -> Failure {
    Failure::other(format!("a process that is measured answered another question: {answer:?}"))
}

fn bus_flow(place: &Place, machine: &Machine, flow: Flow) -> Result<f64, Failure> {
    let bus = place.bus("flow")?;
    let shares = !machine.has_room_for(flow.readers);
    let readers = (0..flow.readers).map(|index| Order {
        job: Job::Read { bus: bus.clone() },
        cpu: machine.reader_cpu(index),
        shares,
    });
    let writer = Order { job: Job::Publish { bus: bus.clone(), flow }, cpu: machine.writer_cpu(), shares };
    let mut answers = carry_out(&readers.chain([writer]).collect::<Vec<_>>())?;
    let (rate, all) = match answers.pop() {
        Some(Answer::Flow { counted, time, all }) => (counted as f64 / time.as_secs_f64(), all),
        other => return Err(strange(other)),
    };
    for answer in answers {
        match answer {
            Answer::Read(tally) if tally == all => {}
            Answer::Read(Tally { records, .. }) => {
                return Err(Failure::other(format!(
                    "a reader got {records} records of {}: this must not be; please report it",
                    all.records
                )));
            }
            other => return Err(strange(Some(other))),
        }
    }
    Ok(rate)
}

fn bare_flow(machine: &Machine, flow: Flow) -> Result<f64, Failure> {
    let cpus: Vec<usize> =
        [machine.writer_cpu()].into_iter().chain((0..flow.readers).map(|index| machine.reader_cpu(index))).collect();
    let order = Order {
        job: Job::BareFlow { cpus, flow },
        cpu: machine.writer_cpu(),
        shares: !machine.has_room_for(flow.readers),
    };
    match carry_out(&[order])?.pop() {
        Some(Answer::Flow { counted, time, .. }) => Ok(counted as f64 / time.as_secs_f64()),
        other => Err(strange(other)),
    }
}
