//! The index: one SQLite file (WAL) that several processes write to.
//!
//! Invariant: whatever changes the index does so in a transaction that takes the write lock first
//! ([`Index::write`]), and whoever moves a file into or out of `layers/`, `blobs/` or `caches/` does
//! it within one. So rows and files are seen together. A file without a row is litter; a row
//! without a file only comes from a power cut or from hands that reached into the folder, and is
//! dropped where it is met.
//!
//! What is in a file is synced before it gets its name. Names and rows are not: after a power cut
//! the last of either may be missing, and what they led to is made again. Waiting for the disk at
//! each step would cost more than that.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::fault::{self, Fault};
use crate::Error;

/// The schema that this code reads and writes.
const SCHEMA: i64 = 2;
/// How long another process's transaction is waited for; it may be waiting for a slow disk.
const BUSY: Duration = Duration::from_secs(120);

/// `used_ms` and `created_ms` are milliseconds since 1970. A layer has no `used_ms`: it is as
/// recently used as the newest record that names it.
const TABLES: &str = "
CREATE TABLE holds (lease TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (lease, kind, name)) WITHOUT ROWID;
CREATE INDEX holds_by_name ON holds (kind, name);
CREATE TABLE layers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, mode TEXT NOT NULL, content TEXT NOT NULL, tree TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, created_ms INTEGER NOT NULL, UNIQUE (mode, content, tree)
);
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, created_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE caches (
    name TEXT PRIMARY KEY, mode TEXT NOT NULL, id TEXT NOT NULL,
    size_bytes INTEGER NOT NULL, created_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE records (
    id INTEGER PRIMARY KEY, mode TEXT NOT NULL, key TEXT NOT NULL, outputs INTEGER NOT NULL, about TEXT NOT NULL,
    created_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL, UNIQUE (mode, key)
);
CREATE TABLE record_layers (
    record INTEGER NOT NULL REFERENCES records ON DELETE CASCADE, output INTEGER NOT NULL, place INTEGER NOT NULL,
    layer INTEGER NOT NULL, PRIMARY KEY (record, output, place)
) WITHOUT ROWID;
CREATE INDEX record_layers_by_layer ON record_layers (layer);
CREATE TABLE facts (
    mode TEXT NOT NULL, kind TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    layer INTEGER REFERENCES layers ON DELETE CASCADE, blob TEXT REFERENCES blobs ON DELETE CASCADE,
    used_ms INTEGER NOT NULL, PRIMARY KEY (mode, kind, key)
) WITHOUT ROWID;
CREATE INDEX facts_by_layer ON facts (layer) WHERE layer IS NOT NULL;
CREATE INDEX facts_by_blob ON facts (blob) WHERE blob IS NOT NULL;
CREATE TRIGGER a_record_has_all_its_layers AFTER DELETE ON layers BEGIN
    DELETE FROM records WHERE id IN (SELECT record FROM record_layers WHERE layer = OLD.number);
END;
";

/// An open index.
#[derive(Debug)]
pub(super) struct Index {
    connection: Mutex<Connection>,
    path: PathBuf,
    /// Whether anything beside it may be written.
    writes: bool,
}

impl Index {
    /// Opens the index; nothing where it is missing, unfinished, damaged or of an older version.
    ///
    /// Fails where a newer version of this code has written it.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, Error> {
        Self::open_with(path, true, |path| Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE))
    }

    /// Opens the index to read it alone; nothing where [`Index::open`] has nothing.
    pub(super) fn open_to_read(path: &Path) -> Result<Option<Self>, Error> {
        Self::open_with(path, false, Self::connect_to_read)
    }

    fn open_with(
        path: &Path,
        writes: bool,
        connect: fn(&Path) -> rusqlite::Result<(Connection, i64)>,
    ) -> Result<Option<Self>, Error> {
        if !path.exists() || marker(path).exists() {
            return Ok(None);
        }
        match connect(path) {
            Ok((_, ..SCHEMA)) => Ok(None),
            Ok((connection, SCHEMA)) => Ok(Some(Self { connection: Mutex::new(connection), path: path.to_owned(), writes })),
            Ok((_, schema)) => Err(fault::unusable(
                path,
                format!(
                    "written by a newer version (schema {schema}, this version knows {SCHEMA}); use that version, or another cache folder"
                ),
            )),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(explain(path, error, writes)),
        }
    }

    /// Makes a new index, whole or not at all; `fill` writes what is known already. What is at
    /// `path` is set aside. The caller has made sure that nobody uses it.
    pub(super) fn create(path: &Path, fill: impl FnOnce(&Transaction<'_>) -> Result<(), Fault>) -> Result<(), Error> {
        let beside = |suffix: &str| path.with_file_name(format!("index.db{suffix}"));
        // Kept for whoever wants to know what happened; the one before it has had its time.
        fault::absent(fs::rename(path, beside(".damaged"))).map_err(|error| fault::file(path, error))?;
        for stale in [beside("-wal"), beside("-shm"), marker(path)] {
            fault::absent(fs::remove_file(&stale)).map_err(|error| fault::file(&stale, error))?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let (connection, _) = Self::connect(path, flags).map_err(|error| explain(path, error, true))?;
        let index = Self { connection: Mutex::new(connection), path: path.to_owned(), writes: true };
        index.write(|tx| {
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "user_version", SCHEMA)?;
            fill(tx)
        })
    }

    fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<(Connection, i64)> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY)?;
        // The log is left for the next process: a short command does not wait for a checkpoint.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "recursive_triggers", true)?;
        connection.set_prepared_statement_cache_capacity(64);
        let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((connection, schema))
    }

    fn connect_to_read(path: &Path) -> rusqlite::Result<(Connection, i64)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // The log is not this process's to tidy up.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let schema = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        Ok((connection, schema))
    }

    /// Runs `work` in a transaction of its own, alone among all threads and processes; all of it
    /// is kept, or none.
    pub(super) fn write<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.transact(TransactionBehavior::Immediate, work)
    }

    /// Runs `work`, which only reads, on one state of the index.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        self.transact(TransactionBehavior::Deferred, work)
    }

    fn transact<T>(&self, how: TransactionBehavior, work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>) -> Result<T, Error> {
        let mut connection = self.connection();
        let done = (|| {
            let tx = connection.transaction_with_behavior(how)?;
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        })();
        done.map_err(|fault| match fault {
            Fault::Engine(error) => error,
            Fault::Sql(error) => {
                if is_damage(&error) && self.writes {
                    self.mark_damaged();
                }
                explain(&self.path, error, self.writes)
            }
        })
    }

    /// Has the index set aside and made anew by the next process that opens it alone.
    pub(super) fn mark_damaged(&self) {
        // Where not even this can be written, the next process meets the damage by itself.
        let _ = fs::write(marker(&self.path), b"");
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A thread that panicked within a transaction has rolled it back.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn marker(path: &Path) -> PathBuf {
    path.with_extension("rebuild")
}

fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) => true,
        rusqlite::Error::IntegralValueOutOfRange(..) => true,
        // What refers to nothing, and a column that is not there, are no index of ours.
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ConstraintViolation | ErrorCode::Unknown)
        ),
    }
}

/// Says what went wrong; where nothing may be written, the folder is not tried either.
fn explain(path: &Path, error: rusqlite::Error, writes: bool) -> Error {
    if is_damage(&error) && !writes {
        return Error::Integrity(format!("{}: {error}; the next build makes the index anew", path.display()));
    }
    if is_damage(&error) {
        return Error::Integrity(format!("{}: {error}; the index is made anew at the next start", path.display()));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            fault::unusable(path, format!("another process has been writing for {} s; wait until it ends", BUSY.as_secs()))
        }
        _ if !writes => fault::unusable(path, error.to_string()),
        _ => fault::sqlite(path, &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path) -> Index {
        let path = folder.join("index.db");
        Index::create(&path, |_| Ok(())).unwrap();
        Index::open(&path).unwrap().unwrap()
    }

    #[test]
    fn a_newer_schema_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let index = made(folder.path());
        index.write(|tx| Ok(tx.pragma_update(None, "user_version", 7)?)).unwrap();
        drop(index);
        let error = Index::open(&folder.path().join("index.db")).unwrap_err().to_string();
        assert!(error.contains("schema 7, this version knows 2"), "{error}");
    }

    #[test]
    fn what_is_no_database_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        fs::write(&path, b"x".repeat(5000)).unwrap();
        assert!(Index::open(&path).unwrap().is_none());
        made(folder.path());
        assert_eq!(fs::read(path.with_file_name("index.db.damaged")).unwrap(), b"x".repeat(5000));
    }

    #[test]
    fn a_page_that_broke_is_met_in_use_and_mended_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let index = made(folder.path());
        let insert = "INSERT INTO blobs VALUES (?1, 1, 1, 1)";
        index
            .write(|tx| {
                (0..5000).try_for_each(|i| tx.execute(insert, [format!("sha256:{i:064}")]).map(|_| ())).map_err(Fault::from)
            })
            .unwrap();
        index.connection().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(index);
        let path = folder.path().join("index.db");
        let mut bytes = fs::read(&path).unwrap();
        bytes[20 * 4096..].fill(0x5a);
        fs::write(&path, bytes).unwrap();
        let (index, looked) = (Index::open(&path).unwrap().unwrap(), Index::open_to_read(&path).unwrap().unwrap());
        let count = |tx: &Transaction<'_>| Ok(tx.query_row("SELECT sum(size_bytes) FROM blobs", [], |row| row.get::<_, i64>(0))?);
        assert!(matches!(looked.read(count), Err(Error::Integrity(_))));
        assert!(Index::open(&path).unwrap().is_some(), "who only looks has marked it");
        assert!(matches!(index.read(count), Err(Error::Integrity(_))));
        assert!(Index::open(&path).unwrap().is_none());
    }

    #[test]
    fn a_record_goes_with_any_of_its_layers() {
        let folder = tempfile::tempdir().unwrap();
        let index = made(folder.path());
        let left = index.write(|tx| {
            tx.execute_batch(
                "INSERT INTO layers VALUES (1, 'm', 'c', 't', 1, 1), (2, 'm', 'd', 't', 1, 1);
                 INSERT INTO records VALUES (1, 'm', 'k', 1, '', 1, 1), (2, 'm', 'l', 1, '', 1, 1);
                 INSERT INTO record_layers VALUES (1, 0, 0, 1), (1, 0, 1, 2), (2, 0, 0, 2);
                 INSERT INTO facts VALUES ('m', 'f', x'00', x'00', 1, NULL, 1);
                 DELETE FROM layers WHERE number = 1;",
            )?;
            Ok(tx.query_row("SELECT (SELECT group_concat(id) FROM records), (SELECT count(*) FROM record_layers), (SELECT count(*) FROM facts)", [], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            })?)
        });
        assert_eq!(left.unwrap(), ("2".to_owned(), 1, 0));
    }
}
