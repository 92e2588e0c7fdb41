//! Paths as seen from inside a root.
//!
//! Invariant: what [`resolve`] returns names nothing outside of the root, and no part of it but the last may be a link.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::local::trees::{beneath, path};

/// As many links as containerd follows in one path.
const MOST_LINKS: usize = 255;

/// Follows the links in a path; the one that it ends with only where `follow_last`. Parts that are missing stay as written.
pub(super) fn resolve(root: BorrowedFd<'_>, written: &[u8], follow_last: bool) -> io::Result<Vec<u8>> {
    let mut todo: Vec<Vec<u8>> = path::names_inside(written).iter().rev().map(|name| name.to_vec()).collect();
    let mut done = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done.truncate(path::parent(&done).map_or(0, <[u8]>::len));
            continue;
        }
        let path = path::join(&done, &name);
        let is_link = beneath::stat(root, &path)?.is_some_and(|stat| beneath::kind(&stat) == FileType::Symlink);
        if !is_link || todo.is_empty() && !follow_last {
            done = path;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = read_link(root, &path)?;
        if target.starts_with(b"/") {
            done.clear();
        }
        let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
        todo.extend(parts.rev().map(<[u8]>::to_vec));
    }
    Ok(done)
}

/// Returns what a link says.
pub(super) fn read_link(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<u8>> {
    let folder = beneath::folder(root, path::parent(path).unwrap_or_default())?;
    Ok(rustix::fs::readlinkat(folder, path::name(path), Vec::new())?.into_bytes())
}
