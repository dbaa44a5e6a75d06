//! Who lives: forks, started programs, handles of one process, zombies, stopped processes; and the table that fills and empties.

mod common;

use common::*;
use lapwing::*;
use nix::unistd::ForkResult;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

roles!(holder, writer, forker, starter, twins);

/// Arguments: bus, name (or nothing). Registers and stays until told to leave.
fn holder(stage: &mut Stage) {
    let mut options = Reader::options();
    if !stage.argument(1).is_empty() {
        options = options.name(stage.argument(1));
    }
    let reader = options.open(stage.bus()).unwrap();
    stage.say(format!("ready {}", reader.id()));
    stage.hear_this("leave");
}

/// Arguments: bus. Is the writer, and publishes a record whenever told to.
fn writer(stage: &mut Stage) {
    let mut writer = Writer::standby(stage.bus()).unwrap();
    stage.say("ready");
    while stage.hear() == "publish" {
        stage.say(writer.publish(b"alive").unwrap());
    }
}

/// Arguments: bus. Forks with every kind of handle open; the child finds all of them unusable, and outlives its parent.
fn forker(stage: &mut Stage) {
    let bus = stage.bus();
    let mut writer = Writer::standby(&bus).unwrap();
    let mut reader = Reader::options().name("forker").open(&bus).unwrap();
    let mut observer = Observer::open(&bus, Start::Oldest).unwrap();
    writer.publish(b"before").unwrap();
    // SAFETY: the only thread that could hold a lock the child needs is this one.
    match unsafe { nix::unistd::fork() }.unwrap() {
        ForkResult::Parent { .. } => loop {
            std::thread::park();
        },
        ForkResult::Child => {
            assert!(matches!(writer.publish(b"after"), Err(PublishError::Forked)));
            assert!(matches!(writer.try_publish(b"after"), Err(PublishError::Forked)));
            assert!(matches!(writer.publish_vectored(0, &[b"after"]), Err(PublishError::Forked)));
            assert!(matches!(writer.claim(0, 1), Err(PublishError::Forked)));
            assert!(matches!(writer.batch().push(b"after"), Err(PublishError::Forked)));
            assert!(matches!(writer.wait_for_readers(None), Err(Error::Forked)));
            assert!(matches!(reader.try_next(), Err(Error::Forked)));
            assert!(matches!(reader.next(), Err(Error::Forked)));
            assert!(matches!(reader.next_timeout(Duration::ZERO), Err(Error::Forked)));
            assert!(matches!(reader.drain(1, |_| ()), Err(Error::Forked)));
            assert!(matches!(reader.rejoin(Start::Latest), Err(Error::Forked)));
            assert!(matches!(reader.writer_alive(), Err(Error::Forked)));
            assert!(matches!(observer.try_next(), Err(Error::Forked)));
            assert!(matches!(observer.next(), Err(Error::Forked)));
            assert!(matches!(observer.seek(Start::Latest), Err(Error::Forked)));
            reader.commit();
            // The other side's dropped handles must not close its places.
            drop((reader, observer));
            assert!(matches!(writer.close(), Err(Error::Forked)));
            // What it opens itself is its own.
            let mut own = Reader::options().name("own").start(Start::Oldest).open(&bus).unwrap();
            assert!(matches!(own.next().unwrap(), Next::Record(record) if record.payload() == b"before"));
            stage.say("forked");
            while stage.hear() == "are you there" {
                stage.say("still here");
            }
        }
    }
}

/// Arguments: bus. Starts another program with handles open.
fn starter(stage: &mut Stage) {
    let _writer = Writer::standby(stage.bus()).unwrap();
    let _reader = Reader::options().name("starter").open(stage.bus()).unwrap();
    // It shares this process's input, and so ends with the test.
    #[expect(clippy::zombie_processes, reason = "it must outlive this process, which is killed")]
    let program = Command::new("cat").stdin(Stdio::inherit()).stdout(Stdio::null()).spawn().unwrap();
    stage.say(format!("started {}", program.id()));
    loop {
        std::thread::park();
    }
}

/// Arguments: bus. Has two readers and an observer, and closes all but one of the readers; then does the same as the writer.
fn twins(stage: &mut Stage) {
    let bus = stage.bus();
    let stays = Reader::options().name("stays").open(&bus).unwrap();
    let goes = Reader::options().name("goes").open(&bus).unwrap();
    let observer = Observer::open(&bus, Start::Latest).unwrap();
    let writer = Writer::standby(&bus).unwrap();
    stage.say("open");
    stage.hear_this("close");
    drop((goes, observer));
    drop(Bus::open(&bus).unwrap());
    Bus::inspect(&bus).unwrap();
    assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { .. })));
    assert!(matches!(Reader::options().name("stays").open(&bus), Err(Error::NameTaken { .. })));
    stage.say("closed");
    stage.hear();
    drop((stays, writer));
}

/// A bus without a writer.
fn new_bus(place: &Place) -> std::path::PathBuf {
    drop(Options::new().capacity(16 << 10).create(place.bus()).unwrap());
    place.bus()
}

fn alive(process: &str) -> bool {
    Path::new("/proc").join(process).join("exe").read_link().is_ok()
}

#[test]
fn a_forked_child_can_use_no_handle_and_keeps_no_lock() {
    let place = Place::new("fork");
    let bus = new_bus(&place);
    let mut child = Child::start("forker", &bus, &[]);
    child.expect("forked");
    let seen = inspect(&bus);
    // What the child did to its handles did not touch the parent's.
    assert_eq!((seen.writer.state, seen.writer.pid, seen.sequence), (WriterState::Alive, child.pid(), 1));
    let row = named(&bus, "forker").unwrap();
    assert_eq!((row.alive, row.state, row.pid, row.pending), (true, State::Active, child.pid(), 1));

    child.kill();
    child.tell("are you there");
    child.expect("still here");
    assert_eq!(inspect(&bus).writer.state, WriterState::Absent);
    assert!(!named(&bus, "forker").unwrap().alive);
    assert!(named(&bus, "own").unwrap().alive);
    let mut writer = Writer::open(&bus).unwrap();
    let reaped = writer.reap().unwrap();
    assert_eq!(reaped.iter().map(|reader| reader.name.as_deref().unwrap()).collect::<Vec<_>>(), ["forker"]);
    let mut reader = Reader::options().name("forker").start(Start::Resume).open(&bus).unwrap();
    assert!(matches!(reader.next().unwrap(), Next::Record(record) if record.payload() == b"before"));
    child.tell("are you there");
    child.expect("still here");
}

#[test]
fn a_program_that_was_started_inherits_no_lock() {
    let place = Place::new("exec");
    let bus = new_bus(&place);
    let mut child = Child::start("starter", &bus, &[]);
    let program = child.expect("started");
    let directory = place.directory().to_str().unwrap();
    let bus_files = |process: &str| {
        let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
        let links = descriptors.filter_map(|entry| entry.unwrap().path().read_link().ok());
        links.filter(|link| link.to_str().is_some_and(|link| link.starts_with(directory))).count()
    };
    assert!(bus_files(&child.pid().to_string()) > 0);
    assert_eq!(bus_files(&program), 0);
    child.kill();
    assert!(alive(&program), "the program has ended before its time");
    assert!(!named(&bus, "starter").unwrap().alive);
    drop(Writer::open(&bus).unwrap());
    drop(Reader::options().name("starter").open(&bus).unwrap());
    assert!(alive(&program));
}

#[test]
fn a_handle_closed_while_another_thread_starts_a_program_is_closed() {
    // `posix_spawn` runs no fork handlers, and its child has copies of all descriptors until it has become the other program. Here it is
    // held up in between: it opens two fifos, and each open waits for the other end.
    let place = Place::new("spawn");
    let bus = new_bus(&place);
    let fifos = ["first", "second"].map(|name| place.directory().join(name));
    for fifo in &fifos {
        nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR).unwrap();
    }
    let writer = Writer::standby(&bus).unwrap();
    let reader = Reader::options().name("reader").open(&bus).unwrap();
    let unnamed = Reader::open(&bus).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| spawn_through(&fifos));
        let first = other_end(&fifos[0]);
        drop((writer, reader, unnamed));
        let state = inspect(&bus).writer.state;
        let alive: Vec<_> = rows(&bus).into_iter().map(|row| row.alive).collect();
        let opened = Writer::open(&bus).map(drop);
        let resumed = Reader::options().name("reader").start(Start::Resume).open(&bus).map(drop);
        drop((first, other_end(&fifos[1])));
        assert_eq!((state, &alive[..]), (WriterState::Absent, &[false][..]));
        opened.expect("the writer's lock is free");
        resumed.expect("the name is free");
    });
}

/// Opens a fifo for writing, once somebody is about to read it.
fn other_end(fifo: &Path) -> File {
    let open = || OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(fifo).ok();
    until("a child to open the fifo", open)
}

/// Starts a process that opens the fifos for reading before it becomes another program, and waits for it to end.
fn spawn_through(fifos: &[PathBuf]) {
    let paths: Vec<_> = fifos.iter().map(|path| CString::new(path.to_str().unwrap()).unwrap()).collect();
    let program = CString::new("/bin/true").unwrap();
    let arguments = [program.as_ptr().cast_mut(), std::ptr::null_mut()];
    let environment = [std::ptr::null_mut()];
    let mut pid = 0;
    // SAFETY: every pointer is to a value that outlives the calls; the actions are initialised before they are used.
    let status = unsafe {
        let mut actions = std::mem::zeroed();
        assert_eq!(libc::posix_spawn_file_actions_init(&raw mut actions), 0);
        for path in &paths {
            let added = libc::posix_spawn_file_actions_addopen(&raw mut actions, 0, path.as_ptr(), libc::O_RDONLY, 0);
            assert_eq!(added, 0);
        }
        let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
        let attributes = std::ptr::null();
        let status =
            libc::posix_spawn(&raw mut pid, program.as_ptr(), &raw const actions, attributes, arguments, environment);
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        status
    };
    assert_eq!(status, 0);
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).unwrap();
}

#[test]
fn closing_one_of_two_handles_leaves_the_other_alone() {
    let place = Place::new("twins");
    let bus = new_bus(&place);
    let mut child = Child::start("twins", &bus, &[]);
    child.expect("open");
    let lives = |name| named(&bus, name).unwrap().alive;
    assert!(lives("stays") && lives("goes"));
    child.tell("close");
    child.expect("closed");
    assert!(lives("stays") && !lives("goes"));
    assert_eq!(inspect(&bus).writer.state, WriterState::Alive);
    assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { pid, .. }) if pid == Some(child.pid())));
    // Nor do this process's handles to the same files matter.
    assert!(Bus::open(&bus).unwrap().reap().unwrap().is_empty());
    drop(Reader::options().name("goes").start(Start::Resume).open(&bus).unwrap());
    assert!(lives("stays"));
    child.tell("leave");
    child.finish();
    assert!(!lives("stays"));
    assert_eq!(inspect(&bus).writer.state, WriterState::Absent);
}

#[test]
fn an_unreaped_zombie_is_dead() {
    let place = Place::new("zombie");
    let bus = new_bus(&place);
    let mut reader = Child::start("holder", &bus, &[&""]);
    let id = reader.expect("ready");
    let mut writer = Child::start("writer", &bus, &[]);
    writer.expect("ready");
    reader.kill_unburied();
    writer.kill_unburied();
    for pid in [reader.pid(), writer.pid()] {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(stat.contains(") Z "), "{stat}");
    }
    let seen = inspect(&bus);
    assert_eq!(seen.writer.state, WriterState::Absent);
    assert!(!seen.readers.unwrap()[0].alive);
    let mut writer = Writer::open(&bus).unwrap();
    let reaped = writer.reap().unwrap();
    assert_eq!(reaped.iter().map(|reader| reader.id.to_string()).collect::<Vec<_>>(), [id]);
    assert!(rows(&bus).is_empty());
}

#[test]
fn a_stopped_process_is_alive() {
    let place = Place::new("stopped");
    let bus = new_bus(&place);
    let mut reader = Child::start("holder", &bus, &[&"stopped"]);
    reader.expect("ready");
    let mut writer = Child::start("writer", &bus, &[]);
    writer.expect("ready");
    reader.stop();
    writer.stop();
    for _ in 0..3 {
        let seen = inspect(&bus);
        assert_eq!((seen.writer.state, seen.writer.pid), (WriterState::Alive, writer.pid()));
        let row = named(&bus, "stopped").unwrap();
        assert_eq!((row.alive, row.state), (true, State::Active));
        assert!(Bus::open(&bus).unwrap().reap().unwrap().is_empty());
        assert!(matches!(Writer::open(&bus), Err(Error::WriterBusy { pid, .. }) if pid == Some(writer.pid())));
        let taken = Reader::options().name("stopped").open(&bus);
        assert!(matches!(taken, Err(Error::NameTaken { pid, .. }) if pid == Some(reader.pid())));
        assert!(matches!(Bus::remove(&bus), Err(Error::WriterBusy { .. })));
    }
    // Still the only writer when it goes on.
    writer.go_on();
    writer.tell("publish");
    writer.expect("0");
    reader.go_on();
    until("the record to be seen", || (named(&bus, "stopped").unwrap().pending == 1).then_some(()));
    reader.tell("leave");
    reader.finish();
    writer.tell("leave");
    writer.finish();
}

#[test]
fn a_full_table_says_so_and_is_fine_after_one_leaves_or_dies() {
    let place = Place::new("full");
    let bus = place.bus();
    drop(Options::new().capacity(16 << 10).readers(3).create(&bus).unwrap());
    let mut holders: Vec<_> = ["", "named", ""].map(|name| Child::start("holder", &bus, &[&name])).into();
    let ids: Vec<_> = holders.iter_mut().map(|holder| holder.expect("ready")).collect();
    let full = |live, detached| {
        let Err(error) = Reader::open(&bus) else { panic!("a reader found a slot") };
        let Error::TableFull { slots, live: l, detached: d, .. } = &error else { panic!("{error}") };
        assert_eq!((*slots, *l, *d), (3, live, detached));
        let text = error.to_string();
        assert!(text.contains("all 3 reader slots") && text.contains(&live.to_string()), "{text}");
    };
    full(3, 0);
    // One leaves.
    let mut leaves = holders.pop().unwrap();
    leaves.tell("leave");
    leaves.finish();
    let reader = Reader::open(&bus).unwrap();
    full(3, 0);
    drop(reader);
    // One dies: the next to come reclaims its slot.
    let reader = Reader::open(&bus).unwrap();
    holders.remove(0).kill();
    let second = Reader::open(&bus).unwrap();
    assert!(!rows(&bus).iter().any(|row| row.id.to_string() == ids[0]), "a dead reader's row is still there");
    full(3, 0);
    drop(second);
    // A name keeps its slot, until it is forgotten.
    holders.remove(0).kill();
    let second = Reader::open(&bus).unwrap();
    full(2, 1);
    Bus::open(&bus).unwrap().forget("named").unwrap();
    let third = Reader::open(&bus).unwrap();
    full(3, 0);
    drop((reader, second, third));
}
