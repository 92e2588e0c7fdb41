//! Reads layouts: a folder, or a tar that is not unpacked.
//!
//! Invariant: an image that is returned has been checked against its digests, and a blob that is
//! opened is a regular file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{IMAGE_NAME, REF_NAME, blob_path};
use crate::oci::Reference;
use crate::oci::archive::places;
use crate::oci::descriptor::{Descriptor, OCI_INDEX};
use crate::oci::document::{Document, DocumentError, Index, MAX_MANIFEST_BYTES};
use crate::oci::image::{Blob, Blobs, Image, MAX_CONFIG_BYTES};
use crate::op::Platform;
use crate::text::shown;
use crate::{Digest, Error};

/// How many indices may stand in each other.
const MAX_DEPTH: usize = 3;
/// What `oci-layout` may hold.
const MAX_NOTE_BYTES: usize = 4096;

/// A layout that is there.
#[derive(Debug)]
pub struct Layout {
    path: PathBuf,
    /// Where the files of a tar are in it.
    places: Option<BTreeMap<String, (u64, u64)>>,
    index: Index,
}

impl Layout {
    /// Opens a folder, or an archive as BuildKit, docker (since 25), podman and skopeo write it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Note {
            image_layout_version: String,
        }
        let unreadable = |source: io::Error| Error::File { path: path.to_owned(), source };
        let places = match std::fs::metadata(path).map_err(unreadable)? {
            found if found.is_dir() => None,
            found if found.is_file() => Some(File::open(path).and_then(|mut file| places(&mut file)).map_err(unreadable)?),
            _ => return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a folder nor a file"))),
        };
        let mut layout = Self { path: path.to_owned(), places, index: Index::default() };
        let note = layout.small("oci-layout", MAX_NOTE_BYTES).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                layout.untrue("it is no OCI layout, as it has no oci-layout; save it again with docker 25 or later, or skopeo")
            }
            _ => unreadable(error),
        })?;
        let version = serde_json::from_slice(&note).map(|note: Note| note.image_layout_version).unwrap_or_default();
        if !version.starts_with("1.") {
            return Err(layout.untrue(&format!("it is a layout of version \"{}\", where 1 is read", shown(&version))));
        }
        let index = layout.small("index.json", MAX_MANIFEST_BYTES).map_err(unreadable)?;
        let index = Document::read(&index, OCI_INDEX).map_err(|cause| layout.untrue(&format!("index.json: {cause}")))?;
        if let Document::Index(index) = index {
            layout.index = index;
        }
        Ok(layout)
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what is in it.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Finds an image by its full name, its tag or its digest, or the only one without any of
    /// these; returns the digest that stands in the index, and the image for `platform`.
    pub fn image(&self, name: Option<&str>, platform: &Platform) -> Result<(Digest, Image), Error> {
        let entry = self.entry(name)?;
        let wrong = |cause: DocumentError| self.untrue(&cause.to_string());
        let mut descriptor = entry.clone();
        for _ in 0..=MAX_DEPTH {
            let bytes = self.checked(&descriptor, MAX_MANIFEST_BYTES)?;
            match Document::read(&bytes, &descriptor.media_type).map_err(wrong)? {
                Document::Index(index) => descriptor = index.choose(platform).map_err(wrong)?.clone(),
                Document::Manifest(manifest) => {
                    let config = self.checked(&manifest.config, MAX_CONFIG_BYTES)?;
                    let image = Image::read(bytes, &descriptor.media_type, config).map_err(wrong)?;
                    return Ok((entry.digest, image));
                }
            }
        }
        Err(self.untrue("its indices stand too deep in each other"))
    }

    /// Returns how many images a name means; without a name, all are meant.
    pub(in crate::oci) fn count(&self, name: Option<&str>) -> usize {
        self.meant(name).iter().map(|entry| entry.digest).collect::<BTreeSet<Digest>>().len()
    }

    /// Returns a name for every image, or its digest where none means it alone.
    pub(in crate::oci) fn names(&self) -> Vec<String> {
        let name = |entry: &Descriptor| {
            let names = [IMAGE_NAME, REF_NAME].into_iter().filter_map(|key| entry.annotations.get(key)).cloned();
            let mut names = names.filter(|name| Self::is_plain(name) && self.count(Some(name)) == 1);
            names.next().unwrap_or_else(|| entry.digest.to_string())
        };
        self.index.manifests.iter().map(name).collect()
    }

    /// Brings an image's name into one form; what is none stays as it is.
    pub(in crate::oci) fn full(name: &str) -> String {
        name.parse::<Reference>().map_or_else(|_| name.to_owned(), |name| name.tagged().to_string())
    }

    /// Says whether a name may be pasted as it is.
    pub(in crate::oci) fn is_plain(name: &str) -> bool {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte))
    }

    fn entry(&self, name: Option<&str>) -> Result<&Descriptor, Error> {
        let meant = self.meant(name);
        match meant.first() {
            Some(first) if meant.iter().all(|other| other.digest == first.digest) => Ok(first),
            found => {
                let names: Vec<String> = self.names().into_iter().take(20).collect();
                let wish = name.map_or("one image".to_owned(), |name| format!("\"{}\"", shown(name)));
                let what = if found.is_some() { "more than one image is" } else { "no image is" };
                Err(self.untrue(&format!("{what} {wish}; name one of: {}", shown(&names.join(", ")))))
            }
        }
    }

    /// Finds the entries that are called so; a tag alone counts where nothing is called so in full.
    fn meant(&self, name: Option<&str>) -> Vec<&Descriptor> {
        let Some(name) = name else { return self.index.manifests.iter().collect() };
        let wanted = Self::full(name);
        let is_called = |entry: &&Descriptor| {
            let is = |key: &str| {
                entry.annotations.get(key).is_some_and(|value| value.contains([':', '/']) && Self::full(value) == wanted)
            };
            is(IMAGE_NAME) || is(REF_NAME) || entry.digest.to_string() == name
        };
        let called: Vec<&Descriptor> = self.index.manifests.iter().filter(is_called).collect();
        if !called.is_empty() {
            return called;
        }
        let is = |entry: &Descriptor, key: &str| entry.annotations.get(key).is_some_and(|value| value == name);
        self.index.manifests.iter().filter(|entry| is(entry, REF_NAME) || is(entry, IMAGE_NAME)).collect()
    }

    /// Reads a document that a descriptor names.
    fn checked(&self, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>, Error> {
        let digest = descriptor.digest;
        if descriptor.size_bytes > limit as u64 {
            let what = format!("{}: {digest} is larger than {} MiB; use another image", self.path.display(), limit >> 20);
            return Err(Error::Resource(what));
        }
        let bytes = self.small(&blob_path(digest), limit).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => self.untrue(&format!("{digest} is missing")),
            _ => Error::File { path: self.path.clone(), source },
        })?;
        match descriptor.names(&bytes) {
            true => Ok(bytes),
            false => Err(self.untrue(&format!("{digest} holds {} in {} bytes", Digest::of(&bytes), bytes.len()))),
        }
    }

    /// Reads a file up to a limit, past which it is cut.
    fn small(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file(name)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn file(&self, name: &str) -> io::Result<Section> {
        let Some(places) = &self.places else {
            let path = self.path.join(name);
            // Asked before it is opened: opening a pipe would wait for a writer.
            let found = std::fs::metadata(&path)?;
            if !found.is_file() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no regular file")));
            }
            return Section::new(File::open(path)?, 0, found.len());
        };
        let (start, size) = *places.get(name).ok_or(io::ErrorKind::NotFound)?;
        // Opened anew, since each reader has a place of its own.
        Section::new(File::open(&self.path)?, start, size)
    }

    fn untrue(&self, what: &str) -> Error {
        Error::Integrity(format!("{}: {what}", self.path.display()))
    }
}

impl Blobs for Layout {
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Blob>> {
        Ok(Box::new(self.file(&blob_path(descriptor.digest))?))
    }
}

/// A part of a file, as if it were one.
pub(in crate::oci) struct Section {
    file: File,
    start: u64,
    size: u64,
    at: u64,
}

impl Section {
    pub(in crate::oci) fn new(mut file: File, start: u64, size: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start))?;
        Ok(Self { file, start, size, at: 0 })
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let count = self.file.read(&mut buffer[..room])?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Section {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let place = at.and_then(|at| self.start.checked_add(at)).ok_or(io::ErrorKind::InvalidInput)?;
        self.file.seek(SeekFrom::Start(place))?;
        self.at = place - self.start;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::image::tests::{Memory, image};
    use crate::oci::layout::{self, Named};
    use crate::oci::{archive, place};
    use crate::solver::ArchiveDest;

    fn linux() -> Platform {
        Platform::new("linux", "amd64")
    }

    /// A layout as a folder and as an archive, of one image under one name.
    fn both(folder: &Path, image: &Image, blobs: &Memory) -> [PathBuf; 2] {
        let names = ["docker.io/library/a:1".to_owned()];
        let named = [Named { image, names: &names, created: None }];
        let (whole, tar) = (folder.join("layout"), folder.join("layout.tar"));
        layout::write(&whole, &named, blobs).unwrap();
        place::deliver(&ArchiveDest::File(tar.clone()), |out| archive::write(out, &named, blobs)).unwrap();
        [whole, tar]
    }

    #[test]
    fn folders_and_archives_are_read_alike() {
        let folder = tempfile::tempdir().unwrap();
        let (image, blobs) = image(&[b"one", b"two"]);
        for path in both(folder.path(), &image, &blobs) {
            let layout = Layout::open(&path).unwrap();
            for name in
                [None, Some("1"), Some("a:1"), Some("docker.io/library/a:1"), Some(image.descriptor.digest.to_string().as_str())]
            {
                assert_eq!(layout.image(name, &linux()).unwrap(), (image.descriptor.digest, image.clone()), "{name:?}");
            }
            let error = layout.image(Some("2"), &linux()).unwrap_err().to_string();
            assert!(error.contains("no image is \"2\"; name one of: docker.io/library/a:1"), "{error}");
            let mut blob = layout.open(&image.manifest.layers[1]).unwrap();
            let mut content = String::new();
            blob.read_to_string(&mut content).unwrap();
            assert_eq!(content, "two");
            for (to, rest) in [(SeekFrom::Start(1), "wo"), (SeekFrom::End(-1), "o"), (SeekFrom::Current(-3), "two")] {
                blob.seek(to).unwrap();
                content.clear();
                blob.read_to_string(&mut content).unwrap();
                assert_eq!(content, rest, "{to:?}");
            }
            assert!(blob.seek(SeekFrom::End(-4)).is_err());
        }
    }

    #[test]
    fn what_is_missing_or_something_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (image, blobs) = image(&[b"one"]);
        let [path, _] = both(folder.path(), &image, &blobs);
        let refusal = || Layout::open(&path).and_then(|layout| layout.image(None, &linux())).unwrap_err().to_string();
        let config = path.join(blob_path(image.manifest.config.digest));
        let whole = std::fs::read(&config).unwrap();
        std::fs::write(&config, "{}").unwrap();
        assert!(refusal().contains("holds sha256:"), "{}", refusal());
        std::fs::write(&config, whole).unwrap();
        std::fs::remove_file(path.join(blob_path(image.descriptor.digest))).unwrap();
        assert!(refusal().contains("is missing"), "{}", refusal());
        std::fs::write(path.join("index.json"), "{").unwrap();
        assert!(refusal().contains("index.json: it is malformed"), "{}", refusal());
        std::fs::write(path.join("oci-layout"), "{\"imageLayoutVersion\": \"2.0.0\"}").unwrap();
        assert!(refusal().contains("version \"2.0.0\""), "{}", refusal());
        std::fs::remove_file(path.join("oci-layout")).unwrap();
        assert!(refusal().contains("no OCI layout"), "{}", refusal());
        assert!(Layout::open(&path.join("nothing")).is_err());
        assert!(Layout::open(Path::new("/dev/null")).is_err());
    }
}
