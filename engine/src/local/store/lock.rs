//! File locks: what only one thread of one process does at a time.
//!
//! Invariant: the file of a lock that is held is the one at its path. The holder removes it before
//! letting go, so that no files pile up; who waited for it in vain starts again with a new one. The
//! kernel lets go for a process that is killed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::fault;

/// An open file or folder that is locked, until this is dropped.
///
/// Closing it would not be enough: a process that another thread starts at that moment has it open
/// too, from its fork to its exec, and the lock is the open file's.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Locked {
    /// Locks a file, whoever has to be waited for.
    pub(super) fn exclusive(file: File) -> io::Result<Self> {
        uninterrupted(|| file.lock())?;
        Ok(Self(file))
    }

    /// Locks a file with others that do the same, whoever else has to be waited for.
    pub(super) fn shared(file: File) -> io::Result<Self> {
        uninterrupted(|| file.lock_shared())?;
        Ok(Self(file))
    }

    /// Locks a file where nobody else has.
    pub(super) fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Says whether `path` still names the file.
    pub(super) fn is_at(&self, path: &Path) -> io::Result<bool> {
        let open = self.metadata()?;
        let named = fault::absent(fs::symlink_metadata(path))?;
        Ok(named.is_some_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())))
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

impl Write for Locked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Where this fails, closing it lets go.
        let _ = self.0.unlock();
    }
}

fn uninterrupted(lock: impl Fn() -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// An exclusive lock between processes and between threads; let go on drop.
#[derive(Debug)]
pub struct FileLock {
    _file: Locked,
    path: PathBuf,
}

impl FileLock {
    /// Takes the lock, whoever has to be waited for.
    pub(super) fn wait(path: &Path) -> io::Result<Self> {
        loop {
            let file = Locked::exclusive(open(path)?)?;
            if file.is_at(path)? {
                return Ok(Self { _file: file, path: path.to_owned() });
            }
        }
    }

    /// Takes the lock where nobody holds it.
    pub(super) fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let Some(file) = Locked::try_exclusive(open(path)?)? else { return Ok(None) };
            if file.is_at(path)? {
                return Ok(Some(Self { _file: file, path: path.to_owned() }));
            }
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A file that stays is no harm: it is taken again or swept.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a file to be locked; made where it is missing.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_lock_excludes_threads_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::take(&path).unwrap().unwrap();
        assert!(FileLock::take(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(FileLock::take(&path).unwrap().is_some());
    }

    #[test]
    fn what_is_let_go_is_free_though_a_process_that_is_being_started_has_it_open() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = FileLock::take(&path).unwrap().unwrap();
        let inherited = held._file.try_clone().unwrap();
        fs::hard_link(&path, folder.path().join("same")).unwrap();
        drop(held);
        let same = File::open(folder.path().join("same")).unwrap();
        assert!(Locked::try_exclusive(same).unwrap().is_some());
        drop(inherited);
    }

    #[test]
    fn many_that_wait_pass_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _held = FileLock::wait(&path).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(!path.exists());
    }
}
