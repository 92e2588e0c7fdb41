//! What a call of the program may leave on the machine, and must not: processes, mounts, files.
//!
//! Invariant: nothing but what belongs to the one bench is looked at, so that tests run side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// The ids and command lines of the processes that run `program`, or have `mark` in their
/// environment.
pub(crate) fn processes_of(program: &Path, mark: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for id in ids() {
        let folder = PathBuf::from(format!("/proc/{id}"));
        // A process may end while it is looked at; one that has ended and waits for its parent has
        // neither program nor environment.
        let runs = fs::read_link(folder.join("exe")).is_ok_and(|exe| exe == program);
        let marked = || fs::read(folder.join("environ")).is_ok_and(|all| String::from_utf8_lossy(&all).contains(mark));
        if id != std::process::id() && (runs || marked()) {
            let line = fs::read(folder.join("cmdline")).unwrap_or_default();
            found.push((id, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

/// The mounts, of whichever process, whose line names a folder.
pub(crate) fn mounts_of(folder: &Path) -> Vec<String> {
    let name = folder.to_str().expect("a temporary path is text");
    let mut found = Vec::new();
    for id in ids() {
        let mounts = fs::read_to_string(format!("/proc/{id}/mountinfo")).unwrap_or_default();
        found.extend(mounts.lines().filter(|line| line.contains(name)).map(|line| format!("{id}: {line}")));
    }
    found
}

/// The paths of all that is in a folder, at any depth.
pub(crate) fn all_in(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Waits until something is empty; fails the test with what is left after `patience`.
#[track_caller]
pub(crate) fn gone<T: std::fmt::Debug>(what: &str, patience: Duration, left: impl Fn() -> Vec<T>) {
    let started = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(started.elapsed() < patience, "{what} left after {patience:?}: {left:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is readable").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
