//! Archives that `docker load` reads: an OCI layout, and docker's own list of what is in it; [`DockerArchive`] reads those that
//! have nothing but the list.
//!
//! Invariant: the same images under the same names are the same bytes.
//!
//! It is what BuildKit's exporter `docker` writes. Engines with manifests of their own read
//! `index.json`, older ones `manifest.json`, and none of these `repositories`, which only counts
//! where `manifest.json` is missing. docker 20.10 reads layers that are uncompressed or under gzip.

mod read;

use std::io::{self, Write};

use serde::Serialize;

use super::Reference;
use super::archive::{self, Entry};
use super::image::Blobs;
use super::layout::{Named, blob_path};
pub use read::DockerArchive;

/// An image in `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Writes images as `docker load` reads them. Nothing is synced; see [`place`](super::place).
pub fn write(out: &mut dyn Write, images: &[Named<'_>], blobs: &dyn Blobs) -> io::Result<()> {
    let listed = |named: &Named<'_>| Listed {
        config: blob_path(named.image.manifest.config.digest),
        repo_tags: named.names.iter().map(|name| familiar(name)).collect(),
        layers: named.image.manifest.layers.iter().map(|layer| blob_path(layer.digest)).collect(),
    };
    let bytes = serde_json::to_vec(&images.iter().map(listed).collect::<Vec<_>>())?;
    let mut entries = archive::entries(images)?;
    entries.insert("manifest.json".to_owned(), Entry::File { bytes, mode: 0o644 });
    archive::write_entries(out, entries, blobs)
}

/// Returns the short form of a name, which is docker's own.
fn familiar(name: &str) -> String {
    name.parse().map_or_else(|_| name.to_owned(), |reference: Reference| reference.familiar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::image::tests::image;

    #[test]
    fn the_list_names_config_layers_and_short_names() {
        let (image, blobs) = image(&[b"one", b"two"]);
        let names = ["docker.io/library/a:1".to_owned(), "localhost:5000/a:1".to_owned()];
        let mut bytes = Vec::new();
        write(&mut bytes, &[Named { image: &image, names: &names, created: None }], &blobs).unwrap();
        let found = archive::places(&mut io::Cursor::new(&bytes)).unwrap();
        let (start, size) = found["manifest.json"];
        let (one, two) = (image.manifest.layers[0].digest.hex(), image.manifest.layers[1].digest.hex());
        let expected = format!(
            r#"[{{"Config":"blobs/sha256/{}","RepoTags":["a:1","localhost:5000/a:1"],"Layers":["blobs/sha256/{one}","blobs/sha256/{two}"]}}]"#,
            image.manifest.config.digest.hex()
        );
        assert_eq!(std::str::from_utf8(&bytes[start as usize..][..size as usize]), Ok(expected.as_str()));
        assert!(found.contains_key("index.json") && found.contains_key("oci-layout"));
    }
}
