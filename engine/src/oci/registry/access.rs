//! One endpoint's requests: authorization, redirects, retries, bounded bodies.
//!
//! Invariant: nothing is tried again past the deadline, and credentials go where
//! [`auth`](super::auth) says and nowhere else.

use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use super::answer::{self, Failure, Purpose};
use super::auth::{self, Challenge, Token};
use super::outgoing::Outgoing;
use super::{Registry, short};
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

/// A place that has an image: its registry or a mirror of that.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// The host as names and credentials have it.
    host: String,
    /// The repository's address, with a slash at its end.
    base: Url,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Endpoint {
    /// Names the repository of `reference` at `place`, a host that a path may follow.
    pub(super) fn new(place: &str, reference: &Reference) -> Result<Self, Error> {
        let place = if place == "docker.io" { "registry-1.docker.io" } else { place };
        let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
        let prefix = if prefix.is_empty() { String::new() } else { format!("{}/", prefix.trim_end_matches('/')) };
        let rest = format!("{host}/v2/{prefix}{}/", reference.path());
        let base = Url::parse(&format!("https://{rest}")).and_then(|url| match auth::is_loopback(&url) {
            true => Url::parse(&format!("http://{rest}")),
            false => Ok(url),
        });
        let base = base.map_err(|error| Error::Registry {
            reference: reference.to_string(),
            reason: format!("{} is not an address: {error}; correct the host or its port", short(host)),
            transient: false,
        })?;
        let host = if host == "registry-1.docker.io" { "docker.io" } else { host };
        Ok(Self { host: host.to_owned(), base, authorization: Mutex::default() })
    }
}

/// What is asked.
pub(super) struct Request<'r> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<&'r Outgoing>,
}

/// What a registry sent.
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) digest_header: Option<String>,
}

/// A conversation with an endpoint about one image.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    pub(super) registry: &'a Registry,
    pub(super) reference: &'a Reference,
    pub(super) credentials: Option<&'a dyn Credentials>,
    pub(super) endpoint: &'a Endpoint,
    pub(super) purpose: Purpose,
}

/// The time that is left, and the wait that comes next.
pub(super) struct Retries {
    time: Duration,
    until: Instant,
    wait: Duration,
}

impl Retries {
    pub(super) fn new(time: Duration) -> Self {
        Self { time, until: Instant::now() + time, wait: FIRST_WAIT }
    }

    /// Waits before the next attempt, or fails where there is to be none.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), Error> {
        let (error, asked) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Later(error, asked) => (error, asked),
        };
        let pause = asked.unwrap_or(self.wait).max(FIRST_WAIT);
        if Instant::now() + pause >= self.until {
            return Err(error);
        }
        sleep(pause).await;
        self.wait = (self.wait * 2).min(MAX_WAIT);
        Ok(())
    }
}

impl Access<'_> {
    /// Returns an address below the repository's.
    pub(super) fn url(&self, path: &str) -> Result<Url, Error> {
        self.endpoint.base.join(&format!("./{path}")).map_err(|error| self.failed(&error.to_string(), false))
    }

    /// Gets `path` of the image's repository, `limit` bytes at most.
    pub(super) async fn fetch(&self, path: &str, accept: &[&str], limit: usize, retries: &mut Retries) -> Result<Body, Error> {
        let url = self.url(path)?;
        loop {
            match self.within(retries, self.attempt(&url, accept, limit)).await {
                Ok(body) => return Ok(body),
                Err(failure) => retries.pause(failure).await?,
            }
        }
    }

    /// Bounds an attempt by the time that is left.
    pub(super) async fn within<T>(
        &self,
        retries: &Retries,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        timeout_at(retries.until, attempt).await.unwrap_or_else(|_| {
            let what = format!("{} did not answer within {:?}; try again later", self.endpoint.host, retries.time);
            Err(Failure::Final(self.failed(&what, true)))
        })
    }

    async fn attempt(&self, url: &Url, accept: &[&str], limit: usize) -> Result<Body, Failure> {
        let accept = HeaderValue::from_str(&accept.join(", ")).expect("media types are headers' text");
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        let response = self.ask(&Request { method: Method::GET, url: url.clone(), headers, body: None }).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(&self.endpoint.host, response).await);
        }
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (media_type, digest_header) = (text(CONTENT_TYPE.as_str()).unwrap_or_default(), text("docker-content-digest"));
        Ok(Body { bytes: self.read(response, limit).await?, media_type, digest_header })
    }

    /// Asks once, and once more where a login is asked for.
    pub(super) async fn ask(&self, request: &Request<'_>) -> Result<Response, Failure> {
        let known = self.endpoint.authorization.lock().await.clone();
        let response = self.follow(request, known.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != self.endpoint.base.origin() {
            return Ok(response);
        }
        // Requests beside this one may have got the same answer: one of them logs in.
        let mut authorization = self.endpoint.authorization.lock().await;
        if *authorization == known {
            *authorization = None;
            *authorization = Some(self.log_in(response.headers()).await?);
        }
        let known = authorization.clone();
        drop(authorization);
        self.follow(request, known).await
    }

    /// Asks, following redirects.
    async fn follow(&self, request: &Request<'_>, authorization: Option<HeaderValue>) -> Result<Response, Failure> {
        let mut authorization = authorization.filter(|_| request.url.origin() == self.endpoint.base.origin());
        let mut url = request.url.clone();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = request.headers.clone();
            headers.extend(authorization.clone().map(|value| (AUTHORIZATION, value)));
            let builder = self.registry.client.request(request.method.clone(), url.clone()).headers(headers);
            let response = match request.body {
                None => self.send(&url, builder).await?,
                Some(body) => self.send_body(&url, builder, body).await?,
            };
            let status = response.status();
            // What is written goes elsewhere only where it would be the same request.
            let leads = if reads { status.is_redirection() } else { matches!(status.as_u16(), 307 | 308) };
            let Some(location) = response.headers().get(LOCATION).filter(|_| leads) else { return Ok(response) };
            let (next, keeps) = self.located(&url, location)?;
            url = next;
            authorization = authorization.filter(|_| keeps);
        }
        Err(self.failed(&format!("it redirects more than {MAX_REDIRECTS} times"), false).into())
    }

    /// Reads where a registry points to, and whether the authorization may go there.
    pub(super) fn located(&self, from: &Url, location: &HeaderValue) -> Result<(Url, bool), Error> {
        let location = location.to_str().map_err(|_| self.failed("it redirects to what is no address", false))?;
        auth::redirected(from, location).map_err(|what| self.failed(&what, false))
    }

    async fn send(&self, to: &Url, request: RequestBuilder) -> Result<Response, Failure> {
        request.send().await.map_err(|error| {
            let connecting = error.is_connect();
            let reason = answer::reason(error);
            let (host, proxy) = (short(to.host_str().unwrap_or_default()), self.registry.proxies.on_way_to(to));
            let by = proxy.map(|proxy| format!(" through the proxy {proxy}")).unwrap_or_default();
            // What cannot be reached at all is told at once; what broke off may work again.
            let (what, remedy, transient) = match connecting {
                true if reason.contains("certificate") => {
                    ("has no valid certificate", "have the system trust the authority that signed it", false)
                }
                true if reason.contains("proxy authorization required") => {
                    ("cannot be reached", "name the proxy with its login, http://USER:PASSWORD@HOST:PORT", false)
                }
                true if proxy.is_some() => ("cannot be reached", "check the name and the proxy", true),
                true => ("cannot be reached", "check the name and the network", true),
                false => {
                    let what = format!("the connection to {host}{by} broke: {reason}; try again later");
                    return Failure::Later(self.failed(&what, true), None);
                }
            };
            Failure::Final(self.failed(&format!("{host} {what}{by}: {reason}; {remedy}"), transient))
        })
    }

    /// Sends what has a body, for as long as bytes of it are taken.
    async fn send_body(&self, to: &Url, request: RequestBuilder, body: &Outgoing) -> Result<Response, Failure> {
        let (body, sending) = body.open();
        let request = request.header(CONTENT_LENGTH, sending.size_bytes()).body(body);
        let sent = sending.watch(self.send(to, request)).await;
        if let Some(error) = sending.fault() {
            return Err(Failure::Final(error));
        }
        sent.unwrap_or_else(|| {
            let host = short(to.host_str().unwrap_or_default());
            Err(Failure::Later(self.failed(&format!("{host} takes nothing any more; try again later"), true), None))
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
                Err(error) if answer::is_reset(&error) => return Err(self.broke(error)),
                Err(error) => {
                    let what = format!("it ends after {} bytes: {}", bytes.len(), answer::reason(error));
                    return Err(self.untrue("content", &what).into());
                }
            }
        }
    }

    /// Answers the challenge of a registry.
    async fn log_in(&self, headers: &HeaderMap) -> Result<HeaderValue, Failure> {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(auth::challenges).collect();
        let host = &self.endpoint.host;
        let credential = match self.credentials {
            Some(credentials) => credentials.find_for(host, self.reference.path()).await?,
            None => None,
        };
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let authorization = match (of("bearer"), of("basic"), credential) {
            (Some(challenge), _, credential) => Some(self.token(challenge, credential).await?),
            (None, Some(_), Some(credential)) => auth::basic(&credential),
            _ => None,
        };
        Ok(authorization.ok_or_else(|| self.failed(&format!("a login is needed; run docker login {host}"), false))?)
    }

    /// Gets a token from the server that a challenge names.
    async fn token(&self, challenge: &Challenge, credential: Option<Credential>) -> Result<HeaderValue, Failure> {
        let parameter = |name: &str| challenge.parameters.get(name).map(String::as_str);
        let realm = parameter("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or_else(|| self.failed("it asks for a token and names no token server", false))?;
        if !auth::trusted(&self.endpoint.base, &realm) {
            let host = short(realm.host_str().unwrap_or_default());
            let what = format!("its token server {host:?} is not reached over https; nothing was sent there");
            return Err(self.failed(&what, false).into());
        }
        let scope = format!("repository:{}:{}", self.reference.path(), self.purpose.scope());
        let mut fields = vec![("scope", parameter("scope").unwrap_or(&scope))];
        fields.extend(parameter("service").map(|service| ("service", service)));
        let request = match &credential {
            Some(Credential { username, secret }) if username.is_empty() => {
                fields.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", env!("CARGO_PKG_NAME")),
                    ("refresh_token", secret),
                ]);
                self.registry.client.post(realm.clone()).form(&fields)
            }
            Some(credential) => {
                let basic = auth::basic(credential).expect("base64 is a header's text");
                self.registry.client.get(realm.clone()).query(&fields).header(AUTHORIZATION, basic)
            }
            None => self.registry.client.get(realm.clone()).query(&fields),
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
    pub(super) async fn refused(&self, who: &str, response: Response) -> Failure {
        let (status, asked) = (response.status(), answer::asked_wait(response.headers()));
        let note = match self.read(response, MAX_NOTE_BYTES).await {
            Ok(text) => answer::note(&text),
            Err(_) => String::new(),
        };
        let (meaning, remedy) = answer::meaning(status, self.purpose, &self.endpoint.host);
        let transient = answer::may_pass(status);
        let error = self.failed(&format!("{who} {meaning} ({status}{note}); {remedy}"), transient);
        if transient { Failure::Later(error, asked) } else { Failure::Final(error) }
    }

    /// Says what a status of the registry's means.
    pub(super) async fn unexpected(&self, response: Response) -> Failure {
        self.refused(&self.endpoint.host, response).await
    }

    /// A body broke off.
    pub(super) fn broke(&self, error: reqwest::Error) -> Failure {
        let what = format!("the connection broke: {}; try again later", answer::reason(error));
        Failure::Later(self.failed(&what, true), None)
    }

    /// The registry, or what lies between, could not do it.
    pub(super) fn failed(&self, reason: &str, transient: bool) -> Error {
        Error::Registry { reference: self.reference.to_string(), reason: reason.to_owned(), transient }
    }

    /// What came is not what it should be.
    pub(super) fn untrue(&self, thing: &str, what: &str) -> Error {
        let (reference, host) = (self.reference, &self.endpoint.host);
        Error::Integrity(format!("{thing} of {reference} from {host}: {what}; nothing of it was used"))
    }

    /// What comes is larger than anything of its kind.
    pub(super) fn too_large(&self, limit: usize) -> Error {
        let mib = limit >> 20;
        Error::Resource(format!("{}: a manifest or config is larger than {mib} MiB; use another image", self.reference))
    }
}
