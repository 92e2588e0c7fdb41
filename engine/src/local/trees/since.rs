//! The layer between two states: what turns what a stack shows into a whole tree.
//!
//! For results that are not an overlayfs upper folder: a copy of all files that a step ran on. Invariant: the stack with the
//! layer on top shows the tree, and a path that is the same in both is in the layer only as a folder of one that is not, or as
//! another name of such a file.

use std::collections::{BTreeMap, BTreeSet};

use super::path;
use super::tree::{Kind, Node, Tree};
use super::view::View;

/// Returns the layer that has to lie on `below` for `whole` to be seen.
pub(crate) fn since(whole: &Tree, below: &View<'_>) -> Tree {
    let before = below.merged();
    let mut changed: BTreeSet<&[u8]> = BTreeSet::new();
    for (path, node) in &whole.nodes {
        // Names that one file has in both are compared as what they name; a name that joined or left a file is a change.
        let same_names = |old: &Node| is_link(old) == is_link(node) && (!is_link(node) || old.kind == node.kind);
        let same = before.nodes.get(path).is_some_and(same_names) && before.node(path) == whole.node(path);
        if !same {
            changed.insert(path);
        }
    }
    // All names of a file or none: an archive has no names of files in other layers.
    let first = |path: &[u8]| match whole.nodes.get(path).map(|node| &node.kind) {
        Some(Kind::Hardlink { to }) => to.clone(),
        _ => path.to_vec(),
    };
    let files: BTreeSet<Vec<u8>> = changed.iter().map(|path| first(path)).collect();
    let mut nodes = BTreeMap::from([(Vec::new(), whole.nodes.get(&b""[..]).cloned().unwrap_or_else(Node::folder))]);
    for (path, node) in &whole.nodes {
        if changed.contains(&path[..]) || files.contains(&first(path)) {
            nodes.insert(path.clone(), node.clone());
        }
    }
    for path in before.nodes.keys() {
        let parent = path::parent(path).and_then(|parent| whole.nodes.get(parent));
        if parent.is_some_and(Node::is_folder) && !whole.nodes.contains_key(path) {
            nodes.insert(path.clone(), Node::whiteout());
        }
    }
    let folders: BTreeSet<Vec<u8>> = nodes.keys().flat_map(|path| path::ancestors(path)).map(<[u8]>::to_vec).collect();
    for folder in folders {
        if let Some(node) = whole.nodes.get(&folder) {
            nodes.entry(folder).or_insert_with(|| node.clone());
        }
    }
    Tree { nodes }
}

fn is_link(node: &Node) -> bool {
    matches!(node.kind, Kind::Hardlink { .. })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tree::arbitrary;
    use super::*;

    proptest! {
        #[test]
        fn the_layer_on_top_shows_the_tree(trees in prop::collection::vec(arbitrary::tree(12), 0..3), whole in arbitrary::tree(15)) {
            let whole = View::new([&whole]).merged();
            let layer = since(&whole, &View::new(&trees));
            prop_assert_eq!(&Tree::decode(&layer.encode()).unwrap(), &layer);
            let shown = View::new(trees.iter().chain([&layer])).merged();
            prop_assert_eq!(shown, whole.clone());
            let nothing = since(&whole, &View::new([&whole]));
            prop_assert_eq!(nothing.nodes.len(), 1);
        }
    }

    #[test]
    fn only_what_changed_is_in_the_layer() {
        let tree = |paths: &[(&str, &[u8])]| {
            let mut tree = Tree::new();
            for (path, content) in paths {
                for folder in path::ancestors(path.as_bytes()) {
                    tree.nodes.entry(folder.to_vec()).or_insert_with(Node::folder);
                }
                tree.nodes.insert(path.as_bytes().to_vec(), Node::new(0o644, arbitrary::file(content)));
            }
            tree
        };
        let before = tree(&[("a/kept", b"1"), ("a/changed", b"1"), ("gone/x/y", b"1"), ("z/kept", b"1")]);
        let after = tree(&[("a/kept", b"1"), ("a/changed", b"2"), ("new/f", b"1"), ("z/kept", b"1")]);
        let layer = since(&after, &View::new([&before]));
        let paths: Vec<String> = layer.nodes.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert_eq!(paths, ["", "a", "a/changed", "gone", "new", "new/f"]);
        assert_eq!(layer.nodes[&b"gone"[..]], Node::whiteout());
    }
}
