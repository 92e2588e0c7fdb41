//! Archives that are honest, odd and hostile.

mod hostile;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd as _;

use super::*;
use crate::local::trees::disk::Marks;
use crate::local::trees::scan::scan;
use crate::local::trees::tree::arbitrary::file;
use crate::local::trees::tree::{Kind, Node};
use crate::oci::layer::by_hand::Tar;

/// What the user who runs the tests can make: nobody's files but one's own.
pub(super) const SINGLE: Disk = Disk { last_uid: 0, last_gid: 0, marks: Marks::User };

/// A folder with a layer in it.
pub(super) struct Unpacked {
    pub(super) outer: tempfile::TempDir,
    pub(super) result: Result<Tree, UnpackError>,
}

pub(super) fn unpacked(tar: impl Read, below: &[Tree], limits: &Limits) -> Unpacked {
    let outer = tempfile::tempdir().unwrap();
    std::fs::write(outer.path().join("victim"), "untouched").unwrap();
    std::fs::create_dir(outer.path().join("layer")).unwrap();
    let into = File::open(outer.path().join("layer")).unwrap();
    let result = unpack(tar, into.as_fd(), &View::new(below), &SINGLE, limits);
    Unpacked { outer, result }
}

fn tree(tar: Tar, below: &[Tree]) -> (tempfile::TempDir, Tree) {
    let Unpacked { outer, result } = unpacked(&tar.end()[..], below, &Limits::default());
    let tree = result.unwrap();
    assert_eq!(Tree::decode(&tree.encode()).unwrap(), tree);
    let shown = scanned(&outer);
    let plain = |tree: &Tree| -> Vec<(Vec<u8>, Kind)> {
        let device = |kind: &Kind| matches!(kind, Kind::Char { .. } | Kind::Block { .. });
        tree.nodes
            .iter()
            .map(|(path, node)| (path.clone(), if device(&node.kind) { file(b"") } else { node.kind.clone() }))
            .collect()
    };
    assert_eq!(plain(&shown), plain(&tree), "the disk shows another tree");
    (outer, tree)
}

/// What is on the disk.
fn scanned(outer: &tempfile::TempDir) -> Tree {
    let layer = File::open(outer.path().join("layer")).unwrap();
    let scanned = scan(layer.as_fd(), &View::default(), &SINGLE, &Default::default()).unwrap();
    let mut tree = scanned;
    // As root real devices are made.
    for node in tree.nodes.values_mut() {
        if matches!(node.kind, Kind::Char { .. } | Kind::Block { .. }) {
            node.kind = file(b"");
        }
    }
    tree
}

fn names(tree: &Tree) -> Vec<String> {
    tree.nodes.keys().skip(1).map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

fn folder_of(uid: u32, nodes: &[(&str, Kind)]) -> Tree {
    let mut tree = Tree::new();
    for (path, kind) in nodes {
        let mode = if matches!(kind, Kind::Symlink { .. }) { 0o777 } else { 0o700 };
        tree.nodes.insert(path.as_bytes().to_vec(), Node { uid, ..Node::new(mode, kind.clone()) });
    }
    tree
}

const FOLDER: Kind = Kind::Folder { opaque: false };
const OPAQUE_FOLDER: Kind = Kind::Folder { opaque: true };

#[test]
fn the_tree_is_what_the_archive_says() {
    let tar = Tar::new()
        .pax(&[
            ("mtime", "1700000000.123456789"),
            ("uid", "3000000"),
            ("SCHILY.xattr.security.capability", "cap"),
            ("SCHILY.xattr.user.a", "b"),
        ])
        .with(b'0', "bin/su", |header| header.mode(0o104751).owner(5, 6).time(9))
        .content("x")
        .with(b'3', "dev/null", |header| header.mode(0o666).device(1, 3))
        .with(b'4', "dev/sda", |header| header.mode(0o660).owner(0, 6).device(8, 1))
        .with(b'6', "run/pipe", |header| header.mode(0o600))
        .symlink("lib", "usr/lib")
        .with(b'5', "tmp/", |header| header.mode(0o1777).time(77))
        .file("tmp/f")
        .hardlink("tmp/g", "tmp/f");
    let (outer, tree) = tree(tar, &[]);
    let su = &tree.nodes[&b"bin/su"[..]];
    assert_eq!((su.mode, su.uid, su.gid, su.mtime_ns), (0o4751, 3_000_000, 6, 1_700_000_000_123_456_789));
    assert_eq!(su.xattrs.keys().collect::<Vec<_>>(), [&b"security.capability".to_vec(), &b"user.a".to_vec()]);
    assert_eq!(su.kind, file(b"x"));
    assert_eq!(tree.nodes[&b"dev/null"[..]].kind, Kind::Char { major: 1, minor: 3 });
    assert_eq!(tree.nodes[&b"dev/sda"[..]], Node { gid: 6, ..Node::new(0o660, Kind::Block { major: 8, minor: 1 }) });
    assert_eq!(tree.nodes[&b"run/pipe"[..]].kind, Kind::Fifo);
    assert_eq!(tree.nodes[&b"tmp"[..]], Node { mtime_ns: 77_000_000_000, ..Node::new(0o1777, FOLDER) });
    assert_eq!(tree.nodes[&b"tmp/g"[..]].kind, Kind::Hardlink { to: b"tmp/f".to_vec() });
    let disk = scanned(&outer);
    for name in [&b"bin/su"[..], b"run/pipe", b"tmp"] {
        let (shown, said) = (&disk.nodes[name], &tree.nodes[name]);
        assert_eq!((shown.mode, shown.mtime_ns), (said.mode, said.mtime_ns), "{name:?}");
    }
}

#[test]
fn a_layer_scanned_over_itself_is_the_same() {
    // With full rights the disk holds it all; otherwise the layer's own tree says the rest.
    let outer = tempfile::tempdir().unwrap();
    let is_full = std::os::unix::fs::chown(outer.path(), Some(5), Some(6)).is_ok();
    let last = if is_full { u32::MAX - 1 } else { 0 };
    let disk = Disk { last_uid: last, last_gid: last, marks: Marks::User };
    let tar = Tar::new()
        .with(b'5', "d", |header| header.mode(0o2750).owner(5, 6).time(7))
        .pax(&[("SCHILY.xattr.user.a", "b"), ("mtime", "8.000000009")])
        .with(b'0', "d/su", |header| header.mode(0o6755).owner(1000, 50))
        .content("x")
        .hardlink("d/su2", "d/su")
        .with(b'2', "l", |header| header.link(b"x").owner(3, 3).time(1))
        .with(b'3', "null", |header| header.device(1, 3).owner(0, 9))
        .file("d/.wh..wh..opq")
        .file(".wh.gone");
    std::fs::create_dir(outer.path().join("layer")).unwrap();
    let layer = File::open(outer.path().join("layer")).unwrap();
    let tree = unpack(&tar.end()[..], layer.as_fd(), &View::default(), &disk, &Limits::default()).unwrap();
    let scanned = scan(layer.as_fd(), &View::new([&tree]), &disk, &Default::default()).unwrap();
    assert_eq!(scanned, tree, "with full rights: {is_full}");
}

#[test]
fn folders_that_are_only_in_paths_look_as_below() {
    let below = folder_of(7, &[("a", FOLDER), ("a/b", FOLDER), ("f", file(b"x"))]);
    let (_outer, tree) = tree(Tar::new().file("a/b/c/d").file("f/g"), std::slice::from_ref(&below));
    assert_eq!(tree.nodes[&b"a/b"[..]], below.nodes[&b"a/b"[..]]);
    assert_eq!(tree.nodes[&b"a/b/c"[..]], Node::folder());
    assert_eq!(tree.nodes[&b"f"[..]], Node::folder());
}

#[test]
fn links_below_are_followed_as_on_the_mounted_layers() {
    let link = |target: &str| Kind::Symlink { target: target.into() };
    let below = folder_of(0, &[("lib", link("usr/lib")), ("usr", FOLDER), ("usr/lib", FOLDER), ("up", link("/../../x/../usr"))]);
    let (_outer, layer) =
        tree(Tar::new().file("lib/a").file("up/b").symlink("new", "/usr").file("new/c"), std::slice::from_ref(&below));
    assert_eq!(names(&layer), ["new", "usr", "usr/b", "usr/c", "usr/lib", "usr/lib/a"]);
    let (_outer, hidden) = tree(Tar::new().file(".wh.lib").file("lib/a"), &[below]);
    assert_eq!(names(&hidden), ["lib", "lib/a"]);
}

#[test]
fn whiteouts_hide_only_what_is_below() {
    let below = folder_of(0, &[("a", FOLDER), ("a/old", file(b"")), ("b", FOLDER), ("c", FOLDER), ("z", file(b""))]);
    let tar = Tar::new()
        .file("a/.wh.old")
        .file("a/new")
        .file(".wh.b")
        .dir("b/")
        .dir("c/")
        .file("c/f")
        .file("c/.wh..wh..opq")
        .file("d/.wh..wh..opq")
        .dir("e/")
        .file(".wh.e")
        .file("g")
        .file(".wh.g")
        .with(b'3', "z", |header| header.device(0, 0))
        .file(".wh..wh.aufs")
        .file(".wh..wh.plnk/x");
    let (_outer, layer) = tree(tar, &[below]);
    let kind = |path: &str| layer.nodes[path.as_bytes()].kind.clone();
    assert_eq!(names(&layer), ["a", "a/new", "a/old", "b", "c", "c/f", "d", "e", "g", "z"]);
    assert_eq!((kind("a"), kind("a/old"), kind("z")), (FOLDER, Kind::Whiteout, Kind::Whiteout));
    for opaque in ["b", "c", "d", "e"] {
        assert_eq!(kind(opaque), OPAQUE_FOLDER, "{opaque}");
    }
    assert_eq!(kind("g"), file(b""));
}

#[test]
fn an_opaque_root_hides_each_name_below() {
    let below = folder_of(0, &[("a", file(b"")), ("b", FOLDER), ("b/c", file(b""))]);
    let (_outer, layer) = tree(Tar::new().file(".wh..wh..opq").dir("b/").file("n"), std::slice::from_ref(&below));
    assert_eq!(names(&layer), ["a", "b", "n"]);
    assert_eq!(names(&View::new([&below, &layer]).merged()), ["b", "n"]);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let tar = Tar::new()
        .file("a")
        .with(b'0', "a", |header| header.mode(0o600))
        .content("second")
        .dir("d/")
        .file("d/x")
        .symlink("d", "elsewhere")
        .file("e")
        .dir("e/")
        .file("e/y")
        .with(b'5', "h/", |header| header.mode(0o700))
        .file("h/z")
        .with(b'5', "h", |header| header.mode(0o711))
        .file("l")
        .hardlink("m", "l")
        .file("l");
    let (_outer, layer) = tree(tar, &[]);
    assert_eq!(names(&layer), ["a", "d", "e", "e/y", "h", "h/z", "l", "m"]);
    assert_eq!(layer.nodes[&b"a"[..]], Node::new(0o600, file(b"second")));
    assert_eq!(layer.nodes[&b"e"[..]].kind, OPAQUE_FOLDER);
    assert_eq!(layer.nodes[&b"h"[..]].mode, 0o711);
    assert_eq!(layer.nodes[&b"m"[..]].kind, file(b""));
}

#[test]
fn sparse_files_of_every_form_are_read() {
    let (data, zero) = ("d".repeat(512), "\0".repeat(512));
    let whole = file(format!("{zero}{data}{zero}{data}{zero}").as_bytes());
    let pieces = format!("{data}{data}");
    let map = "GNU.sparse.map";
    let size = ("GNU.sparse.size", "2560");
    let zero_zero = [
        size,
        ("GNU.sparse.numblocks", "3"),
        ("GNU.sparse.offset", "512"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "1536"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "2560"),
        ("GNU.sparse.numbytes", "0"),
    ];
    let lines = format!("{:\0<512}{pieces}", "3\n512\n512\n1536\n512\n2560\n0\n");
    let one_zero =
        [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "one"), ("GNU.sparse.realsize", "2560")];
    let tar = Tar::new()
        .pax(&zero_zero)
        .with(b'0', "zero", |header| header)
        .content(&pieces)
        .pax(&[size, (map, "512,512,1536,512,2560,0"), ("GNU.sparse.numblocks", "3"), ("GNU.sparse.name", "zero-one")])
        .with(b'0', "GNUSparseFile.1/zero-one", |header| header)
        .content(&pieces)
        .pax(&one_zero)
        .with(b'0', "GNUSparseFile.1/one", |header| header)
        .content(&lines)
        .with(b'S', "old", |header| header.sparse(&[(512, 512), (1536, 512), (2560, 0)], 2560))
        .content(&pieces)
        .pax(&[("GNU.sparse.size", "1048576"), (map, ""), ("GNU.sparse.numblocks", "0")])
        .file("hole");
    let (_outer, layer) = tree(tar, &[]);
    for name in ["zero", "zero-one", "one", "old"] {
        assert_eq!(layer.nodes[name.as_bytes()].kind, whole, "{name}");
    }
    assert_eq!(layer.nodes[&b"hole"[..]].kind, file(&vec![0; 1 << 20]));
}

#[test]
fn long_names_of_every_form_are_read() {
    let long = "n".repeat(200);
    let tar = Tar::new()
        .with(b'L', "././@LongLink", |header| header)
        .content(&format!("gnu/{long}\0"))
        .with(b'K', "././@LongLink", |header| header)
        .content(&format!("{long}\0"))
        .symlink("cut", "cut")
        .pax(&[("path", &format!("pax/{long}/é")), ("linkpath", &long)])
        .symlink("cut", "cut")
        .with(b'0', "name", |header| header.prefix("ustar/prefix"))
        .file("./v7//slashes/./f")
        .with(0, "v7/folder/", |header| header.mode(0o755));
    let (_outer, layer) = tree(tar, &[]);
    let link = Kind::Symlink { target: long.clone().into_bytes() };
    assert_eq!(layer.nodes[format!("gnu/{long}").as_bytes()].kind, link);
    assert_eq!(layer.nodes[format!("pax/{long}/é").as_bytes()].kind, link);
    assert_eq!(layer.nodes[&b"ustar/prefix/name"[..]].kind, file(b""));
    assert_eq!(layer.nodes[&b"v7/slashes/f"[..]].kind, file(b""));
    assert_eq!(layer.nodes[&b"v7/folder"[..]].kind, FOLDER);
}

#[test]
fn the_archive_is_read_to_its_end() {
    let mut tar = Tar::new().file("a").end();
    tar.extend([7; 5000]);
    let mut input = &tar[..];
    assert!(unpacked(&mut input, &[], &Limits::default()).result.is_ok());
    assert!(input.is_empty());
}

#[test]
fn what_the_reader_fails_with_is_passed_on() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the registry hung up"))
        }
    }
    let tar = Tar::new().file("a").0;
    let error = unpacked(tar.chain(Broken), &[], &Limits::default()).result.unwrap_err();
    assert!(matches!(error, UnpackError::Read { .. }) && error.to_string().contains("hung up"), "{error}");
}
