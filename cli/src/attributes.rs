//! Values of the form `type=KIND,key=value`, as buildx takes them.
//!
//! Invariant: of attributes the type alone is ever shown; the others may hold secrets.

use std::collections::BTreeMap;

use crate::error::{Exit, Failure};

/// Refuses the value of a flag. Of its attributes none but the type is shown.
pub(crate) fn refused(flag: &str, kind: Option<&str>, what: &str) -> Failure {
    let kind = kind.map(|kind| format!(" type={kind}")).unwrap_or_default();
    Failure::say(Exit::Usage, format!("{flag}{kind}: {what}")).hint(match flag {
        "-o" => "for example -o type=oci,dest=hello.tar, -o type=registry, or -o FOLDER".to_owned(),
        _ => format!("for example {flag} type=registry,ref=localhost:5000/cache"),
    })
}

/// Reads a truth value as Go's `strconv.ParseBool` does.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The value of a flag, taken apart.
pub(crate) enum Given {
    /// A word alone.
    Word(String),
    /// Attributes, the type apart from the others.
    Attributes { kind: String, attrs: BTreeMap<String, String> },
}

/// Takes the value of a flag apart.
pub(crate) fn given(flag: &str, text: &str) -> Result<Given, Failure> {
    let fields = fields(text).map_err(|what| refused(flag, None, what))?;
    if let [(word, None)] = &fields[..] {
        return Ok(Given::Word(word.clone()));
    }
    let kind = fields.iter().rev().find(|(key, _)| key == "type").and_then(|(_, value)| value.clone());
    let mut attrs = BTreeMap::new();
    for (i, (key, value)) in fields.into_iter().enumerate() {
        let value = value.ok_or_else(|| refused(flag, kind.as_deref(), &format!("attribute {} has no value", i + 1)))?;
        attrs.insert(key, value);
    }
    attrs.remove("type");
    let kind = kind.ok_or_else(|| refused(flag, None, "the type is missing"))?;
    Ok(Given::Attributes { kind, attrs })
}

/// Splits `key=value,key=value` as a line of CSV: a field in double quotes may hold commas.
fn fields(text: &str) -> Result<Vec<(String, Option<String>)>, &'static str> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    loop {
        match characters.next() {
            Some('"') if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            Some('"') if quoted || field.is_empty() => quoted = !quoted,
            end @ (Some(',') | None) if !quoted => {
                let whole = std::mem::take(&mut field);
                fields.push(match whole.split_once('=') {
                    Some((key, value)) => (key.trim().to_lowercase(), Some(value.to_owned())),
                    None => (whole, None),
                });
                if end.is_none() {
                    return Ok(fields);
                }
            }
            Some(c) => field.push(c),
            None => return Err("a quote is not closed"),
        }
    }
}
