//! The embedded solver: solves definitions on this machine, without a daemon.
//!
//! 1. [`Local::open`](crate::solver::Solver::open) opens the store and finds out what the user may do.
//!    `forecast` says what a job would do, and leaves the store as it is.
//! 2. `schedule` runs the vertices of a definition as soon as their inputs are there; `operate` looks
//!    each up by its cache key (`key`), or has it done: `image`, `folder`, `exec`, `files`.
//! 3. Whatever touches file trees is done by a worker process in namespaces of its own (`worker`);
//!    what comes of it is a layer: a folder and its tree (`trees`) in the store (`store`).
//! 4. `export` turns layers into images, archives and folders.
//!
//! Invariant: the tree of a layer says what it holds, owners and devices included; the file system
//! holds as much of that as the user's rights allow.

mod complaint;
mod exec;
mod export;
mod files;
mod folder;
mod forecast;
mod ids;
mod image;
mod job;
mod keep;
mod key;
mod layers;
mod operate;
mod output;
mod read;
mod report;
mod result;
mod room;
mod run;
mod schedule;
pub mod store;
mod trees;
mod worker;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;

pub use store::Clock;
pub use worker::{Refusal, main_if_worker as worker_main};

use crate::buildkit::Address;
use crate::forecast::Forecast;
use crate::oci::{Reference, Registry, RegistryOptions};
use crate::op::Platform;
use crate::solver::{Job, JobOptions, ProgressSender, ResolvedImage, Solver};
use crate::{Definition, Digest, Error};
use operate::{Fresh, Operator};
use report::Reporter;
use store::{Peek, Store};
use tokio::sync::Semaphore;
use worker::Workers;

/// How reports name the embedded solver.
pub const NAME: &str = "the embedded engine";

/// What the embedded solver is told before it starts.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    /// The folder of its store; made where it is missing.
    pub root: PathBuf,
    /// Where `newuidmap` and `newgidmap` are looked for (`PATH`).
    pub path: OsString,
    /// The wall clock, for progress and the store.
    pub clock: Clock,
    /// A docker or podman that images are loaded into, where there is one.
    pub engine: Option<Address>,
    /// How registries are reached.
    pub registries: RegistryOptions,
    /// Whether no step and no source may use the network.
    pub offline: bool,
    /// What the store is kept below, in bytes, at the end of each job.
    pub keep_storage: KeepStorage,
}

/// How much a store may take; what running jobs use stays in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepStorage {
    /// A tenth of the disk that it is on, at least 2 GB and at most 20 GB.
    #[default]
    Share,
    /// This many bytes.
    Bytes(u64),
    /// Anything.
    All,
}

impl KeepStorage {
    /// Returns the limit of a store on a disk of a size.
    fn bytes(self, disk_bytes: u64) -> u64 {
        match self {
            Self::Share => (disk_bytes / 10).clamp(2_000_000_000, 20_000_000_000),
            Self::Bytes(bytes) => bytes,
            Self::All => u64::MAX,
        }
    }
}

/// The embedded solver.
#[derive(Clone, Debug)]
pub struct Local {
    options: LocalOptions,
}

impl Local {
    /// Makes a solver; nothing is read yet.
    pub fn new(options: LocalOptions) -> Self {
        Self { options }
    }
}

/// What steps can do on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Which user ids they have, in words.
    pub ids: String,
    /// What the machine refuses; nothing where steps can run.
    pub refusals: Vec<Refusal>,
}

impl Local {
    /// Finds out what steps can do on this machine, by trying it.
    pub async fn probe(&self) -> Result<Probed, Error> {
        let identity = run::identity(&self.options.path);
        let (root, mode, clock) = (self.options.root.clone(), identity.ids.mode(), self.options.clock);
        let ids = match mode {
            "root" => "root, with every user id".to_owned(),
            "range" => format!("{}, with a range of user ids", identity.user),
            _ => format!(
                "{}, with one user id{}",
                identity.user,
                identity.lacking.as_ref().map(|why| format!(": {why}")).unwrap_or_default()
            ),
        };
        // The folder is made, and tried as a place for layers.
        let store =
            tokio::task::spawn_blocking(move || Store::open(&root, mode, clock)).await.unwrap_or(Err(Error::Cancelled))?;
        let refusals = Workers::new(store.root(), identity).probe().await;
        Ok(Probed { ids, refusals })
    }
}

#[async_trait]
impl Solver for Local {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    async fn identity(&self) -> Result<Digest, Error> {
        Ok(identity_of(&self.options.root))
    }

    async fn forecast(&self, definition: &Definition, options: &JobOptions) -> Result<Option<Forecast>, Error> {
        let (root, path, offline) = (self.options.root.clone(), self.options.path.clone(), self.options.offline);
        let (definition, options) = (definition.clone(), options.clone());
        let looking = move || {
            let store = Peek::open(&root, run::identity(&path).ids.mode())?;
            forecast::forecast(&store, &options, offline, &definition).map(Some)
        };
        tokio::task::spawn_blocking(looking).await.unwrap_or(Err(Error::Cancelled))
    }

    async fn known_image(&self, reference: &Reference, platform: &Platform) -> Result<Option<ResolvedImage>, Error> {
        let Some(digest) = reference.digest() else { return Ok(None) };
        let (root, path) = (self.options.root.clone(), self.options.path.clone());
        let (reference, platform) = (reference.clone(), platform.clone());
        let looking = move || {
            let store = Peek::open(&root, run::identity(&path).ids.mode())?;
            let image = image::pinned_image(&store, &reference, &platform)?;
            Ok(image.map(|image| ResolvedImage { digest: Some(digest), config: image.config_bytes }))
        };
        tokio::task::spawn_blocking(looking).await.unwrap_or(Err(Error::Cancelled))
    }

    async fn open(&self, options: JobOptions, progress: ProgressSender) -> Result<Box<dyn Job>, Error> {
        let identity = run::identity(&self.options.path);
        let (root, mode, clock) = (self.options.root.clone(), identity.ids.mode(), self.options.clock);
        let store =
            tokio::task::spawn_blocking(move || Store::open(&root, mode, clock)).await.unwrap_or(Err(Error::Cancelled))?;
        let store = Arc::new(store);
        let registry = Registry::new(&self.options.registries)?;
        let operator = Operator {
            workers: Workers::new(store.root(), identity),
            turns: Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)),
            store,
            http: registry.http_client(),
            registry,
            options,
            reporter: Reporter::new(progress, clock),
            engine: self.options.engine.clone(),
            offline: self.options.offline,
            keep_storage: self.options.keep_storage,
            fresh: Fresh::default(),
        };
        Ok(Box::new(job::LocalJob::open(operator, identity_of(&self.options.root))?))
    }
}

/// Names a store by its folder.
fn identity_of(root: &Path) -> Digest {
    Digest::of(root.as_os_str().as_encoded_bytes())
}

/// The machine's architecture in the words of the OCI image index.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_may_take_a_tenth_of_its_disk_within_bounds() {
        for (disk_gb, limit_gb) in [(1, 2), (20, 2), (50, 5), (200, 20), (4000, 20)] {
            assert_eq!(KeepStorage::Share.bytes(disk_gb * 1_000_000_000), limit_gb * 1_000_000_000, "{disk_gb}");
        }
        assert_eq!((KeepStorage::Bytes(7).bytes(1), KeepStorage::All.bytes(1)), (7, u64::MAX));
    }
}
