//! A registry that asks for a password, over the images of the tests' own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Roche, request};

/// How long it may take until it answers; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
const USER: &str = "reader";
const PASSWORD: &str = "a pass:word";
/// Of bcrypt: the one kind of hash that it reads.
const SALT: &str = "$2y$05$abcdefghijklmnopqrstuu";

/// A registry; it ends with the value.
pub(crate) struct PrivateRegistry {
    /// Its `HOST:PORT`, or the name that it has a certificate for.
    pub(crate) host: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl PrivateRegistry {
    /// Starts one over the same files as the registry of the tests has, so that it has the same images.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let registry = Self::serve(None);
        let anonymous = request("GET", &registry.host, "/v2/", &[]).expect("the registry answers");
        assert_eq!(anonymous.status, 401, "it asks for no password");
        registry
    }

    /// The same with TLS, as `name`, which nothing resolves.
    #[track_caller]
    pub(crate) fn start_as(name: &str) -> Self {
        Self::serve(Some(name))
    }

    #[track_caller]
    fn serve(name: Option<&str>) -> Self {
        let state = std::env::var("ROCHE_TEST_STATE").expect("ROCHE_TEST_STATE is set");
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("htpasswd"), format!("{USER}:{}\n", hash())).expect("the passwords are written");
        let tls = name.map(|name| {
            certify(&folder, name);
            format!(", tls: {{ certificate: {}, key: {} }}", path("ca.pem").display(), path("key.pem").display())
        });
        let config = format!(
            "version: 0.1\nlog: {{ level: info, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {state}/registry/data }} }}\n\
             auth: {{ htpasswd: {{ realm: tests, path: {} }} }}\nhttp: {{ addr: 127.0.0.1:0{} }}\n",
            path("htpasswd").display(),
            tls.unwrap_or_default()
        );
        fs::write(path("config.yml"), config).expect("the configuration is written");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("config.yml")).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let log = fs::File::create(path("log")).expect("the log is made");
        command.stdout(log.try_clone().expect("the log is shared")).stderr(log);
        let mut child = command.spawn().expect("docker-registry starts");
        let address = listens(&mut child, &folder);
        Self { host: name.map_or_else(|| address.to_string(), str::to_owned), address, child, folder }
    }

    /// Returns the certificate of the authority that vouches for its name.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// An image of the tests' as this registry names it.
    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.host)
    }

    /// Logs a call in, as `docker login` does: in its own home's `config.json`.
    pub(crate) fn logged_in(&self, call: Roche) -> Roche {
        self.logged_in_by(call, PASSWORD)
    }

    /// The same with another password.
    pub(crate) fn logged_in_by(&self, call: Roche, password: &str) -> Roche {
        use base64::Engine as _;
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
        let config = serde_json::json!({"auths": {(self.host.as_str()): {"auth": auth}}});
        call.home_file(".docker/config.json", &config.to_string())
    }
}

impl Drop for PrivateRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it says which port it has.
#[track_caller]
fn listens(child: &mut Child, folder: &TempDir) -> SocketAddr {
    let log = folder.path().join("log");
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(&log).expect("the log is read");
        if let Some((_, rest)) = text.split_once("listening on ") {
            let end = rest.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
            if let Some(end) = end {
                return rest[..end].parse().expect("an address");
            }
        }
        let ended = child.try_wait().expect("the child is ours");
        assert!(ended.is_none() && started.elapsed() < PATIENCE, "docker-registry does not listen ({ended:?}):\n{text}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Writes a key and a certificate for `name`, which is its own authority.
#[track_caller]
fn certify(folder: &TempDir, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    command.args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    let output = command.args(["-keyout", "key.pem", "-out", "ca.pem"]).current_dir(folder).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The password as the registry's file has it, by the C library that Debian's perl has.
fn hash() -> String {
    let output = Command::new("perl").args(["-e", "print crypt($ARGV[0], $ARGV[1])", PASSWORD, SALT]).output();
    let hash = String::from_utf8(output.expect("perl runs").stdout).expect("a hash is text");
    assert!(hash.starts_with(SALT), "crypt gives {hash:?}");
    hash
}
