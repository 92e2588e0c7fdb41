//! What a layer contains: every path with its owner, mode, time, attributes and the digest of its content.
//!
//! A [`Tree`] is the authority on its layer: the file system beneath holds what the user's rights let it hold, and what it shows
//! otherwise is wrong. Invariant: a tree that [`Tree::decode`] returned, that a scan made or that an archive was unpacked to is
//! whole: every parent is there and is a folder, a hard link's `to` is the first name of its file, and metadata that a kind
//! cannot have is zero.
//!
//! | field | digest of the content | why |
//! |---|---|---|
//! | path, kind, mode, owner, extended attributes | yes | a step can see them and act on them |
//! | time | no | content decides, never mtime |

mod encoding;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::path;
use crate::Digest;

/// One layer's paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The nodes by path; the root folder is "" and always there.
    pub nodes: BTreeMap<Vec<u8>, Node>,
}

/// What is at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The bits of 0o7777; 0o777 for symbolic links, 0 for whiteouts.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last change, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// The extended attributes that are content: no overlayfs marks, no labels of the machine.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// The kinds of nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
        /// The sha256 of its content.
        digest: Digest,
    },
    /// A folder.
    Folder {
        /// Whether it hides the folder of this name in the layers below.
        opaque: bool,
    },
    /// A symbolic link.
    Symlink {
        /// What it says.
        target: Vec<u8>,
    },
    /// Another name of a node in this layer that is no folder; its metadata repeats that node's.
    Hardlink {
        /// The first of the node's names in byte order.
        to: Vec<u8>,
    },
    /// A character device, never 0:0.
    Char {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The layers below have something here that this layer removes.
    Whiteout,
}

impl Node {
    /// A node of root's, dated 1970.
    pub(crate) fn new(mode: u32, kind: Kind) -> Self {
        Self { mode, uid: 0, gid: 0, mtime_ns: 0, xattrs: BTreeMap::new(), kind }
    }

    /// A folder as one that nobody described: root's, 0755, dated 1970.
    pub(crate) fn folder() -> Self {
        Self::new(0o755, Kind::Folder { opaque: false })
    }

    /// The node that removes what the layers below have.
    pub(crate) fn whiteout() -> Self {
        Self::new(0, Kind::Whiteout)
    }

    /// Says whether it is a folder.
    pub fn is_folder(&self) -> bool {
        matches!(self.kind, Kind::Folder { .. })
    }
}

impl Tree {
    /// A layer that is empty but for its root folder.
    pub(crate) fn new() -> Self {
        Self { nodes: BTreeMap::from([(Vec::new(), Node::folder())]) }
    }

    /// Returns the digest of everything but the times: what cache keys are made of.
    pub(crate) fn content_digest(&self) -> Digest {
        Digest::of(&self.encoded(|_| 0))
    }

    /// Returns what is at `path`, for a hard link what its file is.
    pub fn node(&self, path: &[u8]) -> Option<&Node> {
        let node = self.nodes.get(path)?;
        match &node.kind {
            Kind::Hardlink { to } => self.nodes.get(to),
            _ => Some(node),
        }
    }

    /// Returns the names in `folder`, in byte order, with their nodes, hard links as such.
    pub(crate) fn children(&self, folder: &[u8]) -> Vec<(&[u8], &Node)> {
        let prefix = if folder.is_empty() { Vec::new() } else { [folder, b"/"].concat() };
        let mut cursor = prefix.clone();
        if prefix.is_empty() {
            cursor.push(0);
        }
        let mut children = Vec::new();
        while let Some((key, node)) = self.nodes.range::<[u8], _>((Bound::Included(&cursor[..]), Bound::Unbounded)).next() {
            let Some(rest) = key.strip_prefix(&prefix[..]) else { break };
            cursor.clear();
            match rest.iter().position(|&byte| byte == b'/') {
                // A grandchild: all of this folder is left out at once, since '0' follows '/'.
                Some(slash) => cursor.extend_from_slice(&[&prefix, &rest[..slash], b"0"].concat()),
                None => {
                    children.push((rest, node));
                    cursor.extend_from_slice(&[key, &b"\0"[..]].concat());
                }
            }
        }
        children
    }

    /// Returns the paths as a walk meets them: a folder, what is in it, then its next sibling.
    pub(crate) fn walk(&self) -> Vec<(&[u8], &Node)> {
        let mut nodes: Vec<(&[u8], &Node)> = self.nodes.iter().map(|(path, node)| (&path[..], node)).collect();
        nodes.sort_by(|a, b| path::walk_order(a.0, b.0));
        nodes
    }

    /// Says what breaks the invariant, if anything does.
    fn flaw(&self) -> Option<&'static str> {
        let root = self.nodes.get(&b""[..]);
        if root.is_none_or(|root| root.kind != Kind::Folder { opaque: false }) {
            return Some("there is no root folder");
        }
        self.nodes.iter().find_map(|(path, node)| self.flaw_of(path, node))
    }

    fn flaw_of(&self, path: &[u8], node: &Node) -> Option<&'static str> {
        if let Some(parent) = path::parent(path) {
            let name = path::name(path);
            if matches!(name, b"" | b"." | b"..") || name.len() > path::LONGEST_NAME || path.len() > path::LONGEST_PATH {
                return Some("a path is not made of names");
            }
            if !self.nodes.get(parent).is_some_and(Node::is_folder) {
                return Some("a path is not in a folder");
            }
        }
        if path.contains(&0) || node.mode > 0o7777 {
            return Some("a path or a mode is impossible");
        }
        let flawed = match &node.kind {
            Kind::Hardlink { to } => {
                let first = self.nodes.get(to);
                to[..] >= *path
                    || !first.is_some_and(|first| {
                        let links = !matches!(first.kind, Kind::Hardlink { .. } | Kind::Folder { .. } | Kind::Whiteout);
                        links && *node == Node { kind: node.kind.clone(), ..first.clone() }
                    })
            }
            Kind::Symlink { target } => target.is_empty() || target.contains(&0) || node.mode != 0o777,
            Kind::Char { major: 0, minor: 0 } => true,
            Kind::Whiteout => *node != Node::whiteout(),
            _ => false,
        };
        flawed.then_some("a node is impossible")
    }
}

#[cfg(test)]
pub(crate) mod arbitrary {
    //! Arbitrary whole trees.

    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => "[abc]".prop_map(String::into_bytes),
            2 => "[a-c.-]{2,4}".prop_map(String::into_bytes),
            1 => "[a-zé]{90,130}".prop_map(String::into_bytes),
            1 => prop::collection::vec(prop_oneof![0x20u8..0x2f, 0x30u8..=0xff], 1..8),
        ]
        .prop_filter("not a name", |name| !matches!(&name[..], b"." | b"..") && !name.starts_with(b".wh.") && name.len() < 256)
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(|bytes| file(&bytes)),
            4 => prop_oneof![9 => Just(false), 1 => Just(true)].prop_map(|opaque| Kind::Folder { opaque }),
            1 => prop_oneof![Just(&b"../x"[..]), Just(&[b'x'; 300][..])].prop_map(|to| Kind::Symlink { target: to.to_vec() }),
            1 => Just(Kind::Fifo),
            1 => (1u32..500, 0u32..500).prop_map(|(major, minor)| Kind::Char { major, minor }),
            1 => (0u32..500, 0u32..500).prop_map(|(major, minor)| Kind::Block { major, minor }),
            1 => Just(Kind::Whiteout),
            2 => name().prop_map(|to| Kind::Hardlink { to }),
        ]
    }

    /// A file's kind, by its content.
    pub(crate) fn file(bytes: &[u8]) -> Kind {
        Kind::File { size_bytes: bytes.len() as u64, digest: Digest::of(bytes) }
    }

    fn node() -> impl Strategy<Value = Node> {
        let id = prop_oneof![3 => 0u32..3, 2 => 0u32..100_000, 1 => any::<u32>().prop_map(|id| id.min(u32::MAX - 1))];
        let time = prop_oneof![Just(0i64), 0i64..2_000_000_000_000_000_000, -5_000_000_000i64..0];
        let xattr = prop_oneof![Just(&b"user.a"[..]), Just(&b"user.bc"[..]), Just(&b"security.capability"[..])];
        let xattrs = prop::collection::btree_map(xattr.prop_map(<[u8]>::to_vec), prop::collection::vec(any::<u8>(), 1..40), 0..2);
        (0u32..0o10000, id.clone(), id, time, xattrs, kind()).prop_map(|(mode, uid, gid, mtime_ns, xattrs, kind)| match kind {
            Kind::Whiteout => Node::whiteout(),
            Kind::Symlink { .. } => Node { mode: 0o777, uid, gid, mtime_ns, xattrs: BTreeMap::new(), kind },
            _ => Node { mode, uid, gid, mtime_ns, xattrs, kind },
        })
    }

    /// A whole tree of up to `count` nodes.
    pub(crate) fn tree(count: usize) -> impl Strategy<Value = Tree> {
        prop::collection::vec((prop::collection::vec(name(), 1..4), node()), 0..count).prop_map(|entries| {
            let mut tree = Tree::new();
            for (names, node) in entries {
                let path = names.join(&b'/');
                if path::ancestors(&path).any(|folder| tree.nodes.get(folder).is_some_and(|node| !node.is_folder())) {
                    continue;
                }
                for folder in path::ancestors(&path) {
                    tree.nodes.entry(folder.to_vec()).or_insert_with(Node::folder);
                }
                tree.nodes.entry(path).or_insert(node);
            }
            // A hard link's name was any: it becomes one of the first file, or is left out.
            let first = tree.nodes.iter().find(|(_, node)| matches!(node.kind, Kind::File { .. }));
            let first = first.map(|(path, node)| (path.clone(), node.clone()));
            tree.nodes.retain(|path, node| {
                let Kind::Hardlink { .. } = node.kind else { return true };
                let Some((to, file)) = first.as_ref().filter(|(to, _)| to < path) else { return false };
                *node = Node { kind: Kind::Hardlink { to: to.clone() }, ..file.clone() };
                true
            });
            tree
        })
    }

    proptest! {
        #[test]
        fn arbitrary_trees_are_whole(tree in tree(30)) {
            prop_assert_eq!(tree.flaw(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_alone_do_not_change_the_content_digest() {
        let mut tree = Tree::new();
        tree.nodes.insert(b"a".to_vec(), Node::new(0o644, arbitrary::file(b"x")));
        let digest = tree.content_digest();
        tree.nodes.get_mut(&b"a"[..]).unwrap().mtime_ns = 7;
        assert_eq!(tree.content_digest(), digest);
        assert_ne!(tree.encode(), Tree::new().encode());
        for change in [
            |node: &mut Node| node.mode = 0o600,
            |node: &mut Node| node.uid = 1,
            |node: &mut Node| node.gid = 1,
            |node: &mut Node| node.kind = arbitrary::file(b"y"),
            |node: &mut Node| drop(node.xattrs.insert(b"user.x".to_vec(), Vec::new())),
        ] {
            let mut changed = tree.clone();
            change(changed.nodes.get_mut(&b"a"[..]).unwrap());
            assert_ne!(changed.content_digest(), digest);
        }
    }

    #[test]
    fn a_folders_names_are_its_own_alone() {
        let mut tree = Tree::new();
        for path in [&b"a"[..], b"a/b", b"a/b/c", b"a/b-c", b"a/b0", b"a-b", b"a0"] {
            tree.nodes.insert(path.to_vec(), Node::folder());
        }
        let names = |folder: &[u8]| tree.children(folder).into_iter().map(|(name, _)| name.to_vec()).collect::<Vec<_>>();
        assert_eq!(names(b""), [&b"a"[..], b"a-b", b"a0"]);
        assert_eq!(names(b"a"), [&b"b"[..], b"b-c", b"b0"]);
        assert_eq!(names(b"a/b"), [b"c"]);
        assert!(names(b"a/b/c").is_empty() && names(b"missing").is_empty());
    }
}
