//! What the file system under the layers can hold of a tree.
//!
//! Invariant: whatever it cannot hold is in a tree or, until the tree is made, in a ledger; a refusal that [`Disk`] announces is
//! never an error.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Gid, Stat, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ledger::Entry;
use super::tree::Node;

/// The rights of whoever works on the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Disk {
    /// The largest user id that a file can be given: 0 where all files are one user's.
    pub(crate) last_uid: u32,
    /// The largest group id that a file can be given.
    pub(crate) last_gid: u32,
    /// The kind of overlayfs marks.
    pub(crate) marks: Marks,
}

/// The attributes that overlayfs reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Marks {
    /// `trusted.overlay.*`: outside of user namespaces.
    Trusted,
    /// `user.overlay.*`: mounts with `userxattr`.
    User,
}

impl Marks {
    /// Returns the attribute that is `y` on opaque folders.
    pub(crate) fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }
}

impl Disk {
    /// Says whether every owner can be held.
    pub(crate) fn holds_all_owners(&self) -> bool {
        self.last_uid >= u32::MAX - 1 && self.last_gid >= u32::MAX - 1
    }

    /// Returns the owner of what a disk shows: what was noted, or what the layers say where the disk could not hold that.
    pub(crate) fn owner(&self, stat: &Stat, said: Option<&Node>, noted: Option<&Entry>) -> (u32, u32) {
        if let Some(owner) = noted.and_then(|noted| noted.owner) {
            return owner;
        }
        let id = |shown: u32, last: u32, said: Option<u32>| {
            let shown = if shown <= last { shown } else { 0 };
            said.filter(|said| shown == 0 && *said > last).unwrap_or(shown)
        };
        let user = id(stat.st_uid, self.last_uid, said.map(|node| node.uid));
        (user, id(stat.st_gid, self.last_gid, said.map(|node| node.gid)))
    }

    /// Gives an entry of a folder the owner as far as it can be held.
    pub(crate) fn chown(&self, folder: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        let user = (uid <= self.last_uid).then(|| Uid::from_raw(uid));
        let group = (gid <= self.last_gid).then(|| Gid::from_raw(gid));
        if user.is_none() && group.is_none() {
            return Ok(());
        }
        match rustix::fs::chownat(folder, name, user, group, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::PERM | Errno::INVAL) if !self.holds_all_owners() => Ok(()),
            result => Ok(result?),
        }
    }
}
