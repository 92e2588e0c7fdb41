//! The client-side gateway: a job that is driven from here.
//!
//! Invariant: every wait ends when the daemon is lost or ends the job by itself; `Control.Solve`
//! lives exactly as long as the job, and dropping it is what cancels the daemon's work.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard_buildkit_proto::moby::buildkit::v1 as control;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as bridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::pb;
use http::uri::PathAndQuery;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::address::Address;
use super::connection::{Connection, MESSAGE_BYTES};
use super::export::{self, Exporters, Plan};
use super::messages::{EncodedSolveRequest, Listing, result_id, solve_request, unix_mode};
use super::session::Session;
use super::status::{Heard, follow};
use super::{docker, fault};
use crate::graph::Definition;
use crate::oci::{Credentials, Reference};
use crate::op::Platform;
use crate::solver::{Exported, FileInfo, Job, JobOptions, ProgressSender, ResolveMode, ResolvedImage, Solved, VertexProgress};
use crate::{Digest, Error};

/// How long a job's end is waited for where something else has failed already, and how long its
/// progress after that.
const PATIENCE: Duration = Duration::from_secs(1);
/// Where daemons say which job a call belongs to.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// Failures to solve in one call rather than at the first look at the result.
const EVALUATE: &str = "gateway.solve.evaluate";

/// How `Control.Solve` ended.
type Ending = Option<Result<BTreeMap<String, String>, Status>>;

/// A job on a daemon.
pub(super) struct GatewayJob {
    solver: String,
    connection: Connection,
    session: Arc<Session>,
    build_id: AsciiMetadataValue,
    caps: BTreeSet<String>,
    frontend_caps: BTreeSet<String>,
    plan: Plan,
    cache_imports: Vec<bridge::CacheOptionsEntry>,
    credentials: Option<Arc<dyn Credentials>>,
    /// `Control.Solve`: aborting it cancels the job on the daemon.
    solving: AbortHandle,
    ending: watch::Receiver<Ending>,
    /// The last vertex that progress called failed.
    failed: watch::Receiver<Option<VertexProgress>>,
    /// How much of the progress has been passed on.
    heard: Arc<Heard>,
}

impl Drop for GatewayJob {
    fn drop(&mut self) {
        self.solving.abort();
    }
}

impl GatewayJob {
    pub(super) async fn open(
        solver: String,
        address: &Address,
        options: JobOptions,
        progress: ProgressSender,
    ) -> Result<Self, Error> {
        let mut connection = Connection::open(address).await?;
        let plan = export::plan(&options.exports, connection.exporters, &solver)?;
        // A daemon tells outputs apart by the exporter's place in the request.
        let exports = plan.exporters.iter().map(|exporter| exporter.export.clone()).collect();
        let session = Arc::new(Session::new(random_id()?, &JobOptions { exports, ..options.clone() }));
        connection.offer(&session).await?;

        let reference = random_id()?;
        let request = solve_request(&reference, session.id(), &plan, &options);
        let (tell_ending, ending) = watch::channel(None);
        let mut client = ControlClient::new(connection.channel()).max_decoding_message_size(MESSAGE_BYTES);
        let solving = tokio::spawn(async move {
            let answer = client.solve(request).await;
            tell_ending.send_replace(Some(answer.map(|response| response.into_inner().exporter_response.into_iter().collect())));
        })
        .abort_handle();
        let (tell_failed, failed) = watch::channel(None);
        let heard = Arc::new(Heard::default());
        let client = ControlClient::new(connection.channel()).max_decoding_message_size(MESSAGE_BYTES);
        connection.spawn(follow(client, reference.clone(), progress, tell_failed, Arc::clone(&heard)));

        let mut job = Self {
            solver,
            session,
            build_id: AsciiMetadataValue::try_from(reference).map_err(|_| address.refused("an id is no header"))?,
            caps: BTreeSet::new(),
            frontend_caps: BTreeSet::new(),
            plan,
            cache_imports: options
                .cache_imports
                .iter()
                .map(|cache| bridge::CacheOptionsEntry {
                    r#type: cache.kind.clone(),
                    attrs: cache.attrs.clone().into_iter().collect(),
                })
                .collect(),
            credentials: options.credentials,
            solving,
            ending,
            failed,
            heard,
            connection,
        };
        job.learn_caps().await?;
        if job.plan.exporters.len() > 1 && !job.caps.contains(export::MULTIPLE) {
            let missing = vec![format!("{} (one output at a time)", export::MULTIPLE)];
            return Err(Error::Unsupported { solver: job.solver.clone(), missing });
        }
        Ok(job)
    }

    async fn learn_caps(&mut self) -> Result<(), Error> {
        let doing = "opening a job";
        let mut client = self.bridge();
        let pong = self.call(doing, client.ping(self.request(bridge::PingRequest {}))).await?;
        let pong = pong.map_err(|status| fault::job(&status, &[], doing))?;
        let enabled =
            |caps: Vec<control::apicaps::ApiCap>| caps.into_iter().filter(|cap| cap.enabled).map(|cap| cap.id).collect();
        self.caps = enabled(pong.llb_caps);
        self.frontend_caps = enabled(pong.frontend_api_caps);
        Ok(())
    }

    fn bridge(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.connection.channel()).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Calls a method of the bridge by its path, with a message or an answer that is this module's own.
    async fn unary<T: prost::Message + 'static, A: prost::Message + Default + 'static>(
        &self,
        path: &'static str,
        message: T,
    ) -> Result<Response<A>, Status> {
        let mut client = tonic::client::Grpc::new(self.connection.channel()).max_decoding_message_size(MESSAGE_BYTES);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let path = PathAndQuery::from_static(path);
        client.unary(self.request(message), path, tonic_prost::ProstCodec::<T, A>::default()).await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(BUILD_ID, self.build_id.clone());
        request
    }

    /// Waits for a call, for the job's end and for the daemon's; the call's own failure is left
    /// to the caller to read.
    async fn call<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Result<T, Status>, Error> {
        let answer = tokio::select! {
            biased;
            answer = call => answer,
            error = self.ended(doing) => return Err(error),
            reason = self.connection.lost() => return Err(Error::Daemon { doing: doing.to_owned(), reason }),
        };
        match answer {
            Ok(response) => Ok(Ok(response.into_inner())),
            Err(status) if !fault::is_lost(&status) && status.message().contains("no such job") => {
                // The job ended, and how it did says more.
                Err(tokio::time::timeout(PATIENCE, self.ended(doing)).await.unwrap_or_else(|_| fault::call(&status, doing)))
            }
            Err(status) => Ok(Err(status)),
        }
    }

    /// Waits until `Control.Solve` ends although nothing was returned to it.
    async fn ended(&self, doing: &str) -> Error {
        match self.ending().await {
            Some(Err(status)) => self.session.take_failure().unwrap_or_else(|| fault::job(&status, &self.names(), doing)),
            _ => Error::Daemon { doing: doing.to_owned(), reason: "it ended the job by itself".to_owned() },
        }
    }

    async fn ending(&self) -> Ending {
        let mut ending = self.ending.clone();
        // The sender goes without a word where the call was aborted.
        ending.wait_for(Option::is_some).await.map(|ending| ending.clone()).unwrap_or_default()
    }

    fn names(&self) -> Vec<String> {
        self.plan.names()
    }

    /// Waits until progress has said all it has to say, but not long for the next word.
    async fn finish_progress(&self) {
        loop {
            let before = self.heard.messages();
            let over = tokio::time::timeout(PATIENCE, self.heard.over()).await.is_ok();
            if over || self.heard.messages() == before {
                return;
            }
        }
    }

    /// Waits a little for progress to name the vertex that failed, so that its logs are there.
    async fn await_failed(&self) -> Option<VertexProgress> {
        let mut failed = self.failed.clone();
        let waiting = tokio::time::timeout(PATIENCE, failed.wait_for(Option::is_some)).await;
        waiting.ok()?.ok()?.clone()
    }

    /// What one message to the daemon may hold. buildkitd raised gRPC's 4 MiB to 16 MiB, and what
    /// can merge is newer than that; dockerd left it (seen on 20.10 and 26.1).
    fn message_limit(&self) -> usize {
        let raised = self.connection.exporters == Exporters::Standalone && self.caps.contains("mergeop");
        if raised { 16 * 1024 * 1024 } else { 4 * 1024 * 1024 }
    }
}

#[async_trait]
impl Job for GatewayJob {
    fn identity(&self) -> Digest {
        self.connection.identity
    }

    async fn resolve_image(&self, reference: &Reference, platform: &Platform, mode: ResolveMode) -> Result<ResolvedImage, Error> {
        let name = reference.clone().tagged().to_string();
        let doing = format!("resolving {name}");
        let request = self.request(bridge::ResolveImageConfigRequest {
            r#ref: name.clone(),
            platform: Some(pb::Platform {
                architecture: platform.architecture.clone(),
                os: platform.os.clone(),
                variant: platform.variant.clone(),
                os_version: platform.os_version.clone(),
                os_features: platform.os_features.clone(),
            }),
            resolve_mode: match mode {
                ResolveMode::Default => "default".to_owned(),
                ResolveMode::Pull => "pull".to_owned(),
            },
            log_name: format!("resolve {name}"),
            ..Default::default()
        });
        let mut client = self.bridge();
        let found = self.call(&doing, client.resolve_image_config(request)).await?;
        let found = found.map_err(|status| fault::image(&status, &name, &doing))?;
        // dockerd's own store knows images that were built or loaded by their config alone, and
        // says so by an empty digest; such an image can be named by its tag only. With containerd's
        // store every image has a manifest, and its digest resolves without a registry.
        let digest = match found.digest.as_str() {
            "" => None,
            text => {
                Some(text.parse::<Digest>().map_err(|error| Error::Daemon { doing: doing.clone(), reason: error.to_string() })?)
            }
        };
        Ok(ResolvedImage { digest, config: found.config })
    }

    async fn solve(&self, definition: &Definition) -> Result<Solved, Error> {
        let missing: Vec<String> = definition.caps().into_iter().filter(|cap| !self.caps.contains(cap)).collect();
        if !missing.is_empty() {
            return Err(Error::Unsupported { solver: self.solver.clone(), missing });
        }
        let evaluate = self.frontend_caps.contains(EVALUATE);
        let message = EncodedSolveRequest {
            definition: definition.encode().into(),
            allow_result_return: true,
            allow_result_array_ref: true,
            cache_imports: self.cache_imports.clone(),
            evaluate,
        };
        let (length, limit) = (prost::Message::encoded_len(&message), self.message_limit());
        if length > limit {
            return Err(Error::Resource(format!(
                "the definition of {} vertices takes {length} bytes, but {} takes {limit} at most; make its files smaller",
                definition.vertices().len(),
                self.solver
            )));
        }
        let calling = self.unary("/moby.buildkit.v1.frontend.LLBBridge/Solve", message);
        let mut answer = self.call("solving", calling).await?.map(result_id);
        if let (Ok(id), false) = (&answer, evaluate)
            && !id.is_empty()
        {
            // Looking at the result makes an old daemon compute it.
            let request = self.request(bridge::StatFileRequest { r#ref: id.clone(), path: ".".to_owned(), ..Default::default() });
            let mut client = self.bridge();
            if let Err(status) = self.call("solving", client.stat_file(request)).await? {
                answer = Err(status);
            }
        }
        match answer {
            Ok(id) => Ok(Solved { id }),
            Err(status) => {
                let failed = if fault::is_lost(&status) { None } else { self.await_failed().await };
                Err(self.session.take_failure().unwrap_or_else(|| fault::solve(&status, definition, failed.as_ref())))
            }
        }
    }

    async fn read_dir(&self, result: &Solved, path: &str) -> Result<Vec<FileInfo>, Error> {
        if result.id.is_empty() {
            return Ok(Vec::new());
        }
        let doing = format!("listing {path} of a result");
        let request = bridge::ReadDirRequest { r#ref: result.id.clone(), dir_path: path.to_owned(), ..Default::default() };
        let calling = self.unary("/moby.buildkit.v1.frontend.LLBBridge/ReadDir", request);
        let listed: Listing = self.call(&doing, calling).await?.map_err(|status| fault::call(&status, &doing))?;
        let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
        let mut files: Vec<FileInfo> = listed
            .entries
            .into_iter()
            .map(|stat| FileInfo {
                mode: unix_mode(stat.mode),
                uid: stat.uid,
                gid: stat.gid,
                size_bytes: u64::try_from(stat.size).unwrap_or_default(),
                link_name: text(stat.link_name),
                name: text(stat.path),
            })
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    async fn read_file(&self, result: &Solved, path: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        self.file(result, path, max_bytes).await
    }

    async fn export(self: Box<Self>, result: Solved, config: Vec<u8>) -> Result<Exported, Error> {
        let doing = "exporting";
        let request = self.request(bridge::ReturnRequest {
            result: Some(bridge::Result {
                metadata: [("containerimage.config".to_owned(), config)].into(),
                attestations: Default::default(),
                result: Some(bridge::result::Result::Ref(bridge::Ref { id: result.id, def: None })),
            }),
            error: None,
        });
        let mut client = self.bridge();
        // How the job ends is what counts, and a failing Return says nothing that this does not.
        let refused = tokio::select! {
            answer = client.r#return(request) => answer.err(),
            reason = self.connection.lost() => return Err(Error::Daemon { doing: doing.to_owned(), reason }),
        };
        if let Some(status) = refused
            && tokio::time::timeout(PATIENCE, self.ending()).await.is_err()
        {
            return Err(fault::call(&status, doing));
        }
        let ending = tokio::select! {
            ending = self.ending() => ending,
            reason = self.connection.lost() => return Err(Error::Daemon { doing: doing.to_owned(), reason }),
        };
        self.finish_progress().await;
        let response = match ending {
            Some(Ok(response)) => response,
            Some(Err(status)) => {
                return Err(self.session.take_failure().unwrap_or_else(|| fault::job(&status, &self.names(), doing)));
            }
            None => return Err(Error::Cancelled),
        };
        if let Some(failure) = self.session.take_failure() {
            return Err(failure);
        }
        self.session.commit()?;
        let mut response = export::response(response, self.connection.exporters, &self.plan);
        for name in &self.plan.pushes {
            let reference: Reference = name.parse().map_err(|error| fault::registry(name, format!("{error}")))?;
            let pushing = docker::push(&self.connection.address, &reference, self.credentials.as_deref());
            let digest = tokio::select! {
                digest = pushing => digest?,
                reason = self.connection.lost() => return Err(Error::Daemon { doing: format!("pushing {name}"), reason }),
            };
            response.insert(export::DIGEST.to_owned(), digest.to_string());
        }
        Ok(Exported { response })
    }

    async fn cancel(self: Box<Self>) {
        self.solving.abort();
        // Progress ends when the daemon has thrown the job away.
        self.finish_progress().await;
    }
}

/// Makes an id that no one can guess: who knows a session's id can use the session.
fn random_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Error::Resource(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
