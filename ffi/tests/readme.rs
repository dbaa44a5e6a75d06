//! Each snippet of C, C++ and Python in the READMEs is compiled, run, and says what it should.

mod common;

use common::{ROOT, compile_text, directory, python};
use std::fs;
use std::process::Command;

/// The fenced blocks of a language, in the order of the page.
fn snippets(page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/{page}")).expect("a page");
    let fence = format!("```{language}\n");
    // Where no other run of this test is.
    let place = format!("\"{}/lapwing-readme-{}-", directory(), std::process::id());
    let body = |rest: &str| rest.split("```").next().unwrap_or_default().replace("\"/dev/shm/", &place);
    text.split(&fence).skip(1).map(body).collect()
}

fn output_of(mut command: Command, what: &str) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

// One test, since the snippets share their paths.
#[test]
fn the_snippets_of_the_readmes_run() {
    for (language, extension) in [("c", "c"), ("cpp", "cpp")] {
        let found = snippets("README.md", language);
        assert_eq!(found.len(), 1, "{language}");
        let program = compile_text(&format!("readme.{extension}"), &found[0]);
        let Some(program) = program else { continue };
        assert_eq!(output_of(Command::new(program), language), "hello\n", "{language}");
    }
    let pages =
        [("README.md", vec!["hello\n"]), ("python/README.md", vec!["['order 1', 'order 2', 'order 3']\n", "missed "])];
    for (page, expected) in pages {
        let found = snippets(page, "python");
        assert_eq!(found.len(), expected.len(), "{page}");
        for (snippet, expected) in found.iter().zip(expected) {
            let Some(mut command) = python() else { return };
            command.arg("-c").arg(snippet);
            let output = output_of(command, page);
            assert!(output.starts_with(expected), "{page}: {output}");
            assert!(!output.contains("False"), "{page}: {output}");
        }
    }
}
