//! Copies that unpack archives, as Dockerfile's ADD does.
//!
//! Plain, gzip and zstd; names, links and owners as `moby/go-archive` takes them. Invariant: the archive's links lead no further
//! than the folder that it is unpacked into.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write as _};

use rustix::fs::FileType;

use super::place::Place;
use super::{FileError, Source, root};
use crate::local::trees::tree::Kind;
use crate::local::trees::unpack::Limits;
use crate::local::trees::unpack::UnpackError;
use crate::local::trees::unpack::entries::{Entries, Entry, Piece, What};
use crate::local::trees::{beneath, path};

/// Unpacks `from` under `to`. Says whether it is an archive.
pub(super) fn unpack(
    place: &mut Place<'_>,
    source: &Source<'_>,
    from: &[u8],
    to: &[u8],
    owner: Option<(u32, u32)>,
    time_ns: Option<i64>,
) -> Result<bool, FileError> {
    let found = root::resolve(source.root, from, true).map_err(FileError::system("look up", from))?;
    let stat = beneath::stat(source.root, &found).map_err(FileError::system("look at", from))?;
    if stat.is_none_or(|stat| beneath::kind(&stat) != FileType::RegularFile) {
        return Ok(false);
    }
    let mut file = beneath::file(source.root, &found).map_err(FileError::system("open", from))?;
    if !is_archive(&mut file, from)? {
        return Ok(false);
    }
    let dest = place.resolve(to, true)?;
    place.make_folders(&dest, 0o755, owner, time_ns)?;
    let folder = place.open_folder(&dest)?;
    let archive = |error| FileError::Archive { path: path::shown(&found), source: error };
    file.rewind().map_err(FileError::system("read", from))?;
    let mut entries = Entries::new(decompressed(file, from)?, &Limits::default());
    let mut unpacking = Unpacking { place: place.inside(&folder, &dest), owner, folders: Vec::new() };
    while let Some(entry) = entries.next().map_err(archive)? {
        unpacking.entry(&mut entries, entry, &archive)?;
    }
    // Innermost first: what was put in changed the times.
    for (folder, time) in unpacking.folders.iter().rev() {
        if unpacking.place.stat(folder)?.is_some_and(|stat| beneath::kind(&stat) == FileType::Directory) {
            unpacking.place.set_time(folder, *time)?;
        }
    }
    Ok(true)
}

/// Says whether a file starts as an archive does.
fn is_archive(file: &mut File, from: &[u8]) -> Result<bool, FileError> {
    let file = file.try_clone().map_err(FileError::system("open", from))?;
    Ok(matches!(Entries::new(decompressed(file, from)?, &Limits::default()).next(), Ok(Some(_))))
}

fn decompressed(mut file: File, from: &[u8]) -> Result<Box<dyn Read>, FileError> {
    let failed = || FileError::system("read", from);
    let mut start = Vec::new();
    Read::by_ref(&mut file).take(6).read_to_end(&mut start).map_err(failed())?;
    file.rewind().map_err(failed())?;
    let file = BufReader::with_capacity(256 << 10, file);
    let unknown = |name| {
        let reason = format!(
            "it is compressed with {name}, which is not unpacked here: copy it and unpack it in a step, or give it as gzip or zstd"
        );
        Err(FileError::refused(from, reason))
    };
    match &start[..] {
        [0x1f, 0x8b, 8, ..] => Ok(Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file)))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(BufReader::new(zstd::Decoder::with_buffer(file).map_err(failed())?))),
        [b'B', b'Z', b'h', ..] => unknown("bzip2"),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => unknown("xz"),
        _ => Ok(Box::new(file)),
    }
}

/// An archive on its way into a folder.
struct Unpacking<'a> {
    place: Place<'a>,
    owner: Option<(u32, u32)>,
    /// Folders with the times that they get in the end.
    folders: Vec<(Vec<u8>, i64)>,
}

impl Unpacking<'_> {
    fn entry<R: Read>(
        &mut self,
        entries: &mut Entries<R>,
        entry: Entry,
        archive: &impl Fn(UnpackError) -> FileError,
    ) -> Result<(), FileError> {
        let names = path::names(&entry.path).ok_or_else(|| archive(entries.refused("its path leads out of the folder")))?;
        let Some((last, folders)) = names.split_last() else { return Ok(()) };
        let folder = self.place.resolve(&folders.join(&b'/'), true)?;
        self.place.make_folders(&folder, 0o755, Some((0, 0)), None)?;
        let path = path::join(&folder, last);
        let before = self.place.stat(&path)?.map(|stat| beneath::kind(&stat));
        let merges = before == Some(FileType::Directory) && entry.what == What::Folder;
        let target = match &entry.what {
            What::Hardlink(target) => {
                let names = path::names(target).filter(|names| !names.is_empty());
                let names = names.ok_or_else(|| archive(entries.refused("it is a hard link out of the folder")))?;
                let (last, folders) = names.split_last().expect("there is a name");
                Some(path::join(&self.place.resolve(&folders.join(&b'/'), true)?, last))
            }
            _ => None,
        };
        if before.is_some() && !merges {
            self.place.remove(&path)?;
        }
        match &entry.what {
            What::File => {
                let mut file = self.place.make_file(&path)?;
                let mut size = 0;
                let write = |piece: Piece<'_>| -> io::Result<()> {
                    match piece {
                        Piece::Data(bytes) => {
                            size += bytes.len() as u64;
                            file.write_all(bytes)
                        }
                        Piece::Hole(length) => {
                            size += length;
                            file.set_len(size)?;
                            file.seek(io::SeekFrom::Start(size)).map(drop)
                        }
                    }
                };
                entries.content(write).map_err(archive)?;
            }
            What::Folder if merges => {}
            What::Folder => self.place.make_folder(&path, 0o700)?,
            What::Symlink(target) => self.place.make_symlink(&path, target)?,
            What::Hardlink(_) => self.place.make_link(&path, &target.expect("it was found above"))?,
            What::Char(major, minor) => self.place.make_node(&path, &Kind::Char { major: *major, minor: *minor })?,
            What::Block(major, minor) => self.place.make_node(&path, &Kind::Block { major: *major, minor: *minor })?,
            What::Fifo => self.place.make_node(&path, &Kind::Fifo)?,
        }
        self.place.set_owner(&path, self.owner.unwrap_or((entry.uid, entry.gid)))?;
        self.place.set_xattrs(&path, &entry.xattrs)?;
        let is_link = self.place.stat(&path)?.is_some_and(|stat| beneath::kind(&stat) == FileType::Symlink);
        if !is_link {
            self.place.set_mode(&path, entry.mode)?;
        }
        self.place.set_time(&path, entry.mtime_ns)?;
        if entry.what == What::Folder {
            self.folders.push((path, entry.mtime_ns));
        }
        Ok(())
    }
}
