//! Finds the daemon that a machine is configured for.
//!
//! What is named first decides, in this order: `--builder`, `--addr`, `BUILDX_BUILDER`,
//! `BUILDKIT_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`, docker's current context, the default sockets.
//!
//! Invariant: nothing is tried where something was named. A name that leads nowhere is an error.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::address::{Address, Place, Protocol, TlsFiles, shown};
use crate::{Digest, Error};

/// Docker's files hold a few KB; what is larger is something else.
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The context that stands for `DOCKER_HOST` or the default socket.
const DEFAULT: &str = "default";

/// What a lookup rests on: flags, environment and folders, as the caller read them. An empty text
/// is the same as none.
#[derive(Clone, Debug, Default)]
pub struct Lookup {
    /// `--builder`: a docker context or a buildx builder.
    pub builder: Option<String>,
    /// `--addr`: buildkitd's address.
    pub addr: Option<String>,
    /// `--tlscacert` and so on, for [`Lookup::addr`] and [`Lookup::buildkit_host`].
    pub tls: Option<TlsFiles>,
    /// `BUILDX_BUILDER`.
    pub buildx_builder: Option<String>,
    /// `BUILDKIT_HOST`.
    pub buildkit_host: Option<String>,
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// Where `DOCKER_HOST` is spoken to over TLS (`DOCKER_TLS_VERIFY`): `DOCKER_CERT_PATH`, or
    /// docker's configuration folder.
    pub docker_certs: Option<PathBuf>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// Docker's configuration folder: `DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// buildx's folder: `BUILDX_CONFIG`, or `buildx` in docker's.
    pub buildx_config: Option<PathBuf>,
    /// Sockets that are looked at where nothing is named; see [`default_sockets`].
    pub sockets: Vec<Address>,
}

/// A daemon that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where it is.
    pub address: Address,
    /// What named it, as a phrase: `DOCKER_HOST`, `docker context "x"`, `default socket`.
    pub origin: String,
    /// Whether someone named it; only a default may be passed over for something else.
    pub named: bool,
}

/// Returns the sockets that daemons listen on by default; `runtime_dir` is `XDG_RUNTIME_DIR`.
pub fn default_sockets(runtime_dir: Option<&Path>) -> Vec<Address> {
    let mut sockets = vec![Address::unix("/var/run/docker.sock", Protocol::Docker)];
    sockets.extend(runtime_dir.map(|dir| Address::unix(dir.join("docker.sock"), Protocol::Docker)));
    sockets.push(Address::unix("/run/buildkit/buildkitd.sock", Protocol::Buildkit));
    sockets.extend(runtime_dir.map(|dir| Address::unix(dir.join("buildkit/buildkitd.sock"), Protocol::Buildkit)));
    sockets
}

/// Finds the daemon; nothing is connected.
///
/// Fails with [`Error::Connect`] where what is named is not there or not supported, or nothing is
/// named and no default socket exists, and with [`Error::Credentials`] where docker's
/// configuration cannot be read.
pub fn locate(lookup: &Lookup) -> Result<Located, Error> {
    let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let named = |address: Address, origin: &str| Located { address, origin: origin.to_owned(), named: true };
    if let Some(name) = given(&lookup.builder) {
        return builder(lookup, &name, "--builder");
    }
    if let Some(text) = given(&lookup.addr) {
        return Ok(named(from(&text, Protocol::Buildkit, lookup.tls.clone(), "--addr")?, "--addr"));
    }
    if let Some(name) = given(&lookup.buildx_builder) {
        return builder(lookup, &name, "BUILDX_BUILDER");
    }
    if let Some(text) = given(&lookup.buildkit_host) {
        return Ok(named(from(&text, Protocol::Buildkit, lookup.tls.clone(), "BUILDKIT_HOST")?, "BUILDKIT_HOST"));
    }
    if let Some(text) = given(&lookup.docker_host) {
        let tls = lookup.docker_certs.as_deref().map(|folder| pem_files(folder, None));
        return Ok(named(from(&text, Protocol::Docker, tls, "DOCKER_HOST")?, "DOCKER_HOST"));
    }
    if let Some(name) = given(&lookup.docker_context).filter(|name| name != DEFAULT) {
        let address = context(lookup, &name).map_err(|error| match error {
            Error::Connect { address, reason } => Error::Connect { address: format!("{address} (from DOCKER_CONTEXT)"), reason },
            other => other,
        })?;
        return Ok(named(address, &format!("docker context {name:?}, which DOCKER_CONTEXT names")));
    }
    let current = if given(&lookup.docker_context).is_some() { None } else { current_context(lookup)? };
    if let Some(name) = current {
        return Ok(named(context(lookup, &name)?, &format!("docker context {name:?}")));
    }
    default_socket(lookup)
}

/// Says whether nothing names a daemon, so that only the default sockets are left.
pub fn nothing_named(lookup: &Lookup) -> Result<bool, Error> {
    let named = [&lookup.builder, &lookup.addr, &lookup.buildx_builder, &lookup.buildkit_host, &lookup.docker_host];
    if named.into_iter().flatten().any(|text| !text.trim().is_empty()) {
        return Ok(false);
    }
    match lookup.docker_context.as_deref().map(str::trim).filter(|name| !name.is_empty()) {
        Some(name) => Ok(name == DEFAULT),
        None => Ok(current_context(lookup)?.is_none()),
    }
}

fn default_socket(lookup: &Lookup) -> Result<Located, Error> {
    let there = |address: &&Address| matches!(&address.place, Place::Unix(path) if path.exists());
    if let Some(address) = lookup.sockets.iter().find(there) {
        return Ok(Located { address: address.clone(), origin: "default socket".to_owned(), named: false });
    }
    let tried: Vec<String> = lookup.sockets.iter().map(Address::to_string).collect();
    let tried = if tried.is_empty() { "the default sockets".to_owned() } else { tried.join(", ") };
    Err(Error::Connect { address: tried, reason: "nothing is named, and there is no such socket".to_owned() })
}

/// Parses an address; errors say what named it.
fn from(text: &str, protocol: Protocol, tls: Option<TlsFiles>, origin: &str) -> Result<Address, Error> {
    Address::parse(text, protocol, tls).map_err(|error| match error {
        Error::Connect { address, reason } => Error::Connect { address: format!("{address} (from {origin})"), reason },
        other => other,
    })
}

#[derive(Deserialize)]
struct Instance {
    #[serde(rename = "Driver", default)]
    driver: String,
    #[serde(rename = "Nodes", default)]
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "Endpoint", default)]
    endpoint: String,
    #[serde(rename = "DriverOpts", default)]
    driver_opts: Option<std::collections::BTreeMap<String, String>>,
}

/// Finds a builder by name: a buildx instance, else a docker context.
fn builder(lookup: &Lookup, name: &str, origin: &str) -> Result<Located, Error> {
    let refuse = |reason: String| Error::Connect { address: format!("builder {:?} (from {origin})", shown(name)), reason };
    let usable = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
    if !usable {
        return Err(refuse("no builder can have this name".to_owned()));
    }
    let named = |address| Located { address, origin: format!("builder {name:?}, which {origin} names"), named: true };
    let folder = lookup.buildx_config.clone().or_else(|| lookup.docker_config.as_ref().map(|docker| docker.join("buildx")));
    let instance: Option<Instance> = match folder {
        Some(folder) => read_json(&folder.join("instances").join(name))?,
        None => None,
    };
    let Some(instance) = instance else {
        if name == DEFAULT {
            let unnamed = Lookup { builder: None, addr: None, buildx_builder: None, buildkit_host: None, ..lookup.clone() };
            return locate(&Lookup { docker_context: Some(DEFAULT.to_owned()), ..unnamed }).map(|found| named(found.address));
        }
        return match context(lookup, name) {
            Ok(address) => Ok(named(address)),
            Err(Error::Connect { reason, .. }) => Err(refuse(format!("no buildx builder, and as a docker context: {reason}"))),
            Err(other) => Err(other),
        };
    };
    let node = match instance.nodes.as_slice() {
        [node] => node,
        nodes => return Err(refuse(format!("it has {} nodes, but exactly one is supported", nodes.len()))),
    };
    match instance.driver.as_str() {
        "remote" => {
            let opt = |key: &str| node.driver_opts.as_ref().and_then(|opts| opts.get(key)).filter(|value| !value.is_empty());
            let tls = opt("cacert").map(|ca| TlsFiles {
                ca: PathBuf::from(ca),
                identity: opt("cert").zip(opt("key")).map(|(cert, key)| (PathBuf::from(cert), PathBuf::from(key))),
                server_name: opt("servername").cloned(),
            });
            if tls.is_none() && (opt("cert").is_some() || opt("key").is_some()) {
                return Err(refuse("it has a client certificate but no cacert to check the daemon's with".to_owned()));
            }
            Ok(named(from(&node.endpoint, Protocol::Buildkit, tls, origin)?))
        }
        "docker" if node.endpoint.contains("://") => Ok(named(from(&node.endpoint, Protocol::Docker, None, origin)?)),
        "docker" if node.endpoint.is_empty() || node.endpoint == DEFAULT => {
            let unnamed = Lookup { builder: None, addr: None, buildx_builder: None, buildkit_host: None, ..lookup.clone() };
            locate(&Lookup { docker_context: Some(DEFAULT.to_owned()), ..unnamed }).map(|found| named(found.address))
        }
        "docker" => Ok(named(context(lookup, &node.endpoint)?)),
        driver => {
            Err(refuse(format!("its driver {:?} is not supported; use one with the driver docker or remote", shown(driver))))
        }
    }
}

#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Endpoints", default)]
    endpoints: std::collections::BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// Reads a docker context: its folder is named by the sha256 of its name.
fn context(lookup: &Lookup, name: &str) -> Result<Address, Error> {
    let refuse =
        |reason: &str| Error::Connect { address: format!("docker context {:?}", shown(name)), reason: reason.to_owned() };
    let config = lookup.docker_config.as_ref().ok_or_else(|| refuse("there is no home folder to look for it in"))?;
    let id = Digest::of(name.as_bytes()).hex();
    let meta: Option<Meta> = read_json(&config.join("contexts/meta").join(&id).join("meta.json"))?;
    let meta = meta.ok_or_else(|| refuse("there is no such context; `docker context ls` lists them"))?;
    let endpoint = meta.endpoints.get("docker").ok_or_else(|| refuse("it names no docker daemon"))?;
    let folder = config.join("contexts/tls").join(&id).join("docker");
    let tls = folder.join("ca.pem").exists().then(|| pem_files(&folder, None));
    if endpoint.skip_tls_verify && endpoint.host.starts_with("tcp") {
        return Err(refuse("it has the check of the daemon's certificate switched off, which is not supported"));
    }
    from(&endpoint.host, Protocol::Docker, tls, &format!("docker context {name:?}"))
}

/// Names docker's three PEM files in a folder.
fn pem_files(folder: &Path, server_name: Option<String>) -> TlsFiles {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let identity = (certificate.exists() && key.exists()).then_some((certificate, key));
    TlsFiles { ca: folder.join("ca.pem"), identity, server_name }
}

fn current_context(lookup: &Lookup) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(rename = "currentContext", default)]
        current_context: Option<String>,
    }
    let Some(folder) = &lookup.docker_config else { return Ok(None) };
    let config: Option<Config> = read_json(&folder.join("config.json"))?;
    Ok(config.and_then(|config| config.current_context).filter(|name| !name.is_empty() && name != DEFAULT))
}

/// Reads a JSON file; one that is missing or empty is none.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let failed = |reason: String| Error::Credentials(format!("{}: {reason}", shown(&path.to_string_lossy())));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    if !metadata.is_file() {
        return Err(failed("not a file".to_owned()));
    }
    if metadata.len() > FILE_BYTES {
        return Err(failed(format!("larger than {FILE_BYTES} bytes; is it docker's?")));
    }
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text).map(Some).map_err(|error| failed(format!("malformed JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn context(&self, name: &str, host: &str) {
            let text = format!(
                r#"{{"Name":{name:?},"Metadata":{{}},"Endpoints":{{"docker":{{"Host":{host:?},"SkipTLSVerify":false}}}}}}"#
            );
            self.write(&format!("contexts/meta/{}/meta.json", Digest::of(name.as_bytes()).hex()), &text);
        }

        fn lookup(&self) -> Lookup {
            Lookup { docker_config: Some(self.0.path().to_owned()), ..Lookup::default() }
        }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn found(lookup: &Lookup) -> (String, String) {
        let located = locate(lookup).unwrap();
        (located.address.to_string(), located.origin)
    }

    #[test]
    fn what_is_named_first_decides() {
        let home = Home::new();
        home.context("builder", "unix:///builder");
        home.context("buildx", "unix:///buildx");
        home.context("context", "unix:///context");
        home.context("current", "unix:///current");
        home.write("config.json", r#"{"auths":{},"currentContext":"current"}"#);
        home.write("default.sock", "");
        let mut lookup = Lookup {
            builder: some("builder"),
            addr: some("unix:///addr"),
            buildx_builder: some("buildx"),
            buildkit_host: some("unix:///buildkit"),
            docker_host: some("unix:///host"),
            docker_context: some("context"),
            sockets: vec![Address::unix(home.0.path().join("default.sock"), Protocol::Docker)],
            ..home.lookup()
        };
        let mut order = Vec::new();
        let forgetting: [fn(&mut Lookup); 8] = [
            |lookup| lookup.builder = None,
            |lookup| lookup.addr = some("  "),
            |lookup| lookup.buildx_builder = None,
            |lookup| lookup.buildkit_host = some(""),
            |lookup| lookup.docker_host = None,
            |lookup| lookup.docker_context = None,
            |lookup| lookup.docker_config = None,
            |lookup| lookup.sockets.clear(),
        ];
        for forget in forgetting {
            order.push(found(&lookup));
            forget(&mut lookup);
        }
        let sock = format!("unix://{}", home.0.path().join("default.sock").display());
        let order: Vec<(&str, &str)> = order.iter().map(|(address, origin)| (address.as_str(), origin.as_str())).collect();
        assert_eq!(
            order,
            [
                ("unix:///builder", "builder \"builder\", which --builder names"),
                ("unix:///addr", "--addr"),
                ("unix:///buildx", "builder \"buildx\", which BUILDX_BUILDER names"),
                ("unix:///buildkit", "BUILDKIT_HOST"),
                ("unix:///host", "DOCKER_HOST"),
                ("unix:///context", "docker context \"context\", which DOCKER_CONTEXT names"),
                ("unix:///current", "docker context \"current\""),
                (sock.as_str(), "default socket"),
            ]
        );
        assert!(locate(&lookup).is_err());
    }

    #[test]
    fn a_default_is_told_from_what_someone_named() {
        let home = Home::new();
        home.write("s", "");
        let sockets =
            vec![Address::unix("/nowhere", Protocol::Docker), Address::unix(home.0.path().join("s"), Protocol::Buildkit)];
        let default = locate(&Lookup { sockets, ..home.lookup() }).unwrap();
        assert!(!default.named);
        assert_eq!(default.address.protocol, Protocol::Buildkit);
        assert!(locate(&Lookup { docker_host: some("unix:///x"), ..home.lookup() }).unwrap().named);
    }

    #[test]
    fn a_name_that_leads_nowhere_is_no_fallback() {
        let home = Home::new();
        home.write("s", "");
        let sockets = vec![Address::unix(home.0.path().join("s"), Protocol::Docker)];
        for lookup in [
            Lookup { builder: some("missing"), ..home.lookup() },
            Lookup { builder: some("../config.json"), ..home.lookup() },
            Lookup { docker_context: some("missing"), ..home.lookup() },
            Lookup { docker_host: some("ssh://host"), ..home.lookup() },
            Lookup { buildkit_host: some("docker-container://x"), ..home.lookup() },
            Lookup { addr: some("nonsense"), ..home.lookup() },
        ] {
            let error = locate(&Lookup { sockets: sockets.clone(), ..lookup.clone() }).unwrap_err();
            assert!(matches!(error, Error::Connect { .. }), "{lookup:?}: {error}");
        }
    }

    #[test]
    fn buildx_builders_are_read() {
        let home = Home::new();
        home.write(
            "buildx/instances/far",
            r#"{"Name":"far","Driver":"remote","Nodes":[{"Name":"far0","Endpoint":"tcp://h:1","DriverOpts":{"cacert":"/ca","cert":"/c","key":"/k","servername":"n"}}]}"#,
        );
        home.write("buildx/instances/near", r#"{"Driver":"docker","Nodes":[{"Endpoint":"unix:///near"}]}"#);
        home.write("buildx/instances/boxed", r#"{"Driver":"docker-container","Nodes":[{"Endpoint":"unix:///x"}]}"#);
        home.write("buildx/instances/many", r#"{"Driver":"remote","Nodes":[{"Endpoint":"a"},{"Endpoint":"b"}]}"#);
        home.write(
            "buildx/instances/unchecked",
            r#"{"Driver":"remote","Nodes":[{"Endpoint":"tcp://h:1","DriverOpts":{"cert":"/c"}}]}"#,
        );
        let by_name = |name: &str| locate(&Lookup { builder: some(name), ..home.lookup() });
        let far = by_name("far").unwrap().address;
        let identity = Some((PathBuf::from("/c"), PathBuf::from("/k")));
        assert_eq!(far.tls, Some(TlsFiles { ca: "/ca".into(), identity, server_name: some("n") }));
        assert_eq!(far.protocol, Protocol::Buildkit);
        assert_eq!(by_name("near").unwrap().address, Address::unix("/near", Protocol::Docker));
        for (name, cause) in [("boxed", "not supported"), ("many", "2 nodes"), ("unchecked", "no cacert")] {
            let error = by_name(name).unwrap_err().to_string();
            assert!(error.contains(cause), "{error}");
        }
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let home = Home::new();
        home.context("far", "tcp://h:2376");
        let folder = format!("contexts/tls/{}/docker", Digest::of(b"far").hex());
        for file in ["ca.pem", "cert.pem", "key.pem"] {
            home.write(&format!("{folder}/{file}"), "");
        }
        let address = locate(&Lookup { docker_context: some("far"), ..home.lookup() }).unwrap().address;
        let tls = address.tls.unwrap();
        assert_eq!(tls.ca, home.0.path().join(&folder).join("ca.pem"));
        assert!(tls.identity.is_some());
    }

    #[test]
    fn the_default_context_is_the_default_socket() {
        let home = Home::new();
        home.write("config.json", r#"{"currentContext":"far"}"#);
        home.write("s", "");
        let sockets = vec![Address::unix(home.0.path().join("s"), Protocol::Docker)];
        let lookup = Lookup { docker_context: some("default"), sockets, ..home.lookup() };
        assert_eq!(locate(&lookup).unwrap().origin, "default socket");
        let builder = Lookup { builder: some("default"), docker_context: None, ..lookup };
        assert!(locate(&builder).unwrap().named);
    }

    #[test]
    fn malformed_configuration_names_file_and_line() {
        let home = Home::new();
        home.write("config.json", "{\n  nonsense\n}");
        let error = locate(&home.lookup()).unwrap_err();
        assert!(matches!(error, Error::Credentials(_)), "{error}");
        assert!(error.to_string().contains("config.json: malformed JSON: key must be a string at line 2"), "{error}");
        home.write("config.json", " \n");
        assert!(matches!(locate(&home.lookup()), Err(Error::Connect { .. })));
    }
}
