//! The plan for graphviz, in the shapes of `buildctl debug dump-llb --dot`.

use std::fmt::Write as _;

use crate::document::{Document, Op};
use crate::text::one_line;

/// Renders the plan.
pub(super) fn render(document: &Document) -> String {
    let mut out = String::new();
    for unresolved in &document.unresolved {
        let _ = writeln!(out, "// unresolved: {}: {}", unresolved.image, one_line(&unresolved.reason));
    }
    out.push_str("digraph {\n");
    for vertex in &document.vertices {
        let _ = writeln!(
            out,
            "  v{} [label={} tooltip={} shape={}];",
            vertex.id,
            quoted(&vertex.name),
            quoted(vertex.digest.as_deref().unwrap_or("unresolved")),
            shape(&vertex.op)
        );
    }
    for vertex in &document.vertices {
        for input in &vertex.inputs {
            let label = if input.output == 0 { String::new() } else { format!(" [label=\"{}\"]", input.output) };
            let _ = writeln!(out, "  v{} -> v{}{label};", input.vertex, vertex.id);
        }
    }
    out.push_str("}\n");
    out
}

fn shape(op: &Op) -> &'static str {
    match op {
        Op::Source { .. } => "ellipse",
        Op::Exec { .. } => "box",
        Op::File { .. } => "note",
        Op::Build => "box3d",
        Op::Merge => "invtriangle",
        Op::Diff => "doublecircle",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('\\', "\\\\").replace('"', "\\\""))
}
