//! Patterns in the paths of copies and removals: Go's `path/filepath.Match`, so `*` stays within a name.
//!
//! Invariant: matches come in the order of a walk, and what is in a folder that matched is not looked at.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::FileType;

use super::{FileError, root};
use crate::buildkit::{Glob, has_wildcard};
use crate::local::trees::{beneath, path};

/// Returns the paths that `pattern` matches: the pattern itself, shortened, where it has no wildcards.
pub(super) fn matches(root: BorrowedFd<'_>, pattern: &str, follow: bool) -> Result<Vec<Vec<u8>>, FileError> {
    let names = path::names_inside(pattern.as_bytes());
    let names: Vec<&str> =
        names.into_iter().map(|name| std::str::from_utf8(name).expect("a part of a text at '/' is a text")).collect();
    let fixed = names.iter().take_while(|name| !has_wildcard(name)).count();
    let start = names[..fixed].join("/").into_bytes();
    if fixed == names.len() {
        return Ok(vec![start]);
    }
    // A pattern that breaks the grammar matches nothing.
    let Ok(globs) = names[fixed..].iter().map(|name| Glob::name(name)).collect::<Result<Vec<_>, _>>() else {
        return Ok(Vec::new());
    };
    let failed = || FileError::system("look for", pattern.as_bytes());
    let start = root::resolve(root, &start, follow).map_err(failed())?;
    let stat = beneath::stat(root, &start).map_err(failed())?.ok_or_else(|| FileError::missing("look for", &start))?;
    if beneath::kind(&stat) != FileType::Directory {
        return Ok(Vec::new());
    }
    let mut found = vec![start];
    for (depth, glob) in globs.iter().enumerate() {
        let mut next = Vec::new();
        for folder in found {
            let stat = beneath::stat(root, &folder).map_err(failed())?;
            if depth > 0 && !stat.is_some_and(|stat| beneath::kind(&stat) == FileType::Directory) {
                continue;
            }
            let open = beneath::folder(root, &folder).map_err(failed())?;
            let names = beneath::names(open.as_fd()).map_err(failed())?;
            let matching = names.iter().filter(|name| glob.matches(&String::from_utf8_lossy(name)));
            next.extend(matching.map(|name| path::join(&folder, name)));
        }
        found = next;
    }
    Ok(found)
}
