//! Registries over HTTP: finds an image's digest and config, without its layers.
//!
//! Invariant: bytes are believed for their sha256 alone, and are bounded before they are kept.
//!
//! 1. [`Registry::resolve`] gets the manifest or index of a tag or digest.
//! 2. Of an index it takes the manifest for the platform.
//! 3. It gets that manifest's config.
//!
//! The protocol is the OCI distribution specification's; the documents are those of the OCI image
//! specification and docker's image manifest, version 2, schema 2. Plain http is spoken with
//! loopback addresses alone.

mod access;
mod auth;
mod document;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, NoProxy, Proxy};

use super::{Credentials, Reference};
use crate::op::Platform;
use crate::solver::ResolvedImage;
use crate::{Digest, Error};
use access::{Access, Body};
use document::{Descriptor, Document};

/// The largest manifest or index.
const MAX_MANIFEST_BYTES: usize = 4 << 20;
/// The largest config.
const MAX_CONFIG_BYTES: usize = 8 << 20;
/// How long a registry that fails is asked again, at most.
const MAX_TIME: Duration = Duration::from_secs(120);
/// How many indices may stand in each other.
const MAX_DEPTH: usize = 3;

/// What a client is told before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// The proxy's address; none where absent.
    pub proxy: Option<String>,
    /// The hosts that the proxy is not used for, as `NO_PROXY` has them; loopback never needs to
    /// be named.
    pub no_proxy: String,
}

/// A client of registries, which only reads. It takes nothing from the environment but where the
/// system's certificates are.
#[derive(Clone, Debug)]
pub struct Registry {
    client: Client,
}

impl Registry {
    /// Makes a client; nothing is connected yet.
    pub fn new(options: &RegistryOptions) -> Result<Self, Error> {
        let refused = |error: reqwest::Error| {
            let reason = access::reason(error);
            Error::Connect { address: options.proxy.clone().unwrap_or_else(|| "registries".to_owned()), reason }
        };
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_secs(15))
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        if let Some(proxy) = &options.proxy {
            let direct = format!("localhost,127.0.0.0/8,::1,{}", options.no_proxy);
            builder = builder.proxy(Proxy::all(proxy).map_err(refused)?.no_proxy(NoProxy::from_string(&direct)));
        }
        Ok(Self { client: builder.build().map_err(refused)? })
    }

    /// Finds an image: the digest of its manifest or index, and its config for `platform`.
    ///
    /// Without tag and digest `latest` is taken; of both, the digest. Failures that may pass (429,
    /// 5xx, broken connections) are retried until `deadline`, two minutes at most; then, and for
    /// images that do not exist or may not be read, it fails with [`Error::Registry`]; for bytes
    /// that are not what they should be with [`Error::Integrity`]; past 4 MiB of manifest or 8 MiB
    /// of config with [`Error::Resource`].
    pub async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        credentials: Option<&dyn Credentials>,
        deadline: Duration,
    ) -> Result<ResolvedImage, Error> {
        let mut access = Access::new(&self.client, reference, credentials, deadline.min(MAX_TIME))?;
        let name = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let top = access.fetch(&format!("manifests/{name}"), document::MANIFESTS, MAX_MANIFEST_BYTES).await?;
        let digest = verified(&access, &top, reference.digest(), None)?;
        let mut document = Document::read(&top.bytes, &top.media_type).map_err(|what| access.untrue("manifest", &what))?;
        for _ in 0..MAX_DEPTH {
            let Document::Index(index) = document else { break };
            let chosen = index.choose(platform).map_err(|what| access.failed(&what, false))?;
            let body = described(&mut access, "manifests", chosen, document::MANIFESTS, MAX_MANIFEST_BYTES).await?;
            document = Document::read(&body.bytes, &chosen.media_type).map_err(|what| access.untrue("manifest", &what))?;
        }
        let Document::Manifest(config) = document else {
            return Err(access.failed("its indices stand too deep in each other", false));
        };
        if !document::CONFIGS.contains(&config.media_type.as_str()) {
            let what = format!("its config is {:?}, which no image has", short(&config.media_type));
            return Err(access.untrue("manifest", &what));
        }
        let body = described(&mut access, "blobs", &config, &["*/*"], MAX_CONFIG_BYTES).await?;
        if !serde_json::from_slice(&body.bytes).is_ok_and(|value: serde_json::Value| value.is_object()) {
            return Err(access.untrue("config", "it is not a JSON object"));
        }
        Ok(ResolvedImage { digest: Some(digest), config: body.bytes })
    }
}

/// Gets what a descriptor names, and checks that it is that.
async fn described(
    access: &mut Access<'_>,
    kind: &str,
    descriptor: &Descriptor,
    accept: &[&str],
    limit: usize,
) -> Result<Body, Error> {
    if descriptor.size > limit as u64 {
        return Err(access.too_large(limit));
    }
    let body = access.fetch(&format!("{kind}/{}", descriptor.digest), accept, limit).await?;
    verified(access, &body, Some(descriptor.digest), Some(descriptor.size))?;
    Ok(body)
}

/// Checks bytes against what they were asked for by, else against what the registry itself says.
fn verified(access: &Access<'_>, body: &Body, expected: Option<Digest>, size: Option<u64>) -> Result<Digest, Error> {
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

/// The start of a text that a registry chose, for an error.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
