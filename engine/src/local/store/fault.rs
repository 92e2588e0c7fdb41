//! What goes wrong in the store, as the engine's error.
//!
//! Invariant: a full disk or quota is always [`Error::Resource`], whichever layer noticed it.

use std::io;
use std::path::Path;

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
    if Error::is_exhausted(&source) {
        return full(path, &source.to_string());
    }
    Error::File { path: path.to_owned(), source }
}

/// Makes the error of a store that has no room.
pub(super) fn full(path: &Path, reason: &str) -> Error {
    Error::Resource(format!("{}: {reason}; free some space or make the cache smaller", path.display()))
}

/// Makes the error of a file that is there and cannot be used as it is.
pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    Error::File { path: path.to_owned(), source: io::Error::other(reason.into()) }
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
    fn a_full_disk_is_a_matter_of_resources_and_all_else_of_the_file() {
        let path = Path::new("/cache/work/x");
        let full = file(path, io::ErrorKind::StorageFull.into());
        assert!(
            matches!(&full, Error::Resource(text) if text.starts_with("/cache/work/x: ") && text.contains("free some space"))
        );
        assert!(matches!(file(path, io::ErrorKind::QuotaExceeded.into()), Error::Resource(_)));
        assert!(matches!(file(path, io::ErrorKind::PermissionDenied.into()), Error::File { .. }));
        assert!(matches!(absent::<()>(Err(io::ErrorKind::NotFound.into())), Ok(None)));
    }
}
