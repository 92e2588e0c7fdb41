//! Layers laid over one another by copying, where overlayfs cannot be had.
//!
//! Invariant: what comes out is what an overlay of the same layers would show: whiteouts and opaque
//! folders hide what is below, hard links within a layer stay, times are kept.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};

use super::overlay::OPAQUE;
use super::protocol::{Doing, Failure};

/// Copies layers (their folders), bottom first, into a folder.
pub(super) fn flatten(layers: &[PathBuf], into: &Path) -> Result<(), Failure> {
    for layer in layers {
        let doing = || format!("copying {} (overlayfs is refused here)", layer.display());
        folder(layer, into, &mut HashMap::new()).doing(doing)?;
    }
    Ok(())
}

/// Links by device and inode, to the name that was copied first.
type Links = HashMap<(u64, u64), PathBuf>;

fn folder(from: &Path, into: &Path, links: &mut Links) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, into) = (entry.path(), into.join(entry.file_name()));
        let meta = fs::symlink_metadata(&from)?;
        let there = fs::symlink_metadata(&into).ok();
        if meta.is_dir() {
            if there.is_some_and(|there| !there.is_dir()) || is_opaque(&from) {
                remove(&into)?;
            }
            match fs::create_dir(&into) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            folder(&from, &into, links)?;
            attributes(&from, &into, &meta)?;
            continue;
        }
        remove(&into)?;
        if meta.file_type().is_char_device() && meta.rdev() == 0 {
            continue;
        }
        if meta.nlink() > 1 {
            if let Some(first) = links.get(&(meta.dev(), meta.ino())) {
                fs::hard_link(first, &into)?;
                continue;
            }
            links.insert((meta.dev(), meta.ino()), into.clone());
        }
        file(&from, &into, &meta)?;
        attributes(&from, &into, &meta)?;
    }
    attributes(from, into, &fs::symlink_metadata(from)?)
}

fn file(from: &Path, into: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, into)
    } else if kind.is_file() {
        fs::copy(from, into).map(drop)
    } else {
        let mode = Mode::from_raw_mode(meta.mode() & 0o7777);
        Ok(rustix::fs::mknodat(CWD, into, FileType::from_raw_mode(meta.mode()), mode, meta.rdev())?)
    }
}

/// Gives a copy its owner, mode, extended attributes and times, in the order in which none undoes
/// another.
fn attributes(from: &Path, into: &Path, meta: &fs::Metadata) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    rustix::fs::chownat(CWD, into, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if !meta.file_type().is_symlink() {
        rustix::fs::chmodat(CWD, into, Mode::from_raw_mode(meta.mode() & 0o7777), AtFlags::empty())?;
    }
    let mut names = vec![0; 65_536];
    let len = rustix::fs::llistxattr(from, &mut names)?;
    for name in names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty() && *name != OPAQUE.as_bytes()) {
        let name = OsStr::from_bytes(name);
        let mut value = vec![0; 65_536];
        let len = rustix::fs::lgetxattr(from, name, &mut value)?;
        rustix::fs::lsetxattr(into, name, &value[..len], XattrFlags::empty())?;
    }
    let time = |s, ns| Timespec { tv_sec: s, tv_nsec: ns };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, into, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn is_opaque(folder: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(folder, OPAQUE, &mut value).is_ok_and(|len| value[..len] == *b"y")
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
