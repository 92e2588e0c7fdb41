//! Manifests and indices.
//!
//! Invariant: a document is read as what its media type says, or not at all; one that could be
//! read as either kind is refused.

use serde::Deserialize;

use super::short;
use crate::Digest;
use crate::op::Platform;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The media types of manifests and indices.
pub(super) const MANIFESTS: &[&str] = &[OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];
/// The media types of image configs.
pub(super) const CONFIGS: &[&str] =
    &["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A manifest or an index, as far as it is of use.
pub(super) enum Document {
    /// Manifests for several platforms.
    Index(Index),
    /// One image, by its config.
    Manifest(Descriptor),
}

/// The entries of an index.
pub(super) struct Index(Vec<Descriptor>);

/// Names content.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    #[serde(deserialize_with = "digest")]
    pub(super) digest: Digest,
    pub(super) size: u64,
    platform: Option<Target>,
}

/// What an entry runs on.
#[derive(Deserialize)]
struct Target {
    os: String,
    architecture: String,
    #[serde(default)]
    variant: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: Option<String>,
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
    layers: Option<serde::de::IgnoredAny>,
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Document {
    /// Reads a document that was told to be of `media_type`.
    pub(super) fn read(bytes: &[u8], media_type: &str) -> Result<Self, String> {
        let told = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !MANIFESTS.contains(&told.as_str()) {
            return Err(format!("its media type is {:?}, which no image's is; ask for an image of version 2", short(&told)));
        }
        let fields: Fields =
            serde_json::from_slice(bytes).map_err(|error| format!("it is malformed: {}", short(&error.to_string())))?;
        if let Some(own) = fields.media_type.filter(|own| !own.is_empty() && *own != told) {
            return Err(format!("it was sent as {told:?} and calls itself {:?}", short(&own)));
        }
        let index = matches!(told.as_str(), OCI_INDEX | DOCKER_LIST);
        match (fields.manifests, fields.config) {
            (Some(manifests), None) if index && fields.layers.is_none() => Ok(Self::Index(Index(manifests))),
            (None, Some(config)) if !index => Ok(Self::Manifest(config)),
            _ => Err(format!("its fields are not those of {told:?}")),
        }
    }
}

impl Index {
    /// Picks the manifest for a platform: the highest variant that it runs, the first of equals;
    /// one that names no platform where none of the others does.
    pub(super) fn choose(&self, platform: &Platform) -> Result<&Descriptor, String> {
        let (os, architecture, wanted) = normal(&platform.os, &platform.architecture, &platform.variant);
        let mut chosen: Option<(u32, &Descriptor)> = None;
        for entry in self.0.iter().filter(|entry| MANIFESTS.contains(&entry.media_type.as_str())) {
            let Some(target) = &entry.platform else { continue };
            let (entry_os, entry_architecture, variant) = normal(&target.os, &target.architecture, &target.variant);
            let fits = entry_os == os && entry_architecture == architecture && variant <= wanted;
            if fits && chosen.is_none_or(|(best, _)| variant > best) {
                chosen = Some((variant, entry));
            }
        }
        let nameless = || self.0.iter().find(|e| e.platform.is_none() && MANIFESTS.contains(&e.media_type.as_str()));
        chosen.map(|(_, entry)| entry).or_else(nameless).ok_or_else(|| {
            let known = self.0.iter().filter_map(|entry| entry.platform.as_ref()).filter(|target| target.os != "unknown");
            let known: Vec<String> = known.map(|t| format!("{}/{}", t.os, t.architecture)).take(20).collect();
            format!("it has no image for {platform}; it has {:?}; choose one of these platforms", short(&known.join(", ")))
        })
    }
}

/// Brings a platform into one form, as containerd's `platforms` package does: system, architecture,
/// and the variant as a number.
fn normal(os: &str, architecture: &str, variant: &str) -> (String, String, u32) {
    let architecture = architecture.to_ascii_lowercase();
    let number = |default| variant.trim_start_matches(['v', 'V']).parse().unwrap_or(default);
    let (architecture, variant) = match architecture.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", number(1)),
        "i386" | "386" => ("386", number(0)),
        "aarch64" | "arm64" => ("arm64", number(8)),
        "armhf" => ("arm", 7),
        "armel" => ("arm", 6),
        "arm" => ("arm", number(7)),
        other => (other, number(0)),
    };
    let os = match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        os => os.to_owned(),
    };
    (os, architecture.to_owned(), variant)
}

#[cfg(test)]
mod unit {
    use super::*;

    fn index(platforms: &[(&str, &str, &str)]) -> Index {
        Index(
            platforms
                .iter()
                .enumerate()
                .map(|(i, (os, architecture, variant))| Descriptor {
                    media_type: OCI_MANIFEST.to_owned(),
                    digest: Digest::of(b""),
                    size: i as u64,
                    platform: (!os.is_empty()).then(|| Target {
                        os: os.to_string(),
                        architecture: architecture.to_string(),
                        variant: variant.to_string(),
                    }),
                })
                .collect(),
        )
    }

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let mut platform = Platform::new(part(), part());
        platform.variant = part().to_owned();
        platform
    }

    #[test]
    fn the_best_variant_for_a_platform_is_chosen() {
        let all = index(&[
            ("unknown", "unknown", ""),
            ("windows", "amd64", ""),
            ("linux", "amd64", "v3"),
            ("linux", "x86_64", ""),
            ("linux", "arm", "v5"),
            ("linux", "arm", "v6"),
            ("linux", "arm64", "v8"),
        ]);
        for (wanted, chosen) in [
            ("linux/amd64", Some(3)),
            ("linux/amd64/v4", Some(2)),
            ("linux/arm64", Some(6)),
            ("linux/aarch64/v8", Some(6)),
            ("linux/arm/v7", Some(5)),
            ("linux/arm", Some(5)),
            ("linux/arm/v5", Some(4)),
            ("linux/riscv64", None),
            ("darwin/arm64", None),
        ] {
            assert_eq!(all.choose(&platform(wanted)).ok().map(|entry| entry.size), chosen, "{wanted}");
        }
        let error = all.choose(&platform("linux/s390x")).err().unwrap_or_default();
        assert!(error.contains("linux/s390x") && error.contains("linux/arm64") && !error.contains("unknown"), "{error}");
        assert_eq!(index(&[("windows", "amd64", ""), ("", "", "")]).choose(&platform("linux/amd64")).map(|e| e.size), Ok(1));
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let descriptor = format!(r#"{{"mediaType": "x", "digest": "{}", "size": 1}}"#, Digest::of(b""));
        let read = |text: &str, media_type: &str| Document::read(text.replace("$D", &descriptor).as_bytes(), media_type).is_ok();
        assert!(read(r#"{"config": $D, "layers": []}"#, OCI_MANIFEST));
        assert!(read(r#"{"manifests": [$D]}"#, "application/vnd.oci.image.index.v1+json; charset=utf-8"));
        assert!(!read(r#"{"config": $D, "layers": []}"#, OCI_INDEX));
        assert!(!read(r#"{"manifests": []}"#, OCI_MANIFEST));
        assert!(!read(r#"{"config": $D, "layers": [], "manifests": [$D]}"#, OCI_MANIFEST));
        assert!(!read(r#"{"manifests": [], "layers": []}"#, OCI_INDEX));
        assert!(!read(&format!(r#"{{"mediaType": "{OCI_INDEX}", "config": $D}}"#), OCI_MANIFEST));
        assert!(!read(r#"{"config": $D}"#, "text/html"));
        assert!(!read("", OCI_MANIFEST));
    }
}
