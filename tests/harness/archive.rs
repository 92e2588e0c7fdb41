//! Images made by hand: layers of any bytes, docker archives and OCI layouts of them.
//!
//! Invariant: digests are right, so that what a test breaks is the only thing that is wrong.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::write::ZlibEncoder;
use roche_engine::Digest;
use serde_json::{Value, json};

/// A tar being written: every field can be odd.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    /// An entry: its letter, name, mode, what it links to, content.
    pub(crate) fn entry(mut self, letter: u8, name: &[u8], mode: u32, link: &[u8], content: &[u8]) -> Self {
        if name.len() > 100 {
            self = self.pax(&[(b"path", name)]);
        }
        if link.len() > 100 {
            self = self.pax(&[(b"linkpath", link)]);
        }
        self.0.extend(head(letter, &name[..name.len().min(100)], mode, &link[..link.len().min(100)], content.len() as u64));
        self.bytes(content)
    }

    /// A file.
    pub(crate) fn file(self, name: impl AsRef<[u8]>, content: &str) -> Self {
        self.entry(b'0', name.as_ref(), 0o644, b"", content.as_bytes())
    }

    /// A file with a mode.
    pub(crate) fn program(self, name: &str, mode: u32) -> Self {
        self.entry(b'0', name.as_bytes(), mode, b"", b"#!")
    }

    /// A folder.
    pub(crate) fn folder(self, name: impl AsRef<[u8]>) -> Self {
        self.entry(b'5', name.as_ref(), 0o755, b"", b"")
    }

    /// A symbolic link.
    pub(crate) fn symlink(self, name: &str, target: &[u8]) -> Self {
        self.entry(b'2', name.as_bytes(), 0o777, target, b"")
    }

    /// A hard link.
    pub(crate) fn hardlink(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name.as_bytes(), 0o644, target.as_bytes(), b"")
    }

    /// Records for the next entry.
    pub(crate) fn pax(mut self, records: &[(&[u8], &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = [b" ", *key, b"=", *value, b"\n"].concat();
            let length = (1..).find(|length| length.to_string().len() + rest.len() == *length).expect("some length fits");
            content.extend([length.to_string().as_bytes(), &rest].concat());
        }
        self.0.extend(head(b'x', b"PaxHeaders/x", 0o644, b"", content.len() as u64));
        self.bytes(&content)
    }

    /// Bytes, and what fills their last block.
    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Ends the archive.
    pub(crate) fn end(self) -> Vec<u8> {
        [self.0, vec![0; 1024]].concat()
    }
}

/// A program with nothing in it but a section of cargo-auditable's.
pub(crate) fn program(section: &[u8]) -> Vec<u8> {
    const NAMES: &[u8] = b"\0.names\0.dep-v0\0";
    let at = 64 + NAMES.len() as u64;
    let table = at + section.len() as u64;
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(64, 0);
    bytes[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    for (place, number) in [(0x3a, 64u16), (0x3c, 3), (0x3e, 1)] {
        bytes[place..place + 2].copy_from_slice(&number.to_le_bytes());
    }
    bytes.extend_from_slice(NAMES);
    bytes.extend_from_slice(section);
    bytes.extend_from_slice(&[0; 64]);
    for (name, offset, size) in [(1u64, 64, NAMES.len() as u64), (8, at, section.len() as u64)] {
        let words = [name | 1 << 32, 0, 0, offset, size, 0, 0, 0];
        bytes.extend(words.iter().flat_map(|word: &u64| word.to_le_bytes()));
    }
    bytes
}

/// A list of crates as cargo-auditable writes it.
pub(crate) fn list_of_crates(json: &Value) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(json.to_string().as_bytes()).expect("memory takes everything");
    packed.finish().expect("memory takes everything")
}

/// The head of an entry in the ustar format.
pub(crate) fn head(letter: u8, name: &[u8], mode: u32, link: &[u8], size: u64) -> Vec<u8> {
    let mut head = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\x000000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, &[letter]);
    put(157, link);
    put(257, b"ustar\x0000");
    summed(head)
}

/// Sums a head up again.
pub(crate) fn summed(mut head: Vec<u8>) -> Vec<u8> {
    head[148..156].copy_from_slice(b"        ");
    let sum: u32 = head[..512].iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// A config for layers, with more fields.
pub(crate) fn config(layers: &[Vec<u8>], more: Value) -> Value {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let mut config =
        json!({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    for (key, value) in more.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    config
}

/// Writes an archive as docker 20.10 saves images: no layout, uncompressed layers.
pub(crate) fn docker_archive(path: &Path, layers: &[Vec<u8>], more: Value) -> PathBuf {
    let config = config(layers, more).to_string();
    let name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let files: Vec<String> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let list = json!([{"Config": name, "RepoTags": ["a:1"], "Layers": files}]).to_string();
    let mut tar = Tar::default().file(&name, &config);
    for (file, layer) in files.iter().zip(layers) {
        tar = tar.entry(b'0', file.as_bytes(), 0o644, b"", layer);
    }
    fs::write(path, tar.file("manifest.json", &list).end()).expect("the archive is written");
    path.to_owned()
}

/// Writes an OCI layout's folder; `blobs` are the layers as stored, by default as they are.
pub(crate) fn layout(path: &Path, layers: &[Vec<u8>], blobs: Option<&[Vec<u8>]>, more: Value) -> PathBuf {
    let store = path.join("blobs/sha256");
    fs::create_dir_all(&store).expect("the folder is made");
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.join(digest.hex()), bytes).expect("the blob is written");
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = put("config.v1+json", config(layers, more).to_string().as_bytes());
    let layers: Vec<Value> = blobs.unwrap_or(layers).iter().map(|layer| put("layer.v1.tar", layer)).collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers});
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
    fs::write(path.join("index.json"), index.to_string()).expect("the index is written");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the note is written");
    path.to_owned()
}
