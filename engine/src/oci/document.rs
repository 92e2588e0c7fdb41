//! Manifests and indices.
//!
//! Invariant: a document is read as what its media type says, or not at all; one that could be
//! read as either kind is refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::descriptor::{DOCKER_LIST, Descriptor, MANIFESTS, OCI_INDEX};
use crate::op::Platform;
use crate::text::shown;

/// The largest manifest or index.
pub const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// The most layers of an image; docker takes 127.
pub const MAX_LAYERS: usize = 1000;

/// Says why a text is not what it should be: a cause, for whoever knows whose text it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DocumentError(String);

impl DocumentError {
    pub(crate) fn new(cause: impl Into<String>) -> Self {
        Self(cause.into())
    }
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Manifests for several platforms.
    Index(Index),
    /// One image.
    Manifest(Box<Manifest>),
}

/// The entries of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Manifests and further indices.
    pub manifests: Vec<Descriptor>,
}

/// One image: its config and its layers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// [`OCI_MANIFEST`](super::descriptor::OCI_MANIFEST) or docker's.
    pub media_type: String,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What somebody noted beside it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    media_type: Option<String>,
    config: Option<Descriptor>,
    manifests: Option<Vec<Descriptor>>,
    layers: Option<Vec<Descriptor>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl Document {
    /// Reads a document that was told to be of `media_type`.
    pub fn read(bytes: &[u8], media_type: &str) -> Result<Self, DocumentError> {
        let told = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !MANIFESTS.contains(&told.as_str()) {
            let what = format!("its media type is \"{}\", which no image's is; ask for an image of version 2", shown(&told));
            return Err(DocumentError(what));
        }
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(DocumentError(format!("it is larger than {} MiB", MAX_MANIFEST_BYTES >> 20)));
        }
        let fields: Fields = serde_json::from_slice(bytes)
            .map_err(|error| DocumentError(format!("it is malformed: {}", shown(&error.to_string()))))?;
        if let Some(own) = fields.media_type.filter(|own| !own.is_empty() && *own != told) {
            return Err(DocumentError(format!("it was sent as {told:?} and calls itself \"{}\"", shown(&own))));
        }
        let index = matches!(told.as_str(), OCI_INDEX | DOCKER_LIST);
        match (fields.manifests, fields.config) {
            (Some(manifests), None) if index && fields.layers.is_none() => Ok(Self::Index(Index { manifests })),
            (None, Some(config)) if !index => {
                let layers = fields.layers.unwrap_or_default();
                if layers.len() > MAX_LAYERS {
                    return Err(DocumentError(format!("it has {} layers, but {MAX_LAYERS} are the most", layers.len())));
                }
                let annotations = fields.annotations.unwrap_or_default();
                Ok(Self::Manifest(Box::new(Manifest { annotations, ..Manifest::new(&told, config, layers) })))
            }
            _ => Err(DocumentError(format!("its fields are not those of {told:?}"))),
        }
    }
}

impl Manifest {
    /// Makes a manifest.
    pub fn new(media_type: &str, config: Descriptor, layers: Vec<Descriptor>) -> Self {
        let annotations = BTreeMap::new();
        Self { media_type: media_type.to_owned(), config, layers, annotations }
    }

    /// Returns the bytes that BuildKit writes for it: indented by two spaces.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields<'a> {
            schema_version: u32,
            #[serde(flatten)]
            manifest: &'a Manifest,
        }
        serde_json::to_vec_pretty(&Fields { schema_version: 2, manifest: self }).expect("strings and numbers are always JSON")
    }
}

impl Index {
    /// Returns the bytes that containerd writes for it, in one line.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Fields<'a> {
            schema_version: u32,
            media_type: &'a str,
            manifests: &'a [Descriptor],
        }
        let fields = Fields { schema_version: 2, media_type: OCI_INDEX, manifests: &self.manifests };
        serde_json::to_vec(&fields).expect("strings and numbers are always JSON")
    }

    /// Picks the manifest for a platform: the highest variant that it runs, the first of equals;
    /// one that names no platform where none of the others does.
    pub fn choose(&self, platform: &Platform) -> Result<&Descriptor, DocumentError> {
        let (os, architecture, wanted) = normal(platform);
        let mut chosen: Option<(u32, &Descriptor)> = None;
        for entry in self.manifests.iter().filter(|entry| MANIFESTS.contains(&entry.media_type.as_str())) {
            let Some(target) = &entry.platform else { continue };
            let (entry_os, entry_architecture, variant) = normal(target);
            let fits = entry_os == os && entry_architecture == architecture && variant <= wanted;
            if fits && chosen.is_none_or(|(best, _)| variant > best) {
                chosen = Some((variant, entry));
            }
        }
        let is_nameless = |e: &&Descriptor| e.platform.is_none() && MANIFESTS.contains(&e.media_type.as_str());
        chosen.map(|(_, entry)| entry).or_else(|| self.manifests.iter().find(is_nameless)).ok_or_else(|| {
            let known = self.manifests.iter().filter_map(|entry| entry.platform.as_ref());
            let known = known.filter(|target| target.os != "unknown").map(|t| format!("{}/{}", t.os, t.architecture));
            let known: Vec<String> = known.take(20).collect();
            let known = shown(&known.join(", "));
            DocumentError(format!("it has no image for {platform}; it has \"{known}\"; choose one of these platforms"))
        })
    }
}

/// Brings a platform into one form, as containerd's `platforms` package does: system, architecture,
/// and the variant as a number.
fn normal(platform: &Platform) -> (String, String, u32) {
    let Platform { os, architecture, variant, .. } = platform;
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
mod tests {
    use super::*;
    use crate::Digest;
    use crate::oci::descriptor::OCI_MANIFEST;

    fn index(platforms: &[(&str, &str, &str)]) -> Index {
        let entry = |(i, (os, architecture, variant)): (usize, &(&str, &str, &str))| {
            let platform = Platform { variant: variant.to_string(), ..Platform::new(os, architecture) };
            let platform = Some(platform).filter(|platform| !platform.os.is_empty());
            Descriptor { platform, ..Descriptor::new(OCI_MANIFEST, Digest::of(b""), i as u64) }
        };
        Index { manifests: platforms.iter().enumerate().map(entry).collect() }
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
            assert_eq!(all.choose(&platform(wanted)).ok().map(|entry| entry.size_bytes), chosen, "{wanted}");
        }
        let error = all.choose(&platform("linux/s390x")).unwrap_err().to_string();
        assert!(error.contains("linux/s390x") && error.contains("linux/arm64") && !error.contains("unknown"), "{error}");
        assert_eq!(
            index(&[("windows", "amd64", ""), ("", "", "")]).choose(&platform("linux/amd64")).map(|e| e.size_bytes),
            Ok(1)
        );
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

    #[test]
    fn what_is_too_much_is_refused() {
        let layer = format!(r#"{{"digest": "{}", "size": 1}}"#, Digest::of(b""));
        let read = |text: String| Document::read(text.as_bytes(), OCI_MANIFEST);
        let layers = |count| format!(r#"{{"config": {layer}, "layers": [{}]}}"#, vec![layer.as_str(); count].join(","));
        assert!(read(layers(MAX_LAYERS)).is_ok());
        assert!(read(layers(MAX_LAYERS + 1)).unwrap_err().to_string().contains("layers"));
        assert!(read(" ".repeat(MAX_MANIFEST_BYTES + 1)).unwrap_err().to_string().contains("4 MiB"));
        assert!(read("[".repeat(100_000)).unwrap_err().to_string().contains("malformed"));
    }

    #[test]
    fn a_manifest_is_written_as_buildkit_writes_it() {
        let manifest = Manifest::new(OCI_MANIFEST, Descriptor::of("c", b""), vec![Descriptor::of("l", b"")]);
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{
  "schemaVersion": 2,
  "mediaType": "{OCI_MANIFEST}",
  "config": {{
    "mediaType": "c",
    "digest": "{digest}",
    "size": 0
  }},
  "layers": [
    {{
      "mediaType": "l",
      "digest": "{digest}",
      "size": 0
    }}
  ]
}}"#
        );
        assert_eq!(String::from_utf8(manifest.encode()).unwrap(), text);
        assert_eq!(Document::read(text.as_bytes(), OCI_MANIFEST), Ok(Document::Manifest(Box::new(manifest))));
    }
}
