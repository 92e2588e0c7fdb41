//! What can go wrong with a file op.

use std::io;

use crate::Error;
use crate::local::trees::path;
use crate::local::trees::unpack::UnpackError;

/// Says what was tried where, and why it failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The system refused.
    #[error("{what} {path}: {source}")]
    System {
        /// What was tried, in a word or two.
        what: &'static str,
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The action makes no sense here.
    #[error("{path}: {reason}")]
    Refused {
        /// Where.
        path: String,
        /// Why.
        reason: String,
    },
    /// An archive is not one.
    #[error("unpack {path}: {source}")]
    Archive {
        /// The archive.
        path: String,
        /// What is wrong with it.
        source: UnpackError,
    },
}

impl FileError {
    /// An action that makes no sense.
    pub(super) fn refused(path: &[u8], reason: impl Into<String>) -> Self {
        Self::Refused { path: shown(path), reason: reason.into() }
    }

    /// Makes an error of the system's.
    pub(super) fn system(what: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = shown(path);
        move |source| Self::System { what, path, source }
    }

    /// Something that has to be there is not.
    pub(super) fn missing(what: &'static str, path: &[u8]) -> Self {
        Self::system(what, path)(io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error()))
    }

    /// Says whether a disk, a quota or a limit is the cause.
    pub(crate) fn is_exhausted(&self) -> bool {
        match self {
            Self::System { source, .. } => Error::is_exhausted(source),
            Self::Archive { source, .. } => source.is_exhausted(),
            Self::Refused { .. } => false,
        }
    }
}

fn shown(path: &[u8]) -> String {
    path::shown(path.strip_prefix(b"/").unwrap_or(path))
}
