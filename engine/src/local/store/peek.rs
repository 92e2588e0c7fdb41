//! A look at a store that leaves it as it is.
//!
//! Invariant: a peek finds what a [`Store`] that is opened at the same moment finds, and makes, marks
//! and holds nothing. What it found may be gone a moment later.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Transaction};

use super::fault::{self, Fault};
use super::index::Index;
use super::lock::Locked;
use super::record::snapshots;
use super::{CacheKey, LayerNumber, Snapshot, Store, check_owner, layer};
use crate::{Digest, Error};

/// What is asked of a store before anything is made: the same questions, whether it is opened to work
/// with or to look at.
pub trait Look {
    /// Finds the outputs that were recorded for a key, if all their layers are there.
    fn outputs(&self, key: &CacheKey) -> Result<Option<Vec<Snapshot>>, Error>;

    /// Returns what is known; what it is about is there.
    fn fact(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Returns the digests of layers' contents, as they were committed.
    fn layer_contents(&self, layers: &[LayerNumber]) -> Result<Vec<Digest>, Error>;

    /// Opens a blob for reading; nothing where it is not there.
    fn blob(&self, digest: &Digest) -> Result<Option<File>, Error>;

    /// Returns where a blob is, if it is there.
    fn blob_path(&self, digest: &Digest) -> PathBuf;
}

/// What is found by a store is held.
impl Look for Store {
    fn outputs(&self, key: &CacheKey) -> Result<Option<Vec<Snapshot>>, Error> {
        Ok(self.lookup(key)?.map(|record| record.outputs))
    }

    fn fact(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Self::fact(self, kind, key)
    }

    fn layer_contents(&self, layers: &[LayerNumber]) -> Result<Vec<Digest>, Error> {
        Self::layer_contents(self, layers)
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        Self::blob(self, digest)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        Self::blob_path(self, digest)
    }
}

/// A store that is looked at.
#[derive(Debug)]
pub struct Peek {
    root: PathBuf,
    mode: String,
    /// Nothing where there is no store, or its index is lost: no record survives that.
    index: Option<(Index, Locked)>,
}

impl Peek {
    /// Looks at the store in the folder `root`, which need not be there; `mode` as for
    /// [`Store::open`].
    ///
    /// Fails where the folder belongs to another user, or a newer version has written the index.
    pub fn open(root: &Path, mode: &str) -> Result<Self, Error> {
        let found = fault::absent(root.canonicalize()).map_err(|error| fault::file(root, error))?;
        let Some(root) = found else { return Ok(Self { root: root.to_owned(), mode: mode.to_owned(), index: None }) };
        check_owner(&root)?;
        let gate = root.join("locks/open");
        let failed = |error| fault::file(&gate, error);
        let index = match fault::absent(File::open(&gate)).map_err(failed)? {
            None => None,
            Some(open) => {
                // Not while somebody makes the index anew.
                let open = Locked::shared(open).map_err(failed)?;
                Index::open_to_read(&root.join("index.db"))?.map(|index| (index, open))
            }
        };
        Ok(Self { root, mode: mode.to_owned(), index })
    }

    fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<Option<T>, Fault>) -> Result<Option<T>, Error> {
        self.index.as_ref().map_or(Ok(None), |(index, _)| index.read(work))
    }

    fn has_layer(&self, tx: &Transaction<'_>, layer: LayerNumber) -> Result<bool, Fault> {
        let select = "SELECT EXISTS (SELECT 1 FROM layers WHERE number = ?1 AND mode = ?2)";
        let listed = tx.prepare_cached(select)?.query_row((layer.row(), &self.mode), |row| row.get(0))?;
        Ok(listed && self.layer_path(layer).is_dir())
    }

    fn has_blob(&self, tx: &Transaction<'_>, digest: &Digest) -> Result<bool, Fault> {
        let select = "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1)";
        let listed = tx.prepare_cached(select)?.query_row([digest.to_string()], |row| row.get(0))?;
        Ok(listed && self.blob_path(digest).is_file())
    }

    fn layer_path(&self, layer: LayerNumber) -> PathBuf {
        self.root.join("layers").join(layer.to_string())
    }
}

impl Look for Peek {
    fn outputs(&self, key: &CacheKey) -> Result<Option<Vec<Snapshot>>, Error> {
        self.read(|tx| {
            let select = "SELECT id, outputs FROM records WHERE mode = ?1 AND key = ?2";
            let row = (&self.mode, key.to_string());
            let found = tx.prepare_cached(select)?.query_row(row, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
            let Some((id, outputs)) = found else { return Ok(None) };
            let outputs = snapshots(tx, id, outputs)?;
            for layer in outputs.iter().flatten() {
                if !self.has_layer(tx, *layer)? {
                    return Ok(None);
                }
            }
            Ok(Some(outputs))
        })
    }

    fn fact(&self, kind: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.read(|tx| {
            let select = "SELECT value, layer, blob FROM facts WHERE mode = ?1 AND kind = ?2 AND key = ?3";
            let row = (&self.mode, kind, key);
            let found: Option<(Vec<u8>, Option<i64>, Option<String>)> =
                tx.prepare_cached(select)?.query_row(row, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
            let Some((value, layer, blob)) = found else { return Ok(None) };
            let there = match (layer, blob.map(|blob| blob.parse())) {
                (Some(layer), _) => self.has_layer(tx, LayerNumber::from_row(layer))?,
                (None, Some(Ok(blob))) => self.has_blob(tx, &blob)?,
                (None, Some(Err(_))) => false,
                (None, None) => true,
            };
            Ok(there.then_some(value))
        })
    }

    fn layer_contents(&self, layers: &[LayerNumber]) -> Result<Vec<Digest>, Error> {
        let lost = |layer| fault::unusable(&self.layer_path(layer), format!("no layer of mode {:?}", self.mode));
        match &self.index {
            Some((index, _)) => layer::contents(index, &self.mode, layers, lost),
            None => layers.first().map_or_else(|| Ok(Vec::new()), |layer| Err(lost(*layer))),
        }
    }

    fn blob(&self, digest: &Digest) -> Result<Option<File>, Error> {
        if self.read(|tx| Ok(self.has_blob(tx, digest)?.then_some(())))?.is_none() {
            return Ok(None);
        }
        let path = self.blob_path(digest);
        fault::absent(File::open(&path)).map_err(|error| fault::file(&path, error))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::super::tests::{layer, noon, opened};
    use super::super::{Record, RecordAbout, Subject};
    use super::*;

    fn key(name: &str) -> CacheKey {
        CacheKey::of("exec", [name.as_bytes()])
    }

    /// Every file below a folder with its size and time; SQLite's shared memory is nobody's.
    fn listed(folder: &Path) -> BTreeMap<PathBuf, (u64, i64)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let metadata = fs::symlink_metadata(&entry).unwrap();
                if metadata.is_dir() {
                    folders.push(entry.clone());
                }
                if !entry.ends_with("index.db-shm") {
                    found.insert(entry, (metadata.size(), metadata.mtime_nsec() + metadata.mtime() * 1_000_000_000));
                }
            }
        }
        found
    }

    /// What both say of everything that the tests put into a store.
    fn seen(store: &impl Look) -> String {
        let outputs: Vec<_> = ["a", "ab", "none"].map(|name| store.outputs(&key(name)).unwrap()).into();
        let facts: Vec<_> = ["of layer", "of blob", "of nothing", "none"].map(|kind| store.fact(kind, b"1").unwrap()).into();
        let contents = outputs.iter().flatten().flatten().map(|layers| store.layer_contents(layers).unwrap());
        let blobs = ["blob", "none"].map(|text| store.blob(&Digest::of(text.as_bytes())).unwrap().is_some());
        format!("{outputs:?} {facts:?} {:?} {blobs:?}", contents.collect::<Vec<_>>())
    }

    #[test]
    fn a_peek_finds_what_a_store_finds_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (a, b) = (layer(&store, "a"), layer(&store, "b"));
        let blob = store.put(b"blob").unwrap();
        for (name, layers) in [("a", vec![a]), ("ab", vec![a, b])] {
            store.record(&key(name), &Record { outputs: vec![layers], about: RecordAbout::default() }).unwrap();
        }
        for (kind, subject) in
            [("of layer", Subject::Layer(b)), ("of blob", Subject::Blob(blob)), ("of nothing", Subject::Nothing)]
        {
            store.set_fact(kind, b"1", kind.as_bytes(), subject).unwrap();
        }
        drop(store);
        let spoils: [(&str, &dyn Fn()); 3] = [
            ("nothing", &|| ()),
            ("a layer", &|| fs::remove_dir_all(folder.path().join(format!("layers/{b}"))).unwrap()),
            ("a blob", &|| fs::remove_file(folder.path().join("blobs/sha256").join(blob.hex())).unwrap()),
        ];
        for (lost, spoil) in spoils {
            spoil();
            let peeked = {
                let before = listed(folder.path());
                let peek = Peek::open(folder.path(), "single").unwrap();
                let peeked = seen(&peek);
                drop(peek);
                assert_eq!(listed(folder.path()), before, "{lost} is lost");
                peeked
            };
            assert_eq!(peeked, seen(&opened(folder.path())), "{lost} is lost");
        }
        let other = seen(&Peek::open(folder.path(), "root").unwrap());
        assert_eq!(other, seen(&Store::open(folder.path(), "root", noon).unwrap()), "another mode");
    }

    #[test]
    fn where_there_is_no_store_none_is_made_and_nothing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let nothing = seen(&opened(&folder.path().join("empty")));
        assert_eq!(seen(&Peek::open(&folder.path().join("missing"), "single").unwrap()), nothing);
        assert!(!folder.path().join("missing").exists());
        fs::create_dir(folder.path().join("bare")).unwrap();
        assert_eq!(seen(&Peek::open(&folder.path().join("bare"), "single").unwrap()), nothing);
        assert_eq!(fs::read_dir(folder.path().join("bare")).unwrap().count(), 0);
    }

    #[test]
    fn an_index_that_is_lost_has_no_records_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let a = layer(&store, "a");
        store.record(&key("a"), &Record { outputs: vec![vec![a]], about: RecordAbout::default() }).unwrap();
        store.index.write(|tx| Ok(tx.pragma_update(None, "user_version", 7)?)).unwrap();
        let error = Peek::open(folder.path(), "single").unwrap_err().to_string();
        assert!(error.contains("written by a newer version"), "{error}");
        drop(store);
        fs::remove_file(folder.path().join("index.db-wal")).unwrap();
        fs::write(folder.path().join("index.db"), b"x".repeat(5000)).unwrap();
        assert_eq!(Peek::open(folder.path(), "single").unwrap().outputs(&key("a")).unwrap(), None);
        fs::remove_file(folder.path().join("index.db")).unwrap();
        assert_eq!(Peek::open(folder.path(), "single").unwrap().outputs(&key("a")).unwrap(), None);
    }
}
