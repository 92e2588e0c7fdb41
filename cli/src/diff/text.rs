//! The difference of two images for people.
//!
//! Invariant: no line is longer than the width; a folder that came or went whole is one line, unless everything is asked for.

use std::fmt::Write as _;

use roche_engine::oci::contents::Shown;
use roche_engine::oci::layer::Kind;
use serde_json::Value;

use super::compare::{Change, Difference, size};
use crate::columns::{WIDE, cut, escaped, fit, left, path, right, taken};
use crate::contents::{Examined, letters, owner};
use crate::text::{one_line, size as bytes};

/// Lines of crates of one program.
const CRATES: usize = 20;

/// Renders the difference.
pub(super) fn render(was: &Examined, is: &Examined, difference: &Difference<'_>, all: bool, width: usize) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{}", text.trim_end());
    };
    for (sign, examined, total) in [("-", was, difference.sizes[0]), ("+", is, difference.sizes[1])] {
        let mut start = format!("{sign} {}  ", right(&bytes(total), 7));
        if width >= WIDE {
            let _ = write!(start, "{}  ", examined.image.digest.unwrap_or(examined.image.id).short());
        }
        line(format!("{start}{}", fit(&one_line(&examined.name), width.saturating_sub(taken(&start)))));
    }
    let [old, new] = [was, is].map(|examined| examined.image.layers.len());
    line(cut(&format!("layers: {} of {old} and {new} are shared", difference.shared_layers), width));
    if difference.is_none() {
        line(cut("no difference in files and config", width));
        return out;
    }
    if !difference.config.is_empty() {
        line("\nconfig".to_owned());
    }
    for change in &difference.config {
        let key = escaped(change.key.as_bytes());
        for (sign, value) in [("-", &change.was), ("+", &change.is)] {
            if let Some(value) = value {
                line(cut(&format!("{sign} {key}  {}", one_line(&shown(value))), width));
            }
        }
    }
    for (sign, files) in [("-", &difference.removed), ("+", &difference.added)] {
        if files.is_empty() {
            continue;
        }
        let sum: u64 = files.iter().filter(|file| file.link.is_none()).map(|file| size(file.node)).sum();
        let (word, examined) = if sign == "-" { ("removed", was) } else { ("added", is) };
        line(format!("\n{}", cut(&format!("{word}: {}, {}", counted(files), bytes(sum)), width)));
        for group in groups(files, all) {
            line(file(sign, &group, examined, width));
        }
    }
    if !difference.changed.is_empty() {
        line(format!("\nchanged: {}", difference.changed.len()));
    }
    for change in &difference.changed {
        line(changed(change, was, is, width));
    }
    for change in &difference.crates {
        line(format!("\n{}", cut(&change.heading(), width)));
        let lines = change.lines();
        let most = if all { usize::MAX } else { CRATES };
        lines.iter().take(most).for_each(|text| line(cut(&one_line(text), width)));
        if lines.len() > most {
            line(cut(&format!("  and {} more: --all", lines.len() - most), width));
        }
    }
    out
}

/// A file, or a folder with all that is beneath it.
struct Group<'a> {
    first: Shown<'a>,
    count: usize,
    size_bytes: u64,
}

/// Puts what is beneath a folder that came or went into one group with it.
fn groups<'a>(files: &[Shown<'a>], all: bool) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut folders = std::collections::BTreeMap::new();
    for shown in files {
        let own = if shown.link.is_none() { size(shown.node) } else { 0 };
        let slashes = shown.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let above = slashes.map(|at| &shown.path[..at]).find_map(|folder| folders.get(folder).copied());
        if let Some(at) = above.filter(|_| !all) {
            let group: &mut Group<'a> = &mut groups[at];
            group.count += usize::from(!shown.node.is_folder());
            group.size_bytes += own;
            continue;
        }
        if shown.node.is_folder() {
            folders.insert(shown.path, groups.len());
        }
        groups.push(Group { first: *shown, count: 0, size_bytes: own });
    }
    groups
}

fn file(sign: &str, group: &Group<'_>, examined: &Examined, width: usize) -> String {
    let Shown { path: name, node, .. } = group.first;
    let mut name = path(name);
    if node.is_folder() {
        name.push('/');
        if group.count > 0 {
            let _ = write!(name, "  {} {}", group.count, if group.count == 1 { "file" } else { "files" });
        }
    }
    if let Kind::Symlink { target } = &node.kind {
        let _ = write!(name, " -> {}", escaped(target));
    }
    let size = if matches!(node.kind, Kind::File { .. }) || group.count > 0 { bytes(group.size_bytes) } else { "-".to_owned() };
    let start = if width >= WIDE {
        format!("{sign} {}  {}  {}  ", letters(node), left(&cut(&owner(&examined.owners, node), 19), 9), right(&size, 7))
    } else {
        format!("{sign} {} ", right(&size, 7))
    };
    format!("{start}{}", fit(&name, width.saturating_sub(taken(&start))))
}

fn changed(change: &Change<'_>, was: &Examined, is: &Examined, width: usize) -> String {
    let Change { was: old, is: new, what } = change;
    let notes: Vec<String> = what
        .iter()
        .map(|what| match (*what, &old.node.kind, &new.node.kind) {
            ("content", Kind::File { size_bytes: a, .. }, Kind::File { size_bytes: b, .. }) if bytes(*a) == bytes(*b) => {
                format!("content, {}", bytes(*a))
            }
            ("content", Kind::File { size_bytes: a, .. }, Kind::File { size_bytes: b, .. }) => {
                format!("content, {} to {}", bytes(*a), bytes(*b))
            }
            ("target", Kind::Symlink { target: a }, Kind::Symlink { target: b }) => {
                format!("target {} to {}", escaped(a), escaped(b))
            }
            ("mode", ..) => format!("mode {:04o} to {:04o}", old.node.mode, new.node.mode),
            ("owner", ..) => format!("owner {} to {}", owner(&was.owners, old.node), owner(&is.owners, new.node)),
            ("type", ..) => format!("type {} to {}", &letters(old.node)[..1], &letters(new.node)[..1]),
            (what, ..) => what.to_owned(),
        })
        .collect();
    let (name, notes) = (path(old.path), notes.join("; "));
    if 4 + taken(&name) + taken(&notes) <= width {
        return format!("~ {name}  {notes}");
    }
    format!("~ {}\n    {}", fit(&name, width - 2), cut(&notes, width.saturating_sub(4)))
}

fn counted(files: &[Shown<'_>]) -> String {
    let count = files.iter().filter(|file| !file.node.is_folder()).count();
    if count == 1 { "1 file".to_owned() } else { format!("{count} files") }
}

/// Writes a setting as its author did.
fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
