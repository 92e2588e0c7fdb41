//! What a validator that is not ours says of the documents that programs read.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::fixture;

/// What python's jsonschema says against a document; nothing where it keeps `docs/schema/NAME.json`.
#[track_caller]
pub(crate) fn against_schema(name: &str, document: &[u8]) -> String {
    let script = "import json, sys, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
for error in jsonschema.Draft202012Validator(schema).iter_errors(json.load(sys.stdin)):
    print(error.json_path, error.message[:200])";
    let schema = fixture(&format!("../../docs/schema/{name}.json"));
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(schema).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut python = python.spawn().expect("python3 runs");
    python.stdin.take().expect("piped").write_all(document).expect("python3 reads it");
    let output = python.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "python3 has no jsonschema: install the package python3-jsonschema (tests/setup/packages)");
    String::from_utf8(output.stdout).expect("python writes text")
}
