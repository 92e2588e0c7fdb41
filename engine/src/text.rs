//! Text from outside, made fit for one line of a terminal.
//!
//! Invariant: nothing that passes here can move a cursor, change a colour or turn the reading
//! direction.

/// How many characters of a text are shown.
const SHOWN: usize = 200;

/// Escapes control and direction characters and cuts after 200 characters.
///
/// ```
/// use roche_engine::text::shown;
/// assert_eq!(shown("a\nb"), r"a\nb");
/// ```
pub fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == SHOWN {
            shown.push('…');
            break;
        }
        if c.is_control() || turns(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown
}

/// Says whether a character turns the reading direction (Unicode's `Bidi_Control`) or ends a line
/// without being a control character.
pub fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_a_cursor_or_turns_the_text_is_escaped() {
        assert_eq!(shown("a\x1b[31mb\n\u{202e}c é"), "a\\u{1b}[31mb\\n\\u{202e}c é");
        for c in ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{2066}', '\u{2069}', '\u{9b}'] {
            assert!(shown(&c.to_string()).is_ascii(), "{c:?}");
        }
        assert_eq!(shown("\u{2027}\u{202f}\u{200d}"), "\u{2027}\u{202f}\u{200d}");
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(shown(&"x".repeat(500)).chars().count(), 201);
        assert_eq!(shown(&"x".repeat(200)).chars().count(), 200);
    }
}
