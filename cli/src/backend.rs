//! Which back end builds, and why that one.

use std::path::PathBuf;

use roche_engine::Error;
use roche_engine::buildkit::locate::{default_sockets, nothing_named};
use roche_engine::buildkit::{Address, Buildkit, Located, Lookup, Protocol, TlsFiles, locate};
use roche_engine::solver::Solver;

use crate::args::SolveArgs;
use crate::embedded;
use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// The name of the embedded engine among builders.
const EMBEDDED: &str = "embedded";

/// A back end that was chosen.
pub(crate) struct Backend {
    pub(crate) solver: Box<dyn Solver>,
    /// Where its address came from, for the report.
    pub(crate) origin: String,
    /// Whether it has an image store that users can run images from.
    pub(crate) has_store: bool,
    /// Whether it is the embedded engine, which can use the machine's own toolchain.
    pub(crate) embedded: bool,
    /// What the user should know of the choice.
    pub(crate) notice: Option<String>,
}

impl Backend {
    /// Says where the address of a back end that failed came from.
    pub(crate) fn failure(&self, error: roche_engine::Error) -> Failure {
        let unreachable = matches!(error, roche_engine::Error::Connect { .. });
        let failure = Failure::from(error);
        if unreachable { failure.caused_by(format!("the address came from {}", self.origin)) } else { failure }
    }
}

/// Finds the back end in the documented order; one that was named is never passed over. Where
/// nothing is named and no default socket can be used, it is the embedded engine, whose steps and
/// sources have no network where `offline` says so.
pub(crate) fn find(args: &SolveArgs, offline: bool, environment: &Environment) -> Result<Backend, Failure> {
    if args.builder.as_deref() == Some(EMBEDDED) {
        return embedded::backend(environment, offline, "--builder", None);
    }
    match daemon(args, environment) {
        Ok(daemon) => Ok(daemon),
        Err(failure) if embedded::HERE && failure.exit == Exit::Unreachable && nothing_named(&lookup(args, environment)?)? => {
            embedded::backend(environment, offline, "no daemon", Some(failure.message().to_owned()))
        }
        Err(failure) => Err(failure),
    }
}

/// Finds the daemon that is named, or listens on a default socket.
pub(crate) fn daemon(args: &SolveArgs, environment: &Environment) -> Result<Backend, Failure> {
    let Located { address, origin, named } = locate(&lookup(args, environment)?)?;
    if let Some(reason) = unusable(&address).filter(|_| !named) {
        return Err(Error::Connect { address: address.to_string(), reason }.into());
    }
    let has_store = address.protocol == Protocol::Docker;
    Ok(Backend { solver: Box::new(Buildkit::new(address)), origin, has_store, embedded: false, notice: None })
}

/// Collects what daemons are found by.
pub(crate) fn lookup(args: &SolveArgs, environment: &Environment) -> Result<Lookup, Failure> {
    let text = |name: &str| environment.variable(name).map(str::to_owned);
    let folder = |name: &str| environment.variable(name).map(PathBuf::from);
    let docker_config = folder("DOCKER_CONFIG").or_else(|| Some(environment.home()?.join(".docker")));
    Ok(Lookup {
        builder: args.builder.clone(),
        addr: args.addr.clone(),
        tls: tls(args, environment)?,
        buildx_builder: text("BUILDX_BUILDER"),
        buildkit_host: text("BUILDKIT_HOST"),
        docker_host: text("DOCKER_HOST"),
        docker_certs: text("DOCKER_TLS_VERIFY").and_then(|_| folder("DOCKER_CERT_PATH").or_else(|| docker_config.clone())),
        docker_context: text("DOCKER_CONTEXT"),
        buildx_config: folder("BUILDX_CONFIG").or_else(|| Some(docker_config.as_ref()?.join("buildx"))),
        docker_config,
        sockets: default_sockets(folder("XDG_RUNTIME_DIR").as_deref()),
    })
}

/// Says why a default socket cannot be used.
#[cfg(unix)]
pub(crate) fn unusable(address: &Address) -> Option<String> {
    let roche_engine::buildkit::address::Place::Unix(path) = &address.place else { return None };
    std::os::unix::net::UnixStream::connect(path).err().map(|error| error.to_string())
}

#[cfg(not(unix))]
pub(crate) fn unusable(_: &Address) -> Option<String> {
    None
}

/// Returns the files of TLS, which are for an address that is named, not for docker's contexts.
fn tls(args: &SolveArgs, environment: &Environment) -> Result<Option<TlsFiles>, Failure> {
    let by_environment = || environment.variable("BUILDX_BUILDER").is_none() && environment.variable("BUILDKIT_HOST").is_some();
    let addressed = args.builder.is_none() && (args.addr.is_some() || by_environment());
    match (&args.tlscacert, &args.tlscert, &args.tlskey) {
        (None, None, None) => Ok(None),
        _ if !addressed => {
            Err(Failure::say(Exit::Usage, "--tlscacert and --tlscert are for the daemon that --addr or BUILDKIT_HOST names")
                .hint("add --addr tcp://HOST:PORT"))
        }
        (Some(ca), cert, key) => {
            Ok(Some(TlsFiles { ca: ca.clone(), identity: cert.clone().zip(key.clone()), server_name: None }))
        }
        (None, ..) => {
            Err(Failure::say(Exit::Usage, "--tlscert needs --tlscacert, the certificate that the daemon is checked with"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn tls_is_for_the_address_that_decides() {
        let args = |addr: bool, builder: bool| SolveArgs {
            tlscacert: Some("ca.pem".into()),
            addr: addr.then(|| "tcp://h:1".to_owned()),
            builder: builder.then(|| "b".to_owned()),
            ..SolveArgs::default()
        };
        let table = [
            (args(true, false), &[][..], true),
            (args(false, false), &["BUILDKIT_HOST"], true),
            (args(true, false), &["BUILDX_BUILDER"], true),
            (args(false, false), &[], false),
            (args(false, false), &["BUILDKIT_HOST", "BUILDX_BUILDER"], false),
            (args(false, true), &["BUILDKIT_HOST"], false),
        ];
        for (args, set, right) in table {
            let variables: BTreeMap<String, String> = set.iter().map(|&name| (name.to_owned(), "tcp://h:1".to_owned())).collect();
            let environment = Environment { variables, folder: "/".into(), stderr_terminal: false, stdout_terminal: false };
            assert_eq!(tls(&args, &environment).is_ok_and(|tls| tls.is_some()), right, "{args:?} {set:?}");
        }
    }
}
