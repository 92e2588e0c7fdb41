//! What the store holds: for lists of it, and for the choice of what goes.

use std::time::SystemTime;

use rusqlite::Transaction;

use super::fault::Fault;
use super::hold::Held;
use super::{LayerNumber, RecordAbout, Store};
use crate::Error;

/// Something that takes room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// A layer's number, a blob's digest, a cache folder's id.
    pub name: String,
    /// The mode that can use it; a blob is of use in all.
    pub mode: Option<String>,
    /// What it takes on the disk.
    pub size_bytes: u64,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used; nothing where no record leads to it any more.
    pub last_used: Option<SystemTime>,
    /// Whether a living process holds it.
    pub held: bool,
    /// How many cache records a layer is part of.
    pub records: u64,
    /// The name of the most recently used of them.
    pub description: String,
}

/// What takes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// The files of one diff.
    Layer,
    /// A file by its digest.
    Blob,
    /// What steps keep between runs.
    Cache,
}

/// An entry as the index has it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) held_as: Held,
    /// Its name in the index: a layer's number, a blob's digest, a cache folder's name.
    pub(super) key: String,
    pub(super) size_bytes: i64,
    pub(super) used_ms: Option<i64>,
    pub(super) held: bool,
    pub(super) mode: Option<String>,
    /// What people call a cache folder.
    pub(super) id: String,
    /// The digest of a layer's tree.
    pub(super) tree: String,
    created_ms: i64,
    records: i64,
    about: Option<String>,
}

impl Row {
    /// Returns a layer's number; 0 for anything else.
    pub(super) fn number(&self) -> i64 {
        if self.held_as == Held::Layer { LayerNumber::parse(&self.key).map_or(0, LayerNumber::row) } else { 0 }
    }
}

/// Reads all entries, in a transaction that has buried the dead leases.
pub(super) fn rows(tx: &Transaction<'_>) -> Result<Vec<Row>, Fault> {
    // A layer is as recently used as the newest record that it is part of; SQLite takes the other
    // columns from the row that has the maximum.
    let queries = [
        (
            Held::Layer,
            "SELECT CAST(l.number AS TEXT), l.size_bytes, max(r.used_ms), l.created_ms, l.mode, '', l.tree,
                count(DISTINCT r.id), r.about
             FROM layers l LEFT JOIN record_layers p ON p.layer = l.number LEFT JOIN records r ON r.id = p.record
             GROUP BY l.number ORDER BY l.number",
        ),
        (Held::Blob, "SELECT digest, size_bytes, used_ms, created_ms, NULL, '', '', 0, NULL FROM blobs ORDER BY digest"),
        (Held::Cache, "SELECT name, size_bytes, used_ms, created_ms, mode, id, '', 0, NULL FROM caches ORDER BY id"),
    ];
    let mut all = Vec::new();
    for (held_as, select) in queries {
        let mut select = tx.prepare(select)?;
        let rows = select.query_map([], |row| {
            Ok(Row {
                held_as,
                key: row.get(0)?,
                size_bytes: row.get(1)?,
                used_ms: row.get(2)?,
                held: false,
                created_ms: row.get(3)?,
                mode: row.get(4)?,
                id: row.get(5)?,
                tree: row.get(6)?,
                records: row.get(7)?,
                about: row.get(8)?,
            })
        })?;
        for row in rows {
            let row = row?;
            let held = super::hold::is_held(tx, held_as, &row.key)?;
            all.push(Row { held, ..row });
        }
    }
    Ok(all)
}

/// Says whether something is in the index.
pub(super) fn has_row(tx: &Transaction<'_>, kind: Held, key: &str) -> Result<bool, Fault> {
    let select = match kind {
        Held::Layer => "SELECT EXISTS (SELECT 1 FROM layers WHERE number = CAST(?1 AS INTEGER))",
        Held::Blob => "SELECT EXISTS (SELECT 1 FROM blobs WHERE digest = ?1)",
        Held::Cache => "SELECT EXISTS (SELECT 1 FROM caches WHERE name = ?1)",
    };
    Ok(tx.prepare_cached(select)?.query_row([key], |row| row.get(0))?)
}

/// Takes something out of the index; its files are the caller's to [clear away](Store::clear_away).
pub(super) fn delete_row(tx: &Transaction<'_>, kind: Held, key: &str) -> Result<(), Fault> {
    let delete = match kind {
        Held::Layer => "DELETE FROM layers WHERE number = CAST(?1 AS INTEGER)",
        Held::Blob => "DELETE FROM blobs WHERE digest = ?1",
        Held::Cache => "DELETE FROM caches WHERE name = ?1",
    };
    tx.prepare_cached(delete)?.execute([key])?;
    Ok(())
}

impl Store {
    /// Lists what the store holds: layers, blobs, cache folders, each by its name.
    pub fn usage(&self) -> Result<Vec<Entry>, Error> {
        let rows = self.index.write(|tx| {
            self.bury_dead_leases(tx)?;
            rows(tx)
        })?;
        Ok(rows.into_iter().map(entry).collect())
    }
}

fn entry(row: Row) -> Entry {
    let about: RecordAbout = row.about.as_deref().and_then(|about| serde_json::from_str(about).ok()).unwrap_or_default();
    let (kind, name) = match row.held_as {
        Held::Layer => (EntryKind::Layer, row.key),
        Held::Blob => (EntryKind::Blob, row.key),
        Held::Cache => (EntryKind::Cache, row.id),
    };
    Entry {
        kind,
        name,
        mode: row.mode,
        size_bytes: row.size_bytes.unsigned_abs(),
        created: super::time(row.created_ms),
        last_used: row.used_ms.map(super::time),
        held: row.held,
        records: row.records.unsigned_abs(),
        description: about.name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{layer, noon, opened};
    use super::super::{CacheKey, Record};
    use super::*;

    #[test]
    fn everything_that_takes_room_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let layers = ["a", "b"].map(|text| layer(&store, text));
        let about = RecordAbout { name: "compile".to_owned(), ..RecordAbout::default() };
        let record = Record { outputs: vec![vec![layers[0]], vec![layers[0]]], about };
        store.record(&CacheKey::of("exec", []), &record).unwrap();
        let digest = store.put(&[7; 10_000]).unwrap();
        store.cache_folder("cargo").unwrap();
        store.set_cache_size("cargo", 123).unwrap();
        drop(store);

        let store = opened(folder.path());
        store.contains(&digest).unwrap();
        let entries = store.usage().unwrap();
        let shown: Vec<_> =
            entries.iter().map(|e| (e.kind, e.name.as_str(), e.size_bytes, e.held, e.records, e.description.as_str())).collect();
        let digest = digest.to_string();
        assert_eq!(
            shown,
            [
                (EntryKind::Layer, "1", 4096, false, 1, "compile"),
                (EntryKind::Layer, "2", 4096, false, 0, ""),
                (EntryKind::Blob, digest.as_str(), entries[2].size_bytes, true, 0, ""),
                (EntryKind::Cache, "cargo", 123, false, 0, ""),
            ]
        );
        assert!(entries[2].size_bytes >= 10_000);
        assert_eq!((entries[0].created, entries[0].last_used, entries[1].last_used), (noon(), Some(noon()), None));
    }
}
