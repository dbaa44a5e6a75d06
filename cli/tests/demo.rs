//! The demo, as someone sees it who has just built it.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use support::{Process, run};

#[test]
fn the_demo_accounts_for_every_record_and_leaves_nothing() {
    let ran = run(&["demo"], b"");
    let text = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.code, 0, "{text}\n{}", ran.stderr);
    assert!(!text.contains("FAILED") && text.contains("published = delivered + missed + pending"), "{text}");
    for word in ["overrun: record", "warning: 90 %", "kill -9", "resumes", "takeover", "gap: missed"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let left = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let left = left.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Of processes that are no more; another demo may run.
        name.strip_prefix("lapwing-demo-").is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true))
    });
    assert_eq!(left.count(), 0);
}

/// The process that this one started with these words.
fn child_of(parent: u32, words: &str) -> Option<Pid> {
    fs::read_dir("/proc").expect("/proc").flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let its_parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
        let found = its_parent == parent.to_string() && String::from_utf8_lossy(&line).contains(words);
        found.then_some(Pid::from_raw(pid))
    })
}

#[test]
fn the_demo_fails_if_one_of_its_processes_does_not_live_to_the_end() {
    let (demo, output) = Process::with_output(&["demo"]);
    let mut lines = BufReader::new(output).lines().map(|line| line.expect("text"));
    lines.find(|line| line.contains("observer: attached")).expect("the observer's first report");
    let observer = child_of(demo.pid(), "\0--class\0observer").expect("the observer");
    kill(observer, Signal::SIGKILL).expect("it lives");
    let rest: Vec<_> = lines.collect();
    let ran = demo.end();
    assert_eq!(ran.code, 1, "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("FAILED  each process ended by itself")), "{rest:?}");
}
