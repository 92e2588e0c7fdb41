//! The embedded engine: a release that needs no daemon, from images and from the machine's own
//! toolchain.
//!
//! Red when: what the engine makes of a graph differs from what a daemon makes of it; a folder, a
//! user, a umask or an earlier run changes the digest; a step is run again although nothing changed; a
//! step that was refused an id fails without its remedy; something of the engine's own is left in its
//! cache.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};
use std::{env, fs};

use roche_engine::local::{KeepStorage, Local, LocalOptions};
use roche_engine::oci::RegistryOptions;
use roche_engine::op::{File, Metadata, Mkfile, Op, Platform, Source};
use roche_engine::solver::{ArchiveDest, ArchiveFormat, Export, Exported, JobOptions, Solver as _, progress_channel};
use roche_engine::{Error, Graph};

use crate::gained::assert_as_planned;
use crate::harness::{Daemon, Ended, Project, Roche, files, image, on_every_daemon, unique, with_cargo};

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
            let release = Roche::embedded(project.root(), cache.path()).args(&images).tag(&ours);
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
        assert!(again.stderr.contains("8 of 8 cached"), "{}", again.stderr);
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
        let release = Roche::embedded(project.root(), cache.path()).tag(&tag).args(options);
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
    for example in ["env", "hello", "json", "tested"] {
        let project = Project::example(example);
        let more = if example == "hello" { "--tzdata" } else { "--entrypoint=direct" };
        let plan = release(&project, &[more, "--dry-run=json"]).run().succeeds();
        release(&project, &[more, "-o", "type=tar,dest=out.tar"]).run().succeeds();
        // A tar names the owners, who in a folder are whoever releases.
        let out = project.path("out");
        fs::create_dir(&out).unwrap();
        let unpack = ["-xpf", "out.tar", "--same-owner", "--numeric-owner", "-C", "out"];
        assert!(Command::new("tar").args(unpack).current_dir(project.root()).status().unwrap().success());
        assert_as_planned(&plan.stdout, &out);
    }
    // As files, with the time zones; the cache is made small, and what the build uses stays.
    let compiled = || {
        let listed = Roche::new(cache.path()).args(["cache", "ls"]).env("XDG_CACHE_HOME", cache.path()).run().succeeds();
        listed.stdout_text().matches("compile roche-service").count()
    };
    let both = compiled();
    let small = release(&elsewhere, &["--tzdata", "-o", "type=local,dest=out"]).env("ROCHE_KEEP_STORAGE", "1");
    small.run().succeeds();
    assert!(fs::read(elsewhere.path("out/app/roche-service")).unwrap().starts_with(b"\x7fELF"));
    assert_eq!(fs::read(elsewhere.path("out/usr/share/zoneinfo/UTC")).unwrap()[..4], *b"TZif");
    assert!(fs::read_to_string(elsewhere.path("out/etc/passwd")).unwrap().contains("rocheuser:x:100:"));
    assert!((1..both).contains(&compiled()), "the cache was not made smaller: {both} layers");
    let anew = release(&elsewhere, &["--no-cache", "-o", "type=oci,dest=image.tar"]).run().succeeds();
    assert_eq!(digest(&anew), digest(&made), "the compiler gave other bytes");
    clean(cache.path());
}

#[test]
fn an_image_comes_out_of_a_layout_and_one_that_was_tampered_with_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (archive, tree) = (folder.path().join("image.tar"), folder.path().join("out"));
    let platform = || Platform::new("linux", "amd64");
    let solve = |store: &str, op: Op, options: JobOptions| -> Result<Exported, Error> {
        let local = Local::new(LocalOptions {
            root: folder.path().join(store),
            path: env::var_os("PATH").unwrap_or_default(),
            clock: SystemTime::now,
            engine: None,
            registries: RegistryOptions::default(),
            offline: true,
            keep_storage: KeepStorage::All,
        });
        let mut graph = Graph::new();
        let definition = graph.add(op, Metadata::default()).unwrap();
        let definition = graph.definition(definition.into());
        let config = br#"{"architecture":"amd64","os":"linux","config":{},"history":[{}]}"#.to_vec();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let (progress, _) = progress_channel(1 << 20);
            let job = local.open(options, progress).await?;
            let solved = job.solve(&definition).await?;
            job.export(solved, config).await
        })
    };
    let dest = ArchiveDest::File(archive.clone());
    let exports = vec![Export::Archive { format: ArchiveFormat::Oci, names: Vec::new(), dest }];
    let file = File::chain(None, [Mkfile::new("/hello", 0o640, "from a layout").into()]);
    let made = solve("first", file.into(), JobOptions { exports, ..JobOptions::default() }).unwrap();
    let digest = &made.response["containerimage.digest"];

    let from = |layout: &Path, store: &str, digest: &str| {
        let source = Source::oci_layout(&format!("any/name@{digest}")).attr("oci.store", "mine");
        let exports = vec![Export::Folder { dest: tree.clone() }];
        let oci_layouts = [("mine".to_owned(), layout.to_owned())].into();
        solve(store, Op::on(platform(), source), JobOptions { exports, oci_layouts, ..JobOptions::default() })
    };
    from(&archive, "second", digest).unwrap();
    assert_eq!(fs::read_to_string(tree.join("hello")).unwrap(), "from a layout");
    let unknown = from(&archive, "second", &format!("sha256:{:064}", 1)).unwrap_err().to_string();
    assert!(unknown.contains(digest.as_str()), "it names what is there: {unknown}");

    let layout = folder.path().join("layout");
    fs::create_dir(&layout).unwrap();
    let status = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&layout).status().unwrap();
    assert!(status.success());
    from(&layout, "third", digest).unwrap();
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path()) {
        let mut bytes = fs::read(&blob).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            *bytes.last_mut().unwrap() ^= 1;
            fs::set_permissions(&blob, fs::Permissions::from_mode(0o644)).unwrap();
            fs::write(&blob, bytes).unwrap();
        }
    }
    let tampered = from(&layout, "fourth", digest);
    assert!(matches!(tampered, Err(Error::Integrity(_))), "{tampered:?}");
}

#[test]
fn a_step_that_needs_another_id_than_the_users_own_says_how_to_get_it() {
    let daemon = Daemon::docker20();
    // Whoever runs as nobody has no ranges of ids.
    let build = with_cargo(&daemon, "chown 5:6 /app-build");
    daemon.run(["push", "-q", &build.name]);
    let project = Project::hello("hello");
    let line = ["release", "--builder", "embedded", "-o", "-", "-t", "x.invalid/x:1", "-b", &build.name];
    let ended = Roche::new(project.root()).args(line).args(["-r", &image("runtime-busybox")]).as_nobody().run();
    ended.fails(
        1,
        &["failed with exit status 1", "chown: /app-build: Invalid argument", "hint: ", "usermod --add-subuids", "/etc/subuid"],
    );
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
