//! Results to images, archives, registries and folders.
//!
//! 1. Every layer gets the blob that it travels as: the one that it came as, or a tar that a worker
//!    packs and fixed blocks compress, kept so that it is made once.
//! 2. The config and the manifest are put together from the diff ids and the blobs.
//! 3. Each output is written, whole or not at all.
//!
//! Invariant: equal layers and an equal config give an equal manifest, whoever exports them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;

use super::image::remember;
use super::job::{LocalJob, is_image};
use super::operate::{Operator, unsupported};
use super::output;
use super::report::Report;
use super::result::Ref;
use super::store::{LayerNumber, Store};
use super::worker::Work;
use crate::buildkit::load;
use crate::oci::place::deliver;
use crate::oci::{
    Blob, Blobs, Compression, Descriptor, Image, Layer, Named, Reference, archive, compress, docker_archive, layout,
};
use crate::solver::{ArchiveDest, ArchiveFormat, Export, Exported};
use crate::{Digest, Error};

const DIGEST: &str = "containerimage.digest";
const CONFIG_DIGEST: &str = "containerimage.config.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";
const IMAGE_NAME: &str = "image.name";

impl LocalJob {
    /// Writes every output of the job's options.
    pub(super) async fn write_exports(&self, made: &Ref, config: Vec<u8>, report: &Report) -> Result<Exported, Error> {
        let mut response = BTreeMap::new();
        let operator = &self.operator;
        let exports = operator.options.exports.clone();
        let mut image = None;
        if exports.iter().any(is_image) {
            let made = operator.assemble(made.layers()?, &config, report).await.map_err(|error| operator.in_the_cache(error))?;
            let descriptor = serde_json::to_vec(&made.descriptor).expect("a descriptor is JSON");
            response.insert(DIGEST.to_owned(), made.descriptor.digest.to_string());
            response.insert(CONFIG_DIGEST.to_owned(), made.manifest.config.digest.to_string());
            response.insert(DESCRIPTOR.to_owned(), base64::engine::general_purpose::STANDARD.encode(descriptor));
            image = Some(Arc::new(made));
        }
        for export in exports {
            let doing = doing(&export);
            report.part(&doing, 0, 0, false).await;
            match (export, &image) {
                (Export::Archive { format, names, dest }, Some(image)) if format != ArchiveFormat::Tar => {
                    told(&mut response, &names);
                    operator.archive(Arc::clone(image), format, names, dest).await?;
                }
                (Export::Layout { names, dest }, Some(image)) => {
                    told(&mut response, &names);
                    let (image, blobs) = (Arc::clone(image), Stored(Arc::clone(&operator.store)));
                    let write = move || layout::write(&dest, &[Named { image: &image, names: &names, created: None }], &blobs);
                    blocking(write).await?;
                }
                (Export::Registry { names }, Some(image)) => {
                    told(&mut response, &names);
                    operator.push(image, &names).await?;
                }
                (Export::Store { names }, Some(image)) => {
                    told(&mut response, &names);
                    operator.load(Arc::clone(image), names).await?;
                }
                (Export::Archive { dest, .. }, _) => operator.tar(made.layers()?, dest).await?,
                (Export::Folder { dest }, _) => operator.folder_of(made.layers()?, dest).await?,
                (Export::Registry { .. } | Export::Store { .. } | Export::Layout { .. }, None) => {
                    return Err(unsupported("an output that needs an image"));
                }
            }
            report.part(&doing, 0, 0, true).await;
        }
        Ok(Exported { response })
    }
}

fn told(response: &mut BTreeMap<String, String>, names: &[String]) {
    if !names.is_empty() {
        response.insert(IMAGE_NAME.to_owned(), names.join(","));
    }
}

fn doing(export: &Export) -> String {
    match export {
        Export::Store { names } => format!("naming to {}", names.join(", ")),
        Export::Registry { names } => format!("pushing {}", names.join(", ")),
        Export::Archive { dest: ArchiveDest::File(file), .. } => format!("writing {}", file.display()),
        Export::Archive { dest: ArchiveDest::Stdout, .. } => "writing to standard output".to_owned(),
        Export::Layout { dest, .. } | Export::Folder { dest } => format!("writing {}", dest.display()),
    }
}

impl Operator {
    /// Puts an image together from layers and a config.
    async fn assemble(&self, layers: &[LayerNumber], config: &[u8], report: &Report) -> Result<Image, Error> {
        let mut described = Vec::with_capacity(layers.len());
        for &layer in layers {
            described.push(self.travelling(layer, report).await?);
        }
        let image = Image::assemble(config, described).map_err(|error| Error::Integrity(format!("the image: {error}")))?;
        let (manifest, config) = (image.manifest_bytes.clone(), image.config_bytes.clone());
        self.store(move |store| {
            store.put(&config)?;
            store.put(&manifest)
        })
        .await?;
        Ok(image)
    }

    /// Finds or makes the blob that a layer travels as.
    async fn travelling(&self, layer: LayerNumber, report: &Report) -> Result<Layer, Error> {
        if let Some(known) = self.store(move |store| travels_as(store, layer)).await? {
            return Ok(known);
        }
        let _alone = self.lock(format!("blob of layer {layer}")).await?;
        if let Some(known) = self.store(move |store| travels_as(store, layer)).await? {
            return Ok(known);
        }
        let what = format!("compressing layer {layer}");
        report.part(&what, 0, 0, false).await;
        let writer = self.store(|store| store.writer()).await?;
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (mut writer, compressed) = self
            .run_read(Work::Pack { layers: vec![layer.number()], merged: false, without: None, latest_s: None }, move |tar| {
                let mut writer = writer;
                let compressed = compress(tar, &mut writer, Compression::Gzip, threads)?;
                Ok((writer, compressed))
            })
            .await?;
        let made = self
            .store(move |store| {
                writer.flush().map_err(|source| Error::Store { path: store.root().to_owned(), source })?;
                let (digest, size_bytes) = writer.commit(store, Some(&compressed.digest))?;
                let blob = Descriptor::new(Compression::Gzip.media_type(), digest, size_bytes);
                remember(store, layer, compressed.diff_id, &blob)?;
                Ok(Layer { diff_id: compressed.diff_id, blob })
            })
            .await?;
        report.part(&what, 0, 0, true).await;
        Ok(made)
    }

    async fn archive(
        &self,
        image: Arc<Image>,
        format: ArchiveFormat,
        names: Vec<String>,
        dest: ArchiveDest,
    ) -> Result<(), Error> {
        let blobs = Stored(Arc::clone(&self.store));
        let write = move |out: &mut dyn Write| {
            let named = [Named { image: &image, names: &names, created: None }];
            match format {
                ArchiveFormat::Docker => docker_archive::write(out, &named, &blobs),
                _ => archive::write(out, &named, &blobs),
            }
        };
        blocking(move || deliver(&dest, write)).await
    }

    async fn push(&self, image: &Arc<Image>, names: &[String]) -> Result<(), Error> {
        for name in names {
            let refused = |error: &dyn std::fmt::Display| Error::Registry {
                reference: name.clone(),
                reason: error.to_string(),
                transient: false,
            };
            let reference: Reference = name.parse().map_err(|error| refused(&error))?;
            let repository = self.registry.repository(&reference, self.options.credentials.clone())?;
            let pushed = repository.push(image, Arc::new(Stored(Arc::clone(&self.store))), &[]).await?;
            if pushed != image.descriptor.digest {
                return Err(Error::Integrity(format!(
                    "{name} was pushed and the registry has {pushed}, not {}",
                    image.descriptor.digest
                )));
            }
        }
        Ok(())
    }

    async fn load(&self, image: Arc<Image>, names: Vec<String>) -> Result<(), Error> {
        let Some(address) = &self.engine else {
            return Err(unsupported("an image store: no docker or podman was found"));
        };
        let blobs = Stored(Arc::clone(&self.store));
        let first = names.first().cloned();
        let write = move |out: &mut dyn Write| {
            docker_archive::write(out, &[Named { image: &image, names: &names, created: None }], &blobs)
        };
        load(address, first.as_deref(), write).await.map(|_| ())
    }

    async fn tar(&self, layers: &[LayerNumber], dest: ArchiveDest) -> Result<(), Error> {
        self.run_read(merged(layers), move |tar| Ok(deliver(&dest, |out| io::copy(tar, out).map(|_| ())))).await?
    }

    async fn folder_of(&self, layers: &[LayerNumber], dest: PathBuf) -> Result<(), Error> {
        self.run_read(merged(layers), move |tar| Ok(output::write(tar, &dest))).await?
    }
}

/// Has what layers show together packed.
fn merged(layers: &[LayerNumber]) -> Work {
    let layers = layers.iter().map(|layer| layer.number()).collect();
    Work::Pack { layers, merged: true, without: None, latest_s: None }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Error::Cancelled))
}

fn travels_as(store: &Store, layer: LayerNumber) -> Result<Option<Layer>, Error> {
    let Some(diff_id) = store.fact("diff id", layer.to_string().as_bytes())? else { return Ok(None) };
    let Some(blob) = store.fact("blob", &diff_id)? else { return Ok(None) };
    let parsed = || {
        let diff_id: Digest = std::str::from_utf8(&diff_id).ok()?.parse().ok()?;
        Some(Layer { diff_id, blob: serde_json::from_slice(&blob).ok()? })
    };
    let Some(layer) = parsed() else { return Ok(None) };
    Ok(store.contains(&layer.blob.digest)?.then_some(layer))
}

/// The store's blobs, as writers of images read them.
struct Stored(Arc<Store>);

impl Blobs for Stored {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Blob>> {
        match self.0.blob(&descriptor.digest) {
            Ok(Some(file)) => Ok(Box::new(file)),
            Ok(None) => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is not in the cache any more", descriptor.digest)))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}
