//! What a vertex makes: a stack of layers, or a tree of the machine's own files.

use crate::solver::HostTree;
use crate::{Digest, Error};

use super::store::{LayerNumber, Look};

/// One output of a vertex (BuildKit's `ImmutableRef`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ref {
    /// Layers in the store.
    Layers {
        /// Bottom first; empty is scratch.
        layers: Vec<LayerNumber>,
        /// What they hold, times of change left out.
        content: Digest,
    },
    /// Files of this machine, which steps see read-only.
    Host(HostTree),
}

impl Ref {
    /// Takes what the store knows of `layers`; the topmost of a repeated layer counts, because
    /// what lies under it shows nothing that it does not.
    pub(super) fn of(store: &impl Look, layers: &[LayerNumber]) -> Result<Self, Error> {
        let mut kept: Vec<LayerNumber> = Vec::with_capacity(layers.len());
        for (i, layer) in layers.iter().enumerate() {
            if !layers[i + 1..].contains(layer) {
                kept.push(*layer);
            }
        }
        let contents: String = store.layer_contents(&kept)?.iter().map(Digest::to_string).collect();
        Ok(Self::Layers { layers: kept, content: Digest::of(contents.as_bytes()) })
    }

    /// Nothing at all.
    pub(super) fn scratch() -> Self {
        Self::Layers { layers: Vec::new(), content: Digest::of(b"") }
    }

    /// What it holds, for cache keys.
    pub(super) fn content(&self) -> Digest {
        match self {
            Self::Layers { content, .. } => *content,
            Self::Host(tree) => tree.digest,
        }
    }

    /// Its layers; a host's files are none, and cannot become part of an image.
    pub(super) fn layers(&self) -> Result<&[LayerNumber], Error> {
        match self {
            Self::Layers { layers, .. } => Ok(layers),
            Self::Host(_) => Err(Error::Unsupported {
                solver: super::NAME.to_owned(),
                missing: vec!["files of the machine as anything but a read-only mount".to_owned()],
            }),
        }
    }
}
