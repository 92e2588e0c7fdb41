//! Receives an archive as one stream of bytes, whole or not at all.
//!
//! Invariant: what stands at the destination is either what stood there before or a complete
//! archive. The bytes go to a temporary file in the same folder, are synced, and take the name only
//! when [`Staged::commit`] is called. Where the destination is no regular file (a pipe, a device)
//! or the standard output, bytes are handed on as they come.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::Failure;
use crate::Error;
use crate::oci::place;
pub(super) use crate::oci::place::failed;
use crate::solver::ArchiveDest;

/// A piece of an archive: `moby.filesync.packet.BytesMessage`, without a copy.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) data: Bytes,
}

/// Daemons send 4 KiB at a time; this much is gathered before the disk is asked.
const BLOCK_BYTES: usize = 256 << 10;

/// An archive that is complete but not yet in its place. Dropping it removes it.
pub(super) struct Staged {
    temporary: place::Staged,
    dest: PathBuf,
    /// Held open: it is locked as long as it is in use.
    _file: File,
}

impl Staged {
    /// Puts the archive in place of what was there.
    pub(super) fn commit(self) -> Result<(), Error> {
        let renamed = std::fs::rename(&self.temporary.0, &self.dest).and_then(|()| place::sync_folder(&self.dest));
        renamed.map_err(|error| failed(&self.dest, error))
    }
}

/// Receives a whole archive. Nothing is left of it on any error.
pub(super) async fn receive(
    dest: &ArchiveDest,
    mut pieces: Streaming<Bytes>,
    failure: &Failure,
) -> Result<Option<Staged>, Status> {
    let (blocks, queue) = mpsc::channel(8);
    let mut writing = tokio::task::spawn_blocking({
        let dest = dest.clone();
        move || write(&dest, queue)
    });
    // Without an end the writer lets go of what it has.
    let receiving = async move {
        let mut block = BytesMut::with_capacity(BLOCK_BYTES);
        while let Some(message) = pieces.message().await? {
            let piece = Piece::decode(message).map_err(|error| Status::invalid_argument(error.to_string()))?;
            block.extend_from_slice(&piece.data);
            // A writer that ended early has an error to tell.
            if block.len() >= BLOCK_BYTES && blocks.send(Block::Data(block.split().freeze())).await.is_err() {
                return Ok(());
            }
        }
        let _ = blocks.send(Block::Data(block.freeze())).await;
        let _ = blocks.send(Block::End).await;
        Ok::<(), Status>(())
    };
    let written = tokio::select! {
        biased;
        written = &mut writing => written,
        received = receiving => {
            let written = writing.await;
            received?;
            written
        }
    };
    written.map_err(|_| Status::internal("writing the archive broke off"))?.map_err(|error| failure.record(error))
}

enum Block {
    Data(Bytes),
    /// The archive is complete: without this the stream broke off.
    End,
}

fn write(dest: &ArchiveDest, mut queue: mpsc::Receiver<Block>) -> Result<Option<Staged>, Error> {
    let path = match dest {
        ArchiveDest::Stdout => {
            let mut output = io::stdout().lock();
            return pour(&mut queue, &mut output).map(|_| None).map_err(|error| failed(Path::new("standard output"), error));
        }
        // A link is followed: its target is replaced, not the link.
        ArchiveDest::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => return Err(failed(&path, io::ErrorKind::IsADirectory.into())),
        Ok(found) if !found.is_file() => {
            let mut output = File::options().write(true).open(&path).map_err(|error| failed(&path, error))?;
            return pour(&mut queue, &mut output).map(|_| None).map_err(|error| failed(&path, error));
        }
        _ => {}
    }
    place::sweep(&path);
    let (temporary, mut file) = place::begin(&path).map_err(|error| failed(&path, error))?;
    let complete = pour(&mut queue, &mut file).and_then(|complete| file.sync_all().map(|()| complete));
    let complete = complete.map_err(|error| failed(&path, error))?;
    Ok(complete.then_some(Staged { temporary, dest: path, _file: file }))
}

/// Writes what comes and says whether it came to its end.
fn pour(queue: &mut mpsc::Receiver<Block>, output: &mut dyn io::Write) -> io::Result<bool> {
    while let Some(block) = queue.blocking_recv() {
        match block {
            Block::Data(data) => output.write_all(&data)?,
            Block::End => {
                output.flush()?;
                return Ok(true);
            }
        }
    }
    Ok(false)
}
