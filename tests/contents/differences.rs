//! What two images do not share.

use std::path::Path;

use serde_json::{Value, json};

use super::{contents, json_of, roche};
use crate::harness::{Tar, docker_archive, list_of_crates, program};

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
