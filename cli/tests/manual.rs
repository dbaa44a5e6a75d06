//! The manual pages and completions know every word, and no hidden one.

mod support;

use std::process::{Command, Stdio};
use std::{fs, io::Write as _};
use support::{Place, run};

fn words() -> Vec<String> {
    let help = String::from_utf8(run(&["--help"], b"").stdout).expect("text");
    let listed =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.starts_with("Options:"));
    let words = listed.filter_map(|line| {
        line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split(' ').next().map(str::to_owned)
    });
    words.filter(|word| !word.is_empty() && word != "help").collect()
}

#[test]
fn every_word_has_a_page() {
    let place = Place::new();
    let ran = run(&["man", &place.path("")], b"");
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words = words();
    assert!(words.len() > 12, "{words:?}");
    for word in &words {
        let page = fs::read_to_string(place.path(&format!("lapwing-{word}.1")))
            .unwrap_or_else(|_| panic!("no page for {word}"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH OPTIONS"), "{word}:\n{page}");
    }
    let main = fs::read_to_string(place.path("lapwing.1")).expect("the page of the command");
    assert!(main.contains("no event lost in silence") && main.contains("Exit codes"), "{main}");
    let pages = fs::read_dir(place.path("")).expect("the place").count();
    assert_eq!(pages, words.len() + 1);
    assert_eq!(run(&["man", &place.path("nowhere")], b"").code, 1);
}

#[test]
fn completions_offer_every_word() {
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&["completions", shell], b"");
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let script = String::from_utf8(ran.stdout).expect("text");
        for word in words() {
            assert!(script.contains(&word), "{shell}: {word}");
        }
        assert!(!script.contains("bench-peer"), "{shell}");
        // Each shell that is here says whether it is sound.
        let Ok(mut child) = Command::new(shell).arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
            continue;
        };
        child.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("it reads");
        let ended = child.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{shell}: {}", String::from_utf8_lossy(&ended.stderr));
    }
    assert_eq!(run(&["completions", "csh"], b"").code, 2);
}
