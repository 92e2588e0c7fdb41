//! The embedded engine: a release that needs no daemon, from images and from the machine's own
//! toolchain.
//!
//! Red when: what the engine makes of a graph differs from what a daemon makes of it; a folder, a
//! user, a umask or an earlier run changes the digest; a step is run again although nothing changed;
//! something of the engine's own is left in its cache.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Daemon, Ended, Project, Roche, files, image, on_every_daemon, unique};

/// Crates are compiled.
const PATIENCE: Duration = Duration::from_secs(900);

on_every_daemon!(a_release_from_images_adds_what_a_daemon_adds);
fn a_release_from_images_adds_what_a_daemon_adds(daemon: &Daemon) {
    let project = Project::hello(&unique());
    let cache = tempfile::tempdir().unwrap();
    for runtime in ["runtime-debian", "runtime-busybox"] {
        let images = ["-b", &image("build"), "-r", &image(runtime)].map(str::to_owned);
        let theirs = daemon.tag();
        Roche::new(project.root()).on(daemon).arg("release").args(&images).tag(&theirs).run().succeeds();

        let ours = daemon.tag();
        let archive = cache.path().join(format!("{runtime}.tar"));
        let release = || {
            let release = embedded(project.root(), cache.path()).args(&images).tag(&ours);
            release.args(["-o".to_owned(), format!("type=docker,dest={}", archive.display())]).run().succeeds()
        };
        let made = release();
        daemon.run(["load", "-q", "-i", archive.to_str().unwrap()]);
        for path in ["/app", "/etc/passwd", "/etc/group"] {
            assert_eq!(files(daemon, &ours.name, path), files(daemon, &theirs.name, path), "{path} on {runtime}");
        }
        let config = |name: &str| daemon.inspect(name)["Config"].clone();
        for key in ["User", "WorkingDir", "Env", "ExposedPorts", "Cmd"] {
            assert_eq!(config(&ours.name)[key], config(&theirs.name)[key], "{key} on {runtime}");
        }
        assert_eq!(daemon.serve(&ours.name, &[]).get("/").status, 200, "{runtime}");

        let again = release();
        assert_eq!(digest(&again), digest(&made), "{runtime}");
        assert!(again.stderr.contains("7 of 7 cached"), "{}", again.stderr);
    }
    clean(cache.path());
}

#[test]
fn a_release_from_the_host_toolchain_runs_and_is_the_same_from_everywhere() {
    let daemon = Daemon::docker20();
    let cache = tempfile::tempdir().unwrap();
    let text = unique();
    let tag = daemon.tag();
    let release = |project: &Project, options: &[&str]| {
        let release = embedded(project.root(), cache.path()).tag(&tag).args(options);
        release
            .env("RUSTUP_HOME", home("RUSTUP_HOME", ".rustup"))
            .env("CARGO_HOME", home("CARGO_HOME", ".cargo"))
            .within(PATIENCE)
    };
    let project = Project::hello(&text);
    let made = release(&project, &["-o", "type=docker,dest=image.tar"]).run().succeeds();
    assert!(made.stderr.contains("the embedded engine (--builder)"), "{}", made.stderr);
    daemon.test("embedded::a_release_from_the_host_toolchain", |daemon| {
        daemon.run(["load", "-q", "-i", project.path("image.tar").to_str().unwrap()]);
        assert_eq!(daemon.inspect(&tag.name)["Config"]["Cmd"], serde_json::json!(["/app/roche-service"]));
        assert!(daemon.serve(&tag.name, &[]).get("/").body.contains(&text));
    });

    // Another folder, and nothing of what was compiled before.
    let elsewhere = Project::hello(&text);
    let again = release(&elsewhere, &["-o", "type=oci,dest=image.tar"]).run().succeeds();
    assert_eq!(digest(&again), digest(&made));
    assert!(again.stderr.contains("9 of 9 cached"), "{}", again.stderr);
    let edited = release(&Project::hello(&unique()), &["-o", "type=oci,dest=image.tar"]).run().succeeds();
    assert_ne!(digest(&edited), digest(&made));
    let anew = release(&elsewhere, &["--no-cache", "-o", "type=oci,dest=image.tar"]).run().succeeds();
    assert_eq!(digest(&anew), digest(&made), "the compiler gave other bytes");
    clean(cache.path());
}

/// A release by the embedded engine with its store in `cache`.
fn embedded(project: &Path, cache: &Path) -> Roche {
    Roche::new(project).args(["release", "--builder", "embedded"]).env("XDG_CACHE_HOME", cache)
}

/// Where rustup and cargo are installed, which a call's own home is not.
fn home(variable: &str, folder: &str) -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").expect("HOME is set")).join(folder);
    env::var_os(variable).map_or_else(home, PathBuf::from)
}

/// The digest in a report.
fn digest(ended: &Ended) -> String {
    let line = ended.stderr.lines().find_map(|line| line.trim_start().strip_prefix("digest "));
    line.unwrap_or_else(|| panic!("the report has no digest:\n{}", ended.stderr)).trim().to_owned()
}

/// Checks that a cache verifies and holds nothing half made.
fn clean(cache: &Path) {
    let verified = Roche::new(cache).args(["cache", "verify"]).env("XDG_CACHE_HOME", cache).run().succeeds();
    assert!(verified.stdout_text().contains("0 damaged"), "{}", verified.stdout_text());
    let left: Vec<_> = std::fs::read_dir(cache.join("roche/work")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
