//! The files: docker's `config.json` and podman's `auth.json`, which have one shape.
//!
//! Invariant: no error quotes what a file holds, since that may be a secret.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::error::Category;

use super::{Credential, DOCKER_HUB, split_key};
use crate::Error;

/// The largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// What a file says of credentials.
#[derive(Default, Deserialize)]
pub(super) struct Config {
    auths: Option<BTreeMap<String, Option<Auth>>>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
    #[serde(skip)]
    file: PathBuf,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Config {
    /// Reads a file; one that is missing or empty says nothing.
    pub(super) async fn read(file: &Path) -> Result<Self, Error> {
        let unreadable = |reason: std::io::Error| {
            Error::Credentials(format!("{}: {reason}; make the file readable or remove it", file.display()))
        };
        let nothing = Self { file: file.to_owned(), ..Self::default() };
        match tokio::fs::metadata(file).await {
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                let reason = format!("{}: {} bytes are too many for a login file; repair it", file.display(), metadata.len());
                return Err(Error::Credentials(reason));
            }
            // A pipe or a device could block for ever.
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::Credentials(format!("{}: not a file; remove or replace it", file.display())));
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(nothing);
            }
            Err(error) => return Err(unreadable(error)),
        }
        let text = tokio::fs::read(file).await.map_err(unreadable)?;
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(nothing);
        }
        let config: Self = serde_json::from_slice(&text).map_err(|error| {
            let what = match error.classify() {
                Category::Data => "a value is not of the kind that docker writes",
                _ => "this is not JSON",
            };
            let (line, column) = (error.line(), error.column());
            Error::Credentials(format!("{}:{line}:{column}: {what}; repair the file or log in anew", file.display()))
        })?;
        Ok(Self { file: file.to_owned(), ..config })
    }

    /// Returns the helper for all hosts.
    pub(super) fn store(&self) -> Option<&str> {
        self.creds_store.as_deref().filter(|name| !name.is_empty())
    }

    /// Returns the helpers of hosts, namespaces left out.
    pub(super) fn helpers(&self) -> BTreeMap<String, &str> {
        let all = self.cred_helpers.iter().flatten();
        all.filter_map(|(key, name)| match (split_key(key), name.as_deref()) {
            ((host, ""), Some(name)) if !name.is_empty() => Some((host, name)),
            _ => None,
        })
        .collect()
    }

    /// Returns the helper to ask for a host: its own, else the one for all. An empty name for a
    /// host means none.
    pub(super) fn helper_for(&self, host: &str, path: Option<&str>) -> Option<&str> {
        match best(self.cred_helpers.iter().flatten(), host, path) {
            Some((_, name)) => name.as_deref().filter(|name| !name.is_empty()),
            None => self.store(),
        }
    }

    /// Returns what the file itself holds for a host.
    pub(super) fn auth_for(&self, host: &str, path: Option<&str>) -> Result<Option<Credential>, Error> {
        let Some((key, auth)) = best(self.entries(), host, path) else { return Ok(None) };
        if let Some(token) = full(&auth.identitytoken) {
            return Ok(Some(Credential { username: String::new(), secret: token.to_owned() }));
        }
        let (username, secret) = self.decode(key, auth)?;
        Ok(Some(Credential { username, secret }))
    }

    /// Returns the users that the file itself holds, by host.
    pub(super) fn users(&self) -> Result<Vec<(String, String)>, Error> {
        let mut users = Vec::new();
        for (key, auth) in self.entries() {
            if let (host, "") = split_key(key) {
                users.push((host, self.decode(key, auth)?.0));
            }
        }
        Ok(users)
    }

    /// The entries that hold anything: docker leaves empty ones where a helper has the secret.
    fn entries(&self) -> impl Iterator<Item = (&String, &Auth)> {
        let all = self.auths.iter().flatten().filter_map(|(key, auth)| Some((key, auth.as_ref()?)));
        all.filter(|(_, auth)| [&auth.auth, &auth.username, &auth.identitytoken].into_iter().any(|field| full(field).is_some()))
    }

    fn decode(&self, key: &str, auth: &Auth) -> Result<(String, String), Error> {
        let Some(encoded) = full(&auth.auth) else {
            return Ok((auth.username.clone().unwrap_or_default(), auth.password.clone().unwrap_or_default()));
        };
        let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let base64 = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
        let decoded = base64.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|text| text.split_once(':')) {
            Some((username, secret)) => Ok((username.to_owned(), secret.trim_matches('\0').to_owned())),
            None => {
                let (file, host) = (self.file.display(), split_key(key).0);
                let what = format!("{file}: the entry for {key:?} is not base64 of user:password; run docker login {host}");
                Err(Error::Credentials(what))
            }
        }
    }
}

/// Picks the entry with the longest namespace that holds `path`; of several for one host the one
/// whose key is written as docker writes it.
fn best<'a, V>(
    entries: impl Iterator<Item = (&'a String, &'a V)>,
    host: &str,
    path: Option<&str>,
) -> Option<(&'a String, &'a V)> {
    let within = |namespace: &str| {
        path.and_then(|path| path.strip_prefix(namespace)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    entries
        .filter(|(key, _)| {
            let (of, namespace) = split_key(key);
            of == host && (namespace.is_empty() || within(namespace))
        })
        .max_by_key(|(key, _)| (split_key(key).1.len(), *key == host || *key == DOCKER_HUB))
}

fn full(field: &Option<String>) -> Option<&str> {
    field.as_deref().filter(|text| !text.is_empty())
}
