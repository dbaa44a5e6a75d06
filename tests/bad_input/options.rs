//! Options and arguments out of range: the field, the value and what is allowed; nothing is made.

use crate::common::Place;
use crate::{beside, files_in};
use lapwing::layout::HEADER;
use lapwing::*;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

#[test]
fn an_option_out_of_range_is_named_with_its_value() {
    let place = Place::new("options");
    let new = Options::new;
    let capacities = [0, 1, 4095, 4097, 3 << 12, 2048, (1 << 40) + 1, 1 << 41, 1 << 63, u64::MAX];
    let mut cases: Vec<_> = capacities.map(|bytes| ("capacity", bytes.to_string(), new().capacity(bytes))).into();
    cases.extend([0, 65537, u32::MAX].map(|slots| ("readers", slots.to_string(), new().readers(slots))));
    cases
        .extend([0, 0o400, 0o200, 0o777, 0o1600, u32::MAX].map(|mode| ("mode", format!("{mode:o}"), new().mode(mode))));
    for (field, value, options) in cases {
        for result in [options.create(place.bus()), options.open_or_create(place.bus()), options.replace(place.bus())] {
            match result {
                Err(Error::InvalidOption { field: found, value: shown, allowed }) => {
                    assert_eq!((found, &shown), (field, &value));
                    assert!(!allowed.is_empty());
                }
                Err(error) => panic!("{field} {value}: {error:?}"),
                Ok(_) => panic!("{field} {value} was accepted"),
            }
        }
    }
    assert!(files_in(place.directory()).is_empty());
    drop(new().capacity(4096).readers(1).create(place.bus()).unwrap());
}

#[test]
fn a_name_is_one_to_64_bytes_without_control_characters() {
    let place = Place::new("names");
    let _writer = Options::new().create(place.bus()).unwrap();
    for name in ["", &"n".repeat(65), &"ü".repeat(33), "a\0b", "\0", "line\n", "\u{7f}", "\u{85}"] {
        match Reader::options().name(name).open(place.bus()) {
            Err(Error::InvalidOption { field: "name", value, .. }) => assert_eq!(value, format!("{name:?}")),
            Err(error) => panic!("{name:?}: {error:?}"),
            Ok(_) => panic!("{name:?} was accepted"),
        }
    }
    let longest = "ü".repeat(32);
    for name in ["n", " ", "päth/to \"it\"", &"n".repeat(64), &longest] {
        let reader = Reader::options().name(name).open(place.bus()).unwrap();
        assert_eq!(reader.info().unwrap().name.as_deref(), Some(name));
        let second = Reader::options().name(name).open(place.bus()).err().unwrap();
        assert!(matches!(&second, Error::NameTaken { pid: Some(pid), .. } if *pid == std::process::id()), "{second:?}");
        assert!(second.to_string().contains(&std::process::id().to_string()));
        drop(reader);
        Bus::open(place.bus()).unwrap().forget(name).unwrap();
    }
}

#[test]
fn a_full_table_is_counted_and_has_room_again_when_one_leaves() {
    let place = Place::new("full");
    let _writer = Options::new().readers(3).create(place.bus()).unwrap();
    drop(Reader::options().name("away").open(place.bus()).unwrap());
    let first = Reader::open(place.bus()).unwrap();
    let _second = Reader::open(place.bus()).unwrap();
    for options in [Reader::options(), Reader::options().name("another")] {
        let error = options.open(place.bus()).err().unwrap();
        assert!(matches!(error, Error::TableFull { slots: 3, live: 2, detached: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("all 3"), "{error}");
    }
    // Who is known has a place.
    drop(Reader::options().name("away").start(Start::Resume).open(place.bus()).unwrap());
    drop(first);
    drop(Reader::open(place.bus()).unwrap());
    Bus::open(place.bus()).unwrap().forget("away").unwrap();
    let _third = Reader::open(place.bus()).unwrap();
    let _fourth = Reader::open(place.bus()).unwrap();
}

#[test]
fn a_record_too_large_is_refused_with_both_sizes() {
    for (capacity, stamped) in [(4096, false), (4096, true), (1 << 20, false)] {
        let place = Place::new("large");
        let mut writer = Options::new().capacity(capacity).stamped(stamped).create(place.bus()).unwrap();
        let mut reader = Reader::open(place.bus()).unwrap();
        let max = writer.max_record();
        assert_eq!(max as u64, capacity / 4 - if stamped { 24 } else { 16 });
        for length in [max + 1, max + 8, max * 2, capacity as usize * 3] {
            let payload = vec![1; length];
            let half = length / 2;
            let errors = [
                writer.try_publish(&payload).unwrap_err(),
                writer.publish(&payload).unwrap_err(),
                writer.publish_vectored(0, &[&payload[..half], &payload[half..]]).unwrap_err(),
                writer.claim(0, length).err().unwrap(),
                writer.batch().push(&payload).unwrap_err(),
            ];
            for error in errors {
                let PublishError::TooLarge { length: found, max: allowed } = error else { panic!("{error:?}") };
                assert_eq!((found, allowed), (length as u64, max as u64));
                assert!(
                    error.to_string().contains(&length.to_string()) && error.to_string().contains(&max.to_string())
                );
            }
        }
        for length in [usize::MAX, usize::MAX - 64, 1 << 62, 1 << 40] {
            assert!(
                matches!(writer.claim(0, length), Err(PublishError::TooLarge { length: found, .. }) if found == length as u64)
            );
        }
        // A batch keeps what it has.
        let mut batch = writer.batch();
        batch.push(&vec![2; max - 100]).unwrap();
        assert!(matches!(batch.push(&[3; 200]), Err(PublishError::TooLarge { .. })));
        batch.push(b"fits").unwrap();
        assert_eq!(batch.commit().unwrap(), 0..2);
        // More can be given back than was claimed, not taken.
        assert!(matches!(
            writer.claim(0, 10).unwrap().commit_len(11),
            Err(PublishError::TooLarge { length: 11, max: 10 })
        ));
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.len() == max - 100));
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.payload() == b"fits"));
        assert!(matches!(reader.try_next().unwrap(), Next::Empty));
        assert_eq!(writer.publish(&vec![4; max]).unwrap(), 2);
        assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.len() == max));
    }
}

#[test]
fn another_schema_is_refused_with_both_numbers() {
    let place = Place::new("schema");
    let _writer = Options::new().schema(7).create(place.bus()).unwrap();
    drop(Reader::options().schema(7).open(place.bus()).unwrap());
    drop(Reader::options().schema(0).open(place.bus()).unwrap());
    let error = Reader::options().schema(8).open(place.bus()).err().unwrap();
    assert!(matches!(error, Error::Incompatible { expected: 8, found: 7, .. }), "{error:?}");
    assert!(error.to_string().contains("schema"), "{error}");
    assert!(Bus::inspect(place.bus()).unwrap().readers.unwrap().is_empty(), "who was refused left something behind");
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let place = Place::new("second");
    let mut writer = Options::new().create(place.bus()).unwrap();
    let pid = std::process::id();
    let results = [
        Writer::open(place.bus()).map(drop),
        Options::new().open_or_create(place.bus()).map(drop),
        Options::new().replace(place.bus()).map(drop),
        Bus::remove(place.bus()),
    ];
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::WriterBusy { pid: Some(found), .. } if found == pid), "{error:?}");
        assert!(error.to_string().contains(&pid.to_string()), "{error}");
    }
    assert!(matches!(Options::new().create(place.bus()), Err(Error::AlreadyExists { .. })));
    assert_eq!(writer.publish(b"still the writer").unwrap(), 0);
}

#[test]
fn pinned_readers_can_be_forbidden_and_reasons_are_short() {
    let place = Place::new("pinned");
    let writer = Options::new().pinned(false).create(place.bus()).unwrap();
    let error = Reader::options().class(Class::Pinned).open(place.bus()).err().unwrap();
    assert!(matches!(error, Error::PinnedForbidden { .. }), "{error:?}");
    drop(Reader::open(place.bus()).unwrap());
    let long = "x".repeat(121);
    assert!(matches!(writer.close_with(1, &long), Err(Error::InvalidOption { field: "reason", .. })));
    assert_eq!(Bus::inspect(place.bus()).unwrap().writer.closed, None);
}

#[test]
fn nobody_is_pinned_who_may_not_be() {
    let place = Place::new("liar");
    let mut writer = Options::new().capacity(4096).pinned(false).create(place.bus()).unwrap();
    let mut reader = Reader::open(place.bus()).unwrap();
    // The class lies in the second lowest byte of the control word, the first of the slot.
    let table = File::options().read(true).write(true).open(beside(&place.bus(), ".readers")).unwrap();
    let mut control = [0; 8];
    table.read_exact_at(&mut control, HEADER).unwrap();
    let lie = u64::from_ne_bytes(control) & !0xff00 | (Class::Pinned as u64) << 8;
    table.write_all_at(&lie.to_ne_bytes(), HEADER).unwrap();
    assert_eq!(writer.readers().unwrap()[0].class, Class::Pinned);
    writer.set_policy(Policy::Evict);
    for _ in 0..100 {
        writer.publish(&[0; 100]).unwrap();
    }
    assert!(matches!(reader.try_next().unwrap(), Next::Evicted(_)));
}

// ---- a file system that is too small ------------------------------------------------------------------------------

/// A file system of its own in memory.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn new(kind: &str, options: &str, at: &'a Path) -> Option<Self> {
        let [target, kind, data] =
            [at.as_os_str().as_bytes(), kind.as_bytes(), options.as_bytes()].map(|text| CString::new(text).unwrap());
        // SAFETY: the strings live through the call, and the kernel only reads them.
        let result = unsafe { libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, data.as_ptr().cast()) };
        if result != 0 {
            eprintln!("SKIPPED: a file system of its own: cannot mount one: {}", std::io::Error::last_os_error());
        }
        (result == 0).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let target = CString::new(self.0.as_os_str().as_bytes()).unwrap();
        // SAFETY: as above.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_file_system_is_an_error_at_creation_and_nothing_stays() {
    let place = Place::new("small");
    let Some(small) = Mounted::new("tmpfs", "size=1048576,mode=755", place.directory()) else { return };
    let path = place.bus();
    // The ring alone is too large; then it fits, and the table does not.
    for options in [Options::new().capacity(1 << 21), Options::new().capacity(1 << 40), Options::new().readers(65536)] {
        for result in [options.create(&path), options.open_or_create(&path), options.replace(&path)] {
            let error = result.err().expect("there is no room");
            let Error::NoSpace { needed, .. } = error else { panic!("{error:?}") };
            assert!(needed > 1 << 20 && error.to_string().contains(&needed.to_string()), "{error}");
            assert!(files_in(place.directory()).is_empty(), "{:?}", files_in(place.directory()));
        }
    }
    // What fits works to its last byte: no write faults.
    let mut writer = Options::new().capacity(1 << 19).prefault(true).create(&path).unwrap();
    let payload = vec![9; writer.max_record()];
    for _ in 0..40 {
        writer.publish(&payload).unwrap();
    }
    let id = Bus::inspect(&path).unwrap().bus_id;
    drop(writer);
    // Neither does a failed replacement touch what is there.
    assert!(matches!(Options::new().capacity(1 << 19).replace(&path), Err(Error::NoSpace { .. })));
    let seen = Bus::inspect(&path).unwrap();
    assert_eq!((seen.bus_id, seen.sequence), (id, 40));
    assert!(!beside(&path, ".new").exists() && !beside(&path, ".readers.new").exists());
    drop(Writer::open(&path).unwrap());
    drop(small);
}

#[test]
fn a_file_system_that_cannot_reserve_room_is_refused_by_name() {
    let place = Place::new("unsupported");
    // As network file systems often cannot.
    let Some(mounted) = Mounted::new("ramfs", "mode=755", place.directory()) else { return };
    let path = place.bus();
    for result in [Options::new().create(&path), Options::new().open_or_create(&path), Options::new().replace(&path)] {
        let error = result.err().expect("ramfs has no fallocate");
        assert!(matches!(error, Error::Unsupported { what: "fallocate", .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()) && text.contains("network file system"), "{text}");
        assert!(files_in(place.directory()).is_empty(), "{:?}", files_in(place.directory()));
    }
    drop(mounted);
}
