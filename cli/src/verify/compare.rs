//! Where two images differ that ought to be the same.
//!
//! Invariant: everything that enters a digest counts, times of change, too; whatever makes digests
//! differ, something is said.

use std::collections::BTreeSet;

use roche_engine::oci::layer::{Node, Tree};

use crate::columns;
use crate::contents::Examined;
use crate::diff::{ConfigChange, config, differing};

/// Says what differs, a line each: layers from the lowest up, then the config.
pub(super) fn between(first: &Examined, second: &Examined) -> Vec<String> {
    let (old, new) = (first.contents.layers(), second.contents.layers());
    let mut said = Vec::new();
    for (number, (old, new)) in old.iter().zip(new).enumerate() {
        said.extend(files(old, new).into_iter().map(|line| format!("layer {}: {line}", number + 1)));
    }
    if old.len() != new.len() {
        said.push(format!("the first image has {} layers, the second {}", old.len(), new.len()));
    }
    said.extend(config(first, second).iter().map(setting));
    if said.is_empty() {
        said.push("no file differs: the images were put together differently".to_owned());
    }
    said
}

fn setting(change: &ConfigChange) -> String {
    let ConfigChange { key, was, is } = change;
    if was == is {
        return format!("config: the values of {key} differ, and are not shown: it looks like a secret");
    }
    let shown = |value: &Option<serde_json::Value>| value.as_ref().map_or("nothing".to_owned(), ToString::to_string);
    format!("config: {key} is {} and {}", shown(was), shown(is))
}

fn files(old: &Tree, new: &Tree) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = old.nodes.keys().chain(new.nodes.keys()).collect();
    let mut said = Vec::new();
    for path in paths {
        let what = match (old.nodes.get(path), new.nodes.get(path)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(old), Some(new)) => words(old, new),
            (Some(_), None) => "is in the first image alone".to_owned(),
            (None, _) => "is in the second image alone".to_owned(),
        };
        said.push(format!("{}: {what}", columns::path(path)));
    }
    said
}

fn words(old: &Node, new: &Node) -> String {
    let mut words = differing(old, new);
    if old.mtime_ns != new.mtime_ns {
        words.push("time");
    }
    // Such as another name of the same file.
    if words.is_empty() { "link".to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use roche_engine::Digest;
    use roche_engine::oci::layer::Kind;

    use super::*;

    fn file(text: &str, mtime_ns: i64) -> Node {
        let kind = Kind::File { size_bytes: text.len() as u64, digest: Digest::of(text.as_bytes()) };
        Node { mode: 0o644, uid: 0, gid: 0, mtime_ns, xattrs: BTreeMap::new(), kind }
    }

    #[test]
    fn every_difference_of_a_layer_is_named_once() {
        let tree = |nodes: &[(&str, Node)]| Tree {
            nodes: nodes.iter().map(|(path, node)| (path.as_bytes().to_vec(), node.clone())).collect(),
        };
        let same = file("same", 0);
        let hardlink = Node { kind: Kind::Hardlink { to: b"same".to_vec() }, ..same.clone() };
        let other = Node { kind: Kind::Hardlink { to: b"time".to_vec() }, ..same.clone() };
        let old = tree(&[
            ("content", file("a", 0)),
            ("gone\u{1b}", same.clone()),
            ("link", hardlink),
            ("same", same.clone()),
            ("time", file("t", 0)),
        ]);
        let new = tree(&[
            ("both", Node { mode: 0o600, ..file("b", 1) }),
            ("content", Node { mode: 0o600, ..file("b", 1) }),
            ("link", other),
            ("same", same),
            ("time", file("t", 1)),
        ]);
        assert_eq!(
            files(&old, &new),
            [
                "/both: is in the second image alone",
                "/content: content, mode, time",
                "/gone\\u{1b}: is in the first image alone",
                "/link: link",
                "/time: time",
            ]
        );
        assert!(files(&old, &old).is_empty());
    }
    #[test]
    fn a_secret_that_differs_is_named_and_not_shown() {
        let change = |was: &str, is: &str| ConfigChange { key: "Env.A".to_owned(), was: Some(was.into()), is: Some(is.into()) };
        assert_eq!(setting(&change("1", "2")), "config: Env.A is \"1\" and \"2\"");
        let hidden = "config: the values of Env.A differ, and are not shown: it looks like a secret";
        assert_eq!(setting(&change("(hidden)", "(hidden)")), hidden);
    }
}
