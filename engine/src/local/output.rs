//! A result's files as a folder of the user's.
//!
//! The files come as an archive from a worker, which may read what belongs to other ids; they are
//! written by this process as what a daemon sends is.
//!
//! Invariant: nothing lands outside the folder, and the archive is read to its end or the error said.

use std::io::Read;
use std::path::Path;

use bollard_buildkit_proto::fsutil::types::Stat;

use super::trees::unpack::entries::{Entries, Entry, Piece, What};
use super::trees::unpack::{Limits, UnpackError};
use crate::Error;
use crate::buildkit::session::{FolderWriter, mode};

/// Zeros for the holes of sparse files.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Writes the files of an archive into a folder; what is there already is replaced file by file.
pub(super) fn write(tar: impl Read, dest: &Path) -> Result<(), Error> {
    let broken = |error: UnpackError| Error::Daemon { doing: "reading the result's files".to_owned(), reason: error.to_string() };
    let mut entries = Entries::new(tar, &Limits::default());
    let mut folder = FolderWriter::open(dest, &std::process::id().to_string())?;
    while let Some(entry) = entries.next().map_err(broken)? {
        let stat = stat(dest, entry, entries.size_bytes())?;
        folder.entry(stat, |write| {
            let mut failed = None;
            let read = entries.content(|piece| {
                let written = match piece {
                    Piece::Data(data) => write(data),
                    Piece::Hole(length) => zeros(length, write),
                };
                written.map_err(|error| {
                    failed = Some(error);
                    std::io::ErrorKind::Other.into()
                })
            });
            match failed {
                Some(error) => Err(error),
                None => read.map_err(broken),
            }
        })?;
    }
    entries.drain().map_err(broken)?;
    folder.finish()
}

fn zeros(mut length: u64, write: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    while length > 0 {
        let piece = usize::try_from(length).unwrap_or(usize::MAX).min(ZEROS.len());
        write(&ZEROS[..piece])?;
        length -= piece as u64;
    }
    Ok(())
}

/// Says of an entry what a daemon would.
fn stat(dest: &Path, entry: Entry, size_bytes: u64) -> Result<Stat, Error> {
    let text = |bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|error| {
            let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let source = std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                format!("the name {name:?} of the result is not UTF-8; write an archive instead: -o type=tar,dest=FILE"),
            );
            Error::Output { path: dest.to_owned(), source }
        })
    };
    let (kind, link, size_bytes) = match entry.what {
        What::File => (0, Vec::new(), size_bytes),
        What::Folder => (mode::DIR, Vec::new(), 0),
        What::Symlink(target) => (mode::SYMLINK, target, 0),
        What::Hardlink(to) => (0, to, 0),
        What::Char(..) => (mode::DEVICE | mode::CHAR_DEVICE, Vec::new(), 0),
        What::Block(..) => (mode::DEVICE, Vec::new(), 0),
        What::Fifo => (mode::PIPE, Vec::new(), 0),
    };
    Ok(Stat {
        path: text(entry.path)?.trim_end_matches('/').to_owned(),
        mode: kind | entry.mode & 0o777,
        size: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        mod_time: entry.mtime_ns,
        linkname: text(link)?,
        ..Stat::default()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::super::trees::pack::pack;
    use super::super::trees::tree::{Kind, Node, Tree};
    use super::*;
    use crate::Digest;

    /// The archive of a layer with these nodes; a file's content is its name.
    fn archive(nodes: &[(&str, u32, Kind)]) -> Vec<u8> {
        let files = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        for (path, mode, kind) in nodes {
            match kind {
                Kind::Folder { .. } => fs::create_dir(files.path().join(path)).unwrap(),
                Kind::File { .. } => fs::write(files.path().join(path), path).unwrap(),
                _ => {}
            }
            let node = Node { mode: *mode, uid: 7, gid: 8, mtime_ns: 1_000_000_000, xattrs: BTreeMap::new(), kind: kind.clone() };
            tree.nodes.insert(path.as_bytes().to_vec(), node);
        }
        let mut tar = Vec::new();
        pack(&tree, File::open(files.path()).unwrap().as_fd(), &mut tar, None).unwrap();
        tar
    }

    fn file(path: &str) -> Kind {
        Kind::File { size_bytes: path.len() as u64, digest: Digest::of(path.as_bytes()) }
    }

    #[test]
    fn files_links_folders_modes_and_times_are_written_and_devices_are_not() {
        let tar = archive(&[
            ("a", 0o4750, Kind::Folder { opaque: false }),
            ("a/file", 0o640, file("a/file")),
            ("a-b", 0o755, file("a-b")),
            ("again", 0o755, Kind::Hardlink { to: b"a-b".to_vec() }),
            ("device", 0o600, Kind::Char { major: 1, minor: 3 }),
            ("link", 0o777, Kind::Symlink { target: b"/etc/passwd".to_vec() }),
        ]);
        let outer = tempfile::tempdir().unwrap();
        let dest = outer.path().join("new/out");
        fs::create_dir_all(dest.join("a")).unwrap();
        fs::write(dest.join("a/file"), "old").unwrap();
        fs::write(dest.join("kept"), "").unwrap();
        for _ in 0..2 {
            write(&tar[..], &dest).unwrap();
            let read = |name: &str| fs::read_to_string(dest.join(name)).unwrap();
            assert_eq!((read("a/file"), read("a-b")), ("a/file".to_owned(), "a-b".to_owned()));
            let meta = |name: &str| fs::symlink_metadata(dest.join(name)).unwrap();
            assert_eq!((meta("a-b").ino(), meta("a-b").mtime()), (meta("again").ino(), 1));
            assert_eq!(meta("a/file").permissions().mode() & 0o7777, 0o640);
            assert_eq!(meta("a/file").uid(), rustix::process::geteuid().as_raw());
            assert_eq!(fs::read_link(dest.join("link")).unwrap(), Path::new("/etc/passwd"));
            assert!(!dest.join("device").exists() && dest.join("kept").exists());
        }
    }

    #[test]
    fn a_link_that_is_there_is_no_way_out() {
        let tar = archive(&[("a", 0o755, Kind::Folder { opaque: false }), ("a/file", 0o644, file("a/file"))]);
        let outer = tempfile::tempdir().unwrap();
        let dest = outer.path().join("out");
        fs::create_dir(&dest).unwrap();
        fs::create_dir(outer.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("../elsewhere", dest.join("a")).unwrap();
        assert!(matches!(write(&tar[..], &dest), Err(Error::Output { .. })));
        assert_eq!(fs::read_dir(outer.path().join("elsewhere")).unwrap().count(), 0);
        assert!(write(&tar[..tar.len() / 2], &outer.path().join("cut")).is_err());
    }
}
