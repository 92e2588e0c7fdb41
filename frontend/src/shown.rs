//! Text from outside, made fit for one line of a terminal.
//!
//! Invariant: nothing that passes here can move a cursor, change a colour or turn the reading
//! direction.

use std::path::Path;

/// Escapes control and direction characters and cuts after 200 characters.
pub(crate) fn text(text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == 200 {
            shown.push('…');
            break;
        }
        let turns =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
        if c.is_control() || turns { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Escapes a path; what is not UTF-8 becomes `�`.
pub(crate) fn path(path: &Path) -> String {
    text(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_the_text_is_escaped() {
        assert_eq!(text("a\x1b[31mb\n\u{202e}c é"), "a\\u{1b}[31mb\\n\\u{202e}c é");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(text(&"x".repeat(500)).chars().count(), 201);
    }
}
