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
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    dest: PathBuf,
    committed: bool,
}

impl Staged {
    /// Puts the archive in place of what was there.
    pub(super) fn commit(mut self) -> Result<(), Error> {
        std::fs::rename(&self.temporary, &self.dest).map_err(|error| failed(&self.dest, error))?;
        self.committed = true;
        sync_folder(&self.dest).map_err(|error| failed(&self.dest, error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // There is nobody to tell, and the name says what the file is.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Receives a whole archive. Nothing is left of it on any error. `id` is the job's.
pub(super) async fn receive(
    dest: &ArchiveDest,
    id: &str,
    mut pieces: Streaming<Bytes>,
    failure: &Failure,
) -> Result<Option<Staged>, Status> {
    let (blocks, queue) = mpsc::channel(8);
    let mut writing = tokio::task::spawn_blocking({
        let (dest, id) = (dest.clone(), id.to_owned());
        move || write(&dest, &id, queue)
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

fn write(dest: &ArchiveDest, id: &str, mut queue: mpsc::Receiver<Block>) -> Result<Option<Staged>, Error> {
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
    let name = path.file_name().ok_or_else(|| failed(&path, io::ErrorKind::InvalidInput.into()))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.partial", id.chars().filter(char::is_ascii_alphanumeric).take(16).collect::<String>()));
    let temporary = path.with_file_name(temporary);

    let create = File::create_new(&temporary);
    let mut file = create.map_err(|error| failed(&path, error))?;
    let staged = Staged { temporary, dest: path, committed: false };
    let complete = pour(&mut queue, &mut file).and_then(|complete| file.sync_all().map(|()| complete));
    let complete = complete.map_err(|error| failed(&staged.dest, error))?;
    Ok(complete.then_some(staged))
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

/// Says what failed: a full disk is another matter than a bad path.
pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    if Error::is_exhausted(&error) {
        return Error::Resource(format!("{}: {error}; free some space or choose another place", path.display()));
    }
    Error::Output { path: path.to_owned(), source: error }
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
