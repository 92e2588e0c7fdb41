//! The services that this client offers a daemon during one job.
//!
//! Invariant: a daemon gets what the job's options name and nothing else, whatever it asks for:
//! files of the offered folders that [`LocalDir::admits`](crate::solver::LocalDir::admits) lets
//! through, the offered secrets, credentials for one registry at a time; what it sends lands in
//! the outputs that were asked for, or nowhere.
//!
//! 1. [`Session::methods`], [`Session::name`] and [`Session::shared_key`] go into the headers that
//!    open the session; a method that is not listed there is never called.
//! 2. [`Session::serve`] is the server of HTTP/2 on the connection.
//! 3. [`Session::commit`] puts staged archives in place. It is called once the solve has succeeded:
//!    a daemon that fails in the middle of an export closes the stream as if it were complete
//!    (`exporter/oci/export.go`, `containerd/images/archive`), so the stream's end alone says
//!    nothing. A session that is dropped without it leaves no trace of an archive.
//!
//! | service | module | source in BuildKit |
//! |---|---|---|
//! | `grpc.health.v1.Health` | [`health`] | `session/grpc.go` |
//! | `moby.filesync.v1.FileSync` | [`filesync`] | `session/filesync`, `tonistiigi/fsutil` |
//! | `moby.filesync.v1.FileSend` | [`filesend`] | the same |
//! | `moby.filesync.v1.Auth` | [`auth`] | `session/auth` |
//! | `moby.buildkit.secrets.v1.Secrets` | [`secrets`] | `session/secrets` |
//!
//! Not offered: `Upload`, `SSH`, and containerd's content store, which caches of type `local` need.

mod archive;
mod auth;
mod beneath;
mod filesend;
mod filesync;
mod folder;
mod followlinks;
mod glob;
mod health;
pub(crate) mod mode;
mod patterns;
mod secrets;
pub(crate) mod walk;

#[cfg(target_os = "linux")]
pub(crate) use folder::FolderWriter;
#[cfg(target_os = "linux")]
pub(crate) use glob::{Glob, has_wildcard};
#[cfg(target_os = "linux")]
pub(crate) use patterns::{Matched, Patterns};

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::SecretsServer;
use bollard_buildkit_proto::moby::filesync::v1::auth_server::AuthServer;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_server::FileSyncServer;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::Service as _;

use crate::solver::JobOptions;
use crate::{Digest, Error};

/// The largest message that a daemon may send: what new daemons allow themselves.
const MESSAGE_LIMIT_BYTES: usize = 16 << 20;

/// How long a silent connection is trusted, and how long it may take to answer a ping.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// The services of one job.
pub(crate) struct Session {
    id: String,
    shared_key: String,
    methods: Vec<String>,
    health: HealthServer<health::Health>,
    filesync: FileSyncServer<filesync::FileSync>,
    filesend: Arc<filesend::FileSend>,
    auth: AuthServer<auth::Auth>,
    secrets: SecretsServer<secrets::Secrets>,
    failure: Failure,
}

impl Session {
    /// Makes the services that `options` ask for. `id` is unique to the job.
    pub(crate) fn new(id: String, options: &JobOptions) -> Self {
        let failure = Failure::default();
        let mut methods =
            vec!["/grpc.health.v1.Health/Check".to_owned(), "/moby.buildkit.secrets.v1.Secrets/GetSecret".to_owned()];
        if !options.locals.is_empty() {
            methods.push("/moby.filesync.v1.FileSync/DiffCopy".to_owned());
        }
        let filesend = Arc::new(filesend::FileSend::new(&id, &options.exports, failure.clone()));
        if !filesend.is_empty() {
            methods.push("/moby.filesync.v1.FileSend/DiffCopy".to_owned());
        }
        if options.credentials.is_some() {
            methods.extend(
                ["Credentials", "FetchToken", "GetTokenAuthority", "VerifyTokenAuthority"]
                    .map(|method| format!("/moby.filesync.v1.Auth/{method}")),
            );
        }
        let filesync = filesync::FileSync::new(options.locals.clone(), failure.clone());
        let auth = auth::Auth::new(options.credentials.clone(), failure.clone());
        Self {
            id,
            shared_key: shared_key(options),
            methods,
            health: HealthServer::new(health::Health),
            filesync: FileSyncServer::new(filesync).max_decoding_message_size(MESSAGE_LIMIT_BYTES),
            filesend,
            auth: AuthServer::new(auth),
            secrets: SecretsServer::new(secrets::Secrets::new(options.secrets.clone())),
            failure,
        }
    }

    /// Returns the session's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the `/service/Method` paths that the daemon may call.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.methods.clone()
    }

    /// Returns the name that a daemon shows for the session.
    pub(crate) fn name(&self) -> &str {
        "client"
    }

    /// Returns the key under which a daemon keeps what was sent of the local folders, so that the
    /// next job sends only what changed: a hash of their names and places, which it does not tell.
    pub(crate) fn shared_key(&self) -> &str {
        &self.shared_key
    }

    /// Serves HTTP/2 on `io` until it closes. A peer that is gone without a word is noticed within
    /// 30 seconds. Dropping the future closes the connection.
    pub(crate) async fn serve<IO>(self: Arc<Self>, io: IO) -> Result<(), Error>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| {
            let session = Arc::clone(&self);
            async move { session.answer(request).await }
        });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(2 * PING_INTERVAL)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_connection(TokioIo::new(io), service)
            .await
            .map_err(|error| Error::Daemon { doing: "serving the session".to_owned(), reason: reason(&error) })
    }

    /// Puts the archives that were received whole in place of the old ones. Does nothing where the
    /// outputs have none.
    pub(crate) fn commit(&self) -> Result<(), Error> {
        self.filesend.commit()
    }

    /// Returns the first error on this side, if any, once: a file that could not be read, an
    /// archive that could not be written. The daemon only knows that something failed.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.failure.take()
    }

    async fn answer(&self, request: http::Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        match service.as_str() {
            "grpc.health.v1.Health" => self.health.clone().call(request).await,
            "moby.filesync.v1.FileSync" => self.filesync.clone().call(request).await,
            "moby.filesync.v1.FileSend" => Ok(Arc::clone(&self.filesend).answer(request).await),
            "moby.filesync.v1.Auth" => self.auth.clone().call(request).await,
            "moby.buildkit.secrets.v1.Secrets" => self.secrets.clone().call(request).await,
            _ => Ok(tonic::Status::unimplemented(format!("{} is not offered", request.uri().path())).into_http()),
        }
    }
}

/// The first error of a session, shared by its services.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// Keeps `error` unless there is one already, and returns what the daemon is told.
    fn record(&self, error: Error) -> tonic::Status {
        let status = tonic::Status::internal(error.to_string());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        status
    }

    fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn shared_key(options: &JobOptions) -> String {
    let mut text = String::new();
    for (name, local) in &options.locals {
        let path = local.path.canonicalize().unwrap_or_else(|_| local.path.clone());
        text.push_str(&format!("{name:?} {path:?}\n"));
    }
    Digest::of(text.as_bytes()).hex()
}

/// Joins an error and its sources: hyper's own text names only the outermost.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
