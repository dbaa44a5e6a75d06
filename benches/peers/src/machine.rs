//! The machine: what it is, whether it is quiet, and pinning to its cores.

use crate::plan::Plan;
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// What the output states about where it was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Description {
    pub facts: Vec<(String, String)>,
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or("").trim().to_string()
}

fn of_cpu(field: &str) -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(field));
    line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_string()
}

fn priority() -> String {
    let group = first_line("/proc/self/autogroup");
    if is_root() { format!("nice -20 for every measured process, {group}") } else { "normal (not root)".into() }
}

fn is_root() -> bool {
    // SAFETY: takes no pointers.
    unsafe { libc::geteuid() == 0 }
}

/// Makes a command's process end when this one does.
fn dies_with_us(command: &mut Command) {
    // SAFETY: a single system call without memory of its own.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    };
}

/// Returns a command that runs this program.
pub fn ourselves() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    dies_with_us(&mut command);
    Ok(command)
}

/// Gives the measurements a session of their own, ahead of others: the kernel may share the cores out by session before it looks at
/// priorities. Returns an exit status if another process has done the work.
pub fn own_session(arguments: &[String]) -> Option<ExitCode> {
    if !is_root() {
        return None;
    }
    // SAFETY: takes no pointers.
    if unsafe { libc::setsid() } < 0 {
        // The leader of a process group cannot have a session of its own, but its child can.
        let mut command = ourselves().ok()?;
        // SAFETY: a single system call; the child is not the leader of its group, so it succeeds.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                Ok(())
            })
        };
        let status = command.args(arguments).status().ok()?;
        return Some(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    // Where there are no such groups there is no such file.
    let _ = fs::write("/proc/self/autogroup", "-20");
    None
}

pub fn describe(plan: &Plan, arguments: &[String]) -> Description {
    let cache = |index: u32| {
        let at = |what: &str| first_line(&format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{what}"));
        format!("L{} {} {} shared by cores {}", at("level"), at("type"), at("size"), at("shared_cpu_list"))
    };
    let core = |core: usize| {
        let at = |what: &str| first_line(&format!("/sys/devices/system/cpu/cpu{core}/topology/{what}"));
        format!("core {core}: package {}, siblings {}", at("physical_package_id"), at("thread_siblings_list"))
    };
    let governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    let window = format!(
        "{} rounds, interleaved; sender on core {}, readers on {:?}; more processes than cores: whoever finds nothing yields, all alike",
        plan.rounds,
        plan.cores[0],
        &plan.cores[1..]
    );
    let facts = vec![
        ("processor", of_cpu("model name")),
        ("topology", plan.cores.iter().map(|&number| core(number)).collect::<Vec<_>>().join("; ")),
        ("caches", (0..4).map(cache).collect::<Vec<_>>().join("; ")),
        ("governor", if governor.is_empty() { "not visible (virtual machine?)".into() } else { governor }),
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("compiler", env!("PEERS_RUSTC").to_string()),
        ("flags", env!("PEERS_FLAGS").to_string()),
        ("versions", env!("PEERS_VERSIONS").to_string()),
        ("ticks per ns", format!("{:.4}", plan.ticks_per_ns)),
        ("how", window),
        ("priority", priority()),
        ("command", format!("benches/peers/run {}", arguments.join(" "))),
    ];
    Description { facts: facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect() }
}

/// Processor time used so far.
pub struct Busy {
    at: Instant,
    all: f64,
    own: f64,
}

/// Reads the processor time that everybody and this process's children have used.
pub fn busy() -> Busy {
    let line = first_line("/proc/stat");
    let fields: Vec<f64> = line.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(0.0)).collect();
    // user, nice, system, (idle, iowait), irq, softirq, steal
    let jiffies: f64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|&index| fields.get(index)).sum();
    // SAFETY: both calls fill a zeroed struct, or return a number.
    let (used, a_second) = unsafe {
        let mut used = 0.0;
        for who in [libc::RUSAGE_CHILDREN, libc::RUSAGE_SELF] {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &mut usage);
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            used += seconds(usage.ru_utime) + seconds(usage.ru_stime);
        }
        (used, libc::sysconf(libc::_SC_CLK_TCK) as f64)
    };
    Busy { at: Instant::now(), all: jiffies / a_second, own: used }
}

/// Says whether somebody else used more than a tenth of the cores since `before`.
pub fn disturbed(before: &Busy, cores: usize) -> bool {
    let now = busy();
    let foreign = (now.all - before.all) - (now.own - before.own);
    let wall = now.at.duration_since(before.at).as_secs_f64();
    // The kernel counts in hundredths of a second: below that it says nothing.
    foreign > 0.02 + 0.1 * wall * cores as f64
}

/// Runs the calling thread on one core from now on, ahead of everything else on it if that is permitted.
pub fn pin(core: usize) -> Result<(), String> {
    // SAFETY: only changes this thread's priority; a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) };
    // SAFETY: a zeroed set is valid; the core's index is below its size.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    if result == 0 { Ok(()) } else { Err(format!("core {core}: {}", std::io::Error::last_os_error())) }
}

/// Removes what a measurement left in shared memory.
pub fn remove_shared_memory(tag: &str) {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().contains(tag) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
