//! Each snippet of C, C++ and Python in the READMEs, the headers and the package is compiled, run, and says what it should.

mod common;

use common::{Place, ROOT, compile_text, python};
use std::fs;
use std::process::Command;

/// The bus of the examples, as they write it.
const HELLO: &str = "\"/dev/shm/hello\"";

/// The fenced blocks of a language, in the order of the page.
fn snippets(place: &Place, page: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{ROOT}/{page}")).expect("a page");
    let fence = format!("```{language}\n");
    let body = |rest: &str| moved_to(place, rest.split("```").next().unwrap_or_default());
    text.split(&fence).skip(1).map(body).collect()
}

/// The example at the head of a source: the first lines that begin with `indent`, blank ones (which lack its spaces) among them.
fn example(source: &str, indent: &str) -> String {
    let text = fs::read_to_string(format!("{ROOT}/{source}")).expect("a source");
    let blank = indent.trim_end();
    let lines = text.lines().skip_while(|line| !line.starts_with(indent));
    let lines = lines.map_while(|line| line.strip_prefix(indent).or((line == blank).then_some("")));
    let example = lines.collect::<Vec<_>>().join("\n");
    assert!(example.lines().count() > 3, "{source}: {example}");
    example
}

/// With its buses where no other run of this test is.
fn moved_to(place: &Place, snippet: &str) -> String {
    snippet.replace("\"/dev/shm/", &format!("\"{}/", place.directory.display()))
}

fn output_of(mut command: Command, what: &str) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

// One test, since the snippets share their paths.
#[test]
fn the_snippets_of_the_readmes_run() {
    let place = Place::new("readme");
    for (language, extension) in [("c", "c"), ("cpp", "cpp")] {
        let found = snippets(&place, "README.md", language);
        assert_eq!(found.len(), 1, "{language}");
        let program = compile_text(&format!("readme.{extension}"), &found[0]);
        let Some(program) = program else { continue };
        assert_eq!(output_of(Command::new(program), language), "hello\n", "{language}");
    }
    // What stands around it, C++ programmers know.
    let around = |example| {
        format!(
            "#include <iostream>\n#include <lapwing.hpp>\nint main() {{\n{example}\nlapwing_bus_remove({HELLO});\n}}\n"
        )
    };
    // The command that compiles it comes after it.
    let header = example("include/lapwing.h", " *     ");
    let header = header.split("\ncc ").next().unwrap_or_default().to_string();
    let heads = [
        ("lapwing.h.c", moved_to(&place, &header)),
        ("lapwing.hpp.cpp", moved_to(&place, &around(example("include/lapwing.hpp", " *     ")))),
    ];
    for (name, text) in heads {
        let Some(program) = compile_text(name, &text) else { continue };
        assert_eq!(output_of(Command::new(program), name), "hello\n", "{name}");
    }
    if let Some(mut command) = python() {
        let example = example("python/lapwing/__init__.py", "    ");
        command.arg("-c").arg(moved_to(&place, &format!("{example}\nlapwing.remove({HELLO})")));
        assert_eq!(output_of(command, "__init__.py"), "Record(sequence=0, tag=7, stamp_ns=0, data=b'hello')\n");
    }
    let pages =
        [("README.md", vec!["hello\n"]), ("python/README.md", vec!["['order 1', 'order 2', 'order 3']\n", "missed "])];
    for (page, expected) in pages {
        let found = snippets(&place, page, "python");
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
