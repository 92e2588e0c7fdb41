//! Pushes to a registry that keeps what it is given, and fails where it is told to.

use std::collections::BTreeMap;

use super::super::push::Upload;
use super::*;
use crate::oci::image::tests::{Memory, image, image_of_tars};
use crate::oci::{Compression, Descriptor, Image, Layer};

/// What a registry keeps.
#[derive(Default)]
struct Shelf {
    /// Repository and digest.
    blobs: BTreeMap<(String, String), Vec<u8>>,
    uploads: Vec<Option<Vec<u8>>>,
    /// Repository and name.
    manifests: BTreeMap<(String, String), Vec<u8>>,
}

impl Shelf {
    fn answer(&mut self, asked: &Asked) -> Vec<u8> {
        let (method, rest) = asked.line.split_once(' ').expect("a method");
        let path = rest.split(' ').next().expect("a path").trim_start_matches("/v2/");
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.replace("%3A", ":")))
            .collect();
        let (repository, thing) =
            path.split_once("/blobs/").or_else(|| path.split_once("/manifests/")).expect("a blob or a manifest");
        let key = |name: &str| (repository.to_owned(), name.to_owned());
        match (method, thing.strip_prefix("uploads/")) {
            ("HEAD", None) => match self.blobs.contains_key(&key(thing)) {
                true => reply("200", "", ""),
                false => reply("404", "", ""),
            },
            ("POST", Some("")) => {
                let source = query.get("from").zip(query.get("mount")).map(|(from, mount)| (from.clone(), mount.clone()));
                if let Some(blob) = source.as_ref().and_then(|source| self.blobs.get(source)).cloned() {
                    self.blobs.insert(key(&query["mount"]), blob);
                    return reply("201", "", "");
                }
                self.uploads.push(Some(Vec::new()));
                self.at(repository, self.uploads.len() - 1, "202")
            }
            (method, Some(id)) => {
                let id: usize = id.parse().expect("an upload");
                let Some(upload) = &mut self.uploads[id] else { return reply("404", "", "") };
                if method == "GET" {
                    return self.at(repository, id, "204");
                }
                let begins = asked
                    .header("content-range")
                    .map_or(0, |range| range.split('-').next().expect("a start").parse().expect("a number"));
                if method == "PATCH" && begins != upload.len() {
                    return reply("416", "", "");
                }
                upload.extend(&asked.body);
                if method == "PATCH" {
                    return self.at(repository, id, "202");
                }
                let blob = self.uploads[id].take().expect("seen above");
                if Digest::of(&blob).to_string() != query["digest"] {
                    return reply("400", "", r#"{"errors": [{"code": "DIGEST_INVALID", "message": "no"}]}"#);
                }
                self.blobs.insert(key(&query["digest"]), blob);
                reply("201", "", "")
            }
            ("PUT", None) => {
                let digest = Digest::of(&asked.body);
                self.manifests.insert(key(thing), asked.body.clone());
                reply("201", &format!("docker-content-digest: {digest}\r\n"), "")
            }
            ("GET", None) => document(OCI, std::str::from_utf8(&self.manifests[&key(thing)]).expect("text")),
            _ => reply("405", "", ""),
        }
    }

    /// Says where an upload goes on, by a path alone, with something for the registry's own use.
    fn at(&self, repository: &str, id: usize, status: &str) -> Vec<u8> {
        let end = self.uploads[id].as_ref().map_or(0, Vec::len).saturating_sub(1);
        reply(status, &format!("location: /v2/{repository}/blobs/uploads/{id}?_state=x\r\nrange: 0-{end}\r\n"), "")
    }
}

/// A registry; `fault` may answer in its stead.
async fn shelf(mut fault: impl FnMut(&Asked, &mut Shelf) -> Option<Vec<u8>> + Send + 'static) -> (Server, Arc<Mutex<Shelf>>) {
    let shelf = Arc::new(Mutex::new(Shelf::default()));
    let kept = shelf.clone();
    let server = Server::with(move |asked, _| {
        let mut shelf = kept.lock().expect("no panic");
        fault(asked, &mut shelf).unwrap_or_else(|| shelf.answer(asked))
    })
    .await;
    (server, shelf)
}

async fn push(server: &Server, image: &Image, blobs: &Memory, mounts: &[&str]) -> Result<Digest, Error> {
    let named = |name: &str| format!("{}/{name}", server.host).parse().expect("a reference");
    let mounts: Vec<Reference> = mounts.iter().map(|name| named(name)).collect();
    let registry = Registry::new(&RegistryOptions::default()).expect("a client");
    let repository = registry.repository(&named("app:1"), Some(Arc::new(Login("me", "pw")))).expect("an address");
    repository.push(image, Arc::new(blobs.clone()), &mounts).await
}

/// An image of one layer that takes three chunks.
fn large() -> (Image, Memory) {
    let content: Vec<u8> = (0..17u32 << 20).map(|i| (i >> 7) as u8).collect();
    image(&[&content])
}

fn is_whole(shelf: &Mutex<Shelf>, image: &Image) -> bool {
    let shelf = shelf.lock().expect("no panic");
    let key = |name: String| ("app".to_owned(), name);
    shelf.manifests.get(&key("1".to_owned())) == Some(&image.manifest_bytes)
        && image
            .manifest
            .layers
            .iter()
            .chain([&image.manifest.config])
            .all(|d| shelf.blobs.contains_key(&key(d.digest.to_string())))
}

#[tokio::test]
async fn blobs_come_before_the_manifest_and_are_sent_once() {
    let (server, shelf) = shelf(|_, _| None).await;
    let (image, blobs) = image(&[b"one", b"two", b"one"]);
    assert_eq!(push(&server, &image, &blobs, &[]).await.expect("pushed"), image.descriptor.digest);
    assert!(is_whole(&shelf, &image));
    let asked = server.asked();
    assert_eq!(asked.len(), 3 * 3 + 1, "{asked:?}");
    assert!(asked.last().is_some_and(|last| last.starts_with("PUT /v2/app/manifests/1")), "{asked:?}");
    push(&server, &image, &blobs, &[]).await.expect("pushed again");
    let again = server.asked().split_off(asked.len());
    assert_eq!(again.iter().filter(|line| line.starts_with("HEAD")).count(), 3, "{again:?}");
    assert_eq!(again.len(), 4, "{again:?}");
}

#[tokio::test]
async fn a_layer_is_taken_over_from_another_repository() {
    let (server, shelf) = shelf(|_, _| None).await;
    let (image, mut blobs) = image(&[b"one", b"two"]);
    let one = Digest::of(b"one");
    shelf.lock().expect("no panic").blobs.insert(("base".to_owned(), one.to_string()), b"one".to_vec());
    blobs.0.remove(&one);
    push(&server, &image, &blobs, &["app:2", "base:1"]).await.expect("pushed");
    assert!(is_whole(&shelf, &image));
    let asked = server.asked();
    assert!(asked.iter().all(|line| !line.contains("from=app")), "{asked:?}");
    let begun = asked.iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(begun, 3, "the upload that was begun instead of a mount is used: {asked:?}");
}

#[tokio::test]
async fn what_does_not_go_in_one_request_goes_in_chunks() {
    for status in ["413", "503"] {
        let (server, shelf) = shelf(move |asked, _| (asked.body.len() > 9 << 20).then(|| reply(status, "", ""))).await;
        let (image, blobs) = large();
        push(&server, &image, &blobs, &[]).await.expect("pushed");
        assert!(is_whole(&shelf, &image));
        assert_eq!(server.asked().iter().filter(|line| line.starts_with("PATCH")).count(), 3);
    }
}

#[tokio::test]
async fn a_chunk_that_fails_is_sent_again_from_where_the_registry_stands() {
    let mut patches = 0;
    let (server, shelf) = shelf(move |asked, shelf| {
        if asked.body.len() > 9 << 20 {
            return Some(reply("413", "", ""));
        }
        patches += usize::from(asked.line.starts_with("PATCH"));
        match (asked.line.starts_with("PATCH"), patches) {
            // Half of the first chunk arrives.
            (true, 1) => {
                shelf.uploads.last_mut()?.as_mut()?.extend(&asked.body[..asked.body.len() / 2]);
                Some(Vec::new())
            }
            // The upload is lost.
            (true, 3) => {
                *shelf.uploads.last_mut()? = None;
                Some(reply("500", "", ""))
            }
            _ => None,
        }
    })
    .await;
    let (image, blobs) = large();
    push(&server, &image, &blobs, &[]).await.expect("pushed");
    assert!(is_whole(&shelf, &image));
    assert!(server.asked().iter().any(|line| line.starts_with("GET /v2/app/blobs/uploads/")), "{:?}", server.asked());
}

#[tokio::test]
async fn failures_that_may_pass_are_retried() {
    let (server, shelf) = shelf(|asked, _| match asked.number {
        1 | 4 | 7 => Some(reply("503", "", "")),
        2 | 5 => Some(Vec::new()),
        9 => Some(reply("429", "retry-after: 0\r\n", "")),
        _ => None,
    })
    .await;
    let (image, blobs) = image(&[b"one"]);
    push(&server, &image, &blobs, &[]).await.expect("pushed");
    assert!(is_whole(&shelf, &image));
}

#[tokio::test]
async fn what_the_registry_has_afterwards_is_checked() {
    let (image, blobs) = image(&[]);
    let wrong = format!("docker-content-digest: {}\r\n", Digest::of(b"else"));
    let silent = |asked: &Asked, shelf: &mut Shelf| {
        asked.line.starts_with("PUT /v2/app/manifests").then(|| {
            shelf.manifests.insert(("app".to_owned(), "1".to_owned()), asked.body.clone());
            reply("201", "", "")
        })
    };
    let (server, _) = shelf(silent).await;
    push(&server, &image, &blobs, &[]).await.expect("asked for, as nothing was told");
    let (server, _) =
        shelf(move |asked, _| asked.line.starts_with("PUT /v2/app/manifests").then(|| reply("201", &wrong, ""))).await;
    let error = push(&server, &image, &blobs, &[]).await.expect_err("refused");
    assert!(matches!(error, Error::Integrity(_)), "{error}");
}

#[tokio::test]
async fn refusals_name_the_cause() {
    let (image, mut blobs) = image(&[b"one"]);
    for (status, expected) in [("403", "denies writing"), ("404", "no such repository"), ("401", "docker login")] {
        let (server, _) = shelf(move |asked, _| asked.line.starts_with("POST").then(|| reply(status, "", ""))).await;
        let error = push(&server, &image, &blobs, &[]).await.expect_err("refused");
        assert!(matches!(error, Error::Registry { transient: false, .. }) && error.to_string().contains(expected), "{error}");
    }
    let layer = Descriptor::of("", b"one");
    for content in [None, Some(b"o".to_vec())] {
        blobs.0.clear();
        blobs.0.extend(content.map(|content| (layer.digest, content)));
        let (server, shelf) = shelf(|_, _| None).await;
        let error = push(&server, &image, &blobs, &[]).await.expect_err("no blob");
        assert!(matches!(error, Error::File { .. }), "{error}");
        assert!(shelf.lock().expect("no panic").manifests.is_empty());
    }
    blobs.0.insert(layer.digest, b"eno".to_vec());
    let (server, _) = shelf(|_, _| None).await;
    let error = push(&server, &image, &blobs, &[]).await.expect_err("another blob").to_string();
    assert!(error.contains("DIGEST_INVALID"), "{error}");
}

#[tokio::test]
async fn an_upload_elsewhere_gets_no_login_and_the_token_is_for_pushing() {
    let other = Server::new(|_, _, _, _| reply("201", "", "")).await;
    let place = other.host.clone();
    let server = Server::new(move |_, line, authorization, host| match line {
        line if line.contains("/token") => reply("200", "", r#"{"token": "tok"}"#),
        _ if authorization == "-" => reply("401", &format!("WWW-Authenticate: Bearer realm=\"http://{host}/token\"\r\n"), ""),
        line if line.starts_with("HEAD") => reply("404", "", ""),
        line if line.starts_with("POST") => reply("202", &format!("location: http://{place}/signed?key=k\r\n"), ""),
        _ => reply("201", "", ""),
    })
    .await;
    let (image, blobs) = image(&[b"one"]);
    // This registry tells no digest and has nothing: the check at the end fails.
    push(&server, &image, &blobs, &[]).await.expect_err("unchecked");
    let asked = server.asked();
    assert!(asked.iter().any(|line| line.contains("scope=repository%3Aapp%3Apull%2Cpush")), "{asked:?}");
    let digest = Digest::of(b"one").to_string().replace(':', "%3A");
    assert!(other.asked().contains(&format!("PUT /signed?key=k&digest={digest} one [-]")), "{:?}", other.asked());
}

/// What is pushed to the registry `host:port` that `ROCHE_TEST_REGISTRY` names comes back.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "whoever runs the tests says where a registry is")]
async fn a_real_registry_keeps_what_it_is_given() {
    let host = std::env::var("ROCHE_TEST_REGISTRY").expect("ROCHE_TEST_REGISTRY is set: use tests/run");
    let (whole, blobs) = large();
    let registry = Registry::new(&RegistryOptions::default()).expect("a client");
    let named =
        |path: &str| registry.repository(&format!("{host}/{path}").parse().expect("a reference"), None).expect("an address");
    let first = named("engine/first:1");
    first.push(&whole, Arc::new(blobs.clone()), &[]).await.expect("pushed");
    // The second repository can only have the layer from the first.
    let second = named("engine/second:1");
    let nothing = Arc::new(Memory(BTreeMap::new()));
    second.push(&whole, nothing, &[first.reference().clone()]).await.expect("taken over");
    let found = second.image(&whole.config.platform, Duration::from_secs(20), None).await.expect("an image");
    assert_eq!((found.digest, &found.image), (whole.descriptor.digest, &whole));
    for Layer { blob, .. } in found.image.layers() {
        assert_eq!(second.fetch_blob(&blob, 0, Vec::new()).await.expect("the layer"), blobs.0[&blob.digest]);
        let rest = second.fetch_blob(&blob, 1000, Vec::new()).await.expect("the rest");
        assert_eq!(rest, &blobs.0[&blob.digest][1000..]);
    }
    // Layers as docker, containerd and podman are to pull them.
    let (tars, blobs) = image_of_tars(&[Compression::None, Compression::Gzip, Compression::Gzip]);
    named("engine/gzip:1").push(&tars, Arc::new(blobs), &[]).await.expect("pushed");
    let (tars, blobs) = image_of_tars(&[Compression::Zstd, Compression::Gzip]);
    named("engine/zstd:1").push(&tars, Arc::new(blobs), &[]).await.expect("pushed");
    // Chunks, as where one request is refused.
    let content: Vec<u8> = (0..20u32 << 20).map(|i| (i >> 9) as u8).collect();
    let (other, blobs) = image(&[&content]);
    let access = first.access(&first.endpoints[0], Purpose::Push);
    let layer = &other.manifest.layers[0];
    Upload { access, blobs: Arc::new(blobs), descriptor: layer }.send_chunks().await.expect("pushed");
    assert_eq!(first.fetch_blob(layer, 0, Vec::new()).await.expect("the layer"), content);
}
