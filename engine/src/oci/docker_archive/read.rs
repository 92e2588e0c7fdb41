//! Reads docker archives that are no OCI layout: those of docker before 25, of podman, kaniko, Bazel and others.
//!
//! Invariant: the list names files of the archive alone, and the config is what the list's name for it says, where that is a digest.
//!
//! The format is that of moby's `image/spec/spec.md`, "Combined Image JSON + Filesystem Changeset Format".

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::oci::archive::places;
use crate::oci::contents::{LayerFile, OpenImage};
use crate::oci::document::{MAX_LAYERS, MAX_MANIFEST_BYTES};
use crate::oci::image::{Config, MAX_CONFIG_BYTES};
use crate::oci::layout::{Layout, Section};
use crate::text::shown;
use crate::{Digest, Error};

/// A docker archive that is there.
#[derive(Debug)]
pub struct DockerArchive {
    path: PathBuf,
    places: BTreeMap<String, (u64, u64)>,
    images: Vec<Listed>,
}

/// An image in `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl Listed {
    /// Returns the digest of the config, if its file is called by it.
    fn id(&self) -> String {
        let hex = self.config.rsplit('/').next().unwrap_or_default();
        let hex = hex.strip_suffix(".json").unwrap_or(hex);
        format!("sha256:{}", hex.strip_prefix("sha256:").unwrap_or(hex))
    }
}

impl DockerArchive {
    /// Opens an archive; none for a folder, and for an archive that is an OCI layout as well, which says more.
    pub fn open(path: &Path) -> Result<Option<Self>, Error> {
        let unreadable = |source: io::Error| Error::File { path: path.to_owned(), source };
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Ok(None);
        }
        let places = File::open(path).and_then(|mut file| places(&mut file)).map_err(unreadable)?;
        if places.contains_key("oci-layout") || !places.contains_key("manifest.json") {
            return Ok(None);
        }
        let mut archive = Self { path: path.to_owned(), places, images: Vec::new() };
        let list = archive.small("manifest.json", MAX_MANIFEST_BYTES)?;
        archive.images = serde_json::from_slice(&list)
            .map_err(|error| archive.untrue(&format!("manifest.json is malformed: {}", shown(&error.to_string()))))?;
        Ok(Some(archive))
    }

    /// Opens the image with a name, or the only one without.
    pub fn image(self, name: Option<&str>) -> Result<OpenImage, Error> {
        let listed = self.listed(name)?;
        let config_bytes = self.small(&listed.config, MAX_CONFIG_BYTES)?;
        let named: Option<Digest> = listed.id().parse().ok();
        if let Some(named) = named.filter(|named| *named != Digest::of(&config_bytes)) {
            return Err(self.untrue(&format!("the config {named} was expected, and {} came", Digest::of(&config_bytes))));
        }
        let config = Config::read(&config_bytes).map_err(|cause| self.untrue(&format!("its config: {cause}")))?;
        let files = listed.layers.as_deref().unwrap_or_default();
        if files.len() != config.diff_ids.len() {
            let (files, ids) = (files.len(), config.diff_ids.len());
            return Err(self.untrue(&format!("it lists {files} layers, and its config {ids}")));
        }
        if files.len() > MAX_LAYERS {
            return Err(Error::Resource(format!("{}: it has more than {MAX_LAYERS} layers", self.path.display())));
        }
        let places: Vec<(u64, u64)> = files.iter().map(|file| self.place(file)).collect::<Result<_, _>>()?;
        let layers = config.diff_ids.iter().zip(&places);
        let layers =
            layers.map(|(diff_id, (_, size))| LayerFile { diff_id: *diff_id, digest: None, size_bytes: *size }).collect();
        let path = self.path.clone();
        let open = move |number: usize| {
            let (start, size): (u64, u64) = places[number];
            Ok(Box::new(Section::new(File::open(&path)?, start, size)?) as Box<dyn io::Read + Send>)
        };
        Ok(OpenImage::without_manifest(self.path.display().to_string(), config, config_bytes, layers, Box::new(open)))
    }

    /// Returns how many images a name means: a full one, a tag, the digest of a config; without a name, all are meant.
    pub(in crate::oci) fn count(&self, name: Option<&str>) -> usize {
        self.meant(name).len()
    }

    /// Returns a name for every image that means it alone, where it has one.
    pub(in crate::oci) fn names(&self) -> Vec<String> {
        let name = |image: &Listed| {
            let tags = image.repo_tags.iter().flatten().cloned();
            let mut names = tags.chain([image.id(), image.config.clone()]);
            names.find(|name| Layout::is_plain(name) && self.count(Some(name)) == 1)
        };
        self.images.iter().filter_map(name).collect()
    }

    fn listed(&self, name: Option<&str>) -> Result<&Listed, Error> {
        match &self.meant(name)[..] {
            [listed] => Ok(listed),
            [] => Err(self.untrue("no image is in it")),
            _ => Err(self.untrue("several images are in it")),
        }
    }

    /// Finds the images that are called so; a tag alone counts where nothing is called so in full.
    fn meant(&self, name: Option<&str>) -> Vec<&Listed> {
        let Some(name) = name else { return self.images.iter().collect() };
        let tags = |image: &Listed| image.repo_tags.clone().unwrap_or_default();
        let is_called = |image: &&Listed| {
            image.id() == name || image.config == name || tags(image).iter().any(|tag| Layout::full(tag) == Layout::full(name))
        };
        let called: Vec<&Listed> = self.images.iter().filter(is_called).collect();
        if !called.is_empty() {
            return called;
        }
        let is_tagged = |image: &&Listed| tags(image).iter().any(|tag| tag.rsplit_once(':').is_some_and(|(_, tag)| tag == name));
        self.images.iter().filter(is_tagged).collect()
    }

    fn place(&self, name: &str) -> Result<(u64, u64), Error> {
        let name = name.trim_start_matches("./");
        self.places.get(name).copied().ok_or_else(|| self.untrue(&format!("\"{}\" is listed, and is not in it", shown(name))))
    }

    fn small(&self, name: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let unreadable = |source: io::Error| Error::File { path: self.path.clone(), source };
        let (start, size) = self.place(name)?;
        if size > limit as u64 {
            let what = format!("{}: \"{}\" in it is larger than {} MiB", self.path.display(), shown(name), limit >> 20);
            return Err(Error::Resource(what));
        }
        let mut bytes = Vec::new();
        let file = File::open(&self.path).and_then(|file| Section::new(file, start, size));
        file.map_err(unreadable)?.read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    fn untrue(&self, what: &str) -> Error {
        Error::Integrity(format!("{}: {what}", self.path.display()))
    }
}
