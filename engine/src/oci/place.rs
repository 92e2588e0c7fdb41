//! Puts files in their places, whole or not at all.
//!
//! Invariant: what stands at a place is either what stood there before or complete. Bytes go to a
//! temporary file in the same folder, are synced, and take the name at the end. Where the place is
//! no regular file (a pipe, a device) or the standard output, bytes are handed on as they come.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::solver::ArchiveDest;

/// What is gathered before the disk is asked.
const BUFFER_BYTES: usize = 256 << 10;

/// Has `write` write to an archive's destination.
pub fn deliver(dest: &ArchiveDest, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    let path = match dest {
        ArchiveDest::Stdout => {
            let mut output = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
            let written = write(&mut output).and_then(|()| output.flush());
            return written.map_err(|error| failed(Path::new("standard output"), error));
        }
        // A link is followed: its target is replaced, not the link.
        ArchiveDest::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
    };
    match std::fs::metadata(&path) {
        Ok(found) if found.is_dir() => Err(failed(&path, io::ErrorKind::IsADirectory.into())),
        Ok(found) if !found.is_file() => {
            let output = File::options().write(true).open(&path);
            let written = output.and_then(|file| {
                let mut output = BufWriter::with_capacity(BUFFER_BYTES, file);
                write(&mut output)?;
                output.flush()
            });
            written.map_err(|error| failed(&path, error))
        }
        _ => file(&path, write),
    }
}

/// Has `write` write a regular file, which replaces what is at `path`.
pub(super) fn file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Error> {
    sweep(path);
    let (staged, file) = begin(path).map_err(|error| failed(path, error))?;
    let written = (|| {
        let mut output = BufWriter::with_capacity(BUFFER_BYTES, file);
        write(&mut output)?;
        output.into_inner()?.sync_all()?;
        std::fs::rename(&staged.0, path)?;
        sync_folder(path)
    })();
    written.map_err(|error| failed(path, error))
}

/// Makes the temporary file of `path`, locked: it is in use while somebody holds it open.
pub(crate) fn begin(path: &Path) -> io::Result<(Staged, File)> {
    loop {
        let staged = Staged(beside(path)?);
        let file = File::create_new(&staged.0)?;
        // Where there are no locks, nobody sweeps either.
        let _ = file.lock();
        // Somebody else may have taken it for a leftover before it was locked.
        if staged.0.symlink_metadata().is_ok() {
            return Ok((staged, file));
        }
    }
}

/// Removes the temporary files of `path` that processes left behind which were killed.
pub(crate) fn sweep(path: &Path) {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What cannot be listed, opened, locked or removed is left: it is no part of what is written.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let found = entry.file_name();
        let random = found.to_str().and_then(|found| found.strip_prefix('.')?.strip_prefix(name)?.strip_prefix('.'));
        let ours = random
            .and_then(|rest| rest.strip_suffix(".partial"))
            .is_some_and(|random| random.len() == 16 && random.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if ours
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A temporary file or folder, which is gone in the end unless it was renamed.
pub(crate) struct Staged(pub(crate) PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        // There is nobody to tell, and the name says what it is.
        let _ = match self.0.is_dir() {
            true => std::fs::remove_dir_all(&self.0),
            false => std::fs::remove_file(&self.0),
        };
    }
}

/// Makes a name in the same folder that nothing has yet.
pub(super) fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{:016x}.partial", u64::from_ne_bytes(random)));
    Ok(path.with_file_name(temporary))
}

/// Says what failed: a full disk is another matter than a bad path.
pub(crate) fn failed(path: &Path, error: io::Error) -> Error {
    if Error::is_exhausted(&error) {
        return Error::Resource(format!("{}: {error}; free some space or choose another place", path.display()));
    }
    Error::Output { path: path.to_owned(), source: error }
}

/// Makes a new name last.
#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Makes a new name last; other systems do it by themselves.
#[cfg(not(unix))]
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let dest = ArchiveDest::File(path.clone());
        deliver(&dest, |out| out.write_all(b"one")).unwrap();
        let broken = deliver(&dest, |out| {
            out.write_all(b"tw")?;
            Err(io::ErrorKind::UnexpectedEof.into())
        });
        assert!(matches!(broken, Err(Error::Output { .. })));
        let full = deliver(&dest, |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(matches!(full, Err(Error::Resource(_))));
        assert_eq!((std::fs::read(&path).unwrap(), names(folder.path())), (b"one".to_vec(), vec!["a".to_owned()]));
        assert!(deliver(&ArchiveDest::File(folder.path().to_owned()), |_| Ok(())).is_err());
        assert!(deliver(&ArchiveDest::File(folder.path().join("x/y")), |_| Ok(())).is_err());
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let left = [".a.0123456789abcdef.partial", ".a.fedcba9876543210.partial"];
        left.iter().for_each(|name| std::fs::write(folder.path().join(name), "half").unwrap());
        let others = [".a.b.0123456789abcdef.partial", ".a.012345.partial", ".a.0123456789abcdef", "a.partial"];
        others.iter().for_each(|name| std::fs::write(folder.path().join(name), "mine").unwrap());
        let (staged, _file) = begin(&path).unwrap();
        file(&path, |out| out.write_all(b"whole")).unwrap();
        let held = staged.0.file_name().unwrap().to_str().unwrap().to_owned();
        let mut expected: Vec<String> = others.map(str::to_owned).into_iter().chain([held, "a".to_owned()]).collect();
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_are_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::write(&target, "old").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        deliver(&ArchiveDest::File(link.clone()), |out| out.write_all(b"new")).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        deliver(&ArchiveDest::File("/dev/null".into()), |out| out.write_all(b"new")).unwrap();
    }
}
