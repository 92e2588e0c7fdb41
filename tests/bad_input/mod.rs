//! Bad input: the rows of the contract that concern the command line, the project, the
//! configuration and the back end's address.
//!
//! A test is a table. A cell of it is an input in a channel (a flag, a variable, a file), and keeps
//! the rules of every failure ([`Ended::check_failure`]), of the terminal (no control or bidi
//! character gets through) and of time: the contract's deadline, times five for a busy machine.
//! `tests/run -- --nocapture bad_input` prints the tables with the count of distinct cells.
//!
//! Most calls name a socket that is not there, so that a verdict which needed a daemon would be 5.

mod contents;
mod credentials;
mod daemon;
mod files;
mod function_file;
mod login;
mod options;
mod outputs;
mod paths;
mod references;
mod settings;
mod streams;
mod tree;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Ended, Roche, image};

/// A host where nobody listens.
const DEAD: &str = "unix:///nonexistent/docker.sock";

/// The contract's deadline for what needs nothing but the machine.
const SECOND: Duration = Duration::from_secs(1);

/// The contract's deadlines are met five times over on a busy machine.
const SLACK: u32 = 5;

/// `roche` in a folder, with no daemon, and with images that the local registry has.
fn roche(dir: &Path) -> Roche {
    Roche::new(dir).env("DOCKER_HOST", DEAD).build_image(&image("build")).runtime(&image("runtime-busybox"))
}

/// A plan, which needs no daemon.
fn plan(dir: &Path, form: &str) -> Roche {
    roche(dir).args(["release", "-t", "x:1"]).arg(format!("--dry-run={form}"))
}

/// Runs a shell's script, where `"$ROCHE"` is the program, for what [`Roche`] has no words for.
/// The environment is as hermetic; the script is ended after a minute, with exit code 124.
#[track_caller]
fn script(dir: &Path, script: &str, args: &[&OsStr]) -> Ended {
    let home = tempfile::tempdir().expect("a home is made");
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-c", script, "bash"]).args(args).current_dir(dir).stdin(Stdio::null());
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home.path());
    command.env("TERM", "xterm-256color").env("ROCHE", env!("CARGO_BIN_EXE_roche")).env("DOCKER_HOST", DEAD);
    command.env("release_build_image", image("build")).env("runtime_image", image("runtime-busybox"));
    let started = Instant::now();
    let output = command.output().expect("timeout runs");
    Ended {
        line: format!("the script {script:?}"),
        status: output.status,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        elapsed: started.elapsed(),
        waited: started.elapsed(),
        peak_memory_bytes: 0,
    }
}

/// Runs a set-up line of the shell in a folder.
#[track_caller]
fn shell(dir: &Path, line: &str) {
    let done = Command::new("bash").args(["-ec", line]).current_dir(dir).stdin(Stdio::null()).status().expect("bash runs");
    assert!(done.success(), "{line:?} failed in {}", dir.display());
}

/// Bytes as an argument or a file's name.
fn raw(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// Cells that were tried, printed as they come; [`Self::end`] fails with all that broke a rule.
struct Table {
    title: &'static str,
    cells: BTreeSet<(String, String)>,
    broken: Vec<String>,
}

impl Table {
    fn new(title: &'static str) -> Self {
        println!("\n{title}\n{:<44} {:<22} {:>4} {:>7}  message", "input", "channel", "code", "seconds");
        Self { title, cells: BTreeSet::new(), broken: Vec::new() }
    }

    /// The cell has to fail with one of these codes, say all of `says`, and be done in time.
    fn fails(&mut self, input: impl AsRef<[u8]>, channel: &str, ended: &Ended, codes: &[i32], says: &[&str], within: Duration) {
        let code = ended.status.code().filter(|code| codes.contains(code)).unwrap_or(codes[0]);
        let kept = match ended.check_failure(code, says) {
            Err(reason) if reason == "no hint" && names_what_is_legal(code, ended) => says
                .iter()
                .find(|text| !ended.stderr.contains(**text))
                .map_or(Ok(()), |text| Err(format!("stderr does not say {text:?}"))),
            kept => kept,
        };
        let kept = kept.and_then(|()| in_time_and_printable(ended, within));
        self.note(input.as_ref(), channel, ended, kept);
    }

    /// The cell has to end with 0, hold every text of `holds` on standard output, and be done in time.
    fn succeeds(&mut self, input: impl AsRef<[u8]>, channel: &str, ended: &Ended, holds: &[&[u8]], within: Duration) {
        let code = ended.status.code();
        let kept = if code != Some(0) {
            Err(format!("ended with {}, not exit code 0", ended.how()))
        } else if let Some(text) = holds.iter().find(|text| !contains(&ended.stdout, text)) {
            Err(format!("stdout does not hold {:?}", String::from_utf8_lossy(text)))
        } else {
            in_time_and_printable(ended, within)
        };
        self.note(input.as_ref(), channel, ended, kept);
    }

    /// A rule of the cell's own.
    fn rule(&mut self, input: impl AsRef<[u8]>, channel: &str, ended: &Ended, kept: bool, reason: &str) {
        let kept = if kept { Ok(()) } else { Err(reason.to_string()) };
        self.note(input.as_ref(), channel, ended, kept);
    }

    fn note(&mut self, input: &[u8], channel: &str, ended: &Ended, kept: Result<(), String>) {
        let name: String = input.escape_ascii().to_string();
        let shown: String = name.chars().take(42).collect();
        let message: String = ended.lines("error: ").join(" / ").chars().take(150).collect();
        let (code, seconds) = (ended.status.code().unwrap_or(-1), ended.elapsed.as_secs_f32());
        let mark = if kept.is_ok() { "" } else { "BROKEN " };
        if self.cells.insert((name.clone(), channel.to_string())) || kept.is_err() {
            println!("{shown:<44} {channel:<22} {code:>4} {seconds:>7.2}  {mark}{message}");
        }
        if let Err(reason) = kept {
            self.broken.push(format!("{name} in {channel}: {reason}\n{}", ended.story()));
        }
    }

    /// Prints the count, and fails where a cell broke a rule.
    #[track_caller]
    fn end(self) {
        println!("{}: {} distinct cells, {} broken", self.title, self.cells.len(), self.broken.len());
        assert!(!self.cells.is_empty(), "{} has no cell", self.title);
        assert!(self.broken.is_empty(), "{}: {} are broken\n{}", self.title, self.broken.len(), self.broken.join("\n"));
    }
}

/// Where what was typed or written is wrong, what would have been right is remedy enough.
fn names_what_is_legal(code: i32, ended: &Ended) -> bool {
    const LEGAL: [&str; 8] =
        ["expected ", "such as ", " must ", "neither ", "KEY=VALUE", ", not a ", " is not a folder", "is not UTF-8"];
    matches!(code, 2..=4) && LEGAL.iter().any(|words| ended.error().contains(words))
}

/// The deadline with its slack, and nothing on standard error that a terminal would obey.
fn in_time_and_printable(ended: &Ended, within: Duration) -> Result<(), String> {
    if ended.elapsed > within * SLACK {
        return Err(format!("took {:.1?}, and has {within:?} with slack times {SLACK}", ended.elapsed));
    }
    if ended.stderr.contains("panicked at") {
        return Err("it panicked".into());
    }
    let odd = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    match ended.stderr.chars().find(|c| odd(*c)) {
        Some(c) => Err(format!("stderr holds the character {c:?}")),
        None => Ok(()),
    }
}

/// Whether bytes hold others.
fn contains(bytes: &[u8], part: &[u8]) -> bool {
    (0..bytes.len()).any(|start| bytes[start..].starts_with(part)) || part.is_empty()
}
