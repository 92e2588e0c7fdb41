//! Housekeeping of the store that needs workers: files of layers may belong to other user ids.
//!
//! Invariant: a layer is whole only when every file that its tree names has been read and is what the
//! tree says.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;

use super::operate::Operator;
use super::store::{Collected, LayerNumber, Limits, Store, Verified};
use super::worker::{Answer, Failure, Work, Workers};
use super::{Local, run};
use crate::Error;

impl Local {
    /// Removes what no job uses, as far as the limits want it.
    pub async fn prune(&self, limits: Limits) -> Result<Collected, Error> {
        self.housekeeping(move |store, workers| store.collect(&limits, &|folder| remove(workers, store, folder))).await
    }

    /// Reads every blob and every file of every layer; what is damaged is dropped where `repair` is
    /// said.
    pub async fn verify(&self, repair: bool) -> Result<Verified, Error> {
        self.housekeeping(move |store, workers| {
            let check = |layer: LayerNumber, _: &Path, _: &[u8]| {
                Handle::current().block_on(read(workers, layer)).map_err(|failure| failure.to_string())
            };
            store.verify(&check, repair, &|folder| remove(workers, store, folder))
        })
        .await
    }

    async fn housekeeping<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &Workers) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let identity = run::identity(&self.options.path);
        let (root, mode, clock) = (self.options.root.clone(), identity.ids.mode(), self.options.clock);
        let working = tokio::task::spawn_blocking(move || {
            let store = Arc::new(Store::open(&root, mode, clock)?);
            work(&store, &Workers::new(store.root(), identity))
        });
        working.await.unwrap_or(Err(Error::Cancelled))
    }
}

impl Operator {
    /// Makes the store as small as it is to be; what this and other jobs use stays.
    pub(super) async fn keep_below_limit(self: &Arc<Self>) -> Result<(), Error> {
        let operator = Arc::clone(self);
        let working = tokio::task::spawn_blocking(move || {
            let store = &operator.store;
            let failed = |error: rustix::io::Errno| Error::Store { path: store.root().to_owned(), source: error.into() };
            let disk = rustix::fs::statvfs(store.root()).map_err(failed)?;
            let limit = operator.keep_storage.bytes(disk.f_blocks.saturating_mul(disk.f_frsize));
            store.keep_below(limit, &|folder| remove(&operator.workers, store, folder)).map(drop)
        });
        working.await.unwrap_or(Err(Error::Cancelled))
    }
}

/// Has a worker read a layer: packing checks every file against the tree.
async fn read(workers: &Workers, layer: LayerNumber) -> Result<(), Failure> {
    let pack = Work::Pack { layers: vec![layer.number()], merged: false, without: None, latest_s: None };
    let mut worker = workers.spawn(pack).await?;
    let (mut tar, mut complaint) = (worker.stdout.take(), worker.stderr.take());
    let drain = async {
        if let (Some(tar), Some(complaint)) = (&mut tar, &mut complaint) {
            // What cannot be read is the worker's to say.
            let (mut sink, mut other) = (tokio::io::sink(), tokio::io::sink());
            let _ = tokio::join!(tokio::io::copy(tar, &mut sink), tokio::io::copy(complaint, &mut other));
        }
    };
    match tokio::join!(worker.answer(), drain).0? {
        Answer::Done => Ok(()),
        _ => Err(Failure::new("reading a layer", "the worker answered another question")),
    }
}

impl Operator {
    /// Removes what killed and failed work has left half made, whoever's ids own it.
    pub(super) async fn sweep(&self) -> Result<(), Error> {
        let workers = self.workers.clone();
        let sweep = move |store: &Store| {
            // A worker costs more than what this user may remove alone.
            store.sweep(&|folder| std::fs::remove_dir_all(folder).or_else(|_| remove(&workers, store, folder)))
        };
        self.store(sweep).await.map(drop)
    }
}

/// Has a worker remove a folder of `work/` with everything in it.
fn remove(workers: &Workers, store: &Store, folder: &Path) -> io::Result<()> {
    let Ok(path) = folder.strip_prefix(store.root()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    let paths = vec![path.to_string_lossy().into_owned()];
    let removing = async { workers.spawn(Work::Remove { paths }).await?.answer().await };
    Handle::current().block_on(removing).map(drop).map_err(io::Error::other)
}
