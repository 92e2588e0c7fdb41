//! File ops on folders, with BuildKit's semantics (`solver/llbsolver/file`, `tonistiigi/fsutil/copy`).
//!
//! Invariant: every path leads somewhere inside its root: links are resolved by [`root`], as seen from there, and what is then
//! opened follows none. What the disk cannot hold of the result is in the target's ledger. Where BuildKit's result depends on
//! the moment or on the machine (the time of parents that a pattern brought in, block devices that become character devices,
//! links that are judged by what the host has at their target), the result here is the one that was meant.

mod archive;
mod content;
mod copier;
mod copy;
mod error;
mod make;
mod modes;
mod owner;
mod place;
mod root;
#[cfg(test)]
mod tests;
mod wildcard;

use std::os::fd::BorrowedFd;

pub(crate) use error::FileError;
pub(crate) use owner::owner;
use place::Place;

use super::disk::Disk;
use super::ledger::Ledger;
use super::view::View;
use crate::op::FileActionKind;

/// The tree that is changed.
pub(crate) struct Target<'a> {
    /// Its root: the mounted layers with a new one on top, or a plain folder.
    pub(crate) root: BorrowedFd<'a>,
    /// What the disk can hold.
    pub(crate) disk: Disk,
    /// Where the rest is noted.
    pub(crate) ledger: &'a mut Ledger,
}

/// A tree that is copied from.
pub(crate) struct Source<'a> {
    /// Its root.
    pub(crate) root: BorrowedFd<'a>,
    /// What its layers say.
    pub(crate) view: &'a View<'a>,
    /// What was noted of it, where it is an earlier action's result and not a layer yet.
    pub(crate) ledger: &'a Ledger,
}

/// Performs one action. `owner` is what [`owner`] returned for the action's; a copy needs its source.
pub(crate) fn perform(
    kind: &FileActionKind,
    target: &mut Target<'_>,
    source: Option<&Source<'_>>,
    owner: Option<(u32, u32)>,
) -> Result<(), FileError> {
    let mut place = Place::new(target);
    match kind {
        FileActionKind::Mkdir(action) => make::folder(&mut place, action, owner),
        FileActionKind::Mkfile(action) => make::file(&mut place, action, owner),
        FileActionKind::Symlink(action) => make::symlink(&mut place, action, owner),
        FileActionKind::Rm(action) => make::remove(&mut place, action),
        FileActionKind::Copy(action) => {
            let source = source
                .ok_or_else(|| FileError::refused(action.source.as_bytes(), "the tree that it is copied from is missing"))?;
            copy::copy(&mut place, source, action, owner)
        }
    }
}
