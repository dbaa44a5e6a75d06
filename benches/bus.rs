//! Publish and read, alone and against a reader on another core: for regressions, not for claims.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lapwing::{Bus, Class, Next, Observer, Options, Policy, Reader, Start, Writer};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

const SIZES: [usize; 7] = [8, 48, 64, 256, 1024, 16 << 10, 64 << 10];
const CAPACITY: u64 = 4 << 20;
const CLASSES: [Class; 3] = [Class::Gating, Class::Lossy, Class::Pinned];

/// A bus of its own for one benchmark.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        let path = PathBuf::from(format!("/dev/shm/lapwing-bench-{}", std::process::id()));
        if let Err(error) = Bus::remove(&path) {
            assert!(matches!(error, lapwing::Error::NotFound { .. }), "{error}");
        }
        Self(path)
    }

    fn writer(&self) -> Writer {
        let mut writer = Options::new().capacity(CAPACITY).prefault(true).create(&self.0).expect("a bus");
        writer.set_policy(Policy::Wait(None));
        writer
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = Bus::remove(&self.0) {
            eprintln!("{error}");
        }
    }
}

/// Nobody reads: what a publish costs by itself.
fn publish_alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("publish alone");
    for size in SIZES {
        let place = Place::new();
        let mut writer = place.writer();
        let payload = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| writer.publish(black_box(&payload)).expect("nobody is in the way"));
        });
    }
    group.finish();
}

/// Publish and read by turns in one thread: what both cost without a transfer between cores.
fn publish_and_read(c: &mut Criterion) {
    for class in CLASSES {
        let mut group = c.benchmark_group(format!("publish and read, {class}"));
        for size in SIZES {
            let place = Place::new();
            let mut writer = place.writer();
            let mut reader = Reader::options().class(class).prefault(true).open(&place.0).expect("a reader");
            let payload = vec![7; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    writer.publish(black_box(&payload)).expect("the reader keeps up");
                    let Ok(Next::Record(record)) = reader.try_next() else { panic!("the record is there") };
                    black_box(record.payload()[size - 1]);
                });
            });
        }
        group.finish();
    }
    let mut group = c.benchmark_group("publish and read, observer");
    for size in SIZES {
        let place = Place::new();
        let mut writer = place.writer();
        let mut observer = Observer::open(&place.0, Start::Latest).expect("an observer");
        let payload = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                writer.publish(black_box(&payload)).expect("nobody is in the way");
                let Ok(Next::Record(record)) = observer.try_next() else { panic!("the record is there") };
                black_box(record.payload()[size - 1]);
            });
        });
    }
    group.finish();
}

/// The other ways to publish 64 bytes, each read by an observer.
fn ways_to_publish(c: &mut Criterion) {
    let place = Place::new();
    let mut writer = place.writer();
    let mut observer = Observer::open(&place.0, Start::Latest).expect("an observer");
    let payload = [7u64; 8];
    let bytes = [7u8; 64];
    let mut group = c.benchmark_group("64 bytes");
    let mut read = |count: u64| {
        let (seen, _) = observer.drain(count as usize, |record| _ = black_box(record.payload()[63])).expect("records");
        assert_eq!(seen as u64, count);
    };
    group.bench_function("claim and commit", |b| {
        b.iter(|| {
            let mut claim = writer.claim(0, 64).expect("room");
            claim.as_mut_slice().copy_from_slice(black_box(&bytes));
            claim.commit().expect("no fork");
            read(1);
        });
    });
    group.bench_function("typed", |b| {
        b.iter(|| {
            writer.publish_value(black_box(&payload)).expect("room");
            read(1);
        });
    });
    group.bench_function("vectored", |b| {
        b.iter(|| {
            writer.publish_vectored(0, &[black_box(&bytes[..20]), &bytes[20..]]).expect("room");
            read(1);
        });
    });
    group.throughput(Throughput::Elements(32));
    group.bench_function("batch of 32", |b| {
        b.iter(|| {
            let mut batch = writer.batch();
            for _ in 0..32 {
                batch.push(black_box(&bytes)).expect("room");
            }
            batch.commit().expect("no fork");
            read(32);
        });
    });
    group.finish();
}

/// Runs the calling thread on one core from now on: the first it may use, or the last.
fn pin(last: bool) {
    let here = Pid::from_raw(0);
    let allowed = sched_getaffinity(here).expect("the cores of this process");
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    let core = if last { cores.next_back() } else { cores.next() };
    let mut one = CpuSet::new();
    one.set(core.expect("a core")).expect("a core's number");
    sched_setaffinity(here, &one).expect("a core that is allowed");
}

fn against_readers(c: &mut Criterion) {
    CLASSES.into_iter().for_each(|class| against_a_reader(c, class));
}

/// A spinning reader on another core drains everything: the writer waits for it when the ring is full.
fn against_a_reader(c: &mut Criterion, class: Class) {
    let everywhere = sched_getaffinity(Pid::from_raw(0)).expect("the cores of this process");
    let mut group = c.benchmark_group(format!("publish against a reader, {class}"));
    for size in SIZES {
        let place = Place::new();
        let mut writer = place.writer();
        let stop = Arc::new(AtomicBool::new(false));
        let mut reader = Reader::options().class(class).prefault(true).open(&place.0).expect("a reader");
        pin(false);
        let reading = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                pin(true);
                while !stop.load(Ordering::Relaxed) {
                    reader.drain(256, |record| _ = black_box(record.payload()[0])).expect("records");
                }
            })
        };
        let payload = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| writer.publish(black_box(&payload)).expect("the reader makes room"));
        });
        stop.store(true, Ordering::Relaxed);
        reading.join().expect("the reader ends");
        sched_setaffinity(Pid::from_raw(0), &everywhere).expect("the cores of before");
    }
    group.finish();
}

criterion_group!(benches, publish_alone, publish_and_read, ways_to_publish, against_readers);
criterion_main!(benches);
