//! Layers on each other: which one each path is of, and what is lost on the way.
//!
//! Invariant: what is shown is what overlayfs would show of the layers so far. A file counts as lost once none of its names is
//! shown; its bytes are still in its layer.

use std::collections::{BTreeMap, HashSet};

use crate::oci::layer::{Below, Kind, Node, Tree};

/// The files of an image.
#[derive(Debug)]
pub struct Contents {
    layers: Vec<Tree>,
    shown: BTreeMap<Vec<u8>, usize>,
    /// Of files with several names the first that is shown, by the others.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    lost: Vec<Lost>,
}

/// What an image shows at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The path, without a leading `/`; the root folder is "".
    pub path: &'a [u8],
    /// The layer that it is of, the lowest being 0. A folder is of the last layer that changed it.
    pub layer: usize,
    /// What it is; never a hard link or whiteout.
    pub node: &'a Node,
    /// For a further name of a file, the first that is shown.
    pub link: Option<&'a [u8]>,
}

/// A file with content that its layer holds in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its path in its layer, without a leading `/`.
    pub path: Vec<u8>,
    /// The layer that holds it.
    pub layer: usize,
    /// The layer that hides it.
    pub by: usize,
    /// Whether that layer has nothing at its path.
    pub is_removed: bool,
    /// Its size.
    pub size_bytes: u64,
}

impl Contents {
    /// Returns what each layer has by itself, the lowest first.
    pub fn layers(&self) -> &[Tree] {
        &self.layers
    }

    /// Returns everything that is shown, by path.
    pub fn files(&self) -> impl Iterator<Item = Shown<'_>> {
        self.shown.iter().filter_map(|(path, &layer)| {
            let node = self.layers[layer].node(path)?;
            Some(Shown { path, layer, node, link: self.links.get(path).map(Vec::as_slice) })
        })
    }

    /// Returns what is shown at a path without a leading `/`.
    pub fn at(&self, path: &[u8]) -> Option<Shown<'_>> {
        let (path, &layer) = self.shown.get_key_value(path)?;
        Some(Shown { path, layer, node: self.layers[layer].node(path)?, link: self.links.get(path).map(Vec::as_slice) })
    }

    /// Returns the files that take room and are not shown.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }
}

/// The layers so far.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    layers: Vec<Tree>,
    shown: BTreeMap<Vec<u8>, usize>,
    lost: Vec<Lost>,
}

impl Below for Overlay {
    fn node(&self, path: &[u8]) -> Option<&Node> {
        self.layers[*self.shown.get(path)?].node(path)
    }

    fn top_names(&self) -> Vec<Vec<u8>> {
        self.shown.keys().filter(|path| !path.is_empty() && !path.contains(&b'/')).cloned().collect()
    }
}

impl Overlay {
    /// Puts a layer on top.
    pub(super) fn add(&mut self, tree: Tree) {
        let by = self.layers.len();
        // Parents come before what is in them.
        for (path, node) in &tree.nodes {
            match &node.kind {
                Kind::Whiteout => self.hide(path, by, true),
                Kind::Folder { opaque } => {
                    let below = Below::node(self, path);
                    let is_other = below.is_some_and(|below| !below.is_folder());
                    // Folders that only lead to what is new stay those of the layer that made them.
                    let is_same =
                        !is_other && below.is_some_and(|below| *below == Node { kind: below.kind.clone(), ..node.clone() });
                    if is_other {
                        self.hide(path, by, false);
                    } else if *opaque {
                        self.hide_beneath(path, by, &tree);
                    }
                    if !is_same {
                        self.shown.insert(path.clone(), by);
                    }
                }
                _ => {
                    self.hide(path, by, false);
                    self.shown.insert(path.clone(), by);
                }
            }
        }
        self.layers.push(tree);
    }

    /// Takes away what is at a path and beneath it.
    fn hide(&mut self, path: &[u8], by: usize, is_removed: bool) {
        if let Some(layer) = self.shown.remove(path) {
            self.lose(path, layer, by, is_removed);
        }
        for (path, layer) in self.beneath(path) {
            self.shown.remove(&path);
            self.lose(&path, layer, by, true);
        }
    }

    /// Takes away what lower layers have beneath an opaque folder; what `tree` has there follows.
    fn hide_beneath(&mut self, folder: &[u8], by: usize, tree: &Tree) {
        for (path, layer) in self.beneath(folder) {
            self.shown.remove(&path);
            self.lose(&path, layer, by, !tree.nodes.contains_key(&path));
        }
    }

    fn beneath(&self, folder: &[u8]) -> Vec<(Vec<u8>, usize)> {
        // '0' follows '/'.
        let (start, end) = ([folder, b"/"].concat(), [folder, b"0"].concat());
        self.shown.range(start..end).map(|(path, layer)| (path.clone(), *layer)).collect()
    }

    fn lose(&mut self, path: &[u8], layer: usize, by: usize, is_removed: bool) {
        let tree = &self.layers[layer];
        if let Some(Kind::File { size_bytes: size_bytes @ 1.., .. }) = tree.node(path).map(|node| &node.kind) {
            let path = first_name(tree, path).to_vec();
            self.lost.push(Lost { path, layer, by, is_removed, size_bytes: *size_bytes });
        }
    }

    /// Ends with what all layers show.
    pub(super) fn finish(self) -> Contents {
        let Self { layers, shown, mut lost } = self;
        let mut first_shown: BTreeMap<(usize, &[u8]), &[u8]> = BTreeMap::new();
        let mut links = BTreeMap::new();
        for (path, &layer) in &shown {
            let first = *first_shown.entry((layer, first_name(&layers[layer], path))).or_insert(path);
            if first != path {
                links.insert(path.clone(), first.to_vec());
            }
        }
        // A file is gone with the last of its names, and is lost once.
        lost.retain(|lost| !first_shown.contains_key(&(lost.layer, &lost.path[..])));
        let mut known = HashSet::new();
        lost.reverse();
        lost.retain(|lost| known.insert((lost.layer, lost.path.clone())));
        lost.reverse();
        Contents { layers, shown, links, lost }
    }
}

/// Returns the name that a layer knows a file by.
fn first_name<'a>(tree: &'a Tree, path: &'a [u8]) -> &'a [u8] {
    match tree.nodes.get(path).map(|node| &node.kind) {
        Some(Kind::Hardlink { to }) => to,
        _ => path,
    }
}
