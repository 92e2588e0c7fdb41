//! A job's connection: the channel, the session's stream, and a watch over both.
//!
//! Invariant: whoever waits for the daemon also waits for [`Connection::lost`], so that a daemon
//! that dies or falls silent ends every wait.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::{HealthCheckRequest, health_client::HealthClient};
use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::address::{Address, Protocol};
use super::docker::{self, About};
use super::export::Exporters;
use super::fault;
use super::session::Session;
use super::transport::{self, HANDSHAKE_LIMIT, causes};
use crate::{Digest, Error};

/// What one message of a daemon may hold.
pub(super) const MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// How often a daemon is asked whether it lives, and how long it may take to say so: a black hole
/// is noticed in at most the sum. gRPC's own keepalive will not do, since Go's servers end
/// connections on which it comes more often than every five minutes.
const PULSE_INTERVAL: Duration = Duration::from_secs(10);
const PULSE_LIMIT: Duration = Duration::from_secs(15);
/// A piece of the session's stream, which on buildkitd goes through messages.
const PIECE_BYTES: usize = 32 * 1024;

/// An open connection; dropping it ends everything that runs on it.
pub(super) struct Connection {
    pub(super) address: Address,
    pub(super) exporters: Exporters,
    /// Tells the daemon from others at its address.
    pub(super) identity: Digest,
    channel: Channel,
    lost: watch::Receiver<Option<String>>,
    tasks: JoinSet<()>,
}

impl Connection {
    /// Connects, and makes sure that it is BuildKit that answers.
    pub(super) async fn open(address: &Address) -> Result<Self, Error> {
        let about = async {
            match address.protocol {
                Protocol::Docker => docker::about(address).await,
                Protocol::Buildkit => Ok(About { exporters: Exporters::Standalone, identity: String::new() }),
            }
        };
        // Asked at the same time; of two refusals, dockerd's own API tells more.
        let (About { exporters, identity }, greeted) = tokio::try_join!(about, async { Ok(greeted(address).await) })?;
        let (channel, workers) = greeted?;
        // Some dockerds call their only worker `moby`, all of them.
        let identity = Digest::of(format!("{identity}\n{}", workers.join("\n")).as_bytes());
        let (tell, lost) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(pulse(channel.clone(), tell));
        Ok(Self { address: address.clone(), exporters, identity, channel, lost, tasks })
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Runs `task` until it ends or the connection is dropped.
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Offers `session` to the daemon for as long as the connection is open.
    pub(super) async fn offer(&mut self, session: &Arc<Session>) -> Result<(), Error> {
        let mut headers = vec![
            ("x-docker-expose-session-uuid", session.id().to_owned()),
            ("x-docker-expose-session-name", session.name().to_owned()),
            ("x-docker-expose-session-sharedkey", session.shared_key().to_owned()),
        ];
        headers.extend(session.methods().into_iter().map(|method| ("x-docker-expose-session-grpc-method", method)));
        let serving = Arc::clone(session);
        match self.address.protocol {
            Protocol::Docker => {
                let io = transport::upgrade(&self.address, "/session", &headers).await?;
                // How it ends is the job's affair: the daemon fails what needed the session.
                self.spawn(async move { drop(serving.serve(io).await) });
            }
            Protocol::Buildkit => {
                let mut metadata = MetadataMap::new();
                for (name, value) in headers {
                    let value = AsciiMetadataValue::try_from(value)
                        .map_err(|_| self.address.refused(format!("{name} holds what no header can")))?;
                    metadata.append(name, value);
                }
                let (near, far) = tokio::io::duplex(16 * PIECE_BYTES);
                self.spawn(async move { drop(serving.serve(near).await) });
                self.spawn(carry(self.channel(), metadata, far));
            }
        }
        Ok(())
    }

    /// Waits until the daemon is gone, and says how that was seen.
    pub(super) async fn lost(&self) -> String {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection was given up".to_owned(),
        }
    }
}

/// Connects, and hears from BuildKit that it is there and which workers it has.
async fn greeted(address: &Address) -> Result<(Channel, Vec<String>), Error> {
    let (channel, fault) = transport::channel(address).await?;
    let mut client = ControlClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let asking = client.list_workers(control::ListWorkersRequest::default());
    match tokio::time::timeout(HANDSHAKE_LIMIT, asking).await {
        Ok(Ok(answer)) => {
            let mut workers: Vec<String> = answer.into_inner().record.into_iter().map(|worker| worker.id).collect();
            workers.sort_unstable();
            Ok((channel, workers))
        }
        Ok(Err(status)) => Err(address.refused(unlike(&status, fault.text(), address))),
        Err(_) => Err(address.refused(format!("it did not answer within {} s", HANDSHAKE_LIMIT.as_secs()))),
    }
}

/// Says what a first answer tells of who answered.
fn unlike(status: &Status, fault: Option<String>, address: &Address) -> String {
    match status.code() {
        _ if fault::is_lost(status) && fault.is_some() => {
            format!("it closed the connection: {}", fault.unwrap_or_default())
        }
        _ if fault::is_lost(status) => {
            let cause = std::error::Error::source(status).map(causes).unwrap_or_default();
            // Where a write fails first, TLS's word on the matter is never read.
            let uncertified = address.tls.as_ref().is_some_and(|tls| tls.identity.is_none());
            let guess = if uncertified { " (it may ask for a client certificate)" } else { "" };
            format!("it does not speak BuildKit's gRPC: {cause}{guess}")
        }
        Code::Unimplemented => "it speaks gRPC but is no BuildKit daemon".to_owned(),
        _ => format!("it refuses to answer: {}", status.message()),
    }
}

/// Asks whether the daemon lives. Any answer of its own will do, a refusal included.
async fn pulse(channel: Channel, tell: watch::Sender<Option<String>>) {
    let mut client = HealthClient::new(channel);
    loop {
        tokio::time::sleep(PULSE_INTERVAL).await;
        let reason = match tokio::time::timeout(PULSE_LIMIT, client.check(HealthCheckRequest::default())).await {
            Ok(Err(status)) if fault::is_lost(&status) => {
                let cause = std::error::Error::source(&status).map(causes).unwrap_or_default();
                format!("the connection broke: {cause}")
            }
            Ok(_) => continue,
            Err(_) => format!("it has not answered for {} s", PULSE_LIMIT.as_secs()),
        };
        tell.send_replace(Some(reason));
        return;
    }
}

/// Carries a session's stream in `Control.Session`'s messages.
async fn carry(channel: Channel, metadata: MetadataMap, io: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(io);
    let (send, pieces) = tokio::sync::mpsc::channel(4);
    let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(pieces));
    *request.metadata_mut() = metadata;
    let upwards = async move {
        loop {
            let mut data = vec![0; PIECE_BYTES];
            match read.read(&mut data).await {
                Ok(0) | Err(_) => return,
                Ok(length) => data.truncate(length),
            }
            if send.send(control::BytesMessage { data }).await.is_err() {
                return;
            }
        }
    };
    let downwards = async move {
        let mut client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let Ok(response) = client.session(request).await else { return };
        let mut messages = response.into_inner();
        while let Ok(Some(message)) = messages.message().await {
            if write.write_all(&message.data).await.is_err() {
                return;
            }
        }
        // The session's server sees the end; nothing is left to be told where that fails.
        drop(write.shutdown().await);
    };
    tokio::join!(upwards, downwards);
}
