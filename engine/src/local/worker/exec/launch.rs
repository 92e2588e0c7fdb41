//! The step's own process, from its namespaces to `execve`.
//!
//! Invariant: it is PID 1 of its PID namespace, so nothing that it starts outlives it; once the
//! program runs, nothing of the machine's file tree and no descriptor but 0, 1 and 2 is left.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::MountAttrFlags as Attr;
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::super::inside::{self, Leaf};
use super::super::mounting;
use super::super::protocol::{Doing, Exec, Failure, HOSTNAME, Network};
use super::confine;
use super::seccomp::Filters;
use super::system;
use super::user::User;
use crate::local::ids::Ids;

/// What a process finds on its PATH where its environment has none: BuildKit's default.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A step that is ready to start.
pub(super) struct Step<'a> {
    pub(super) exec: &'a Exec,
    pub(super) ids: &'a Ids,
    pub(super) user: User,
    pub(super) home: String,
    /// An empty folder on the stage, where the root is put together.
    pub(super) place: PathBuf,
    /// The root's mount, detached.
    pub(super) root: OwnedFd,
    pub(super) readonly_root: bool,
    /// The other mounts, in the order in which they are put in place.
    pub(super) mounts: Vec<Placed>,
    pub(super) filters: Filters,
}

/// A detached mount and where it goes.
pub(super) struct Placed {
    pub(super) target: String,
    pub(super) leaf: Leaf,
    pub(super) mount: OwnedFd,
}

/// Why a step's program does not run.
#[derive(Serialize, Deserialize, Debug)]
pub(super) enum NotStarted {
    /// The machine refuses something.
    Machine(Failure),
    /// The step asks for what is not there.
    Step {
        /// The exit status that stands for it.
        status: i32,
        /// What is wrong.
        reason: String,
    },
}

impl From<Failure> for NotStarted {
    fn from(failure: Failure) -> Self {
        Self::Machine(failure)
    }
}

/// Becomes the step; returns only where that fails.
pub(super) fn launch(step: &Step<'_>) -> Result<Infallible, NotStarted> {
    let exec = step.exec;
    let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    if exec.network == Network::None {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: the process has one thread, and no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.doing(|| "making the step's namespaces")?;
    let hostname = if exec.hostname.is_empty() { HOSTNAME } else { &exec.hostname };
    rustix::system::sethostname(hostname.as_bytes()).doing(|| format!("setting the host name {hostname}"))?;
    if exec.network == Network::None {
        system::loopback_up().doing(|| "bringing the loopback up")?;
    }
    // A terminal of the engine's is none of the step's.
    let _ = rustix::process::setsid();
    system::volunteer();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    assemble(step)?;
    confine::limit(&exec.ulimits)?;
    confine::reset_signals();

    let moved = rustix::process::chdir(exec.cwd.as_str());
    confine::become_user(&step.user, step.ids).doing(|| format!("becoming user {}", step.user.uid))?;
    if moved.is_err() {
        let doing = || format!("chdir to cwd ({:?}) failed", exec.cwd);
        rustix::process::chdir(exec.cwd.as_str()).map_err(|error| said(126, format!("{}: {}", doing(), words(error))))?;
    }
    let environment = environment(exec, &step.home);
    let program = find(&exec.args, &environment)?;
    let arguments = strings(&exec.args)?;
    let environment = strings(&environment)?;
    close_on_exec().doing(|| "closing descriptors")?;
    step.filters.install().map_err(|error| Failure::new("installing the system call filter", error))?;
    let error = execute(&program, &arguments, &environment);
    Err(said(if error == Errno::NOENT { 127 } else { 126 }, format!("exec {}: {}", program.to_string_lossy(), words(error))))
}

/// Puts the step's file tree together and makes it the root.
fn assemble(step: &Step<'_>) -> Result<(), Failure> {
    let doing = || "mounting the step's root";
    let below = mounting::place(&step.place).doing(doing)?;
    mounting::attach(step.root.as_fd(), below.as_fd()).doing(doing)?;
    let root = mounting::place(&step.place).doing(doing)?;
    let taken = |target: &str| step.mounts.iter().any(|mount| mount.target == target);
    system::mount(root.as_fd(), step.exec.network, step.ids, &taken)?;
    for mount in &step.mounts {
        let target = &mount.target;
        let place = inside::make(root.as_fd(), target.as_bytes(), mount.leaf, None).map_err(|error| match error {
            Errno::ROFS => Failure::new(format!("mounting {target}"), "it does not exist, and what it is in is read-only"),
            error => Failure::io(format!("mounting {target}"), error),
        })?;
        mounting::attach(mount.mount.as_fd(), place.as_fd()).doing(|| format!("mounting {target}"))?;
    }
    if step.readonly_root {
        mounting::restrict(root.as_fd(), Attr::MOUNT_ATTR_RDONLY, false).doing(doing)?;
    }
    mounting::pivot(&root).doing(|| "entering the step's root")
}

fn said(status: i32, reason: String) -> NotStarted {
    NotStarted::Step { status, reason }
}

/// Returns what the C library calls an error, as runc says it.
fn words(error: Errno) -> String {
    let text = std::io::Error::from(error).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Returns the environment, with a PATH and a HOME.
fn environment(exec: &Exec, home: &str) -> Vec<String> {
    let mut environment = exec.env.clone();
    for (name, value) in [("PATH", PATH), ("HOME", home)] {
        if value_of(&environment, name).is_none() {
            environment.push(format!("{name}={value}"));
        }
    }
    environment
}

fn value_of<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().rev().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
}

/// Finds the program, by the rules and in the words of runc.
fn find(args: &[String], environment: &[String]) -> Result<CString, NotStarted> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    let found = |path: String| CString::new(path).map_err(|_| said(127, format!("exec: {name:?}: invalid argument")));
    if name.contains('/') {
        return match runnable(name) {
            Ok(()) => found(name.to_owned()),
            Err(Errno::ACCESS) => Err(said(126, format!("exec: {name:?}: permission denied"))),
            Err(error) => Err(said(127, format!("exec: {name:?}: stat {name}: {}", words(error)))),
        };
    }
    let mut denied = false;
    for folder in value_of(environment, "PATH").unwrap_or_default().split(':').filter(|_| !name.is_empty()) {
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        match runnable(&path) {
            Ok(()) => return found(path),
            Err(error) => denied |= error == Errno::ACCESS,
        }
    }
    if denied {
        Err(said(126, format!("exec: {name:?}: permission denied")))
    } else {
        Err(said(127, format!("exec: {name:?}: executable file not found in $PATH")))
    }
}

fn runnable(path: &str) -> Result<(), Errno> {
    use rustix::fs::{Access, AtFlags, CWD};
    let stat = rustix::fs::stat(path)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

fn strings(texts: &[String]) -> Result<Vec<CString>, NotStarted> {
    let string = |text: &String| CString::new(text.as_str()).map_err(|_| said(126, format!("exec: {text:?}: invalid argument")));
    texts.iter().map(string).collect()
}

/// Marks every descriptor past 2, the worker's and those that the engine was started with.
fn close_on_exec() -> Result<(), Errno> {
    // SAFETY: no descriptor is closed, only marked.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(mounting::last_error()) }
}

fn execute(program: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: both lists end with a null pointer and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    mounting::last_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_gets_a_path_and_a_home_where_it_has_none() {
        let exec = Exec { env: vec!["A=1".into(), "PATH=/x".into()], ..Exec::default() };
        assert_eq!(environment(&exec, "/root"), ["A=1", "PATH=/x", "HOME=/root"]);
        assert_eq!(value_of(&["A=1".into(), "AB=2".into(), "A=3".into()], "A"), Some("3"));
    }

    #[test]
    fn errors_are_in_the_words_of_runc() {
        assert_eq!(words(Errno::NOENT), "no such file or directory");
        let NotStarted::Step { status, reason } = find(&["none-such".into()], &["PATH=/bin:/usr/bin".into()]).unwrap_err() else {
            panic!("the step's own fault")
        };
        assert_eq!((status, reason.as_str()), (127, "exec: \"none-such\": executable file not found in $PATH"));
        let NotStarted::Step { status, reason } = find(&["/none/such".into()], &[]).unwrap_err() else {
            panic!("the step's own fault")
        };
        assert_eq!((status, reason.as_str()), (127, "exec: \"/none/such\": stat /none/such: no such file or directory"));
    }
}
