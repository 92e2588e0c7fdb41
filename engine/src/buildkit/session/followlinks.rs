//! Follow paths: paths that are wanted together with everything that they link to
//! (`fsutil/followlinks.go`).
//!
//! Invariant: links are resolved as if the folder were the root of the file system, so that nothing
//! outside is looked at; a chain of more than [`LIMIT`] links is given up, not followed for ever.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use super::beneath::{Dir, is_name};
use super::glob::{Glob, has_wildcard};
use super::mode;
use super::patterns::clean;

/// How many links may stand between a follow path and its end.
const LIMIT: usize = 255;

/// Returns the paths to include, sorted, without those that lie in another one; nothing where that
/// is everything. Errors carry the path that could not be read.
pub(super) fn follow_links(root: &Dir, paths: &[String]) -> Result<Option<Vec<String>>, (String, io::Error)> {
    let mut resolved = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut queue: VecDeque<(String, usize)> = paths.iter().map(|path| (relative(path), 0)).collect();
    let mut links = Links { root, cache: BTreeMap::new() };
    while let Some((path, hops)) = queue.pop_front() {
        if hops > LIMIT || !seen.insert(path.clone()) {
            continue;
        }
        let mut ends = path.match_indices('/').map(|(i, _)| i).chain([path.len()]);
        let link = ends.find_map(|end| match links.of(&path[..end]) {
            Ok(targets) if targets.is_empty() => None,
            other => Some((end, other.map_err(|error| (path[..end].to_owned(), error)))),
        });
        match link {
            None => drop(resolved.insert(path)),
            Some((end, targets)) => {
                for target in targets? {
                    queue.push_back((relative(&format!("{target}{}", &path[end..])), hops + 1));
                }
                resolved.insert(path[..end].to_owned());
            }
        }
    }
    Ok(outermost(resolved))
}

/// Cleans a path that is taken from the root, whether it starts with `/` or not.
fn relative(path: &str) -> String {
    let rooted = clean(&format!("/{path}"));
    if rooted == "/" { ".".to_owned() } else { rooted.trim_start_matches('/').to_owned() }
}

fn outermost(paths: BTreeSet<String>) -> Option<Vec<String>> {
    if paths.contains(".") {
        return None;
    }
    let inner = |path: &str| path.match_indices('/').any(|(i, _)| paths.contains(&path[..i]));
    Some(paths.iter().filter(|path| !inner(path)).cloned().collect())
}

struct Links<'a> {
    root: &'a Dir,
    cache: BTreeMap<String, Vec<String>>,
}

impl Links<'_> {
    /// Returns where the link at `path` leads, from the root; several where the last part is a
    /// wildcard, none where there is no link.
    fn of(&mut self, path: &str) -> io::Result<Vec<String>> {
        if let Some(targets) = self.cache.get(path) {
            return Ok(targets.clone());
        }
        let targets = match self.look(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
            other => other?,
        };
        self.cache.insert(path.to_owned(), targets.clone());
        Ok(targets)
    }

    fn look(&self, path: &str) -> io::Result<Vec<String>> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut dir = None;
        for part in folder.split('/').filter(|part| !part.is_empty()) {
            dir = Some(dir.as_ref().unwrap_or(self.root).dir(part)?);
        }
        let dir = dir.as_ref().unwrap_or(self.root);
        let target = |name: &str| -> io::Result<Option<String>> {
            if dir.stat(name)?.mode & mode::SYMLINK == 0 {
                return Ok(None);
            }
            let link = dir.link(name)?;
            Ok(Some(clean(&if link.starts_with('/') { link } else { format!("/{folder}/{link}") })))
        };
        if has_wildcard(name) {
            let Ok(glob) = Glob::name(name) else { return Ok(Vec::new()) };
            let mut targets = Vec::new();
            for name in dir.list()?.into_iter().filter_map(|entry| entry.name.ok()).filter(|name| glob.matches(name)) {
                targets.extend(target(&name)?);
            }
            return Ok(targets);
        }
        if !is_name(name) {
            return Ok(Vec::new());
        }
        Ok(target(name)?.into_iter().collect())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn follow(links: &[(&str, &str)], paths: &[&str]) -> Option<Vec<String>> {
        let dir = tempfile::tempdir().expect("a folder");
        for (path, target) in links {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            match *target {
                "" => std::fs::write(path, "").expect("a file"),
                target => symlink(target, path).expect("a link"),
            }
        }
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        follow_links(&Dir::root(dir.path()).expect("a folder"), &paths).expect("paths")
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let links = [
            ("bar", "foo"),
            ("foo/sub/f", ""),
            ("abs", "/dir/real"),
            ("dir/real", ""),
            ("dir/up", "../../../../dir/real"),
            ("l1", "l2"),
            ("l2", "dir"),
            ("w1", "dir/real"),
            ("w2", "foo/sub"),
        ];
        for (paths, expected) in [
            (&["bar"][..], &["bar", "foo"][..]),
            (&["bar/sub"], &["bar", "foo/sub"]),
            (&["/abs"], &["abs", "dir/real"]),
            (&["dir/up"], &["dir/real", "dir/up"]),
            (&["l1/real"], &["dir/real", "l1", "l2"]),
            (&["l1/real", "l1/up"], &["dir/real", "dir/up", "l1", "l2"]),
            (&["w*"], &["dir/real", "foo/sub", "w*"]),
            (&["foo", "foo/sub"], &["foo"]),
            (&["missing/x"], &["missing/x"]),
            (&["../../etc/passwd"], &["etc/passwd"]),
        ] {
            let expected: Vec<_> = expected.iter().map(|path| (*path).to_owned()).collect();
            assert_eq!(follow(&links, paths), Some(expected), "{paths:?}");
        }
        assert_eq!(follow(&links, &["bar", "."]), None);
        assert_eq!(follow(&[("all", "/")], &["all"]), None);
    }

    #[test]
    fn loops_end() {
        assert_eq!(follow(&[("a", "b"), ("b", "a")], &["a"]), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(follow(&[("a", "a/b")], &["a/x"]), Some(vec!["a".to_owned()]));
    }
}
