//! One image's requests: authorization, redirects, retries, bounded bodies.
//!
//! Invariant: nothing is asked past the deadline, and errors hold neither addresses that may be
//! signed nor authorizations.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use super::auth::{self, Challenge, Token};
use super::short;
use crate::Error;
use crate::oci::{Credential, Credentials, Reference};

/// The wait before the first retry; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that a registry does not ask for.
const MAX_WAIT: Duration = Duration::from_secs(8);
/// How many redirects are followed in a row.
const MAX_REDIRECTS: usize = 5;
/// The longest answer of a token server, and of a failure.
const MAX_NOTE_BYTES: usize = 1 << 20;

/// A conversation about one image.
pub(super) struct Access<'a> {
    client: &'a Client,
    reference: &'a Reference,
    credentials: Option<&'a dyn Credentials>,
    base: Url,
    time: Duration,
    until: Instant,
    authorization: Option<HeaderValue>,
}

/// What a registry sent.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) digest_header: Option<String>,
}

/// Why an attempt failed.
enum Failure {
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

impl<'a> Access<'a> {
    pub(super) fn new(
        client: &'a Client,
        reference: &'a Reference,
        credentials: Option<&'a dyn Credentials>,
        time: Duration,
    ) -> Result<Self, Error> {
        let host = if reference.host() == "docker.io" { "registry-1.docker.io" } else { reference.host() };
        let secure = Url::parse(&format!("https://{host}/v2/{}/", reference.path()));
        let base = secure.and_then(|url| match auth::is_loopback(&url) {
            true => Url::parse(&format!("http://{host}/v2/{}/", reference.path())),
            false => Ok(url),
        });
        let base = base.map_err(|error| Error::Registry {
            reference: reference.to_string(),
            reason: format!("{host} is not an address: {error}; correct the host or its port"),
            transient: false,
        })?;
        Ok(Self { client, reference, credentials, base, time, until: Instant::now() + time, authorization: None })
    }

    /// Gets `path` of the image's repository, `limit` bytes at most.
    pub(super) async fn fetch(&mut self, path: &str, accept: &[&str], limit: usize) -> Result<Body, Error> {
        let url = self.base.join(&format!("./{path}")).map_err(|error| self.failed(&error.to_string(), false))?;
        let accept = accept.join(", ");
        let mut wait = FIRST_WAIT;
        loop {
            let until = self.until;
            let (error, asked) = match timeout_at(until, self.attempt(&url, &accept, limit)).await {
                Ok(Ok(body)) => return Ok(body),
                Ok(Err(Failure::Final(error))) => return Err(error),
                Ok(Err(Failure::Later(error, asked))) => (error, asked),
                Err(_) => {
                    let what = format!("{} did not answer within {:?}; try again later", self.reference.host(), self.time);
                    return Err(self.failed(&what, true));
                }
            };
            let pause = asked.unwrap_or(wait).max(FIRST_WAIT);
            if Instant::now() + pause >= until {
                return Err(error);
            }
            sleep(pause).await;
            wait = (wait * 2).min(MAX_WAIT);
        }
    }

    async fn attempt(&mut self, url: &Url, accept: &str, limit: usize) -> Result<Body, Failure> {
        let mut response = self.get(url, accept).await?;
        if response.status() == StatusCode::UNAUTHORIZED && response.url().origin() == self.base.origin() {
            self.log_in(response.headers()).await?;
            response = self.get(url, accept).await?;
        }
        if response.status() != StatusCode::OK {
            return Err(self.refused(self.reference.host(), response).await);
        }
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (media_type, digest_header) = (text(CONTENT_TYPE.as_str()).unwrap_or_default(), text("docker-content-digest"));
        Ok(Body { bytes: self.read(response, limit).await?, media_type, digest_header })
    }

    /// Asks once, following redirects.
    async fn get(&self, url: &Url, accept: &str) -> Result<Response, Failure> {
        let (mut url, mut authorization) = (url.clone(), self.authorization.clone());
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.get(url.clone()).header(ACCEPT, accept);
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value.clone());
            }
            let response = self.send(&url, request).await?;
            let location = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
            let Some(location) = location else { return Ok(response) };
            let location = location.to_str().map_err(|_| self.failed("it redirects to what is no address", false))?;
            let (next, keeps) = auth::redirected(&url, location).map_err(|what| self.failed(&what, false))?;
            url = next;
            authorization = authorization.filter(|_| keeps);
        }
        Err(self.failed(&format!("it redirects more than {MAX_REDIRECTS} times"), false).into())
    }

    async fn send(&self, to: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            let connecting = error.is_connect();
            let reason = reason(error);
            // What cannot be reached at all is told at once; what broke off may work again.
            let host = short(to.host_str().unwrap_or_default());
            let (what, transient) = match connecting {
                true if reason.contains("certificate") => ("has no valid certificate", false),
                true => ("cannot be reached", true),
                false => {
                    let what = format!("the connection to {host} broke: {reason}; try again later");
                    return Failure::Later(self.failed(&what, true), None);
                }
            };
            let remedy =
                if transient { "check the name and the network" } else { "have the system trust the authority that signed it" };
            Failure::Final(self.failed(&format!("{host} {what}: {reason}; {remedy}"), transient))
        })
    }

    /// Reads a body whole.
    async fn read(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, Failure> {
        if response.content_length().is_some_and(|length| length > limit as u64) {
            return Err(self.too_large(limit).into());
        }
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => return Err(self.too_large(limit).into()),
                Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes),
                Err(error) if is_reset(&error) => {
                    let what = format!("the connection broke: {}; try again later", reason(error));
                    return Err(Failure::Later(self.failed(&what, true), None));
                }
                Err(error) => {
                    let what = format!("it ends after {} bytes: {}", bytes.len(), reason(error));
                    return Err(self.untrue("content", &what).into());
                }
            }
        }
    }

    /// Answers the challenge of a registry.
    async fn log_in(&mut self, headers: &HeaderMap) -> Result<(), Failure> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(auth::challenges).collect();
        let credential = match self.credentials {
            Some(credentials) => credentials.find_for(self.reference.host(), self.reference.path()).await?,
            None => None,
        };
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        self.authorization = match (of("bearer"), of("basic"), credential) {
            (Some(challenge), _, credential) => Some(self.token(challenge, credential).await?),
            (None, Some(_), Some(credential)) => auth::basic(&credential),
            _ => None,
        };
        match self.authorization {
            Some(_) => Ok(()),
            None => Err(self.failed(&format!("a login is needed; run docker login {}", self.reference.host()), false).into()),
        }
    }

    /// Gets a token from the server that a challenge names.
    async fn token(&self, challenge: &Challenge, credential: Option<Credential>) -> Result<HeaderValue, Failure> {
        let parameter = |name: &str| challenge.parameters.get(name).map(String::as_str);
        let realm = parameter("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or_else(|| self.failed("it asks for a token and names no token server", false))?;
        if !auth::trusted(&self.base, &realm) {
            let host = short(realm.host_str().unwrap_or_default());
            let what = format!("its token server {host:?} is not reached over https; nothing was sent there");
            return Err(self.failed(&what, false).into());
        }
        let scope = format!("repository:{}:pull", self.reference.path());
        let mut fields = vec![("scope", parameter("scope").unwrap_or(&scope))];
        fields.extend(parameter("service").map(|service| ("service", service)));
        let request = match &credential {
            Some(Credential { username, secret }) if username.is_empty() => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", env!("CARGO_PKG_NAME")),
                    ("refresh_token", secret),
                ]);
                self.client.post(realm.clone()).form(&fields)
            }
            Some(credential) => {
                let basic = auth::basic(credential).expect("base64 is a header's text");
                self.client.get(realm.clone()).query(&fields).header(AUTHORIZATION, basic)
            }
            None => self.client.get(realm.clone()).query(&fields),
        };
        let response = self.send(&realm, request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused("the token server", response).await);
        }
        let text = self.read(response, MAX_NOTE_BYTES).await?;
        let token = serde_json::from_slice::<Token>(&text).ok().and_then(Token::header);
        Ok(token.ok_or_else(|| self.failed("its token server answered without a token", false))?)
    }

    /// Says what a status means.
    async fn refused(&self, who: &str, response: Response) -> Failure {
        let (status, host) = (response.status(), self.reference.host());
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let note = match self.read(response, MAX_NOTE_BYTES).await {
            Ok(text) => note(&text),
            Err(_) => String::new(),
        };
        let code = status.as_u16();
        let (meaning, remedy) = match code {
            401 => ("says that the login is missing, wrong, or not for this image", format!("run docker login {host}")),
            403 => ("denies access to this image", "ask its owner for the right to pull".to_owned()),
            404 => ("has no such image", "check its name and tag".to_owned()),
            429 => ("has had too many requests", format!("wait, or run docker login {host}")),
            500.. => ("failed", "try again later".to_owned()),
            _ => ("answered with what is not understood", "check the image's name".to_owned()),
        };
        let error = self.failed(&format!("{who} {meaning} ({status}{note}); {remedy}"), code == 429 || code >= 500);
        if code == 429 || code >= 500 { Failure::Later(error, asked.map(Duration::from_secs)) } else { Failure::Final(error) }
    }

    /// The registry, or what lies between, could not do it.
    pub(super) fn failed(&self, reason: &str, transient: bool) -> Error {
        Error::Registry { reference: self.reference.to_string(), reason: reason.to_owned(), transient }
    }

    /// What came is not what it should be.
    pub(super) fn untrue(&self, thing: &str, what: &str) -> Error {
        let (reference, host) = (self.reference, self.reference.host());
        Error::Integrity(format!("{thing} of {reference} from {host}: {what}; nothing of it was used"))
    }

    /// What comes is larger than anything of its kind.
    pub(super) fn too_large(&self, limit: usize) -> Error {
        let mib = limit >> 20;
        Error::Resource(format!("{}: a manifest or config is larger than {mib} MiB; use another image", self.reference))
    }
}

/// What a registry says of a failure (the distribution specification's "Error Codes").
fn note(text: &[u8]) -> String {
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
fn is_reset(error: &reqwest::Error) -> bool {
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
