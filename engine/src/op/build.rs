//! Build ops: a definition that is itself the output of a vertex.

use std::collections::BTreeMap;

use super::Edge;

/// Solves the definition that `definition` holds as a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The tree with the definition.
    pub definition: Edge,
    /// What the builder is told; `llbbuild.filename` names the file.
    pub attrs: BTreeMap<String, String>,
}

impl Build {
    pub(super) fn inputs(&self) -> Vec<Edge> {
        vec![self.definition]
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        vec!["source.buildop.llbfilename"]
    }

    pub(super) fn summary(&self) -> String {
        format!("build {}", self.attrs.get("llbbuild.filename").map_or("buildkit.llb.definition", String::as_str))
    }
}
