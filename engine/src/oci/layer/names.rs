//! The names that an archive has given so far, on top of the layers below.
//!
//! Here, not on a disk, is decided where an entry's path leads: parents that are symbolic links, in this layer or below, are
//! followed inside the root, as containerd does on the mounted layers. Invariant: a path that [`Names::resolve`] returns has no
//! link, no `.` and no `..` in it, so the disk is never asked to follow one; what a tree repeats for a file's further names has
//! been paid for with each of them.

use std::collections::{BTreeMap, HashMap};

use super::limits::Budget;
use super::tree::{Kind, Node, Tree};
use super::view::View;
use super::{UnpackError, path, xattrs};

/// As many links as Linux follows in one path.
const MOST_LINKS: usize = 40;

/// What the layers below show.
pub(crate) trait Below {
    /// Returns what is at `path`; for a hard link what its file is.
    fn node(&self, path: &[u8]) -> Option<&Node>;

    /// Returns the names in the root folder.
    fn top_names(&self) -> Vec<Vec<u8>>;
}

impl Below for View<'_> {
    fn node(&self, path: &[u8]) -> Option<&Node> {
        View::node(self, path)
    }

    fn top_names(&self) -> Vec<Vec<u8>> {
        self.folder(b"").into_keys().map(<[u8]>::to_vec).collect()
    }
}

/// The names of the layer being made.
pub(super) struct Names<'a> {
    below: &'a dyn Below,
    /// Each name with its place in `nodes`; hard links share one.
    names: BTreeMap<Vec<u8>, usize>,
    nodes: Vec<Node>,
}

impl<'a> Names<'a> {
    /// A layer with nothing but its root, which looks as it does below.
    pub(super) fn new(below: &'a dyn Below) -> Self {
        let mut names = Self { below, names: BTreeMap::new(), nodes: Vec::new() };
        names.insert(Vec::new(), names.implied(b""));
        names
    }

    /// Returns what this layer has at `path`.
    pub(super) fn node(&self, path: &[u8]) -> Option<&Node> {
        self.names.get(path).map(|&place| &self.nodes[place])
    }

    /// Returns what this layer has at `path`, to be changed.
    pub(super) fn node_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.names.get(path).map(|&place| &mut self.nodes[place])
    }

    /// Names a new node.
    pub(super) fn insert(&mut self, path: Vec<u8>, node: Node) {
        self.names.insert(path, self.nodes.len());
        self.nodes.push(node);
    }

    /// Gives the node at `to` another name.
    pub(super) fn link(&mut self, path: Vec<u8>, to: &[u8]) {
        if let Some(&place) = self.names.get(to) {
            self.names.insert(path, place);
        }
    }

    /// Takes the name `path` away, and all names beneath it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.names.remove(path);
        let (start, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let beneath: Vec<Vec<u8>> = self.names.range(start..end).map(|(name, _)| name.clone()).collect();
        for name in beneath {
            self.names.remove(&name);
        }
    }

    /// Returns the folder that `path` is where the archive does not describe it: as below, or as nobody described it.
    pub(super) fn implied(&self, path: &[u8]) -> Node {
        let below = if self.hides_below(path) { None } else { self.below.node(path) };
        let below =
            below.filter(|node| node.is_folder()).map(|node| Node { kind: Kind::Folder { opaque: false }, ..node.clone() });
        below.unwrap_or_else(Node::folder)
    }

    /// Returns the folders above and at `path` that this layer lacks, the outermost first.
    pub(super) fn missing_folders(&self, path: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut missing = Vec::new();
        for folder in path::ancestors(path).chain([path]) {
            match self.node(folder) {
                Some(node) if node.is_folder() => {}
                Some(Node { kind: Kind::Whiteout, .. }) | None => missing.push(folder.to_vec()),
                Some(_) => return Err(format!("its parent {} is no folder", path::shown(folder))),
            }
        }
        Ok(missing)
    }

    /// Follows links, inside the root: returns where `names` lead.
    pub(super) fn resolve(&self, names: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut done = Vec::new();
        let mut todo: Vec<Vec<u8>> = names.iter().rev().map(|name| name.to_vec()).collect();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                done.truncate(path::parent(&done).map_or(0, <[u8]>::len));
                continue;
            }
            let path = path::join(&done, &name);
            let Some(Kind::Symlink { target }) = self.find(&path).map(|node| &node.kind) else {
                done = path;
                continue;
            };
            links += 1;
            if links > MOST_LINKS {
                return Err(format!("its path leads through more than {MOST_LINKS} links"));
            }
            if target.starts_with(b"/") {
                done.clear();
            }
            let parts = target.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
            todo.extend(parts.rev().map(<[u8]>::to_vec));
        }
        Ok(done)
    }

    /// Returns what below is in the root folder and not in this layer.
    pub(super) fn hidden_by_opaque_root(&self) -> Vec<Vec<u8>> {
        self.below.top_names().into_iter().filter(|name| !self.names.contains_key(name)).collect()
    }

    /// Returns the names of folders, the innermost first.
    pub(super) fn folders(&self) -> Vec<Vec<u8>> {
        let folders = self.names.iter().rev().filter(|&(_, &place)| self.nodes[place].is_folder());
        folders.map(|(name, _)| name.clone()).collect()
    }

    /// Makes the tree. Further names repeat their file's attributes and its first name, and pay for these here: only now is
    /// known how many attributes the last of its links gave it.
    pub(super) fn into_tree(self, budget: &mut Budget) -> Result<Tree, UnpackError> {
        let mut first_names: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut nodes = BTreeMap::new();
        for (name, place) in self.names {
            let node = &self.nodes[place];
            let node = match first_names.get(&place) {
                Some(first) => {
                    budget.metadata(first.len() + xattrs::cost_bytes(&node.xattrs), &path::shown(&name))?;
                    Node { kind: Kind::Hardlink { to: first.clone() }, ..node.clone() }
                }
                None => {
                    first_names.insert(place, name.clone());
                    node.clone()
                }
            };
            nodes.insert(name, node);
        }
        Ok(Tree { nodes })
    }

    /// Returns what the layers up to this one show.
    fn find(&self, path: &[u8]) -> Option<&Node> {
        match self.node(path) {
            Some(node) => Some(node),
            None if self.hides_below(path) => None,
            None => self.below.node(path),
        }
    }

    fn hides_below(&self, path: &[u8]) -> bool {
        let hides = |node: &Node| !matches!(node.kind, Kind::Folder { opaque: false });
        path::ancestors(path).any(|folder| self.node(folder).is_some_and(hides)) || self.node(path).is_some_and(hides)
    }
}
