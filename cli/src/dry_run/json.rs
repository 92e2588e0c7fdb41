//! The plan for programs.
//!
//! `schemaVersion` is 1. Keys are only ever added under one version; what changes meaning or goes
//! away comes with the next. Vertices are numbered in topological order; a digest that is not
//! known yet is absent, and `resolved` is then false.

use std::collections::BTreeMap;

use roche_engine::op::OpKind;
use roche_engine::{Digest, Vertex};
use roche_frontend::plan::EntryKind;
use serde_json::{Map, Value, json};

use super::DryRun;

/// Renders the plan.
pub(super) fn render(dry_run: &DryRun<'_>) -> String {
    let DryRun { plan, release, unresolved, .. } = dry_run;
    let definition = &dry_run.definition;
    let vertices: Vec<&Vertex> = definition.vertices().collect();
    let ids: BTreeMap<Digest, usize> = vertices.iter().enumerate().map(|(i, vertex)| (vertex.digest, i)).collect();
    let target = definition.target();
    let config: Value = serde_json::from_slice(&plan.config).unwrap_or_default();

    let mut value = json!({
        "schemaVersion": 1,
        "resolved": unresolved.is_empty(),
        "unresolved": unresolved.iter().map(|(image, reason)| json!({"image": image, "reason": reason})).collect::<Vec<_>>(),
        "image": {
            "names": release.tags.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "platform": release.platform.to_string(),
            "config": config,
        },
        "bases": plan.bases.iter().map(|base| {
            let mut value = json!({"reference": base.reference.to_string()});
            if let Some(digest) = base.digest {
                value["digest"] = json!(digest.to_string());
            }
            value
        }).collect::<Vec<_>>(),
        "stages": plan.stages.iter().map(|stage| json!({
            "name": stage.name,
            "vertices": stage.vertices.iter().filter_map(|digest| ids.get(digest)).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "vertices": vertices.iter().map(|vertex| {
            let mut value = Map::new();
            value.insert("id".to_owned(), json!(ids[&vertex.digest]));
            value.extend(dry_run.digest(vertex).map(|digest| ("digest".to_owned(), json!(digest.to_string()))));
            value.insert("name".to_owned(), json!(vertex.name()));
            value.insert("kind".to_owned(), json!(kind(&vertex.op.kind)));
            let inputs: Vec<Value> = vertex.op.kind.inputs().iter().map(|edge| json!({"vertex": ids[&edge.vertex], "output": edge.output})).collect();
            value.insert("inputs".to_owned(), Value::Array(inputs));
            Value::Object(value)
        }).collect::<Vec<_>>(),
        "target": {"vertex": ids[&target.vertex], "output": target.output},
        "contents": plan.contents.iter().map(|entry| {
            let kind = if entry.kind == EntryKind::Folder { "folder" } else { "file" };
            let mut value = json!({"path": entry.path, "kind": kind, "owner": entry.owner, "vertex": ids[&entry.vertex]});
            if let Some(mode) = entry.mode {
                value["mode"] = json!(format!("{mode:04o}"));
            }
            if let Some(size) = entry.size_bytes {
                value["sizeBytes"] = json!(size);
            }
            value
        }).collect::<Vec<_>>(),
    });
    if unresolved.is_empty() {
        let bytes = definition.encode();
        value["definition"] = json!({"digest": Digest::of(&bytes).to_string(), "sizeBytes": bytes.len()});
    }
    let mut text = serde_json::to_string_pretty(&value).expect("a JSON value is always written");
    text.push('\n');
    crate::text::json(&text)
}

fn kind(kind: &OpKind) -> &'static str {
    match kind {
        OpKind::Source(_) => "source",
        OpKind::Exec(_) => "exec",
        OpKind::File(_) => "file",
        OpKind::Merge(_) => "merge",
        OpKind::Diff(_) => "diff",
        OpKind::Build(_) => "build",
    }
}
