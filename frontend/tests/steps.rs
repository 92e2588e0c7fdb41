//! The steps' scripts, run for real over small trees, in each shell that a build image may have.
#![cfg(target_os = "linux")]
// A test of its own crate: clippy does not see that its functions are tests'.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "steps/compile.rs"]
mod compile;
#[path = "steps/rocheuser.rs"]
mod rocheuser;
#[path = "steps/runtime.rs"]
mod runtime;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Debian's and Alpine's, and whatever this machine has.
const SHELLS: [&[&str]; 3] = [&["/bin/sh"], &["/bin/dash"], &["/bin/busybox", "sh"]];

/// Runs a script of the frontend; every shell that is listed must be installed.
fn run(shell: &[&str], script: &str, args: &[&Path], env: &[(&str, &str)]) -> Output {
    let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stage").join(script)).unwrap();
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(script).arg("script").args(args);
    // cargo's own variables must not reach a script that looks at them.
    command.env_clear().env("PATH", std::env::var_os("PATH").expect("tests have a PATH")).envs(env.iter().copied());
    command.output().unwrap_or_else(|error| panic!("{shell:?} is not installed: {error}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Makes files under a folder; a name that ends in `/` is a folder, content `->X` is a link to X.
fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().canonicalize().unwrap().join("tree");
    fs::create_dir(&root).unwrap();
    add(&root, files);
    (outer, root)
}

fn add(root: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content.strip_prefix("->") {
            _ if name.ends_with('/') => fs::create_dir_all(&path).unwrap(),
            Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
            None => fs::write(&path, content).unwrap(),
        }
    }
}

fn executable(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Lists files and links under a folder, sorted.
fn list(root: &Path) -> Vec<String> {
    let (mut found, mut pending) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap().is_dir() {
                true => pending.push(path),
                false => found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}
