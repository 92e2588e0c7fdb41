//! Downloads that may break off: their bytes are kept for the next attempt, of any process.
//!
//! Invariant: a partial blob is written by who holds the lock on its file. What it holds is believed
//! only when the whole has the right digest; else all of it goes.

use std::fs;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use super::lock::{self, Locked};
use super::{Store, blob, fault};
use crate::{Digest, Error};

/// How much of an earlier attempt is read at once.
const BUFFER: usize = 128 * 1024;

/// What there is of a blob that is to be downloaded.
#[derive(Debug)]
pub enum Partial {
    /// All of it, held.
    Whole,
    /// Another thread or process is at it: who waits a little and asks again finds it whole.
    Busy,
    /// Some of it, or nothing; it is the caller's turn.
    Open(PartialBlob),
}

/// The bytes of a blob so far; they stay where it is dropped.
#[derive(Debug)]
pub struct PartialBlob {
    digest: Digest,
    path: PathBuf,
    file: Locked,
    hash: Sha256,
    offset: u64,
}

impl PartialBlob {
    /// Returns how many bytes are there.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Makes a blob of the bytes; returns its size.
    ///
    /// Fails with [`Error::Integrity`] where they are not what the digest says, and removes them.
    pub fn commit(mut self, store: &Store) -> Result<u64, Error> {
        let digest = Digest::from_sha256(self.hash.finalize_reset().into());
        if digest != self.digest {
            fs::remove_file(&self.path).map_err(|error| fault::file(&self.path, error))?;
            return Err(blob::mismatch(&self.digest, &digest, self.offset));
        }
        store.name_blob(&self.path, &self.file, &digest)?;
        Ok(self.offset)
    }

    fn resumed(digest: Digest, path: PathBuf, mut file: Locked) -> io::Result<Self> {
        let (mut hash, mut offset, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    hash.update(&buffer[..read]);
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { digest, path, file, hash, offset })
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Store {
    /// Starts the download of a blob, or goes on with one that broke off; never waits for another.
    ///
    /// The bytes of an earlier attempt are read once, to hash them.
    pub fn partial(&self, digest: &Digest) -> Result<Partial, Error> {
        let path = self.root.join("blobs/partial").join(digest.hex());
        let failed = |error| fault::file(&path, error);
        loop {
            if self.contains(digest)? {
                return Ok(Partial::Whole);
            }
            let locked = lock::open(&path).and_then(Locked::try_exclusive).map_err(failed)?;
            let Some(file) = locked else { return Ok(Partial::Busy) };
            // A file that moved on meanwhile is a blob now, or was wrong.
            if file.is_at(&path).map_err(failed)? {
                if self.contains(digest)? {
                    fs::remove_file(&path).map_err(failed)?;
                    return Ok(Partial::Whole);
                }
                return PartialBlob::resumed(*digest, path.clone(), file).map(Partial::Open).map_err(failed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;

    fn started(store: &Store, digest: &Digest) -> PartialBlob {
        match store.partial(digest).unwrap() {
            Partial::Open(blob) => blob,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_download_goes_on_where_another_process_left_it() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"first second");
        {
            let store = opened(folder.path());
            let mut blob = started(&store, &digest);
            blob.write_all(b"first ").unwrap();
            assert!(matches!(opened(folder.path()).partial(&digest).unwrap(), Partial::Busy));
        }
        let store = opened(folder.path());
        let mut blob = started(&store, &digest);
        assert_eq!(blob.offset(), 6);
        blob.write_all(b"second").unwrap();
        assert_eq!(blob.commit(&store).unwrap(), 12);
        assert!(matches!(store.partial(&digest).unwrap(), Partial::Whole));
        assert_eq!(fs::read(store.blob_path(&digest)).unwrap(), b"first second");
        assert_eq!(fs::read_dir(folder.path().join("blobs/partial")).unwrap().count(), 0);
    }

    #[test]
    fn wrong_bytes_are_removed_and_the_next_attempt_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let digest = Digest::of(b"right");
        let mut blob = started(&store, &digest);
        blob.write_all(b"wrong").unwrap();
        assert!(matches!(blob.commit(&store), Err(Error::Integrity(_))));
        let mut blob = started(&store, &digest);
        assert_eq!(blob.offset(), 0);
        blob.write_all(b"right").unwrap();
        assert_eq!(blob.commit(&store).unwrap(), 5);
    }
}
