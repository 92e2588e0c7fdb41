//! Registries over HTTP: finds images, and pulls and pushes them.
//!
//! Invariant: bytes are believed for their sha256 alone, and are bounded before they are kept.
//!
//! 1. [`Registry::repository`] names an image's repository, with the mirrors that it may be read
//!    from; its requests share one login.
//! 2. [`Repository::image`] gets the manifest or index of a tag or digest, of an index the manifest
//!    for the platform, and that manifest's config. [`Registry::resolve`] is the same for those who
//!    only want the digest and the config.
//! 3. [`Repository::fetch_blob`] streams layers, [`Repository::push`] writes a whole image.
//!
//! The protocol is the OCI distribution specification's; the documents are in
//! [`document`](super::document). Plain http is spoken with loopback addresses alone.

mod access;
mod answer;
mod auth;
mod outgoing;
mod proxies;
mod pull;
mod push;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Credentials, Reference};
use crate::Error;
use crate::op::Platform;
use crate::solver::ResolvedImage;
use access::{Access, Endpoint};
use answer::Purpose;
pub use proxies::{Proxies, ProxyAddress};
pub use pull::{Configs, Found};

/// How long a registry that fails is asked again, at most.
const MAX_TIME: Duration = Duration::from_secs(120);
/// How many blobs are under way at a time, either way.
const MAX_BLOBS: usize = 3;

/// What a client is told before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryOptions {
    /// The proxies on the way.
    pub proxies: Proxies,
    /// For a registry, as [`Reference::host`] has it, the places that its images are read from
    /// first: `host[:port][/prefix]`, spoken to over https. A place that fails is passed over.
    pub mirrors: BTreeMap<String, Vec<String>>,
}

/// A client of registries. It takes nothing from the environment but where the system's
/// certificates are.
#[derive(Clone, Debug)]
pub struct Registry {
    client: Client,
    proxies: Arc<Proxies>,
    mirrors: Arc<BTreeMap<String, Vec<String>>>,
    /// Apart from each other: what is pushed may have to be pulled first.
    pulls: Arc<Semaphore>,
    pushes: Arc<Semaphore>,
}

/// An image's repository, with one login for all that is asked of it.
#[derive(Clone)]
pub struct Repository {
    registry: Registry,
    reference: Reference,
    credentials: Option<Arc<dyn Credentials>>,
    /// The mirrors in their order, then the registry itself.
    endpoints: Arc<[Endpoint]>,
}

impl Registry {
    /// Makes a client; nothing is connected yet.
    pub fn new(options: &RegistryOptions) -> Result<Self, Error> {
        let refused = |error: reqwest::Error| Error::Connect { address: "registries".to_owned(), reason: answer::reason(error) };
        let mut builder = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_secs(15))
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        for proxy in options.proxies.to_client().map_err(refused)? {
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(refused)?;
        let turns = || Arc::new(Semaphore::new(MAX_BLOBS));
        let (proxies, mirrors) = (Arc::new(options.proxies.clone()), Arc::new(options.mirrors.clone()));
        Ok(Self { client, proxies, mirrors, pulls: turns(), pushes: turns() })
    }

    /// Names the repository of an image; nothing is connected yet.
    pub fn repository(&self, reference: &Reference, credentials: Option<Arc<dyn Credentials>>) -> Result<Repository, Error> {
        let endpoints = self.endpoints(reference)?.into();
        Ok(Repository { registry: self.clone(), reference: reference.clone(), credentials, endpoints })
    }

    /// Returns the mirrors of a repository in their order, then its registry.
    fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        let mirrors = self.mirrors.get(reference.host()).into_iter().flatten().map(String::as_str);
        mirrors.chain([reference.host()]).map(|place| Endpoint::new(place, reference)).collect()
    }

    /// Returns the HTTP client, for files that are no images.
    #[cfg(target_os = "linux")]
    pub(crate) fn http_client(&self) -> Client {
        self.client.clone()
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
        let endpoints = self.endpoints(reference)?;
        let accesses =
            endpoints.iter().map(|endpoint| Access { registry: self, reference, credentials, endpoint, purpose: Purpose::Pull });
        let parts = pull::find_anywhere(accesses, platform, deadline, None).await?;
        if !serde_json::from_slice(&parts.config_bytes).is_ok_and(|value: serde_json::Value| value.is_object()) {
            return Err(Error::Integrity(format!("config of {reference}: it is not a JSON object; nothing of it was used")));
        }
        Ok(ResolvedImage { digest: Some(parts.digest), config: parts.config_bytes })
    }
}

impl Repository {
    /// Returns the image that it was named by.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    fn access<'a>(&'a self, endpoint: &'a Endpoint, purpose: Purpose) -> Access<'a> {
        let credentials = self.credentials.as_deref();
        Access { registry: &self.registry, reference: &self.reference, credentials, endpoint, purpose }
    }

    /// Waits until a blob may be under way.
    async fn turn(&self, purpose: Purpose) -> SemaphorePermit<'_> {
        let turns = match purpose {
            Purpose::Pull => &self.registry.pulls,
            Purpose::Push => &self.registry.pushes,
        };
        turns.acquire().await.expect("nobody closes the semaphore")
    }
}

/// The start of a text that a registry chose, for an error.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
