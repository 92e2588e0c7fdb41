//! Failures for want of room, told as what they are: the cache's disk is full.
//!
//! Invariant: such a failure names the cache's folder, whoever noticed it: the store, a worker, a
//! fetch, or a step whose own program could not write.

use std::io;
use std::path::Path;

use super::operate::Operator;
use crate::Error;

/// With less room than this a step that fails may well have failed for that.
const LITTLE_BYTES: u64 = 256 << 10;
/// The same in files.
const FEW_FILES: u64 = 8;

impl Operator {
    /// Names the cache in a failure for want of room.
    pub(super) fn in_the_cache(&self, error: Error) -> Error {
        let root = self.store.root().display().to_string();
        match error {
            Error::Resource(text) if !text.contains(&root) => Error::Resource(format!("the cache {root}: {text}")),
            error => error,
        }
    }

    /// Takes a step's failure for one of the disk, where that is full. To be asked while what the
    /// step wrote is still there.
    pub(super) fn for_want_of_room(&self, error: Error) -> Error {
        match error {
            error @ Error::Step { .. } if is_full(self.store.root()) => {
                let source = io::Error::new(io::ErrorKind::StorageFull, format!("its disk is full, and {error}"));
                Error::Store { path: self.store.root().to_owned(), source }
            }
            error => error,
        }
    }
}

/// Says whether hardly anything more can be written to a folder's disk.
fn is_full(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|disk| {
        // A disk that does not count its files says that it has none.
        let few_files = disk.f_files > 0 && disk.f_favail < FEW_FILES;
        disk.f_bavail.saturating_mul(disk.f_frsize) < LITTLE_BYTES || few_files
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_disk_has_room_and_one_without_a_free_block_has_none() {
        assert!(!is_full(tempfile::tempdir().unwrap().path()));
        // It has no blocks at all.
        assert!(is_full(Path::new("/proc")));
        assert!(!is_full(Path::new("/dev/null/x")));
    }
}
