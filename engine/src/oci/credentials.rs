//! Registry credentials: where they come from and whom they are given to.
//!
//! Invariant: a credential is only ever returned for the host that it is stored under, and no
//! secret enters an error or a `Debug` text.
//!
//! For a host the first that has something is taken: docker's `config.json`, by its `credHelpers`,
//! its `credsStore` and its `auths` in this order, then podman's `auth.json` files likewise. A
//! helper that fails is an error, never a reason to look on. The formats are those of docker's
//! `cli/config`, of `docker-credential-helpers`, and of `containers-auth.json(5)`.

mod config;
mod helper;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::Error;
use config::Config;
use helper::Helper;

/// How docker's files and helpers call Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// How long the helpers of one question may take together.
const HELPER_TIME: Duration = Duration::from_secs(10);
/// Users that stand for a token and are nobody's name on a registry.
const TOKEN_USERS: [&str; 8] = [
    "<token>",
    "00000000-0000-0000-0000-000000000000",
    "AWS",
    "_dcgcr_2_0_0_token",
    "_json_key",
    "_json_key_base64",
    "_token",
    "oauth2accesstoken",
];

/// What a registry asks for.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user; empty where [`Credential::secret`] is an identity token.
    pub username: String,
    /// The password, or the identity token.
    pub secret: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Looks credentials up.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns what may be given to `host` (`host[:port]`; Docker Hub is `docker.io`), if anything.
    async fn find(&self, host: &str) -> Result<Option<Credential>, Error>;

    /// Returns what may be given to `host` for the repository `path`: stores that know namespaces
    /// prefer the longest that holds the path. The host's, where a store knows none.
    async fn find_for(&self, host: &str, path: &str) -> Result<Option<Credential>, Error> {
        let _ = path;
        self.find(host).await
    }
}

/// Where docker and podman keep credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialFiles {
    /// Docker's `config.json`.
    pub docker: Option<PathBuf>,
    /// Podman's `auth.json` files, the first first.
    pub podman: Vec<PathBuf>,
    /// The folders that helpers are looked for in, as `PATH` has them.
    pub search: Option<OsString>,
}

impl CredentialFiles {
    /// Finds the files' places from environment variables, which `variable` looks up: `HOME`,
    /// `PATH`, `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR` and `XDG_CONFIG_HOME`, each
    /// of which may be missing. No file is touched.
    pub fn locate(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let folder = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder("HOME");
        let docker = folder("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let config = folder("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let podman = match folder("REGISTRY_AUTH_FILE") {
            Some(file) => vec![file],
            None => [folder("XDG_RUNTIME_DIR"), config].into_iter().flatten().map(|f| f.join("containers/auth.json")).collect(),
        };
        Self { docker: docker.map(|folder| folder.join("config.json")), podman, search: variable("PATH") }
    }
}

/// A host that somebody is logged in to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Login {
    /// The host, as [`Reference::host`](super::Reference::host) has it.
    pub host: String,
    /// The user's name there.
    pub username: String,
}

/// The credentials that docker and podman hold. Files are read anew for every question.
#[derive(Clone, Debug)]
pub struct DockerCredentials {
    files: CredentialFiles,
    helper_time: Duration,
}

impl DockerCredentials {
    /// Looks in these files.
    pub fn new(files: CredentialFiles) -> Self {
        Self { files, helper_time: HELPER_TIME }
    }

    /// Returns the hosts that somebody is logged in to by name, sorted, each once. Logins with a
    /// mere token are left out. Helpers are asked for their list, never for a secret.
    pub async fn logins(&self) -> Result<Vec<Login>, Error> {
        let deadline = Instant::now() + self.helper_time;
        let mut logins = BTreeMap::new();
        for file in self.files() {
            let config = Config::read(file).await?;
            let mut lists = BTreeMap::new();
            let helpers = config.helpers();
            for name in helpers.values().copied().chain(config.store()) {
                if !lists.contains_key(name) {
                    lists.insert(name, self.helper(name, file, deadline).list().await?);
                }
            }
            // A host's own helper stands for the host even where it knows no user there.
            let own = helpers.iter().flat_map(|(host, name)| lists[name].iter().filter(move |(listed, _)| listed == host));
            let stored = config.store().into_iter().flat_map(|name| &lists[name]);
            let stored = stored.filter(|(host, _)| !helpers.contains_key(host));
            for (host, username) in own.chain(stored).cloned().chain(config.users()?) {
                if !username.is_empty() && !TOKEN_USERS.contains(&username.as_str()) {
                    logins.entry(host).or_insert(username);
                }
            }
        }
        Ok(logins.into_iter().map(|(host, username)| Login { host, username }).collect())
    }

    async fn look(&self, host: &str, path: Option<&str>) -> Result<Option<Credential>, Error> {
        let deadline = Instant::now() + self.helper_time;
        let host = canonical(host);
        for file in self.files() {
            let config = Config::read(file).await?;
            if let Some(name) = config.helper_for(&host, path) {
                let server = if host == "docker.io" { DOCKER_HUB } else { &host };
                if let Some(found) = self.helper(name, file, deadline).find(server).await? {
                    return Ok(Some(found));
                }
            }
            if let Some(found) = config.auth_for(&host, path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.docker.iter().chain(&self.files.podman).map(PathBuf::as_path)
    }

    fn helper<'a>(&'a self, name: &'a str, file: &'a Path, deadline: Instant) -> Helper<'a> {
        Helper { name, file, search: self.files.search.as_deref(), deadline }
    }
}

#[async_trait]
impl Credentials for DockerCredentials {
    async fn find(&self, host: &str) -> Result<Option<Credential>, Error> {
        self.look(host, None).await
    }

    async fn find_for(&self, host: &str, path: &str) -> Result<Option<Credential>, Error> {
        self.look(host, Some(path)).await
    }
}

/// Returns a host as names have it: Docker Hub's several names are `docker.io`.
fn canonical(host: &str) -> String {
    match host.to_ascii_lowercase() {
        hub if matches!(hub.as_str(), "index.docker.io" | "registry-1.docker.io") => "docker.io".to_owned(),
        host => host,
    }
}

/// Splits a key of a store (`https://index.docker.io/v1/`, `quay.io`, `quay.io/team`) into host and
/// namespace; the paths of the registry protocols are no namespaces.
fn split_key(key: &str) -> (String, &str) {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.trim_matches('/');
    (canonical(host), if matches!(path, "v1" | "v2") { "" } else { path })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A home with a docker config, a podman file and helpers that are shell scripts.
    struct Home(tempfile::TempDir);

    impl Home {
        fn new(docker: &str, podman: &str) -> Self {
            let home = Self(tempfile::tempdir().expect("a folder"));
            for (folder, name, text) in [(".docker", "config.json", docker), (".config/containers", "auth.json", podman)] {
                fs::create_dir_all(home.0.path().join(folder)).expect("a folder");
                if !text.is_empty() {
                    fs::write(home.0.path().join(folder).join(name), text).expect("a file");
                }
            }
            home
        }

        fn helper(self, name: &str, script: &str) -> Self {
            let draft = self.0.path().join("draft");
            fs::write(&draft, format!("#!/bin/sh\n{script}\n")).expect("a file");
            // Another process writes the file that is run: none of ours can hold it open for
            // writing while it is executed.
            let place = self.0.path().join(format!("docker-credential-{name}"));
            let done = std::process::Command::new("install").args(["-m", "755"]).arg(draft).arg(place).status().expect("install");
            assert!(done.success());
            self
        }

        fn credentials(&self) -> DockerCredentials {
            let files = CredentialFiles::locate(|name| match name {
                "HOME" => Some(self.0.path().into()),
                "PATH" => Some(format!("relative::{}:/usr/bin:/bin", self.0.path().display()).into()),
                _ => None,
            });
            DockerCredentials { files, helper_time: Duration::from_millis(1500) }
        }

        async fn find(&self, host: &str) -> String {
            text(self.credentials().find(host).await)
        }
    }

    fn text(found: Result<Option<Credential>, Error>) -> String {
        match found {
            Ok(Some(credential)) => format!("{}:{}", credential.username, credential.secret),
            Ok(None) => "none".to_owned(),
            Err(error) => format!("error {error}"),
        }
    }

    /// `one:1` and `two:2` in base64.
    const ONE: &str = r#"{"auth": "b25lOjE="}"#;
    const TWO: &str = r#"{"auth": "dHdvOjI="}"#;

    #[tokio::test]
    async fn missing_and_empty_files_hold_nothing() {
        assert_eq!(Home::new("", "").find("quay.io").await, "none");
        assert_eq!(Home::new(" \n", "{}").find("quay.io").await, "none");
        assert_eq!(Home::new(r#"{"auths": null, "credsStore": ""}"#, "").find("quay.io").await, "none");
        let nowhere = CredentialFiles::locate(|_| None);
        assert_eq!(nowhere, CredentialFiles::default());
        assert_eq!(text(DockerCredentials::new(nowhere).find("quay.io").await), "none");
    }

    #[test]
    fn the_environment_says_where_files_are() {
        let files = CredentialFiles::locate(|name| match name {
            "HOME" => Some("/home/me".into()),
            "DOCKER_CONFIG" => Some("/etc/docker".into()),
            "XDG_RUNTIME_DIR" => Some("/run/user/1".into()),
            "REGISTRY_AUTH_FILE" => Some("".into()),
            _ => None,
        });
        assert_eq!(files.docker, Some("/etc/docker/config.json".into()));
        assert_eq!(
            files.podman,
            ["/run/user/1/containers/auth.json", "/home/me/.config/containers/auth.json"].map(PathBuf::from)
        );
    }

    #[tokio::test]
    async fn auths_are_found_by_host_alone() {
        let home = Home::new(
            &format!(
                r#"{{"auths": {{"https://index.docker.io/v1/": {ONE}, "http://quay.io/v2/": {TWO}, "localhost:5000": {TWO},
                "plain.io": {{"username": "u", "password": "p:q"}}, "token.io": {{"auth": "b25lOjE=", "identitytoken": "T"}},
                "empty.io": {{}}, "bad.io": {{"auth": "aHVudGVyMg=="}}}}}}"#
            ),
            &format!(r#"{{"auths": {{"empty.io": {ONE}, "quay.io": {ONE}, "ns.io/team/app": {ONE}, "ns.io/team": {TWO}}}}}"#),
        );
        for (host, expected) in [
            ("docker.io", "one:1"),
            ("registry-1.docker.io", "one:1"),
            ("quay.io", "two:2"),
            ("localhost:5000", "two:2"),
            ("localhost", "none"),
            ("localhost:5001", "none"),
            ("evil.quay.io", "none"),
            ("quay.io.evil", "none"),
            ("lain.io", "none"),
            ("plain.io", "u:p:q"),
            ("token.io", ":T"),
            ("empty.io", "one:1"),
            ("ns.io", "none"),
        ] {
            assert_eq!(home.find(host).await, expected, "{host}");
        }
        for (path, expected) in [("team/app", "one:1"), ("team/app/x", "one:1"), ("team/apple", "two:2"), ("teams", "none")] {
            assert_eq!(text(home.credentials().find_for("ns.io", path).await), expected, "{path}");
        }
        let error = home.find("bad.io").await;
        assert!(error.contains("bad.io") && error.contains("docker login bad.io"), "{error}");
        assert!(!error.contains("hunter2") && !error.contains("aHVudGVyMg"), "{error}");
    }

    #[tokio::test]
    async fn helpers_come_before_files() {
        let home = Home::new(
            &format!(
                r#"{{"credsStore": "store", "credHelpers": {{"own.io": "own", "off.io": ""}},
                "auths": {{"store.io": {ONE}, "own.io": {ONE}, "off.io": {ONE}, "rest.io": {ONE}}}}}"#
            ),
            "",
        )
        .helper("own", r#"[ "$1" = get ] && read -r host; echo "{\"ServerURL\": \"$host\", \"Username\": \"<token>\", \"Secret\": \"own\"}""#)
        .helper(
            "store",
            r#"host=$(cat); case $host in store.io | https://index.docker.io/v1/) echo "{\"Username\": \"$host\", \"Secret\": \"s\"}";;
            *) echo "credentials not found in native keychain"; exit 1;; esac"#,
        );
        assert_eq!(home.find("own.io").await, ":own");
        assert_eq!(home.find("store.io").await, "store.io:s");
        assert_eq!(home.find("docker.io").await, "https://index.docker.io/v1/:s");
        assert_eq!(home.find("off.io").await, "one:1");
        assert_eq!(home.find("rest.io").await, "one:1");
        assert_eq!(home.find("other.io").await, "none");
    }

    #[tokio::test]
    async fn helper_faults_are_errors_without_secrets() {
        for (script, expected) in [
            ("sleep 30", "did not answer within"),
            ("sleep 30 & echo", "did not answer within"),
            ("cat /dev/zero", "more than 1 MiB"),
            ("echo '{\"Username\": hunter2'", "is not JSON"),
            ("echo '{\"Username\": \"u\", \"Secret\": [\"hunter2\"]}'", "is not JSON"),
            ("echo '{\"Username\": \"u\", \"Secret\": \"hunter2\"}'; exit 3", "exit status: 3"),
            ("echo '{\"ServerURL\": \"other.io\", \"Username\": \"u\", \"Secret\": \"hunter2\"}'", "answered for another host"),
        ] {
            let home = Home::new(&format!(r#"{{"credsStore": "x", "auths": {{"h.io": {ONE}}}}}"#), "").helper("x", script);
            let begun = std::time::Instant::now();
            let error = home.find("h.io").await;
            assert!(error.starts_with("error credentials: docker-credential-x"), "{error}");
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
        }
        for (name, expected) in [("gone", "is not in PATH"), ("../x", "not a helper's name"), ("-x", "not a helper's name")] {
            let error = Home::new(&format!(r#"{{"credsStore": "{name}"}}"#), "").find("h.io").await;
            assert!(error.contains(expected) && error.contains("config.json"), "{error}");
        }
    }

    #[tokio::test]
    async fn malformed_files_are_named_with_line_and_column() {
        for text in ["{\n  \"auths\": {]", "{\n \"auths\": \"hunter2\"}", "{\n\"auths\": {\"h.io\": \"hunter2\"}}", "\n[1"] {
            let error = Home::new(text, "").find("h.io").await;
            assert!(error.contains("config.json:2:") && !error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn logins_are_users_by_host() {
        let home = Home::new(
            &format!(
                r#"{{"credsStore": "store", "credHelpers": {{"own.io": "own"}},
                "auths": {{"store.io": {ONE}, "z.io": {ONE}, "aws.io": {{"auth": "QVdTOjE="}}, "n.io/team": {ONE}}}}}"#
            ),
            &format!(r#"{{"auths": {{"a.io": {TWO}, "z.io": {TWO}}}}}"#),
        )
        .helper("own", r#"[ "$1" = list ] && echo '{"own.io": "me", "store.io": "no"}'"#)
        .helper(
            "store",
            r#"[ "$1" = list ] && echo '{"https://index.docker.io/v1/": "hub", "https://index.docker.io/v1/access-token": "x",
            "store.io": "user", "own.io": "no", "t.io": "<token>"}'"#,
        );
        let logins = home.credentials().logins().await.expect("lists");
        let logins: Vec<String> = logins.into_iter().map(|login| format!("{}={}", login.host, login.username)).collect();
        assert_eq!(logins, ["a.io=two", "docker.io=hub", "own.io=me", "store.io=user", "z.io=one"]);
    }

    #[test]
    fn debug_hides_the_secret() {
        let credential = Credential { username: "me".to_owned(), secret: "hunter2".to_owned() };
        assert!(!format!("{credential:?}").contains("hunter2"));
    }
}
