//! What is said when something fails, and with which exit code: one table.

use std::fmt::Write as _;

use roche_engine::{Digest, Error as EngineError};
use roche_frontend::vendor::VendorError;
use roche_frontend::{PlanError, ProjectError, ReleaseError};

use crate::text;

/// The exit codes, as `roche --help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Build = 1,
    Usage = 2,
    Project = 3,
    Configuration = 4,
    Unreachable = 5,
    Daemon = 6,
    Registry = 8,
    Integrity = 9,
    Resource = 10,
    Policy = 11,
    Transient = 75,
    Interrupted = 130,
    Terminated = 143,
}

impl Exit {
    /// Says what helps against every failure of a kind; failures that know better say that.
    fn remedy(self) -> &'static str {
        match self {
            Self::Build => "correct what the step complains of; --progress plain shows all that it wrote",
            Self::Usage => "roche release --help lists what can be said",
            Self::Project => {
                "a project is a functions.rs, or src/functions.rs, with `pub fn handler() -> tide::Server<()>`; roche init writes one"
            }
            Self::Configuration => "correct the file that is named, or remove it",
            Self::Unreachable => {
                "start a daemon (sudo systemctl start docker), or name one: --addr unix:///run/buildkit/buildkitd.sock"
            }
            Self::Daemon => "run the same command again, what was finished is cached; the daemon's own log says why it failed",
            Self::Registry => "check the name of the image, and that you are logged in: docker login REGISTRY",
            Self::Integrity => "run the same command again; if it says the same, what was fetched is not what its name promises",
            Self::Resource => "make room, or raise the limit that is named, and run the same command again",
            Self::Policy => "release without the file that is named",
            Self::Transient => "run the same command again",
            Self::Interrupted | Self::Terminated => "run the same command again: what was finished is cached",
        }
    }
}

/// What helps against every failure of the cache.
const ANOTHER_CACHE: &str = "keep the cache in another folder: export XDG_CACHE_HOME=FOLDER";

/// A failure as the user sees it: one line, what caused it, and what to do.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    /// The vertex that failed, where a step did and the solver named it.
    pub(crate) vertex: Option<Digest>,
}

impl Failure {
    /// Makes a failure of an error and the errors that caused it.
    pub(crate) fn new(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut causes = Vec::new();
        let mut said = error.to_string();
        let message = said.clone();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Errors that quote their source would say it twice.
            if !said.contains(&text) {
                causes.push(text.clone());
            }
            said = text;
            source = cause.source();
        }
        Self { exit, message, causes, hints: Vec::new(), vertex: None }
    }

    /// Makes a failure of a sentence.
    pub(crate) fn say(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hints: Vec::new(), vertex: None }
    }

    /// Makes an exit code alone: what there is to say stands on standard output.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::say(exit, "")
    }

    /// What failed, in a sentence.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What the user can do.
    #[cfg(target_os = "linux")]
    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Adds to the sentence.
    pub(crate) fn adding(mut self, more: &str) -> Self {
        self.message.push_str(more);
        self
    }

    /// Adds what led to the failure.
    pub(crate) fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what the user can do; best a command to paste.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Writes the failure as the lines that go to standard error.
    pub(crate) fn render(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let mut lines = format!("error: {}\n", text::one_line(&self.message));
        for cause in &self.causes {
            let _ = writeln!(lines, "caused by: {}", text::one_line(cause));
        }
        let general = [self.exit.remedy().to_owned()];
        let hints = if self.hints.is_empty() { &general[..] } else { &self.hints };
        for (i, hint) in hints.iter().enumerate() {
            let _ = writeln!(lines, "{}hint: {}", if i == 0 { "\n" } else { "" }, text::one_line(hint));
        }
        lines
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let exit = match &error {
            EngineError::Step { .. } => Exit::Build,
            EngineError::Connect { .. } => Exit::Unreachable,
            EngineError::Daemon { .. } | EngineError::Unsupported { .. } => Exit::Daemon,
            EngineError::Registry { transient: true, .. } => Exit::Transient,
            EngineError::Registry { .. } => Exit::Registry,
            EngineError::Credentials(_) => Exit::Configuration,
            EngineError::Integrity(_) => Exit::Integrity,
            EngineError::Resource(_) => Exit::Resource,
            EngineError::File { source, .. } | EngineError::Output { source, .. } if exhausted(source) => Exit::Resource,
            EngineError::File { .. } => Exit::Project,
            EngineError::Store { source, .. } if exhausted(source) || forbidden(source) => Exit::Resource,
            EngineError::Store { .. } => Exit::Configuration,
            EngineError::Output { .. } => Exit::Usage,
            EngineError::Cancelled => Exit::Interrupted,
            _ => Exit::Daemon,
        };
        let failure = Self::new(exit, &error);
        match &error {
            // What the daemon says beside it is the command, which says less than the step's name.
            EngineError::Step { vertex, name, exit_code, hint, .. } => {
                let said = exit_code.map(|code| Self::say(exit, format!("step {name:?} failed with exit status {code}")));
                let failure = Self { vertex: *vertex, ..said.unwrap_or(failure) };
                hint.iter().fold(failure, |failure, hint| failure.hint(&**hint))
            }
            EngineError::Output { .. } if exit == Exit::Usage => {
                failure.hint("name another place for the output: -o type=oci,dest=FILE, or -o FOLDER")
            }
            EngineError::Store { source, .. } if exhausted(source) => {
                failure.hint("remove what is not in use: roche cache prune").hint(ANOTHER_CACHE)
            }
            EngineError::Store { source, .. } if forbidden(source) => failure.hint(ANOTHER_CACHE),
            EngineError::Store { .. } => failure.hint("drop what is damaged: roche cache verify --repair").hint(ANOTHER_CACHE),
            EngineError::Connect { reason, .. } if reason.to_lowercase().contains("permission denied") => failure
                .hint("add yourself to the group that owns the socket: sudo usermod -aG docker \"$USER\", then log in again"),
            EngineError::Unsupported { .. } => failure.hint("use a newer daemon, or leave out what it lacks"),
            EngineError::Credentials(_) => failure.hint("log in again: docker login REGISTRY"),
            _ => failure,
        }
    }
}

impl From<ProjectError> for Failure {
    fn from(error: ProjectError) -> Self {
        let exit = match &error {
            ProjectError::TooLarge { .. } => Exit::Resource,
            ProjectError::Secret { .. } => Exit::Policy,
            ProjectError::Rocherc(_) => Exit::Configuration,
            _ => Exit::Project,
        };
        let failure = Self::new(exit, &error);
        match &error {
            ProjectError::NotFound { .. } => failure.hint("roche init writes a function; or cd to the folder that has one"),
            _ => failure,
        }
    }
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        let exit = match &error {
            ReleaseError::Usage { .. } => Exit::Usage,
            _ => Exit::Configuration,
        };
        let failure = error.hints().iter().fold(Self::new(exit, &error), |failure, hint| failure.hint(hint.as_str()));
        match &error {
            ReleaseError::Logins(_) => failure.hint("name the image yourself: roche release -t NAME"),
            _ => failure,
        }
    }
}

impl From<PlanError> for Failure {
    fn from(error: PlanError) -> Self {
        let exit = if matches!(error, PlanError::Image { .. }) { Exit::Registry } else { Exit::Integrity };
        Self::new(exit, &error)
    }
}

impl From<VendorError> for Failure {
    fn from(error: VendorError) -> Self {
        match &error {
            VendorError::File { source, .. } if exhausted(source) => Self::new(Exit::Resource, &error),
            VendorError::File { .. } => Self::new(Exit::Project, &error),
            _ => Self::new(Exit::Configuration, &error)
                .hint("the crates are fetched by your own cargo: check that `cargo fetch` works in a project of yours"),
        }
    }
}

/// Says whether the disk, a quota or a limit is what an I/O error is about.
pub(crate) fn exhausted(error: &std::io::Error) -> bool {
    EngineError::is_exhausted(error)
}

/// Says whether a file may not be touched: of the cache that is the same as a disk that is read-only.
fn forbidden(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

/// A failure of the folder in which results are kept.
#[cfg(target_os = "linux")]
pub(crate) fn cache(path: &std::path::Path, source: std::io::Error) -> Failure {
    EngineError::Store { path: path.to_owned(), source }.into()
}

/// A failure to write one of the user's files.
pub(crate) fn unwritable(path: &std::path::Path, error: &std::io::Error) -> Failure {
    let exit = if exhausted(error) { Exit::Resource } else { Exit::Usage };
    Failure::say(exit, format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_its_causes_and_its_hints() {
        let failure = Failure::say(Exit::Usage, "bad\u{1b}[2J tag\nsecond").hint("first").hint("second");
        assert_eq!(failure.render(), "error: bad tag; second\n\nhint: first\nhint: second\n");
    }

    #[test]
    fn an_exit_code_alone_says_nothing() {
        assert_eq!(Failure::silent(Exit::Build).render(), "");
    }

    #[test]
    fn a_failure_without_a_hint_of_its_own_still_says_what_helps() {
        assert!(Failure::say(Exit::Daemon, "gone").render().ends_with("failed\n"));
    }

    #[test]
    fn an_output_that_cannot_be_written_is_no_matter_of_the_project() {
        for (kind, exit) in
            [(std::io::ErrorKind::PermissionDenied, Exit::Usage), (std::io::ErrorKind::ReadOnlyFilesystem, Exit::Resource)]
        {
            let failure = Failure::from(EngineError::Output { path: "w.tar".into(), source: kind.into() });
            assert_eq!(failure.exit, exit);
            assert!(failure.render().starts_with("error: w.tar cannot be written: "), "{}", failure.render());
            assert!(!failure.render().contains("functions.rs"), "{}", failure.render());
        }
    }

    #[test]
    fn a_cache_that_cannot_be_used_is_no_matter_of_the_project() {
        use std::io::ErrorKind as Kind;
        let table = [
            (Kind::StorageFull, Exit::Resource, "roche cache prune"),
            (Kind::QuotaExceeded, Exit::Resource, "roche cache prune"),
            (Kind::ReadOnlyFilesystem, Exit::Resource, "XDG_CACHE_HOME"),
            (Kind::PermissionDenied, Exit::Resource, "XDG_CACHE_HOME"),
            (Kind::Other, Exit::Configuration, "roche cache verify"),
        ];
        for (kind, exit, hint) in table {
            let failure = Failure::from(EngineError::Store { path: "/c/index.db".into(), source: kind.into() });
            let said = failure.render();
            assert_eq!(failure.exit, exit, "{said}");
            assert!(said.starts_with("error: the cache: /c/index.db: ") && said.contains(hint), "{said}");
            assert!(said.contains("XDG_CACHE_HOME") && !said.contains("functions.rs"), "{said}");
        }
    }

    #[test]
    fn a_failed_step_is_1_and_a_lost_daemon_6() {
        let vertex = Some(Digest::of(b"compile"));
        for exit_code in [Some(101), None] {
            let (name, reason, hint) = ("compile".to_owned(), "no".into(), Some("get more".into()));
            let step = Failure::from(EngineError::Step { vertex, name, exit_code, reason, hint });
            assert_eq!((step.exit, step.vertex), (Exit::Build, vertex));
            assert!(step.render().ends_with("\nhint: get more\n"), "{}", step.render());
        }
        let lost = EngineError::Daemon { doing: "solving".into(), reason: "closed".into() };
        assert_eq!(Failure::from(lost).exit, Exit::Daemon);
    }
}
