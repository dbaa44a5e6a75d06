//! What is measured in a run: from the command line to the list of jobs.

use crate::clock;
use crate::drivers::{self, Entry};
use crate::job::{Idle, Job, Measure};
use std::path::PathBuf;
use std::time::Duration;

pub struct Plan {
    pub rounds: usize,
    pub list: bool,
    quick: bool,
    measures: Vec<Measure>,
    sizes: Vec<usize>,
    readers: Vec<usize>,
    systems: Vec<String>,
    pub out: Option<PathBuf>,
    pub cores: Vec<usize>,
    pub ticks_per_ns: f64,
    window: Duration,
    slots: Option<usize>,
    idle: Option<Idle>,
    sweep: bool,
}

/// Measurements that are compared with one another, one for each driver.
pub struct Group {
    pub name: String,
    pub jobs: Vec<Job>,
}

/// What is measured of everybody in a group.
struct Shape {
    measure: Measure,
    size: usize,
    readers: usize,
    rate: u64,
    /// Bytes of the ring, instead of each driver's own.
    ring: Option<usize>,
}

const QUICK_SIZES: [usize; 6] = [8, 32, 48, 64, 1 << 10, 16 << 10];

impl Plan {
    pub fn from_arguments(arguments: &[String]) -> Result<Self, String> {
        let mut plan = Self {
            rounds: 0,
            list: false,
            quick: false,
            measures: Vec::new(),
            sizes: Vec::new(),
            readers: Vec::new(),
            systems: Vec::new(),
            out: None,
            cores: allowed_cores(),
            ticks_per_ns: clock::calibrate(),
            window: Duration::ZERO,
            slots: None,
            idle: None,
            sweep: false,
        };
        let mut rest = arguments.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--rounds" => plan.rounds = number(value()?)?,
                "--quick" => plan.quick = true,
                "--list" => plan.list = true,
                "--measures" => plan.measures = list(value()?, measure)?,
                "--sizes" => plan.sizes = list(value()?, number)?,
                "--readers" => plan.readers = list(value()?, number)?,
                "--systems" => plan.systems = list(value()?, |word| Ok(word.to_string()))?,
                "--out" => plan.out = Some(value()?.into()),
                "--window" => plan.window = Duration::from_millis(number(value()?)? as u64),
                "--cores" => plan.cores = list(value()?, number)?,
                "--slots" => plan.slots = Some(number(value()?)?.next_power_of_two()),
                "--idle" => plan.idle = Some(idle(value()?)?),
                "--sweep" => plan.sweep = true,
                other => return Err(format!("unknown option {other}")),
            }
        }
        if plan.rounds == 0 {
            plan.rounds = if plan.quick { 3 } else { 7 };
        }
        if plan.window.is_zero() {
            plan.window = Duration::from_millis(if plan.quick { 60 } else { 200 });
        }
        if plan.cores.len() < 2 {
            return Err("two cores at least: one for the sender, one for the readers".into());
        }
        Ok(plan)
    }

    /// Lists the groups of measurements, in the order they are run and shown.
    pub fn groups(&self) -> Vec<Group> {
        let sizes = if self.quick { &QUICK_SIZES[..] } else { &drivers::SIZES[..] };
        let readers = if self.quick { &[1][..] } else { &[1, 2, 4, 8] };
        let shape = |measure, size, readers| Shape { measure, size, readers, rate: 0, ring: None };
        let mut shapes: Vec<Shape> =
            sizes.iter().filter(|&&size| size <= 16 << 10).map(|&size| shape(Measure::Latency, size, 1)).collect();
        shapes.extend(
            readers.iter().flat_map(|&count| sizes.iter().map(move |&size| shape(Measure::Throughput, size, count))),
        );
        shapes.extend([100_000, 1_000_000].map(|rate| Shape { rate, ..shape(Measure::Rate, 64, 1) }));
        shapes.extend([Measure::Wake, Measure::Idle].map(|measure| shape(measure, 64, 1)));
        shapes.extend([64 << 10, 4 << 20].map(|ring| Shape { ring: Some(ring), ..shape(Measure::Attach, 64, 1) }));
        shapes.push(shape(Measure::Memory, 64, 8));
        shapes.extend([1, 8, 64, 512].map(|readers| shape(Measure::Registered, 64, readers)));
        shapes.extend([1, 64].map(|readers| shape(Measure::Full, 64, readers)));
        shapes.into_iter().filter_map(|shape| self.group(shape)).collect()
    }

    fn group(&self, shape: Shape) -> Option<Group> {
        let wanted = chosen(&self.measures, &shape.measure)
            && chosen(&self.sizes, &shape.size)
            && chosen(&self.readers, &shape.readers);
        let jobs: Vec<Job> = drivers::ALL
            .iter()
            .filter(|entry| wanted && self.includes(entry.facts.name) && takes_part(entry, &shape))
            .flat_map(|entry| self.jobs(entry, &shape))
            .collect();
        let name = jobs.first()?.group();
        Some(Group { name, jobs })
    }

    fn includes(&self, name: &str) -> bool {
        self.systems.is_empty()
            || self.systems.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    }

    fn jobs(&self, entry: &Entry, shape: &Shape) -> Vec<Job> {
        let facts = &entry.facts;
        let &Shape { measure, size, readers, rate, ring } = shape;
        let stream = measure == Measure::Throughput;
        let own = match (ring, measure) {
            (Some(bytes), _) => (bytes / size).min(facts.max_slots),
            (_, Measure::Throughput | Measure::Registered) => (facts.stream_bytes / size).clamp(8, facts.max_slots),
            // Room for what is late.
            (_, Measure::Rate) => facts.latency_slots.max(1024),
            _ => facts.latency_slots.max(facts.latency_bytes / size),
        };
        let job = Job {
            measure,
            driver: facts.name.to_string(),
            size,
            readers,
            rate,
            slots: self.slots.unwrap_or(own.next_power_of_two()),
            idle: if stream { self.idle.unwrap_or(facts.stream_idle) } else { Idle::Spin },
            duration: self.window,
            dir: PathBuf::new(),
            tag: String::new(),
            ticks_per_ns: self.ticks_per_ns,
            crowded: stream && 1 + readers > self.cores.len(),
            cores: self.cores.clone(),
            variant: String::new(),
        };
        if !self.sweep || !stream {
            return vec![job];
        }
        let idles = [Idle::Spin, Idle::Pause, Idle::Pace(200), Idle::Pace(1000), Idle::Pace(4000)];
        let depths = [256_usize << 10, 1 << 20, 4 << 20];
        depths
            .iter()
            .flat_map(|&bytes| idles.iter().map(move |&idle| (bytes, idle)))
            .map(|(bytes, idle)| {
                let slots = (bytes / size).clamp(8, 65_536).next_power_of_two();
                Job { slots, idle, variant: format!("@{}K,{idle:?}", bytes >> 10), ..job.clone() }
            })
            .collect()
    }
}

fn takes_part(entry: &Entry, shape: &Shape) -> bool {
    let (facts, measure) = (&entry.facts, shape.measure);
    let there = facts.name != "lapwing-c" || std::env::var_os(crate::peer::lapwing_c::LIBRARY).is_some();
    let everybody = matches!(measure, Measure::Latency | Measure::Throughput);
    there
        && (everybody || facts.more.contains(&measure))
        && !facts.not.contains(&measure)
        && shape.size <= facts.max_size
        && shape.readers <= facts.max_readers
}

/// Without a choice everything is chosen.
fn chosen<T: PartialEq>(choice: &[T], one: &T) -> bool {
    choice.is_empty() || choice.contains(one)
}

fn list<T>(words: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    words.split(',').map(parse).collect()
}

fn measure(word: &str) -> Result<Measure, String> {
    Measure::ALL.into_iter().find(|measure| measure.name() == word).ok_or_else(|| format!("{word} is no measure"))
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("{word} is no number"))
}

fn idle(word: &str) -> Result<Idle, String> {
    match word.split_once(':') {
        None if word == "spin" => Ok(Idle::Spin),
        None if word == "pause" => Ok(Idle::Pause),
        Some(("pace", ns)) => Ok(Idle::Pace(number(ns)? as u32)),
        _ => Err(format!("{word} is no way to poll")),
    }
}

fn allowed_cores() -> Vec<usize> {
    // SAFETY: a zeroed set is valid, and the call fills it.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set);
        set
    };
    // SAFETY: the index is below the set's size.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}
