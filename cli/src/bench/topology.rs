//! The machine that is measured: its processors, which of them to use, and what steers their speed.

use crate::failure::Failure;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// What a figure depends on beside the program. Field names are a contract, as those of the reports.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Machine {
    pub(super) model: String,
    pub(super) kernel: String,
    /// Processors that this process may use.
    pub(super) processors: usize,
    pub(super) cores: usize,
    pub(super) sockets: usize,
    /// Frequency governors in use; empty if the system does not set the frequency.
    pub(super) governors: Vec<String>,
    pub(super) hypervisor: bool,
    pub(super) isolated: String,
    /// The processors that were used, the writer's first.
    pub(super) cpus: Vec<usize>,
    /// Whether those share a last-level cache.
    pub(super) shared_cache: bool,
    /// Whether two of those are threads of one core.
    pub(super) shared_core: bool,
}

/// A processor that this process may use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cpu {
    id: usize,
    package: String,
    /// The threads of its core, and the processors that share its last-level cache, as lists of the system's.
    core: String,
    cache: String,
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).map_or(String::new(), |text| text.trim().to_owned())
}

fn allowed() -> Result<Vec<Cpu>, Failure> {
    let set = sched_getaffinity(Pid::from_raw(0))
        .map_err(|errno| Failure::other(format!("cannot tell which processors may be used: {errno}")))?;
    let ids = (0..CpuSet::count()).filter(|&id| set.is_set(id).unwrap_or(false));
    Ok(ids
        .map(|id| {
            let at = Path::new("/sys/devices/system/cpu").join(format!("cpu{id}"));
            let package = read(at.join("topology/physical_package_id"));
            let core = match read(at.join("topology/thread_siblings_list")) {
                list if list.is_empty() => id.to_string(),
                list => list,
            };
            let cache = match (0..8)
                .rev()
                .map(|n| read(at.join(format!("cache/index{n}/shared_cpu_list"))))
                .find(|list| !list.is_empty())
            {
                Some(list) => list,
                None => package.clone(),
            };
            Cpu { id, package, core, cache }
        })
        .collect())
}

/// Picks one processor a core, all of one cache: of the cache with the most cores. The very first comes last: interrupts go there.
fn choose(cpus: &[Cpu]) -> Vec<usize> {
    let one_a_core = |cache: &str| {
        let mut cores: Vec<&str> = Vec::new();
        let mut picked: Vec<usize> = Vec::new();
        for cpu in cpus.iter().filter(|cpu| cpu.cache == cache) {
            if !cores.contains(&cpu.core.as_str()) {
                cores.push(&cpu.core);
                picked.push(cpu.id);
            }
        }
        picked
    };
    // The first of equals.
    let mut best: Vec<usize> = Vec::new();
    for cpu in cpus {
        let picked = one_a_core(&cpu.cache);
        if picked.len() > best.len() {
            best = picked;
        }
    }
    // Two threads of one core are better than one.
    if best.len() < 2 {
        best = cpus.iter().map(|cpu| cpu.id).take(2).collect();
    }
    if best.len() > 2 && best[0] == 0 {
        best.rotate_left(1);
    }
    best
}

impl Machine {
    /// Looks at the machine; `wanted` are the processors to use, or none to choose some.
    pub(super) fn look(wanted: &[usize]) -> Result<Self, Failure> {
        let cpus = allowed()?;
        if let Some(stranger) = wanted.iter().find(|&&id| cpus.iter().all(|cpu| cpu.id != id)) {
            let all: Vec<_> = cpus.iter().map(|cpu| cpu.id.to_string()).collect();
            return Err(Failure::usage(format!(
                "processor {stranger} is not one of those that may be used here: {}",
                all.join(", ")
            )));
        }
        let used = if wanted.is_empty() { choose(&cpus) } else { wanted.to_vec() };
        let of = |id: &usize| cpus.iter().find(|cpu| cpu.id == *id);
        let distinct = |mut words: Vec<&str>| {
            words.sort_unstable();
            words.dedup();
            words.len()
        };
        let info = read("/proc/cpuinfo");
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let kernel = uname().map_or(String::new(), |name| {
            format!(
                "{} {} {}",
                name.sysname().to_string_lossy(),
                name.release().to_string_lossy(),
                name.machine().to_string_lossy()
            )
        });
        Ok(Self {
            model: field("model name").or_else(|| field("CPU part")).unwrap_or_else(|| "unknown".to_owned()),
            kernel,
            processors: cpus.len(),
            cores: distinct(cpus.iter().map(|cpu| cpu.core.as_str()).collect()),
            sockets: distinct(cpus.iter().map(|cpu| cpu.package.as_str()).collect()),
            governors: crate::doctor::governors(Path::new("/")),
            hypervisor: field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            isolated: read("/sys/devices/system/cpu/isolated"),
            shared_cache: distinct(used.iter().filter_map(of).map(|cpu| cpu.cache.as_str()).collect()) == 1,
            shared_core: distinct(used.iter().filter_map(of).map(|cpu| cpu.core.as_str()).collect()) < used.len(),
            cpus: used,
        })
    }

    pub(super) fn writer_cpu(&self) -> usize {
        self.cpus[0]
    }

    /// The processor of a reader: one of its own while there are enough.
    pub(super) fn reader_cpu(&self, index: usize) -> usize {
        match &self.cpus[1..] {
            [] => self.cpus[0],
            others => others[index % others.len()],
        }
    }

    /// Whether the writer and so many readers have a processor each.
    pub(super) fn has_room_for(&self, readers: usize) -> bool {
        readers < self.cpus.len()
    }
}

/// Keeps the calling thread on one processor.
pub(super) fn pin(cpu: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|errno| Failure::other(format!("cannot stay on processor {cpu}: {errno}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(id: usize, core: &str, cache: &str) -> Cpu {
        Cpu { id, package: "0".into(), core: core.into(), cache: cache.into() }
    }

    #[test]
    fn one_thread_a_core_of_the_cache_with_most_cores() {
        let cpus = [
            cpu(0, "0,4", "0,4"),
            cpu(1, "1,5", "1-3,5-7"),
            cpu(2, "2,6", "1-3,5-7"),
            cpu(3, "3,7", "1-3,5-7"),
            cpu(4, "0,4", "0,4"),
            cpu(5, "1,5", "1-3,5-7"),
        ];
        assert_eq!(choose(&cpus), [1, 2, 3]);
    }

    #[test]
    fn the_first_processor_comes_last() {
        let cpus: Vec<_> = (0..4).map(|id| cpu(id, &id.to_string(), "0-3")).collect();
        assert_eq!(choose(&cpus), [1, 2, 3, 0]);
    }

    #[test]
    fn threads_of_one_core_if_there_is_nothing_else_and_one_alone() {
        assert_eq!(choose(&[cpu(0, "0-1", "0-1"), cpu(1, "0-1", "0-1")]), [0, 1]);
        assert_eq!(choose(&[cpu(3, "3", "3")]), [3]);
    }
}
