//! An image's config, as far as people ask for it.
//!
//! Invariant: whatever the config holds, it is text here; what is of another form than the specification's is passed over. The
//! value of a variable that looks like a secret is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use roche_engine::Digest;
use roche_frontend::project::secrets::is_secret_variable;
use serde_json::{Map, Value};

/// What stands for a value that is not shown.
pub(crate) const HIDDEN: &str = "(hidden)";

/// What a container of the image starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) user: String,
    pub(crate) workdir: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    /// Names and values; those of secrets are [`HIDDEN`].
    pub(crate) env: BTreeMap<String, String>,
    /// The names of variables that look like secrets.
    pub(crate) secrets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    /// The config's own object, with secrets hidden.
    pub(crate) value: Value,
    /// What is hidden, by name, as digests: it can be compared, and not be shown.
    hidden: BTreeMap<String, Digest>,
}

impl Settings {
    /// Reads an image's config.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let mut config = document.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let text =
            |config: &Map<String, Value>, key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |config: &Map<String, Value>, key: &str| -> Vec<String> {
            let items = config.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let keys = |config: &Map<String, Value>, key: &str| -> Vec<String> {
            config.get(key).and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
        };
        let (mut env, mut secrets, mut values) = (BTreeMap::new(), Vec::new(), BTreeMap::<String, String>::new());
        for line in list(&config, "Env") {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            let is_secret = is_secret_variable(name, value);
            if is_secret {
                secrets.push(name.to_owned());
                // A name may be there twice.
                values.entry(name.to_owned()).or_default().extend([value, "\0"]);
            }
            env.insert(name.to_owned(), if is_secret { HIDDEN.to_owned() } else { value.to_owned() });
        }
        if let Some(Value::Array(lines)) = config.get_mut("Env") {
            for line in lines {
                let name = line.as_str().and_then(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
                if let Some(name) = name.filter(|name| secrets.contains(name)) {
                    *line = Value::from(format!("{name}={HIDDEN}"));
                }
            }
        }
        let labels = config.get("Labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        Self {
            user: text(&config, "User"),
            workdir: text(&config, "WorkingDir"),
            entrypoint: list(&config, "Entrypoint"),
            command: list(&config, "Cmd"),
            ports: keys(&config, "ExposedPorts"),
            volumes: keys(&config, "Volumes"),
            env,
            secrets,
            labels,
            stop_signal: text(&config, "StopSignal"),
            value: Value::Object(config),
            hidden: values.into_iter().map(|(name, values)| (name, Digest::of(values.as_bytes()))).collect(),
        }
    }

    /// Returns the names of the secrets whose values are not those that `other` has.
    pub(crate) fn other_secrets(&self, other: &Self) -> BTreeSet<String> {
        let names = self.hidden.keys().chain(other.hidden.keys());
        names.filter(|name| self.hidden.get(*name) != other.hidden.get(*name)).cloned().collect()
    }
}

/// Returns what made a layer, without the values that look like secrets, and the names of these.
///
/// BuildKit writes `RUN |COUNT NAME=VALUE … SHELL -c COMMAND`, and no quotes around a value of several words. Where a value's end is
/// unclear, all that may be of it is hidden.
pub(crate) fn without_secrets(created_by: &str) -> (String, Vec<String>) {
    let shells = shells(created_by);
    let (mut hidden, command) = match argument_count(created_by) {
        Some(count) => arguments(created_by, count, &shells),
        None => (Vec::new(), 0),
    };
    let shell = shells.into_iter().find(|start| *start >= command).filter(|_| !created_by.contains("#(nop)"));
    hidden.extend(assignments(created_by, command, shell.unwrap_or(created_by.len())));
    let (mut shown, mut at, mut names) = (String::new(), 0, Vec::new());
    for Hidden { name, value } in hidden {
        shown.push_str(&created_by[at..value.start]);
        shown.push_str(HIDDEN);
        at = value.end;
        names.push(name.to_owned());
    }
    shown.push_str(&created_by[at..]);
    (shown, names)
}

/// A value that is not shown.
struct Hidden<'a> {
    name: &'a str,
    value: Range<usize>,
}

/// Returns how many build arguments a step says that it has.
fn argument_count(step: &str) -> Option<usize> {
    step.strip_prefix("RUN ").unwrap_or(step).strip_prefix('|')?.split(' ').next()?.parse().ok()
}

/// Returns the words of a text, and where they begin.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(' ').scan(0, |at, word| {
        let start = *at;
        *at += word.len() + 1;
        Some((start, word))
    })
}

/// Finds where a shell may begin: a path with options, the last of them `-c`.
fn shells(text: &str) -> Vec<usize> {
    const MOST_OPTIONS: usize = 8;
    let words: Vec<(usize, &str)> = words(text).collect();
    let is_shell = |at: usize| {
        let mut is_value = false;
        for (_, word) in words[at + 1..].iter().take(MOST_OPTIONS) {
            let is_option = word.starts_with('-');
            if is_option && !word.starts_with("--") && word.ends_with('c') {
                return true;
            }
            if !is_option && !is_value {
                return false;
            }
            is_value = is_option;
        }
        false
    };
    let starts = words.iter().enumerate().filter(|(at, (_, word))| word.starts_with('/') && is_shell(*at));
    starts.map(|(_, (start, _))| *start).collect()
}

/// Finds the build arguments to hide, and where the command behind all of them begins.
fn arguments<'a>(step: &'a str, count: usize, shells: &[usize]) -> (Vec<Hidden<'a>>, usize) {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(is_of_name);
    let names = words(step).filter_map(|(start, word)| Some((start, word.split_once('=')?.0)));
    let mut names: Vec<(usize, &str)> = names.filter(|(_, name)| is_name(name)).collect();
    let before = |end: usize| names.iter().take_while(|(start, _)| *start < end).count();
    let command = shells.iter().copied().find(|start| before(*start) >= count).unwrap_or(step.len());
    let is_argument = before(command);
    names.truncate(is_argument);
    let end = if command == step.len() { command } else { command - 1 };
    let is_clear = command < step.len() && names.len() == count;
    let mut hidden = Vec::new();
    for (at, (start, name)) in names.iter().enumerate() {
        let value = start + name.len() + 1..names.get(at + 1).map_or(end, |(next, _)| next - 1);
        if is_secret_variable(name, &step[value.clone()]) {
            if !is_clear {
                // A name that follows may be of the value.
                hidden.push(Hidden { name, value: value.start..end });
                break;
            }
            hidden.push(Hidden { name, value });
        }
    }
    (hidden, command)
}

/// Finds `NAME=VALUE` to hide from `from` on; from `shell` on by the rules of shells.
fn assignments(text: &str, from: usize, shell: usize) -> Vec<Hidden<'_>> {
    let bytes = text.as_bytes();
    let (mut at, mut quote, mut hidden) = (from, None, Vec::new());
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote != Some(b'\'') => at += 1,
            byte @ (b'"' | b'\'') if quote.is_none() => quote = Some(byte),
            byte if quote == Some(byte) => quote = None,
            b'=' => {
                let length = bytes[from..at].iter().rev().take_while(|byte| is_of_name(**byte)).count();
                let name = &text[at - length..at];
                let value = at + 1..value_end(bytes, at + 1, quote, at >= shell);
                if !name.is_empty() && is_secret_variable(name, text[value.clone()].trim_matches(['"', '\''])) {
                    at = value.end;
                    hidden.push(Hidden { name, value });
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    hidden
}

/// Returns where a value ends: before the quote that it stands in, behind its own, for a shell before a blank; else with the text.
fn value_end(bytes: &[u8], start: usize, quote: Option<u8>, is_shell: bool) -> usize {
    if let Some(quote) = quote {
        return closing(bytes, start, quote);
    }
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            byte @ (b'"' | b'\'') if is_shell || at == start => at = closing(bytes, at + 1, byte),
            b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b')' if is_shell => return at,
            b' ' if at > start && matches!(bytes[at - 1], b'"' | b'\'') => return at,
            b'\\' | b'`' => return bytes.len(),
            b'$' if bytes.get(at + 1) == Some(&b'(') => return bytes.len(),
            b'$' if bytes.get(at + 1) == Some(&b'{') => at = closing(bytes, at + 2, b'}'),
            _ if is_shell => {}
            _ => return bytes.len(),
        }
        at += 1;
    }
    bytes.len()
}

/// Returns where a quote is closed; the end where it is not.
fn closing(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' && quote != b'\'' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// Says whether a variable's name may have a byte.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_read_whatever_it_holds() {
        let config = br#"{"config": {"User": "me", "WorkingDir": 7, "Env": ["A=b=c", "DB_PASSWORD=x", 3, "bare"],
            "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v", "n": null}, "Cmd": null, "Entrypoint": ["/x", "y"]}}"#;
        let settings = Settings::read(config);
        assert_eq!((settings.user.as_str(), settings.workdir.as_str()), ("me", ""));
        assert_eq!(
            (settings.ports, settings.entrypoint, settings.command),
            (vec!["80/tcp".to_owned()], vec!["/x".to_owned(), "y".to_owned()], vec![])
        );
        let env = [("A", "b=c"), ("DB_PASSWORD", HIDDEN), ("bare", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((settings.env, settings.secrets), (env.into(), vec!["DB_PASSWORD".to_owned()]));
        assert_eq!(settings.labels.len(), 1);
        assert!(!settings.value.to_string().contains("\"DB_PASSWORD=x\""), "{}", settings.value);
        for odd in ["", "[]", "{}", r#"{"config": null}"#, r#"{"config": {"Env": {}}}"#] {
            assert!(Settings::read(odd.as_bytes()).env.is_empty(), "{odd}");
        }
    }

    #[test]
    fn build_arguments_in_the_history_keep_their_names_alone() {
        let (shown, secrets) = without_secrets("|2 NPM_TOKEN=abc DEBUG=1 /bin/sh -c make");
        assert_eq!((shown.as_str(), secrets), ("|2 NPM_TOKEN=(hidden) DEBUG=1 /bin/sh -c make", vec!["NPM_TOKEN".to_owned()]));
    }

    #[test]
    fn values_of_several_words_are_hidden_to_their_end() {
        for (created_by, expected, names) in [
            (
                "RUN |1 NPM_TOKEN=correct horse battery /bin/sh -c make",
                "RUN |1 NPM_TOKEN=(hidden) /bin/sh -c make",
                &["NPM_TOKEN"][..],
            ),
            (
                "|2 A_TOKEN=b c DEBUG=x y /bin/bash -o pipefail -c make",
                "|2 A_TOKEN=(hidden) DEBUG=x y /bin/bash -o pipefail -c make",
                &["A_TOKEN"],
            ),
            ("|2 DEBUG=/a -c A_TOKEN=b c /bin/ash -ec make", "|2 DEBUG=/a -c A_TOKEN=(hidden) /bin/ash -ec make", &["A_TOKEN"]),
            (
                "|2 A_TOKEN=b c B_TOKEN=d /bin/sh -c make",
                "|2 A_TOKEN=(hidden) B_TOKEN=(hidden) /bin/sh -c make",
                &["A_TOKEN", "B_TOKEN"],
            ),
            ("|1 URL=--index https://u:p@h /bin/sh -c make", "|1 URL=(hidden) /bin/sh -c make", &["URL"]),
            // One of the names is of a value.
            ("|1 A_TOKEN=b C=d e /bin/sh -c make", "|1 A_TOKEN=(hidden) /bin/sh -c make", &["A_TOKEN"]),
            ("|1 A_TOKEN=b c make # buildkit", "|1 A_TOKEN=(hidden)", &["A_TOKEN"]),
            ("RUN |1 D=1 /bin/sh -c A_TOKEN=b make", "RUN |1 D=1 /bin/sh -c A_TOKEN=(hidden) make", &["A_TOKEN"]),
            ("/bin/sh -c A_TOKEN=\"b \\\" c\" make", "/bin/sh -c A_TOKEN=(hidden) make", &["A_TOKEN"]),
            ("/bin/sh -c 'A_TOKEN=b c' make", "/bin/sh -c 'A_TOKEN=(hidden)' make", &["A_TOKEN"]),
            ("/bin/sh -c A_TOKEN='b c make", "/bin/sh -c A_TOKEN=(hidden)", &["A_TOKEN"]),
            ("/bin/sh -c A_TOKEN=b\\ c make", "/bin/sh -c A_TOKEN=(hidden)", &["A_TOKEN"]),
            ("/bin/sh -c export A_TOKEN=b; make", "/bin/sh -c export A_TOKEN=(hidden); make", &["A_TOKEN"]),
            ("/bin/sh -c #(nop)  ENV DB_PASSWORD=correct horse", "/bin/sh -c #(nop)  ENV DB_PASSWORD=(hidden)", &["DB_PASSWORD"]),
            ("ENV DB_PASSWORD=correct horse", "ENV DB_PASSWORD=(hidden)", &["DB_PASSWORD"]),
            ("|9 no names", "|9 no names", &[]),
            ("|1 A=é /bin/sh -c é A_TOKEN=é é", "|1 A=é /bin/sh -c é A_TOKEN=(hidden) é", &["A_TOKEN"]),
            ("/bin/sh -c make test=1 # x=y", "/bin/sh -c make test=1 # x=y", &[]),
        ] {
            let (shown, secrets) = without_secrets(created_by);
            assert_eq!(
                (shown.as_str(), &secrets[..]),
                (expected, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()[..])
            );
        }
    }
}
