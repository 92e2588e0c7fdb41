//! Files of a layer, by path, whatever links its author left in it.
//!
//! Invariant: a path is opened with `openat2` so that no symbolic link in it is followed and nothing outside of the layer's
//! folder is reached; who wants links followed resolves them first, inside the layer.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::path;

/// Opens what is at `path`.
pub(crate) fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)?)
}

/// Opens a folder.
pub(crate) fn folder(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<OwnedFd> {
    open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Opens a regular file for reading; anything else is an error.
pub(crate) fn file(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<File> {
    // Non-blocking: a pipe does not hold the reader up.
    let file = open(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    if kind(&rustix::fs::fstat(&file)?) == FileType::RegularFile {
        Ok(file.into())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

/// Returns what is at `path`, links not followed; nothing where there is nothing.
pub(crate) fn stat(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<Option<Stat>> {
    let found = (|| {
        let Some(parent) = path::parent(path) else { return Ok(rustix::fs::fstat(root)?) };
        let folder = open(root, parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::statat(folder, path::name(path), AtFlags::SYMLINK_NOFOLLOW)?)
    })();
    match found {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the names in an open folder, in byte order.
pub(crate) fn names(folder: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes an entry of a folder and everything in it: no link is followed. Nothing there is a success.
pub(crate) fn remove_all(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    // Folders by path beneath the first one: as deep as a path can be, with one open folder at a time.
    let top =
        rustix::fs::openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.last().cloned() {
        let open = self::folder(top.as_fd(), &path)?;
        let before = pending.len();
        for name in names(open.as_fd())? {
            match rustix::fs::unlinkat(&open, &name[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => pending.push(path::join(&path, &name)),
                Err(error) => return Err(error.into()),
            }
        }
        if pending.len() > before {
            continue;
        }
        pending.pop();
        let Some(parent) = path::parent(&path) else { break };
        let parent = self::folder(top.as_fd(), parent)?;
        rustix::fs::unlinkat(parent, path::name(&path), AtFlags::REMOVEDIR)?;
    }
    Ok(rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)?)
}

/// Sets an entry's time, for a link the link's own.
pub(crate) fn set_time(folder: BorrowedFd<'_>, name: &[u8], time_ns: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: time_ns.div_euclid(1_000_000_000), tv_nsec: time_ns.rem_euclid(1_000_000_000) as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    let name = if name.is_empty() { b"." } else { name };
    Ok(rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets an entry's mode; it must be no link.
pub(crate) fn set_mode(folder: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let name = if name.is_empty() { b"." } else { name };
    Ok(rustix::fs::chmodat(folder, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?)
}

/// Returns the type of what was looked at.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns the time of the last change.
pub(crate) fn mtime_ns(stat: &Stat) -> i64 {
    // The widths of these fields differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    (stat.st_mtime as i64).saturating_mul(1_000_000_000).saturating_add(stat.st_mtime_nsec as i64)
}

/// Says whether an error means that there is nothing at a path.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_lead_nowhere() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), "x").unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("a")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("../secret", root.join("link")).unwrap();
        symlink("a", root.join("inside")).unwrap();
        let root = std::fs::File::open(&root).unwrap();
        for path in [&b"../secret"[..], b"up/secret", b"link", b"/etc/passwd", b"inside/x", b"a/../../secret"] {
            assert!(file(root.as_fd(), path).is_err(), "{path:?}");
        }
        assert_eq!(kind(&stat(root.as_fd(), b"link").unwrap().unwrap()), FileType::Symlink);
        assert!(stat(root.as_fd(), b"a/b").unwrap().is_none() && stat(root.as_fd(), b"inside/b").unwrap().is_none());
    }

    #[test]
    fn removal_stays_inside_and_reaches_everything() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(outer.path().join("keep/deep")).unwrap();
        let top = outer.path().join("top");
        std::fs::create_dir_all(top.join(["n"; 200].join("/"))).unwrap();
        std::fs::write(top.join("n/file"), "x").unwrap();
        std::fs::create_dir_all(top.join("m/o")).unwrap();
        symlink(outer.path().join("keep"), top.join("n/link")).unwrap();
        symlink("keep", outer.path().join("link")).unwrap();
        let folder = std::fs::File::open(outer.path()).unwrap();
        for name in [&b"top"[..], b"link", b"missing"] {
            remove_all(folder.as_fd(), name).unwrap();
        }
        assert_eq!(names(folder.as_fd()).unwrap(), [b"keep"]);
        assert!(outer.path().join("keep/deep").exists());
    }
}
