//! The actions that make or remove single things.

use std::io::Write as _;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::FileError;
use super::place::Place;
use crate::local::trees::{beneath, path};
use crate::op::{Mkdir, Mkfile, Rm, Symlink};

/// Makes a folder; one that is there stays as it is.
pub(super) fn folder(place: &mut Place<'_>, action: &Mkdir, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let path = place.resolve(action.path.as_bytes(), true)?;
    let mode = action.mode & 0o777;
    if action.make_parents {
        return place.make_folders(&path, mode, owner, action.timestamp_ns).map(drop);
    }
    if place.stat(&path)?.is_some() {
        return Ok(());
    }
    place.make_folder(&path, mode)?;
    place.finish(&path, owner, action.timestamp_ns)
}

/// Makes a file; one that is there gets the content, and keeps mode and owner unless one is given.
pub(super) fn file(place: &mut Place<'_>, action: &Mkfile, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let path = place.resolve(action.path.as_bytes(), true)?;
    let before = place.stat(&path)?;
    let mut file = match before.map(|stat| beneath::kind(&stat)) {
        None => place.make_file(&path)?,
        Some(FileType::RegularFile) => place.empty_file(&path)?,
        Some(FileType::Directory) => return Err(FileError::system("open", &path)(Errno::ISDIR.into())),
        Some(_) => {
            return Err(FileError::refused(&path, "it is no regular file, so it cannot be given content: remove it first"));
        }
    };
    file.write_all(&action.data).map_err(FileError::system("write", &path))?;
    if before.is_none() {
        place.set_mode(&path, action.mode & 0o777)?;
    }
    place.finish(&path, owner, action.timestamp_ns)
}

/// Makes a symbolic link where nothing is.
pub(super) fn symlink(place: &mut Place<'_>, action: &Symlink, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let path = place.resolve(action.new_path.as_bytes(), true)?;
    place.make_symlink(&path, action.old_path.as_bytes())?;
    place.finish(&path, owner, action.timestamp_ns)
}

/// Removes a path, or all that a pattern matches; a link goes, never what it leads to.
pub(super) fn remove(place: &mut Place<'_>, action: &Rm) -> Result<(), FileError> {
    let paths = if action.wildcard { place.matches(&action.path, false)? } else { vec![action.path.as_bytes().to_vec()] };
    for written in paths {
        let names = path::names_inside(&written);
        let Some((last, folders)) = names.split_last() else {
            return Err(FileError::refused(&written, "the root folder cannot be removed"));
        };
        let path = path::join(&place.resolve(&folders.join(&b'/'), true)?, last);
        if !action.allow_not_found && place.stat(&path)?.is_none() {
            return Err(FileError::missing("remove", &written));
        }
        place.remove(&path)?;
    }
    Ok(())
}
