//! `interop write PATH WHICH COUNT END | interop read PATH`: the Rust side of the matrix; see `ffi/tests/interop.rs`.

use bus::{Next, Policy, Reader, Writer};
use std::error::Error;

fn pool() -> Vec<u8> {
    (0..8192usize).map(|i| ((i * i) >> 4) as u8).collect()
}

fn fold(sum: u64, data: &[u8]) -> u64 {
    let (mut a, mut b) = (1u32, 0u32);
    for &byte in data {
        a = (a + u32::from(byte)) % 65521;
        b = (b + a) % 65521;
    }
    sum.wrapping_mul(33).wrapping_add(u64::from(b << 16 | a)).wrapping_add(data.len() as u64)
}

fn write(path: &str, which: u32, count: u64, end: bool) -> Result<(), Box<dyn Error>> {
    let mut writer = Writer::standby(path)?;
    writer.set_policy(Policy::Wait(None));
    let pool = pool();
    let (mut state, mut sum) = (u64::from(which), 0);
    for _ in 0..count {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let random = (state >> 33) as usize;
        let data = &pool[random % 4096..][..(random >> 12) % 300];
        sum = fold(sum, data);
        writer.publish_tagged(which, data)?;
    }
    println!("{which} {count} {sum}");
    if end {
        writer.close()?;
    }
    Ok(())
}

fn read(path: &str) -> Result<(), Box<dyn Error>> {
    let mut reader = Reader::open(path)?;
    println!("attached");
    let (mut sums, mut counts, mut following) = ([0u64; 16], [0u64; 16], 0);
    loop {
        match reader.next()? {
            Next::Record(record) => {
                assert_eq!(record.sequence(), following);
                following += 1;
                let tag = record.tag() as usize % 16;
                sums[tag] = fold(sums[tag], record.payload());
                counts[tag] += 1;
            }
            Next::Absent => {}
            Next::Closed(_) => break,
            other => return Err(format!("{other:?}").into()),
        }
    }
    for tag in 0..16 {
        if counts[tag] != 0 {
            println!("{tag} {} {}", counts[tag], sums[tag]);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        ["write", path, which, count, end] => write(path, which.parse()?, count.parse()?, end == "end"),
        ["read", path] => read(path),
        _ => Err("usage: interop write PATH WHICH COUNT END | interop read PATH".into()),
    }
}
