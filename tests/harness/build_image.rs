//! Build images that tests make of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Daemon, Tag, fixture, image};

/// A build image of a few megabytes whose `cargo` is a shell script, without its first line. The
/// script calls `build-service` where a service is to come out of it.
#[track_caller]
pub(crate) fn with_cargo(daemon: &Daemon, script: &str) -> Tag {
    let context = tempfile::tempdir().expect("a temporary folder is made");
    let from = fixture("tiny-build/.");
    assert!(Command::new("cp").arg("-r").arg(from).arg(context.path()).status().expect("cp runs").success());
    let cargo = context.path().join("cargo");
    fs::write(&cargo, format!("#!/bin/sh\n{script}\n")).expect("the script is written");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("the script's mode is set");
    daemon.build(context.path(), &[("BASE", &image("runtime-busybox"))])
}

/// The build image of the tests with all its files dated 2100.
#[track_caller]
pub(crate) fn dated_2100(daemon: &Daemon) -> Tag {
    daemon.build(&fixture("dated-build"), &[("BASE", &image("build"))])
}
