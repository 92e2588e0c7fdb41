//! Cache records: what solving something gave.
//!
//! Invariant: a record names only layers that have rows, and only successes are recorded. A lookup
//! that succeeds has seen every layer's folder and holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fault::{self, Fault};
use super::{LayerNumber, Snapshot, Store};
use crate::Error;

/// Says what may be reused: equal keys have equal results. It names no content, and so is no
/// [`Digest`](crate::Digest).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// Makes the key of something of a `kind` that the `parts`, in this order, decide.
    ///
    /// ```
    /// use roche_engine::local::store::CacheKey;
    /// assert_ne!(CacheKey::of("exec", [&b"ab"[..], b"c"]), CacheKey::of("exec", [&b"a"[..], b"bc"]));
    /// ```
    pub fn of<'a>(kind: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length, so that no two lists of parts are the same bytes.
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(kind.as_bytes());
        parts.into_iter().for_each(&mut add);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A result that may be reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its outputs, in their order; an empty one is an empty file tree.
    pub outputs: Vec<Snapshot>,
    /// What is told of it.
    pub about: RecordAbout,
}

/// What is told of a result; nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordAbout {
    /// What people are shown.
    pub name: String,
    /// How long it took.
    pub took: Duration,
    /// Anything else, by name.
    pub details: BTreeMap<String, String>,
}

impl Store {
    /// Finds what was recorded for a key, marks it as used and holds its layers.
    ///
    /// A record of which a layer is lost is dropped.
    pub fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, Error> {
        self.index.write(|tx| {
            let update = "UPDATE records SET used_ms = ?1 WHERE mode = ?2 AND key = ?3 RETURNING id, outputs, about";
            let found: Option<(i64, i64, String)> = tx
                .prepare_cached(update)?
                .query_row((self.now_ms(), &self.mode, key.to_string()), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
                .optional()?;
            let Some((id, outputs, about)) = found else { return Ok(None) };
            let outputs = snapshots(tx, id, outputs)?;
            for layer in outputs.iter().flatten() {
                if !self.find_layer(tx, *layer)? {
                    // The record went with the layer's row; it had none if that was lost as well.
                    tx.execute("DELETE FROM records WHERE id = ?1", [id])?;
                    return Ok(None);
                }
            }
            Ok(Some(Record { outputs, about: serde_json::from_str(&about).unwrap_or_default() }))
        })
    }

    /// Records a success for a key, in place of what was there.
    ///
    /// Fails where a layer is not in the store any more.
    pub fn record(&self, key: &CacheKey, record: &Record) -> Result<(), Error> {
        let about = serde_json::to_string(&record.about).expect("texts and numbers are JSON");
        self.index.write(|tx| {
            for layer in record.outputs.iter().flatten() {
                if !self.find_layer(tx, *layer)? {
                    return Err(fault::unusable(&self.layer_path(*layer), "lost before its result was recorded").into());
                }
            }
            let name = key.to_string();
            tx.prepare_cached("DELETE FROM records WHERE mode = ?1 AND key = ?2")?.execute((&self.mode, &name))?;
            let insert = "INSERT INTO records (mode, key, outputs, about, created_ms, used_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?5)";
            let outputs = i64::try_from(record.outputs.len()).unwrap_or(i64::MAX);
            tx.prepare_cached(insert)?.execute((&self.mode, name, outputs, about, self.now_ms()))?;
            let id = tx.last_insert_rowid();
            let mut insert =
                tx.prepare_cached("INSERT INTO record_layers (record, output, place, layer) VALUES (?1, ?2, ?3, ?4)")?;
            for (output, snapshot) in (0_i64..).zip(&record.outputs) {
                for (place, layer) in (0_i64..).zip(snapshot) {
                    insert.execute((id, output, place, layer.row()))?;
                }
            }
            Ok(())
        })
    }
}

/// Reads the outputs of a record.
pub(super) fn snapshots(tx: &Transaction<'_>, record: i64, outputs: i64) -> Result<Vec<Snapshot>, Fault> {
    let mut snapshots = vec![Snapshot::new(); usize::try_from(outputs).unwrap_or(0)];
    let mut select = tx.prepare_cached("SELECT output, layer FROM record_layers WHERE record = ?1 ORDER BY output, place")?;
    let mut rows = select.query([record])?;
    while let Some(row) = rows.next()? {
        let output = usize::try_from(row.get::<_, i64>(0)?).unwrap_or(usize::MAX);
        let snapshot = snapshots.get_mut(output).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, outputs))?;
        snapshot.push(LayerNumber::from_row(row.get(1)?));
    }
    Ok(snapshots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::{layer, noon, opened};
    use super::*;

    fn key(name: &str) -> CacheKey {
        CacheKey::of("exec", [name.as_bytes()])
    }

    fn record(outputs: Vec<Snapshot>) -> Record {
        let details = BTreeMap::from([("exit".to_owned(), "0".to_owned())]);
        Record { outputs, about: RecordAbout { name: "step".to_owned(), took: Duration::from_millis(1500), details } }
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (a, b) = (layer(&store, "a"), layer(&store, "b"));
        for outputs in [vec![vec![b, a], vec![], vec![a]], vec![], vec![vec![]], vec![vec![a; 300]]] {
            store.record(&key("k"), &record(outputs.clone())).unwrap();
            assert_eq!(opened(folder.path()).lookup(&key("k")).unwrap(), Some(record(outputs)));
        }
        assert_eq!(store.lookup(&key("other")).unwrap(), None);
        assert_eq!(Store::open(folder.path(), "root", noon).unwrap().lookup(&key("k")).unwrap(), None);
    }

    #[test]
    fn a_record_of_which_a_layer_is_lost_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let (a, b) = (layer(&store, "a"), layer(&store, "b"));
        store.record(&key("a"), &record(vec![vec![a]])).unwrap();
        store.record(&key("ab"), &record(vec![vec![a, b]])).unwrap();
        fs::remove_dir_all(store.layer_path(b)).unwrap();
        assert_eq!(store.lookup(&key("ab")).unwrap(), None);
        assert!(store.lookup(&key("a")).unwrap().is_some());
        let error = store.record(&key("b"), &record(vec![vec![b]])).unwrap_err().to_string();
        assert!(error.contains("lost before"), "{error}");
        assert_eq!(store.lookup(&key("b")).unwrap(), None);
    }

    #[test]
    fn every_part_and_its_border_is_in_the_key() {
        let keys = [
            CacheKey::of("a", [&b"b"[..], b"c"]),
            CacheKey::of("a", [&b"bc"[..]]),
            CacheKey::of("a", [&b"b"[..], b"c", b""]),
            CacheKey::of("ab", [&b"c"[..]]),
            CacheKey::of("a", []),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|other| one != other));
        }
        assert_eq!(keys[0].to_string().len(), 64);
    }
}
