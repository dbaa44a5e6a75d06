//! `cost PATH ROUNDS`: the Rust side of the cost check; see `.ci/ffi`. Each round publishes and reads 64 records of 64 bytes in each manner,
//! each manner in a function of its own, so that callgrind can count the instructions of one.

use bus::{Next, Options, Reader, Writer};
use std::error::Error;
use std::hint::black_box;

const RECORDS: usize = 64;
const PAYLOAD: [u8; 64] = [7; 64];

#[unsafe(no_mangle)]
#[inline(never)]
fn measured_publish(writer: &mut Writer) {
    for _ in 0..RECORDS {
        black_box(writer.publish(black_box(&PAYLOAD[..])).is_ok());
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
fn measured_batch(writer: &mut Writer) {
    let mut batch = writer.batch();
    for _ in 0..RECORDS {
        black_box(batch.push(black_box(&PAYLOAD[..])).is_ok());
    }
    black_box(batch.commit().is_ok());
}

#[unsafe(no_mangle)]
#[inline(never)]
fn measured_next(reader: &mut Reader) -> usize {
    let mut seen = 0;
    while let Ok(Next::Record(record)) = reader.try_next() {
        seen += black_box(record.payload()).len();
    }
    seen
}

/// What a poll gives: the payloads copied out, each with its sequence.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_poll(reader: &mut Reader, copies: &mut [([u8; 64], u64)]) -> usize {
    let mut seen = 0;
    let drained = reader.drain(RECORDS, |record| {
        let (copy, sequence) = &mut copies[seen];
        copy[..record.payload().len()].copy_from_slice(record.payload());
        *sequence = record.sequence();
        seen += 1;
    });
    black_box(drained.is_ok());
    seen * 64
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, rounds] = &arguments[..] else { return Err("usage: cost PATH ROUNDS".into()) };
    let mut writer = Options::new().replace(path)?;
    let mut reader = Reader::open(path)?;
    let mut copies = [([0; 64], 0); RECORDS];
    for _ in 0..rounds.parse()? {
        measured_publish(&mut writer);
        assert_eq!(measured_next(&mut reader), 64 * RECORDS);
        measured_batch(&mut writer);
        assert_eq!(measured_poll(&mut reader, &mut copies), 64 * RECORDS);
    }
    drop(reader);
    writer.close()?;
    bus::Bus::remove(path)?;
    Ok(())
}
