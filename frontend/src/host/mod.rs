//! The machine's own Rust toolchain as a tree that steps are run in.
//!
//! 1. `rustc` says where its sysroot is; `cc`, the linker and the loader are asked which files
//!    they read, and three tiny programs are linked to see it done ([`ask`]).
//! 2. Each of these files is put into a tree where the tools look for it, with the links that lead
//!    there ([`layout`]).
//! 3. The tree's digest is taken over all paths, links and contents ([`digests`]); what was known
//!    of unchanged files last time is kept in a file ([`kept`]).
//!
//! Invariants: a build sees these files and no others, so the digest names everything that it
//! reads of the machine; a sysroot stands at one place in the tree wherever the user has it, so
//! equal toolchains have equal digests. Nothing is run but through the caller's closure, and
//! nothing that is remembered is believed without a look at the files.

#[cfg(target_os = "linux")]
mod ask;
mod certificates;
#[cfg(target_os = "linux")]
mod digests;
#[cfg(target_os = "linux")]
mod elf;
#[cfg(target_os = "linux")]
mod kept;
#[cfg(target_os = "linux")]
mod layout;
#[cfg(target_os = "linux")]
mod linked;

#[cfg(target_os = "linux")]
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use roche_engine::Digest;
use roche_engine::solver::HostTree;

use crate::plan::EntryKind;
use crate::shown;

pub use certificates::{Certificates, certificates};

/// The name of the tree among a job's host trees, and of the local source that stands for it.
pub const LOCAL: &str = "host-toolchain";

/// What makes a service static, on targets that are not so by themselves.
pub(crate) const STATIC: &str = "target-feature=+crt-static";

/// A toolchain that a release can be compiled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// Everything that a build reads of the machine.
    pub tree: HostTree,
    /// The target triple that services are compiled for; its programs are static.
    pub target: String,
    /// What rustc calls itself, `rustc 1.95.0 (…)`.
    pub version: String,
    /// The variables by which the tools find each other in the tree, `NAME=value`.
    pub env: Vec<String>,
    /// What the user should know, one line each.
    pub notices: Vec<String>,
}

/// Where [`find`] looks, and what it may write.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// The user's `PATH`.
    pub path: &'a OsStr,
    /// The folder in which rustc is asked: a project's `rust-toolchain.toml` counts.
    pub project: &'a Path,
    /// An empty folder of the caller's.
    pub work: &'a Path,
    /// A file that keeps what is known of files; its folder is there. Without it every file is read.
    pub cache: Option<&'a Path>,
    /// The time before the call: files that changed since shortly before are not remembered.
    pub now: SystemTime,
}

/// What a program said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// Runs a program, by its path, with arguments in a folder; returns what it said where it
/// succeeded, or a reason in words.
///
/// Of variables the program gets `PATH`, `HOME`, `RUSTUP_HOME`, `RUSTUP_TOOLCHAIN`, `CARGO_HOME`
/// as the user has them, `LC_ALL=C`, and no other: some change what compilers read.
pub type Run<'a> = &'a mut dyn FnMut(&Path, &[&OsStr], &Path) -> Result<Said, String>;

/// Why this machine's toolchain cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A program is not installed.
    #[error("{program} was not found in PATH")]
    Missing {
        /// The program.
        program: &'static str,
    },
    /// A program failed, or could not be run.
    #[error("{} failed: {reason}", shown::path(program))]
    Program {
        /// The program.
        program: PathBuf,
        /// What it said.
        reason: String,
    },
    /// A file is not what it must be.
    #[error("{} {reason}", shown::path(path))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No static program can be linked.
    #[error("no static program can be linked for {target}: {reason}")]
    Static {
        /// The target triple.
        target: String,
        /// What the linker said.
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
}

impl HostError {
    /// Returns what helps, one line each.
    pub fn hints(&self) -> Vec<String> {
        let image = "or name an image with a toolchain: roche release -b IMAGE".to_owned();
        match self {
            Self::Missing { program: "cc" } => {
                vec![
                    "install a C compiler: apt-get install gcc libc6-dev, dnf install gcc, apk add gcc musl-dev".to_owned(),
                    image,
                ]
            }
            Self::Missing { .. } => vec!["install Rust: https://rustup.rs".to_owned(), image],
            Self::Static { target, .. } => {
                vec![format!("add a target that is static by itself: rustup target add {}", musl(target)), image]
            }
            Self::Unusable { .. } | Self::Program { .. } => vec![image],
            Self::File { .. } => Vec::new(),
        }
    }
}

/// Returns the target of the same machine whose C library is musl.
fn musl(target: &str) -> String {
    target.replace("-gnu", "-musl")
}

/// Names the file in an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> HostError + use<> {
    let path = path.to_owned();
    |source| HostError::File { path, source }
}

/// Finds the toolchain that the user's `rustc` and `cc` are.
///
/// Where nothing changed since the last time, one program is run and no file is read.
#[cfg(target_os = "linux")]
pub fn find(places: &Places<'_>, run: Run<'_>) -> Result<Toolchain, HostError> {
    let start = ask::Start::ask(places, run)?;
    let mut kept = kept::Kept::read(places.cache);
    let mut digests = digests::Digests::new(std::mem::take(&mut kept.digests), places.now);
    // A file that is gone is as good as one that changed: the tools are asked again.
    let known = kept.closures.get(&start.key).and_then(|(closure, digest)| {
        let tree = layout::tree(closure, &mut digests).ok()?;
        (tree.digest == *digest).then(|| (tree, closure.clone()))
    });
    let (tree, closure, is_new) = match known {
        Some((tree, closure)) => (tree, closure, false),
        None => {
            let closure = ask::closure(places, &start, run)?;
            (layout::tree(&closure, &mut digests)?, closure, true)
        }
    };
    let mut toolchain = toolchain(tree, &closure);
    let (digests, is_more) = digests.settled();
    kept.digests = digests;
    kept.answer(start.key, closure, toolchain.tree.digest);
    if let Some(cache) = places.cache.filter(|_| is_new || is_more)
        && let Err(error) = kept.write(cache)
    {
        toolchain
            .notices
            .push(format!("the digests of the toolchain's files cannot be kept, so all are read each time: {error}"));
    }
    Ok(toolchain)
}

/// The time zones of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    /// Their folder, which a local source brings in whole.
    pub path: PathBuf,
    /// The digest of everything in it.
    pub digest: Digest,
    /// The folder and everything in it, sorted by path.
    pub entries: Vec<Zone>,
}

/// A file, folder or link among the time zones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its path in the folder, with `/` in front; empty for the folder itself.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits.
    pub mode: u32,
    /// A file's size in bytes.
    pub size_bytes: Option<u64>,
}

/// Finds the time zones of the system under `root`, which is `/` for this machine's.
#[cfg(target_os = "linux")]
pub fn zones(root: &Path) -> Result<Zones, HostError> {
    let path = root.join("usr/share/zoneinfo");
    let path = path.canonicalize().map_err(|_| HostError::Unusable {
        path,
        reason: "is not there, and time zones were asked for: install tzdata, or leave --tzdata out".to_owned(),
    })?;
    let digest = layout::folder(&path, &mut digests::Digests::new(BTreeMap::new(), SystemTime::UNIX_EPOCH))?;
    let entries = listed(&path)?;
    Ok(Zones { path, digest, entries })
}

/// Lists a folder and everything in it.
#[cfg(target_os = "linux")]
fn listed(root: &Path) -> Result<Vec<Zone>, HostError> {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut zones, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = pending.pop() {
        let found = path.symlink_metadata().map_err(at(&path))?;
        let (kind, mode) = match found.file_type() {
            kind if kind.is_dir() => (EntryKind::Folder, found.permissions().mode() & 0o777),
            kind if kind.is_symlink() => (EntryKind::Symlink, 0o777),
            _ => (EntryKind::File, found.permissions().mode() & 0o777),
        };
        if kind == EntryKind::Folder {
            for inside in path.read_dir().map_err(at(&path))? {
                pending.push(inside.map_err(at(&path))?.path());
            }
        }
        let within = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let path = if within.is_empty() { within } else { format!("/{within}") };
        zones.push(Zone { path, kind, mode, size_bytes: (kind == EntryKind::File).then_some(found.len()) });
    }
    zones.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(zones)
}

#[cfg(target_os = "linux")]
fn toolchain(tree: HostTree, closure: &ask::Closure) -> Toolchain {
    let notices = vec![format!("compiled by this machine's {} for {}, statically linked", closure.version, closure.target)];
    let (target, version, env) = (closure.target.clone(), closure.version.clone(), closure.env.clone());
    Toolchain { tree, target, version, env, notices }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
