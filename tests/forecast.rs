//! The forecast of a release against what then came of it, and `--require-cached`.
//!
//! Thirty releases in a row on each back end: edits, flags, other images, reverts, prunes in between.
//! Before each, the plan says of every step what will become of it; after it, the record says what did.
//!
//! Red when: the embedded engine foretells a single step wrongly, or leaves one open; a daemon's step is
//! called cached, or fewer than nine of ten that were cached had been called likely; a dry run writes into
//! the cache; `--require-cached` lets a step run, exports anything, or refuses what is cached.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{
    Daemon, Ended, Project, Roche, Site, Stand, Tag, Trace, all_in, busybox, image, layer, on_every_daemon, unique, with_cargo,
};

/// A cargo that compiles whatever the function says to the same service.
const CARGO: &str = "[ \"$1\" = build ] || exit 0\nexec build-service";

/// The same with a service that depends on the function's text.
const CARGO_OF_TEXT: &str = "[ \"$1\" = build ] || exit 0
build-service
cd /app-build
cat src/functions.rs src/app/functions.rs 2>/dev/null | grep -v '^//' >>target/release/roche-service";

/// What changes before a release.
#[derive(Clone, Copy)]
enum Change {
    Nothing,
    /// A file of the project gets this content.
    Write(&'static str, &'static str),
    Remove(&'static str),
    /// A file is written as it was.
    Touch(&'static str),
    /// Everything that no release uses goes from the cache.
    Prune,
    /// About half of it goes.
    PruneHalf,
}

/// One of thirty releases: what changes before it, its flags beside those of all, and whether its runtime
/// image is the other one.
struct Step {
    name: &'static str,
    change: Change,
    flags: &'static [&'static str],
    other_runtime: bool,
}

const FIRST: &str = "pub fn handler() { first }\n";
const SECOND: &str = "pub fn handler() { second }\n";
const THIRD: &str = "pub fn handler() { third }\n";

fn steps() -> Vec<Step> {
    use Change::{Nothing, Prune, PruneHalf, Remove, Touch, Write};
    let step = |name, change| Step { name, change, flags: &[], other_runtime: false };
    let with = |name, flags| Step { name, change: Nothing, flags, other_runtime: false };
    vec![
        step("first release", Write("functions.rs", FIRST)),
        step("again", Nothing),
        step("functions.rs edited", Write("functions.rs", SECOND)),
        step("again", Nothing),
        with("a label", &["--label", "a=b"]),
        with("another entrypoint", &["--entrypoint", "direct"]),
        step("lib.rs comes", Write("lib.rs", "pub mod functions;\n")),
        step("lib.rs edited", Write("lib.rs", "pub mod functions; // more\n")),
        step("lib.rs goes", Remove("lib.rs")),
        step("functions.rs as at first", Write("functions.rs", FIRST)),
        Step { other_runtime: true, ..step("another runtime image", Nothing) },
        Step { other_runtime: true, ..step("again on it", Nothing) },
        step("the first runtime image", Nothing),
        with("--no-cache", &["--no-cache"]),
        step("again", Nothing),
        step("everything pruned", Prune),
        step("again", Nothing),
        step("a comment edited", Write("functions.rs", "// a comment\npub fn handler() { first }\n")),
        step("another comment", Write("functions.rs", "// another\npub fn handler() { first }\n")),
        step("touched", Touch("functions.rs")),
        step("an environment file comes", Write(".env", "SECRET=1\n")),
        step("half pruned", PruneHalf),
        step("again", Nothing),
        step("a third text", Write("functions.rs", THIRD)),
        step("the second text", Write("functions.rs", SECOND)),
        step("half pruned, the third text", PruneHalf),
        Step { other_runtime: true, ..step("the other runtime image", Write("functions.rs", THIRD)) },
        with("--no-cache and a label", &["--no-cache", "--label", "c=d"]),
        step("everything pruned, edited", Prune),
        step("again, at last", Nothing),
    ]
}

/// Where releases run.
trait Place {
    fn project(&self) -> PathBuf;
    /// A call of the program with all that releases here have in common.
    fn release(&self, other_runtime: bool) -> Roche;
    /// What the release's outputs are named by.
    fn outputs(&self) -> Vec<String>;
    fn prune(&self, half: bool);
    /// The folder of records.
    fn records(&self) -> PathBuf;
}

/// Forecast and fact of one release, by the vertices' names.
struct Compared {
    name: &'static str,
    /// Forecast and outcome, and the name.
    steps: Vec<(String, String, String)>,
}

impl Compared {
    fn count(&self, forecast: &str, outcome: &str) -> usize {
        self.steps
            .iter()
            .filter(|(f, o, _)| (forecast.is_empty() || f == forecast) && (outcome.is_empty() || o == outcome))
            .count()
    }
}

/// Applies a change to a project.
fn change(place: &dyn Place, change: Change) {
    let path = |name: &str| place.project().join(name);
    match change {
        Change::Nothing => {}
        Change::Write(name, text) => fs::write(path(name), text).unwrap(),
        Change::Remove(name) => fs::remove_file(path(name)).unwrap(),
        Change::Touch(name) => fs::write(path(name), fs::read(path(name)).unwrap()).unwrap(),
        Change::Prune => place.prune(false),
        Change::PruneHalf => place.prune(true),
    }
}

/// Foretells, releases and compares, thirty times.
fn run(place: &dyn Place, check: impl Fn(&Ended, &Value)) -> Vec<Compared> {
    let mut compared = Vec::new();
    for step in steps() {
        change(place, step.change);
        let plan = place.release(step.other_runtime).args(step.flags).arg("--dry-run=json").run().succeeds();
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        let release = place.release(step.other_runtime).args(step.flags).args(place.outputs());
        let ended = release.args(["--progress", "rawjson"]).run().succeeds();
        let record = newest(&place.records());
        check(&ended, &record);
        let told = |document: &Value, key: &str| -> BTreeMap<String, (String, String)> {
            let vertices = document["vertices"].as_array().unwrap().iter();
            let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
            vertices.map(|vertex| (text(&vertex["digest"]), (text(&vertex[key]["state"]), text(&vertex["name"])))).collect()
        };
        let (forecast, fact) = (told(&plan, "forecast"), told(&record, "outcome"));
        assert_eq!(forecast.keys().collect::<Vec<_>>(), fact.keys().collect::<Vec<_>>(), "{}: other vertices", step.name);
        let steps = forecast.into_iter().map(|(digest, (state, name))| (state, fact[&digest].0.clone(), name)).collect();
        compared.push(Compared { name: step.name, steps });
    }
    assert_eq!(compared.len(), 30);
    compared
}

/// The newest record in a folder; their names start with the time.
fn newest(folder: &Path) -> Value {
    let mut files = all_in(folder);
    files.sort();
    let path = files.into_iter().rfind(|path| path.extension().is_some_and(|ext| ext == "json")).expect("a record is kept");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Prints the table; `wrong` says which pairs of forecast and outcome are errors.
fn table(back_end: &str, compared: &[Compared], wrong: impl Fn(&str, &str) -> bool) -> usize {
    let mut out = format!(
        "\nforecast against fact: {back_end}\n{:>3}  {:<28} {:>6} {:>4} {:>9}   forecast\n",
        "", "release", "cached", "ran", "unchanged"
    );
    let mut errors = 0;
    for (number, row) in (1..).zip(compared) {
        let bad: Vec<String> =
            row.steps.iter().filter(|(f, o, _)| wrong(f, o)).map(|(f, o, name)| format!("{name}: {f}, {o}")).collect();
        errors += bad.len();
        let states: Vec<String> = ["cached", "likely", "run", "unknown"]
            .iter()
            .filter_map(|state| Some((row.count(state, ""), state)).filter(|(count, _)| *count > 0))
            .map(|(count, state)| format!("{count} {state}"))
            .collect();
        let verdict = if bad.is_empty() { "right".to_owned() } else { format!("WRONG: {}", bad.join("; ")) };
        let counts = ["cached", "ran", "unchanged"].map(|outcome| row.count("", outcome));
        let [cached, ran, unchanged] = counts;
        assert_eq!(counts.iter().sum::<usize>(), row.steps.len(), "{}: {:?}", row.name, row.steps);
        let _ =
            writeln!(out, "{number:>3}  {:<28} {cached:>6} {ran:>4} {unchanged:>9}   {}; {verdict}", row.name, states.join(", "));
    }
    print!("{out}");
    errors
}

/// The embedded engine.
struct Embedded {
    site: Site,
    stand: Stand,
    other_runtime: String,
}

impl Embedded {
    fn new(cargo: &str) -> Self {
        let site = Site::new(cargo);
        let stand = site.stand("stand");
        let more = layer(|root| fs::write(root.join("more"), "more").unwrap());
        let other_runtime = site.registry.image("other", &[layer(busybox), more], &["PATH=/bin:/usr/bin"]);
        fs::remove_file(site.project().join("lib.rs")).unwrap();
        Self { site, stand, other_runtime }
    }

    /// Everything in the cache but SQLite's shared memory, with sizes.
    fn cached(&self) -> BTreeMap<PathBuf, u64> {
        let files = all_in(&self.stand.cache()).into_iter().filter(|path| !path.ends_with("index.db-shm"));
        files.map(|path| (path.clone(), fs::symlink_metadata(path).unwrap().len())).collect()
    }
}

impl Place for Embedded {
    fn project(&self) -> PathBuf {
        self.site.project()
    }

    fn release(&self, other_runtime: bool) -> Roche {
        let (build, runtime) = self.site.images();
        let runtime = if other_runtime { &self.other_runtime } else { runtime };
        let call = self.site.call(&self.stand).args(["release", "--builder", "embedded", "-t", "example.invalid/shop:1"]);
        call.args(["-b", build, "-r", runtime])
    }

    fn outputs(&self) -> Vec<String> {
        vec!["-o".to_owned(), format!("type=oci,dest={}", self.stand.archive().display())]
    }

    fn prune(&self, half: bool) {
        let prune = self.site.call(&self.stand).args(["cache", "prune"]);
        let keep: u64 = all_in(&self.stand.cache()).iter().map(|path| fs::symlink_metadata(path).unwrap().len()).sum();
        let prune = if half { prune.arg(format!("--keep-storage={}kB", keep / 2500)) } else { prune };
        let ended = prune.run().succeeds();
        assert!(ended.stdout_text().contains("removed "), "{}", ended.story());
    }

    fn records(&self) -> PathBuf {
        self.stand.home().join(".local/state/roche/releases")
    }
}

#[test]
fn the_embedded_engine_foretells_every_step_of_thirty_releases() {
    let place = Embedded::new(CARGO_OF_TEXT);
    let compared = run(&place, |ended, record| {
        // The record against what the engine said of each vertex.
        let trace = Trace::of(&ended.stderr);
        for vertex in record["vertices"].as_array().unwrap() {
            let (said, state) =
                (&trace.vertices[vertex["digest"].as_str().unwrap()], vertex["outcome"]["state"].as_str().unwrap());
            assert!(said.completed && said.cached == (state != "ran"), "{state}: {said:?}");
        }
    });
    let errors = table("the embedded engine", &compared, |forecast, outcome| match forecast {
        "cached" => outcome != "cached",
        "run" => outcome == "cached",
        _ => true,
    });
    let total = |outcome: &str| compared.iter().map(|row| row.count("", outcome)).sum::<usize>();
    println!("{errors} of {} wrong", compared.iter().map(|row| row.steps.len()).sum::<usize>());
    assert!(total("cached") > 80 && total("ran") > 40 && total("unchanged") >= 3, "the releases have not enough of each");
    assert_eq!(errors, 0);
}

#[test]
fn a_dry_run_leaves_the_cache_as_it_is() {
    let place = Embedded::new(CARGO);
    fs::write(place.project().join("functions.rs"), FIRST).unwrap();
    let dry = || place.release(false).arg("--dry-run").run().succeeds().stdout_text();
    let text = dry();
    assert!(text.contains("run") && text.contains("the cache does not have the image"), "{text}");
    assert_eq!(all_in(&place.stand.cache()), Vec::<PathBuf>::new(), "a dry run made a cache");
    place.release(false).args(place.outputs()).run().succeeds();
    let before = place.cached();
    let text = dry();
    assert!(text.contains("  8 cached\n"), "{text}");
    assert_eq!(place.cached(), before, "a dry run changed the cache");
    fs::write(place.project().join("functions.rs"), SECOND).unwrap();
    let text = dry();
    assert!(text.contains("the cache has no result of it\n") && text.contains(": behind what runs\n"), "{text}");
    // An index that is lost leads nowhere.
    fs::remove_file(place.stand.cache().join("roche/index.db")).unwrap();
    let text = dry();
    assert!(text.contains("8 run\n"), "{text}");
}

#[test]
fn require_cached_runs_nothing_on_the_embedded_engine() {
    let place = Embedded::new(CARGO);
    fs::write(place.project().join("functions.rs"), FIRST).unwrap();
    let required = || place.release(false).arg("--require-cached").args(place.outputs()).run();
    let refused = "steps would run, and --require-cached lets none run";
    required().fails(11, &[refused, "build image", "the cache lacks 11 of 11 layers", "hint: release once"]);
    assert!(!place.stand.archive().exists(), "an archive was written");
    place.release(false).args(place.outputs()).run().succeeds();
    let made = fs::read(place.stand.archive()).unwrap();
    fs::remove_file(place.stand.archive()).unwrap();
    let ended = required().succeeds();
    assert!(ended.stderr.contains("8 of 8 cached"), "{}", ended.story());
    assert!(fs::read(place.stand.archive()).unwrap() == made, "another archive");
    fs::write(place.project().join("functions.rs"), SECOND).unwrap();
    required().fails(11, &[refused, "function functions.rs: the cache has no result of it", "behind it: "]);
    assert!(fs::read(place.stand.archive()).unwrap() == made, "the archive was touched");
    let plan = place.release(false).arg("--dry-run=json").run().succeeds().stdout_text();
    assert!(plan.contains("\"run\""), "a refused release left results: {plan}");
    let both = place.release(false).args(["--require-cached", "--no-cache"]).run();
    both.fails(2, &["--no-cache"]);
}

/// A daemon.
struct OnDaemon<'a> {
    daemon: &'a Daemon,
    project: Project,
    build: Tag,
    tag: Tag,
    state: tempfile::TempDir,
}

impl<'a> OnDaemon<'a> {
    fn new(daemon: &'a Daemon, cargo: &str) -> Self {
        let project = Project::empty().file("functions.rs", FIRST);
        let build = with_cargo(daemon, &format!("# {}\n{cargo}", unique()));
        for name in ["runtime-busybox", "runtime-debian"] {
            daemon.run(["pull", "-q", &image(name)]);
        }
        Self { daemon, project, build, tag: daemon.tag(), state: tempfile::tempdir().unwrap() }
    }
}

impl Place for OnDaemon<'_> {
    fn project(&self) -> PathBuf {
        self.project.root().to_owned()
    }

    fn release(&self, other_runtime: bool) -> Roche {
        let runtime = image(if other_runtime { "runtime-debian" } else { "runtime-busybox" });
        let call = Roche::new(self.project.root()).on(self.daemon).env("XDG_STATE_HOME", self.state.path());
        call.args(["release", "-b", &self.build.name, "-r", &runtime]).tag(&self.tag)
    }

    fn outputs(&self) -> Vec<String> {
        Vec::new()
    }

    fn prune(&self, half: bool) {
        // What it leaves of the half is the daemon's choice.
        let keep: &[&str] = if half { &["--keep-storage", "1MB"] } else { &[] };
        self.daemon.run([&["builder", "prune", "-a", "-f"], keep].concat());
    }

    fn records(&self) -> PathBuf {
        self.state.path().join("roche/releases")
    }
}

/// Thirty releases on a daemon, and what is said of each step before.
fn thirty_releases(daemon: &Daemon) {
    let place = OnDaemon::new(daemon, CARGO_OF_TEXT);
    let compared = run(&place, |_, _| ());
    let wrong = |forecast: &str, outcome: &str| forecast == "cached" || (forecast == "run" && outcome != "ran");
    let errors = table(&daemon.name, &compared, wrong);
    let count = |forecast: &str, outcome: &str| compared.iter().map(|row| row.count(forecast, outcome)).sum::<usize>();
    let (likely, cached) = (count("likely", "cached"), count("", "cached"));
    println!("{likely} of the {cached} steps that were cached had been called likely");
    for row in compared.iter().filter(|row| row.count("likely", "ran") > 0) {
        let names =
            row.steps.iter().filter(|(f, o, _)| (f.as_str(), o.as_str()) == ("likely", "ran")).map(|(.., name)| name.as_str());
        println!("likely, and ran: {}: {}", row.name, names.collect::<Vec<_>>().join(", "));
    }
    assert_eq!(errors, 0, "a daemon's step was called cached, or did not run although it was told to");
    assert!(cached > 80, "only {cached} steps were cached");
    assert!(likely * 10 >= cached * 9, "{likely} of {cached}");
    let pruned = compared.iter().find(|row| row.name == "everything pruned").unwrap();
    assert!(pruned.count("likely", "ran") > 0, "a forced prune was foreseen: {:?}", pruned.steps);
}

#[test]
fn an_old_daemon_s_thirty_releases() {
    Daemon::docker20().test("forecast::an_old_daemon_s_thirty_releases", thirty_releases);
}

#[test]
fn a_modern_daemon_s_thirty_releases() {
    // One of its own: a prune would take the cache from other tests.
    let owned = Daemon::empty("forecast", &[]);
    owned.daemon.clone().test("forecast::a_modern_daemon_s_thirty_releases", thirty_releases);
}

on_every_daemon!(require_cached_stops_at_the_first_step_that_runs);
fn require_cached_stops_at_the_first_step_that_runs(daemon: &Daemon) {
    // Long enough that a step that does its work is seen to have.
    let place = OnDaemon::new(daemon, "[ \"$1\" = build ] || exit 0\nsleep 6\nexec build-service");
    let required = || place.release(false).arg("--require-cached").run();
    let refused = |ended: Ended| {
        let ended = ended.fails(11, &["is not cached on the daemon, and --require-cached lets none run", "hint: release once"]);
        assert!(ended.elapsed < Duration::from_secs(6), "it waited for the step\n{}", ended.story());
    };
    refused(required());
    assert!(!daemon.has_image(&place.tag.name), "an image was made");
    let made = place.release(false).run().succeeds().digest();
    let again = required().succeeds();
    assert_eq!(again.digest(), made);
    assert!(again.elapsed < Duration::from_secs(6), "{}", again.story());
    place.project.write("functions.rs", SECOND);
    refused(required());
    let ran = place.release(false).args(["--progress", "rawjson"]).run().succeeds();
    let trace = Trace::of(&ran.stderr);
    assert!(trace.done().iter().any(|name| name.contains("compile")), "the step had done its work:\n{}", ran.story());
    place.project.write("functions.rs", FIRST);
    assert_eq!(required().succeeds().digest(), made);
}
