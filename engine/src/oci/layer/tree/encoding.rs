//! A tree as bytes: what stands beside a layer on disk.
//!
//! Invariant: equal trees have equal bytes, and bytes that decode are the ones that encoding gives: numbers have a fixed width,
//! paths ascend. Decoding takes memory in proportion to the bytes and never panics.
//!
//! After [`MAGIC`], for each node: path, kind (one letter), mode (u16), uid, gid (u32), time (i64), the number of extended
//! attributes (u32) with name and value each, then what the kind has. Byte strings have their length (u32) in front; everything
//! is little-endian; digests are their hex digits.

use std::collections::BTreeMap;

use super::{Kind, Node, Tree};
use crate::Digest;

/// The first bytes: the format and its version.
const MAGIC: &[u8] = b"tree 1\n";

/// Says why bytes are no tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the layer's tree is damaged: {reason}")]
pub(crate) struct TreeError {
    reason: String,
}

impl Tree {
    /// Returns the tree as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.encoded(|node| node.mtime_ns)
    }

    /// Returns the tree as bytes with the time that `time` gives each node.
    pub(super) fn encoded(&self, time: impl Fn(&Node) -> i64) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for (path, node) in &self.nodes {
            put(&mut out, path);
            out.push(letter(&node.kind));
            out.extend((node.mode as u16).to_le_bytes());
            out.extend(node.uid.to_le_bytes());
            out.extend(node.gid.to_le_bytes());
            out.extend(time(node).to_le_bytes());
            out.extend((node.xattrs.len() as u32).to_le_bytes());
            for (name, value) in &node.xattrs {
                put(&mut out, name);
                put(&mut out, value);
            }
            match &node.kind {
                Kind::File { size_bytes, digest } => {
                    out.extend(size_bytes.to_le_bytes());
                    out.extend(&digest.text()[7..]);
                }
                Kind::Folder { opaque } => out.push(u8::from(*opaque)),
                Kind::Symlink { target: text } | Kind::Hardlink { to: text } => put(&mut out, text),
                Kind::Char { major, minor } | Kind::Block { major, minor } => {
                    out.extend(major.to_le_bytes());
                    out.extend(minor.to_le_bytes());
                }
                Kind::Fifo | Kind::Whiteout => {}
            }
        }
        out
    }

    /// Reads a tree and checks that it is whole.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let error = |reason: &str| TreeError { reason: reason.to_owned() };
        let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| error("it does not start as one of this version does"))?;
        let mut input = Input(rest);
        let mut nodes = BTreeMap::new();
        while !input.0.is_empty() {
            let at = bytes.len() - input.0.len();
            let (path, node) = input.node().ok_or_else(|| error(&format!("the node at byte {at} cannot be read")))?;
            if nodes.last_key_value().is_some_and(|(last, _)| *last >= path) {
                return Err(error(&format!("the node at byte {at} is out of order")));
            }
            nodes.insert(path, node);
        }
        let tree = Self { nodes };
        tree.flaw().map_or(Ok(()), |flaw| Err(error(flaw)))?;
        Ok(tree)
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn letter(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => b'f',
        Kind::Folder { .. } => b'd',
        Kind::Symlink { .. } => b'l',
        Kind::Hardlink { .. } => b'h',
        Kind::Char { .. } => b'c',
        Kind::Block { .. } => b'b',
        Kind::Fifo => b'p',
        Kind::Whiteout => b'w',
    }
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn node(&mut self) -> Option<(Vec<u8>, Node)> {
        let path = self.bytes()?;
        let letter = self.array::<1>()?[0];
        let mode = u32::from(u16::from_le_bytes(self.array()?));
        let (uid, gid) = (self.u32()?, self.u32()?);
        let mtime_ns = i64::from_le_bytes(self.array()?);
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.u32()? {
            let (name, value) = (self.bytes()?, self.bytes()?);
            if xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return None;
            }
            xattrs.insert(name, value);
        }
        let kind = match letter {
            b'f' => Kind::File { size_bytes: u64::from_le_bytes(self.array()?), digest: self.digest()? },
            b'd' => Kind::Folder { opaque: [false, true].get(usize::from(self.array::<1>()?[0])).copied()? },
            b'l' => Kind::Symlink { target: self.bytes()? },
            b'h' => Kind::Hardlink { to: self.bytes()? },
            b'c' => Kind::Char { major: self.u32()?, minor: self.u32()? },
            b'b' => Kind::Block { major: self.u32()?, minor: self.u32()? },
            b'p' => Kind::Fifo,
            b'w' => Kind::Whiteout,
            _ => return None,
        };
        Some((path, Node { mode, uid, gid, mtime_ns, xattrs, kind }))
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }

    fn digest(&mut self) -> Option<Digest> {
        let hex: [u8; 64] = self.array()?;
        format!("sha256:{}", std::str::from_utf8(&hex).ok()?).parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::arbitrary;
    use super::*;

    proptest! {
        #[test]
        fn decoding_takes_encoding_back(tree in arbitrary::tree(30)) {
            prop_assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_another_tree(
            tree in arbitrary::tree(10), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = tree.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(tree) = Tree::decode(&bytes) {
                prop_assert_eq!(tree.encode(), bytes.clone());
            }
            let _ = Tree::decode(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn trees_that_are_not_whole_are_refused() {
        let whole = |change: fn(&mut Tree)| {
            let mut tree = Tree::new();
            tree.nodes.insert(b"a".to_vec(), Node::folder());
            tree.nodes.insert(b"a/f".to_vec(), Node::new(0o644, arbitrary::file(b"x")));
            change(&mut tree);
            Tree::decode(&tree.encode()).is_ok()
        };
        let add = |tree: &mut Tree, path: &[u8], node: Node| drop(tree.nodes.insert(path.to_vec(), node));
        assert!(whole(|_| {}));
        assert!(!whole(|tree| drop(tree.nodes.remove(&b""[..]))));
        assert!(!whole(|tree| drop(tree.nodes.remove(&b"a"[..]))));
        for path in [&b"a/f/g"[..], b"b/c", b"/", b"a/", b"a/..", b"..", b".", b"a//b", b"n\0", &[b'x'; 256]] {
            let mut tree = Tree::new();
            add(&mut tree, b"a", Node::folder());
            add(&mut tree, b"a/f", Node::new(0o644, arbitrary::file(b"x")));
            add(&mut tree, path, Node::folder());
            assert!(Tree::decode(&tree.encode()).is_err(), "{path:?}");
        }
        let link = |to: &[u8]| Node::new(0o644, Kind::Hardlink { to: to.to_vec() });
        for (path, node) in [
            (&b"z"[..], link(b"missing")),
            (b"z", link(b"a")),
            (b"z", link(b"z")),
            (b"a/e", link(b"a/f")),
            (b"z", Node { uid: 1, ..link(b"a/f") }),
            (b"z", Node::new(0o777, Kind::Symlink { target: Vec::new() })),
            (b"z", Node::new(0o777, Kind::Symlink { target: b"a\0".to_vec() })),
            (b"z", Node::new(0o644, Kind::Char { major: 0, minor: 0 })),
            (b"z", Node { uid: 1, ..Node::whiteout() }),
            (b"z", Node::new(0o17777, Kind::Fifo)),
        ] {
            let mut tree = Tree::new();
            add(&mut tree, b"a", Node::folder());
            add(&mut tree, b"a/f", Node::new(0o644, arbitrary::file(b"x")));
            add(&mut tree, path, node.clone());
            assert!(Tree::decode(&tree.encode()).is_err(), "{node:?}");
        }
    }
}
