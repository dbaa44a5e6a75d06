//! The other measurements, at one size: fixed rates, sleeping readers, attaching, memory, many readers, a full ring.

use crate::clock::{rough, ticks};
use crate::job::{At, Figures, Job, Measure, Role};
use crate::measure::{Waiting, histogram, percentiles, verdict};
use crate::peer::{Driver, Error, Receiver, Sender};
use crate::record::{Checker, Source};
use crate::shared::Control;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// Words of a record here.
const WORDS: usize = 8;
/// Longest wait for the other side.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run<D: Driver, const W: usize>(job: &Job, control: &Control, role: Role) -> Result<Figures, Error> {
    // Compiled for one size only.
    if W != WORDS {
        return Err("this is measured with 64 bytes only".into());
    }
    match (job.measure, role) {
        (Measure::Rate, Role::Writer) => paced::<D, W>(job, control),
        (Measure::Rate, Role::Reader(index)) => on_time::<D, W>(job, control, index),
        (Measure::Wake, Role::Writer) => waker::<D, W>(job, control),
        (Measure::Wake, Role::Reader(_)) => sleeper::<D, W>(job, control),
        (Measure::Idle, Role::Writer) => silence::<D, W>(job, control),
        (Measure::Idle, Role::Reader(_)) => idler::<D, W>(job, control),
        (Measure::Attach, Role::Writer) => host::<D, W>(job, control),
        (Measure::Attach, Role::Reader(_)) => attach::<D, W>(job, control),
        (Measure::Memory, Role::Writer) => bus_memory::<D, W>(job, control),
        (Measure::Memory, Role::Reader(_)) => handle_memory::<D, W>(job, control),
        (Measure::Registered, Role::Writer) => bursts::<D, W>(job, control),
        (Measure::Registered, Role::Reader(_)) => many::<D, W>(job, control),
        (Measure::Full, Role::Writer) => full::<D, W>(job, control),
        _ => Err("no such part".into()),
    }
}

fn at<'a>(job: &'a Job, control: &'a Control) -> At<'a> {
    At { job, control, channel: "a", readers: job.readers }
}

/// Makes the sender once, and waits until `receivers` are attached.
fn sender<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<D::Sender<W>, Error> {
    let mut tx = D::sender::<W>(&at(job, control))?;
    control.meet(control.created(), 1)?;
    control.wait_for(control.attached(), job.readers as u64)?;
    tx.connect(job.readers)?;
    control.meet(control.ready(), 2)?;
    Ok(tx)
}

/// Attaches the only receiver.
fn receiver<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<D::Receiver<W>, Error> {
    control.wait_for(control.created(), 1)?;
    let rx = D::receiver::<W>(&at(job, control), 0)?;
    control.attached().fetch_add(1, Release);
    control.meet(control.ready(), 2)?;
    Ok(rx)
}

fn wait_until(control: &Control, mut done: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        control.check()?;
        if Instant::now() > deadline {
            return Err("the other side did not come to the end".into());
        }
        std::hint::spin_loop();
    }
    Ok(())
}

// ---- fixed rates ----------------------------------------------------------------------------------------------------

/// Returns when record `sequence` is to be sent, in ticks after the start.
fn due(job: &Job, sequence: u64) -> u64 {
    (sequence as f64 * (1e9 / job.rate as f64) * job.ticks_per_ns) as u64
}

fn paced<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut tx = sender::<D, W>(job, control)?;
    let mut source = Source::<W>::new();
    let start = ticks() + job.ticks(Duration::from_millis(5));
    control.window_start().store(start, Release);
    let count = (job.rate as f64 * (3 * job.duration).as_secs_f64()) as u64;
    let mut late = 0_u64;
    for sequence in 0..count {
        let record = source.next();
        let intended = start + due(job, sequence);
        while rough() < intended {}
        tx.send(record);
        late += u64::from(rough() > intended + job.ticks(Duration::from_micros(10)));
    }
    control.sent().store(count + 1, Release);
    control.meet(control.finished(), 2)?;
    Ok([("late".to_string(), late as f64 / count as f64)].into())
}

fn on_time<D: Driver, const W: usize>(job: &Job, control: &Control, index: usize) -> Result<Figures, Error> {
    debug_assert_eq!(index, 0);
    let mut rx = receiver::<D, W>(job, control)?;
    let (mut checker, mut waiting, mut histogram) = (Checker::<W>::new(), Waiting::new(job), histogram());
    wait_until(control, || control.window_start().load(Acquire) != 0)?;
    let start = control.window_start().load(Relaxed);
    let warm = job.rate / 20;
    let mut quiet = None;
    loop {
        let got = rx.receive(&mut |record| {
            checker.check(record);
            let now = ticks();
            if checker.next > warm {
                histogram.saturating_record(now.saturating_sub(start + due(job, checker.next - 1)));
            }
        });
        if got > 0 {
            quiet = None;
        } else if waiting.pause() {
            let sent = control.sent().load(Acquire);
            if sent != 0 && checker.next == sent - 1 {
                break;
            }
            control.check()?;
            if sent != 0 && quiet.get_or_insert_with(Instant::now).elapsed() > Duration::from_millis(50) {
                if D::FACTS.lossless {
                    return Err(format!("{} of {} records came", checker.next, sent - 1).into());
                }
                break;
            }
        }
    }
    verdict(&checker, D::FACTS.lossless)?;
    control.meet(control.finished(), 2)?;
    let mut figures = percentiles(job, &histogram, 1.0);
    figures.insert("share".into(), checker.delivered as f64 / (checker.delivered + checker.missed).max(1) as f64);
    Ok(figures)
}

// ---- sleeping readers -----------------------------------------------------------------------------------------------

/// From one record to the next: long enough for every reader to fall asleep.
const NAP: Duration = Duration::from_micros(400);

fn waker<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut tx = sender::<D, W>(job, control)?;
    let mut source = Source::<W>::new();
    let mut cost = histogram();
    let count = ((3 * job.duration).as_nanos() / NAP.as_nanos()).max(100) as u64;
    for sequence in 0..count {
        let record = source.next();
        // Not a fixed rhythm, lest it meets the reader's own.
        let until = ticks() + job.ticks(NAP + Duration::from_nanos(sequence * 7919 % 50_000));
        while rough() < until {
            std::hint::spin_loop();
        }
        let now = ticks();
        control.turn().store(now, Release);
        tx.send(record);
        cost.saturating_record(ticks() - now);
        wait_until(control, || control.drained().load(Acquire) > sequence)?;
    }
    control.stop().store(1, Release);
    tx.send(source.next());
    control.meet(control.finished(), 2)?;
    Ok([("send".to_string(), job.ns(cost.value_at_quantile(0.5)))].into())
}

fn sleeper<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut rx = receiver::<D, W>(job, control)?;
    let (mut checker, mut histogram) = (Checker::<W>::new(), histogram());
    loop {
        let mut woken = 0;
        let got = rx.receive_parked(&mut |record| {
            checker.check(record);
            woken = ticks();
        });
        if control.stop().load(Acquire) != 0 {
            break;
        }
        control.check()?;
        if got > 0 {
            if checker.next > 10 {
                histogram.saturating_record(woken.saturating_sub(control.turn().load(Acquire)));
            }
            control.drained().store(checker.next, Release);
        }
    }
    verdict(&checker, true)?;
    control.meet(control.finished(), 2)?;
    Ok(percentiles(job, &histogram, 1.0))
}

fn silence<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut tx = sender::<D, W>(job, control)?;
    let mut source = Source::<W>::new();
    tx.send(source.next());
    wait_until(control, || control.drained().load(Acquire) == 1)?;
    std::thread::sleep(5 * job.duration);
    tx.send(source.next());
    control.meet(control.finished(), 2)?;
    Ok(Figures::new())
}

fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn idler<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut rx = receiver::<D, W>(job, control)?;
    let mut checker = Checker::<W>::new();
    while checker.next < 1 {
        rx.receive_parked(&mut |record| checker.check(record));
        control.check()?;
    }
    let (used, since) = (processor_time(), Instant::now());
    control.drained().store(1, Release);
    while checker.next < 2 {
        rx.receive_parked(&mut |record| checker.check(record));
        control.check()?;
    }
    let share = (processor_time() - used).as_secs_f64() / since.elapsed().as_secs_f64();
    verdict(&checker, true)?;
    control.meet(control.finished(), 2)?;
    Ok([("cpu".to_string(), 100.0 * share)].into())
}

// ---- attaching ------------------------------------------------------------------------------------------------------

const ATTACHMENTS: usize = 200;

fn host<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let tx = D::sender::<W>(&at(job, control))?;
    control.meet(control.created(), 1)?;
    wait_until(control, || control.finished().load(Acquire) > 0)?;
    drop(tx);
    Ok(Figures::new())
}

fn attach<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    control.wait_for(control.created(), 1)?;
    let mut histogram = histogram();
    let limit = Instant::now() + 3 * job.duration;
    for _ in 0..ATTACHMENTS {
        let before = ticks();
        let rx = D::receiver::<W>(&at(job, control), 0)?;
        histogram.saturating_record(ticks() - before);
        drop(rx);
        if Instant::now() > limit {
            break;
        }
    }
    control.finished().fetch_add(1, Release);
    Ok(percentiles(job, &histogram, 1.0))
}

// ---- memory ---------------------------------------------------------------------------------------------------------

/// Returns this process's own memory, in bytes: what is in no file.
fn own_memory() -> Result<f64, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon in /proc/self/status")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Returns the bytes of the files that the measured system made, in this measurement's directory and in shared memory.
fn files(job: &Job) -> Result<f64, Error> {
    let mut bytes = 0;
    let mut directories = vec![job.dir.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if !HARNESS.iter().any(|own| entry.file_name().to_string_lossy().ends_with(own)) {
                bytes += entry.metadata()?.blocks() * 512;
            }
        }
    }
    for entry in std::fs::read_dir("/dev/shm")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains(&job.tag) {
            bytes += entry.metadata()?.blocks() * 512;
        }
    }
    Ok(bytes as f64)
}

/// Files of a measurement that are the harness's own.
const HARNESS: [&str; 4] = ["control", "job", ".out", ".err"];

fn bus_memory<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let before = own_memory()?;
    let mut tx = D::sender::<W>(&at(job, control))?;
    let sender = own_memory()? - before;
    let alone = files(job)?;
    control.meet(control.created(), 1)?;
    control.wait_for(control.attached(), job.readers as u64)?;
    let all = files(job)?;
    tx.connect(job.readers)?;
    tx.send(Source::<W>::new().next());
    control.meet(control.finished(), 2)?;
    let figure = |name: &str, value: f64| (name.to_string(), value);
    Ok([figure("files", alone), figure("files a reader", (all - alone) / job.readers as f64), figure("sender", sender)]
        .into())
}

fn handle_memory<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    control.wait_for(control.created(), 1)?;
    let before = own_memory()?;
    let mut handles = Vec::new();
    for index in 0..job.readers {
        handles.push(D::receiver::<W>(&at(job, control), index)?);
    }
    let reader = (own_memory()? - before) / job.readers as f64;
    control.attached().fetch_add(job.readers as u64, Release);
    for rx in &mut handles {
        let mut checker = Checker::<W>::new();
        wait_until(control, || rx.receive(&mut |record| checker.check(record)) > 0)?;
        verdict(&checker, true)?;
    }
    control.meet(control.finished(), 2)?;
    Ok([("reader".to_string(), reader)].into())
}

// ---- many registered readers ----------------------------------------------------------------------------------------

/// A lap takes so many bursts; the readers catch up between them.
const BURSTS: usize = 8;

fn bursts<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let mut tx = sender::<D, W>(job, control)?;
    let mut source = Source::<W>::new();
    let mut laps = histogram();
    let size = job.slots / BURSTS;
    let deadline = Instant::now() + 2 * job.duration;
    let mut lap = 0;
    while Instant::now() < deadline || lap < 3 {
        let mut spent = 0;
        for _ in 0..BURSTS {
            let before = ticks();
            tx.send_many(&mut source, size);
            spent += ticks() - before;
            control.turn().store(source.sent(), Release);
            wait_until(control, || control.drained().load(Acquire) >= source.sent())?;
        }
        lap += 1;
        // The first lap meets fresh memory.
        if lap > 1 {
            laps.saturating_record(spent);
        }
    }
    control.sent().store(source.sent() + 1, Release);
    control.meet(control.finished(), 2)?;
    Ok(percentiles(job, &laps, (size * BURSTS) as f64))
}

fn many<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    control.wait_for(control.created(), 1)?;
    let mut handles = Vec::new();
    for index in 0..job.readers {
        handles.push((D::receiver::<W>(&at(job, control), index)?, Checker::<W>::new()));
        control.attached().fetch_add(1, Release);
    }
    control.meet(control.ready(), 2)?;
    let mut told = 0;
    loop {
        // Only the publishing is timed: nobody reads meanwhile.
        wait_until(control, || control.turn().load(Acquire) > told || control.sent().load(Acquire) == told + 1)?;
        let turn = control.turn().load(Acquire);
        if turn == told {
            break;
        }
        for (rx, checker) in &mut handles {
            wait_until(control, || {
                rx.receive(&mut |record| checker.check(record));
                checker.next >= turn
            })?;
        }
        told = turn;
        control.drained().store(told, Release);
    }
    for (_, checker) in &handles {
        verdict(checker, true)?;
    }
    control.meet(control.finished(), 2)?;
    Ok(Figures::new())
}

// ---- a full ring ----------------------------------------------------------------------------------------------------

/// Publishes timed in each state.
const TIMED: usize = 20_000;

/// Cost of a publish while there is room, and while the slowest of the readers frees one record at a time. One process does it all, so that
/// nothing but the publish is timed.
fn full<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let place = at(job, control);
    let mut tx = D::sender::<W>(&place)?;
    let mut readers = Vec::new();
    for index in 0..job.readers {
        readers.push((D::receiver::<W>(&place, index)?, Checker::<W>::new()));
    }
    tx.connect(job.readers)?;
    let timer = (0..1000).map(|_| (ticks(), ticks())).map(|(from, till)| till - from).min().unwrap_or(0);
    let mut source = Source::<W>::new();
    let (mut free, mut tight) = (histogram(), histogram());
    let take = |readers: &mut [(D::Receiver<W>, Checker<W>)]| {
        for (rx, checker) in readers {
            while rx.receive(&mut |record| checker.check(record)) > 0 {}
        }
    };
    for _ in 0..TIMED {
        let record = source.next();
        let before = ticks();
        let sent = tx.try_send(record);
        let after = ticks();
        if !sent {
            return Err("no room though all was read".into());
        }
        free.saturating_record((after - before).saturating_sub(timer));
        take(&mut readers);
    }
    // The first reader stops here; the others go on reading.
    let (slow, others) = readers.split_at_mut(1);
    let mut record = *source.next();
    while tx.try_send(&record) {
        record = *source.next();
        take(others);
    }
    let mut refused = 0;
    for _ in 0..TIMED {
        let (rx, checker) = &mut slow[0];
        if rx.receive(&mut |record| checker.check(record)) == 0 {
            return Err("the slow reader found nothing".into());
        }
        let before = ticks();
        let sent = tx.try_send(&record);
        let after = ticks();
        if sent {
            tight.saturating_record((after - before).saturating_sub(timer));
            record = *source.next();
        } else {
            refused += 1;
        }
        take(others);
    }
    take(slow);
    for (_, checker) in &readers {
        verdict(checker, D::FACTS.lossless)?;
    }
    let figure = |name: &str, value: f64| (name.to_string(), value);
    Ok([
        figure("p50", job.ns(tight.value_at_quantile(0.5))),
        figure("mean", tight.mean() / job.ticks_per_ns),
        figure("free p50", job.ns(free.value_at_quantile(0.5))),
        figure("free mean", free.mean() / job.ticks_per_ns),
        figure("to free", tight.mean() / free.mean().max(1.0)),
        figure("refused", refused as f64 / TIMED as f64),
    ]
    .into())
}
