//! Layers: folders that hold one diff each, by number.
//!
//! Invariant: a layer is written in `work/`, gets its number with its row, and is never written
//! again. Two layers of one mode differ in content or in tree.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};

use super::fault::{self, Fault};
use super::hold::Held;
use super::index::Index;
use super::{Store, WorkDir, usage};
use crate::{Digest, Error};

/// Names a layer: short, since a mount's options hold hundreds of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LayerNumber(u64);

/// A stack of layers, bottom first.
pub type Snapshot = Vec<LayerNumber>;

impl fmt::Display for LayerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl LayerNumber {
    /// Returns the number by which workers know the layer.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    /// Reads a folder's name; nothing where it is no layer's.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let number: i64 = name.parse().ok().filter(|number| *number > 0)?;
        (number.to_string() == name).then(|| Self::from_row(number))
    }

    pub(super) fn from_row(number: i64) -> Self {
        Self(number.unsigned_abs())
    }

    pub(super) fn row(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }
}

/// What a layer's row is made from where the index is lost: the file `meta`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayerMeta {
    pub(super) mode: String,
    pub(super) content: String,
    pub(super) tree: String,
    pub(super) size_bytes: i64,
    pub(super) created_ms: i64,
}

impl LayerMeta {
    /// Reads what a folder says of itself; nothing where that is not what is in it.
    pub(super) fn read(layer: &Path) -> Option<Self> {
        let meta: Self = serde_json::from_slice(&fs::read(layer.join("meta")).ok()?).ok()?;
        let tree = Digest::of(&fs::read(layer.join("tree")).ok()?).to_string();
        let sound = tree == meta.tree && meta.content.parse::<Digest>().is_ok() && layer.join("fs").is_dir();
        sound.then_some(meta)
    }

    /// Writes the row; `number` is chosen where there is none yet. An equal layer is an error.
    pub(super) fn insert(&self, tx: &Transaction<'_>, number: Option<LayerNumber>) -> Result<LayerNumber, Fault> {
        let insert = "INSERT INTO layers (number, mode, content, tree, size_bytes, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let row = (number.map(LayerNumber::row), &self.mode, &self.content, &self.tree, self.size_bytes, self.created_ms);
        tx.prepare_cached(insert)?.execute(row)?;
        Ok(LayerNumber::from_row(tx.last_insert_rowid()))
    }

    /// Finds the layer that is equal to this one.
    pub(super) fn equal(&self, tx: &Transaction<'_>) -> Result<Option<LayerNumber>, Fault> {
        let select = "SELECT number FROM layers WHERE mode = ?1 AND content = ?2 AND tree = ?3";
        let row = (&self.mode, &self.content, &self.tree);
        Ok(tx.prepare_cached(select)?.query_row(row, |row| row.get(0)).optional()?.map(LayerNumber::from_row))
    }
}

impl Store {
    /// Makes a layer of a folder that a worker has filled (`fs/` and `tree`) and synced.
    ///
    /// `content` is the digest of all but the times, `size_bytes` what `fs/` takes on the disk.
    /// Where an equal layer is there already, that one is returned and the folder removed.
    pub fn commit_layer(&self, work: WorkDir, content: &Digest, size_bytes: u64) -> Result<LayerNumber, Error> {
        let at = |name: &str| work.path().join(name);
        let tree = fs::read(at("tree")).map_err(|error| fault::file(&at("tree"), error))?;
        if !at("fs").is_dir() {
            return Err(fault::unusable(&at("fs"), "no folder: the worker left no files"));
        }
        let meta = LayerMeta {
            mode: self.mode.clone(),
            content: content.to_string(),
            tree: Digest::of(&tree).to_string(),
            size_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
            created_ms: self.now_ms(),
        };
        let text = serde_json::to_vec(&meta).expect("texts and numbers are JSON");
        fs::write(at("meta"), text).map_err(|error| fault::file(&at("meta"), error))?;
        self.index.write(|tx| {
            if let Some(equal) = meta.equal(tx)?
                && self.find_layer(tx, equal)?
            {
                return Ok(equal);
            }
            let number = meta.insert(tx, None)?;
            let place = self.layer_path(number);
            // Left by a transaction that a power cut undid; no row ever named it since.
            self.discard(&place)?;
            fs::rename(work.path(), &place).map_err(|error| fault::file(&place, error))?;
            self.hold(tx, Held::Layer, &number.to_string())?;
            Ok(number)
        })
    }

    /// Returns a layer's tree as it was committed.
    pub fn tree(&self, layer: LayerNumber) -> Result<Vec<u8>, Error> {
        let select = "SELECT tree FROM layers WHERE number = ?1 AND mode = ?2";
        let found: Option<String> = self
            .index
            .read(|tx| Ok(tx.prepare_cached(select)?.query_row((layer.row(), &self.mode), |row| row.get(0)).optional()?))?;
        let expected = found.ok_or_else(|| self.no_layer(layer))?;
        let path = self.layer_path(layer).join("tree");
        let bytes = fs::read(&path).map_err(|error| fault::file(&path, error))?;
        if Digest::of(&bytes).to_string() != expected {
            return Err(Error::Integrity(format!("{}: not the tree that was stored; verify the cache", path.display())));
        }
        Ok(bytes)
    }

    /// Returns the digests of layers' contents, as they were committed.
    pub fn layer_contents(&self, layers: &[LayerNumber]) -> Result<Vec<Digest>, Error> {
        contents(&self.index, &self.mode, layers, |layer| self.no_layer(layer))
    }

    /// Returns a layer's folder; its files are in `fs` there.
    pub fn layer_path(&self, layer: LayerNumber) -> PathBuf {
        self.root.join("layers").join(layer.to_string())
    }

    /// Finds a layer and holds it; a row without a folder is dropped, with the records that name it.
    pub(super) fn find_layer(&self, tx: &Transaction<'_>, layer: LayerNumber) -> Result<bool, Fault> {
        let select = "SELECT EXISTS (SELECT 1 FROM layers WHERE number = ?1 AND mode = ?2)";
        if !tx.prepare_cached(select)?.query_row((layer.row(), &self.mode), |row| row.get(0))? {
            return Ok(false);
        }
        if !self.layer_path(layer).is_dir() {
            usage::delete_row(tx, Held::Layer, &layer.to_string())?;
            return Ok(false);
        }
        self.hold(tx, Held::Layer, &layer.to_string())?;
        Ok(true)
    }

    fn no_layer(&self, layer: LayerNumber) -> Error {
        fault::unusable(&self.layer_path(layer), format!("no layer of mode {:?}", self.mode))
    }
}

/// Reads the digests of layers' contents; `lost` is the error for one that has no row.
pub(super) fn contents(
    index: &Index,
    mode: &str,
    layers: &[LayerNumber],
    lost: impl Fn(LayerNumber) -> Error,
) -> Result<Vec<Digest>, Error> {
    // One transaction: each costs as much as many rows.
    let texts = index.read(|tx| {
        let mut select = tx.prepare_cached("SELECT content FROM layers WHERE number = ?1 AND mode = ?2")?;
        let texts = layers.iter().map(|layer| select.query_row((layer.row(), mode), |row| row.get(0)).optional());
        Ok(texts.collect::<rusqlite::Result<Vec<Option<String>>>>()?)
    })?;
    let parsed = layers.iter().zip(texts).map(|(&layer, text)| {
        let text = text.ok_or_else(|| lost(layer))?;
        text.parse().map_err(|error| Error::Integrity(format!("layer {layer}: {error}; verify the cache")))
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer, noon, opened};
    use super::*;

    #[test]
    fn a_layer_has_a_number_its_files_and_its_tree() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let number = layer(&store, "a");
        assert_eq!(fs::read(store.layer_path(number).join("fs/file")).unwrap(), b"a");
        assert_eq!(store.tree(number).unwrap(), b"tree of a");
        assert_eq!(store.layer_contents(&[number]).unwrap(), [Digest::of(b"a")]);
        assert_eq!(serde_json::to_string(&number).unwrap(), number.to_string());
        fs::write(store.layer_path(number).join("tree"), "else").unwrap();
        assert!(matches!(store.tree(number), Err(Error::Integrity(_))));
    }

    #[test]
    fn an_equal_layer_wins_and_what_was_made_again_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (opened(folder.path()), opened(folder.path()));
        let first = layer(&store, "a");
        assert_eq!(layer(&other, "a"), first);
        assert_ne!(layer(&other, "b"), first);
        assert_eq!(fs::read_dir(folder.path().join("work")).unwrap().count(), 0);
        fs::remove_dir_all(store.layer_path(first)).unwrap();
        assert_ne!(layer(&store, "a"), first, "a lost layer is made again");
    }

    #[test]
    fn modes_share_no_layers() {
        let folder = tempfile::tempdir().unwrap();
        let (store, root) = (opened(folder.path()), Store::open(folder.path(), "root", noon).unwrap());
        let number = layer(&store, "a");
        assert_ne!(layer(&root, "a"), number);
        let error = root.tree(number).unwrap_err().to_string();
        assert!(error.contains("no layer of mode \"root\""), "{error}");
    }

    #[test]
    fn a_folder_without_files_or_tree_is_no_layer() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let work = store.allocate_work().unwrap();
        let error = store.commit_layer(work, &Digest::of(b""), 0).unwrap_err();
        assert!(matches!(&error, Error::Store { path, .. } if path.ends_with("tree")), "{error}");
        let work = store.allocate_work().unwrap();
        fs::write(work.path().join("tree"), "t").unwrap();
        assert!(store.commit_layer(work, &Digest::of(b""), 0).is_err());
        assert_eq!(fs::read_dir(folder.path().join("work")).unwrap().count(), 0);
    }

    #[test]
    fn what_lies_at_the_next_number_without_a_row_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        fs::create_dir_all(folder.path().join("layers/1/fs/left over")).unwrap();
        let number = layer(&store, "a");
        assert_eq!(number.to_string(), "1");
        assert_eq!(fs::read(store.layer_path(number).join("fs/file")).unwrap(), b"a");
    }
}
