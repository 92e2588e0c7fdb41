//! Where an unpacked layer's files go.
//!
//! Invariant: paths hold no links, as every [`Sink`] is promised; what the disk refuses for lack of rights is left to the
//! tree, and stands for it: an empty file for a device, the writer's own owner for another.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::entries::Piece;
use crate::Digest;
use crate::local::trees::disk::Disk;
use crate::local::trees::tree::{Kind, Node};
use crate::local::trees::{beneath, path, xattr};
use crate::oci::layer::Sink;
use crate::oci::layer::read::hash_zeros;

/// Writes beneath one folder.
pub(crate) struct Writer<'a> {
    root: BorrowedFd<'a>,
    disk: Disk,
    /// The folder that was written to last: most entries follow one of the same folder.
    last: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(root: BorrowedFd<'a>, disk: Disk) -> Self {
        Self { root, disk, last: None }
    }

    /// Opens the folder that `path` is in.
    fn parent(&mut self, path: &[u8]) -> io::Result<&OwnedFd> {
        let parent = path::parent(path).ok_or(io::ErrorKind::InvalidInput)?;
        if self.last.as_ref().is_none_or(|(last, _)| last != parent) {
            self.last = Some((parent.to_vec(), beneath::folder(self.root, parent)?));
        }
        let (_, folder) = self.last.as_ref().expect("it was set just now");
        Ok(folder)
    }
}

impl Sink for Writer<'_> {
    fn folder(&mut self, path: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(self.parent(path)?, path::name(path), Mode::RWXU)?)
    }

    fn file<E>(
        &mut self,
        path: &[u8],
        content: impl FnOnce(&mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), E>,
    ) -> io::Result<Result<Kind, E>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.parent(path)?, path::name(path), flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = std::fs::File::from(file);
        let mut hash = Sha256::new();
        let (mut size_bytes, mut ends_in_hole) = (0, false);
        let result = content(&mut |piece| {
            match piece {
                Piece::Data(bytes) => {
                    file.write_all(bytes)?;
                    hash.update(bytes);
                    size_bytes += bytes.len() as u64;
                    ends_in_hole = false;
                }
                Piece::Hole(length) => {
                    let to = i64::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
                    file.seek(SeekFrom::Current(to))?;
                    hash_zeros(&mut hash, length);
                    size_bytes += length;
                    ends_in_hole = true;
                }
            }
            Ok(())
        });
        if ends_in_hole {
            file.set_len(size_bytes)?;
        }
        Ok(result.map(|()| Kind::File { size_bytes, digest: Digest::from_sha256(hash.finalize().into()) }))
    }

    fn special(&mut self, path: &[u8], kind: &Kind) -> io::Result<()> {
        let (parent, name) = (self.parent(path)?, path::name(path));
        let make = |kind, device| rustix::fs::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, device);
        let made = match kind {
            Kind::Symlink { target } => rustix::fs::symlinkat(&target[..], parent, name),
            Kind::Fifo => make(FileType::Fifo, 0),
            Kind::Whiteout => make(FileType::CharacterDevice, 0),
            Kind::Char { major, minor } => make(FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)),
            Kind::Block { major, minor } => make(FileType::BlockDevice, rustix::fs::makedev(*major, *minor)),
            Kind::File { .. } | Kind::Folder { .. } | Kind::Hardlink { .. } => Err(Errno::INVAL),
        };
        match made {
            Err(Errno::PERM) if matches!(kind, Kind::Char { .. } | Kind::Block { .. }) => Ok(make(FileType::RegularFile, 0)?),
            made => Ok(made?),
        }
    }

    fn link(&mut self, path: &[u8], to: &[u8]) -> io::Result<()> {
        let folder = beneath::folder(self.root, path::parent(to).unwrap_or_default())?;
        Ok(rustix::fs::linkat(folder, path::name(to), self.parent(path)?, path::name(path), AtFlags::empty())?)
    }

    fn remove(&mut self, path: &[u8]) -> io::Result<()> {
        let result = beneath::remove_all(self.parent(path)?.as_fd(), path::name(path));
        self.last = None;
        result
    }

    fn finish(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        let disk = self.disk;
        let (parent, name) = (self.parent(path)?, path::name(path));
        finish(parent.as_fd(), name, node, &disk)
    }

    fn finish_folder(&mut self, path: &[u8], node: &Node) -> io::Result<()> {
        self.last = None;
        let folder = beneath::folder(self.root, path)?;
        if node.kind == (Kind::Folder { opaque: true }) {
            let mark = self.disk.marks.opaque();
            rustix::fs::fsetxattr(&folder, mark, b"y", XattrFlags::empty()).map_err(|error| {
                io::Error::new(io::Error::from(error).kind(), format!("{mark}, which overlayfs needs: {error}"))
            })?;
        }
        finish(folder.as_fd(), b".", node, &self.disk)
    }
}

fn finish(folder: BorrowedFd<'_>, name: &[u8], node: &Node, disk: &Disk) -> io::Result<()> {
    if node.kind == Kind::Whiteout {
        return Ok(());
    }
    disk.chown(folder, name, node.uid, node.gid)?;
    for (attribute, value) in &node.xattrs {
        // After the owner, which takes capabilities away; what is refused stands in the tree.
        xattr::set(folder, name, attribute, value)?;
    }
    beneath::set_time(folder, name, node.mtime_ns)?;
    if !matches!(node.kind, Kind::Symlink { .. }) {
        beneath::set_mode(folder, name, node.mode)?;
    }
    Ok(())
}
