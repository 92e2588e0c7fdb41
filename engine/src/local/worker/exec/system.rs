//! What every step finds besides its own mounts: `/proc`, `/dev`, `/sys`, as runc lays them out.
//!
//! Invariant: `/proc` is always a new one that shows the step's own processes alone; what in it and in
//! `/sys` speaks of the machine is hidden or read-only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io;
use rustix::mount::MountAttrFlags as Attr;

use super::super::inside::{self, Leaf};
use super::super::mounting;
use super::super::protocol::{Doing, Failure, Network};
use super::confine;
use crate::local::ids::Ids;

const QUIET: Attr = Attr::MOUNT_ATTR_NOSUID.union(Attr::MOUNT_ATTR_NODEV).union(Attr::MOUNT_ATTR_NOEXEC);

/// The folders that are mounted here.
pub(super) const TARGETS: [&str; 3] = ["/proc", "/dev", "/sys"];

/// Hidden from steps.
const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// Read-only for steps.
const READONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Mounts what every step has under `root`, but for the `taken` targets: the step's own mounts.
pub(super) fn mount(root: BorrowedFd<'_>, network: Network, ids: &Ids, taken: &dyn Fn(&str) -> bool) -> Result<(), Failure> {
    if !taken("/proc") {
        proc(root)?;
    }
    if !taken("/dev") {
        dev(root, ids, taken).doing(|| "mounting /dev")?;
    }
    if !taken("/sys") {
        sys(root, network).doing(|| "mounting /sys")?;
    }
    for path in MASKED {
        mask(root, path).doing(|| format!("hiding /{path}"))?;
    }
    for path in READONLY {
        freeze(root, path).doing(|| format!("making /{path} read-only"))?;
    }
    Ok(())
}

fn put(root: BorrowedFd<'_>, target: &str, leaf: Leaf, mount: &OwnedFd) -> io::Result<()> {
    mounting::attach(mount.as_fd(), inside::make(root, target.as_bytes(), leaf, None)?.as_fd())
}

fn proc(root: BorrowedFd<'_>) -> Result<(), Failure> {
    let mount = mounting::create("proc", &[], QUIET).map_err(|error| match error {
        // Parts of the machine's own /proc are covered, so the kernel gives no one a whole one.
        io::Errno::PERM => Failure::io("mounting a new /proc", error).hint(
            "in a container, run it with --security-opt systempaths=unconfined (docker) or --security-opt unmask=ALL (podman)",
        ),
        _ => Failure::io("mounting a new /proc", error),
    })?;
    put(root, "/proc", Leaf::Folder, &mount).doing(|| "mounting a new /proc")?;
    limit_processes(root);
    Ok(())
}

/// Limits the PID namespace; before Linux 6.14 the same file is the whole machine's.
fn limit_processes(root: BorrowedFd<'_>) {
    if release() < (6, 14) {
        return;
    }
    if let Ok(file) = mounting::within(root, "proc/sys/kernel/pid_max", OFlags::WRONLY) {
        // A kernel without it still has RLIMIT_NPROC.
        let _ = rustix::io::write(file, confine::PROCESSES.to_string().as_bytes());
    }
}

/// Returns the kernel's version.
fn release() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn dev(root: BorrowedFd<'_>, ids: &Ids, taken: &dyn Fn(&str) -> bool) -> io::Result<()> {
    let plain = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_STRICTATIME;
    put(root, "/dev", Leaf::Folder, &mounting::create("tmpfs", &[("mode", "0755"), ("size", "65536k")], plain)?)?;
    for device in ["null", "zero", "full", "random", "urandom", "tty"] {
        put(root, &format!("/dev/{device}"), Leaf::File, &mounting::copy(CWD, format!("/dev/{device}"))?)?;
    }
    if !taken("/dev/pts") {
        let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
        if ids.has_group(5) {
            options.push(("gid", "5"));
        }
        let attrs = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC;
        put(root, "/dev/pts", Leaf::Folder, &mounting::create("devpts", &options, attrs)?)?;
    }
    if !taken("/dev/shm") {
        put(root, "/dev/shm", Leaf::Folder, &mounting::create("tmpfs", &[("mode", "1777"), ("size", "65536k")], QUIET)?)?;
    }
    if !taken("/dev/mqueue") {
        put(root, "/dev/mqueue", Leaf::Folder, &mounting::create("mqueue", &[], QUIET)?)?;
    }
    let dev = mounting::within(root, "dev", OFlags::PATH | OFlags::DIRECTORY)?;
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("/proc/kcore", "core"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    Ok(())
}

fn sys(root: BorrowedFd<'_>, network: Network) -> io::Result<()> {
    let attrs = QUIET | Attr::MOUNT_ATTR_RDONLY;
    let machines = || {
        let mount = mounting::copy(CWD, "/sys")?;
        mounting::restrict(mount.as_fd(), attrs, true)?;
        Ok(mount)
    };
    // A new one speaks of the network namespace; the kernel gives one to that namespace's owner alone.
    let mount = match network {
        Network::Host => machines()?,
        Network::None => mounting::create("sysfs", &[], attrs).or_else(|_| machines())?,
    };
    put(root, "/sys", Leaf::Folder, &mount)
}

/// Covers a file with nothing or a folder with an empty one; what is not there needs no cover.
fn mask(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Ok(place) = mounting::within(root, path, OFlags::PATH) else { return Ok(()) };
    let cover = if inside::kind(&place)? == rustix::fs::FileType::Directory {
        mounting::create("tmpfs", &[("nr_inodes", "1")], QUIET | Attr::MOUNT_ATTR_RDONLY)?
    } else {
        mounting::copy(CWD, "/dev/null")?
    };
    mounting::attach(cover.as_fd(), place.as_fd())
}

fn freeze(root: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let Ok(place) = mounting::within(root, path, OFlags::PATH) else { return Ok(()) };
    let mount = mounting::copy_open(place.as_fd())?;
    mounting::restrict(mount.as_fd(), QUIET | Attr::MOUNT_ATTR_RDONLY, true)?;
    mounting::attach(mount.as_fd(), place.as_fd())
}

/// Brings the loopback of this network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd;

    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all zeros is an empty request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a named interface and its flags, which is what SIOCSIFFLAGS reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 { Ok(()) } else { Err(mounting::last_error()) }
}

/// Makes the score by which the kernel picks who is killed for memory: the step before the engine.
pub(super) fn volunteer() {
    if let Ok(file) = rustix::fs::open("/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        // A process that is a better candidate already stays one.
        let _ = rustix::io::write(file, b"500");
    }
}
