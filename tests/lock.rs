//! `roche.lock`: what is locked is what is released, and needs nobody.
//!
//! Red when: a locked plan differs from the one that a daemon or registry gives, or asks anybody; a
//! tag that has moved reaches a locked release; `--locked` or `--offline` lets an image through that
//! is not locked; a lock that is broken, odd or of a later version is passed over; a lock is written
//! where nobody asked for it, or halfway.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Daemon, Ended, Project, Roche, Site, image, on_docker26, on_every_daemon, registry, unique};

const DEAD: &str = "unix:///nonexistent/docker.sock";

/// `roche lock`, which asks the registry.
fn lock(project: &Project, more: &[&str]) -> Ended {
    let call = Roche::new(project.root()).args(["lock", "--builder", "embedded"]).args(more);
    call.build_image(&image("build")).runtime(&image("runtime-busybox")).run()
}

/// A plan without a daemon.
fn plan(project: &Project, form: &str, more: &[&str]) -> Roche {
    let call = Roche::new(project.root()).env("DOCKER_HOST", DEAD).args(["release", "-t", "x.invalid/plan:1"]);
    call.arg(format!("--dry-run={form}")).args(more)
}

fn text(project: &Project) -> String {
    fs::read_to_string(project.path("roche.lock")).unwrap()
}

/// Moves the locked images to a registry where nobody listens.
fn unplug(project: &Project) -> [String; 2] {
    project.write("roche.lock", text(project).replace(&registry(), "127.0.0.1:1"));
    ["build", "runtime-busybox"].map(|name| image(name).replace(&registry(), "127.0.0.1:1"))
}

#[test]
fn a_locked_plan_is_the_same_and_asks_nobody() {
    let project = Project::hello("hello");
    let ended = lock(&project, &[]).succeeds();
    let told = ended.stdout_text();
    assert!(told.lines().count() == 2 && told.lines().all(|line| line.contains("@sha256:")), "{}", ended.story());
    assert!(text(&project).starts_with('#') && text(&project).contains("[[image]]"), "{}", text(&project));

    let unlocked = Project::hello("hello");
    let asked = plan(&unlocked, "json", &[]).build_image(&image("build")).runtime(&image("runtime-busybox"));
    let locked = plan(&project, "json", &["--locked"]).build_image(&image("build")).runtime(&image("runtime-busybox"));
    let (asked, locked) = (asked.run().succeeds(), locked.run().succeeds());
    assert!(asked.stdout == locked.stdout, "{}\n{}", asked.story(), locked.story());

    let [build, runtime] = unplug(&project);
    for flags in [&[][..], &["--locked"], &["--offline"], &["--frozen"]] {
        let alone = plan(&project, "llb", flags).build_image(&build).runtime(&runtime).run().succeeds();
        assert!(!alone.stdout.is_empty(), "{flags:?}\n{}", alone.story());
    }
    let dead = plan(&unlocked, "llb", &[]).build_image(&build).runtime(&runtime).run();
    dead.fails(8, &["is not resolved"]);
}

#[test]
fn what_is_not_locked_is_refused_where_it_has_to_be() {
    let project = Project::hello("hello");
    let named =
        |more: &[&str], form: &str| plan(&project, form, more).build_image(&image("build")).runtime(&image("runtime-busybox"));
    named(&["--locked"], "text").run().fails(4, &["roche.lock has no ", "--locked", "hint: roche lock"]);
    named(&["--frozen"], "text").run().fails(4, &["roche.lock has no "]);
    let offline = named(&["--offline"], "text").run().succeeds();
    assert!(offline.stdout_text().starts_with("unresolved: "), "{}", offline.story());
    named(&["--offline"], "llb").run().fails(8, &["--offline asks no registry"]);
    for flag in ["--locked", "--offline", "--frozen"] {
        named(&["--pull", flag], "text").run().fails(2, &["cannot be used with"]);
    }
    assert!(!project.path("roche.lock").exists(), "a plan writes nothing");

    lock(&project, &[]).succeeds();
    let other = plan(&project, "text", &["--locked", "-r", &image("runtime-debian")]).build_image(&image("build")).run();
    other.fails(4, &["runtime-debian"]);
    let scratch = plan(&project, "text", &["--locked", "-r", "scratch"]).build_image(&image("build")).run().succeeds();
    assert!(!scratch.stdout_text().contains("unresolved"), "{}", scratch.story());
}

#[test]
fn an_offline_release_takes_what_the_cache_has_and_nothing_else() {
    let site = Site::new("[ \"$1\" = build ] || exit 0\nexec build-service");
    let stand = site.stand("here");
    let (build, runtime) = site.images();
    site.call(&stand).args(["lock", "--builder", "embedded", "-b", build, "-r", runtime]).run().succeeds();
    let offline = || site.release(&stand).arg("--offline");
    offline().run().fails(8, &["it is not in the cache, and no registry may be asked"]);
    let made = site.release(&stand).run().succeeds();
    site.registry.take_fetched();
    for more in ["--frozen", "--require-cached"] {
        let again = offline().arg(more).run().succeeds();
        assert_eq!(again.stdout, made.stdout, "{}", again.story());
    }
    assert_eq!(site.registry.take_fetched(), [].into(), "the registry was asked");
}

#[test]
fn a_lock_is_of_the_back_end_that_is_named_or_there_is_none() {
    let project = Project::hello("hello");
    for (variable, address) in [("DOCKER_HOST", DEAD), ("BUILDKIT_HOST", "unix:///nonexistent/buildkitd.sock")] {
        let call = Roche::new(project.root()).env(variable, address).arg("lock");
        call.build_image(&image("build")).runtime(&image("runtime-busybox")).run().fails(5, &[address]);
    }
    let named = Roche::new(project.root()).args(["lock", "--builder", "nosuch"]);
    named.build_image(&image("build")).runtime(&image("runtime-busybox")).run().fails(5, &["nosuch"]);
    assert!(!project.path("roche.lock").exists());
}

on_every_daemon!(a_locked_release_ignores_a_tag_that_moved);
fn a_locked_release_ignores_a_tag_that_moved(daemon: &Daemon) {
    let (project, tag, moved) = (Project::hello(&unique()), daemon.tag(), daemon.tag());
    let moving = moved.name.clone();
    let moves_to = |name: &str| {
        daemon.run(["pull", "-q", &image(name)]);
        daemon.run(["tag", &image(name), &moving]);
        daemon.run(["push", "-q", &moving]);
        daemon.run(["rmi", &moving]);
    };
    let lock = |more: &[&str]| {
        let call = Roche::new(project.root()).args(["lock", "--builder", "embedded", "-r", &moving]).args(more);
        call.build_image(&image("build")).run().succeeds()
    };
    moves_to("runtime-busybox");
    lock(&[]);
    let before = text(&project);
    moves_to("runtime-debian");
    lock(&[]);
    assert_eq!(text(&project), before, "roche lock keeps what is locked");
    let ended = Roche::release(daemon, project.root()).args(["-r", &moving, "--locked"]).tag(&tag).run().succeeds();
    let locked =
        before.lines().skip_while(|line| !line.contains(&moving)).find_map(|line| line.strip_prefix("digest = \"sha256:"));
    assert!(ended.stderr.contains(&locked.unwrap()[..12]), "the report names the locked digest\n{}", ended.story());
    let ran = daemon.serve(&tag.name, &[]).get("/");
    assert_eq!(ran.status, 200);

    let ended = lock(&["--update"]);
    assert!(ended.stderr.contains("moves from"), "{}", ended.story());
    assert_ne!(text(&project), before);
}

on_docker26!(a_config_that_is_not_the_image_s_is_refused);
fn a_config_that_is_not_the_image_s_is_refused(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    lock(&project, &[]).succeeds();
    let release = || Roche::release(daemon, project.root()).tag(&tag);
    project.write("roche.lock", text(&project).replace("PATH=", "PATH=/elsewhere:"));
    release().run().fails(9, &["another config than roche.lock says", "hint: roche lock --update"]);
    assert!(!daemon.has_image(&tag.name));
    let unlocked = Project::hello("hello");
    Roche::release(daemon, unlocked.root()).tag(&tag).arg("--offline").run().fails(4, &["--offline asks no registry"]);
}

#[test]
fn update_asks_again_and_forgets_what_is_not_named() {
    let project = Project::hello("hello");
    let with = |more: &[&str]| {
        let call = Roche::new(project.root()).args(["lock", "--builder", "embedded"]).args(more);
        call.build_image(&image("build")).run().succeeds()
    };
    with(&["-r", &image("runtime-busybox")]);
    with(&["-r", &image("runtime-debian")]);
    assert_eq!(text(&project).matches("[[image]]").count(), 3, "{}", text(&project));
    with(&["-r", &image("runtime-debian"), "--update"]);
    assert_eq!(text(&project).matches("[[image]]").count(), 2, "{}", text(&project));
    let written = fs::metadata(project.path("roche.lock")).unwrap().modified().unwrap();
    with(&["-r", &image("runtime-debian")]);
    assert_eq!(
        fs::metadata(project.path("roche.lock")).unwrap().modified().unwrap(),
        written,
        "nothing changed, and it was written"
    );
}

#[test]
fn an_image_that_cannot_be_had_leaves_the_lock_as_it_was() {
    let project = Project::hello("hello");
    lock(&project, &[]).succeeds();
    let before = text(&project);
    lock(&project, &["-r", &image("none")]).fails(8, &["none:1", "404"]);
    lock(&project, &["--update", "-b", "127.0.0.1:1/none:1"]).fails(75, &["127.0.0.1:1/none:1"]);
    assert_eq!(text(&project), before);
    assert_eq!(fs::read_dir(project.root()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_lock_that_is_not_understood_is_refused_with_its_line() {
    let good = Project::hello("hello");
    lock(&good, &[]).succeeds();
    let good = text(&good);
    let later = good.replace("version = 1", "version = 2");
    let table: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), ":1: expected the version"),
        ("later", later.into_bytes(), ":2: version 2 was written by a newer roche"),
        ("halved", good.as_bytes()[..good.len() / 2].to_vec(), "roche.lock:"),
        ("merged", [b"<<<<<<< ours\n", good.as_bytes()].concat(), ":1: expected KEY = VALUE"),
        ("no text", vec![0xff, 0xfe], "not UTF-8"),
        ("escapes", b"version = 1\n\x1b[2J\x1b]0;x\x07 = \"\xe2\x80\xae\"\n".to_vec(), ":2: "),
        ("digest", good.replace("digest = \"sha256:", "digest = \"sha256:x").into_bytes(), "the image's digest is"),
        ("twice", [good.as_bytes(), good.split_once("\n\n").unwrap().1.as_bytes()].concat(), "is there twice"),
    ];
    for (name, bytes, says) in table {
        let project = Project::hello("hello").file("roche.lock", &bytes);
        plan(&project, "text", &[]).run().fails(4, &[says, "roche.lock", "hint: "]);
        lock(&project, &["--update"]).fails(4, &[says]);
        assert_eq!(fs::read(project.path("roche.lock")).unwrap(), bytes, "{name} was written over");
    }
}

#[test]
fn a_lock_that_is_no_file_is_refused() {
    for line in ["mkfifo roche.lock", "mkdir roche.lock", "ln -s roche.lock roche.lock", "ln -s /dev/zero roche.lock"] {
        let project = Project::hello("hello");
        let made = std::process::Command::new("sh").args(["-c", line]).current_dir(project.root()).status().unwrap();
        assert!(made.success());
        plan(&project, "text", &[]).run().fails(4, &["roche.lock cannot be read", "not a regular file"]);
    }
    let project = Project::hello("hello");
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    symlink(elsewhere.path(), project.path("roche.lock")).unwrap();
    lock(&project, &[]).fails(4, &["not a regular file"]);
    let large = Project::hello("hello");
    fs::File::create(large.path("roche.lock")).unwrap().set_len(1 << 40).unwrap();
    plan(&large, "text", &[]).run().fails(4, &["more than"]);
}
