//! Mounts by handle: a mount is made detached, restricted, and only then put where it is seen.
//!
//! Invariant: flags are only ever added (`mount_setattr`), so what the machine's own mounts forbid
//! stays forbidden; nothing here resolves a path of the step's.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

/// What a mount forbids.
pub(super) type Attrs = MountAttrFlags;

/// Mounts a new file system, detached.
pub(super) fn create(kind: &str, options: &[(&str, &str)], attrs: Attrs) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(&context, *key)?;
        } else {
            rustix::mount::fsconfig_set_string(&context, *key, *value)?;
        }
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// Copies what is mounted at `path` and below it, detached; a final symbolic link is followed.
pub(super) fn copy(folder: BorrowedFd<'_>, path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(folder, path, flags)
}

/// Copies the mount of an open file or folder and what is below it, detached.
pub(super) fn copy_open(place: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(place, "", flags | OpenTreeFlags::AT_EMPTY_PATH)
}

/// Puts a detached mount over an open file or folder.
pub(super) fn attach(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", place, "", flags)
}

/// Forbids things on a mount, and on those below it where `recursive`.
pub(super) fn restrict(mount: BorrowedFd<'_>, attrs: Attrs, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attrs.bits().into(), attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the descriptor is open, the path is a C string, and the size is the structure's.
    let result = unsafe {
        libc::syscall(libc::SYS_mount_setattr, mount.as_raw_fd(), c"".as_ptr(), flags, &raw const attr, size_of_val(&attr))
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Keeps mounts of this namespace from others and theirs from it.
pub(super) fn make_private() -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

/// Mounts an overlay at `target`; the paths in `options` are relative to the working directory.
pub(super) fn overlay(target: &Path, options: &str) -> io::Result<()> {
    let options = CString::new(options).map_err(|_| io::Errno::INVAL)?;
    rustix::mount::mount("overlay", target, "overlay", MountFlags::NODEV, options.as_c_str())
}

/// Takes a mount away, with what is below it, now or when its last user is gone.
pub(super) fn detach(target: impl rustix::path::Arg) -> io::Result<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH)
}

/// Opens a place by path, for use as a handle alone.
pub(super) fn place(path: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Opens what is at `path` in a tree as a process whose root it is would; links never lead out.
pub(super) fn within(root: BorrowedFd<'_>, path: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        // The kernel says EAGAIN where a rename anywhere on the machine went on meanwhile.
        match rustix::fs::openat2(root, path.as_cow_c_str()?.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(io::Errno::AGAIN) if tries < 100 => tries += 1,
            result => return result,
        }
    }
}

/// Makes `root` the root of this process's mount namespace; nothing of the old one is left.
pub(super) fn pivot(root: &OwnedFd) -> io::Result<()> {
    rustix::process::fchdir(root.as_fd())?;
    // The old root lands on top of the new one, from where it is taken away.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

/// Returns the error of the system call that was made last.
pub(super) fn last_error() -> io::Errno {
    io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(io::Errno::IO)
}
