//! An image's contents for programs.
//!
//! `schemaVersion` is 1. Keys are only ever added under one version; what changes meaning or goes away comes with the next. Layers
//! are counted from 1, the lowest. A path that is no UTF-8 has its bytes in `pathBase64`; modes are octal digits.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roche_engine::oci::layer::{Kind, Node};
use serde_json::{Map, Value, json};

use super::config::without_secrets;
use super::examine::FindingKind;
use super::text::bytes;
use super::{Examined, Finding, Program};

/// Renders everything, or the files of one layer alone.
pub(super) fn render(examined: &Examined, layer: Option<usize>) -> String {
    let Examined { image, contents, settings, .. } = examined;
    let mut steps = image.config.history.iter().filter(|step| !step.empty_layer);
    let layers: Vec<Value> = (image.layers.iter().zip(contents.layers()).enumerate())
        .map(|(i, (file, tree))| {
            let made = steps.next().map(|step| without_secrets(&step.created_by).0);
            json!({
                "number": i + 1,
                "diffId": file.diff_id.to_string(),
                "digest": file.digest.map(|digest| digest.to_string()),
                "storedBytes": file.size_bytes,
                "contentBytes": tree.nodes.values().map(bytes).sum::<u64>(),
                "entries": tree.nodes.len() - 1,
                "createdBy": made,
            })
        })
        .collect();
    let lost: Vec<Value> = contents
        .lost()
        .iter()
        .map(|lost| {
            let mut value = path_fields(&lost.path);
            value.insert("sizeBytes".to_owned(), json!(lost.size_bytes));
            value.insert("layer".to_owned(), json!(lost.layer + 1));
            value.insert("hiddenBy".to_owned(), json!(lost.by + 1));
            value.insert("removed".to_owned(), json!(lost.is_removed));
            Value::Object(value)
        })
        .collect();
    let shown = || contents.files().filter(|shown| shown.link.is_none());
    let head = json!({
        "schemaVersion": 1,
        "image": examined.name,
        "foundIn": examined.found_in,
        "digest": image.digest.map(|digest| digest.to_string()),
        "imageId": image.id.to_string(),
        "platform": image.config.platform.to_string(),
        "config": settings.value,
        "layers": layers,
        "totals": {
            "files": contents.files().filter(|shown| !shown.node.is_folder()).count(),
            "folders": contents.files().filter(|shown| shown.node.is_folder() && !shown.path.is_empty()).count(),
            "sizeBytes": shown().map(|shown| bytes(shown.node)).sum::<u64>(),
            "wastedBytes": contents.lost().iter().map(|lost| lost.size_bytes).sum::<u64>(),
        },
        "wasted": lost,
        "findings": examined.findings.iter().map(finding).collect::<Vec<_>>(),
        "programs": examined.programs.iter().map(Program::json).collect::<Vec<_>>(),
    });
    // A million files are written one by one: as values of their own they would take gigabytes.
    let mut text = serde_json::to_string_pretty(&head).expect("a JSON value is always written");
    text.truncate(text.len() - "\n}".len());
    text.push_str(",\n  \"files\": [");
    let mut separator = "\n";
    let mut write = |value: Map<String, Value>| {
        let _ = write!(text, "{separator}    {}", Value::Object(value));
        separator = ",\n";
    };
    match layer {
        Some(number) => {
            for (path, node) in contents.layers()[number - 1].nodes.iter().filter(|(path, _)| !path.is_empty()) {
                write(file_fields(path, node, number, None));
            }
        }
        None => {
            for shown in contents.files().filter(|shown| !shown.path.is_empty()) {
                write(file_fields(shown.path, shown.node, shown.layer + 1, shown.link));
            }
        }
    }
    text.push_str("\n  ]\n}\n");
    crate::text::json(&text)
}

/// Returns a path with a `/` in front, as text and, where that is not all of it, as bytes.
pub(super) fn path_fields(path: &[u8]) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("path".to_owned(), json!(format!("/{}", String::from_utf8_lossy(path))));
    if std::str::from_utf8(path).is_err() {
        fields.insert("pathBase64".to_owned(), json!(STANDARD.encode([b"/", path].concat())));
    }
    fields
}

/// Returns what is known of a file.
pub(crate) fn file_fields(path: &[u8], node: &Node, layer: usize, link: Option<&[u8]>) -> Map<String, Value> {
    let mut fields = path_fields(path);
    let mut put = |key: &str, value: Value| drop(fields.insert(key.to_owned(), value));
    let text = |bytes: &[u8]| json!(String::from_utf8_lossy(bytes));
    let (kind, link) = match &node.kind {
        Kind::File { .. } => ("file", link),
        Kind::Folder { .. } => ("folder", None),
        Kind::Symlink { .. } => ("symlink", link),
        Kind::Hardlink { to } => ("hardlink", Some(&to[..])),
        Kind::Char { .. } => ("charDevice", link),
        Kind::Block { .. } => ("blockDevice", link),
        Kind::Fifo => ("pipe", link),
        Kind::Whiteout => ("whiteout", None),
    };
    put("kind", json!(kind));
    put("mode", json!(format!("{:04o}", node.mode)));
    put("uid", json!(node.uid));
    put("gid", json!(node.gid));
    put("layer", json!(layer));
    match &node.kind {
        Kind::File { size_bytes, digest } => {
            put("sizeBytes", json!(size_bytes));
            put("digest", json!(digest.to_string()));
        }
        Kind::Symlink { target } => put("target", text(target)),
        Kind::Char { major, minor } | Kind::Block { major, minor } => put("device", json!([major, minor])),
        Kind::Folder { opaque: true } => put("opaque", json!(true)),
        _ => {}
    }
    if let Some(link) = link {
        put("linkTo", json!(format!("/{}", String::from_utf8_lossy(link))));
    }
    if !node.xattrs.is_empty() {
        let attributes =
            node.xattrs.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), json!(STANDARD.encode(value))));
        put("xattrs", Value::Object(attributes.collect()));
    }
    fields
}

fn finding(finding: &Finding) -> Value {
    let kind = FindingKind::ALL.iter().find(|(kind, ..)| *kind == finding.kind).map_or("", |(_, name, _)| name);
    let mut value = match finding.layer {
        Some(_) => path_fields(&finding.what),
        None => Map::from_iter([("variable".to_owned(), json!(String::from_utf8_lossy(&finding.what)))]),
    };
    value.insert("kind".to_owned(), json!(kind));
    value.insert("layer".to_owned(), json!(finding.layer.map(|layer| layer + 1)));
    value.insert("hidden".to_owned(), json!(finding.is_hidden));
    if !finding.detail.is_empty() {
        value.insert("detail".to_owned(), json!(finding.detail));
    }
    Value::Object(value)
}
