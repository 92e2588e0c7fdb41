//! Descriptors: what names content in indices, manifests and layouts, and the media types.
//!
//! Invariant: a [`Descriptor`] names content by a complete sha256. The JSON is that of the OCI image
//! specification's "Content Descriptors", its fields in the order in which Go writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Digest;
use crate::op::Platform;

/// An index of OCI.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A manifest of OCI.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An image's config of OCI.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// A layer of OCI.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// A layer of OCI under gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// A layer of OCI under zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker's word for an index.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// A manifest of docker, version 2, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// An image's config of docker.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// A layer of docker.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// A layer of docker under gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// A layer of docker under zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// A layer of docker that registries may not hand on.
pub const DOCKER_LAYER_FOREIGN_GZIP: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";

/// The media types of manifests and indices.
pub(crate) const MANIFESTS: &[&str] = &[OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
/// The media types of image configs.
pub(crate) const CONFIGS: &[&str] = &[OCI_CONFIG, DOCKER_CONFIG];

/// Names content: what it is, its digest and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is; empty where nobody said it.
    #[serde(default)]
    pub media_type: String,
    /// The sha256 of the content.
    #[serde(serialize_with = "write_digest", deserialize_with = "read_digest")]
    pub digest: Digest,
    /// The number of its bytes.
    #[serde(rename = "size")]
    pub size_bytes: u64,
    /// What somebody noted beside it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "read_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// What the content runs on.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "platform")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// Names content whose digest is known.
    pub fn new(media_type: &str, digest: Digest, size_bytes: u64) -> Self {
        Self { media_type: media_type.to_owned(), digest, size_bytes, annotations: BTreeMap::new(), platform: None }
    }

    /// Names these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Says whether these are the bytes that it names.
    pub fn names(&self, bytes: &[u8]) -> bool {
        self.size_bytes == bytes.len() as u64 && self.digest == Digest::of(bytes)
    }
}

/// Reads `sha256:…`.
pub(super) fn read_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

/// Writes `sha256:…`.
pub(super) fn write_digest<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(digest)
}

/// Go writes a map that is nil as null.
fn read_annotations<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// [`Platform`] in the index's JSON.
pub(super) mod platform {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::op::Platform;

    /// The fields of a platform, which an image's config has as well.
    #[derive(Serialize, Deserialize)]
    pub(in crate::oci) struct Fields {
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        os: String,
        #[serde(rename = "os.version", default, skip_serializing_if = "String::is_empty")]
        os_version: String,
        #[serde(rename = "os.features", default, skip_serializing_if = "Option::is_none")]
        os_features: Option<Vec<String>>,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        variant: String,
    }

    impl From<Fields> for Platform {
        fn from(fields: Fields) -> Self {
            let Fields { architecture, os, os_version, os_features, variant } = fields;
            Self { os, architecture, variant, os_version, os_features: os_features.unwrap_or_default() }
        }
    }

    pub(in crate::oci) fn serialize<S: Serializer>(platform: &Option<Platform>, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = platform.clone().map(|platform| Fields {
            architecture: platform.architecture,
            os: platform.os,
            os_version: platform.os_version,
            os_features: Some(platform.os_features).filter(|features| !features.is_empty()),
            variant: platform.variant,
        });
        fields.serialize(serializer)
    }

    pub(in crate::oci) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Platform>, D::Error> {
        Ok(Option::<Fields>::deserialize(deserializer)?.map(Platform::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_written_as_go_writes_them() {
        let mut descriptor = Descriptor::of(OCI_MANIFEST, b"x");
        let digest = descriptor.digest;
        let text = format!(r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1}}"#);
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
        descriptor.platform = Some(Platform { variant: "v8".to_owned(), ..Platform::new("linux", "arm64") });
        descriptor.annotations.insert("a".to_owned(), "b".to_owned());
        let text = format!(
            r#"{{"mediaType":"{OCI_MANIFEST}","digest":"{digest}","size":1,"annotations":{{"a":"b"}},"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}}"#
        );
        assert_eq!(serde_json::to_string(&descriptor).unwrap(), text);
        assert_eq!(serde_json::from_str::<Descriptor>(&text).unwrap(), descriptor);
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let good = format!(r#"{{"digest": "{}", "size": 0, "annotations": null, "platform": null}}"#, Digest::of(b""));
        assert!(serde_json::from_str::<Descriptor>(&good).unwrap().names(b""));
        for (from, to) in [("sha256:", "sha512:"), ("sha256:e", "sha256:"), (": 0", ": -1"), (": 0", ": 1e30")] {
            serde_json::from_str::<Descriptor>(&good.replace(from, to)).unwrap_err();
        }
    }
}
