//! BuildKit daemons as solvers: dockerd's embedded BuildKit and buildkitd.
//!
//! How a job goes:
//!
//! 1. An [`Address`] is parsed, or [`locate`]d among what is configured on the machine.
//! 2. The connection is opened: HTTP/2 on `/grpc` of dockerd's API, or on buildkitd's own socket.
//! 3. The session offers the daemon what the job needs of the client, and nothing else.
//! 4. `Control.Solve` runs without a definition for the whole job. That is BuildKit's client-side
//!    gateway, the one way in which an image's config reaches every daemon; `LLBBridge` calls
//!    resolve images and solve definitions in it, and its `Return` starts the exports.
//! 5. `Control.Status` runs beside it and is the job's progress.
//!
//! # Limits
//!
//! - Unix sockets and TCP, with TLS or without; no `ssh://`, `docker-container://`, `kube-pod://`.
//! - A definition has to fit one message: see [`Job::solve`](crate::solver::Job::solve), which
//!   refuses a larger one before anything is sent.
//! - dockerd with its own image store exports `oci` and `docker` archives not at all.

pub mod address;
mod connection;
mod docker;
mod export;
mod fault;
mod gateway;
mod load;
pub mod locate;
mod messages;
mod save;
pub(crate) mod session;
mod status;
mod transport;

#[cfg(target_os = "linux")]
pub(crate) use session::{Glob, Matched, Patterns, has_wildcard};

use async_trait::async_trait;

pub use address::{Address, Place, Protocol, TlsFiles};
pub use load::{engine_sockets, load};
pub use locate::{Located, Lookup, default_sockets, locate};
pub use save::{image_id, save};

use crate::solver::{Job, JobOptions, ProgressSender, Solver};
use crate::{Digest, Error};

/// A BuildKit daemon. Every job has connections of its own.
#[derive(Clone, Debug)]
pub struct Buildkit {
    address: Address,
}

impl Buildkit {
    /// Names a daemon; nothing is connected yet.
    pub fn new(address: Address) -> Self {
        Self { address }
    }
}

#[async_trait]
impl Solver for Buildkit {
    fn name(&self) -> String {
        let kind = match self.address.protocol {
            Protocol::Docker => "docker",
            Protocol::Buildkit => "buildkitd",
        };
        format!("{kind} at {}", self.address)
    }

    async fn identity(&self) -> Result<Digest, Error> {
        Ok(connection::Connection::open(&self.address).await?.identity)
    }

    async fn open(&self, options: JobOptions, progress: ProgressSender) -> Result<Box<dyn Job>, Error> {
        Ok(Box::new(gateway::GatewayJob::open(self.name(), &self.address, options, progress).await?))
    }
}
