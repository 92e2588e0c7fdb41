//! What an archive may be, so that a hostile one costs no more than its limits.
//!
//! Invariant: memory and disk are only taken after they have been paid for from the [`Budget`].

use serde::{Deserialize, Serialize};

use super::UnpackError;

/// The limits of one archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// The sum of all files' lengths, holes counted.
    pub(crate) content_bytes: u64,
    /// Headers, and folders that stand only in other entries' paths.
    pub(crate) entries: u64,
    /// The sum of all paths, link targets and attributes; those of a hard link are counted again.
    pub(crate) metadata_bytes: u64,
    /// One PAX header, long name or sparse map.
    pub(crate) header_bytes: u64,
    /// How deep folders may be.
    pub(crate) depth: usize,
}

impl Default for Limits {
    /// What the largest images stay far below.
    fn default() -> Self {
        Self { content_bytes: 128 << 30, entries: 4_000_000, metadata_bytes: 1 << 30, header_bytes: 1 << 20, depth: 1000 }
    }
}

/// What is left of the limits.
pub(super) struct Budget {
    limits: Limits,
    left: Limits,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: limits.clone(), left: limits.clone() }
    }

    /// Pays for one header or folder.
    pub(super) fn entry(&mut self, entry: &str) -> Result<(), UnpackError> {
        spend(&mut self.left.entries, 1, entry, self.limits.entries, "entries in all")
    }

    /// Pays for a path, a target or an attribute.
    pub(super) fn metadata(&mut self, bytes: usize, entry: &str) -> Result<(), UnpackError> {
        spend(
            &mut self.left.metadata_bytes,
            bytes as u64,
            entry,
            self.limits.metadata_bytes,
            "bytes of paths and attributes in all",
        )
    }

    /// Pays for a file's content.
    pub(super) fn content(&mut self, bytes: u64, entry: &str) -> Result<(), UnpackError> {
        spend(&mut self.left.content_bytes, bytes, entry, self.limits.content_bytes, "bytes of content in all")
    }

    /// Checks the size of one header's content.
    pub(super) fn header(&self, bytes: u64, entry: &str) -> Result<(), UnpackError> {
        spend(&mut self.limits.header_bytes.clone(), bytes, entry, self.limits.header_bytes, "bytes in one header")
    }

    /// Checks how deep a path is.
    pub(super) fn depth(&self, depth: usize, entry: &str) -> Result<(), UnpackError> {
        spend(&mut (self.limits.depth as u64), depth as u64, entry, self.limits.depth as u64, "folders in each other")
    }
}

fn spend(left: &mut u64, amount: u64, entry: &str, limit: u64, what: &'static str) -> Result<(), UnpackError> {
    match left.checked_sub(amount) {
        Some(rest) => {
            *left = rest;
            Ok(())
        }
        None => Err(UnpackError::Limit { entry: entry.to_owned(), limit, what }),
    }
}
