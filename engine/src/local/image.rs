//! Image sources: from a registry, an OCI layout, or what the store has of it already, to layers.
//!
//! 1. The manifest and the config come from the store where the reference has a digest that is
//!    known there, else from the registry, and are kept as blobs.
//! 2. Each layer is looked up by its chain id; one that is missing is fetched (resumed where an
//!    earlier try left off), checked against its digest and unpacked by a worker.
//!
//! Invariant: a layer is committed only when its bytes have the digest of the manifest and, once
//! they are uncompressed, the diff id of the config. A layer is fetched once, however many
//! processes want it.

use std::collections::BTreeMap;
use std::io::{BufWriter, Read, Seek as _, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::layers::measure;
use super::operate::{Operator, unsupported};
use super::report::Report;
use super::result::Ref;
use super::store::{CacheKey, FileLock, LayerNumber, Look, Partial, PartialBlob, Record, RecordAbout, Store, Subject};
use super::worker::{Answer, Work};
use crate::oci::{
    Blobs as _, Configs, Decompressor, Descriptor, Document, Hashing, Image, Layout, Limits, Reference, Repository,
};
use crate::op::{Platform, Source};
use crate::{Digest, Error};

/// How long a registry that fails is asked again, at most.
const DEADLINE: Duration = Duration::from_secs(120);
/// How much of a layer is decompressed, hashed and handed to a worker at once.
const PIECE_BYTES: usize = 256 << 10;

/// An image that was found.
pub(super) struct Found {
    /// The digest of its manifest or index, by which it can be named.
    pub(super) digest: Digest,
    pub(super) image: Image,
}

/// Configs of the store; whoever is the first to want one that is not there fetches it, and the
/// others wait.
struct Once<'a> {
    operator: &'a Operator,
    held: Mutex<Option<FileLock>>,
}

#[async_trait]
impl Configs for Once<'_> {
    async fn known(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let stored = || self.operator.store(move |store| read(store, &digest));
        let holds = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // A second place is asked after the first one failed.
        if holds().is_some() {
            return Ok(None);
        }
        if let Some(config) = stored().await? {
            return Ok(Some(config));
        }
        let lock = self.operator.lock(format!("config {digest}")).await?;
        let known = stored().await?;
        if known.is_none() {
            *holds() = Some(lock);
        }
        Ok(known)
    }
}

/// Reads a blob whole; nothing where it is not there.
fn read(store: &impl Look, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
    let Some(mut file) = store.blob(digest)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|source| Error::Store { path: store.blob_path(digest), source })?;
    Ok(Some(bytes))
}

impl Operator {
    /// Finds an image's manifest and config; a tag is always asked for anew.
    pub(super) async fn find_image(&self, reference: &Reference, platform: &Platform) -> Result<Found, Error> {
        if reference.digest().is_some() {
            let name = fact_name(reference, platform);
            if let Some(found) = self.store(move |store| known_image(store, &name)).await? {
                return Ok(found);
            }
        }
        // Held until the config is in the store.
        let configs = Once { operator: self, held: Mutex::default() };
        let found = self.repository(reference)?.image(platform, DEADLINE, Some(&configs)).await?;
        let (digest, image) = (found.digest, found.image);
        let (manifest, config) = (image.manifest_bytes.clone(), image.config_bytes.clone());
        let media_type = image.manifest.media_type.clone();
        let pinned = fact_name(&reference.clone().with_digest(digest), platform);
        let name = pinned.clone();
        let news = self
            .store(move |store| {
                let news = known_image(store, &name)?.is_none();
                store.put(&config)?;
                let manifest = store.put(&manifest)?;
                let value = format!("{digest} {manifest} {media_type}");
                store.set_fact("image", name.as_bytes(), value.as_bytes(), Subject::Blob(manifest))?;
                Ok(news)
            })
            .await?;
        if news {
            self.fresh.insert(pinned);
        }
        drop(configs);
        Ok(Found { digest, image })
    }

    fn repository(&self, reference: &Reference) -> Result<Repository, Error> {
        if self.offline {
            return Err(not_here(reference));
        }
        self.registry.repository(reference, self.options.credentials.clone())
    }

    /// Makes an image's tree available; `cached` is whether nothing had to be fetched.
    pub(super) async fn image(&self, reference: &Reference, platform: &Platform, report: &Report) -> Result<(Ref, bool), Error> {
        let found = self.find_image(reference, platform).await?;
        let origin =
            if self.offline { Origin::Nowhere(reference.clone()) } else { Origin::Registry(self.repository(reference)?) };
        let (made, cached) = self.unpacked(&found.image, &origin, &reference.familiar(), report).await?;
        let pinned = fact_name(&reference.clone().with_digest(found.digest), platform);
        Ok((made, cached && !self.fresh.contains(&pinned)))
    }

    /// The same of an image in a layout that the job names.
    pub(super) async fn layout(&self, source: &Source, platform: &Platform, report: &Report) -> Result<(Ref, bool), Error> {
        let (layouts, source, platform) = (self.options.oci_layouts.clone(), source.clone(), platform.clone());
        let name = source.reference().to_owned();
        let (layout, image) = self.store(move |_| layout_image(&layouts, &source, &platform)).await?;
        self.unpacked(&image, &Origin::Layout(Arc::new(layout)), &name, report).await
    }

    async fn unpacked(&self, image: &Image, origin: &Origin, name: &str, report: &Report) -> Result<(Ref, bool), Error> {
        let (key, wanted) = (chain_key(image), image.clone());
        if let There::All(found) = self.store(move |store| there(store, &wanted)).await? {
            let chains = chain_ids(&image.config.diff_ids);
            return Ok((found, !chains.iter().any(|chain| self.fresh.contains(&chain.to_string()))));
        }
        let blobs = &image.manifest.layers;
        let chains = chain_ids(&image.config.diff_ids);
        // What is missing is fetched side by side, while layer after layer is unpacked.
        let fetching =
            try_join_all(blobs.iter().zip(&chains).map(|(blob, chain)| self.fetch_missing(origin, blob, *chain, report)));
        let unpacking = async {
            let mut layers = Vec::new();
            for ((blob, diff_id), chain) in blobs.iter().zip(&image.config.diff_ids).zip(&chains) {
                layers.push(self.layer(origin, blob, *diff_id, *chain, &layers, report).await?);
            }
            Ok(layers)
        };
        let (_, layers) = tokio::try_join!(fetching, unpacking)?;
        let about = RecordAbout { name: format!("image {name}"), ..RecordAbout::default() };
        self.store(move |store| {
            store.record(&key, &Record { outputs: vec![layers.clone()], about })?;
            Ref::of(store, &layers)
        })
        .await
        .map(|result| (result, false))
    }

    async fn fetch_missing(&self, origin: &Origin, blob: &Descriptor, chain: Digest, report: &Report) -> Result<(), Error> {
        if self.store(move |store| layer_of(store, chain)).await?.is_some() {
            return Ok(());
        }
        self.fetch(origin, blob, report).await
    }

    /// Makes a layer of an image; `below` are those under it.
    async fn layer(
        &self,
        origin: &Origin,
        blob: &Descriptor,
        diff_id: Digest,
        chain: Digest,
        below: &[LayerNumber],
        report: &Report,
    ) -> Result<LayerNumber, Error> {
        let known = || self.store(move |store| layer_of(store, chain));
        if let Some(layer) = known().await? {
            return Ok(layer);
        }
        let _alone = self.lock(format!("layer {chain}")).await?;
        if let Some(layer) = known().await? {
            return Ok(layer);
        }
        self.fetch(origin, blob, report).await?;
        let layer = self.unpack(blob, diff_id, chain, below, report).await?;
        self.fresh.insert(chain.to_string());
        Ok(layer)
    }

    /// Brings a blob into the store.
    async fn fetch(&self, origin: &Origin, blob: &Descriptor, report: &Report) -> Result<(), Error> {
        let digest = blob.digest;
        loop {
            let partial = self.store(move |store| store.partial(&digest)).await?;
            match partial {
                Partial::Whole => return Ok(()),
                Partial::Busy => tokio::time::sleep(Duration::from_millis(100)).await,
                Partial::Open(partial) => {
                    let id = digest.to_string();
                    report.part(&id, partial.offset(), blob.size_bytes, false).await;
                    let offset = partial.offset();
                    let partial = origin.fetch(blob, offset, partial).await?;
                    self.store(move |store| partial.commit(store)).await?;
                    report.part(&id, blob.size_bytes, blob.size_bytes, true).await;
                    return Ok(());
                }
            }
        }
    }

    async fn unpack(
        &self,
        blob: &Descriptor,
        diff_id: Digest,
        chain: Digest,
        below: &[LayerNumber],
        report: &Report,
    ) -> Result<LayerNumber, Error> {
        let descriptor = blob.clone();
        let (work, file) = self
            .store(move |store| {
                let lost = || Error::Integrity(format!("{} was fetched and is gone", descriptor.digest));
                Ok((store.allocate_work()?, store.blob(&descriptor.digest)?.ok_or_else(lost)?))
            })
            .await?;
        let what = format!("extracting {}", blob.digest);
        report.part(&what, 0, 0, false).await;
        let digest = blob.digest;
        let feed = move |into: &mut dyn Write| -> std::io::Result<Digest> {
            let mut tar = Hashing::new(Decompressor::new(file, Limits::default())?);
            let mut into = BufWriter::with_capacity(PIECE_BYTES, into);
            std::io::copy(&mut tar, &mut into)?;
            into.flush()?;
            Ok(tar.finish().1)
        };
        let unpacked = self
            .run_fed(Work::Unpack { into: work.name(), below: below.iter().map(|layer| layer.number()).collect() }, feed)
            .await;
        let (answer, actual) = unpacked.map_err(|error| match error {
            Error::Daemon { reason, .. } => Error::Integrity(format!("layer {digest}: {reason}")),
            other => other,
        })?;
        if actual != diff_id {
            return Err(Error::Integrity(format!("layer {digest} unpacks to {actual}, but the image's config says {diff_id}")));
        }
        report.part(&what, 0, 0, true).await;
        if answer != Answer::Done {
            return Err(super::run::nonsense("unpacking"));
        }
        let blob = blob.clone();
        self.store(move |store| {
            let (content, size_bytes) = measure(&work)?;
            let layer = store.commit_layer(work, &content, size_bytes)?;
            let number = serde_json::to_vec(&layer).expect("a number is JSON");
            store.set_fact("layer", chain.to_string().as_bytes(), &number, Subject::Layer(layer))?;
            remember(store, layer, diff_id, &blob)?;
            Ok(layer)
        })
        .await
    }
}

/// Where an image's blobs are.
enum Origin {
    Registry(Repository),
    Layout(Arc<Layout>),
    /// Its registry may not be asked: what is in the store has to do.
    Nowhere(Reference),
}

impl Origin {
    /// Writes a blob from `offset` on into the store's file of it, which checks the digest.
    async fn fetch(&self, blob: &Descriptor, offset: u64, mut partial: PartialBlob) -> Result<PartialBlob, Error> {
        let layout = match self {
            Self::Registry(repository) => return repository.fetch_blob(blob, offset, partial).await,
            Self::Nowhere(reference) => return Err(not_here(reference)),
            Self::Layout(layout) => Arc::clone(layout),
        };
        let blob = blob.clone();
        let copying = move || {
            let unreadable = |source| Error::File { path: layout.path().join(blob.digest.hex()), source };
            let mut from = layout.open(&blob).map_err(unreadable)?;
            from.seek(SeekFrom::Start(offset)).map_err(unreadable)?;
            // One byte more than it may have is enough to be refused.
            std::io::copy(&mut from.take(blob.size_bytes.saturating_sub(offset).saturating_add(1)), &mut partial)
                .map_err(unreadable)?;
            Ok(partial)
        };
        tokio::task::spawn_blocking(copying).await.unwrap_or(Err(Error::Cancelled))
    }
}

/// Says that an image would have to be fetched where nothing may be.
pub(super) fn not_here(reference: &Reference) -> Error {
    let reason = "it is not in the cache, and no registry may be asked".to_owned();
    Error::Registry { reference: reference.familiar(), reason, transient: false }
}

/// Names an image's manifest and config among the facts; `reference` has a digest.
fn fact_name(reference: &Reference, platform: &Platform) -> String {
    format!("{}|{platform}", reference.clone().tagged())
}

/// Reads what is known of an image by its digest.
fn known_image(store: &impl Look, name: &str) -> Result<Option<Found>, Error> {
    let Some(value) = store.fact("image", name.as_bytes())? else { return Ok(None) };
    let value = String::from_utf8_lossy(&value).into_owned();
    let mut words = value.splitn(3, ' ');
    let mut digest = || words.next()?.parse::<Digest>().ok();
    let (Some(top), Some(manifest)) = (digest(), digest()) else { return Ok(None) };
    let media_type = words.next().unwrap_or_default();
    let Some(manifest) = read(store, &manifest)? else { return Ok(None) };
    let Ok(Document::Manifest(parsed)) = Document::read(&manifest, media_type) else {
        return Ok(None);
    };
    let Some(config) = read(store, &parsed.config.digest)? else { return Ok(None) };
    Ok(Image::read(manifest, media_type, config).ok().map(|image| Found { digest: top, image }))
}

/// Reads what is known of an image that a definition pins; nothing where its manifest or its config is
/// not there.
pub(super) fn pinned_image(store: &impl Look, reference: &Reference, platform: &Platform) -> Result<Option<Image>, Error> {
    Ok(known_image(store, &fact_name(reference, platform))?.map(|found| found.image))
}

/// Finds the image of a source in a layout that the job names.
pub(super) fn layout_image(
    layouts: &BTreeMap<String, PathBuf>,
    source: &Source,
    platform: &Platform,
) -> Result<(Layout, Image), Error> {
    let wrong = |reason: String| Error::Registry { reference: source.identifier.clone(), reason, transient: false };
    if source.attrs.contains_key("oci.layerlimit") {
        return Err(unsupported("part of an image's layers (oci.layerlimit)"));
    }
    let (name, digest) = source.reference().rsplit_once('@').ok_or_else(|| wrong("it has no digest".to_owned()))?;
    let digest: Digest = digest.parse().map_err(|error| wrong(format!("{error}")))?;
    let store = source.attrs.get("oci.store").map_or(name, String::as_str);
    let path = layouts.get(store).ok_or_else(|| wrong(format!("the layout {store:?} is not offered")))?;
    let layout = Layout::open(path)?;
    let (_, image) = layout.image(Some(&digest.to_string()), platform)?;
    Ok((layout, image))
}

/// How much of an image's tree is in the store.
pub(super) enum There {
    /// All of it.
    All(Ref),
    /// Not so many of its layers.
    Lacks(usize),
}

/// Looks for an image's tree: for a record of it, else for every one of its layers.
pub(super) fn there(store: &impl Look, image: &Image) -> Result<There, Error> {
    let known = store.outputs(&chain_key(image))?;
    if let Some([layers]) = known.as_deref() {
        return Ok(There::All(Ref::of(store, layers)?));
    }
    let mut layers = Vec::new();
    let chains = chain_ids(&image.config.diff_ids);
    for chain in &chains {
        layers.extend(layer_of(store, *chain)?);
    }
    if layers.len() == chains.len() {
        Ok(There::All(Ref::of(store, &layers)?))
    } else {
        Ok(There::Lacks(chains.len() - layers.len()))
    }
}

fn chain_key(image: &Image) -> CacheKey {
    let chain: Vec<String> = image.config.diff_ids.iter().map(Digest::to_string).collect();
    CacheKey::of("chain", chain.iter().map(String::as_bytes))
}

/// Names each layer together with those under it (the image specification's ChainID).
fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let chain = chains.last().map_or(*diff_id, |below| Digest::of(format!("{below} {diff_id}").as_bytes()));
        chains.push(chain);
    }
    chains
}

/// Finds the layer that was unpacked as a chain's topmost.
fn layer_of(store: &impl Look, chain: Digest) -> Result<Option<LayerNumber>, Error> {
    let found = store.fact("layer", chain.to_string().as_bytes())?;
    Ok(found.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Keeps what is known of a layer and the blob that it travels as.
pub(super) fn remember(store: &Store, layer: LayerNumber, diff_id: Digest, blob: &Descriptor) -> Result<(), Error> {
    let descriptor = serde_json::to_vec(blob).expect("a descriptor is JSON");
    let text = diff_id.to_string();
    store.set_fact("diff id", layer.to_string().as_bytes(), text.as_bytes(), Subject::Layer(layer))?;
    store.set_fact("blob", text.as_bytes(), &descriptor, Subject::Blob(blob.digest))
}
