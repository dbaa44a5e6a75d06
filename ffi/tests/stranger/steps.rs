//! Orders of the page that matter only while somebody else comes in between: the stranger is led there, and the test is the somebody else.

use crate::common::Place;
use crate::led::{Led, Words};
use crate::{Stranger, assert_books, line_of, publish, publish_all, setup};
use bus::{Next, Reader, State, Writer};

// ---- join -------------------------------------------------------------------------------------------------------

/// Step 2: the state is looked at once more under the lock.
#[test]
fn a_slot_that_gets_a_name_as_the_stranger_takes_its_lock_is_let_be() {
    let Some((program, place, writer)) = setup("stranger-second-look") else { return };
    let mut stranger = Stranger::start(&program, &place, &["wait"]);
    stranger.expect("attached");
    let led = Led::hold(stranger);
    led.enter_one_of(&[libc::SYS_fcntl]);
    // Comes and goes between the look and the lock, and its name stays.
    let reader = Reader::options().name("kept").open(&place.bus).expect("a slot");
    drop(reader);
    let mut stranger = led.let_go();
    stranger.expect("joined 0");
    let readers = writer.readers().expect("the table");
    let rows: Vec<_> = readers.iter().map(|row| (row.name.as_deref(), row.state)).collect();
    assert_eq!(rows, [(Some("kept"), State::Detached), (None, State::Active)]);
    writer.close().expect("an end");
    stranger.ends();
}

/// Step 6 comes before step 7. The slot is one that a reader left which had read everything.
#[test]
fn a_joining_stranger_stands_where_it_will_read() {
    let Some((program, place, mut writer)) = setup("stranger-joining") else { return };
    let mut reader = Reader::open(&place.bus).expect("a slot");
    for sequence in 0..100 {
        publish(&mut writer).expect("room");
        assert!(matches!(reader.next().expect("no error"), Next::Record(record) if record.sequence() == sequence));
    }
    reader.commit();
    drop(reader);
    let mut stranger = Stranger::start(&program, &place, &["oldest", "wait"]);
    stranger.expect("attached");
    let (led, words) = (Led::hold(stranger), Words::of(&place.bus));
    led.step_until("its slot is joining", || words.slot("control") & 0xff == 1);
    // From this instruction on it holds the writer up, and so at the right place.
    let overrun = publish_all(&mut writer);
    let [ref info] = overrun.readers[..] else { panic!("{overrun:?}") };
    let last = writer.next_sequence();
    assert_eq!((info.state, info.start, info.cursor, info.pending), (State::Joining, 0, 0, last));
    let mut stranger = led.let_go();
    stranger.expect("joined 0");
    writer.close().expect("an end");
    for sequence in 0..last {
        stranger.expect(&line_of(sequence));
    }
    stranger.ends();
}

/// Step 9, and how a jump is prepared. The writer is far ahead by the time that the slot holds it up, and knows of no reader.
#[test]
fn a_stranger_that_is_overtaken_as_it_joins_starts_higher() {
    let Some((program, place, mut writer)) = setup("stranger-overtaken") else { return };
    let mut stranger = Stranger::start(&program, &place, &["oldest", "wait", "lazy"]);
    stranger.expect("attached");
    let (led, words) = (Led::hold(stranger), Words::of(&place.bus));
    led.step_until("it has chosen its place, and then its id", || words.slot("id") == 1);
    while writer.next_sequence() < 20_000 {
        publish(&mut writer).expect("nobody is in the way");
    }
    let counted = || words.slot("missed_b_as_of") != u64::MAX;
    led.step_until("it has counted what it jumps over", || counted() || words.slot("control") & 0xff == 2);
    assert!(counted(), "it is active, and has counted nothing");
    // All is there by then, and none of it counts yet.
    let first = words.slot("missed_b_as_of");
    assert!(first > 0, "it stays where everything was overwritten");
    let book =
        ["missed_b", "gap_first", "gap_end", "missed_a", "missed_a_as_of", "sequence"].map(|name| words.slot(name));
    assert_eq!(book, [first, 0, first, 0, 0, 0]);
    let mut stranger = led.let_go();
    stranger.expect(&format!("joined {first}"));
    stranger.expect(&format!("gap 0 {first}"));
    stranger.expect(&line_of(first));
    let overrun = publish_all(&mut writer);
    let [ref info] = overrun.readers[..] else { panic!("{overrun:?}") };
    assert_eq!((info.state, info.start, info.cursor), (State::Active, 0, first));
    let last = writer.next_sequence();
    assert_books(info, last, first);
    writer.close().expect("an end");
    for sequence in first + 1..last {
        stranger.go_on();
        stranger.expect(&line_of(sequence));
    }
    stranger.go_on();
    stranger.ends();
}

// ---- commit, sleep and leave --------------------------------------------------------------------------------------

/// A stranger that has printed record 0 and is told to go on, and its bus's words.
fn about_to_commit(name: &str) -> Option<(Place, Writer, Led, Words)> {
    let (program, place, mut writer) = setup(name)?;
    publish(&mut writer).expect("room");
    let mut stranger = Stranger::start(&program, &place, &["oldest", "lazy"]);
    stranger.expect("joined 0");
    stranger.expect(&line_of(0));
    let (led, words) = (Led::hold(stranger), Words::of(&place.bus));
    assert_eq!((words.table("sleep"), words.slot("position"), words.slot("sequence")), (0, 0, 0));
    Some((place, writer, led, words))
}

#[test]
fn a_stranger_that_commits_or_leaves_wakes_a_writer_that_waits() {
    let Some((_place, mut writer, led, words)) = about_to_commit("stranger-commit") else { return };
    let size = bus::layout::record_size(bus::layout::RECORD_HEADER, 0);
    let space = words.table("space");
    // As a writer that waits for the room of the first record.
    words.store_ring("waiting", size);
    led.step_until("its cursor moves", || (words.slot("position"), words.slot("sequence")) != (0, 0));
    assert_eq!((words.slot("position"), words.slot("sequence")), (size, 0), "the position goes first");
    let call = led.enter_one_of(&[libc::SYS_futex]);
    assert_eq!(call[2] as i32, libc::FUTEX_WAKE, "it does something else");
    assert_eq!((words.slot("position"), words.slot("sequence"), words.table("space")), (size, 1, space + 1));
    words.store_ring("waiting", 0);
    let mut stranger = led.let_go();
    publish(&mut writer).expect("room");
    stranger.expect(&line_of(1));
    assert_eq!(words.table("space"), space + 1);
    stranger.go_on();
    writer.close().expect("an end");
    stranger.ends();
    assert_eq!(words.table("space"), space + 2);
}

/// Step 1 of sleeping comes before step 2.
#[test]
fn a_stranger_does_not_sleep_through_a_wake_that_takes_its_flag() {
    let Some((_place, mut writer, led, words)) = about_to_commit("stranger-flag") else { return };
    let flag_is_set = || words.table("sleep") & 1 == 1;
    led.step_until("the sleep flag is set", flag_is_set);
    // A writer that published record 0, and comes to look at the flag only now. Nothing is left to be found, and nobody sleeps yet.
    let wake = words.table("wake") + 1;
    words.store_table("sleep", 0);
    words.store_table("wake", wake);
    let call = led.enter_one_of(&[libc::SYS_futex]);
    assert_ne!(call[3] as u32, wake as u32, "it sleeps, and the flag by which the writer knows is cleared");
    // It tries anew.
    led.step_until("the sleep flag is set again", flag_is_set);
    let call = led.enter_one_of(&[libc::SYS_futex]);
    assert_eq!((call[3] as u32, flag_is_set()), (wake as u32, true));
    let mut stranger = led.let_go();
    publish(&mut writer).expect("room");
    stranger.expect(&line_of(1));
    stranger.go_on();
    writer.close().expect("an end");
    stranger.ends();
}

/// Steps 3 and 4: after the fence, and not before, it looks again.
#[test]
fn a_stranger_finds_what_came_while_it_set_its_flag() {
    let Some((_place, mut writer, led, words)) = about_to_commit("stranger-look") else { return };
    led.step_until("the sleep flag is set", || words.table("sleep") & 1 == 1);
    let call = led.enter_one_of(&[libc::SYS_membarrier, libc::SYS_futex]);
    assert_eq!(call[0] as i64, libc::SYS_membarrier, "it sleeps without a fence");
    // A writer whose look at the flag came before: it wakes nobody, and its commit is seen from the fence on.
    let flag = words.table("sleep");
    words.store_table("sleep", 0);
    publish(&mut writer).expect("room");
    words.store_table("sleep", flag);
    led.finish_call();
    let call = led.enter_one_of(&[libc::SYS_write, libc::SYS_futex]);
    assert_eq!(call[0] as i64, libc::SYS_write, "it sleeps, and a record is there");
    let mut stranger = led.let_go();
    stranger.expect(&line_of(1));
    stranger.go_on();
    writer.close().expect("an end");
    stranger.ends();
}
