//! The helpers: programs named `docker-credential-<name>`.
//!
//! Invariant: a helper gets a bounded time and a bounded answer, and nothing that it writes is
//! ever quoted.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::Instant;

use super::{Credential, split_key};
use crate::Error;

/// The longest answer.
const MAX_ANSWER: u64 = 1 << 20;

/// A helper that a file names.
pub(super) struct Helper<'a> {
    /// What follows `docker-credential-`.
    pub(super) name: &'a str,
    /// The file that names it.
    pub(super) file: &'a Path,
    /// The folders to look in, as `PATH` has them.
    pub(super) search: Option<&'a OsStr>,
    /// When it is killed.
    pub(super) deadline: Instant,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default, rename = "ServerURL")]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// A process group that is killed when this is dropped, unless it was let go.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.0.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            // Gone already is as good.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(unix)]
fn is_program(place: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    place.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(place: &Path) -> bool {
    place.is_file()
}

impl Helper<'_> {
    /// Asks for the credential of `server`.
    pub(super) async fn find(&self, server: &str) -> Result<Option<Credential>, Error> {
        let Some(text) = self.run("get", server, &["credentials not found"]).await? else { return Ok(None) };
        let answer: Answer = serde_json::from_slice(&text).map_err(|_| self.not_json("get"))?;
        if !answer.server_url.is_empty() && split_key(&answer.server_url).0 != split_key(server).0 {
            return Err(self.fault(&format!("answered for another host than {server}; log in to {server} anew")));
        }
        let username = if answer.username == "<token>" { String::new() } else { answer.username };
        Ok((!answer.secret.is_empty()).then_some(Credential { username, secret: answer.secret }))
    }

    /// Asks for the users by host; keys that are namespaces are left out.
    pub(super) async fn list(&self) -> Result<Vec<(String, String)>, Error> {
        // Helpers of clouds often have no list.
        let unknown = ["credentials not found", "not implemented", "not supported", "unsupported"];
        let Some(text) = self.run("list", "", &unknown).await? else { return Ok(Vec::new()) };
        let users: Option<BTreeMap<String, String>> = serde_json::from_slice(&text).map_err(|_| self.not_json("list"))?;
        let is_host = |host: &str| host.contains(['.', ':']) || host == "localhost";
        if users.iter().flatten().any(|(key, _)| !is_host(&split_key(key).0)) {
            return Err(self.not_json("list"));
        }
        let users = users.into_iter().flatten();
        Ok(users.filter_map(|(key, user)| matches!(split_key(&key).1, "").then(|| (split_key(&key).0, user))).collect())
    }

    /// Runs the helper; none where it fails with one of the `known` messages.
    async fn run(&self, action: &str, input: &str, known: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        let program = self.program()?;
        let mut command = Command::new(program);
        command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        if let Some(search) = self.search {
            command.env("PATH", search);
        }
        let mut child = command.spawn().map_err(|error| self.fault(&format!("cannot be run: {error}; reinstall it")))?;
        // What the helper started goes with it, where it has to be killed.
        let mut group = Group(child.id());
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = stdin.zip(stdout).expect("both were asked for");
        let talk = async {
            // A helper may answer without reading.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            let mut answer = Vec::new();
            let reads = stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer).await;
            if answer.len() as u64 > MAX_ANSWER {
                return Err(self.fault("answered with more than 1 MiB; reinstall it"));
            }
            let status = match reads {
                Ok(_) => child.wait().await,
                Err(error) => Err(error),
            };
            Ok((status.map_err(|error| self.fault(&format!("broke off: {error}")))?, answer))
        };
        // Dropping the group kills it.
        let late = || self.fault("did not answer within 10 s and was killed; see what it waits for");
        let (status, answer) = tokio::time::timeout_at(self.deadline, talk).await.map_err(|_| late())??;
        group.0 = None;
        if status.success() {
            return Ok(Some(answer));
        }
        let message = String::from_utf8_lossy(&answer).to_lowercase();
        if known.iter().any(|text| message.contains(text)) {
            return Ok(None);
        }
        Err(self.fault(&format!("failed ({status}); see what is wrong with: docker-credential-{} {action}", self.name)))
    }

    /// Finds the program. Relative folders are passed over: what runs must not depend on where.
    fn program(&self) -> Result<PathBuf, Error> {
        let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
        if !self.name.bytes().all(legal) || self.name.starts_with('-') {
            let name: String = self.name.chars().take(100).collect();
            let file = self.file.display();
            return Err(Error::Credentials(format!("{file}: {name:?} is not a helper's name; repair credsStore or credHelpers")));
        }
        let file_name = format!("docker-credential-{}", self.name);
        let folders = self.search.map(std::env::split_paths).into_iter().flatten();
        let places = folders.filter(|folder| folder.is_absolute()).map(|folder| folder.join(&file_name));
        { places }
            .find(|place| is_program(place))
            .ok_or_else(|| self.fault("is not in PATH; install it, or take it out of that file"))
    }

    fn not_json(&self, action: &str) -> Error {
        self.fault(&format!("answered {action} with what is not JSON of the helpers' protocol; reinstall it"))
    }

    fn fault(&self, what: &str) -> Error {
        Error::Credentials(format!("docker-credential-{}, named by {}, {what}", self.name, self.file.display()))
    }
}
