//! What `roche contents` and `roche diff` say of an image is what tar and docker say of it.
//!
//! Red when: a path, mode, owner, size or link of an image is another one than in docker's own export; an image is read otherwise
//! from a store, an archive, a layout or a registry; a difference is missed or made up; a document does not keep
//! its schema; a line is longer than the terminal.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Ended, Roche, Tar, against_schema, docker_archive};

mod differences;
mod docker;
mod places;
mod terminal;

/// `roche` in a folder, with no daemon but what is added.
fn roche(dir: &Path) -> Roche {
    Roche::new(dir).env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
}

#[track_caller]
fn json_of(ended: Ended, schema: &str) -> Value {
    let ended = ended.succeeds();
    assert_eq!(against_schema(schema, &ended.stdout), "", "{}", ended.story());
    serde_json::from_slice(&ended.stdout).expect("the validator has read it")
}

#[track_caller]
fn contents(roche: Roche, image: impl AsRef<OsStr>) -> Value {
    json_of(roche.args(["contents", "--json"]).arg(image).run(), "contents-1")
}

/// Every path with what is known of it: type letter, mode, owner, group, size or link.
type Files = BTreeMap<String, String>;

fn files(contents: &Value) -> Files {
    let mut files = Files::new();
    for file in contents["files"].as_array().expect("a list") {
        let path = file["path"].as_str().expect("a path").to_owned();
        let kind = match file["kind"].as_str().expect("a kind") {
            "file" => format!("f {}", file["sizeBytes"]),
            "folder" => "d".to_owned(),
            "symlink" => format!("l {}", file["target"].as_str().expect("a target")),
            "charDevice" => format!("c {}", file["device"]),
            "blockDevice" => format!("b {}", file["device"]),
            other => other.to_owned(),
        };
        let line = format!("{} {}:{} {kind}", file["mode"].as_str().expect("a mode"), file["uid"], file["gid"]);
        files.insert(path, line);
    }
    files
}

#[test]
fn what_is_worth_a_look_is_found_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let layers = [
        Tar::default()
            .folder("etc")
            .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
            .program("su", 0o4755)
            .program("wall", 0o2755)
            .entry(b'0', b"open", 0o666, b"", b"x")
            .entry(b'5', b"tmp", 0o1777, b"", b"")
            .pax(&[(b"SCHILY.xattr.security.capability", &capability)])
            .program("ping", 0o755)
            .file("app/.env", "TOKEN=first-secret")
            .file("tls.pem", "-----BEGIN PRIVATE KEY-----\n")
            .file("ca.pem", "-----BEGIN CERTIFICATE-----\n")
            .end(),
        Tar::default().file("app/.wh..env", "").end(),
    ];
    let more = json!({
        "config": {"Env": ["PATH=/bin", "DB_PASSWORD=second-secret"], "User": "me"},
        "history": [{"created_by": "|1 NPM_TOKEN=third-secret /bin/sh -c make"}, {"created_by": "rm"}],
    });
    let archive = docker_archive(&folder.path().join("a.tar"), &layers, more);
    let shown = contents(roche(folder.path()), &archive);
    let findings: Vec<(String, String, bool)> = shown["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let what = finding["path"].as_str().or(finding["variable"].as_str()).unwrap();
            (finding["kind"].as_str().unwrap().to_owned(), what.to_owned(), finding["hidden"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("secret", "/app/.env", true),
        ("secret", "/tls.pem", false),
        ("secretVariable", "DB_PASSWORD", false),
        ("secretArgument", "NPM_TOKEN", false),
        ("setuid", "/su", false),
        ("setgid", "/wall", false),
        ("capabilities", "/ping", false),
        ("worldWritable", "/open", false),
    ];
    assert_eq!(findings, expected.map(|(kind, what, hidden)| (kind.to_owned(), what.to_owned(), hidden)));
    let text = roche(folder.path()).args(["contents", "--all"]).arg(&archive).run().succeeds().stdout_text();
    assert!(text.contains("cap_net_bind_service=ep") && text.contains("hidden, and can still be read"), "{text}");
    let other = docker_archive(&folder.path().join("b.tar"), &layers, json!({}));
    let difference = roche(folder.path()).arg("diff").args([&archive, &other]).run().succeeds().stdout_text();
    for output in [&text, &shown.to_string(), &difference] {
        for secret in ["first-secret", "second-secret", "third-secret"] {
            assert!(!output.contains(secret), "{secret} is in\n{output}");
        }
    }
}
