//! The layout is what its page says: a decoder in C that was written from the page alone, and shares no code with lapwing, reads golden files
//! and a live bus as lapwing does.
//!
//! `LAPWING_MAKE_GOLDEN=1` makes the golden files anew, after a change of the layout.

mod common;

use bus::{Next, Observer, Options, Record, Start};
use common::{Place, ROOT, compile};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The line that the decoder prints of a record.
fn line_of(sequence: u64, tag: u32, payload: &[u8]) -> String {
    let sum = payload
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sequence} {tag} {} {sum:016x}", payload.len())
}

fn decode(decoder: &Path, ring: &Path) -> String {
    let output = Command::new(decoder).arg(ring).output().expect("it runs");
    assert!(output.status.success(), "{}: {}", ring.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A bus with everything a ring can hold: empty and large records, padding, a batch, more than one lap, an end.
fn make(path: &Path, stamped: bool) {
    let mut writer = Options::new().capacity(4096).stamped(stamped).create(path).expect("a bus");
    for i in 0..200u32 {
        let payload: Vec<u8> = (0..i * 37 % 700).map(|k| (k * i) as u8).collect();
        writer.publish_tagged(i.wrapping_mul(0x9e37_79b9), &payload).expect("room");
    }
    let mut batch = writer.batch();
    for tag in [1, 2, 3] {
        batch.push_tagged(tag, b"together").expect("room");
    }
    batch.commit().expect("room");
    writer.publish(b"").expect("room");
    writer.close_with(7, "golden").expect("an end");
}

fn golden(name: &str) -> PathBuf {
    Path::new(ROOT).join("ffi/tests/golden").join(name)
}

#[test]
fn golden_files_read_as_ever() {
    if std::env::var_os("LAPWING_MAKE_GOLDEN").is_some() {
        for (name, stamped) in [("plain.ring", false), ("stamped.ring", true)] {
            let place = Place::new(name);
            make(&place.bus, stamped);
            fs::copy(&place.bus, golden(name)).expect("a copy");
        }
    }
    let decoder = compile("ffi/tests/c/decoder.c");
    for name in ["plain", "stamped"] {
        let ring = golden(&format!("{name}.ring"));
        // By lapwing.
        let mut observer = Observer::open(&ring, Start::Oldest).expect("a golden file of this layout");
        let mut read = String::new();
        let mut print = |record: Record<'_>| {
            writeln!(read, "{}", line_of(record.sequence(), record.tag(), record.payload())).expect("memory");
            assert_eq!(record.stamp().is_some(), name == "stamped");
        };
        loop {
            match observer.try_next().expect("it reads") {
                Next::Record(record) => print(record),
                Next::Closed(closed) => {
                    assert_eq!((closed.sequence, closed.code, closed.reason.as_str()), (204, 7, "golden"));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        if std::env::var_os("LAPWING_MAKE_GOLDEN").is_some() {
            fs::write(golden(&format!("{name}.txt")), &read).expect("written");
        }
        let expected = fs::read_to_string(golden(&format!("{name}.txt"))).expect("what it should read as");
        assert!(expected.lines().count() > 8 && expected.ends_with(&format!("{}\n", line_of(203, 0, b""))));
        assert_eq!(read, expected, "{name}: by lapwing");
        // By the stranger.
        if let Some(decoder) = &decoder {
            assert_eq!(decode(decoder, &ring), expected, "{name}: by the decoder");
        }
    }
}

#[test]
fn the_decoder_follows_a_live_bus() {
    let Some(decoder) = compile("ffi/tests/c/decoder.c") else { return };
    let place = Place::new("decoder");
    let mut writer = Options::new().capacity(1 << 16).create(&place.bus).expect("a bus");
    let payload = |i: u64| vec![i as u8; (i * 31 % 97) as usize];
    writer.publish_tagged(0, &payload(0)).expect("room");
    let mut child =
        Command::new(decoder).arg(&place.bus).arg("--follow").stdout(Stdio::piped()).spawn().expect("it runs");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    let count = 200_000;
    let reader = std::thread::spawn(move || {
        // It begins with the oldest record there is when it comes.
        let (mut next, mut records, mut missed) = (None, 0u64, 0);
        for line in output.lines() {
            let line = line.expect("text");
            let first = || line.split(' ').next().and_then(|first| first.parse().ok()).expect("a sequence");
            let next = next.get_or_insert_with(|| {
                missed = first();
                missed
            });
            if let Some(gap) = line.strip_prefix("gap ") {
                let (first, end) = gap.split_once(' ').expect("two numbers");
                assert_eq!(first.parse(), Ok(*next), "a gap begins where the records end");
                let end: u64 = end.parse().expect("a number");
                missed += end - *next;
                *next = end;
            } else {
                assert_eq!(line, line_of(*next, *next as u32, &payload(*next)));
                *next += 1;
                records += 1;
            }
        }
        (next, records, missed)
    });
    for i in 1..count {
        writer.publish_tagged(i as u32, &payload(i)).expect("room");
    }
    writer.close().expect("an end");
    assert!(child.wait().expect("it ends").success());
    let (next, records, missed) = reader.join().expect("all lines were right");
    assert_eq!((next, records + missed), (Some(count), count));
}

#[test]
fn the_page_is_the_modules_docs() {
    let source = fs::read_to_string(Path::new(ROOT).join("src/layout.rs")).expect("the module");
    let mut page =
        String::from("<!-- The docs of the module `layout`, word for word; see ffi/tests/layout.rs. -->\n\n");
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        writeln!(page, "{}", line.strip_prefix(' ').unwrap_or(line)).expect("memory");
    }
    let path = Path::new(ROOT).join("docs/LAYOUT.md");
    if std::env::var_os("LAPWING_MAKE_GOLDEN").is_some() {
        fs::write(&path, &page).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == page,
        "docs/LAYOUT.md is out of date: LAPWING_MAKE_GOLDEN=1 cargo test -p lapwing-ffi --test layout"
    );
}
