//! What the kernel enforces: a reader cannot write to the ring, whatever it tries, and an observer needs nothing but to read it.

mod common;

use common::*;
use lapwing::*;
use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

roles!(reader, observer, locker, writer);

const CAPACITY: u64 = 16 << 10;
const LONGEST: usize = 300;

fn table_of(bus: &Path) -> PathBuf {
    with_suffix(bus, ".readers")
}

fn with_suffix(bus: &Path, suffix: &str) -> PathBuf {
    let mut name = bus.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// This process's mappings of a file: address, length and permissions.
fn mappings(file: &Path) -> Vec<(usize, usize, String)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let of_file = maps.lines().filter(|line| line.ends_with(file.to_str().unwrap()));
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (from, to) = words.next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|number| usize::from_str_radix(number, 16).unwrap());
        (from, to - from, words.next().unwrap().to_string())
    };
    of_file.map(parse).collect()
}

/// This process's descriptors of a file, with the flags they were opened with.
fn descriptors(file: &Path) -> Vec<(i32, i32)> {
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = all.filter_map(|entry| {
        let path = entry.unwrap().path();
        (path.read_link().is_ok_and(|link| link == file))
            .then(|| path.file_name().unwrap().to_str().unwrap().to_string())
    });
    let flags = |number: String| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        (number.parse().unwrap(), i32::from_str_radix(flags.trim(), 8).unwrap())
    };
    numbers.map(flags).collect()
}

/// Checks that this process has the ring mapped and open for reading only, and cannot change that.
fn assert_read_only(bus: &Path) {
    let maps = mappings(bus);
    assert!(!maps.is_empty());
    for (address, length, permissions) in maps {
        assert_eq!(permissions, "r--s");
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: would make a mapping of this process writable; nothing is written to it.
        let status = unsafe { libc::mprotect(address as *mut libc::c_void, length, writable) };
        assert_eq!((status, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EACCES)));
    }
    let descriptors = descriptors(bus);
    assert!(!descriptors.is_empty());
    for (number, flags) in descriptors {
        assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
        // SAFETY: a descriptor of this process, which a truncation, were it possible, would not close.
        let status = unsafe { libc::ftruncate(number, 0) };
        assert_eq!((status, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EINVAL)));
        // Nor can the deciding kind of lock be taken through it.
        assert_eq!(lock(number, libc::F_WRLCK), Err(libc::EBADF));
    }
}

/// Takes a lock on every byte.
fn lock(descriptor: i32, kind: i32) -> std::result::Result<(), i32> {
    let whole = libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    // SAFETY: reads one struct, and concerns a descriptor of this process.
    let status = unsafe { libc::fcntl(descriptor, libc::F_OFD_SETLK, &raw const whole) };
    if status == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

/// Checks that this process, who may only read the ring, can get at it by no other way either.
fn assert_kept_out(bus: &Path) {
    let denied = |result: std::io::Result<File>| {
        let kind = result.map(drop).map_err(|error| error.kind());
        assert_eq!(kind, Err(std::io::ErrorKind::PermissionDenied));
    };
    denied(OpenOptions::new().write(true).open(bus));
    denied(OpenOptions::new().append(true).open(bus));
    denied(OpenOptions::new().read(true).write(true).open(bus));
    for (number, _) in descriptors(bus) {
        denied(OpenOptions::new().write(true).open(format!("/proc/self/fd/{number}")));
    }
    for suffix in ["", ".lock"] {
        let refused = std::fs::remove_file(with_suffix(bus, suffix)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let refused = std::fs::set_permissions(bus, Permissions::from_mode(0o666)).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    // The lock file decides who the writer is: it cannot even be opened.
    denied(File::open(with_suffix(bus, ".lock")));
    assert!(matches!(Writer::open(bus), Err(Error::Permission { .. })));
    assert!(matches!(Options::new().replace(bus), Err(Error::Permission { .. })));
    assert!(matches!(Bus::remove(bus), Err(Error::Permission { .. })));
}

/// Arguments: bus, class, `stranger` or `same`. Reads to the end, and shows that it can do no more than read.
fn reader(stage: &mut Stage) {
    let bus = stage.bus();
    let stranger = stage.argument(2) == "stranger";
    if stranger {
        become_a_stranger();
    }
    let class = match stage.argument(1) {
        "lossy" => Class::Lossy,
        "pinned" => Class::Pinned,
        _ => Class::Gating,
    };
    let mut reader = Reader::options().class(class).open(&bus).unwrap();
    stage.say("ready");
    let check = || {
        assert_read_only(&bus);
        if stranger {
            assert_kept_out(&bus);
        }
    };
    check();
    let mut tally = Tally::of(&reader);
    follow(stage, &mut reader, &mut tally, LONGEST);
    check();
    settle(stage, &reader, &tally);
}

/// Arguments: bus. A stranger who may read the ring, and not the table.
fn observer(stage: &mut Stage) {
    let bus = stage.bus();
    become_a_stranger();
    let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
    assert!(matches!(Reader::open(&bus), Err(Error::Permission { path, .. }) if path == table_of(&bus)));
    assert!(matches!(Bus::open(&bus), Err(Error::Permission { .. })));
    let seen = inspect(&bus);
    assert!(seen.readers.is_none());
    assert_eq!((seen.writer.state, observer.writer_alive().unwrap()), (WriterState::Alive, true));
    assert!(mappings(&table_of(&bus)).is_empty() && descriptors(&table_of(&bus)).is_empty());
    assert_read_only(&bus);
    assert_kept_out(&bus);
    stage.say("ready");
    let mut tally = Tally::new(0);
    loop {
        match tally.count(observer.next().unwrap()) {
            None => stage.say(format!("at {}", tally.next)),
            Some(Next::Closed(closed)) => break assert_eq!(closed.sequence, tally.next),
            Some(other) => panic!("{other:?}"),
        }
    }
    stage.say(format!("closed {}", tally.to_line()));
}

/// Arguments: bus. A stranger who takes every lock on the ring that it can get.
fn locker(stage: &mut Stage) {
    become_a_stranger();
    let ring = File::open(stage.bus()).unwrap();
    assert_eq!(lock(ring.as_raw_fd(), libc::F_WRLCK), Err(libc::EBADF));
    lock(ring.as_raw_fd(), libc::F_RDLCK).unwrap();
    stage.say("locked");
    stage.hear();
}

/// Arguments: bus. Becomes the writer, publishes a record and waits to be killed.
fn writer(stage: &mut Stage) {
    let mut writer = Writer::standby(stage.bus()).unwrap();
    let published = writer.publish(b"published").unwrap();
    stage.say(format!("published {published}"));
    stage.hear();
}

/// Publishes some laps for readers that are children, and settles their books.
fn run(place: &Place, mut writer: Writer, mut readers: Vec<Child>) {
    for reader in &mut readers {
        reader.expect("ready");
    }
    writer.set_policy(Policy::Wait(Some(DEADLINE)));
    for _ in 0..500 {
        let payload = payload(writer.next_sequence(), LONGEST);
        writer.publish(&payload).unwrap();
    }
    writer.close().unwrap();
    for tally in settle_all(&place.bus(), readers.iter_mut().take(2)) {
        assert_eq!((tally.delivered, tally.missed), (500, 0));
    }
    if let Some(lossy) = readers.get_mut(2) {
        while !lossy.line().starts_with("closed") {}
        lossy.tell("settle");
        lossy.expect("settled");
        lossy.tell("leave");
    }
    for reader in readers {
        reader.finish();
    }
    assert_ledgers(&place.bus());
}

#[test]
fn a_reader_maps_the_ring_read_only_from_a_read_only_descriptor() {
    let place = Place::new("maps");
    let bus = place.bus();
    let writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    let classes = ["gating", "pinned", "lossy"];
    run(&place, writer, classes.map(|class| Child::start("reader", &bus, &[&class, &"same"])).into());
}

#[test]
fn a_reader_under_another_user_can_read_and_no_more() {
    if !can_become_another("a_reader_under_another_user_can_read_and_no_more") {
        return;
    }
    let place = Place::new("stranger");
    let bus = place.bus();
    std::fs::set_permissions(place.directory(), Permissions::from_mode(0o755)).unwrap();
    let writer = Options::new().capacity(CAPACITY).mode(0o644).create(&bus).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&bus), mode(&table_of(&bus)), mode(&with_suffix(&bus, ".lock"))], [0o644, 0o666, 0o600]);
    let before = std::fs::metadata(&bus).unwrap().len();
    let classes = ["gating", "pinned", "lossy"];
    run(&place, writer, classes.map(|class| Child::start("reader", &bus, &[&class, &"stranger"])).into());
    assert_eq!(std::fs::metadata(&bus).unwrap().len(), before);
}

#[test]
fn an_observer_needs_read_permission_on_the_ring_alone() {
    if !can_become_another("an_observer_needs_read_permission_on_the_ring_alone") {
        return;
    }
    let place = Place::new("observer");
    let bus = place.bus();
    std::fs::set_permissions(place.directory(), Permissions::from_mode(0o755)).unwrap();
    let mut writer = Options::new().capacity(CAPACITY).create(&bus).unwrap();
    std::fs::set_permissions(&bus, Permissions::from_mode(0o604)).unwrap();
    writer.publish(b"0").unwrap();
    let mut observer = Child::start("observer", &bus, &[]);
    observer.expect("ready");
    observer.expect("at 1");
    writer.publish(b"1").unwrap();
    observer.expect("at 2");
    // It never holds the writer up, and is told its gap.
    observer.stop();
    for _ in 0..1000 {
        writer.try_publish(&[0; 100]).unwrap();
    }
    observer.go_on();
    writer.close().unwrap();
    let rest = observer.rest();
    let tally = Tally::from_line(rest.last().unwrap().strip_prefix("closed ").unwrap());
    assert_eq!((tally.next, tally.delivered + tally.missed), (1002, 1002));
    assert!(tally.missed > 0);
    observer.finish();
    assert!(rows(&bus).is_empty());
}

#[test]
fn read_locks_on_the_ring_keep_no_standby_from_taking_over() {
    if !can_become_another("read_locks_on_the_ring_keep_no_standby_from_taking_over") {
        return;
    }
    let place = Place::new("locker");
    let bus = place.bus();
    std::fs::set_permissions(place.directory(), Permissions::from_mode(0o755)).unwrap();
    drop(Options::new().capacity(CAPACITY).mode(0o644).create(&bus).unwrap());
    let mut locker = Child::start("locker", &bus, &[]);
    locker.expect("locked");
    for round in 0..3 {
        let mut writer = Child::start("writer", &bus, &[]);
        assert_eq!(writer.expect("published"), round.to_string());
        writer.kill();
    }
    assert_eq!(Writer::open(&bus).unwrap().resumed_at(), 3);
}
