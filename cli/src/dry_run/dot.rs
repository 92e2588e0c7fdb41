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
        let digest = vertex.digest.as_deref().unwrap_or("unresolved");
        let (tooltip, style) = match &vertex.forecast {
            Some(forecast) => (format!("{digest} {}: {}", forecast.state, forecast.reason), style(&forecast.state)),
            None => (digest.to_owned(), ""),
        };
        let _ = writeln!(
            out,
            "  v{} [label={} tooltip={} shape={}{style}];",
            vertex.id,
            quoted(&vertex.name),
            quoted(&tooltip),
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

/// What runs is drawn in bold lines, what need not in dashed ones.
fn style(state: &str) -> &'static str {
    match state {
        "run" => " style=bold",
        "cached" | "likely" => " style=dashed",
        _ => "",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", one_line(text).replace('\\', "\\\\").replace('"', "\\\""))
}
