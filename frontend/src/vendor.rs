//! The template's crates, fetched on the client by the user's cargo, as one folder with a root.
//!
//! 1. The template is written into a working folder and `cargo vendor` fills `vendor/` there:
//!    the user's registries, mirrors and credentials count, the committed lock decides.
//! 2. Packages that no supported target compiles are reduced to a manifest and an empty library:
//!    cargo reads every locked package's manifest, and no more of those.
//! 3. Modes and times are made the same everywhere, and a digest over all paths, modes and
//!    contents is the folder's root.
//!
//! Invariant: equal crates have equal roots on every machine. Nothing is run but through the
//! caller's closure.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use roche_engine::Digest;
use serde_json::{Value, json};

use crate::shown;
use crate::template;

/// The target triples that a build image may compile for.
const TARGETS: [&str; 4] =
    ["x86_64-unknown-linux-gnu", "x86_64-unknown-linux-musl", "aarch64-unknown-linux-gnu", "aarch64-unknown-linux-musl"];

/// The folder of the crates, in the working folder and in the service's project.
pub const FOLDER: &str = "vendor";

/// The cargo configuration that makes the folder the source of every crate (`.cargo/config.toml`).
pub const CARGO_CONFIG: &str =
    "[source.crates-io]\nreplace-with = \"vendored-sources\"\n\n[source.vendored-sources]\ndirectory = \"vendor\"\n";

/// Crates in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vendored {
    /// The folder.
    pub dir: PathBuf,
    /// The digest of all paths, modes and contents in it.
    pub root: Digest,
    /// How many files it holds.
    pub files: usize,
    /// How many bytes they have.
    pub size_bytes: u64,
}

/// Why the crates could not be brought together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VendorError {
    /// cargo failed, or could not be run.
    #[error("cargo {command} failed: {reason}")]
    Cargo {
        /// The subcommand.
        command: String,
        /// What it said.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", shown::path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// cargo wrote something that is not what cargo writes.
    #[error("cargo {command} said something unexpected: {reason}")]
    Unexpected {
        /// The subcommand.
        command: &'static str,
        /// What was missed.
        reason: String,
    },
}

/// Runs cargo in a folder with arguments; returns its standard output, or a reason in words.
pub type Cargo<'a> = &'a mut dyn FnMut(&Path, &[&str]) -> Result<Vec<u8>, String>;

/// Names what [`vendor`] would bring together: equal keys give equal crates.
pub fn key() -> Digest {
    let mut text = String::new();
    for file in template::FILES {
        text.push_str(&format!("{} {}\n", file.path, Digest::of(file.data)));
    }
    text.push_str(&TARGETS.join(" "));
    Digest::of(text.as_bytes())
}

/// Brings the template's crates together in `work`, an empty folder of the caller's.
pub fn vendor(work: &Path, cargo: Cargo<'_>) -> Result<Vendored, VendorError> {
    for file in template::FILES {
        let path = work.join(file.path);
        let parent = path.parent().unwrap_or(work);
        fs::create_dir_all(parent).map_err(at(parent))?;
        fs::write(&path, file.data).map_err(at(&path))?;
    }
    let mut run = |args: &[&str]| {
        let command = args.first().copied().unwrap_or_default();
        cargo(work, args).map_err(|reason| VendorError::Cargo { command: command.to_owned(), reason })
    };
    run(&["vendor", "--locked", "--versioned-dirs", FOLDER])?;
    let mut used = BTreeSet::new();
    for target in TARGETS {
        // Offline: vendoring has fetched everything.
        let metadata = run(&["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", target])?;
        used.extend(compiled(&metadata)?);
    }
    let dir = work.join(FOLDER);
    reduce(&dir, &used)?;
    settle(dir)
}

/// Returns the folder names of the packages that a target compiles, by `cargo metadata`.
fn compiled(metadata: &[u8]) -> Result<BTreeSet<String>, VendorError> {
    let unexpected = |reason: &str| VendorError::Unexpected { command: "metadata", reason: reason.to_owned() };
    let metadata: Value = serde_json::from_slice(metadata).map_err(|error| unexpected(&error.to_string()))?;
    let list = |value: &Value, name: &str| value.as_array().cloned().ok_or_else(|| unexpected(&format!("it has no {name}")));
    let nodes = list(&metadata["resolve"]["nodes"], "resolve.nodes")?;
    let nodes: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    let packages = list(&metadata["packages"], "packages")?;
    let packages = packages.iter().filter(|package| {
        // Packages without a source are the template's own.
        package["id"].as_str().is_some_and(|id| nodes.contains(id)) && !package["source"].is_null()
    });
    packages
        .map(|package| match (package["name"].as_str(), package["version"].as_str()) {
            (Some(name), Some(version)) => Ok(format!("{name}-{version}")),
            _ => Err(unexpected("a package has no name or version")),
        })
        .collect()
}

/// Reduces every package that is not in `used`.
fn reduce(dir: &Path, used: &BTreeSet<String>) -> Result<(), VendorError> {
    let mut missing = used.clone();
    for entry in dir.read_dir().map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        let (name, package) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if !missing.remove(&name) {
            reduce_package(&package)?;
        }
    }
    match missing.first() {
        None => Ok(()),
        Some(name) => Err(VendorError::Unexpected { command: "vendor", reason: format!("there is no folder {name}") }),
    }
}

fn reduce_package(package: &Path) -> Result<(), VendorError> {
    let (manifest, checksum) = (package.join("Cargo.toml"), package.join(".cargo-checksum.json"));
    let kept = fs::read(&manifest).map_err(at(&manifest))?;
    let sums: Value = serde_json::from_slice(&fs::read(&checksum).map_err(at(&checksum))?)
        .map_err(|error| VendorError::Unexpected { command: "vendor", reason: format!("{}: {error}", shown::path(&checksum)) })?;
    fs::remove_dir_all(package).map_err(at(package))?;
    let source = package.join("src");
    fs::create_dir_all(&source).map_err(at(&source))?;
    fs::write(source.join("lib.rs"), "").map_err(at(&source))?;
    fs::write(&manifest, kept).map_err(at(&manifest))?;
    // cargo compares the package's own checksum with the lock's, and files only where they are listed.
    let sums = json!({ "files": {}, "package": sums["package"] });
    fs::write(&checksum, sums.to_string()).map_err(at(&checksum))
}

/// Makes modes and times the same everywhere and computes the root.
fn settle(dir: PathBuf) -> Result<Vendored, VendorError> {
    let mut lines: Vec<String> = Vec::new();
    let (mut pending, mut size_bytes) = (vec![dir.clone()], 0);
    let mut folders = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir().map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let metadata = path.symlink_metadata().map_err(at(&path))?;
            if metadata.is_dir() {
                pending.push(path);
                continue;
            }
            if !metadata.is_file() {
                let reason = format!("{} is neither a file nor a folder", shown::path(&path));
                return Err(VendorError::Unexpected { command: "vendor", reason });
            }
            let data = fs::read(&path).map_err(at(&path))?;
            let mode = permissions::fix(&path, &metadata, false).map_err(at(&path))?;
            date(&path)?;
            let relative = path.strip_prefix(&dir).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            lines.push(format!("{relative}\0{mode:o} {}\n", Digest::of(&data).hex()));
            size_bytes += data.len() as u64;
        }
        folders.push(folder);
    }
    for folder in folders {
        let metadata = folder.symlink_metadata().map_err(at(&folder))?;
        permissions::fix(&folder, &metadata, true).map_err(at(&folder))?;
        date(&folder)?;
    }
    lines.sort_unstable();
    Ok(Vendored { root: Digest::of(lines.concat().as_bytes()), files: lines.len(), size_bytes, dir })
}

/// Dates a file or folder to the epoch: cargo compares times of sources with those of results,
/// and a folder that was sent before is not sent again.
fn date(path: &Path) -> Result<(), VendorError> {
    File::open(path).and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).map_err(at(path))
}

#[cfg(unix)]
mod permissions {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// Gives a file or folder the bits that it has under the usual umask; returns them.
    pub(super) fn fix(path: &Path, metadata: &fs::Metadata, folder: bool) -> io::Result<u32> {
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let mode = if folder || executable { 0o755 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(mode)
    }
}

#[cfg(not(unix))]
mod permissions {
    use super::*;

    /// Says which bits a file or folder has for the daemon: there are none here to set.
    pub(super) fn fix(_path: &Path, _metadata: &fs::Metadata, folder: bool) -> io::Result<u32> {
        Ok(if folder { 0o755 } else { 0o644 })
    }
}

/// Names the file in an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> VendorError + use<> {
    let path = path.to_owned();
    |source| VendorError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what cargo would, for two packages of which one is for Windows alone.
    fn fake(dir: &Path, args: &[&str]) -> Result<Vec<u8>, String> {
        match args[0] {
            "vendor" => {
                for name in ["used-1.0.0+meta", "windows-2.0.0"] {
                    let package = dir.join(FOLDER).join(name);
                    fs::create_dir_all(package.join("src/deep")).unwrap();
                    fs::write(package.join("Cargo.toml"), name).unwrap();
                    fs::write(package.join("src/deep/big.rs"), "x".repeat(1000)).unwrap();
                    fs::write(package.join(".cargo-checksum.json"), r#"{"files":{"src/deep/big.rs":"1"},"package":"abc"}"#)
                        .unwrap();
                }
                Ok(Vec::new())
            }
            "metadata" => Ok(json!({
                "packages": [
                    { "id": "u", "name": "used", "version": "1.0.0+meta", "source": "registry" },
                    { "id": "w", "name": "windows", "version": "2.0.0", "source": "registry" },
                    { "id": "own", "name": "roche-service", "version": "0.1.0", "source": null },
                ],
                "resolve": { "nodes": [{ "id": "u" }, { "id": "own" }] }
            })
            .to_string()
            .into_bytes()),
            other => Err(format!("no {other}")),
        }
    }

    #[test]
    fn packages_that_no_target_compiles_are_reduced() {
        let work = tempfile::tempdir().unwrap();
        let vendored = vendor(work.path(), &mut fake).unwrap();
        assert_eq!(vendored.files, 6);
        let windows = work.path().join("vendor/windows-2.0.0");
        assert_eq!(fs::read_to_string(windows.join("Cargo.toml")).unwrap(), "windows-2.0.0");
        assert_eq!(fs::read_to_string(windows.join(".cargo-checksum.json")).unwrap(), r#"{"files":{},"package":"abc"}"#);
        assert_eq!(fs::read(windows.join("src/lib.rs")).unwrap(), b"");
        assert!(!windows.join("src/deep").exists());
        assert!(work.path().join("vendor/used-1.0.0+meta/src/deep/big.rs").exists());
    }

    #[test]
    fn roots_depend_on_content_and_on_nothing_of_the_machine() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = vendor(one.path(), &mut fake).unwrap();
        let second = vendor(two.path(), &mut fake).unwrap();
        assert_eq!(first.root, second.root);
        let file = first.dir.join("used-1.0.0+meta/src/deep/big.rs");
        assert_eq!(file.metadata().unwrap().modified().unwrap(), SystemTime::UNIX_EPOCH);
        fs::write(&file, "y".repeat(1000)).unwrap();
        assert_ne!(settle(first.dir).unwrap().root, second.root);
    }

    #[test]
    fn what_cargo_says_when_it_fails_is_passed_on() {
        let work = tempfile::tempdir().unwrap();
        let error = vendor(work.path(), &mut |_: &Path, _: &[&str]| Err("no network".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "cargo vendor failed: no network");
        let error = vendor(work.path(), &mut |dir: &Path, args: &[&str]| match args[0] {
            "metadata" => Ok(b"{}".to_vec()),
            _ => fake(dir, args),
        });
        assert!(matches!(error, Err(VendorError::Unexpected { command: "metadata", .. })));
    }
}
