//! Bodies of requests: bytes in memory, and parts of blobs that are read while they are sent.
//!
//! Invariant: a body can be sent again from its start, and a blob that cannot be read is told
//! apart from a connection that broke.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::Error;
use crate::oci::{Blobs, Descriptor};

/// What is read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// How many pieces wait to be sent.
const PIECES: usize = 4;
/// How long a registry may take no byte and give no answer.
const STALL: Duration = Duration::from_secs(120);

/// What is sent in a request.
pub(super) enum Outgoing {
    /// These bytes.
    Bytes(Bytes),
    /// A part of a blob.
    Blob { blobs: Arc<dyn Blobs>, descriptor: Box<Descriptor>, start: u64, size_bytes: u64 },
}

/// A body on its way.
pub(super) struct Sending {
    size_bytes: u64,
    taken: Arc<AtomicU64>,
    fault: Arc<Mutex<Option<Error>>>,
}

impl Outgoing {
    /// Begins to read; the body is to be sent while [`Sending::watch`] looks on.
    pub(super) fn open(&self) -> (reqwest::Body, Sending) {
        let sending = |size_bytes| Sending { size_bytes, taken: Arc::default(), fault: Arc::default() };
        match self {
            Self::Bytes(bytes) => (reqwest::Body::from(bytes.clone()), sending(bytes.len() as u64)),
            Self::Blob { blobs, descriptor, start, size_bytes } => {
                let sending = sending(*size_bytes);
                let (pieces, queue) = mpsc::channel(PIECES);
                let (blobs, descriptor, start, size_bytes) = (blobs.clone(), descriptor.clone(), *start, *size_bytes);
                let (taken, fault) = (sending.taken.clone(), sending.fault.clone());
                tokio::task::spawn_blocking(move || {
                    if let Err(source) = pour(&*blobs, &descriptor, start, size_bytes, &pieces, &taken) {
                        // Without the rest the request ends in an error, which this one explains.
                        let path = PathBuf::from(format!("blob {}", descriptor.digest));
                        let _ = fault.lock().unwrap_or_else(PoisonError::into_inner).insert(Error::File { path, source });
                        let _ = pieces.blocking_send(Err(io::Error::other("the blob cannot be read")));
                    }
                });
                (reqwest::Body::wrap(StreamBody::new(ReceiverStream::new(queue))), sending)
            }
        }
    }
}

/// Reads a part of a blob into the queue, as long as somebody takes from it.
fn pour(
    blobs: &dyn Blobs,
    descriptor: &Descriptor,
    start: u64,
    mut left: u64,
    pieces: &mpsc::Sender<io::Result<Frame<Bytes>>>,
    taken: &AtomicU64,
) -> io::Result<()> {
    let mut blob = blobs.open(descriptor)?;
    blob.seek(SeekFrom::Start(start))?;
    while left > 0 {
        let size = left.min(PIECE_BYTES);
        let mut piece = vec![0; usize::try_from(size).expect("a piece fits into memory")];
        blob.read_exact(&mut piece)?;
        if pieces.blocking_send(Ok(Frame::data(piece.into()))).is_err() {
            return Ok(());
        }
        taken.fetch_add(size, Ordering::Relaxed);
        left -= size;
    }
    Ok(())
}

impl Sending {
    /// Returns the number of bytes of the body.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns why the blob could not be read, where that is so.
    pub(super) fn fault(&self) -> Option<Error> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the answer; none where nothing moves for two minutes.
    pub(super) async fn watch<T>(&self, sending: impl Future<Output = T>) -> Option<T> {
        let mut sending = pin!(sending);
        let mut seen = None;
        loop {
            if let Ok(done) = timeout(STALL, &mut sending).await {
                return Some(done);
            }
            let taken = Some(self.taken.load(Ordering::Relaxed));
            if taken == seen {
                return None;
            }
            seen = taken;
        }
    }
}
