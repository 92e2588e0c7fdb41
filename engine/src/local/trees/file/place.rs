//! Changes to the target, one entry at a time.
//!
//! Invariant: paths are resolved ones; whatever is made here has its owner set or noted, and whatever is removed is forgotten.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{FileError, Target, root};
use crate::local::trees::disk::Disk;
use crate::local::trees::ledger::{Entry, Ledger};
use crate::local::trees::tree::Kind;
use crate::local::trees::{beneath, path, xattr};

/// A folder that is changed, and where it stands in its tree.
pub(super) struct Place<'a> {
    root: BorrowedFd<'a>,
    /// The folder's path in the tree that the ledger is about.
    prefix: Vec<u8>,
    pub(super) disk: Disk,
    ledger: &'a mut Ledger,
}

impl<'a> Place<'a> {
    /// The whole of a target.
    pub(super) fn new(target: &'a mut Target<'_>) -> Self {
        Self { root: target.root, prefix: Vec::new(), disk: target.disk, ledger: target.ledger }
    }

    /// A folder of this one as a root of its own.
    pub(super) fn inside<'b>(&'b mut self, folder: &'b OwnedFd, path: &[u8]) -> Place<'b> {
        Place { root: folder.as_fd(), prefix: path::join(&self.prefix, path), disk: self.disk, ledger: self.ledger }
    }

    /// Follows the links in a path.
    pub(super) fn resolve(&self, written: &[u8], follow_last: bool) -> Result<Vec<u8>, FileError> {
        root::resolve(self.root, written, follow_last).map_err(FileError::system("look up", written))
    }

    /// Returns what is at a path.
    pub(super) fn stat(&self, path: &[u8]) -> Result<Option<Stat>, FileError> {
        beneath::stat(self.root, path).map_err(FileError::system("look at", path))
    }

    /// Returns the paths that match a pattern.
    pub(super) fn matches(&self, pattern: &str, follow: bool) -> Result<Vec<Vec<u8>>, FileError> {
        super::wildcard::matches(self.root, pattern, follow)
    }

    /// Opens a folder.
    pub(super) fn open_folder(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        beneath::folder(self.root, path).map_err(FileError::system("open", path))
    }

    /// Makes a folder with this mode.
    pub(super) fn make_folder(&mut self, path: &[u8], mode: u32) -> Result<(), FileError> {
        let (parent, name) = self.parent("mkdir", path)?;
        rustix::fs::mkdirat(&parent, name, Mode::RWXU).map_err(|error| FileError::system("mkdir", path)(error.into()))?;
        beneath::set_mode(parent.as_fd(), name, mode).map_err(FileError::system("chmod", path))?;
        self.made(path);
        Ok(())
    }

    /// Makes a folder and those above it that are missing. Returns the ones that were made, the outermost first.
    pub(super) fn make_folders(
        &mut self,
        path: &[u8],
        mode: u32,
        owner: Option<(u32, u32)>,
        time_ns: Option<i64>,
    ) -> Result<Vec<Vec<u8>>, FileError> {
        let mut made = Vec::new();
        for folder in path::ancestors(path).chain([path]) {
            match self.stat(folder)? {
                Some(stat) if beneath::kind(&stat) == FileType::Directory => continue,
                Some(_) => return Err(FileError::system("mkdir", folder)(Errno::NOTDIR.into())),
                None => self.make_folder(folder, mode)?,
            }
            self.finish(folder, owner, time_ns)?;
            made.push(folder.to_vec());
        }
        Ok(made)
    }

    /// Makes an empty file.
    pub(super) fn make_file(&mut self, path: &[u8]) -> Result<File, FileError> {
        let (parent, name) = self.parent("create", path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR);
        let file = file.map_err(|error| FileError::system("create", path)(error.into()))?;
        self.made(path);
        Ok(file.into())
    }

    /// Opens a file that is there, and empties it.
    pub(super) fn empty_file(&mut self, path: &[u8]) -> Result<File, FileError> {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(beneath::open(self.root, path, flags).map_err(FileError::system("open", path))?);
        file.set_len(0).map_err(FileError::system("truncate", path))?;
        Ok(file)
    }

    /// Makes a symbolic link.
    pub(super) fn make_symlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), FileError> {
        let (parent, name) = self.parent("symlink", path)?;
        rustix::fs::symlinkat(target, parent, name).map_err(|error| FileError::system("symlink", path)(error.into()))?;
        self.made(path);
        Ok(())
    }

    /// Gives a file another name.
    pub(super) fn make_link(&mut self, path: &[u8], to: &[u8]) -> Result<(), FileError> {
        let (folder, old) = self.parent("link", to)?;
        let (parent, name) = self.parent("link", path)?;
        let made = rustix::fs::linkat(folder, old, parent, name, AtFlags::empty());
        made.map_err(|error| FileError::system("link", path)(error.into()))?;
        let noted = self.ledger.of(&path::join(&self.prefix, to)).cloned();
        self.made(path);
        if let Some(noted) = noted {
            *self.noted(path) = noted;
        }
        Ok(())
    }

    /// Makes a device or a pipe; an empty file that stands for a device where the system allows none.
    pub(super) fn make_node(&mut self, path: &[u8], kind: &Kind) -> Result<(), FileError> {
        let (parent, name) = self.parent("mknod", path)?;
        let (file_type, major, minor) = match kind {
            Kind::Char { major, minor } => (FileType::CharacterDevice, *major, *minor),
            Kind::Block { major, minor } => (FileType::BlockDevice, *major, *minor),
            Kind::Fifo => (FileType::Fifo, 0, 0),
            _ => (FileType::RegularFile, 0, 0),
        };
        let make = |kind, device| rustix::fs::mknodat(&parent, name, kind, Mode::RUSR | Mode::WUSR, device);
        let device = rustix::fs::makedev(major, minor);
        let stands = match make(file_type, device) {
            Err(Errno::PERM) if file_type != FileType::Fifo => make(FileType::RegularFile, 0).map(|()| true),
            made => made.map(|()| false),
        };
        let stands = stands.map_err(|error| FileError::system("mknod", path)(error.into()))?;
        self.made(path);
        if stands {
            self.noted(path).device = Some(kind.clone());
        }
        Ok(())
    }

    /// Removes what is at a path and beneath it; nothing there is a success.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<(), FileError> {
        let removed = match beneath::folder(self.root, path::parent(path).unwrap_or_default()) {
            Ok(parent) => beneath::remove_all(parent.as_fd(), path::name(path)),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        };
        removed.map_err(FileError::system("remove", path))?;
        self.ledger.forget(&path::join(&self.prefix, path));
        Ok(())
    }

    /// Sets the owner and the time where they are given.
    pub(super) fn finish(&mut self, path: &[u8], owner: Option<(u32, u32)>, time_ns: Option<i64>) -> Result<(), FileError> {
        if let Some(owner) = owner {
            self.set_owner(path, owner)?;
        }
        time_ns.map_or(Ok(()), |time| self.set_time(path, time))
    }

    /// Sets the owner, or notes it.
    pub(super) fn set_owner(&mut self, path: &[u8], (uid, gid): (u32, u32)) -> Result<(), FileError> {
        let (parent, name) = self.parent("chown", path)?;
        self.disk.chown(parent.as_fd(), name, uid, gid).map_err(FileError::system("chown", path))?;
        if !self.disk.holds_all_owners() {
            self.noted(path).owner = Some((uid, gid));
        }
        Ok(())
    }

    /// Sets the mode of what is no link.
    pub(super) fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<(), FileError> {
        let (parent, name) = self.parent("chmod", path)?;
        beneath::set_mode(parent.as_fd(), name, mode).map_err(FileError::system("chmod", path))
    }

    /// Sets the time.
    pub(super) fn set_time(&mut self, path: &[u8], time_ns: i64) -> Result<(), FileError> {
        let (parent, name) = self.parent("set the time of", path)?;
        beneath::set_time(parent.as_fd(), name, time_ns).map_err(FileError::system("set the time of", path))
    }

    /// Sets attributes, or notes those that are refused.
    pub(super) fn set_xattrs(&mut self, path: &[u8], xattrs: &xattr::Xattrs) -> Result<(), FileError> {
        if xattrs.is_empty() {
            return Ok(());
        }
        let (parent, name) = self.parent("set attributes of", path)?;
        for (attribute, value) in xattrs {
            let set = xattr::set(parent.as_fd(), name, attribute, value);
            if !set.map_err(FileError::system("set attributes of", path))? {
                self.noted(path).xattrs.insert(attribute.clone(), value.clone());
            }
        }
        Ok(())
    }

    /// Starts the notes on something new: what the disk shows as the writer's own is root's.
    fn made(&mut self, path: &[u8]) {
        self.ledger.forget(&path::join(&self.prefix, path));
        if !self.disk.holds_all_owners() {
            self.noted(path).owner = Some((0, 0));
        }
    }

    fn noted(&mut self, path: &[u8]) -> &mut Entry {
        self.ledger.entry(&path::join(&self.prefix, path))
    }

    /// Opens the folder that `path` is in and returns the name in it; `.` for the root itself.
    fn parent<'p>(&self, what: &'static str, path: &'p [u8]) -> Result<(OwnedFd, &'p [u8]), FileError> {
        let folder = beneath::folder(self.root, path::parent(path).unwrap_or_default()).map_err(FileError::system(what, path))?;
        Ok((folder, if path.is_empty() { b"." } else { path::name(path) }))
    }
}
