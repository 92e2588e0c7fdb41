//! Progress in each of its forms, on a terminal and elsewhere.
//!
//! A terminal is made with `script`. Red when: plain or rawjson is not what buildx prints; quiet is
//! not quiet; colour or cursor movement reaches what is no terminal, or NO_COLOR is not obeyed; an
//! escape sequence of a step reaches the terminal.

use std::process::Command;

use crate::harness::{Daemon, Project, Roche, Trace, image, on_every_daemon, unique, with_cargo};

on_every_daemon!(plain_names_each_vertex_and_what_became_of_it);
fn plain_names_each_vertex_and_what_became_of_it(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let release = || Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "plain"]).run().succeeds();
    let first = release();
    let says = |text: &str, pattern: &dyn Fn(&str) -> bool| text.lines().any(|l| l.starts_with('#') && pattern(l));
    assert!(says(&first.stderr, &|l| l.contains(" DONE ") && l.ends_with('s')), "no DONE\n{}", first.story());
    assert!(says(&first.stderr, &|l| l.contains("Compiling roche-service")), "no log line\n{}", first.story());
    let second = release();
    assert!(says(&second.stderr, &|l| l.ends_with(" CACHED")), "no CACHED\n{}", second.story());
}

on_every_daemon!(rawjson_is_one_object_a_line);
fn rawjson_is_one_object_a_line(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "rawjson"]).run().succeeds();
    let trace = Trace::of(&ended.stderr);
    assert!(trace.of_the_definition().all(|(_, v)| v.completed && v.error.is_empty()), "{:?}", trace.vertices);
    assert!(String::from_utf8_lossy(&trace.log).contains("roche-service"), "the step's log is in it");
}

on_every_daemon!(quiet_shows_no_vertex);
fn quiet_shows_no_vertex(daemon: &Daemon) {
    let (project, tag) = (Project::hello(&unique()), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(["--progress", "quiet"]).run().succeeds();
    assert!(!ended.stderr.contains("Compiling") && !ended.stderr.lines().any(|l| l.starts_with('#')), "{}", ended.story());
    assert_eq!(ended.reference_and_digest().0, tag.name);
}

on_every_daemon!(a_step_cannot_speak_to_the_terminal);
fn a_step_cannot_speak_to_the_terminal(daemon: &Daemon) {
    // A window title, a clipboard write, a cleared screen, an 8-bit control sequence.
    let script = r"printf '\033]0;owned\007\033]52;c;b3duZWQ=\007\033[2J\233A\r\b after\n' >&2; exec build-service";
    let (build_image, project, tag) = (with_cargo(daemon, script), Project::hello(&unique()), daemon.tag());
    let call = Roche::release(daemon, project.root()).tag(&tag).args(["-b", &build_image.name, "--progress", "plain"]);
    let ended = call.run().succeeds();
    assert!(ended.stderr.contains("after"), "the line itself is shown\n{}", ended.story());
    let control = ended.stderr.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
    assert_eq!(control, None, "{:?}", ended.stderr);

    for variables in [&[][..], &[("NO_COLOR", "1")]] {
        let shown = on_a_terminal(daemon, &Project::hello(&unique()), &["-b", &build_image.name, "-t", &tag.name], variables);
        for sequence in ["\x1b]0;", "\x1b]52;", "\x1b[2J", "\u{9b}"] {
            assert!(!shown.text.contains(sequence), "{sequence:?} reached the terminal: {:?}", shown.text);
        }
    }
}

on_every_daemon!(a_terminal_shows_colour_unless_it_is_told_not_to);
fn a_terminal_shows_colour_unless_it_is_told_not_to(daemon: &Daemon) {
    let project = Project::empty().file("functions.rs", "pub fn handler() -> tide::Server<()> { no_such_name() }\n");
    let tag = daemon.tag();
    let rustcs_red =
        |shown: &Shown| shown.text.contains("\x1b[38;5;9m") || shown.text.contains("\x1b[91m") || shown.text.contains("\x1b[31m");
    let line = ["-b", &image("build"), "-t", &tag.name].map(String::from);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();

    let coloured = on_a_terminal(daemon, &project, &line, &[]);
    assert_eq!(coloured.code, 1, "{}", coloured.text);
    assert!(coloured.text.contains("E0425") && rustcs_red(&coloured), "rustc's colours are lost: {:?}", coloured.text);

    let plain = on_a_terminal(daemon, &project, &line, &[("NO_COLOR", "1")]);
    assert!(plain.text.contains("E0425"), "{}", plain.text);
    assert!(!colours(&plain.text), "NO_COLOR is not obeyed: {:?}", plain.text);
}

struct Shown {
    text: String,
    code: i32,
}

/// Runs a release on a terminal of its own; returns all that the terminal was sent.
fn on_a_terminal(daemon: &Daemon, project: &Project, args: &[&str], variables: &[(&str, &str)]) -> Shown {
    let home = tempfile::tempdir().unwrap();
    let quoted: Vec<String> = args.iter().map(|arg| format!("'{arg}'")).collect();
    let line = format!("stty rows 40 cols 120; '{}' release {}", env!("CARGO_BIN_EXE_roche"), quoted.join(" "));
    let output = Command::new("timeout")
        .args(["--foreground", "240", "script", "-qec", &line, "/dev/null"])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", home.path())
        .env("TERM", "xterm-256color")
        .env("DOCKER_HOST", daemon.host())
        .env("release_build_image", image("build"))
        .env("runtime_image", image("runtime-busybox"))
        .envs(variables.iter().copied())
        .current_dir(project.root())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("script runs");
    Shown { text: String::from_utf8_lossy(&output.stdout).into_owned(), code: output.status.code().unwrap_or(-1) }
}

/// Whether a text holds a sequence that sets a colour: `ESC [ … m` with a number of one.
fn colours(text: &str) -> bool {
    text.split("\x1b[").skip(1).any(|rest| {
        let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
        rest[end..].starts_with('m') && rest[..end].split(';').any(|n| matches!(n.parse(), Ok(30..=49 | 90..=107)))
    })
}
