//! Checks what a command told against its schema in `cli/schema`.

use serde_json::Value;
use std::path::Path;

/// Panics with everything that is wrong.
pub(crate) fn validate(command: &str, value: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema").join(command).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let schema: Value = serde_json::from_str(&text).expect("a schema is JSON");
    jsonschema::meta::validate(&schema).expect("a schema that its meta-schema allows");
    let validator = jsonschema::validator_for(&schema).expect("a sound schema");
    let wrong: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(wrong.is_empty(), "{command}: {wrong:#?}\n{value:#}");
}
