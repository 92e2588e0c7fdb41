//! Scenarios against a server in this process, which answers with bytes written by hand.

mod pull;
mod push;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::Digest;
use crate::oci::Credential;
use crate::oci::document::MAX_MANIFEST_BYTES;
use crate::oci::image::MAX_CONFIG_BYTES;

const OCI: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "{\"architecture\": \"amd64\"}";

/// A server: what it was asked (request line and authorization), and where it is.
struct Server {
    host: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A request as it came.
struct Asked {
    /// How many came before it, and it.
    number: usize,
    /// Method, path and a short body.
    line: String,
    head: String,
    body: Vec<u8>,
    authorization: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Reads one request; none where the connection ends before it does.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

impl Server {
    /// Answers every connection's one request with what `answer` makes of its number, its line and
    /// its authorization, and the server's own host.
    async fn new(answer: impl Fn(usize, &str, &str, &str) -> Vec<u8> + Send + 'static) -> Self {
        Self::with(move |asked, host| answer(asked.number, &asked.line, &asked.authorization, host)).await
    }

    /// Answers every connection's one request with what `answer` makes of it and of the server's
    /// own host.
    async fn with(mut answer: impl FnMut(&Asked, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Self { host: host.clone(), asked: asked.clone() };
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some((head, body)) = read_request(&mut stream).await else { continue };
                let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                let is_shown = !body.is_empty() && body.len() < 200;
                let line = if is_shown { format!("{line} {}", String::from_utf8_lossy(&body)) } else { line };
                let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or("-").to_owned();
                let number = {
                    let mut asked = asked.lock().expect("no panic");
                    asked.push(format!("{line} [{authorization}]"));
                    asked.len()
                };
                let asked = Asked { number, line, head, body, authorization };
                let _ = stream.write_all(&answer(&asked, &host)).await;
            }
        });
        server
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    async fn resolve(&self, credentials: Option<&dyn Credentials>) -> Result<ResolvedImage, Error> {
        resolve(&format!("{}/app:1", self.host), credentials, Duration::from_secs(20)).await
    }
}

async fn resolve(reference: &str, credentials: Option<&dyn Credentials>, time: Duration) -> Result<ResolvedImage, Error> {
    let registry = Registry::new(&RegistryOptions::default()).expect("a client");
    let reference = reference.parse().expect("a reference");
    registry.resolve(&reference, &Platform::new("linux", "amd64"), credentials, time).await
}

fn reply(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

fn document(media_type: &str, body: &str) -> Vec<u8> {
    reply("200", &format!("content-type: {media_type}\r\n"), body)
}

fn manifest() -> String {
    let (digest, size) = (Digest::of(CONFIG.as_bytes()), CONFIG.len());
    format!(
        r#"{{"config": {{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{digest}", "size": {size}}}, "layers": []}}"#
    )
}

/// A good registry: one manifest, one config.
fn good(line: &str) -> Vec<u8> {
    match line {
        line if line.contains("/manifests/") => document(OCI, &manifest()),
        line if line.contains("/blobs/") => reply("200", "", CONFIG),
        _ => reply("404", "", ""),
    }
}

struct Login(&'static str, &'static str);

#[async_trait]
impl Credentials for Login {
    async fn find(&self, _host: &str) -> Result<Option<Credential>, Error> {
        Ok(Some(Credential { username: self.0.to_owned(), secret: self.1.to_owned() }))
    }
}

#[tokio::test]
async fn an_image_is_its_manifest_and_its_config() {
    let server = Server::new(|_, line, _, _| good(line)).await;
    let image = server.resolve(Some(&Login("me", "hunter2"))).await.expect("an image");
    assert_eq!(image, ResolvedImage { digest: Some(Digest::of(manifest().as_bytes())), config: CONFIG.as_bytes().to_vec() });
    let config = Digest::of(CONFIG.as_bytes());
    assert_eq!(server.asked(), ["GET /v2/app/manifests/1 [-]".to_owned(), format!("GET /v2/app/blobs/{config} [-]")]);
}

#[tokio::test]
async fn an_index_gives_its_own_digest_and_the_platforms_config() {
    let index = format!(
        r#"{{"mediaType": "{INDEX}", "manifests": [
        {{"mediaType": "{OCI}", "digest": "{}", "size": 1, "platform": {{"os": "linux", "architecture": "arm64"}}}},
        {{"mediaType": "{OCI}", "digest": "{}", "size": {}, "platform": {{"os": "linux", "architecture": "amd64"}}}}]}}"#,
        Digest::of(b"x"),
        Digest::of(manifest().as_bytes()),
        manifest().len()
    );
    let digest = Digest::of(index.as_bytes());
    let server = Server::new(move |_, line, _, _| if line.ends_with("/1") { document(INDEX, &index) } else { good(line) }).await;
    let image = server.resolve(None).await.expect("an image");
    assert_eq!((image.digest, image.config.as_slice()), (Some(digest), CONFIG.as_bytes()));
}

#[tokio::test]
async fn tokens_are_fetched_with_what_the_login_is() {
    for (login, asked_for) in [
        (None, "GET /token?scope=repository%3Aapp%3Apull&service=reg [-]"),
        (Some(Login("me", "pw")), "GET /token?scope=repository%3Aapp%3Apull&service=reg [Basic bWU6cHc=]"),
        (
            Some(Login("", "idt")),
            "POST /token scope=repository%3Aapp%3Apull&service=reg&grant_type=refresh_token&client_id=roche-engine&refresh_token=idt [-]",
        ),
    ] {
        let server = Server::new(|_, line, authorization, host| match line {
            line if line.contains("/token") => reply("200", "", r#"{"access_token": "tok"}"#),
            line if authorization == "Bearer tok" => good(line),
            _ => reply("401", &format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"reg\"\r\n"), ""),
        })
        .await;
        server.resolve(login.as_ref().map(|login| login as &dyn Credentials)).await.expect("an image");
        let asked = server.asked();
        assert_eq!(asked[1], asked_for);
        assert_eq!(asked.len(), 4, "the token serves the config too: {asked:?}");
    }
}

#[tokio::test]
async fn basic_authentication_is_answered_and_a_refused_login_is_told() {
    let server = Server::new(|_, line, authorization, _| match authorization {
        "Basic bWU6cHc=" => good(line),
        _ => reply("401", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
    })
    .await;
    server.resolve(Some(&Login("me", "pw"))).await.expect("an image");
    for credentials in [None, Some(&Login("me", "hunter2") as &dyn Credentials)] {
        let error = server.resolve(credentials).await.expect_err("refused");
        assert!(matches!(error, Error::Registry { transient: false, .. }), "{error}");
        assert!(error.to_string().contains("docker login 127.0.0.1:") && !error.to_string().contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_token_server_elsewhere_over_http_gets_nothing() {
    let challenge = "WWW-Authenticate: Bearer realm=\"http://token.invalid/token\"\r\n";
    let server = Server::new(move |_, _, _, _| reply("401", challenge, "")).await;
    let error = server.resolve(Some(&Login("me", "pw"))).await.expect_err("refused").to_string();
    assert!(error.contains("token.invalid") && error.contains("nothing was sent"), "{error}");
    assert_eq!(server.asked().len(), 1);
}

#[tokio::test]
async fn redirects_to_another_host_carry_no_authorization() {
    let other = Server::new(|_, _, _, _| reply("200", "", CONFIG)).await;
    let place = other.host.clone();
    let server = Server::new(move |_, line, authorization, _| match line {
        _ if authorization == "-" => reply("401", "WWW-Authenticate: Basic realm=\"x\"\r\n", ""),
        line if line.contains("/blobs/") => reply("307", &format!("Location: http://{place}/cdn?signature=s\r\n"), ""),
        line if line.ends_with("/1") => reply("302", "Location: /v2/app/manifests/2\r\n", ""),
        line => good(line),
    })
    .await;
    server.resolve(Some(&Login("me", "pw"))).await.expect("an image");
    assert_eq!(other.asked(), ["GET /cdn?signature=s [-]"]);
    assert!(server.asked()[2].ends_with("manifests/2 [Basic bWU6cHc=]"), "{:?}", server.asked());
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::new(|_, _, _, _| reply("302", "Location: ?again\r\n", "")).await;
    let error = server.resolve(None).await.expect_err("refused").to_string();
    assert!(error.contains("more than 5 times"), "{error}");
}

#[tokio::test]
async fn a_challenge_from_another_host_is_not_answered() {
    let other = Server::new(|_, _, _, _| reply("401", "WWW-Authenticate: Basic realm=\"x\"\r\n", "")).await;
    let place = other.host.clone();
    let server = Server::new(move |_, _, _, _| reply("302", &format!("Location: http://{place}/x\r\n"), "")).await;
    server.resolve(Some(&Login("me", "pw"))).await.expect_err("refused");
    assert_eq!(other.asked(), ["GET /x [-]"]);
}

#[tokio::test]
async fn content_that_is_not_what_it_should_be_is_refused() {
    let wrong = Digest::of(b"else");
    type Answer = Box<dyn Fn(usize, &str, &str, &str) -> Vec<u8> + Send>;
    let cases: [(&str, Answer); 6] = [
        (
            "expected",
            Box::new(
                |_, line, _, _| {
                    if line.contains("blobs") { reply("200", "", "{\"architecture\": \"evil!\"}") } else { good(line) }
                },
            ),
        ),
        (
            "expected",
            Box::new(move |_, _, _, _| {
                reply("200", &format!("content-type: {OCI}\r\ndocker-content-digest: {wrong}\r\n"), &manifest())
            }),
        ),
        (
            "it ends after",
            Box::new(|_, line, _, _| {
                let mut whole = good(line);
                whole.truncate(whole.len() - 5);
                whole
            }),
        ),
        (
            "it ends after",
            Box::new(|_, _, _, _| {
                format!("HTTP/1.1 200 -\r\ncontent-type: {OCI}\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{{").into_bytes()
            }),
        ),
        ("text/html", Box::new(|_, _, _, _| document("text/html", "<html>"))),
        ("malformed", Box::new(|_, _, _, _| document(OCI, "{"))),
    ];
    for (expected, answer) in cases {
        let server = Server::new(answer).await;
        let error = server.resolve(None).await.expect_err("refused");
        assert!(matches!(error, Error::Integrity(_)) && error.to_string().contains(expected), "{error}");
        assert!(server.asked().len() <= 2, "not retried");
    }
    let server = Server::new(|_, line, _, _| good(line)).await;
    let error = resolve(&format!("{}/app@{wrong}", server.host), None, Duration::from_secs(5)).await.expect_err("refused");
    assert!(matches!(error, Error::Integrity(_)), "{error}");
}

#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let announced = |_: usize, _: &str, _: &str, _: &str| {
        format!("HTTP/1.1 200 -\r\ncontent-type: {OCI}\r\ncontent-length: 999999999999\r\n\r\n").into_bytes()
    };
    let sent = |_: usize, _: &str, _: &str, _: &str| {
        format!("HTTP/1.1 200 -\r\ncontent-type: {OCI}\r\nconnection: close\r\n\r\n{}", " ".repeat(MAX_MANIFEST_BYTES + 1))
            .into_bytes()
    };
    let described = |_: usize, _: &str, _: &str, _: &str| {
        let size = format!(r#""size": {}"#, MAX_CONFIG_BYTES + 1);
        document(OCI, &manifest().replace(&format!(r#""size": {}"#, CONFIG.len()), &size))
    };
    for server in [Server::new(announced).await, Server::new(sent).await, Server::new(described).await] {
        let error = server.resolve(None).await.expect_err("refused");
        assert!(matches!(error, Error::Resource(_)), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[tokio::test]
async fn failures_that_may_pass_are_retried() {
    let server = Server::new(|number, line, _, _| match number {
        1 => reply("503", "", ""),
        2 => reply("429", "retry-after: 0\r\n", ""),
        3 => Vec::new(),
        _ => good(line),
    })
    .await;
    server.resolve(None).await.expect("an image in the end");
    assert_eq!(server.asked().len(), 5);
}

#[tokio::test]
async fn retries_end_at_the_deadline() {
    for headers in ["", "retry-after: 3600\r\n"] {
        let note = r#"{"errors": [{"code": "TOOMANYREQUESTS", "message": "slow\u001b down"}]}"#;
        let server = Server::new(move |_, _, _, _| reply("429", headers, note)).await;
        let begun = std::time::Instant::now();
        let error = resolve(&format!("{}/app", server.host), None, Duration::from_secs(1)).await.expect_err("refused");
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(matches!(error, Error::Registry { transient: true, .. }), "{error}");
        assert!(error.to_string().contains("TOOMANYREQUESTS: slow\\u{1b} down"), "{error}");
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let host = silent.local_addr().expect("an address");
    let error = resolve(&format!("{host}/app"), None, Duration::from_millis(300)).await.expect_err("refused");
    assert!(error.to_string().contains("did not answer within 300ms"), "{error}");
}

#[tokio::test]
async fn refusals_are_told_apart_and_not_retried() {
    for (status, expected) in [("403", "denies access"), ("404", "has no such image"), ("418", "not understood")] {
        let server = Server::new(move |_, _, _, _| reply(status, "", "")).await;
        let error = server.resolve(None).await.expect_err("refused");
        assert!(matches!(error, Error::Registry { transient: false, .. }) && error.to_string().contains(expected), "{error}");
        assert_eq!(server.asked().len(), 1);
    }
    let error = resolve("127.0.0.1:1/app", None, Duration::from_secs(5)).await.expect_err("nobody listens").to_string();
    assert!(error.contains("127.0.0.1 cannot be reached") && error.contains("127.0.0.1:1/app"), "{error}");
    let error = resolve("example.com:99999/app", None, Duration::from_secs(5)).await.expect_err("no port").to_string();
    assert!(error.contains("is not an address"), "{error}");
}

#[tokio::test]
async fn other_hosts_are_only_spoken_to_over_tls() {
    let server = Server::new(|_, _, _, _| reply("502", "", "")).await;
    let proxies = Proxies { https: server.host.parse().ok(), ..Proxies::default() };
    let options = RegistryOptions { proxies, ..RegistryOptions::default() };
    let registry = Registry::new(&options).expect("a client");
    let reference = "registry.invalid/app".parse().expect("a reference");
    let platform = Platform::new("linux", "amd64");
    registry.resolve(&reference, &platform, None, Duration::from_secs(2)).await.expect_err("no tunnel");
    assert!(server.asked().iter().all(|line| line.starts_with("CONNECT registry.invalid:443")), "{:?}", server.asked());
    assert!(!server.asked().is_empty());
}
