//! Has workers do their work: feeds them, reads them, passes their logs on.
//!
//! Invariant: at most as many workers run at once as the machine has processors, and one that its
//! job no longer waits for is ended.

use std::fs::File;
use std::io::{self, Read, Write};

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::complaint::Complaint;
use super::ids::{Facts, Identity, find};
use super::operate::Operator;
use super::report::Report;
use super::worker::{Answer, Failure, Work};
use crate::Error;

/// What one message of a step's log holds at the most.
const LOG_BYTES: usize = 32 << 10;
/// What a pipe of content holds: as much as an ordinary user's may.
const PIPE_BYTES: usize = 1 << 20;
/// How much of what a worker complains of is kept.
const COMPLAINT_BYTES: u64 = 4 << 10;

impl Operator {
    /// Has work done whose output is the vertex's log; says whether the log [complains](Complaint).
    pub(super) async fn run_logged(&self, work: Work, report: &Report) -> Result<(Answer, bool), Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Cancelled)?;
        let mut worker = self.workers.spawn(work).await.map_err(broken)?;
        drop(worker.stdin.take());
        let (stdout, stderr) = (worker.stdout.take(), worker.stderr.take());
        // A step's children may keep the pipes open; they end with the worker.
        let (answer, first, second) = tokio::join!(worker.answer(), log(stdout, 1, report), log(stderr, 2, report));
        Ok((answer.map_err(broken)?, first || second))
    }

    /// Has work done that reads what `feed` writes, and returns what that came to.
    pub(super) async fn run_fed<T: Send + 'static>(
        &self,
        work: Work,
        feed: impl FnOnce(&mut dyn Write) -> io::Result<T> + Send + 'static,
    ) -> Result<(Answer, T), Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Cancelled)?;
        let mut worker = self.workers.spawn(work).await.map_err(broken)?;
        let stdin = worker.stdin.take().and_then(|stdin| stdin.into_owned_fd().ok()).map(File::from);
        let mut stdin = stdin.ok_or_else(|| nonsense("starting a worker"))?;
        widen(&stdin);
        let feeding = tokio::task::spawn_blocking(move || {
            rustix::io::ioctl_fionbio(&stdin, false)?;
            let fed = feed(&mut stdin);
            drop(stdin);
            fed
        });
        let (answer, fed) = tokio::join!(worker.answer(), feeding);
        let fed = fed.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        match (answer, fed) {
            (Ok(answer), Ok(fed)) => Ok((answer, fed)),
            // A worker that gave up has the better reason.
            (Err(failure), _) => Err(broken(failure)),
            (Ok(_), Err(error)) if Error::is_exhausted(&error) => Err(Error::Resource(error.to_string())),
            (Ok(_), Err(error)) => Err(Error::Integrity(format!("what is unpacked cannot be read: {error}"))),
        }
    }

    /// Has work done whose output `take` reads, and returns what that came to.
    pub(super) async fn run_read<T: Send + 'static>(
        &self,
        work: Work,
        take: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let _turn = self.turns.acquire().await.map_err(|_| Error::Cancelled)?;
        let mut worker = self.workers.spawn(work).await.map_err(broken)?;
        drop(worker.stdin.take());
        let stdout = worker.stdout.take().and_then(|stdout| stdout.into_owned_fd().ok()).map(File::from);
        let mut stdout = stdout.ok_or_else(|| nonsense("starting a worker"))?;
        widen(&stdout);
        let stderr = worker.stderr.take();
        let taking = tokio::task::spawn_blocking(move || {
            rustix::io::ioctl_fionbio(&stdout, false)?;
            let taken = take(&mut stdout);
            // Who gave up has the better reason than a worker that nobody listens to any more.
            io::copy(&mut stdout, &mut io::sink())?;
            taken
        });
        let complaint = async {
            let mut said = Vec::new();
            if let Some(stderr) = stderr {
                // Who cannot be heard has nothing to say.
                let _ = stderr.take(COMPLAINT_BYTES).read_to_end(&mut said).await;
            }
        };
        let (answer, taken, ()) = tokio::join!(worker.answer(), taking, complaint);
        let taken = taken.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()));
        match answer.map_err(broken)? {
            Answer::Done => taken.map_err(|source| Error::Store { path: self.store.root().to_owned(), source }),
            _ => Err(nonsense("packing")),
        }
    }
}

/// Lets the two ends of a pipe take fewer turns.
fn widen(pipe: &File) {
    // One that stays as it is costs time and nothing else.
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
}

async fn log(from: Option<impl AsyncRead + Unpin>, stream: i64, report: &Report) -> bool {
    let mut complaint = Complaint::default();
    let Some(mut from) = from else { return false };
    let mut buffer = vec![0; LOG_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        complaint.hear(&buffer[..length]);
        report.log(stream, buffer[..length].to_vec()).await;
    }
    complaint.heard()
}

/// Says that a worker answered another question.
pub(super) fn nonsense(doing: &str) -> Error {
    Error::Daemon { doing: doing.to_owned(), reason: "a worker gave an answer that makes no sense".to_owned() }
}

/// Turns a worker's failure into the solver's.
fn broken(failure: Failure) -> Error {
    let hint = failure.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
    if failure.exhausted {
        return Error::Resource(format!("{failure}{hint}"));
    }
    Error::Daemon { doing: failure.doing, reason: format!("{}{hint}", failure.reason) }
}

/// Finds out which ids the user has; `path` is where programs are looked for.
pub(super) fn identity(path: &std::ffi::OsStr) -> Identity {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let path: Vec<_> = std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect();
    find(&Facts {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        passwd: &read("/etc/passwd"),
        subuid: &read("/etc/subuid"),
        subgid: &read("/etc/subgid"),
        path: &path,
    })
}
