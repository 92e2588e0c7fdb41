//! What is being made: folders and files in `work/`.
//!
//! Invariant: what lies in `work/` is locked by whoever works on it, on the folder or file itself;
//! what is not locked is garbage. Nothing is ever found here by its name.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::lock::{self, Locked};
use super::{Store, fault};
use crate::Error;

/// Removes a folder of `work/` with all that is in it. Where other users' ids own files in it, only
/// a process in their user namespace can.
pub type Remove<'a> = dyn Fn(&Path) -> io::Result<()> + 'a;

/// A folder in which something is made; removed on drop, as far as the user's rights go.
#[derive(Debug)]
pub struct WorkDir {
    path: PathBuf,
    _lock: Locked,
}

impl WorkDir {
    /// Returns the folder, as an absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the folder, relative to the store's: `work/RANDOM`.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        format!("work/{}", name.to_string_lossy())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        // Of a folder that was renamed to its place nothing is found; what cannot be removed is
        // left for the next sweep.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Store {
    /// Makes an empty folder to work in.
    pub fn allocate_work(&self) -> Result<WorkDir, Error> {
        loop {
            let path = self.work_path()?;
            let made = DirBuilder::new().mode(0o700).create(&path).and_then(|()| locked(&path));
            if let Some(lock) = made.map_err(|error| fault::file(&path, error))? {
                return Ok(WorkDir { path, _lock: lock });
            }
        }
    }

    /// Makes an empty file to write, locked.
    pub(super) fn allocate_file(&self) -> Result<(PathBuf, Locked), Error> {
        loop {
            let path = self.work_path()?;
            let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let made = made.and_then(|file| mine(file, &path));
            if let Some(file) = made.map_err(|error| fault::file(&path, error))? {
                return Ok((path, file));
            }
        }
    }

    /// Removes from `work/` and `locks/` what nobody holds; returns how much of `work/` that was.
    ///
    /// What resists is left, and said once all else is gone.
    pub fn sweep(&self, remove: &Remove<'_>) -> Result<u64, Error> {
        let mut swept = 0;
        let mut failure = None;
        for path in entries(&self.root.join("work"))? {
            match sweep(&path, remove) {
                Ok(done) => swept += u64::from(done),
                Err(error) => failure = failure.or(Some(fault::file(&path, error))),
            }
        }
        for path in entries(&self.root.join("locks"))? {
            // Taking and dropping a free lock removes its file; `open` is held by this handle.
            lock::FileLock::take(&path).map_err(|error| fault::file(&path, error))?;
        }
        failure.map_or(Ok(swept), Err)
    }

    /// Moves a file or folder that no row names any more out of the way, in a transaction.
    pub(super) fn discard(&self, path: &Path) -> Result<(), Error> {
        let garbage = self.work_path()?;
        fault::absent(fs::rename(path, garbage)).map_err(|error| fault::file(path, error))?;
        Ok(())
    }

    fn work_path(&self) -> Result<PathBuf, Error> {
        Ok(self.root.join("work").join(random_name()?))
    }
}

/// Makes a name that nobody else makes.
pub(super) fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| Error::Resource(format!("the system gives no random numbers: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Returns what is in a folder, by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    let mut paths = read().map_err(|error| fault::file(folder, error))?;
    paths.sort();
    Ok(paths)
}

/// Locks what is at a path; nothing where it is gone or somebody else's.
fn locked(path: &Path) -> io::Result<Option<Locked>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let Some(file) = fault::absent(OpenOptions::new().read(true).custom_flags(flags).open(path))? else { return Ok(None) };
    mine(file, path)
}

/// Locks what was opened at a path; nothing where it is somebody else's, or not there any more.
fn mine(file: File, path: &Path) -> io::Result<Option<Locked>> {
    let Some(locked) = Locked::try_exclusive(file)? else { return Ok(None) };
    Ok(locked.is_at(path)?.then_some(locked))
}

fn sweep(path: &Path, remove: &Remove<'_>) -> io::Result<bool> {
    let Some(metadata) = fault::absent(fs::symlink_metadata(path))? else { return Ok(false) };
    // A link or a pipe is nobody's work, and could not be locked.
    let _lock = if metadata.is_dir() || metadata.is_file() {
        let Some(lock) = locked(path)? else { return Ok(false) };
        Some(lock)
    } else {
        None
    };
    let removed = if metadata.is_dir() { remove(path) } else { fs::remove_file(path) };
    fault::absent(removed).map(|_| true)
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;

    #[test]
    fn a_sweep_leaves_what_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (opened(folder.path()), opened(folder.path()));
        let mine = store.allocate_work().unwrap();
        let (_, written) = store.allocate_file().unwrap();
        let garbage = folder.path().join("work/garbage");
        fs::create_dir_all(garbage.join("deep")).unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("work/link")).unwrap();
        fs::write(folder.path().join("work/file"), "x").unwrap();
        fs::write(folder.path().join("locks/free"), "").unwrap();
        assert_eq!(other.sweep(&|path| fs::remove_dir_all(path)).unwrap(), 3);
        assert!(mine.path().exists() && !garbage.exists() && !folder.path().join("locks/free").exists());
        drop((mine, written));
        // The folder removed itself.
        assert_eq!(other.sweep(&|path| fs::remove_dir_all(path)).unwrap(), 1);
        assert_eq!(entries(&folder.path().join("work")).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_cannot_be_removed_is_said_after_all_else_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        for name in ["a", "b", "c"] {
            fs::create_dir(folder.path().join("work").join(name)).unwrap();
        }
        let resists =
            |path: &Path| if path.ends_with("a") { Err(io::ErrorKind::PermissionDenied.into()) } else { fs::remove_dir(path) };
        let error = store.sweep(&resists).unwrap_err();
        assert!(error.to_string().contains("work/a: "), "{error}");
        assert_eq!(entries(&folder.path().join("work")).unwrap(), [folder.path().canonicalize().unwrap().join("work/a")]);
    }

    #[test]
    fn a_folder_to_work_in_is_named_for_the_worker() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let work = store.allocate_work().unwrap();
        assert_eq!(store.root().join(work.name()), work.path());
    }
}
