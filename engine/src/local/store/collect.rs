//! Garbage collection: what was used least recently goes first.
//!
//! The unit is what takes room: a layer, a blob, a cache folder. A layer is as recently used as the
//! newest record that it is part of, and the records go with it; a layer without records is garbage.
//!
//! Invariant: nothing that a living lease holds goes. Rows go first, files after: whenever it is
//! broken off, what is left over has no row.

use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Transaction;

use super::fault::Fault;
use super::hold::Held;
use super::usage::{self, Row};
use super::{FileLock, Remove, Store, fault, reconcile, reserve, work};
use crate::Error;

/// The lock of whoever collects.
const HOUSEKEEPING: &str = "housekeeping";
/// How many records and facts are kept that take no room.
const SMALL: i64 = 100_000;
/// How long the bytes of a download that broke off are of use.
const PARTIAL: Duration = Duration::from_secs(24 * 3600);

/// What a collection leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// What the store may take on the disk.
    pub max_bytes: u64,
    /// What was used within this time stays.
    pub keep_newer: Duration,
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many layers went.
    pub layers: u64,
    /// How many blobs went.
    pub blobs: u64,
    /// How many cache folders went.
    pub caches: u64,
    /// What they took on the disk.
    pub freed_bytes: u64,
    /// What is left.
    pub left_bytes: u64,
}

impl Store {
    /// Removes garbage, then what was used least recently, until the limits are kept or all that
    /// is left is held or new. Also sweeps `work/`. Waits for another collection to end.
    ///
    /// What cannot be removed has lost its row all the same; it is said, and left for the next
    /// collection.
    pub fn collect(&self, limits: &Limits, remove: &Remove<'_>) -> Result<Collected, Error> {
        let _alone = self.lock(HOUSEKEEPING)?;
        self.collect_alone(limits, remove)
    }

    fn collect_alone(&self, limits: &Limits, remove: &Remove<'_>) -> Result<Collected, Error> {
        // First, since the index needs room itself and the disk may be full; what resists is said below.
        let _ = self.sweep(remove);
        let (collected, gone) = match self.forget(limits) {
            Err(error) if fault::is_full(&error) => {
                reserve::spend(&self.root);
                self.forget(limits)?
            }
            forgot => forgot?,
        };
        self.clear_away(gone.iter().map(|row| (row.held_as, row.key.as_str())))?;
        self.forget_partials(limits)?;
        self.sweep(remove)?;
        reserve::keep(&self.root);
        Ok(collected)
    }

    /// Collects where the store takes more than `max_bytes`, and nobody else is at it, down to seven
    /// eighths of that: so most jobs that end find nothing to do, which is one look at the index.
    pub fn keep_below(&self, max_bytes: u64, remove: &Remove<'_>) -> Result<Option<Collected>, Error> {
        let sizes = ["layers", "blobs", "caches"].map(|table| format!("(SELECT coalesce(sum(size_bytes), 0) FROM {table})"));
        let sum = format!("SELECT {}", sizes.join(" + "));
        let taken: i64 = self.index.read(|tx| Ok(tx.prepare_cached(&sum)?.query_row([], |row| row.get(0))?))?;
        if taken.unsigned_abs() <= max_bytes {
            return Ok(None);
        }
        let Some(_alone) = self.try_lock(HOUSEKEEPING)? else { return Ok(None) };
        self.collect_alone(&Limits { max_bytes: max_bytes - max_bytes / 8, keep_newer: Duration::ZERO }, remove).map(Some)
    }

    /// Removes the rows of what goes; returns them.
    fn forget(&self, limits: &Limits) -> Result<(Collected, Vec<Row>), Error> {
        let now_ms = self.now_ms();
        self.index.write(|tx| {
            self.bury_dead_leases(tx)?;
            for litter in reconcile::mend(tx, reconcile::differences(tx, &self.root)?, now_ms)? {
                self.discard(&litter)?;
            }
            thin_out(tx, limits, now_ms)
        })
    }

    /// Moves the files of what has lost its row out of their place.
    pub(super) fn clear_away<'a>(&self, gone: impl Iterator<Item = (Held, &'a str)>) -> Result<(), Error> {
        self.index.write(|tx| {
            for (kind, key) in gone {
                // It may have been made anew since then.
                if !usage::has_row(tx, kind, key)? {
                    self.discard(&self.place(kind, key))?;
                }
            }
            Ok(())
        })
    }

    /// Returns where the files of a row are.
    pub(super) fn place(&self, kind: Held, key: &str) -> PathBuf {
        match kind {
            Held::Layer => self.root.join("layers").join(key),
            Held::Blob => self.root.join("blobs/sha256").join(key.trim_start_matches("sha256:")),
            Held::Cache => self.root.join("caches").join(key),
        }
    }

    fn forget_partials(&self, limits: &Limits) -> Result<(), Error> {
        let keep = if limits.max_bytes == 0 { limits.keep_newer } else { limits.keep_newer.max(PARTIAL) };
        for path in work::entries(&self.root.join("blobs/partial"))? {
            let written = path.symlink_metadata().and_then(|metadata| metadata.modified());
            if written.is_ok_and(|written| (self.clock)().duration_since(written).unwrap_or_default() >= keep) {
                // Taking and dropping a free lock removes its file; one that is being written is not free.
                FileLock::take(&path).map_err(|error| fault::file(&path, error))?;
            }
        }
        Ok(())
    }
}

/// Thins out the index until the limits are kept; returns what went.
fn thin_out(tx: &Transaction<'_>, limits: &Limits, now_ms: i64) -> Result<(Collected, Vec<Row>), Fault> {
    let mut collected = Collected::default();
    let mut all = Vec::new();
    loop {
        let rows = usage::rows(tx)?;
        let left: i64 = rows.iter().map(|row| row.size_bytes).sum();
        let gone = choose(rows, limits, now_ms);
        if gone.is_empty() {
            collected.left_bytes = left.unsigned_abs();
            break;
        }
        for row in gone {
            let count = match row.held_as {
                Held::Layer => &mut collected.layers,
                Held::Blob => &mut collected.blobs,
                Held::Cache => &mut collected.caches,
            };
            *count += 1;
            collected.freed_bytes += row.size_bytes.unsigned_abs();
            usage::delete_row(tx, row.held_as, &row.key)?;
            all.push(row);
        }
        // With a layer go its records, and what was part of no other record is garbage now.
    }
    let few = if limits.max_bytes == 0 { 0 } else { SMALL };
    let cutoff = now_ms.saturating_sub(i64::try_from(limits.keep_newer.as_millis()).unwrap_or(i64::MAX));
    for (table, small) in
        [("records", "id NOT IN (SELECT record FROM record_layers)"), ("facts", "layer IS NULL AND blob IS NULL")]
    {
        let newest = format!("SELECT used_ms FROM {table} WHERE {small} ORDER BY used_ms DESC LIMIT 1 OFFSET ?1");
        tx.execute(&format!("DELETE FROM {table} WHERE {small} AND used_ms <= ?2 AND used_ms <= ({newest})"), (few, cutoff))?;
    }
    Ok((collected, all))
}

/// Chooses what goes, out of everything there is.
fn choose(mut rows: Vec<Row>, limits: &Limits, now_ms: i64) -> Vec<Row> {
    let limit = i64::try_from(limits.max_bytes).unwrap_or(i64::MAX);
    let keep_ms = i64::try_from(limits.keep_newer.as_millis()).unwrap_or(i64::MAX);
    let mut total: i64 = rows.iter().map(|row| row.size_bytes).sum();
    rows.retain(|row| !row.held);
    // Of layers that were used at the same time, the upper goes before the one that it stands on.
    rows.sort_by_key(|row| (row.used_ms, -row.number()));
    rows.retain(|row| {
        // Of a limit of nothing, what takes no room goes as well.
        let over = total > limit || limit == 0;
        let goes = row.used_ms.is_none_or(|used| over && now_ms.saturating_sub(used) >= keep_ms);
        if goes {
            total -= row.size_bytes;
        }
        goes
    });
    rows
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::SystemTime;

    use super::super::tests::layer;
    use super::super::{CacheKey, LayerNumber, Record, RecordAbout};
    use super::*;
    use crate::Digest;

    static SECONDS: AtomicU64 = AtomicU64::new(1_700_000_000);

    /// A clock that is a second later each time it is asked.
    fn ticking() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS.fetch_add(1, Ordering::SeqCst))
    }

    fn opened(root: &Path) -> Store {
        Store::open(root, "single", ticking).unwrap()
    }

    fn remove(path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    const fn at_most(max_bytes: u64) -> Limits {
        Limits { max_bytes, keep_newer: Duration::ZERO }
    }

    fn record(store: &Store, name: &str, layers: &[LayerNumber]) {
        let record = Record { outputs: vec![layers.to_vec()], about: RecordAbout::default() };
        store.record(&CacheKey::of(name, []), &record).unwrap();
    }

    fn is_recorded(store: &Store, name: &str) -> bool {
        store.lookup(&CacheKey::of(name, [])).unwrap().is_some()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_upper_layer_before_its_base() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let [base, upper, other] = ["base", "upper", "other"].map(|text| layer(&store, text));
        record(&store, "base", &[base]);
        record(&store, "upper", &[base, upper]);
        record(&store, "other", &[other]);
        drop(store);
        assert!(is_recorded(&opened(folder.path()), "upper"), "used again: newer than other");

        let store = opened(folder.path());
        let collected = store.collect(&at_most(2 * 4096), &remove).unwrap();
        assert_eq!(collected, Collected { layers: 1, freed_bytes: 4096, left_bytes: 8192, ..Collected::default() });
        assert!(!store.layer_path(other).exists());
        let collected = store.collect(&at_most(4096), &remove).unwrap();
        assert_eq!((collected.layers, collected.left_bytes), (1, 4096));
        assert!(store.layer_path(base).exists() && !store.layer_path(upper).exists());
        assert_eq!((is_recorded(&store, "upper"), is_recorded(&store, "base")), (false, true));
        assert_eq!(fs::read_dir(folder.path().join("work")).unwrap().count(), 0);
    }

    #[test]
    fn below_the_limit_nothing_goes_and_above_it_an_eighth_more_than_needed() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        for text in ["0", "1", "2", "3", "4", "5", "6", "7"] {
            let layer = layer(&store, text);
            record(&store, text, &[layer]);
        }
        let of = |layers: u64| layers * 4096;
        assert_eq!(store.keep_below(of(7), &remove).unwrap().map(|collected| collected.layers), Some(0), "all are held");
        drop(store);
        let store = opened(folder.path());
        assert_eq!(store.keep_below(of(8), &remove).unwrap(), None);
        let other = opened(folder.path());
        let busy = other.lock("housekeeping").unwrap();
        assert_eq!(store.keep_below(of(4), &remove).unwrap(), None, "another is at it");
        drop(busy);
        let collected = store.keep_below(of(7), &remove).unwrap().unwrap();
        assert_eq!((collected.layers, collected.left_bytes), (2, of(6)));
        assert!(!is_recorded(&store, "0") && is_recorded(&store, "7"), "the oldest go");
    }

    #[test]
    fn what_a_handle_has_touched_stays_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let kept = layer(&store, "a");
        let digest = store.put(b"blob").unwrap();
        store.cache_folder("cargo").unwrap();
        let other = opened(folder.path());
        let collected = other.collect(&at_most(0), &remove).unwrap();
        assert_eq!((collected.layers, collected.blobs, collected.caches), (0, 0, 0));
        drop(store);
        let collected = other.collect(&at_most(0), &remove).unwrap();
        assert_eq!((collected.layers, collected.blobs, collected.caches, collected.left_bytes), (1, 1, 1, 0));
        assert!(!other.layer_path(kept).exists() && !other.blob_path(&digest).exists());
        assert_eq!(fs::read_dir(folder.path().join("caches")).unwrap().count(), 0);
    }

    #[test]
    fn a_layer_without_records_is_garbage_and_a_new_record_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let [garbage, kept] = ["garbage", "kept"].map(|text| layer(&store, text));
        record(&store, "kept", &[kept]);
        record(&store, "empty", &[]);
        store.set_fact("kind", b"key", b"value", super::super::Subject::Nothing).unwrap();
        drop(store);
        let store = opened(folder.path());
        let day = Limits { max_bytes: 0, keep_newer: Duration::from_secs(24 * 3600) };
        assert_eq!(store.collect(&day, &remove).unwrap().layers, 1);
        assert!(!store.layer_path(garbage).exists());
        assert!(is_recorded(&store, "empty") && store.fact("kind", b"key").unwrap().is_some());
        store.collect(&at_most(0), &remove).unwrap();
        assert!(!is_recorded(&store, "empty") && store.fact("kind", b"key").unwrap().is_none() && !is_recorded(&store, "kept"));
    }

    #[test]
    fn what_lies_about_without_a_row_is_taken_in_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        fs::create_dir_all(folder.path().join("layers/7/fs")).unwrap();
        fs::write(folder.path().join("blobs/sha256/short"), "x").unwrap();
        fs::write(folder.path().join("caches/file"), "x").unwrap();
        let digest = Digest::of(b"forgotten");
        fs::write(store.blob_path(&digest), "forgotten").unwrap();
        fs::write(folder.path().join("blobs/partial").join(digest.hex()), "forg").unwrap();
        store.collect(&at_most(u64::MAX), &remove).unwrap();
        for (place, left) in [("layers", 0), ("blobs/sha256", 1), ("caches", 0), ("work", 0), ("blobs/partial", 1)] {
            assert_eq!(fs::read_dir(folder.path().join(place)).unwrap().count(), left, "{place}");
        }
        assert!(store.contains(&digest).unwrap());
        store.collect(&at_most(0), &remove).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("blobs/partial")).unwrap().count(), 0);
    }

    #[test]
    fn collections_and_jobs_at_the_same_time_leave_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let root = folder.path();
                scope.spawn(move || {
                    for round in 0..12 {
                        let store = opened(root);
                        let text = format!("{}", (thread + round) % 4);
                        let layer = layer(&store, &text);
                        let digest = store.put(text.as_bytes()).unwrap();
                        record(&store, &text, &[layer]);
                        assert_eq!(fs::read_to_string(store.layer_path(layer).join("fs/file")).unwrap(), text);
                        assert!(store.blob(&digest).unwrap().is_some());
                        assert!(is_recorded(&store, &text));
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..20 {
                    opened(folder.path()).collect(&at_most(0), &remove).unwrap();
                }
            });
        });
    }
}
