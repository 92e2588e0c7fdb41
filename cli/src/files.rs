//! Files that are written whole or not at all, and the places that they go to.

use std::ffi::OsStr;
use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use roche_engine::oci::place::deliver;
use roche_engine::solver::ArchiveDest;

use crate::error::{self, Exit, Failure};

/// Writes `bytes` to `path`: into a temporary file beside it, which then takes its name. A reader
/// sees the old content or the new one, also after a crash; what a killed process left of such a
/// write goes with the next one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    deliver(&ArchiveDest::File(path.to_owned()), |out| out.write_all(bytes)).map_err(|error| match error {
        roche_engine::Error::Output { source, .. } => error::unwritable(path, &source),
        error => error.into(),
    })
}

/// Writes a file in the same way, but keeps one that is there: that is
/// [`io::ErrorKind::AlreadyExists`].
pub(crate) fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".roche-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    // The new name is on the disk once its folder is.
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// Returns where a path leads, by one name for each place, whether or not something is there.
pub(crate) fn place(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => place(folder).join(name),
        _ => path.to_owned(),
    })
}

/// Refuses a file that cannot be replaced by a new one, and a folder that cannot be made.
pub(crate) fn check(path: &Path, is_folder: bool) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::say(Exit::Usage, format!("{} {why}", path.display())).hint("name another place"));
    if is_folder {
        let nearest = path.ancestors().find(|path| path.symlink_metadata().is_ok());
        return if nearest.is_some_and(|path| !path.is_dir()) {
            refuse("is not a folder, nor can it become one")
        } else {
            Ok(())
        };
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => return refuse("is a folder, and the output is a file"),
        Ok(metadata) if !metadata.is_file() => return refuse("is not a regular file, so it cannot be replaced"),
        _ => {}
    }
    if path.parent().is_some_and(Path::is_dir) { Ok(()) } else { refuse("is in a folder that does not exist") }
}

/// Refuses a name with control characters: standard output shows it exactly, on one line.
pub(crate) fn named_in_a_line(name: &OsStr) -> Result<(), Failure> {
    if name.to_string_lossy().contains(char::is_control) {
        return Err(Failure::say(Exit::Usage, format!("{name:?} has a control character in its name")).hint("name another place"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("digest");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_that_is_missing_is_said() {
        let path = tempfile::tempdir().unwrap().path().join("file");
        let failure = replace(&path, b"").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.render().contains(&format!("{} cannot be written", path.display())));
    }

    #[test]
    fn a_file_that_is_there_is_kept_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("function");
        create(&path, b"first").unwrap();
        assert_eq!(create(&path, b"second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
