//! Real daemons: finding them, and asking them about images.
//!
//! Invariant: a daemon that is not there is a failure that says how to start it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::{Container, unique};

/// Debian's client; another one earlier in PATH may speak a newer protocol.
const DOCKER: &str = "/usr/bin/docker";

/// Held while a test uses dockerd 20.10: when builds that share steps run side by side, its BuildKit
/// may stall, or end with "panic: failed to get edge" (moby/moby#42414).
static DOCKER20: Mutex<()> = Mutex::new(());

/// A dockerd that answers.
#[derive(Clone)]
pub(crate) struct Daemon {
    /// `docker20` or `docker26` in the tally; a name of its own for one that a test has started.
    pub(crate) name: String,
    /// Its socket.
    pub(crate) socket: PathBuf,
}

impl Daemon {
    /// dockerd 20.10, with its own image store: an image has no manifest.
    pub(crate) fn docker20() -> Self {
        Self::from_variable("docker20", "ROCHE_TEST_DOCKER20")
    }

    /// dockerd 26.1 with the containerd image store.
    pub(crate) fn docker26() -> Self {
        Self::from_variable("docker26", "ROCHE_TEST_DOCKER26")
    }

    fn from_variable(name: &str, variable: &str) -> Self {
        let daemon = Self { name: name.to_string(), socket: PathBuf::from(setting(variable)) };
        let version = daemon.docker().args(["version", "--format", "{{.Server.Version}}"]).output().expect("docker runs");
        assert!(
            version.status.success(),
            "{name} does not answer on {}: start it with tests/setup/daemons start\n{}",
            daemon.socket.display(),
            String::from_utf8_lossy(&version.stderr)
        );
        daemon
    }

    /// Starts one more modern daemon, with an empty store; it ends with the value.
    /// `environment` is dockerd's.
    pub(crate) fn empty(name: &'static str, environment: &[(&str, &str)]) -> Owned {
        let script = Path::new(&setting("ROCHE_TEST_SETUP")).join("modern-daemon");
        // Made first, so that a daemon that starts halfway is ended too.
        let mut owned = Owned { daemon: Self { name: name.to_string(), socket: PathBuf::new() }, script };
        let output = Command::new(&owned.script)
            .args([name, "start"])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("tests/setup/modern-daemon runs");
        assert!(output.status.success(), "modern-daemon {name} start:\n{}", String::from_utf8_lossy(&output.stderr));
        owned.daemon.socket = String::from_utf8(output.stdout).expect("a path").trim().into();
        owned
    }

    /// Runs a test's body on this daemon, and counts it in `$ROCHE_TEST_TALLY`.
    pub(crate) fn test(self, name: &str, body: impl Fn(&Self)) {
        count(&self.name, name);
        let _alone = (self.name == "docker20").then(|| DOCKER20.lock().unwrap_or_else(PoisonError::into_inner));
        body(&self);
    }

    /// The value of DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whether images here have manifests, and with them manifest digests.
    pub(crate) fn has_manifests(&self) -> bool {
        self.name != "docker20"
    }

    /// The daemon's own files: data, log.
    pub(crate) fn folder(&self) -> &Path {
        self.socket.parent().expect("a socket lies in a folder")
    }

    /// A call of docker's client on this daemon.
    pub(crate) fn docker(&self) -> Command {
        let home = env::temp_dir().join("roche-tests-docker-home");
        fs::create_dir_all(&home).expect("docker's home is made");
        let mut command = Command::new(DOCKER);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("HOME", home);
        command.env("DOCKER_BUILDKIT", "1").arg("-H").arg(self.host()).stdin(Stdio::null());
        command
    }

    /// Runs docker's client; returns its standard output without the last newline.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let mut command = self.docker();
        command.args(args);
        let output = command.output().expect("docker runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "on {}: {command:?} failed:\n{stdout}{stderr}", self.name);
        stdout.trim_end_matches('\n').to_string()
    }

    /// What `docker image inspect` says of an image.
    #[track_caller]
    pub(crate) fn inspect(&self, image: &str) -> Value {
        let text = self.run(["image", "inspect", image]);
        let mut images: Vec<Value> = serde_json::from_str(&text).expect("docker inspect prints JSON");
        images.remove(0)
    }

    /// Whether the daemon's store holds an image of that name.
    pub(crate) fn has_image(&self, image: &str) -> bool {
        self.docker().args(["image", "inspect", image]).output().expect("docker runs").status.success()
    }

    /// A reference that nobody else uses, in the test registry; its image is removed at the end.
    pub(crate) fn tag(&self) -> Tag {
        Tag { name: format!("{}/t/{}:1", registry(), unique()), daemon: self.clone() }
    }

    /// Builds a folder's Dockerfile with `docker build`, without a network.
    #[track_caller]
    pub(crate) fn build(&self, context: &Path, arguments: &[(&str, &str)]) -> Tag {
        let tag = self.tag();
        let mut args = vec!["build".to_string(), "--network=none".into(), "-q".into(), "-t".into(), tag.name.clone()];
        for (name, value) in arguments {
            args.extend(["--build-arg".to_string(), format!("{name}={value}")]);
        }
        args.push(context.to_str().expect("a temporary folder's path is text").to_string());
        self.run(&args);
        tag
    }

    /// Starts an image as a container that serves HTTP.
    #[track_caller]
    pub(crate) fn serve(&self, image: &str, args: &[&str]) -> Container {
        Container::start(self, image, args)
    }
}

/// The reference of an image that tests own; the image goes with the value.
pub(crate) struct Tag {
    /// The full reference.
    pub(crate) name: String,
    daemon: Daemon,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        // It need not exist: many tests are about images that must not.
        let _ = self.daemon.docker().args(["image", "rm", "--force", &self.name]).output();
    }
}

/// A daemon that a test has started.
pub(crate) struct Owned {
    /// The daemon.
    pub(crate) daemon: Daemon,
    script: PathBuf,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = Command::new(&self.script).args([&self.daemon.name, "stop"]).output();
    }
}

/// The test registry, `HOST:PORT`; it asks for no login.
pub(crate) fn registry() -> String {
    setting("ROCHE_TEST_REGISTRY")
}

/// The reference of an image that the set-up has made: `build`, `toolchain`, `runtime-debian`,
/// `runtime-busybox`, `runtime-musl`, `runtime-distroless`.
pub(crate) fn image(name: &str) -> String {
    format!("{}/{name}:1", registry())
}

/// Counts a test's body in `$ROCHE_TEST_TALLY`; `backend` is a daemon's name, or the embedded engine's.
pub(crate) fn count(backend: &str, name: &str) {
    let mut tally = OpenOptions::new().append(true).create(true).open(setting("ROCHE_TEST_TALLY")).expect("the tally opens");
    // One write, so that lines of tests that run at once do not mix.
    tally.write_all(format!("{backend} {name}\n").as_bytes()).expect("the tally is written");
}

fn setting(variable: &str) -> String {
    env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: use tests/run, or tests/setup/daemons start and its env file"))
}
