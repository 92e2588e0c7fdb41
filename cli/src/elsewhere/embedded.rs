//! A machine that is no Linux has no embedded engine.
//!
//! Invariant: a daemon's failure is told as it is; nothing takes the daemon's place.

use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// Whether a build may go on without a daemon.
pub(crate) const HERE: bool = false;

/// Refuses to build here.
pub(crate) fn backend(_: &Environment, _: bool, _: &str, _: Option<String>) -> Result<Backend, Failure> {
    Err(Failure::say(Exit::Unreachable, "the embedded engine needs Linux").hint("name a daemon: --addr tcp://HOST:PORT"))
}
