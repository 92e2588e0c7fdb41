//! Which back end builds, and why that one.

use std::path::PathBuf;

use roche_engine::buildkit::locate::default_sockets;
use roche_engine::buildkit::{Buildkit, Located, Lookup, Protocol, TlsFiles, locate};
use roche_engine::solver::Solver;

use crate::args::SolveArgs;
use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// A back end that was chosen.
pub(crate) struct Backend {
    pub(crate) solver: Box<dyn Solver>,
    /// Where its address came from, for the report.
    pub(crate) origin: String,
    /// Whether it has an image store that users can run images from.
    pub(crate) has_store: bool,
}

impl Backend {
    /// Says where the address of a back end that failed came from.
    pub(crate) fn failure(&self, error: roche_engine::Error) -> Failure {
        let unreachable = matches!(error, roche_engine::Error::Connect { .. });
        let failure = Failure::from(error);
        if unreachable { failure.caused_by(format!("the address came from {}", self.origin)) } else { failure }
    }
}

/// Finds the back end in the documented order; one that was named is never passed over.
pub(crate) fn find(args: &SolveArgs, environment: &Environment) -> Result<Backend, Failure> {
    if args.addr.is_none() && (args.tlscacert.is_some() || args.tlscert.is_some()) {
        return Err(Failure::say(Exit::Usage, "--tlscacert and --tlscert are for the daemon that --addr names").hint("add --addr tcp://HOST:PORT"));
    }
    let tls = match (&args.tlscacert, &args.tlscert, &args.tlskey) {
        (None, None, None) => None,
        (Some(ca), cert, key) => Some(TlsFiles { ca: ca.clone(), identity: cert.clone().zip(key.clone()), server_name: None }),
        (None, ..) => return Err(Failure::say(Exit::Usage, "--tlscert needs --tlscacert, the certificate that the daemon is checked with")),
    };
    let text = |name: &str| environment.variable(name).map(str::to_owned);
    let folder = |name: &str| environment.variable(name).map(PathBuf::from);
    let docker_config = folder("DOCKER_CONFIG").or_else(|| Some(environment.home()?.join(".docker")));
    let lookup = Lookup {
        builder: args.builder.clone(),
        addr: args.addr.clone(),
        tls,
        buildx_builder: text("BUILDX_BUILDER"),
        buildkit_host: text("BUILDKIT_HOST"),
        docker_host: text("DOCKER_HOST"),
        docker_certs: text("DOCKER_TLS_VERIFY").and_then(|_| folder("DOCKER_CERT_PATH").or_else(|| docker_config.clone())),
        docker_context: text("DOCKER_CONTEXT"),
        buildx_config: folder("BUILDX_CONFIG").or_else(|| Some(docker_config.as_ref()?.join("buildx"))),
        docker_config,
        sockets: default_sockets(folder("XDG_RUNTIME_DIR").as_deref()),
    };
    let Located { address, origin, .. } = locate(&lookup)?;
    let has_store = address.protocol == Protocol::Docker;
    Ok(Backend { solver: Box::new(Buildkit::new(address)), origin, has_store })
}
