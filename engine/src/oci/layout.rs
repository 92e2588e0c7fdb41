//! OCI image layouts: images as a folder, or as a tar of one.
//!
//! Invariant: a layout that is written is whole at every moment, because blobs come before the
//! index that names them; one that is read is believed for its digests alone.
//!
//! The format is the OCI image specification's "Image Layout"; names stand in the annotations that
//! containerd and BuildKit write.

mod read;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use super::Reference;
use super::archive::{Entry, copy_blob, entries};
use super::descriptor::Descriptor;
use super::document::Index;
use super::image::{Blobs, Image};
use super::place::{self, Staged, failed};
use crate::{Digest, Error};
pub use read::Layout;
pub(super) use read::Section;

/// The tag, in an index.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, in an index.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// When the image was made, in an index.
const CREATED: &str = "org.opencontainers.image.created";

/// An image and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The image.
    pub image: &'a Image,
    /// Full references with tags; the image stands in the index by its digest alone where there
    /// are none.
    pub names: &'a [String],
    /// When it was made, in RFC 3339.
    pub created: Option<&'a str>,
}

/// Returns where a layout keeps a blob.
pub(super) fn blob_path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Returns the file that says that a folder is a layout.
pub(super) fn layout_file() -> Vec<u8> {
    br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()
}

/// Returns the index of a layout: an entry for each name.
pub(super) fn index_of(images: &[Named<'_>]) -> Index {
    let mut index = Index::default();
    for Named { image, names, created } in images {
        let mut entry = image.descriptor.clone();
        entry.annotations.extend(created.map(|created| (CREATED.to_owned(), created.to_owned())));
        if names.is_empty() {
            index.manifests.push(entry);
            continue;
        }
        index.manifests.extend(names.iter().map(|name| named(&entry, name)));
    }
    index
}

fn named(entry: &Descriptor, name: &str) -> Descriptor {
    let mut entry = entry.clone();
    let reference: Option<Reference> = name.parse().ok();
    let tag = reference.as_ref().and_then(Reference::tag).unwrap_or(name);
    entry.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    entry.annotations.insert(IMAGE_NAME.to_owned(), name.to_owned());
    entry
}

/// Writes images into a folder. A folder that is missing or empty becomes a layout at once, whole;
/// to a layout they are added, and take names over from what had them; of two that add at once, one
/// may lose its names. Another folder is refused.
pub fn write(dest: &Path, images: &[Named<'_>], blobs: &dyn Blobs) -> Result<(), Error> {
    let entries = entries(images).map_err(|error| failed(dest, error))?;
    let is_empty = match fs::read_dir(dest) {
        Ok(mut content) => content.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(failed(dest, error)),
    };
    let new = index_of(images);
    if is_empty {
        return stage(dest, entries, blobs, &new);
    }
    if !dest.join("oci-layout").is_file() {
        let what = "it holds other files; choose an empty folder, or a new one";
        return Err(failed(dest, io::Error::new(io::ErrorKind::AlreadyExists, what)));
    }
    let mut index = Layout::open(dest)?.index().clone();
    index.manifests.retain(|old| !new.manifests.iter().any(|new| replaces(new, old)));
    index.manifests.extend(new.manifests);
    fill(dest, entries, blobs, &index)
}

/// Says whether an entry takes the place of another: by its name, or as the same without one.
fn replaces(new: &Descriptor, old: &Descriptor) -> bool {
    match (new.annotations.get(IMAGE_NAME), old.annotations.get(IMAGE_NAME)) {
        (Some(new), Some(old)) => new == old,
        (None, None) => new.digest == old.digest,
        _ => false,
    }
}

type Entries = std::collections::BTreeMap<String, Entry>;

/// Makes a layout beside its place.
fn stage(dest: &Path, entries: Entries, blobs: &dyn Blobs, index: &Index) -> Result<(), Error> {
    let staged = Staged(place::beside(dest).map_err(|error| failed(dest, error))?);
    fs::create_dir(&staged.0).map_err(|error| failed(dest, error))?;
    fill(&staged.0, entries, blobs, index)?;
    let renamed = fs::rename(&staged.0, dest).and_then(|()| place::sync_folder(dest));
    renamed.map_err(|error| failed(dest, error))
}

/// Writes what is missing in a layout, the index at last.
fn fill(folder: &Path, mut entries: Entries, blobs: &dyn Blobs, index: &Index) -> Result<(), Error> {
    fs::create_dir_all(folder.join("blobs/sha256")).map_err(|error| failed(folder, error))?;
    entries.remove("index.json");
    for (name, entry) in entries {
        let path = folder.join(&name);
        let write: &dyn Fn(&mut dyn Write) -> io::Result<()> = match &entry {
            Entry::Folder => continue,
            Entry::File { bytes, .. } => &|out| out.write_all(bytes),
            Entry::Blob(descriptor) => &|out| copy_blob(blobs, descriptor, out),
        };
        let size = match &entry {
            Entry::Folder => continue,
            Entry::File { bytes, .. } => bytes.len() as u64,
            Entry::Blob(descriptor) => descriptor.size_bytes,
        };
        // Blobs have their digest as name and were written whole.
        let is_there = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size);
        if !is_there {
            place::file(&path, write)?;
        }
    }
    place::file(&folder.join("index.json"), |out| out.write_all(&index.encode()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::descriptor::OCI_MANIFEST;
    use crate::oci::image::tests::image;
    use crate::op::Platform;

    fn linux() -> Platform {
        Platform::new("linux", "amd64")
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_index_is_the_one_that_buildkit_writes() {
        let (image, _) = image(&[b"one"]);
        let names = names(&["docker.io/library/a:1"]);
        let index = index_of(&[Named { image: &image, names: &names, created: Some("2024-01-01T00:00:00Z") }]);
        let expected = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{{"mediaType":"{}","#,
                r#""digest":"{}","size":{},"annotations":{{"io.containerd.image.name":"docker.io/library/a:1","#,
                r#""org.opencontainers.image.created":"2024-01-01T00:00:00Z","org.opencontainers.image.ref.name":"1"}}}}]}}"#
            ),
            OCI_MANIFEST,
            image.descriptor.digest,
            image.manifest_bytes.len()
        );
        assert_eq!(String::from_utf8(index.encode()).unwrap(), expected);
    }

    #[test]
    fn images_are_added_to_a_layout_and_take_names_over() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("layout");
        let (first, first_blobs) = image(&[b"one", b"two"]);
        let (second, second_blobs) = image(&[b"two", b"three"]);
        let (a, b) = (names(&["docker.io/library/a:1", "docker.io/library/a:2"]), names(&["docker.io/library/a:2"]));
        write(&dest, &[Named { image: &first, names: &a, created: None }], &first_blobs).unwrap();
        for _ in 0..2 {
            write(&dest, &[Named { image: &second, names: &b, created: None }], &second_blobs).unwrap();
        }
        let layout = Layout::open(&dest).unwrap();
        assert_eq!(layout.index().manifests.len(), 2);
        let found = |name: &str| layout.image(Some(name), &linux()).unwrap().1;
        assert_eq!((found("docker.io/library/a:1"), found("docker.io/library/a:2")), (first.clone(), second.clone()));
        assert_eq!(fs::read_dir(dest.join("blobs/sha256")).unwrap().count(), 3 + 4);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn a_failure_leaves_nothing_and_other_folders_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dest = folder.path().join("layout");
        let (image, mut blobs) = image(&[b"one"]);
        let named = Named { image: &image, names: &[], created: None };
        blobs.0.clear();
        write(&dest, &[named], &blobs).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(folder.path().join("mine"), "").unwrap();
        let error = write(folder.path(), &[named], &blobs).unwrap_err().to_string();
        assert!(error.contains("choose an empty folder"), "{error}");
        let error = write(&folder.path().join("mine"), &[named], &blobs).unwrap_err();
        assert!(matches!(error, Error::Output { .. }), "{error}");
    }
}
