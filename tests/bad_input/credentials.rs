//! Docker's configuration and credential helpers that do not do what they should: 4.
//!
//! Red when: a malformed file counts as an empty one, a helper is waited for without end, is started
//! by a path or with an option for a name, or keeps running when its caller has gone.

use std::ffi::OsStr;
use std::time::Duration;

use super::{SECOND, Table, roche, script, shell};
use crate::harness::{Project, mebibytes, processes, unique};

#[test]
fn a_malformed_docker_config_gives_4_with_file_and_position() {
    let (project, mut table) = (Project::hello("x"), Table::new("docker's config.json"));
    // The position is that of the syntax; what is wrong in meaning has a name instead.
    let rows: &[(&str, &[u8], bool)] = &[
        ("half an object", b"{", true),
        ("half a text", b"{\n  \"auths\": {\n    \"x", true),
        ("a comma too many", b"{\n  \"auths\": {},\n}", true),
        ("something behind", b"{} x", true),
        ("not JSON", b"auths = 1", true),
        ("NUL", b"\0\0\0", true),
        ("not UTF-8", b"{\"auths\": {\"\xff\": {}}}", false),
        ("escapes", b"{\"\x1b[31m", true),
        ("a list", b"[]", false),
        ("a number for auths", b"{\"auths\": 1}", false),
        ("a number for auth", b"{\"auths\": {\"one.invalid\": {\"auth\": 1}}}", false),
        ("auth is no base64", b"{\"auths\": {\"one.invalid\": {\"auth\": \"!!!\"}}}", false),
        ("auth without a colon", b"{\"auths\": {\"one.invalid\": {\"auth\": \"bWFsbG9yeQ==\"}}}", false),
        ("a number for credsStore", b"{\"credsStore\": 1}", false),
        ("10,000 brackets", &[b'['; 10_000], false),
    ];
    for (what, content, positioned) in rows {
        let elsewhere = Project::empty().file("config.json", content);
        for (how, args) in [("plan", &["release", "--dry-run"][..]), ("release", &["release"])] {
            let ended = roche(project.root()).env("DOCKER_CONFIG", elsewhere.root()).args(args).run();
            table.fails(what, how, &ended, &[4], &["config.json"], SECOND);
            let said = ended.stderr.contains("line ")
                || ended.stderr.split("config.json:").nth(1).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
            table.rule(what, how, &ended, said || !positioned, "the position is not named");
        }
    }
    for (what, made) in [
        ("a folder", "mkdir config.json"),
        ("a FIFO", "mkfifo config.json"),
        ("a sparse TiB", "truncate -s 1T config.json"),
        ("a link to /dev/zero", "ln -s /dev/zero config.json"),
        ("a loop of links", "ln -s config.json config.json"),
    ] {
        let elsewhere = Project::empty();
        shell(elsewhere.root(), made);
        let ended = roche(project.root()).env("DOCKER_CONFIG", elsewhere.root()).arg("release").run();
        table.fails(what, "release", &ended, &[4], &["config.json"], SECOND);
        table.rule(what, "release", &ended, ended.peak_memory_bytes < mebibytes(64), "took more than 64 MiB");
    }
    table.end();
}

#[test]
fn a_home_that_is_not_there_works() {
    let (project, mut table) = (Project::hello("x"), Table::new("HOME"));
    let rows = [
        ("unset", "unset HOME"),
        ("empty", "HOME="),
        ("gone", "HOME=$PWD/gone"),
        ("a file", "HOME=/etc/passwd"),
        ("relative", "HOME=."),
    ];
    for (what, change) in rows {
        let line = |args: &str| format!("export HOME; {change}; exec \"$ROCHE\" release {args}");
        let ended = script(project.root(), &line("-t x:1 --dry-run"), &[]);
        table.succeeds(what, "a tag", &ended, &[b"docker.io/library/x:1"], SECOND);
        let ended = script(project.root(), &line(""), &[]);
        table.fails(what, "no tag", &ended, &[4], &["-t", "docker login"], SECOND);
        let ended = script(project.root(), &line("-t x:1"), &[]);
        table.fails(what, "a release", &ended, &[5], &["/nonexistent/docker.sock", "no record of this release is kept"], SECOND);
        table.rule(what, "a release", &ended, !project.path("gone").exists(), "a home was made");
    }
    table.end();
}

/// A release without a tag, whose login a helper with this body has to give.
fn helped(table: &mut Table, what: &str, body: &str, says: &[&str]) {
    let project = Project::hello("x").file("bin/docker-credential-odd", format!("#!/bin/bash\n{body}\n"));
    shell(project.root(), "chmod 0755 bin/*");
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let hub = r#"{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"odd"}"#;
    let own = r#"{"auths":{"one.invalid":{}},"credHelpers":{"one.invalid":"odd"}}"#;
    for (channel, config) in [("credsStore", hub), ("credHelpers", own)] {
        let call = roche(project.root()).env("PATH", &path).home_file(".docker/config.json", config).arg("release");
        let ended = call.within(Duration::from_secs(100)).run();
        table.fails(what, channel, &ended, &[4], says, Duration::from_secs(10));
        table.rule(what, channel, &ended, ended.peak_memory_bytes < mebibytes(64), "took more than 64 MiB");
    }
}

#[test]
fn helpers_that_misbehave_give_4() {
    let mut table = Table::new("credential helpers");
    // Two minutes, in digits that are this call's, so that what is left over ends in the end.
    let digits: String = unique().bytes().map(|b| char::from(b'1' + b % 9)).collect();
    let sleep = format!("sleep 120.{}", &digits[digits.len() - 8..]);
    helped(&mut table, "hangs", &format!("exec {sleep}"), &["docker-credential-odd"]);
    helped(&mut table, "hangs, and its child holds the pipe", &format!("{sleep} & wait"), &["docker-credential-odd"]);
    helped(&mut table, "never reads, never ends", &format!("exec <&-; trap '' TERM; {sleep}"), &["docker-credential-odd"]);
    helped(&mut table, "floods", "exec yes", &["docker-credential-odd"]);
    helped(&mut table, "floods its errors", "exec yes >&2", &["docker-credential-odd"]);
    helped(&mut table, "floods in one line", "exec cat /dev/zero", &["docker-credential-odd"]);
    helped(&mut table, "bad JSON", "echo '{'", &["docker-credential-odd"]);
    helped(&mut table, "JSON of another kind", "echo '[1]'", &["docker-credential-odd"]);
    helped(&mut table, "says nothing", "exit 0", &["docker-credential-odd"]);
    helped(&mut table, "fails", "echo 'the keychain is locked'; exit 1", &["docker-credential-odd"]);
    helped(&mut table, "fails with escapes", "printf '\\033[31m\\033]0;x\\007'; exit 1", &["docker-credential-odd"]);
    helped(&mut table, "dies", "kill -9 $$", &["docker-credential-odd"]);
    helped(&mut table, "has none", "echo 'credentials not found in native keychain'; exit 1", &["-t"]);
    // A helper lists users by host, and gives one host's user and secret.
    let answers = |list: &str, user: &str| {
        let got = format!("{{\"ServerURL\":\"x\",\"Username\":\"{user}\",\"Secret\":\"t\"}}");
        format!("case $1 in list) echo '{list}';; *) echo '{got}';; esac")
    };
    let listed = |user: &str| format!("{{\"https://index.docker.io/v1/\":\"{user}\",\"https://one.invalid\":\"{user}\"}}");
    for user in ["<token>", "", "../x", "Mallory X", "a\\u001b[31m"] {
        helped(&mut table, &format!("the user {user:?}"), &answers(&listed(user), user), &["-t"]);
    }
    helped(&mut table, "a user of what is no host", &answers("{\"Secret\":\"t\"}", ""), &["-t"]);
    helped(&mut table, "a user of another host", &answers("{\"https://evil.invalid:x/\":\"mallory\"}", ""), &["-t"]);
    // Nothing is left over: what a helper has started goes with it.
    std::thread::sleep(SECOND);
    let left = processes(&sleep);
    table.broken.extend((!left.is_empty()).then(|| format!("what hanging helpers had started still runs: {left:?}")));
    table.end();
}

#[test]
fn helpers_that_are_none_give_4() {
    let mut table = Table::new("names of credential helpers");
    let project = Project::hello("x").file("evil", "#!/bin/sh\ntouch \"$(dirname \"$0\")/ran\"\n");
    shell(
        project.root(),
        "mkdir docker-credential-; cp evil docker-credential-evil; cp evil docker-credential-/evil; chmod 0755 evil docker-credential-evil docker-credential-/evil",
    );
    let absolute = project.path("evil").display().to_string();
    for name in [
        "no-such-helper",
        "../evil",
        "/evil",
        "/../evil",
        &absolute,
        "x/../../evil",
        "-evil",
        "--help",
        "a b",
        "a\\nb",
        "$(id)",
        "\\u001b[31m",
        ".",
        "..",
        "\\u0000",
    ] {
        for (channel, config) in [
            ("credsStore", format!(r#"{{"auths":{{"https://index.docker.io/v1/":{{}}}},"credsStore":"{name}"}}"#)),
            ("credHelpers", format!(r#"{{"auths":{{"one.invalid":{{}}}},"credHelpers":{{"one.invalid":"{name}"}}}}"#)),
        ] {
            let call = roche(project.root()).home_file(".docker/config.json", &config).arg("release");
            let ended = call.run();
            table.fails(name, channel, &ended, &[4], &["config.json"], Duration::from_secs(10));
            let ran = project.path("ran").exists() || project.path("docker-credential-/ran").exists();
            table.rule(name, channel, &ended, !ran, "a program was started by its path");
        }
    }
    // The current folder is no place for programs, unless PATH says so.
    let line =
        "PATH=/usr/bin:/bin; mkdir -p \"$HOME/.docker\"; echo \"$1\" > \"$HOME/.docker/config.json\"; exec \"$ROCHE\" release";
    let config = r#"{"auths":{"https://index.docker.io/v1/":{}},"credsStore":"evil"}"#;
    let ended = script(project.root(), line, &[OsStr::new(config)]);
    table.fails("in the current folder", "credsStore", &ended, &[4], &["docker-credential-evil"], SECOND);
    table.rule("in the current folder", "credsStore", &ended, !project.path("ran").exists(), "it was started");
    table.end();
}

#[test]
fn one_hosts_helper_is_never_asked_for_another() {
    let project = Project::hello("x");
    let helper = r#"#!/bin/sh
        case $1 in
            list) echo '{"https://one.invalid":"mallory","https://two.invalid":"alice"}' ;;
            *) tee -a "$(dirname "$0")/asked" | grep -q one.invalid && echo '{"Username":"mallory","Secret":"x"}' ;;
        esac
    "#;
    project.write("bin/docker-credential-one", helper);
    shell(project.root(), "chmod 0755 bin/*");
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    for config in [
        r#"{"auths":{"one.invalid":{}},"credHelpers":{"one.invalid":"one"}}"#,
        // `docker login` on a host with a helper of its own may leave no entry in auths.
        r#"{"credHelpers":{"one.invalid":"one"}}"#,
    ] {
        let call = roche(project.root()).env("PATH", &path).home_file(".docker/config.json", config);
        let ended = call.args(["release", "--dry-run"]).run().succeeds();
        assert!(ended.stdout_text().contains("one.invalid/mallory/shop"), "{config}\n{}", ended.story());
    }
    // Which of the two it is asked, `list` or `get`, is the program's choice.
    let asked = std::fs::read_to_string(project.path("bin/asked")).unwrap_or_default();
    assert!(asked.lines().all(|line| line.contains("one.invalid")), "asked for {asked:?}");
}
