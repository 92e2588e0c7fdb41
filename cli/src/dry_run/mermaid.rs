//! The plan for mermaid, which GitHub draws in Markdown: a flowchart with a box for each stage.
//!
//! Invariant: a label is text. Whatever mermaid or HTML would take for syntax is written as a
//! character's number.

use std::fmt::Write as _;

use crate::document::{Document, Op, Vertex};
use crate::text::one_line;

/// Renders the plan.
pub(super) fn render(document: &Document) -> String {
    let mut out = String::new();
    for unresolved in &document.unresolved {
        let _ = writeln!(out, "%% unresolved: {}: {}", unresolved.image, one_line(&unresolved.reason));
    }
    out.push_str("flowchart LR\n");
    let mut drawn = vec![false; document.vertices.len()];
    for (number, stage) in document.stages.iter().enumerate() {
        let _ = writeln!(out, "  subgraph s{number}[\"{}\"]", escaped(&stage.name));
        for &id in &stage.vertices {
            if !std::mem::replace(&mut drawn[id], true) {
                let _ = writeln!(out, "    {}", node(&document.vertices[id]));
            }
        }
        out.push_str("  end\n");
    }
    for vertex in document.vertices.iter().filter(|vertex| !drawn[vertex.id]) {
        let _ = writeln!(out, "  {}", node(vertex));
    }
    for vertex in &document.vertices {
        for input in &vertex.inputs {
            let arrow = if input.output == 0 { "-->".to_owned() } else { format!("-->|{}|", input.output) };
            let _ = writeln!(out, "  v{} {arrow} v{}", input.vertex, vertex.id);
        }
    }
    let _ = writeln!(out, "  style v{} stroke-width:3px", document.target.vertex);
    out
}

fn node(vertex: &Vertex) -> String {
    let (open, close) = match &vertex.op {
        Op::Source { .. } => ("([", "])"),
        Op::Exec { .. } => ("[", "]"),
        Op::File { .. } => ("[/", "/]"),
        Op::Build => ("[[", "]]"),
        Op::Merge => ("{{", "}}"),
        Op::Diff => ("(((", ")))"),
    };
    let digest = vertex.digest.as_deref().map_or("unresolved", Document::short);
    // What is not known is not worth a word.
    let state = vertex.forecast.as_ref().map(|forecast| forecast.state.as_str()).filter(|state| *state != "unknown");
    let state = state.map_or_else(String::new, |state| format!(", {}", escaped(state)));
    format!("v{}{open}\"{}<br/>{digest}{state}\"{close}", vertex.id, escaped(&one_line(&vertex.name)))
}

/// Writes what is not plainly text as `#NUMBER;`, and the first character too where it could start
/// a list.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (place, c) in text.chars().enumerate() {
        let plain = c.is_alphabetic() || (place > 0 && (c.is_numeric() || " .,:/_-+@=()".contains(c)));
        if plain {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_label_is_syntax() {
        let hostile = "a\"]; click v0 <img src=x> `b` #quot; & | {c} \\ é 'd'";
        let clean = escaped(hostile);
        assert!(!clean.contains(['"', '<', '>', '`', '&', '|', '{', '}', '\\', '\'', ']']), "{clean}");
        assert!(clean.starts_with("a#34;#93;#59; click v0 #60;img src=x#62;"), "{clean}");
        assert!(clean.contains('é'));
        assert_eq!(escaped("1. a"), "#49;. a");
        assert_eq!(escaped("- a"), "#45; a");
    }
}
