//! What goes wrong in the store, as the engine's error.
//!
//! Invariant: it is always [`Error::Store`] with a path and a cause, whichever layer noticed it; of a
//! full disk or quota, [`Error::is_exhausted`] says so.

use std::path::Path;
use std::{fs, io};

use rusqlite::ErrorCode;

use crate::Error;

/// What may end a transaction; the index turns it into an [`Error`], since it knows its own path.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite refused.
    Sql(rusqlite::Error),
    /// Something beside the index failed.
    Engine(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

/// Makes the error of a file operation on `path`.
pub(super) fn file(path: &Path, source: io::Error) -> Error {
    Error::Store { path: path.to_owned(), source }
}

/// Makes the error of a file that is there and cannot be used as it is.
pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    file(path, io::Error::other(reason.into()))
}

/// Says whether a store has no room.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::Store { source, .. } if Error::is_exhausted(source))
}

/// Makes the error of an index that SQLite could not read or write, which says what it was doing and
/// seldom why: the folder is asked.
pub(super) fn sqlite(path: &Path, said: &rusqlite::Error) -> Error {
    let kind = match said.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => io::ErrorKind::StorageFull,
        Some(ErrorCode::OutOfMemory) => io::ErrorKind::OutOfMemory,
        Some(ErrorCode::ReadOnly) => io::ErrorKind::ReadOnlyFilesystem,
        _ => match tried(path) {
            Ok(()) => io::ErrorKind::Other,
            Err(refused) => return file(path, refused),
        },
    };
    file(path, io::Error::new(kind, said.to_string()))
}

/// Writes about as much beside the index as a transaction does, and removes it.
fn tried(path: &Path) -> io::Result<()> {
    let probe = path.with_extension(format!("probe-{}", std::process::id()));
    let written = fs::write(&probe, [0; 64 << 10]);
    // A file that was not made is gone already.
    let _ = fs::remove_file(&probe);
    written
}

/// Takes a file that is not there for nothing.
pub(super) fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_cache_the_file_and_the_cause() {
        let path = Path::new("/cache/work/x");
        let full = file(path, io::ErrorKind::StorageFull.into());
        assert!(is_full(&full) && full.to_string().starts_with("the cache: /cache/work/x: "), "{full}");
        assert!(is_full(&file(path, io::ErrorKind::QuotaExceeded.into())));
        assert!(!is_full(&file(path, io::ErrorKind::PermissionDenied.into())) && !is_full(&unusable(path, "odd")));
        assert!(matches!(absent::<()>(Err(io::ErrorKind::NotFound.into())), Ok(None)));
    }

    #[test]
    fn what_sqlite_does_not_say_is_asked_of_the_folder() {
        let failed = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("index.db");
        assert!(is_full(&sqlite(&index, &failed(rusqlite::ffi::SQLITE_FULL))));
        assert!(is_full(&sqlite(&index, &failed(rusqlite::ffi::SQLITE_READONLY))));
        let kind = |error| match error {
            Error::Store { source, .. } => source.kind(),
            other => panic!("{other}"),
        };
        let broken = failed(rusqlite::ffi::SQLITE_IOERR);
        assert_eq!(kind(sqlite(&index, &broken)), io::ErrorKind::Other);
        assert_eq!(kind(sqlite(&folder.path().join("gone/index.db"), &broken)), io::ErrorKind::NotFound);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
