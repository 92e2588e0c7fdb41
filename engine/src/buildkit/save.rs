//! Saves images of an engine that is there: dockerd, or podman, which speaks the same API.
//!
//! Invariant: an archive counts as saved once the engine has ended it without an error.

use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::address::{Address, shown};
use super::transport::{body, causes, dial, send, text};
use crate::Error;

/// How many pieces wait to be written.
const PIECES: usize = 16;
/// What is known of an image, as the engine writes it.
const IMAGE_BYTES: usize = 4 << 20;

/// Asks an engine for the id that it has an image under; none where it does not have it.
pub async fn image_id(address: &Address, name: &str) -> Result<Option<String>, Error> {
    #[derive(Deserialize)]
    struct Inspected {
        #[serde(rename = "Id")]
        id: String,
    }
    let failed = |reason: String| failed(name, reason);
    let request = Request::get(format!("/images/{name}/json")).header("Host", "docker").body(body(""));
    let response = send(address, request.map_err(|error| failed(error.to_string()))?).await?;
    match response.status() {
        StatusCode::NOT_FOUND => return Ok(None),
        StatusCode::OK => {}
        status => return Err(failed(format!("it answers with HTTP {status}{}", text(response).await))),
    }
    let read = Limited::new(response.into_body(), IMAGE_BYTES).collect().await;
    let read = read.map_err(|error| failed(error.to_string()))?.to_bytes();
    let inspected: Inspected = serde_json::from_slice(&read).map_err(|error| failed(error.to_string()))?;
    // podman leaves the algorithm out.
    let is_bare = inspected.id.len() == 64 && !inspected.id.contains(':');
    Ok(Some(if is_bare { format!("sha256:{}", inspected.id) } else { inspected.id }))
}

/// Writes an image as a docker archive to `sink`, on a thread of its own, and gives the sink back.
///
/// There is no time limit: an engine may gather the whole archive before its first byte.
pub async fn save<W: Write + Send + 'static>(address: &Address, name: &str, mut sink: W) -> Result<W, Error> {
    let (pieces, mut queue) = mpsc::channel::<Bytes>(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(piece) = queue.blocking_recv() {
            sink.write_all(&piece)?;
        }
        sink.flush().map(|()| sink)
    });
    let received = receive(address, name, pieces).await;
    let written = writing.await.map_err(|_| failed(name, "writing the archive broke off".to_owned()))?;
    let sink = written.map_err(|source| match Error::is_exhausted(&source) {
        true => Error::Resource(format!("the archive of {} cannot be kept: {source}; free some space", shown(name))),
        false => Error::Output { path: PathBuf::from("image archive"), source },
    })?;
    received.map(|()| sink)
}

async fn receive(address: &Address, name: &str, pieces: mpsc::Sender<Bytes>) -> Result<(), Error> {
    let broke = |error: hyper::Error| failed(name, format!("the connection broke: {}", causes(&error)));
    let request = Request::get(format!("/images/{name}/get")).header("Host", "docker").body(body(""));
    let request = request.map_err(|error| failed(name, error.to_string()))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(dial(address).await?)).await.map_err(broke)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broke)?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(failed(name, format!("it answers with HTTP {status}{}", text(response).await)));
    }
    let mut stream = response.into_body();
    while let Some(frame) = stream.frame().await {
        // Where nobody writes any more, why is told by whoever wrote.
        let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
        if pieces.send(data).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn failed(name: &str, reason: String) -> Error {
    Error::Daemon { doing: format!("reading the image {}", shown(name)), reason }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::super::address::Protocol;
    use super::*;

    /// An engine that gives every question the same answer.
    fn engine(answer: &'static str) -> (tempfile::TempDir, Address) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (folder, Address::unix(path, Protocol::Docker))
    }

    #[tokio::test]
    async fn an_image_is_known_by_its_id_or_not_at_all() {
        let (_folder, there) = engine("HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{\"Id\":\"sha256:00\"}");
        assert_eq!(image_id(&there, "a:1").await.unwrap().as_deref(), Some("sha256:00"));
        let (_folder, missing) = engine("HTTP/1.1 404 no\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(image_id(&missing, "a:1").await.unwrap(), None);
        let (_folder, broken) = engine("HTTP/1.1 500 no\r\nContent-Length: 16\r\n\r\n{\"message\":\"no\"}");
        assert!(image_id(&broken, "a:1").await.unwrap_err().to_string().contains("HTTP 500"));
    }

    #[tokio::test]
    async fn an_archive_is_whole_or_an_error() {
        let (_folder, whole) = engine("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntar!\r\n0\r\n\r\n");
        assert_eq!(save(&whole, "a:1", Vec::new()).await.unwrap(), b"tar!");
        let (_folder, cut) = engine("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntar!\r\n9\r\nt");
        assert!(save(&cut, "a:1", Vec::new()).await.unwrap_err().to_string().contains("the connection broke"));
        let (_folder, refused) = engine("HTTP/1.1 404 no\r\nContent-Length: 18\r\n\r\n{\"message\":\"gone\"}");
        assert!(save(&refused, "a:1", Vec::new()).await.unwrap_err().to_string().contains("gone"));
    }
}
