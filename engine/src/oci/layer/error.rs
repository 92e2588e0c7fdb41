//! What can be wrong with an archive.

use std::io;

use crate::Error;

/// Says which entry was refused and why. Nothing of the folder that was unpacked into is of use afterwards.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    /// The archive says something impossible.
    #[error("the archive's entry {entry:?} is refused: {reason}")]
    Refused {
        /// The entry's name, or where its header is.
        entry: String,
        /// What is wrong.
        reason: String,
    },
    /// The archive is larger than anything real.
    #[error("the archive's entry {entry:?} is refused: {limit} {what} are the limit")]
    Limit {
        /// The entry's name, or where its header is.
        entry: String,
        /// The limit.
        limit: u64,
        /// What is limited.
        what: &'static str,
    },
    /// The archive ends too early.
    #[error("the archive ends in the middle of {entry:?}: it was not received whole")]
    Truncated {
        /// The entry's name, or where its header is.
        entry: String,
    },
    /// Whoever gives the archive failed.
    #[error("the archive cannot be read at {entry:?}: {source}")]
    Read {
        /// The entry's name, or where its header is.
        entry: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk refused.
    #[error("the archive's entry {entry:?} cannot be written: {source}")]
    Write {
        /// The entry's name.
        entry: String,
        /// What the system said.
        source: io::Error,
    },
}

impl UnpackError {
    /// Says whether a disk, a quota or a limit is the cause.
    pub(crate) fn is_exhausted(&self) -> bool {
        match self {
            Self::Limit { .. } => true,
            Self::Read { source, .. } | Self::Write { source, .. } => Error::is_exhausted(source),
            Self::Refused { .. } | Self::Truncated { .. } => false,
        }
    }
}
