//! What `roche contents` and `roche diff` say of an image is what tar and docker say of it.
//!
//! Red when: a path, mode, owner, size or link of an image is another one than in docker's own export; an image is read otherwise
//! from a store, an archive, a layout or a registry; a difference is missed or made up; a document does not keep
//! its schema; a line is longer than the terminal.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;

use roche_engine::Digest;
use roche_engine::oci::{Compression, compress};
use serde_json::{Value, json};

use crate::harness::{
    Daemon, Ended, Project, Roche, Tar, against_schema, config, docker_archive, image, layout, list_of_crates, on_every_daemon,
    program,
};

const RUNTIMES: [&str; 4] = ["runtime-debian", "runtime-busybox", "runtime-musl", "runtime-distroless"];

/// `roche` in a folder, with no daemon but what is added.
fn roche(dir: &Path) -> Roche {
    Roche::new(dir).env("DOCKER_HOST", "unix:///nonexistent/docker.sock")
}

#[track_caller]
fn json_of(ended: Ended, schema: &str) -> Value {
    let ended = ended.succeeds();
    assert_eq!(against_schema(schema, &ended.stdout), "", "{}", ended.story());
    serde_json::from_slice(&ended.stdout).expect("the validator has read it")
}

#[track_caller]
fn contents(roche: Roche, image: impl AsRef<OsStr>) -> Value {
    json_of(roche.args(["contents", "--json"]).arg(image).run(), "contents-1")
}

/// Every path with what is known of it: type letter, mode, owner, group, size or link.
type Files = BTreeMap<String, String>;

fn files(contents: &Value) -> Files {
    let mut files = Files::new();
    let mut of_first: BTreeMap<String, String> = BTreeMap::new();
    for file in contents["files"].as_array().expect("a list") {
        let path = file["path"].as_str().expect("a path").to_owned();
        let kind = match file["kind"].as_str().expect("a kind") {
            "file" => format!("f {}", file["sizeBytes"]),
            "folder" => "d".to_owned(),
            "symlink" => format!("l {}", file["target"].as_str().expect("a target")),
            "charDevice" => format!("c {}", file["device"]),
            "blockDevice" => format!("b {}", file["device"]),
            other => other.to_owned(),
        };
        let line = format!("{} {}:{} {kind}", file["mode"].as_str().expect("a mode"), file["uid"], file["gid"]);
        of_first.insert(path.clone(), line.clone());
        files.insert(path, line);
    }
    files
}

/// Reads a tar by Python's library, in the same words.
fn tar_files(tar: &Path) -> Files {
    const READ: &str = r#"
import json, sys, tarfile
files, sizes = {}, {}
for m in tarfile.open(sys.argv[1]):
    path = "/" + m.name.strip("/").removeprefix("./")
    if path in ("/", "/."): continue
    if m.islnk():
        files[path] = files["/" + m.linkname.strip("/").removeprefix("./")]; continue
    kind = "f %d" % m.size if m.isreg() else "d" if m.isdir() else "l " + m.linkname if m.issym() else \
        "c [%d,%d]" % (m.devmajor, m.devminor) if m.ischr() else "b [%d,%d]" % (m.devmajor, m.devminor) if m.isblk() else "pipe"
    mode = 0o777 if m.issym() else m.mode & 0o7777
    files[path] = "%04o %d:%d %s" % (mode, m.uid, m.gid, kind)
json.dump(files, sys.stdout)
"#;
    let output = Command::new("python3").args(["-c", READ]).arg(tar).output().expect("python3 runs");
    assert!(output.status.success(), "python3 cannot read {}: {}", tar.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("an object of strings")
}

/// What docker shows of an image.
#[track_caller]
fn exported(daemon: &Daemon, image: &str) -> Files {
    let folder = tempfile::tempdir().unwrap();
    let tar = folder.path().join("export.tar");
    let id = daemon.run(["create", image, "/never-started"]);
    daemon.run(["export", "-o", tar.to_str().expect("text"), id.trim()]);
    daemon.run(["rm", id.trim()]);
    tar_files(&tar)
}

#[track_caller]
fn assert_same(ours: &Files, theirs: &Files, what: &str) {
    // What docker puts into every container.
    const DOCKERS: [&str; 11] = [
        "/.dockerenv",
        "/dev",
        "/dev/console",
        "/dev/pts",
        "/dev/shm",
        "/etc/hostname",
        "/etc/hosts",
        "/etc/mtab",
        "/etc/resolv.conf",
        "/proc",
        "/sys",
    ];
    let paths = ours.keys().chain(theirs.keys()).filter(|path| !DOCKERS.contains(&path.as_str()));
    let odd = paths.filter(|path| ours.get(*path) != theirs.get(*path));
    let odd = odd.map(|path| format!("{path}: {:?}, and docker says {:?}", ours.get(path), theirs.get(path)));
    let odd: Vec<String> = odd.take(10).collect();
    assert!(theirs.len() > DOCKERS.len(), "{what}: docker shows {} files", theirs.len());
    assert!(odd.is_empty(), "{what}:\n{}", odd.join("\n"));
}

on_every_daemon!(an_image_of_the_store_is_what_docker_exports);
fn an_image_of_the_store_is_what_docker_exports(daemon: &Daemon) {
    let folder = tempfile::tempdir().unwrap();
    for name in RUNTIMES {
        let image = image(name);
        let contents = contents(Roche::new(folder.path()).on(daemon), &image);
        assert!(contents["foundIn"].as_str().unwrap().contains(&daemon.socket.display().to_string()), "{}", contents["foundIn"]);
        assert_same(&files(&contents), &exported(daemon, &image), name);
        if !daemon.has_manifests() {
            assert_eq!(contents["imageId"], daemon.inspect(&image)["Id"], "{name}");
        }
    }
}

on_every_daemon!(archive_registry_and_store_agree);
fn archive_registry_and_store_agree(daemon: &Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let image = image("runtime-debian");
    let saved = folder.path().join("saved.tar");
    daemon.run(["save", "-o", saved.to_str().expect("text"), &image]);
    let store = contents(Roche::new(folder.path()).on(daemon), &image);
    let archive = contents(roche(folder.path()), &saved);
    // A back end that is no docker has no store, and so the registry is asked.
    let registry = contents(
        Roche::new(folder.path()).env("BUILDKIT_HOST", "tcp://127.0.0.1:1").env("XDG_RUNTIME_DIR", "/nonexistent"),
        &image,
    );
    for (name, other) in [("archive", &archive), ("registry", &registry)] {
        assert_eq!(files(&store), files(other), "{name}");
        assert_eq!(store["config"], other["config"], "{name}");
        let ids =
            |value: &Value| value["layers"].as_array().unwrap().iter().map(|layer| layer["diffId"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&store), ids(other), "{name}");
    }
    let line = [saved.as_os_str(), OsStr::new(&image)];
    let same = Roche::new(folder.path()).on(daemon).arg("diff").args(line).arg("--exit-code").run().succeeds();
    assert!(same.stdout_text().contains("no difference"), "{}", same.story());
}

on_every_daemon!(a_release_shows_what_it_adds_over_its_runtime);
fn a_release_shows_what_it_adds_over_its_runtime(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    let on = || Roche::new(project.root()).on(daemon);
    let shown = contents(on(), &tag.name);
    assert_same(&files(&shown), &exported(daemon, &tag.name), "the release");
    let text = on().args(["contents", &tag.name]).run().succeeds().stdout_text();
    let added = text.split("\n\n").find(|part| part.starts_with("layer ")).unwrap_or_else(|| panic!("no layer in\n{text}"));
    for path in ["/app/roche-service", "/app/run.sh", "/app/Cargo.toml", "/etc/passwd"] {
        assert!(added.contains(path), "{path} is not in\n{added}");
    }
    assert!(added.contains("rocheuser") && text.contains("user     rocheuser"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    // And the difference to the runtime is what was added.
    let runtime = image("runtime-busybox");
    let difference = json_of(on().args(["diff", "--json", &runtime, &tag.name]).run(), "diff-1");
    let added: Vec<&str> = difference["added"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    for path in ["/app", "/app/Cargo.toml", "/app/roche-service", "/app/run.sh"] {
        assert!(added.contains(&path), "{path} is not in {added:?}");
    }
    assert_eq!(difference["removed"], json!([]));
    let changed = difference["changed"].as_array().unwrap();
    assert!(changed.iter().all(|file| ["/etc/group", "/etc/passwd"].contains(&file["path"].as_str().unwrap())), "{changed:?}");
    assert!(difference["sharedLayers"].as_u64().unwrap() >= 1);
}

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
fn the_crates_of_programs_are_listed_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let package = |name: &str, version: &str| json!({"name": name, "version": version, "source": "crates.io"});
    let image = |file: &str, packages: Vec<Value>, hidden: bool| {
        let list = list_of_crates(&json!({"packages": packages, "format": 1}));
        let first = Tar::default().entry(b'0', b"bin/app", 0o755, b"", &program(&list)).file("lib", "\x7fELF");
        let second = Tar::default().file(if hidden { "bin/.wh.app" } else { "bin/other" }, "");
        docker_archive(&folder.path().join(file), &[first.end(), second.end()], json!({}))
    };
    let mut build = package("build", "1.0.0");
    build["kind"] = json!("build");
    let old = image(
        "old.tar",
        vec![package("app", "1.0.0"), package("gone", "0.1.0"), package("moved", "1.0.0"), build.clone()],
        false,
    );
    let new = image(
        "new.tar",
        vec![package("app", "1.0.0"), package("come", "2.0.0"), package("come", "3.0.0"), package("moved", "1.1.0"), build],
        false,
    );
    let hidden = image("hidden.tar", vec![package("app", "1.0.0")], true);

    let text = roche(folder.path()).args(["contents", "old.tar"]).run().succeeds().stdout_text();
    assert!(text.contains("crates in /bin/app: 3, and 1 to build it\n  app 1.0.0\n  gone 0.1.0\n  moved 1.0.0\n"), "{text}");
    let listed = contents(roche(folder.path()), &old);
    assert_eq!(listed["programs"][0]["path"], "/bin/app");
    assert_eq!(listed["programs"][0]["packages"][3]["kind"], "build");
    assert_eq!(listed["programs"].as_array().unwrap().len(), 1);
    assert_eq!(contents(roche(folder.path()), &hidden)["programs"], json!([]), "a program that is not shown has no crates");

    let text = roche(folder.path()).arg("diff").args([&old, &new]).run().succeeds().stdout_text();
    let crates =
        "crates of /bin/app: 1 removed, 2 added, 1 changed\n- gone 0.1.0\n+ come 2.0.0\n+ come 3.0.0\n~ moved 1.0.0 to 1.1.0\n";
    assert!(text.contains(crates), "{text}");
    let difference = json_of(roche(folder.path()).args(["diff", "--json"]).args([&old, &new]).run(), "diff-1");
    let expected = json!([{
        "path": "/bin/app",
        "removed": [{"name": "gone", "version": "0.1.0"}],
        "added": [{"name": "come", "version": "2.0.0"}, {"name": "come", "version": "3.0.0"}],
        "changed": [{"name": "moved", "old": "1.0.0", "new": "1.1.0"}],
    }]);
    assert_eq!(difference["crates"], expected);
    let text = roche(folder.path()).arg("diff").args([&old, &old]).run().succeeds().stdout_text();
    assert!(!text.contains("crates"), "{text}");
}

#[test]
fn what_is_worth_a_look_is_found_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    let layers = [
        Tar::default()
            .folder("etc")
            .file("etc/passwd", "root:x:0:0::/:/bin/sh\n")
            .program("su", 0o4755)
            .program("wall", 0o2755)
            .entry(b'0', b"open", 0o666, b"", b"x")
            .entry(b'5', b"tmp", 0o1777, b"", b"")
            .pax(&[(b"SCHILY.xattr.security.capability", &capability)])
            .program("ping", 0o755)
            .file("app/.env", "TOKEN=first-secret")
            .file("tls.pem", "-----BEGIN PRIVATE KEY-----\n")
            .file("ca.pem", "-----BEGIN CERTIFICATE-----\n")
            .end(),
        Tar::default().file("app/.wh..env", "").end(),
    ];
    let more = json!({
        "config": {"Env": ["PATH=/bin", "DB_PASSWORD=second-secret"], "User": "me"},
        "history": [{"created_by": "|1 NPM_TOKEN=third-secret /bin/sh -c make"}, {"created_by": "rm"}],
    });
    let archive = docker_archive(&folder.path().join("a.tar"), &layers, more);
    let shown = contents(roche(folder.path()), &archive);
    let findings: Vec<(String, String, bool)> = shown["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            let what = finding["path"].as_str().or(finding["variable"].as_str()).unwrap();
            (finding["kind"].as_str().unwrap().to_owned(), what.to_owned(), finding["hidden"].as_bool().unwrap())
        })
        .collect();
    let expected = [
        ("secret", "/app/.env", true),
        ("secret", "/tls.pem", false),
        ("secretVariable", "DB_PASSWORD", false),
        ("secretArgument", "NPM_TOKEN", false),
        ("setuid", "/su", false),
        ("setgid", "/wall", false),
        ("capabilities", "/ping", false),
        ("worldWritable", "/open", false),
    ];
    assert_eq!(findings, expected.map(|(kind, what, hidden)| (kind.to_owned(), what.to_owned(), hidden)));
    let text = roche(folder.path()).args(["contents", "--all"]).arg(&archive).run().succeeds().stdout_text();
    assert!(text.contains("cap_net_bind_service=ep") && text.contains("hidden, and can still be read"), "{text}");
    let other = docker_archive(&folder.path().join("b.tar"), &layers, json!({}));
    let difference = roche(folder.path()).arg("diff").args([&archive, &other]).run().succeeds().stdout_text();
    for output in [&text, &shown.to_string(), &difference] {
        for secret in ["first-secret", "second-secret", "third-secret"] {
            assert!(!output.contains(secret), "{secret} is in\n{output}");
        }
    }
}

#[test]
fn a_secret_that_differs_is_a_difference_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let image = |file: &str, env: Value| {
        docker_archive(&folder.path().join(file), &[Tar::default().file("f", "x").end()], json!({"config": {"Env": env}}))
    };
    let old = image("old.tar", json!(["DB_PASSWORD=first-secret", "A=1"]));
    let new = image("new.tar", json!(["DB_PASSWORD=second-secret", "A=1"]));
    let diff = |flag: &str, new: &Path| roche(folder.path()).args(["diff", flag]).args([old.as_path(), new]).run();
    let text = diff("--all", &new).succeeds().stdout_text();
    assert!(text.contains("- Env.DB_PASSWORD  (hidden)\n+ Env.DB_PASSWORD  (hidden)\n"), "{text}");
    let value = json_of(diff("--json", &new), "diff-1");
    assert_eq!(value["differs"], json!(true));
    assert_eq!(value["config"], json!([{"key": "Env.DB_PASSWORD", "old": "(hidden)", "new": "(hidden)"}]));
    let ended = diff("--exit-code", &new);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.story());
    for output in [&text, &value.to_string(), &ended.stdout_text(), &ended.stderr] {
        assert!(!output.contains("-secret"), "{output}");
    }
    let same = image("same.tar", json!(["A=1", "DB_PASSWORD=first-secret"]));
    assert!(diff("--exit-code", &same).succeeds().stdout_text().contains("no difference"));
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

on_every_daemon!(an_image_of_the_store_for_another_platform_is_not_shown);
fn an_image_of_the_store_for_another_platform_is_not_shown(daemon: &Daemon) {
    let folder = tempfile::tempdir().unwrap();
    let image = image("runtime-busybox");
    let ended = Roche::new(folder.path()).on(daemon).args(["contents", "--platform", "linux/s390x", &image]).run();
    // The registry has it for no such platform either.
    assert!(matches!(ended.status.code(), Some(2 | 8)), "{}", ended.story());
    assert_eq!(ended.stdout_text(), "", "{}", ended.story());
    assert!(ended.stderr.contains("linux/s390x"), "{}", ended.story());
}

#[test]
fn differences_are_told_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let old = Tar::default()
        .file("same", "s")
        .file("edited", "old")
        .file("gone", "g")
        .program("mode", 0o755)
        .symlink("link", b"a")
        .folder("dir")
        .file("dir/x", "x");
    let new = Tar::default()
        .file("same", "s")
        .file("edited", "newer")
        .program("mode", 0o700)
        .symlink("link", b"b")
        .folder("lib")
        .file("lib/y", "yy")
        .file("dir", "file");
    let old = docker_archive(&folder.path().join("old.tar"), &[old.end()], json!({"config": {"Env": ["A=1"], "User": "me"}}));
    let new = docker_archive(&folder.path().join("new.tar"), &[new.end()], json!({"config": {"Env": ["A=2"], "Cmd": ["x"]}}));
    let diff = |flag: &[&str]| roche(folder.path()).arg("diff").args(flag).args([&old, &new]).run();
    let value = json_of(diff(&["--json"]), "diff-1");
    let paths = |key: &str| {
        value[key].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((paths("added"), paths("removed")), (vec!["/lib".into(), "/lib/y".into()], vec!["/dir/x".into(), "/gone".into()]));
    let changed: Vec<Value> =
        value["changed"].as_array().unwrap().iter().map(|file| json!([file["path"], file["what"]])).collect();
    assert_eq!(
        changed,
        [
            json!(["/dir", ["type", "mode"]]),
            json!(["/edited", ["content"]]),
            json!(["/link", ["target"]]),
            json!(["/mode", ["mode"]]),
        ]
    );
    let config: Vec<Value> = value["config"].as_array().unwrap().iter().map(|change| change["key"].clone()).collect();
    assert_eq!(config, ["Cmd", "Env.A", "User"]);
    assert_eq!((&value["sharedLayers"], &value["differs"]), (&json!(0), &json!(true)));
    let text = diff(&[]).succeeds().stdout_text();
    for line in ["~ /edited  content, 3 B to 5 B", "~ /mode  mode 0755 to 0700", "/lib/  1 file", "- Env.A  1", "+ Env.A  2"] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    let ended = diff(&["--exit-code"]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(1), ""), "{}", ended.story());
    assert_eq!(ended.stdout_text(), text);
}

#[test]
fn every_line_fits_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let long = "d/".repeat(40) + &"name".repeat(30);
    let wide = "目录/".repeat(30) + "文件";
    let layers = [
        Tar::default().file(&long, "x").file(&wide, "yy").program("su", 0o4755).symlink("link", "t".repeat(150).as_bytes()).end(),
        Tar::default().file(&long, "new").end(),
    ];
    let more = json!({
        "config": {"Env": [format!("LONG={}", "v".repeat(300))], "Labels": {"l".repeat(100): "w ".repeat(90)}, "Cmd": ["x", "y z"]},
        "history": [{"created_by": "c".repeat(300)}, {}],
    });
    docker_archive(&folder.path().join("a.tar"), &layers, more);
    docker_archive(&folder.path().join("b.tar"), &layers[..1], json!({}));
    for columns in [20, 21, 40, 59, 60, 80, 133] {
        for line in ["contents a.tar", "contents --all a.tar", "diff a.tar b.tar"] {
            let shown = on_terminal(folder.path(), columns, line);
            let odd = shown.lines().find(|line| columns_of(line) > columns);
            assert_eq!(odd, None, "{columns} columns, {line}\n{shown}");
            assert!(shown.lines().count() > 4, "{columns} columns, {line}\n{shown}");
        }
    }
}

/// Runs a line on a terminal of so many columns; returns what it showed.
fn on_terminal(folder: &Path, columns: usize, line: &str) -> String {
    let script = format!("stty cols {columns} rows 24; {} {line}", env!("CARGO_BIN_EXE_roche"));
    let output = Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("TERM", "xterm")
        .output()
        .expect("script runs");
    let text = String::from_utf8(output.stdout).expect("UTF-8").replace('\r', "");
    assert!(output.status.success(), "{line}: {text}");
    let control = text.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(control, None, "{line}: {text:?}");
    text
}

/// Counts columns: ideographs take two.
fn columns_of(line: &str) -> usize {
    line.chars().map(|c| if ('\u{2e80}'..='\u{9fff}').contains(&c) { 2 } else { 1 }).sum()
}
