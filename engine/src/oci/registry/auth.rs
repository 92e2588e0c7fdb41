//! Authorization: what a registry asks for, and to whom the answer goes.
//!
//! Invariant: credentials go to the registry that they are for and to the token server that it
//! names over TLS, and nowhere else. The flows are distribution's (`spec/auth` there).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;
use serde::Deserialize;

use crate::oci::Credential;

/// One challenge of a `WWW-Authenticate` header (RFC 9110, section 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme, in lower case.
    pub(super) scheme: String,
    /// Its parameters, by names in lower case.
    pub(super) parameters: BTreeMap<String, String>,
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Token {
    /// Returns the token as a header; none where it is missing or no header's text.
    pub(super) fn header(self) -> Option<HeaderValue> {
        let token = self.token.into_iter().chain(self.access_token).find(|token| !token.is_empty())?;
        header(format!("Bearer {token}"))
    }
}

/// Returns the header of HTTP's own authentication.
pub(super) fn basic(credential: &Credential) -> Option<HeaderValue> {
    header(format!("Basic {}", STANDARD.encode(format!("{}:{}", credential.username, credential.secret))))
}

fn header(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Reads the challenges of a header; what is malformed ends the list.
pub(super) fn challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return challenges;
        }
        let (name, after) = (word.to_ascii_lowercase(), after.trim_start_matches([' ', '\t']));
        let Some(value) = after.strip_prefix('=') else {
            challenges.push(Challenge { scheme: name, parameters: BTreeMap::new() });
            rest = after;
            continue;
        };
        let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else { return challenges };
        let Some(challenge) = challenges.last_mut() else { return challenges };
        challenge.parameters.entry(name).or_insert(value);
        rest = after;
    }
}

/// Splits a token or a quoted string off.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// Says whether a token server at `realm` may be given the credentials of the registry at `base`:
/// over https any that the registry names, over http one on the same machine as the registry.
pub(super) fn trusted(base: &Url, realm: &Url) -> bool {
    match realm.scheme() {
        "https" => true,
        "http" => base.scheme() == "http" && is_loopback(base) && is_loopback(realm),
        _ => false,
    }
}

/// Says where a redirect leads and whether the authorization goes along: to the same scheme, host
/// and port alone. Never from https to http.
pub(super) fn redirected(from: &Url, location: &str) -> Result<(Url, bool), String> {
    let to = from.join(location).map_err(|error| format!("it redirects to what is no address: {error}"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok((to.clone(), from.origin() == to.origin())),
        (_, scheme) => Err(format!("it redirects from {} to {scheme}, which is refused", from.scheme())),
    }
}

/// Says whether an address leads to this machine by its form.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        || bare.parse().is_ok_and(|address: Ipv6Addr| address.is_loopback())
}

#[cfg(test)]
mod unit {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().expect("an address")
    }

    #[test]
    fn challenges_are_read_from_every_form() {
        let read = |text: &str| {
            let shown = challenges(text).into_iter().map(|c| {
                let parameters: Vec<String> = c.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("{}({})", c.scheme, parameters.join(";"))
            });
            shown.collect::<Vec<_>>().join(" ")
        };
        for (header, expected) in [
            (
                r#"Bearer realm="https://a.io/token",service="a.io",scope="repository:x:pull,push""#,
                "bearer(realm=https://a.io/token;scope=repository:x:pull,push;service=a.io)",
            ),
            (
                r#"Basic realm="a \"b\"", BEARER Realm = https://x , service=y"#,
                "basic(realm=a \"b\") bearer(realm=https://x;service=y)",
            ),
            ("Negotiate, Basic", "negotiate() basic()"),
            (r#"Bearer realm="unterminated"#, "bearer()"),
            ("realm=x", ""),
            (r#"Bearer "=="#, "bearer()"),
            ("", ""),
        ] {
            assert_eq!(read(header), expected, "{header}");
        }
    }

    #[test]
    fn token_servers_are_trusted_over_tls_or_on_this_machine() {
        for (base, realm, expected) in [
            ("https://a.io", "https://auth.b.io/token", true),
            ("https://a.io", "http://a.io/token", false),
            ("https://a.io", "http://localhost/token", false),
            ("http://localhost:5000", "http://127.0.0.1:5001/token", true),
            ("http://[::1]:5000", "http://localhost/token", true),
            ("http://localhost:5000", "http://evil.io/token", false),
            ("http://localhost:5000", "https://a.io/token", true),
            ("https://a.io", "ftp://a.io/token", false),
        ] {
            assert_eq!(trusted(&url(base), &url(realm)), expected, "{base} {realm}");
        }
    }

    #[test]
    fn redirects_never_step_down_and_keep_authorization_at_home() {
        for (from, location, expected) in [
            ("https://a.io/v2/x", "https://a.io/y", Some(true)),
            ("https://a.io/v2/x", "/y", Some(true)),
            ("https://a.io/v2/x", "https://a.io:444/y", Some(false)),
            ("https://a.io/v2/x", "//b.io/y", Some(false)),
            ("https://a.io/v2/x", "https://a.io.evil.io/y", Some(false)),
            ("https://a.io/v2/x", "http://a.io/y", None),
            ("https://a.io/v2/x", "file:///etc/passwd", None),
            ("http://localhost:5000/x", "https://localhost:5000/x", Some(false)),
            ("http://localhost:5000/x", "http://localhost:5001/x", Some(false)),
        ] {
            assert_eq!(redirected(&url(from), location).ok().map(|(_, keeps)| keeps), expected, "{from} {location}");
        }
    }
}
