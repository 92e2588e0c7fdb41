//! Archives that want out, want everything, or want the reader to fall over: a table.

use std::collections::BTreeSet;

use super::*;

/// What has to become of an archive.
enum Becomes {
    /// An error with these words.
    Refused(&'static str),
    /// These names inside the layer and nothing anywhere else.
    Contained(&'static [&'static str]),
}

use Becomes::{Contained, Refused};

fn raw(bytes: Vec<u8>) -> Tar {
    Tar(bytes)
}

/// The header of `tar`'s first entry with bytes changed after it was summed.
fn damaged(tar: Tar, at: usize, byte: u8) -> Tar {
    let mut bytes = tar.0;
    bytes[at] = byte;
    raw(bytes)
}

fn cut(tar: Tar, length: usize) -> Tar {
    let mut bytes = tar.end();
    bytes.truncate(length);
    raw(bytes)
}

fn long(count: usize) -> String {
    "n".repeat(count)
}

fn deep(count: usize) -> String {
    vec!["d"; count].join("/")
}

#[allow(clippy::too_many_lines)]
fn cases() -> Vec<(&'static str, Tar, Becomes)> {
    let t = Tar::new;
    let sparse =
        |map: &str, size: &str| t().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]).file("s").content("12345678");
    vec![
        // Out of the root by name.
        ("dots above the root", t().file("../victim"), Refused("leads out")),
        ("dots in the middle", t().file("a/../../victim"), Refused("leads out")),
        ("dots after a slash", t().file("/../victim"), Refused("leads out")),
        ("dots that stay inside", t().file("a/../b"), Contained(&["b"])),
        ("the folder above", t().dir(".."), Refused("leads out")),
        ("dots in a pax path", t().pax(&[("path", "../victim")]).file("a"), Refused("leads out")),
        ("dots in a long name", t().with(b'L', "x", |h| h).content("../victim\0").file("a"), Refused("leads out")),
        ("dots in a prefix", t().with(b'0', "victim", |h| h.prefix("..")), Refused("leads out")),
        ("dots in a sparse name", t().pax(&[("GNU.sparse.name", "../victim")]).file("a"), Refused("leads out")),
        ("an absolute name", t().file("/victim"), Contained(&["victim"])),
        ("an absolute name with slashes", t().file("///a//victim"), Contained(&["a", "a/victim"])),
        ("the root as a file", t().file("/"), Refused("replaces the root")),
        ("the root as a link", t().symlink("./", ".."), Refused("replaces the root")),
        ("the root itself", t().with(b'5', "./", |h| h.mode(0).owner(9, 9)), Contained(&[])),
        ("no name", t().file(""), Refused("no name")),
        ("NUL in a pax path", t().pax(&[("path", "a\0b")]).file("a"), Refused("NUL")),
        // Out of the root by link.
        ("a link up, then through it", t().symlink("l", "..").file("l/victim"), Contained(&["l", "victim"])),
        ("an absolute link, then through it", t().symlink("l", "/tmp").file("l/x"), Contained(&["l", "tmp", "tmp/x"])),
        ("a link far up", t().symlink("l", "../../../../..").file("l/victim"), Contained(&["l", "victim"])),
        ("a link over a link", t().symlink("a", "..").symlink("b", "a/..").file("b/victim"), Contained(&["a", "b", "victim"])),
        ("a link replaced by a file", t().symlink("v", "../victim").file("v").content("x"), Contained(&["v"])),
        ("a link replaced by a folder", t().symlink("l", "..").dir("l/").file("l/victim"), Contained(&["l", "l/victim"])),
        ("a folder replaced by a link", t().dir("l/").symlink("l", "..").file("l/victim"), Contained(&["l", "victim"])),
        ("links in a circle", t().symlink("a", "b").symlink("b", "a").file("a/x"), Refused("more than 40 links")),
        ("a link to itself", t().symlink("a", "a").file("a/x"), Refused("more than 40 links")),
        ("a link that grows", t().symlink("a", "a/a/a/a").file("a/x"), Refused("more than 40 links")),
        ("a link without a target", t().symlink("a", ""), Refused("target is no path")),
        ("a link too long", t().pax(&[("linkpath", &long(5000))]).symlink("a", ""), Refused("target is no path")),
        ("NUL in a link", t().pax(&[("linkpath", "a\0b")]).symlink("a", ""), Refused("NUL")),
        // Hard links.
        ("a hard link out", t().hardlink("h", "../victim"), Refused("leads out")),
        ("a hard link to an absolute name", t().hardlink("h", "/etc/passwd"), Refused("/etc/passwd, which is not in this layer")),
        (
            "a hard link through a link",
            t().symlink("l", "..").hardlink("h", "l/victim"),
            Refused("/victim, which is not in this layer"),
        ),
        ("a hard link to a link that leads out", t().symlink("l", "../victim").hardlink("h", "l"), Contained(&["h", "l"])),
        (
            "a write through a hard link to a link",
            t().symlink("l", "../victim").hardlink("h", "l").file("h"),
            Contained(&["h", "l"]),
        ),
        ("a hard link to nothing", t().hardlink("h", "missing"), Refused("/missing, which is not in this layer")),
        ("a hard link to a folder", t().dir("d/").hardlink("h", "d"), Refused("the folder /d")),
        ("a hard link to the root", t().hardlink("h", "/"), Refused("the root folder")),
        ("a hard link to itself", t().file("h").hardlink("h", "h"), Refused("which it replaces")),
        ("a hard link over its target's folder", t().file("d/f").hardlink("d", "d/f"), Refused("which it replaces")),
        ("a hard link to a whiteout", t().file(".wh.w").hardlink("h", "w"), Refused("not in this layer")),
        ("a hard link without a target", t().hardlink("h", ""), Refused("no name")),
        ("a hard link with content", t().file("f").hardlink("h", "f").with(b'0', "g", |h| h), Contained(&["f", "g", "h"])),
        // Whiteouts and marks.
        ("a whiteout of the folder above", t().file(".wh..."), Refused("whiteout of no name")),
        ("a whiteout of its folder", t().file("a/.wh.."), Refused("whiteout of no name")),
        ("a whiteout of nothing", t().file(".wh."), Refused("whiteout of no name")),
        ("a folder named as a whiteout", t().file("a/.wh.b/c"), Refused("whose name is a whiteout's")),
        ("an opaque mark through a link", t().symlink("l", "..").file("l/.wh..wh..opq"), Contained(&["l"])),
        ("overlay's marks as attributes", redirect(), Contained(&["d"])),
        // Parents and kinds.
        ("a file as a folder", t().file("f").file("f/g"), Refused("/f is no folder")),
        ("a pipe as a folder", t().with(b'6', "p", |h| h).file("p/g"), Refused("/p is no folder")),
        ("an unknown type", t().with(b'M', "m", |h| h), Refused("type is 'M'")),
        ("a device with impossible numbers", t().with(b'3', "n", |h| h.device(0o10000, 1)), Refused("impossible device")),
        ("a device with negative numbers", t().with(b'4', "n", |h| h.put(329, &[0xff; 8])), Refused("impossible device")),
        ("a folder with a size", t().with(b'5', "d", |h| h.size(512)).file("f"), Contained(&["d", "f"])),
        ("a link with a size", t().with(b'2', "l", |h| h.link(b"x").size(1 << 30)).file("f"), Contained(&["f", "l"])),
        // Numbers.
        ("a negative size", t().with(b'0', "f", |h| h.put(124, &[0xff; 12])), Refused("size is negative")),
        ("a negative pax size", t().pax(&[("size", "-1")]).file("f"), Refused("size is negative")),
        (
            "a size beyond numbers",
            t().with(b'0', "f", |h| h.put(124, &[0x80, 0xff, 0xff, 0xff, 0xff, 0xff])),
            Refused("too large"),
        ),
        ("a size beyond the limit", t().with(b'0', "f", |h| h.size(1 << 32)), Refused("bytes of content in all are the limit")),
        ("a size in letters", t().with(b'0', "f", |h| h.put(124, b"12345678x00\0")), Refused("not octal")),
        ("the owner that is nobody's", t().pax(&[("uid", "4294967295")]).file("f"), Refused("owner is not a number")),
        ("a negative group", t().pax(&[("gid", "-1")]).file("f"), Refused("owner is not a number")),
        ("a negative owner in base 256", t().with(b'0', "f", |h| h.put(108, &[0xff; 8])), Refused("owner is not a number")),
        ("an owner in letters", t().pax(&[("uid", "root")]).file("f"), Refused("holds no number")),
        ("a time no clock has", t().pax(&[("mtime", "99999999999999999999")]).file("f"), Refused("time is malformed")),
        ("a time in letters", t().pax(&[("mtime", "1e9")]).file("f"), Refused("time is malformed")),
        // Headers.
        ("a wrong checksum", damaged(t().file("f"), 0, b'g'), Refused("checksum is wrong")),
        ("no checksum", damaged(t().file("f"), 148, b'x'), Refused("checksum is no number")),
        ("noise", raw((0..4096u32).map(|i| (i * 7 % 251) as u8).collect()), Refused("checksum")),
        ("one empty block and more", raw([vec![0; 512], t().file("f").0].concat()), Refused("empty block")),
        (
            "a pax record without an end",
            t().with(b'x', "x", |h| h).content("99 path=a\n").file("f"),
            Refused("pax record is malformed"),
        ),
        (
            "a pax record of no length",
            t().with(b'x', "x", |h| h).content("0 path=a\n").file("f"),
            Refused("pax record is malformed"),
        ),
        ("a pax record beyond numbers", t().with(b'x', "x", |h| h).content("99999999999999999999 a=b\n"), Refused("malformed")),
        ("a pax header of a gigabyte", t().with(b'x', "x", |h| h.size(1 << 30)), Refused("bytes in one header are the limit")),
        ("a long name of a gigabyte", t().with(b'L', "x", |h| h.size(1 << 30)), Refused("bytes in one header are the limit")),
        ("a pax header for all", t().with(b'g', "x", |h| h).content("18 path=../victim\n").file("f"), Contained(&["f"])),
        ("an attribute without a name", t().pax(&[("SCHILY.xattr.", "x")]).file("f"), Refused("attribute's name")),
        ("NUL in an attribute's name", t().pax(&[("SCHILY.xattr.a\0b", "x")]).file("f"), Refused("attribute's name")),
        ("an attribute too long", t().pax(&[("SCHILY.xattr.user.a", &long(70_000))]).file("f"), Refused("longer than Linux")),
        (
            "an attribute's name too long",
            t().pax(&[(&format!("SCHILY.xattr.user.{}", long(300)), "")]).file("f"),
            Refused("longer than Linux"),
        ),
        // The end.
        ("nothing", cut(t(), 0), Contained(&[])),
        ("no end", cut(t().file("a"), 512), Contained(&["a"])),
        ("an end in a header", cut(t().file("a").file("b"), 700), Refused("ends in the middle of \"the header at byte 512\"")),
        ("an end in content", cut(t().file("a").content("content"), 515), Refused("ends in the middle of \"a\"")),
        ("an end in padding", cut(t().file("a").content("content"), 800), Refused("ends in the middle of \"a\"")),
        ("an end after a pax header", cut(t().pax(&[("path", "a")]), 1024), Refused("ends in the middle")),
        ("an end in a pax header", cut(t().pax(&[("path", "a")]), 516), Refused("ends in the middle")),
        // Too much.
        ("a name too long", t().pax(&[("path", &long(256))]).file("f"), Refused("longer than 255")),
        ("a path too long", t().pax(&[("path", &vec![long(200); 30].join("/"))]).file("f"), Refused("longer than 4095")),
        ("a path too deep", t().pax(&[("path", &deep(101))]).file("f"), Refused("100 folders in each other")),
        ("a link that makes a path too deep", deep_by_links(), Refused("in each other are the limit")),
        ("folders in paths alone", many_folders(), Refused("entries in all are the limit")),
        ("too many entries", (0..301).fold(t(), |tar, _| tar.file("f")), Refused("300 entries in all are the limit")),
        ("too many headers of nothing", (0..301).fold(t(), |tar, _| tar.with(b'g', "x", |h| h)), Refused("300 entries")),
        // Sparse files.
        ("sparse pieces that overlap", sparse("0,4,2,4", "100"), Refused("sparse map is impossible")),
        ("sparse pieces in reverse", sparse("50,4,0,4", "100"), Refused("sparse map is impossible")),
        ("a sparse piece beyond the end", sparse("0,4,97,4", "100"), Refused("sparse map is impossible")),
        ("a sparse map of less than there is", sparse("0,4", "100"), Refused("sparse map is impossible")),
        ("a sparse map of more than there is", sparse("0,4,10,5", "100"), Refused("sparse map is impossible")),
        ("a sparse map of odd length", sparse("0,4,10", "100"), Refused("sparse map is impossible")),
        ("a negative sparse piece", sparse("0,9,20,-1", "100"), Refused("sparse map is impossible")),
        ("a sparse map in letters", sparse("0,x", "100"), Refused("holds no number")),
        ("a sparse file of an exabyte", sparse("0,8", "1152921504606846976"), Refused("bytes of content in all")),
        ("a sparse map that wraps around", sparse("9223372036854775807,9223372036854775807", "100"), Refused("impossible")),
        ("a sparse map without a size", t().pax(&[("GNU.sparse.map", "0,0")]).file("s"), Refused("has no size")),
        ("sparse pairs without an offset", t().pax(&[("GNU.sparse.numbytes", "1")]).file("s"), Refused("has no pairs")),
        ("a sparse map of an unknown form", t().pax(&[("GNU.sparse.major", "2")]).file("s"), Refused("unknown form")),
        ("a sparse map that does not end", endless_map(), Refused("sparse map")),
        ("an old sparse map that does not end", endless_old_map(), Refused("ends in the middle")),
    ]
}

fn redirect() -> Tar {
    Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
            ("SCHILY.xattr.user.overlay.opaque", "y"),
            ("SCHILY.xattr.security.selinux", "x"),
        ])
        .dir("d/")
}

fn deep_by_links() -> Tar {
    let start = Tar::new().pax(&[("path", &deep(99))]).dir("x/").pax(&[("linkpath", &deep(99))]).symlink("l", "");
    start.file("l/a/b/c")
}

fn many_folders() -> Tar {
    (0..5).fold(Tar::new(), |tar, i| tar.pax(&[("path", &format!("{i}/{}", deep(90)))]).file("x"))
}

fn endless_map() -> Tar {
    let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")];
    Tar::new().pax(&records).file("s").content(&format!("999999999\n{}", "1\n".repeat(3000)))
}

fn endless_old_map() -> Tar {
    Tar::new().with(b'S', "s", |header| header.sparse(&[(0, 1)], 1).put(482, b"\x01"))
}

#[test]
fn every_hostile_archive_is_refused_or_contained() {
    let limits = Limits { content_bytes: 1 << 31, entries: 300, depth: 100, header_bytes: 1 << 20, ..Limits::default() };
    let cases = cases();
    let count = cases.len();
    assert!(count >= 60, "{count}");
    for (name, tar, becomes) in cases {
        let ends = name.starts_with("an end") || matches!(name, "nothing" | "no end") || name.contains("old sparse map that");
        let bytes = if ends { tar.0 } else { tar.end() };
        let Unpacked { outer, result } = unpacked(&bytes[..], &[], &limits);
        match (&result, &becomes) {
            (Err(error), Refused(words)) => assert!(error.to_string().contains(words), "{name}: {error}"),
            (Ok(tree), Contained(paths)) => {
                assert_eq!(names(tree), *paths, "{name}");
                assert!(Tree::decode(&tree.encode()).is_ok(), "{name}");
                assert!(tree.nodes.values().all(|node| node.xattrs.is_empty()), "{name}");
            }
            (result, _) => panic!("{name}: {result:?}"),
        }
        let victim = std::fs::read_to_string(outer.path().join("victim")).unwrap();
        let around = std::fs::read_dir(outer.path()).unwrap().count();
        assert_eq!((&victim[..], around), ("untouched", 2), "{name}: something outside was reached");
        let came =
            result.map_or_else(|error| format!("refused: {error}"), |tree| format!("contained: {}", names(&tree).join(" ")));
        println!("{name:45} {came}");
    }
    println!("{count} archives, all refused or contained");
}

#[test]
fn no_case_comes_twice_by_name_or_by_its_bytes() {
    let distinct = |values: Vec<Vec<u8>>| values.iter().collect::<BTreeSet<_>>().len();
    let count = cases().len();
    assert_eq!(distinct(cases().into_iter().map(|(name, ..)| name.into()).collect()), count);
    assert_eq!(distinct(cases().into_iter().map(|(_, tar, _)| tar.0).collect()), count);
}

#[test]
fn noise_never_panics() {
    // Cheap and repeatable: each byte of a small archive takes some other values.
    let tar = Tar::new()
        .pax(&[("mtime", "1.5"), ("SCHILY.xattr.user.a", "b")])
        .file("a")
        .content("x")
        .symlink("l", "a")
        .hardlink("h", "a")
        .end();
    for at in (0..tar.len()).step_by(7) {
        for byte in [0, b'9', 0xff] {
            let mut bytes = tar.clone();
            bytes[at] = byte;
            let Unpacked { outer, result } = unpacked(&bytes[..], &[], &Limits { content_bytes: 1 << 20, ..Limits::default() });
            if let Ok(tree) = result {
                assert!(Tree::decode(&tree.encode()).is_ok(), "{at} {byte}");
            }
            assert_eq!(std::fs::read_dir(outer.path()).unwrap().count(), 2);
        }
    }
}
