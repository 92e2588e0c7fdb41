//! Pulls: a repository's images and blobs, from mirrors first.
//!
//! Invariant: what a sink gets are the bytes from the offset on, in order and each once, however
//! often the connection breaks; with an image that is returned, every digest has been checked.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::access::{Access, Body, Request, Retries};
use super::answer::{Failure, Purpose};
use super::{MAX_TIME, Repository, short};
use crate::oci::descriptor::{Descriptor, MANIFESTS};
use crate::oci::document::{Document, MAX_MANIFEST_BYTES};
use crate::oci::hashing::Hashing;
use crate::oci::image::{self, Image, MAX_CONFIG_BYTES};
use crate::op::Platform;
use crate::{Digest, Error};

/// How many indices may stand in each other.
const MAX_DEPTH: usize = 3;
/// How long a mirror is tried where there is something else.
const MIRROR_TIME: Duration = Duration::from_secs(10);
/// How long a connection may bring nothing.
const STALL: Duration = Duration::from_secs(30);
/// How many pieces of a blob wait to be written.
const PIECES: usize = 16;

/// An image as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The digest of what the name stands for: a manifest or an index.
    pub digest: Digest,
    /// The image for the platform.
    pub image: Image,
}

/// A manifest, its config, and the digest of what the name stands for.
pub(super) struct Parts {
    pub(super) digest: Digest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) media_type: String,
    pub(super) config_bytes: Vec<u8>,
}

/// What a puller has of images' configs already.
#[async_trait]
pub trait Configs: Send + Sync {
    /// Returns a config that need not be fetched; asked before every fetch of one.
    async fn known(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error>;
}

impl Repository {
    /// Finds the image of the reference for `platform`: by its digest, else its tag, else `latest`.
    /// A config that `configs` knows is not fetched.
    ///
    /// Failures that may pass are retried until `deadline`, two minutes at most; the errors are
    /// those of [`Registry::resolve`](super::Registry::resolve).
    pub async fn image(&self, platform: &Platform, deadline: Duration, configs: Option<&dyn Configs>) -> Result<Found, Error> {
        let accesses: Vec<_> = self.endpoints.iter().map(|endpoint| self.access(endpoint, Purpose::Pull)).collect();
        let Parts { digest, manifest_bytes, media_type, config_bytes } =
            find_anywhere(accesses.into_iter(), platform, deadline, configs).await?;
        let image = Image::read(manifest_bytes, &media_type, config_bytes)
            .map_err(|cause| Error::Integrity(format!("manifest of {}: {cause}; nothing of it was used", self.reference)))?;
        Ok(Found { digest, image })
    }

    /// Writes a blob from `offset` on to `sink`, on a thread of its own, and gives the sink back.
    ///
    /// Broken connections are resumed where they broke, for as long as bytes come at least every
    /// two minutes. The number of bytes is checked; the digest only where `offset` is 0, else it is
    /// for the owner of the first part to check. At most three blobs of a
    /// [`Registry`](super::Registry) are under way at a time.
    pub async fn fetch_blob<W: Write + Send + 'static>(&self, descriptor: &Descriptor, offset: u64, sink: W) -> Result<W, Error> {
        let _turn = self.turn(Purpose::Pull).await;
        let (pieces, queue) = mpsc::channel(PIECES);
        let writing = tokio::task::spawn_blocking(move || pour(queue, sink));
        let fetched = self.stream(descriptor, offset, &pieces).await;
        drop(pieces);
        let written = writing.await.map_err(|_| Error::Resource("writing a blob broke off".to_owned()))?;
        let digest = descriptor.digest;
        let (sink, actual) = written.map_err(|error| unwritable(digest, error))?;
        fetched?;
        if offset == 0 && actual != digest {
            let what = format!("blob of {}: expected {digest}, got {actual}; nothing of it was used", self.reference);
            return Err(Error::Integrity(what));
        }
        Ok(sink)
    }

    async fn stream(&self, descriptor: &Descriptor, offset: u64, pieces: &mpsc::Sender<Bytes>) -> Result<(), Error> {
        let mut wanted = Wanted { descriptor, position: offset };
        let accesses: Vec<_> = self.endpoints.iter().map(|endpoint| self.access(endpoint, Purpose::Pull)).collect();
        let mut accesses = accesses.into_iter().peekable();
        while let Some(access) = accesses.next() {
            let is_last = accesses.peek().is_none();
            let streamed = wanted.stream(access, if is_last { MAX_TIME } else { MIRROR_TIME }, pieces).await;
            if is_last || streamed.is_ok() {
                return streamed;
            }
        }
        Ok(())
    }
}

/// Looks in one place after the other. A mirror that does not have it, or has something else, is
/// passed over; what the last place says is told.
pub(super) async fn find_anywhere<'a>(
    accesses: impl Iterator<Item = Access<'a>>,
    platform: &Platform,
    deadline: Duration,
    configs: Option<&dyn Configs>,
) -> Result<Parts, Error> {
    let deadline = deadline.min(MAX_TIME);
    let mut accesses = accesses.peekable();
    loop {
        let access = accesses.next().expect("the registry itself is the last place");
        let is_last = accesses.peek().is_none();
        let found = find(access, platform, if is_last { deadline } else { deadline.min(MIRROR_TIME) }, configs).await;
        if is_last || found.is_ok() {
            return found;
        }
    }
}

/// Finds what a reference stands for, and the manifest and config for a platform.
async fn find(access: Access<'_>, platform: &Platform, time: Duration, configs: Option<&dyn Configs>) -> Result<Parts, Error> {
    let mut retries = Retries::new(time);
    let reference = access.reference;
    let name = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    let untrue = |cause: &dyn std::fmt::Display| access.untrue("manifest", &cause.to_string());
    let top = access.fetch(&format!("manifests/{name}"), MANIFESTS, MAX_MANIFEST_BYTES, &mut retries).await?;
    let digest = verified(access, &top, reference.digest(), None)?;
    let (mut manifest_bytes, mut media_type) = (top.bytes, top.media_type);
    let mut document = Document::read(&manifest_bytes, &media_type).map_err(|cause| untrue(&cause))?;
    for _ in 0..MAX_DEPTH {
        let Document::Index(index) = document else { break };
        let chosen = index.choose(platform).map_err(|cause| access.failed(&cause.to_string(), false))?;
        let body = described(access, "manifests", chosen, MANIFESTS, MAX_MANIFEST_BYTES, &mut retries).await?;
        (manifest_bytes, media_type) = (body.bytes, chosen.media_type.clone());
        document = Document::read(&manifest_bytes, &media_type).map_err(|cause| untrue(&cause))?;
    }
    let Document::Manifest(manifest) = document else {
        return Err(access.failed("its indices stand too deep in each other", false));
    };
    image::check_config_type(&manifest).map_err(|cause| untrue(&cause))?;
    let known = match configs {
        Some(configs) => configs.known(manifest.config.digest).await?,
        None => None,
    };
    let config_bytes = match known {
        Some(bytes) => bytes,
        None => described(access, "blobs", &manifest.config, &["*/*"], MAX_CONFIG_BYTES, &mut retries).await?.bytes,
    };
    Ok(Parts { digest, manifest_bytes, media_type, config_bytes })
}

/// Gets what a descriptor names, and checks that it is that.
async fn described(
    access: Access<'_>,
    kind: &str,
    descriptor: &Descriptor,
    accept: &[&str],
    limit: usize,
    retries: &mut Retries,
) -> Result<Body, Error> {
    if descriptor.size_bytes > limit as u64 {
        return Err(access.too_large(limit));
    }
    let body = access.fetch(&format!("{kind}/{}", descriptor.digest), accept, limit, retries).await?;
    verified(access, &body, Some(descriptor.digest), Some(descriptor.size_bytes))?;
    Ok(body)
}

/// Checks bytes against what they were asked for by, else against what the registry itself says.
fn verified(access: Access<'_>, body: &Body, expected: Option<Digest>, size: Option<u64>) -> Result<Digest, Error> {
    let actual = Digest::of(&body.bytes);
    let told = body.digest_header.as_deref().filter(|told| told.starts_with("sha256:"));
    if let Some(expected) = expected.map(|digest| digest.to_string()).as_deref().or(told)
        && expected != actual.to_string()
    {
        let what = format!("expected {:?}, got {actual} in {} bytes", short(expected), body.bytes.len());
        return Err(access.untrue("content", &what));
    }
    if let Some(size) = size.filter(|size| *size != body.bytes.len() as u64) {
        return Err(access.untrue("content", &format!("{actual} has {} bytes, its descriptor says {size}", body.bytes.len())));
    }
    Ok(actual)
}

/// Writes what comes, and says what it was.
fn pour<W: Write>(mut queue: mpsc::Receiver<Bytes>, sink: W) -> io::Result<(W, Digest)> {
    let mut sink = Hashing::new(sink);
    while let Some(piece) = queue.blocking_recv() {
        sink.write_all(&piece)?;
    }
    sink.flush()?;
    let (sink, digest, _) = sink.finish();
    Ok((sink, digest))
}

fn unwritable(digest: Digest, source: io::Error) -> Error {
    if Error::is_exhausted(&source) {
        return Error::Resource(format!("blob {digest} cannot be kept: {source}; free some space"));
    }
    Error::Output { path: PathBuf::from(format!("blob {digest}")), source }
}

/// A blob, and how much of it is there.
struct Wanted<'d> {
    descriptor: &'d Descriptor,
    position: u64,
}

impl Wanted<'_> {
    /// Sends what is missing into the queue; a queue that nobody reads is the end.
    async fn stream(&mut self, access: Access<'_>, time: Duration, pieces: &mpsc::Sender<Bytes>) -> Result<(), Error> {
        let mut retries = Retries::new(time);
        while self.position < self.descriptor.size_bytes && !pieces.is_closed() {
            let begun = self.position;
            let streamed = match access.within(&retries, self.open(access)).await {
                Ok(response) => self.attempt(access, response, pieces).await,
                Err(failure) => Err(failure),
            };
            if self.position > begun {
                retries = Retries::new(time);
            }
            if let Err(failure) = streamed {
                retries.pause(failure).await?;
            }
        }
        Ok(())
    }

    /// Asks for what is missing. The answer begins at the position, or at 0.
    async fn open(&self, access: Access<'_>) -> Result<(Response, u64), Failure> {
        let Descriptor { digest, size_bytes, .. } = self.descriptor;
        let mut headers = HeaderMap::new();
        if self.position > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", self.position)).expect("digits are a header's text");
            headers.insert(RANGE, range);
        }
        let url = access.url(&format!("blobs/{digest}"))?;
        let response = access.ask(&Request { method: Method::GET, url, headers, body: None }).await?;
        let begins = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if begins_at(&response) == Some(self.position) => self.position,
            StatusCode::PARTIAL_CONTENT => {
                return Err(access.untrue("blob", "another part of it came than was asked for").into());
            }
            _ => return Err(access.unexpected(response).await),
        };
        match response.content_length().filter(|length| begins + length != *size_bytes) {
            Some(length) => {
                let what = format!("{digest} has {} bytes, its descriptor says {size_bytes}", begins + length);
                Err(access.untrue("blob", &what).into())
            }
            None => Ok((response, begins)),
        }
    }

    /// Reads an answer as far as it goes.
    async fn attempt(
        &mut self,
        access: Access<'_>,
        (mut response, mut at): (Response, u64),
        pieces: &mpsc::Sender<Bytes>,
    ) -> Result<(), Failure> {
        let later = |what: &str| Failure::Later(access.failed(what, true), None);
        loop {
            let chunk = timeout(STALL, response.chunk()).await.map_err(|_| later("the connection brings nothing any more"))?;
            let Some(mut chunk) = chunk.map_err(|error| access.broke(error))? else { break };
            // A server that knows no ranges begins at the start.
            let known = usize::try_from(self.position - at).unwrap_or(usize::MAX).min(chunk.len());
            at += chunk.len() as u64;
            drop(chunk.split_to(known));
            if self.position + chunk.len() as u64 > self.descriptor.size_bytes {
                let what = format!("{} is longer than its descriptor says", self.descriptor.digest);
                return Err(access.untrue("blob", &what).into());
            }
            self.position += chunk.len() as u64;
            if !chunk.is_empty() && pieces.send(chunk).await.is_err() {
                return Ok(());
            }
        }
        if self.position < self.descriptor.size_bytes {
            Err(later("the connection ended early; try again later"))
        } else {
            Ok(())
        }
    }
}

/// Returns the first byte's place of a partial answer (RFC 9110, section 14.4).
fn begins_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}
