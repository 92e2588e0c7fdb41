//! Folders by handle: whatever happens to the tree meanwhile, nothing outside the root is reached.
//!
//! Invariant: every operation names one entry of one open folder and follows no symbolic link, so a
//! file or folder that is swapped for a link is an error, never a way out. On Unix a folder is a
//! file descriptor; elsewhere it is a path whose last part is checked before each use, which leaves
//! a gap of microseconds for another program of the same user.

use std::io;
use std::path::{Path, PathBuf};

#[cfg(not(unix))]
pub(super) use portable::Dir;
#[cfg(unix)]
pub(super) use unix::Dir;

use super::mode;

/// What an entry is, without having opened it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// Go's file mode ([`mode`]).
    pub(super) mode: u32,
    /// The size of its content.
    pub(super) size_bytes: u64,
    /// Major and minor number of a device.
    pub(super) device: (i64, i64),
    /// What tells this entry from any other; 0 where the system has nothing.
    pub(super) identity: (u64, u64),
}

impl Meta {
    /// Says whether it is a folder.
    #[cfg(not(unix))]
    pub(super) fn is_dir(&self) -> bool {
        self.mode & mode::DIR != 0
    }

    /// Says whether it is a regular file.
    pub(super) fn is_file(&self) -> bool {
        self.mode & mode::TYPE == 0
    }
}

/// Says that a path part is one name: not empty, not `.`, `..`, and without separators.
pub(super) fn is_name(part: &str) -> bool {
    !matches!(part, "" | "." | "..") && !part.contains(['/', '\0']) && (cfg!(unix) || !part.contains(['\\', ':']))
}

fn changed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn checked(name: &str) -> io::Result<&str> {
    if is_name(name) {
        Ok(name)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a file name")))
    }
}

/// An entry as a listing shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name; not UTF-8 where the error holds it as well as it can be shown.
    pub(super) name: Result<String, String>,
    /// The type bits of its mode where the listing tells them.
    pub(super) kind: Option<u32>,
}

fn sort(entries: &mut [Listed]) {
    let key = |entry: &Listed| match &entry.name {
        Ok(name) | Err(name) => name.clone(),
    };
    // Names are compared as bytes, which is how Rust compares strings.
    entries.sort_unstable_by(|a, b| match (&a.name, &b.name) {
        (Ok(a), Ok(b)) => a.cmp(b),
        _ => key(a).cmp(&key(b)),
    });
}

#[cfg(unix)]
mod unix {
    use std::fs::File;
    use std::os::fd::OwnedFd;

    use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timestamps};

    use super::*;

    /// An open folder.
    #[derive(Debug)]
    pub(in super::super) struct Dir(OwnedFd);

    const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    // The widths of the system's types differ between systems.
    #[allow(clippy::unnecessary_cast)]
    impl Dir {
        /// Opens the root; here alone links are followed.
        pub(in super::super) fn root(path: &Path) -> io::Result<Self> {
            Ok(Self(rustix::fs::open(path, FOLDER, Mode::empty())?))
        }

        /// Opens a folder in this one.
        pub(in super::super) fn dir(&self, name: &str) -> io::Result<Self> {
            Ok(Self(rustix::fs::openat(&self.0, checked(name)?, FOLDER | OFlags::NOFOLLOW, Mode::empty())?))
        }

        /// Opens the folder that this one is in, if that is still the one of `identity`.
        pub(in super::super) fn parent(&self, identity: (u64, u64)) -> io::Result<Self> {
            let parent = Self(rustix::fs::openat(&self.0, "..", FOLDER, Mode::empty())?);
            if parent.meta()?.identity == identity { Ok(parent) } else { Err(changed("the folder was moved while it was read")) }
        }

        /// Returns what this folder is.
        pub(in super::super) fn meta(&self) -> io::Result<Meta> {
            Ok(meta(&rustix::fs::fstat(&self.0)?))
        }

        /// Lists the folder, names in byte order.
        pub(in super::super) fn list(&self) -> io::Result<Vec<Listed>> {
            let mut entries = Vec::new();
            for entry in rustix::fs::Dir::read_from(&self.0)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") {
                    continue;
                }
                let kind = match entry.file_type() {
                    FileType::Unknown => None,
                    kind => Some(mode::from_unix(kind.as_raw_mode() as u32) & mode::TYPE),
                };
                let name =
                    String::from_utf8(name.to_vec()).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
                entries.push(Listed { name, kind });
            }
            sort(&mut entries);
            Ok(entries)
        }

        /// Returns what an entry is.
        pub(in super::super) fn stat(&self, name: &str) -> io::Result<Meta> {
            Ok(meta(&rustix::fs::statat(&self.0, checked(name)?, AtFlags::SYMLINK_NOFOLLOW)?))
        }

        /// Returns what a symbolic link says; an error where it is not UTF-8.
        pub(in super::super) fn link(&self, name: &str) -> io::Result<String> {
            let text = rustix::fs::readlinkat(&self.0, checked(name)?, Vec::new())?;
            text.into_string().map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the link's target is not UTF-8"))
        }

        /// Opens a regular file for reading; anything else is an error.
        pub(in super::super) fn read(&self, name: &str) -> io::Result<(File, Meta)> {
            // Non-blocking: a file that was just swapped for a pipe does not hold the reader up.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.0, checked(name)?, flags, Mode::empty())?;
            let meta = meta(&rustix::fs::fstat(&file)?);
            if meta.is_file() { Ok((file.into(), meta)) } else { Err(changed("it is no regular file any more")) }
        }

        /// Makes a new file for its owner alone.
        pub(in super::super) fn create(&self, name: &str) -> io::Result<File> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(rustix::fs::openat(&self.0, checked(name)?, flags, Mode::from_raw_mode(0o600))?.into())
        }

        /// Makes a folder that its owner may use.
        pub(in super::super) fn make_dir(&self, name: &str) -> io::Result<()> {
            Ok(rustix::fs::mkdirat(&self.0, checked(name)?, Mode::from_raw_mode(0o700))?)
        }

        /// Makes a symbolic link.
        pub(in super::super) fn make_link(&self, name: &str, target: &str) -> io::Result<()> {
            Ok(rustix::fs::symlinkat(target, &self.0, checked(name)?)?)
        }

        /// Gives a file a second name.
        pub(in super::super) fn hard_link(&self, name: &str, into: &Self, new: &str) -> io::Result<()> {
            Ok(rustix::fs::linkat(&self.0, checked(name)?, &into.0, checked(new)?, AtFlags::empty())?)
        }

        /// Renames an entry within the folder, over a file that is there.
        pub(in super::super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(rustix::fs::renameat(&self.0, checked(from)?, &self.0, checked(to)?)?)
        }

        /// Removes a file.
        pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
            Ok(rustix::fs::unlinkat(&self.0, checked(name)?, AtFlags::empty())?)
        }

        /// Sets this folder's permission bits and time.
        pub(in super::super) fn finish(&self, permissions: u32, mtime_ns: i64) -> io::Result<()> {
            rustix::fs::fchmod(&self.0, Mode::from_raw_mode((permissions & 0o777) as _))?;
            Ok(rustix::fs::futimens(&self.0, &times(mtime_ns))?)
        }

        /// Returns how many bytes the folder's file system still takes.
        pub(in super::super) fn free_bytes(&self) -> io::Result<u64> {
            let status = rustix::fs::fstatvfs(&self.0)?;
            Ok(status.f_bavail.saturating_mul(status.f_frsize))
        }
    }

    /// Sets a file's permission bits and time.
    pub(in super::super) fn finish_file(file: &File, permissions: u32, mtime_ns: i64) -> io::Result<()> {
        rustix::fs::fchmod(file, Mode::from_raw_mode((permissions & 0o777) as _))?;
        Ok(rustix::fs::futimens(file, &times(mtime_ns))?)
    }

    fn times(mtime_ns: i64) -> Timestamps {
        let time =
            rustix::fs::Timespec { tv_sec: mtime_ns.div_euclid(1_000_000_000), tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _ };
        Timestamps { last_access: time, last_modification: time }
    }

    // The widths of these fields differ between systems.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    fn meta(stat: &rustix::fs::Stat) -> Meta {
        let mode = mode::from_unix(stat.st_mode as u32);
        let device = if mode & mode::DEVICE == 0 {
            (0, 0)
        } else {
            (rustix::fs::major(stat.st_rdev as _) as i64, rustix::fs::minor(stat.st_rdev as _) as i64)
        };
        Meta { mode, size_bytes: stat.st_size.max(0) as u64, device, identity: (stat.st_dev as u64, stat.st_ino as u64) }
    }
}

#[cfg(unix)]
pub(super) use unix::finish_file;

#[cfg(not(unix))]
pub(super) use portable::finish_file;

#[cfg(not(unix))]
mod portable {
    use std::fs::{self, File};
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A folder by its path.
    #[derive(Debug)]
    pub(in super::super) struct Dir(PathBuf);

    impl Dir {
        pub(in super::super) fn root(path: &Path) -> io::Result<Self> {
            let path = path.canonicalize()?;
            if path.is_dir() { Ok(Self(path)) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }

        pub(in super::super) fn dir(&self, name: &str) -> io::Result<Self> {
            if self.stat(name)?.is_dir() { Ok(Self(self.0.join(name))) } else { Err(io::ErrorKind::NotADirectory.into()) }
        }

        pub(in super::super) fn parent(&self, _: (u64, u64)) -> io::Result<Self> {
            self.0.parent().map(|path| Self(path.to_owned())).ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        pub(in super::super) fn meta(&self) -> io::Result<Meta> {
            fs::symlink_metadata(&self.0).map(|found| meta(&found))
        }

        pub(in super::super) fn list(&self) -> io::Result<Vec<Listed>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.0)? {
                let name = entry?.file_name().into_string().map_err(|name| name.to_string_lossy().into_owned());
                entries.push(Listed { name, kind: None });
            }
            sort(&mut entries);
            Ok(entries)
        }

        pub(in super::super) fn stat(&self, name: &str) -> io::Result<Meta> {
            fs::symlink_metadata(self.0.join(checked(name)?)).map(|found| meta(&found))
        }

        pub(in super::super) fn link(&self, name: &str) -> io::Result<String> {
            let target = fs::read_link(self.0.join(checked(name)?))?;
            let text = target.to_str().ok_or_else(|| changed("the link's target is not UTF-8"))?;
            Ok(text.replace('\\', "/"))
        }

        pub(in super::super) fn read(&self, name: &str) -> io::Result<(File, Meta)> {
            let meta = self.stat(name)?;
            if meta.is_file() {
                Ok((File::open(self.0.join(name))?, meta))
            } else {
                Err(changed("it is no regular file any more"))
            }
        }

        pub(in super::super) fn create(&self, name: &str) -> io::Result<File> {
            File::create_new(self.0.join(checked(name)?))
        }

        pub(in super::super) fn make_dir(&self, name: &str) -> io::Result<()> {
            fs::create_dir(self.0.join(checked(name)?))
        }

        pub(in super::super) fn make_link(&self, name: &str, _: &str) -> io::Result<()> {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("symbolic links such as {name:?} cannot be made here")))
        }

        pub(in super::super) fn hard_link(&self, name: &str, into: &Self, new: &str) -> io::Result<()> {
            fs::hard_link(self.0.join(checked(name)?), into.0.join(checked(new)?))
        }

        pub(in super::super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.0.join(checked(from)?), self.0.join(checked(to)?))
        }

        pub(in super::super) fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.0.join(checked(name)?))
        }

        pub(in super::super) fn finish(&self, _: u32, _: i64) -> io::Result<()> {
            Ok(())
        }

        pub(in super::super) fn free_bytes(&self) -> io::Result<u64> {
            Ok(u64::MAX)
        }
    }

    pub(in super::super) fn finish_file(file: &File, _: u32, mtime_ns: i64) -> io::Result<()> {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(mtime_ns.max(0).unsigned_abs()))
    }

    fn meta(found: &fs::Metadata) -> Meta {
        let mode = match found.file_type() {
            kind if kind.is_symlink() => mode::SYMLINK | 0o777,
            kind if kind.is_dir() => mode::DIR | 0o755,
            kind if kind.is_file() => 0o755,
            _ => mode::IRREGULAR,
        };
        Meta { mode, size_bytes: found.len(), device: (0, 0), identity: (0, 0) }
    }
}

/// Opens the folder of `parts` below `root`, one part after the other.
pub(super) fn descend<'a>(root: Dir, parts: impl Iterator<Item = &'a str>) -> io::Result<Dir> {
    parts.into_iter().try_fold(root, |dir, part| dir.dir(part))
}

/// Joins a folder and a path with `/` beneath it, for messages.
pub(super) fn shown(root: &Path, path: &str) -> PathBuf {
    if path.is_empty() { root.to_owned() } else { root.join(path) }
}
