//! What releases leave behind: records, and the trace of `--trace`.
//!
//! Red when: a release leaves no record, also one that failed or was interrupted; a record is not what the published schema says,
//! or holds a secret; a record that is broken, odd, hostile or of a later version ends a command, hangs it, takes its memory or
//! reaches the terminal; a release fails for want of a record; a line is wider than its terminal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ended, OwnRegistry, Project, Roche, against_schema, busybox, layer, tools, unique};

const CARGO: &str = "[ \"$1\" = build ] || exit 0
grep -rq FAIL src && { echo it fails; exit 7; }
grep -rq SLEEP src && { echo asleep; sleep 600; }
build-service";

/// A daemon that nobody is.
const DEAD: &str = "unix:///nonexistent/docker.sock";

/// A project whose releases are remembered in a folder of its own.
struct Place {
    _registry: OwnRegistry,
    images: [String; 2],
    project: Project,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let registry = OwnRegistry::start();
        let path = ["PATH=/usr/local/bin:/usr/bin:/bin"];
        let images =
            [registry.image("build", &[tools(CARGO, |_| ())], &path), registry.image("runtime", &[layer(busybox)], &path)];
        let (project, folder) = (Project::hello("hello"), tempfile::tempdir().unwrap());
        Self { _registry: registry, images, project, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn roche(&self) -> Roche {
        Roche::new(self.project.root()).env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"))
    }

    fn release(&self) -> Roche {
        let call = self.roche().build_image(&self.images[0]).runtime(&self.images[1]).within(Duration::from_secs(60));
        let call = call.args(["release", "--builder", "embedded", "-t", "x.invalid/shop:1", "-o"]);
        call.arg(format!("type=oci,dest={}", self.path("image.tar").display()))
    }

    /// A release that fails at once, for want of a daemon.
    fn failing(&self) -> Roche {
        self.roche().env("DOCKER_HOST", DEAD).build_image(&self.images[0]).args(["release", "-t", "x.invalid/shop:1"])
    }

    fn records(&self) -> PathBuf {
        self.path("state/roche/releases")
    }

    /// The records' files, the oldest first.
    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.records()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    fn last(&self) -> Value {
        serde_json::from_slice(&fs::read(self.files().last().unwrap()).unwrap()).unwrap()
    }

    /// What of the last record a test asks for: each vertex's name and state.
    fn states(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let vertices = self.last()["vertices"].as_array().unwrap().clone();
        vertices.iter().map(|vertex| (text(&vertex["name"]), text(&vertex["outcome"]["state"]))).collect()
    }
}

#[test]
fn every_release_leaves_a_record_that_keeps_the_published_schema() {
    let place = Place::new();
    let made = place.release().args(["--label", "a=\u{1b}[31m"]).run().succeeds();
    let record = place.last();
    let release = &record["release"];
    let digest = release["result"]["digest"].as_str().unwrap();
    assert!(made.stderr.contains(digest), "{}\n{release:#}", made.story());
    assert!(place.states().iter().all(|(_, state)| state == "ran"), "{:?}", place.states());
    let named = |name: &str| {
        let settings = release["settings"].as_array().unwrap();
        settings.iter().find(|setting| setting["name"] == name).unwrap_or_else(|| panic!("no {name}: {release:#}")).clone()
    };
    assert_eq!(
        (&named("build image")["from"], &named("build image")["by"]),
        (&"environment".into(), &"release_build_image".into())
    );
    assert_eq!((&named("tag")["by"], &named("platform")["from"]), (&"--tag".into(), &"default".into()));
    assert_eq!(release["backEnd"]["embedded"], true);
    assert_eq!(record["function"][0]["text"], Project::function("hello"));

    place.release().run().succeeds();
    assert!(place.states().iter().all(|(_, state)| state == "cached"), "{:?}", place.states());

    place.project.write("functions.rs", "FAIL\n");
    let failed = place.release().run();
    assert_eq!(failed.status.code(), Some(1), "{}", failed.story());
    let state = |name: &str| place.states().into_iter().find(|(vertex, _)| vertex.starts_with(name)).unwrap().1;
    assert_eq!(
        (state("compile"), state("image files"), state("build image")),
        ("failed".into(), "cancelled".into(), "cached".into())
    );
    let error = &place.last()["release"]["error"];
    assert_eq!(
        (error["exitCode"].as_u64(), error["message"].as_str()),
        (Some(1), Some("step \"compile roche-service\" failed with exit status 7"))
    );

    place.project.write("functions.rs", "SLEEP\n");
    let running = place.release().args(["--progress", "plain"]).start();
    while !running.said().contains("asleep") {
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal("INT");
    running.ends_within(Duration::from_secs(10)).fails(130, &["cancelled"]);
    assert_eq!(
        (place.last()["release"]["error"]["message"].as_str(), state("compile")),
        (Some("interrupted"), "cancelled".into())
    );

    place.failing().run().fails(5, &[DEAD]);
    assert_eq!((&place.last()["release"]["error"]["exitCode"], &place.last()["resolved"]), (&5.into(), &false.into()));
    place.release().args(["-b", "127.0.0.1:1/none:1"]).run();
    assert_eq!(place.last()["unresolved"][0]["image"], "127.0.0.1:1/none:1");

    // What is typed wrong, planned or asked for is no release.
    let before = place.files().len();
    place.release().args(["--entrypoint", "maybe"]).run().fails(2, &["--entrypoint"]);
    place.roche().build_image(&place.images[0]).args(["release", "--dry-run", "-t", "x:1", "--builder", "embedded"]).run();
    place.roche().arg("history").run().succeeds();
    assert_eq!((before, place.files().len()), (6, 6));
    for file in place.files() {
        let bytes = fs::read(&file).unwrap();
        assert_eq!(against_schema("plan-1", &bytes), "", "{}", file.display());
        assert!(bytes.iter().all(|byte| !byte.is_ascii_control() || *byte == b'\n'), "{}", file.display());
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
    }
    assert_eq!(place.records().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    let mut broken = record.clone();
    broken["release"].as_object_mut().unwrap().remove("settings");
    assert_ne!(against_schema("plan-1", broken.to_string().as_bytes()), "", "a release without settings is let through");
}

#[test]
fn no_secret_of_the_folder_or_the_environment_is_in_a_record() {
    let place = Place::new();
    let (secret, text) = (format!("secret{}", unique()), format!("function{}", unique()));
    place.project.write("functions.rs", Project::function(&text));
    for file in [".env", ".env.local", "prod.env", "id_rsa", "credentials.json", "src/.env", "notes.txt"] {
        place.project.write(file, format!("TOKEN={secret}\n"));
    }
    place.project.write(".rocherc", format!("SECRET_KEY={secret}\n"));
    let with = |call: Roche| {
        let call = call.env("DOCKER_CONFIG", format!("/nonexistent/{secret}")).env("AWS_SECRET_ACCESS_KEY", &secret);
        call.env("CARGO_HOME", format!("/nonexistent/{secret}"))
    };
    with(place.release()).arg("--trace").arg(place.path("trace.json")).run().succeeds();
    with(place.failing()).run().fails(5, &[]);
    let holds = |file: &Path, text: &str| String::from_utf8_lossy(&fs::read(file).unwrap()).contains(text);
    assert!(
        place.files().len() == 2 && place.files().iter().all(|file| holds(file, &text)),
        "the search does not find the function"
    );
    let files = place.files().into_iter().chain([place.path("trace.json")]);
    for file in files {
        assert!(!holds(&file, &secret), "{}", file.display());
        let folder = place.project.root().parent().unwrap().to_str().unwrap().to_owned();
        assert!(!holds(&file, &folder), "the folder's path is in {}", file.display());
    }
}

#[test]
fn of_64_releases_at_once_none_is_lost() {
    let place = Place::new();
    let running: Vec<_> = (0..64).map(|_| place.failing().start()).collect();
    for running in running {
        running.ends_within(Duration::from_secs(60)).fails(5, &[DEAD]);
    }
    assert_eq!(place.files().len(), 64);
    let listed = place.roche().args(["history", "-q"]).run().succeeds().stdout_text();
    let ids: std::collections::BTreeSet<&str> = listed.lines().collect();
    assert_eq!(ids.len(), 64, "{listed}");
}

/// Puts an odd thing in the place of a record.
type Odd = fn(&Path, &[u8]);

#[test]
fn what_is_no_record_is_passed_over_with_its_name() {
    let odd: [(&str, &str, Odd); 14] = [
        ("cut off", "no record", |path, good| fs::write(path, &good[..good.len() / 2]).unwrap()),
        ("empty", "no record", |path, _| fs::write(path, "").unwrap()),
        ("bytes", "no record", |path, _| fs::write(path, [0xff, 0xfe, 0, 0x1b]).unwrap()),
        ("deep", "no record", |path, _| {
            fs::write(path, format!("{{\"schemaVersion\": 1, \"a\": {}", "[".repeat(1 << 20))).unwrap()
        }),
        ("a later version", "version 2", |path, good| change(path, good, |record| record["schemaVersion"] = 2.into())),
        ("a huge version", "no record", |path, good| change(path, good, |record| record["schemaVersion"] = 1e300.into())),
        ("a plan", "no record", |path, good| {
            change(path, good, |record| drop(record.as_object_mut().unwrap().remove("release")))
        }),
        ("another kind", "no record", |path, good| change(path, good, |record| record["vertices"] = "none".into())),
        ("large", "more than", |path, _| fs::write(path, vec![b' '; 9 << 20]).unwrap()),
        ("1 GB", "more than", |path, _| File::create(path).unwrap().set_len(1 << 30).unwrap()),
        ("a FIFO", "not a regular file", |path, _| {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }),
        ("a folder", "not a regular file", |path, _| fs::create_dir(path).unwrap()),
        ("a link", "not a regular file", |path, _| symlink("/dev/zero", path).unwrap()),
        ("a link to nothing", "not a regular file", |path, _| symlink("/nonexistent", path).unwrap()),
    ];
    let place = Place::new();
    place.failing().run().fails(5, &[DEAD]);
    let good_path = place.files().remove(0);
    let good = fs::read(&good_path).unwrap();
    let good_name = good_path.file_name().unwrap().to_str().unwrap().to_owned();
    for (what, says, put) in odd {
        // Newer than the good one, of the same project.
        let name = format!("9999{}", &good_name[4..]);
        let path = place.records().join(&name);
        put(&path, &good);
        for command in [&["history"][..], &["explain"], &["history", "--json"], &["explain", "--json"]] {
            let ended = place.roche().args(command).within(Duration::from_secs(20)).run().succeeds();
            let told = ended.stderr.contains(&name) && ended.stderr.contains(says);
            assert!(told && !ended.stderr.contains('\u{1b}'), "{what}\n{}", ended.story());
            assert!(!ended.stdout.is_empty(), "{what}: the good record is not told\n{}", ended.story());
            assert!(ended.peak_memory_bytes < 256 << 20, "{what}: {} bytes", ended.peak_memory_bytes);
        }
        // A release goes on, and leaves its own.
        place.failing().run().fails(5, &[DEAD]);
        let newest = place.files().into_iter().rev().find(|file| *file != path && *file != good_path).unwrap();
        fs::remove_file(newest).unwrap();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
}

fn change(path: &Path, good: &[u8], change: impl FnOnce(&mut Value)) {
    let mut record: Value = serde_json::from_slice(good).unwrap();
    change(&mut record);
    fs::write(path, record.to_string()).unwrap();
}

/// Puts something that a terminal obeys into every text of a value.
fn hostile(value: &mut Value) {
    match value {
        Value::String(text) if !text.starts_with("sha256:") => text.push_str("\u{1b}]0;title\u{7}\u{1b}[2J\u{202e}\u{9b}31m\n\r"),
        Value::Array(list) => list.iter_mut().for_each(hostile),
        // Another kind of vertex is no record, and would hide the rest.
        Value::Object(map) => {
            map.iter_mut().filter(|(key, _)| !["kind", "action"].contains(&key.as_str())).for_each(|(_, value)| hostile(value))
        }
        _ => {}
    }
}

#[test]
fn hostile_records_do_not_reach_the_terminal_and_end_in_time() {
    let place = Place::new();
    place.release().run().succeeds();
    place.project.write("functions.rs", Project::function("other"));
    place.release().args(["--label", "a=1"]).run().succeeds();
    for file in place.files() {
        let good = fs::read(&file).unwrap();
        change(&file, &good, |record| {
            hostile(record);
            record["release"]["id"] = "deadbeef".into();
        });
    }
    for command in ["history", "explain", "history --json", "history --all", "explain --json"] {
        let ended = place.roche().args(command.split(' ')).run().succeeds();
        let obeyed = |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{200b}');
        assert!(!ended.stdout_text().chars().any(obeyed) && !ended.stderr.chars().any(obeyed), "{}", ended.story());
        assert!(ended.stdout_text().contains("deadbeef"), "{}", ended.story());
    }
    // As large as a record may be, and all of it edges or files.
    let last = place.files().pop().unwrap();
    let good = fs::read(&last).unwrap();
    let edge = serde_json::json!({"vertex": 0, "output": 0});
    for (what, grown) in [("inputs", 200_000), ("function", 40_000), ("settings", 60_000), ("names", 300_000)] {
        change(&last, &good, |record| match what {
            "inputs" => record["vertices"][3]["inputs"] = Value::Array(vec![edge.clone(); grown]),
            "function" => {
                let one = record["function"][0].clone();
                record["function"] = (0..grown)
                    .map(|i| {
                        let mut one = one.clone();
                        one["path"] = format!("{i}").into();
                        one["text"] = Value::Null;
                        one
                    })
                    .collect();
            }
            "settings" => {
                let many = (0..grown).map(|i| serde_json::json!({"name": "label", "value": format!("{i}=1"), "from": "flag"}));
                record["release"]["settings"].as_array_mut().unwrap().extend(many);
            }
            _ => record["image"]["names"] = (0..grown).map(|i| Value::from(format!("a{i}"))).collect(),
        });
        for command in ["history", "explain"] {
            // An explanation may be refused; it may not hang.
            let ended = place.roche().arg(command).within(Duration::from_secs(30)).run();
            assert!(matches!(ended.status.code(), Some(0 | 4)), "{what}\n{}", ended.story());
            assert!(ended.peak_memory_bytes < 512 << 20, "{what}: {} bytes", ended.peak_memory_bytes);
        }
    }
}

#[test]
fn a_place_that_takes_no_records_fails_no_release() {
    let place = Place::new();
    let note = "no record of this release is kept";
    fs::write(place.path("file"), "").unwrap();
    let bad = |state: &str| place.release().env("XDG_STATE_HOME", state).env("HOME", "").run().succeeds();
    for state in [place.path("file").to_str().unwrap(), "/proc/self/fd", "", "relative"] {
        let ended = bad(state);
        assert_eq!(ended.lines(note).len(), 1, "{state:?}\n{}", ended.story());
    }
    let quiet = place.release().env("XDG_STATE_HOME", "").env("HOME", "").arg("-q").run().succeeds();
    assert!(!quiet.stderr.contains(note), "{}", quiet.story());
    let failing = |command: &str| place.roche().env("XDG_STATE_HOME", "").env("HOME", "").arg(command).run();
    failing("history").fails(4, &["XDG_STATE_HOME"]);
    failing("explain").fails(4, &["XDG_STATE_HOME"]);
    assert!(!place.project.path("relative").exists());
}

#[test]
fn lines_fit_their_terminal() {
    let place = Place::new();
    place.release().run().succeeds();
    place.project.write("functions.rs", Project::function("other"));
    place.release().args(["--label", "a-rather-long-key=with a rather long value, too"]).run().succeeds();
    place.failing().run().fails(5, &[DEAD]);
    let ids = place.roche().args(["history", "-q"]).run().succeeds().stdout_text();
    let ids: Vec<&str> = ids.lines().collect();
    for columns in [20, 40, 80, 132] {
        for command in ["history", "history --all", "explain", &format!("explain {} {}", ids[2], ids[1])] {
            let text = on_a_terminal(&place, columns, command);
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{command}: {widest} of {columns} columns\n{text}");
            assert!(text.contains(&ids[0][..8]) || text.contains(&ids[1][..8]), "{text}");
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
    for command in ["history", "explain", "history --json"] {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut call = Command::new(env!("CARGO_BIN_EXE_roche"));
        call.env_clear().env("HOME", place.folder.path()).env("XDG_STATE_HOME", place.path("state"));
        call.current_dir(place.project.root()).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
        let output = call.args(command.split(' ')).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked") && output.status.code() != Some(0), "{command}: {:?} {stderr}", output.status);
    }
}

fn on_a_terminal(place: &Place, columns: usize, command: &str) -> String {
    let line = format!("stty cols {columns} rows 24; {} {command} 2>/dev/null", env!("CARGO_BIN_EXE_roche"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(place.project.root()).env_clear().stdin(Stdio::null());
    script.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", place.folder.path()).env("SHELL", "/bin/sh");
    script.env("XDG_STATE_HOME", place.path("state"));
    let output = script.output().expect("script runs");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text.replace('\r', "")
}

#[test]
fn a_trace_says_when_each_step_ran() {
    let place = Place::new();
    let file = place.path("trace.json");
    let traced = |more: &[&str]| -> (Ended, Value) {
        let _ = fs::remove_file(&file);
        let ended = place.release().arg("--trace").arg(&file).args(more).run();
        let trace = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        (ended, trace)
    };
    let (ended, trace) = traced(&[]);
    ended.succeeds();
    let ran = check_trace(&trace);
    for (name, _) in place.states() {
        assert!(ran.iter().any(|(event, state)| *event == name && state == "ran"), "{name} is not in {ran:?}");
    }
    let (ended, trace) = traced(&[]);
    ended.succeeds();
    assert!(check_trace(&trace).iter().any(|(name, state)| name == "compile roche-service (cached)" && state == "cached"));
    place.project.write("functions.rs", "FAIL\n");
    let (ended, trace) = traced(&[]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.story());
    assert!(check_trace(&trace).contains(&("compile roche-service".to_owned(), "failed".to_owned())), "{trace:#}");

    place.release().args(["--trace", "gone/trace.json"]).run().fails(2, &["gone/trace.json"]);
    place.release().args(["--trace", "functions.rs"]).run().fails(2, &["would be overwritten"]);
    place.roche().args(["release", "-t", "x:1", "--dry-run", "--trace", "x"]).run().fails(2, &["--trace does not go"]);
}

/// Checks a file against the trace event format's JSON object form, and that nothing overlaps in a lane; returns what ran.
fn check_trace(trace: &Value) -> Vec<(String, String)> {
    let events = trace["traceEvents"].as_array().expect("an object with traceEvents");
    let mut lanes: std::collections::BTreeMap<u64, Vec<(u64, u64)>> = std::collections::BTreeMap::new();
    let mut named = std::collections::BTreeSet::new();
    let mut ran = Vec::new();
    for event in events {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key} of {event}"));
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {event}")).to_owned();
        assert_eq!(number("pid"), 1);
        match event["ph"].as_str() {
            Some("M") => {
                assert!(["process_name", "thread_name"].contains(&event["name"].as_str().unwrap()), "{event}");
                text(&event["args"]["name"]);
                named.insert(number("tid"));
            }
            Some("X") => {
                lanes.entry(number("tid")).or_default().push((number("ts"), number("ts") + number("dur")));
                ran.push((text(&event["name"]), text(&event["cat"])));
            }
            _ => panic!("an event of another kind: {event}"),
        }
    }
    for (lane, mut spans) in lanes {
        assert!(named.contains(&lane), "lane {lane} has no name");
        spans.sort_unstable();
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "lane {lane} overlaps: {spans:?}");
    }
    ran
}
