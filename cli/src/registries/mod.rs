//! How registries are reached: through which proxies, and which mirrors are asked first.

mod mirrors;
mod proxies;

use roche_engine::oci::RegistryOptions;

use crate::environment::Environment;
use crate::error::Failure;

/// Reads what the user and the system have set.
pub(crate) fn options(environment: &Environment) -> Result<RegistryOptions, Failure> {
    Ok(RegistryOptions { proxies: proxies::set(environment)?, mirrors: mirrors::configured(environment)? })
}
