//! What dockerd's own HTTP API is asked for: which image store it has, who it is, and pushes.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::address::Address;
use super::export::Exporters;
use super::fault;
use super::transport::{HANDSHAKE_LIMIT, body, causes, send, text};
use crate::oci::{Credentials, Reference};
use crate::{Digest, Error};

const INFO_BYTES: usize = 4 * 1024 * 1024;
/// What a line of push progress may hold.
const LINE_BYTES: usize = 1024 * 1024;

/// What is to be known of a dockerd.
pub(super) struct About {
    pub(super) exporters: Exporters,
    /// What tells it from others at its address.
    pub(super) identity: String,
}

/// Asks which image store dockerd has, and who it is.
pub(super) async fn about(address: &Address) -> Result<About, Error> {
    #[derive(Deserialize)]
    struct Info {
        #[serde(rename = "ID", default)]
        id: String,
        #[serde(rename = "DockerRootDir", default)]
        root: String,
        #[serde(rename = "DriverStatus", default)]
        driver_status: Option<Vec<(String, String)>>,
    }
    let request = Request::get("/info").header("Host", "docker").body(body(""));
    let request = request.map_err(|error| address.refused(format!("GET /info: {error}")))?;
    let response = send(address, request).await?;
    let status = response.status();
    if status != StatusCode::OK {
        let page = text(response).await;
        return Err(address.refused(format!("it answers GET /info with HTTP {status}{page}: this is no dockerd")));
    }
    let reading = Limited::new(response.into_body(), INFO_BYTES).collect();
    let odd = |reason: String| address.refused(format!("it answers GET /info with what no dockerd says: {reason}"));
    let bytes = tokio::time::timeout(HANDSHAKE_LIMIT, reading)
        .await
        .map_err(|_| odd("an answer that does not end".to_owned()))?
        .map_err(|error| odd(error.to_string()))?
        .to_bytes();
    let info: Info = serde_json::from_slice(&bytes).map_err(|error| odd(error.to_string()))?;
    let containerd =
        info.driver_status.unwrap_or_default().iter().any(|(key, value)| key == "driver-type" && value.contains("containerd"));
    let exporters = if containerd { Exporters::ContainerdStore } else { Exporters::DockerStore };
    // Old daemons of one machine share their id, which is a key's; the folder of their data is their own.
    Ok(About { exporters, identity: format!("{} {}", info.id, info.root) })
}

/// A line of what dockerd says of a push or a load.
#[derive(Deserialize)]
pub(super) struct Line {
    #[serde(default)]
    pub(super) error: Option<String>,
    /// What a person is to read.
    #[serde(default)]
    pub(super) stream: Option<String>,
    #[serde(default)]
    aux: Option<Aux>,
}

#[derive(Deserialize)]
struct Aux {
    #[serde(rename = "Digest", default)]
    digest: Option<String>,
}

/// Has dockerd push an image of its store, and returns the digest of the manifest.
pub(super) async fn push(
    address: &Address,
    reference: &Reference,
    credentials: Option<&dyn Credentials>,
) -> Result<Digest, Error> {
    let name = reference.name();
    let failed = |reason: String| fault::registry(&reference.to_string(), reason);
    let auth = match credentials {
        Some(credentials) => credentials.find(reference.host()).await?,
        None => None,
    };
    let auth = match auth {
        None => serde_json::json!({}),
        Some(found) if found.username.is_empty() => {
            serde_json::json!({ "identitytoken": found.secret, "serveraddress": reference.host() })
        }
        Some(found) => {
            serde_json::json!({ "username": found.username, "password": found.secret, "serveraddress": reference.host() })
        }
    };
    let tag = reference.tag().unwrap_or("latest");
    let request = Request::post(format!("/images/{name}/push?tag={tag}"))
        .header("Host", "docker")
        .header("X-Registry-Auth", URL_SAFE.encode(auth.to_string()))
        .body(body(""))
        .map_err(|error| failed(error.to_string()))?;
    let response = send(address, request).await?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(failed(format!("dockerd refuses to push it: HTTP {status}{}", text(response).await)));
    }
    let mut stream = response.into_body();
    let mut lines = Lines::default();
    let mut digest = None;
    while let Some(frame) = stream.frame().await {
        let broke = |reason: String| Error::Daemon { doing: format!("pushing {reference}"), reason };
        let frame = frame.map_err(|error| broke(format!("the connection broke: {}", causes(&error))))?;
        let Some(data) = frame.data_ref() else { continue };
        for line in lines.feed(data).map_err(broke)? {
            if let Some(error) = line.error {
                return Err(failed(error));
            }
            digest = line.aux.and_then(|aux| aux.digest).and_then(|digest| digest.parse().ok()).or(digest);
        }
    }
    digest.ok_or_else(|| failed("dockerd ended the push without naming the manifest's digest".to_owned()))
}

/// Cuts a stream of bytes into JSON lines.
#[derive(Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    pub(super) fn feed(&mut self, data: &[u8]) -> Result<Vec<Line>, String> {
        self.rest.extend_from_slice(data);
        let mut lines = Vec::new();
        if let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') {
            let whole: Vec<u8> = self.rest.drain(..=end).collect();
            for line in whole.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
                lines.push(serde_json::from_slice(line).map_err(|error| format!("a line of its answer is no JSON: {error}"))?);
            }
        }
        if self.rest.len() > LINE_BYTES {
            return Err(format!("a line of its answer has over {LINE_BYTES} bytes"));
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_however_they_are_cut() {
        let text = b"{\"status\":\"a\"}\r\n{\"aux\":{\"Tag\":\"1\",\"Digest\":\"sha256:x\",\"Size\":1}}\r\n{\"error\":\"no\"}\n";
        for step in 1..text.len() {
            let mut lines = Lines::default();
            let all: Vec<Line> = text.chunks(step).flat_map(|part| lines.feed(part).unwrap()).collect();
            assert_eq!(all.len(), 3, "in steps of {step}");
            assert_eq!(all[1].aux.as_ref().unwrap().digest.as_deref(), Some("sha256:x"));
            assert_eq!(all[2].error.as_deref(), Some("no"));
        }
    }

    #[test]
    fn a_line_without_end_or_sense_is_refused() {
        let mut lines = Lines::default();
        assert!(lines.feed(&vec![b'x'; LINE_BYTES + 1]).is_err());
        assert!(Lines::default().feed(b"<html>\n").is_err());
    }
}
