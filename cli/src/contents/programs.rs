//! Programs that say what they were made of: those with cargo-auditable's list of crates.
//!
//! Invariant: one program is in memory at a time, and no more than [`PROGRAM_BYTES`] of it; of all
//! lists of an image together no more than [`IMAGE_PACKAGES`] packages in [`IMAGE_BYTES`] are kept.
//! What is larger is named, not passed over.

use roche_engine::oci::contents::Contents;
use roche_frontend::crates::{Crates, Kind, Package};
use serde_json::{Value, json};

/// The most bytes of a program that is looked into.
const PROGRAM_BYTES: usize = 64 << 20;
/// The most packages of all programs of an image.
const IMAGE_PACKAGES: usize = 100_000;
/// The most bytes of memory that they take: one package may be as long as its list.
const IMAGE_BYTES: usize = 64 << 20;
/// The most letters of a reason: one may repeat a whole list.
const REASON_LETTERS: usize = 200;

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
    bytes: usize,
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
            Ok(Some(crates)) if self.bytes + kept_bytes(&crates) > IMAGE_BYTES => {
                Err(format!("the image's lists take more than {IMAGE_BYTES} bytes"))
            }
            Ok(Some(crates)) => Ok(crates),
            Err(error) => Err(error.to_string().chars().take(REASON_LETTERS).collect()),
        };
        if let Ok(crates) = &crates {
            self.packages += crates.packages.len();
            self.bytes += kept_bytes(crates);
        }
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

/// Returns how much memory a list takes: its JSON may be an eighth of that.
fn kept_bytes(crates: &Crates) -> usize {
    let texts = |package: &Package| package.name.capacity() + package.version.capacity() + package.source.capacity();
    let of = |package: &Package| texts(package) + package.dependencies.capacity() * size_of::<usize>();
    crates.packages.capacity() * size_of::<Package>() + crates.packages.iter().map(of).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    /// Where the sections start: behind the program's header, and what is written with its last fields.
    const START: usize = 72;

    /// A program of sections alone: the first is empty, the second holds the names, the third the list.
    fn program(json: &str) -> Vec<u8> {
        let mut list = ZlibEncoder::new(Vec::new(), Compression::fast());
        list.write_all(json.as_bytes()).unwrap();
        let (names, list) = (b"\0.dep-v0\0", list.finish().unwrap());
        let mut bytes = b"\x7fELF\x02\x01".to_vec();
        bytes.resize(START, 0);
        bytes.extend([&names[..], &list].concat());
        let table = bytes.len();
        bytes.resize(table + 3 * 64, 0);
        let mut put = |at: usize, number: usize| bytes[at..at + 8].copy_from_slice(&(number as u64).to_le_bytes());
        put(0x28, table);
        // The length of a header, their number, and which one is that of the names.
        put(0x3a, 64 | 3 << 16 | 1 << 32);
        for (number, name, offset, size) in [(1, 0, START, names.len()), (2, 1, START + names.len(), list.len())] {
            put(table + number * 64, name | 1 << 32);
            put(table + number * 64 + 24, offset);
            put(table + number * 64 + 32, size);
        }
        bytes
    }

    fn list(name: &str, dependencies: &str) -> String {
        format!(r#"{{"packages":[{{"name":"{name}","version":"1","source":"x","dependencies":[{dependencies}]}}]}}"#)
    }

    #[test]
    fn lists_of_few_packages_are_kept_within_the_images_bytes() {
        let many = format!("{}0", "0,".repeat(1_900_000));
        for (large, kept) in [(list(&"n".repeat(4_000_000), ""), 16), (list("n", &many), 3)] {
            let (large, small) = (program(&large), program(&list("n", "0")));
            let mut programs = Programs::default();
            for number in 0..20 {
                programs.take(0, format!("p{number}").as_bytes(), &large);
            }
            programs.take(0, b"small", &small);
            let lists: Vec<&Crates> = programs.found.iter().filter_map(|program| program.crates.as_ref().ok()).collect();
            assert_eq!((lists.len(), programs.found.len()), (kept + 1, 21));
            let reason = programs.found[kept].crates.as_ref().unwrap_err();
            assert_eq!(reason, "the image's lists take more than 67108864 bytes");
            assert!(programs.found[20].crates.is_ok());
        }
    }

    #[test]
    fn a_malformed_lists_reason_is_short() {
        let mut programs = Programs::default();
        for value in ["n".repeat(4_000_000), "é".repeat(1_000_000)] {
            programs.take(0, b"p", &program(&format!(r#"{{"packages":"{value}"}}"#)));
            let reason = programs.found.pop().unwrap().crates.unwrap_err();
            assert!(reason.starts_with("its list of crates is malformed: invalid type"), "{reason:.99}");
            assert!(reason.capacity() < 1000, "{}", reason.capacity());
        }
    }
}
