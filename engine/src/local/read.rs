//! A single file of a result.
//!
//! It comes as an archive from a worker, which may read what belongs to other ids, and which checks
//! it against its layer's tree.
//!
//! Invariant: no more is kept than the caller allows.

use std::io;

use super::job::LocalJob;
use super::result::Ref;
use super::trees::unpack::entries::{Entries, Piece, What};
use super::trees::unpack::{Limits, UnpackError};
use super::trees::view::View;
use super::worker::Work;
use crate::Error;
use crate::solver::too_large;

impl LocalJob {
    /// Reads the regular file at `path`.
    pub(super) async fn file(&self, made: Ref, path: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let layers = made.layers()?;
        let trees = self.trees(layers).await?;
        let view = View::new(trees.iter().map(|tree| &**tree));
        let found = view.file(path.trim_matches('/').as_bytes());
        let (number, name, size_bytes) =
            found.ok_or_else(|| Error::Integrity(format!("{path} is no regular file of the result")))?;
        if size_bytes > max_bytes {
            return Err(too_large(path, max_bytes));
        }
        // Its layer alone: what a release adds is small, and what it stands on is not.
        let pack = Work::Pack { layers: vec![layers[number].number()], merged: false, without: None, latest_s: None };
        let name = name.to_vec();
        self.operator.run_read(pack, move |tar| content(tar, &name).map_err(io::Error::other)).await
    }
}

/// Returns the content of an archive's file.
fn content(tar: impl io::Read, name: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut entries = Entries::new(tar, &Limits::default());
    while let Some(entry) = entries.next()? {
        if entry.path != name || entry.what != What::File {
            continue;
        }
        let mut data = Vec::new();
        entries.content(|piece| {
            match piece {
                Piece::Data(bytes) => data.extend_from_slice(bytes),
                Piece::Hole(length) => data.resize(data.len() + usize::try_from(length).map_err(io::Error::other)?, 0),
            }
            Ok(())
        })?;
        return Ok(data);
    }
    Err(entries.refused("the file that the tree names is missing"))
}
