//! Text from outside made safe to print.
//!
//! Invariant: what leaves here has no control character but tab, no escape sequence but colours
//! (and those only where asked for), and nothing that reorders text.

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use roche_engine::text::turns;

/// Characters that the string of an escape sequence may have.
const STRING: usize = 4096;

/// Makes one line printable: escape sequences go, other control characters and characters that
/// reorder text are shown as escapes. With `colour`, SGR sequences (`ESC [ … m`) stay.
pub(crate) fn printable(text: &str, colour: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if let Some(sgr) = skip_escape(&mut rest).filter(|_| colour) {
                    clean.push_str(&format!("\u{1b}[{sgr}m"));
                    coloured = true;
                }
            }
            '\t' => clean.push('\t'),
            c if c.is_control() || turns(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    if coloured {
        clean.push_str("\u{1b}[0m");
    }
    clean
}

/// Makes text of any number of lines one printable line.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| printable(line.trim(), false)).filter(|line| !line.is_empty()).collect();
    lines.join("; ")
}

/// Escapes in finished JSON what a terminal would obey: it stands in strings only, where its code
/// after `\u` means the same (RFC 8259, section 7).
pub(crate) fn json(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() && c != '\n') || turns(c) || is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(clean, "\\u{unit:04x}");
            }
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Puts spaces for tabs, up to the next multiple of eight columns.
pub(crate) fn untabbed(text: &str) -> String {
    let mut columns = 0;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let width = if c == '\t' { 8 - columns % 8 } else { 1 };
        out.extend(std::iter::repeat_n(if c == '\t' { ' ' } else { c }, width));
        columns += width;
    }
    out
}

/// Skips an escape sequence; returns the parameters of an SGR one.
fn skip_escape(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    match rest.next() {
        Some('[') => {
            let mut parameters = String::new();
            for c in rest.by_ref().take(64) {
                match c {
                    'm' if parameters.chars().all(|c| c.is_ascii_digit() || c == ';') => return Some(parameters),
                    '\u{40}'..='\u{7e}' => return None,
                    c => parameters.push(c),
                }
            }
            None
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            skip_string(rest);
            None
        }
        // Such as `ESC ( B`: intermediate characters, then a final one.
        Some('\u{20}'..='\u{2f}') => {
            while rest.next_if(|c| matches!(c, '\u{20}'..='\u{2f}')).is_some() {}
            rest.next_if(|c| matches!(c, '\u{30}'..='\u{7e}'));
            None
        }
        Some(_) | None => None,
    }
}

/// Skips an operating system command or another string up to its end: BEL, ST or `ESC \`. One that
/// has none nearby hides nothing: what it holds is shown as text.
fn skip_string(rest: &mut Peekable<Chars<'_>>) {
    let mut ahead = rest.clone();
    for _ in 0..STRING {
        match ahead.next() {
            Some('\u{7}' | '\u{9c}') => {
                *rest = ahead;
                return;
            }
            Some('\u{1b}') => {
                if ahead.next() == Some('\\') {
                    *rest = ahead;
                }
                return;
            }
            Some(_) => {}
            None => return,
        }
    }
}

/// Says whether a character takes no room and hides in a name.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(u32::from(c), 0xe0000..=0xe0fff)
}

/// Writes a number of bytes for people: `960 B`, `4.2 MB` (powers of 1000, as docker does).
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 || value >= 99.95 { format!("{value:.0} {}", UNITS[unit]) } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Writes a duration for people, in seconds to a tenth.
pub(crate) fn seconds(duration: std::time::Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_only_where_asked_for() {
        let red = "\u{1b}[1;31merror\u{1b}[0m: no";
        assert_eq!(printable(red, false), "error: no");
        assert_eq!(printable(red, true), format!("{red}\u{1b}[0m"));
    }

    #[test]
    fn nothing_else_reaches_a_terminal() {
        let hostile = "a\u{1b}[2Jb\u{1b}]0;title\u{7}c\u{1b}]52;c;eA==\u{1b}\\d\u{7}e\u{202e}f\u{9b}31mg\u{1b}";
        let clean = printable(hostile, true);
        assert!(!clean.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{clean:?}");
        assert!(clean.starts_with("abcd"), "{clean:?}");
    }

    #[test]
    fn an_unended_sequence_hides_nothing_that_follows_later() {
        assert_eq!(printable(&format!("\u{1b}[{}x", "1".repeat(100)), true).chars().last(), Some('x'));
    }

    #[test]
    fn intermediate_characters_belong_to_their_sequence() {
        assert_eq!(printable("a\u{1b}(Bb\u{1b}#8c\u{1b} !/Gd\u{1b}7e", false), "abcde");
        assert_eq!(printable("a\u{1b}(\u{1b}[1mb", false), "ab");
    }

    #[test]
    fn a_string_ends_where_it_says_or_hides_nothing() {
        for end in ["\u{7}", "\u{9c}", "\u{1b}\\"] {
            assert_eq!(printable(&format!("a\u{1b}]0;title{end}b"), false), "ab");
        }
        assert_eq!(printable("a\u{1b}]0;error: b", false), "a0;error: b");
        assert_eq!(printable("a\u{1b}]x\u{1b}[1my", false), "axy");
        let far = format!("a\u{1b}]{}\u{7}b", "x".repeat(2 * STRING));
        assert!(printable(&far, false).len() > 2 * STRING);
    }

    #[test]
    fn json_keeps_its_meaning_without_what_a_terminal_obeys() {
        let hostile = serde_json::json!({"name": "a\u{7f}\u{9b}31m\u{202e}\n\u{1b}b\u{e9}\u{200b}\u{e0041}"});
        let clean = json(&format!("{hostile:#}\n"));
        assert!(clean.chars().all(|c| c == '\n' || !c.is_control() && !turns(c) && !is_invisible(c)), "{clean:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&clean).unwrap(), hostile);
        assert!(clean.contains('\u{e9}'));
    }

    #[test]
    fn tabs_become_as_many_spaces_as_a_terminal_shows() {
        assert_eq!(untabbed("ab\tc\t\td"), "ab      c               d");
    }

    #[test]
    fn several_lines_become_one() {
        assert_eq!(one_line("a\r\n\n  b\u{1b}[0m\n"), "a; b");
    }

    #[test]
    fn sizes_are_short() {
        let table =
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_210_000, "4.2 MB"), (999_949, "1.0 MB"), (123_456_789, "123 MB")];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
