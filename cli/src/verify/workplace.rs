//! Where two releases are made: copies of the project, a store of their own, two archives.
//!
//! Invariant: it goes with the value, whoever's ids own what is in it; what a killed process left is
//! removed by the next one, and what another one uses, in whatever container, is locked.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use roche_frontend::project::Project;
use tempfile::TempDir;

use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::lock;

/// How the folders' names start.
const PREFIX: &str = "roche-verify-";
/// The variable that says where the engine keeps its store.
const CACHE: &str = "XDG_CACHE_HOME";
/// Files that a release reads beside the sources, relative to the project.
const SETTINGS: [&str; 3] = [".rocherc", "src/.rocherc", lock::FILE];

/// A temporary folder with all that the releases need.
pub(super) struct Workplace {
    folder: TempDir,
    /// The folder itself, locked for as long as it is used.
    _lock: File,
    #[cfg(target_os = "linux")]
    engine: roche_engine::local::LocalOptions,
}

impl Workplace {
    /// Makes an empty one: beside the store of ordinary releases, where there is room for one.
    pub(super) fn make(environment: &Environment) -> Result<Self, Failure> {
        let above = above(environment)?;
        let unwritable = |error: io::Error| crate::error::unwritable(&above, &error);
        fs::create_dir_all(&above).map_err(unwritable)?;
        remove_abandoned(&above, environment);
        let (folder, lock) = loop {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&above).map_err(unwritable)?;
            let locked = File::open(folder.path()).and_then(|file| file.lock().map(|()| file));
            // Where it is gone, another process has tidied up before it was locked.
            if folder.path().exists() {
                break (folder, locked.map_err(unwritable)?);
            }
        };
        #[cfg(target_os = "linux")]
        let engine = crate::embedded::options(&within(folder.path(), environment))?;
        Ok(Self {
            folder,
            _lock: lock,
            #[cfg(target_os = "linux")]
            engine,
        })
    }

    /// Copies what a release of the project reads into a folder of this name; returns the
    /// surroundings of a release there.
    pub(super) fn copy(&self, project: &Project, name: &str, environment: &Environment) -> Result<Environment, Failure> {
        let root = self.folder.path().join(name).join(project.root.file_name().unwrap_or("project".as_ref()));
        // The folder that the command runs in: the project's, or its `src`.
        let current = environment.folder.canonicalize().unwrap_or_else(|_| environment.folder.clone());
        let folder = root.join(current.strip_prefix(&project.root).unwrap_or(Path::new("")));
        let write = |path: &Path, bytes: &[u8]| {
            let above = path.parent().unwrap_or(path);
            let written = fs::create_dir_all(above).and_then(|()| fs::write(path, bytes));
            written.map_err(|error| crate::error::unwritable(path, &error))
        };
        for file in std::iter::once(&project.function).chain(&project.lib) {
            write(&folder.join(&file.path), &file.data)?;
        }
        for file in SETTINGS {
            match fs::read(project.root.join(file)) {
                Ok(bytes) => write(&root.join(file), &bytes)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Failure::say(Exit::Configuration, format!("{file} cannot be read: {error}")));
                }
            }
        }
        Ok(Environment { folder, ..within(self.folder.path(), environment) })
    }

    /// Returns the place of a release's archive.
    pub(super) fn archive(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.tar"))
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        clear(&self.engine);
    }
}

/// Removes a store; files of steps may belong to ids that only a worker can act for.
#[cfg(target_os = "linux")]
fn clear(engine: &roche_engine::local::LocalOptions) {
    if engine.root.exists() && fs::remove_dir_all(&engine.root).is_err() {
        empty(engine);
    }
}

/// Has the engine empty its store. The process may end right after a signal: so it is waited for, on
/// a thread of its own, because whoever drops the workplace is on a runtime.
#[cfg(target_os = "linux")]
fn empty(engine: &roche_engine::local::LocalOptions) {
    use roche_engine::local::{Local, store::Limits};
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(1);
    let engine = Local::new(engine.clone());
    let emptying = std::thread::Builder::new().spawn(move || {
        if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
            let nothing = Limits { max_bytes: 0, keep_newer: std::time::Duration::ZERO };
            // What does not go in time is removed by the next verification.
            let _ = runtime.block_on(async { tokio::time::timeout(LONGEST, engine.prune(nothing)).await });
            runtime.shutdown_background();
        }
    });
    let _ = emptying.map(std::thread::JoinHandle::join);
}

/// Returns the surroundings with a cache that is in the folder.
fn within(folder: &Path, environment: &Environment) -> Environment {
    let mut within = environment.clone();
    within.variables.insert(CACHE.to_owned(), folder.join("cache").to_string_lossy().into_owned());
    within
}

/// Returns the folder that the workplace is made in.
#[cfg(target_os = "linux")]
fn above(environment: &Environment) -> Result<PathBuf, Failure> {
    let cache = environment.cache()?;
    Ok(cache.parent().unwrap_or(&cache).to_owned())
}

/// Returns the folder that the workplace is made in.
#[cfg(not(target_os = "linux"))]
fn above(_: &Environment) -> Result<PathBuf, Failure> {
    Ok(std::env::temp_dir())
}

/// Removes the workplaces that nobody uses; what cannot be removed is no failure of this one.
fn remove_abandoned(above: &Path, environment: &Environment) {
    for entry in above.read_dir().into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            continue;
        }
        // Held until it is gone.
        let Some(_lock) = File::open(entry.path()).ok().filter(|file| file.try_lock().is_ok()) else { continue };
        #[cfg(target_os = "linux")]
        if let Ok(engine) = crate::embedded::options(&within(&entry.path(), environment)) {
            clear(&engine);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = environment;
        let _ = fs::remove_dir_all(entry.path());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn exactly_what_a_release_reads_is_copied_and_nothing_is_left() {
        let (project, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (path, text) in [
            ("src/functions.rs", "fn"),
            ("src/lib.rs", "lib"),
            ("src/.rocherc", "runtime_image=r"),
            (".env", "SECRET=1"),
            ("src/other.rs", "other"),
            ("README.md", "text"),
        ] {
            let path = project.path().join("shop").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let variables = BTreeMap::from([(CACHE.to_owned(), cache.path().display().to_string())]);
        let environment =
            Environment { variables, folder: project.path().join("shop/src"), stderr_terminal: false, stdout_terminal: false };
        // One that a process left, and one that is used.
        let [abandoned, used] = ["a", "b"].map(|name| cache.path().join(format!("{PREFIX}{name}")));
        fs::create_dir_all(abandoned.join("cache")).unwrap();
        fs::create_dir_all(&used).unwrap();
        let user = File::open(&used).unwrap();
        user.lock().unwrap();

        let read = Project::read(&environment.folder).unwrap();
        let workplace = Workplace::make(&environment).unwrap();
        assert!(!abandoned.exists() && used.exists());
        let there = workplace.copy(&read, "first", &environment).unwrap();
        assert!(there.folder.ends_with("first/shop/src"), "{}", there.folder.display());
        assert!(there.variables[CACHE].ends_with("/cache") && there.variables[CACHE] != environment.variables[CACHE]);
        let copied = Project::read(&there.folder).unwrap();
        assert_eq!((copied.function.clone(), copied.lib.clone()), (read.function, read.lib));
        assert_eq!(copied.rocherc, read.rocherc);
        let mut files = Vec::new();
        let mut folders = vec![there.folder.parent().unwrap().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().unwrap().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.file_name()) }
            }
        }
        files.sort();
        assert_eq!(files, [".rocherc", "functions.rs", "lib.rs"]);
        drop(workplace);
        assert_eq!(cache.path().read_dir().unwrap().count(), 1, "only the other process's is left");
    }
}
