//! Text from outside made safe to print.
//!
//! Invariant: what leaves here has no control character but tab, no escape sequence but colours
//! (and those only where asked for), and nothing that reorders text.

/// Makes one line printable: escape sequences go, other control characters and characters that
/// reorder text are shown as escapes. With `colour`, SGR sequences (`ESC [ … m`) stay.
pub(crate) fn printable(text: &str, colour: bool) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut coloured = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if let Some(sgr) = skip_escape(&mut rest).filter(|_| colour) {
                    clean.push_str(&format!("\u{1b}[{sgr}m"));
                    coloured = true;
                }
            }
            '\t' => clean.push('\t'),
            c if c.is_control() || reorders(c) => clean.extend(c.escape_unicode()),
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

/// Skips an escape sequence; returns the parameters of an SGR one.
fn skip_escape(rest: &mut std::str::Chars<'_>) -> Option<String> {
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
        // Operating system commands and other strings, up to BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let mut last = ' ';
            for c in rest.by_ref() {
                if c == '\u{7}' || (last == '\u{1b}' && c == '\\') {
                    break;
                }
                last = c;
            }
            None
        }
        Some(_) | None => None,
    }
}

/// Says whether a character changes the direction of text or hides in it.
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}' | '\u{2028}' | '\u{2029}')
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
    fn several_lines_become_one() {
        assert_eq!(one_line("a\r\n\n  b\u{1b}[0m\n"), "a; b");
    }

    #[test]
    fn sizes_are_short() {
        let table = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (4_210_000, "4.2 MB"), (999_949, "1.0 MB"), (123_456_789, "123 MB")];
        for (bytes, text) in table {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
