//! The measurements, the same code for all: what each process of one does.

use crate::clock::{rough, ticks};
use crate::job::{At, Figures, Idle, Job, Measure, Role};
use crate::peer::{Driver, Error, Receiver, Sender};
use crate::record::{Checker, Source};
use crate::shared::Control;
use hdrhistogram::Histogram;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// Longest silence before a measurement is given up.
const SILENCE: Duration = Duration::from_secs(10);
/// Empty polls between two looks at the control words.
const GLANCE: u32 = 1024;

/// Runs this process's part and returns its figures.
pub fn run<D: Driver, const W: usize>(job: &Job, control: &Control, role: Role) -> Result<Figures, Error> {
    match (job.measure, role) {
        (Measure::Latency, Role::Writer) => ping::<D, W>(job, control),
        (Measure::Latency, Role::Reader(_)) => pong::<D, W>(job, control),
        (Measure::Throughput, Role::Writer) => stream::<D, W>(job, control),
        (Measure::Throughput, Role::Reader(index)) => take::<D, W>(job, control, index),
        _ => crate::more::run::<D, W>(job, control, role),
    }
}

/// What a process does while there is nothing to receive.
pub struct Waiting {
    idle: Idle,
    pace: u64,
    polls: u32,
    since: Instant,
}

impl Waiting {
    pub fn new(job: &Job) -> Self {
        let pace = if let Idle::Pace(ns) = job.idle { job.ticks(Duration::from_nanos(u64::from(ns))) } else { 0 };
        Self { idle: if job.crowded { Idle::Yield } else { job.idle }, pace, polls: 0, since: Instant::now() }
    }

    /// Waits a little, as configured. True now and then: time to look at the control words.
    #[inline(always)]
    pub fn pause(&mut self) -> bool {
        match self.idle {
            Idle::Spin => {}
            Idle::Pause => std::hint::spin_loop(),
            Idle::Pace(_) => {
                let until = rough() + self.pace;
                while rough() < until {
                    std::hint::spin_loop();
                }
                return true;
            }
            Idle::Yield => {
                std::thread::yield_now();
                return true;
            }
        }
        self.polls = self.polls.wrapping_add(1);
        self.polls.is_multiple_of(GLANCE)
    }

    pub fn reset(&mut self) {
        self.since = Instant::now();
    }

    pub fn check_silence(&self) -> Result<(), Error> {
        if self.since.elapsed() > SILENCE { Err("nothing arrived any more".into()) } else { Ok(()) }
    }
}

pub fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("a valid precision");
    histogram.auto(true);
    // Grown to its full size before the clock runs.
    histogram.record(1 << 34).expect("auto-sized");
    histogram.reset();
    histogram
}

/// Describes a distribution of ticks in nanoseconds, each divided by `parts`.
pub fn percentiles(job: &Job, histogram: &Histogram<u64>, parts: f64) -> Figures {
    let value = |ticks: u64| job.ns(ticks) / parts;
    [
        ("p50", value(histogram.value_at_quantile(0.5))),
        ("p90", value(histogram.value_at_quantile(0.9))),
        ("p99", value(histogram.value_at_quantile(0.99))),
        ("p99.9", value(histogram.value_at_quantile(0.999))),
        ("max", value(histogram.max())),
        ("samples", histogram.len() as f64),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_string(), value))
    .collect()
}

pub fn verdict<const W: usize>(checker: &Checker<W>, lossless: bool) -> Result<(), Error> {
    if checker.wrong > 0 {
        return Err(format!("{} of {} records arrived torn, twice or out of order", checker.wrong, checker.next).into());
    }
    if lossless && checker.missed > 0 {
        return Err(format!("{} of {} records never arrived", checker.missed, checker.next).into());
    }
    Ok(())
}

/// Makes both channels of a ping-pong: this side's sender, and a receiver on the other's.
#[allow(clippy::type_complexity)]
fn both_ways<D: Driver, const W: usize>(
    job: &Job,
    control: &Control,
    mine: &'static str,
    theirs: &'static str,
) -> Result<(D::Sender<W>, D::Receiver<W>), Error> {
    let mut tx = D::sender::<W>(&At { job, control, channel: mine, readers: 1 })?;
    control.meet(control.created(), 2)?;
    let rx = D::receiver::<W>(&At { job, control, channel: theirs, readers: 1 }, 0)?;
    control.meet(control.attached(), 2)?;
    tx.connect(1)?;
    control.meet(control.connected(), 2)?;
    Ok((tx, rx))
}

fn ping<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let (mut tx, mut rx) = both_ways::<D, W>(job, control, "a", "b")?;
    let (mut source, mut checker, mut waiting) = (Source::<W>::new(), Checker::<W>::new(), Waiting::new(job));
    let mut histogram = histogram();
    control.meet(control.ready(), 2)?;
    let start = ticks();
    let warm = start + job.ticks(job.duration / 5);
    let end = warm + job.ticks(job.duration);
    loop {
        let record = source.next();
        let sent = ticks();
        tx.send(record);
        while rx.receive(&mut |record| checker.check(record)) == 0 {
            if waiting.pause() {
                control.check()?;
                waiting.check_silence()?;
            }
        }
        let back = ticks();
        if back > warm {
            histogram.saturating_record(back - sent);
        }
        if back > end {
            break;
        }
        if checker.next.is_multiple_of(1 << 16) {
            waiting.reset();
        }
    }
    control.stop().store(1, Release);
    verdict(&checker, true)?;
    if checker.next != source.sent() {
        return Err("the answers are not as many as the questions".into());
    }
    control.meet(control.finished(), 2)?;
    Ok(percentiles(job, &histogram, 2.0))
}

fn pong<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let (mut tx, mut rx) = both_ways::<D, W>(job, control, "b", "a")?;
    let (mut source, mut checker, mut waiting) = (Source::<W>::new(), Checker::<W>::new(), Waiting::new(job));
    control.meet(control.ready(), 2)?;
    loop {
        // The record is read whole before it is answered.
        if rx.receive(&mut |record| checker.check(record)) > 0 {
            tx.send(source.next());
        } else if waiting.pause() {
            if control.stop().load(Acquire) != 0 {
                break;
            }
            control.check()?;
        }
    }
    verdict(&checker, true)?;
    control.meet(control.finished(), 2)?;
    Ok(Figures::new())
}

/// Records between two looks at the clock.
const fn stride(words: usize) -> usize {
    match words {
        0..=16 => 256,
        17..=256 => 32,
        _ => 4,
    }
}

fn stream<D: Driver, const W: usize>(job: &Job, control: &Control) -> Result<Figures, Error> {
    let readers = job.readers;
    let mut tx = D::sender::<W>(&At { job, control, channel: "a", readers })?;
    control.meet(control.created(), 1)?;
    control.wait_for(control.attached(), readers as u64)?;
    tx.connect(readers)?;
    let mut source = Source::<W>::new();
    control.meet(control.ready(), 1 + readers as u64)?;
    let start = ticks() + job.ticks(job.duration / 4);
    let end = start + job.ticks(job.duration);
    control.window_start().store(start, Relaxed);
    control.window_end().store(end, Release);
    // Each reader is to find a record after the window's end.
    let till = end + job.ticks(Duration::from_millis(if job.crowded { 10 } else { 2 }));
    let (mut from, mut upto) = (None, None);
    loop {
        tx.send_many(&mut source, stride(W));
        let now = rough();
        if now >= start && from.is_none() {
            from = Some((now, source.sent()));
        }
        if now >= end {
            upto.get_or_insert((now, source.sent()));
            if now >= till {
                break;
            }
        }
    }
    control.sent().store(source.sent() + 1, Release);
    // The sender stays until everybody has read to the end.
    let deadline = Instant::now() + SILENCE;
    while control.finished().load(Acquire) < readers as u64 {
        control.check()?;
        if Instant::now() > deadline {
            return Err("the readers did not come to the end".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    let ((t0, n0), (t1, n1)) = (from.expect("started"), upto.expect("ended"));
    Ok([("sent".to_string(), (n1 - n0) as f64 / job.ns(t1 - t0) * 1e9)].into())
}

/// Counts records, and notes the count where the window begins and ends.
struct Meter<const W: usize> {
    checker: Checker<W>,
    window: (u64, u64),
    from: Option<(u64, u64)>,
    upto: Option<(u64, u64)>,
}

impl<const W: usize> Meter<W> {
    #[inline(always)]
    fn take(&mut self, record: &[u64; W]) {
        self.checker.check(record);
        if (self.checker.delivered as usize).is_multiple_of(stride(W)) {
            self.look();
        }
    }

    #[inline(never)]
    fn look(&mut self) {
        let now = rough();
        if self.from.is_none() && now >= self.window.0 {
            self.from = Some((now, self.checker.delivered));
        }
        if self.upto.is_none() && now >= self.window.1 {
            self.upto = Some((now, self.checker.delivered));
        }
    }
}

fn take<D: Driver, const W: usize>(job: &Job, control: &Control, index: usize) -> Result<Figures, Error> {
    control.wait_for(control.created(), 1)?;
    let mut rx = D::receiver::<W>(&At { job, control, channel: "a", readers: job.readers }, index)?;
    control.attached().fetch_add(1, Release);
    let mut waiting = Waiting::new(job);
    control.meet(control.ready(), 1 + job.readers as u64)?;
    // The window is known right after the start.
    let deadline = Instant::now() + SILENCE;
    let window = loop {
        let end = control.window_end().load(Acquire);
        if end != 0 {
            break (control.window_start().load(Relaxed), end);
        }
        control.check()?;
        if Instant::now() > deadline {
            return Err("the sender did not start".into());
        }
        std::thread::yield_now();
    };
    let mut meter = Meter::<W> { checker: Checker::new(), window, from: None, upto: None };
    let mut quiet = None;
    loop {
        if rx.receive(&mut |record| meter.take(record)) > 0 {
            quiet = None;
        } else if waiting.pause() {
            meter.look();
            let sent = control.sent().load(Acquire);
            if sent != 0 {
                if meter.checker.next == sent - 1 {
                    break;
                }
                // The last records of a lossy stream may be lost; those of another must come.
                let since = *quiet.get_or_insert_with(Instant::now);
                let patience = if D::FACTS.lossless { SILENCE } else { Duration::from_millis(50) };
                if since.elapsed() > patience {
                    if D::FACTS.lossless {
                        return Err(format!("{} of {} records came", meter.checker.next, sent - 1).into());
                    }
                    break;
                }
            } else {
                control.check()?;
            }
        }
    }
    meter.look();
    verdict(&meter.checker, D::FACTS.lossless)?;
    control.finished().fetch_add(1, Release);
    let (Some((t0, n0)), Some((t1, n1))) = (meter.from, meter.upto) else {
        return Err("no record arrived in the window".into());
    };
    let rate = (n1 - n0) as f64 / job.ns(t1 - t0) * 1e9;
    let checker = &meter.checker;
    let share = checker.delivered as f64 / (checker.delivered + checker.missed).max(1) as f64;
    let figure = |name: &str, value: f64| (name.to_string(), value);
    Ok([figure("rate", rate), figure("bytes", rate * job.size as f64), figure("share", share)].into())
}
