//! Proxies, from the variables that docker and cargo read: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or the
//! same in small letters.
//!
//! Invariant: a message never repeats what a variable holds, for that may be a login.

use roche_engine::oci::{Proxies, ProxyAddress};

use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// Returns the proxies that are set.
pub(super) fn set(environment: &Environment) -> Result<Proxies, Failure> {
    let direct = first(environment, ["NO_PROXY", "no_proxy"]).map(|(_, hosts)| hosts.to_owned());
    Ok(Proxies {
        https: address(environment, ["HTTPS_PROXY", "https_proxy"])?,
        http: address(environment, ["HTTP_PROXY", "http_proxy"])?,
        direct: direct.unwrap_or_default(),
    })
}

/// Reads the address in the first of `names` that is set.
fn address(environment: &Environment, names: [&'static str; 2]) -> Result<Option<ProxyAddress>, Failure> {
    let Some((name, text)) = first(environment, names) else { return Ok(None) };
    let address = text.parse().map_err(|reason: String| {
        Failure::say(Exit::Usage, format!("the variable {name} is not the address of a proxy: {reason}"))
            .hint(format!("set {name} to http://HOST:PORT, or unset it"))
    })?;
    Ok(Some(address))
}

fn first<'e>(environment: &'e Environment, names: [&'static str; 2]) -> Option<(&'static str, &'e str)> {
    names.into_iter().find_map(|name| Some((name, environment.variable(name)?)))
}
