//! A registry in the test's own process, and small images that are made for it.
//!
//! It knows as much of the distribution API as a pull takes, counts what it hands out, and can stop
//! in the middle of a blob.
//!
//! Invariant: what is counted as fetched was sent to its last byte.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use roche_engine::Digest;
use serde_json::json;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// How long a blob that was stopped stays so where nobody lets it go on.
const STOPPED: Duration = Duration::from_secs(20);

/// A registry on a loopback port; it ends with the process.
pub(crate) struct OwnRegistry {
    address: SocketAddr,
    state: Arc<State>,
}

/// A media type and what is of it.
type Document = (String, Arc<Vec<u8>>);

#[derive(Default)]
struct State {
    /// Answers by path.
    documents: Mutex<BTreeMap<String, Document>>,
    /// How often each blob was sent whole.
    fetched: Mutex<BTreeMap<String, u32>>,
    /// How many more blobs are sent before one stops halfway; negative where none does.
    until_stop: AtomicI64,
    stopped: Mutex<bool>,
    change: Condvar,
    /// How long a blob takes at least.
    pause: Mutex<Duration>,
}

impl OwnRegistry {
    /// Starts to listen.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(State { until_stop: AtomicI64::new(-1), ..State::default() });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&accepting);
                // A client that was killed is no failure of the test.
                thread::spawn(move || drop(state.serve(client)));
            }
        });
        Self { address, state }
    }

    /// Adds an image of these layers, which are tars, and returns its reference.
    pub(crate) fn image(&self, name: &str, layers: &[Vec<u8>], environment: &[&str]) -> String {
        let add = |bytes: Vec<u8>| {
            let (digest, size) = (Digest::of(&bytes).to_string(), bytes.len());
            let path = format!("/v2/{name}/blobs/{digest}");
            self.document(path, "application/octet-stream", bytes);
            (digest, size)
        };
        let (mut described, mut diff_ids) = (Vec::new(), Vec::new());
        for tar in layers {
            diff_ids.push(Digest::of(tar).to_string());
            let (digest, size) = add(gzip(tar));
            described.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": size
            }));
        }
        let config = json!({
            "created": "2023-11-14T22:13:20Z", "architecture": "amd64", "os": "linux",
            "config": { "Env": environment, "Cmd": ["sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|id| json!({ "created_by": id })).collect::<Vec<_>>()
        });
        let (digest, size) = add(config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": described,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": size }
        });
        let manifest = manifest.to_string().into_bytes();
        for reference in ["1".to_owned(), Digest::of(&manifest).to_string()] {
            self.document(format!("/v2/{name}/manifests/{reference}"), MANIFEST, manifest.clone());
        }
        format!("{}/{name}:1", self.address)
    }

    fn document(&self, path: String, media_type: &str, bytes: Vec<u8>) {
        let mut documents = self.state.documents.lock().expect("no thread panics");
        documents.insert(path, (media_type.to_owned(), Arc::new(bytes)));
    }

    /// How often each blob was sent whole, by digest; counting starts anew.
    pub(crate) fn take_fetched(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut *self.state.fetched.lock().expect("no thread panics"))
    }

    /// How many blobs there are; images may share some.
    pub(crate) fn blobs(&self) -> usize {
        let documents = self.state.documents.lock().expect("no thread panics");
        documents.keys().filter_map(|path| path.split_once("/blobs/")).map(|(_, digest)| digest).collect::<BTreeSet<_>>().len()
    }

    /// Makes every blob take at least so long.
    pub(crate) fn pause(&self, pause: Duration) {
        *self.state.pause.lock().expect("no thread panics") = pause;
    }

    /// Has one blob stop halfway, after `blobs` others.
    pub(crate) fn stop_after(&self, blobs: i64) {
        *self.state.stopped.lock().expect("no thread panics") = false;
        self.state.until_stop.store(blobs, Ordering::SeqCst);
    }

    /// Whether a blob has stopped halfway.
    pub(crate) fn has_stopped(&self) -> bool {
        *self.state.stopped.lock().expect("no thread panics")
    }

    /// Lets everything pass again.
    pub(crate) fn go_on(&self) {
        self.state.until_stop.store(-1, Ordering::SeqCst);
        *self.state.stopped.lock().expect("no thread panics") = false;
        self.state.change.notify_all();
    }
}

impl State {
    /// Answers one request and closes.
    fn serve(&self, client: TcpStream) -> std::io::Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut lines = BufReader::new(client.try_clone()?).lines();
        let request = lines.next().transpose()?.unwrap_or_default();
        let mut from = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.strip_suffix('-').and_then(|start| start.parse::<usize>().ok());
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let document = self.documents.lock().expect("no thread panics").get(path).cloned();
        let mut client = &client;
        match document {
            _ if path == "/v2/" => client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"),
            None => client.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            Some((media_type, bytes)) => {
                let start = from.unwrap_or(0).min(bytes.len());
                let status = if from.is_some() {
                    format!("206 Partial Content\r\nContent-Range: bytes {start}-{}/{}", bytes.len() - 1, bytes.len())
                } else {
                    "200 OK".to_owned()
                };
                let digest = Digest::of(&bytes);
                let rest = &bytes[start..];
                write!(
                    client,
                    "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\nAccept-Ranges: bytes\r\n\
                     Docker-Content-Digest: {digest}\r\nConnection: close\r\n\r\n",
                    rest.len()
                )?;
                if method == "HEAD" {
                    return Ok(());
                }
                if path.contains("/blobs/") { self.send(client, rest, &digest) } else { client.write_all(rest) }
            }
        }
    }

    fn send(&self, mut client: &TcpStream, bytes: &[u8], digest: &Digest) -> std::io::Result<()> {
        let pause = *self.pause.lock().expect("no thread panics");
        let (first, second) = bytes.split_at(bytes.len() / 2);
        client.write_all(first)?;
        client.flush()?;
        thread::sleep(pause);
        if self.until_stop.load(Ordering::SeqCst) >= 0 && self.until_stop.fetch_sub(1, Ordering::SeqCst) == 0 {
            let mut stopped = self.stopped.lock().expect("no thread panics");
            *stopped = true;
            while *stopped {
                let (held, timeout) = self.change.wait_timeout(stopped, STOPPED).expect("no thread panics");
                stopped = held;
                if timeout.timed_out() {
                    break;
                }
            }
        }
        client.write_all(second)?;
        client.flush()?;
        *self.fetched.lock().expect("no thread panics").entry(digest.to_string()).or_default() += 1;
        Ok(())
    }
}

/// A layer of what `fill` puts into an empty folder, as a tar that is always the same.
pub(crate) fn layer(fill: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    fill(folder.path());
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner", "-cf", "-", "."]);
    let made = tar.current_dir(folder.path()).output().expect("tar runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

/// Puts static BusyBox with all its names, and the users that there are, into a root.
pub(crate) fn busybox(root: &Path) {
    let listed = Command::new("busybox").arg("--list-full").output().expect("busybox runs");
    for folder in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder is made");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "bin/busybox") {
        let link = root.join(name);
        fs::create_dir_all(link.parent().expect("below the root")).expect("a folder is made");
        std::os::unix::fs::symlink("/bin/busybox", link).expect("a link is made");
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").expect("a file is written");
    fs::write(root.join("etc/group"), "root:x:0:\n").expect("a file is written");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    let path = folder.path().join("layer");
    fs::write(&path, bytes).expect("a file is written");
    let made = Command::new("gzip").args(["-n", "-1", "-c"]).arg(&path).output().expect("gzip runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}
