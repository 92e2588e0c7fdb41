//! Does what a vertex asks for, or finds what doing it gave last time.
//!
//! Invariant: a result is looked up and made under a lock of its cache key, so that several
//! processes that want the same make it once; a failure is never kept.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use super::KeepStorage;
use super::key::cache_key;
use super::report::{Report, Reporter};
use super::result::Ref;
use super::schedule::{Operate, Operated, Outputs};
use super::store::{CacheKey, FileLock, LayerNumber, Look, Record, RecordAbout, Store};
use super::worker::{Work, Workers};
use crate::buildkit::Address;
use crate::oci::{Reference, Registry};
use crate::op::{Diff, Merge, MountKind, OpKind, Platform, Source};
use crate::solver::{HostTree, JobOptions};
use crate::{Error, Vertex};

/// How often a lock that another process holds is tried.
const RETRY: Duration = Duration::from_millis(20);

/// What one job works with.
pub(super) struct Operator {
    pub(super) store: Arc<Store>,
    pub(super) workers: Workers,
    /// How many workers may run at once.
    pub(super) turns: Semaphore,
    pub(super) registry: Registry,
    pub(super) options: JobOptions,
    pub(super) reporter: Reporter,
    /// For files that are fetched by HTTP.
    pub(super) http: reqwest::Client,
    /// A docker or podman that images are loaded into.
    pub(super) engine: Option<Address>,
    /// Whether the network is not to be used.
    pub(super) offline: bool,
    /// What the store is kept below.
    pub(super) keep_storage: KeepStorage,
    /// What was not there before the job.
    pub(super) fresh: Fresh,
}

/// What a job has made or brought in: keys, layers, images. A vertex that finds it was not cached:
/// another one of the job ran for both.
#[derive(Debug, Default)]
pub(super) struct Fresh(Mutex<BTreeSet<String>>);

impl Fresh {
    pub(super) fn insert(&self, what: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what);
    }

    pub(super) fn contains(&self, what: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(what)
    }
}

#[async_trait]
impl Operate for Operator {
    async fn operate(&self, vertex: &Vertex, inputs: &[Ref], report: &Report) -> Result<Operated, Error> {
        let operated = match &vertex.op.kind {
            OpKind::Source(source) => self.source(vertex, source, report).await,
            OpKind::Exec(exec) => {
                let key = cache_key(vertex, inputs, b"");
                self.cached(vertex, key, report, Box::pin(self.exec(vertex, exec, inputs, report))).await
            }
            OpKind::File(file) => {
                let key = cache_key(vertex, inputs, b"");
                self.cached(vertex, key, report, Box::pin(self.files(vertex, file, inputs, report))).await
            }
            OpKind::Merge(merge) => self.merge(merge, inputs).await,
            OpKind::Diff(diff) => self.diff(vertex, diff, inputs, report).await,
            OpKind::Build(_) => Err(unsupported("the build op")),
        };
        operated.map_err(|error| self.in_the_cache(error))
    }
}

impl Operator {
    /// Runs `work` with the store on a thread where it may wait for the disk.
    pub(super) async fn store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(&store)).await.unwrap_or(Err(Error::Cancelled))
    }

    /// Takes a lock that excludes the other processes, too.
    pub(super) async fn lock(&self, name: String) -> Result<FileLock, Error> {
        loop {
            let wanted = name.clone();
            if let Some(lock) = self.store(move |store| store.try_lock(&wanted)).await? {
                return Ok(lock);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Finds the outputs of a vertex by their key, or makes and keeps them.
    pub(super) async fn cached(
        &self,
        vertex: &Vertex,
        key: CacheKey,
        report: &Report,
        make: BoxFuture<'_, Result<Outputs, Error>>,
    ) -> Result<Operated, Error> {
        let numbers = output_numbers(&vertex.op.kind);
        let reuse = !vertex.metadata.ignore_cache;
        if reuse && let Some(operated) = self.known(key, &numbers).await? {
            return Ok(operated);
        }
        let _alone = self.lock(format!("vertex {key}")).await?;
        if reuse && let Some(operated) = self.known(key, &numbers).await? {
            return Ok(operated);
        }
        let started = Instant::now();
        let outputs = make.await?;
        let layers = numbers.iter().map(|number| outputs.get(number).map_or(Ok(Vec::new()), |made| Ok(made.layers()?.to_vec())));
        let about = RecordAbout { name: report.name().to_owned(), took: started.elapsed(), ..RecordAbout::default() };
        let record = Record { outputs: layers.collect::<Result<_, Error>>()?, about };
        self.store(move |store| store.record(&key, &record)).await?;
        self.fresh.insert(key.to_string());
        Ok(Operated { outputs, cached: false })
    }

    async fn known(&self, key: CacheKey, numbers: &[u32]) -> Result<Option<Operated>, Error> {
        let numbers = numbers.to_vec();
        let outputs = self.store(move |store| recorded(store, &key, &numbers)).await?;
        Ok(outputs.map(|outputs| Operated { outputs, cached: !self.fresh.contains(&key.to_string()) }))
    }

    async fn source(&self, vertex: &Vertex, source: &Source, report: &Report) -> Result<Operated, Error> {
        let (made, cached) = match source.scheme() {
            "docker-image" => self.image(&image_reference(source)?, &platform_of(vertex), report).await?,
            "local" => match host_tree(&self.options, source)? {
                Some(tree) => (Ref::Host(tree.clone()), true),
                None => return self.folder(vertex, source, report).await,
            },
            "oci-layout" => self.layout(source, &platform_of(vertex), report).await?,
            "http" | "https" => return self.http(vertex, source, report).await,
            scheme => return Err(unsupported(&format!("sources of the kind {scheme}"))),
        };
        Ok(Operated { outputs: [(0, made)].into(), cached })
    }

    /// Lays trees over one another: the layers of all of them, bottom first.
    async fn merge(&self, _merge: &Merge, inputs: &[Ref]) -> Result<Operated, Error> {
        let layers = merged(inputs)?;
        let merged = self.store(move |store| Ref::of(store, &layers)).await?;
        Ok(Operated { outputs: [(0, merged)].into(), cached: true })
    }

    /// Takes the layers that one tree has over another.
    async fn diff(&self, vertex: &Vertex, diff: &Diff, inputs: &[Ref], report: &Report) -> Result<Operated, Error> {
        let (lower, upper) = sides(diff, inputs)?;
        let Some(over) = upper.strip_prefix(lower) else {
            let (lower, upper) = (lower.to_vec(), upper.to_vec());
            let compare = async move { Ok([(0, self.difference(&lower, &upper).await?)].into()) };
            return self.cached(vertex, cache_key(vertex, inputs, b""), report, Box::pin(compare)).await;
        };
        let over = over.to_vec();
        let made = self.store(move |store| Ref::of(store, &over)).await?;
        Ok(Operated { outputs: [(0, made)].into(), cached: true })
    }

    /// Makes a layer of what two trees do not share: it goes from one worker to another as a tar.
    async fn difference(&self, lower: &[LayerNumber], upper: &[LayerNumber]) -> Result<Ref, Error> {
        let numbers = |layers: &[LayerNumber]| layers.iter().map(|layer| layer.number()).collect::<Vec<_>>();
        let pack = Work::Pack { layers: numbers(upper), merged: true, without: Some(numbers(lower)), latest_s: None };
        let begun = self.begin(Vec::new()).await?;
        let unpack = Work::Unpack { into: begun.work.name(), below: numbers(lower) };
        let tar = self.run_read(pack, |tar| {
            let mut kept = tempfile_in_memory()?;
            std::io::copy(tar, &mut kept)?;
            Ok(kept)
        });
        let mut tar = tar.await?;
        let feed = move |into: &mut dyn std::io::Write| {
            std::io::Seek::rewind(&mut tar)?;
            std::io::copy(&mut tar, into)
        };
        self.run_fed(unpack, feed).await?;
        self.finish(begun, false).await
    }
}

/// Finds the outputs that were recorded for a key.
pub(super) fn recorded(store: &impl Look, key: &CacheKey, numbers: &[u32]) -> Result<Option<Outputs>, Error> {
    let Some(outputs) = store.outputs(key)?.filter(|outputs| outputs.len() == numbers.len()) else {
        return Ok(None);
    };
    let outputs = numbers.iter().zip(&outputs).map(|(&number, layers)| Ok((number, Ref::of(store, layers)?)));
    outputs.collect::<Result<Outputs, Error>>().map(Some)
}

/// Reads which image a source names.
pub(super) fn image_reference(source: &Source) -> Result<Reference, Error> {
    source.reference().parse().map_err(|error| Error::Registry {
        reference: source.reference().to_owned(),
        reason: format!("{error}"),
        transient: false,
    })
}

/// The platform that a vertex is for: this machine's where it does not say.
pub(super) fn platform_of(vertex: &Vertex) -> Platform {
    vertex.op.platform.clone().unwrap_or_else(|| Platform::new("linux", super::architecture()))
}

/// Finds the machine's own files that a local source stands for, where it does not stand for a folder.
pub(super) fn host_tree<'a>(options: &'a JobOptions, source: &Source) -> Result<Option<&'a HostTree>, Error> {
    let Some(tree) = options.host_trees.get(source.reference()) else { return Ok(None) };
    let named = source.attrs.get("local.sharedkeyhint");
    if named.is_some_and(|hint| *hint != tree.digest.hex()) {
        let reason = format!("{} holds {}, not what the graph names", source.reference(), tree.digest);
        return Err(Error::Integrity(reason));
    }
    Ok(Some(tree))
}

/// The layers of all trees, bottom first.
pub(super) fn merged(inputs: &[Ref]) -> Result<Vec<LayerNumber>, Error> {
    let mut layers = Vec::new();
    for input in inputs {
        layers.extend_from_slice(input.layers()?);
    }
    Ok(layers)
}

/// The layers of the lower tree and of the upper one.
pub(super) fn sides<'a>(diff: &Diff, inputs: &'a [Ref]) -> Result<(&'a [LayerNumber], &'a [LayerNumber]), Error> {
    let mut sides = inputs.iter();
    let lower = if diff.lower.is_some() { sides.next() } else { None };
    let lower = lower.map_or(Ok(&[][..]), Ref::layers)?;
    Ok((lower, sides.next().map_or(Ok(&[][..]), Ref::layers)?))
}

/// The outputs of an op, ascending.
pub(super) fn output_numbers(kind: &OpKind) -> Vec<u32> {
    let mut numbers: Vec<u32> = match kind {
        OpKind::Exec(exec) => {
            let outputs = exec.mounts.iter().filter_map(|mount| match mount.kind {
                MountKind::Bind { output, .. } => output,
                _ => None,
            });
            outputs.collect()
        }
        OpKind::File(file) => file.actions.iter().filter_map(|action| action.output).collect(),
        _ => vec![0],
    };
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Makes a file without a name, in memory: the difference of two trees is small.
fn tempfile_in_memory() -> std::io::Result<std::fs::File> {
    Ok(rustix::fs::memfd_create("difference", rustix::fs::MemfdFlags::CLOEXEC)?.into())
}

/// Says what the embedded solver cannot do.
pub(super) fn unsupported(what: &str) -> Error {
    Error::Unsupported { solver: super::NAME.to_owned(), missing: vec![what.to_owned()] }
}
