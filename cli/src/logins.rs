//! The registry logins of the user, from docker's and podman's files.

use std::cell::RefCell;

use roche_engine::Error;
use roche_engine::oci::credentials::{CredentialFiles, DockerCredentials};

use crate::environment::Environment;

/// Makes the source of credentials that jobs and registries are given.
pub(crate) fn credentials(environment: &Environment) -> DockerCredentials {
    DockerCredentials::new(CredentialFiles::locate(|name| environment.variables.get(name).map(Into::into)))
}

/// The logins that a default tag is made of: looked up beforehand, told where they are needed.
pub(crate) struct Logins(RefCell<Option<Listed>>);

/// Hosts and users, or why they could not be read.
type Listed = Result<Vec<(String, String)>, Error>;

impl Logins {
    /// Looks host and user of every login up, where a tag is going to be made of them.
    pub(crate) async fn look_up(needed: bool, environment: &Environment) -> Self {
        let logins = if needed { credentials(environment).logins().await } else { Ok(Vec::new()) };
        Self(RefCell::new(Some(logins.map(|logins| logins.into_iter().map(|login| (login.host, login.username)).collect()))))
    }

    /// Tells them, once.
    pub(crate) fn tell(&self) -> Listed {
        self.0.borrow_mut().take().unwrap_or_else(|| Ok(Vec::new()))
    }
}
