//! `.rocherc`: two keys count, and nothing of it gets anywhere else.
//!
//! Red when: a line that is not understood is skipped; a key gets into the environment of the
//! program or of what it starts; the order of precedence changes; a value is shown that may be secret.

use std::os::unix::fs::symlink;

use super::{DEAD, SECOND, Table, contains, plan, roche, shell};
use crate::harness::{Ended, Project, Roche, image, mebibytes, unique};

#[test]
fn a_malformed_rocherc_gives_4_with_file_and_line() {
    let mut table = Table::new("malformed .rocherc");
    let rows: &[(&str, &[u8])] = &[
        ("no equals sign", b"# first\nruntime_image\n"),
        ("no key", b"# first\n=x\n"),
        ("a quote that never ends", b"# first\nruntime_image=\"x\n"),
        ("another quote that never ends", b"# first\nruntime_image='x\n"),
        ("a space in the key", b"# first\nruntime image=x\n"),
        ("not UTF-8", b"# first\nruntime_image=\xff\xfe\n"),
        ("NUL", b"# first\nruntime_image=a\0b\n"),
        ("a shell's command", b"# first\nrm -rf /\n"),
        ("JSON", b"\n{\"runtime_image\": \"x\"}\n"),
        ("an escape sequence", b"# first\n\x1b[31mx\n"),
    ];
    for (what, content) in rows {
        for place in [".rocherc", "src/.rocherc"] {
            let project = Project::hello("x").file("src/lib.txt", "").file(place, content);
            for (how, call) in
                [("plan", plan(project.root(), "json")), ("release", roche(project.root()).args(["release", "-t", "x:1"]))]
            {
                let ended = call.run();
                let channel = format!("{place}, {how}");
                table.fails(what, &channel, &ended, &[4], &[place], SECOND);
                let line = what == &"JSON" || ended.stderr.contains(&format!("{place}:2")) || ended.error().contains("line 2");
                table.rule(what, &channel, &ended, line, "the line is not named");
            }
        }
    }
    table.end();
}

#[test]
fn a_rocherc_that_is_huge_or_no_file_gives_4() {
    let mut table = Table::new(".rocherc that is no settings file");
    for (what, made) in [
        ("100 MB of comments", "yes '# a comment' | head -c 100000000 > .rocherc"),
        ("one line of 100 MB", "(printf 'runtime_image='; yes | tr -d '\\n' | head -c 100000000) > .rocherc"),
        ("a sparse TiB", "truncate -s 1T .rocherc"),
        ("a folder", "mkdir .rocherc"),
        ("a FIFO", "mkfifo .rocherc"),
        ("a link to /dev/zero", "ln -s /dev/zero .rocherc"),
        ("a loop of links", "ln -s .rocherc .rocherc"),
    ] {
        let project = Project::hello("x");
        shell(project.root(), made);
        let ended = plan(project.root(), "json").run();
        table.fails(what, ".rocherc", &ended, &[4, 10], &[".rocherc"], SECOND);
        table.rule(what, ".rocherc", &ended, ended.peak_memory_bytes < mebibytes(64), "took more than 64 MiB");
    }
    let outside = Project::empty().file("rc", "secret outside, no equals sign\n");
    let project = Project::hello("x");
    symlink(outside.path("rc"), project.path(".rocherc")).unwrap();
    let ended = plan(project.root(), "json").run();
    table.fails("a link to outside", ".rocherc", &ended, &[3, 4], &[".rocherc"], SECOND);
    table.rule("a link to outside", ".rocherc", &ended, !ended.stderr.contains("secret outside"), "it was read");
    table.end();
}

#[test]
fn other_keys_are_ignored_with_a_notice_and_not_in_effect() {
    let secret = unique();
    let keys = [
        "PATH",
        "LD_PRELOAD",
        "DOCKER_HOST",
        "BUILDKIT_HOST",
        "DOCKER_USERNAME",
        "HOME",
        "DOCKER_CONFIG",
        "BUILDKIT_PROGRESS",
        "HTTPS_PROXY",
    ];
    let text: String = keys.iter().map(|key| format!("{key}=/{secret}/{key}\n")).collect();
    for place in [".rocherc", "src/.rocherc"] {
        let project = Project::hello("x").file(place, &text);
        let planned = plan(project.root(), "llb").run().succeeds();
        for key in keys {
            let noticed = planned.stderr.lines().any(|line| line.contains(key) && line.contains(".rocherc"));
            assert!(noticed, "no notice of {key}\n{}", planned.story());
        }
        assert!(!contains(&planned.stdout, secret.as_bytes()), "a value of {place} is in the definition");
        assert!(!planned.stderr.contains(&secret), "a value of {place} is shown\n{}", planned.story());
        // The daemon is the environment's.
        let released = roche(project.root()).args(["release", "-t", "x:1"]).run().fails(5, &["/nonexistent/docker.sock"]);
        assert!(!released.stderr.contains(&secret), "{}", released.story());
        // Nor is there a login.
        roche(project.root()).arg("release").run().fails(4, &["docker login"]);
    }
}

#[test]
fn a_path_in_a_rocherc_finds_no_helper() {
    let project = Project::hello("x");
    project.write("bin/docker-credential-mine", "#!/bin/sh\ntouch ran\nprintf '{\"Username\":\"mallory\",\"Secret\":\"x\"}'\n");
    shell(project.root(), "chmod 0755 bin/*");
    project.write(".rocherc", format!("PATH={}:/usr/bin:/bin\n", project.path("bin").display()));
    let config = r#"{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"mine"}"#;
    let ended = roche(project.root()).home_file(".docker/config.json", config).args(["release", "--dry-run"]).run();
    assert!(!project.path("ran").exists(), "a helper was found by the PATH of .rocherc\n{}", ended.story());
    ended.fails(4, &["docker-credential-mine"]);
}

/// The build image that a plan took, by the name of the image in the local registry.
#[track_caller]
fn build_image(ended: Ended) -> String {
    let ended = ended.succeeds();
    let plan: serde_json::Value = serde_json::from_slice(&ended.stdout).expect("a plan in JSON");
    let taken = plan["bases"][0]["reference"].as_str().unwrap_or_else(|| panic!("no base\n{}", ended.story())).to_string();
    ["build", "toolchain", "runtime-debian", "runtime-busybox"]
        .into_iter()
        .find(|name| taken == image(name))
        .unwrap_or_else(|| panic!("{taken} was never named"))
        .to_string()
}

#[test]
fn flag_before_environment_before_src_before_root() {
    let call = |project: &Project| {
        Roche::new(project.root()).env("DOCKER_HOST", DEAD).runtime("scratch").args(["release", "-t", "x:1", "--dry-run=json"])
    };
    let key = |name: &str| format!("release_build_image={}\n", image(name));
    let root = Project::hello("x").file(".rocherc", key("build"));
    assert_eq!(build_image(call(&root).run()), "build", "./.rocherc alone");
    let both = Project::hello("x").file(".rocherc", key("build")).file("src/.rocherc", key("toolchain"));
    assert_eq!(build_image(call(&both).run()), "toolchain", "src/.rocherc before ./.rocherc");
    let environment = || call(&both).env("release_build_image", image("runtime-debian"));
    assert_eq!(build_image(environment().run()), "runtime-debian", "the environment before both");
    let flag = image("runtime-busybox");
    assert_eq!(build_image(environment().args(["-b", &flag]).run()), "runtime-busybox", "the flag before all");
    assert_eq!(build_image(call(&both).args(["-b", &flag]).run()), "runtime-busybox", "the flag before both files");
    // Each key by itself: what src/.rocherc does not say comes from ./.rocherc.
    let other = Project::hello("x").file(".rocherc", key("build")).file("src/.rocherc", "runtime_image=scratch\n");
    assert_eq!(build_image(call(&other).run()), "build", "a key that src/.rocherc lacks");
}

#[test]
fn forms_of_a_dotenv_file_are_read() {
    let mut table = Table::new("well-formed .rocherc");
    let name = image("toolchain");
    for (what, text) in [
        ("plain", format!("release_build_image={name}\n")),
        ("no line end", format!("release_build_image={name}")),
        ("double quotes", format!("release_build_image=\"{name}\"\n")),
        ("single quotes", format!("release_build_image='{name}'\n")),
        ("export", format!("export release_build_image={name}\n")),
        ("CRLF", format!("# first\r\nrelease_build_image={name}\r\n")),
        ("a byte order mark", format!("\u{feff}release_build_image={name}\n")),
        ("a comment and empty lines", format!("\n\n# a comment\n   \nrelease_build_image={name}\n")),
        ("spaces around", format!("  release_build_image = {name}  \n")),
    ] {
        let project = Project::hello("x").file(".rocherc", text);
        let call = Roche::new(project.root()).env("DOCKER_HOST", DEAD).runtime("scratch");
        let ended = call.args(["release", "-t", "x:1", "--dry-run=json"]).run();
        table.succeeds(what, ".rocherc", &ended, &[name.as_bytes()], SECOND);
    }
    table.end();
}
