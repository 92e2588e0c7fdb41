//! The child's side: from the first instruction to the work, and the watch over it.
//!
//! The process that the engine starts makes the user namespace and then only watches; its child,
//! PID 1 of a PID namespace, does the work, and a step is PID 1 of one more namespace below.
//!
//! Invariant: the engine's end of the task pipe is the worker's life. When it closes (the work is
//! cancelled, or the engine is gone, however it died) the kernel kills the whole PID namespace. So
//! nothing that a worker starts outlives the engine, and every mount goes with the namespaces.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, FdFlags};
use rustix::process::{Gid, PidfdFlags, Signal, Uid};
use rustix::thread::UnshareFlags;

use super::process::{self, Fork};
use super::protocol::{Answer, Doing, Failure, Task};
use super::{perform, probe};

/// What a worker is called (`argv[0]`).
pub(super) const NAME: &str = "worker";

/// Where a worker finds its task, and where it puts its answer.
pub(super) const TASK: RawFd = 3;
pub(super) const ANSWER: RawFd = 4;

/// The most that a task takes: secrets and the lists of host trees are in it.
const TASK_BYTES: u64 = 64 << 20;

/// Runs a worker's task and ends the process, where this process is a worker; returns at once where
/// it is not. To be called first in `main`, before there is any thread.
pub fn main_if_worker() {
    #[expect(clippy::disallowed_methods, reason = "the process's own name says that it is a worker; nothing else is read")]
    let name = std::env::args_os().next();
    // A program that happens to be called so has no pipes there.
    if name.is_some_and(|name| name == NAME) && is_pipe(TASK) && is_pipe(ANSWER) {
        // SAFETY: whoever started this process as a worker left both descriptors to it.
        let (task, answer) = unsafe { (OwnedFd::from_raw_fd(TASK), OwnedFd::from_raw_fd(ANSWER)) };
        process::exit(keep(task, &answer))
    }
}

fn is_pipe(fd: RawFd) -> bool {
    // SAFETY: a descriptor that is not open is what the call is to find out.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Fifo)
}

/// Enters the namespaces, has the work done and watches over it; returns the exit code.
fn keep(life: OwnedFd, answer: &OwnedFd) -> i32 {
    match enter(&life, answer) {
        Ok(Some(task)) => match process::fork() {
            Ok(Fork::Child) => {
                drop(life);
                let done = work(&task).unwrap_or_else(Answer::Failed);
                process::say(answer, &done);
                0
            }
            Ok(Fork::Parent(pid)) => watch(&life, pid),
            Err(error) => fail(answer, Failure::io("starting the work", error)),
        },
        // The engine is gone, or gave up.
        Ok(None) => 1,
        Err(failure) => fail(answer, failure),
    }
}

fn fail(answer: &OwnedFd, failure: Failure) -> i32 {
    process::say(answer, &Answer::Failed(failure));
    1
}

/// Makes the user namespace, has it mapped by the engine, reads the task, and makes the others.
fn enter(life: &OwnedFd, answer: &OwnedFd) -> Result<Option<Task>, Failure> {
    for fd in [life, answer] {
        rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC).doing(|| "starting a worker")?;
    }
    // Signals of the engine's terminal are the engine's to judge.
    let _ = rustix::process::setsid();
    // SAFETY: the process has one thread, and no descriptor table is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.map_err(probe::no_user_namespace)?;
    say_entered(answer).doing(|| "starting a worker")?;
    let mut line = Vec::new();
    let task = BufReader::new(File::from(life.try_clone().doing(|| "reading the task")?));
    task.take(TASK_BYTES).read_until(b'\n', &mut line).doing(|| "reading the task")?;
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    let task = serde_json::from_slice(&line).map_err(|error| Failure::new("reading the task", error))?;
    become_root().doing(|| "becoming root of the user namespace")?;
    // SAFETY: as above.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID) }.map_err(probe::no_namespaces)?;
    Ok(Some(task))
}

fn say_entered(answer: &OwnedFd) -> std::io::Result<()> {
    File::from(answer.try_clone()?).write_all(b"\n")
}

fn become_root() -> Result<(), Errno> {
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    match rustix::thread::set_thread_groups(&[]) {
        // With one id groups cannot be set.
        Err(Errno::PERM) => Ok(()),
        result => result,
    }
}

fn work(task: &Task) -> Result<Answer, Failure> {
    // After the last change of identity, which would clear it; this process makes no other.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "starting the work")?;
    perform::perform(task)
}

/// Waits for the work's end, or ends it when the engine closes the task pipe.
fn watch(life: &OwnedFd, pid: rustix::process::Pid) -> i32 {
    if let Ok(worker) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        && process::first(life.as_fd(), worker.as_fd()) == Ok(process::First::Closed)
    {
        // PID 1: everything below dies with it. It may have ended by itself just now.
        let _ = rustix::process::pidfd_send_signal(&worker, Signal::KILL);
    }
    process::wait(pid).map_or(1, process::code)
}
