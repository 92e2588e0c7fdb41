//! Images of hand-made layers, and layers on each other.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::Digest;
use crate::oci::Compression;
use crate::oci::image::Config;
use crate::oci::layer::by_hand::Tar;
use crate::oci::layer::tree::arbitrary;
use crate::oci::layer::view::View;
use crate::oci::layer::{Kind, Node, Tree};
use crate::op::Platform;

/// An image of uncompressed layers; `change` may make its facts wrong.
fn image(layers: Vec<Vec<u8>>, change: impl Fn(&mut LayerFile)) -> OpenImage {
    let files = layers.iter().map(|bytes| {
        let mut file = LayerFile { diff_id: Digest::of(bytes), digest: Some(Digest::of(bytes)), size_bytes: bytes.len() as u64 };
        change(&mut file);
        file
    });
    of(files.collect(), layers)
}

fn of(files: Vec<LayerFile>, blobs: Vec<Vec<u8>>) -> OpenImage {
    let config = Config { platform: Platform::new("linux", "amd64"), diff_ids: Vec::new(), history: Vec::new() };
    let open = move |number: usize| Ok(Box::new(Cursor::new(blobs[number].clone())) as Box<dyn std::io::Read + Send>);
    OpenImage::without_manifest("test".to_owned(), config, Vec::new(), files, Box::new(open))
}

fn contents(layers: Vec<Tar>) -> Contents {
    let layers = layers.into_iter().map(Tar::end).collect();
    read(&image(layers, |_| {}), Limits::default(), &mut ()).unwrap()
}

/// What is shown, as `LAYER PATH`, with `=FIRST` for further names.
fn shown(contents: &Contents) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let line = |shown: Shown<'_>| {
        let link = shown.link.map(|first| format!("={}", text(first))).unwrap_or_default();
        format!("{} {}{link}", shown.layer, text(shown.path))
    };
    contents.files().filter(|shown| !shown.path.is_empty()).map(line).collect()
}

/// What is lost, as `LAYER PATH SIZE BY`, with `-` for what is removed.
fn lost(contents: &Contents) -> Vec<String> {
    let line = |lost: &Lost| {
        let sign = if lost.is_removed { "-" } else { "" };
        format!("{} {} {} {sign}{}", lost.layer, String::from_utf8_lossy(&lost.path), lost.size_bytes, lost.by)
    };
    contents.lost().iter().map(line).collect()
}

#[test]
fn later_layers_replace_and_remove() {
    let contents = contents(vec![
        Tar::new()
            .dir("a")
            .file("a/one")
            .content("1")
            .file("a/two")
            .content("22")
            .file("keep")
            .content("k")
            .file("gone")
            .content("ggg"),
        Tar::new().file("a/one").content("new").file("a/.wh.two").file(".wh.gone").file(".wh.never"),
        Tar::new().file("a/one").content("newer").dir("a"),
    ]);
    assert_eq!(shown(&contents), ["0 a", "2 a/one", "0 keep"]);
    assert_eq!(lost(&contents), ["0 a/one 1 1", "0 a/two 2 -1", "0 gone 3 -1", "1 a/one 3 2"]);
    let Kind::File { size_bytes: 5, digest } = contents.at(b"a/one").unwrap().node.kind else { panic!("another size") };
    assert_eq!(digest, Digest::of(b"newer"));
    assert!(contents.at(b"gone").is_none() && contents.layers().len() == 3);
}

#[test]
fn an_opaque_folder_hides_what_is_below_alone() {
    let contents = contents(vec![
        Tar::new().dir("a").file("a/old").content("o").dir("a/deep").file("a/deep/x").content("xx").file("a-b").content("s"),
        Tar::new().file("a/new").content("n").file("a/.wh..wh..opq").file("a/old").content("again"),
    ]);
    assert_eq!(shown(&contents), ["0 a", "0 a-b", "1 a/new", "1 a/old"]);
    assert_eq!(lost(&contents), ["0 a/deep/x 2 -1", "0 a/old 1 1"]);
}

#[test]
fn a_file_for_a_folder_and_back_takes_everything_along() {
    let contents = contents(vec![
        Tar::new().dir("a").file("a/x").content("x").file("a/y").content("yy"),
        Tar::new().file("a").content("file"),
        Tar::new().dir("a").file("a/z").content("z"),
    ]);
    assert_eq!(shown(&contents), ["2 a", "2 a/z"]);
    assert_eq!(lost(&contents), ["0 a/x 1 -1", "0 a/y 2 -1", "1 a 4 2"]);
}

#[test]
fn a_file_is_lost_with_the_last_of_its_names() {
    let first = || Tar::new().file("a").content("aaaa").hardlink("b", "a").hardlink("c", "b");
    let one = contents(vec![first()]);
    assert_eq!((shown(&one), lost(&one)), (vec!["0 a".into(), "0 b=a".into(), "0 c=a".into()], vec![]));
    let two = contents(vec![first(), Tar::new().file(".wh.a")]);
    assert_eq!((shown(&two), lost(&two)), (vec!["0 b".into(), "0 c=b".into()], vec![]));
    let all = contents(vec![first(), Tar::new().file(".wh.a").file(".wh.b"), Tar::new().file("c").content("x")]);
    assert_eq!((shown(&all), lost(&all)), (vec!["2 c".into()], vec!["0 a 4 2".into()]));
}

#[test]
fn links_in_parents_lead_where_they_point_in_the_image() {
    let contents = contents(vec![
        Tar::new().dir("usr").dir("usr/bin").symlink("bin", "usr/bin").symlink("out", "../../../etc"),
        Tar::new().file("bin/sh").content("x").file("out/passwd").content("y"),
    ]);
    assert_eq!(shown(&contents), ["0 bin", "1 etc", "1 etc/passwd", "0 out", "0 usr", "0 usr/bin", "1 usr/bin/sh"]);
}

proptest! {
    /// The stack of layers that the embedded engine mounts shows the same.
    #[test]
    fn layers_on_each_other_show_what_a_view_shows(trees in prop::collection::vec(arbitrary::tree(20), 0..5)) {
        let mut overlay = Overlay::default();
        trees.iter().for_each(|tree| overlay.add(tree.clone()));
        let contents = overlay.finish();
        let view = View::new(&trees);
        let plain = |node: &Node| match node.kind {
            Kind::Folder { .. } => Node { kind: Kind::Folder { opaque: false }, ..node.clone() },
            _ => node.clone(),
        };
        let ours: Vec<(Vec<u8>, Node)> = contents.files().map(|shown| (shown.path.to_vec(), plain(shown.node))).collect();
        let merged: Tree = view.merged();
        let theirs: Vec<(Vec<u8>, Node)> =
            merged.nodes.keys().filter_map(|path| Some((path.clone(), plain(merged.node(path)?)))).collect();
        prop_assert_eq!(ours, if trees.is_empty() { Vec::new() } else { theirs });
        // What is lost and what is shown is all that there is, each once.
        let size = |node: &Node| if let Kind::File { size_bytes, .. } = node.kind { size_bytes } else { 0 };
        let held: u64 = trees.iter().flat_map(|tree| tree.nodes.values()).map(size).sum();
        let shown: u64 = contents.files().filter(|shown| shown.link.is_none()).map(|shown| size(shown.node)).sum();
        let lost: u64 = contents.lost().iter().map(|lost| lost.size_bytes).sum();
        prop_assert_eq!(held, shown + lost);
    }
}

#[test]
fn a_blob_is_what_its_digest_says_or_nothing_is_returned() {
    let tar = || vec![Tar::new().file("a").content("x").end()];
    let refused = |change: fn(&mut LayerFile)| read(&image(tar(), change), Limits::default(), &mut ()).unwrap_err();
    for change in [
        (|file: &mut LayerFile| file.digest = Some(Digest::of(b"other"))) as fn(&mut LayerFile),
        |file| file.diff_id = Digest::of(b"other"),
        |file| (file.diff_id, file.digest) = (Digest::of(b"other"), Some(Digest::of(b"other"))),
        |file| (file.diff_id, file.digest) = (Digest::of(b"other"), None),
    ] {
        let error = refused(change);
        assert!(
            matches!(&error, Error::Integrity(text) if text.contains("was expected") && text.contains("layer 1 of 1")),
            "{error}"
        );
    }
    assert!(read(&image(tar(), |file| file.digest = None), Limits::default(), &mut ()).is_ok());
    // What follows an archive counts as well, and so does a size that is another one.
    let longer = || vec![[Tar::new().end(), vec![7; 600]].concat()];
    assert!(read(&image(longer(), |_| {}), Limits::default(), &mut ()).is_ok());
    for change in [
        (|file: &mut LayerFile| file.size_bytes -= 1) as fn(&mut LayerFile),
        |file| file.size_bytes += 1,
        |file| file.size_bytes = 600,
    ] {
        let error = read(&image(longer(), change), Limits::default(), &mut ()).unwrap_err();
        assert!(matches!(error, Error::Integrity(_)), "{error}");
    }
}

#[test]
fn compressed_layers_are_checked_on_both_sides() {
    let tar = Tar::new().file("a").content("x").end();
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut blob = Vec::new();
        crate::oci::compress(&tar[..], &mut blob, compression, std::num::NonZeroUsize::MIN).unwrap();
        let file = LayerFile { diff_id: Digest::of(&tar), digest: Some(Digest::of(&blob)), size_bytes: blob.len() as u64 };
        let read = |file: LayerFile, blob: &[u8]| read(&of(vec![file], vec![blob.to_vec()]), Limits::default(), &mut ());
        assert_eq!(shown(&read(file, &blob).unwrap()), ["0 a"]);
        let wrong = LayerFile { diff_id: Digest::of(b"other"), ..file };
        assert!(read(wrong, &blob).unwrap_err().to_string().contains("the decompressed layer"), "{compression:?}");
        for end in [3, blob.len() / 2, blob.len() - 1] {
            let error = read(file, &blob[..end]).unwrap_err();
            assert!(matches!(error, Error::Integrity(_)), "{compression:?} {end}: {error}");
        }
    }
}

#[test]
fn limits_are_those_of_the_whole_image() {
    let layers = || (0..3).map(|n| Tar::new().file(&format!("f{n}")).content("12345678").end()).collect::<Vec<_>>();
    let with = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        read(&image(layers(), |_| {}), limits, &mut ())
    };
    assert!(with(|_| {}).is_ok());
    for change in [
        (|limits: &mut Limits| limits.entries = 4) as fn(&mut Limits),
        |limits| limits.path_bytes = 5,
        |limits| limits.content_bytes = 5000,
        |limits| limits.content_bytes = 4,
    ] {
        let error = with(change).unwrap_err();
        assert!(matches!(&error, Error::Resource(text) if text.contains("of 3")), "{error}");
    }
}

#[test]
fn files_are_looked_into_where_that_is_wanted() {
    struct Keys(Vec<(usize, Vec<u8>, usize)>);
    impl Look for Keys {
        fn wants(&self, path: &[u8], first: &[u8]) -> usize {
            if path.ends_with(b".key") || first.starts_with(b"key") { 300_000 } else { 0 }
        }
        fn take(&mut self, layer: usize, path: &[u8], start: &[u8]) {
            self.0.push((layer, path.to_vec(), start.len()));
        }
    }
    let long = "x".repeat(300_005);
    let layers = [
        Tar::new().file("a.key").content("secret").file("b").content("x").file("empty.key").content(""),
        Tar::new().file("c.key").content(&long).file("d").content("key of a door"),
    ];
    let mut keys = Keys(Vec::new());
    read(&image(layers.map(Tar::end).into(), |_| {}), Limits::default(), &mut keys).unwrap();
    assert_eq!(keys.0, [(0, b"a.key".to_vec(), 6), (1, b"c.key".to_vec(), 300_000), (1, b"d".to_vec(), 13)]);
}

/// Reads layers of hand-made archives within a limit on paths.
fn within_a_mebibyte(layers: Vec<Tar>) -> Result<Contents, Error> {
    let limits = Limits { path_bytes: 1 << 20, ..Limits::default() };
    read(&image(layers.into_iter().map(Tar::end).collect(), |_| {}), limits, &mut ())
}

#[test]
fn what_names_repeat_is_paid_for_each_time() {
    let attribute = |tar: Tar, value: &str| tar.pax(&[("SCHILY.xattr.user.a", value)]);
    let links = |tar: Tar, target: &str| (0..500).fold(tar, |tar, number| tar.hardlink(&format!("l{number}"), target));
    let large = "x".repeat(60 << 10);
    let deep = vec!["a".repeat(250); 12].join("/");
    let deep = || Tar::new().pax(&[("path", &format!("{deep}/f"))]).file("f").pax(&[("linkpath", &deep)]).symlink("s", "x");
    let hostile = [
        ("attributes of a file with many names", links(attribute(Tar::new(), &large).file("a"), "a")),
        ("attributes that the last of many names adds", attribute(links(Tar::new().file("a"), "a"), &large).hardlink("z", "a")),
        ("a long path behind a short target", links(deep(), "s/f")),
        ("long paths of whiteouts", (0..500).fold(deep(), |tar, number| tar.file(&format!("s/.wh.{number}")))),
    ];
    for (name, tar) in hostile {
        let Err(error) = within_a_mebibyte(vec![tar]) else { panic!("{name}: nothing was refused") };
        assert!(matches!(&error, Error::Resource(text) if text.contains("paths and attributes")), "{name}: {error}");
    }
    let folders = (0..7).fold(Tar::new(), |tar, number| attribute(tar, &large).dir(&format!("d{number}")));
    let inside = || (0..7).fold(Tar::new(), |tar, number| tar.file(&format!("d{number}/f")));
    let error = within_a_mebibyte(vec![folders, inside(), inside()]).map(drop).unwrap_err();
    assert!(matches!(&error, Error::Resource(text) if text.contains("layer 3 of 3")), "{error}");
    // As real images have them.
    let capability = Tar::new().pax(&[("SCHILY.xattr.security.capability", &"c".repeat(20))]).file("a");
    let real = within_a_mebibyte(vec![links(capability, "a"), links(Tar::new().file("a"), "a")]).unwrap();
    assert_eq!(shown(&real).len(), 501);
    assert_eq!(real.layers()[0].nodes[&b"l499"[..]].xattrs.len(), 1);
}

#[test]
fn holes_count_for_the_whole_image() {
    let hole = |tar: Tar, size: u64| tar.with(b'S', "a", |header| header.sparse(&[(0, 1)], size)).content("x");
    let read = |layers: Vec<Tar>| {
        let limits = Limits { content_bytes: 1 << 20, ..Limits::default() };
        read(&image(layers.into_iter().map(Tar::end).collect(), |_| {}), limits, &mut ())
    };
    let half = || hole(Tar::new(), 600 << 10);
    // What a layer replaces itself was read as well.
    for layers in [vec![half(), Tar::new(), half()], vec![half().file("a").content("y"), half()]] {
        let (last, error) = (layers.len(), read(layers).map(drop).unwrap_err());
        let layer = format!("layer {last} of {last}");
        assert!(matches!(&error, Error::Resource(text) if text.contains(&layer) && text.contains("content")), "{error}");
    }
    assert!(read((0..3).map(|_| hole(Tar::new(), 300 << 10)).collect()).is_ok());
    // Bytes and holes are not counted twice.
    assert!(read((0..3).map(|_| Tar::new().file("a").content(&"x".repeat(300 << 10))).collect()).is_ok());
}
