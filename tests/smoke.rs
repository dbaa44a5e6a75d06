//! The bus within one process: every call once, the way its documentation says.

mod common;

use common::Place;
use lapwing::*;
use std::time::Duration;

#[test]
fn records_arrive_in_order_through_many_laps() {
    for class in [Class::Gating, Class::Pinned] {
        let place = Place::new(&format!("laps-{class}"));
        let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
        let mut reader = Reader::options().class(class).open(place.bus()).unwrap();
        let mut want = 0u64;
        for n in 0..50_000u64 {
            let payload = vec![n as u8; (n * 37 % 1008) as usize];
            loop {
                match writer.try_publish_tagged(n as u32, &payload) {
                    Ok(sequence) => {
                        assert_eq!(sequence, n);
                        break;
                    }
                    Err(PublishError::WouldOverrun(overrun)) => {
                        assert_eq!(overrun.readers.len(), 1);
                        while let Next::Record(record) = reader.try_next().unwrap() {
                            assert_eq!(record.sequence(), want);
                            assert_eq!(record.tag(), want as u32);
                            assert_eq!(record.payload().len() as u64, want * 37 % 1008);
                            assert!(record.payload().iter().all(|&b| b == want as u8));
                            want += 1;
                        }
                        assert_eq!(want, n);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
        drop(reader);
        writer.close().unwrap();
    }
}

#[test]
fn an_evicted_reader_learns_its_exact_gap_and_rejoins() {
    let place = Place::new("evict");
    let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
    let mut reader = Reader::options().name("slow").open(place.bus()).unwrap();
    writer.set_policy(Policy::Evict);
    for n in 0..1000u64 {
        assert_eq!(writer.publish(&n.to_ne_bytes()).unwrap(), n);
    }
    let events = writer.events();
    assert!(
        events
            .iter()
            .any(|e| matches!(e, WriterEvent::Evicted { reader, .. } if reader.name.as_deref() == Some("slow")))
    );
    let Next::Evicted(gap) = reader.try_next().unwrap() else { panic!() };
    assert_eq!(gap.first, 0);
    let lost = reader.rejoin(Start::Oldest).unwrap();
    assert_eq!(lost, gap);
    let mut n = lost.end;
    while let Next::Record(record) = reader.try_next().unwrap() {
        assert_eq!(record.sequence(), n);
        n += 1;
    }
    assert_eq!(n, 1000);
    let info = reader.info().unwrap();
    assert_eq!((info.missed, info.delivered, info.pending), (gap.count(), 1000 - gap.count(), 0));
    writer.close_with(7, "done").unwrap();
    let Next::Closed(closed) = reader.next().unwrap() else { panic!() };
    assert_eq!((closed.sequence, closed.code, closed.reason.as_str()), (1000, 7, "done"));
}

#[test]
fn a_name_resumes_where_it_left() {
    let place = Place::new("resume");
    let mut writer = Options::new().create(place.bus()).unwrap();
    let mut reader = Reader::options().name("a").hold_while_away(true).open(place.bus()).unwrap();
    for n in 0..10u64 {
        writer.publish(&n.to_ne_bytes()).unwrap();
    }
    for _ in 0..4 {
        assert!(matches!(reader.next().unwrap(), Next::Record(_)));
    }
    reader.commit();
    drop(reader);
    let mut reader = Reader::options().name("a").start(Start::Resume).open(place.bus()).unwrap();
    assert_eq!(reader.next_sequence(), 4);
    assert!(matches!(reader.next().unwrap(), Next::Record(r) if r.sequence() == 4));
    let second = Reader::options().name("a").open(place.bus());
    assert!(matches!(second, Err(Error::NameTaken { pid: Some(_), .. })));
}

#[test]
fn claims_batches_filters_and_the_rest() {
    let place = Place::new("rest");
    let mut writer = Options::new().capacity(8192).stamped(true).create(place.bus()).unwrap();
    let mut reader = Reader::options().filter(1, 1).open(place.bus()).unwrap();
    let mut claim = writer.claim(1, 10).unwrap();
    claim.as_mut_slice().copy_from_slice(b"0123456789");
    assert_eq!(claim.commit_len(4).unwrap(), 0);
    drop(writer.claim(1, 100).unwrap());
    writer.publish_vectored(3, &[b"ab", b"", b"cdefghijklmnop"]).unwrap();
    let mut batch = writer.batch();
    for n in 0..6u32 {
        batch.push_tagged(n, &n.to_ne_bytes()).unwrap();
    }
    assert_eq!(batch.commit().unwrap(), 2..8);
    let mut got = Vec::new();
    let (count, next) =
        reader.drain(100, |r| got.push((r.sequence(), r.tag(), r.payload().to_vec(), r.stamp().is_some()))).unwrap();
    assert!(matches!(next, Next::Empty));
    assert_eq!(count, 5);
    assert_eq!(got[0], (0, 1, b"0123".to_vec(), true));
    assert_eq!(got[1], (1, 3, b"abcdefghijklmnop".to_vec(), true));
    assert_eq!(got[2..].iter().map(|g| g.0).collect::<Vec<_>>(), [3, 5, 7]);
    assert!(matches!(reader.next_timeout(Duration::from_millis(1)).unwrap(), Next::Empty));
    drop(writer);
    assert!(matches!(reader.next_timeout(Duration::from_secs(5)).unwrap(), Next::Absent));
    let mut writer = Writer::open(place.bus()).unwrap();
    assert_eq!((writer.resumed_at(), writer.epoch()), (8, 2));
    assert!(matches!(Writer::open(place.bus()), Err(Error::WriterBusy { pid: Some(_), .. })));
    writer.publish_tagged(1, b"again").unwrap();
    assert!(matches!(reader.next().unwrap(), Next::Record(r) if r.payload() == b"again"));
    let big = vec![0; writer.max_record() + 1];
    assert!(matches!(writer.publish(&big), Err(PublishError::TooLarge { .. })));
    writer.publish(&big[1..]).unwrap();
}

#[test]
fn a_descriptor_tells_when_to_look() {
    use std::os::fd::AsRawFd;
    let place = Place::new("event");
    let mut writer = Options::new().create(place.bus()).unwrap();
    let mut reader = Reader::open(place.bus()).unwrap();
    let descriptor = reader.event_fd().unwrap().as_raw_fd();
    let readable = |timeout| {
        let mut poll = libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd, alive for the call.
        unsafe { libc::poll(&mut poll, 1, timeout) == 1 }
    };
    assert!(readable(0), "readable at first");
    for round in 0..200u64 {
        assert!(matches!(reader.try_next().unwrap(), Next::Empty));
        assert!(!readable(0), "nothing there in round {round}");
        if round % 2 == 0 {
            writer.publish(&round.to_ne_bytes()).unwrap();
            assert!(readable(10_000), "a record there in round {round}");
            assert!(matches!(reader.try_next().unwrap(), Next::Record(_)));
        }
    }
    assert!(matches!(reader.try_next().unwrap(), Next::Empty));
    writer.close().unwrap();
    assert!(readable(10_000));
    assert!(matches!(reader.try_next().unwrap(), Next::Closed(_)));
}

#[test]
fn each_way_of_waiting_finds_every_record_and_the_end() {
    for wait in [Wait::Spin, Wait::Yield, Wait::Park] {
        let place = Place::new(&format!("wait-{wait:?}"));
        let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
        let mut reader = Reader::options().wait(wait).open(place.bus()).unwrap();
        let mut observer = Observer::open(place.bus(), Start::Latest).unwrap();
        observer.set_wait(wait);
        writer.set_policy(Policy::Wait(None));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..3000 {
                    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.sequence() == n));
                }
                assert!(matches!(reader.next().unwrap(), Next::Closed(closed) if closed.sequence == 3000));
            });
            scope.spawn(|| {
                let mut next = 0;
                while next < 3000 {
                    match observer.next().unwrap() {
                        Next::Record(record) => assert_eq!(record.sequence(), next),
                        Next::Gap(gap) => assert_eq!(gap.first, next),
                        other => panic!("{other:?}"),
                    }
                    next = observer.next_sequence();
                }
                assert!(matches!(observer.next().unwrap(), Next::Closed(closed) if closed.sequence == 3000));
            });
            for _ in 0..3000 {
                writer.publish(&[7; 100]).unwrap();
            }
            writer.close().unwrap();
        });
    }
}

#[cfg(feature = "typed")]
#[test]
fn plain_values_go_through_as_they_are() {
    #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
    #[repr(C)]
    struct Quote {
        instrument: u32,
        size: i32,
        price: f64,
    }
    let place = Place::new("typed");
    let mut writer = Options::new().create(place.bus()).unwrap();
    for class in [Class::Gating, Class::Pinned] {
        let mut reader = Reader::options().class(class).open(place.bus()).unwrap();
        let quote = Quote { instrument: 7, size: -3, price: 1.25 };
        writer.publish_value(&quote).unwrap();
        writer.publish_value(&[1u8, 2, 3]).unwrap();
        let Next::Record(record) = reader.next().unwrap() else { panic!() };
        assert_eq!(record.value::<Quote>().unwrap(), quote);
        assert!(matches!(record.value::<u64>(), Err(Error::WrongSize { expected: 8, found: 16 })));
        let Next::Record(record) = reader.next().unwrap() else { panic!() };
        assert_eq!(record.value::<[u8; 3]>().unwrap(), [1, 2, 3]);
        let error = record.value::<Quote>().unwrap_err().to_string();
        assert!(error.contains("16") && error.contains('3'), "{error}");
    }
}

/// Kilobytes of this process's mappings of a file, by a field of the kernel's account of them.
fn kilobytes(file: &std::path::Path, field: &str) -> Vec<u64> {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let (mut ours, mut found) = (false, Vec::new());
    for line in maps.lines() {
        if let Some(value) = line.strip_prefix(field) {
            found.extend(ours.then(|| value.trim().trim_end_matches(" kB").parse::<u64>().unwrap()));
        } else if line.contains('-') {
            ours = line.ends_with(file.to_str().unwrap());
        }
    }
    found
}

#[test]
fn memory_is_faulted_in_and_locked_when_asked_for() {
    for (prefault, lock) in [(false, false), (true, false), (false, true)] {
        let place = Place::new("memory");
        let capacity = 1 << 20;
        drop(Options::new().capacity(capacity).create(place.bus()).unwrap());
        let check = |who: &str| {
            let length = std::fs::metadata(place.bus()).unwrap().len() / 1024;
            let (resident, locked) = (kilobytes(&place.bus(), "Rss:"), kilobytes(&place.bus(), "Locked:"));
            assert_eq!(resident.len(), 1, "{who}: {resident:?}");
            assert_eq!(resident[0] == length, prefault || lock, "{who}: {} of {length}", resident[0]);
            assert_eq!(locked, [if lock { length } else { 0 }], "{who}");
        };
        let options = Options::new().prefault(prefault).lock_memory(lock);
        drop(options.open_or_create(place.bus()).map(|writer| (check("writer"), writer)).unwrap());
        let options = Reader::options().prefault(prefault).lock_memory(lock);
        drop(options.open(place.bus()).map(|reader| (check("reader"), reader)).unwrap());
    }
}
