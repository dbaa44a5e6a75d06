//! The bus's side of the measurements: one function for each process.

use super::job::{Answer, Flow, Tally, Trips, histogram, wait_for_start, warm_up};
use crate::failure::Failure;
use lapwing::{Next, Policy, Reader, Record, Wait, Writer};
use std::path::Path;
use std::time::{Duration, Instant};

/// Nothing takes longer unless the other side is gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records between two looks at the clock.
const STRIDE: u64 = 64;

fn reader(path: &Path, shares: bool) -> Result<Reader, Failure> {
    let wait = if shares { Wait::Yield } else { Wait::Spin };
    Ok(Reader::options().wait(wait).prefault(true).open(path)?)
}

fn writer(path: &Path) -> Result<Writer, Failure> {
    let mut writer = Writer::open(path)?;
    writer.set_policy(Policy::Wait(Some(PATIENCE)));
    Ok(writer)
}

fn unexpected(what: &str, next: &Next<'_>) -> Failure {
    Failure::other(format!("{what}: {next:?} where a record was expected; the machine is too busy to measure"))
}

fn first_word(record: &Record<'_>) -> Option<u64> {
    Some(u64::from_le_bytes(*record.payload().first_chunk()?))
}

/// Waits until `due` after `start`.
pub(super) fn wait_until(start: Instant, due: Duration, shares: bool) {
    while start.elapsed() < due {
        if shares { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
}

pub(super) fn ping(there: &Path, back: &Path, trips: Trips, shares: bool) -> Result<Answer, Failure> {
    let mut writer = writer(there)?;
    let mut reader = reader(back, shares)?;
    wait_for_start()?;
    let mut record = vec![0x5a; trips.size];
    let found = run_trips(trips, shares, |number| {
        record[..8].copy_from_slice(&number.to_le_bytes());
        writer.publish(&record)?;
        match reader.next()? {
            Next::Record(answer) if first_word(&answer) == Some(number) => Ok(()),
            other => Err(unexpected("round trip", &other)),
        }
    })?;
    writer.close()?;
    Ok(found)
}

/// Each trip has its time, and its latency counts from that time: a stall is seen by all trips that it delays.
pub(super) fn run_trips(
    trips: Trips,
    shares: bool,
    mut trip: impl FnMut(u64) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    let mut latencies = histogram();
    let warm = warm_up(trips.time);
    let start = Instant::now();
    for number in 0.. {
        let due = Duration::from_secs_f64(number as f64 / trips.rate);
        if due >= trips.time {
            break;
        }
        wait_until(start, due, shares);
        trip(number)?;
        if due >= warm {
            let latency = start.elapsed().saturating_sub(due);
            latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1));
        }
    }
    Ok(Answer::Trips(latencies.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()))
}

pub(super) fn echo(there: &Path, back: &Path, shares: bool) -> Result<Answer, Failure> {
    let mut reader = reader(there, shares)?;
    let mut writer = writer(back)?;
    wait_for_start()?;
    loop {
        match reader.next()? {
            Next::Record(record) => {
                writer.publish(record.payload())?;
            }
            Next::Closed(_) => return Ok(Answer::Echoed),
            other => return Err(unexpected("echo", &other)),
        }
    }
}

pub(super) fn publish(bus: &Path, flow: Flow, _shares: bool) -> Result<Answer, Failure> {
    let mut writer = writer(bus)?;
    wait_for_start()?;
    let mut record = vec![0x5a; flow.size];
    let answer = run_flow(flow, |number| {
        record[..8].copy_from_slice(&number.to_le_bytes());
        writer.publish(&record)?;
        Ok(())
    })?;
    writer.close()?;
    Ok(answer)
}

/// Sends as fast as it goes; the rate counts after the warm-up.
pub(super) fn run_flow(flow: Flow, mut send: impl FnMut(u64) -> Result<(), Failure>) -> Result<Answer, Failure> {
    let mut all = Tally::default();
    let mut warmed_up = None;
    let start = Instant::now();
    loop {
        for _ in 0..STRIDE {
            let number = all.records;
            send(number)?;
            all.add(number);
        }
        let elapsed = start.elapsed();
        match warmed_up {
            None if elapsed >= warm_up(flow.time) => warmed_up = Some((elapsed, all.records)),
            Some((since, records)) if elapsed >= flow.time => {
                return Ok(Answer::Flow { counted: all.records - records, time: elapsed - since, all });
            }
            _ => {}
        }
    }
}

pub(super) fn read(bus: &Path, shares: bool) -> Result<Answer, Failure> {
    let mut reader = reader(bus, shares)?;
    wait_for_start()?;
    let mut tally = Tally::default();
    let mut take = |record: Record<'_>| tally.add(first_word(&record).unwrap_or(0));
    loop {
        match reader.drain(1024, &mut take)? {
            (_, Next::Empty) => match reader.next()? {
                Next::Record(record) => take(record),
                Next::Closed(_) => break,
                other => return Err(unexpected("read", &other)),
            },
            (_, Next::Record(record)) => take(record),
            (_, Next::Closed(_)) => break,
            (_, other) => return Err(unexpected("read", &other)),
        }
    }
    Ok(Answer::Read(tally))
}
