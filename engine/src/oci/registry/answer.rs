//! What registries answer, in words: statuses, notes, connections that break.
//!
//! Invariant: errors hold neither addresses that may be signed nor authorizations, and of what a
//! registry wrote they hold the start alone, escaped.

use std::error::Error as _;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::short;
use crate::Error;

/// Why an attempt failed.
pub(super) enum Failure {
    /// For good.
    Final(Error),
    /// For now; the registry may have said how long.
    Later(Error, Option<Duration>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Failure {
    /// Returns the error, whatever comes later.
    pub(super) fn error(self) -> Error {
        match self {
            Self::Final(error) | Self::Later(error, _) => error,
        }
    }
}

/// What is wanted of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Pull,
    Push,
}

impl Purpose {
    /// Returns the word that follows the repository in a token's scope.
    pub(super) fn scope(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

/// Says what a status means and what helps; `host` is the registry's.
pub(super) fn meaning(status: StatusCode, purpose: Purpose, host: &str) -> (&'static str, String) {
    match (status.as_u16(), purpose) {
        (401, _) => ("says that the login is missing, wrong, or not for this image", format!("run docker login {host}")),
        (403, Purpose::Pull) => ("denies access to this image", "ask its owner for the right to pull".to_owned()),
        (403, Purpose::Push) => ("denies writing to this repository", "ask its owner for the right to push".to_owned()),
        (404, Purpose::Pull) => ("has no such image", "check its name and tag".to_owned()),
        (404, Purpose::Push) => ("has no such repository", "check its name, or make it first".to_owned()),
        (413, _) => ("takes no request of this size", "have its proxy's limit raised".to_owned()),
        (429, _) => ("has had too many requests", format!("wait, or run docker login {host}")),
        (500.., _) => ("failed", "try again later".to_owned()),
        _ => ("answered with what is not understood", "check the image's name".to_owned()),
    }
}

/// Says whether the same request may succeed later.
pub(super) fn may_pass(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::REQUEST_TIMEOUT || status.is_server_error()
}

/// Returns how long a registry asks to wait: seconds, or the time until a date by its own clock.
pub(super) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| OffsetDateTime::parse(text, &Rfc2822).ok();
    (date(asked)? - date(text(DATE)?.trim())?).try_into().ok()
}

/// What a registry says of a failure (the distribution specification's "Error Codes"), as
/// `, "code: message"` or nothing.
pub(super) fn note(text: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Note {
        code: String,
        message: String,
    }
    #[derive(Deserialize)]
    struct Notes {
        errors: Vec<Note>,
    }
    let notes = serde_json::from_slice(text).unwrap_or(Notes { errors: Vec::new() });
    notes.errors.first().map(|note| format!(", {:?}", short(&format!("{}: {}", note.code, note.message)))).unwrap_or_default()
}

/// Says whether a body broke off by a reset: the registry's end of it did not end.
pub(super) fn is_reset(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(source) = cause {
        if let Some(io) = source.downcast_ref::<std::io::Error>() {
            return matches!(io.kind(), std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::ConnectionAborted);
        }
        cause = source.source();
    }
    false
}

/// Words an error without its address, which may be signed: its innermost causes.
pub(super) fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(source) = cause {
        texts.push(source.to_string());
        cause = source.source();
    }
    texts.dedup();
    short(&texts.split_off(texts.len().saturating_sub(2)).join(": "))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn waits_are_asked_for_in_seconds_or_until_a_date() {
        let asked = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                ((*name).try_into().expect("a header's name"), (*value).try_into().expect("a header's value"))
            });
            asked_wait(&pairs.collect()).map(|wait| wait.as_secs())
        };
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked(&[("retry-after", "120")]), Some(120));
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"), date]), Some(30));
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:07 GMT"), date]), None, "a date that is past");
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")]), None);
        assert_eq!(asked(&[("retry-after", "soon"), date]), None);
        assert_eq!(asked(&[]), None);
    }
}
