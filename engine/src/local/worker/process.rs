//! Processes of a worker: single-threaded, so a fork may do whatever its parent could.
//!
//! Invariant: nothing here runs in the engine's own process, which has threads.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use serde::Serialize;

use super::mounting;

/// Which side of a fork this is.
pub(super) enum Fork {
    /// The new process.
    Child,
    /// The old one, with the new one's id.
    Parent(Pid),
}

/// Makes a second process of this one.
pub(super) fn fork() -> Result<Fork, Errno> {
    // SAFETY: the process has one thread, so no lock is held by another that the child lacks.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).filter(|_| pid > 0).map(Fork::Parent).ok_or_else(mounting::last_error),
    }
}

/// Waits for a child's end.
pub(super) fn wait(pid: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(status),
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What happened first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// The other end of the pipe was closed.
    Closed,
    /// The process ended.
    Ended,
}

/// Waits until the other end of a pipe is closed or a process (by its pidfd) has ended.
pub(super) fn first(pipe: BorrowedFd<'_>, process: BorrowedFd<'_>) -> Result<First, Errno> {
    let watched = |fd: BorrowedFd<'_>, events| libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    loop {
        // Closing is told without being asked for.
        let mut events = [watched(pipe, 0), watched(process, libc::POLLIN)];
        // SAFETY: the list is as long as is said, and its descriptors are open.
        let ready = unsafe { libc::poll(events.as_mut_ptr(), 2, -1) };
        match ready {
            0.. if events[1].revents != 0 => return Ok(First::Ended),
            0.. if events[0].revents != 0 => return Ok(First::Closed),
            0.. => {}
            _ => match mounting::last_error() {
                Errno::INTR => {}
                error => return Err(error),
            },
        }
    }
}

/// Returns the exit code as shells have it: 128 and the number of the signal that ended a process.
pub(super) fn code(status: WaitStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}

/// Ends this process at once.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: always safe; no destructor has work left that anybody waits for.
    unsafe { libc::_exit(code) }
}

/// Writes one line of JSON; nobody is left to tell where the reader is gone.
pub(super) fn say(to: &OwnedFd, what: &impl Serialize) {
    if let (Ok(mut line), Ok(file)) = (serde_json::to_vec(what), to.try_clone()) {
        line.push(b'\n');
        let _ = File::from(file).write_all(&line);
    }
}
