//! Pushes: an image's blobs, then its manifest under a name.
//!
//! Invariant: a manifest is written only once everything that it names is there, and what the
//! registry has under its name afterwards has been checked.
//!
//! For each blob, in this order: it is there; the registry takes it over from another of its
//! repositories; it is sent in one request, as most registries and proxies like it best; where that
//! fails it is sent in chunks, each of which can be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::access::{Access, Request, Retries};
use super::answer::{Failure, Purpose};
use super::outgoing::Outgoing;
use super::{MAX_TIME, Repository};
use crate::oci::document::MAX_MANIFEST_BYTES;
use crate::oci::image::{Blob, Blobs, Image};
use crate::oci::{Descriptor, Reference};
use crate::{Digest, Error};

/// What is sent at once where it is not all.
const CHUNK_BYTES: u64 = 8 << 20;
/// The largest chunk that a registry may ask for at least.
const MAX_CHUNK_BYTES: u64 = 256 << 20;
/// How a registry says what chunks it takes at least.
const MIN_CHUNK: HeaderName = HeaderName::from_static("oci-chunk-min-length");
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

impl Repository {
    /// Pushes an image under the tag of the reference, else under its digest alone, and returns
    /// the digest that the registry has it under.
    ///
    /// Layers are read from `blobs`, and only those that the registry neither has nor can take over
    /// from `mounts`, other repositories of the same registry. Mirrors are left alone.
    pub async fn push(&self, image: &Image, blobs: Arc<dyn Blobs>, mounts: &[Reference]) -> Result<Digest, Error> {
        let registry = self.endpoints.last().expect("the registry itself is the last place");
        let access = self.access(registry, Purpose::Push);
        let sources: Vec<&str> = mounts
            .iter()
            .filter(|mount| mount.host() == self.reference.host() && mount.path() != self.reference.path())
            .map(Reference::path)
            .collect();
        let layers: BTreeMap<Digest, &Descriptor> = image.manifest.layers.iter().map(|blob| (blob.digest, blob)).collect();
        let uploads = layers.into_values().map(|descriptor| Upload { access, blobs: blobs.clone(), descriptor });
        try_join_all(uploads.map(|upload| self.upload(upload, &sources))).await?;
        let config = Arc::new(Config(image.config_bytes.clone()));
        self.upload(Upload { access, blobs: config, descriptor: &image.manifest.config }, &[]).await?;
        put_manifest(access, image).await
    }

    async fn upload(&self, upload: Upload<'_>, sources: &[&str]) -> Result<(), Error> {
        let _turn = self.turn(Purpose::Push).await;
        upload.push(sources).await
    }
}

/// A config as a blob.
struct Config(Vec<u8>);

impl Blobs for Config {
    fn open(&self, _: &Descriptor) -> std::io::Result<Box<dyn Blob>> {
        Ok(Box::new(std::io::Cursor::new(self.0.clone())))
    }
}

/// Writes the manifest, and checks what the registry has then.
async fn put_manifest(access: Access<'_>, image: &Image) -> Result<Digest, Error> {
    let digest = image.descriptor.digest;
    let name = access.reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
    let path = format!("manifests/{name}");
    let media_type = HeaderValue::from_str(&image.manifest.media_type).expect("a known media type is a header's text");
    let body = Outgoing::Bytes(Bytes::from(image.manifest_bytes.clone()));
    let request = Request {
        method: Method::PUT,
        url: access.url(&path)?,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]),
        body: Some(&body),
    };
    let mut retries = Retries::new(MAX_TIME);
    let response = loop {
        let failure = match access.within(&retries, access.ask(&request)).await {
            Ok(response) if response.status().is_success() => break response,
            Ok(response) => access.unexpected(response).await,
            Err(failure) => failure,
        };
        retries.pause(failure).await?;
    };
    let told = response.headers().get(DIGEST).and_then(|told| told.to_str().ok()?.parse().ok());
    let found = match told {
        Some(told) => told,
        None => {
            let accept = [image.manifest.media_type.as_str()];
            Digest::of(&access.fetch(&path, &accept, MAX_MANIFEST_BYTES, &mut retries).await?.bytes)
        }
    };
    if found != digest {
        let what = format!("{digest} was pushed, but the registry has {found} in its place");
        return Err(Error::Integrity(format!("{}: {what}; push it again", access.reference)));
    }
    Ok(digest)
}

/// A blob on its way to a repository.
pub(super) struct Upload<'a> {
    pub(super) access: Access<'a>,
    pub(super) blobs: Arc<dyn Blobs>,
    pub(super) descriptor: &'a Descriptor,
}

/// Where an upload goes on: an address that the registry chose, and the smallest chunk.
struct Session {
    url: Url,
    chunk_bytes: u64,
}

impl Upload<'_> {
    async fn push(&self, sources: &[&str]) -> Result<(), Error> {
        if self.is_there().await? {
            return Ok(());
        }
        let mut retries = Retries::new(MAX_TIME);
        let mut begun = self.mounted(sources).await;
        loop {
            let next = match begun.take() {
                Some(begun) => Ok(begun),
                None => self.begin("blobs/uploads/").await,
            };
            let failure = match next {
                Ok(Begun::There) => return Ok(()),
                Ok(Begun::Session(session)) => match self.send_whole(&session).await {
                    Ok(()) => return Ok(()),
                    Err(failure) if self.descriptor.size_bytes > CHUNK_BYTES => {
                        retries.pause(failure).await?;
                        return self.send_chunks().await;
                    }
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            retries.pause(failure).await?;
        }
    }

    /// Asks whether the repository has the blob already. A refusal is left to the upload to tell.
    async fn is_there(&self) -> Result<bool, Error> {
        let mut retries = Retries::new(MAX_TIME);
        let url = self.access.url(&format!("blobs/{}", self.descriptor.digest))?;
        let request = Request { method: Method::HEAD, url, headers: HeaderMap::new(), body: None };
        loop {
            let failure = match self.access.within(&retries, self.access.ask(&request)).await {
                Ok(response) if super::answer::may_pass(response.status()) => self.access.unexpected(response).await,
                Ok(response) => return Ok(response.status() == StatusCode::OK),
                Err(failure) => failure,
            };
            retries.pause(failure).await?;
        }
    }

    /// Has the registry take the blob over from another repository. It may open an upload instead,
    /// and where it says no there is nothing to tell: the blob is sent.
    async fn mounted(&self, sources: &[&str]) -> Option<Begun> {
        for source in sources {
            let path = format!("blobs/uploads/?mount={}&from={source}", self.descriptor.digest);
            if let Ok(begun) = self.begin(&path).await {
                return Some(begun);
            }
        }
        None
    }

    async fn begin(&self, path: &str) -> Result<Begun, Failure> {
        let body = Outgoing::Bytes(Bytes::new());
        let url = self.access.url(path)?;
        let request = Request { method: Method::POST, url, headers: HeaderMap::new(), body: Some(&body) };
        let response = self.access.ask(&request).await?;
        match response.status() {
            StatusCode::CREATED => Ok(Begun::There),
            StatusCode::ACCEPTED => Ok(Begun::Session(self.next(&request.url, &response)?)),
            _ => Err(self.access.unexpected(response).await),
        }
    }

    /// Reads where the upload goes on.
    fn next(&self, from: &Url, response: &Response) -> Result<Session, Error> {
        let headers = response.headers();
        let location = headers.get(LOCATION).ok_or_else(|| self.access.failed("it begins an upload nowhere", false))?;
        let (url, _) = self.access.located(from, location)?;
        let least = headers.get(MIN_CHUNK).and_then(|least| least.to_str().ok()?.parse().ok()).unwrap_or(0);
        Ok(Session { url, chunk_bytes: CHUNK_BYTES.max(least).min(MAX_CHUNK_BYTES) })
    }

    /// Sends the blob in one request.
    async fn send_whole(&self, session: &Session) -> Result<(), Failure> {
        let body = self.part(0, self.descriptor.size_bytes);
        let response = self.finish(session, &body).await?;
        match response.status() {
            StatusCode::CREATED | StatusCode::NO_CONTENT => Ok(()),
            // A proxy's limit, which chunks may pass.
            StatusCode::PAYLOAD_TOO_LARGE if self.descriptor.size_bytes > CHUNK_BYTES => {
                Err(Failure::Later(self.access.unexpected(response).await.error(), None))
            }
            _ => Err(self.access.unexpected(response).await),
        }
    }

    fn part(&self, start: u64, size_bytes: u64) -> Outgoing {
        Outgoing::Blob { blobs: self.blobs.clone(), descriptor: Box::new(self.descriptor.clone()), start, size_bytes }
    }

    /// Ends an upload with what is missing.
    async fn finish(&self, session: &Session, body: &Outgoing) -> Result<Response, Failure> {
        let mut url = session.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.descriptor.digest.to_string());
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        self.access.ask(&Request { method: Method::PUT, url, headers, body: Some(body) }).await
    }

    /// Sends the blob in chunks, each again where it has to be.
    pub(super) async fn send_chunks(&self) -> Result<(), Error> {
        let mut retries = Retries::new(MAX_TIME);
        let (mut at, mut furthest) = (None, 0);
        loop {
            let step = match at.take() {
                None => self.begin("blobs/uploads/").await.map(|begun| match begun {
                    Begun::There => None,
                    Begun::Session(session) => Some((session, 0)),
                }),
                Some((session, position)) if position < self.descriptor.size_bytes => {
                    match self.send_chunk(&session, position).await {
                        Ok(next) => Ok(Some(next)),
                        // Where it stands is asked for; an upload that is gone is begun again.
                        Err(failure) => {
                            retries.pause(failure).await?;
                            at = self.status(session).await;
                            continue;
                        }
                    }
                }
                Some((session, _)) => match self.finish(&session, &Outgoing::Bytes(Bytes::new())).await {
                    Ok(response) if response.status().is_success() => Ok(None),
                    Ok(response) => Err(self.access.unexpected(response).await),
                    Err(failure) => Err(failure),
                },
            };
            match step {
                Ok(None) => return Ok(()),
                Ok(Some((session, position))) => {
                    if position > furthest {
                        (retries, furthest) = (Retries::new(MAX_TIME), position);
                    }
                    at = Some((session, position));
                }
                Err(failure) => retries.pause(failure).await?,
            }
        }
    }

    /// Sends one chunk, and returns where the next one goes.
    async fn send_chunk(&self, session: &Session, position: u64) -> Result<(Session, u64), Failure> {
        let size = session.chunk_bytes.min(self.descriptor.size_bytes - position);
        let range = HeaderValue::from_str(&format!("{position}-{}", position + size - 1)).expect("digits are a header's text");
        let headers =
            HeaderMap::from_iter([(CONTENT_RANGE, range), (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))]);
        let body = self.part(position, size);
        let request = Request { method: Method::PATCH, url: session.url.clone(), headers, body: Some(&body) };
        let response = self.access.ask(&request).await?;
        match response.status() {
            StatusCode::ACCEPTED | StatusCode::NO_CONTENT | StatusCode::CREATED => {
                let next = Session { chunk_bytes: session.chunk_bytes, ..self.next(&session.url, &response)? };
                Ok((next, received(&response).unwrap_or(position + size)))
            }
            // It has another part of it than was thought.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Failure::Later(self.access.unexpected(response).await.error(), None)),
            _ => Err(self.access.unexpected(response).await),
        }
    }

    /// Asks how far an upload is; none where it has to be begun again.
    async fn status(&self, session: Session) -> Option<(Session, u64)> {
        let request = Request { method: Method::GET, url: session.url.clone(), headers: HeaderMap::new(), body: None };
        let response = self.access.ask(&request).await.ok()?;
        if response.status() != StatusCode::NO_CONTENT && response.status() != StatusCode::ACCEPTED {
            return None;
        }
        let next = self.next(&session.url, &response).unwrap_or(Session { url: session.url, chunk_bytes: CHUNK_BYTES });
        let position = received(&response).unwrap_or(0);
        (position <= self.descriptor.size_bytes).then_some((Session { chunk_bytes: session.chunk_bytes, ..next }, position))
    }
}

/// What a registry made of the wish to upload.
enum Begun {
    /// The blob is in the repository.
    There,
    /// The blob is to be sent.
    Session(Session),
}

/// Returns how many bytes a registry has of an upload (`Range: 0-end`). Registries that have none
/// write `0-0`, as if it were one: that byte is sent again.
fn received(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let end: u64 = range.trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    Some(if end == 0 { 0 } else { end + 1 })
}
