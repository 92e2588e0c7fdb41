//! The crates of the service, by the real cargo: what is in the program, and what only helped to
//! build it.
//!
//! `cargo tree` and not `cargo metadata` decides: the latter counts features of crates that no
//! target builds, and with them ten crates too many. The lists in `crates/` and in the template
//! are written anew by
//!
//! ```sh
//! ROCHE_WRITE_CRATES=1 cargo test -p roche-frontend --test crates
//! ```
#![cfg(target_os = "linux")]
// A test of its own crate: clippy does not see that its functions are tests'.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

const WRITE: &str = "ROCHE_WRITE_CRATES=1 cargo test -p roche-frontend --test crates";

/// The architectures with the targets that share a list.
const LISTS: [(&str, [&str; 2]); 2] = [
    ("linux-aarch64", ["aarch64-unknown-linux-gnu", "aarch64-unknown-linux-musl"]),
    ("linux-x86_64", ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl"]),
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

#[test]
fn the_lists_are_what_cargo_builds() {
    let write = std::env::var_os("ROCHE_WRITE_CRATES").is_some();
    let packages = packages();
    for (name, targets) in LISTS {
        let list = list(targets[0], &packages);
        assert_eq!(list, self::list(targets[1], &packages), "gnu and musl have other crates: they need lists of their own");
        let pretty = serde_json::to_string_pretty(&list).unwrap() + "\n";
        let audit = audit(&list).to_string();
        let (file, section) =
            (root().join(format!("crates/{name}.json")), root().join(format!("template/runtime/crates/{name}.z")));
        if write {
            let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            packed.write_all(audit.as_bytes()).unwrap();
            fs::write(&file, &pretty).unwrap();
            fs::write(&section, packed.finish().unwrap()).unwrap();
        }
        assert!(fs::read_to_string(&file).unwrap() == pretty, "{} is not what cargo says; run {WRITE}", file.display());
        let mut unpacked = String::new();
        ZlibDecoder::new(&fs::read(&section).unwrap()[..]).read_to_string(&mut unpacked).unwrap();
        assert!(unpacked == audit, "{} is not what cargo says; run {WRITE}", section.display());
    }
    let hash = hash(["Cargo.lock", "Cargo.toml", "runtime/Cargo.toml"]).to_le_bytes();
    let file = root().join("template/runtime/crates/made-of");
    if write {
        fs::write(&file, hash).unwrap();
    }
    assert_eq!(fs::read(file).unwrap(), hash, "the lists are of other manifests; run {WRITE}");
}

/// Runs cargo in the template.
fn cargo(args: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(args).arg("--locked").current_dir(root().join("template")).output().unwrap();
    assert!(output.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

type Id = (String, String);

/// Source and licence by name and version.
fn packages() -> BTreeMap<Id, (Option<String>, Option<String>)> {
    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version=1"])).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let one = |package: &Value| {
        let id = (text(&package["name"]).unwrap(), text(&package["version"]).unwrap());
        // What older manifests write for "or".
        let licence = text(&package["license"]).map(|licence| licence.replace(" / ", "/").replace('/', " OR "));
        (id, (text(&package["source"]), licence))
    };
    metadata["packages"].as_array().unwrap().iter().map(one).collect()
}

/// The sha256 of each package's archive, out of the lock.
fn checksums() -> BTreeMap<Id, String> {
    let lock = fs::read_to_string(root().join("template/Cargo.lock")).unwrap();
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")))?;
        Some(line.trim_matches('"').to_owned())
    };
    let blocks = lock.split("[[package]]").skip(1);
    blocks.filter_map(|block| Some(((value(block, "name")?, value(block, "version")?), value(block, "checksum")?))).collect()
}

/// A package as cargo uses it.
#[derive(Default)]
struct Used {
    features: BTreeSet<String>,
    dependencies: BTreeSet<Id>,
    is_runtime: bool,
}

/// Returns what a target builds. A package that is compiled for the target and for the build has
/// the features of both.
fn used(target: &str) -> BTreeMap<Id, Used> {
    let mut used: BTreeMap<Id, Used> = BTreeMap::new();
    for (edges, is_runtime) in [("normal", true), ("normal,build", false)] {
        let tree = cargo(&["tree", "--target", target, "--edges", edges, "--prefix=depth", "--no-dedupe", "--format=|{p}|{f}"]);
        // The packages above the line at hand, each with whether it is part of the program.
        let mut above: Vec<(Id, bool)> = Vec::new();
        for line in tree.lines().filter(|line| !line.is_empty()) {
            let [depth, package, features] = line.splitn(3, '|').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let mut words = package.split(' ');
            let id = (words.next().unwrap().to_owned(), words.next().unwrap()[1..].to_owned());
            above.truncate(depth.parse().unwrap());
            let inside = above.last().is_none_or(|(_, inside)| *inside) && !package.contains("(proc-macro)");
            if let Some((parent, _)) = above.last() {
                used.get_mut(parent).unwrap().dependencies.insert(id.clone());
            }
            let entry = used.entry(id.clone()).or_default();
            entry.is_runtime |= inside && is_runtime;
            entry.features.extend(features.split(',').filter(|name| !name.is_empty()).map(str::to_owned));
            above.push((id, inside));
        }
    }
    used
}

/// The list for a target: everything that is known of each crate.
fn list(target: &str, packages: &BTreeMap<Id, (Option<String>, Option<String>)>) -> Value {
    let (used, checksums) = (used(target), checksums());
    let number = |id: &Id| used.keys().position(|other| other == id).unwrap();
    let list: Vec<Value> = used
        .iter()
        .map(|(id, package)| {
            let (source, licence) = &packages[id];
            let source = match source.as_deref() {
                None => "local",
                Some(CRATES_IO) => "crates.io",
                Some(other) => panic!("{id:?} comes from {other}"),
            };
            let checksum = checksums.get(id);
            assert_eq!(checksum.is_some(), source == "crates.io", "{id:?}");
            json!({
                "name": id.0,
                "version": id.1,
                "source": source,
                "kind": if package.is_runtime { "runtime" } else { "build" },
                "root": id.0 == "roche-service",
                "checksum": checksum,
                "license": licence,
                "features": package.features,
                "dependencies": package.dependencies.iter().map(number).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "packages": list })
}

/// The same as far as cargo-auditable's format has a place for it.
fn audit(list: &Value) -> Value {
    let packages = list["packages"].as_array().unwrap().iter().map(|package| {
        let mut kept = json!({"name": package["name"], "version": package["version"], "source": package["source"]});
        if package["kind"] == "build" {
            kept["kind"] = json!("build");
        }
        if !package["dependencies"].as_array().unwrap().is_empty() {
            kept["dependencies"] = package["dependencies"].clone();
        }
        if package["root"] == true {
            kept["root"] = json!(true);
        }
        kept
    });
    // Format 1: procedural macros are of the build.
    json!({"packages": packages.collect::<Vec<_>>(), "format": 1})
}

/// FNV-1a over files of the template, as the template has it.
fn hash(files: [&str; 3]) -> u64 {
    let bytes = files.iter().flat_map(|file| fs::read(root().join("template").join(file)).unwrap());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
