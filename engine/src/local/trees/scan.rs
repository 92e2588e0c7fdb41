//! A folder's tree: what a step left in an overlayfs upper folder, or any folder.
//!
//! Whiteouts (character devices 0:0) and opaque folders (an attribute) become what they mean; sockets are left out, as BuildKit's
//! layers leave them out. Invariant: owners are the ones that the step would have seen with full rights: where the disk cannot
//! hold an owner, the ledger's holds, or the one that the same path has below.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use sha2::{Digest as _, Sha256};

use super::disk::Disk;
use super::ledger::Ledger;
use super::tree::{Kind, Node, Tree};
use super::view::View;
use super::{beneath, path, xattr};
use crate::{Digest, Error};

/// Says what could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// The system refused.
    #[error("{path} of the step's result cannot be read: {source}")]
    Read {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The step made a path that no program could name.
    #[error("{path} of the step's result is longer than {} bytes: remove it in the step", path::LONGEST_PATH)]
    TooLong {
        /// The path's start.
        path: String,
    },
}

impl ScanError {
    /// Says whether a disk, a quota or a limit is the cause.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(self, Self::Read { source, .. } if Error::is_exhausted(source))
    }
}

/// Reads `upper`; `below` is what it lies on.
pub(crate) fn scan(upper: BorrowedFd<'_>, below: &View<'_>, disk: &Disk, ledger: &Ledger) -> Result<Tree, ScanError> {
    let mut scan = Scan { below, disk, ledger, tree: Tree::new(), linked: HashMap::new() };
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        scan.folder(upper, &path, &mut pending).map_err(|source| ScanError::Read { path: path::shown(&path), source })?;
        if let Some(long) = pending.iter().find(|path| path.len() > path::LONGEST_PATH) {
            return Err(ScanError::TooLong { path: String::from_utf8_lossy(&long[..100]).into_owned() });
        }
    }
    scan.link();
    Ok(scan.tree)
}

struct Scan<'a> {
    below: &'a View<'a>,
    disk: &'a Disk,
    ledger: &'a Ledger,
    tree: Tree,
    /// The names of files that have several.
    linked: HashMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Scan<'_> {
    /// Reads one folder; the folders in it are left to `pending`.
    fn folder(&mut self, upper: BorrowedFd<'_>, path: &[u8], pending: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let folder = beneath::folder(upper, path)?;
        let stat = rustix::fs::fstat(&folder)?;
        let opaque = !path.is_empty() && xattr::value(folder.as_fd(), self.disk.marks.opaque())?.as_deref() == Some(b"y");
        let node = self.node(path, &stat, Kind::Folder { opaque }, xattr::of_file(folder.as_fd())?);
        self.tree.nodes.insert(path.to_vec(), node);
        for name in beneath::names(folder.as_fd())? {
            let entry = path::join(path, &name);
            let stat = rustix::fs::statat(&folder, &name[..], AtFlags::SYMLINK_NOFOLLOW)?;
            if beneath::kind(&stat) == FileType::Directory {
                pending.push(entry);
            } else if let Some(node) = self.entry(folder.as_fd(), &name, &entry, &stat)? {
                self.tree.nodes.insert(entry, node);
            }
        }
        Ok(())
    }

    /// Reads what is no folder; nothing where it is no content, or another name of what is read already.
    fn entry(&mut self, folder: BorrowedFd<'_>, name: &[u8], path: &[u8], stat: &Stat) -> io::Result<Option<Node>> {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = beneath::kind(stat);
        if kind == FileType::Socket {
            return Ok(None);
        }
        if kind == FileType::CharacterDevice && device == (0, 0) {
            return Ok(Some(Node::whiteout()));
        }
        // Of links every name is a link of its own, as in BuildKit's layers.
        if stat.st_nlink > 1 && kind != FileType::Symlink {
            let names = self.linked.entry((stat.st_dev, stat.st_ino)).or_default();
            names.push(path.to_vec());
            if names.len() > 1 {
                return Ok(None);
            }
        }
        let (major, minor) = device;
        let (kind, xattrs) = match kind {
            FileType::RegularFile => {
                let mut file = beneath::file(folder, name)?;
                (digest(&mut file, stat.st_size)?, xattr::of_file(file.as_fd())?)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes();
                (Kind::Symlink { target }, xattr::of_entry(folder, name)?)
            }
            FileType::CharacterDevice => (Kind::Char { major, minor }, xattr::of_entry(folder, name)?),
            FileType::BlockDevice => (Kind::Block { major, minor }, xattr::of_entry(folder, name)?),
            FileType::Fifo => (Kind::Fifo, xattr::of_entry(folder, name)?),
            other => return Err(io::Error::other(format!("a file of the type {other:?}"))),
        };
        Ok(Some(self.node(path, stat, kind, xattrs)))
    }

    /// Makes a node of what the disk shows and what it cannot hold.
    fn node(&self, path: &[u8], stat: &Stat, kind: Kind, xattrs: xattr::Xattrs) -> Node {
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { stat.st_mode & 0o7777 };
        let empty = matches!(kind, Kind::File { size_bytes: 0, .. });
        let noted = self.ledger.of(path);
        let below = if self.disk.holds_all_owners() && !empty { None } else { self.below.node(path) };
        let is_device = |node: &&Node| empty && matches!(node.kind, Kind::Char { .. } | Kind::Block { .. });
        let device = match noted {
            Some(noted) => noted.device.clone().filter(|_| empty),
            // An empty file where below is a device stands for it: no user namespace makes devices.
            None => below.filter(is_device).map(|node| node.kind.clone()),
        };
        let kind = device.unwrap_or(kind);
        // Something else than what is below is new, and its maker's own.
        let below = below.filter(|node| std::mem::discriminant(&node.kind) == std::mem::discriminant(&kind));
        let (uid, gid) = self.disk.owner(stat, below, noted);
        let mut xattrs = xattrs;
        xattrs.extend(noted.into_iter().flat_map(|noted| noted.xattrs.clone()));
        Node { mode, uid, gid, mtime_ns: beneath::mtime_ns(stat), xattrs, kind }
    }

    /// Gives files with several names all of them.
    fn link(&mut self) {
        for mut names in std::mem::take(&mut self.linked).into_values() {
            let Some(mut node) = self.tree.nodes.remove(&names[0]) else { continue };
            names.sort_unstable();
            if let Some(owner) = names.iter().find_map(|name| self.ledger.of(name)?.owner) {
                (node.uid, node.gid) = owner;
            }
            let kind = Kind::Hardlink { to: names[0].clone() };
            for name in names.drain(1..) {
                self.tree.nodes.insert(name, Node { kind: kind.clone(), ..node.clone() });
            }
            self.tree.nodes.insert(names.remove(0), node);
        }
    }
}

fn digest(file: &mut File, expected_bytes: i64) -> io::Result<Kind> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; usize::try_from(expected_bytes).unwrap_or(0).clamp(1 << 10, 128 << 10)];
    let mut size_bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Kind::File { size_bytes, digest: Digest::from_sha256(hash.finalize().into()) }),
            length => {
                hash.update(&buffer[..length]);
                size_bytes += length as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use rustix::fs::{CWD, Mode, XattrFlags};

    use super::super::disk::Marks;
    use super::super::tree::arbitrary::file;
    use super::*;

    const SINGLE: Disk = Disk { last_uid: 0, last_gid: 0, marks: Marks::User };

    fn scanned(root: &Path, below: &View<'_>, ledger: &Ledger) -> Tree {
        let open = File::open(root).unwrap();
        let tree = scan(open.as_fd(), below, &SINGLE, ledger).unwrap();
        assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
        tree
    }

    #[test]
    fn every_kind_is_found() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir_all(at("d/e")).unwrap();
        std::fs::write(at("d/z"), "x").unwrap();
        std::fs::hard_link(at("d/z"), at("d/e/link")).unwrap();
        std::fs::hard_link(at("d/z"), at("another")).unwrap();
        std::fs::set_permissions(at("d/z"), PermissionsExt::from_mode(0o4751)).unwrap();
        symlink("../nowhere", at("s")).unwrap();
        std::fs::hard_link(at("s"), at("s2")).unwrap();
        rustix::fs::mknodat(CWD, at("p"), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        rustix::fs::mknodat(CWD, at("w"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        rustix::fs::setxattr(at("d"), "user.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(at("d/e"), "user.overlay.opaque", b"x", XattrFlags::empty()).unwrap();
        let nodes = scanned(root.path(), &View::default(), &Ledger::default()).nodes;
        let paths: Vec<String> = nodes.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(paths, ["", "another", "d", "d/e", "d/e/link", "d/z", "p", "s", "s2", "w"]);
        assert_eq!((nodes[&b"another"[..]].kind.clone(), nodes[&b"another"[..]].mode), (file(b"x"), 0o4751));
        for name in [&b"d/z"[..], b"d/e/link"] {
            assert_eq!(nodes[name].kind, Kind::Hardlink { to: b"another".to_vec() });
        }
        assert_eq!(nodes[&b"s"[..]].kind, Kind::Symlink { target: b"../nowhere".to_vec() });
        assert_eq!(nodes[&b"s2"[..]].kind, nodes[&b"s"[..]].kind, "a link has no other names");
        assert_eq!((nodes[&b"p"[..]].kind.clone(), nodes[&b"w"[..]].clone()), (Kind::Fifo, Node::whiteout()));
        assert_eq!(nodes[&b"d"[..]].kind, Kind::Folder { opaque: true });
        assert_eq!(nodes[&b"d/e"[..]].kind, Kind::Folder { opaque: false });
        assert!(nodes.values().all(|node| (node.uid, node.gid) == (0, 0)));
    }

    #[test]
    fn with_one_user_owners_come_from_below_and_from_the_ledger() {
        let root = tempfile::tempdir().unwrap();
        for name in ["kept", "noted", "new", "changed", "device", "node"] {
            std::fs::write(root.path().join(name), "").unwrap();
        }
        let mut below = Tree::new();
        for name in ["kept", "noted", "changed", "device"] {
            below.nodes.insert(name.into(), Node { uid: 999, gid: 998, ..Node::new(0, file(b"old")) });
        }
        below.nodes.get_mut(&b"changed"[..]).unwrap().kind = Kind::Fifo;
        below.nodes.get_mut(&b"device"[..]).unwrap().kind = Kind::Char { major: 1, minor: 3 };
        below.nodes.get_mut(&b""[..]).unwrap().uid = 7;
        let mut ledger = Ledger::default();
        ledger.entry(b"noted").owner = Some((5, 6));
        ledger.entry(b"noted").xattrs.insert(b"trusted.x".to_vec(), b"y".to_vec());
        ledger.entry(b"node").device = Some(Kind::Block { major: 8, minor: 1 });
        let nodes = scanned(root.path(), &View::new([&below]), &ledger).nodes;
        let owner = |name: &str| (nodes[name.as_bytes()].uid, nodes[name.as_bytes()].gid);
        assert_eq!((owner("kept"), owner("noted"), owner("new"), owner("changed")), ((999, 998), (5, 6), (0, 0), (0, 0)));
        assert_eq!((owner(""), owner("device")), ((7, 0), (999, 998)));
        assert_eq!(nodes[&b"noted"[..]].xattrs[&b"trusted.x"[..]], b"y");
        assert_eq!(nodes[&b"device"[..]].kind, Kind::Char { major: 1, minor: 3 });
        assert_eq!(nodes[&b"node"[..]].kind, Kind::Block { major: 8, minor: 1 });
    }

    #[test]
    fn sparse_files_are_read_as_zeros() {
        let root = tempfile::tempdir().unwrap();
        let sparse = File::create(root.path().join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        let tree = scanned(root.path(), &View::default(), &Ledger::default());
        assert_eq!(tree.nodes[&b"sparse"[..]].kind, file(&vec![0; 1 << 20]));
    }
}
