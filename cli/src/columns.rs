//! Paths and tables for terminals, however wide.
//!
//! Invariant: what leaves here is printable, and a line that was fitted takes no more columns than it was given.

use roche_engine::text::turns;

use crate::environment::Environment;
use crate::text::is_invisible;

/// Columns where nobody says how many there are.
const COLUMNS: usize = 80;
/// The fewest columns that anything is laid out for.
const NARROWEST: usize = 20;
/// The columns from which on files are shown with their modes and owners.
pub(crate) const WIDE: usize = 60;

/// Returns the columns of standard output: a terminal's own, else 80.
pub(crate) fn width(environment: &Environment) -> usize {
    let size = if environment.stdout_terminal { terminal_size::terminal_size_of(std::io::stdout()) } else { None };
    size.map_or(COLUMNS, |(width, _)| usize::from(width.0).clamp(NARROWEST, 200))
}

/// Writes a path of an image as seen from its root. What is no printable UTF-8, and the backslash, is escaped as in Rust's byte
/// strings, so that different paths stay different.
pub(crate) fn path(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len() + 1);
    shown.push('/');
    shown.push_str(&escaped(path));
    shown
}

/// Writes bytes as [`path`] does, without a `/` in front.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' || c.is_control() || turns(c) || is_invisible(c) {
                shown.extend(c.escape_default());
            } else {
                shown.push(c);
            }
        }
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

/// Cuts text in its middle, where it takes more columns than there are.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if taken(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let start = within(text.chars(), room / 2);
    let end: Vec<char> = within(text.chars().rev(), room - room / 2).chars().rev().collect();
    if columns == 0 { String::new() } else { format!("{start}…{}", end.into_iter().collect::<String>()) }
}

/// Cuts text at its end, where it takes more columns than there are.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    match (taken(text) <= columns, columns) {
        (true, _) => text.to_owned(),
        (false, 0) => String::new(),
        (false, _) => format!("{}…", within(text.chars(), columns - 1)),
    }
}

/// Breaks text into lines of at most so many columns, at spaces where there are any.
pub(crate) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text;
    while taken(rest) > columns.max(1) {
        let whole = within(rest.chars(), columns.max(2));
        let end = whole.rfind(' ').filter(|at| *at > 0).unwrap_or(whole.len());
        lines.push(rest[..end].to_owned());
        rest = rest[end..].trim_start_matches(' ');
    }
    lines.push(rest.to_owned());
    lines
}

/// Puts a text on the right of a column.
pub(crate) fn right(text: &str, columns: usize) -> String {
    format!("{}{text}", " ".repeat(columns.saturating_sub(taken(text))))
}

/// Puts a text on the left of a column.
pub(crate) fn left(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(taken(text))))
}

/// Returns the columns that a text takes.
pub(crate) fn taken(text: &str) -> usize {
    text.chars().map(columns).sum()
}

fn within(chars: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    chars
        .take_while(|c| {
            used += columns(*c);
            used <= room
        })
        .collect()
}

/// Returns the columns of a character: two for what East Asian scripts and emoji fill (Unicode's wide blocks), none for marks.
fn columns(c: char) -> usize {
    match u32::from(c) {
        0x300..=0x36f | 0x1ab0..=0x1aff | 0x20d0..=0x20ff | 0xfe00..=0xfe0f | 0xfe20..=0xfe2f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f | 0xff00..=0xff60 => 2,
        0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_path_reaches_a_terminal() {
        for (bytes, expected) in [
            (&b"a/b c"[..], "/a/b c"),
            (b"", "/"),
            (b"a\x1b[2Jb\n\r\x07", "/a\\u{1b}[2Jb\\n\\r\\u{7}"),
            (b"a\xffb\xc3", "/a\\xffb\\xc3"),
            (b"a\\nb", "/a\\\\nb"),
            ("é\u{202e}x\u{200b}\u{feff}\u{9b}31m".as_bytes(), "/é\\u{202e}x\\u{200b}\\u{feff}\\u{9b}31m"),
        ] {
            assert_eq!(path(bytes), expected);
        }
    }

    #[test]
    fn lines_take_what_they_are_given() {
        assert_eq!(fit("abcdefgh", 8), "abcdefgh");
        assert_eq!(fit("abcdefghi", 8), "abc…fghi");
        assert_eq!(cut("abcdefghi", 8), "abcdefg…");
        assert_eq!(fit("日本語日本語", 8), "日…本語");
        for columns in 0..12 {
            for text in ["abcdefghijklmn", "日本語日本語", "a", "", "e\u{301}e\u{301}e\u{301}"] {
                assert!(taken(&fit(text, columns)) <= columns && taken(&cut(text, columns)) <= columns, "{text} {columns}");
            }
        }
        assert_eq!(wrapped("one two three", 8), ["one two", "three"]);
        assert_eq!(wrapped("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
        assert_eq!((right("日", 4), left("日", 4)), ("  日".to_owned(), "日  ".to_owned()));
    }
}
