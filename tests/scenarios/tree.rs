//! A result's tree as text, read from the tar that a solver's exporter writes.
//!
//! One line is one path, in byte order:
//!
//! | line | what it is |
//! |---|---|
//! | `d 0755 0:0 a` | a folder: mode, owner and group, path |
//! | `f 0644 0:0 a/b "text"` | a file; one of more than 48 bytes is told by size and sha256 |
//! | `l 0:0 a/c -> b` | a symbolic link, whose mode means nothing |
//! | `h a/d = a/b` | another name of the file `a/b`, which has come before it |
//! | `p 0644 0:0 a/e` | a fifo |
//! | `c 0666 0:0 a/f 1:3` | a character device (`b`: a block device) and its number |
//!
//! ` NAME="value"` follows for each extended attribute. ` @SECONDS` is the time of change, which
//! is compared only where the expectation names it: most times are those of the run.
//!
//! Invariant: equal text is an equal tree, whatever the dialect of tar.

use std::collections::BTreeMap;

use roche_engine::Digest;

/// The largest content that stands in a line as it is.
const SHOWN_BYTES: usize = 48;
const BLOCK: usize = 512;
/// What GNU tar and Go write before the name of an extended attribute.
const XATTR: &str = "SCHILY.xattr.";

/// A tree's paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(BTreeMap<Vec<u8>, Entry>);

/// A path of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: u8,
    mode: u32,
    owner: (u64, u64),
    seconds: i64,
    /// Content, link target or device number, as the line shows it.
    what: String,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl Tree {
    /// Reads a tar: USTAR, PAX or GNU.
    pub(super) fn of_tar(mut tar: &[u8]) -> Result<Self, String> {
        let mut tree = Self::default();
        let mut pax: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        while let Some((header, rest)) = tar.split_at_checked(BLOCK) {
            if header.iter().all(|&byte| byte == 0) {
                return Ok(tree);
            }
            let size = match pax.get("size") {
                Some(size) => text(size).parse().map_err(|_| format!("PAX size {}", text(size)))?,
                None => usize::try_from(number(&header[124..136])?).map_err(|_| "a negative size")?,
            };
            // A hard link's size is that of the file that it names.
            let kind = header[156];
            let size = if kind == b'1' { 0 } else { size };
            let (content, _) = rest.split_at_checked(size).ok_or("the tar ends in a file")?;
            tar = rest.get(size.next_multiple_of(BLOCK)..).ok_or("the tar ends in a file's padding")?;
            match kind {
                b'x' => pax = records(content)?,
                b'L' => _ = pax.insert("path".to_owned(), content.strip_suffix(b"\0").unwrap_or(content).to_vec()),
                b'K' => _ = pax.insert("linkpath".to_owned(), content.strip_suffix(b"\0").unwrap_or(content).to_vec()),
                b'g' => {}
                _ => {
                    let (path, entry) = entry(header, content, &std::mem::take(&mut pax))?;
                    // Exporters differ in whether they write the root.
                    if !path.is_empty() && tree.0.insert(path.clone(), entry).is_some() {
                        return Err(format!("{} comes twice", path.escape_ascii()));
                    }
                }
            }
        }
        Err("the tar has no end".to_owned())
    }

    /// Says whether a file has this content, under this name or as another name of a file that has.
    pub(super) fn holds(&self, path: &str, content: &[u8]) -> bool {
        let named = self.0.get(path.as_bytes());
        let file = match named {
            Some(entry) if entry.kind == b'1' => {
                self.0.iter().find(|(path, _)| shown(path) == entry.what).map(|(_, entry)| entry)
            }
            other => other,
        };
        file.is_some_and(|entry| entry.kind == b'0' && entry.what == content_shown(content))
    }

    /// Returns the tree's lines; a path in `timed` has its time.
    pub(super) fn lines(&self, timed: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.0.iter().map(|(path, entry)| {
            let path = shown(path);
            let timed = timed(&path);
            entry.line(&path, timed)
        });
        lines.collect()
    }
}

impl Entry {
    fn line(&self, path: &str, timed: bool) -> String {
        let (user, group) = self.owner;
        let mode = self.mode;
        let mut line = match self.kind {
            b'1' => return format!("h {path} = {}", self.what),
            b'2' => format!("l {user}:{group} {path} -> {}", self.what),
            b'3' => format!("c {mode:04o} {user}:{group} {path} {}", self.what),
            b'4' => format!("b {mode:04o} {user}:{group} {path} {}", self.what),
            b'5' => format!("d {mode:04o} {user}:{group} {path}"),
            b'6' => format!("p {mode:04o} {user}:{group} {path}"),
            _ => format!("f {mode:04o} {user}:{group} {path} {}", self.what),
        };
        for (name, value) in &self.xattrs {
            line += &format!(" {name}=\"{}\"", value.escape_ascii());
        }
        if timed {
            line += &format!(" @{}", self.seconds);
        }
        line
    }
}

fn entry(header: &[u8], content: &[u8], pax: &BTreeMap<String, Vec<u8>>) -> Result<(Vec<u8>, Entry), String> {
    let id = |key: &str, field: &[u8]| match pax.get(key) {
        Some(id) => text(id).parse().map_err(|_| format!("PAX {key} {}", text(id))),
        None => Ok(number(field)?.unsigned_abs()),
    };
    let path = match pax.get("path") {
        Some(path) => path.clone(),
        None => {
            let (name, prefix) = (until_nul(&header[..100]), until_nul(&header[345..500]));
            let split = header[257..263] == *b"ustar\0" && !prefix.is_empty();
            if split { [prefix, b"/", name].concat() } else { name.to_vec() }
        }
    };
    let link = pax.get("linkpath").map_or_else(|| until_nul(&header[157..257]), Vec::as_slice);
    let kind = if header[156] == 0 { b'0' } else { header[156] };
    let what = match kind {
        b'0' => content_shown(content),
        b'1' => shown(trimmed(link)),
        b'2' => shown(link),
        b'3' | b'4' => format!("{}:{}", number(&header[329..337])?, number(&header[337..345])?),
        b'5' | b'6' => String::new(),
        other => return Err(format!("{} is of the unknown kind {:?}", path.escape_ascii(), char::from(other))),
    };
    let seconds = match pax.get("mtime") {
        // A time before 1970 is rounded down, as the header's is.
        Some(time) => text(time).parse::<f64>().map_err(|_| format!("PAX mtime {}", text(time)))?.floor() as i64,
        None => number(&header[136..148])?,
    };
    let xattrs = pax.iter().filter_map(|(key, value)| Some((key.strip_prefix(XATTR)?.to_owned(), value.clone())));
    let owner = (id("uid", &header[108..116])?, id("gid", &header[116..124])?);
    let mode = u32::try_from(number(&header[100..108])? & 0o7777).expect("twelve bits fit");
    Ok((trimmed(&path).to_vec(), Entry { kind, mode, owner, seconds, what, xattrs: xattrs.collect() }))
}

/// Writes a file's content.
fn content_shown(content: &[u8]) -> String {
    if content.len() <= SHOWN_BYTES {
        return format!("\"{}\"", content.escape_ascii());
    }
    format!("{} {}", content.len(), Digest::of(content).short())
}

/// Reads PAX records, `LENGTH KEY=VALUE\n`.
fn records(mut data: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let mut records = BTreeMap::new();
    while !data.is_empty() {
        let digits = data.iter().position(|&byte| byte == b' ').ok_or("a PAX record without a length")?;
        let length: usize = text(&data[..digits]).parse().map_err(|_| "a PAX record's length is no number")?;
        let (record, rest) = data.split_at_checked(length).ok_or("a PAX record is cut off")?;
        let record = record.get(digits + 1..).and_then(|r| r.strip_suffix(b"\n")).ok_or("a PAX record without an end")?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or("a PAX record without a value")?;
        records.insert(text(&record[..equals]), record[equals + 1..].to_vec());
        data = rest;
    }
    Ok(records)
}

/// Reads a header's number: octal digits, or GNU's two's complement behind a set top bit.
fn number(field: &[u8]) -> Result<i64, String> {
    if field[0] & 0x80 != 0 {
        let start = if field[0] & 0x40 != 0 { -1 } else { i64::from(field[0] & 0x3f) };
        return Ok(field[1..].iter().fold(start, |value, &byte| value << 8 | i64::from(byte)));
    }
    let digits = text(until_nul(field));
    let digits = digits.trim();
    if digits.is_empty() { Ok(0) } else { i64::from_str_radix(digits, 8).map_err(|_| format!("{digits:?} is not octal")) }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Takes off `./` and `/` in front and `/` behind.
fn trimmed(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b".").filter(|rest| rest.is_empty() || rest[0] == b'/').unwrap_or(path);
    let path = path.strip_prefix(b"/").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Escapes a path; spaces too, as they part a line.
fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string().replace(' ', "\\x20")
}

#[test]
fn the_dialects_of_tar_are_one_text() {
    use std::process::Command;
    let folder = tempfile::tempdir().unwrap();
    let long = "n".repeat(120);
    let script = format!(
        "umask 022; mkdir d; echo hello >d/file; ln d/file d/other; ln -s file d/link; mkfifo -m 600 d/pipe
        echo long >{long}; touch -d @1000000000 d/file; touch -d @-5 {long}"
    );
    assert!(Command::new("sh").args(["-c", &script]).current_dir(folder.path()).status().unwrap().success());
    let tree = |format: &str| {
        let mut tar = Command::new("tar");
        tar.args(["--sort=name", "--owner=7", "--group=8", "--numeric-owner", "-cf", "-", format, "."]);
        let tree = Tree::of_tar(&tar.current_dir(folder.path()).output().unwrap().stdout).unwrap();
        tree.lines(|path| path == "d/file" || path.starts_with('n'))
    };
    let expected = [
        "d 0755 7:8 d",
        r#"f 0644 7:8 d/file "hello\n" @1000000000"#,
        "l 7:8 d/link -> file",
        "h d/other = d/file",
        "p 0600 7:8 d/pipe",
        &format!(r#"f 0644 7:8 {long} "long\n" @-5"#),
    ];
    for format in ["--format=gnu", "--format=pax"] {
        assert_eq!(tree(format), expected, "{format}");
    }
}
