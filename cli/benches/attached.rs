//! What a writer loses while `top` and `watch` look at its bus: rounds with and without them, in turn, in one run.
//!
//! `cargo bench -p lapwing-cli --bench attached`; needs tmux. Between their rounds the tools are stopped, so that each pair of rounds
//! sees the same machine. Writer and reader are threads of this process; the bus has a second reader, a lossy one that reads
//! nothing, so that there is something to judge.

use lapwing::{Class, Options, Policy, Reader, Wait, Writer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUND: Duration = Duration::from_millis(500);
const PAIRS: usize = 40;
const RECORD: [u8; 64] = [7; 64];

/// The tools, looking ten times a second, as `watch` does by default and `top` if told to.
struct Tools {
    socket: String,
    watch: Child,
    pids: [Pid; 2],
}

impl Tools {
    fn start(place: &str, bus: &str) -> Self {
        let lapwing = env!("CARGO_BIN_EXE_lapwing");
        let socket = format!("{place}/tmux");
        let tmux = |args: &[&str]| {
            let ran = Command::new("tmux").args(["-S", &socket, "-f", "/dev/null"]).args(args).output();
            let ran = ran.expect("tmux is installed");
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            String::from_utf8_lossy(&ran.stdout).trim().to_owned()
        };
        tmux(&["new-session", "-d", "-x", "80", "-y", "24", lapwing, "top", bus, "--interval", "100ms"]);
        let top = tmux(&["list-panes", "-F", "#{pane_pid}"]).parse().expect("a process");
        let watch = Command::new(lapwing).args(["watch", bus]).stdout(Stdio::null()).spawn().expect("watch starts");
        let pids = [Pid::from_raw(top), Pid::from_raw(watch.id() as i32)];
        Self { socket, watch, pids }
    }

    fn let_run(&self, run: bool) {
        let signal = if run { Signal::SIGCONT } else { Signal::SIGSTOP };
        self.pids.iter().for_each(|&pid| kill(pid, signal).expect("it lives"));
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        self.let_run(true);
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
        let _ = self.watch.kill();
        let _ = self.watch.wait();
    }
}

/// Publishes for a round; records a second.
fn round(writer: &mut Writer) -> f64 {
    let start = Instant::now();
    let mut records = 0u64;
    while start.elapsed() < ROUND {
        for _ in 0..1000 {
            writer.publish(&RECORD).expect("the reader reads");
        }
        records += 1000;
    }
    records as f64 / start.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let place = PathBuf::from(format!("/dev/shm/lapwing-attached-{}", std::process::id()));
    std::fs::create_dir(&place).expect("a directory");
    let place = place.to_str().expect("a plain path").to_owned();
    let bus = format!("{place}/bus");
    let mut writer = Options::new().create(&bus).expect("a bus");
    writer.set_policy(Policy::Wait(None));
    let _idle = Reader::options().name("idle").class(Class::Lossy).open(&bus).expect("a slot");
    let done = AtomicBool::new(false);
    let mut reader = Reader::options().name("reads").wait(Wait::Spin).open(&bus).expect("a slot");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let done = &done;
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                reader.drain(1000, |_| {}).expect("the bus");
            }
        });
        let tools = Tools::start(&place, &bus);
        round(&mut writer);
        for pair in 0..PAIRS {
            // Whoever goes first changes, so that a drift favours neither.
            for run in [pair % 2 == 0, pair % 2 != 0] {
                tools.let_run(run);
                let rate = round(&mut writer);
                if run { with.push(rate) } else { without.push(rate) }
            }
        }
        drop(tools);
        done.store(true, Ordering::Relaxed);
    });
    let ratios: Vec<_> = with.iter().zip(&without).map(|(with, without)| with / without).collect();
    let spread = |values: &[f64]| {
        let middle = median(values.to_vec());
        median(values.iter().map(|value| (value / middle - 1.0).abs()).collect()) * 100.0
    };
    println!("pairs of rounds of {ROUND:?}, 64-byte records, one reader: {PAIRS}");
    println!(
        "without tools   {:>8.2} M records/s, median; spread {:.2} %",
        median(without.clone()) / 1e6,
        spread(&without)
    );
    println!("with top, watch {:>8.2} M records/s, median; spread {:.2} %", median(with.clone()) / 1e6, spread(&with));
    println!("with / without  {:>8.4}, median of pairs; spread {:.2} %", median(ratios.clone()), spread(&ratios));
    std::fs::remove_dir_all(&place).expect("its own directory");
}
