//! Sessions over a connection in memory; the test plays the daemon.

use std::collections::BTreeMap;
use std::path::Path;

use async_trait::async_trait;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::health::HealthCheckRequest;
use bollard_buildkit_proto::health::health_client::HealthClient;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest};
use bytes::Bytes;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::archive::Piece;
use super::filesend::Raw;
use super::*;
use crate::oci::{Credential, Credentials};
use crate::solver::{ArchiveDest, ArchiveFormat, Export, LocalDir};

/// Serves a session and returns the daemon's end.
async fn daemon(options: &JobOptions) -> (Arc<Session>, Channel) {
    let (session, channel, _) = connection(options).await;
    (session, channel)
}

/// Serves a session on a task that can be aborted.
async fn connection(options: &JobOptions) -> (Arc<Session>, Channel, tokio::task::JoinHandle<Result<(), Error>>) {
    let session = Arc::new(Session::new("0123abcd".to_owned(), options));
    let (client, server) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(Arc::clone(&session).serve(server));
    let mut client = Some(TokioIo::new(client));
    let connector =
        tower::service_fn(move |_| std::future::ready(client.take().ok_or_else(|| std::io::Error::other("one connection"))));
    let endpoint = tonic::transport::Endpoint::from_static("http://session");
    let channel = endpoint.connect_with_connector(connector).await.expect("a connection");
    (session, channel, serving)
}

/// A call of one of the two `DiffCopy` methods.
struct Call {
    requests: Option<mpsc::Sender<Bytes>>,
    answers: Streaming<Bytes>,
}

impl Call {
    async fn open(channel: &Channel, service: &str, metadata: &[(&'static str, &str)]) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let mut request = Request::new(ReceiverStream::new(receiver));
        for (key, value) in metadata {
            request.metadata_mut().append(*key, value.parse().expect("a value"));
        }
        let mut grpc = tonic::client::Grpc::new(channel.clone());
        grpc.ready().await.expect("a connection");
        let path = format!("/moby.filesync.v1.{service}/DiffCopy").parse().expect("a path");
        let answers = grpc.streaming(request, path, Raw).await?.into_inner();
        Ok(Self { requests: Some(requests), answers })
    }

    async fn send(&self, message: &impl prost::Message) {
        // Where the other side has given up, its answer says why.
        let _ = self.requests.as_ref().expect("an open call").send(message.encode_to_vec().into()).await;
    }

    async fn packet(&mut self) -> Result<Option<Packet>, Status> {
        Ok(self.answers.message().await?.map(|message| Packet::decode(message).expect("a packet")))
    }

    /// Receives a folder as a daemon does: every entry, and every file's content.
    async fn receive(&mut self) -> Result<Vec<(Stat, Vec<u8>)>, Status> {
        let mut files: Vec<(Stat, Vec<u8>)> = Vec::new();
        let mut open = 0;
        let mut complete = false;
        while let Some(packet) = self.packet().await? {
            match packet.r#type() {
                PacketType::PacketStat => match packet.stat {
                    Some(stat) => {
                        if stat.mode & mode::TYPE == 0 {
                            open += 1;
                            self.send(&of(PacketType::PacketReq, files.len() as u32)).await;
                        }
                        files.push((stat, Vec::new()));
                    }
                    None => complete = true,
                },
                PacketType::PacketData if packet.data.is_empty() => open -= 1,
                PacketType::PacketData => {
                    assert!(packet.data.len() <= 32 << 10);
                    files[packet.id as usize].1.extend(packet.data);
                }
                PacketType::PacketFin => return Ok(files),
                PacketType::PacketErr => return Err(Status::unknown(String::from_utf8_lossy(&packet.data))),
                PacketType::PacketReq => panic!("a sender asks for nothing"),
            }
            if complete && open == 0 {
                self.send(&of(PacketType::PacketFin, 0)).await;
            }
        }
        Err(Status::unknown("no FIN"))
    }
}

fn of(kind: PacketType, id: u32) -> Packet {
    Packet { r#type: kind.into(), id, ..Packet::default() }
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for (path, content) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(path, content).expect("a file");
    }
    dir
}

fn offering(path: &Path) -> JobOptions {
    let admits = Arc::new(|path: &str, _: &Path| !path.ends_with(".env"));
    let locals = BTreeMap::from([("context".to_owned(), LocalDir { path: path.to_owned(), admits, content: None })]);
    JobOptions { locals, ..JobOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_is_sent_with_its_content() {
    let big = "0123456789".repeat(20_000);
    let dir = folder(&[("a/x", "X"), ("a.b", ""), (".env", "SECRET"), ("a/.env", "SECRET"), ("big", &big), ("no/y", "Y")]);
    let (session, channel) = daemon(&offering(dir.path())).await;
    let metadata =
        [("dir-name", "context"), ("include-patterns", "**"), ("include-patterns", "**/.env"), ("exclude-patterns", "no")];
    let mut call = Call::open(&channel, "FileSync", &metadata).await.expect("a call");
    let files = call.receive().await.expect("a folder");
    let seen: Vec<_> = files.iter().map(|(stat, content)| (stat.path.as_str(), content.len())).collect();
    assert_eq!(seen, [("a", 0), ("a/x", 1), ("a.b", 0), ("big", big.len())]);
    assert_eq!(files[3].1, big.as_bytes());
    assert!(call.packet().await.expect("an end").is_none());
    assert!(session.take_failure().is_none());
}

#[tokio::test]
async fn a_folder_that_is_not_offered_is_denied() {
    let dir = folder(&[]);
    let (_session, channel) = daemon(&offering(dir.path())).await;
    for name in ["other", "", "../context", "/etc"] {
        let status = Call::open(&channel, "FileSync", &[("dir-name", name)]).await.err().expect("a refusal");
        assert_eq!(status.code(), Code::PermissionDenied, "{name}");
    }
}

#[tokio::test]
async fn only_files_that_were_told_of_can_be_asked_for() {
    let dir = folder(&[("d/x", "X")]);
    let (_session, channel) = daemon(&offering(dir.path())).await;
    for ids in [&[0][..], &[2], &[u32::MAX], &[1, 1]] {
        let mut call = Call::open(&channel, "FileSync", &[("dir-name", "context")]).await.expect("a call");
        while call.packet().await.expect("a packet").is_some_and(|packet| packet.stat.is_some()) {}
        for id in ids {
            call.send(&of(PacketType::PacketReq, *id)).await;
        }
        let mut last = call.packet().await;
        while let Ok(Some(packet)) = &last {
            assert!(matches!(packet.r#type(), PacketType::PacketErr | PacketType::PacketData));
            last = call.packet().await;
        }
        assert_eq!(last.map_err(|status| status.code()), Err(Code::InvalidArgument), "{ids:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_changes_before_it_is_sent_fails_the_job() {
    for swapped in [false, true] {
        let dir = folder(&[("x", "old")]);
        let (session, channel) = daemon(&offering(dir.path())).await;
        let mut call = Call::open(&channel, "FileSync", &[("dir-name", "context")]).await.expect("a call");
        while call.packet().await.expect("a packet").is_some_and(|packet| packet.stat.is_some()) {}
        let path = dir.path().join("x");
        if swapped {
            std::fs::remove_file(&path).expect("removed");
            std::os::unix::fs::symlink("/etc/hostname", &path).expect("a link");
        } else {
            std::fs::write(&path, "new").expect("written");
        }
        call.send(&of(PacketType::PacketReq, 0)).await;
        let mut content = Vec::new();
        let status = loop {
            match call.packet().await {
                Ok(packet) => {
                    content.extend(packet.filter(|packet| packet.r#type() == PacketType::PacketData).map(|packet| packet.data))
                }
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Internal);
        assert_eq!(content.concat(), if swapped { &b""[..] } else { b"new" });
        assert!(matches!(session.take_failure(), Some(Error::File { path: named, .. }) if named == path));
        assert!(session.take_failure().is_none());
    }
}

#[tokio::test]
async fn health_secrets_and_credentials_are_answered() {
    struct One;
    #[async_trait]
    impl Credentials for One {
        async fn find(&self, host: &str) -> Result<Option<Credential>, Error> {
            match host {
                "docker.io" => Ok(Some(Credential { username: "me".to_owned(), secret: "word".to_owned() })),
                "broken" => Err(Error::Credentials("the helper hangs".to_owned())),
                _ => Ok(None),
            }
        }
    }
    let options = JobOptions {
        secrets: BTreeMap::from([("token".to_owned(), b"abc".to_vec())]),
        credentials: Some(Arc::new(One)),
        ..JobOptions::default()
    };
    let (session, channel) = daemon(&options).await;
    assert!(session.methods().contains(&"/moby.filesync.v1.Auth/Credentials".to_owned()));
    assert!(!session.methods().iter().any(|method| method.contains("FileS")));

    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("health");
    assert_eq!(health.into_inner().status, 1);

    let mut secrets = SecretsClient::new(channel.clone());
    let ask = |id: &str| GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
    assert_eq!(secrets.get_secret(ask("token")).await.expect("a secret").into_inner().data, b"abc");
    assert_eq!(secrets.get_secret(ask("other")).await.map_err(|status| status.code()).err(), Some(Code::NotFound));

    let mut auth = AuthClient::new(channel);
    let host = |host: &str| CredentialsRequest { host: host.to_owned() };
    let found = auth.credentials(host("registry-1.docker.io")).await.expect("credentials").into_inner();
    assert_eq!((found.username.as_str(), found.secret.as_str()), ("me", "word"));
    assert_eq!(auth.credentials(host("ghcr.io")).await.expect("none").into_inner().username, "");
    assert!(session.take_failure().is_none());
    assert_eq!(auth.credentials(host("broken")).await.map_err(|status| status.code()).err(), Some(Code::Internal));
    assert!(matches!(session.take_failure(), Some(Error::Credentials(_))));
    let authority = auth.get_token_authority(GetTokenAuthorityRequest::default()).await;
    assert_eq!(authority.map_err(|status| status.code()).err(), Some(Code::Unavailable));
    let token = auth.fetch_token(FetchTokenRequest::default()).await;
    assert_eq!(token.map_err(|status| status.code()).err(), Some(Code::Unavailable));
}

#[test]
fn a_session_says_nothing_of_this_machine() {
    let dir = folder(&[]);
    let key = |path: &Path| Session::new("id".to_owned(), &offering(path)).shared_key().to_owned();
    assert_eq!(key(dir.path()), key(dir.path()));
    assert_ne!(key(dir.path()), key(Path::new("/")));
    assert_eq!(key(dir.path()).len(), 64);
}

fn archive(dest: &Path) -> JobOptions {
    let dest = ArchiveDest::File(dest.to_owned());
    let exports = vec![Export::Store { names: vec![] }, Export::Archive { format: ArchiveFormat::Oci, names: vec![], dest }];
    JobOptions { exports, ..JobOptions::default() }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_takes_its_place_when_it_is_committed() {
    for id in [&[("buildkit-attachable-exporter-id", "1")][..], &[]] {
        let dir = folder(&[("out.tar", "old")]);
        let dest = dir.path().join("out.tar");
        let (session, channel) = daemon(&archive(&dest)).await;
        let mut call = Call::open(&channel, "FileSend", id).await.expect("a call");
        for _ in 0..1000 {
            call.send(&Piece { data: Bytes::from(vec![7; 4096]) }).await;
        }
        call.requests = None;
        assert!(call.packet().await.expect("an end").is_none());
        assert_eq!(std::fs::read(&dest).expect("the old file"), b"old");
        session.commit().expect("a commit");
        assert_eq!(std::fs::read(&dest).expect("the new file"), vec![7; 4_096_000]);
        assert_eq!(names(dir.path()), ["out.tar"]);
        let again = Call::open(&channel, "FileSend", id).await.err().expect("a refusal");
        assert_eq!(again.code(), Code::PermissionDenied);
    }
}

/// Waits until a folder holds so many entries.
async fn settle(dir: &Path, count: usize) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while names(dir).len() != count && std::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_breaks_off_leaves_the_old_one() {
    for whole in [true, false] {
        let dir = folder(&[("out.tar", "old")]);
        let (session, channel, serving) = connection(&archive(&dir.path().join("out.tar"))).await;
        let call = Call::open(&channel, "FileSend", &[]).await.expect("a call");
        call.send(&Piece { data: Bytes::from(vec![7; 1 << 20]) }).await;
        let Call { requests, mut answers } = call;
        if whole {
            // Received, but the solve fails afterwards: nobody commits.
            drop(requests);
            assert!(answers.message().await.expect("an end").is_none());
            assert_eq!(names(dir.path()).len(), 2);
            drop((answers, channel, session));
            settle(dir.path(), 1).await;
        } else {
            // The connection breaks while more is to come.
            settle(dir.path(), 2).await;
            serving.abort();
            settle(dir.path(), 1).await;
            session.commit().expect("nothing to commit");
            assert!(answers.message().await.is_err());
            drop((requests, channel));
        }
        assert_eq!(names(dir.path()), ["out.tar"]);
        assert_eq!(std::fs::read(dir.path().join("out.tar")).expect("the old file"), b"old");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_and_a_bad_destination_are_told_apart() {
    let dir = folder(&[]);
    for (dest, full) in [(Path::new("/dev/full"), true), (dir.path(), false), (&dir.path().join("no/out.tar"), false)] {
        let (session, channel) = daemon(&archive(dest)).await;
        let mut call = Call::open(&channel, "FileSend", &[]).await.expect("a call");
        call.send(&Piece { data: Bytes::from_static(b"data") }).await;
        call.requests = None;
        assert_eq!(call.packet().await.map_err(|status| status.code()), Err(Code::Internal));
        let failure = session.take_failure().expect("a failure");
        assert_eq!(matches!(failure, Error::Resource(_)), full, "{failure}");
        assert_eq!(matches!(failure, Error::Output { .. }), !full, "{failure}");
        assert!(failure.to_string().contains(&dest.display().to_string()), "{failure}");
    }
}

fn exporting(dest: &Path) -> JobOptions {
    JobOptions { exports: vec![Export::Folder { dest: dest.to_owned() }], ..JobOptions::default() }
}

fn entry(path: &str, mode: u32) -> Stat {
    Stat { path: path.to_owned(), mode, mod_time: 1_000_000_000_000_000_001, ..Stat::default() }
}

fn file(path: &str, size: i64) -> Stat {
    Stat { size, ..entry(path, 0o4755) }
}

fn link(path: &str, mode: u32, target: &str) -> Stat {
    Stat { linkname: target.to_owned(), ..entry(path, mode) }
}

/// Sends entries, answers each REQ with `content`, and returns how the call ended.
async fn export(channel: &Channel, stats: Vec<Stat>, content: &[u8]) -> Result<(), Status> {
    let mut call = Call::open(channel, "FileSend", &[("buildkit-attachable-exporter-id", "0")]).await?;
    for stat in stats {
        call.send(&Packet { stat: Some(stat), ..Packet::default() }).await;
    }
    call.send(&of(PacketType::PacketStat, 0)).await;
    while let Some(packet) = call.packet().await? {
        match packet.r#type() {
            PacketType::PacketReq => {
                call.send(&Packet { data: content.to_vec(), ..of(PacketType::PacketData, packet.id) }).await;
                call.send(&of(PacketType::PacketData, packet.id)).await;
            }
            PacketType::PacketFin => call.send(&of(PacketType::PacketFin, 0)).await,
            other => panic!("a receiver sends no {other:?}"),
        }
    }
    Ok(())
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_written_into_a_folder() {
    use std::os::unix::fs::MetadataExt as _;
    let dir = folder(&[("out/bin/app", "old"), ("out/mine", "kept"), ("outside", "x")]);
    std::os::unix::fs::symlink("../outside", dir.path().join("out/zz")).expect("a link");
    let dest = dir.path().join("out");
    let (session, channel) = daemon(&exporting(&dest)).await;
    let mut stats = vec![
        entry("bin", mode::DIR | 0o755),
        file("bin/app", 3),
        link("bin/other", 0o755, "bin/app"),
        entry("new", mode::DIR | 0o555),
        file("new/f", 3),
        entry("null", mode::DEVICE | mode::CHAR_DEVICE | 0o666),
        entry("pipe", mode::PIPE | 0o666),
        link("s", mode::SYMLINK | 0o777, "/etc"),
        entry("sda", mode::DEVICE | 0o666),
        entry("socket", mode::SOCKET | 0o666),
    ];
    // More than are asked for at once.
    stats.extend((0..300).map(|i| file(&format!("t{i:03}"), 3)));
    stats.push(file("zz", 3));
    export(&channel, stats, b"new").await.expect("an export");
    assert!(session.take_failure().is_none());
    assert_eq!(std::fs::read(dest.join("bin/app")).expect("a file"), b"new");
    assert_eq!(std::fs::read(dest.join("mine")).expect("a file"), b"kept");
    assert_eq!(std::fs::read(dir.path().join("outside")).expect("a file"), b"x");
    assert_eq!(std::fs::read(dest.join("zz")).expect("a file"), b"new");
    assert_eq!(std::fs::read_link(dest.join("s")).expect("a link"), Path::new("/etc"));
    assert!(["null", "pipe", "sda", "socket"].iter().all(|name| !dest.join(name).exists()), "only root may make devices");
    let app = std::fs::metadata(dest.join("bin/app")).expect("a file");
    assert_eq!((app.mode() & 0o7777, app.mtime(), app.nlink()), (0o755, 1_000_000_000, 2));
    let new = std::fs::metadata(dest.join("new")).expect("a folder");
    assert_eq!((new.mode() & 0o7777, new.mtime_nsec()), (0o555, 1));
    assert!(names(&dest).iter().chain(&names(&dest.join("bin"))).all(|name| !name.ends_with(".partial")));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_lands_outside_the_folder() {
    let huge = "d/".repeat(5000) + "x";
    let hostile: Vec<(&str, Vec<Stat>)> = vec![
        ("a path that climbs", vec![file("../evil", 3)]),
        ("a path that climbs later", vec![entry("a", mode::DIR | 0o755), file("a/../../evil", 3)]),
        ("an absolute path", vec![file("/tmp/evil", 3)]),
        ("no path", vec![file("", 3)]),
        ("the folder itself", vec![file(".", 3)]),
        ("its parent", vec![entry("..", mode::DIR | 0o777)]),
        ("an empty part", vec![entry("a", mode::DIR | 0o755), file("a//evil", 3)]),
        ("a NUL", vec![file("evil\0", 3)]),
        ("a folder that was not sent", vec![file("a/evil", 3)]),
        ("a link as folder", vec![link("a", mode::SYMLINK | 0o777, ".."), file("a/evil", 3)]),
        (
            "a link replaced by a folder",
            vec![link("a", mode::SYMLINK | 0o777, ".."), entry("a", mode::DIR | 0o755), file("a/evil", 3)],
        ),
        ("a link that is there already", vec![entry("up", mode::DIR | 0o755), file("up/evil", 3)]),
        ("wrong order", vec![file("b", 3), file("a", 3)]),
        ("one path twice", vec![file("a", 3), file("a", 3)]),
        ("a hard link out", vec![link("a", 0o644, "../outside")]),
        ("a hard link through a link", vec![link("a", 0o644, "up/outside")]),
        ("a hard link to what is there", vec![link("a", 0o644, "mine")]),
        ("two types", vec![entry("a", mode::DIR | mode::SYMLINK)]),
        ("a device that is a folder", vec![entry("a", mode::DIR | mode::DEVICE)]),
        ("a device below a link", vec![link("a", mode::SYMLINK | 0o777, ".."), entry("a/null", mode::DEVICE)]),
        ("a negative size", vec![file("a", -1)]),
        ("a huge size", vec![file("a", i64::MAX)]),
        ("more than was said", vec![file("a", 2)]),
        ("less than was said", vec![file("a", 4)]),
        ("an endless path", vec![file(&huge, 3)]),
        ("a long name", vec![file(&"x".repeat(300), 3)]),
        ("a file over a folder", vec![file("kept", 3)]),
        ("a folder over a file", vec![entry("mine", mode::DIR | 0o755)]),
        ("a link to nothing", vec![link("a", mode::SYMLINK | 0o777, "")]),
    ];
    for (what, stats) in hostile {
        let dir = folder(&[("out/mine", "kept"), ("out/kept/x", ""), ("outside", "x")]);
        std::os::unix::fs::symlink("..", dir.path().join("out/up")).expect("a link");
        let dest = dir.path().join("out");
        let (session, channel) = daemon(&exporting(&dest)).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), export(&channel, stats, b"new")).await;
        assert!(ended.expect("an end").is_err(), "{what}");
        let failure = session.take_failure();
        assert!(matches!(failure, Some(Error::Daemon { .. } | Error::Resource(_) | Error::Output { .. })), "{what}: {failure:?}");
        assert_eq!(names(dir.path()), ["out", "outside"], "{what}");
        assert_eq!(std::fs::read(dir.path().join("outside")).expect("a file"), b"x", "{what}");
        assert_eq!(std::fs::read(dest.join("mine")).expect("a file"), b"kept", "{what}");
        assert!(!Path::new("/tmp/evil").exists(), "{what}");
        assert!(names(&dest).iter().all(|name| !name.ends_with(".partial") && name != "evil"), "{what}");
    }
}

#[tokio::test]
async fn packets_that_make_no_sense_end_the_call() {
    let unasked = Packet { data: b"x".to_vec(), ..of(PacketType::PacketData, 7) };
    let bad = [unasked, of(PacketType::PacketReq, 0), of(PacketType::PacketFin, 0), Packet { r#type: 9, ..Packet::default() }];
    for packet in bad {
        let dir = folder(&[]);
        let (session, channel) = daemon(&exporting(&dir.path().join("made/out"))).await;
        let mut call = Call::open(&channel, "FileSend", &[]).await.expect("a call");
        call.send(&packet).await;
        assert_eq!(call.packet().await.map_err(|status| status.code()), Err(Code::Internal));
        assert!(matches!(session.take_failure(), Some(Error::Daemon { .. })));
    }
}
