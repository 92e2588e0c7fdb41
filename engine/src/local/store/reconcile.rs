//! Compares the index with the files: what each has that the other lacks.
//!
//! Invariant: nothing is taken in that does not say completely what it is; what does not is litter.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use super::cache::CacheMeta;
use super::fault::Fault;
use super::hold::Held;
use super::layer::{LayerMeta, LayerNumber};
use super::{blob, usage, work};
use crate::Digest;

/// One thing in which the index and the files differ.
#[derive(Debug)]
pub(super) enum Difference {
    /// A row without a file or folder, by its key.
    Lost(Held, String),
    /// A file or folder without a row.
    Found(Found),
}

/// What lies about without a row.
#[derive(Debug)]
pub(super) enum Found {
    Blob { digest: Digest, size_bytes: i64 },
    Layer { number: LayerNumber, meta: LayerMeta, path: PathBuf },
    Cache(CacheMeta),
    Litter(PathBuf),
}

/// Finds all differences, in a transaction that keeps everybody else from making any.
pub(super) fn differences(tx: &Transaction<'_>, root: &Path) -> Result<Vec<Difference>, Fault> {
    let mut found = Vec::new();
    let mut known = names(tx, "SELECT digest FROM blobs")?;
    for path in work::entries(&root.join("blobs/sha256"))? {
        let metadata = fs::symlink_metadata(&path).ok().filter(|metadata| metadata.is_file());
        let digest = file_name(&path).and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
        let Some((metadata, digest)) = metadata.zip(digest) else {
            found.push(Difference::Found(Found::Litter(path)));
            continue;
        };
        if !known.remove(&digest.to_string()) {
            let size_bytes = blob::disk_bytes(&metadata);
            found.push(Difference::Found(Found::Blob { digest, size_bytes }));
        }
    }
    found.extend(sorted(known).into_iter().map(|key| Difference::Lost(Held::Blob, key)));

    let mut known = names(tx, "SELECT CAST(number AS TEXT) FROM layers")?;
    for path in work::entries(&root.join("layers"))? {
        let Some(number) = file_name(&path).and_then(LayerNumber::parse) else {
            found.push(Difference::Found(Found::Litter(path)));
            continue;
        };
        if known.contains(&number.to_string()) && path.is_dir() {
            known.remove(&number.to_string());
        } else {
            found.push(Difference::Found(match LayerMeta::read(&path) {
                Some(meta) => Found::Layer { number, meta, path },
                None => Found::Litter(path),
            }));
        }
    }
    found.extend(sorted(known).into_iter().map(|key| Difference::Lost(Held::Layer, key)));

    let mut known = names(tx, "SELECT name FROM caches")?;
    for path in work::entries(&root.join("caches"))? {
        if !file_name(&path).is_some_and(|name| path.is_dir() && known.remove(name)) {
            found.push(Difference::Found(CacheMeta::read(&path).map_or(Found::Litter(path), Found::Cache)));
        }
    }
    found.extend(sorted(known).into_iter().map(|key| Difference::Lost(Held::Cache, key)));
    Ok(found)
}

/// Makes the index say what the files are; returns what is litter.
pub(super) fn mend(tx: &Transaction<'_>, differences: Vec<Difference>, now_ms: i64) -> Result<Vec<PathBuf>, Fault> {
    let mut litter = Vec::new();
    for difference in differences {
        match difference {
            Difference::Lost(kind, key) => usage::delete_row(tx, kind, &key)?,
            Difference::Found(Found::Blob { digest, size_bytes }) => {
                let insert = "INSERT INTO blobs (digest, size_bytes, created_ms, used_ms) VALUES (?1, ?2, ?3, ?3)";
                tx.execute(insert, (digest.to_string(), size_bytes, now_ms))?;
            }
            Difference::Found(Found::Layer { number, meta, path }) => match meta.equal(tx)? {
                // There is an equal one, which wins as it does for a new layer.
                Some(_) => litter.push(path),
                None => drop(meta.insert(tx, Some(number))?),
            },
            Difference::Found(Found::Cache(meta)) => meta.upsert(tx, now_ms)?,
            Difference::Found(Found::Litter(path)) => litter.push(path),
        }
    }
    Ok(litter)
}

/// Fills an index that is new with what lies there; litter is left for the next collection.
pub(super) fn adopt(tx: &Transaction<'_>, root: &Path, now_ms: i64) -> Result<(), Fault> {
    mend(tx, differences(tx, root)?, now_ms).map(|_| ())
}

fn names(tx: &Transaction<'_>, select: &str) -> Result<HashSet<String>, Fault> {
    let mut select = tx.prepare(select)?;
    let names = select.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(names)
}

fn sorted(names: HashSet<String>) -> Vec<String> {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    names
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
