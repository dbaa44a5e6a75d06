//! Processes: the orchestrator that starts them round by round, and what each of them does.

use crate::drivers;
use crate::job::{Figures, Job, Measure, Role};
use crate::machine;
use crate::peer::Kind;
use crate::plan::Plan;
use crate::results::{Outcome, Results};
use crate::shared::Control;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Longest life of a measurement's processes.
const LONGEST: Duration = Duration::from_secs(45);
/// A disturbed measurement is repeated so many times.
const REPEATS: usize = 2;
/// The process beside, which ends with the others.
const HELPER: &str = "helper";
/// Failures after which somebody is not tried again in the same group.
const FAILURES: usize = 2;

/// A directory in memory that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let root = if Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
        let path = root.join(format!("lapwing-peers-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs every round of the plan.
pub fn run_all(plan: &Plan, results: &mut Results) -> io::Result<()> {
    let scratch = Scratch::new()?;
    let groups = plan.groups();
    let jobs: usize = groups.iter().map(|group| group.jobs.len()).sum();
    let started = Instant::now();
    let mut number = 0;
    for round in 0..plan.rounds {
        for group in &groups {
            for job in &group.jobs {
                number += 1;
                eprint!(
                    "\r\x1b[K[{:>4} s] round {}/{}, {number} of {}: {}",
                    started.elapsed().as_secs(),
                    round + 1,
                    plan.rounds,
                    jobs * plan.rounds,
                    job.name()
                );
                if results.failures(&group.name, &job.who()) >= FAILURES {
                    continue;
                }
                let mut job = job.clone();
                let mut outcome = Outcome::default();
                for attempt in 0..=REPEATS {
                    job.dir = scratch.0.join(format!("{number}-{attempt}"));
                    job.tag = format!("lw{}n{number}t{attempt}", std::process::id());
                    outcome = run(&job);
                    if !outcome.disturbed {
                        break;
                    }
                }
                if let Err(error) = &outcome.figures {
                    eprintln!("\n  FAILED {}: {error}", job.name());
                }
                results.add(round, &group.name, &job, outcome);
            }
        }
    }
    eprintln!("\r\x1b[K{} measurements in {} s", jobs * plan.rounds, started.elapsed().as_secs());
    Ok(())
}

fn run(job: &Job) -> Outcome {
    let before = machine::busy();
    let figures = processes(job);
    let disturbed = machine::disturbed(&before, job.cores.len());
    let _ = fs::remove_dir_all(&job.dir);
    machine::remove_shared_memory(&job.tag);
    Outcome { figures, disturbed }
}

struct Started {
    role: String,
    child: Child,
}

fn processes(job: &Job) -> Result<Figures, String> {
    let what = job.name();
    fs::create_dir(&job.dir).map_err(|error| format!("directory: {error}"))?;
    let control = Control::create(&job.dir.join("control")).map_err(|error| format!("control words: {error}"))?;
    let path = job.dir.join("job");
    fs::write(&path, serde_json::to_string(job).expect("serialises")).map_err(|error| format!("job: {error}"))?;
    let facts = &drivers::find(&job.driver).expect("planned from the list").facts;
    let mut roles = vec!["writer".to_string()];
    if facts.kind == Kind::InProcess {
        roles = vec!["threads".to_string()];
    } else {
        // One process has all the handles, or there is no other process at all.
        let readers = match job.measure {
            Measure::Registered | Measure::Memory => 1,
            Measure::Full => 0,
            _ => job.readers,
        };
        roles.extend((0..readers).map(|index| format!("reader-{index}")));
        if facts.helper {
            roles.insert(0, HELPER.to_string());
        }
    }
    let mut running = Vec::new();
    for role in roles {
        match start(&path, &job.dir, &role) {
            Ok(child) => running.push(Started { role, child }),
            Err(error) => {
                control.fail();
                let _ = wait(&mut running, &control);
                return Err(format!("{what}: {error}"));
            }
        }
    }
    wait(&mut running, &control)?;
    let mut figures = Figures::new();
    for started in running.iter().filter(|started| started.role != HELPER) {
        let told = fs::read_to_string(job.dir.join(format!("{}.out", started.role))).unwrap_or_default();
        match told.lines().rev().find_map(|line| line.strip_prefix("figures ")) {
            Some(line) => join(&mut figures, serde_json::from_str(line).map_err(|error| error.to_string())?),
            None => return Err(format!("{}: {}", started.role, complaint(&job.dir, &started.role, &told))),
        }
    }
    Ok(figures)
}

/// Joins the figures of several processes: rates add up, the least share counts, the rest is one process's own.
fn join(all: &mut Figures, one: Figures) {
    for (name, value) in one {
        match name.as_str() {
            "rate" | "bytes" => *all.entry(name).or_insert(0.0) += value,
            "share" => {
                let least = all.entry(name).or_insert(value);
                *least = least.min(value);
            }
            _ => {
                all.insert(name, value);
            }
        }
    }
}

fn complaint(dir: &Path, role: &str, told: &str) -> String {
    if let Some(line) = told.lines().rev().find_map(|line| line.strip_prefix("failed ")) {
        return line.to_string();
    }
    let errors = fs::read_to_string(dir.join(format!("{role}.err"))).unwrap_or_default();
    let lines: Vec<&str> = errors.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "ended without a word".into();
    }
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

fn start(job: &Path, dir: &Path, role: &str) -> io::Result<Child> {
    machine::ourselves()?
        .arg("child")
        .arg(job)
        .arg(role)
        .stdin(Stdio::null())
        .stdout(File::create(dir.join(format!("{role}.out")))?)
        .stderr(File::create(dir.join(format!("{role}.err")))?)
        .spawn()
}

/// Waits for all processes; ends them if one fails or if they take too long.
fn wait(running: &mut [Started], control: &Control) -> Result<(), String> {
    let deadline = Instant::now() + LONGEST;
    let mut failed_at: Option<Instant> = None;
    let mut late = false;
    loop {
        let mut alive = 0;
        for started in running.iter_mut() {
            match started.child.try_wait() {
                Ok(None) => alive += usize::from(started.role != HELPER),
                Ok(Some(status)) if status.success() => {}
                _ => {
                    control.fail();
                    failed_at.get_or_insert_with(Instant::now);
                }
            }
        }
        if alive == 0 {
            break;
        }
        late |= Instant::now() > deadline;
        if late || failed_at.is_some_and(|at| at.elapsed() > Duration::from_secs(2)) {
            control.fail();
            for started in running.iter_mut() {
                let _ = started.child.kill();
                let _ = started.child.wait();
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for started in running.iter_mut().filter(|started| started.role == HELPER) {
        let _ = started.child.kill();
        let _ = started.child.wait();
    }
    if late { Err(format!("took longer than {} s", LONGEST.as_secs())) } else { Ok(()) }
}

/// The life of a child process: `child JOB ROLE`.
pub fn main(arguments: &[String]) -> ExitCode {
    let outcome = match arguments {
        [job, role] => child(Path::new(job), role),
        _ => Err("child wants a job and a role".into()),
    };
    match outcome {
        Ok(figures) => {
            println!("figures {}", serde_json::to_string(&figures).expect("serialises"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("failed {error}");
            ExitCode::FAILURE
        }
    }
}

fn child(path: &Path, role: &str) -> Result<Figures, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let job: Job = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let control = Control::open(&job.dir.join("control")).map_err(|error| error.to_string())?;
    let result = match role {
        "writer" => part(&job, &control, Role::Writer),
        "threads" => threads(&job, &control),
        HELPER => helper(&job, &control),
        _ => match role.strip_prefix("reader-").and_then(|index| index.parse().ok()) {
            Some(index) => part(&job, &control, Role::Reader(index)),
            None => Err(format!("{role} is no role")),
        },
    };
    if result.is_err() {
        control.fail();
    }
    result
}

fn part(job: &Job, control: &Control, role: Role) -> Result<Figures, String> {
    let core = match role {
        Role::Writer => job.cores[0],
        Role::Reader(index) => job.cores[1 + index % (job.cores.len() - 1)],
    };
    machine::pin(core)?;
    let entry = drivers::find(&job.driver).ok_or("no such driver")?;
    (entry.run)(job, control, role).map_err(|error| error.to_string())
}

/// Both sides in one process, a thread each.
fn threads(job: &Job, control: &Control) -> Result<Figures, String> {
    std::thread::scope(|scope| {
        let mut parts = vec![scope.spawn(|| part(job, control, Role::Writer))];
        for index in 0..job.readers {
            parts.push(scope.spawn(move || part(job, control, Role::Reader(index))));
        }
        let mut figures = Figures::new();
        let mut failure = Ok(());
        for thread in parts {
            match thread.join().unwrap_or_else(|_| Err("a thread panicked".into())) {
                Ok(one) => join(&mut figures, one),
                Err(error) => {
                    control.fail();
                    failure = Err(error);
                }
            }
        }
        failure.map(|()| figures)
    })
}

fn helper(job: &Job, control: &Control) -> Result<Figures, String> {
    let entry = drivers::find(&job.driver).ok_or("no such driver")?;
    (entry.helper)(job, control).map_err(|error| error.to_string())?;
    Ok(Figures::new())
}
