//! The plan for people: 80 columns, no colour needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use roche_engine::{Digest, Vertex};

use super::DryRun;
use crate::text::{one_line, size};

/// Columns for a vertex's name.
const NAME: usize = 46;

/// Renders the plan.
pub(super) fn render(dry_run: &DryRun<'_>) -> String {
    let DryRun { plan, release, unresolved, .. } = dry_run;
    let definition = &dry_run.definition;
    let mut out = String::new();
    for (image, reason) in unresolved {
        let _ = writeln!(out, "unresolved: {image}: {}", one_line(reason));
    }
    for name in &release.tags {
        let _ = writeln!(out, "image       {name}");
    }
    let _ = writeln!(out, "platform    {}", release.platform);

    let vertices: Vec<&Vertex> = definition.vertices().collect();
    let numbers: BTreeMap<Digest, usize> = vertices.iter().enumerate().map(|(i, vertex)| (vertex.digest, i + 1)).collect();
    for stage in &plan.stages {
        let _ = writeln!(out, "\n{}", stage.name);
        for vertex in vertices.iter().filter(|vertex| stage.vertices.contains(&vertex.digest)) {
            let digest = dry_run.digest(vertex).map_or_else(|| "unresolved".to_owned(), |digest| digest.short());
            let mut inputs: Vec<usize> = vertex.op.kind.inputs().iter().map(|edge| numbers[&edge.vertex]).collect();
            inputs.dedup();
            let inputs: Vec<String> = inputs.iter().map(ToString::to_string).collect();
            let from = if inputs.is_empty() { String::new() } else { format!("  from {}", inputs.join(", ")) };
            let name = fit(&one_line(&vertex.name()));
            let _ = writeln!(out, "{:>4}  {name:NAME$}  {digest}{from}", numbers[&vertex.digest]);
        }
    }

    out.push_str("\nthe image gains\n");
    for entry in &plan.contents {
        let size = entry.size_bytes.map_or_else(String::new, |bytes| format!("  {}", size(bytes)));
        let mode = entry.mode.map_or_else(|| "-".to_owned(), |mode| format!("{mode:04o}"));
        let _ = writeln!(out, "      {mode:5} {:10} {}{size}", entry.owner, entry.path);
    }
    if unresolved.is_empty() {
        let bytes = definition.encode();
        let _ = writeln!(
            out,
            "\ndefinition  {}\n            {} vertices, {}",
            Digest::of(&bytes),
            vertices.len(),
            size(bytes.len() as u64)
        );
    }
    out
}

fn fit(name: &str) -> String {
    if name.chars().count() <= NAME { name.to_owned() } else { name.chars().take(NAME - 1).chain(['…']).collect() }
}
