//! Build images that tests make of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::process::processes;
use super::{Daemon, Running, Tag, fixture, image, unique};

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

/// A build image whose cargo sleeps for a number of seconds that nothing else sleeps for, so that
/// its step is known among the machine's processes.
pub(crate) struct Sleeping {
    /// The image.
    pub(crate) tag: Tag,
    command: String,
}

impl Sleeping {
    /// Makes the image.
    pub(crate) fn image(daemon: &Daemon) -> Self {
        // Years, in digits that are this call's.
        let digits: String = unique().bytes().map(|b| char::from(b'1' + b % 9)).collect();
        let command = format!("sleep 9{}", &digits[digits.len() - 8..]);
        Self { tag: with_cargo(daemon, &format!("echo cargo falls asleep\nexec {command}")), command }
    }

    /// Waits until the step runs.
    #[track_caller]
    pub(crate) fn wait_for_the_step(&self, running: &mut Running) {
        let started = Instant::now();
        while processes(&self.command).is_empty() {
            running.check_alive();
            assert!(started.elapsed() < Duration::from_secs(120), "the step never slept");
        }
    }

    /// Fails the test where the step still runs at a deadline.
    #[track_caller]
    pub(crate) fn assert_gone_within(&self, deadline: Duration) {
        let started = Instant::now();
        while !processes(&self.command).is_empty() {
            assert!(started.elapsed() < deadline, "the step still runs: {:?}", processes(&self.command));
            thread::sleep(Duration::from_millis(20));
        }
    }
}
