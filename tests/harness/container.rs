//! A running container that serves HTTP.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Response, request};
use super::{Daemon, unique};

/// How long a service may take until it answers; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container; it is removed with the value.
pub(crate) struct Container {
    name: String,
    daemon: Daemon,
}

impl Container {
    /// Starts an image; `args` are `docker run`'s.
    #[track_caller]
    pub(super) fn start(daemon: &Daemon, image: &str, args: &[&str]) -> Self {
        let container = Self { name: format!("roche-{}", unique()), daemon: daemon.clone() };
        let mut line = vec!["run", "--detach", "--name", &container.name];
        line.extend(args);
        line.push(image);
        daemon.run(line);
        container
    }

    /// Asks for a path on port 8080, as soon as the service listens.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Response {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let address = self.daemon.run(["inspect", "--format", "{{.NetworkSettings.IPAddress}}", &self.name]);
            let error = match request("GET", &format!("{address}:8080"), path, &[]) {
                Ok(response) => return response,
                Err(error) => error,
            };
            let state = self.daemon.run(["inspect", "--format", "{{.State.Status}}", &self.name]);
            if state == "exited" || Instant::now() > deadline {
                panic!("the container is {state} and GET {path} gives: {error}\n{}", self.story());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the container wrote, for a message.
    fn story(&self) -> String {
        let mut text = String::from("its log:\n");
        if let Ok(output) = self.daemon.docker().args(["logs", &self.name]).output() {
            let _ = write!(text, "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        text
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.daemon.docker().args(["rm", "--force", &self.name]).output();
    }
}
