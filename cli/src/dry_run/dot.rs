//! The plan for graphviz, in the shapes of `buildctl debug dump-llb --dot`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roche_engine::Digest;
use roche_engine::op::OpKind;

use super::DryRun;
use crate::text::one_line;

/// Renders the plan.
pub(super) fn render(dry_run: &DryRun<'_>) -> String {
    let definition = &dry_run.definition;
    let mut ids: BTreeMap<Digest, usize> = BTreeMap::new();
    let mut out = String::from("digraph {\n");
    for (image, reason) in &dry_run.unresolved {
        let _ = writeln!(out, "  // unresolved: {image}: {}", one_line(reason));
    }
    for vertex in definition.vertices() {
        let id = ids.len();
        ids.insert(vertex.digest, id);
        let digest = dry_run.digest(vertex).map_or_else(|| "unresolved".to_owned(), |digest| digest.to_string());
        let _ = writeln!(
            out,
            "  v{id} [label={} tooltip={} shape={}];",
            quoted(&vertex.name()),
            quoted(&digest),
            shape(&vertex.op.kind)
        );
    }
    for vertex in definition.vertices() {
        for edge in vertex.op.kind.inputs() {
            let label = if edge.output == 0 { String::new() } else { format!(" [label=\"{}\"]", edge.output) };
            let _ = writeln!(out, "  v{} -> v{}{label};", ids[&edge.vertex], ids[&vertex.digest]);
        }
    }
    out.push_str("}\n");
    out
}

fn shape(kind: &OpKind) -> &'static str {
    match kind {
        OpKind::Source(_) => "ellipse",
        OpKind::Exec(_) => "box",
        OpKind::File(_) => "note",
        OpKind::Build(_) => "box3d",
        OpKind::Merge(_) => "invtriangle",
        OpKind::Diff(_) => "doublecircle",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('\\', "\\\\").replace('"', "\\\""))
}
