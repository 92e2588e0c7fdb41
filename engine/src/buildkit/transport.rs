//! Connections: bytes to and from a daemon, and the gRPC channel over them.
//!
//! Invariant: a channel stands on one connection. Where that closes, calls fail; nothing connects
//! again behind the job's back, because the job is gone on the daemon as well.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto};
use tonic::transport::{Channel, Endpoint};

use super::address::{Address, Place, Protocol, TlsFiles, shown};
use crate::Error;

/// How long a daemon may take to answer a first request.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What an error page may hold.
const ERROR_BODY_BYTES: usize = 64 * 1024;
/// What one HTTP/2 stream may have in flight.
const WINDOW_BYTES: u32 = 64 * 1024;
/// What the connection may have in flight: more than its streams together ever will. h2 takes small
/// frames that wait to be read for an attack once their overhead passes half of this, and a step's
/// log that waits for a slow terminal is just that.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;

/// A connection, whatever it goes over.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// Opens a connection.
pub(super) async fn dial(address: &Address) -> Result<Box<dyn Io>, Error> {
    let connecting = async {
        match &address.place {
            #[cfg(unix)]
            Place::Unix(path) => {
                let stream = tokio::net::UnixStream::connect(path).await.map_err(|error| address.refused(io_reason(&error)))?;
                Ok(Box::new(stream) as Box<dyn Io>)
            }
            #[cfg(not(unix))]
            Place::Unix(_) => Err(address.refused("this system has no Unix sockets; use tcp://host:port")),
            Place::Tcp { host, port } => {
                let stream =
                    TcpStream::connect((host.as_str(), *port)).await.map_err(|error| address.refused(io_reason(&error)))?;
                stream.set_nodelay(true).map_err(|error| address.refused(io_reason(&error)))?;
                match &address.tls {
                    None => Ok(Box::new(stream) as Box<dyn Io>),
                    Some(files) => secure(address, host, files, stream).await,
                }
            }
        }
    };
    tokio::time::timeout(HANDSHAKE_LIMIT, connecting).await.unwrap_or_else(|_| Err(address.refused(silent())))
}

fn silent() -> String {
    format!("it accepts connections but did not answer within {} s", HANDSHAKE_LIMIT.as_secs())
}

/// Says what the system said, without its number.
fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such socket; is the daemon running?".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused; is the daemon running?".to_owned(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

async fn secure(address: &Address, host: &str, files: &TlsFiles, stream: TcpStream) -> Result<Box<dyn Io>, Error> {
    let config = tls_config(address, files)?;
    let name = files.server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| address.refused(format!("{:?} is no name that a certificate can have", shown(name))))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| address.refused(format!("TLS: {error}")))?;
    Ok(Box::new(stream))
}

fn tls_config(address: &Address, files: &TlsFiles) -> Result<ClientConfig, Error> {
    let unreadable = |path: &std::path::Path, what: &str| {
        let path = shown(&path.to_string_lossy());
        address.refused(format!("TLS: {path} holds no readable {what}"))
    };
    let certificates = |path: &std::path::Path| -> Result<Vec<CertificateDer<'static>>, Error> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        found.ok().filter(|list| !list.is_empty()).ok_or_else(|| unreadable(path, "certificate"))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(|error| address.refused(format!("TLS: {}: {error}", files.ca.display())))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| address.refused(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| unreadable(key, "private key"))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| address.refused(format!("TLS: {error}")))?
        }
    };
    config.alpn_protocols = match address.protocol {
        Protocol::Docker => vec![b"http/1.1".to_vec()],
        Protocol::Buildkit => vec![b"h2".to_vec()],
    };
    Ok(config)
}

/// Why reading from a connection failed, where it did. TLS reports a client certificate that is
/// missing or refused only then, and gRPC says no more than that the connection closed.
#[derive(Clone, Default)]
pub(super) struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    pub(super) fn text(&self) -> Option<String> {
        self.0.lock().ok()?.clone()
    }
}

/// Makes the gRPC channel for daemon calls.
pub(super) async fn channel(address: &Address) -> Result<(Channel, Fault), Error> {
    let io: Box<dyn Io> = match address.protocol {
        Protocol::Docker => Box::new(upgrade(address, "/grpc", &[]).await?),
        Protocol::Buildkit => dial(address).await?,
    };
    let fault = Fault::default();
    let channel = over(Heard { io, fault: fault.clone() }).await;
    let channel = channel.map_err(|error| address.refused(format!("it does not speak HTTP/2: {}", causes(&error))))?;
    Ok((channel, fault))
}

/// Makes a channel over one connection.
async fn over(io: Heard) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(io)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let io = once.lock().ok().and_then(|mut slot| slot.take());
        async move {
            io.map(TokioIo::new).ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the daemon closed the connection"))
        }
    });
    Endpoint::from_static("http://buildkit")
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(connector)
        .await
}

/// A connection that keeps its fault.
struct Heard {
    io: Box<dyn Io>,
    fault: Fault,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &polled
            && let Ok(mut fault) = self.fault.0.lock()
        {
            fault.get_or_insert_with(|| error.to_string());
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Opens a connection to dockerd and takes it over for HTTP/2.
pub(super) async fn upgrade(
    address: &Address,
    path: &str,
    headers: &[(&'static str, String)],
) -> Result<TokioIo<hyper::upgrade::Upgraded>, Error> {
    let mut request = Request::post(path).header("Host", "docker").header("Connection", "Upgrade").header("Upgrade", "h2c");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let request = request
        .body(Empty::<Bytes>::new().map_err(|never| match never {}).boxed())
        .map_err(|error| address.refused(format!("POST {path}: {error}")))?;
    let response = send(address, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = response.status();
        let body = text(response).await;
        return Err(
            address.refused(format!("it answers POST {path} with HTTP {status}{body}: this is no dockerd that has BuildKit"))
        );
    }
    let upgraded =
        hyper::upgrade::on(response).await.map_err(|error| address.refused(format!("POST {path}: {}", causes(&error))))?;
    Ok(TokioIo::new(upgraded))
}

/// The body of a request to dockerd.
pub(super) type Body = http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>;

/// Makes a body of bytes.
pub(super) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// Sends one HTTP/1.1 request on a connection of its own; the head of the answer has a deadline.
pub(super) async fn send(address: &Address, request: Request<Body>) -> Result<Response<Incoming>, Error> {
    let io = dial(address).await?;
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
        // Ends with the connection: when the answer is read, or the upgraded stream is dropped.
        tokio::spawn(connection.with_upgrades());
        sender.send_request(request).await
    };
    match tokio::time::timeout(HANDSHAKE_LIMIT, exchange).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(address.refused(format!("it does not speak HTTP: {}", causes(&error)))),
        Err(_) => Err(address.refused(silent())),
    }
}

/// Reads what an error page says: `": message"`, or nothing.
pub(super) async fn text(response: Response<Incoming>) -> String {
    #[derive(serde::Deserialize)]
    struct Page {
        message: String,
    }
    let reading = Limited::new(response.into_body(), ERROR_BODY_BYTES).collect();
    let Ok(Ok(body)) = tokio::time::timeout(HANDSHAKE_LIMIT, reading).await else { return String::new() };
    let body = body.to_bytes();
    let message = match serde_json::from_slice::<Page>(&body) {
        Ok(page) => page.message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    if message.is_empty() { message } else { format!(" ({})", shown(&message)) }
}

/// Joins an error and its causes.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
        next = cause.source();
    }
    parts.join(": ")
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::buildkit::connection::Connection;

    /// Answers every connection with `answer` and closes it.
    fn server(answer: &'static [u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(answer).await);
            }
        });
        (folder, path)
    }

    async fn refusal(path: &std::path::Path, protocol: Protocol) -> String {
        match Connection::open(&Address::unix(path, protocol)).await.map(drop).unwrap_err() {
            Error::Connect { address, reason } => {
                assert_eq!(address, format!("unix://{}", path.display()));
                reason
            }
            other => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn what_speaks_another_protocol_is_told_apart() {
        let not_found: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{\"message\":\"?\"}";
        for (answer, protocol, cause) in [
            (not_found, Protocol::Docker, "HTTP 404 Not Found"),
            (not_found, Protocol::Buildkit, "does not speak"),
            (b"SSH-2.0-x\r\n", Protocol::Docker, "does not speak HTTP"),
            (b"SSH-2.0-x\r\n", Protocol::Buildkit, "does not speak"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", Protocol::Docker, "what no dockerd says"),
            (b"", Protocol::Docker, "does not speak HTTP"),
        ] {
            let (_folder, path) = server(answer);
            let reason = refusal(&path, protocol).await;
            assert!(reason.contains(cause), "{protocol:?}: {reason}");
        }
    }

    #[tokio::test]
    async fn an_absent_socket_is_told_from_a_dead_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert!(refusal(&path, Protocol::Docker).await.contains("no such socket"));
        drop(UnixListener::bind(&path).unwrap());
        assert!(refusal(&path, Protocol::Buildkit).await.contains("refused"));
    }
}
