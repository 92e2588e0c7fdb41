//! A registry that asks for a password: images come from it and go to it for who has one.
//!
//! Red when: a login in docker's `config.json` is not used for every request, or the image that is
//! made with it differs from a daemon's; who has no password or a wrong one is told less than the
//! registry's name, or by another exit code than 8.

use std::collections::BTreeMap;

use roche_engine::Digest;

use crate::harness::{Daemon, Ended, PrivateRegistry, Project, Roche, files, registry, request, unique};

const RUNTIME: &str = "runtime-debian";
const MANIFEST: &str = "Accept: application/vnd.oci.image.manifest.v1+json";

#[test]
fn the_embedded_engine_adds_what_the_daemons_add() {
    let private = PrivateRegistry::start();
    let cache = tempfile::tempdir().unwrap();
    let project = Project::hello(&unique());
    let images = ["-b", &private.image("build"), "-r", &private.image(RUNTIME)].map(str::to_owned);
    let release = |call: Roche| private.logged_in(call.args(&images));
    let tag = format!("{}/t/{}:1", private.host, unique());
    let archive = cache.path().join("image.tar");
    let line = ["-t", &tag, "--push", "-o", &format!("type=docker,dest={}", archive.display())].map(str::to_owned);
    let made = release(Roche::embedded(project.root(), cache.path())).args(line).run().succeeds();

    // What was pushed with the password is there: the open registry has the same files.
    let path = format!("/v2{}/manifests/1", tag.trim_start_matches(&private.host).trim_end_matches(":1"));
    let pushed = request("HEAD", &registry(), &path, &[MANIFEST]).expect("the registry answers");
    assert_eq!(pushed.header("Docker-Content-Digest"), Some(made.digest().as_str()), "{}", made.story());

    for daemon in [Daemon::docker20(), Daemon::docker26()] {
        daemon.test("login::the_embedded_engine_adds_what_the_daemons_add", |daemon| {
            let theirs = daemon.tag();
            release(Roche::new(project.root()).on(daemon).arg("release")).tag(&theirs).run().succeeds();
            daemon.run(["load", "-q", "-i", archive.to_str().unwrap()]);
            let (ours, theirs) = (added(daemon, &tag), added(daemon, &theirs.name));
            daemon.run(["image", "rm", "--force", &tag]);
            assert_eq!(ours, theirs, "on {}", daemon.name);
        });
    }
}

#[test]
fn without_the_password_the_registry_is_named() {
    let private = PrivateRegistry::start();
    let project = Project::hello("hello");
    let cache = tempfile::tempdir().unwrap();
    let refused = |name: &str, call: &dyn Fn() -> Roche| {
        let images = ["-b", &private.image("build"), "-r", &private.image(RUNTIME), "-t", "x.invalid/x:1"].map(str::to_owned);
        let line = || call().args(&images).args(["-o", "type=tar,dest=out.tar"]);
        for (who, ended) in [("nobody", line().run()), ("a wrong password", private.logged_in_by(line(), "wrong").run())] {
            named(&ended, &format!("{who} on {name}"), &private.host);
        }
    };
    refused("the embedded engine", &|| Roche::embedded(project.root(), cache.path()));
    for daemon in [Daemon::docker20(), Daemon::docker26()] {
        daemon.test("login::without_the_password_the_registry_is_named", |daemon| {
            refused(&daemon.name, &|| Roche::new(project.root()).on(daemon).arg("release"));
        });
    }
    assert!(!project.path("out.tar").exists());
}

fn named(ended: &Ended, case: &str, host: &str) {
    if let Err(reason) = ended.check_failure(8, &[host]) {
        panic!("{case}: {reason}\n{}", ended.story());
    }
}

/// Path, mode, owner, group and content digest of all that a release adds or changes.
fn added(daemon: &Daemon, image: &str) -> BTreeMap<String, (u32, String, String, Digest)> {
    let found = ["/app", "/etc/passwd", "/etc/group"].into_iter().flat_map(|path| files(daemon, image, path));
    found.map(|(path, entry)| (path, (entry.mode, entry.owner, entry.group, Digest::of(&entry.content)))).collect()
}
