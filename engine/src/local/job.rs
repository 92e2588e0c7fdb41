//! One build on the embedded solver.
//!
//! Invariant: results live as long as their job, which holds every layer and blob that it has seen
//! against garbage collection; dropping it ends every process that it started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::operate::{Operator, unsupported};
use super::result::Ref;
use super::schedule::Scheduler;
use super::store::LayerNumber;
use super::trees::tree::{Kind, Node, Tree};
use super::trees::view::View;
use crate::oci::Reference;
use crate::op::Platform;
use crate::solver::{Export, Exported, FileInfo, Job, ResolveMode, ResolvedImage, Solved};
use crate::{Definition, Digest, Error};

/// What the solver can do, as `solver/pb/caps.go` names it; what is not here is refused before
/// anything runs.
const CAPS: &[&str] = &[
    "constraints",
    "diffop",
    "exec.meta.base",
    "exec.meta.network",
    "exec.meta.proxyenv",
    "exec.meta.removemountstubs.recursive",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "file.base",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.symlink.create",
    "mergeop",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "platform",
    "source.http",
    "source.http.checksum",
    "source.http.perm",
    "source.image",
    "source.local",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.sharedkeyhint",
    "source.ocilayout",
    "soruce.http.uidgid",
];

/// How long ending a job may take: a signal to stop is obeyed within two seconds.
const LET_GO: Duration = Duration::from_secs(1);
/// How often what resists is removed again, and after how long.
const SWEEPS: u32 = 5;
const SWEEP: Duration = Duration::from_millis(20);

/// A build.
pub(super) struct LocalJob {
    identity: Digest,
    pub(super) operator: Arc<Operator>,
    scheduler: Scheduler<Operator>,
    results: Mutex<HashMap<String, Ref>>,
    trees: Mutex<HashMap<LayerNumber, Arc<Tree>>>,
}

impl LocalJob {
    /// Refuses what can never succeed, before anything runs.
    pub(super) fn open(operator: Operator, identity: Digest) -> Result<Self, Error> {
        let caches = operator.options.cache_imports.iter().chain(&operator.options.cache_exports);
        if let Some(cache) = caches.into_iter().next() {
            return Err(unsupported(&format!("caches of the kind {} beside its own", cache.kind)));
        }
        let operator = Arc::new(operator);
        let sweeping = Arc::clone(&operator);
        // What killed jobs left behind takes room; what resists is no reason to fail.
        tokio::spawn(async move { sweeping.sweep().await });
        let scheduler = Scheduler::new(Arc::clone(&operator), operator.reporter.clone());
        Ok(Self { identity, operator, scheduler, results: Mutex::default(), trees: Mutex::default() })
    }

    fn result(&self, solved: &Solved) -> Result<Ref, Error> {
        let results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        results.get(&solved.id).cloned().ok_or_else(|| Error::Integrity(format!("{:?} is no result of this job", solved.id)))
    }

    /// Reads what layers hold, each once in a job.
    pub(super) async fn trees(&self, layers: &[LayerNumber]) -> Result<Vec<Arc<Tree>>, Error> {
        let mut trees = Vec::with_capacity(layers.len());
        for &layer in layers {
            let known = self.trees.lock().unwrap_or_else(PoisonError::into_inner).get(&layer).cloned();
            let tree = match known {
                Some(tree) => tree,
                None => {
                    let read = move |store: &super::store::Store| {
                        let broken = |error| Error::Integrity(format!("layer {layer} of the cache: {error}"));
                        Tree::decode(&store.tree(layer)?).map_err(broken)
                    };
                    let tree = Arc::new(self.operator.store(read).await?);
                    self.trees.lock().unwrap_or_else(PoisonError::into_inner).insert(layer, Arc::clone(&tree));
                    tree
                }
            };
            trees.push(tree);
        }
        Ok(trees)
    }
}

#[async_trait]
impl Job for LocalJob {
    fn identity(&self) -> Digest {
        self.identity
    }

    async fn resolve_image(
        &self,
        reference: &Reference,
        platform: &Platform,
        _mode: ResolveMode,
    ) -> Result<ResolvedImage, Error> {
        let report = self.operator.reporter.start_named(&format!("resolve {}", reference.familiar())).await;
        // A tag is asked of its registry every time: there is nothing that `pull` would add.
        match self.operator.find_image(reference, platform).await {
            Ok(found) => {
                report.completed(false).await;
                Ok(ResolvedImage { digest: Some(found.digest), config: found.image.config_bytes })
            }
            Err(error) => {
                let error = self.operator.in_the_cache(error);
                report.failed(&error).await;
                Err(error)
            }
        }
    }

    async fn solve(&self, definition: &Definition) -> Result<Solved, Error> {
        let missing: Vec<String> = definition.caps().into_iter().filter(|cap| !CAPS.contains(&cap.as_str())).collect();
        if !missing.is_empty() {
            return Err(Error::Unsupported { solver: super::NAME.to_owned(), missing });
        }
        let made = self.scheduler.solve(definition).await?;
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        let id = results.len().to_string();
        results.insert(id.clone(), made);
        Ok(Solved { id })
    }

    async fn read_dir(&self, result: &Solved, path: &str) -> Result<Vec<FileInfo>, Error> {
        let made = self.result(result)?;
        let trees = self.trees(made.layers()?).await?;
        let view = View::new(trees.iter().map(|tree| &**tree));
        let path = path.trim_matches('/');
        let listed = view.folder(path.as_bytes()).into_iter().map(|(name, node)| info(name, node));
        Ok(listed.collect())
    }

    async fn read_file(&self, result: &Solved, path: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        self.file(self.result(result)?, path, max_bytes).await
    }

    async fn export(self: Box<Self>, result: Solved, config: Vec<u8>) -> Result<Exported, Error> {
        let made = self.result(&result)?;
        let mut exported = Exported::default();
        if !self.operator.options.exports.is_empty() {
            let report = self.operator.reporter.start_named("exporting to image").await;
            match self.write_exports(&made, config, &report).await {
                Ok(written) => {
                    report.completed(false).await;
                    exported = written;
                }
                Err(error) => {
                    report.failed(&error).await;
                    return Err(error);
                }
            }
        }
        // What was asked for is there; room that cannot be made is said, and is no failure of it.
        if let Err(error) = self.operator.keep_below_limit().await {
            self.operator.reporter.start_named("collect garbage").await.failed(&error).await;
        }
        Ok(exported)
    }

    async fn cancel(self: Box<Self>) {
        self.scheduler.stop().await;
    }
}

impl Drop for LocalJob {
    /// Ends what still runs, and removes what it leaves half made. A job is dropped for a failure or
    /// a signal as well, and the process may end right after that: so it is waited for.
    fn drop(&mut self) {
        let (mut tasks, operator) = (self.scheduler.take(), Arc::clone(&self.operator));
        let clean = async move {
            tasks.shutdown().await;
            // Processes that were killed just now may still have made a file.
            for _ in 0..SWEEPS {
                if operator.sweep().await.is_ok() {
                    break;
                }
                tokio::time::sleep(SWEEP).await;
            }
        };
        // A runtime of its own: whoever drops the job may be the only thread of another one.
        let cleaning = std::thread::Builder::new().spawn(move || {
            if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
                // What does not end in time is left for the next job.
                let _ = runtime.block_on(async { tokio::time::timeout(LET_GO, clean).await });
                runtime.shutdown_background();
            }
        });
        // Without a thread, too, it is left for the next job.
        let _ = cleaning.map(std::thread::JoinHandle::join);
    }
}

/// What users are told of a node.
fn info(name: &[u8], node: &Node) -> FileInfo {
    let (kind, size_bytes, link_name) = match &node.kind {
        Kind::File { size_bytes, .. } => (0o100_000, *size_bytes, String::new()),
        Kind::Folder { .. } => (0o040_000, 0, String::new()),
        Kind::Symlink { target } => (0o120_000, target.len() as u64, String::from_utf8_lossy(target).into_owned()),
        Kind::Hardlink { .. } => (0o100_000, 0, String::new()),
        Kind::Char { .. } | Kind::Whiteout => (0o020_000, 0, String::new()),
        Kind::Block { .. } => (0o060_000, 0, String::new()),
        Kind::Fifo => (0o010_000, 0, String::new()),
    };
    FileInfo {
        name: String::from_utf8_lossy(name).into_owned(),
        mode: kind | node.mode,
        uid: node.uid,
        gid: node.gid,
        size_bytes,
        link_name,
    }
}

/// Says which outputs need an image, and not its files alone.
pub(super) fn is_image(export: &Export) -> bool {
    !matches!(export, Export::Folder { .. } | Export::Archive { format: crate::solver::ArchiveFormat::Tar, .. })
}
