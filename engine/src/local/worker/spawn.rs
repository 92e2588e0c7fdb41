//! The engine's side: starts workers, hands tasks over, waits for answers.
//!
//! Invariant: a worker lives as long as its handle: dropping it, or the engine's death in whatever
//! way, ends every process that the worker started.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::keeper::{ANSWER, NAME, TASK};
use super::protocol::{Answer, Doing, Failure, Refusal, Task, Work};
use crate::local::ids::{IdRange, Identity, Ids, Mappers};

/// The most that an answer takes.
const ANSWER_BYTES: u64 = 16 << 20;

/// Starts workers over one root folder.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    root: PathBuf,
    pub(in crate::local) identity: Identity,
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What the work reads, where it reads anything.
    pub(crate) stdin: Option<ChildStdin>,
    /// What the work or the step writes. To be read to its end: a full pipe stops the writer.
    pub(crate) stdout: Option<ChildStdout>,
    /// What the step says of itself. As above.
    pub(crate) stderr: Option<ChildStderr>,
    child: Child,
    answer: Take<BufReader<Receiver>>,
    /// The worker's life.
    life: Sender,
}

impl Workers {
    /// Makes a starter; `root` is absolute and there.
    pub(crate) fn new(root: &Path, identity: Identity) -> Self {
        Self { root: root.to_owned(), identity }
    }

    /// Starts a worker on some work.
    pub(crate) async fn spawn(&self, work: Work) -> Result<Worker, Failure> {
        let task = Task { root: self.root.clone(), ids: self.identity.ids.clone(), user: self.identity.user.clone(), work };
        let mut line = serde_json::to_vec(&task).map_err(|error| Failure::new("writing the task", error))?;
        line.push(b'\n');
        let mut worker = start(matches!(task.work, Work::Unpack { .. })).doing(|| "starting a worker")?;
        let mut said = Vec::new();
        worker.answer.read_until(b'\n', &mut said).await.doing(|| "starting a worker")?;
        if said != b"\n" {
            return Err(worker.refused(&said).await);
        }
        let pid = worker.child.id().ok_or_else(|| Failure::new("starting a worker", "it ended"))?;
        self.map(pid).await?;
        worker.life.write_all(&line).await.doing(|| "handing the task over")?;
        Ok(worker)
    }

    /// Says what this machine refuses; nothing where steps can run.
    pub(crate) async fn probe(&self) -> Vec<Refusal> {
        let refused =
            |failure: Failure| vec![Refusal { what: failure.to_string(), remedy: failure.hint.unwrap_or_default(), fatal: true }];
        match self.spawn(Work::Probe).await {
            Ok(worker) => match worker.answer().await {
                Ok(Answer::Probe(refusals)) => refusals,
                Ok(_) => refused(Failure::new("probing the machine", "the worker's answer is to another question")),
                Err(failure) => refused(failure),
            },
            Err(failure) => refused(failure),
        }
    }

    /// Maps the ids of a worker's user namespace.
    async fn map(&self, pid: u32) -> Result<(), Failure> {
        let doing = |file: &str| format!("mapping ids (/proc/{pid}/{file})");
        let write = |file: &str, text: &str| std::fs::write(format!("/proc/{pid}/{file}"), text).doing(|| doing(file));
        match &self.identity.ids {
            Ids::Root => {
                // Every id that there is here; in a container that is not all.
                for file in ["uid_map", "gid_map"] {
                    let own = std::fs::read_to_string(format!("/proc/self/{file}")).doing(|| doing(file))?;
                    write(file, &same(&own))?;
                }
                Ok(())
            }
            Ids::Single => {
                write("setgroups", "deny")?;
                write("uid_map", &format!("0 {} 1", rustix::process::geteuid().as_raw()))?;
                write("gid_map", &format!("0 {} 1", rustix::process::getegid().as_raw()))
            }
            Ids::Range { uids, gids } => {
                let mappers = self.identity.mappers.as_ref();
                let Mappers { users, groups } = mappers.ok_or_else(|| Failure::new("mapping ids", "newuidmap is not there"))?;
                tokio::try_join!(mapper(users, pid, uids), mapper(groups, pid, gids)).map(drop)
            }
        }
    }
}

impl Worker {
    /// Waits for the answer and until every process of the worker is gone.
    pub(crate) async fn answer(mut self) -> Result<Answer, Failure> {
        let mut said = Vec::new();
        self.answer.read_until(b'\n', &mut said).await.doing(|| "waiting for a worker")?;
        match serde_json::from_slice(&said) {
            Ok(Answer::Failed(failure)) => Err(failure),
            Ok(answer) => {
                self.child.wait().await.doing(|| "waiting for a worker")?;
                Ok(answer)
            }
            Err(_) => Err(self.refused(&said).await),
        }
    }

    /// Ends the work at once, as dropping the handle does; returns when every process of the worker is gone.
    #[cfg(test)]
    pub(crate) async fn cancel(self) {
        let Self { life, mut child, .. } = self;
        drop(life);
        // It cannot fail but where somebody else has waited for it already.
        let _ = child.wait().await;
    }

    /// Returns the id of the process that watches over the work.
    #[cfg(test)]
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Says why there is no proper answer.
    async fn refused(mut self, said: &[u8]) -> Failure {
        if let Ok(Answer::Failed(failure)) = serde_json::from_slice(said) {
            return failure;
        }
        let status = self.child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        Failure::new(
            "waiting for a worker",
            format!("it ended without an answer ({status}); it may have been killed for want of memory"),
        )
    }
}

/// Starts this program again, as a worker.
fn start(reads: bool) -> io::Result<Worker> {
    let (task, life) = pipe()?;
    let (answer, answers) = pipe()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0(NAME).env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(if reads { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (task_fd, answers_fd) = (task.as_raw_fd(), answers.as_raw_fd());
    // SAFETY: dup2 is async-signal-safe; both descriptors are open until the program is replaced.
    unsafe { command.pre_exec(move || hand_over(task_fd, TASK).and_then(|()| hand_over(answers_fd, ANSWER))) };
    let mut child = command.spawn()?;
    Ok(Worker {
        stdin: child.stdin.take(),
        stdout: child.stdout.take(),
        stderr: child.stderr.take(),
        child,
        answer: BufReader::new(Receiver::from_owned_fd(answer)?).take(ANSWER_BYTES),
        life: Sender::from_owned_fd(life)?,
    })
}

/// Makes a pipe whose ends have numbers past those that are handed over, and end with the program.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    let past = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(&fd, ANSWER + 1);
    Ok((past(reader.into())?, past(writer.into())?))
}

fn hand_over(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: both are numbers; the one that is replaced belongs to the process about to be replaced.
    if unsafe { libc::dup2(fd, number) } == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the map of every id to itself that a process with the map `own` may make.
fn same(own: &str) -> String {
    let mut map = String::new();
    for line in own.lines() {
        let mut fields = line.split_whitespace();
        if let (Some(first), Some(_), Some(count)) = (fields.next(), fields.next(), fields.next()) {
            map.push_str(&format!("{first} {first} {count}\n"));
        }
    }
    map
}

async fn mapper(program: &Path, pid: u32, ranges: &[IdRange]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).env_clear().kill_on_drop(true).stdin(Stdio::null());
    for IdRange { inside, outside, count } in ranges {
        command.args([inside, outside, count].map(u32::to_string));
    }
    let doing = || format!("mapping ids with {}", program.display());
    let output = command.output().await.doing(doing)?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(doing(), reason.trim())
        .hint("the ranges in /etc/subuid and /etc/subgid must be the user's, and the program set-uid root"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_container_maps_what_it_has() {
        assert_eq!(same("         0          0 4294967295\n"), "0 0 4294967295\n");
        assert_eq!(same("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
    }
}
