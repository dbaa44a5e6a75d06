//! Everything a program can do with a bus, done to one whose files hold anything: no call may panic, hang or invent records.
//!
//! Used by the tests and by the fuzz targets alike.

use lapwing::*;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Slots of the bus whose files are spoiled, and bytes of its ring.
pub(crate) const SLOTS: u32 = 6;
pub(crate) const CAPACITY: u64 = 4096;
/// Calls for more per handle: more than a ring holds records.
const LOOKS: usize = 300;

/// Bytes of a lock file's worth of nothing, a ring and a table: a bus with some history, closed once, with readers of every kind.
pub(crate) fn history(bus: &Path) -> (Vec<u8>, Vec<u8>) {
    let _ = Bus::remove(bus);
    let mut writer = Options::new().capacity(CAPACITY).readers(SLOTS).stamped(true).create(bus).unwrap();
    let mut named = Reader::options().name("named").hold_while_away(true).auto_commit(false).open(bus).unwrap();
    let lossy = Reader::options().class(Class::Lossy).open(bus).unwrap();
    let mut gating = Reader::open(bus).unwrap();
    writer.set_policy(Policy::Evict);
    for n in 0..150u64 {
        writer.publish_tagged(n as u32, &vec![n as u8; (n * 13 % 150) as usize]).unwrap();
        if n % 3 != 0 {
            let _ = gating.try_next().unwrap();
        }
        if n == 60 {
            let _ = named.rejoin(Start::Oldest).unwrap();
        }
        if n == 100 {
            writer.close_with(3, "the first end").unwrap();
            writer = Writer::open(bus).unwrap();
            writer.set_policy(Policy::Evict);
        }
    }
    let _ = named.rejoin(Start::Oldest).unwrap();
    let files = (std::fs::read(bus).unwrap(), std::fs::read(table_of(bus)).unwrap());
    drop((writer, named, lossy, gating));
    Bus::remove(bus).unwrap();
    files
}

pub(crate) fn table_of(bus: &Path) -> std::path::PathBuf {
    format!("{}.readers", bus.display()).into()
}

/// What a stream tells has to make sense, whatever the files hold.
struct Sense {
    next: Option<u64>,
    /// Bytes of the ring's file: no record is as long.
    longest: u64,
}

impl Sense {
    fn of(bus: &Path) -> Self {
        Self { next: None, longest: std::fs::metadata(bus).map_or(0, |meta| meta.len()) }
    }

    fn record(&mut self, record: &Record<'_>) {
        if let Some(next) = self.next {
            assert_eq!(record.sequence(), next, "a record out of order");
        }
        assert!((record.payload().len() as u64) < self.longest, "a record of {} bytes", record.payload().len());
        self.next = Some(record.sequence().wrapping_add(1));
        // Every byte can be read.
        std::hint::black_box(record.payload().iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)));
    }

    /// False at the end of what there is.
    fn take(&mut self, next: Result<Next<'_>>) -> bool {
        match next {
            Ok(Next::Record(record)) => self.record(&record),
            Ok(Next::Gap(gap)) => {
                assert!(!gap.is_empty(), "an empty gap");
                if let Some(next) = self.next {
                    assert!(gap.first <= next, "{gap:?} leaves out what came before {next}");
                }
                self.next = Some(gap.end);
            }
            // A later close may come, or the next records after it.
            Ok(Next::Closed(closed)) => assert!(closed.reason.len() <= 400),
            Ok(Next::Evicted(gap)) => {
                assert!(gap.first <= gap.end);
                return false;
            }
            Ok(_) | Err(_) => return false,
        }
        true
    }
}

fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

fn starts() -> [Start; 5] {
    [Start::Oldest, Start::Latest, Start::After(0), Start::After(120), Start::Since(then())]
}

/// Everything an observer can do.
pub(crate) fn observe(bus: &Path) {
    for start in starts() {
        let Ok(mut observer) = Observer::open(bus, start) else { continue };
        let mut sense = Sense::of(bus);
        for _ in 0..LOOKS {
            if !sense.take(observer.try_next()) {
                break;
            }
        }
        let _ = observer.seek(Start::Oldest);
        let mut sense = Sense::of(bus);
        let _ = observer.drain(LOOKS, |record| sense.record(&record)).map(drop);
        // Parking costs turns of the scheduler, so it is done once.
        observer.set_wait(if start == Start::Since(then()) { Wait::Park } else { Wait::Spin });
        let _ = observer.next_timeout(Duration::ZERO).map(drop);
        let _ = (observer.next_sequence(), observer.epoch(), observer.writer_alive());
    }
}

fn read(bus: &Path) {
    for (index, start) in starts().into_iter().chain([Start::Resume; 3]).enumerate() {
        let class = [Class::Gating, Class::Lossy, Class::Pinned][index % 3];
        let mut options = Reader::options().class(class).start(start).auto_commit(index % 2 == 0);
        options = options.wait(if index == 0 { Wait::Park } else { Wait::Spin });
        if start == Start::Resume || index == 1 {
            options = options.name("named").hold_while_away(true);
        }
        let Ok(mut reader) = options.open(bus) else { continue };
        let mut sense = Sense::of(bus);
        for _ in 0..LOOKS {
            if !sense.take(reader.try_next()) {
                break;
            }
        }
        reader.commit();
        let _ = (reader.info(), reader.id(), reader.start_sequence(), reader.epoch());
        for start in [Start::Resume, Start::Oldest, Start::After(100), Start::Latest] {
            if let Ok(gap) = reader.rejoin(start) {
                assert!(gap.first <= gap.end);
            }
            let mut sense = Sense::of(bus);
            sense.take(reader.try_next());
            sense.take(reader.try_next());
            let _ = reader.drain(20, |record| sense.record(&record)).map(drop);
        }
        let _ = reader.next_timeout(Duration::ZERO).map(drop);
    }
}

fn act(bus: &Path) {
    let Ok(seen) = Bus::open(bus) else { return };
    let Ok(snapshot) = seen.snapshot() else { return };
    for row in snapshot.readers.unwrap_or_default() {
        let _ = row.to_string();
        let _ = seen.evict(row.id);
        if let Some(name) = row.name {
            let _ = seen.forget(&name);
        }
    }
    let _ = seen.evict(ReaderId(u64::MAX));
    let _ = seen.reap();
}

fn write(bus: &Path) {
    let Ok(mut writer) = Writer::open(bus) else { return };
    let mut reader = Reader::open(bus).ok();
    let mut payload = [0x55; 900];
    for (round, policy) in [Policy::Refuse, Policy::Wait(Some(Duration::ZERO)), Policy::Evict].into_iter().enumerate() {
        writer.set_policy(policy);
        let mut refused = 0;
        for n in 0..40 {
            payload[0] = n as u8;
            match writer.publish(&payload[..(n * 97 + round) % 900]) {
                Ok(_) => {}
                Err(PublishError::WouldOverrun(overrun)) => {
                    let _ = overrun.to_string();
                    refused += 1;
                    if refused > 3 {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        let mut batch = writer.batch();
        for _ in 0..4 {
            if batch.push(&payload[..100]).is_err() {
                break;
            }
        }
        let _ = batch.commit();
        if let Ok(mut claim) = writer.claim(0, 50) {
            claim.as_mut_slice().fill(1);
            let _ = claim.commit();
        }
        if let Some(reader) = &mut reader {
            let mut sense = Sense::of(bus);
            for _ in 0..LOOKS {
                if !sense.take(reader.try_next()) {
                    break;
                }
            }
        }
        let _ = writer.readers();
        let _ = writer.wait_for_readers(Some(Duration::ZERO));
        let _ = writer.events();
    }
    let _ = writer.reap();
    let _ = (writer.stats(), writer.next_sequence(), writer.resumed_at(), writer.epoch());
    let _ = writer.close();
}

/// Does everything; what the files hold afterwards is anybody's guess.
pub(crate) fn exercise(bus: &Path) {
    if let Ok(snapshot) = Bus::inspect(bus) {
        let _ = format!("{snapshot:?}");
    }
    observe(bus);
    read(bus);
    act(bus);
    write(bus);
    observe(bus);
    match Options::new().capacity(CAPACITY).readers(SLOTS).replace(bus) {
        Ok(mut writer) => assert_eq!(writer.publish(b"anew").unwrap(), 0),
        Err(Error::NotABus { .. }) => {
            let _ = std::fs::remove_file(bus);
        }
        Err(error) => panic!("cannot be replaced: {error}"),
    }
    let _ = Bus::remove(bus);
}
