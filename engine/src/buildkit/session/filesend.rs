//! `moby.filesync.v1.FileSend`: receives exports.
//!
//! One method has two wire types: an archive comes as pieces of bytes, a folder as `fsutil`
//! packets. The call's metadata names the export by its number in the job
//! (`buildkit-attachable-exporter-id`; old daemons have one export and name none), and the export
//! says which it is. Messages are therefore taken as bytes and decoded where they are used.
//!
//! Invariant: each export is received once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf as _, BufMut as _, Bytes};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};

use super::archive::{self, Staged};
use super::{Failure, MESSAGE_LIMIT_BYTES, folder};
use crate::Error;
use crate::solver::{ArchiveDest, Export};

/// Receives the job's exports.
pub(super) struct FileSend {
    id: String,
    outputs: Mutex<BTreeMap<usize, Output>>,
    any: bool,
    staged: Mutex<Vec<Staged>>,
    failure: Failure,
}

/// What is received.
#[derive(Clone)]
enum Output {
    Archive(ArchiveDest),
    Folder(PathBuf),
}

impl FileSend {
    /// Makes the receiver of those `exports` that are sent; numbers are places in `exports`.
    pub(super) fn new(id: &str, exports: &[Export], failure: Failure) -> Self {
        let received = |export: &Export| match export {
            Export::Archive { dest, .. } => Some(Output::Archive(dest.clone())),
            Export::Folder { dest } => Some(Output::Folder(dest.clone())),
            Export::Store { .. } | Export::Registry { .. } | Export::Layout { .. } => None,
        };
        let outputs: BTreeMap<_, _> =
            exports.iter().enumerate().filter_map(|(number, export)| Some((number, received(export)?))).collect();
        Self {
            id: id.to_owned(),
            any: !outputs.is_empty(),
            outputs: Mutex::new(outputs),
            staged: Mutex::new(Vec::new()),
            failure,
        }
    }

    /// Says whether no export is sent.
    pub(super) fn is_empty(&self) -> bool {
        !self.any
    }

    /// Puts what was received whole in its place.
    pub(super) fn commit(&self) -> Result<(), Error> {
        let staged = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        staged.into_iter().try_for_each(Staged::commit)
    }

    /// Answers one call.
    pub(super) async fn answer(self: Arc<Self>, request: http::Request<Incoming>) -> http::Response<tonic::body::Body> {
        if request.uri().path() != "/moby.filesync.v1.FileSend/DiffCopy" {
            return Status::unimplemented(format!("{} is not offered", request.uri().path())).into_http();
        }
        let mut grpc = tonic::server::Grpc::new(Raw).max_decoding_message_size(MESSAGE_LIMIT_BYTES);
        grpc.streaming(Call(self), request).await
    }

    fn take(&self, metadata: &tonic::metadata::MetadataMap) -> Result<Output, Status> {
        let named = metadata.get("buildkit-attachable-exporter-id").and_then(|id| id.to_str().ok()?.parse().ok());
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        let number = match named {
            Some(number) => number,
            None => outputs.keys().next().copied().unwrap_or_default(),
        };
        outputs.remove(&number).ok_or_else(|| Status::permission_denied(format!("export {number} is not expected")))
    }

    async fn archive(&self, dest: &ArchiveDest, pieces: Streaming<Bytes>) -> Result<(), Status> {
        let staged = archive::receive(dest, pieces, &self.failure).await?;
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).extend(staged);
        Ok(())
    }
}

type Answers = ReceiverStream<Result<Bytes, Status>>;

struct Call(Arc<FileSend>);

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = tonic::codegen::BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let filesend = Arc::clone(&self.0);
        Box::pin(async move {
            let output = filesend.take(request.metadata())?;
            let (answers, receiver) = mpsc::channel(64);
            tokio::spawn(async move {
                let received = match output {
                    Output::Archive(dest) => filesend.archive(&dest, request.into_inner()).await,
                    Output::Folder(dest) => {
                        folder::receive(&dest, &filesend.id, request.into_inner(), &answers, &filesend.failure).await
                    }
                };
                if let Err(status) = received {
                    // A daemon that is gone needs no answer.
                    let _ = answers.send(Err(status)).await;
                }
            });
            Ok(Response::new(ReceiverStream::new(receiver)))
        })
    }
}

/// Messages as they are on the wire.
#[derive(Clone, Copy)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
