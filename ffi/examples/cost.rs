//! `cost PATH ROUNDS [pinned]`: the Rust side of the cost check; see `.ci/ffi`. Each round publishes and reads 64 records of 64 bytes in each manner,
//! each manner in a function of its own, so that callgrind can count the instructions of one.

use bus::{Claim, Class, Next, Options, PublishError, Reader, Writer};
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, SystemTime};

const RECORDS: usize = 64;
const PAYLOAD: [u8; 64] = [7; 64];

/// A call, as it is one through the C interface.
#[inline(never)]
fn publish(writer: &mut Writer, tag: u32, payload: &[u8]) -> Result<u64, PublishError> {
    writer.publish_tagged(tag, payload)
}

#[inline(never)]
fn claim(writer: &mut Writer, tag: u32, length: usize) -> Result<Claim<'_>, PublishError> {
    writer.claim(tag, length)
}

#[inline(never)]
fn commit(claim: Claim<'_>, length: usize) -> Result<u64, PublishError> {
    claim.commit_len(length)
}

#[inline(never)]
fn next(reader: &mut Reader) -> bus::Result<Next<'_>> {
    reader.try_next()
}

#[unsafe(no_mangle)]
#[inline(never)]
fn measured_publish(writer: &mut Writer) {
    for _ in 0..RECORDS {
        if publish(writer, 0, black_box(&PAYLOAD[..])).is_err() {
            return;
        }
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
fn measured_claim(writer: &mut Writer) {
    for _ in 0..RECORDS {
        let Ok(mut claim) = claim(writer, 0, PAYLOAD.len()) else { return };
        claim.as_mut_slice().copy_from_slice(black_box(&PAYLOAD[..]));
        if commit(claim, PAYLOAD.len()).is_err() {
            return;
        }
    }
}

#[inline(always)]
fn read_all(reader: &mut Reader) -> usize {
    let mut seen = 0;
    while let Ok(Next::Record(record)) = next(reader) {
        seen += black_box(record.payload()).len();
    }
    seen
}

#[unsafe(no_mangle)]
#[inline(never)]
fn measured_next(reader: &mut Reader) -> usize {
    read_all(reader)
}

/// Where a record lies that was copied out, and what is known of it.
#[derive(Clone, Copy)]
struct Copied {
    at: usize,
    length: usize,
    sequence: u64,
    stamp: Option<SystemTime>,
    tag: u32,
}

/// What a poll gives: the payloads copied to a buffer, and a list of them.
#[unsafe(no_mangle)]
#[inline(never)]
fn measured_poll(reader: &mut Reader, list: &mut [Copied], buffer: &mut [u8]) -> usize {
    let (mut count, mut used) = (0, 0);
    let taken = reader.next_many(RECORDS, Some(Duration::ZERO), |record| {
        let payload = record.payload();
        let Some(room) = buffer.get_mut(used..used + payload.len()) else { return false };
        room.copy_from_slice(payload);
        let (sequence, stamp, tag) = (record.sequence(), record.stamp(), record.tag());
        list[count] = Copied { at: used, length: payload.len(), sequence, stamp, tag };
        used += payload.len().next_multiple_of(8);
        count += 1;
        true
    });
    if !matches!(taken, Ok((RECORDS, _))) {
        return 0;
    }
    let mut seen = 0;
    for copied in &list[..count] {
        let Copied { at, length, sequence, stamp, tag } = *black_box(copied);
        black_box((at, sequence, stamp, tag));
        seen += length;
    }
    seen
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let (path, rounds, class) = match &arguments[..] {
        [_, path, rounds] => (path, rounds, Class::Gating),
        [_, path, rounds, word] if word == "pinned" => (path, rounds, Class::Pinned),
        _ => return Err("usage: cost PATH ROUNDS [pinned]".into()),
    };
    let mut writer = Options::new().replace(path)?;
    let mut reader = Reader::options().class(class).open(path)?;
    let mut list = [Copied { at: 0, length: 0, sequence: 0, stamp: None, tag: 0 }; RECORDS];
    let mut buffer = [0; 64 * RECORDS];
    for _ in 0..rounds.parse()? {
        measured_publish(&mut writer);
        assert_eq!(measured_next(&mut reader), 64 * RECORDS);
        measured_batch(&mut writer);
        assert_eq!(measured_poll(&mut reader, &mut list, &mut buffer), 64 * RECORDS);
        measured_claim(&mut writer);
        assert_eq!(read_all(&mut reader), 64 * RECORDS);
    }
    drop(reader);
    writer.close()?;
    bus::Bus::remove(path)?;
    Ok(())
}
