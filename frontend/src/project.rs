//! The project: a folder with a function file, read once.
//!
//! Invariant: after [`Project::read`] nothing of the user's folder is looked at again; what
//! enters the graph is exactly the bytes that are held here.

mod open;
pub mod rocherc;
pub mod secrets;

use std::io;
use std::path::{Path, PathBuf};

use crate::shown;
use open::{Refusal, read_inside};
use rocherc::{Rocherc, RochercError};

/// The largest file of a project. A definition carries all of them in one message, whose limit is
/// the daemon's own (4 MiB or 16 MiB) and is looked at before sending.
pub const LIMIT_BYTES: u64 = 4 << 20;

/// A function project as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// The project's folder, canonical; the parent where it was read from a folder named `src`.
    pub root: PathBuf,
    /// The function file.
    pub function: SourceFile,
    /// The `lib.rs` beside it, whose tests must pass.
    pub lib: Option<SourceFile>,
    /// What `.rocherc` says.
    pub rocherc: Rocherc,
    /// What the user should know, one line each.
    pub notices: Vec<String>,
}

/// A file of the project.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path relative to the folder that was read, for messages.
    pub path: PathBuf,
    /// Its bytes as they were on disk.
    pub data: Vec<u8>,
}

impl std::fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.data.len())
    }
}

/// Why a project could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectError {
    /// The folder itself cannot be read.
    #[error("the folder {} cannot be read: {source}", shown::path(dir))]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no function file.
    #[error("no function file: neither {} nor {} exists", shown::path(&dir.join("functions.rs")), shown::path(&dir.join("src/functions.rs")))]
    NotFound {
        /// The folder that was looked in.
        dir: PathBuf,
    },
    /// The function file has no content.
    #[error("{} is empty: it must define `pub fn handler() -> tide::Server<()>`", shown::path(path))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It is not a regular file.
    #[error("{} is {kind}, not a file", shown::path(path))]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it is instead, with its article.
        kind: &'static str,
    },
    /// A link leads nowhere.
    #[error("{} is a link that leads nowhere: {source}", shown::path(path))]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A link leads out of the project.
    #[error("{} leads out of the project, to {}; copy the file into the project", shown::path(path), shown::path(target))]
    Outside {
        /// The link.
        path: PathBuf,
        /// Where it leads; it was not read.
        target: PathBuf,
    },
    /// The system does not let it be read.
    #[error("{} cannot be read: {source}", shown::path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was replaced while it was read.
    #[error("{} was replaced while it was read; run the command again", shown::path(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// It has too many bytes (exhausts a limit, unlike the other variants).
    #[error("{} has {size_bytes} bytes, more than the {LIMIT_BYTES} that a release may carry", shown::path(path))]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// It is, or leads to, a file that may hold secrets (a matter of policy).
    #[error(
        "{} leads to {}, which may hold secrets ({reason}) and never enters a release",
        shown::path(path),
        shown::path(target)
    )]
    Secret {
        /// The file that was asked for.
        path: PathBuf,
        /// The file that it leads to, relative to the project.
        target: PathBuf,
        /// What kind of secret.
        reason: &'static str,
    },
    /// `.rocherc` is wrong (a matter of configuration).
    #[error(transparent)]
    Rocherc(#[from] RochercError),
}

impl Project {
    /// Reads the project in `dir`: a project's folder, or its folder `src`.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let dir = tempfile::tempdir()?;
    /// std::fs::write(dir.path().join("functions.rs"), "pub fn handler() -> tide::Server<()> { tide::new() }")?;
    /// let project = roche_frontend::Project::read(dir.path())?;
    /// assert_eq!(project.function.path, std::path::Path::new("functions.rs"));
    /// # Ok(())
    /// # }
    /// ```
    pub fn read(dir: &Path) -> Result<Self, ProjectError> {
        let dir = dir.canonicalize().map_err(|source| ProjectError::Folder { dir: dir.to_owned(), source })?;
        let root = root(&dir);
        let mut notices = Vec::new();
        let place = Path::new("src/functions.rs");
        let (path, function) = match source(&root, &dir, Path::new("functions.rs"))? {
            Some(file) => {
                if dir.join(place).symlink_metadata().is_ok() {
                    notices.push("functions.rs is taken; src/functions.rs is there too and is ignored".to_owned());
                }
                (Path::new("functions.rs"), file)
            }
            None => (place, source(&root, &dir, place)?.ok_or_else(|| ProjectError::NotFound { dir: dir.clone() })?),
        };
        if function.data.is_empty() {
            return Err(ProjectError::Empty { path: function.path });
        }
        let lib = source(&root, &dir, &path.with_file_name("lib.rs"))?;
        let rocherc = Rocherc::read(&root)?;
        notices.extend(rocherc.notices.iter().cloned());
        notices.extend(secrets::left_out(&root));
        Ok(Self { root, function, lib, rocherc, notices })
    }

    /// Returns the name of the project's folder, if it has one that is UTF-8.
    pub fn folder(&self) -> Option<&str> {
        self.root.file_name()?.to_str()
    }
}

/// Returns the project's folder: the parent of a folder `src`, unless that is the whole file
/// system (as where a container has a project at `/src`).
pub fn root(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if dir.file_name().is_some_and(|name| name == "src") && parent.parent().is_some() => parent.to_owned(),
        _ => dir.to_owned(),
    }
}

/// Reads a source file; none where nothing has that name.
fn source(root: &Path, dir: &Path, relative: &Path) -> Result<Option<SourceFile>, ProjectError> {
    let path = relative.to_owned();
    let read = match read_inside(root, &dir.join(relative), LIMIT_BYTES) {
        Ok(read) => read,
        Err(Refusal::Missing) => return Ok(None),
        Err(Refusal::Dangling(source)) => return Err(ProjectError::Dangling { path, source }),
        Err(Refusal::Outside(target)) => return Err(ProjectError::Outside { path, target }),
        Err(Refusal::Kind(kind)) => return Err(ProjectError::Kind { path, kind }),
        Err(Refusal::Unreadable(source)) => return Err(ProjectError::Unreadable { path, source }),
        Err(Refusal::Changed) => return Err(ProjectError::Changed { path }),
        Err(Refusal::TooLarge(size_bytes)) => return Err(ProjectError::TooLarge { path, size_bytes }),
    };
    match secrets::verdict(&read.relative.to_string_lossy(), &root.join(&read.relative)) {
        secrets::Verdict::Admit => Ok(Some(SourceFile { path, data: read.data })),
        secrets::Verdict::LeaveOut(reason) => Err(ProjectError::Secret { path, target: read.relative, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder(files: &[(&str, &[u8])]) -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let dir = outer.path().join("hello");
        fs::create_dir(&dir).unwrap();
        for (path, data) in files {
            fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            fs::write(dir.join(path), data).unwrap();
        }
        (outer, dir)
    }

    #[test]
    fn the_current_folder_wins_with_a_notice() {
        let (_outer, dir) = folder(&[("functions.rs", b"one"), ("src/functions.rs", b"two"), ("src/lib.rs", b"not beside it")]);
        let project = Project::read(&dir).unwrap();
        assert_eq!(project.function.data, b"one");
        assert_eq!(project.lib, None);
        assert_eq!(project.notices, ["functions.rs is taken; src/functions.rs is there too and is ignored"]);
    }

    #[test]
    fn the_root_and_its_folder_src_are_one_project() {
        let (_outer, dir) = folder(&[("src/functions.rs", b"fn"), ("src/lib.rs", b"")]);
        let (above, inside) = (Project::read(&dir).unwrap(), Project::read(&dir.join("src")).unwrap());
        assert_eq!((&above.root, above.folder()), (&inside.root, Some("hello")));
        assert_eq!(above.function.data, inside.function.data);
        assert_eq!(above.lib.unwrap().path, Path::new("src/lib.rs"));
        assert_eq!(inside.lib.unwrap().path, Path::new("lib.rs"));
    }

    #[test]
    fn bytes_are_kept_as_they_are() {
        let odd = b"\xef\xbb\xbffn\r\n\0\xff\xfe";
        let (_outer, dir) = folder(&[("functions.rs", odd)]);
        assert_eq!(Project::read(&dir).unwrap().function.data, odd);
    }

    #[test]
    fn nothing_found_names_both_places() {
        let (_outer, dir) = folder(&[]);
        let error = Project::read(&dir).unwrap_err().to_string();
        assert!(error.contains("hello/functions.rs") && error.contains("hello/src/functions.rs"), "{error}");
    }

    #[test]
    fn an_empty_function_and_one_that_is_a_folder_are_refused() {
        let (_outer, dir) = folder(&[("functions.rs", b"")]);
        assert!(matches!(Project::read(&dir), Err(ProjectError::Empty { .. })));
        let (_outer, dir) = folder(&[("functions.rs/x", b"")]);
        assert!(matches!(Project::read(&dir), Err(ProjectError::Kind { kind: "a folder", .. })));
    }

    #[test]
    fn a_function_past_the_limit_is_refused_and_one_at_it_is_not() {
        let (_outer, dir) = folder(&[("functions.rs", &vec![b' '; LIMIT_BYTES as usize])]);
        assert_eq!(Project::read(&dir).unwrap().function.data.len() as u64, LIMIT_BYTES);
        fs::write(dir.join("functions.rs"), vec![b' '; LIMIT_BYTES as usize + 1]).unwrap();
        assert!(matches!(Project::read(&dir), Err(ProjectError::TooLarge { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_from_src_into_the_project_is_followed_and_one_out_of_it_is_not() {
        let (outer, dir) = folder(&[("shared/f.rs", b"shared"), ("src/x", b"")]);
        std::os::unix::fs::symlink("../shared/f.rs", dir.join("src/functions.rs")).unwrap();
        assert_eq!(Project::read(&dir.join("src")).unwrap().function.data, b"shared");
        fs::remove_file(dir.join("src/functions.rs")).unwrap();
        fs::write(outer.path().join("else.rs"), "x").unwrap();
        std::os::unix::fs::symlink("../../else.rs", dir.join("src/functions.rs")).unwrap();
        assert!(matches!(Project::read(&dir), Err(ProjectError::Outside { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_function_that_leads_to_an_environment_file_is_a_matter_of_policy() {
        let (_outer, dir) = folder(&[(".env", b"SECRET=1")]);
        std::os::unix::fs::symlink(".env", dir.join("functions.rs")).unwrap();
        let error = Project::read(&dir).unwrap_err();
        assert!(matches!(error, ProjectError::Secret { .. }), "{error}");
        assert!(!error.to_string().contains("SECRET"));
    }

    #[test]
    fn one_notice_names_what_is_left_out() {
        let (_outer, dir) =
            folder(&[("functions.rs", b"x"), (".env", b""), (".env.local", b""), ("id_rsa", b""), ("src/prod.env", b"")]);
        let notices = Project::read(&dir).unwrap().notices;
        assert_eq!(notices, ["left out: .env, .env.local, id_rsa, src/prod.env"]);
    }

    #[test]
    fn twenty_thousand_files_beside_the_function_are_no_burden() {
        let (_outer, dir) = folder(&[("functions.rs", b"x")]);
        for i in 0..20_000 {
            fs::write(dir.join(format!("{i}.txt")), "").unwrap();
        }
        let start = std::time::Instant::now();
        Project::read(&dir).unwrap();
        // A second, with slack for a busy machine.
        assert!(start.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn a_project_at_the_top_of_the_file_system_is_itself() {
        assert_eq!(root(Path::new("/src")), Path::new("/src"));
        assert_eq!(root(Path::new("/a/src")), Path::new("/a"));
    }
}
