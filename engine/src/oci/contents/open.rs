//! Images whose layers can be read, wherever they are.
//!
//! Invariant: manifest and config have been checked against each other and their digests; layers have not, and are when they are
//! [read](super::read).

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};

use tokio::runtime::Handle;

use super::stream::Pieces;
use crate::oci::descriptor::OCI_MANIFEST;
use crate::oci::docker_archive::DockerArchive;
use crate::oci::image::{Blobs as _, Config};
use crate::oci::registry::Found;
use crate::oci::{Descriptor, Image, Index, Layout, Repository};
use crate::op::Platform;
use crate::text::shown;
use crate::{Digest, Error};

/// How many pieces of a download wait to be read.
const PIECES: usize = 64;

/// A layer, as far as it is known before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The digest of the blob; none in docker archives without manifests.
    pub digest: Option<Digest>,
    /// The blob's size.
    pub size_bytes: u64,
}

type Open = Box<dyn Fn(usize) -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// An image whose layers can be read.
pub struct OpenImage {
    /// Where it is, for messages.
    pub place: String,
    /// The digest of the manifest or index that its name stands for; none in docker archives without manifests.
    pub digest: Option<Digest>,
    /// The digest of its config: what docker calls the image's id.
    pub id: Digest,
    /// What is of use in the config.
    pub config: Config,
    /// The config as it was found.
    pub config_bytes: Vec<u8>,
    /// The layers, lowest first.
    pub layers: Vec<LayerFile>,
    open: Open,
}

impl OpenImage {
    /// Opens an OCI layout, as a folder or an archive, or a docker archive. Of several images in it, `name` says which.
    pub fn in_file(path: &Path, name: Option<&str>, platform: &Platform) -> Result<Self, Error> {
        if let Some(archive) = DockerArchive::open(path)? {
            NotOne::refused(path, name, "docker-archive", archive.count(name), archive.names())?;
            return archive.image(name);
        }
        let layout = Layout::open(path)?;
        NotOne::refused(path, name, "oci-layout", layout.count(name), layout.names())?;
        let (digest, image) = layout.image(name, platform)?;
        let blobs = image.manifest.layers.clone();
        let open = move |number: usize| {
            let blob = layout.open(&blobs[number])?;
            Ok(Box::new(blob) as Box<dyn Read + Send>)
        };
        Ok(Self::of(path.display().to_string(), digest, image, Box::new(open)))
    }

    /// Returns the kind of a file, and names of the images in it, where an error of [`OpenImage::in_file`] is that none or several
    /// of them are meant.
    pub fn choices(error: &Error) -> Option<(&'static str, &[String])> {
        let Error::File { source, .. } = error else { return None };
        let not_one = source.get_ref()?.downcast_ref::<NotOne>()?;
        Some((not_one.kind, &not_one.names))
    }

    /// Says whether it runs on a platform; one that does not say what it is for does.
    pub fn is_for(&self, platform: &Platform) -> bool {
        let own = &self.config.platform;
        let entry = Descriptor { platform: Some(own.clone()), ..Descriptor::new(OCI_MANIFEST, self.id, 0) };
        own.architecture.is_empty() || Index { manifests: vec![entry] }.choose(platform).is_ok()
    }

    /// Opens an image that a registry has. Its layers are fetched while they are read, with the help of `runtime`.
    pub fn in_registry(found: Found, repository: Repository, runtime: Handle) -> Self {
        let place = repository.reference().to_string();
        let blobs = found.image.manifest.layers.clone();
        let open = move |number: usize| {
            let (pieces, queue) = sync_channel(PIECES);
            runtime.spawn(fetch(repository.clone(), blobs[number].clone(), pieces));
            Ok(Box::new(Pieces::new(queue)) as Box<dyn Read + Send>)
        };
        Self::of(place, found.digest, found.image, Box::new(open))
    }

    /// Opens an image by its config alone; `layers` are in the order of its diff ids.
    pub(in crate::oci) fn without_manifest(
        place: String,
        config: Config,
        config_bytes: Vec<u8>,
        layers: Vec<LayerFile>,
        open: Open,
    ) -> Self {
        let id = Digest::of(&config_bytes);
        Self { place, digest: None, id, config, config_bytes, layers, open }
    }

    fn of(place: String, digest: Digest, image: Image, open: Open) -> Self {
        let layers = image.layers().map(|layer| LayerFile {
            diff_id: layer.diff_id,
            digest: Some(layer.blob.digest),
            size_bytes: layer.blob.size_bytes,
        });
        let layers = layers.collect();
        let id = image.manifest.config.digest;
        Self { place, digest: Some(digest), id, config: image.config, config_bytes: image.config_bytes, layers, open }
    }

    /// Opens the blob of a layer at its first byte; one that is longer than it should be is cut one byte behind that.
    pub(super) fn open(&self, number: usize) -> io::Result<Box<dyn Read + Send>> {
        let blob = (self.open)(number)?;
        Ok(Box::new(blob.take(self.layers[number].size_bytes.saturating_add(1))))
    }
}

/// A file has several images, and no name or one that means none or several of them was given.
#[derive(Debug, thiserror::Error)]
#[error("{what}; it has {}", shown(&names.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ")))]
struct NotOne {
    what: String,
    /// What stands in front of a path to it.
    kind: &'static str,
    names: Vec<String>,
}

impl NotOne {
    /// Refuses whatever is not one image; a file without any is no matter of names.
    fn refused(path: &Path, name: Option<&str>, kind: &'static str, found: usize, names: Vec<String>) -> Result<(), Error> {
        let what = match (found, name.map(shown)) {
            (1, _) => return Ok(()),
            _ if names.is_empty() => return Ok(()),
            (0, name) => format!("no image in it is \"{}\"", name.unwrap_or_default()),
            (_, Some(name)) => format!("{found} images in it are \"{name}\""),
            (_, None) => format!("{found} images are in it, and none is named"),
        };
        let source = io::Error::new(io::ErrorKind::InvalidInput, Self { what, kind, names });
        Err(Error::File { path: path.to_owned(), source })
    }
}

/// Fetches a blob; what went wrong is the last that the queue brings.
async fn fetch(repository: Repository, blob: Descriptor, pieces: SyncSender<io::Result<Vec<u8>>>) {
    let fetched = repository.fetch_blob(&blob, 0, Received(pieces.clone())).await;
    if let Err(error) = fetched {
        // Where the queue is full this waits, and where nobody reads any more it does not matter.
        let _ = tokio::task::spawn_blocking(move || pieces.send(Err(io::Error::other(error)))).await;
    }
}

/// Hands what is written to a queue.
struct Received(SyncSender<io::Result<Vec<u8>>>);

impl Write for Received {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(Ok(bytes.to_vec())).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
