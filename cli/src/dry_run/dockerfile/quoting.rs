//! Words of a Dockerfile.
//!
//! Invariant: what leaves here means what it says, whatever it was: no variable is put in, no quote
//! or line ends early, and no character is there that a terminal would obey.

use std::fmt::Write as _;

/// The most bytes of a file that a shell is given as arguments; Linux takes 128 KiB.
const WRITTEN_BYTES: usize = 96 << 10;

/// Makes a stage's name of the words that a text starts with.
pub(super) fn name(text: &str) -> String {
    let plain = |word: &&str| word.chars().all(|c| c.is_ascii_alphabetic() || c == '-') && !word.starts_with('-');
    let words: Vec<String> = text.split_whitespace().take_while(plain).take(6).map(str::to_ascii_lowercase).collect();
    let name = words.join("-");
    if name.is_empty() { "stage".to_owned() } else { name }
}

/// Passes a path that needs no quotes.
pub(super) fn path(text: &str) -> Result<&str, String> {
    plain(text, "/._-+@:")
}

/// Passes a word that needs no quotes: a user or a port.
pub(super) fn word(text: &str) -> Result<&str, String> {
    plain(text, "._-:/")
}

fn plain<'a>(text: &'a str, signs: &str) -> Result<&'a str, String> {
    let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c));
    if plain { Ok(text) } else { Err(format!("has {:?}", roche_engine::text::shown(text))) }
}

/// Writes a JSON string.
pub(super) fn printed(text: &str) -> Result<String, String> {
    checked(text)?;
    Ok(serde_json::to_string(text).expect("text is always JSON"))
}

/// Writes a value of `ENV` or `LABEL`.
pub(super) fn value(text: &str) -> Result<String, String> {
    checked(text)?;
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

/// Writes a variable and its value.
pub(super) fn pair(name: &str, text: &str) -> Result<String, String> {
    Ok(format!("{}={}", plain(name, "._-")?, value(text)?))
}

/// Writes the shell's command that makes the file `place`, a line of it on each line.
pub(super) fn write(data: &[u8], place: usize) -> Result<String, String> {
    let text = std::str::from_utf8(data).map_err(|_| "writes a file that is not text".to_owned())?;
    if text.len() > WRITTEN_BYTES {
        return Err(format!("writes a file of {} bytes", text.len()));
    }
    let odd = |c: char| (c.is_control() && !matches!(c, '\n' | '\t')) || roche_engine::text::turns(c);
    if text.contains(odd) {
        return Err("writes a file with control characters".to_owned());
    }
    let (lines, rest) = text.rsplit_once('\n').map_or((None, text), |(lines, rest)| (Some(lines), rest));
    let quoted = |line: &str| format!("'{}'", line.replace('\'', "'\\''"));
    let mut command = String::new();
    if let Some(lines) = lines {
        command.push_str("printf '%s\\n' \\\n");
        for line in lines.split('\n') {
            let _ = writeln!(command, "    {} \\", quoted(line));
        }
        let _ = write!(command, "    > {place}");
    }
    if !rest.is_empty() || lines.is_none() {
        let and = if lines.is_some() { " && " } else { "" };
        let _ = write!(command, "{and}printf %s {} >> {place}", quoted(rest));
    }
    Ok(command)
}

fn checked(text: &str) -> Result<(), String> {
    let odd = |c: char| c.is_control() || roche_engine::text::turns(c);
    if text.contains(odd) { Err(format!("has {:?}", roche_engine::text::shown(text))) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_words() {
        for (text, expected) in [
            ("build image 127.0.0.1:5000/b:1", "build-image"),
            ("Compile roche-service", "compile-roche-service"),
            ("-x", "stage"),
            ("", "stage"),
            ("../$(x)", "stage"),
        ] {
            assert_eq!(name(text), expected);
        }
    }

    #[test]
    fn what_has_a_meaning_is_escaped_or_refused() {
        assert_eq!(value(r#"a "b" $c \d #e 'f'"#).unwrap(), r#""a \"b\" \$c \\d #e 'f'""#);
        for text in ["a\nb", "\u{1b}[31m", "\u{202e}", "\0"] {
            assert!(value(text).is_err() && printed(text).is_err() && path(text).is_err(), "{text:?}");
        }
        for text in ["a b", "$a", "a,b", "a\"", "*", "", "a\\"] {
            assert!(path(text).is_err() && word(text).is_err(), "{text:?}");
        }
        assert!(pair("A B", "c").is_err());
    }

    /// Runs what was written by a shell, as a daemon would.
    #[cfg(unix)]
    #[test]
    fn files_are_written_to_the_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let texts = [
            "",
            "a",
            "a\n",
            "\n",
            "\n\n",
            "a\n\nb",
            "it's $x `y` \\\n# no comment\n\t%s %% <<EOF\n\\",
            " lead\ntrail \n",
            "''\n",
        ];
        for (place, text) in texts.iter().enumerate() {
            let command = write(text.as_bytes(), place).unwrap();
            // The parser of Dockerfiles joins the lines.
            let joined: String = command.split("\\\n").collect();
            let ran = std::process::Command::new("/bin/sh").args(["-c", &joined]).current_dir(folder.path()).status().unwrap();
            assert!(ran.success(), "{joined}");
            assert_eq!(std::fs::read_to_string(folder.path().join(place.to_string())).unwrap(), *text, "{joined}");
        }
        assert!(write(b"\x1b", 0).is_err() && write(b"\xff", 0).is_err() && write(&[b'a'; 100 << 10], 0).is_err());
    }
}
