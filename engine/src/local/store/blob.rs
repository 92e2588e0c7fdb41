//! Blobs: files by the digest of their content.
//!
//! Invariant: a file gets its name in `blobs/sha256` only after its bytes were hashed and synced.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;
use sha2::{Digest as _, Sha256};

use super::fault::{self, Fault};
use super::hold::Held;
use super::lock::Locked;
use super::{Store, usage};
use crate::{Digest, Error};

/// How much is written at once.
const BUFFER: usize = 128 * 1024;

/// A blob that is being written; nothing is left of it where it is dropped.
#[derive(Debug)]
pub struct BlobWriter {
    path: PathBuf,
    file: BufWriter<Locked>,
    hash: Sha256,
    size_bytes: u64,
}

impl BlobWriter {
    /// Gives the blob its name; returns its digest and size.
    ///
    /// Fails with [`Error::Integrity`] where it is not what is `expected`.
    pub fn commit(mut self, store: &Store, expected: Option<&Digest>) -> Result<(Digest, u64), Error> {
        let digest = Digest::from_sha256(self.hash.finalize_reset().into());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(mismatch(expected, &digest, self.size_bytes));
        }
        self.file.flush().map_err(|error| fault::file(&self.path, error))?;
        store.name_blob(&self.path, self.file.get_ref(), &digest)?;
        Ok((digest, self.size_bytes))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // A blob that was committed is not here any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl Store {
    /// Starts a blob whose digest is known when all of it is written.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        let (path, file) = self.allocate_file()?;
        Ok(BlobWriter { path, file: BufWriter::with_capacity(BUFFER, file), hash: Sha256::new(), size_bytes: 0 })
    }

    /// Stores bytes as a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(|error| fault::file(&writer.path, error))?;
        Ok(writer.commit(self, None)?.0)
    }

    /// Says whether a blob is there; it stays then.
    pub fn contains(&self, digest: &Digest) -> Result<bool, Error> {
        self.index.write(|tx| self.find_blob(tx, digest))
    }

    /// Opens a blob for reading; nothing where it is not there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        if !self.contains(digest)? {
            return Ok(None);
        }
        let path = self.blob_path(digest);
        File::open(&path).map(Some).map_err(|error| fault::file(&path, error))
    }

    /// Returns where a blob is, if it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Finds a blob, marks it as used and holds it; a row without a file is dropped.
    pub(super) fn find_blob(&self, tx: &Transaction<'_>, digest: &Digest) -> Result<bool, Fault> {
        let name = digest.to_string();
        let found = tx.prepare_cached("UPDATE blobs SET used_ms = ?1 WHERE digest = ?2")?.execute((self.now_ms(), &name))?;
        if found == 0 {
            return Ok(false);
        }
        if !self.blob_path(digest).is_file() {
            usage::delete_row(tx, Held::Blob, &name)?;
            return Ok(false);
        }
        self.hold(tx, Held::Blob, &name)?;
        Ok(true)
    }

    /// Gives a complete file its name among the blobs.
    pub(super) fn name_blob(&self, path: &Path, file: &File, digest: &Digest) -> Result<(), Error> {
        let failed = |error| fault::file(path, error);
        file.sync_all().map_err(failed)?;
        let size_bytes = disk_bytes(&file.metadata().map_err(failed)?);
        let name = digest.to_string();
        self.index.write(|tx| {
            // Over one that is there already: this one was hashed just now.
            fs::rename(path, self.blob_path(digest)).map_err(failed)?;
            let upsert = "INSERT INTO blobs (digest, size_bytes, created_ms, used_ms) VALUES (?1, ?2, ?3, ?3)
                ON CONFLICT (digest) DO UPDATE SET size_bytes = excluded.size_bytes, used_ms = excluded.used_ms";
            tx.prepare_cached(upsert)?.execute((&name, size_bytes, self.now_ms()))?;
            self.hold(tx, Held::Blob, &name)
        })
    }
}

/// Says that content is not what its digest says.
pub(super) fn mismatch(expected: &Digest, found: &Digest, size_bytes: u64) -> Error {
    Error::Integrity(format!("expected {expected}, got {size_bytes} bytes with {found}; nothing of it was kept, try again"))
}

/// Returns what a file takes on the disk.
pub(super) fn disk_bytes(metadata: &fs::Metadata) -> i64 {
    i64::try_from(metadata.blocks() * 512).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::super::tests::opened;
    use super::*;

    #[test]
    fn a_blob_is_found_by_its_digest_in_every_handle() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (opened(folder.path()), Store::open(folder.path(), "root", super::super::tests::noon).unwrap());
        let mut writer = store.writer().unwrap();
        for part in [&b"con"[..], b"", b"tent"] {
            writer.write_all(part).unwrap();
        }
        let digest = Digest::of(b"content");
        assert!(!other.contains(&digest).unwrap());
        assert_eq!(writer.commit(&store, Some(&digest)).unwrap(), (digest, 7));
        let mut read = String::new();
        other.blob(&digest).unwrap().unwrap().read_to_string(&mut read).unwrap();
        assert_eq!(read, "content");
        assert_eq!(store.put(b"content").unwrap(), digest);
    }

    #[test]
    fn another_digest_than_the_expected_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let mut writer = store.writer().unwrap();
        writer.write_all(b"wrong").unwrap();
        let error = writer.commit(&store, Some(&Digest::of(b"right"))).unwrap_err();
        assert!(matches!(&error, Error::Integrity(text) if text.contains("got 5 bytes with sha256:")), "{error}");
        drop(store.writer().unwrap());
        for left in ["work", "blobs/sha256"] {
            assert_eq!(fs::read_dir(folder.path().join(left)).unwrap().count(), 0, "{left}");
        }
    }

    #[test]
    fn a_row_without_a_file_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let digest = store.put(b"x").unwrap();
        fs::remove_file(store.blob_path(&digest)).unwrap();
        assert!(!store.contains(&digest).unwrap());
        assert!(store.blob(&digest).unwrap().is_none());
        store.put(b"x").unwrap();
        assert!(store.contains(&digest).unwrap());
    }
}
