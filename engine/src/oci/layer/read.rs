//! Layer archives to trees: our own reader, since archives come from strangers.
//!
//! 1. [`entries`](super::entries) reads the archive within its limits.
//! 2. [`names`](super::names) decides where each entry goes: in memory, from what this layer and those below have.
//! 3. A [`Sink`] is told of everything: a folder on the disk, or somebody who only wants the tree.
//!
//! Whiteouts are those of the OCI image specification (`layer.md`): they hide what the layers below have and never anything of
//! their own layer. Invariant: the tree says exactly what the archive said, whatever the sink could hold; an archive that says
//! something impossible is refused with an error that names the entry.

use std::io::{self, BufReader, Read};

use sha2::{Digest as _, Sha256};

use super::entries::{Entries, Entry, Piece, What};
use super::names::{Below, Names};
use super::tree::{Kind, Node, Tree};
use super::{Limits, UnpackError, path, xattrs};

/// In front of a name that the layers below lose.
pub(crate) const WHITEOUT: &[u8] = b".wh.";

/// The name that makes its folder opaque.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// In front of the names of AUFS' own files, which are no content.
const AUFS: &[u8] = b".wh..wh.";

/// Where a layer's content goes. Paths hold no links, and their folders are there.
pub(crate) trait Sink {
    /// Makes a folder that its owner may use until [`Sink::finish_folder`].
    fn folder(&mut self, path: &[u8]) -> io::Result<()>;

    /// Makes a file; `content` gives its pieces to whatever it is called with. Returns what it became.
    fn file<E>(
        &mut self,
        path: &[u8],
        content: impl FnOnce(&mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), E>,
    ) -> io::Result<Result<Kind, E>>;

    /// Makes what is neither a file with content nor a folder.
    fn special(&mut self, path: &[u8], kind: &Kind) -> io::Result<()>;

    /// Gives what is at `to` another name.
    fn link(&mut self, path: &[u8], to: &[u8]) -> io::Result<()>;

    /// Removes what is at `path` and beneath it.
    fn remove(&mut self, path: &[u8]) -> io::Result<()>;

    /// Gives what is no folder its owner, attributes, time and mode.
    fn finish(&mut self, path: &[u8], node: &Node) -> io::Result<()>;

    /// Does the same for a folder, and marks it where it is opaque: nothing is put into it afterwards.
    fn finish_folder(&mut self, path: &[u8], node: &Node) -> io::Result<()>;
}

/// Reads an uncompressed archive to its end, gives its content to `sink` and returns what the layer contains.
///
/// `below` are the layers that it will lie on. Folders that the archive has only in other entries' paths look as they do there.
pub(crate) fn read(tar: impl Read, below: &dyn Below, sink: impl Sink, limits: &Limits) -> Result<Tree, UnpackError> {
    let entries = Entries::new(BufReader::with_capacity(256 << 10, tar), limits);
    Layer { entries, names: Names::new(below), sink, root_is_opaque: false }.read()
}

/// A layer that is being read.
struct Layer<'a, R, S> {
    entries: Entries<R>,
    names: Names<'a>,
    sink: S,
    /// Overlayfs knows no opaque root: its names below get whiteouts in the end.
    root_is_opaque: bool,
}

impl<R: Read, S: Sink> Layer<'_, R, S> {
    fn read(mut self) -> Result<Tree, UnpackError> {
        while let Some(entry) = self.entries.next()? {
            self.entry(entry)?;
        }
        if self.root_is_opaque {
            for name in self.names.hidden_by_opaque_root() {
                self.whiteout(name)?;
            }
            for name in self.names.folders().into_iter().filter(|name| path::parent(name) == Some(b"")) {
                self.names.node_mut(&name).expect("it was listed just now").kind = Kind::Folder { opaque: true };
            }
        }
        for name in self.names.folders() {
            let node = self.names.node(&name).expect("it was listed just now");
            self.sink.finish_folder(&name, node).map_err(|source| UnpackError::Write { entry: path::shown(&name), source })?;
        }
        let tree = self.names.into_tree(&mut self.entries.budget)?;
        self.entries.drain()?;
        Ok(tree)
    }

    fn entry(&mut self, entry: Entry) -> Result<(), UnpackError> {
        let names = self.checked(&entry.path)?;
        let Some((last, folders)) = names.split_last() else {
            // The root's own entry: containerd and Docker leave the root as it is.
            return if entry.what == What::Folder { Ok(()) } else { Err(self.entries.refused("it replaces the root folder")) };
        };
        if folders.iter().any(|name| name.starts_with(AUFS)) || last.starts_with(AUFS) && *last != OPAQUE {
            return Ok(());
        }
        if folders.iter().any(|name| name.starts_with(WHITEOUT)) {
            return Err(self.entries.refused("it is in a folder whose name is a whiteout's"));
        }
        let folder = self.names.resolve(folders).map_err(|reason| self.entries.refused(reason))?;
        self.folders(&folder)?;
        if *last == OPAQUE {
            return self.opaque(&folder);
        }
        if let Some(hidden) = last.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(self.entries.refused("it is a whiteout of no name"));
            }
            let path = path::join(&folder, hidden);
            self.entries.budget.metadata(path.len(), &path::shown(&path))?;
            return self.whiteout(path);
        }
        let path = path::join(&folder, last);
        self.check_length(&path)?;
        self.place(path, entry)
    }

    /// Puts an entry at the path that was found for it.
    fn place(&mut self, path: Vec<u8>, entry: Entry) -> Result<(), UnpackError> {
        let Entry { mode, uid, gid, mtime_ns, xattrs, what, .. } = entry;
        let target = match &what {
            What::Hardlink(target) => Some(self.link_target(target, &path)?),
            _ => None,
        };
        self.entries.budget.metadata(path.len() + xattrs::cost_bytes(&xattrs), &path::shown(&path))?;
        let mut hides_below = false;
        if let Some(before) = self.names.node(&path) {
            if before.is_folder() && what == What::Folder {
                let kind = before.kind.clone();
                *self.names.node_mut(&path).expect("it is there") = Node { mode, uid, gid, mtime_ns, xattrs, kind };
                return Ok(());
            }
            hides_below = true;
            self.names.remove(&path);
            let removed = self.sink.remove(&path);
            self.entries.written(removed)?;
        }
        if let Some(target) = target {
            let linked = self.sink.link(&path, &target);
            self.entries.written(linked)?;
            self.names.link(path.clone(), &target);
            let node = self.names.node_mut(&path).expect("it was linked just now");
            let mode = if matches!(node.kind, Kind::Symlink { .. }) { 0o777 } else { mode };
            (node.mode, node.uid, node.gid, node.mtime_ns) = (mode, uid, gid, mtime_ns);
            node.xattrs.extend(xattrs);
            let finished = self.sink.finish(&path, node);
            return self.entries.written(finished);
        }
        let kind = match what {
            What::File => {
                let (entries, files) = (&mut self.entries, &mut self.sink);
                let made = files.file(&path, |sink| entries.content(sink));
                self.entries.written(made)??
            }
            What::Folder => Kind::Folder { opaque: hides_below },
            What::Symlink(target) if target.is_empty() || target.len() > path::LONGEST_PATH || target.contains(&0) => {
                return Err(self.entries.refused("its target is no path"));
            }
            What::Symlink(target) => Kind::Symlink { target },
            // The same on the disk as a whiteout, and so in every layer store.
            What::Char(0, 0) => return self.new_whiteout(path),
            What::Char(major, minor) => Kind::Char { major, minor },
            What::Block(major, minor) => Kind::Block { major, minor },
            What::Fifo | What::Hardlink(_) => Kind::Fifo,
        };
        let made = match &kind {
            Kind::File { .. } => Ok(()),
            Kind::Folder { .. } => self.sink.folder(&path),
            kind => self.sink.special(&path, kind),
        };
        self.entries.written(made)?;
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { mode };
        let node = Node { mode, uid, gid, mtime_ns, xattrs, kind };
        if !node.is_folder() {
            let finished = self.sink.finish(&path, &node);
            self.entries.written(finished)?;
        }
        self.names.insert(path, node);
        Ok(())
    }

    /// Makes the folders of `path` that are missing.
    fn folders(&mut self, path: &[u8]) -> Result<(), UnpackError> {
        self.check_length(path)?;
        for folder in self.names.missing_folders(path).map_err(|reason| self.entries.refused(reason))? {
            let at = self.entries.at().to_owned();
            self.entries.budget.entry(&at)?;
            let mut node = self.names.implied(&folder);
            self.entries.budget.metadata(folder.len() + xattrs::cost_bytes(&node.xattrs), &at)?;
            if self.names.node(&folder).is_some() {
                node.kind = Kind::Folder { opaque: true };
                self.names.remove(&folder);
                let removed = self.sink.remove(&folder);
                self.entries.written(removed)?;
            }
            let made = self.sink.folder(&folder);
            self.entries.written(made)?;
            self.names.insert(folder, node);
        }
        Ok(())
    }

    /// Hides what the layers below have at `path`.
    fn whiteout(&mut self, path: Vec<u8>) -> Result<(), UnpackError> {
        match self.names.node_mut(&path) {
            Some(node) if node.is_folder() => node.kind = Kind::Folder { opaque: true },
            Some(_) => {}
            None => self.new_whiteout(path)?,
        }
        Ok(())
    }

    fn new_whiteout(&mut self, path: Vec<u8>) -> Result<(), UnpackError> {
        let made = self.sink.special(&path, &Kind::Whiteout);
        self.entries.written(made)?;
        self.names.insert(path, Node::whiteout());
        Ok(())
    }

    fn opaque(&mut self, folder: &[u8]) -> Result<(), UnpackError> {
        if folder.is_empty() {
            self.root_is_opaque = true;
        } else if let Some(node) = self.names.node_mut(folder) {
            node.kind = Kind::Folder { opaque: true };
        }
        Ok(())
    }

    /// Finds what a hard link names.
    fn link_target(&self, target: &[u8], path: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let names = self.checked(target)?;
        let refused = |reason: String| self.entries.refused(reason);
        let (last, folders) = names.split_last().ok_or_else(|| refused("it is a hard link to the root folder".to_owned()))?;
        let found = path::join(&self.names.resolve(folders).map_err(refused)?, last);
        let shown = path::shown(&found);
        match self.names.node(&found).map(|node| &node.kind) {
            None | Some(Kind::Whiteout) => Err(refused(format!("it is a hard link to {shown}, which is not in this layer"))),
            Some(Kind::Folder { .. }) => Err(refused(format!("it is a hard link to the folder {shown}"))),
            Some(_) if found == path || path::is_beneath(&found, path) => {
                Err(refused(format!("it is a hard link to {shown}, which it replaces")))
            }
            Some(_) => Ok(found),
        }
    }

    /// Takes a written path apart, and refuses one that leaves the root or that Linux would not take.
    fn checked<'p>(&self, written: &'p [u8]) -> Result<Vec<&'p [u8]>, UnpackError> {
        let refused = |reason: &str| self.entries.refused(reason);
        if written.is_empty() || written.contains(&0) {
            return Err(refused("it has no name"));
        }
        if written.len() > path::LONGEST_PATH {
            return Err(refused("its path is longer than 4095 bytes"));
        }
        let names = path::names(written).ok_or_else(|| refused("its path leads out of the layer"))?;
        if names.iter().any(|name| name.len() > path::LONGEST_NAME) {
            return Err(refused("a name in its path is longer than 255 bytes"));
        }
        self.entries.budget.depth(names.len(), self.entries.at())?;
        Ok(names)
    }

    fn check_length(&self, path: &[u8]) -> Result<(), UnpackError> {
        if path.len() > path::LONGEST_PATH {
            return Err(self.entries.refused("its path leads to one that is longer than 4095 bytes"));
        }
        self.entries.budget.depth(path.split(|&byte| byte == b'/').count(), self.entries.at())
    }
}

/// Adds the zeros of a hole to a hash.
pub(crate) fn hash_zeros(hash: &mut Sha256, mut length: u64) {
    static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
    while length > 0 {
        let part = length.min(ZEROS.len() as u64);
        hash.update(&ZEROS[..part as usize]);
        length -= part;
    }
}
