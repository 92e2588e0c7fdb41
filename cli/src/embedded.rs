//! The embedded engine as a back end.
//!
//! Invariant: it keeps what it makes in the user's own cache folder, and nowhere else.

use std::path::Path;

use roche_engine::buildkit::engine_sockets;
use roche_engine::local::{KeepStorage, Local, LocalOptions};

use crate::backend::{Backend, unusable};
use crate::cache;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::registries;

/// Says how large the cache may become.
const KEEP_STORAGE: &str = "ROCHE_KEEP_STORAGE";

/// Whether a build may go on without a daemon.
pub(crate) const HERE: bool = true;

/// Sets up the engine; `reason` is why it was taken where nobody asked for it.
pub(crate) fn backend(
    environment: &Environment,
    offline: bool,
    origin: &str,
    reason: Option<String>,
) -> Result<Backend, Failure> {
    let options = LocalOptions { offline, ..options(environment)? };
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
        registries: registries::options(environment)?,
        offline: false,
        keep_storage: keep_storage(environment.variable(KEEP_STORAGE))?,
    })
}

/// Reads how large the cache may become.
fn keep_storage(text: Option<&str>) -> Result<KeepStorage, Failure> {
    match text {
        None => Ok(KeepStorage::Share),
        Some("all") => Ok(KeepStorage::All),
        Some(text) => match cache::parse_size(text) {
            Ok(bytes) => Ok(KeepStorage::Bytes(bytes)),
            Err(why) => Err(Failure::say(Exit::Configuration, format!("{KEEP_STORAGE} is {text:?}: {why}"))
                .hint(format!("export {KEEP_STORAGE}=10GB, or `all` for a cache that only grows"))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_cache_is_a_size_or_all() {
        let read = |text| keep_storage(text).map_err(|failure| (failure.exit, failure.render()));
        assert_eq!(read(None), Ok(KeepStorage::Share));
        assert_eq!(read(Some("all")), Ok(KeepStorage::All));
        assert_eq!(read(Some("1.5GB")), Ok(KeepStorage::Bytes(1_500_000_000)));
        let (exit, said) = read(Some("much")).unwrap_err();
        assert!(exit == Exit::Configuration && said.contains("ROCHE_KEEP_STORAGE is \"much\""), "{said}");
    }
}
