//! Tools that look at a bus change nothing: the writer's throughput alone, with `export` scraped ten times a second, and with `watch`.
//!
//! In turn, round after round, in one run: each round compares with the one without tools beside it. The tools run all the time and are
//! stopped (SIGSTOP) while it is not their turn, so that starting them is not measured.

use lapwing::{Next, Options, Policy, Reader, Wait, Writer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;
const TURN: Duration = Duration::from_millis(700);
const SCRAPE: Duration = Duration::from_millis(100);
const CAPACITY: u64 = 4 << 20;
const SIZE: usize = 64;

struct Tool {
    name: &'static str,
    child: Option<Child>,
}

impl Tool {
    fn start(
        name: &'static str,
        args: &[&str],
    ) -> Result<(Self, BufReader<std::process::ChildStderr>), Box<dyn Error>> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lapwing"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = BufReader::new(child.stderr.take().ok_or("it has no standard error")?);
        Ok((Self { name, child: Some(child) }, stderr))
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        self.child.as_ref().map_or(Ok(()), |child| kill(Pid::from_raw(child.id() as i32), signal))
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn scrape(address: &str) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())
}

/// Records a second, published and read.
fn turn(writer: &mut Writer) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    let mut records = 0u64;
    while start.elapsed() < TURN {
        for _ in 0..1024 {
            writer.publish(&[0x5a; SIZE])?;
        }
        records += 1024;
    }
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

fn read(path: &Path, ready: &std::sync::Barrier) -> lapwing::Result<u64> {
    let mut reader = Reader::options().wait(Wait::Spin).open(path)?;
    ready.wait();
    let mut count = 0;
    loop {
        match reader.drain(4096, |_| count += 1)? {
            (_, Next::Closed(_)) => return Ok(count),
            (_, Next::Record(_)) => count += 1,
            _ => std::hint::spin_loop(),
        }
    }
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = Path::new("/dev/shm").join(format!("lapwing-attached-{}", std::process::id()));
    std::fs::create_dir(&directory)?;
    let result = measure(&directory.join("bus"));
    std::fs::remove_dir_all(&directory)?;
    result
}

fn measure(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut writer = Options::new().capacity(CAPACITY).create(path)?;
    writer.set_policy(Policy::Wait(Some(Duration::from_secs(10))));
    let bus = path.to_str().ok_or("a plain path")?;
    let (export, mut told) =
        Tool::start("export, scraped 10 times a second", &["--json", "export", bus, "--listen", "127.0.0.1:0"])?;
    let mut line = String::new();
    told.read_line(&mut line)?;
    let address = line.split('"').find(|word| word.starts_with("127.0.0.1:")).ok_or("it serves")?.to_owned();
    let (watch, _told) = Tool::start("watch", &["--json", "watch", bus])?;
    let tools = [Tool { name: "no tool", child: None }, export, watch, Tool { name: "no tool again", child: None }];
    tools.iter().try_for_each(|tool| tool.signal(Signal::SIGSTOP))?;

    let (ready, scraping, done) = (std::sync::Barrier::new(2), AtomicBool::new(false), AtomicBool::new(false));
    let mut rates = vec![Vec::new(); tools.len()];
    let mut scrapes = 0u64;
    std::thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let reader = scope.spawn(|| read(path, &ready));
        let scraper = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                if scraping.load(Ordering::Relaxed) && scrape(&address).is_ok_and(|bytes| bytes > 1000) {
                    count += 1;
                }
                std::thread::sleep(SCRAPE);
            }
            count
        });
        ready.wait();
        turn(&mut writer)?;
        for round in 0..ROUNDS {
            for place in 0..tools.len() {
                let at = (round + place) % tools.len();
                tools[at].signal(Signal::SIGCONT)?;
                scraping.store(at == 1, Ordering::Relaxed);
                rates[at].push(turn(&mut writer)?);
                scraping.store(false, Ordering::Relaxed);
                tools[at].signal(Signal::SIGSTOP)?;
            }
        }
        tools[1].signal(Signal::SIGCONT)?;
        done.store(true, Ordering::Relaxed);
        let published = writer.next_sequence();
        writer.close()?;
        let read = reader.join().map_err(|_| "the reader panicked")??;
        assert_eq!(read, published);
        scrapes = scraper.join().map_err(|_| "the scraper panicked")?;
        Ok(())
    })?;

    println!("{SIZE}-byte records, one reader, {ROUNDS} rounds of {TURN:?} each in turn, {scrapes} scrapes answered");
    for (tool, found) in tools.iter().zip(&rates) {
        let shares = found.iter().zip(&rates[0]).map(|(with, without)| with / without).collect();
        let ((rate, low, high), (share, least, most)) = (median(found.clone()), median(shares));
        println!(
            "{:<34} {:7.2} M/s ({:.2} to {:.2}); of the round's first: {:.3} ({:.3} to {:.3})",
            tool.name,
            rate / 1e6,
            low / 1e6,
            high / 1e6,
            share,
            least,
            most
        );
    }
    Ok(())
}
