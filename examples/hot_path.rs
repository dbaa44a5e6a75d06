//! The hot paths, each as one function of its own: `.ci/hot-path` takes them apart, `benches/instructions` counts what they execute.

use lapwing::{Bus, Class, Next, Options, Reader, Result, Writer};
use std::hint::black_box;
use std::path::Path;

/// Records that go each way: some laps of the ring.
const RECORDS: u64 = 65_536;
/// Records of one batch, and of one drain.
const BATCH: u64 = 32;
/// Bytes of a large record.
const LARGE: usize = 16 << 10;

/// Publishes one record of 64 bytes; the sequence, or `u64::MAX` if readers are in the way.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_publish(writer: &mut Writer, payload: &[u8; 64]) -> u64 {
    writer.try_publish(payload).unwrap_or(u64::MAX)
}

/// Writes one record of 64 bytes in place; the sequence, or `u64::MAX` if readers are in the way.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_claim(writer: &mut Writer, payload: &[u8; 64]) -> u64 {
    let Ok(mut claim) = writer.claim(0, payload.len()) else { return u64::MAX };
    claim.as_mut_slice().copy_from_slice(payload);
    claim.commit().unwrap_or(u64::MAX)
}

/// Publishes a batch of records of 64 bytes; how many, or `usize::MAX` if readers are in the way.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_batch(writer: &mut Writer, payload: &[u8; 64]) -> usize {
    let mut batch = writer.batch();
    for _ in 0..BATCH {
        if batch.push(payload).is_err() {
            return usize::MAX;
        }
    }
    batch.commit().map_or(usize::MAX, |range| (range.end - range.start) as usize)
}

/// Reads one record; its length, or `usize::MAX` if none is there.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_read(reader: &mut Reader) -> usize {
    match reader.try_next() {
        Ok(Next::Record(record)) => black_box(record.payload()).len(),
        _ => usize::MAX,
    }
}

/// Reads a batch of records, copied out; how many, or `usize::MAX` if it fails.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_drain(reader: &mut Reader) -> usize {
    let drained = reader.drain(BATCH as usize, |record| _ = black_box(record.payload()));
    drained.map_or(usize::MAX, |(count, _)| count)
}

/// One way through the functions: `copied`, `in-place`, `batched` or `large` (read in place); the records that went through.
fn run(way: &str, writer: &mut Writer, path: &Path) -> Result<u64> {
    let class = if matches!(way, "in-place" | "large") { Class::Pinned } else { Class::Gating };
    let mut reader = Reader::options().class(class).open(path)?;
    let (payload, large) = ([7; 64], vec![7; LARGE]);
    let start = writer.next_sequence();
    while writer.next_sequence() < start + RECORDS {
        let first = writer.next_sequence();
        if way == "batched" {
            assert_eq!(lapwing_hot_batch(writer, &payload), BATCH as usize);
            assert_eq!(lapwing_hot_drain(&mut reader), BATCH as usize);
            continue;
        }
        for next in first..first + BATCH {
            match way {
                "copied" => assert_eq!(lapwing_hot_publish(writer, &payload), next),
                "in-place" => assert_eq!(lapwing_hot_claim(writer, &payload), next),
                "large" => assert_eq!(writer.publish(&large).expect("the reader keeps up"), next),
                other => panic!("{other} is no way"),
            }
        }
        for _ in 0..BATCH {
            let length = if way == "large" { LARGE } else { payload.len() };
            assert_eq!(lapwing_hot_read(&mut reader), length);
        }
    }
    Ok(writer.next_sequence() - start)
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("lapwing-hot-path-{}", std::process::id()));
    let mut writer = Options::new().capacity(1 << 20).create(&path)?;
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for way in ["copied", "in-place", "batched", "large"] {
        if chosen.is_empty() || chosen.iter().any(|word| word == way) {
            println!("{way} {}", run(way, &mut writer, &path)?);
        }
    }
    drop(writer);
    Bus::remove(&path)
}
