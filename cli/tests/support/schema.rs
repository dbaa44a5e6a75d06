//! The schemas in `cli/schema`, against which every line of JSON is held that a test makes a command tell.

use jsonschema::{Registry, Validator};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, PoisonError};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema");
const BASE: &str = "file:///schema/";

/// What one command may tell.
pub struct Schema {
    command: String,
    validator: Validator,
}

/// The schema of a command line with `--json`; every command that tells JSON has one.
pub fn of(args: &[&str]) -> Option<Schema> {
    let command = args.iter().find(|arg| !arg.starts_with('-'))?;
    args.contains(&"--json").then(|| Schema::of(command))
}

fn document(name: &str) -> Value {
    let path = format!("{DIRECTORY}/{name}");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all schemas.
pub fn names() -> BTreeSet<String> {
    let entries = fs::read_dir(DIRECTORY).expect("the schemas");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect()
}

impl Schema {
    pub fn of(command: &str) -> Self {
        let mut registry = Registry::new();
        for name in names() {
            registry = registry.add(format!("{BASE}{name}"), document(&name)).expect("a schema");
        }
        let registry = registry.prepare().expect("schemas that refer to each other");
        let options = jsonschema::options().with_registry(&registry).with_base_uri(BASE);
        let validator = options.build(&document(&format!("{command}.json"))).expect("a sound schema");
        Self { command: command.to_owned(), validator }
    }

    /// `pub` and `sub` have data there.
    pub fn data_on_stdout(&self) -> bool {
        matches!(self.command.as_str(), "pub" | "sub")
    }

    /// Holds a line against the schema. What is no JSON is for others to complain about: usage errors are in words.
    pub fn check(&self, line: &str) {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return };
        let errors: Vec<_> = self.validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{} told {line}, which its schema does not know: {errors:#?}", self.command);
        let kind = value["event"].as_str().unwrap_or("result").to_owned();
        SEEN.lock().unwrap_or_else(PoisonError::into_inner).insert((self.command.clone(), kind));
    }
}

/// Holds one value that a command told against its schema.
pub fn validate(command: &str, value: &Value) {
    Schema::of(command).check(&value.to_string());
}

static SEEN: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());

/// The kinds of line that a command told so far in this process.
pub fn seen(command: &str) -> BTreeSet<String> {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().filter(|(of, _)| of == command).map(|(_, kind)| kind.clone()).collect()
}
