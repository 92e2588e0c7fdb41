//! One call of the program, without anything of the machine's environment.
//!
//! Invariant: no call outlives its test, and none is waited for without a deadline.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::peak_memory_bytes;
use super::{Daemon, Ended, Tag, image};

/// How long a call may take that says nothing else; a compile step on a busy machine is in it.
const PATIENCE: Duration = Duration::from_secs(300);

/// A call that is being put together: [`Self::run`] or [`Self::start`] ends it.
pub(crate) struct Roche {
    command: Command,
    home: TempDir,
    deadline: Duration,
}

impl Roche {
    /// `roche` in a folder: an empty home, PATH as it is, no other variable but a terminal's name.
    pub(crate) fn new(dir: &Path) -> Self {
        let home = tempfile::tempdir().expect("a home is made");
        let mut command = Command::new(env!("CARGO_BIN_EXE_roche"));
        command.env_clear().current_dir(dir).stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home.path()).env("TERM", "xterm-256color");
        Self { command, home, deadline: PATIENCE }
    }

    /// `roche release` on a daemon, with the build image of the tests and the smallest runtime.
    pub(crate) fn release(daemon: &Daemon, dir: &Path) -> Self {
        Self::new(dir).on(daemon).arg("release").build_image(&image("build")).runtime(&image("runtime-busybox"))
    }

    /// `roche release` by the embedded engine, with its store in `cache`.
    pub(crate) fn embedded(dir: &Path, cache: &Path) -> Self {
        Self::new(dir).args(["release", "--builder", "embedded"]).env("XDG_CACHE_HOME", cache)
    }

    /// Names the daemon, by DOCKER_HOST.
    pub(crate) fn on(self, daemon: &Daemon) -> Self {
        self.env("DOCKER_HOST", daemon.host())
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Names the build image, by its variable, so that `-b` may still be given.
    pub(crate) fn build_image(self, reference: &str) -> Self {
        self.env("release_build_image", reference)
    }

    /// Names the runtime image, by its variable, so that `-r` may still be given.
    pub(crate) fn runtime(self, reference: &str) -> Self {
        self.env("runtime_image", reference)
    }

    /// Adds `-t`.
    pub(crate) fn tag(self, tag: &Tag) -> Self {
        self.args(["-t", &tag.name])
    }

    /// Adds an argument.
    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.command.args(args);
        self
    }

    /// Writes a file of the user's home, such as `.docker/config.json`.
    pub(crate) fn home_file(self, path: &str, content: &str) -> Self {
        let path = self.home.path().join(path);
        fs::create_dir_all(path.parent().expect("below the home")).expect("the folders are made");
        fs::write(path, content).expect("the file is written");
        self
    }

    /// Runs as the user nobody, with a copy of the program that nobody may read.
    #[expect(clippy::wrong_self_convention, reason = "a call is put together by value")]
    pub(crate) fn as_nobody(mut self) -> Self {
        let copy = self.home.path().join("roche");
        copy_program(Path::new(self.command.get_program()), &copy);
        let opened = Command::new("chmod").args(["-R", "a+rwX"]).arg(self.home.path()).status().expect("chmod runs");
        assert!(opened.success(), "the home was not opened");
        self = self.program(&copy);
        self.command.uid(65534).gid(65534);
        self
    }

    /// Runs a copy of the program.
    pub(crate) fn program(mut self, copy: &Path) -> Self {
        let mut command = Command::new(copy);
        command.env_clear().stdin(Stdio::null()).current_dir(self.command.get_current_dir().expect("set by new"));
        command.args(self.command.get_args());
        command.envs(self.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.command = command;
        self
    }

    /// Runs as a user and the group of the same number.
    pub(crate) fn user(mut self, id: u32) -> Self {
        self.command.uid(id).gid(id);
        self
    }

    /// Says how long the call may take.
    pub(crate) fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Runs to the end; a call that passes its deadline is killed and fails the test.
    #[track_caller]
    pub(crate) fn run(self) -> Ended {
        let deadline = self.deadline;
        self.start().ends_within(deadline)
    }

    /// Starts the call and returns at once.
    #[track_caller]
    pub(crate) fn start(mut self) -> Running {
        let line = self.line();
        let mut child = self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let stdout = Stream::of(child.stdout.take().expect("piped"));
        let stderr = Stream::of(child.stderr.take().expect("piped"));
        Running { child, stdout, stderr, line, started: Instant::now(), peak_memory_bytes: 0, _home: self.home }
    }

    /// The call as one would type it, for messages.
    fn line(&self) -> String {
        let words = self.command.get_args().map(|arg| arg.to_string_lossy());
        words.fold("roche".to_string(), |line, word| format!("{line} {word}"))
    }
}

/// A call in progress; it is killed with the value.
pub(crate) struct Running {
    child: Child,
    stdout: Stream,
    stderr: Stream,
    line: String,
    started: Instant,
    peak_memory_bytes: u64,
    _home: TempDir,
}

impl Running {
    /// Fails the test where the call has ended already.
    #[track_caller]
    pub(crate) fn check_alive(&mut self) {
        let ended = self.poll();
        assert!(ended.is_none(), "{} has ended ({ended:?}):\n{}", self.line, self.stderr.text());
    }

    /// What it has said on standard error until now.
    pub(crate) fn said(&self) -> String {
        self.stderr.text()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_some()
    }

    /// Ends it by SIGKILL; says whether it ran until then.
    pub(crate) fn kill(mut self) -> bool {
        let ran = !self.has_ended();
        if ran {
            self.child.kill().expect("the child is ours");
            self.child.wait().expect("the child is ours");
        }
        ran
    }

    /// Sends a signal by its name, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(sent.success(), "SIG{name} could not be sent");
    }

    /// Waits for the end; fails the test where it does not come in time.
    #[track_caller]
    pub(crate) fn ends_within(mut self, deadline: Duration) -> Ended {
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.poll() {
                break status;
            }
            assert!(
                asked.elapsed() < deadline,
                "{} did not end within {deadline:?}; until then it said:\n{}",
                self.line,
                self.stderr.text()
            );
        };
        Ended {
            line: self.line.clone(),
            status,
            stdout: self.stdout.finish(),
            stderr: String::from_utf8_lossy(&self.stderr.finish()).into_owned(),
            elapsed: self.started.elapsed(),
            waited: asked.elapsed(),
            peak_memory_bytes: self.peak_memory_bytes,
        }
    }

    fn poll(&mut self) -> Option<ExitStatus> {
        self.peak_memory_bytes = peak_memory_bytes(self.child.id()).unwrap_or(0).max(self.peak_memory_bytes);
        let status = self.child.try_wait().expect("the child is ours");
        if status.is_none() {
            thread::sleep(Duration::from_millis(10));
        }
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A stream that is read while the call runs.
struct Stream {
    data: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn of(mut from: impl Read + Send + 'static) -> Self {
        let data = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&data);
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 65536];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                sink.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { data, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.data.lock().expect("no reader panics")).into_owned()
    }

    fn finish(&mut self) -> Vec<u8> {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("no reader panics");
        }
        std::mem::take(&mut self.data.lock().expect("no reader panics"))
    }
}

/// Copies a program. Another process writes it: what a test starts elsewhere in that moment would inherit the open file, and
/// until it is a program itself the copy could not be executed (ETXTBSY).
#[track_caller]
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "the program was not copied");
}
