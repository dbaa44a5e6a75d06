//! Many records in one call: what is refused stays the next, what was taken is committed by asking for more, and not before.

mod common;

use common::*;
use lapwing::*;
use std::time::Duration;

const NO_WAIT: Option<Duration> = Some(Duration::ZERO);

fn text(i: u64) -> String {
    format!("record {i}")
}

#[test]
fn a_refused_record_comes_again_and_is_not_committed() {
    let place = Place::new("many-refused");
    for stamped in [false, true] {
        let mut writer = Options::new().stamped(stamped).replace(place.bus()).unwrap();
        let mut reader = Reader::options().name("many").hold_while_away(true).open(place.bus()).unwrap();
        for i in 0..20 {
            writer.publish_tagged(i as u32 % 2, text(i).as_bytes()).unwrap();
        }
        let mut next = 0;
        for (room, cursor) in [(5, 0), (0, 5), (1, 5), (3, 6), (0, 9)] {
            let before = next;
            let (count, rest) = reader
                .next_many(100, NO_WAIT, |record| {
                    assert_eq!((record.sequence(), record.payload()), (next, text(next).as_bytes()));
                    assert_eq!(record.stamp().is_some(), stamped);
                    let takes = next < before + room;
                    next += u64::from(takes);
                    takes
                })
                .unwrap();
            assert!(matches!(rest, Next::Empty));
            assert_eq!((count as u64, next), (room, before + room));
            assert_eq!(reader.info().unwrap().cursor, cursor, "what was handed out before is committed, and no more");
        }
        // Dropped here: what was not asked beyond is delivered again.
        assert_eq!(reader.next_many(4, NO_WAIT, |_| true).unwrap().0, 4);
        drop(reader);
        let mut reader = Reader::options().name("many").start(Start::Resume).open(place.bus()).unwrap();
        assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.sequence() == 9));
        assert_eq!(reader.next_many(100, None, |_| true).unwrap().0, 10);
        assert_eq!(reader.next_many(100, NO_WAIT, |_| true).unwrap().0, 0);
        assert_eq!(reader.info().unwrap().pending, 0);
    }
}

#[test]
fn what_is_no_record_waits_for_the_next_call() {
    let place = Place::new("many-other");
    let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
    let mut lossy = Reader::options().class(Class::Lossy).filter(1, 1).open(place.bus()).unwrap();
    let mut observer = Observer::open(place.bus(), Start::Oldest).unwrap();
    observer.set_filter(1, 1);
    for i in 0..1000 {
        writer.publish_tagged(i as u32, text(i).as_bytes()).unwrap();
    }
    writer.close().unwrap();
    type Handle<'h> = &'h mut dyn FnMut(Record<'_>) -> bool;
    let tell = |next: &mut dyn FnMut(Handle<'_>) -> (usize, String)| {
        let mut seen = Vec::new();
        let (count, first) = next(&mut |_| panic!("the gap comes first"));
        assert_eq!(count, 0);
        let (count, _) = next(&mut |record| {
            seen.push(record.sequence());
            true
        });
        assert_eq!(count, seen.len());
        assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 2) && seen.last() == Some(&999), "{seen:?}");
        let (count, last) = next(&mut |_| panic!("the end comes now"));
        assert_eq!(count, 0);
        (first, seen[0], last)
    };
    let expect = |(first, began, last): (String, u64, String)| {
        assert!(first.starts_with("Gap(Gap { first: 0, end: "), "{first}");
        let end: u64 = first.trim_end_matches([')', '}', ' ']).rsplit(' ').next().unwrap().parse().unwrap();
        assert!(began == end || began == end + 1, "{began} after {first}");
        assert!(last.starts_with("Closed("), "{last}");
    };
    expect(tell(&mut |handle| {
        let (count, next) = lossy.next_many(1000, NO_WAIT, handle).unwrap();
        (count, format!("{next:?}"))
    }));
    expect(tell(&mut |handle| {
        let (count, next) = observer.next_many(1000, NO_WAIT, handle).unwrap();
        (count, format!("{next:?}"))
    }));
}

#[test]
fn it_waits_for_the_first_record_only() {
    let place = Place::new("many-waits");
    let mut writer = Options::new().create(place.bus()).unwrap();
    let mut reader = Reader::open(place.bus()).unwrap();
    assert!(matches!(reader.next_many(8, Some(Duration::from_millis(1)), |_| true).unwrap(), (0, Next::Empty)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let mut seen = 0;
            while seen < 100 {
                let (count, next) = reader.next_many(8, None, |_| true).unwrap();
                assert!((1..=8).contains(&count), "{next:?}");
                seen += count;
            }
        });
        for i in 0..100 {
            writer.publish(text(i).as_bytes()).unwrap();
        }
        waiting.join().unwrap();
    });
}
