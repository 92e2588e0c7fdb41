//! Blobs and images that come in pieces, from mirrors, or not as they should.

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::oci::Descriptor;

const BLOB: &[u8] = b"a layer of some length";

fn descriptor() -> Descriptor {
    Descriptor::of("", BLOB)
}

async fn repository(server: &Server, mirrors: &[&Server]) -> Repository {
    let mirrors = mirrors.iter().map(|mirror| mirror.host.clone()).collect();
    let options = RegistryOptions { mirrors: [(server.host.clone(), mirrors)].into(), ..RegistryOptions::default() };
    let reference = format!("{}/app:1", server.host).parse().expect("a reference");
    Registry::new(&options).expect("a client").repository(&reference, None).expect("an address")
}

async fn fetch(server: &Server, offset: u64) -> Result<Vec<u8>, Error> {
    repository(server, &[]).await.fetch_blob(&descriptor(), offset, Vec::new()).await
}

/// A part of the blob, of which the connection only brings `sent` bytes.
fn part(from: usize, sent: usize) -> Vec<u8> {
    let range = format!("content-range: bytes {from}-{}/{}\r\n", BLOB.len() - 1, BLOB.len());
    let (status, headers) = if from == 0 { ("200", "") } else { ("206", range.as_str()) };
    let mut bytes = reply(status, headers, std::str::from_utf8(&BLOB[from..]).expect("text"));
    bytes.truncate(bytes.len() - (BLOB.len() - from - sent));
    bytes
}

fn from(asked: &Asked) -> usize {
    asked.header("range").map_or(0, |range| range["bytes=".len()..range.len() - 1].parse().expect("a number"))
}

#[tokio::test]
async fn a_blob_is_written_from_the_offset_on() {
    let server = Server::with(|asked, _| part(from(asked), BLOB.len() - from(asked))).await;
    assert_eq!(fetch(&server, 0).await.expect("the blob"), BLOB);
    assert_eq!(fetch(&server, 7).await.expect("the rest"), &BLOB[7..]);
    assert_eq!(fetch(&server, BLOB.len() as u64).await.expect("nothing"), b"");
    assert_eq!(server.asked(), vec![format!("GET /v2/app/blobs/{} [-]", descriptor().digest); 2]);
}

#[tokio::test]
async fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let heard = ranges.clone();
    let server = Server::with(move |asked, _| {
        heard.lock().expect("no panic").push(from(asked));
        part(from(asked), 9.min(BLOB.len() - from(asked)))
    })
    .await;
    assert_eq!(fetch(&server, 0).await.expect("the blob"), BLOB);
    assert_eq!(*ranges.lock().expect("no panic"), [0, 9, 18]);
}

#[tokio::test]
async fn a_server_that_knows_no_ranges_is_read_from_its_start() {
    let server = Server::with(|asked, _| part(0, if asked.number < 3 { 5 * asked.number } else { BLOB.len() })).await;
    assert_eq!(fetch(&server, 0).await.expect("the blob"), BLOB);
    assert_eq!(fetch(&server, 7).await.expect("the rest"), &BLOB[7..]);
}

#[tokio::test]
async fn a_blob_that_is_something_else_is_refused() {
    let same_length = "x".repeat(BLOB.len());
    for (answer, expected) in [
        (reply("200", "", &same_length), "expected sha256:"),
        (reply("200", "", "short"), "has 5 bytes, its descriptor says 22"),
        (reply("200", "", &"x".repeat(99)), "has 99 bytes"),
        (format!("HTTP/1.1 200 -\r\nconnection: close\r\n\r\n{}", "x".repeat(99)).into_bytes(), "longer than"),
        (reply("206", "content-range: bytes 5-21/22\r\n", &same_length[5..]), "another part"),
    ] {
        let server = Server::with(move |_, _| answer.clone()).await;
        let error = fetch(&server, 0).await.expect_err("refused");
        assert!(matches!(error, Error::Integrity(_)) && error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(server.asked().len(), 1, "not retried");
    }
}

#[tokio::test]
async fn mirrors_come_first_and_the_registry_goes_on_where_they_end() {
    let missing = Server::new(|_, _, _, _| reply("404", "", "")).await;
    let partial = Server::with(|asked, _| match asked.number {
        1 => part(0, 9),
        _ => reply("403", "", ""),
    })
    .await;
    let server = Server::with(|asked, _| part(from(asked), BLOB.len() - from(asked))).await;
    let repository = repository(&server, &[&missing, &partial]).await;
    assert_eq!(repository.fetch_blob(&descriptor(), 0, Vec::new()).await.expect("the blob"), BLOB);
    assert_eq!((missing.asked().len(), partial.asked().len(), server.asked().len()), (1, 2, 1));
}

#[tokio::test]
async fn an_image_comes_from_the_first_mirror_that_has_it() {
    let (image, _) = crate::oci::image::tests::image(&[b"one"]);
    let (manifest, config) = (image.manifest_bytes.clone(), image.config_bytes.clone());
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mirror = Server::new(move |_, line, _, _| match line.contains("/manifests/") {
        true => document(OCI, &text(&manifest)),
        false => reply("200", "", &text(&config)),
    })
    .await;
    let other = Server::new(|_, _, _, _| document("text/html", "<html>")).await;
    let server = Server::new(|_, _, _, _| reply("404", "", "")).await;
    let platform = Platform::new("linux", "amd64");
    let found =
        repository(&server, &[&other, &mirror]).await.image(&platform, Duration::from_secs(5), None).await.expect("an image");
    assert_eq!((found.digest, found.image), (image.descriptor.digest, image));
    assert!(server.asked().is_empty());
    let error = repository(&server, &[&other]).await.image(&platform, Duration::from_secs(5), None).await.expect_err("nowhere");
    assert!(error.to_string().contains("has no such image"), "what the registry itself says: {error}");
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_download() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let server = Server::with(|asked, _| part(from(asked), BLOB.len() - from(asked))).await;
    let error = repository(&server, &[]).await.fetch_blob(&descriptor(), 0, Full).await.err().expect("refused");
    assert!(matches!(error, Error::Resource(_)), "{error}");
}

#[tokio::test]
async fn blobs_share_a_login() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let given = tokens.clone();
    let server = Server::with(move |asked, host| match asked.authorization.as_str() {
        _ if asked.line.contains("/token") => {
            given.fetch_add(1, Ordering::Relaxed);
            reply("200", "", r#"{"token": "tok"}"#)
        }
        "Bearer tok" => part(0, BLOB.len()),
        _ => reply("401", &format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n"), ""),
    })
    .await;
    let repository = repository(&server, &[]).await;
    let descriptor = descriptor();
    let fetches = (0..8).map(|_| repository.fetch_blob(&descriptor, 0, Vec::new()));
    let fetched = futures_util::future::try_join_all(fetches).await;
    assert!(fetched.expect("the blobs").iter().all(|blob| blob == BLOB));
    assert_eq!(tokens.load(Ordering::Relaxed), 1);
}
