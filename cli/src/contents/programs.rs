//! Programs that say what they were made of: those with cargo-auditable's list of crates.
//!
//! Invariant: one program is in memory at a time, and no more than [`PROGRAM_BYTES`] of it; of all
//! lists of an image together no more than [`IMAGE_PACKAGES`] packages are kept. What is larger is
//! named, not passed over.

use roche_engine::oci::contents::Contents;
use roche_frontend::crates::{Crates, Kind, Package};
use serde_json::{Value, json};

/// The most bytes of a program that is looked into.
const PROGRAM_BYTES: usize = 64 << 20;
/// The most packages of all programs of an image.
const IMAGE_PACKAGES: usize = 100_000;

/// A program with a list, or with one that cannot be read.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its path, without a leading `/`.
    pub(crate) path: Vec<u8>,
    layer: usize,
    /// Its crates, or why they are not known.
    pub(crate) crates: Result<Crates, String>,
    /// Whether it was too large to be looked into: most such files are libraries without a list.
    pub(super) is_large: bool,
}

/// The programs that were met.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    found: Vec<Program>,
    packages: usize,
}

/// Says how much of a file is looked at, by its first bytes.
pub(super) fn wants(first: &[u8]) -> usize {
    if first.starts_with(b"\x7fELF") { PROGRAM_BYTES } else { 0 }
}

impl Programs {
    /// Looks into a program.
    pub(super) fn take(&mut self, layer: usize, path: &[u8], program: &[u8]) {
        let found = Crates::of_program(program);
        // Its sections are listed behind all that was read.
        let is_large = matches!(found, Ok(None)) && program.len() == PROGRAM_BYTES;
        let crates = match found {
            Ok(None) if is_large => Err(format!("it has more than {PROGRAM_BYTES} bytes and was not looked into")),
            Ok(None) => return,
            Ok(Some(crates)) if self.packages + crates.packages.len() > IMAGE_PACKAGES => {
                Err(format!("the image's lists have more than {IMAGE_PACKAGES} packages"))
            }
            Ok(Some(crates)) => Ok(crates),
            Err(error) => Err(error.to_string()),
        };
        self.packages += crates.as_ref().map_or(0, |crates| crates.packages.len());
        self.found.push(Program { path: path.to_vec(), layer, crates, is_large });
    }

    /// Returns those that an image shows, by path.
    pub(super) fn shown(self, contents: &Contents) -> Vec<Program> {
        let is_shown = |program: &Program| contents.at(&program.path).is_some_and(|shown| shown.layer == program.layer);
        let mut shown: Vec<Program> = self.found.into_iter().filter(is_shown).collect();
        shown.sort_by(|a, b| (&a.path, a.layer).cmp(&(&b.path, b.layer)));
        // A layer may name a path twice; the last counts.
        shown.reverse();
        shown.dedup_by(|later, kept| later.path == kept.path);
        shown.reverse();
        shown
    }
}

impl Program {
    /// Returns its crates for programs that read.
    pub(super) fn json(&self) -> Value {
        let mut value = Value::Object(super::json::path_fields(&self.path));
        match &self.crates {
            Ok(crates) => value["packages"] = crates.packages.iter().map(package).collect(),
            Err(reason) => value["unreadable"] = json!(reason),
        }
        value
    }
}

/// Returns a package's fields, named as in the list that it is of.
fn package(package: &Package) -> Value {
    let kind = if package.kind == Kind::Build { "build" } else { "runtime" };
    json!({
        "name": package.name,
        "version": package.version,
        "source": package.source,
        "kind": kind,
        "root": package.root,
        "dependencies": package.dependencies,
    })
}
