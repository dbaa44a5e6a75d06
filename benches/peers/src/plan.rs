//! What is measured in a run: from the command line to the list of jobs.

use crate::clock;
use crate::drivers::{self, Entry};
use crate::job::{Idle, Job, Measure};
use crate::peer::Kind;
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
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
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
            json: None,
            svg: None,
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
                "--json" => plan.json = Some(value()?.into()),
                "--svg" => plan.svg = Some(value()?.into()),
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
        let mut groups = Vec::new();
        for &size in &sizes[..sizes.len() - usize::from(!self.quick)] {
            self.add(&mut groups, Measure::Latency, size, 1, 0);
        }
        for &readers in if self.quick { &[1][..] } else { &[1, 2, 4, 8] } {
            for &size in sizes {
                self.add(&mut groups, Measure::Throughput, size, readers, 0);
            }
        }
        for rate in [100_000, 1_000_000] {
            self.add(&mut groups, Measure::Rate, 64, 1, rate);
        }
        for measure in [Measure::Wake, Measure::Idle, Measure::Attach] {
            self.add(&mut groups, measure, 64, 1, 0);
        }
        for readers in [1, 8, 64, 512] {
            self.add(&mut groups, Measure::Registered, 64, readers, 0);
        }
        for readers in [1, 64] {
            self.add(&mut groups, Measure::Full, 64, readers, 0);
        }
        groups
    }

    fn add(&self, groups: &mut Vec<Group>, measure: Measure, size: usize, readers: usize, rate: u64) {
        let wanted = chosen(&self.measures, &measure) && chosen(&self.sizes, &size) && chosen(&self.readers, &readers);
        let jobs: Vec<Job> = drivers::ALL
            .iter()
            .filter(|entry| wanted && self.includes(entry.facts.name) && takes_part(entry, measure, size, readers))
            .flat_map(|entry| self.jobs(entry, measure, size, readers, rate))
            .collect();
        if let Some(job) = jobs.first() {
            groups.push(Group { name: job.group(), jobs });
        }
    }

    fn includes(&self, name: &str) -> bool {
        self.systems.is_empty()
            || self.systems.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == pattern,
            })
    }

    fn jobs(&self, entry: &Entry, measure: Measure, size: usize, readers: usize, rate: u64) -> Vec<Job> {
        let facts = &entry.facts;
        let stream = measure == Measure::Throughput;
        let own = if stream { (facts.stream_bytes / size).clamp(8, facts.max_slots) } else { facts.latency_slots };
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

fn takes_part(entry: &Entry, measure: Measure, size: usize, readers: usize) -> bool {
    let facts = &entry.facts;
    let there = facts.name != "lapwing-c" || std::env::var_os(crate::peer::lapwing_c::LIBRARY).is_some();
    let everybody = matches!(measure, Measure::Latency | Measure::Throughput);
    let limit_fits = match (facts.kind, facts.name) {
        (Kind::Limit, "limit-slot") => measure == Measure::Latency,
        (Kind::Limit, "limit-slot-gated" | "limit-copy" | "limit-free") => measure != Measure::Latency,
        _ => true,
    };
    (everybody || facts.more.contains(&measure))
        && !facts.not.contains(&measure)
        && limit_fits
        && there
        && size <= facts.max_size
        && readers <= facts.max_readers
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
