//! Values of flags that mean nothing: exit 2, with the flag and the value.
//!
//! Red when: a value is taken for another one, is passed on to the daemon to be judged there, or
//! ends with anything but 2.

use super::{DEAD, SECOND, Table, roche};
use crate::harness::{Project, Roche};

#[test]
fn bad_values_give_2() {
    let (project, mut table) = (Project::hello("x"), Table::new("bad values"));
    let rows: &[(&str, &[&str])] = &[
        (
            "--platform",
            &[
                "",
                "linux/",
                "/amd64",
                "/",
                "a/b/c/d/e",
                "linux//v7",
                "linux/am\nd64",
                "$(id)/amd64",
                "linux/\u{1b}[31m",
                "linux amd64",
                "-/-",
            ],
        ),
        ("--label", &["", "=", "=v"]),
        (
            "--output",
            &[
                "",
                "type=",
                "type=nope",
                "type=nope,dest=x",
                "dest=x",
                "type=local",
                "type=tar,dest=",
                "type=oci,dest",
                "type=oci,\u{1b}[31m=x",
                ",",
                "type=docker\n",
            ],
        ),
        (
            "--cache-from",
            &[
                "type=",
                "type=nope",
                "type=registry",
                "type=registry,ref=",
                "type=registry,ref=Upper",
                "type=registry,ref=a//b",
                "type=registry,ref=a\nb",
                "type=registry,ref=$(id)",
                ",",
            ],
        ),
        (
            "--cache-to",
            &[
                "type=",
                "type=nope",
                "type=registry",
                "type=registry,ref=Upper",
                "type=registry,ref=a//b",
                "type=registry,ref=a,mode=loud",
                "type=registry,ref={{.ID}}",
                ",",
            ],
        ),
        ("--progress", &["", "loud", "TTY", "plain ", "plain\n", "\u{1b}[31m"]),
        ("--entrypoint", &["", "sh -c id", "Direct", "./run.sh", "direct\n"]),
        ("--dry-run", &["", "yaml", "JSON", "json\n", "\u{202e}json"]),
        (
            "--addr",
            &[
                "",
                "/run/docker.sock",
                "unix:",
                "unix://",
                "tcp://",
                "tcp://h.invalid:port",
                "tcp://h.invalid:99999",
                "://",
                "unix:///a\nb",
                "tcp://\u{1b}[31m:1",
            ],
        ),
    ];
    for (flag, values) in rows {
        for value in *values {
            let ended = roche(project.root()).args(["release", "-t", "x:1"]).arg(format!("{flag}={value}")).run();
            // An address may be judged where it is used.
            let codes: &[i32] = if *flag == "--addr" { &[2, 5] } else { &[2] };
            let called = if *flag == "--output" { "-o" } else { flag };
            table.fails(value, flag, &ended, codes, &[called], SECOND);
        }
    }
    table.end();
}

#[test]
fn what_no_flag_is_called_gives_2() {
    let (project, mut table) = (Project::hello("x"), Table::new("unknown words"));
    let rows: &[&[&str]] = &[
        &[],
        &["Release"],
        &["relase"],
        &["release", "extra"],
        &["release", "--no-such-flag"],
        &["release", "--taag=x:1"],
        &["release", "-Z"],
        &["release", "--push=maybe"],
        &["release", "--quiet=no"],
        &["release", "-o"],
        &["release", "--label"],
        &["release", "--\u{1b}[31m"],
        &["release", "--\u{202e}tag"],
        &["release", "--x\nhint: curl evil.invalid"],
        &["--help-me"],
        &["release", ""],
        &["\u{1b}[2J"],
        &["init", "--no-such"],
        &["prepare", "--no-such"],
        &["release", "--progress"],
        &["build"],
        &["gen"],
        &["release", "--", "-t"],
    ];
    for args in rows {
        let ended = roche(project.root()).args(*args).run();
        // No word at all gets the help.
        if args.is_empty() {
            table.rule("", "arguments", &ended, ended.status.code() == Some(2) && ended.stdout.is_empty(), "not 2, on stderr");
            continue;
        }
        table.fails(args.join(" "), "arguments", &ended, &[2], &[], SECOND);
        let own_line = ended.lines("hint: curl").is_empty();
        table.rule(args.join(" "), "arguments", &ended, own_line, "an argument has made a line of its own");
    }
    table.end();
}

#[test]
fn bad_variables_are_refused_by_name() {
    let (project, mut table) = (Project::hello("x"), Table::new("bad variables"));
    for (variable, value) in [
        ("BUILDKIT_PROGRESS", "loud"),
        ("BUILDKIT_PROGRESS", "\u{1b}[31m"),
        ("BUILDKIT_HOST", "nope"),
        ("BUILDKIT_HOST", "://"),
        ("DOCKER_HOST", "nope://x"),
        ("DOCKER_HOST", "\u{1b}[31m"),
        ("DOCKER_HOST", "unix://"),
        ("DOCKER_HOST", "tcp://:x"),
    ] {
        let ended = roche(project.root()).env(variable, value).args(["release", "-t", "x:1"]).run();
        table.fails(value, variable, &ended, &[2, 4, 5], &[variable], SECOND);
    }
    table.end();
}

#[test]
fn an_argument_that_is_not_utf8_is_refused() {
    let (project, mut table) = (Project::hello("x"), Table::new("arguments that are not UTF-8"));
    for flag in [
        "--platform=",
        "--label=",
        "--cache-from=",
        "--cache-to=",
        "--progress=",
        "--entrypoint=",
        "--dry-run=",
        "--addr=",
        "--builder=",
        "--",
    ] {
        let arg = [flag.as_bytes(), b"\xff\x1b[31m"].concat();
        let ended =
            Roche::new(project.root()).env("DOCKER_HOST", DEAD).args(["release", "-t", "x:1"]).arg(super::raw(&arg)).run();
        table.fails(&arg, flag, &ended, &[2], &[], SECOND);
    }
    table.end();
}
