//! Leases: who uses what.
//!
//! Invariant: a lease lives as long as its file is locked, which the kernel sees to. What a dead one
//! held is free.

use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use super::fault::{self, Fault};
use super::index::Index;
use super::lock::FileLock;
use super::{Store, work};
use crate::Error;

/// What can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    Layer,
    Blob,
    Cache,
}

impl Held {
    /// Returns its name in the index.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Blob => "blob",
            Self::Cache => "cache",
        }
    }
}

/// A handle's lease.
#[derive(Debug)]
pub(super) struct Lease {
    name: String,
    _lock: FileLock,
}

impl Lease {
    /// Makes a lease that holds nothing.
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        let name = work::random_name()?;
        let path = path(root, &name);
        // Locked before it holds anything: nobody ever takes it for dead.
        let lock = FileLock::wait(&path).map_err(|error| fault::file(&path, error))?;
        Ok(Self { name, _lock: lock })
    }

    /// Lets go of all that it holds.
    pub(super) fn end(&self, index: &Index) -> Result<(), Error> {
        index.write(|tx| end(tx, &self.name))
    }
}

impl Store {
    /// Holds something for as long as the store is open.
    pub(super) fn hold(&self, tx: &Transaction<'_>, kind: Held, name: &str) -> Result<(), Fault> {
        let insert = "INSERT OR IGNORE INTO holds (lease, kind, name) VALUES (?1, ?2, ?3)";
        tx.prepare_cached(insert)?.execute((&self.lease.name, kind.name(), name))?;
        Ok(())
    }

    /// Forgets the leases whose processes are gone.
    pub(super) fn bury_dead_leases(&self, tx: &Transaction<'_>) -> Result<(), Fault> {
        let mut select = tx.prepare("SELECT DISTINCT lease FROM holds WHERE lease <> ?1")?;
        let leases = select.query_map([&self.lease.name], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for lease in leases {
            let path = path(&self.root, &lease);
            // Taking the lock of the dead also removes its file.
            if FileLock::take(&path).map_err(|error| fault::file(&path, error))?.is_some() {
                end(tx, &lease)?;
            }
        }
        Ok(())
    }
}

fn end(tx: &Transaction<'_>, lease: &str) -> Result<(), Fault> {
    tx.prepare_cached("DELETE FROM holds WHERE lease = ?1")?.execute([lease])?;
    Ok(())
}

/// Says, in a transaction that has buried the dead, whether a living lease holds something.
pub(super) fn is_held(tx: &Transaction<'_>, kind: Held, name: &str) -> Result<bool, Fault> {
    let select = "SELECT EXISTS (SELECT 1 FROM holds WHERE kind = ?1 AND name = ?2)";
    Ok(tx.prepare_cached(select)?.query_row((kind.name(), name), |row| row.get(0))?)
}

fn path(root: &Path, name: &str) -> PathBuf {
    root.join("locks").join(format!("lease-{name}"))
}
