//! The surroundings of the process, read once: variables, folders, terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::error::{Exit, Failure};

/// What the process finds around it.
pub(crate) struct Environment {
    /// Variables whose names and values are UTF-8; no other is of interest here.
    pub(crate) variables: BTreeMap<String, String>,
    /// The current folder.
    pub(crate) folder: PathBuf,
    /// Whether standard error is a terminal.
    pub(crate) stderr_terminal: bool,
    /// Whether standard output is a terminal.
    pub(crate) stdout_terminal: bool,
}

impl Environment {
    /// Reads the surroundings.
    pub(crate) fn read() -> Result<Self, Failure> {
        let variables = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let folder = std::env::current_dir()
            .map_err(|error| Failure::say(Exit::Project, format!("the current folder cannot be read: {error}")).hint("cd to a folder that exists"))?;
        Ok(Self {
            variables: variables.collect(),
            folder,
            stderr_terminal: std::io::stderr().is_terminal(),
            stdout_terminal: std::io::stdout().is_terminal(),
        })
    }

    /// Returns a variable that is set and not empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns the home folder, where there is one.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.variable("HOME").or_else(|| self.variable("USERPROFILE")).map(PathBuf::from)
    }

    /// Says whether standard error takes colours: `NO_COLOR` and `CLICOLOR_FORCE` before what
    /// the terminal says of itself.
    pub(crate) fn colour(&self) -> bool {
        if self.variable("NO_COLOR").is_some() {
            return false;
        }
        if self.variable("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
            return true;
        }
        self.stderr_terminal && self.variable("TERM").is_some_and(|term| term != "dumb")
    }
}
