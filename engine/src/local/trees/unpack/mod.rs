//! Layer archives to layers on the disk.
//!
//! [`read`](crate::oci::layer::read) reads the archive and decides where each entry goes; [`write`] puts it there, where no link is
//! followed. Invariant: nothing outside the folder is reached, and the tree says what the disk could not hold.

#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::io::Read;
use std::os::fd::BorrowedFd;

pub(crate) use crate::oci::layer::{Limits, OPAQUE, UnpackError, WHITEOUT, entries};
use crate::oci::layer::{Tree, read};
use write::Writer;

use super::disk::Disk;
use super::view::View;

/// Unpacks an uncompressed archive into the empty folder `into`, reads it to its end and returns what the layer contains.
///
/// `below` are the layers that it will lie on. Folders that the archive has only in other entries' paths look as they do there.
pub(crate) fn unpack(
    tar: impl Read,
    into: BorrowedFd<'_>,
    below: &View<'_>,
    disk: &Disk,
    limits: &Limits,
) -> Result<Tree, UnpackError> {
    read::read(tar, below, Writer::new(into, *disk), limits)
}
