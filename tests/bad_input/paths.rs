//! What is no bus, and what is somebody else's.

use crate::common::{Place, Random, Stage, own_command};
use crate::{beside, errors_at, files_in, lay_out, sample};
use lapwing::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;

fn mkfifo(path: &Path) {
    nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

#[test]
fn nothing_there_is_said_so_and_nothing_is_made() {
    let place = Place::new("missing");
    for path in [place.bus(), place.directory().join("no such directory/bus")] {
        for (call, error) in errors_at(&path) {
            // Creating fails for want of the directory, all else for want of the bus.
            let making = ["create", "replace", "open_or_create"].contains(&call);
            assert!(
                matches!(error, Error::NotFound { .. }) || making && matches!(error, Error::Io { .. }),
                "{call}: {error:?}"
            );
            assert!(error.to_string().contains("bus"), "{call}: {error}");
        }
        // `create` and `replace` make one where they can; else nobody leaves anything.
        let _ = Bus::remove(&path);
        assert!(files_in(place.directory()).is_empty(), "{:?}", files_in(place.directory()));
    }
    let errors = errors_at(&place.directory().join("no such directory/bus"));
    assert_eq!(errors.len(), 10, "each call fails without a directory");
    // Below a file there is nothing either.
    std::fs::write(place.directory().join("file"), b"no directory").unwrap();
    for (call, error) in errors_at(&place.directory().join("file/bus")) {
        let making = ["create", "replace"].contains(&call);
        let right = if making { matches!(error, Error::Io { .. }) } else { matches!(error, Error::NotFound { .. }) };
        assert!(right, "{call}: {error:?}");
    }
}

#[test]
fn what_is_no_bus_is_refused_and_stays_as_it_is() {
    let mut random = Random::from(7);
    let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| random.next() as u8).collect() };
    let contents: [(&str, Vec<u8>); 8] = [
        ("empty", vec![]),
        ("one byte", vec![0]),
        ("text", b"a letter to somebody else\n".repeat(1000)),
        ("a page of noise", noise(4096)),
        ("noise", noise(70_000)),
        ("a page of zeros", vec![0; 4096]),
        ("zeros", vec![0; 70_000]),
        ("a page less a byte", vec![0xff; 4095]),
    ];
    for (what, bytes) in contents {
        let place = Place::new("foreign");
        std::fs::write(place.bus(), &bytes).unwrap();
        assert_refused(what, &place, |error| matches!(error, Error::NotABus { .. }));
    }
    let place = Place::new("directory");
    std::fs::create_dir(place.bus()).unwrap();
    assert_refused("a directory", &place, |error| matches!(error, Error::NotABus { .. }));

    let place = Place::new("fifo");
    mkfifo(&place.bus());
    assert_refused("a fifo", &place, |error| matches!(error, Error::NotABus { .. }));

    // A link is never followed, also not to a real bus.
    let place = Place::new("link");
    let real = Place::new("real");
    lay_out(&real.bus(), &sample(false));
    symlink(real.bus(), place.bus()).unwrap();
    assert_refused("a link to a bus", &place, |error| matches!(error, Error::NotABus { .. }));
    let place = Place::new("dangling");
    symlink("nowhere", place.bus()).unwrap();
    assert_refused("a dangling link", &place, |error| matches!(error, Error::NotABus { .. }));
}

/// Every call fails with the right error (creating: there is something), and the directory stays as it was but for an empty lock file.
fn assert_refused(what: &str, place: &Place, right: impl Fn(&Error) -> bool) {
    let before = files_in(place.directory());
    let errors = errors_at(&place.bus());
    assert_eq!(errors.len(), 10, "{what}: {errors:?}");
    for (call, error) in errors {
        let expected = if call == "create" { matches!(error, Error::AlreadyExists { .. }) } else { right(&error) };
        assert!(expected, "{what}, {call}: {error:?}");
        assert!(error.to_string().contains(place.bus().to_str().unwrap()), "{what}, {call}: {error}");
    }
    let mut after = files_in(place.directory());
    after.retain(|(path, bytes)| *path != beside(&place.bus(), ".lock") || bytes.as_deref() != Some(&[]));
    assert_eq!(after, before, "{what}");
}

#[test]
fn a_bus_whose_other_files_are_not_what_they_should_be() {
    let sample = sample(false);
    type Make = fn(&Path);
    let odd: [(&str, Make); 4] = [
        ("a directory", |path| std::fs::create_dir(path).unwrap()),
        ("a fifo", mkfifo),
        ("a link", |path| symlink("/dev/null", path).unwrap()),
        ("noise", |path| std::fs::write(path, vec![0x5a; 9000]).unwrap()),
    ];
    for (what, make) in odd {
        let place = Place::new("table");
        lay_out(&place.bus(), &sample);
        let table = beside(&place.bus(), ".readers");
        std::fs::remove_file(&table).unwrap();
        make(&table);
        for (call, error) in errors_at(&place.bus()) {
            let right = match call {
                "create" => matches!(error, Error::AlreadyExists { .. }),
                // It cannot rename over a directory; everything else it may replace.
                "replace" | "remove" => what == "a directory",
                _ => matches!(&error, Error::NotABus { path, .. } if *path == table),
            };
            assert!(right, "the table is {what}, {call}: {error:?}");
        }
        for suffix in [".new", ".readers.new"] {
            assert!(!beside(&place.bus(), suffix).exists(), "the table is {what}: {suffix} was left behind");
        }
    }
    let place = Place::new("no-table");
    lay_out(&place.bus(), &sample);
    std::fs::remove_file(beside(&place.bus(), ".readers")).unwrap();
    assert!(matches!(Reader::open(place.bus()), Err(Error::NotReady { .. })));
    assert!(matches!(Writer::open(place.bus()), Err(Error::NotReady { .. })));
    assert!(Bus::inspect(place.bus()).unwrap().readers.is_none());
    assert!(matches!(Observer::open(place.bus(), Start::Oldest).unwrap().try_next().unwrap(), Next::Record(_)));
    drop(Options::new().replace(place.bus()).unwrap());
    drop(Reader::open(place.bus()).unwrap());

    for (what, make) in &odd[..3] {
        let place = Place::new("lock");
        lay_out(&place.bus(), &sample);
        make(&beside(&place.bus(), ".lock"));
        for result in [Writer::open(place.bus()), Options::new().replace(place.bus())] {
            assert!(
                matches!(result.as_ref().err(), Some(Error::NotABus { .. })),
                "the lock is {what}: {:?}",
                result.err()
            );
        }
        // Reading needs no lock file.
        drop(Reader::open(place.bus()).unwrap());
    }
}

// ---- another user -------------------------------------------------------------------------------------------------

/// A user that owns nothing, and its group.
const STRANGER: u32 = 65534;

/// Runs a part under a user that owns nothing and has no capabilities; false if this process may not become one.
fn as_stranger(part: &str, bus: &Path) -> bool {
    // SAFETY: a plain question about this process.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("SKIPPED: {part}: only root can become another user");
        return false;
    }
    let mut child = own_command(&[]);
    child
        .args(["child_role", "--exact", "--nocapture", "--test-threads=1", "-q"])
        .env("LAPWING_TEST_ROLE", "stranger")
        .env("LAPWING_TEST_ARGUMENTS", format!("{}\x1f{part}", bus.display()))
        .uid(STRANGER)
        .gid(STRANGER);
    // Groups go with `gid`, capabilities with `uid`.
    let output = child.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}: {}\n{words}", output.status);
    true
}

fn permission<T>(result: Result<T>, file: &Path) {
    match result {
        Err(Error::Permission { path, .. }) => assert_eq!(path, file),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("{} could be opened", file.display()),
    }
}

/// What somebody else can and cannot do with a bus that root made.
pub(crate) fn stranger(stage: &mut Stage) {
    // SAFETY: a plain question about this process.
    assert_ne!(unsafe { libc::geteuid() }, 0);
    let path = stage.bus();
    let table = beside(&path, ".readers");
    match stage.argument(1) {
        "private" => {
            permission(Bus::inspect(&path), &path);
            permission(Bus::open(&path), &path);
            permission(Reader::open(&path), &path);
            permission(Observer::open(&path, Start::Oldest), &path);
            permission(Writer::open(&path), &path);
            permission(Options::new().replace(&path), &path);
            assert!(matches!(Options::new().create(&path), Err(Error::AlreadyExists { .. })));
            assert!(matches!(Bus::remove(&path), Err(Error::Permission { .. })));
            let elsewhere = path.with_file_name("other");
            permission(Options::new().create(&elsewhere), &beside(&elsewhere, ".lock"));
        }
        "ring only" => {
            assert!(Bus::inspect(&path).unwrap().readers.is_none());
            permission(Bus::open(&path), &table);
            permission(Reader::open(&path), &table);
            permission(Writer::open(&path), &path);
            let mut observer = Observer::open(&path, Start::Oldest).unwrap();
            assert!(matches!(observer.try_next().unwrap(), Next::Record(_)));
        }
        "reader" => {
            let mut reader = Reader::options().start(Start::Oldest).open(&path).unwrap();
            assert!(matches!(reader.try_next().unwrap(), Next::Record(_)));
            assert_eq!(Bus::inspect(&path).unwrap().readers.unwrap().len(), 2);
            permission(Writer::open(&path), &path);
            assert!(matches!(Options::new().replace(&path), Err(Error::Permission { .. })));
            assert!(matches!(Bus::remove(&path), Err(Error::Permission { .. })));
        }
        "not the directory" => {
            // Whoever may write the files may be the writer; removing them is for who may write their directory.
            permission(Bus::remove(&path), &table);
            // Nobody was told that the bus is gone.
            assert_eq!(Bus::inspect(&path).unwrap().writer.state, WriterState::Absent);
            permission(Options::new().replace(&path), &beside(&path, ".readers.new"));
            assert_eq!(Writer::open(&path).unwrap().publish(b"from another user").unwrap(), 1);
        }
        "no directory" => {
            for result in [Bus::inspect(&path).map(drop), Reader::open(&path).map(drop), Writer::open(&path).map(drop)]
            {
                permission(result, &path);
            }
        }
        part => panic!("no part {part:?}"),
    }
}

#[test]
fn somebody_else_gets_what_the_modes_say() {
    let set_mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for (part, mode, group, table_mode) in [
        ("private", 0o600, None, None),
        ("private", 0o600, Some(STRANGER), None),
        ("private", 0o640, Some(STRANGER + 1), None),
        ("ring only", 0o644, None, Some(0o600)),
        ("reader", 0o644, None, None),
        ("reader", 0o640, Some(STRANGER), None),
    ] {
        let place = Place::new("stranger");
        set_mode(place.directory(), 0o755);
        let mut options = Options::new().mode(mode);
        if let Some(group) = group {
            options = options.group(group);
        }
        let Ok(mut writer) = options.create(place.bus()) else {
            return eprintln!("SKIPPED: {part}: only root can give files to another group");
        };
        writer.publish(b"a record").unwrap();
        let _reader = Reader::open(place.bus()).unwrap();
        if let Some(mode) = table_mode {
            set_mode(&beside(&place.bus(), ".readers"), mode);
        }
        let before = files_in(place.directory()).len();
        if !as_stranger(part, &place.bus()) {
            return;
        }
        assert_eq!(files_in(place.directory()).len(), before, "{part}: something was made or removed");
        // Nothing happened to the bus.
        assert_eq!(writer.publish(b"another").unwrap(), 1);
    }
    let place = Place::new("stranger");
    set_mode(place.directory(), 0o755);
    let mut reader = {
        let mut writer = Options::new().mode(0o666).create(place.bus()).unwrap();
        writer.publish(b"a record").unwrap();
        Reader::open(place.bus()).unwrap()
    };
    as_stranger("not the directory", &place.bus());
    assert!(matches!(reader.try_next().unwrap(), Next::Record(record) if record.payload() == b"from another user"));
    assert!(matches!(reader.try_next().unwrap(), Next::Empty));

    let place = Place::new("stranger");
    lay_out(&place.bus(), &sample(false));
    set_mode(place.directory(), 0o700);
    as_stranger("no directory", &place.bus());
}
