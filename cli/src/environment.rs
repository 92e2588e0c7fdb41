//! The surroundings of the process, read once: variables, folders, terminal.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use crate::error::{Exit, Failure};

/// The variables that are read, here or in the other crates; no other is kept.
const READ: [&str; 34] = [
    "BUILDKIT_HOST",
    "BUILDKIT_PROGRESS",
    "BUILDX_BUILDER",
    "BUILDX_CONFIG",
    "CARGO_HOME",
    "CLICOLOR_FORCE",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS_VERIFY",
    "DOCKER_USERNAME",
    "HOME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_COLOR",
    "NO_PROXY",
    "PATH",
    "REGISTRY_AUTH_FILE",
    "ROCHE_KEEP_STORAGE",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "SOURCE_DATE_EPOCH",
    "TERM",
    "USERPROFILE",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "release_build_image",
    "runtime_image",
];

/// What the process finds around it.
#[derive(Clone)]
pub(crate) struct Environment {
    /// The variables of [`READ`] that are set.
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
        let folder = std::env::current_dir().map_err(|error| {
            Failure::say(Exit::Project, format!("the current folder cannot be read: {error}")).hint("cd to a folder that exists")
        })?;
        Ok(Self {
            variables: kept(std::env::vars_os())?,
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

    /// Returns the folder in which results are kept between builds.
    #[cfg(target_os = "linux")]
    pub(crate) fn cache(&self) -> Result<PathBuf, Failure> {
        // The XDG base directory specification: a relative path is to be ignored.
        let xdg = self.variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let caches = xdg.or_else(|| self.home().map(|home| home.join(".cache")));
        caches.map(|caches| caches.join("roche")).ok_or_else(|| {
            Failure::say(Exit::Configuration, "there is no folder for the cache: neither HOME nor XDG_CACHE_HOME is set")
                .hint("set one of them: export XDG_CACHE_HOME=/var/cache")
        })
    }

    /// Returns the folder of what is remembered of releases, where there is a place for it: no home is made for its sake.
    pub(crate) fn state(&self) -> Option<PathBuf> {
        let xdg = self.variable("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let states = xdg.or_else(|| self.home().filter(|home| home.is_dir()).map(|home| home.join(".local/state")));
        states.map(|states| states.join("roche")).filter(|folder| folder.is_absolute())
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

/// Keeps the variables that are read. One that is not UTF-8 is not taken for one that is not set.
fn kept(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<BTreeMap<String, String>, Failure> {
    let read = variables.filter_map(|(name, value)| Some((*READ.iter().find(|read| name == **read)?, value)));
    read.map(|(name, value)| match value.into_string() {
        Ok(value) => Ok((name.to_owned(), value)),
        Err(_) => Err(Failure::say(Exit::Usage, format!("the variable {name} is not UTF-8"))
            .hint(format!("unset {name}, or set it to UTF-8"))),
    })
    .collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    #[test]
    fn a_variable_that_is_read_and_is_not_utf8_is_refused_by_name() {
        let bytes = || OsString::from_vec(b"\xff".to_vec());
        let unread = [("OTHER".into(), bytes()), (bytes(), "x".into()), ("runtime_image".into(), "i".into())];
        assert_eq!(kept(unread.into_iter()).unwrap(), BTreeMap::from([("runtime_image".to_owned(), "i".to_owned())]));
        for name in READ {
            let failure = kept([(name.into(), bytes())].into_iter()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.render().contains(&format!("{name} is not UTF-8")), "{}", failure.render());
        }
    }
}
