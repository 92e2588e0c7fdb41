//! The crates that programs at the same path have in common, and not.
//!
//! Invariant: a crate of one version on either side has changed its version; where there are several
//! of its name, each came or went by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::columns;
use crate::contents::Program;

/// A crate's name with the versions that a program has of it.
type Versions<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// How the crates of one program differ.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CratesChange<'a> {
    path: &'a [u8],
    /// Name and version.
    added: Vec<(&'a str, &'a str)>,
    removed: Vec<(&'a str, &'a str)>,
    /// Name, old and new version.
    changed: Vec<(&'a str, &'a str, &'a str)>,
}

/// Compares the programs of two images; those that are in one image alone are compared with nothing.
pub(super) fn between<'a>(was: &'a [Program], is: &'a [Program]) -> Vec<CratesChange<'a>> {
    let paths: BTreeSet<&[u8]> = was.iter().chain(is).map(|program| &program.path[..]).collect();
    let at = |programs: &'a [Program], path: &[u8]| programs.iter().find(|program| program.path == path);
    paths.into_iter().filter_map(|path| change(path, at(was, path), at(is, path))).collect()
}

fn change<'a>(path: &'a [u8], was: Option<&'a Program>, is: Option<&'a Program>) -> Option<CratesChange<'a>> {
    // What cannot be read on one side says nothing about the other.
    let (was, is) = (versions(was)?, versions(is)?);
    let mut change = CratesChange { path, added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
    let none = BTreeSet::new();
    for name in was.keys().chain(is.keys()).copied().collect::<BTreeSet<&str>>() {
        let (old, new) = (was.get(name).unwrap_or(&none), is.get(name).unwrap_or(&none));
        let gone: Vec<&str> = old.difference(new).copied().collect();
        let come: Vec<&str> = new.difference(old).copied().collect();
        if let ([gone], [come]) = (&gone[..], &come[..]) {
            change.changed.push((name, gone, come));
            continue;
        }
        change.removed.extend(gone.into_iter().map(|version| (name, version)));
        change.added.extend(come.into_iter().map(|version| (name, version)));
    }
    let is_none = change.added.is_empty() && change.removed.is_empty() && change.changed.is_empty();
    (!is_none).then_some(change)
}

/// Returns a program's crates; nothing where they are unknown.
fn versions(program: Option<&Program>) -> Option<Versions<'_>> {
    let mut versions = Versions::new();
    if let Some(program) = program {
        for package in &program.crates.as_ref().ok()?.packages {
            versions.entry(&package.name).or_default().insert(&package.version);
        }
    }
    Some(versions)
}

impl CratesChange<'_> {
    pub(super) fn heading(&self) -> String {
        let counts = [(self.removed.len(), "removed"), (self.added.len(), "added"), (self.changed.len(), "changed")];
        let counts: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
        format!("crates of {}: {}", columns::path(self.path), counts.join(", "))
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let removed = self.removed.iter().map(|(name, version)| format!("- {name} {version}"));
        let added = self.added.iter().map(|(name, version)| format!("+ {name} {version}"));
        let changed = self.changed.iter().map(|(name, old, new)| format!("~ {name} {old} to {new}"));
        removed.chain(added).chain(changed).collect()
    }

    pub(super) fn json(&self) -> Value {
        let one = |(name, version): &(&str, &str)| json!({"name": name, "version": version});
        json!({
            "path": format!("/{}", String::from_utf8_lossy(self.path)),
            "removed": self.removed.iter().map(one).collect::<Vec<_>>(),
            "added": self.added.iter().map(one).collect::<Vec<_>>(),
            "changed": self.changed.iter().map(|(name, old, new)| json!({"name": name, "old": old, "new": new})).collect::<Vec<_>>(),
        })
    }
}
