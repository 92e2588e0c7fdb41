//! Loads images into an engine that is there: dockerd, or podman, which speaks the same API.
//!
//! Invariant: the archive is made while it is sent, so that no copy of it is kept; an image counts
//! as loaded once the engine itself names its id.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::address::{Address, Protocol, shown};
use super::docker::Lines;
use super::save::image_id;
use super::transport::{causes, dial, text};
use crate::Error;

/// What is sent at once.
const PIECE_BYTES: usize = 256 << 10;
/// How many pieces wait to be sent.
const PIECES: usize = 4;

/// Returns the sockets of engines that images are loaded into: docker's, then podman's;
/// `runtime_dir` is `XDG_RUNTIME_DIR`.
pub fn engine_sockets(runtime_dir: Option<&Path>) -> Vec<Address> {
    let mut sockets = Vec::new();
    for name in ["docker.sock", "podman/podman.sock"] {
        sockets.push(Address::unix(Path::new("/run").join(name), Protocol::Docker));
        sockets.extend(runtime_dir.map(|dir| Address::unix(dir.join(name), Protocol::Docker)));
    }
    sockets
}

/// Loads the docker archive that `write` gives, on a thread of its own, and returns the id that
/// the engine has the image under: the digest of its config, or of its manifest where the engine
/// keeps manifests. The image is asked for by `name`, else by what the engine says of it.
///
/// There is no time limit: how long a load takes is the engine's disk's affair.
pub async fn load(
    address: &Address,
    name: Option<&str>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
) -> Result<String, Error> {
    let (pieces, queue) = mpsc::channel(PIECES);
    let writing = tokio::task::spawn_blocking(move || {
        let mut output = BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone()));
        let written = write(&mut output).and_then(|()| output.flush());
        if written.is_err() {
            // An archive without its end must not look like one.
            let _ = pieces.blocking_send(Err(io::Error::other("the archive broke off")));
        }
        written
    });
    let loaded = exchange(address, queue).await;
    let written = writing.await.map_err(|_| failed("writing the archive broke off".to_owned()))?;
    match written {
        // The engine has an answer, or went away: that is told below.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Error::Integrity(error.to_string())),
        Err(source) => return Err(Error::File { path: PathBuf::from("image archive"), source }),
        Ok(()) => {}
    }
    let told = loaded?;
    let name = name.map(str::to_owned).or(told);
    let name = name.ok_or_else(|| failed("the engine does not say what it loaded".to_owned()))?;
    id(address, &name).await
}

fn failed(reason: String) -> Error {
    Error::Daemon { doing: "loading an image".to_owned(), reason }
}

/// Sends the archive, and returns what the engine says that it loaded.
async fn exchange(address: &Address, queue: mpsc::Receiver<io::Result<Frame<Bytes>>>) -> Result<Option<String>, Error> {
    let broke = |error: hyper::Error| failed(format!("the connection broke: {}", causes(&error)));
    let request = Request::builder()
        .method(Method::POST)
        .uri("/images/load?quiet=1")
        .header("Host", "docker")
        .header("Content-Type", "application/x-tar")
        .body(StreamBody::new(ReceiverStream::new(queue)))
        .map_err(|error| failed(error.to_string()))?;
    let io = TokioIo::new(dial(address).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broke)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broke)?;
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(failed(format!("it answers with HTTP {status}{}", text(response).await)));
    }
    let mut stream = response.into_body();
    let (mut lines, mut loaded) = (Lines::default(), None);
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(broke)?;
        let Some(data) = frame.data_ref() else { continue };
        for line in lines.feed(data).map_err(failed)? {
            if let Some(error) = line.error {
                return Err(failed(shown(&error)));
            }
            loaded = line.stream.as_deref().and_then(name_of).map(str::to_owned).or(loaded);
        }
    }
    Ok(loaded)
}

/// Reads the name or the id out of `Loaded image: a:1` and `Loaded image ID: sha256:…`; podman
/// writes several names in one line.
fn name_of(text: &str) -> Option<&str> {
    let rest = text.trim().strip_prefix("Loaded image")?;
    let names = rest.strip_prefix(" ID").or(rest.strip_prefix("(s)")).unwrap_or(rest).strip_prefix(':')?;
    names.split([',', '\n']).map(str::trim).find(|name| !name.is_empty())
}

/// Asks for the id of an image that was just loaded.
async fn id(address: &Address, name: &str) -> Result<String, Error> {
    let id = image_id(address, name).await?;
    id.ok_or_else(|| failed(format!("it does not have {} afterwards", shown(name))))
}

/// Hands what is written to a queue.
struct Pieces(mpsc::Sender<io::Result<Frame<Bytes>>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Frame::data(Bytes::copy_from_slice(bytes));
        self.0.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::oci::image::tests::image_of_tars;
    use crate::oci::{Compression, Named, docker_archive};

    /// An engine that answers loads and questions, once the archive has come to `end`; keeps what
    /// it was sent.
    fn engine(end: &'static str, loads: String, id: String) -> (tempfile::TempDir, Address, Arc<Mutex<String>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let heard = Arc::new(Mutex::new(String::new()));
        let sent = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut request, mut buffer) = (String::new(), [0; 4096]);
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    request.push_str(&String::from_utf8_lossy(&buffer[..count]));
                    if request.starts_with("GET") || request.ends_with(end) {
                        break;
                    }
                }
                let answer = if request.starts_with("GET") { &id } else { &loads };
                stream.write_all(answer.as_bytes()).await.unwrap();
                sent.lock().unwrap().push_str(&request);
            }
        });
        (folder, Address::unix(path, Protocol::Docker), heard)
    }

    fn answer(status: &str, text: &str) -> String {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
    }

    #[tokio::test]
    async fn an_image_is_loaded_and_asked_for() {
        let id = "ab".repeat(32);
        for (told, name, asked) in [
            ("Loaded image: a:1\\n", None, "/images/a:1/json"),
            ("Loaded image ID: sha256:0\\n", None, "/images/sha256:0/json"),
            ("Loaded image(s): localhost/a:1,localhost/b:1", None, "/images/localhost/a:1/json"),
            ("", Some("b:2"), "/images/b:2/json"),
        ] {
            let lines = format!("{{\"status\":\"x\"}}\n{{\"stream\":\"{told}\"}}\n");
            let (_folder, address, heard) =
                engine("\r\n0\r\n\r\n", answer("200 OK", &lines), answer("200 OK", &format!("{{\"Id\": \"{id}\"}}")));
            let loaded = load(&address, name, |out| out.write_all(b"archive")).await.unwrap();
            assert_eq!(loaded, format!("sha256:{id}"));
            let heard = heard.lock().unwrap().clone();
            assert!(heard.contains("POST /images/load?quiet=1") && heard.contains("archive") && heard.contains(asked), "{heard}");
        }
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_apart() {
        let refused = "HTTP/1.1 500 no\r\nContent-Length: 16\r\n\r\n{\"message\":\"no\"}".to_owned();
        let full = answer("200 OK", "{\"error\": \"no space left on device\"}\n");
        let silent = answer("200 OK", "");
        for (loads, expected) in [(refused, "HTTP 500"), (full, "no space left"), (silent, "does not say")] {
            let (_folder, address, _) = engine("\r\n0\r\n\r\n", loads, answer("404 no", ""));
            let error = load(&address, None, |out| out.write_all(b"archive")).await.unwrap_err();
            assert!(matches!(error, Error::Daemon { .. }) && error.to_string().contains(expected), "{error}");
        }
        let (_folder, address, _) = engine("\r\n0\r\n\r\n", answer("200 OK", ""), answer("404 no", "{\"message\":\"gone\"}"));
        let error = load(&address, Some("a:1"), |_| Ok(())).await.unwrap_err().to_string();
        assert!(error.contains("does not have a:1 afterwards"), "{error}");
        let error = load(&address, None, |out| {
            out.write_all(b"half")?;
            Err(io::Error::new(io::ErrorKind::InvalidData, "blob x is something else"))
        });
        assert!(matches!(error.await.unwrap_err(), Error::Integrity(text) if text.contains("blob x")));
        let absent = Address::unix("/nonexistent/docker.sock", Protocol::Docker);
        let error = load(&absent, None, |out| out.write_all(&vec![0; 8 << 20])).await.unwrap_err();
        assert!(matches!(error, Error::Connect { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_answer_before_the_end_is_heard() {
        let refused = "HTTP/1.1 400 no\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned();
        let (_folder, address, _) = engine("\r\n\r\n", refused, String::new());
        let error = load(&address, None, |out| (0..100).try_for_each(|_| out.write_all(&vec![1; 1 << 20]))).await.unwrap_err();
        assert!(matches!(error, Error::Daemon { .. }), "{error}");
    }

    /// The engines whose sockets `ROCHE_TEST_DOCKER20` and `ROCHE_TEST_DOCKER26` name take what is
    /// written, under every name; the later one keeps manifests.
    #[tokio::test(flavor = "multi_thread")]
    #[expect(clippy::disallowed_methods, reason = "whoever runs the tests says where engines are")]
    async fn real_engines_take_the_archive() {
        for (variable, compressions, keeps_manifests) in [
            ("ROCHE_TEST_DOCKER20", &[Compression::Gzip, Compression::None][..], false),
            ("ROCHE_TEST_DOCKER26", &[Compression::Zstd, Compression::Gzip, Compression::None], true),
        ] {
            let socket = std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} is not set: use tests/run"));
            let address = Address::unix(&socket, Protocol::Docker);
            for compression in compressions {
                let (image, blobs) = image_of_tars(&[*compression, Compression::Gzip]);
                let names = ["docker.io/library/engine-load-a:1".to_owned(), "localhost:5000/engine/load-b:2".to_owned()];
                for name in [Some(names[1].as_str()), None] {
                    let expected = if keeps_manifests { image.descriptor.digest } else { image.manifest.config.digest };
                    let (image, blobs, names) = (image.clone(), blobs.clone(), names.clone());
                    let write = move |out: &mut dyn Write| {
                        docker_archive::write(out, &[Named { image: &image, names: &names, created: None }], &blobs)
                    };
                    assert_eq!(load(&address, name, write).await.unwrap(), expected.to_string(), "{variable} {compression:?}");
                }
            }
        }
    }
}
