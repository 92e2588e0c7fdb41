//! Merge and diff: trees put together and taken apart without running anything.

use super::Edge;

/// Lays trees over one another; where they have the same path, the later one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The trees, lowest first, at least two.
    pub inputs: Vec<Edge>,
}

impl Merge {
    pub(super) fn inputs(&self) -> Vec<Edge> {
        self.inputs.clone()
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        vec!["mergeop"]
    }

    pub(super) fn summary(&self) -> String {
        format!("merge of {} trees", self.inputs.len())
    }
}

/// Takes what `upper` has over `lower`, removals included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The tree that is taken away; an empty one where absent.
    pub lower: Option<Edge>,
    /// The tree that it is taken from; an empty one where absent.
    pub upper: Option<Edge>,
}

impl Diff {
    pub(super) fn inputs(&self) -> Vec<Edge> {
        // BuildKit's client gives each side its own input, even where both are the same.
        self.lower.into_iter().chain(self.upper).collect()
    }

    pub(super) fn caps(&self) -> Vec<&'static str> {
        vec!["diffop"]
    }

    pub(super) fn summary(&self) -> String {
        "diff".to_owned()
    }
}
