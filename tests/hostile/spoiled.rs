//! Files that were spoiled before anybody attaches: everything a program can do is done to them.

use crate::common::{DEADLINE, Place, Random};
use crate::exercise::{CAPACITY, exercise, history, observe, table_of};
use lapwing::layout::{COMMITTED, ENTRY, HEADER, SLOT};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::sync::mpsc::{RecvTimeoutError, channel};

static HISTORY: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let place = Place::new("history");
    history(&place.bus())
});

/// Values that arithmetic stumbles over, and any other.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => prop_oneof![Just(0), Just(1), Just(2), Just(3), Just(8), Just(16), Just(u64::MAX), Just(u64::MAX - 15)],
        2 => (0u32..64, -17i64..17).prop_map(|(shift, near)| (1u64 << shift).wrapping_add_signed(near)),
        3 => 0u64..40_000,
        2 => (0u64..2500).prop_map(|n| n * 16),
        1 => any::<u64>(),
        // Commit words of every length.
        2 => (any::<u32>(), 0u64..1 << 12, 0u64..4).prop_map(|(tag, length, bits)| u64::from(tag) << 32 | length << 2 | bits),
    ]
}

/// A word's place: anywhere, but the words that steer more often than those that are carried.
fn place(words: usize, steering: impl Strategy<Value = usize>) -> impl Strategy<Value = usize> {
    prop_oneof![3 => steering, 1 => 0..words]
}

fn spoil(bytes: &mut [u8], words: &[(usize, u64)]) {
    for &(word, value) in words {
        bytes[word * 8..][..8].copy_from_slice(&value.to_ne_bytes());
    }
}

fn lay_out(ring: &[u8], table: &[u8]) -> Place {
    let place = Place::new("spoiled");
    std::fs::write(place.bus(), ring).unwrap();
    std::fs::write(table_of(&place.bus()), table).unwrap();
    place
}

/// Puts files in place and does everything with them; fails loudly if that hangs.
fn survives(ring: &[u8], table: &[u8]) {
    let place = lay_out(ring, table);
    let bus = place.bus();
    let (done, wait) = channel();
    let all = std::thread::spawn(move || {
        exercise(&bus);
        done.send(()).unwrap();
    });
    if let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(DEADLINE) {
        panic!("a call hangs");
    }
    all.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

proptest! {
    #[test]
    fn words_changed_anywhere(
        ring in prop::collection::vec((place(HISTORY.0.len() / 8, 0usize..128), value()), 0..12),
        entries in prop::collection::vec((0usize..8 * ENTRY as usize / 8, value()), 0..4),
        table in prop::collection::vec((place(HISTORY.1.len() / 8, slot_word()), value()), 0..12),
        keep_identity in prop::bool::weighted(0.9),
    ) {
        let (mut r, mut t) = HISTORY.clone();
        spoil(&mut r, &ring);
        let entries: Vec<_> = entries.into_iter().map(|(word, value)| (HEADER as usize / 8 + word, value)).collect();
        spoil(&mut r, &entries);
        spoil(&mut t, &table);
        if keep_identity {
            // Otherwise most cases end at the door.
            r[..128].copy_from_slice(&HISTORY.0[..128]);
            t[..128].copy_from_slice(&HISTORY.1[..128]);
        }
        survives(&r, &t);
    }

    #[test]
    fn records_changed_anywhere(
        records in prop::collection::vec((0usize..4096 / 16, value(), value()), 1..40),
        limits in prop::collection::vec((32usize..50, value()), 0..3),
    ) {
        let (mut ring, table) = HISTORY.clone();
        let start = ring.len() / 8 - 4096 / 8;
        for (at, commit, sequence) in records {
            spoil(&mut ring, &[(start + at * 2, commit), (start + at * 2 + 1, sequence)]);
        }
        spoil(&mut ring, &limits);
        survives(&ring, &table);
    }

    #[test]
    fn nothing_but_noise(
        seed in any::<u64>(),
        ring in prop_oneof![0usize..100, 4000usize..20_000],
        table in prop_oneof![0usize..100, 4000usize..20_000],
        identity in any::<bool>(),
    ) {
        let mut random = Random::from(seed);
        let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| random.next() as u8).collect() };
        let (mut r, mut t) = (noise(ring), noise(table));
        if identity {
            // Noise behind a door that opens.
            r.resize(HISTORY.0.len(), 7);
            t.resize(HISTORY.1.len(), 7);
            r[..128].copy_from_slice(&HISTORY.0[..128]);
            t[..128].copy_from_slice(&HISTORY.1[..128]);
        }
        survives(&r, &t);
    }
}

/// Words of the table's header that are used, and all words of the first slots.
fn slot_word() -> impl Strategy<Value = usize> {
    let slot = SLOT as usize / 8;
    prop_oneof![1 => 16usize..72, 6 => (0usize..4, 0usize..slot).prop_map(move |(n, word)| HEADER as usize / 8 + n * slot + word)]
}

#[test]
fn lengths_that_lead_out_of_the_ring() {
    let start = (HISTORY.0.len() as u64 - CAPACITY) as usize / 8;
    let lengths = [CAPACITY - 16, CAPACITY, (1 << 30) - 1].into_iter().cycle();
    for (record, length) in (0..CAPACITY as usize / 16).zip(lengths) {
        let (mut ring, table) = HISTORY.clone();
        spoil(&mut ring, &[(start + record * 2, length << 2 | COMMITTED)]);
        let place = lay_out(&ring, &table);
        // Everything else is done to them by chance, above.
        observe(&place.bus());
    }
}
