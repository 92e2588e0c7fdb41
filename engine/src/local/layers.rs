//! New layers: begun as an empty folder, filled by a worker, kept when they are whole.

use super::operate::Operator;
use super::result::Ref;
use super::store::{LayerNumber, WorkDir};
use super::trees::tree::{Kind, Tree};
use crate::{Digest, Error};

/// A layer that a worker fills.
pub(super) struct Begun {
    /// What it stands on, bottom first.
    pub(super) below: Vec<LayerNumber>,
    /// Where it is filled.
    pub(super) work: WorkDir,
}

impl Operator {
    /// Begins a layer over others.
    pub(super) async fn begin(&self, below: Vec<LayerNumber>) -> Result<Begun, Error> {
        let work = self.store(|store| store.allocate_work()).await?;
        Ok(Begun { below, work })
    }

    /// Keeps a layer that a worker has filled; one that was `copied` holds what lay below it, too.
    pub(super) async fn finish(&self, begun: Begun, copied: bool) -> Result<Ref, Error> {
        self.store(move |store| {
            let mut layers = if copied { Vec::new() } else { begun.below };
            let (content, size_bytes) = measure(&begun.work)?;
            layers.push(store.commit_layer(begun.work, &content, size_bytes)?);
            Ref::of(store, &layers)
        })
        .await
    }
}

/// Reads the tree that a worker wrote, for what the index keeps of it.
pub(super) fn measure(work: &WorkDir) -> Result<(Digest, u64), Error> {
    let path = work.path().join("tree");
    let bytes = std::fs::read(&path).map_err(|source| Error::Store { path: path.clone(), source })?;
    let tree = Tree::decode(&bytes).map_err(|error| Error::Integrity(format!("{}: {error}", path.display())))?;
    let size_bytes = tree.nodes.values().map(|node| match node.kind {
        Kind::File { size_bytes, .. } => size_bytes,
        _ => 0,
    });
    Ok((tree.content_digest(), size_bytes.sum()))
}
