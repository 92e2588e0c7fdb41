//! A layer's blob, decompressed and checked on one thread while another reads what comes out.
//!
//! Invariant: however large the blob, a fixed number of pieces is in memory; whoever reads ends when the thread fails, and the
//! thread ends when nobody reads.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::LayerFile;
use crate::Digest;
use crate::oci::{Decompressor, Hashing, Limits};

/// What passes at once.
const PIECE_BYTES: usize = 256 << 10;
/// How many pieces wait to be read.
const PIECES: usize = 8;

/// What a blob was, once all of it has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// The digest of its bytes, and their number.
    pub(super) blob: (Digest, u64),
    /// The digest of what came out; none where the blob's digest says it already.
    pub(super) content: Option<Digest>,
    /// How many bytes came out.
    pub(super) content_bytes: u64,
}

/// Has `reading` read what is in a blob, at most `max_bytes`. Returns what it returns, and what passed.
pub(super) fn checked<T>(
    blob: Box<dyn Read + Send>,
    file: &LayerFile,
    max_bytes: u64,
    reading: impl FnOnce(&mut dyn Read) -> T,
) -> (T, io::Result<Passed>) {
    let (pieces, queue) = sync_channel(PIECES);
    // What is not compressed is hashed once, on the other thread.
    let is_plain = file.digest == Some(file.diff_id);
    std::thread::scope(|scope| {
        let blob = scope.spawn(move || decompress(blob, max_bytes, &pieces));
        let mut reader = Pieces::new(queue);
        let (result, content) = if is_plain {
            (reading(&mut reader), None)
        } else {
            let mut hashing = Hashing::new(&mut reader);
            let result = reading(&mut hashing);
            (result, Some(hashing.finish().1))
        };
        drop(reader);
        let passed = blob.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, passed.map(|(blob, content_bytes)| Passed { blob, content, content_bytes }))
    })
}

/// Sends what is in a blob, and the error that ends it.
fn decompress(
    blob: Box<dyn Read + Send>,
    max_bytes: u64,
    pieces: &SyncSender<io::Result<Vec<u8>>>,
) -> io::Result<((Digest, u64), u64)> {
    let mut blob = Hashing::new(blob);
    let mut content_bytes = 0;
    let sent = Decompressor::new(&mut blob, Limits { max_bytes, ..Limits::default() }).and_then(|mut content| {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let mut filled = 0;
            while filled < piece.len() {
                match content.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let is_end = filled < piece.len();
            piece.truncate(filled);
            content_bytes += filled as u64;
            // Whoever stopped reading knows why.
            if pieces.send(Ok(piece)).is_err() || is_end {
                return Ok(());
            }
        }
    });
    if let Err(error) = sent {
        let kind = error.kind();
        let _ = pieces.send(Err(error));
        return Err(kind.into());
    }
    let (_, digest, size_bytes) = blob.finish();
    Ok(((digest, size_bytes), content_bytes))
}

/// Reads what a queue brings, and the error that ends it.
pub(super) struct Pieces {
    queue: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    pub(super) fn new(queue: Receiver<io::Result<Vec<u8>>>) -> Self {
        Self { queue, piece: Vec::new(), at: 0 }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            let Ok(next) = self.queue.recv() else { return Ok(0) };
            (self.piece, self.at) = (next?, 0);
        }
        let count = buffer.len().min(self.piece.len() - self.at);
        buffer[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
