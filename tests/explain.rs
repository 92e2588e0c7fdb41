//! `roche explain` after one change each, by the embedded engine and without a compiler.
//!
//! Every row makes a project, releases it, changes one thing, releases again and asks. Toolchains, crates and certificates, which
//! are the machine's own, are rows of the same kind beside the code (`cli/src/explain/tests.rs`).
//!
//! Red when: the change is not named, or something that merely followed is; a change that no release is made of is taken for one;
//! the changed lines are others; the steps that ran again are called a cause.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Campaign, Ended, OwnRegistry, Project, Roche, busybox, layer, tools};

/// Writes the function into the program, so that another function is another program; fails where the function asks for it.
const CARGO: &str = "[ \"$1\" = build ] || exit 0
grep -rq FAIL src && exit 7
build-service
cat src/app/functions.rs >>target/release/roche-service";

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const FUNCTION: &str = "one\ntwo\nthree\nfour\nfive\nsix\n";

/// What all rows share.
struct Bench {
    registry: OwnRegistry,
    tools: Vec<u8>,
    ground: Vec<u8>,
    folder: TempDir,
}

/// A project that is released twice, and how.
struct Stage<'a> {
    bench: &'a Bench,
    number: usize,
    project: Project,
    state: PathBuf,
    cache: PathBuf,
    args: Vec<String>,
    variables: BTreeMap<&'static str, String>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { registry: OwnRegistry::start(), tools: tools(CARGO, |_| ()), ground: layer(busybox), folder }
    }

    fn stage(&self, number: usize) -> Stage<'_> {
        let project = Project::empty().file("functions.rs", FUNCTION);
        let variables = BTreeMap::from([
            ("release_build_image", self.build(number, "PATH_OF=first")),
            ("runtime_image", self.runtime(number, "GROUND=first")),
        ]);
        let (state, cache) = (self.folder.path().join(format!("state{number}")), self.folder.path().join("cache"));
        let args = ["-t", "x.invalid/shop:1"].map(str::to_owned).to_vec();
        Stage { bench: self, number, project, state, cache, args, variables }
    }

    /// Puts a build image behind a row's tag; another word is another image.
    fn build(&self, number: usize, word: &str) -> String {
        self.registry.image(&format!("build{number}"), std::slice::from_ref(&self.tools), &[PATH, word])
    }

    fn runtime(&self, number: usize, word: &str) -> String {
        self.registry.image(&format!("runtime{number}"), std::slice::from_ref(&self.ground), &[PATH, word])
    }
}

impl Stage<'_> {
    fn release(&self) -> Ended {
        let out = format!("type=oci,dest={}", self.bench.folder.path().join(format!("{}.tar", self.number)).display());
        let call = Roche::embedded(self.project.root(), &self.cache).env("XDG_STATE_HOME", &self.state);
        let call = self.variables.iter().fold(call, |call, (name, value)| call.env(name, value));
        let call = if self.args.iter().any(|arg| arg == "-o") { call } else { call.args(["-o", &out]) };
        call.args(&self.args).within(Duration::from_secs(60)).run()
    }

    fn explain(&self, args: &[&str]) -> Ended {
        Roche::new(self.project.root()).env("XDG_STATE_HOME", &self.state).arg("explain").args(args).run().succeeds()
    }

    fn write(&mut self, path: &str, text: impl AsRef<[u8]>) {
        self.project.write(path, text);
    }

    fn flags<const N: usize>(&mut self, flags: [&str; N]) {
        self.args.extend(flags.map(str::to_owned));
    }

    fn cargo(&self, name: &str) -> Roche {
        Roche::new(self.project.root()).env("XDG_CACHE_HOME", &self.cache).args(["cache", name])
    }
}

/// What is expected of a cause: its kind, what it is about, and words of its sentence.
type Expected<'a> = &'a [(&'a str, &'a str, &'a str)];

/// What is changed between two releases.
type Change<'a> = &'a dyn Fn(&mut Stage<'_>);

/// Fails unless the causes are these, in any order.
#[track_caller]
fn check(stage: &Stage<'_>, expected: Expected<'_>) -> String {
    let (json, text) = (stage.explain(&["--json"]), stage.explain(&[]).stdout_text());
    let told: Value = serde_json::from_slice(&json.stdout).unwrap();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = told["causes"].as_array().unwrap();
    let mut found: Vec<[String; 3]> =
        causes.iter().map(|cause| [word(&cause["kind"]), word(&cause["what"]), word(&cause["text"])]).collect();
    assert_eq!(found.len(), expected.len(), "causes of {expected:?}\n{}", json.story());
    for (kind, what, words) in expected {
        let at = found.iter().position(|[k, w, text]| k == kind && w.contains(what) && text.contains(words));
        let at = at.unwrap_or_else(|| panic!("no cause {kind} {what:?} that says {words:?}\n{}", json.story()));
        let [_, _, said] = found.remove(at);
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        assert!(squeezed(&text).contains(&squeezed(&said)), "{said:?} is not in the text\n{text}");
    }
    if expected.is_empty() {
        assert!(text.contains("nothing that a release is made of changed"), "{text}");
        return "nothing".to_owned();
    }
    causes.iter().map(|cause| word(&cause["text"])).collect::<Vec<_>>().join(" + ")
}

#[test]
fn one_change_each_is_named_and_nothing_else() {
    let bench = Bench::new();
    let mut campaign = Campaign::start("explain: one change each");
    let mut number = 0;
    let mut row = |name: &str, before: Change<'_>, change: Change<'_>, expected: Expected<'_>| {
        number += 1;
        let expected = expected.to_vec();
        campaign.cell(name.to_owned(), |_| {
            let mut stage = bench.stage(number);
            before(&mut stage);
            let first = stage.release();
            change(&mut stage);
            let second = stage.release();
            let may_fail = name.contains("fail") || name.contains("nobody has");
            assert!(may_fail || first.status.success() && second.status.success(), "{}\n{}", first.story(), second.story());
            check(&stage, &expected)
        });
    };
    let nothing = |_: &mut Stage<'_>| ();
    let with_lib = |stage: &mut Stage<'_>| stage.write("lib.rs", "mod a;\n");
    let file = |what: &'static str, words: &'static str| ("file", what, words);

    // Files of the function.
    let edits: [(&str, &[u8], &str); 9] = [
        ("a line", b"one\ntwo\nTHREE\nfour\nfive\nsix\n", "functions.rs changed at line 3"),
        ("three lines", b"one\ntwo\n3\n4\n5\nsix\n", "changed at lines 3-5"),
        ("two places", b"ONE\ntwo\nthree\nfour\nfive\nSIX\n", "changed at lines 1, 6"),
        ("lines more", b"one\ntwo\nand\nmore\nthree\nfour\nfive\nsix\n", "changed at lines 3-4"),
        ("a line less", b"one\ntwo\nfour\nfive\nsix\n", "lost 1 line before line 3"),
        ("ends of lines", b"one\r\ntwo\r\nthree\r\nfour\r\nfive\r\nsix\r\n", "changed at lines 1-6"),
        ("the last end of a line", b"one\ntwo\nthree\nfour\nfive\nsix", "changed at line 6"),
        ("a blank", b"one\ntwo\nthree \nfour\nfive\nsix\n", "changed at line 3"),
        ("bytes that are no text", b"one\xff\n", "functions.rs changed"),
    ];
    for (name, bytes, words) in edits {
        row(name, &nothing, &|stage| stage.write("functions.rs", bytes), &[file("functions.rs", words)]);
    }
    row("lib.rs comes", &nothing, &with_lib, &[file("lib.rs", "lib.rs came")]);
    row(
        "lib.rs goes",
        &with_lib,
        &|stage| fs::remove_file(stage.project.path("lib.rs")).unwrap(),
        &[file("lib.rs", "lib.rs went")],
    );
    row("lib.rs changes", &with_lib, &|stage| stage.write("lib.rs", "mod b;\n"), &[file("lib.rs", "changed at line 1")]);
    let both = |stage: &mut Stage<'_>| {
        stage.write("functions.rs", FUNCTION.replace("two", "TWO"));
        stage.write("lib.rs", "mod b;\n");
    };
    row("both files", &with_lib, &both, &[file("functions.rs", "at line 2"), file("lib.rs", "at line 1")]);
    let edited = |stage: &mut Stage<'_>| {
        stage.release();
        stage.write("functions.rs", FUNCTION.replace("one", "eins"));
    };
    row("an edit is taken back", &edited, &|stage| stage.write("functions.rs", FUNCTION), &[file("functions.rs", "at line 1")]);

    // What no release is made of.
    let nothings: [(&str, Change<'_>); 15] = [
        ("nothing at all", &|_| ()),
        ("the function's time", &|stage| {
            let file = File::options().write(true).open(stage.project.path("functions.rs")).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)).unwrap();
        }),
        ("the function's mode", &|stage| {
            fs::set_permissions(stage.project.path("functions.rs"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("the function is written anew", &|stage| {
            fs::remove_file(stage.project.path("functions.rs")).unwrap();
            stage.write("functions.rs", FUNCTION);
        }),
        ("the function moves to src", &|stage| {
            fs::create_dir(stage.project.path("src")).unwrap();
            fs::rename(stage.project.path("functions.rs"), stage.project.path("src/functions.rs")).unwrap();
        }),
        ("an environment file", &|stage| stage.write(".env", "TOKEN=abc\n")),
        ("another file", &|stage| stage.write("README.md", "# shop\n")),
        ("a file of another folder", &|stage| stage.write("docs/functions.rs", "other\n")),
        (".rocherc's other keys", &|stage| stage.write(".rocherc", "COLOUR=red\n")),
        ("who names the same image", &|stage| {
            let image = stage.variables.remove("runtime_image").unwrap();
            stage.flags(["-r", &image]);
        }),
        ("another variable", &|stage| drop(stage.variables.insert("CARGO_BUILD_JOBS", "7".to_owned()))),
        ("how progress is shown", &|stage| stage.flags(["--progress", "plain"])),
        ("where the image goes", &|stage| {
            let out = stage.bench.folder.path().join("elsewhere.tar");
            stage.flags(["-o", &format!("type=docker,dest={}", out.display())]);
        }),
        ("a lock of the same images", &|stage| {
            let call = Roche::new(stage.project.root()).args(["lock", "--builder", "embedded"]);
            let call = call.env("XDG_CACHE_HOME", &stage.cache);
            stage.variables.iter().fold(call, |call, (name, value)| call.env(name, value)).run().succeeds();
        }),
        ("--pull of the same images", &|stage| stage.flags(["--pull"])),
    ];
    for (name, change) in nothings {
        row(name, &nothing, change, &[]);
    }

    // Images.
    let image = |what: &'static str, words: &'static str| ("image", what, words);
    let move_build = |stage: &mut Stage<'_>| drop(stage.bench.build(stage.number, "PATH_OF=second"));
    let move_runtime = |stage: &mut Stage<'_>| drop(stage.bench.runtime(stage.number, "GROUND=second"));
    row("the build image moves", &nothing, &move_build, &[image("build image", "/build")]);
    row("the runtime image moves", &nothing, &move_runtime, &[image("runtime image", "moved from ")]);
    let move_both = |stage: &mut Stage<'_>| {
        move_build(stage);
        move_runtime(stage);
    };
    row("both images move", &nothing, &move_both, &[image("build image", "moved from "), image("runtime image", "moved from ")]);
    let other = |stage: &Stage<'_>, kind: &str| match kind {
        "build" => stage.bench.build(900, "PATH_OF=third"),
        _ => stage.bench.runtime(900, "GROUND=third"),
    };
    let by_flag = |stage: &mut Stage<'_>| {
        let image = other(stage, "build");
        stage.flags(["-b", &image]);
    };
    row("a build image by flag", &nothing, &by_flag, &[image("build image", "named by --buildimage, instead of ")]);
    let by_variable = |stage: &mut Stage<'_>| drop(stage.variables.insert("release_build_image", other(stage, "build")));
    row(
        "a build image by variable",
        &nothing,
        &by_variable,
        &[image("build image", "named by the variable release_build_image")],
    );
    let first_by_file = |stage: &mut Stage<'_>| {
        let [build, runtime] = ["release_build_image", "runtime_image"].map(|name| stage.variables.remove(name).unwrap());
        stage.write(".rocherc", format!("release_build_image={build}\nruntime_image={runtime}\n"));
    };
    let build_by_file = |stage: &mut Stage<'_>| {
        let text = fs::read_to_string(stage.project.path(".rocherc")).unwrap();
        let runtime = text.lines().last().unwrap();
        stage.write(".rocherc", format!("release_build_image={}\n{runtime}\n", other(stage, "build")));
    };
    row("a build image by .rocherc", &first_by_file, &build_by_file, &[image("build image", "named by .rocherc:1")]);
    let runtime_by_file = |stage: &mut Stage<'_>| {
        let text = fs::read_to_string(stage.project.path(".rocherc")).unwrap();
        let build = text.lines().next().unwrap();
        stage.write(".rocherc", format!("{build}\nruntime_image={}\n", other(stage, "runtime")));
    };
    row("a runtime image by .rocherc", &first_by_file, &runtime_by_file, &[image("runtime image", "named by .rocherc:2")]);
    let by_flag = |stage: &mut Stage<'_>| {
        let image = other(stage, "runtime");
        stage.flags(["-r", &image]);
    };
    row("a runtime image by flag", &nothing, &by_flag, &[image("runtime image", "named by --runtime, instead of ")]);
    let by_variable = |stage: &mut Stage<'_>| drop(stage.variables.insert("runtime_image", other(stage, "runtime")));
    row("a runtime image by variable", &nothing, &by_variable, &[image("runtime image", "named by the variable runtime_image")]);
    let scratch = |stage: &mut Stage<'_>| stage.flags(["-r", "scratch"]);
    row("no runtime image", &nothing, &scratch, &[image("runtime image", "is scratch, named by --runtime")]);
    let locked = |stage: &mut Stage<'_>| {
        lock(stage, &[]);
        move_build(stage);
    };
    row("a locked image's tag moves", &locked, &nothing, &[]);
    let update = |stage: &mut Stage<'_>| {
        move_build(stage);
        lock(stage, &["--update"]);
    };
    row("the lock is updated", &|stage| lock(stage, &[]), &update, &[image("build image", "moved from ")]);

    // Settings.
    let label = |text: &'static str| move |stage: &mut Stage<'_>| stage.flags(["--label", text]);
    row("a label comes", &nothing, &label("a=1"), &[("config", "label", "label a=1 came: a label changes the image's config")]);
    let relabel = |stage: &mut Stage<'_>| *stage.args.last_mut().unwrap() = "a=2".to_owned();
    row("a label changes", &label("a=1"), &relabel, &[("config", "label", "label a=2 instead of a=1")]);
    let unlabel = |stage: &mut Stage<'_>| stage.args.truncate(2);
    row("a label goes", &label("a=1"), &unlabel, &[("config", "label", "label a=1 went")]);
    let rename = |stage: &mut Stage<'_>| stage.args[1] = "x.invalid/shop:2".to_owned();
    row("a tag", &nothing, &rename, &[("config", "tag", "x.invalid/shop:2 instead of x.invalid/shop:1")]);
    let direct = |stage: &mut Stage<'_>| stage.flags(["--entrypoint", "direct"]);
    row("the entrypoint", &nothing, &direct, &[("setting", "entrypoint", "direct instead of script")]);
    let platform = |stage: &mut Stage<'_>| stage.flags(["--platform", "linux/amd64/v2"]);
    row("the platform", &nothing, &platform, &[("setting", "platform", "linux/amd64/v2 instead of linux/amd64")]);
    let labelled = |stage: &mut Stage<'_>| {
        stage.flags(["--label", "a=1"]);
        stage.write("functions.rs", FUNCTION.replace("six", "6"));
    };
    row("an edit and a label", &nothing, &labelled, &[file("functions.rs", "at line 6"), ("config", "label", "a=1 came")]);

    // The cache, and releases that failed.
    row("--no-cache", &nothing, &|stage| stage.flags(["--no-cache"]), &[("noCache", "cache", "--no-cache")]);
    let prune = |stage: &mut Stage<'_>| drop(stage.cargo("prune").run().succeeds());
    row("the cache is pruned", &nothing, &prune, &[("cache", "compile roche-service", "had nothing of it any more")]);
    let another_cache = |stage: &mut Stage<'_>| stage.cache = stage.bench.folder.path().join("another");
    row("another cache", &nothing, &another_cache, &[("backEnd", "back end", "a cache of its own")]);
    let broken = |stage: &mut Stage<'_>| stage.write("functions.rs", "FAIL\n");
    row("an edit that fails", &nothing, &broken, &[file("functions.rs", "changed at line 1")]);
    row("the same fails again", &broken, &nothing, &[("unfinished", "compile roche-service", "ended before")]);
    let mended = |stage: &mut Stage<'_>| stage.write("functions.rs", "mended\n");
    row("what failed is mended", &broken, &mended, &[file("functions.rs", "at line 1")]);
    let nowhere = |stage: &mut Stage<'_>| stage.flags(["-b", "127.0.0.1:1/none:1"]);
    row("an image that nobody has", &nothing, &nowhere, &[image("build image", "127.0.0.1:1/none:1, named by --buildimage")]);
    println!("{number} changes");
    campaign.finish();
    assert!(number >= 40, "{number} changes");
}

fn lock(stage: &mut Stage<'_>, more: &[&str]) {
    let call = Roche::new(stage.project.root()).args(["lock", "--builder", "embedded"]).args(more);
    let call = call.env("XDG_CACHE_HOME", &stage.cache);
    stage.variables.iter().fold(call, |call, (name, value)| call.env(name, value)).run().succeeds();
}

#[test]
fn releases_are_named_by_their_ids_and_a_first_one_has_nothing_before_it() {
    let bench = Bench::new();
    let mut stage = bench.stage(0);
    let roche = |args: &[&str]| Roche::new(stage.project.root()).env("XDG_STATE_HOME", &stage.state).args(args).run();
    roche(&["explain"]).fails(3, &["there is no record of a release", "roche release"]);
    assert!(roche(&["history", "-q"]).succeeds().stdout.is_empty());
    stage.release().succeeds();
    assert!(stage.explain(&[]).stdout_text().contains("the first release of this project"));
    for text in ["ONE\n", "TWO\n"] {
        stage.write("functions.rs", text);
        stage.release().succeeds();
    }
    let roche = |args: &[&str]| Roche::new(stage.project.root()).env("XDG_STATE_HOME", &stage.state).args(args).run();
    let listed = roche(&["history", "-q"]).succeeds().stdout_text();
    let ids: Vec<&str> = listed.lines().collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| id.len() == 8), "{listed}");
    let causes = |args: &[&str]| {
        let told: Value = serde_json::from_slice(&stage.explain(&[&["--json"], args].concat()).stdout).unwrap();
        [&told["release"]["id"], &told["against"]["id"], &told["causes"][0]["text"]]
            .map(|value| value.as_str().unwrap().to_owned())
    };
    assert_eq!(causes(&[]), [ids[0], ids[1], "functions.rs changed at line 1"]);
    assert_eq!(causes(&[ids[1]])[..2], [ids[1], ids[2]]);
    assert_eq!(causes(&[ids[2], ids[0]])[..2], [ids[0], ids[2]]);
    assert_eq!(causes(&[&ids[2][..7], ids[0]])[..2], [ids[0], ids[2]]);
    for id in ["zz", "", "../../etc/passwd", "\u{1b}[31m"] {
        roche(&["explain", id]).fails(2, &["is no release", "roche history"]);
    }
    // Another project has a history of its own.
    let elsewhere = Project::hello("x");
    let call = || Roche::new(elsewhere.root()).env("XDG_STATE_HOME", &stage.state);
    assert!(call().args(["history", "-q"]).run().succeeds().stdout.is_empty());
    assert_eq!(call().args(["history", "-q", "--all"]).run().succeeds().stdout_text().lines().count(), 3);
}
