//! Images: a manifest, its config, and where the layers' bytes are.
//!
//! Invariant: the parts of an [`Image`] belong together. The manifest names the config by its
//! digest, there is a layer for each of the config's diff ids, and the bytes from which the parts
//! were read are kept, so that an image that passes through has the digest that it came with.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};

use serde::Deserialize;
use serde_json::Value;

use super::descriptor::{CONFIGS, Descriptor, OCI_CONFIG, OCI_MANIFEST, platform, read_digest};
use super::document::{Document, DocumentError, Manifest};
use crate::Digest;
use crate::op::Platform;
use crate::text::shown;

/// The largest config.
pub const MAX_CONFIG_BYTES: usize = 8 << 20;

/// An image for one platform, without its layers' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Names the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The bytes that the manifest was read from.
    pub manifest_bytes: Vec<u8>,
    /// What is of use in the config.
    pub config: Config,
    /// The bytes that the config was read from.
    pub config_bytes: Vec<u8>,
}

/// An image's config, as far as images are put together with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What the image runs on.
    pub platform: Platform,
    /// The digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
    /// How the layers came to be.
    pub history: Vec<History>,
}

/// A step that an image was made by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct History {
    /// The step, in words of its tool.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// A layer: what it is, and the blob that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The blob, compressed or not.
    pub blob: Descriptor,
}

/// Bytes that can be read again from any place.
pub trait Blob: Read + Seek + Send {}
impl<T: Read + Seek + Send> Blob for T {}

/// Where layers' bytes are. Calls block.
pub trait Blobs: Send + Sync {
    /// Opens a blob at its first byte. Whoever reads it checks it.
    fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Blob>>;
}

impl Config {
    /// Reads a config.
    pub fn read(bytes: &[u8]) -> Result<Self, DocumentError> {
        #[derive(Deserialize)]
        struct DiffId(#[serde(deserialize_with = "read_digest")] Digest);
        #[derive(Deserialize)]
        struct Rootfs {
            diff_ids: Option<Vec<DiffId>>,
        }
        #[derive(Deserialize)]
        struct Fields {
            #[serde(flatten)]
            platform: platform::Fields,
            rootfs: Rootfs,
            history: Option<Vec<History>>,
        }
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(DocumentError::new(format!("it is larger than {} MiB", MAX_CONFIG_BYTES >> 20)));
        }
        let fields: Fields = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
        let diff_ids = fields.rootfs.diff_ids.unwrap_or_default();
        Ok(Self {
            platform: fields.platform.into(),
            diff_ids: diff_ids.into_iter().map(|DiffId(digest)| digest).collect(),
            history: fields.history.unwrap_or_default(),
        })
    }
}

impl Image {
    /// Puts together what was read, and checks that it belongs together.
    pub fn read(manifest_bytes: Vec<u8>, media_type: &str, config_bytes: Vec<u8>) -> Result<Self, DocumentError> {
        let Document::Manifest(manifest) = Document::read(&manifest_bytes, media_type)? else {
            return Err(DocumentError::new("it is an index where one image is needed"));
        };
        check_config_type(&manifest)?;
        if !manifest.config.names(&config_bytes) {
            let (actual, size) = (Digest::of(&config_bytes), config_bytes.len());
            let what = format!("its config is {}, but {actual} in {size} bytes came", manifest.config.digest);
            return Err(DocumentError::new(what));
        }
        let config = Config::read(&config_bytes).map_err(|cause| DocumentError::new(format!("its config: {cause}")))?;
        let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids.len());
        if layers != diff_ids {
            return Err(DocumentError::new(format!("it has {layers} layers, but its config has {diff_ids}")));
        }
        let descriptor = Descriptor::of(&manifest.media_type, &manifest_bytes);
        Ok(Self { descriptor, manifest: *manifest, manifest_bytes, config, config_bytes })
    }

    /// Makes an image of a config without `rootfs` and of layers, lowest first.
    ///
    /// Fails where the config's history, if it has one, has not an entry for each layer.
    pub fn assemble(config: &[u8], layers: Vec<Layer>) -> Result<Self, DocumentError> {
        // Sorted by name, as Go writes a map.
        let mut fields: BTreeMap<String, Value> = serde_json::from_slice(config).map_err(|error| malformed(&error))?;
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        fields.insert("rootfs".to_owned(), serde_json::json!({ "type": "layers", "diff_ids": diff_ids }));
        let config_bytes = serde_json::to_vec(&fields).expect("JSON that was read can be written");
        let history = Config::read(&config_bytes)?.history;
        let steps = history.iter().filter(|step| !step.empty_layer).count();
        if !history.is_empty() && steps != layers.len() {
            let what = format!("its history has {steps} layers, but the image has {}", layers.len());
            return Err(DocumentError::new(what));
        }
        let blobs = layers.into_iter().map(|layer| layer.blob).collect();
        let manifest = Manifest::new(OCI_MANIFEST, Descriptor::of(OCI_CONFIG, &config_bytes), blobs);
        Self::read(manifest.encode(), OCI_MANIFEST, config_bytes)
    }

    /// Returns the layers, lowest first.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = Layer> + '_ {
        let pairs = self.config.diff_ids.iter().zip(&self.manifest.layers);
        pairs.map(|(diff_id, blob)| Layer { diff_id: *diff_id, blob: blob.clone() })
    }
}

/// Refuses manifests that are no images' (helm charts, signatures).
pub(super) fn check_config_type(manifest: &Manifest) -> Result<(), DocumentError> {
    match manifest.config.media_type.as_str() {
        known if CONFIGS.contains(&known) => Ok(()),
        other => Err(DocumentError::new(format!("its config is \"{}\", which no image has", shown(other)))),
    }
}

fn malformed(error: &serde_json::Error) -> DocumentError {
    DocumentError::new(format!("it is malformed: {}", shown(&error.to_string())))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::oci::descriptor::{OCI_INDEX, OCI_LAYER};
    use crate::oci::{Compression, Named, archive, compress};

    /// An image of uncompressed layers, and their bytes.
    pub(crate) fn image(contents: &[&[u8]]) -> (Image, Memory) {
        let layer = |content: &&[u8]| Layer { diff_id: Digest::of(content), blob: Descriptor::of(OCI_LAYER, content) };
        let config = br#"{"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/x"]}}"#;
        let image = Image::assemble(config, contents.iter().map(layer).collect()).unwrap();
        (image, Memory(contents.iter().map(|content| (Digest::of(content), content.to_vec())).collect()))
    }

    /// An image whose layers are real archives of two megabytes, each compressed in its way. Other
    /// compressions make other content, so that no engine has a layer already.
    pub(crate) fn image_of_tars(compressions: &[Compression]) -> (Image, Memory) {
        let mut blobs = BTreeMap::new();
        let layer = |(number, compression): (usize, &Compression)| {
            let content: Vec<u8> = (0..2u32 << 20).map(|at| (at >> (number + 5)) as u8 ^ *compression as u8).collect();
            let (inner, inner_blobs) = image(&[&content]);
            let mut tar = Vec::new();
            archive::write(&mut tar, &[Named { image: &inner, names: &[], created: None }], &inner_blobs).unwrap();
            let mut packed = Vec::new();
            let told = compress(tar.as_slice(), &mut packed, *compression, NonZeroUsize::MIN).unwrap();
            blobs.insert(told.digest, packed);
            let blob = Descriptor::new(compression.media_type(), told.digest, told.size_bytes);
            Layer { diff_id: told.diff_id, blob }
        };
        let layers = compressions.iter().enumerate().map(layer).collect();
        let config = br#"{"os": "linux", "architecture": "amd64", "config": {"Cmd": ["/x"]}}"#;
        (Image::assemble(config, layers).unwrap(), Memory(blobs))
    }

    /// Blobs in memory.
    #[derive(Clone)]
    pub(crate) struct Memory(pub(crate) BTreeMap<Digest, Vec<u8>>);

    impl Blobs for Memory {
        fn open(&self, descriptor: &Descriptor) -> io::Result<Box<dyn Blob>> {
            let bytes = self.0.get(&descriptor.digest).ok_or(io::ErrorKind::NotFound)?;
            Ok(Box::new(io::Cursor::new(bytes.clone())))
        }
    }

    #[test]
    fn an_image_is_put_together_and_read_again() {
        let (image, _) = image(&[b"one", b"two"]);
        let config = format!(
            r#"{{"architecture":"amd64","config":{{"Cmd":["/x"]}},"os":"linux","rootfs":{{"diff_ids":["{}","{}"],"type":"layers"}}}}"#,
            Digest::of(b"one"),
            Digest::of(b"two")
        );
        assert_eq!(String::from_utf8_lossy(&image.config_bytes), config);
        assert_eq!(image.config.platform, Platform::new("linux", "amd64"));
        assert_eq!(image.layers().map(|layer| layer.diff_id).collect::<Vec<_>>(), [Digest::of(b"one"), Digest::of(b"two")]);
        let again = Image::read(image.manifest_bytes.clone(), OCI_MANIFEST, image.config_bytes.clone());
        assert_eq!(again, Ok(image));
    }

    #[test]
    fn parts_that_do_not_belong_together_are_refused() {
        let (good, _) = image(&[b"one"]);
        let (other, _) = image(&[b"two"]);
        let read = |manifest: Vec<u8>, media_type: &str, config: &[u8]| {
            Image::read(manifest, media_type, config.to_vec()).unwrap_err().to_string()
        };
        assert!(read(good.manifest_bytes.clone(), OCI_MANIFEST, &other.config_bytes).contains("came"));
        assert!(read(br#"{"manifests": []}"#.to_vec(), OCI_INDEX, b"").contains("index"));
        let without_layers = Manifest { layers: Vec::new(), ..good.manifest.clone() };
        assert!(read(without_layers.encode(), OCI_MANIFEST, &good.config_bytes).contains("0 layers"));
        let chart = Descriptor::of("application/vnd.cncf.helm.config.v1+json", b"{}");
        let chart = Manifest::new(OCI_MANIFEST, chart, Vec::new());
        assert!(read(chart.encode(), OCI_MANIFEST, b"{}").contains("no image"));
        for bad in ["", "[]", "{}", r#"{"rootfs": {"diff_ids": ["sha256:0"]}}"#] {
            let manifest = Manifest::new(OCI_MANIFEST, Descriptor::of(OCI_CONFIG, bad.as_bytes()), Vec::new());
            assert!(read(manifest.encode(), OCI_MANIFEST, bad.as_bytes()).contains("malformed"), "{bad}");
        }
        assert!(Config::read(&vec![b' '; MAX_CONFIG_BYTES + 1]).unwrap_err().to_string().contains("8 MiB"));
    }

    #[test]
    fn a_history_has_an_entry_for_each_layer() {
        let layer = || Layer { diff_id: Digest::of(b"x"), blob: Descriptor::of(OCI_LAYER, b"x") };
        let config = br#"{"history": [{"created_by": "a"}, {"empty_layer": true}]}"#;
        assert!(Image::assemble(config, vec![layer()]).is_ok());
        assert!(Image::assemble(config, vec![layer(), layer()]).unwrap_err().to_string().contains("history"));
        Image::assemble(b"[]", Vec::new()).unwrap_err();
    }
}
