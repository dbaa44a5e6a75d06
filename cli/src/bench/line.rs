//! What the machine's cache lines allow: the bare payloads, and one word that says they are there.
//!
//! No header, no names, no registration, no checks, nothing that survives a crash: whatever a bus adds costs on top of this.
//! A round trip sends one place with its sequence in front; the flow has bare payloads one after the other, a shared tail, and a cursor
//! for each reader, so that nothing is overwritten. The two sides are threads, so that their memory is shared in safe code; a cache
//! line does not know whose cores ask for it.

use super::bus::{run_flow, run_trips};
use super::job::{Answer, Flow, Tally, Trips, wait_for_start};
use super::topology::pin;
use crate::failure::Failure;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::thread;

/// Bytes of a ring: as large as the bus it is compared with.
const RING: usize = super::CAPACITY as usize;
/// Cursors are told so often a lap.
const TOLD_A_LAP: u64 = 8;
/// A reader that has caught up looks at the tail again after so many pauses: a line that is polled without one is slow to write.
const PACE: u32 = 64;

/// A word that shares no line, and no pair of lines, with others.
#[derive(Default)]
#[repr(align(128))]
struct Alone(AtomicU64);

/// Words from the start of a line on, cut into places for records.
struct Places {
    words: Box<[AtomicU64]>,
    start: usize,
    words_a_place: usize,
    count: u64,
}

impl Places {
    fn new(words_a_place: usize, count: u64) -> Self {
        const LINE: usize = 128;
        let words: Box<[AtomicU64]> =
            (0..words_a_place * count as usize + LINE / 8).map(|_| AtomicU64::new(0)).collect();
        let start = (words.as_ptr() as usize).wrapping_neg() % LINE / 8;
        Self { words, start, words_a_place, count }
    }

    #[inline(always)]
    fn at(&self, number: u64) -> &[AtomicU64] {
        let at = self.start + (number & (self.count - 1)) as usize * self.words_a_place;
        &self.words[at..at + self.words_a_place]
    }
}

#[inline(always)]
fn store(words: &[AtomicU64], values: &[u64]) {
    for (word, &value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}

#[inline(always)]
fn load(words: &[AtomicU64], values: &mut [u64]) {
    for (word, value) in words.iter().zip(values) {
        *value = word.load(Ordering::Relaxed);
    }
}

fn record(size: usize) -> Vec<u64> {
    vec![0x5a5a_5a5a_5a5a_5a5a; size.div_ceil(8)]
}

/// One place with its sequence in front: the fewest lines that can carry a record there.
struct Letter(Places);

impl Letter {
    fn new(size: usize) -> Self {
        Self(Places::new(1 + size.div_ceil(8), 1))
    }

    #[inline(always)]
    fn send(&self, number: u64, payload: &[u64]) {
        let words = self.0.at(0);
        store(&words[1..], payload);
        // Release pairs with the Acquire in `receive`: who sees the sequence sees the payload.
        words[0].store(number + 1, Ordering::Release);
    }

    /// Copies record `number` out if it is there.
    #[inline(always)]
    fn receive(&self, number: u64, copy: &mut [u64]) -> bool {
        let words = self.0.at(0);
        let there = words[0].load(Ordering::Acquire) == number + 1;
        if there {
            load(&words[1..], copy);
        }
        there
    }
}

#[inline(always)]
fn idle(shares: bool) {
    if shares { thread::yield_now() } else { std::hint::spin_loop() }
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T, Failure> {
    thread.join().map_err(|_| Failure::other("a measuring thread panicked"))
}

pub(super) fn trips([here, there]: [usize; 2], trips: Trips, shares: bool) -> Result<Answer, Failure> {
    let [out, back] = [(), ()].map(|()| Letter::new(trips.size));
    let done = AtomicBool::new(false);
    pin(here)?;
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            pin(there)?;
            let mut copy = record(trips.size);
            for number in 0.. {
                while !out.receive(number, &mut copy) {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    idle(shares);
                }
                back.send(number, &copy);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(())
        });
        let found = wait_for_start().and_then(|()| {
            let (mut record, mut copy) = (record(trips.size), record(trips.size));
            run_trips(trips, shares, |number| {
                record[0] = number;
                out.send(number, &record);
                while !back.receive(number, &mut copy) {
                    if echo.is_finished() {
                        return Err(Failure::other("the answering thread is gone"));
                    }
                    idle(shares);
                }
                Ok(())
            })
        });
        done.store(true, Ordering::Relaxed);
        join(echo)?.and(found)
    })
}

pub(super) fn flow(cpus: &[usize], flow: Flow, shares: bool) -> Result<Answer, Failure> {
    let Some((&writer, readers)) = cpus.split_first() else { return Err(Failure::usage("no processors to use")) };
    let words_a_place = flow.size.div_ceil(8);
    // A power of two, so that finding a place costs no division.
    let count = 1 << (RING / (words_a_place * 8)).max(1).ilog2();
    let (places, tail) = (&Places::new(words_a_place, count), &Alone::default());
    let cursors: Vec<Alone> = readers.iter().map(|_| Alone::default()).collect();
    let end = &AtomicU64::new(u64::MAX);
    pin(writer)?;
    thread::scope(|scope| {
        let start =
            |(&cpu, cursor)| scope.spawn(move || read(cpu, places, tail, cursor, end, record(flow.size), shares));
        let readers: Vec<_> = readers.iter().zip(&cursors).map(start).collect();
        let mut sent = 0;
        let answer = wait_for_start().and_then(|()| {
            let mut record = record(flow.size);
            let mut limit = count;
            run_flow(flow, |number| {
                while number >= limit {
                    let slowest = cursors.iter().map(|cursor| cursor.0.load(Ordering::Acquire)).min().unwrap_or(number);
                    limit = slowest + count;
                    if number >= limit {
                        if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                            return Err(Failure::other("a reading thread is gone"));
                        }
                        idle(shares);
                    }
                }
                record[0] = number;
                store(places.at(number), &record);
                sent = number + 1;
                // Release pairs with the reader's Acquire: who sees the tail sees the payload.
                tail.0.store(sent, Ordering::Release);
                Ok(())
            })
        });
        // Also when nothing was sent: then they have nothing to wait for.
        end.store(sent, Ordering::Relaxed);
        let tallies = readers.into_iter().map(join).collect::<Result<Result<Vec<_>, Failure>, _>>()??;
        match answer? {
            Answer::Flow { all, .. } if tallies.iter().any(|tally| *tally != all) => {
                Err(Failure::other("a reader of the bare lines missed records: the measurement is wrong"))
            }
            answer => Ok(answer),
        }
    })
}

fn read(
    cpu: usize,
    places: &Places,
    tail: &Alone,
    cursor: &Alone,
    end: &AtomicU64,
    mut copy: Vec<u64>,
    shares: bool,
) -> Result<Tally, Failure> {
    pin(cpu)?;
    let step = (places.count / TOLD_A_LAP).max(1);
    let mut tally = Tally::default();
    while tally.records < end.load(Ordering::Relaxed) {
        let there = tail.0.load(Ordering::Acquire);
        if there == tally.records {
            (0..if shares { 1 } else { PACE }).for_each(|_| idle(shares));
        }
        while tally.records < there {
            load(places.at(tally.records), &mut copy);
            tally.add(black_box(&copy)[0]);
            if tally.records.is_multiple_of(step) {
                // Release pairs with the writer's Acquire: it overwrites only what was copied before.
                cursor.0.store(tally.records, Ordering::Release);
            }
        }
    }
    Ok(tally)
}
