//! Where a daemon listens and what it speaks there.
//!
//! Invariant: an [`Address`] names exactly one place; nothing is tried beside it.

use std::fmt;
use std::path::PathBuf;

use crate::Error;
pub(super) use crate::text::shown;

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// dockerd's HTTP API, whose BuildKit is reached by upgrading `/grpc` and `/session`.
    Docker,
    /// buildkitd's gRPC.
    Buildkit,
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// A name or an IP address, the latter without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

/// The PEM files of a TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signed the daemon's certificate.
    pub ca: PathBuf,
    /// The client's certificate and key, for daemons that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the daemon's certificate must have; the address's host where absent.
    pub server_name: Option<String>,
}

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// What is spoken there.
    pub protocol: Protocol,
    /// Where it is.
    pub place: Place,
    /// TLS, for TCP alone.
    pub tls: Option<TlsFiles>,
}

impl Address {
    /// Reads `unix:///path`, `tcp://host:port` or, for Docker, `http(s)://host:port` and a port
    /// left out (2375, with TLS 2376).
    ///
    /// Fails with [`Error::Connect`], which says what can be used instead.
    pub fn parse(text: &str, protocol: Protocol, tls: Option<TlsFiles>) -> Result<Self, Error> {
        let refuse = |reason: String| Error::Connect { address: shown(text), reason };
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| refuse("no scheme; write unix:///path or tcp://host:port".to_owned()))?;
        let place = match scheme {
            "unix" if rest.starts_with('/') => Place::Unix(PathBuf::from(rest)),
            "unix" => return Err(refuse("the socket's path must be absolute: unix:///path".to_owned())),
            "tcp" => tcp(rest, protocol, tls.is_some()).map_err(refuse)?,
            "http" | "https" if protocol == Protocol::Docker => tcp(rest, protocol, tls.is_some()).map_err(refuse)?,
            "docker-container" | "podman-container" | "kube-pod" | "ssh" | "npipe" | "fd" | "nerdctl-container" => {
                return Err(refuse(format!(
                    "{scheme}:// is not supported; forward the daemon's socket and name it as unix:///path or tcp://host:port"
                )));
            }
            _ => return Err(refuse(format!("unknown scheme {:?}; write unix:///path or tcp://host:port", shown(scheme)))),
        };
        let tls = match place {
            Place::Unix(_) => None,
            Place::Tcp { .. } if scheme == "https" && tls.is_none() => {
                return Err(refuse("https needs the file of the authority that signed the daemon's certificate".to_owned()));
            }
            Place::Tcp { .. } => tls,
        };
        Ok(Self { protocol, place, tls })
    }

    /// Names a Unix socket.
    pub fn unix(path: impl Into<PathBuf>, protocol: Protocol) -> Self {
        Self { protocol, place: Place::Unix(path.into()), tls: None }
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::Connect { address: self.to_string(), reason: reason.into() }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix://{}", shown(&path.to_string_lossy())),
            Place::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Place::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

fn tcp(rest: &str, protocol: Protocol, tls: bool) -> Result<Place, String> {
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("the bracket of the IPv6 address is not closed")?;
            (
                host,
                if after.is_empty() { None } else { Some(after.strip_prefix(':').ok_or("expected a port after the bracket")?) },
            )
        }
        None => match authority.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err("put an IPv6 address in brackets: tcp://[::1]:1234".to_owned()),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() || !host.chars().all(|c| c.is_ascii_alphanumeric() || "-._:%".contains(c)) {
        return Err("the host is not a name or an IP address".to_owned());
    }
    let port = match (port, protocol) {
        (Some(port), _) => port.parse().ok().filter(|port| *port > 0).ok_or("the port is not a number from 1 to 65535")?,
        (None, Protocol::Docker) => 2375 + u16::from(tls),
        (None, Protocol::Buildkit) => return Err("no port; write tcp://host:port".to_owned()),
    };
    Ok(Place::Tcp { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, protocol: Protocol) -> Result<String, String> {
        match Address::parse(text, protocol, None) {
            Ok(address) => Ok(address.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn addresses_are_written_back_as_they_were_read() {
        for text in ["unix:///run/x y.sock", "tcp://host:1234", "tcp://[::1]:1234", "tcp://10.0.0.1:1"] {
            assert_eq!(parsed(text, Protocol::Buildkit).as_deref(), Ok(text));
        }
        assert_eq!(parsed("tcp://host", Protocol::Docker).as_deref(), Ok("tcp://host:2375"));
        assert_eq!(parsed("http://host:80/", Protocol::Docker).as_deref(), Ok("tcp://host:80"));
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_remedy() {
        for (text, cause) in [
            ("", "no scheme"),
            ("/var/run/docker.sock", "no scheme"),
            ("unix://relative", "must be absolute"),
            ("tcp://host", "no port"),
            ("tcp://host:0", "1 to 65535"),
            ("tcp://host:70000", "1 to 65535"),
            ("tcp://::1:1234", "brackets"),
            ("tcp://[::1", "not closed"),
            ("tcp://:1", "not a name"),
            ("tcp://a b:1", "not a name"),
            ("docker-container://x", "not supported"),
            ("ssh://x", "not supported"),
            ("gopher://x", "unknown scheme"),
        ] {
            let error = parsed(text, Protocol::Buildkit).unwrap_err();
            assert!(error.contains(cause), "{text}: {error}");
        }
    }

    #[test]
    fn control_characters_of_an_address_reach_no_terminal() {
        let error = parsed("x\x1b[31m\u{61c}", Protocol::Buildkit).unwrap_err();
        assert!(!error.contains(['\x1b', '\u{61c}']), "{error:?}");
    }
}
