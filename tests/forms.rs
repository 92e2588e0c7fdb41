//! The plan's forms, each held against a reader that is not ours.
//!
//! Red when: a plan is not what the published schema says, or the schema lets anything through;
//! mermaid's text changes; the Dockerfile builds other files, owners, modes or another config than
//! the release; the text does not fit its terminal; a form hides that something is unresolved; an
//! odd name gets out of its place.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Daemon, Ended, Entry, Project, Roche, Tag, against_schema, files, fixture, image, on_every_daemon, unique};

const FORMS: [&str; 7] = ["text", "json", "dot", "mermaid", "html", "llb", "dockerfile"];

/// Names that are syntax somewhere; as labels they reach the plan's config.
const HOSTILE: [&str; 6] = [
    "a=</script><script>alert(1)</script>",
    "b=\"]; end; click v0 \"javascript:alert(1)\"",
    "c=\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}",
    "d=<!-- --> ]]> &amp; &#60; \\ ' ` $HOME ${x} $(id)",
    "\"e\" $x=1",
    "f=line one\nRUN id\r\n# comment",
];

/// A plan of images that the registry has, without a daemon.
fn plan(project: &Project, form: &str, more: &[&str]) -> Roche {
    let call = Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    let call = call.build_image(&image("build")).runtime(&image("runtime-busybox"));
    call.args(["release", "-t", "x.invalid/plan:1"]).arg(format!("--dry-run={form}")).args(more)
}

/// Images that nobody has.
const NOWHERE: [&str; 4] = ["-b", "127.0.0.1:1/build:1", "-r", "127.0.0.1:1/runtime:1"];

/// A project's files by their paths.
type Files = &'static [(&'static str, &'static [u8])];

/// What breaks a document.
type Change = fn(&mut Value);

/// Examples and odd projects.
fn projects() -> Vec<(String, Project)> {
    let examples = fs::read_dir(fixture("../../examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut projects: Vec<(String, Project)> =
        examples.map(|name| name.into_string().unwrap()).map(|name| (name.clone(), Project::example(&name))).collect();
    assert!(projects.len() >= 4, "there are examples");
    let odd: [(&str, Files); 5] = [
        ("bytes that are no text", &[("functions.rs", b"\xff\xfe\0\r\n\x1b[31m</script>")]),
        ("one byte", &[("functions.rs", b"x")]),
        ("in src, with a lib.rs", &[("src/functions.rs", b"fn"), ("src/lib.rs", b"// lib")]),
        ("two functions", &[("functions.rs", b"here"), ("src/functions.rs", b"there")]),
        ("an empty lib.rs", &[("functions.rs", b"fn"), ("lib.rs", b"")]),
    ];
    for (name, files) in odd {
        let project = files.iter().fold(Project::empty(), |project, (path, bytes)| project.file(path, bytes));
        projects.push((name.to_owned(), project));
    }
    projects
}

#[test]
fn every_plan_keeps_the_published_schema() {
    let label: Vec<&str> = HOSTILE.iter().flat_map(|label| ["--label", label]).collect();
    let variants: [&[&str]; 5] = [&[], &label, &["-r", "scratch"], &NOWHERE, &["--no-cache", "--entrypoint", "direct"]];
    let mut count = 0;
    for (name, project) in projects() {
        for more in variants {
            let ended = plan(&project, "json", more).run().succeeds();
            assert_eq!(against_schema("plan-1", &ended.stdout), "", "{name} {more:?}\n{}", ended.story());
            count += 1;
        }
    }
    assert_eq!(count, 45, "examples and odd projects, five ways each");
}

#[test]
fn the_schema_refuses_what_is_no_plan() {
    let good = plan(&Project::hello("hello"), "json", &[]).run().succeeds().stdout;
    let good: Value = serde_json::from_slice(&good).unwrap();
    let broken: [(&str, Change); 9] = [
        ("another version", |plan| plan["schemaVersion"] = 2.into()),
        ("a digest that is none", |plan| plan["vertices"][0]["digest"] = "sha256:1".into()),
        ("a vertex without a digest", |plan| drop(plan["vertices"][1].as_object_mut().unwrap().remove("digest"))),
        ("an unknown kind", |plan| plan["vertices"][0]["kind"] = "later".into()),
        ("an exec without a command", |plan| drop(plan["vertices"][3].as_object_mut().unwrap().remove("args"))),
        ("a mode that is a number", |plan| plan["contents"][4]["mode"] = 420.into()),
        ("no definition", |plan| drop(plan.as_object_mut().unwrap().remove("definition"))),
        ("an outcome that is none", |plan| plan["vertices"][0]["outcome"] = serde_json::json!({"state": "maybe"})),
        ("no contents", |plan| drop(plan.as_object_mut().unwrap().remove("contents"))),
    ];
    for (name, change) in broken {
        let mut plan = good.clone();
        change(&mut plan);
        assert_ne!(against_schema("plan-1", plan.to_string().as_bytes()), "", "{name} is let through");
    }
    let mut later = good;
    later["later"] = 1.into();
    later["vertices"][0]["later"] = 1.into();
    later["vertices"][0]["outcome"] = serde_json::json!({"state": "ran", "durationMs": 5, "later": 1});
    assert_eq!(against_schema("plan-1", later.to_string().as_bytes()), "", "keys that are not known yet are refused");
}

#[test]
fn mermaid_is_written_as_it_was_looked_at() {
    let ended = plan(&Project::hello("hello"), "mermaid", &NOWHERE).run().succeeds();
    let golden = fs::read_to_string(fixture("plan.mmd")).unwrap();
    assert_eq!(without_digests(&ended.stdout_text()), golden, "draw it (docs/plan.md says how) before fixtures/plan.mmd changes");
}

/// Puts `DIGEST` for the digests, which change with the steps, and cuts the reasons of the machine.
fn without_digests(text: &str) -> String {
    let hex = |word: &str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let line = |line: &str| match line.split_once("<br/>") {
        Some((start, rest)) if hex(&rest[..12]) => format!("{start}<br/>DIGEST{}\n", &rest[12..]),
        _ if line.starts_with("%%") => format!("{}\n", &line[..line.len().min(50)]),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn what_is_unresolved_is_said_first() {
    let project = Project::hello("hello");
    for form in FORMS {
        let call = plan(&project, form, &NOWHERE).run();
        if form == "llb" {
            call.fails(8, &["127.0.0.1:1/build:1 is not resolved"]);
            continue;
        }
        let ended = call.succeeds();
        let text = ended.stdout_text();
        let (first, below) = text.split_once('\n').unwrap();
        let said = if form == "json" { below.lines().nth(1).unwrap() } else { first };
        assert!(said.contains("resolved"), "{form}\n{}", ended.story());
        // The base images' digests are not known; files' own are.
        assert!(!text.contains("@sha256:"), "{form}\n{}", ended.story());
    }
}

on_every_daemon!(the_dockerfile_builds_the_same_image);
fn the_dockerfile_builds_the_same_image(daemon: &Daemon) {
    let hello = || Project::hello(&unique());
    let labels: &[&str] = &["--label", HOSTILE[3], "--label", "g=a \"b\" 'c' #d"];
    let tested = Project::example("tested");
    compare(daemon, &hello(), &["-r", &image("runtime-busybox")], labels, "/");
    compare(daemon, &hello(), &["-r", &image("runtime-debian")], &[], "/app");
    compare(daemon, &tested, &["-r", "scratch"], &[], "/");
}

/// Builds a project both ways, and compares all files from `root` on, and the config.
#[track_caller]
fn compare(daemon: &Daemon, project: &Project, images: &[&str], more: &[&str], root: &str) {
    let (released, docker) = (daemon.tag(), dockerfile(daemon, project, images, more));
    Roche::release(daemon, project.root()).args(images).args(more).tag(&released).run().succeeds();
    fs::write(project.path("Dockerfile"), &docker.stdout).unwrap();
    let built = daemon.build(project.root(), &[]);
    let (ours, theirs) = (files(daemon, &released.name, root), files(daemon, &built.name, root));
    let paths = |files: &BTreeMap<String, Entry>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&ours), paths(&theirs), "the paths\n{}", docker.story());
    for (path, entry) in &ours {
        let other = &theirs[path];
        let kept = (entry.mode, &entry.owner, &entry.group) == (other.mode, &other.owner, &other.group);
        assert!(
            kept,
            "{path}: {:o} {}:{} and {:o} {}:{}",
            entry.mode, entry.owner, entry.group, other.mode, other.owner, other.group
        );
        assert!(entry.content == other.content, "the content of {path}");
    }
    assert!(ours.contains_key("/app/roche-service"), "{root} has the service");
    let config = |image: &Tag| daemon.inspect(&image.name)["Config"].clone();
    let (ours, theirs) = (config(&released), config(&built));
    for field in ["User", "WorkingDir", "Env", "ExposedPorts", "Cmd", "Entrypoint", "Labels", "Volumes", "Healthcheck"] {
        assert_eq!(sorted(&ours[field]), sorted(&theirs[field]), "the config's {field}\n{}", docker.story());
    }
}

fn dockerfile(daemon: &Daemon, project: &Project, images: &[&str], more: &[&str]) -> Ended {
    let call = Roche::release(daemon, project.root()).args(["-t", "x.invalid/plan:1", "--dry-run=dockerfile"]);
    call.args(images).args(more).run().succeeds()
}

/// A field without the difference between empty and absent, and variables in any order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(list) if list.is_empty() => Value::Null,
        Value::Object(map) if map.is_empty() => Value::Null,
        Value::Array(list) if list.iter().any(|one| one.as_str().is_some_and(|text| text.starts_with("PATH="))) => {
            let mut list = list.clone();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        value => value.clone(),
    }
}

#[test]
fn a_dockerfile_that_would_lie_is_refused() {
    let project = Project::hello("hello");
    for label in [HOSTILE[2], HOSTILE[5]] {
        plan(&project, "dockerfile", &["--label", label]).run().fails(2, &["a Dockerfile cannot say", "hint: "]);
    }
    let host = plan(&project, "dockerfile", &["--builder", "embedded", "-b", "host", "-r", "scratch"]);
    host.run().fails(2, &["takes its toolchain from an image", "-b IMAGE"]);
}

#[test]
fn text_fits_its_terminal() {
    let project = Project::hello("hello").file("lib.rs", "");
    for columns in [20, 40, 80, 132] {
        for more in [&[][..], &NOWHERE] {
            let text = on_a_terminal(&project, columns, more);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{widest} of {columns} columns\n{text}");
            let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            for words in ["functions.rs", "lib.rs", "/app/roche-service", "rocheuser", "x.invalid/plan:1", "linux/"] {
                assert!(squeezed.contains(words), "{words} in {columns} columns\n{text}");
            }
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}

/// The plan's text on a terminal of some columns.
fn on_a_terminal(project: &Project, columns: usize, more: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let line = format!(
        "stty cols {columns} rows 24; {} release -t x.invalid/plan:1 --dry-run {} 2>/dev/null",
        env!("CARGO_BIN_EXE_roche"),
        more.join(" ")
    );
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(project.root()).env_clear().stdin(Stdio::null());
    script.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.path()).env("SHELL", "/bin/sh");
    script.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    script.env("release_build_image", image("build")).env("runtime_image", image("runtime-busybox"));
    let output = script.output().expect("script runs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text.replace('\r', "")
}
