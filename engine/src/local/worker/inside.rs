//! Paths inside a tree, resolved as the tree's own processes would, where parts may be missing.
//!
//! Invariant: links are followed inside the root alone; what is made is made below it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io;

use super::mounting;

/// As many links as the kernel follows.
const LINKS: usize = 40;

/// Resolves `path` in a tree to names that are no links, relative to the root; names from the first
/// missing one on stay as they are. BuildKit's and containerd's `fs.RootPath`.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut left: VecDeque<Vec<u8>> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                names.pop();
                continue;
            }
            _ => names.push(part),
        }
        match mounting::within(root, join(&names).as_slice(), OFlags::PATH | OFlags::NOFOLLOW) {
            Ok(found) if kind(&found)? == FileType::Symlink => {
                links += 1;
                if links > LINKS {
                    return Err(io::Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&found, "", Vec::new())?;
                names.pop();
                if target.as_bytes().starts_with(b"/") {
                    names.clear();
                }
                for part in parts(target.as_bytes()).into_iter().rev() {
                    left.push_front(part);
                }
            }
            Ok(_) | Err(io::Errno::NOENT | io::Errno::NOTDIR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// What stands at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    /// A folder.
    Folder,
    /// A file.
    File,
}

/// Opens `path` in a tree; what is missing is made, folders with `mode` and `owner`.
pub(super) fn make(root: BorrowedFd<'_>, path: &[u8], leaf: Leaf, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    let names = resolve(root, path)?;
    let mut above = mounting::within(root, ".", OFlags::PATH | OFlags::DIRECTORY)?;
    for (i, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        let last = i + 1 == names.len();
        if last && leaf == Leaf::File {
            match rustix::fs::mknodat(&above, name, FileType::RegularFile, Mode::from_raw_mode(0o755), 0) {
                Ok(()) | Err(io::Errno::EXIST) => {}
                // A read-only place may well have the file.
                Err(error) => return open(&above, name).map_err(|_| error),
            }
        } else {
            match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
                Ok(()) => own(&above, name, owner)?,
                Err(io::Errno::EXIST) => {}
                Err(error) => {
                    above = open(&above, name).map_err(|_| error)?;
                    continue;
                }
            }
        }
        above = open(&above, name)?;
        if (!last || leaf == Leaf::Folder) && kind(&above)? != FileType::Directory {
            return Err(io::Errno::NOTDIR);
        }
    }
    Ok(above)
}

fn own(above: &OwnedFd, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    rustix::fs::chownat(above, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
}

fn open(above: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    rustix::fs::openat(above, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Returns what an open place is.
pub(super) fn kind(place: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(place)?.st_mode))
}

/// Joins names to a path that is relative to a root.
pub(super) fn join(names: &[Vec<u8>]) -> Vec<u8> {
    if names.is_empty() { b".".to_vec() } else { names.join(&b'/') }
}

fn parts(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        symlink("/a", folder.path().join("abs")).unwrap();
        symlink("../../../a/new/./deep", folder.path().join("a/out")).unwrap();
        symlink("loop", folder.path().join("loop")).unwrap();
        let root = mounting::place(folder.path()).unwrap();
        (folder, root)
    }

    #[test]
    fn links_lead_nowhere_but_into_the_tree() {
        let (_folder, root) = tree();
        let resolved = |path: &str| String::from_utf8(join(&resolve(root.as_fd(), path.as_bytes()).unwrap())).unwrap();
        assert_eq!(resolved("/abs/b"), "a/b");
        assert_eq!(resolved("/a/out/x"), "a/new/deep/x");
        assert_eq!(resolved("../../.."), ".");
        assert_eq!(resolved("/none/../abs/none"), "a/none");
        assert_eq!(resolve(root.as_fd(), b"loop/x"), Err(io::Errno::LOOP));
    }

    #[test]
    fn missing_folders_and_files_are_made_inside() {
        let (folder, root) = tree();
        make(root.as_fd(), b"/a/out/file", Leaf::File, None).unwrap();
        let made = folder.path().join("a/new/deep");
        assert!(made.join("file").is_file());
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, 0o755);
        make(root.as_fd(), b"/abs/b", Leaf::Folder, None).unwrap();
        assert_eq!(make(root.as_fd(), b"/a/new/deep/file/x", Leaf::Folder, None).unwrap_err(), io::Errno::NOTDIR);
        assert_eq!(make(root.as_fd(), b"/a/new/deep/file", Leaf::Folder, None).unwrap_err(), io::Errno::NOTDIR);
    }
}
