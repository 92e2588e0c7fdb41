//! Registry credentials: where they come from and whom they are given to.

use async_trait::async_trait;

use crate::Error;

/// What a registry asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user; empty where [`Credential::secret`] is an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
}

/// Looks credentials up.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns what may be given to `host` (`host[:port]`; Docker Hub is `docker.io`), if anything.
    async fn find(&self, host: &str) -> Result<Option<Credential>, Error>;
}
