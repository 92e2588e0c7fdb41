//! Stands between the program and a daemon, and breaks things on purpose.
//!
//! Invariant: until the fault, bytes pass unchanged and in order both ways.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::Daemon;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing, until [`Proxy::cut`] is called.
    Never,
    /// Connections are accepted, and nothing is ever answered.
    Silence,
    /// Every connection is answered with these bytes and closed.
    Answer(&'static [u8]),
    /// All connections close when the daemon has sent so many bytes.
    CutAfter(u64),
    /// Nothing passes any more, either way, when the daemon has sent so many bytes.
    StallAfter(u64),
}

/// A socket in front of a daemon's.
pub(crate) struct Proxy {
    folder: TempDir,
    state: Arc<State>,
}

struct State {
    daemon: PathBuf,
    fault: Fault,
    from_daemon: AtomicU64,
    over: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
    /// What the program has sent, by connection.
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Proxy {
    /// Starts to listen.
    pub(crate) fn start(daemon: &Daemon, fault: Fault) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        let listener = UnixListener::bind(folder.path().join("docker.sock")).expect("the socket is made");
        let state = Arc::new(State {
            daemon: daemon.socket.clone(),
            fault,
            from_daemon: AtomicU64::new(0),
            over: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
            sent: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&accepting);
                thread::spawn(move || state.serve(client));
            }
        });
        Self { folder, state }
    }

    /// The value of DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("docker.sock")
    }

    /// How many bytes the daemon has sent.
    pub(crate) fn bytes_from_daemon(&self) -> u64 {
        self.state.from_daemon.load(Ordering::Relaxed)
    }

    /// The bytes of each request that the program has made over HTTP/2, gRPC's framing included.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        let sent = self.state.sent.lock().expect("no pump panics");
        sent.iter().flat_map(|connection| bodies(connection)).collect()
    }

    /// Closes all connections, and every later one at once: the daemon has died.
    pub(crate) fn cut(&self) {
        self.state.cut();
    }
}

impl State {
    fn serve(&self, mut client: UnixStream) {
        if self.over.load(Ordering::SeqCst) {
            return;
        }
        match self.fault {
            Fault::Silence => {
                self.hold(&client);
                swallow(&mut client);
            }
            Fault::Answer(bytes) => {
                // What the client says is read first, or the close would be a reset.
                let _ = client.set_read_timeout(Some(Duration::from_millis(300)));
                let _ = client.read(&mut [0; 65536]);
                let _ = client.write_all(bytes);
                let _ = client.shutdown(Shutdown::Write);
                swallow(&mut client);
            }
            Fault::Never | Fault::CutAfter(_) | Fault::StallAfter(_) => self.join(client),
        }
    }

    fn join(&self, client: UnixStream) {
        let Ok(daemon) = UnixStream::connect(&self.daemon) else { return };
        self.hold(&client);
        self.hold(&daemon);
        if self.over.load(Ordering::SeqCst) {
            return self.cut();
        }
        let connection = {
            let mut sent = self.sent.lock().expect("no pump panics");
            sent.push(Vec::new());
            sent.len() - 1
        };
        thread::scope(|scope| {
            scope.spawn(|| self.pump(&client, &daemon, Some(connection)));
            self.pump(&daemon, &client, None);
        });
    }

    /// Passes bytes on until they end or the fault comes; `connection` is the program's, and
    /// absent where the daemon is the one that sends.
    fn pump(&self, mut from: &UnixStream, mut to: &UnixStream, connection: Option<usize>) {
        let from_daemon = connection.is_none();
        let limit = match self.fault {
            Fault::CutAfter(limit) | Fault::StallAfter(limit) => limit,
            _ => u64::MAX,
        };
        let mut buffer = vec![0; 16384];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if let Some(connection) = connection {
                self.sent.lock().expect("no pump panics")[connection].extend_from_slice(&buffer[..count]);
            }
            let mut passing = count as u64;
            if from_daemon {
                let before = self.from_daemon.fetch_add(passing, Ordering::SeqCst);
                passing = passing.min(limit.saturating_sub(before));
            }
            let stalled = self.from_daemon.load(Ordering::SeqCst) > limit;
            if stalled && matches!(self.fault, Fault::StallAfter(_)) && !from_daemon {
                continue;
            }
            if to.write_all(&buffer[..usize::try_from(passing).expect("at most the buffer")]).is_err() {
                break;
            }
            if stalled && matches!(self.fault, Fault::CutAfter(_)) {
                return self.cut();
            }
        }
        if !matches!(self.fault, Fault::StallAfter(_)) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn hold(&self, stream: &UnixStream) {
        if let Ok(copy) = stream.try_clone() {
            self.open.lock().expect("no holder panics").push(copy);
        }
    }

    fn cut(&self) {
        self.over.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("no holder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        // The thread that accepts ends with the process: a connection is all that would wake it.
        let _ = std::fs::remove_file(Path::new(&self.socket()));
    }
}

fn swallow(client: &mut UnixStream) {
    let _ = client.set_read_timeout(None);
    while let Ok(1..) = client.read(&mut [0; 4096]) {}
}

/// The bodies of the requests in an HTTP/2 client's bytes (RFC 9113, section 4.1), by stream; none
/// where the bytes are not such a client's.
fn bodies(sent: &[u8]) -> Vec<Vec<u8>> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const DATA: u8 = 0;
    const PADDED: u8 = 8;
    let Some(start) = sent.windows(PREFACE.len()).position(|window| window == PREFACE) else { return Vec::new() };
    let (mut bodies, mut rest) = (BTreeMap::<u32, Vec<u8>>::new(), &sent[start + PREFACE.len()..]);
    while let Some((&[a, b, c, kind, flags, s0, s1, s2, s3], after)) = rest.split_first_chunk() {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        if kind == DATA {
            assert_eq!(flags & PADDED, 0, "padded frames are not read here");
            bodies.entry(u32::from_be_bytes([s0, s1, s2, s3])).or_default().extend_from_slice(payload);
        }
        rest = after;
    }
    bodies.into_values().collect()
}
