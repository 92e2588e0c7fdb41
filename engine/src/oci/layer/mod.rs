//! What layers contain: their archives read, their trees, and what a stack of them shows.
//!
//! - [`read`](read::read) turns an archive into a [`Tree`]: `entries` (with `header`, `pax`, `sparse`) is tar's own part, `names`
//!   decides where an entry goes, `limits` what all that may cost.
//! - [`tree`] says what a layer holds, [`view`] what layers show that lie on each other.
//!
//! Invariant: nothing here asks a disk or follows a link of its machine; hostile archives end in an [`UnpackError`].

#![cfg_attr(not(target_os = "linux"), allow(dead_code, unused_imports, reason = "the embedded engine uses the rest"))]

#[cfg(test)]
pub(crate) mod by_hand;
pub(crate) mod entries;
mod error;
mod header;
mod limits;
mod names;
pub(crate) mod path;
mod pax;
pub(crate) mod read;
mod sparse;
pub(crate) mod tree;
pub(crate) mod view;
pub(crate) mod xattrs;

pub(crate) use error::UnpackError;
pub(crate) use limits::Limits;
pub(crate) use names::Below;
pub(crate) use read::{OPAQUE, Sink, WHITEOUT};
pub use tree::{Kind, Node, Tree};
