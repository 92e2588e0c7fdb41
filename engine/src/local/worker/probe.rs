//! What a machine refuses a worker, in words, and the command that mends it.
//!
//! Invariant: a refusal is found by trying, not by reading settings; settings only explain it.

use std::fs;

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

use super::mounting;
use super::process::{self, Fork};
use super::protocol::{Doing, Failure, Refusal, Task};
use super::stage::Stage;

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// A user namespace.
    UserNamespace,
    /// Mount and PID namespaces in the user namespace, or mounts in them.
    Namespaces,
    /// A new `/proc`.
    Proc,
    /// An overlay.
    Overlay,
}

/// What explains refusals.
#[derive(Clone, Debug, Default)]
struct Machine {
    /// `kernel.unprivileged_userns_clone`, which Debian and Arch have.
    clone: Option<u64>,
    /// `user.max_user_namespaces`.
    most: Option<u64>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, which Ubuntu has.
    apparmor: Option<u64>,
    /// Whether this is a container, or another program filters system calls.
    contained: bool,
}

impl Machine {
    fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filtered = status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
        let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| fs::exists(path).unwrap_or(false));
        Self {
            clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
            most: number("/proc/sys/user/max_user_namespaces"),
            apparmor: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            contained: filtered || marked,
        }
    }
}

const DOCKER: &str =
    "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined";

/// Says what a refusal means and what mends it.
fn explain(what: What, error: Errno, machine: &Machine) -> Refusal {
    let system = std::io::Error::from(error);
    let (what, remedy) = match what {
        What::UserNamespace | What::Namespaces if machine.most == Some(0) => {
            ("user namespaces are switched off (user.max_user_namespaces is 0)".to_owned(), "sysctl -w user.max_user_namespaces=63000".to_owned())
        }
        What::UserNamespace | What::Namespaces if error == Errno::NOSPC => (
            format!("there are too many user namespaces, or they are too deep in one another ({system})"),
            "sysctl -w user.max_user_namespaces=63000".to_owned(),
        ),
        What::UserNamespace | What::Namespaces if machine.clone == Some(0) => (
            "user namespaces are for root alone (kernel.unprivileged_userns_clone is 0)".to_owned(),
            "sysctl -w kernel.unprivileged_userns_clone=1".to_owned(),
        ),
        What::UserNamespace | What::Namespaces if machine.apparmor == Some(1) => (
            "AppArmor restricts user namespaces (kernel.apparmor_restrict_unprivileged_userns is 1)".to_owned(),
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for this program with the rule userns".to_owned(),
        ),
        What::UserNamespace | What::Namespaces if machine.contained => {
            (format!("the container's filter of system calls refuses namespaces ({system})"), format!("start the container with: {DOCKER}"))
        }
        What::UserNamespace => (format!("user namespaces are refused ({system})"), "a kernel with CONFIG_USER_NS".to_owned()),
        What::Namespaces => {
            (format!("namespaces or mounts are refused in a user namespace ({system})"), "see the machine's security module: dmesg | tail".to_owned())
        }
        What::Proc => (format!("a new /proc is refused: parts of this machine's are covered ({system})"), format!("start the container with: {DOCKER}")),
        What::Overlay => (
            format!("overlayfs is refused in a user namespace ({system}), so layers are copied"),
            "Linux 5.13 or newer and a cache folder on ext4, xfs, btrfs or tmpfs".to_owned(),
        ),
    };
    Refusal { what, remedy, fatal: true }
}

fn failure(what: What, error: Errno) -> Failure {
    let refusal = explain(what, error, &Machine::read());
    Failure::new("starting a worker", refusal.what).hint(refusal.remedy)
}

/// Says why there is no user namespace.
pub(super) fn no_user_namespace(error: Errno) -> Failure {
    failure(What::UserNamespace, error)
}

/// Says why there are no namespaces in a user namespace.
pub(super) fn no_namespaces(error: Errno) -> Failure {
    failure(What::Namespaces, error)
}

/// Tries everything that steps need.
pub(super) fn run(task: &Task) -> Result<Vec<Refusal>, Failure> {
    let machine = Machine::read();
    let mut refusals = Vec::new();
    if let Err(failure) = Stage::open(&task.root) {
        // The first mount: where it fails, none will do.
        let refusal = explain(What::Namespaces, Errno::PERM, &machine);
        return Ok(vec![Refusal { what: format!("{}: {failure}", refusal.what), ..refusal }]);
    }
    if let Err(error) = overlay(task)? {
        refusals.push(Refusal { fatal: false, ..explain(What::Overlay, error, &machine) });
    }
    if let Err((what, error)) = namespaces()? {
        refusals.push(explain(what, error, &machine));
    }
    Ok(refusals)
}

/// Mounts an overlay on the file system of the cache.
fn overlay(task: &Task) -> Result<Result<(), Errno>, Failure> {
    let folder = format!("work/probe.{}", std::process::id());
    let doing = || format!("making {folder}");
    for name in ["lower", "fs", "overlay", "merged"] {
        fs::create_dir_all(format!("{folder}/{name}")).doing(doing)?;
    }
    let merged = task.root.join(format!("{folder}/merged"));
    let options = format!("userxattr,lowerdir={folder}/lower,upperdir={folder}/fs,workdir={folder}/overlay");
    let mounted = mounting::overlay(&merged, &options);
    if mounted.is_ok() {
        mounting::detach(&merged).doing(|| "unmounting an overlay")?;
    }
    fs::remove_dir_all(&folder).doing(|| format!("removing {folder}"))?;
    Ok(mounted)
}

/// Makes the namespaces of a step and a new `/proc`.
fn namespaces() -> Result<Result<(), (What, Errno)>, Failure> {
    let flags =
        UnshareFlags::NEWPID | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    // SAFETY: the process has one thread, and no descriptor table is unshared.
    if let Err(error) = unsafe { rustix::thread::unshare_unsafe(flags) } {
        return Ok(Err((What::Namespaces, error)));
    }
    match process::fork().doing(|| "starting a process in a PID namespace")? {
        // The exit code is the error's number.
        Fork::Child => process::exit(mounting::create("proc", &[], MountAttrFlags::empty()).err().map_or(0, Errno::raw_os_error)),
        Fork::Parent(pid) => match process::wait(pid).map(process::code).doing(|| "waiting for a process")? {
            0 => Ok(Ok(())),
            number => Ok(Err((What::Proc, Errno::from_raw_os_error(number)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_comes_with_the_setting_and_the_command() {
        let said = |what, error, machine| {
            let refusal = explain(what, error, &machine);
            format!("{} | {}", refusal.what, refusal.remedy)
        };
        let off = Machine { most: Some(0), ..Machine::default() };
        assert!(said(What::UserNamespace, Errno::NOSPC, off).ends_with("| sysctl -w user.max_user_namespaces=63000"));
        let debian = Machine { clone: Some(0), most: Some(5), ..Machine::default() };
        assert!(said(What::UserNamespace, Errno::PERM, debian).contains("sysctl -w kernel.unprivileged_userns_clone=1"));
        let ubuntu = Machine { apparmor: Some(1), ..Machine::default() };
        assert!(said(What::Namespaces, Errno::ACCESS, ubuntu).contains("AppArmor"));
        let docker = Machine { contained: true, ..Machine::default() };
        assert!(said(What::UserNamespace, Errno::PERM, docker.clone()).contains("seccomp=unconfined"));
        assert!(said(What::Proc, Errno::PERM, docker).contains("systempaths=unconfined"));
        assert!(said(What::Overlay, Errno::INVAL, Machine::default()).contains("layers are copied"));
    }
}
