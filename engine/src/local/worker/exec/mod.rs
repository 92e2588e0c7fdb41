//! Steps: a process over mounted trees, as BuildKit's runc executor runs them.
//!
//! 1. The mounts' sources are put on the [`Stage`]; the root's missing mount points are made.
//! 2. The step's process is forked into a PID namespace of its own ([`launch`]).
//! 3. When it has ended, its namespace is empty. Empty mount points are removed, the stage is taken
//!    down, and what the outputs gained is synced.
//!
//! Invariant: a step sees its mounts and `/proc`, `/dev`, `/sys`, and can change nothing but its
//! writable mounts.

use std::io::{PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::MountAttrFlags as Attr;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::inside::{self, Leaf};
use super::process::{self, Fork};
use super::protocol::{Doing, Ended, Exec, Failure, HOSTNAME, Mount, Network, Source, Task, Upper};
use super::stage::{STRICT, Stage};
use super::{changes, mounting};
use crate::local::trees::disk::Disk;
use crate::local::trees::ledger::Ledger;
use launch::{NotStarted, Placed, Step};
use stubs::{Point, Stubs};

mod confine;
mod launch;
mod seccomp;
mod stubs;
mod system;
mod user;

/// Runs a step. The caller is alone in its namespaces and has no other children.
pub(super) fn run(task: &Task, exec: &Exec) -> Result<Ended, Failure> {
    let mut stage = Stage::open(&task.root)?;
    let exec = &Exec { mounts: sorted(&exec.mounts)?, ..exec.clone() };
    let Some((Mount { readonly, .. }, others)) = exec.mounts.split_first() else {
        return Err(Failure::new("mounting the step's root", "no mount has the target /"));
    };
    if let Some(reason) = others.iter().find_map(|mount| owner_refused(mount, task)) {
        return Ok(Ended { status: 1, reason: Some(reason), ..Ended::default() });
    }
    let root = stage.source(&exec.mounts[0])?;
    let mut mounts = names(&mut stage, exec)?;
    for mount in others {
        match placed(&mut stage, mount) {
            Ok(placed) => mounts.push(placed),
            // What is selected is the op's affair, not the machine's.
            Err(failure) if !mount.selector.is_empty() && !failure.exhausted => {
                return Ok(Ended { status: 1, reason: Some(failure.to_string()), ..Ended::default() });
            }
            Err(failure) => return Err(failure),
        }
    }

    let stubs = Stubs::make(root.as_fd(), &points(&mounts), exec.remove_stubs_recursive);
    let mut ended = match prepared(task, exec, &mut stage, &root, *readonly, mounts)? {
        Ok(step) => start(&step)?,
        Err(reason) => Ended { status: 1, reason: Some(reason), ..Ended::default() },
    };
    if let Some(reason) = &ended.reason {
        // The log is where people look; one that cannot be written to is no reason to fail.
        let _ = writeln!(std::io::stderr(), "{reason}");
    }
    stubs.remove(root.as_fd());
    drop(root);
    ended.copied = stage.copied;
    stage.close()?;
    let good = if exec.valid_exit_codes.is_empty() { ended.status == 0 } else { exec.valid_exit_codes.contains(&ended.status) };
    for (upper, layers) in exec.mounts.iter().filter_map(upper) {
        if upper.output && good && ended.reason.is_none() {
            let disk = Disk::from(&task.ids);
            // Owners that the disk holds are not looked for below.
            let below = if ended.copied || disk.holds_all_owners() { Vec::new() } else { changes::trees(layers)? };
            changes::keep(upper, &below, disk, &Ledger::default())?;
        }
    }
    Ok(ended)
}

/// Returns the mounts by target, the root first, targets without `.`, `..` and repeated `/`. Of two
/// at one target the later one holds, as in BuildKit.
fn sorted(mounts: &[Mount]) -> Result<Vec<Mount>, Failure> {
    let mut sorted: Vec<Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let mut parts: Vec<&str> = Vec::new();
        for part in mount.target.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        let target = format!("/{}", parts.join("/"));
        sorted.retain(|mount| mount.target != target);
        sorted.push(Mount { target, ..mount.clone() });
    }
    sorted.sort_by(|a, b| {
        a.target.split('/').filter(|part| !part.is_empty()).cmp(b.target.split('/').filter(|part| !part.is_empty()))
    });
    match sorted.first() {
        Some(mount) if mount.target == "/" => Ok(sorted),
        _ => Err(Failure::new("mounting the step's root", "no mount has the target /")),
    }
}

/// Says why a secret cannot have the owner that it is to have.
fn owner_refused(mount: &Mount, task: &Task) -> Option<String> {
    let Source::Secret { uid, gid, .. } = mount.source else { return None };
    let owner = user::User { uid, gid, groups: vec![gid] };
    let reason = user::refuse(&owner, &task.ids, &task.user).err()?;
    Some(format!("the owner of the secret at {}: {reason}", mount.target))
}

/// Makes `/etc/resolv.conf` and `/etc/hosts`, as BuildKit writes them.
fn names(stage: &mut Stage, exec: &Exec) -> Result<Vec<Placed>, Failure> {
    let resolv = match exec.network {
        // The same namespace: what resolves there resolves here.
        Network::Host => std::fs::read("/etc/resolv.conf").unwrap_or_default(),
        Network::None => Vec::new(),
    };
    let hostname = if exec.hostname.is_empty() { HOSTNAME } else { &exec.hostname };
    let mut hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in &exec.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    let mut placed = Vec::new();
    for (target, bytes) in [("/etc/resolv.conf", resolv), ("/etc/hosts", hosts.into_bytes())] {
        if exec.mounts.iter().any(|mount| mount.target == target) {
            continue;
        }
        let place = mounting::place(stage.file(&bytes, 0o644)?).doing(|| format!("mounting {target}"))?;
        let attrs = STRICT | Attr::MOUNT_ATTR_NOEXEC | Attr::MOUNT_ATTR_RDONLY;
        placed.push(detached(target, &place, attrs)?);
    }
    Ok(placed)
}

/// Puts a mount's source on the stage and copies the mount.
fn placed(stage: &mut Stage, mount: &Mount) -> Result<Placed, Failure> {
    let place = stage.source(mount)?;
    let mut attrs = STRICT;
    if mount.readonly {
        attrs |= Attr::MOUNT_ATTR_RDONLY;
    }
    match mount.source {
        // A file system like the root's: set-uid programs are what they are there.
        Source::Layers { .. } | Source::Cache { .. } => attrs.remove(Attr::MOUNT_ATTR_NOSUID),
        Source::Secret { .. } => attrs |= Attr::MOUNT_ATTR_NOEXEC | Attr::MOUNT_ATTR_RDONLY,
        Source::Host { .. } => attrs |= Attr::MOUNT_ATTR_RDONLY,
        Source::Tmpfs { .. } => {}
    }
    detached(&mount.target, &place, attrs)
}

fn detached(target: &str, place: &OwnedFd, attrs: mounting::Attrs) -> Result<Placed, Failure> {
    let doing = || format!("mounting {target}");
    let leaf = if inside::kind(place).doing(doing)? == rustix::fs::FileType::Directory { Leaf::Folder } else { Leaf::File };
    let mount = mounting::copy_open(place.as_fd()).doing(doing)?;
    mounting::restrict(mount.as_fd(), attrs, true).doing(doing)?;
    Ok(Placed { target: target.to_owned(), leaf, mount })
}

/// Lists the root's mount points; those of [`system`] stay in it, as with runc.
fn points(mounts: &[Placed]) -> Vec<Point<'_>> {
    let system = system::TARGETS.iter().map(|&target| Point { target, leaf: Leaf::Folder, stub: false, bare: true });
    let own = mounts.iter().map(|mount| Point { target: &mount.target, leaf: mount.leaf, stub: true, bare: true });
    let mut points: Vec<Point<'_>> = system.chain(own).collect();
    let targets: Vec<&str> = points.iter().map(|point| point.target).collect();
    for point in &mut points {
        let beneath = |target: &&str| point.target.strip_prefix(*target).is_some_and(|rest| rest.starts_with('/'));
        point.bare = !targets.iter().any(beneath);
    }
    points
}

/// Finds the step's user and makes its working directory; what is the step's fault is said in words.
fn prepared<'a>(
    task: &'a Task,
    exec: &'a Exec,
    stage: &mut Stage,
    root: &OwnedFd,
    readonly_root: bool,
    mounts: Vec<Placed>,
) -> Result<Result<Step<'a>, String>, Failure> {
    let found = user::find(root.as_fd(), &exec.user);
    let user = match found.and_then(|user| user::refuse(&user, &task.ids, &task.user).map(|()| user)) {
        Ok(user) => user,
        Err(reason) => return Ok(Err(reason)),
    };
    if mounting::within(root.as_fd(), exec.cwd.as_str(), rustix::fs::OFlags::PATH).is_err() {
        let owner = Some((user.uid, user.gid));
        if let Err(error) = inside::make(root.as_fd(), exec.cwd.as_bytes(), Leaf::Folder, owner) {
            return Ok(Err(format!("failed to create working directory {}: {}", exec.cwd, std::io::Error::from(error))));
        }
    }
    let filters = seccomp::Filters::compile().map_err(|error| Failure::new("compiling the system call filter", error))?;
    let mount = mounting::copy_open(root.as_fd()).doing(|| "mounting the step's root")?;
    mounting::restrict(mount.as_fd(), Attr::MOUNT_ATTR_NODEV, true).doing(|| "mounting the step's root")?;
    let home = user::home(root.as_fd(), user.uid);
    let place = stage.folder()?;
    Ok(Ok(Step { exec, ids: &task.ids, user, home, place, root: mount, readonly_root, mounts, filters }))
}

/// Forks the step's process and waits for its end, and with it for that of all it started.
fn start(step: &Step<'_>) -> Result<Ended, Failure> {
    // SAFETY: the process has one thread; the flag concerns its children alone.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }.doing(|| "making the step's PID namespace")?;
    let (reader, writer) = std::io::pipe().doing(|| "starting the step")?;
    match process::fork().doing(|| "starting the step")? {
        Fork::Child => {
            drop(reader);
            let Err(reason) = launch::launch(step);
            process::say(&OwnedFd::from(writer), &reason);
            process::exit(1)
        }
        Fork::Parent(pid) => {
            drop(writer);
            let reason = why(reader);
            let status = wait(pid)?;
            match reason {
                None => Ok(Ended { status, ..Ended::default() }),
                Some(NotStarted::Step { status, reason }) => Ok(Ended { status, reason: Some(reason), ..Ended::default() }),
                Some(NotStarted::Machine(failure)) => Err(failure),
            }
        }
    }
}

/// Reads why a program does not run; nothing where it does.
fn why(mut reader: PipeReader) -> Option<NotStarted> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn wait(pid: Pid) -> Result<i32, Failure> {
    let status = process::wait(pid).doing(|| "waiting for the step")?;
    Ok(process::code(status))
}

/// Returns where a mount's changes go, and the layers that they change.
fn upper(mount: &Mount) -> Option<(&Upper, &[u64])> {
    match &mount.source {
        Source::Layers { upper: Some(upper), layers } if !mount.readonly => Some((upper, layers)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(target: &str) -> Mount {
        Mount { target: target.into(), source: Source::Tmpfs { size_bytes: 0 }, readonly: false, selector: String::new() }
    }

    #[test]
    fn mounts_stand_in_the_order_of_their_targets() {
        let targets = ["/b-c", "/b/c", "//b/./", "/", "/b/../a/"];
        let sorted = sorted(&targets.map(mount)).unwrap();
        assert_eq!(sorted.iter().map(|mount| mount.target.as_str()).collect::<Vec<_>>(), ["/", "/a", "/b", "/b/c", "/b-c"]);
        assert!(super::sorted(&[mount("/a")]).is_err());
    }

    #[test]
    fn of_two_mounts_at_one_target_the_later_holds() {
        let later = Mount { readonly: true, ..mount("/a/") };
        let sorted = sorted(&[mount("/"), mount("/a"), later]).unwrap();
        assert_eq!(sorted.len(), 2);
        assert!(sorted[1].readonly);
    }
}
