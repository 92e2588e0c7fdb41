//! The difference of two images for programs.
//!
//! `schemaVersion` is 1. Keys are only ever added under one version. Files are written as `roche contents --json` writes them.

use serde_json::{Value, json};

use super::compare::Difference;
use super::crates::CratesChange;
use crate::contents::{Examined, file_fields};

/// Renders the difference.
pub(super) fn render(was: &Examined, is: &Examined, difference: &Difference<'_>) -> String {
    let image = |examined: &Examined, size: u64| {
        json!({
            "image": examined.name,
            "foundIn": examined.found_in,
            "digest": examined.image.digest.map(|digest| digest.to_string()),
            "imageId": examined.image.id.to_string(),
            "layers": examined.image.layers.len(),
            "sizeBytes": size,
        })
    };
    let file = |shown: &roche_engine::oci::contents::Shown<'_>| {
        Value::Object(file_fields(shown.path, shown.node, shown.layer + 1, shown.link))
    };
    let changed = difference.changed.iter().map(|change| {
        let mut value = json!({"what": change.what, "old": file(&change.was), "new": file(&change.is)});
        value["path"] = value["old"]["path"].clone();
        value
    });
    let value = json!({
        "schemaVersion": 1,
        "old": image(was, difference.sizes[0]),
        "new": image(is, difference.sizes[1]),
        "sharedLayers": difference.shared_layers,
        "differs": !difference.is_none(),
        "config": difference.config.iter().map(|change| json!({"key": change.key, "old": change.was, "new": change.is})).collect::<Vec<_>>(),
        "crates": difference.crates.iter().map(CratesChange::json).collect::<Vec<_>>(),
        "added": difference.added.iter().map(file).collect::<Vec<_>>(),
        "removed": difference.removed.iter().map(file).collect::<Vec<_>>(),
        "changed": changed.collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_string_pretty(&value).expect("a JSON value is always written");
    text.push('\n');
    crate::text::json(&text)
}
