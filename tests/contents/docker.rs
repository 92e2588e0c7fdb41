//! What docker says of the same image.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{Files, contents, files, json_of, roche};
use crate::harness::{Daemon, Project, Roche, image, on_every_daemon};

const RUNTIMES: [&str; 4] = ["runtime-debian", "runtime-busybox", "runtime-musl", "runtime-distroless"];

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
    let line = [saved.as_os_str(), image.as_ref()];
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
