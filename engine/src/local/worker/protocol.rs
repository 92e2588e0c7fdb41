//! What the engine and its workers tell each other.
//!
//! One [`Task`] as a line of JSON goes to the worker, one [`Answer`] as a line of JSON comes back;
//! paths in a task are relative to the engine's root folder unless said otherwise.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::local::ids::Ids;

/// What one worker does.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Task {
    /// The engine's root folder, absolute.
    pub(crate) root: PathBuf,
    /// How the worker's ids are mapped.
    pub(crate) ids: Ids,
    /// Whose engine it is, for messages.
    pub(crate) user: String,
    /// The work.
    pub(crate) work: Work,
}

/// The kinds of work.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) enum Work {
    /// Runs a step.
    Exec(Exec),
    /// Does actions of a file op.
    Files(Files),
    /// Unpacks an uncompressed layer tar, which is read from the standard input.
    Unpack {
        /// The folder (`work/RANDOM`); the files end up in `fs` in it, their tree in `tree`.
        into: String,
        /// The layers under it, bottom first.
        below: Vec<u64>,
    },
    /// Writes a layer to the standard output as a tar.
    Pack {
        /// The layer; or several, bottom first, where they are merged.
        layers: Vec<u64>,
        /// Whether what they show together is written, not one layer's changes.
        merged: bool,
        /// Layers that are taken away: what has to lie on them for the merged ones to be seen is left.
        without: Option<Vec<u64>>,
        /// Times after this one are written as this one, in seconds.
        latest_s: Option<i64>,
    },
    /// Tries everything that steps need on this machine.
    Probe,
    /// Removes folders with everything in them, whoever owns it.
    Remove {
        /// The folders; missing ones are fine.
        paths: Vec<String>,
    },
}

/// Actions of a file op that change one tree.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Files {
    /// The layers that they start from, bottom first.
    pub(crate) base: Vec<u64>,
    /// Where the changes go.
    pub(crate) upper: Upper,
    /// The op, as `pb.Op` bytes.
    pub(crate) op: Vec<u8>,
    /// The actions' places in the op.
    pub(crate) actions: Vec<usize>,
    /// The trees that they read, and their layers.
    pub(crate) trees: Vec<(Input, Vec<u64>)>,
}

/// Names a tree of a file op.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The output of another vertex.
    Edge {
        /// The vertex's digest.
        vertex: String,
        /// The output.
        output: u32,
    },
    /// The result of an action of the op.
    Action(usize),
}

/// A step: a process over mounted trees.
#[derive(Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Exec {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// `NAME=value` pairs.
    pub(crate) env: Vec<String>,
    /// The working directory; made where it is missing.
    pub(crate) cwd: String,
    /// `user[:group]`, by name or number; empty is root.
    pub(crate) user: String,
    /// What the process sees of the network.
    pub(crate) network: Network,
    /// The host's name; [`HOSTNAME`] where empty.
    pub(crate) hostname: String,
    /// Names and the addresses that they resolve to.
    pub(crate) extra_hosts: Vec<(String, String)>,
    /// Limits as in `setrlimit(2)`.
    pub(crate) ulimits: Vec<Ulimit>,
    /// What is mounted where; one target is `/`.
    pub(crate) mounts: Vec<Mount>,
    /// Exit codes that count as success; only 0 where empty. After others no layer is written.
    pub(crate) valid_exit_codes: Vec<i32>,
    /// Whether empty mount points are removed with their parents.
    pub(crate) remove_stubs_recursive: bool,
}

/// The host's name in a step that asks for none: BuildKit's.
pub(crate) const HOSTNAME: &str = "buildkitsandbox";

/// What a step sees of the network.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Network {
    /// The machine's.
    Host,
    /// A loopback of its own and nothing else.
    #[default]
    None,
}

/// A limit, as in `setrlimit(2)`; -1 is none.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Ulimit {
    /// `nofile`, `nproc`, …
    pub(crate) name: String,
    /// The limit that holds.
    pub(crate) soft: i64,
    /// The limit up to which the process may raise it.
    pub(crate) hard: i64,
}

/// A place in a step's file tree.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Mount {
    /// The absolute path.
    pub(crate) target: String,
    /// What is there.
    pub(crate) source: Source,
    /// Whether the step can only read it.
    pub(crate) readonly: bool,
    /// The path inside the source that is mounted; empty is all of it.
    pub(crate) selector: String,
}

/// What is mounted.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) enum Source {
    /// A snapshot, or nothing but an empty tree where there are no layers.
    Layers {
        /// The layers' numbers, bottom first.
        layers: Vec<u64>,
        /// Where changes go; needed where the mount is not read-only.
        upper: Option<Upper>,
    },
    /// Files and folders of the machine, always read-only.
    Host {
        /// What is there.
        entries: Vec<HostEntry>,
    },
    /// A folder that lives on (`caches/KEY/fs`); made where it is missing.
    Cache {
        /// The folder.
        folder: String,
        /// The layers of what it starts as, where it is empty.
        start: Vec<u64>,
    },
    /// Memory.
    Tmpfs {
        /// At most this much; half of the machine's where 0.
        size_bytes: u64,
    },
    /// A file that is in memory alone.
    Secret {
        /// Its content.
        bytes: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// A folder that takes a mount's changes.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct Upper {
    /// The folder (`work/RANDOM`); the files end up in `fs` in it, their tree in `tree`.
    pub(crate) work: String,
    /// Whether the changes are a result; they are left unread otherwise.
    pub(crate) output: bool,
}

/// A node of a host tree.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) struct HostEntry {
    /// Its absolute path in the tree.
    pub(crate) path: String,
    /// What it is.
    pub(crate) node: HostNode,
}

/// What a node of a host tree is.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub(crate) enum HostNode {
    /// A file or folder of the machine, by its absolute path.
    Bind(PathBuf),
    /// A symbolic link.
    Symlink(String),
}

/// What a worker says when it is done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A step ended.
    Exec(Ended),
    /// What the machine refuses; nothing where steps can run.
    Probe(Vec<Refusal>),
    /// Files were changed; `copied` as for a step.
    Changed {
        /// Whether the output holds the whole tree.
        copied: bool,
    },
    /// A file op asks for what cannot be.
    Refused {
        /// Why.
        reason: String,
    },
    /// The work is done.
    Done,
    /// The work could not be done; the worker's fault or the machine's, not a step's.
    Failed(Failure),
}

/// How a step ended.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The exit status; 128 and the signal's number where a signal ended it.
    pub(crate) status: i32,
    /// Why the process never ran; written to its standard error too.
    pub(crate) reason: Option<String>,
    /// Where overlayfs is refused: the layers were copied, and the outputs hold whole trees.
    pub(crate) copied: bool,
}

/// Something that the machine refuses, and the command that mends it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is refused and why.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Whether no step can run; otherwise steps run in a slower way.
    pub fatal: bool,
}

/// Why work could not be done.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{doing}: {reason}")]
pub(crate) struct Failure {
    /// What was being done, as a gerund phrase that names the thing.
    pub(crate) doing: String,
    /// What the system said.
    pub(crate) reason: String,
    /// What to do, where that is known.
    pub(crate) hint: Option<String>,
    /// Whether a disk, a quota or a limit is exhausted.
    pub(crate) exhausted: bool,
}

impl Failure {
    /// Says that something could not be done for a reason in words.
    pub(crate) fn new(doing: impl Into<String>, reason: impl ToString) -> Self {
        Self { doing: doing.into(), reason: reason.to_string(), hint: None, exhausted: false }
    }

    /// Says that the system refused something.
    pub(crate) fn io(doing: impl Into<String>, error: impl Into<std::io::Error>) -> Self {
        let error = error.into();
        Self { exhausted: crate::Error::is_exhausted(&error), ..Self::new(doing, error) }
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Adds what was being done to an error of the system.
pub(crate) trait Doing<T> {
    /// Names what was being done; asked for where it failed.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| Failure::io(doing(), error))
    }
}
