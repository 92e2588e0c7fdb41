//! `roche verify` says yes to what is the same twice, and names the file where it is not.
//!
//! Red when: a second release takes anything from the first or from the user's own store; a
//! difference is not seen, or its file not named; the project is written to; something is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::{Project, Site, all_in};

/// A cargo that gives the same service every time.
const STEADY: &str = "[ \"$1\" = build ] || exit 0\nexec build-service";

/// The examples, each with what a release reads of it.
fn examples() -> Vec<(String, Project)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), Project::example(&name))).collect()
}

/// Every file with its bytes and time.
fn state(folder: &Path) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let one = |path: PathBuf| {
        let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("the file has a time");
        (path.clone(), fs::read(path).expect("the file is read"), time)
    };
    all_in(folder).into_iter().filter(|path| path.is_file()).map(one).collect()
}

#[test]
fn every_example_is_the_same_twice_and_nothing_is_touched() {
    let examples = examples();
    assert!(examples.len() >= 4, "{}", examples.len());
    for (name, example) in examples {
        let site = Site::new(STEADY);
        fs::remove_dir_all(site.project()).unwrap();
        fs::rename(example.root(), site.project()).unwrap();
        let stand = site.stand("here");
        let before = state(&site.project());
        let ended = site.twice(&stand).run().succeeds();
        let line = ended.stdout_text();
        assert!(line.starts_with("sha256:") && line.len() == 72, "{name}: {}", ended.story());
        assert!(ended.stderr.contains("both releases are the same"), "{name}: {}", ended.story());
        assert_eq!(state(&site.project()), before, "{name}");
        nothing_is_left(&site, &stand);
    }
}

#[test]
fn the_digest_is_that_of_a_release_and_its_steps_ran_twice() {
    let site = Site::new(STEADY);
    let stand = site.stand("here");
    let (digest, _) = stand.made(site.release(&stand).run());
    let ended = site.twice(&stand).args(["--progress", "plain"]).run().succeeds();
    assert_eq!(ended.stdout_text().trim(), digest);
    // The base images alone are there already.
    assert_eq!(ended.stderr.matches("CACHED").count(), 2, "{}", ended.story());
    let quiet = site.twice(&stand).arg("-q").run().succeeds();
    assert_eq!((quiet.stdout_text().trim(), quiet.stderr.as_str()), (digest.as_str(), ""));
    nothing_is_left(&site, &stand);
}

#[test]
fn base_images_are_fetched_once() {
    let site = Site::new(STEADY);
    let stand = site.stand("here");
    site.twice(&stand).run().succeeds();
    let fetched = site.registry.take_fetched();
    assert!(!fetched.is_empty() && fetched.values().all(|times| *times == 1), "{fetched:?}");
}

#[test]
fn a_service_that_holds_the_time_is_caught_and_named() {
    let cargo = format!("{STEADY} && date +%s >>target/release/roche-service").replace("exec ", "");
    // Busybox counts seconds: what the kernel has counted since its start is finer.
    let cargo = cargo.replace("date +%s", "(date; cat /proc/uptime)");
    let site = Site::new(&cargo);
    let stand = site.stand("here");
    let ended = site
        .twice(&stand)
        .run()
        .fails(9, &["two releases of the same files differ: sha256:", "/app/roche-service: content", "hint: look for times"]);
    let named: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("caused by: ")).collect();
    assert_eq!(named.len(), 1, "{}", ended.story());
    nothing_is_left(&site, &stand);
}

#[test]
fn a_signal_leaves_nothing() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let site = Site::new("[ \"$1\" = build ] || exit 0\necho the step runs\nsleep 600");
        let stand = site.stand("here");
        let mut running = site.twice(&stand).args(["--progress", "plain"]).start();
        while !running.said().contains("the step runs") {
            running.check_alive();
        }
        running.signal(signal);
        let ended = running.ends_within(Duration::from_secs(10));
        assert_eq!(ended.status.code(), Some(code), "{}", ended.story());
        nothing_is_left(&site, &stand);
        site.nothing_runs(&stand);
    }
}

#[test]
fn a_failing_step_is_that_step_s_failure() {
    let site = Site::new("[ \"$1\" = build ] || exit 0\necho no way\nexit 3");
    let stand = site.stand("here");
    site.twice(&stand).run().fails(1, &["failed with exit status 3", "no way"]);
    nothing_is_left(&site, &stand);
}

/// Fails the test where a workplace is left beside the store.
#[track_caller]
fn nothing_is_left(site: &Site, stand: &crate::harness::Stand) {
    let left: Vec<PathBuf> =
        all_in(&stand.cache()).into_iter().filter(|path| path.to_string_lossy().contains("roche-verify")).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "left in {}", stand.cache().display());
    assert_eq!(all_in(&stand.temporary()), Vec::<PathBuf>::new());
    site.nothing_runs(stand);
}
