//! Paths inside a layer: bytes, `/` between names, no leading `/`; the layer's root folder is "".
//!
//! Invariant: nothing here touches a disk or knows of symbolic links.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The longest path that the system takes, without the final NUL.
pub(crate) const LONGEST_PATH: usize = 4095;

/// The longest name in a folder.
pub(crate) const LONGEST_NAME: usize = 255;

/// Returns the folder that `path` is in; nothing for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}

/// Returns the last name of `path`.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// Puts `name` under `folder`.
pub(crate) fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

/// Returns the folders that `path` is in, the root first, without `path` itself.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!path.is_empty()).then_some(&path[..0]);
    root.into_iter().chain(path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(slash, _)| &path[..slash]))
}

/// Says whether `path` lies somewhere beneath `folder`.
pub(crate) fn is_beneath(path: &[u8], folder: &[u8]) -> bool {
    folder.is_empty() && !path.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Returns the names that a written path is made of: without empty ones and `.`, with `..` taken as written, before any link is
/// looked at. Nothing where `..` leads above the root.
pub(crate) fn names(written: &[u8]) -> Option<Vec<&[u8]>> {
    let mut names = Vec::new();
    for part in written.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()?),
            _ => names.push(part),
        }
    }
    Some(names)
}

/// Returns the names as [`names`] does; `..` at the root stays there.
pub(crate) fn names_inside(written: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for part in written.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            _ => names.push(part),
        }
    }
    names
}

/// Compares as a walk meets paths: a folder, what is in it, then its next sibling.
pub(crate) fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// Shows a path in a message, as seen from the root.
pub(crate) fn shown(path: &[u8]) -> String {
    let text: Cow<'_, str> = String::from_utf8_lossy(path);
    format!("/{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_parents_and_names() {
        assert_eq!((parent(b"a/b/c"), name(b"a/b/c")), (Some(&b"a/b"[..]), &b"c"[..]));
        assert_eq!((parent(b"a"), name(b"a")), (Some(&b""[..]), &b"a"[..]));
        assert_eq!((parent(b""), name(b"")), (None, &b""[..]));
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b""[..], b"a", b"a/b"]);
        assert_eq!(ancestors(b"").count(), 0);
        assert_eq!((join(b"", b"x"), join(b"a/b", b"x")), (b"x".to_vec(), b"a/b/x".to_vec()));
        assert!(is_beneath(b"a/b", b"a") && is_beneath(b"a", b"") && !is_beneath(b"ab", b"a") && !is_beneath(b"", b""));
    }

    #[test]
    fn written_paths_are_taken_apart() {
        assert_eq!(names(b"/a//./b/../c/"), Some(vec![&b"a"[..], b"c"]));
        assert_eq!(names(b"a/../../c"), None);
        assert_eq!(names_inside(b"a/../../c"), [b"c"]);
    }

    #[test]
    fn a_walk_finishes_a_folder_before_its_sibling() {
        let mut paths = [&b"a-b"[..], b"a/b", b"a", b"a/b/c", b"a/b-"];
        paths.sort_by(|a, b| walk_order(a, b));
        assert_eq!(paths, [&b"a"[..], b"a/b", b"a/b/c", b"a/b-", b"a-b"]);
    }
}
