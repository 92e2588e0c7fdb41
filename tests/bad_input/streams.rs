//! Streams that are closed, full or broken, and terminals that are not what they say: an honest
//! result.
//!
//! Red when: a plan that could not be written ends with 0; a stream that is closed changes an exit
//! code, kills the program, or lets a message into a file; TERM or COLUMNS divide by zero.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::{DEAD, SECOND, Table, plan, roche, script};
use crate::harness::{Project, image};

#[test]
fn a_plan_that_cannot_be_written_is_no_success() {
    let (project, mut table) = (Project::hello("x"), Table::new("standard output"));
    for form in ["text", "json", "dot", "mermaid", "html", "llb", "dockerfile"] {
        // A stream that is open for reading alone takes no plan, and the write says so.
        for (what, redirect) in [("full", ">/dev/full"), ("closed", ">&-"), ("read only", "1</dev/null")] {
            let line = format!("exec \"$ROCHE\" release -t x:1 --dry-run={form} {redirect}");
            let ended = script(project.root(), &line, &[]);
            let channel = format!("--dry-run={form}");
            // Whoever closes it wants no plan, as cargo and most programs see it.
            if what == "closed" && ended.status.code() == Some(0) {
                table.succeeds(what, &channel, &ended, &[], SECOND);
                continue;
            }
            table.rule(what, &channel, &ended, ended.status.code() != Some(0), "ended with 0, and nobody has the plan");
            table.rule(what, &channel, &ended, matches!(ended.status.code(), Some(2 | 10)), "not 2 or 10");
            table.rule(what, &channel, &ended, ended.lines("error: ").len() == 1, "not one error");
            table.rule(what, &channel, &ended, !ended.stderr.contains("panicked"), "it panicked");
        }
    }
    for words in ["--help", "--version", "release --help"] {
        let ended = script(project.root(), &format!("exec \"$ROCHE\" {words} >/dev/full"), &[]);
        table.rule("full", words, &ended, !ended.stderr.contains("panicked"), "it panicked");
        table.rule("full", words, &ended, ended.status.code() != Some(0), "ended with 0, and nobody has the text");
    }
    table.end();
}

#[test]
fn a_broken_pipe_is_no_panic() {
    let project = Project::hello("x");
    for args in
        [&["release", "-t", "x:1", "--dry-run=json"][..], &["release", "-t", "x:1", "--dry-run=html"], &["release", "--help"]]
    {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_roche"));
        command.env_clear().env("HOME", project.root()).env("DOCKER_HOST", DEAD).current_dir(project.root());
        command.env("release_build_image", image("build")).env("runtime_image", image("runtime-busybox"));
        let output = command.args(args).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        // Whoever read has gone: quiet, by the signal or with an error, but not as a crash.
        assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
        assert!(!matches!(output.status.code(), Some(101 | 134)), "{args:?}: {:?}\n{stderr}", output.status);
    }
}

#[test]
fn streams_that_are_closed_change_no_exit_code() {
    let (project, mut table) = (Project::hello("x"), Table::new("closed streams"));
    let whole = plan(project.root(), "llb").run().succeeds().stdout;
    let redirects = ["<&-", "2>&-", "<&- 2>&-", "2>/dev/full", "0>/dev/null", "<.", "2>&1 2>&-"];
    for redirect in redirects {
        let ended = script(project.root(), &format!("exec \"$ROCHE\" release -t x:1 --dry-run=llb {redirect}"), &[]);
        table.succeeds(redirect, "a plan", &ended, &[], SECOND);
        table.rule(redirect, "a plan", &ended, ended.stdout == whole, "the plan has changed");
        for (code, args) in [(5, "-t x:1"), (2, "-t a//b"), (4, ""), (2, "--no-such-flag")] {
            let ended = script(project.root(), &format!("exec \"$ROCHE\" release {args} {redirect}"), &[]);
            let channel = format!("a failure with {code}");
            let kept = ended.status.code() == Some(code) && ended.stdout.is_empty();
            table.rule(redirect, &channel, &ended, kept, &format!("not exit code {code} and nothing on stdout"));
        }
    }
    let kept = fs::read_to_string(project.path("functions.rs")).unwrap() == Project::function("x");
    assert!(kept, "a message went into a file that took a stream's number");
    table.end();
}

#[test]
fn odd_terminals_change_nothing() {
    let (project, mut table) = (Project::hello("x"), Table::new("TERM and COLUMNS"));
    let whole = plan(project.root(), "text").run().succeeds().stdout;
    let rows = [
        ("TERM", &["", "dumb", "no-such-terminal", "\u{1b}[31m", "../../etc/passwd", "xterm\n"][..]),
        ("COLUMNS", &["", "0", "1", "-1", "99999", "99999999999999999999", "text", "1e3", " 80", "\u{1b}[31m"]),
        ("LINES", &["0", "99999", "text"]),
        ("NO_COLOR", &["", "1"]),
        ("CLICOLOR_FORCE", &["0", "text"]),
        ("RUST_BACKTRACE", &["full"]),
        ("LANG", &["C", "no_SUCH.encoding"]),
        ("LC_ALL", &["POSIX", "tr_TR.UTF-8"]),
    ];
    for (variable, values) in rows {
        for value in values {
            let ended = plan(project.root(), "text").env(variable, value).run();
            table.succeeds(value, variable, &ended, &[], SECOND);
            table.rule(value, variable, &ended, ended.stdout == whole, "the plan has changed");
            let ended = roche(project.root()).env(variable, value).args(["release", "-t", "x:1"]).run();
            table.fails(value, variable, &ended, &[5], &["/nonexistent/docker.sock"], SECOND);
            let ended = roche(project.root()).env(variable, value).args(["release", "--help"]).run();
            table.succeeds(value, variable, &ended, &[b"--tag"], SECOND);
        }
    }
    table.end();
}

#[test]
fn odd_widths_of_a_real_terminal_are_no_panic() {
    let project = Project::hello("x");
    for (columns, rows) in [(0, 0), (1, 1), (2, 1), (65535, 65535)] {
        for args in ["release --help", "release -t x:1 --dry-run", "release -t x:1 --progress tty", "release -t a//b"] {
            let inner = format!("stty cols {columns} rows {rows}; \"$ROCHE\" {args}; echo ended with $?");
            let ended = script(project.root(), "exec script -qec \"$1\" /dev/null", &[OsStr::new(&inner)]);
            let shown = ended.stdout_text();
            let code = if args.contains("a//b") {
                2
            } else if args.contains("tty") {
                5
            } else {
                0
            };
            let honest = shown.contains(&format!("ended with {code}")) && !shown.contains("panicked");
            assert!(honest, "{columns} columns, {rows} rows, {args}:\n{}", ended.story());
        }
    }
}
