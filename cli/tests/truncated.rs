//! A bus that is truncated while commands use it: an error with its exit code, no death by signal.

mod support;

use std::fs::OpenOptions;
use std::io::Write;
use support::{Place, Process, until};

#[test]
fn a_bus_truncated_in_use_is_exit_code_6() {
    let place = Place::created(&[]);
    let bus = place.bus();
    let mut writer = Process::with_output(&["--json", "pub", &bus]).0;
    until(&bus, "no writer", |stat| stat["writer"]["state"] == "alive");
    let mut others: Vec<_> = [&[][..], &["--class", "pinned"], &["--class", "observer"]]
        .into_iter()
        .map(|extra| {
            let mut process = Process::spawn(&[&["--json", "sub", &bus], extra].concat());
            process.expect("attached");
            process
        })
        .collect();
    OpenOptions::new().write(true).open(&bus).unwrap().set_len(0).unwrap();
    // The first line may go down with the file, the second finds it gone.
    writer.stdin.as_mut().unwrap().write_all(b"one\ntwo\n").unwrap();
    others.push(writer);
    for process in others {
        let ran = process.end();
        assert_eq!(ran.code, 6, "{}", ran.stderr);
        assert!(ran.stderr.contains("truncated while it was in use"), "{}", ran.stderr);
    }
}
