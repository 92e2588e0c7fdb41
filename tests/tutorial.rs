//! `docs/tutorial.md` is run as it stands: every command, and what it is said to print.
//!
//! In its `sh` blocks a line that starts with `$ ` is a command, and the lines up to the next one
//! are what it prints, both streams together; `...` stands for any text, alone on a line for any
//! lines. Folders and exported variables last from one command to the next. `roche` and `docker`
//! are the ones under test. The reader's set-up (which daemon, which images) comes as DOCKER_HOST,
//! release_build_image and runtime_image.
//!
//! Red when: a command of the tutorial fails or prints something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::harness::{Daemon, image, on_every_daemon};

/// The tutorial publishes a port of the machine, so that only one of it runs at a time.
static PORT: Mutex<()> = Mutex::new(());

on_every_daemon!(the_tutorial_is_true);
fn the_tutorial_is_true(daemon: &Daemon) {
    let _port = PORT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
    let steps = steps(&fs::read_to_string(&page).expect("docs/tutorial.md is readable"));
    assert!(steps.len() >= 4, "the tutorial has {} commands: init, release, run and curl are the least", steps.len());
    let reader = Reader::new(daemon);
    for step in &steps {
        let (code, printed) = reader.types(&step.command);
        println!("$ {}\n{printed}", step.command);
        assert_eq!(code, Some(0), "line {}: $ {}\n{printed}", step.line, step.command);
        assert!(
            matches(&step.expected, &printed.lines().map(str::trim_end).collect::<Vec<_>>()),
            "line {}: $ {}\nprinted:\n{printed}\nbut the page says:\n{}",
            step.line,
            step.command,
            step.expected.join("\n")
        );
    }
}

/// A command and the lines that it is said to print.
#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

/// The commands of a page.
fn steps(page: &str) -> Vec<Step> {
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            inside = !inside && line == "```sh";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { line: number + 1, command: command.to_string(), expected: Vec::new() });
        } else if let Some(step) = steps.last_mut().filter(|_| inside) {
            if step.command.ends_with('\\') && step.expected.is_empty() {
                step.command = format!("{}\n{line}", step.command);
            } else {
                step.expected.push(line.trim_end().to_string());
            }
        }
    }
    steps
}

/// Whether what was printed is what was expected; nothing expected means anything may be printed.
fn matches(expected: &[String], printed: &[&str]) -> bool {
    fn lines(expected: &[String], printed: &[&str]) -> bool {
        match expected.split_first() {
            None => printed.iter().all(|line| line.is_empty()),
            Some((first, rest)) if first == "..." => (0..=printed.len()).any(|skip| lines(rest, &printed[skip..])),
            Some((first, rest)) => printed.split_first().is_some_and(|(line, below)| text(first, line) && lines(rest, below)),
        }
    }
    fn text(pattern: &str, line: &str) -> bool {
        match pattern.split_once("...") {
            None => pattern == line,
            Some((start, rest)) => line.strip_prefix(start).is_some_and(|after| {
                after.char_indices().map(|(i, _)| i).chain([after.len()]).any(|skip| text(rest, &after[skip..]))
            }),
        }
    }
    expected.is_empty() || lines(expected, printed)
}

/// Someone who follows the page in a folder of their own; containers left running are removed.
struct Reader {
    folder: tempfile::TempDir,
    daemon: Daemon,
}

impl Reader {
    fn new(daemon: &Daemon) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "home", "work"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        symlink(env!("CARGO_BIN_EXE_roche"), path("bin/roche")).unwrap();
        symlink("/usr/bin/docker", path("bin/docker")).unwrap();
        fs::write(path("variables"), "").unwrap();
        fs::write(path("where"), path("work").to_str().unwrap()).unwrap();
        Self { folder, daemon: daemon.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs one command; returns its exit code and what both streams got.
    fn types(&self, command: &str) -> (Option<i32>, String) {
        let script = format!(
            "exec 2>&1; . '{0}'; cd \"$(cat '{1}')\"\n{command}\ncode=$?; export -p >'{0}'; pwd >'{1}'; exit $code",
            self.path("variables").display(),
            self.path("where").display()
        );
        let machines = std::env::var("PATH").unwrap();
        let output = Command::new("timeout")
            .args(["--foreground", "300", "bash", "-c", &script])
            .env_clear()
            .env("PATH", format!("{}:{machines}", self.path("bin").display()))
            .env("HOME", self.path("home"))
            .env("TERM", "xterm-256color")
            .env("DOCKER_HOST", self.daemon.host())
            .env("release_build_image", image("build"))
            .env("runtime_image", image("runtime-debian"))
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // The tutorial names its container and image after its project.
        let _ = self.daemon.docker().args(["rm", "--force", "hello"]).output();
        let _ = self.daemon.docker().args(["image", "rm", "--force", "hello:1"]).output();
    }
}

#[test]
fn a_page_is_read_as_commands_and_what_they_print() {
    let page = "text\n```sh\n$ one\na...c\n...\nz\n$ two \\\n  more\n```\n```\n$ not this\n```\n";
    let steps = steps(page);
    let commands: Vec<&str> = steps.iter().map(|s| s.command.as_str()).collect();
    assert_eq!(commands, ["one", "two \\\n  more"]);
    assert!(matches(&steps[0].expected, &["abc", "1", "2", "z"]));
    assert!(matches(&steps[0].expected, &["ac", "z"]));
    assert!(!matches(&steps[0].expected, &["abd", "z"]));
    assert!(!matches(&steps[0].expected, &["abc", "1"]));
    assert!(matches(&steps[1].expected, &["anything"]));
}
