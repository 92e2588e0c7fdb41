//! File trees of layers: what they are, and everything that reads, changes or carries them.
//!
//! 1. A `tree` says what a layer holds; a `view` is what a stack of them shows.
//! 2. `disk` and `ledger` say how a tree lies in a folder: what the file system keeps by itself, and
//!    what has to be written down beside it. `scan` reads a folder back into a tree.
//! 3. `unpack` makes a layer of an archive, `pack` an archive of a layer.
//! 4. `file` does the file actions: copy, mkdir, mkfile, rm, symlink.
//! 5. `since` is what one view has that another lacks.
//!
//! Invariant: no path leads out of the folder that it is read in (`beneath`), whatever links its
//! author left there.

pub(crate) mod beneath;
pub(crate) mod disk;
pub(crate) mod file;
pub(crate) mod ledger;
pub(crate) mod pack;
pub(crate) mod scan;
pub(crate) mod since;
pub(crate) mod unpack;
pub(crate) mod xattr;

pub(crate) use crate::oci::layer::{path, tree, view};
