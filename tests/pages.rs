//! What the pages name is there: each test of `docs/TRUST.md`.

use std::path::Path;

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/TRUST.md")).unwrap();
    let mut named = 0;
    for (file, test) in page.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")) {
        let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("fn {test}(")), "{file} has no test {test}");
        named += 1;
    }
    assert!(named > 50, "only {named} tests were found on the page");
}
