//! The two hot paths, each as one function of its own, for `.ci/hot-path` to take apart.

use lapwing::{Bus, Next, Options, Reader, Result, Writer};

/// Publishes one record of 64 bytes; the sequence, or `u64::MAX` if readers are in the way.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_publish(writer: &mut Writer, payload: &[u8; 64]) -> u64 {
    writer.try_publish(payload).unwrap_or(u64::MAX)
}

/// Reads one record; its length, or `usize::MAX` if none is there.
#[inline(never)]
#[unsafe(no_mangle)]
fn lapwing_hot_read(reader: &mut Reader) -> usize {
    match reader.try_next() {
        Ok(Next::Record(record)) => std::hint::black_box(record.payload()).len(),
        _ => usize::MAX,
    }
}

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("lapwing-hot-path-{}", std::process::id()));
    let mut writer = Options::new().create(&path)?;
    let mut reader = Reader::open(&path)?;
    let payload = [7; 64];
    for n in 0..100_000 {
        assert_eq!(lapwing_hot_publish(&mut writer, &payload), n);
        assert_eq!(lapwing_hot_read(&mut reader), payload.len());
    }
    println!("100000 records of 64 bytes published and read");
    drop((writer, reader));
    Bus::remove(&path)
}
