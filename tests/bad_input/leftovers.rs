//! What creators and replacers that died leave behind, and how the next one deals with it.

use crate::common::Place;
use crate::{beside, files_in, lay_out, sample};
use lapwing::*;
use std::path::Path;

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
}

/// Files by what their names end in.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// After a death at `PATH.readers.new`, at `PATH.new`, or between the two renames: not ready, until somebody creates it.
#[test]
fn a_creation_that_died_half_way_is_not_ready_and_the_next_one_succeeds() {
    let (ring, table) = sample(false);
    let states: [(&str, Files<'_>); 9] = [
        ("an empty table", &[(".readers.new", &[])]),
        ("half a table", &[(".readers.new", &table[..3000])]),
        ("a table without a header", &[(".readers.new", &vec![0; table.len()])]),
        ("a table", &[(".readers.new", &table)]),
        ("an empty ring", &[(".readers.new", &table), (".new", &[])]),
        ("half a ring", &[(".readers.new", &table), (".new", &ring[..5000])]),
        ("a ring without a header", &[(".readers.new", &table), (".new", &vec![0; ring.len()])]),
        ("both", &[(".readers.new", &table), (".new", &ring)]),
        ("the table in place", &[(".readers", &table), (".new", &ring)]),
    ];
    for (what, files) in states {
        for how in 0..3 {
            let place = Place::new("creation");
            let path = place.bus();
            write(&beside(&path, ".lock"), b"");
            for (suffix, bytes) in files {
                write(&beside(&path, suffix), bytes);
            }
            let results = [
                Bus::inspect(&path).map(drop),
                Bus::open(&path).map(drop),
                Reader::open(&path).map(drop),
                Observer::open(&path, Start::Latest).map(drop),
                Writer::open(&path).map(drop),
            ];
            for result in results {
                let error = result.unwrap_err();
                assert!(matches!(error, Error::NotReady { .. }), "{what}: {error:?}");
            }
            let options = Options::new().capacity(8192);
            let mut writer = match how {
                0 => options.create(&path).unwrap(),
                1 => options.open_or_create(&path).unwrap(),
                _ => options.replace(&path).unwrap(),
            };
            assert_eq!(writer.capacity(), 8192, "{what}: made anew");
            assert_eq!(writer.publish(b"works").unwrap(), 0);
            assert!(matches!(Observer::open(&path, Start::Oldest).unwrap().try_next().unwrap(), Next::Record(_)));
            drop(Reader::open(&path).unwrap());
            let names: Vec<_> = files_in(place.directory()).into_iter().map(|(file, _)| file).collect();
            assert_eq!(names, [path.clone(), beside(&path, ".lock"), beside(&path, ".readers")], "{what}");
        }
    }
}

#[test]
fn a_lock_file_alone_is_no_bus_and_stands_in_nobodys_way() {
    let place = Place::new("lock-only");
    write(&beside(&place.bus(), ".lock"), b"");
    for error in [Reader::open(place.bus()).err().unwrap(), Writer::open(place.bus()).err().unwrap()] {
        assert!(matches!(error, Error::NotFound { .. } | Error::NotReady { .. }), "{error:?}");
    }
    drop(Options::new().create(place.bus()).unwrap());
    drop(Reader::open(place.bus()).unwrap());
}

#[test]
fn remove_takes_leftovers_along() {
    let (ring, table) = sample(false);
    for with_bus in [false, true] {
        let place = Place::new("remove");
        let path = place.bus();
        if with_bus {
            lay_out(&path, &(ring.clone(), table.clone()));
        }
        write(&beside(&path, ".new"), &ring[..100]);
        write(&beside(&path, ".readers.new"), &table);
        Bus::remove(&path).unwrap();
        assert!(files_in(place.directory()).is_empty(), "{:?}", files_in(place.directory()));
        assert!(matches!(Bus::remove(&path), Err(Error::NotFound { .. })));
    }
}

/// A replacement whose author died after it put the new table in place and before it did so with the ring.
fn half_replaced() -> (Place, u64) {
    let place = Place::new("replacement");
    let path = place.bus();
    lay_out(&path, &sample(false));
    let new = Place::new("new");
    let mut writer = Options::new().capacity(8192).readers(9).create(new.bus()).unwrap();
    writer.publish(b"never seen, a new bus is empty").unwrap();
    drop(writer);
    // Just made: not a record in it.
    let fresh = Place::new("fresh");
    drop(Options::new().capacity(8192).readers(9).create(fresh.bus()).unwrap());
    let id = Bus::inspect(fresh.bus()).unwrap().bus_id;
    std::fs::copy(fresh.bus(), beside(&path, ".new")).unwrap();
    std::fs::copy(beside(&fresh.bus(), ".readers"), beside(&path, ".readers")).unwrap();
    (place, id)
}

#[test]
fn a_replacement_that_died_between_its_renames_is_finished_by_the_next_writer() {
    for standby in [false, true] {
        let (place, id) = half_replaced();
        let path = place.bus();
        let mut observer = Observer::open(&path, Start::Latest).unwrap();
        assert!(matches!(observer.try_next().unwrap(), Next::Empty));
        // Its table is not that of its ring.
        for error in [Reader::open(&path).err().unwrap(), Bus::open(&path).err().unwrap()] {
            assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
        }
        assert!(Bus::inspect(&path).unwrap().readers.is_none());
        assert_ne!(Bus::inspect(&path).unwrap().bus_id, id);

        let mut writer = if standby { Writer::standby(&path) } else { Writer::open(&path) }.unwrap();
        let seen = Bus::inspect(&path).unwrap();
        assert_eq!((seen.bus_id, seen.capacity, seen.slots, seen.sequence), (id, 8192, 9, 0));
        assert!(!beside(&path, ".new").exists());
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(writer.publish(b"first").unwrap(), 0);
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.payload() == b"first"));
        // Who was on the old bus is told, and never sees the new one's records.
        assert!(matches!(observer.try_next().unwrap(), Next::Replaced));
    }
}

#[test]
fn a_half_replaced_bus_can_be_replaced_or_removed() {
    let (place, id) = half_replaced();
    let path = place.bus();
    let mut observer = Observer::open(&path, Start::Latest).unwrap();
    let writer = Options::new().replace(&path).unwrap();
    assert_ne!(Bus::inspect(&path).unwrap().bus_id, id);
    assert_eq!(writer.next_sequence(), 0);
    assert!(!beside(&path, ".new").exists());
    drop(Reader::open(&path).unwrap());
    // The old ring has no writer any more, and its path leads elsewhere: both are said.
    let told = |next: Next<'_>| matches!(next, Next::Replaced | Next::Orphaned);
    assert!(told(observer.next().unwrap()) || told(observer.next().unwrap()));

    let (place, _) = half_replaced();
    Bus::remove(place.bus()).unwrap();
    assert!(files_in(place.directory()).is_empty());

    // Without the new ring there is nothing to finish.
    let (place, _) = half_replaced();
    for leftover in [None, Some(&b""[..]), Some(&[7; 6000][..])] {
        std::fs::remove_file(beside(&place.bus(), ".new")).unwrap();
        if let Some(bytes) = leftover {
            write(&beside(&place.bus(), ".new"), bytes);
        }
        let error = Writer::open(place.bus()).err().unwrap();
        assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
        write(&beside(&place.bus(), ".new"), b"");
    }
    drop(Options::new().replace(place.bus()).unwrap());
    drop(Reader::open(place.bus()).unwrap());
}
