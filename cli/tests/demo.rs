//! The demo, as someone sees it who has just built it.

mod support;

use std::fs;
use support::run;

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
