//! The document of a release: one schema for its plan and for what came of it.
//!
//! `docs/schema/plan-1.json` publishes the schema. Invariant: keys are only ever added under one
//! [`VERSION`]; what changes meaning or goes away comes with the next. Readers leave keys alone that
//! they do not know, so a newer program's document of the same version can be read.
//!
//! | field | before a release | after it |
//! |---|---|---|
//! | digests | absent where a base image is not resolved, and below it | always |
//! | [`Vertex::forecast`] | where somebody foretells it | as it was foretold |
//! | [`Vertex::outcome`] | absent | always |
//! | [`SourceFile::text`] | absent | where it is text |
//! | [`Document::release`] | absent | always |

mod of_plan;
mod release;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(crate) use of_plan::{Subject, shown, source_file};
pub(crate) use release::{BackEnd, Failed, Made, Material, Ran, Setting, Written};

/// The schema's version.
pub(crate) const VERSION: u32 = 1;

/// A release, before or after it ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    /// [`VERSION`].
    pub(crate) schema_version: u32,
    /// Whether every base image is known by its digest and config.
    pub(crate) resolved: bool,
    /// The base images that are not, and why.
    pub(crate) unresolved: Vec<Unresolved>,
    /// The image that is made.
    pub(crate) image: Image,
    /// The files of the project that are in the graph.
    pub(crate) function: Vec<SourceFile>,
    /// The images that the release stands on.
    pub(crate) bases: Vec<Base>,
    /// The stages in order.
    pub(crate) stages: Vec<Stage>,
    /// The vertices, inputs first; a vertex's id is its place.
    pub(crate) vertices: Vec<Vertex>,
    /// The image's tree.
    pub(crate) target: Edge,
    /// What the image gains over its base.
    pub(crate) contents: Vec<Entry>,
    /// What the user should know.
    pub(crate) notices: Vec<String>,
    /// What a solver is given; absent where something is unresolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) definition: Option<Blob>,
    /// What came of it as a whole; absent in a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) release: Option<Ran>,
}

/// A base image that is not known well enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unresolved {
    /// The image as it was named.
    pub(crate) image: String,
    /// Why it is not resolved.
    pub(crate) reason: String,
}

/// The image that is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Full references with tags.
    pub(crate) names: Vec<String>,
    /// `os/architecture[/variant]`.
    pub(crate) platform: String,
    /// Its OCI config without `rootfs`.
    pub(crate) config: Value,
}

/// A file of the project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceFile {
    /// Its path relative to the folder that was released, with `/`.
    pub(crate) path: String,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// The digest of its bytes.
    pub(crate) digest: String,
    /// What it says; records alone have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
}

/// An image that the release stands on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Base {
    /// Its full reference.
    pub(crate) reference: String,
    /// Its manifest's or index's digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// The digest of its config as the back end told it; it tells images apart that have no manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_digest: Option<String>,
}

/// A stage and its vertices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// `builder` or `runtime`.
    pub(crate) name: String,
    /// Ids of vertices, inputs first.
    pub(crate) vertices: Vec<usize>,
}

/// A vertex.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Vertex {
    /// Its place among the vertices.
    pub(crate) id: usize,
    /// Its digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// What people call it.
    pub(crate) name: String,
    /// What it takes in.
    pub(crate) inputs: Vec<Edge>,
    /// What it runs on; absent where that does not matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// What it does, with its `kind`.
    #[serde(flatten)]
    pub(crate) op: Op,
    /// What was foretold of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forecast: Option<Forecast>,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<Outcome>,
}

/// A result of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// The vertex's id.
    pub(crate) vertex: usize,
    /// The number of its result.
    pub(crate) output: u32,
}

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Op {
    /// Brings content in.
    Source {
        /// Where from.
        identifier: String,
        /// What the source is told beside it.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        attrs: BTreeMap<String, String>,
    },
    /// Runs a process.
    Exec {
        /// The command.
        args: Vec<String>,
        /// `NAME=value`.
        env: Vec<String>,
        /// The folder that it starts in.
        cwd: String,
        /// Whom it runs as; empty is root.
        user: String,
        /// `sandbox`, `host` or `none`.
        network: String,
        /// What it sees.
        mounts: Vec<Mount>,
    },
    /// Changes files.
    File {
        /// The changes in order.
        actions: Vec<Action>,
    },
    /// Lays trees over each other.
    Merge,
    /// Takes the difference of two trees.
    Diff,
    /// Lets another definition build.
    Build,
}

/// What a process sees at a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Mount {
    /// The path.
    pub(crate) target: String,
    /// `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
    pub(crate) kind: String,
    /// The tree that is there; absent where it is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Edge>,
    /// The number of the result that it becomes; absent where nobody keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<u32>,
    /// Whether it cannot be written.
    pub(crate) readonly: bool,
}

/// A change of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub(crate) enum Action {
    /// Copies out of a tree.
    Copy {
        /// The tree; absent where it is made by an action before it.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Edge>,
        /// What is copied.
        source: String,
        /// Where to.
        path: String,
        /// Its mode afterwards; absent where it stays.
        #[serde(skip_serializing_if = "Option::is_none")]
        mode: Option<String>,
        /// Its owner afterwards; absent where it stays.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// Makes a folder.
    Mkdir {
        /// The folder.
        path: String,
        /// Its mode.
        mode: String,
        /// Its owner.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
    /// Makes a file.
    Mkfile {
        /// The file.
        path: String,
        /// Its mode.
        mode: String,
        /// Its owner.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Its content.
        content: Blob,
    },
    /// Removes something.
    Rm {
        /// What.
        path: String,
    },
    /// Makes a symbolic link.
    Symlink {
        /// The link.
        path: String,
        /// What it says.
        target: String,
        /// Its owner.
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
    },
}

/// Bytes by their digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blob {
    /// The digest.
    pub(crate) digest: String,
    /// How many there are.
    pub(crate) size_bytes: u64,
}

/// A file, folder or link that the image gains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Its absolute path.
    pub(crate) path: String,
    /// `file`, `folder` or `symlink`.
    pub(crate) kind: String,
    /// Its owner's name; absent where a base image decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<String>,
    /// The vertex that makes it.
    pub(crate) vertex: usize,
    /// Its permission bits in octal; absent where a base image decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// Its size, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size_bytes: Option<u64>,
    /// The release on record in whose image the entry, its owner, mode or size was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) learned_from: Option<String>,
}

/// What is foretold of a vertex.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Forecast {
    /// `cached`, `likely`, `run` or `unknown`.
    pub(crate) state: String,
    /// Why.
    pub(crate) reason: String,
    /// The vertex whose run makes this one run, where it has no reason of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) behind: Option<usize>,
}

/// What came of a vertex.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outcome {
    /// `cached`, `unchanged`, `ran`, `failed` or `cancelled`.
    pub(crate) state: String,
    /// When it started, since the release's start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_ms: Option<u64>,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration_ms: Option<u64>,
}

impl Document {
    /// Returns the document as JSON that a terminal may show.
    pub(crate) fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a document is always JSON");
        text.push('\n');
        crate::text::json(&text)
    }

    /// Returns the first 12 hex digits of a digest: enough for a person, never for a lookup.
    pub(crate) fn short(digest: &str) -> &str {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        hex.get(..12).unwrap_or(hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document as a later program might write it.
    const NEWER: &str = r#"{
        "schemaVersion": 1, "resolved": true, "unresolved": [], "later": {"a": 1},
        "image": {"names": ["a:1"], "platform": "linux/amd64", "config": {}, "later": 1},
        "function": [], "bases": [{"reference": "b", "later": 1}], "stages": [{"name": "s", "vertices": [0]}],
        "vertices": [{"id": 0, "name": "n", "kind": "exec", "inputs": [], "args": ["a"], "env": [], "cwd": "/", "user": "",
            "network": "none", "mounts": [], "later": 1, "outcome": {"state": "ran", "durationMs": 5, "later": 1}}],
        "target": {"vertex": 0, "output": 0}, "contents": [], "notices": []
    }"#;

    #[test]
    fn keys_of_later_programs_are_left_alone() {
        let document: Document = serde_json::from_str(NEWER).unwrap();
        assert_eq!(document.vertices[0].outcome.as_ref().unwrap().duration_ms, Some(5));
        assert!(matches!(document.vertices[0].op, Op::Exec { .. }));
        let again: Document = serde_json::from_str(&document.json()).unwrap();
        assert_eq!(again, document);
    }
}
