//! File ops as BuildKit's and fsutil's own tests have them, and owners that the disk cannot hold.

mod copies;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::local::trees::disk::Marks;
use crate::local::trees::scan::scan;
use crate::local::trees::tree::arbitrary::file;
use crate::local::trees::tree::{Kind, Node, Tree};
use crate::op::{Copy, FileInput, Mkdir, Mkfile, Owner, Rm, Symlink, User};

const SINGLE: Disk = Disk { last_uid: 0, last_gid: 0, marks: Marks::User };

/// A source and a target, each in a folder of its own.
struct Trees {
    outer: tempfile::TempDir,
    said: Tree,
    ledger: Ledger,
}

impl Trees {
    /// Makes trees of words: `dir/` is a folder, `link>target` a link, `same=other` a hard link, else a file with its name in it.
    fn new(source: &str, target: &str) -> Self {
        let outer = tempfile::tempdir().unwrap();
        for (tree, words) in [("source", source), ("target", target)] {
            let root = outer.path().join(tree);
            std::fs::create_dir(&root).unwrap();
            for word in words.split_whitespace() {
                let name = word.split(['>', '=']).next().unwrap();
                std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
                if let Some((name, link)) = word.split_once('>') {
                    symlink(link, root.join(name)).unwrap();
                } else if let Some((name, other)) = word.split_once('=') {
                    std::fs::hard_link(root.join(other), root.join(name)).unwrap();
                } else if word.ends_with('/') {
                    std::fs::create_dir_all(root.join(word)).unwrap();
                } else {
                    std::fs::write(root.join(word), word).unwrap();
                }
            }
        }
        std::fs::write(outer.path().join("victim"), "untouched").unwrap();
        Self { outer, said: Tree::new(), ledger: Ledger::default() }
    }

    fn source(&self, path: &str) -> PathBuf {
        self.outer.path().join("source").join(path)
    }

    fn target(&self, path: &str) -> PathBuf {
        self.outer.path().join("target").join(path)
    }

    fn run_as(&mut self, kind: impl Into<FileActionKind>, owner: Option<(u32, u32)>) -> Result<(), String> {
        let (source, target) = (File::open(self.source("")).unwrap(), File::open(self.target("")).unwrap());
        let (view, notes) = (View::new([&self.said]), Ledger::default());
        let source = Source { root: source.as_fd(), view: &view, ledger: &notes };
        let mut target = Target { root: target.as_fd(), disk: SINGLE, ledger: &mut self.ledger };
        let result = perform(&kind.into(), &mut target, Some(&source), owner).map_err(|error| error.to_string());
        assert_eq!(std::fs::read_to_string(self.outer.path().join("victim")).unwrap(), "untouched");
        assert_eq!(std::fs::read_dir(self.outer.path()).unwrap().count(), 3, "something was made outside");
        result
    }

    fn run(&mut self, kind: impl Into<FileActionKind>) -> Result<(), String> {
        self.run_as(kind, None)
    }

    fn tree(&self) -> Tree {
        let target = File::open(self.target("")).unwrap();
        scan(target.as_fd(), &View::default(), &SINGLE, &self.ledger).unwrap()
    }

    fn node(&self, path: &str) -> Node {
        self.tree().node(path.as_bytes()).unwrap_or_else(|| panic!("{path} is missing")).clone()
    }

    /// What the target holds, in the words of [`Trees::new`]; a file whose name is not in it as `name:content`.
    fn words(&self) -> String {
        let tree = self.tree();
        let words = tree.nodes.iter().skip(1).map(|(path, node)| {
            let path = String::from_utf8(path.clone()).unwrap();
            match &node.kind {
                Kind::Folder { .. } => format!("{path}/"),
                Kind::Symlink { target } => format!("{path}>{}", String::from_utf8_lossy(target)),
                Kind::Hardlink { to } => format!("{path}={}", String::from_utf8_lossy(to)),
                _ => match std::fs::read_to_string(self.target(&path)).unwrap() {
                    content if content == path => path,
                    content => format!("{path}:{content}"),
                },
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }
}

fn copy(source: &str, dest: &str) -> Copy {
    Copy::new(FileInput::Scratch, source, dest)
}

#[test]
fn folders_are_made_with_their_parents_or_without() {
    let mut trees = Trees::new("", "there/ file in>there out>../../.. abs>/there loop>loop");
    let all = |path: &str| Mkdir { make_parents: true, timestamp_ns: Some(5_000_000_007), ..Mkdir::new(path, 0o2751) };
    trees.run_as(all("/a/b"), Some((3, 4))).unwrap();
    for path in ["a", "a/b"] {
        let node = trees.node(path);
        assert_eq!((node.mode, node.uid, node.gid), (0o751, 3, 4), "{path}");
    }
    assert_eq!(trees.node("a/b").mtime_ns, 5_000_000_007);
    trees.run(Mkdir::new("/there", 0o700)).unwrap();
    assert_eq!(trees.node("there").mode, 0o755);
    trees.run(Mkdir::new("in/x", 0o700)).unwrap();
    trees.run(all("out/y/../z")).unwrap();
    trees.run(all("abs/w")).unwrap();
    assert!(trees.run(Mkdir::new("missing/x", 0o700)).unwrap_err().contains("mkdir /missing/x"));
    assert!(trees.run(all("file/x")).unwrap_err().contains("mkdir /file"));
    assert!(trees.run(all("loop/x")).unwrap_err().contains("look up /loop/x"));
    assert_eq!(trees.words(), "a/ a/b/ abs>/there file in>there loop>loop out>../../.. there/ there/w/ there/x/ z/");
}

#[test]
fn files_are_made_or_given_content() {
    let mut trees = Trees::new("", "old dir/ link>/etc/conf etc/ dangling>../../new");
    std::fs::set_permissions(trees.target("old"), PermissionsExt::from_mode(0o640)).unwrap();
    trees.ledger.entry(b"old").owner = Some((7, 7));
    trees.run(Mkfile { timestamp_ns: Some(-1_000_000_000), ..Mkfile::new("/old", 0o777, "x") }).unwrap();
    let node = trees.node("old");
    assert_eq!((node.mode, node.uid, node.mtime_ns, node.kind), (0o640, 7, -1_000_000_000, file(b"x")));
    trees.run_as(Mkfile::new("new", 0o4751, "y"), Some((1, 2))).unwrap();
    let node = trees.node("new");
    assert_eq!((node.mode, node.uid, node.gid, node.kind), (0o751, 1, 2, file(b"y")));
    trees.run(Mkfile::new("link", 0o600, "z")).unwrap();
    assert_eq!(trees.node("etc/conf").kind, file(b"z"));
    trees.run(Mkfile::new("dangling", 0o600, "w")).unwrap();
    assert_eq!(trees.node("new").kind, file(b"w"));
    assert!(trees.run(Mkfile::new("dir", 0o600, "")).unwrap_err().contains("open /dir"));
    assert!(trees.run(Mkfile::new("missing/f", 0o600, "")).unwrap_err().contains("create /missing/f"));
    rustix::fs::mknodat(rustix::fs::CWD, trees.target("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(trees.run(Mkfile::new("pipe", 0o600, "")).unwrap_err().contains("no regular file"));
}

#[test]
fn links_are_made_where_nothing_is() {
    let mut trees = Trees::new("", "there");
    let link = Symlink { timestamp_ns: Some(1), ..Symlink::new("../anywhere", "/l") };
    trees.run_as(link, Some((5, 6))).unwrap();
    let node = trees.node("l");
    assert_eq!((node.kind, node.uid, node.gid, node.mtime_ns), (Kind::Symlink { target: b"../anywhere".to_vec() }, 5, 6, 1));
    assert!(trees.run(Symlink::new("x", "there")).unwrap_err().contains("symlink /there"));
    assert!(trees.run(Symlink::new("x", "missing/l")).is_err());
}

#[test]
fn removal_takes_what_is_named_and_nothing_else() {
    let mut trees = Trees::new("", "a/x a/y b/deep/er c1 c2 c3/ d>a out>../.. dangling>nowhere");
    trees.ledger.entry(b"a/x").owner = Some((9, 9));
    let any = |path: &str| Rm { allow_not_found: true, ..Rm::new(path) };
    let wild = |path: &str| Rm { wildcard: true, ..Rm::new(path) };
    assert!(trees.run(Rm::new("/missing")).unwrap_err().contains("remove /missing"));
    trees.run(any("/missing/too")).unwrap();
    trees.run(Rm::new("d")).unwrap();
    trees.run(Rm::new("dangling")).unwrap();
    trees.run(Rm::new("b")).unwrap();
    trees.run(wild("/c?")).unwrap();
    trees.run(wild("/nothing*")).unwrap();
    for path in ["..", "../..", "a/../..", "/", "", "../victim", "out/victim", "out/../victim"] {
        assert!(trees.run(Rm::new(path)).is_err(), "{path:?}");
    }
    assert_eq!(trees.words(), "a/ a/x:a/x a/y:a/y out>../..".replace(":a/x", "").replace(":a/y", ""));
    trees.run(Rm::new("out/a")).unwrap();
    assert_eq!((trees.words().as_str(), trees.ledger.of(b"a/x")), ("out>../..", None));
}

#[test]
fn copies_keep_what_they_are_not_told() {
    let mut trees = Trees::new("d/f d/suid d/empty l>f", "there/");
    std::fs::set_permissions(trees.source("d/suid"), PermissionsExt::from_mode(0o4711)).unwrap();
    std::fs::set_permissions(trees.source("d"), PermissionsExt::from_mode(0o1770)).unwrap();
    std::fs::write(trees.source("d/empty"), "").unwrap();
    let source = File::open(trees.source("")).unwrap();
    for (name, time) in [(&b"d/f"[..], 111), (b"d", 1_700_000_000_123_456_789), (b"l", 333)] {
        crate::local::trees::beneath::set_time(source.as_fd(), name, time).unwrap();
    }
    let mut add =
        |path: &str, uid, kind| drop(trees.said.nodes.insert(path.into(), Node { uid, gid: uid, ..Node::new(0, kind) }));
    add("d", 10, Kind::Folder { opaque: false });
    add("d/f", 11, file(b"d/f"));
    add("d/suid", 12, file(b"d/suid"));
    add("d/empty", 13, Kind::Char { major: 1, minor: 3 });
    rustix::fs::setxattr(trees.source("d/f"), "user.a", b"b", rustix::fs::XattrFlags::empty()).unwrap();
    trees.run(copy("d", "e")).unwrap();
    trees.run(copy("l", "there")).unwrap();
    let said = |node: &Node| (node.mode, node.uid, node.gid, node.mtime_ns);
    assert_eq!(said(&trees.node("e")), (0o1770, 10, 10, 1_700_000_000_123_456_789));
    assert_eq!((trees.node("e/f").mtime_ns, trees.node("e/f").uid, trees.node("e/suid").mode), (111, 11, 0o4711));
    assert_eq!(trees.node("e/f").xattrs, BTreeMap::from([(b"user.a".to_vec(), b"b".to_vec())]));
    assert_eq!(trees.node("e/empty").kind, Kind::Char { major: 1, minor: 3 });
    assert_eq!((trees.node("there/l").uid, trees.node("there/l").mtime_ns), (0, 333));
}

#[test]
fn copies_take_owner_mode_and_time() {
    let told = Copy { mode: Some(0o4750), timestamp_ns: Some(5), make_parents: true, contents_only: true, ..copy("d", "a/b") };
    let mut trees = Trees::new("d/f d/s/g d/l>x", "");
    trees.run_as(told, Some((7, 8))).unwrap();
    for (path, mode) in
        [("a", 0o750), ("a/b", 0o750), ("a/b/f", 0o4750), ("a/b/s", 0o4750), ("a/b/s/g", 0o4750), ("a/b/l", 0o777)]
    {
        let node = trees.node(path);
        assert_eq!((node.mode, node.uid, node.gid, node.mtime_ns), (mode, 7, 8, 5), "{path}");
    }
    let mut trees = Trees::new("d/f d/x", "");
    std::fs::set_permissions(trees.source("d/x"), PermissionsExt::from_mode(0o700)).unwrap();
    trees.run(Copy { mode_text: "go=u-w,u+s".to_owned(), ..copy("d", "e") }).unwrap();
    assert_eq!((trees.node("e").mode, trees.node("e/f").mode, trees.node("e/x").mode), (0o4755, 0o4644, 0o4755));
}

#[test]
fn with_full_rights_the_disk_holds_the_owners() {
    let trees = Trees::new("", "");
    if std::os::unix::fs::chown(trees.outer.path(), Some(5), Some(6)).is_err() {
        return;
    }
    let root = File::open(trees.target("")).unwrap();
    let disk = Disk { last_uid: u32::MAX - 1, last_gid: u32::MAX - 1, marks: Marks::Trusted };
    let mut ledger = Ledger::default();
    let mut target = Target { root: root.as_fd(), disk, ledger: &mut ledger };
    perform(&Mkfile::new("/f", 0o755, "x").into(), &mut target, None, Some((7, 8))).unwrap();
    let view = View::default();
    let notes = Ledger::default();
    let source = Source { root: root.as_fd(), view: &view, ledger: &notes };
    perform(&copy("f", "g").into(), &mut target, Some(&source), None).unwrap();
    let found = std::fs::metadata(trees.target("g")).unwrap();
    assert_eq!((found.uid(), found.gid(), ledger), (7, 8, Ledger::default()));
}

#[test]
fn folders_that_were_there_keep_mode_and_owner() {
    let mut trees = Trees::new("d/f d/sub/g", "there/ there/sub/");
    std::fs::set_permissions(trees.target("there"), PermissionsExt::from_mode(0o711)).unwrap();
    std::fs::set_permissions(trees.source("d/sub"), PermissionsExt::from_mode(0o700)).unwrap();
    trees.run_as(Copy { contents_only: true, timestamp_ns: Some(9), ..copy("d", "there") }, Some((5, 5))).unwrap();
    let (there, sub) = (trees.node("there"), trees.node("there/sub"));
    assert_eq!((there.mode, there.uid, there.mtime_ns), (0o711, 0, 9));
    assert_eq!((sub.mode, sub.uid, sub.mtime_ns), (0o700, 5, 9));
}

#[test]
fn a_pattern_brings_parents_with_their_times() {
    let mut trees = Trees::new("d/a/b/f", "");
    let source = File::open(trees.source("")).unwrap();
    crate::local::trees::beneath::set_time(source.as_fd(), b"d/a", 42).unwrap();
    trees.run(Copy { contents_only: true, include: vec!["**/f".to_owned()], ..copy("d", "/") }).unwrap();
    assert_eq!((trees.words().as_str(), trees.node("a").mtime_ns), ("a/ a/b/ a/b/f:d/a/b/f", 42));
}

#[test]
fn holes_of_files_are_kept() {
    let mut trees = Trees::new("", "");
    let sparse = File::create(trees.source("sparse")).unwrap();
    sparse.set_len(1 << 22).unwrap();
    trees.run(copy("sparse", "/")).unwrap();
    assert_eq!(trees.node("sparse").kind, file(&vec![0; 1 << 22]));
    let blocks = std::fs::metadata(trees.target("sparse")).unwrap().blocks();
    assert!(blocks <= std::fs::metadata(trees.source("sparse")).unwrap().blocks());
}

#[test]
fn owners_are_looked_up() {
    let trees = Trees::new("etc/passwd etc/group", "etc/passwd>/other other");
    std::fs::write(trees.source("etc/passwd"), "root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:\n broken\nodd:x:many:1:\n").unwrap();
    std::fs::write(trees.source("etc/group"), "root:x:0:\nstaff:x:50:app\n").unwrap();
    std::fs::write(trees.target("other"), "linked:x:7:8::/:\n").unwrap();
    let (source, target) = (File::open(trees.source("")).unwrap(), File::open(trees.target("")).unwrap());
    let tree = |input| match input {
        FileInput::Action(0) => Some(source.as_fd()),
        FileInput::Action(1) => Some(target.as_fd()),
        _ => None,
    };
    let named = |name: &str, i| Some(User::Name { name: name.to_owned(), passwd: FileInput::Action(i) });
    for (user, group, found) in [
        (None, None, (0, 0)),
        (Some(User::Id(5)), None, (5, 5)),
        (Some(User::Id(5)), Some(User::Id(6)), (5, 6)),
        (None, Some(User::Id(6)), (0, 6)),
        (named("app", 0), None, (1000, 1001)),
        (named("app", 0), named("staff", 0), (1000, 50)),
        (named("nobody", 0), named("nobody", 0), (0, 0)),
        (named("odd", 0), None, (0, 1)),
        (named("broken", 0), None, (0, 0)),
        (named("linked", 1), named("nogroups", 1), (7, 8)),
    ] {
        let asked = Owner { user, group };
        assert_eq!(owner(Some(&asked), tree).unwrap(), Some(found), "{asked:?}");
    }
    assert_eq!(owner(None, tree).unwrap(), None);
    assert!(owner(Some(&Owner { user: named("x", 2), group: None }), tree).is_err());
}

#[test]
fn archives_are_unpacked_when_asked() {
    // b/f (uid 5, mode 4755), b/l -> /b, b/l/g through the link, ../out refused elsewhere.
    let mut layer = Tree::new();
    let mut add = |path: &str, uid, mode, kind| {
        drop(layer.nodes.insert(path.into(), Node { uid, mtime_ns: 3_000_000_000, ..Node::new(mode, kind) }))
    };
    add("b", 4, 0o750, Kind::Folder { opaque: false });
    add("b/f", 5, 0o4755, file(b"x"));
    add("b/h", 5, 0o4755, Kind::Hardlink { to: b"b/f".to_vec() });
    add("b/l", 6, 0o777, Kind::Symlink { target: b"/b".to_vec() });
    add("n", 0, 0o600, Kind::Char { major: 1, minor: 3 });
    let files = tempfile::tempdir().unwrap();
    std::fs::create_dir(files.path().join("b")).unwrap();
    std::fs::write(files.path().join("b/f"), "x").unwrap();
    let mut tar = Vec::new();
    crate::local::trees::pack::pack(&layer, File::open(files.path()).unwrap().as_fd(), &mut tar, None).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    let forms = [("plain", tar.clone()), ("gzip", gzip.finish().unwrap()), ("zstd", zstd::encode_all(&tar[..], 1).unwrap())];
    for (form, bytes) in forms {
        let mut trees = Trees::new("a.tar", "d/old d/b/ d/b/f/x");
        std::fs::write(trees.source("a.tar"), bytes).unwrap();
        trees.run(Copy { unpack: true, ..copy("a.tar", "d") }).unwrap();
        assert_eq!(trees.words(), "d/ d/b/ d/b/f:x d/b/h=d/b/f d/b/l>/b d/n: d/old", "{form}");
        let (folder, f) = (trees.node("d/b"), trees.node("d/b/f"));
        assert_eq!((folder.uid, folder.mode, folder.mtime_ns), (4, 0o750, 3_000_000_000), "{form}");
        assert_eq!((f.uid, f.mode, trees.node("d/b/l").uid), (5, 0o4755, 6), "{form}");
        trees.run_as(Copy { unpack: true, make_parents: true, ..copy("a.tar", "e") }, Some((9, 9))).unwrap();
        assert_eq!((trees.node("e/b/f").uid, trees.node("e").uid), (9, 9), "{form}");
    }
    let mut trees = Trees::new("not.tar xz", "");
    std::fs::write(trees.source("xz"), [0xfd, b'7', b'z', b'X', b'Z', 0, 1]).unwrap();
    trees.run(Copy { unpack: true, ..copy("not.tar", "/") }).unwrap();
    assert_eq!(trees.words(), "not.tar");
    assert!(trees.run(Copy { unpack: true, ..copy("xz", "/") }).unwrap_err().contains("xz, which is not unpacked here"));
}
