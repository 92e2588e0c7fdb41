//! Images in files: every form, several in one, other platforms.

use std::num::NonZeroUsize;
use std::path::Path;

use roche_engine::Digest;
use roche_engine::oci::{Compression, compress};
use serde_json::{Value, json};

use super::{Files, contents, files, roche};
use crate::harness::{Tar, config, docker_archive, layout};

#[test]
fn layouts_and_archives_of_one_image_are_read_alike() {
    let folder = tempfile::tempdir().unwrap();
    let layers = [
        Tar::default().folder("a").file("a/one", "1").file("a/two", "22").hardlink("three", "a/two").symlink("l", b"a/one").end(),
        Tar::default().file("a/.wh.one", "").file("four", "4444").end(),
    ];
    let packed = [Compression::Gzip, Compression::Zstd].iter().zip(&layers).map(|(compression, layer)| {
        let mut packed = Vec::new();
        compress(&layer[..], &mut packed, *compression, NonZeroUsize::MIN).unwrap();
        packed
    });
    let packed: Vec<Vec<u8>> = packed.collect();
    let places = [
        docker_archive(&folder.path().join("docker.tar"), &layers, json!({})),
        layout(&folder.path().join("layout"), &layers, None, json!({})),
        layout(&folder.path().join("packed"), &layers, Some(&packed), json!({})),
    ];
    let expected: Files = [
        ("/a", "0755 0:0 d"),
        ("/a/two", "0644 0:0 f 2"),
        ("/four", "0644 0:0 f 4"),
        ("/l", "0777 0:0 l a/one"),
        ("/three", "0644 0:0 f 2"),
    ]
    .map(|(path, line)| (path.to_owned(), line.to_owned()))
    .into();
    for place in &places {
        let contents = contents(roche(folder.path()), place);
        assert_eq!(files(&contents), expected, "{}", place.display());
        assert_eq!(
            contents["totals"],
            json!({"files": 4, "folders": 1, "sizeBytes": 6, "wastedBytes": 1}),
            "{}",
            place.display()
        );
        assert_eq!(contents["wasted"], json!([{"path": "/a/one", "sizeBytes": 1, "layer": 1, "hiddenBy": 2, "removed": true}]));
    }
    let quiet = roche(folder.path()).args(["contents", "-q", "docker.tar"]).run().succeeds();
    assert_eq!(quiet.stdout_text(), "/a\n/a/two\n/four\n/l\n/three\n");
    let second = roche(folder.path()).args(["contents", "--layer", "2", "oci-layout://layout"]).run().succeeds();
    assert!(second.stdout_text().contains("/a/one (removed)") && !second.stdout_text().contains("/a/two"), "{}", second.story());
    for (old, new) in [(0, 1), (1, 2), (0, 2)] {
        let same = roche(folder.path()).args(["diff", "--exit-code"]).args([&places[old], &places[new]]).run().succeeds();
        assert!(same.stdout_text().contains("layers: 2 of 2 and 2 are shared"), "{}", same.story());
    }
}

#[test]
fn of_several_images_in_a_file_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let layer = Tar::default().file("f", "x").end();
    let configs = ["a", "b"].map(|user| config(std::slice::from_ref(&layer), json!({"config": {"User": user}})).to_string());
    let digests = configs.each_ref().map(|config| Digest::of(config.as_bytes()));
    let listed = |tags: [Value; 2]| {
        let [a, b] =
            [0, 1].map(|n| json!({"Config": format!("{}.json", digests[n].hex()), "RepoTags": tags[n], "Layers": ["l.tar"]}));
        let mut tar = Tar::default().entry(b'0', b"l.tar", 0o644, b"", &layer).file("manifest.json", &json!([a, b]).to_string());
        for n in [0, 1] {
            tar = tar.file(format!("{}.json", digests[n].hex()), &configs[n]);
        }
        tar.end()
    };
    std::fs::write(folder.path().join("x.tar"), listed([json!(["a:1"]), json!(["localhost:5000/b:1"])])).unwrap();
    let layouts = ["a", "b"]
        .map(|user| layout(&folder.path().join(user), std::slice::from_ref(&layer), None, json!({"config": {"User": user}})));
    // A layout of both.
    let read = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    let [mut index, other] = layouts.each_ref().map(|path| read(path));
    index["manifests"].as_array_mut().unwrap().push(other["manifests"][0].clone());
    let manifests = [0, 1].map(|n| index["manifests"][n]["digest"].as_str().unwrap().to_owned());
    for (n, name) in [(0, "docker.io/library/a:1"), (1, "localhost:5000/b:1")] {
        index["manifests"][n]["annotations"] =
            json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "1"});
    }
    std::fs::write(layouts[0].join("index.json"), index.to_string()).unwrap();
    for blob in std::fs::read_dir(layouts[1].join("blobs/sha256")).unwrap().map(Result::unwrap) {
        std::fs::copy(blob.path(), layouts[0].join("blobs/sha256").join(blob.file_name())).unwrap();
    }
    std::fs::rename(&layouts[0], folder.path().join("l")).unwrap();

    let ids = digests.map(|digest| digest.to_string());
    for (place, [a, b]) in [("docker-archive://x.tar", &ids), ("oci-layout://l", &manifests)] {
        let (_, path) = place.split_once("://").unwrap();
        for (image, user) in [
            (format!("{place}:a:1"), "a"),
            (format!("{place}:docker.io/library/a:1"), "a"),
            (format!("{place}:localhost:5000/b:1"), "b"),
            (format!("{place}@{a}"), "a"),
            (format!("{place}:{b}"), "b"),
        ] {
            let shown = contents(roche(folder.path()), &image);
            assert_eq!(shown["config"]["User"], user, "{image}");
        }
        for (image, said) in [
            (path.to_owned(), "2 images are in it, and none is named"),
            (format!("{place}:1"), "2 images in it are \"1\""),
            (format!("{place}:c:1"), "no image in it is \"c:1\""),
        ] {
            let ended = roche(folder.path()).args(["contents", &image]).run();
            assert_eq!(ended.status.code(), Some(2), "{}", ended.story());
            assert!(ended.stderr.contains(said), "{}", ended.story());
            // The hint is a line to paste.
            let hint = ended.stderr.lines().find_map(|line| line.strip_prefix("hint: roche "));
            let hint = hint.unwrap_or_else(|| panic!("no line to paste: {}", ended.story()));
            roche(folder.path()).args(hint.split(' ')).run().succeeds();
        }
    }
    // Without tags there are digests, and what would do something in a shell is not there to be pasted.
    for tags in [[Value::Null, Value::Null], [json!(["a;reboot"]), json!(["$(b)"])]] {
        std::fs::write(folder.path().join("y.tar"), listed(tags)).unwrap();
        let ended = roche(folder.path()).args(["contents", "y.tar"]).run();
        assert_eq!(ended.status.code(), Some(2), "{}", ended.story());
        let hint = format!("\nhint: roche contents docker-archive://y.tar:{}\n", ids[0]);
        assert!(ended.stderr.contains(&hint), "{}", ended.story());
    }
}

#[test]
fn a_file_for_another_platform_than_the_wanted_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let layers = [Tar::default().file("f", "x").end()];
    docker_archive(&folder.path().join("a.tar"), &layers, json!({}));
    layout(&folder.path().join("l"), &layers, None, json!({}));
    for image in ["a.tar", "l"] {
        let on = |platform: &str| roche(folder.path()).args(["contents", "--platform", platform, image]).run();
        on("linux/amd64").succeeds();
        let ended = on("linux/arm64");
        assert_eq!((ended.status.code(), ended.stdout_text().as_str()), (Some(2), ""), "{}", ended.story());
        assert!(ended.stderr.contains("linux/amd64") && ended.stderr.contains("linux/arm64"), "{}", ended.story());
        // What nobody asked for is no matter.
        roche(folder.path()).args(["contents", image]).run().succeeds();
    }
}
