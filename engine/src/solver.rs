//! The solver: what turns definitions into results, behind one trait.
//!
//! Invariant: a solver is told everything before it starts ([`JobOptions`]); during a job it asks
//! the caller for nothing but what the options name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};

use crate::forecast::Forecast;
use crate::oci::{Credentials, Reference};
use crate::op::Platform;
use crate::{Definition, Digest, Error};

/// A place where definitions are solved.
#[async_trait]
pub trait Solver: Send + Sync {
    /// Returns how the report names the solver: its kind and address.
    fn name(&self) -> String;

    /// Returns what tells the solver from another one that is later found at its address, and stays
    /// as long as its cache does. A daemon is asked for it.
    async fn identity(&self) -> Result<Digest, Error>;

    /// Foretells what a job with `options` would do for a definition, on what is there now; nothing
    /// where the solver does not know. Nothing is written and no network is used.
    async fn forecast(&self, _definition: &Definition, _options: &JobOptions) -> Result<Option<Forecast>, Error> {
        Ok(None)
    }

    /// Returns what is known of an image that is named by its digest, without asking anybody; nothing
    /// where the solver keeps nothing here. Nothing is written.
    async fn known_image(&self, _reference: &Reference, _platform: &Platform) -> Result<Option<ResolvedImage>, Error> {
        Ok(None)
    }

    /// Opens a job. Progress is sent until the job ends; a receiver that is slow slows it down, one
    /// that is dropped is no error.
    async fn open(&self, options: JobOptions, progress: ProgressSender) -> Result<Box<dyn Job>, Error>;
}

/// One build. Dropping a job cancels it; [`Job::cancel`] also waits until the solver has let go.
///
/// Calls may run at the same time: what two definitions share is solved once.
#[async_trait]
pub trait Job: Send + Sync {
    /// Returns [`Solver::identity`], which an open job knows.
    fn identity(&self) -> Digest;

    /// Finds an image's digest and config without pulling its layers.
    async fn resolve_image(&self, reference: &Reference, platform: &Platform, mode: ResolveMode) -> Result<ResolvedImage, Error>;

    /// Solves a definition; the result stays on the solver.
    ///
    /// Fails with [`Error::Unsupported`] before anything is sent where the solver lacks a
    /// capability that the definition needs.
    async fn solve(&self, definition: &Definition) -> Result<Solved, Error>;

    /// Lists a folder of a result, sorted by name.
    async fn read_dir(&self, result: &Solved, path: &str) -> Result<Vec<FileInfo>, Error>;

    /// Reads a regular file of a result; no link leads to `path`, which [`Job::read_dir`] has listed.
    ///
    /// Fails with [`Error::Resource`] where the file has more than `max_bytes`.
    async fn read_file(&self, result: &Solved, path: &str, max_bytes: u64) -> Result<Vec<u8>, Error>;

    /// Ends the job with `result`: every output of the options is written.
    /// `config` is the image's OCI config (JSON) without `rootfs`; its `history` has an entry for
    /// every layer.
    async fn export(self: Box<Self>, result: Solved, config: Vec<u8>) -> Result<Exported, Error>;

    /// Ends the job without a result and waits, a second at most, until the solver has let go.
    async fn cancel(self: Box<Self>);
}

/// What a job is told before it starts.
#[derive(Clone, Default)]
pub struct JobOptions {
    /// Where the result goes; nowhere where empty.
    pub exports: Vec<Export>,
    /// Caches that results may come from.
    pub cache_imports: Vec<CacheEntry>,
    /// Caches that results are written to.
    pub cache_exports: Vec<CacheEntry>,
    /// Folders that local sources may name.
    pub locals: BTreeMap<String, LocalDir>,
    /// Trees of this machine's own files that local sources may name; only solvers on this machine
    /// have them.
    pub host_trees: BTreeMap<String, HostTree>,
    /// OCI layouts, folders or archives, that `oci-layout` sources may name (`oci.store`); only the
    /// embedded solver reads them.
    pub oci_layouts: BTreeMap<String, PathBuf>,
    /// Secrets that mounts may name.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Registry credentials; none where absent.
    pub credentials: Option<Arc<dyn Credentials>>,
}

/// Judges a file by its path relative to a folder (with `/`) and its full path.
pub type Admits = dyn Fn(&str, &Path) -> bool + Send + Sync;

/// A folder that the solver may read during a job.
#[derive(Clone)]
pub struct LocalDir {
    /// The folder.
    pub path: PathBuf,
    /// Says whether a file may leave the machine, by its path relative to the folder (with `/`)
    /// and its full path. Asked for every file and folder, whatever the solver asks for.
    pub admits: Arc<Admits>,
    /// The digest of all that is in it, where the caller knows it: a solver that has the same content
    /// already need not read the folder.
    pub content: Option<Digest>,
}

/// Files of this machine as a tree that steps may read, never write.
///
/// A local source with the tree's name stands for it; the source's `local.sharedkeyhint` is the
/// tree's digest, so that a vertex names what its steps read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTree {
    /// The digest of every path, link and file in it.
    pub digest: Digest,
    /// What is in it, sorted by path; nothing lies beneath an entry, and folders between the root
    /// and an entry are not listed.
    pub entries: Vec<HostEntry>,
}

/// A place in a [`HostTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Its absolute path in the tree.
    pub path: String,
    /// What is there.
    pub node: HostNode,
}

/// What is at a place of a [`HostTree`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNode {
    /// A file or a folder of the machine.
    Bind(PathBuf),
    /// A symbolic link that says this.
    Symlink(String),
}

/// One output of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// An image in the solver's own image store under these names.
    Store {
        /// Full references with tags.
        names: Vec<String>,
    },
    /// An image pushed to registries under these names.
    Registry {
        /// Full references with tags.
        names: Vec<String>,
    },
    /// An image as one file.
    Archive {
        /// The archive's format.
        format: ArchiveFormat,
        /// The names written into it.
        names: Vec<String>,
        /// Where it goes.
        dest: ArchiveDest,
    },
    /// An image as a folder: an OCI image layout.
    Layout {
        /// The names written into it.
        names: Vec<String>,
        /// The folder; made where it is missing, and added to where it is a layout.
        dest: PathBuf,
    },
    /// The result's files under a folder.
    Folder {
        /// The folder; made where it is missing.
        dest: PathBuf,
    },
}

/// The format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// An OCI image layout in a tar.
    Oci,
    /// What `docker load` reads.
    Docker,
    /// The result's files, no image.
    Tar,
}

/// Where an archive goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveDest {
    /// A file, written whole or not at all.
    File(PathBuf),
    /// The process's standard output.
    Stdout,
}

/// A cache that results come from or go to (`--cache-from`, `--cache-to`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`, `gha`, …
    pub kind: String,
    /// Its settings (`ref`, `mode`, `src`, `dest`, …).
    pub attrs: BTreeMap<String, String>,
}

/// Where an image is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResolveMode {
    /// The solver's own choice: what it has first, then the registry.
    #[default]
    Default,
    /// The registry, always (`--pull`).
    Pull,
}

/// What is known of an image without its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The manifest's (or index's) digest; absent where the image is known to the solver's own
    /// store alone and that has no manifests.
    pub digest: Option<Digest>,
    /// The image's OCI config, as JSON.
    pub config: Vec<u8>,
}

/// A result that stays on the solver for the rest of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Solved {
    /// The solver's name for it.
    pub id: String,
}

/// What a job's outputs were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// What the exporters said: `containerimage.digest`, `containerimage.config.digest`,
    /// `containerimage.descriptor` (base64 of JSON), `image.name`, …
    pub response: BTreeMap<String, String>,
}

/// A file or folder of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name in its folder; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// Unix type and permission bits (`st_mode`).
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its size; of a file, the content's.
    pub size_bytes: u64,
    /// What a symbolic link says.
    pub link_name: String,
}

impl FileInfo {
    /// Says whether it is a folder.
    pub fn is_dir(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }
}

/// Says that a file is larger than it may be.
pub(crate) fn too_large(path: &str, max_bytes: u64) -> Error {
    Error::Resource(format!("{path} of the result has more than {max_bytes} bytes, which is all that is read of a file"))
}

/// Makes a channel for progress that holds at most `limit_bytes` of it, whatever the number of
/// messages: a receiver that is slow slows a solver down that floods it, and no other.
pub fn progress_channel(limit_bytes: u32) -> (ProgressSender, ProgressReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(limit_bytes as usize));
    (ProgressSender { sender, room: Arc::clone(&room), limit_bytes }, ProgressReceiver { receiver, room })
}

/// Where a solver sends progress to.
#[derive(Clone, Debug)]
pub struct ProgressSender {
    sender: mpsc::UnboundedSender<(Progress, u32)>,
    room: Arc<Semaphore>,
    limit_bytes: u32,
}

impl ProgressSender {
    /// Sends a message once there is room for it; a receiver that is gone is no error.
    pub async fn send(&self, progress: Progress) {
        if self.sender.is_closed() {
            return;
        }
        let bytes = progress.size_bytes().min(self.limit_bytes);
        if let Ok(room) = self.room.acquire_many(bytes).await {
            room.forget();
            // The room of a receiver that is gone is of no use to anybody.
            let _ = self.sender.send((progress, bytes));
        }
    }
}

/// Where progress arrives.
#[derive(Debug)]
pub struct ProgressReceiver {
    receiver: mpsc::UnboundedReceiver<(Progress, u32)>,
    room: Arc<Semaphore>,
}

impl ProgressReceiver {
    /// Returns the next message; nothing once every sender is gone.
    pub async fn recv(&mut self) -> Option<Progress> {
        let (progress, bytes) = self.receiver.recv().await?;
        self.room.add_permits(bytes as usize);
        Some(progress)
    }
}

impl Drop for ProgressReceiver {
    fn drop(&mut self) {
        // Nobody is to wait for room that will never come.
        self.room.close();
    }
}

/// What changed since the last message: a solver's progress is a stream of these.
///
/// A vertex may be spoken of several times, start several times and complete several times, and
/// messages do not come in topological order. The shape is BuildKit's `client/graph.go`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Vertices that appeared, started, completed or failed.
    pub vertices: Vec<VertexProgress>,
    /// Parts of vertices: layers that are pulled, files that are sent.
    pub statuses: Vec<StatusProgress>,
    /// What processes wrote.
    pub logs: Vec<LogProgress>,
    /// Warnings.
    pub warnings: Vec<WarningProgress>,
}

impl Progress {
    /// Returns about how much memory the message takes: its logs and a little for each entry.
    fn size_bytes(&self) -> u32 {
        const ENTRY: usize = 256;
        let entries = self.vertices.len() + self.statuses.len() + self.logs.len() + self.warnings.len();
        let logs: usize = self.logs.iter().map(|log| log.data.len()).sum();
        u32::try_from(logs + ENTRY * (entries + 1)).unwrap_or(u32::MAX)
    }
}

/// The state of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexProgress {
    /// The vertex; exporters and the like have digests too that are in no definition.
    pub digest: Digest,
    /// Its inputs.
    pub inputs: Vec<Digest>,
    /// What people are shown.
    pub name: String,
    /// Whether its result came from a cache.
    pub cached: bool,
    /// When it started, by the solver's clock.
    pub started: Option<SystemTime>,
    /// When it completed.
    pub completed: Option<SystemTime>,
    /// Why it failed; empty where it did not.
    pub error: String,
}

/// The state of a part of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusProgress {
    /// The part.
    pub id: String,
    /// Its vertex.
    pub vertex: Digest,
    /// What people are shown beside the id.
    pub name: String,
    /// How far it is, in bytes or in a unit of its own.
    pub current: i64,
    /// How far it goes; 0 where that is not known.
    pub total: i64,
    /// When this was said, by the solver's clock.
    pub timestamp: Option<SystemTime>,
    /// When it started.
    pub started: Option<SystemTime>,
    /// When it completed.
    pub completed: Option<SystemTime>,
}

/// A piece of a process's output: bytes as they came, not lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// The vertex.
    pub vertex: Digest,
    /// 1 is standard output, 2 is standard error.
    pub stream: i64,
    /// The bytes.
    pub data: Vec<u8>,
    /// When they were written, by the solver's clock.
    pub timestamp: Option<SystemTime>,
}

/// A warning about a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarningProgress {
    /// The vertex.
    pub vertex: Digest,
    /// How bad, 1 and up.
    pub level: i64,
    /// One line.
    pub short: String,
    /// More lines.
    pub detail: Vec<String>,
    /// Where to read on; may be empty.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn log(bytes: usize) -> Progress {
        let log = LogProgress { vertex: Digest::of(b"v"), stream: 1, data: vec![b'x'; bytes], timestamp: None };
        Progress { logs: vec![log], ..Progress::default() }
    }

    async fn waits(send: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::from_millis(50), send).await.is_err()
    }

    #[tokio::test]
    async fn many_small_messages_pass_and_a_flood_waits_for_its_reader() {
        let (sender, mut receiver) = progress_channel(1_000_000);
        for _ in 0..1000 {
            assert!(!waits(sender.send(log(100))).await);
        }
        assert!(waits(sender.send(log(900_000))).await);
        while !receiver.receiver.is_empty() {
            receiver.recv().await.unwrap();
        }
        assert!(!waits(sender.send(log(5_000_000))).await, "a message larger than the channel passes alone");
        assert!(waits(sender.send(log(1))).await);
        drop(receiver);
        assert!(!waits(sender.send(log(1))).await);
    }
}
