//! The protocol of a standalone buildkitd, spoken to a real dockerd through `tests/setup/relay`.
//!
//! Red when: the session does not open as a stream of `Control.Session`; a back end that is named
//! is not taken, or another one is taken in its place.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::{Daemon, Ended, Project, Roche, Sleeping, on_every_daemon, unique};

on_every_daemon!(a_named_buildkitd_is_the_back_end);
fn a_named_buildkitd_is_the_back_end(daemon: &Daemon) {
    let (relay, nowhere) = (Relay::start(daemon), "unix:///nonexistent/docker.sock");
    let project = Project::hello(&unique());
    let release = |call: Roche| call.args(["-t", "x.invalid/x:1", "-o", "type=tar,dest=out.tar"]).run();
    let call = || Roche::release(daemon, project.root());
    let by_flag = release(call().env("DOCKER_HOST", nowhere).env("BUILDKIT_HOST", nowhere).args(["--addr", &relay.address()]));
    check(&project, &by_flag, &relay, "--addr");
    let by_variable = release(call().env("DOCKER_HOST", nowhere).env("BUILDKIT_HOST", relay.address()));
    check(&project, &by_variable, &relay, "BUILDKIT_HOST");
    release(call().env("BUILDKIT_HOST", nowhere)).fails(5, &["/nonexistent/docker.sock", "BUILDKIT_HOST"]);
}

fn check(project: &Project, ended: &Ended, relay: &Relay, origin: &str) {
    assert_eq!(ended.status.code(), Some(0), "{}", ended.story());
    assert!(ended.stderr.contains(&relay.address()) && ended.stderr.contains(origin), "{}", ended.story());
    let archive = project.path("out.tar");
    let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(names.contains("app/roche-service") && names.contains("app/run.sh"), "{names}");
    std::fs::remove_file(archive).unwrap();
}

on_every_daemon!(a_signal_cancels_there_too);
fn a_signal_cancels_there_too(daemon: &Daemon) {
    let (relay, project) = (Relay::start(daemon), Project::hello(&unique()));
    let sleeping = Sleeping::image(daemon);
    let line = ["--addr", &relay.address(), "-b", &sleeping.tag.name, "-t", "x.invalid/x:1", "-o", "out.tar"].map(String::from);
    let mut running = Roche::release(daemon, project.root()).args(line).args(["--progress", "plain"]).start();
    sleeping.wait_for_the_step(&mut running);
    running.signal("TERM");
    running.ends_within(Duration::from_secs(10)).fails(143, &["cancelled"]);
    sleeping.assert_gone_within(Duration::from_secs(10));
    assert!(!project.path("out.tar").exists());
}

/// A socket that speaks as buildkitd does; it ends with the value.
struct Relay {
    child: Child,
    folder: tempfile::TempDir,
}

impl Relay {
    fn start(daemon: &Daemon) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = PathBuf::from(std::env::var_os("ROCHE_TEST_SETUP").expect("ROCHE_TEST_SETUP is set")).join("relay");
        let mut command = Command::new(script);
        command.arg(&daemon.socket).arg(socket(folder.path())).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("tests/setup/relay starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the relay did not start");
        Self { child, folder }
    }

    fn address(&self) -> String {
        format!("unix://{}", socket(self.folder.path()).display())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("buildkitd.sock")
}
