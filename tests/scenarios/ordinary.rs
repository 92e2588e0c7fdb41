//! The embedded engine as an ordinary user has it: the tests' own program, started again as the
//! user nobody, with an `/etc/subuid` and `/etc/subgid` that this test says.
//!
//! Invariant: the machine's files stay as they are; what the user sees in `/etc` is mounted in a
//! mount namespace of its own.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, ptr};

use roche_engine::Definition;
use roche_engine::solver::JobOptions;
use serde::{Deserialize, Serialize};

use super::backends::{Failed, solve_embedded};
use super::draft;

/// What the program is called where it solves (`argv[0]`).
const NAME: &str = "solve-a-scenario";
/// Debian's user nobody, and its group.
const NOBODY: u32 = 65534;

/// An ordinary user with a store of its own.
pub(super) struct Ordinary {
    folder: PathBuf,
    ranges: CString,
}

/// One definition for the program to solve.
#[derive(Serialize, Deserialize)]
struct Task {
    store: PathBuf,
    archive: PathBuf,
    definition: Vec<u8>,
    locals: BTreeMap<String, PathBuf>,
    secrets: BTreeMap<String, Vec<u8>>,
}

impl Ordinary {
    /// Makes a user's folder in `parent`; `ranges` is the text of `/etc/subuid` and `/etc/subgid`.
    pub(super) fn new(parent: &Path, ranges: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("user").tempdir_in(parent).expect("a folder is made").keep();
        fs::write(folder.join("ranges"), ranges).expect("the ranges are written");
        let text = CString::new(folder.join("ranges").as_os_str().as_bytes()).expect("a path has no NUL");
        give(&folder);
        Self { folder, ranges: text }
    }

    /// Solves a definition as the user; its tree becomes the `archive`, whose folder becomes the user's.
    pub(super) fn solve(&self, definition: &Definition, options: JobOptions, archive: &Path) -> Result<(), Failed> {
        give(archive.parent().expect("a file lies in a folder"));
        let task = Task {
            store: self.folder.join("store"),
            archive: archive.to_owned(),
            definition: definition.encode(),
            locals: options.locals.into_iter().map(|(name, local)| (name, local.path)).collect(),
            secrets: options.secrets,
        };
        let mut command = Command::new("/proc/self/exe");
        command.arg0(NAME).env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ranges = self.ranges.clone();
        // SAFETY: system calls alone, on strings that exist already.
        unsafe { command.pre_exec(move || become_nobody(&ranges)) };
        let mut child = command.spawn().expect("the program starts as nobody, in a mount namespace of its own");
        let line = serde_json::to_vec(&task).expect("a task is JSON");
        child.stdin.take().expect("piped").write_all(&line).expect("the program reads its task");
        let output = child.wait_with_output().expect("the program ends");
        let said = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}: {said}", output.status))
    }
}

/// Gives a folder and all that is in it to the user.
fn give(folder: &Path) {
    lchown(folder, Some(NOBODY), Some(NOBODY)).expect("root gives a file away");
    for entry in fs::read_dir(folder).expect("the folder is read") {
        let path = entry.expect("the folder is read").path();
        if path.symlink_metadata().expect("it is there").is_dir() {
            give(&path);
        } else {
            lchown(&path, Some(NOBODY), Some(NOBODY)).expect("root gives a file away");
        }
    }
}

/// Puts `ranges` over the machine's own, and becomes nobody for good.
fn become_nobody(ranges: &CString) -> io::Result<()> {
    let done = |result: i32| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    // SAFETY: the strings end with NUL and outlive the calls; the process has one thread.
    unsafe {
        done(libc::unshare(libc::CLONE_NEWNS))?;
        done(libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), libc::MS_REC | libc::MS_PRIVATE, ptr::null()))?;
        for file in [c"/etc/subuid", c"/etc/subgid"] {
            done(libc::mount(ranges.as_ptr(), file.as_ptr(), ptr::null(), libc::MS_BIND, ptr::null()))?;
        }
        done(libc::setgroups(0, ptr::null()))?;
        done(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        done(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        // As Rust's programs have it; this one does its work before its runtime starts.
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    Ok(())
}

/// Solves one definition and ends the process, where this process was started for it. To be called
/// before the tests' harness, which would take the name for its own.
pub(super) fn solve_if_asked() {
    if env::args_os().next().is_none_or(|name| name != NAME) {
        return;
    }
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text).expect("the task is read");
    let task: Task = serde_json::from_slice(&text).expect("the task is JSON");
    let definition = Definition::decode(&task.definition).expect("the definition is decoded");
    let locals = task.locals.into_iter().map(|(name, path)| (name, draft::folder(path))).collect();
    let options = JobOptions { locals, secrets: task.secrets, ..JobOptions::default() };
    let answer = solve_embedded(&task.store, &definition, options, &task.archive);
    println!("{}", serde_json::to_string(&answer).expect("an answer is JSON"));
    std::process::exit(0);
}
