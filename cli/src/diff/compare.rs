//! What two images have in common, and what not.
//!
//! Invariant: a file is the same if its kind, content, mode, owner and attributes are; in how many layers it came, and when, does
//! not count.

use std::collections::BTreeSet;

use roche_engine::Digest;
use roche_engine::oci::contents::{Contents, Shown};
use roche_engine::oci::layer::{Kind, Node};
use serde_json::Value;

use super::crates::CratesChange;
use crate::contents::Examined;

/// How two images differ.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(crate) added: Vec<Shown<'a>>,
    pub(crate) removed: Vec<Shown<'a>>,
    pub(crate) changed: Vec<Change<'a>>,
    pub(crate) config: Vec<ConfigChange>,
    /// By program.
    pub(crate) crates: Vec<CratesChange<'a>>,
    /// How many layers both have.
    pub(crate) shared_layers: usize,
    /// How many bytes of files each shows.
    pub(crate) sizes: [u64; 2],
}

/// A path that both have, and not alike.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) was: Shown<'a>,
    pub(crate) is: Shown<'a>,
    /// Any of `type`, `content`, `target`, `device`, `mode`, `owner`, `attributes`.
    pub(crate) what: Vec<&'static str>,
}

/// A setting that both have, and not alike, or one of them alone. Secrets that differ are hidden on both sides, and look alike.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigChange {
    /// Its name, for a variable or label with a dot and its own.
    pub(crate) key: String,
    pub(crate) was: Option<Value>,
    pub(crate) is: Option<Value>,
}

impl<'a> Difference<'a> {
    /// Compares two images.
    pub(crate) fn between(was: &'a Examined, is: &'a Examined) -> Self {
        let ids = |examined: &Examined| examined.image.layers.iter().map(|layer| layer.diff_id).collect::<BTreeSet<Digest>>();
        let mut config = self::config(was, is);
        let platforms = [was, is].map(|examined| examined.image.config.platform.to_string());
        if platforms[0] != platforms[1] {
            let [was, is] = platforms.map(|platform| Some(Value::from(platform)));
            config.insert(0, ConfigChange { key: "platform".to_owned(), was, is });
        }
        let files = Files::between(&was.contents, &is.contents);
        let shared_layers = ids(was).intersection(&ids(is)).count();
        let sizes = [&was.contents, &is.contents].map(total);
        let crates = super::crates::between(&was.programs, &is.programs);
        Self { added: files.added, removed: files.removed, changed: files.changed, config, crates, shared_layers, sizes }
    }

    /// Says whether there is none.
    pub(crate) fn is_none(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.config.is_empty()
    }
}

struct Files<'a> {
    added: Vec<Shown<'a>>,
    removed: Vec<Shown<'a>>,
    changed: Vec<Change<'a>>,
}

impl<'a> Files<'a> {
    /// Walks both in the order of their paths.
    fn between(was: &'a Contents, is: &'a Contents) -> Self {
        let mut files = Self { added: Vec::new(), removed: Vec::new(), changed: Vec::new() };
        let (mut old, mut new) = (was.files().peekable(), is.files().peekable());
        loop {
            match (old.peek().copied(), new.peek().copied()) {
                (None, None) => return files,
                (Some(was), Some(is)) if was.path == is.path => {
                    let what = differing(was.node, is.node);
                    if !what.is_empty() {
                        files.changed.push(Change { was, is, what });
                    }
                    old.next();
                    new.next();
                }
                (Some(was), is) if is.is_none_or(|is| was.path < is.path) => {
                    files.removed.push(was);
                    old.next();
                }
                (_, is) => {
                    files.added.extend(is);
                    new.next();
                }
            }
        }
    }
}

/// Says in what two nodes differ.
pub(crate) fn differing(was: &Node, is: &Node) -> Vec<&'static str> {
    let mut what = Vec::new();
    let mut note = |differs: bool, word: &'static str| {
        if differs {
            what.push(word);
        }
    };
    match (&was.kind, &is.kind) {
        (Kind::File { digest: a, .. }, Kind::File { digest: b, .. }) => note(a != b, "content"),
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) => note(a != b, "target"),
        (Kind::Char { .. }, Kind::Char { .. }) | (Kind::Block { .. }, Kind::Block { .. }) => note(was.kind != is.kind, "device"),
        (a, b) => note(std::mem::discriminant(a) != std::mem::discriminant(b), "type"),
    }
    note(was.mode != is.mode, "mode");
    note((was.uid, was.gid) != (is.uid, is.gid), "owner");
    note(was.xattrs != is.xattrs, "attributes");
    what
}

/// Compares settings one by one, variables and labels each by itself; secrets by their values, which are not shown.
pub(crate) fn config(was: &Examined, is: &Examined) -> Vec<ConfigChange> {
    settings(&was.settings.value, &is.settings.value, &was.settings.other_secrets(&is.settings))
}

/// Compares two configs; `secrets` are the names of hidden variables that differ.
fn settings(was: &Value, is: &Value, secrets: &BTreeSet<String>) -> Vec<ConfigChange> {
    let (was, is) = (flat(was), flat(is));
    let keys: BTreeSet<&String> = was.iter().chain(&is).map(|(key, _)| key).collect();
    let value = |settings: &[(String, Value)], key: &str| settings.iter().find(|(k, _)| k == key).map(|(_, value)| value.clone());
    let changes = keys.into_iter().map(|key| ConfigChange { key: key.clone(), was: value(&was, key), is: value(&is, key) });
    let is_other = |key: &str| key.strip_prefix("Env.").is_some_and(|name| secrets.contains(name));
    changes.filter(|change| change.was != change.is || is_other(&change.key)).collect()
}

/// Takes a config apart. What is empty is the same as what is not there.
fn flat(config: &Value) -> Vec<(String, Value)> {
    let is_empty = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let mut settings = Vec::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            (_, value) if is_empty(value) => {}
            ("Env", Value::Array(lines)) => settings.extend(lines.iter().map(|line| {
                let (name, value) = line.as_str().map_or(("", ""), |line| line.split_once('=').unwrap_or((line, "")));
                (format!("Env.{name}"), Value::from(value))
            })),
            ("Labels", Value::Object(labels)) => {
                settings.extend(labels.iter().map(|(name, value)| (format!("Labels.{name}"), value.clone())));
            }
            _ => settings.push((key.clone(), value.clone())),
        }
    }
    settings
}

/// Adds up what an image shows.
fn total(contents: &Contents) -> u64 {
    contents.files().filter(|shown| shown.link.is_none()).map(|shown| size(shown.node)).sum()
}

/// Returns how much content a node has.
pub(super) fn size(node: &Node) -> u64 {
    match node.kind {
        Kind::File { size_bytes, .. } => size_bytes,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_of_a_file_has_its_word() {
        let file = |text: &[u8]| Kind::File { size_bytes: text.len() as u64, digest: Digest::of(text) };
        let link = |target: &[u8]| Kind::Symlink { target: target.to_vec() };
        let node = Node { mode: 0o644, uid: 1, gid: 2, mtime_ns: 3, xattrs: BTreeMap::new(), kind: file(b"x") };
        let mut with_attribute = node.clone();
        with_attribute.xattrs.insert(b"user.a".to_vec(), Vec::new());
        for (other, words) in [
            (Node { mtime_ns: 9, ..node.clone() }, &[][..]),
            (Node { kind: file(b"y"), mode: 0o600, ..node.clone() }, &["content", "mode"]),
            (Node { uid: 2, ..node.clone() }, &["owner"]),
            (Node { gid: 1, ..node.clone() }, &["owner"]),
            (with_attribute, &["attributes"]),
            (Node { kind: Kind::Fifo, ..node.clone() }, &["type"]),
            (Node { kind: link(b"a"), ..node.clone() }, &["type"]),
        ] {
            assert_eq!(differing(&node, &other), words);
        }
        let of = |kind: Kind| Node { kind, ..node.clone() };
        assert_eq!(differing(&of(link(b"a")), &of(link(b"b"))), ["target"]);
        assert_eq!(differing(&of(Kind::Char { major: 1, minor: 2 }), &of(Kind::Char { major: 1, minor: 3 })), ["device"]);
        assert!(differing(&of(Kind::Folder { opaque: true }), &of(Kind::Folder { opaque: false })).is_empty());
    }

    #[test]
    fn settings_are_compared_one_by_one() {
        let was = json!({"Env": ["A=1", "B=2"], "Cmd": ["x"], "Labels": null, "User": "", "ArgsEscaped": false});
        let is = json!({"Env": ["B=3", "C=4"], "Cmd": ["x"], "Labels": {"k": "v"}});
        let changes: Vec<(String, Option<Value>, Option<Value>)> =
            settings(&was, &is, &BTreeSet::new()).into_iter().map(|change| (change.key, change.was, change.is)).collect();
        let text = |text: &str| Some(Value::from(text));
        assert_eq!(
            changes,
            [
                ("Env.A".to_owned(), text("1"), None),
                ("Env.B".to_owned(), text("2"), text("3")),
                ("Env.C".to_owned(), None, text("4")),
                ("Labels.k".to_owned(), None, text("v")),
            ]
        );
        let none = |was: &Value, is: &Value| settings(was, is, &BTreeSet::new()).is_empty();
        assert!(none(&was, &was) && none(&Value::Null, &json!({})));
    }
}
