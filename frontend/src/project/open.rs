//! Reads one file of a project without ever blocking on it or following it out of the project.
//!
//! Invariant: the bytes that are returned come from a regular file that stands under the root at
//! the moment at which it is opened. Links are resolved first; then every component of what they
//! lead to is opened from the one before it, and no component may be a link by then, so whoever
//! swaps files during the read gets an error or bytes from inside.

use std::fs::{File, FileType};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// Nothing has that name.
    Missing,
    /// A link leads nowhere, or round in a circle.
    Dangling(io::Error),
    /// A link leads out of the root.
    Outside(PathBuf),
    /// It is not a regular file; what it is instead.
    Kind(&'static str),
    /// The system does not let it be read.
    Unreadable(io::Error),
    /// It became something else while it was read.
    Changed,
    /// It has more bytes than the limit.
    TooLarge(u64),
}

/// A file that was read.
#[derive(Debug)]
pub(crate) struct Read {
    /// Where it really stands, relative to the root.
    pub(crate) relative: PathBuf,
    /// Its bytes.
    pub(crate) data: Vec<u8>,
}

/// Reads `path`, which must lead to a regular file of at most `limit` bytes under `root`
/// (canonical).
pub(crate) fn read_inside(root: &Path, path: &Path, limit: u64) -> Result<Read, Refusal> {
    let relative = locate_inside(root, path)?;
    let file = system::beneath(root, &relative).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Refusal::Unreadable(error),
        _ => Refusal::Changed,
    })?;
    let metadata = file.metadata().map_err(Refusal::Unreadable)?;
    if !metadata.is_file() {
        return Err(Refusal::Changed);
    }
    if metadata.len() > limit {
        return Err(Refusal::TooLarge(metadata.len()));
    }
    let mut data = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut data).map_err(Refusal::Unreadable)?;
    if data.len() as u64 > limit {
        return Err(Refusal::TooLarge(data.len() as u64));
    }
    Ok(Read { relative, data })
}

/// Follows links, and says where under `root` the regular file stands. Opens nothing.
fn locate_inside(root: &Path, path: &Path) -> Result<PathBuf, Refusal> {
    match path.symlink_metadata() {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Err(Refusal::Missing);
        }
        Err(error) => return Err(Refusal::Unreadable(error)),
        Ok(_) => {}
    }
    let real = path.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Refusal::Unreadable(error),
        _ => Refusal::Dangling(error),
    })?;
    let relative = real.strip_prefix(root).map_err(|_| Refusal::Outside(real.clone()))?;
    let metadata = real.symlink_metadata().map_err(Refusal::Unreadable)?;
    match kind(metadata.file_type()) {
        None => Ok(relative.to_owned()),
        Some(kind) => Err(Refusal::Kind(kind)),
    }
}

/// Says what is not a regular file.
fn kind(file_type: FileType) -> Option<&'static str> {
    if file_type.is_file() {
        return None;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        if file_type.is_fifo() {
            return Some("a FIFO");
        }
        if file_type.is_socket() {
            return Some("a socket");
        }
        if file_type.is_char_device() || file_type.is_block_device() {
            return Some("a device");
        }
    }
    Some(if file_type.is_dir() { "a folder" } else { "not a regular file" })
}

#[cfg(unix)]
mod system {
    use super::*;
    use rustix::fs::{Mode, OFlags, openat};

    /// Opens `relative` (no `..`, no links) from `root`, component by component.
    pub(super) fn beneath(root: &Path, relative: &Path) -> io::Result<File> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at = openat(rustix::fs::CWD, root, folder, Mode::empty())?;
        let mut parts = relative.components().peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_some() { folder } else { file };
            at = openat(&at, part.as_os_str(), flags, Mode::empty())?;
        }
        Ok(File::from(at))
    }
}

#[cfg(not(unix))]
mod system {
    use super::*;

    /// Opens `relative` and checks afterwards that it still leads there.
    pub(super) fn beneath(root: &Path, relative: &Path) -> io::Result<File> {
        let path = root.join(relative);
        let file = File::open(&path)?;
        if path.canonicalize()? == path { Ok(file) } else { Err(io::Error::other("the file was swapped")) }
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, PathBuf) {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().canonicalize().unwrap().join("project");
        fs::create_dir_all(root.join("src")).unwrap();
        fs::write(root.join("src/a.rs"), b"inside").unwrap();
        fs::write(outer.path().join("secret"), b"outside").unwrap();
        (outer, root)
    }

    #[test]
    fn a_link_inside_the_root_is_followed_and_named_by_its_target() {
        let (_outer, root) = tree();
        symlink("src/a.rs", root.join("b.rs")).unwrap();
        symlink(root.join("b.rs"), root.join("c.rs")).unwrap();
        let read = read_inside(&root, &root.join("c.rs"), 100).unwrap();
        assert_eq!((read.relative.as_path(), read.data.as_slice()), (Path::new("src/a.rs"), b"inside".as_slice()));
    }

    #[test]
    fn links_that_lead_out_nowhere_or_in_circles_are_told_apart() {
        let (_outer, root) = tree();
        symlink("../secret", root.join("out")).unwrap();
        symlink("nothing", root.join("dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        symlink("..", root.join("up")).unwrap();
        let read = |name: &str| read_inside(&root, &root.join(name), 100).unwrap_err();
        assert!(matches!(read("out"), Refusal::Outside(_)));
        assert!(matches!(read("up/secret"), Refusal::Outside(_)));
        assert!(matches!(read("dangling"), Refusal::Dangling(_)));
        assert!(matches!(read("loop"), Refusal::Dangling(_)));
        assert!(matches!(read("missing"), Refusal::Missing));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test makes what it reads")]
    fn fifos_sockets_devices_and_folders_are_refused_at_once() {
        let (_outer, root) = tree();
        let status = std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap();
        assert!(status.success());
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        let read = |path: &Path, root: &Path| match read_inside(root, path, 100) {
            Err(Refusal::Kind(kind)) => kind,
            other => panic!("{other:?}"),
        };
        assert_eq!(read(&root.join("fifo"), &root), "a FIFO");
        assert_eq!(read(&root.join("socket"), &root), "a socket");
        assert_eq!(read(&root.join("src"), &root), "a folder");
        assert_eq!(read(Path::new("/dev/zero"), Path::new("/")), "a device");
    }

    #[test]
    fn a_file_past_the_limit_is_never_read() {
        let (_outer, root) = tree();
        fs::File::create(root.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read_inside(&root, &root.join("sparse"), 100), Err(Refusal::TooLarge(size)) if size == 1 << 40));
    }

    #[test]
    fn a_component_that_became_a_link_is_not_followed() {
        let (outer, root) = tree();
        symlink(outer.path(), root.join("swapped")).unwrap();
        assert!(system::beneath(&root, Path::new("swapped/secret")).is_err());
        symlink(outer.path().join("secret"), root.join("leaf")).unwrap();
        assert!(system::beneath(&root, Path::new("leaf")).is_err());
    }

    #[test]
    fn a_file_that_is_swapped_during_reads_gives_inside_bytes_or_an_error() {
        let (outer, root) = tree();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let path = root.join("src/a.rs");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (link, file) = (root.join("src/link"), root.join("src/file"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    symlink(outer.path().join("secret"), &link).unwrap();
                    fs::rename(&link, &path).unwrap();
                    fs::write(&file, b"inside").unwrap();
                    fs::rename(&file, &path).unwrap();
                }
            });
            for _ in 0..2000 {
                if let Ok(read) = read_inside(&root, &path, 100) {
                    assert_eq!(read.data, b"inside");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
