//! What a stack of layers shows, as overlayfs would show it.
//!
//! A lookup goes from the newest layer down until one has the path, or hides it: by a whiteout or anything that is no folder at
//! the path or one of its parents, or by an opaque folder among the parents. Folders of several layers are one; the newest says
//! their mode and owner. Invariant: a view never shows a whiteout.

use std::collections::BTreeMap;

use super::path;
use super::tree::{Kind, Node, Tree};

/// A stack of layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct View<'a> {
    /// The newest layer first.
    layers: Vec<&'a Tree>,
}

/// What one layer says of a path.
enum Says<'a> {
    /// It is this.
    Is(&'a Node),
    /// There is nothing, whatever the layers below have.
    Nothing,
    /// The layers below decide.
    AskBelow,
}

impl<'a> View<'a> {
    /// A view of layers, the bottom one first.
    pub(crate) fn new(layers: impl IntoIterator<Item = &'a Tree>) -> Self {
        let mut layers: Vec<&Tree> = layers.into_iter().collect();
        layers.reverse();
        Self { layers }
    }

    /// Returns what is at `path`; for a hard link what its file is.
    pub(crate) fn node(&self, path: &[u8]) -> Option<&'a Node> {
        for layer in &self.layers {
            match says(layer, path) {
                Says::Is(node) if node.kind == Kind::Whiteout => return None,
                Says::Is(node) => return Some(node),
                Says::Nothing => return None,
                Says::AskBelow => {}
            }
        }
        None
    }

    /// Returns the layer with the content of the regular file at `path`, the bottom one being 0, and
    /// the file's first name and size there.
    pub(crate) fn file(&self, path: &[u8]) -> Option<(usize, &'a [u8], u64)> {
        let (depth, node) = self.named(path)?;
        let layer = self.layers[depth];
        let name = match &node.kind {
            Kind::Hardlink { to } => &to[..],
            _ => layer.nodes.get_key_value(path)?.0,
        };
        match layer.node(path)?.kind {
            Kind::File { size_bytes, .. } => Some((self.layers.len() - 1 - depth, name, size_bytes)),
            _ => None,
        }
    }

    /// Returns what is in the folder `path`, by name; nothing where it is no folder.
    pub(crate) fn folder(&self, path: &[u8]) -> BTreeMap<&'a [u8], &'a Node> {
        let mut decided: BTreeMap<&[u8], &Node> = BTreeMap::new();
        for layer in &self.layers {
            let opaque = match says(layer, path) {
                Says::Is(Node { kind: Kind::Folder { opaque }, .. }) => *opaque,
                Says::Is(_) | Says::Nothing => break,
                Says::AskBelow => continue,
            };
            for (name, node) in layer.children(path) {
                let node = match &node.kind {
                    Kind::Hardlink { to } => layer.node(to).unwrap_or(node),
                    _ => node,
                };
                decided.entry(name).or_insert(node);
            }
            if opaque || hides_below(layer, path) {
                break;
            }
        }
        decided.retain(|_, node| node.kind != Kind::Whiteout);
        decided
    }

    /// Returns one layer that shows the same on its own.
    pub(crate) fn merged(&self) -> Tree {
        let mut merged = Tree::new();
        // The first name of each file that has several, by its layer and its first name there.
        let mut first_names: BTreeMap<(usize, &[u8]), Vec<u8>> = BTreeMap::new();
        let mut pending = vec![Vec::new()];
        if let Some(root) = self.node(b"") {
            merged.nodes.insert(Vec::new(), Node { kind: Kind::Folder { opaque: false }, ..root.clone() });
        }
        let mut found: BTreeMap<Vec<u8>, (usize, &Node)> = BTreeMap::new();
        while let Some(folder) = pending.pop() {
            for name in self.folder(&folder).into_keys() {
                let path = path::join(&folder, name);
                let Some((depth, node)) = self.named(&path) else { continue };
                if node.is_folder() {
                    pending.push(path.clone());
                }
                found.insert(path, (depth, node));
            }
        }
        for (path, (depth, node)) in found {
            let kind = match &node.kind {
                Kind::Folder { .. } => Kind::Folder { opaque: false },
                Kind::Hardlink { to } => match first_names.get(&(depth, &to[..])) {
                    Some(first) => Kind::Hardlink { to: first.clone() },
                    None => {
                        first_names.insert((depth, to), path.clone());
                        self.layers[depth].node(to).map_or(Kind::Whiteout, |file| file.kind.clone())
                    }
                },
                kind => {
                    if let Some((key, _)) = self.layers[depth].nodes.get_key_value(&path) {
                        first_names.insert((depth, key), path.clone());
                    }
                    kind.clone()
                }
            };
            merged.nodes.insert(path, Node { kind, ..node.clone() });
        }
        merged
    }

    /// Returns the layer that decides on `path` and its node there, hard links as such.
    fn named(&self, path: &[u8]) -> Option<(usize, &'a Node)> {
        let depth = self.layers.iter().position(|layer| !matches!(says(layer, path), Says::AskBelow))?;
        Some((depth, self.layers[depth].nodes.get(path)?))
    }
}

fn says<'a>(layer: &'a Tree, path: &[u8]) -> Says<'a> {
    let mut hidden = false;
    for folder in path::ancestors(path) {
        match layer.nodes.get(folder).map(|node| &node.kind) {
            Some(Kind::Folder { opaque }) => hidden |= opaque,
            Some(_) => return Says::Nothing,
            None => break,
        }
    }
    match layer.node(path) {
        Some(node) => Says::Is(node),
        None if hidden => Says::Nothing,
        None => Says::AskBelow,
    }
}

/// Says whether a parent of `path` is opaque in `layer`.
fn hides_below(layer: &Tree, path: &[u8]) -> bool {
    path::ancestors(path).any(|folder| layer.nodes.get(folder).is_some_and(|node| node.kind == Kind::Folder { opaque: true }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::arbitrary;
    use super::*;

    fn layer(nodes: &[(&str, Kind)]) -> Tree {
        let mut tree = Tree::new();
        for (path, kind) in nodes {
            for folder in path::ancestors(path.as_bytes()) {
                tree.nodes.entry(folder.to_vec()).or_insert_with(Node::folder);
            }
            tree.nodes.insert(path.as_bytes().to_vec(), Node::new(0, kind.clone()));
        }
        tree
    }

    fn shown(view: &View<'_>) -> Vec<String> {
        view.merged().nodes.into_keys().skip(1).map(|path| String::from_utf8(path).unwrap()).collect()
    }

    const FOLDER: Kind = Kind::Folder { opaque: false };
    const OPAQUE: Kind = Kind::Folder { opaque: true };

    #[test]
    fn newer_layers_add_replace_and_hide() {
        let file = arbitrary::file(b"x");
        let bottom =
            layer(&[("a/b/c", file.clone()), ("a/d", file.clone()), ("e", FOLDER), ("e/f", file.clone()), ("g", file.clone())]);
        let top =
            layer(&[("a/b", OPAQUE), ("a/b/new", file.clone()), ("e", Kind::Whiteout), ("g", FOLDER), ("g/h", file.clone())]);
        let view = View::new([&bottom, &top]);
        assert_eq!(shown(&view), ["a", "a/b", "a/b/new", "a/d", "g", "g/h"]);
        for hidden in ["a/b/c", "e", "e/f", "missing/x", "a/d/x"] {
            assert_eq!(view.node(hidden.as_bytes()), None, "{hidden}");
        }
        assert!(view.folder(b"e").is_empty() && view.folder(b"a/d").is_empty());
        let third = layer(&[("e/i", file)]);
        assert_eq!(shown(&View::new([&bottom, &top, &third])), ["a", "a/b", "a/b/new", "a/d", "e", "e/i", "g", "g/h"]);
        assert!(shown(&View::default()).is_empty());
    }

    #[test]
    fn a_file_in_the_middle_parts_the_folders_around_it() {
        let file = arbitrary::file(b"x");
        let layers = [layer(&[("a/old", file.clone())]), layer(&[("a", file.clone())]), layer(&[("a/new", file)])];
        assert_eq!(shown(&View::new(&layers)), ["a", "a/new"]);
    }

    #[test]
    fn a_file_keeps_its_names_when_the_first_goes() {
        let file = arbitrary::file(b"x");
        let link = Kind::Hardlink { to: b"a".to_vec() };
        let bottom = layer(&[("a", file.clone()), ("b", link.clone()), ("c", link)]);
        let top = layer(&[("a", Kind::Whiteout)]);
        let view = View::new([&bottom, &top]);
        assert_eq!(view.node(b"c").unwrap().kind, file);
        assert_eq!((view.file(b"c"), view.file(b"a")), (Some((0, &b"a"[..], 1)), None));
        let merged = view.merged();
        assert_eq!(merged.nodes[&b"b"[..]].kind, file);
        assert_eq!(merged.nodes[&b"c"[..]].kind, Kind::Hardlink { to: b"b".to_vec() });
    }

    proptest! {
        #[test]
        fn merging_shows_what_lookups_find(trees in prop::collection::vec(arbitrary::tree(15), 0..4)) {
            let view = View::new(&trees);
            let merged = view.merged();
            prop_assert_eq!(&Tree::decode(&merged.encode()).unwrap(), &merged);
            let paths: Vec<&Vec<u8>> = trees.iter().flat_map(|tree| tree.nodes.keys()).collect();
            for path in paths {
                let plain = |node: &Node| match node.kind {
                    Kind::Folder { .. } => Node { kind: FOLDER, ..node.clone() },
                    _ => node.clone(),
                };
                prop_assert_eq!(view.node(path).map(plain), merged.node(path).cloned());
                let names: Vec<&[u8]> = view.folder(path).into_keys().collect();
                let same: Vec<&[u8]> = merged.children(path).into_iter().map(|(name, _)| name).collect();
                prop_assert_eq!(names, same);
            }
        }
    }
}
