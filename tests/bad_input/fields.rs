//! Fields that contradict each other, the file's size, or the stream: each its own error, with the field and both values.

use crate::common::Place;
use crate::{beside, lay_out, sample, set_word};
use lapwing::*;
use std::fs::File;
use std::path::PathBuf;

/// What is wrong, which word of the file (counted from its start), and values for it.
type Wrong = (&'static str, usize, &'static [u64]);

const RING: [Wrong; 6] = [
    ("the capacity", 5, &[0, 1, 4095, 4097, 2048, 1 << 41, 1 << 63, u64::MAX]),
    ("the stripe", 6, &[0, 1, 511, 1024, u64::MAX]),
    ("the number of slots", 7, &[0, 65_537, 1 << 32, u64::MAX]),
    ("the flags", 9, &[4, 1 << 63, u64::MAX]),
    ("the length in the header", 11, &[0, 4096, u64::MAX, 1 << 63]),
    ("the ring's offset", 12, &[0, 4096, u64::MAX, 1 << 63]),
];
const TABLE: [Wrong; 2] =
    [("the number of slots", 5, &[0, 1, 65_536, u64::MAX]), ("the length in the header", 6, &[0, 4096, u64::MAX])];

/// The errors of every way to attach; an observer does without the table.
fn errors(place: &Place, of_table: bool) -> Vec<Error> {
    let bus = place.bus();
    let observer = Observer::open(&bus, Start::Oldest).err();
    assert_eq!(observer.is_none(), of_table);
    let others = [Bus::inspect(&bus).err(), Bus::open(&bus).err(), Reader::open(&bus).err(), Writer::open(&bus).err()];
    others.into_iter().map(|error| error.expect("nobody attaches")).chain(observer).collect()
}

#[test]
fn a_header_that_contradicts_itself_or_the_file_is_corrupt() {
    let whole = sample(false);
    for (of_table, fields) in [(false, &RING[..]), (true, &TABLE[..])] {
        for &(name, word, values) in fields {
            for &value in values {
                let place = Place::new("field");
                let mut files = whole.clone();
                set_word(if of_table { &mut files.1 } else { &mut files.0 }, word, value);
                lay_out(&place.bus(), &files);
                let wrong: PathBuf = if of_table { beside(&place.bus(), ".readers") } else { place.bus() };
                for error in errors(&place, of_table) {
                    let text = error.to_string();
                    let Error::Corrupt { path, field, found, .. } = error else { panic!("{name} {value}: {text}") };
                    assert_eq!((path, field, found), (wrong.clone(), name, value), "{text}");
                    assert!(text.contains("has to be replaced"), "{text}");
                }
                // And so it can be.
                drop(Options::new().capacity(4096).replace(place.bus()).unwrap());
            }
        }
    }
}

#[test]
fn a_geometry_that_is_larger_than_the_file_is_corrupt() {
    let whole = sample(false);
    for shift in 13..=24 {
        // A capacity that is allowed, and fits nothing else.
        let place = Place::new("geometry");
        let mut files = whole.clone();
        set_word(&mut files.0, 5, 1 << shift);
        lay_out(&place.bus(), &files);
        for error in errors(&place, false) {
            assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        }
        // A header in accord with itself, of a larger file.
        drop(Options::new().capacity(1 << shift).readers(3).replace(place.bus()).unwrap());
        let file = File::options().write(true).open(place.bus()).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(whole.0.len() as u64).unwrap();
        for error in errors(&place, false) {
            let Error::Corrupt { field, expected, found, .. } = &error else { panic!("{error:?}") };
            assert_eq!((*field, *expected, *found), ("the file's length", length, whole.0.len() as u64));
        }
    }
}

#[test]
fn a_record_that_cannot_be_is_corrupt_and_named() {
    let place = Place::new("sound");
    let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
    for n in 0..3 {
        writer.publish(&[n; 40]).unwrap();
    }
    drop(writer);
    let whole = [place.bus(), beside(&place.bus(), ".readers")].map(|file| std::fs::read(file).unwrap());
    let whole = (whole[0].clone(), whole[1].clone());
    let first = (whole.0.len() - 4096) / 8;
    let committed = |length: u64| length << 2 | 1;
    let wrong: [(&str, usize, u64); 7] = [
        ("a record's size", 0, committed(4096)),
        ("a record's size", 0, committed((1 << 30) - 1)),
        ("a record's sequence", 1, 1),
        ("a record's sequence", 1, u64::MAX),
        ("a record's sequence", 1, 1 << 62),
        ("a record's commit word", 0, 2),
        ("a record's commit word", 0, 1 << 32),
    ];
    for (name, word, value) in wrong {
        let place = Place::new("record");
        let mut files = whole.clone();
        set_word(&mut files.0, first + word, value);
        lay_out(&place.bus(), &files);
        let mut observer = Observer::open(place.bus(), Start::Oldest).unwrap();
        let mut reader = Reader::options().start(Start::Oldest).open(place.bus()).unwrap();
        for _ in 0..3 {
            for next in [observer.try_next(), reader.try_next()] {
                let Err(Error::Corrupt { path, field, .. }) = next else { panic!("{name} {value:#x}: {next:?}") };
                assert_eq!((path, field), (place.bus(), name), "{value:#x}");
            }
        }
        // Who starts behind it does not notice.
        reader.rejoin(Start::Latest).unwrap();
        assert!(matches!(reader.try_next(), Ok(Next::Gap(_) | Next::Empty | Next::Closed(_))));
    }
}

#[test]
fn a_record_longer_than_the_largest_is_corrupt_to_who_copies() {
    let place = Place::new("long");
    let mut writer = Options::new().capacity(4096).create(place.bus()).unwrap();
    let largest = writer.max_record() as u64;
    // Two records, of which the first is about to become one that reaches to the end of the second.
    for n in 0..2 {
        writer.publish(&vec![n; largest as usize]).unwrap();
    }
    writer.publish(b"behind").unwrap();
    drop(writer);
    let mut files = [place.bus(), beside(&place.bus(), ".readers")].map(|file| std::fs::read(file).unwrap());
    let first = (files[0].len() - 4096) / 8;
    let place = Place::new("longer");
    for length in [largest + 1, 2 * largest + 16] {
        set_word(&mut files[0], first, length << 2 | 1);
        lay_out(&place.bus(), &(files[0].clone(), files[1].clone()));
        let mut observer = Observer::open(place.bus(), Start::Oldest).unwrap();
        let mut reader = Reader::options().start(Start::Oldest).open(place.bus()).unwrap();
        for _ in 0..3 {
            let drained = reader.drain(9, |record| panic!("{record:?}")).map(drop);
            for error in [observer.try_next().map(drop), reader.try_next().map(drop), drained] {
                let Err(Error::Corrupt { field, expected, found, .. }) = error else { panic!("{error:?}") };
                assert_eq!((field, expected, found), ("a record's length", largest, length));
            }
        }
        // Who borrows needs no room for it, and gets what lies in the ring.
        let mut pinned = Reader::options().class(Class::Pinned).start(Start::Oldest).open(place.bus()).unwrap();
        let Next::Record(record) = pinned.try_next().unwrap() else { panic!() };
        assert_eq!(record.payload().len() as u64, length);
    }
}
