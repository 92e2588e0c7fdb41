//! Lists of include and exclude patterns, with the semantics of `moby/patternmatcher`.
//!
//! Patterns are tried in order and the last that decides wins; `!` takes back what an earlier one
//! matched; what matches a folder matches everything in it. Invariant: the verdict on a path is the
//! same whether its parents' [`Matched`] are handed down, as in a walk, or not.

use super::glob::{Glob, GlobError};

/// A list of patterns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patterns {
    patterns: Vec<Pattern>,
}

/// One pattern of a list.
#[derive(Clone, Debug)]
struct Pattern {
    /// As written, cleaned, without `!`.
    text: String,
    glob: Glob,
    /// Whether it takes back (`!`).
    negated: bool,
}

/// Which patterns of a list matched a folder or one of its parents.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matched(Vec<bool>);

impl Patterns {
    /// Reads a list; empty patterns are left out.
    pub(crate) fn new<T: AsRef<str>>(texts: &[T]) -> Result<Self, GlobError> {
        let mut patterns = Vec::new();
        for text in texts {
            let trimmed = text.as_ref().trim();
            if trimmed.is_empty() {
                continue;
            }
            let cleaned = clean(trimmed);
            let (negated, text) = match cleaned.strip_prefix('!') {
                Some(rest) => (true, rest.to_owned()),
                None => (false, cleaned),
            };
            if text.is_empty() {
                return Err(GlobError("!".to_owned()));
            }
            patterns.push(Pattern { glob: Glob::path(&text)?, text, negated });
        }
        Ok(Self { patterns })
    }

    /// Says whether the list has no patterns.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Says whether `path` matches, and with which patterns. `parent` is the result for its folder;
    /// the default where that is not known.
    pub(crate) fn matches(&self, path: &str, parent: &Matched) -> (bool, Matched) {
        let mut matched = false;
        let mut record = vec![false; self.patterns.len()];
        for (i, pattern) in self.patterns.iter().enumerate() {
            let mut hit = parent.0.get(i).copied().unwrap_or(false);
            if !hit {
                if pattern.negated != matched {
                    continue;
                }
                hit = pattern.glob.matches(path)
                    || (parent.0.is_empty() && parents(path).any(|parent| pattern.glob.matches(parent)));
            }
            record[i] = hit;
            if hit {
                matched = !pattern.negated;
            }
        }
        (matched, Matched(record))
    }

    /// Says whether something inside `folder` may match although the folder does not: a walk need
    /// not enter it otherwise. `negated` chooses the patterns that count.
    pub(super) fn may_match_inside(&self, folder: &str, negated: bool) -> bool {
        let mut candidates = self.patterns.iter().filter(|pattern| pattern.negated == negated).peekable();
        candidates.peek().is_some()
            && candidates.any(|pattern| {
                let fixed = pattern.fixed();
                fixed.contains(['*', '[', ']', '?', '^', '\\'])
                    || fixed.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
    }
}

impl Pattern {
    /// Returns the pattern without `/**` and `/*` at its end.
    fn fixed(&self) -> &str {
        let text = self.text.strip_suffix("/**").unwrap_or(&self.text);
        text.strip_suffix("/*").unwrap_or(text)
    }
}

/// Returns `a` and `a/b` of `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(i, _)| &path[..i])
}

/// Shortens a path as Go's `path.Clean` does: no empty parts, no `.`, no `..` that has a name in
/// front of it; `.` where nothing is left.
pub(super) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Patterns, a path and the verdict, as `moby/patternmatcher`'s own tests have them.
    const VERDICTS: &[(&[&str], &str, bool)] = &[
        (&["**"], "file", true),
        (&["**/"], "file", true),
        (&["**"], "dir/file", true),
        (&["**/"], "dir/file", true),
        (&["**/**"], "dir/file", true),
        (&["dir/**"], "dir/file", true),
        (&["dir/**"], "dir/dir2/file", true),
        (&["**/dir"], "dir", true),
        (&["**/dir"], "dir/file", true),
        (&["**/dir2/*"], "dir/dir2/file", true),
        (&["**/dir2/**"], "dir/dir2/dir3/file", true),
        (&["**file"], "file", true),
        (&["**file"], "dir/file", true),
        (&["**/file"], "dir/file", true),
        (&["**file"], "dir/dir/file", true),
        (&["**/file"], "dir/dir/file", true),
        (&["**/file*"], "dir/dir/file", true),
        (&["**/file*"], "dir/dir/file.txt", true),
        (&["**/file*txt"], "dir/dir/file.txt", true),
        (&["**/file*.txt"], "dir/dir/file.txt", true),
        (&["**/file*.txt*"], "dir/dir/file.txt", true),
        (&["**/**/*.txt"], "dir/dir/file.txt", true),
        (&["**/**/*.txt2"], "dir/dir/file.txt", false),
        (&["**/*.txt"], "file.txt", true),
        (&["**/**/*.txt"], "file.txt", true),
        (&["a**/*.txt"], "a/file.txt", true),
        (&["a**/*.txt"], "a/dir/file.txt", true),
        (&["a**/*.txt"], "a/dir/dir/file.txt", true),
        (&["a/*.txt"], "a/dir/file.txt", false),
        (&["a/*.txt"], "a/file.txt", true),
        (&["a/*.txt**"], "a/file.txt", true),
        (&["a[b-d]e"], "ae", false),
        (&["a[b-d]e"], "ace", true),
        (&["a[b-d]e"], "aae", false),
        (&["a[^b-d]e"], "aze", true),
        (&[".*"], ".foo", true),
        (&[".*"], "foo", false),
        (&["abc.def"], "abcdef", false),
        (&["abc.def"], "abc.def", true),
        (&["abc.def"], "abcZdef", false),
        (&["abc?def"], "abcZdef", true),
        (&["abc?def"], "abcdef", false),
        (&["a\\\\"], "a\\", true),
        (&["a\\*b"], "a*b", true),
        (&["**/foo/bar"], "foo/bar", true),
        (&["**/foo/bar"], "dir/foo/bar", true),
        (&["**/foo/bar"], "dir/dir2/foo/bar", true),
        (&["abc/**"], "abc", false),
        (&["abc/**"], "abc/def", true),
        (&["abc/**"], "abc/def/ghi", true),
        (&["**/.foo"], ".foo", true),
        (&["**/.foo"], "bar.foo", false),
        (&["a(b)c/def"], "a(b)c/def", true),
        (&["a(b)c/def"], "a(b)c/xyz", false),
        (&["a.|)$(}+{bc"], "a.|)$(}+{bc", true),
        (&["dist/*.whl"], "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
        (&["**", "!util/docker/web"], "util/docker/web/foo", false),
        (&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true),
        (&["**", "!dist/*.whl"], "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", false),
        (&["*"], "fileutils.go", true),
        (&["*.go"], "fileutils.go", true),
        (&["!fileutils.go", "*.go"], "fileutils.go", true),
        (&["docs", "!docs/README.md"], "docs/README.md", false),
        (&["docs/", "!docs/README.md"], "docs/README.md", false),
        (&["docs/*", "!docs/README.md"], "docs/README.md", false),
        (&["*.go", "!fileutils.go"], "fileutils.go", false),
        (&[], "any/path/there", false),
        // Not in its tests: case counts, white space and `.` parts do not, names are whole.
        (&["Docs"], "docs", false),
        (&["  ./docs//  ", ""], "docs/a", true),
        (&["doc"], "docs", false),
        (&["a/../b"], "b/c", true),
        (&["/docs"], "docs", false),
    ];

    #[test]
    fn verdicts_are_mobys_without_parents() {
        for (patterns, path, verdict) in VERDICTS {
            let list = Patterns::new(patterns).expect("patterns");
            assert_eq!(list.matches(path, &Matched::default()).0, *verdict, "{patterns:?} {path}");
        }
    }

    #[test]
    fn verdicts_are_mobys_in_a_walk() {
        for (patterns, path, verdict) in VERDICTS {
            let list = Patterns::new(patterns).expect("patterns");
            let parent = parents(path).fold(Matched::default(), |above, folder| list.matches(folder, &above).1);
            assert_eq!(list.matches(path, &parent).0, *verdict, "{patterns:?} {path}");
        }
    }

    #[test]
    fn broken_patterns_are_refused() {
        for patterns in [["!"], ["["], ["a/[x-]"], ["! "]] {
            assert!(Patterns::new(&patterns).is_err(), "{patterns:?}");
        }
        assert!(Patterns::new(&["", "  "]).expect("empty patterns are none").is_empty());
    }

    #[test]
    fn folders_that_cannot_hold_a_match_are_known() {
        let list = Patterns::new(&["src/bin/**", "Cargo.toml"]).expect("patterns");
        assert!(list.may_match_inside("src", false));
        assert!(list.may_match_inside("src/bin", false));
        assert!(!list.may_match_inside("sr", false));
        assert!(!list.may_match_inside("target", false));
        assert!(!list.may_match_inside("src", true));
        assert!(Patterns::new(&["**/x"]).expect("patterns").may_match_inside("anything", false));
        let list = Patterns::new(&["target", "!target/keep/me"]).expect("patterns");
        assert!(list.may_match_inside("target", true) && !list.may_match_inside("target/other", true));
    }

    #[test]
    fn paths_are_cleaned_as_go_does() {
        for (path, cleaned) in [
            ("", "."),
            ("a//b/./c/", "a/b/c"),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("./", "."),
            ("a/b/../..", "."),
        ] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
