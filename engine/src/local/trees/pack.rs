//! Layers to layer archives, in the bytes that containerd's diff writes.
//!
//! Entries stand as a walk meets them; whiteouts are `.wh.NAME`, an opaque folder is followed by `.wh..wh..opq`; headers are
//! those of Go's `archive/tar` ([`header`]), times are whole seconds, users and groups have no names. Like containerd's, the
//! archive does not have the root folder itself. Invariant: equal trees give equal bytes on every machine, or an error: a file
//! whose content is not what the tree says is never written as if it were.

mod header;

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};
use std::os::fd::BorrowedFd;

use header::{Header, Letter};
use sha2::{Digest as _, Sha256};

use super::tree::{Kind, Node, Tree};
use super::unpack::{OPAQUE, WHITEOUT};
use super::{beneath, path};
use crate::{Digest, Error};

/// Says why a layer could not be packed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// A file is not the one that the tree describes.
    #[error(
        "{path} of the layer is damaged: its content is not what it was when the layer was made; remove the layer from the cache"
    )]
    Damaged {
        /// The file.
        path: String,
    },
    /// A path would mean something else in an archive.
    #[error("{path} cannot be part of an image: names that start with .wh. stand for removed files")]
    Whiteout {
        /// The file.
        path: String,
    },
    /// An attribute's name would be cut in an archive.
    #[error("{path} cannot be part of an image: the name of its extended attribute {name:?} contains =")]
    Attribute {
        /// The file.
        path: String,
        /// The attribute.
        name: String,
    },
    /// A file could not be read.
    #[error("{path} of the layer cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The archive could not be written.
    #[error("the layer's archive cannot be written: {0}")]
    Write(#[source] io::Error),
}

impl PackError {
    /// Says whether a disk, a quota or a limit is the cause.
    pub(crate) fn is_exhausted(&self) -> bool {
        matches!(self, Self::Read { source, .. } | Self::Write(source) if Error::is_exhausted(source))
    }
}

/// Writes the layer with the tree `tree` and the files under `files`; times after `latest_s` are written as that.
pub(crate) fn pack(tree: &Tree, files: BorrowedFd<'_>, mut out: impl Write, latest_s: Option<i64>) -> Result<(), PackError> {
    let mut names = Names::of(tree);
    for (path, node) in tree.walk() {
        if path.is_empty() {
            continue;
        }
        let name = path::name(path);
        if name.starts_with(WHITEOUT) {
            return Err(PackError::Whiteout { path: path::shown(path) });
        }
        if let Some(name) = node.xattrs.keys().find(|name| name.contains(&b'=')) {
            return Err(PackError::Attribute { path: path::shown(path), name: String::from_utf8_lossy(name).into_owned() });
        }
        let folder = path::parent(path).unwrap_or_default();
        if node.kind == Kind::Whiteout {
            let hidden = path::join(folder, &[WHITEOUT, name].concat());
            out.write_all(&Header::whiteout(&hidden).bytes()).map_err(PackError::Write)?;
            continue;
        }
        let node = &names.in_archive(path, node);
        out.write_all(&header(path, node, latest_s).bytes()).map_err(PackError::Write)?;
        match &node.kind {
            Kind::File { size_bytes, digest } => content(path, *size_bytes, digest, files, &mut out)?,
            Kind::Folder { opaque: true } => {
                out.write_all(&Header::whiteout(&path::join(path, OPAQUE)).bytes()).map_err(PackError::Write)?;
            }
            _ => {}
        }
    }
    out.write_all(&[0; 2 * header::BLOCK_BYTES]).and_then(|()| out.flush()).map_err(PackError::Write)
}

/// The files of several names: in an archive the first that a walk meets has the content, in a tree the first in byte order.
struct Names<'a> {
    tree: &'a Tree,
    /// The first name in the tree, with the first in the archive once it is written.
    written: BTreeMap<&'a [u8], Option<Vec<u8>>>,
}

impl<'a> Names<'a> {
    fn of(tree: &'a Tree) -> Self {
        let links = tree.nodes.values().filter_map(|node| match &node.kind {
            Kind::Hardlink { to } => Some((&to[..], None)),
            _ => None,
        });
        Self { tree, written: links.collect() }
    }

    /// Returns the node as the archive has it at `path`, which comes next.
    fn in_archive(&mut self, path: &[u8], node: &Node) -> Node {
        let first = match &node.kind {
            Kind::Hardlink { to } => to,
            _ => path,
        };
        let kind = match self.written.get_mut(first) {
            Some(Some(written)) => Kind::Hardlink { to: written.clone() },
            Some(unwritten) => {
                *unwritten = Some(path.to_vec());
                self.tree.node(path).unwrap_or(node).kind.clone()
            }
            None => node.kind.clone(),
        };
        Node { kind, ..node.clone() }
    }
}

/// Returns the header of what is at `path`.
fn header<'a>(path: &[u8], node: &'a Node, latest_s: Option<i64>) -> Header<'a> {
    let (letter, link, device, size) = match &node.kind {
        Kind::File { size_bytes, .. } => (Letter::File, &[][..], None, *size_bytes),
        Kind::Folder { .. } => (Letter::Folder, &[][..], None, 0),
        Kind::Symlink { target } => (Letter::Symlink, &target[..], None, 0),
        Kind::Hardlink { to } => (Letter::Hardlink, &to[..], None, 0),
        Kind::Char { major, minor } => (Letter::Char, &[][..], Some((*major, *minor)), 0),
        Kind::Block { major, minor } => (Letter::Block, &[][..], Some((*major, *minor)), 0),
        Kind::Fifo | Kind::Whiteout => (Letter::Fifo, &[][..], None, 0),
    };
    let slash: &[u8] = if node.is_folder() { b"/" } else { b"" };
    let time = node.mtime_ns.div_euclid(1_000_000_000);
    Header {
        name: [path, slash].concat(),
        link,
        letter,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        size,
        mtime_s: latest_s.map_or(time, |latest| time.min(latest)),
        device,
        xattrs: node.xattrs.iter().map(|(name, value)| (&name[..], &value[..])).collect(),
    }
}

/// Writes a file's content and fills the last block.
fn content(path: &[u8], size: u64, digest: &Digest, files: BorrowedFd<'_>, out: &mut impl Write) -> Result<(), PackError> {
    let read = |source| PackError::Read { path: path::shown(path), source };
    let mut file = beneath::file(files, path).map_err(read)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; size.clamp(1 << 10, 128 << 10) as usize];
    let mut left = size;
    loop {
        let length = file.read(&mut buffer).map_err(read)?;
        if length == 0 {
            break;
        }
        left = left.checked_sub(length as u64).ok_or_else(|| PackError::Damaged { path: path::shown(path) })?;
        hash.update(&buffer[..length]);
        out.write_all(&buffer[..length]).map_err(PackError::Write)?;
    }
    if left > 0 || Digest::from_sha256(hash.finalize().into()) != *digest {
        return Err(PackError::Damaged { path: path::shown(path) });
    }
    let block = header::BLOCK_BYTES as u64;
    let padding = (size.next_multiple_of(block) - size) as usize;
    out.write_all(&[0; header::BLOCK_BYTES][..padding]).map_err(PackError::Write)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use proptest::prelude::*;

    use super::super::disk::{Disk, Marks};
    use super::super::tree::arbitrary;
    use super::super::unpack::{Limits, unpack};
    use super::super::view::View;
    use super::*;

    const SINGLE: Disk = Disk { last_uid: 0, last_gid: 0, marks: Marks::User };

    fn packed(tree: &Tree, files: &File, latest_s: Option<i64>) -> Result<Vec<u8>, PackError> {
        let mut bytes = Vec::new();
        pack(tree, files.as_fd(), &mut bytes, latest_s).map(|()| bytes)
    }

    fn unpacked(bytes: &[u8]) -> (tempfile::TempDir, File, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let open = File::open(folder.path()).unwrap();
        let tree = unpack(bytes, open.as_fd(), &View::default(), &SINGLE, &Limits::default()).unwrap();
        (folder, open, tree)
    }

    /// A file of the digest that [`arbitrary::file`] would give these bytes.
    fn write_files(tree: &Tree, contents: &BTreeMap<Vec<u8>, Vec<u8>>, root: &std::path::Path) {
        use std::os::unix::ffi::OsStrExt as _;
        for (path, node) in &tree.nodes {
            let at = root.join(std::ffi::OsStr::from_bytes(path));
            match node.kind {
                Kind::Folder { .. } => std::fs::create_dir_all(at).unwrap(),
                Kind::File { .. } => std::fs::write(at, &contents[path]).unwrap(),
                Kind::Hardlink { ref to } => std::fs::hard_link(root.join(std::ffi::OsStr::from_bytes(to)), at).unwrap(),
                _ => {}
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn unpacking_takes_packing_back(tree in arbitrary::tree(25), seed in any::<u8>()) {
            let mut tree = tree;
            let mut contents = BTreeMap::new();
            for (at, (path, node)) in tree.nodes.iter_mut().enumerate() {
                node.mtime_ns = node.mtime_ns.div_euclid(1_000_000_000) * 1_000_000_000;
                // What an ordinary user may read again.
                node.mode |= if node.kind == Kind::Whiteout { 0 } else { 0o700 };
                if let Kind::File { .. } = node.kind {
                    let bytes = vec![seed; at * 171];
                    node.kind = arbitrary::file(&bytes);
                    contents.insert(path.clone(), bytes);
                }
            }
            for (path, node) in tree.clone().nodes {
                if let Kind::Hardlink { to } = &node.kind {
                    let first = tree.nodes[to].clone();
                    tree.nodes.insert(path, Node { kind: node.kind.clone(), ..first });
                }
            }
            let folder = tempfile::tempdir().unwrap();
            write_files(&tree, &contents, folder.path());
            let bytes = packed(&tree, &File::open(folder.path()).unwrap(), None).unwrap();
            let (_folder, open, again) = unpacked(&bytes);
            let root = tree.nodes.get_mut(&b""[..]).unwrap();
            *root = Node::folder();
            prop_assert_eq!(&again, &tree);
            prop_assert_eq!(packed(&again, &open, None).unwrap(), bytes);
        }
    }

    /// The digest of what Go 1.26 wrote for the same entries with the calls of containerd 2's `archive.ChangeWriter`.
    const GOS: &str = "08cd81004a9312581947c803bd72b052561f2f3d4cf6a71920242a38f61764f0";

    #[test]
    fn the_bytes_are_gos() {
        let mut tree = Tree::new();
        let time = 1_700_000_000_000_000_000;
        let mut add = |path: &str, node: Node| drop(tree.nodes.insert(path.as_bytes().to_vec(), Node { mtime_ns: time, ..node }));
        let long = "n".repeat(90);
        let capability = BTreeMap::from([(b"security.capability".to_vec(), b"\x01\0\0\x02=\n".to_vec())]);
        let folder = Kind::Folder { opaque: false };
        add("bin", Node::folder());
        add("bin/su", Node { gid: 5, xattrs: capability.clone(), ..Node::new(0o4755, arbitrary::file(b"program")) });
        let link = Kind::Hardlink { to: b"bin/su".to_vec() };
        add("bin/su2", Node { gid: 5, xattrs: capability, ..Node::new(0o4755, link) });
        add("d", Node::new(0o1777, Kind::Folder { opaque: true }));
        add(&format!("d/{long}"), Node::new(0o700, folder.clone()));
        let big = Node { uid: 3_000_000, gid: u32::MAX - 1, ..Node::new(0o600, arbitrary::file(&[b'x'; 513])) };
        add(&format!("d/{long}/file"), big);
        add(&format!("d/{long}/{long}"), Node::whiteout());
        add(&format!("d/{long}/sub1234"), Node::new(0o700, folder));
        add("d/é", Node::new(0o777, Kind::Symlink { target: vec![b't'; 101] }));
        add("gone", Node::whiteout());
        add("null", Node::new(0o666, Kind::Char { major: 1, minor: 3 }));
        add("pipe", Node::new(0o644, Kind::Fifo));
        add("sda", Node { gid: 6, ..Node::new(0o660, Kind::Block { major: 8, minor: 300 }) });
        tree.nodes.get_mut(&b"d"[..]).unwrap().mtime_ns = -5_000_000_000;
        let contents =
            BTreeMap::from([(b"bin/su".to_vec(), b"program".to_vec()), (format!("d/{long}/file").into_bytes(), vec![b'x'; 513])]);
        let files = tempfile::tempdir().unwrap();
        write_files(&tree, &contents, files.path());
        let bytes = packed(&tree, &File::open(files.path()).unwrap(), None).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), GOS);
    }

    #[test]
    fn names_of_whiteouts_are_refused() {
        let mut tree = Tree::new();
        tree.nodes.insert(b".wh.x".to_vec(), Node::new(0o644, Kind::Fifo));
        let folder = tempfile::tempdir().unwrap();
        let error = packed(&tree, &File::open(folder.path()).unwrap(), None).unwrap_err();
        assert!(error.to_string().contains("/.wh.x"), "{error}");
    }

    #[test]
    fn files_that_changed_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        tree.nodes.insert(b"f".to_vec(), Node::new(0o644, arbitrary::file(b"content")));
        let open = File::open(folder.path()).unwrap();
        assert!(matches!(packed(&tree, &open, None), Err(PackError::Read { .. })));
        for other in ["contenT", "conten", "content+"] {
            std::fs::write(folder.path().join("f"), other).unwrap();
            assert!(matches!(packed(&tree, &open, None), Err(PackError::Damaged { .. })), "{other}");
        }
        std::fs::write(folder.path().join("f"), "content").unwrap();
        assert!(packed(&tree, &open, None).is_ok());
    }

    #[test]
    fn times_are_bounded_and_whole() {
        let mut tree = Tree::new();
        let node = |mtime_ns| Node { mtime_ns, ..Node::new(0o644, Kind::Fifo) };
        tree.nodes.insert(b"new".to_vec(), node(1_700_000_000_999_999_999));
        tree.nodes.insert(b"old".to_vec(), node(999_999_999));
        tree.nodes.insert(b"older".to_vec(), node(-1));
        let folder = tempfile::tempdir().unwrap();
        let bytes = packed(&tree, &File::open(folder.path()).unwrap(), Some(1_600_000_000)).unwrap();
        let (_folder, _, again) = unpacked(&bytes);
        let times: Vec<i64> = again.nodes.values().skip(1).map(|node| node.mtime_ns).collect();
        assert_eq!(times, [1_600_000_000_000_000_000, 0, -1_000_000_000]);
    }
}
