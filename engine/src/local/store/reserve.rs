//! Room that is set aside, so that a full disk can be cleared: the index itself needs some to say
//! what goes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// As much as a collection of thousands of entries writes to the index.
const BYTES: u64 = 4 << 20;

/// Sets the room aside, where there is enough.
pub(super) fn keep(root: &Path) {
    let path = path(root);
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == BYTES) {
        return;
    }
    // Where the disk is full or knows no reservations, there is nothing to give back later.
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
    if open.is_ok_and(|file: File| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES).is_err()) {
        spend(root);
    }
}

/// Gives the room back to the disk.
pub(super) fn spend(root: &Path) {
    // Nothing to give back is no failure of its own: the disk stays as full as it was.
    let _ = fs::remove_file(path(root));
}

fn path(root: &Path) -> PathBuf {
    root.join("reserve")
}
