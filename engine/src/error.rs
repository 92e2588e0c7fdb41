//! What can fail, by what it means for the caller.

use std::path::PathBuf;

/// Why a solver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing that speaks the protocol answers at an address.
    #[error("no back end at {address}: {reason}")]
    Connect {
        /// The address as it was tried.
        address: String,
        /// What was seen.
        reason: String,
    },
    /// The daemon failed, broke off or said something that makes no sense.
    #[error("the daemon failed while {doing}: {reason}")]
    Daemon {
        /// What was being done, as a gerund phrase.
        doing: String,
        /// What the daemon or the transport said.
        reason: String,
    },
    /// The solver lacks capabilities that the request needs.
    #[error("{solver} cannot do what is asked; it lacks: {}", missing.join(", "))]
    Unsupported {
        /// The solver, by its address or name.
        solver: String,
        /// The capabilities, as `solver/pb/caps.go` names them, or a feature in words.
        missing: Vec<String>,
    },
    /// A step ran and failed.
    #[error("step {name:?} failed{}: {reason}", exit_code.map(|code| format!(" with exit status {code}")).unwrap_or_default())]
    Step {
        /// The vertex, where the solver named one.
        vertex: Option<crate::Digest>,
        /// Its name in progress.
        name: String,
        /// The process's exit status, where it was a process that failed.
        exit_code: Option<i32>,
        /// What the solver said.
        reason: Box<str>,
        /// What to do, where the solver knows it.
        hint: Option<Box<str>>,
    },
    /// An image could not be found, read or pushed.
    #[error("registry: {reference}: {reason}")]
    Registry {
        /// The image.
        reference: String,
        /// What was seen.
        reason: String,
        /// Whether the same request may succeed later.
        transient: bool,
    },
    /// Credentials could not be read.
    #[error("credentials: {0}")]
    Credentials(String),
    /// Content is not what its digest says.
    #[error("integrity: {0}")]
    Integrity(String),
    /// A disk, a quota or a documented limit is exhausted.
    #[error("{0}")]
    Resource(String),
    /// A file of the client's could not be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The folder in which the embedded solver keeps its results could not be used.
    #[error("the cache: {}: {source}", path.display())]
    Store {
        /// The file or folder in it.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An output could not be written.
    #[error("{} cannot be written: {source}", path.display())]
    Output {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Says whether a disk, a quota or a limit is what an I/O error is about.
    pub fn is_exhausted(error: &std::io::Error) -> bool {
        use std::io::ErrorKind as Kind;
        matches!(
            error.kind(),
            Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::ReadOnlyFilesystem | Kind::OutOfMemory
        )
    }
}
