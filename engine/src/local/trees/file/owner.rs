//! Owners of an action: numbers, or names of an image's users.
//!
//! As in BuildKit (`solver/llbsolver/ops/user_linux.go`), a name that `/etc/passwd` or `/etc/group` does not have is root's, and a
//! user without a group brings the group of its number or of its entry. Invariant: only regular files of up to 10 MiB are read.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::BorrowedFd;

use super::{FileError, root};
use crate::local::trees::beneath;
use crate::op::{FileInput, Owner, User};

/// The largest file of users that is read.
const LONGEST: u64 = 10 << 20;

/// Returns the numbers of an owner; `tree` returns the root of a tree that names are looked up in.
pub(crate) fn owner<'a>(
    owner: Option<&Owner>,
    tree: impl Fn(FileInput) -> Option<BorrowedFd<'a>>,
) -> Result<Option<(u32, u32)>, FileError> {
    let Some(owner) = owner else { return Ok(None) };
    let root = |passwd: FileInput, name: &str| {
        tree(passwd)
            .ok_or_else(|| FileError::refused(name.as_bytes(), "the tree that the owner's name is looked up in is missing"))
    };
    let (mut uid, mut gid) = (0, 0);
    match &owner.user {
        Some(User::Id(id)) => (uid, gid) = (*id, *id),
        Some(User::Name { name, passwd }) => {
            // name:password:uid:gid:…
            if let Some(fields) = find(root(*passwd, name)?, "etc/passwd", name)? {
                (uid, gid) = (number(fields.get(2)), number(fields.get(3)));
            }
        }
        None => {}
    }
    match &owner.group {
        Some(User::Id(id)) => gid = *id,
        Some(User::Name { name, passwd }) => {
            // name:password:gid:…
            if let Some(fields) = find(root(*passwd, name)?, "etc/group", name)? {
                gid = number(fields.get(2));
            }
        }
        None => {}
    }
    Ok(Some((uid, gid)))
}

/// Returns the fields of the first line that `name` has in a file.
fn find(root: BorrowedFd<'_>, file: &str, name: &str) -> Result<Option<Vec<String>>, FileError> {
    let failed = || FileError::system("read", file.as_bytes());
    let path = root::resolve(root, file.as_bytes(), true).map_err(failed())?;
    if beneath::stat(root, &path).map_err(failed())?.is_none() {
        return Ok(None);
    }
    let open = beneath::file(root, &path).map_err(failed())?;
    if open.metadata().map_err(failed())?.len() > LONGEST {
        return Err(FileError::refused(file.as_bytes(), format!("it is larger than {LONGEST} bytes")));
    }
    for line in BufReader::new(open.take(LONGEST)).split(b'\n') {
        let line = line.map_err(failed())?;
        let line = String::from_utf8_lossy(&line);
        let fields: Vec<String> = line.trim().split(':').map(str::to_owned).collect();
        if fields[0] == name && !name.is_empty() {
            return Ok(Some(fields));
        }
    }
    Ok(None)
}

/// Reads a number; 0 where there is none, as moby's `sys/user` reads them.
fn number(field: Option<&String>) -> u32 {
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}
