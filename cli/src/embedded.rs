//! The embedded engine as a back end.
//!
//! Invariant: it keeps what it makes in the user's own cache folder, and nowhere else.

use std::path::Path;

use roche_engine::buildkit::engine_sockets;
use roche_engine::local::{Local, LocalOptions};
use roche_engine::oci::RegistryOptions;

use crate::backend::{Backend, unusable};
use crate::environment::Environment;
use crate::error::Failure;

/// Whether a build may go on without a daemon.
pub(crate) const HERE: bool = true;

/// Sets up the engine; `reason` is why it was taken where nobody asked for it.
pub(crate) fn backend(environment: &Environment, origin: &str, reason: Option<String>) -> Result<Backend, Failure> {
    let options = options(environment)?;
    let has_store = options.engine.is_some();
    Ok(Backend {
        solver: Box::new(Local::new(options)),
        origin: origin.to_owned(),
        has_store,
        embedded: true,
        notice: reason.map(|reason| format!("building with the embedded engine: {reason}")),
    })
}

/// What the engine works with.
pub(crate) fn options(environment: &Environment) -> Result<LocalOptions, Failure> {
    let sockets = engine_sockets(environment.variable("XDG_RUNTIME_DIR").map(Path::new));
    Ok(LocalOptions {
        root: environment.cache()?,
        path: environment.variable("PATH").unwrap_or_default().into(),
        clock: std::time::SystemTime::now,
        engine: sockets.into_iter().find(|address| unusable(address).is_none()),
        registries: RegistryOptions::default(),
        offline: false,
    })
}
