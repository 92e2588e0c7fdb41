//! The ops: what a vertex does, as plain data.
//!
//! Invariant: an op holds nothing random, timed or absolute to a machine, and names its inputs
//! by digest, so equal ops are one vertex and a cycle cannot be written down.
//!
//! | field | in the vertex's digest |
//! |---|---|
//! | [`Op::kind`], and every field of it | yes |
//! | [`Op::platform`], [`Op::constraints`] | yes |
//! | [`Metadata`] | no: it changes how a vertex is run or shown, never what it is |
//!
//! The shapes follow BuildKit's `solver/pb/ops.proto`.

mod build;
mod exec;
mod file;
mod merge;
mod source;

pub use build::Build;
pub use exec::{CacheSharing, ContentCache, Exec, Mount, MountKind, Network, ProxyEnv, SecretEnv, Security, Ulimit};
pub use file::{Copy, File, FileAction, FileActionKind, FileInput, Mkdir, Mkfile, Owner, Rm, Symlink, User};
pub use merge::{Diff, Merge};
pub use source::Source;

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::Digest;

/// Names one output of one vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The vertex.
    pub vertex: Digest,
    /// Its output's index, from 0.
    pub output: u32,
}

impl Edge {
    /// Names output `output` of `vertex`.
    pub fn new(vertex: Digest, output: u32) -> Self {
        Self { vertex, output }
    }
}

impl From<Digest> for Edge {
    fn from(vertex: Digest) -> Self {
        Self { vertex, output: 0 }
    }
}

/// What a vertex does, where it may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// What it does.
    pub kind: OpKind,
    /// The platform it runs on or resolves for; BuildKit's client sets it on image sources,
    /// OCI layouts, execs and builds only.
    pub platform: Option<Platform>,
    /// Filters over the workers that may run it, in containerd's filter syntax.
    pub constraints: Vec<String>,
}

impl Op {
    /// Makes an op for `platform`.
    pub fn on(platform: Platform, kind: impl Into<OpKind>) -> Self {
        Self { kind: kind.into(), platform: Some(platform), constraints: Vec::new() }
    }
}

impl<K: Into<OpKind>> From<K> for Op {
    fn from(kind: K) -> Self {
        Self { kind: kind.into(), platform: None, constraints: Vec::new() }
    }
}

/// The kinds of op.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most vertices are execs, and a box would be an allocation each")]
pub enum OpKind {
    /// Brings content in.
    Source(Source),
    /// Runs a process.
    Exec(Exec),
    /// Changes files without a process.
    File(File),
    /// Lays trees over one another.
    Merge(Merge),
    /// Takes what one tree has over another.
    Diff(Diff),
    /// Solves a definition that another vertex produces.
    Build(Build),
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        $(impl From<$kind> for OpKind {
            fn from(op: $kind) -> Self {
                Self::$kind(op)
            }
        })*

        impl OpKind {
            /// Returns the outputs of other vertices that the op takes in, without repeats, in
            /// the order in which BuildKit's client numbers them (a merge's inputs may repeat).
            pub fn inputs(&self) -> Vec<Edge> {
                match self {
                    $(Self::$kind(op) => op.inputs(),)*
                }
            }

            /// Returns the capabilities that a solver needs for the op, as
            /// `solver/pb/caps.go` names them.
            pub fn caps(&self) -> Vec<&'static str> {
                let mut caps = match self {
                    $(Self::$kind(op) => op.caps(),)*
                };
                caps.sort_unstable();
                caps.dedup();
                caps
            }

            /// Returns a line for people that says what the op does.
            pub fn summary(&self) -> String {
                match self {
                    $(Self::$kind(op) => op.summary(),)*
                }
            }
        }
    };
}

kinds!(Source, Exec, File, Merge, Diff, Build);

/// A platform, in the words of the OCI image index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// `linux`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, … or empty.
    pub variant: String,
    /// Windows' build number, or empty.
    pub os_version: String,
    /// Windows' features.
    pub os_features: Vec<String>,
}

impl Platform {
    /// Makes a platform of an operating system and an architecture.
    pub fn new(os: &str, architecture: &str) -> Self {
        Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
            os_version: String::new(),
            os_features: Vec::new(),
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// What is known of a vertex beside its op; never part of its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Run the vertex even where a cached result exists.
    pub ignore_cache: bool,
    /// Free-form notes; `llb.customname` is the name that progress shows.
    pub description: BTreeMap<String, String>,
    /// Whether a cache exporter keeps the result; its own choice where absent.
    pub export_cache: Option<bool>,
    /// Capabilities beside those that the op needs by itself ([`OpKind::caps`]), sorted.
    pub caps: Vec<Cow<'static, str>>,
    /// The group that progress shows the vertex in.
    pub progress_group: Option<ProgressGroup>,
}

impl Metadata {
    /// The description key that BuildKit shows as a vertex's name.
    pub const CUSTOM_NAME: &'static str = "llb.customname";

    /// Gives a vertex the name that progress shows.
    pub fn named(name: impl Into<String>) -> Self {
        let description = BTreeMap::from([(Self::CUSTOM_NAME.to_owned(), name.into())]);
        Self { description, ..Self::default() }
    }

    /// Returns the name that progress shows, where one was given.
    pub fn name(&self) -> Option<&str> {
        self.description.get(Self::CUSTOM_NAME).map(String::as_str)
    }

    /// Adds what `other` says of the same vertex; where both speak, `other` wins, as in
    /// `mergeMetadata` of BuildKit's `client/llb/state.go`.
    pub(crate) fn absorb(&mut self, other: Self) {
        self.ignore_cache |= other.ignore_cache;
        self.description.extend(other.description);
        self.export_cache = other.export_cache.or(self.export_cache);
        self.progress_group = other.progress_group.or(self.progress_group.take());
        self.caps.extend(other.caps);
        self.caps.sort_unstable();
        self.caps.dedup();
    }
}

/// A group of vertices that progress shows as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgressGroup {
    /// Vertices with the same id are one group.
    pub id: String,
    /// What progress shows.
    pub name: String,
    /// Whether a stronger group of the same vertex wins.
    pub weak: bool,
}

/// Collects edges in order, without repeats.
fn unique(edges: impl IntoIterator<Item = Edge>) -> Vec<Edge> {
    let mut seen = Vec::new();
    for edge in edges {
        if !seen.contains(&edge) {
            seen.push(edge);
        }
    }
    seen
}
