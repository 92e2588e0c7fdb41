//! Cache folders: what steps keep between runs (`RUN --mount=type=cache`).
//!
//! Invariant: a cache folder only ever saves time; it can be collected whenever nobody holds it.
//! Who may use it at the same time is for the caller to say, by a [lock](Store::lock).

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;
use serde::{Deserialize, Serialize};

use super::Store;
use super::fault::{self, Fault};
use super::hold::Held;
use crate::{Digest, Error};

/// What a cache folder's row is made from where the index is lost: the file `meta`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CacheMeta {
    pub(super) mode: String,
    pub(super) id: String,
    pub(super) created_ms: i64,
}

impl CacheMeta {
    /// Returns the folder's name.
    pub(super) fn name(&self) -> String {
        Digest::of(format!("{} {}", self.mode, self.id).as_bytes()).hex()
    }

    /// Reads what a folder says of itself; nothing where that is not its name.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let meta: Self = serde_json::from_slice(&fs::read(folder.join("meta")).ok()?).ok()?;
        (folder.file_name()?.to_str()? == meta.name() && folder.join("fs").is_dir()).then_some(meta)
    }

    /// Writes the row, as used just now; one that is there keeps its size.
    pub(super) fn upsert(&self, tx: &Transaction<'_>, now_ms: i64) -> Result<(), Fault> {
        let upsert = "INSERT INTO caches (name, mode, id, size_bytes, created_ms, used_ms) VALUES (?1, ?2, ?3, 0, ?4, ?5)
            ON CONFLICT (name) DO UPDATE SET used_ms = excluded.used_ms";
        tx.prepare_cached(upsert)?.execute((self.name(), &self.mode, &self.id, self.created_ms, now_ms))?;
        Ok(())
    }
}

impl Store {
    /// Returns the folder of a cache and holds it; an empty one is made where there is none.
    pub fn cache_folder(&self, id: &str) -> Result<PathBuf, Error> {
        let now_ms = self.now_ms();
        let meta = CacheMeta { mode: self.mode.clone(), id: id.to_owned(), created_ms: now_ms };
        let name = meta.name();
        let folder = self.root.join("caches").join(&name);
        let files = folder.join("fs");
        // Made beside its place, so that a folder with that name has all that belongs to it.
        let work = if files.is_dir() { None } else { Some(self.allocate_work()?) };
        if let Some(work) = &work {
            let text = serde_json::to_vec(&meta).expect("texts and numbers are JSON");
            let made = fs::write(work.path().join("meta"), text)
                .and_then(|()| fs::DirBuilder::new().mode(0o755).create(work.path().join("fs")));
            made.map_err(|error| fault::file(work.path(), error))?;
        }
        let made = self.index.write(|tx| {
            if !files.is_dir() {
                let Some(work) = &work else { return Ok(false) };
                self.discard(&folder)?;
                fs::rename(work.path(), &folder).map_err(|error| fault::file(&folder, error))?;
            }
            meta.upsert(tx, now_ms)?;
            self.hold(tx, Held::Cache, &name)?;
            Ok(true)
        })?;
        // Collected between the look and the transaction: it is made then.
        if made { Ok(files) } else { self.cache_folder(id) }
    }

    /// Keeps what a cache folder takes on the disk, as it was measured after a step.
    pub fn set_cache_size(&self, id: &str, size_bytes: u64) -> Result<(), Error> {
        let name = CacheMeta { mode: self.mode.clone(), id: id.to_owned(), created_ms: 0 }.name();
        let size_bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
        self.index.write(|tx| {
            tx.prepare_cached("UPDATE caches SET size_bytes = ?1 WHERE name = ?2")?.execute((size_bytes, name))?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{noon, opened};
    use super::*;

    #[test]
    fn a_cache_folder_keeps_its_files_for_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let cargo = store.cache_folder("cargo").unwrap();
        fs::write(cargo.join("file"), "x").unwrap();
        assert_eq!(opened(folder.path()).cache_folder("cargo").unwrap(), cargo);
        assert!(cargo.join("file").exists());
        assert_ne!(store.cache_folder("other/../id").unwrap(), cargo);
        assert_ne!(Store::open(folder.path(), "root", noon).unwrap().cache_folder("cargo").unwrap(), cargo);
        fs::remove_dir_all(cargo.parent().unwrap()).unwrap();
        assert_eq!(fs::read_dir(store.cache_folder("cargo").unwrap()).unwrap().count(), 0);
    }
}
