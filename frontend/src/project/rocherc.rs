//! `.rocherc`: two settings of the release in a dotenv file.
//!
//! Invariant: nothing in it reaches the process's environment or the graph; two keys are read,
//! and every other one is named in a notice.

use std::path::{Path, PathBuf};

use super::open::{Refusal, read_inside};
use crate::shown;

/// The largest file that is read.
const LIMIT_BYTES: u64 = 64 << 10;

/// What the project's `.rocherc` files say; `src/.rocherc` goes before `./.rocherc`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rocherc {
    /// `release_build_image`.
    pub build_image: Option<Value>,
    /// `runtime_image`.
    pub runtime_image: Option<Value>,
    /// What was ignored, one line each.
    pub notices: Vec<String>,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The value, without quotes.
    pub text: String,
    /// The file, relative to the project.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// What is wrong with a `.rocherc`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {reason}", shown::path(path), line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct RochercError {
    /// The file, relative to the project.
    pub path: PathBuf,
    /// The line, from 1, where one is at fault.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl Rocherc {
    /// Reads `src/.rocherc` and `./.rocherc` of a project (`root` is canonical); neither need exist.
    pub(super) fn read(root: &Path) -> Result<Self, RochercError> {
        let mut all = Self::default();
        for path in ["src/.rocherc", ".rocherc"].map(PathBuf::from) {
            let fail = |reason: String| RochercError { path: path.clone(), line: None, reason };
            let data = match read_inside(root, &root.join(&path), LIMIT_BYTES) {
                Ok(read) => read.data,
                Err(Refusal::Missing) => continue,
                Err(Refusal::Dangling(error)) => return Err(fail(format!("is a link that leads nowhere: {error}"))),
                Err(Refusal::Outside(target)) => {
                    return Err(fail(format!("leads out of the project, to {}", shown::path(&target))));
                }
                Err(Refusal::Kind(kind)) => return Err(fail(format!("is {kind}, not a file"))),
                Err(Refusal::Unreadable(error)) => return Err(fail(format!("cannot be read: {error}"))),
                Err(Refusal::Changed) => return Err(fail("was replaced while it was read; run the command again".to_owned())),
                Err(Refusal::TooLarge(size)) => {
                    let line = Some(1);
                    let reason = format!("has {size} bytes, more than the {LIMIT_BYTES} that a settings file may have");
                    return Err(RochercError { path, line, reason });
                }
            };
            all.take(path, &data)?;
        }
        Ok(all)
    }

    /// Takes what is not set yet from a file's content.
    fn take(&mut self, path: PathBuf, data: &[u8]) -> Result<(), RochercError> {
        for Pair { key, value, line } in
            parse(data).map_err(|(line, reason)| RochercError { path: path.clone(), line: Some(line), reason })?
        {
            let place = match key.as_str() {
                "release_build_image" => &mut self.build_image,
                "runtime_image" => &mut self.runtime_image,
                _ => {
                    let key = shown::text(&key);
                    self.notices.push(format!(
                        "{}:{line}: {key} is ignored: only release_build_image and runtime_image are read",
                        path.display()
                    ));
                    continue;
                }
            };
            if value.is_empty() {
                self.notices.push(format!("{}:{line}: {key} is empty and is ignored", path.display()));
            } else if let Some(first) = place {
                let first = format!("{}:{}", first.path.display(), first.line);
                self.notices.push(format!("{}:{line}: {key} is ignored: {first} sets it", path.display()));
            } else {
                *place = Some(Value { text: value, path: path.clone(), line });
            }
        }
        Ok(())
    }
}

struct Pair {
    key: String,
    value: String,
    line: usize,
}

/// Parses a dotenv file: `KEY=value`, `export KEY=value`, quotes (which may span lines), comments.
fn parse(data: &[u8]) -> Result<Vec<Pair>, (usize, String)> {
    let text = std::str::from_utf8(data).map_err(|error| {
        let line = 1 + data[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        (line, "is not UTF-8".to_owned())
    })?;
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut pairs, mut line) = (Vec::new(), 1);
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            (rest, line) = (after, line + 1);
            continue;
        }
        let fail = |reason: &str| (line, format!("{reason}; expected KEY=value"));
        let (key, _) = first.split_once('=').ok_or_else(|| fail("has no `=`"))?;
        // The value may go on over lines, so it is cut from the whole rest.
        let value = rest[key.len() + 1..].trim_start_matches([' ', '\t']);
        let key = key.trim();
        let key = key.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(key).trim();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) || !key.chars().all(legal) {
            return Err(fail("has a key that is no name"));
        }
        let (value, left) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&value[1..], quote).ok_or_else(|| fail("has a quote that is never closed"))?,
            _ => plain(value),
        };
        let (tail, after) = left.split_once('\n').unwrap_or((left, ""));
        if !(tail.trim().is_empty() || tail.trim_start().starts_with('#')) {
            return Err(fail("has text after the closing quote"));
        }
        if value.contains('\0') {
            return Err(fail("holds a NUL"));
        }
        pairs.push(Pair { key: key.to_owned(), value, line });
        line += rest[..rest.len() - after.len()].matches('\n').count();
        rest = after;
    }
    Ok(pairs)
}

/// Takes an unquoted value: up to the line's end or ` #`.
fn plain(text: &str) -> (String, &str) {
    let line = text.split('\n').next().unwrap_or_default();
    let end =
        line.match_indices('#').map(|(at, _)| at).find(|&at| at == 0 || line[..at].ends_with([' ', '\t'])).unwrap_or(line.len());
    (line[..end].trim().to_owned(), &text[line.len()..])
}

/// Takes a quoted value after its opening quote; escapes count in double quotes alone.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(text: &[u8]) -> Result<Rocherc, RochercError> {
        let mut rocherc = Rocherc::default();
        rocherc.take(".rocherc".into(), text).map(|()| rocherc)
    }

    fn build_image(text: &str) -> String {
        take(text.as_bytes()).unwrap().build_image.unwrap().text
    }

    #[test]
    fn values_are_read_as_dotenv_has_them() {
        for text in [
            "release_build_image=a/b:1",
            "\u{feff}release_build_image=a/b:1\r\n",
            "# comment\n\n  export release_build_image = a/b:1 # the image",
            "release_build_image=\"a/b:1\" # x",
            "release_build_image='a/b:1'",
            "release_build_image=a/b:1\nrelease_build_image=ignored",
        ] {
            assert_eq!(build_image(text), "a/b:1", "{text:?}");
        }
    }

    #[test]
    fn quoted_values_of_other_keys_may_span_lines() {
        let rocherc = take(b"KEY=\"one\ntwo = 3\n\"\nruntime_image=r:1\n").unwrap();
        let value = rocherc.runtime_image.unwrap();
        assert_eq!((value.text.as_str(), value.line), ("r:1", 4));
        assert_eq!(rocherc.notices.len(), 1);
    }

    #[test]
    fn every_other_key_gets_a_notice_without_its_value() {
        let rocherc = take(b"PATH=/evil\nLD_PRELOAD=x.so\nDOCKER_HOST=tcp://evil\n").unwrap();
        assert_eq!((rocherc.build_image, rocherc.runtime_image), (None, None));
        assert_eq!(rocherc.notices.len(), 3);
        assert!(rocherc.notices[0].starts_with(".rocherc:1: PATH is ignored"), "{:?}", rocherc.notices);
        assert!(!rocherc.notices.concat().contains("evil"));
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            (&b"# x\nnonsense"[..], ".rocherc:2: has no `=`"),
            (b"a=1\n2b=1", ".rocherc:2: has a key that is no name"),
            (b"a b=1", ".rocherc:1: has a key"),
            (b"=1", ".rocherc:1: has a key"),
            (b"a=\"x\ny", ".rocherc:1: has a quote"),
            (b"a='x' y", ".rocherc:1: has text after"),
            (b"a=1\nb=\0", ".rocherc:2: holds a NUL"),
            (b"a=1\nb=\xff", ".rocherc:2: is not UTF-8"),
        ] {
            let error = take(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn src_goes_before_the_root_and_a_huge_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("src")).unwrap();
        std::fs::write(root.join("src/.rocherc"), "runtime_image=src\n").unwrap();
        std::fs::write(root.join(".rocherc"), "runtime_image=root\nrelease_build_image=root\n").unwrap();
        let rocherc = Rocherc::read(&root).unwrap();
        assert_eq!(rocherc.runtime_image.unwrap().text, "src");
        assert_eq!(rocherc.build_image.unwrap().text, "root");
        assert_eq!(rocherc.notices, [".rocherc:1: runtime_image is ignored: src/.rocherc:1 sets it"]);
        std::fs::write(root.join(".rocherc"), "#".repeat(70_000)).unwrap();
        assert!(Rocherc::read(&root).unwrap_err().to_string().starts_with(".rocherc:1: has 70000 bytes"));
    }

    #[test]
    fn a_folder_instead_of_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join(".rocherc")).unwrap();
        assert_eq!(Rocherc::read(&root).unwrap_err().to_string(), ".rocherc: is a folder, not a file");
    }
}
