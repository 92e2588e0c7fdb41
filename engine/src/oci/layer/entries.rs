//! The entries of a tar archive, one after the other, as Go's `archive/tar` reads them: what images are made for.
//!
//! ustar, PAX (with GNU's and star's records), GNU's long names and sparse files, star and V7. Invariant: an entry is returned
//! only when everything that describes it was read and makes sense; how it is *named* is the caller's to judge.

use std::io::{self, Read};

use super::UnpackError;
use super::header::{BLOCK_BYTES, Block, Header};
use super::limits::{Budget, Limits};
use super::pax::Overrides;
use super::sparse::{Lines, Map, old_pairs};
use super::xattrs::{self, Xattrs};

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its name as written.
    pub(crate) path: Vec<u8>,
    /// The bits of 0o7777.
    pub(crate) mode: u32,
    /// The owner.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The time, in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// The attributes that are content.
    pub(crate) xattrs: Xattrs,
    /// What it is.
    pub(crate) what: What,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A regular file, whose content [`Entries::content`] gives.
    File,
    /// A folder.
    Folder,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A hard link with the name of an earlier entry.
    Hardlink(Vec<u8>),
    /// A character device with its numbers.
    Char(u32, u32),
    /// A block device with its numbers.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// A piece of a file's content.
pub(crate) enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many zeros.
    Hole(u64),
}

/// Reads an archive.
pub(crate) struct Entries<R> {
    input: R,
    pub(super) budget: Budget,
    /// The entry at hand, for messages.
    at: String,
    offset: u64,
    /// Bytes of content that were not read yet, and of what fills the last block.
    unread: u64,
    padding: u64,
    /// Where the content belongs in a sparse file.
    map: Option<Map>,
}

impl<R: Read> Entries<R> {
    /// Reads from `input`, which should be buffered.
    pub(crate) fn new(input: R, limits: &Limits) -> Self {
        let at = "the start".to_owned();
        Self { input, budget: Budget::new(limits), at, offset: 0, unread: 0, padding: 0, map: None }
    }

    /// Returns the next entry; nothing at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let rest = std::mem::take(&mut self.unread) + std::mem::take(&mut self.padding);
        self.skip(rest)?;
        self.map = None;
        let (mut overrides, mut name, mut link) = (None, None, None);
        loop {
            let Some(block) = self.header()? else {
                return if overrides.is_none() && name.is_none() && link.is_none() { Ok(None) } else { Err(self.truncated()) };
            };
            let header = Header::new(&block).map_err(|reason| self.refused(reason))?;
            self.budget.entry(&self.at)?;
            let c_text = |mut text: Vec<u8>| {
                text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
                text
            };
            match header.letter() {
                b'x' => overrides = Some(Overrides::read(&self.extension(&header)?).map_err(|reason| self.refused(reason))?),
                // Containerd and Docker take no notice of what is said for all entries.
                b'g' => drop(self.extension(&header)?),
                b'L' => name = Some(c_text(self.extension(&header)?)),
                b'K' => link = Some(c_text(self.extension(&header)?)),
                _ => {
                    let mut overrides = overrides.unwrap_or_default();
                    overrides.path = name.or(overrides.path);
                    overrides.link = link.or(overrides.link);
                    return self.entry(&header, overrides).map(Some);
                }
            }
        }
    }

    /// Returns the length of the file that [`Entries::next`] returned last, holes counted.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.map.as_ref().map_or(self.unread, |map| map.real_size)
    }

    /// Gives the content of the file that [`Entries::next`] returned last to `sink`, zeros as holes where the archive has holes.
    pub(crate) fn content(&mut self, mut sink: impl FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), UnpackError> {
        let map = match self.map.take() {
            Some(map) => map,
            None => Map { pieces: vec![(0, self.unread)], real_size: self.unread },
        };
        self.unread = 0;
        let mut end = 0;
        for (offset, length) in map.pieces {
            if offset > end {
                self.written(sink(Piece::Hole(offset - end)))?;
            }
            self.data(length, &mut sink)?;
            end = offset + length;
        }
        if map.real_size > end {
            self.written(sink(Piece::Hole(map.real_size - end)))?;
        }
        Ok(())
    }

    /// Reads what follows the archive's end, so that whoever writes it can finish.
    pub(crate) fn drain(mut self) -> Result<(), UnpackError> {
        self.at = "the end".to_owned();
        let mut buffer = vec![0; 64 << 10];
        loop {
            match self.some(&mut buffer)? {
                0 => return Ok(()),
                length => self.budget.content(length as u64, &self.at)?,
            }
        }
    }

    /// Says that the entry at hand is refused.
    pub(crate) fn refused(&self, reason: impl Into<String>) -> UnpackError {
        UnpackError::Refused { entry: self.at.clone(), reason: reason.into() }
    }

    /// Says that the entry at hand cannot be written.
    pub(crate) fn written<T>(&self, result: io::Result<T>) -> Result<T, UnpackError> {
        result.map_err(|source| UnpackError::Write { entry: self.at.clone(), source })
    }

    /// Returns the name of the entry at hand, for messages.
    pub(crate) fn at(&self) -> &str {
        &self.at
    }

    /// Reads the next header; nothing at the end.
    fn header(&mut self) -> Result<Option<Block>, UnpackError> {
        let before = std::mem::replace(&mut self.at, format!("the header at byte {}", self.offset));
        let Some(block) = self.block()? else { return Ok(None) };
        if block.iter().any(|&byte| byte != 0) {
            return Ok(Some(block));
        }
        self.at = before;
        match self.block()? {
            Some(block) if block.iter().any(|&byte| byte != 0) => Err(self.refused("an empty block follows it, and then no end")),
            _ => Ok(None),
        }
    }

    /// Makes an entry of its header and what was said in front of it.
    fn entry(&mut self, header: &Header<'_>, overrides: Overrides) -> Result<Entry, UnpackError> {
        let path = overrides.path.unwrap_or_else(|| header.name());
        self.at = String::from_utf8_lossy(&path[..path.len().min(4096)]).into_owned();
        let at = self.at.clone();
        let refused = |reason: &'static str| UnpackError::Refused { entry: at.clone(), reason: reason.to_owned() };
        let or_header = |value: Option<i64>, field: Result<i64, &'static str>| value.map_or(field, Ok).map_err(refused);
        let id = |value: i64| {
            let id = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
            id.ok_or_else(|| refused("its owner is not a number from 0 to 4294967294"))
        };
        let link = overrides.link.unwrap_or_else(|| header.link().to_vec());
        let mut stored = u64::try_from(or_header(overrides.size, header.size())?).map_err(|_| refused("its size is negative"))?;
        let device = || {
            let (major, minor) = header.device().map_err(refused)?;
            let number = |number: i64, bits: u32| u32::try_from(number).ok().filter(|number| number >> bits == 0);
            number(major, 12).zip(number(minor, 20)).ok_or_else(|| refused("it is an impossible device"))
        };
        let what = match header.letter() {
            0 if path.ends_with(b"/") => What::Folder,
            b'0' | 0 | b'7' | b'S' => What::File,
            b'1' => What::Hardlink(link),
            b'2' => What::Symlink(link),
            b'3' => device().map(|(major, minor)| What::Char(major, minor))?,
            b'4' => device().map(|(major, minor)| What::Block(major, minor))?,
            b'5' => What::Folder,
            b'6' => What::Fifo,
            letter => return Err(self.refused(format!("its type is {:?}, which no image has", char::from(letter)))),
        };
        let mtime_ns = match overrides.mtime_ns {
            Some(time) => time,
            None => header.mtime().map_err(refused)?.saturating_mul(1_000_000_000),
        };
        let mode = (header.mode().map_err(refused)? & 0o7777) as u32;
        let (uid, gid) = (id(or_header(overrides.uid, header.uid())?)?, id(or_header(overrides.gid, header.gid())?)?);
        let xattrs: Xattrs = overrides.xattrs.into_iter().filter(|(name, _)| xattrs::is_content(name)).collect();
        if xattrs.iter().any(|(name, value)| name.len() > 255 || value.len() > 64 << 10) {
            return Err(refused("an extended attribute is longer than Linux has them"));
        }
        if matches!(what, What::File) {
            let pairs = self.sparse_pairs(header, &overrides.sparse, &mut stored)?;
            let map =
                pairs.map(|(pairs, size)| Map::new(&pairs, size, stored)).transpose().map_err(|reason| self.refused(reason))?;
            self.budget.content(map.as_ref().map_or(stored, |map| map.real_size), &self.at)?;
            self.padding = stored.next_multiple_of(BLOCK_BYTES as u64) - stored;
            (self.unread, self.map) = (stored, map);
        }
        Ok(Entry { path, mode, uid, gid, mtime_ns, xattrs, what })
    }

    /// Returns the pairs of a sparse file's map and the file's length; `stored` becomes the size of the pieces alone.
    fn sparse_pairs(
        &mut self,
        header: &Header<'_>,
        sparse: &super::pax::Sparse,
        stored: &mut u64,
    ) -> Result<Option<(Vec<i64>, i64)>, UnpackError> {
        if header.letter() == b'S' {
            let (bytes, mut more, size) = header.sparse().map_err(|reason| self.refused(reason))?;
            let mut pairs = Vec::new();
            old_pairs(bytes, &mut pairs).map_err(|reason| self.refused(reason))?;
            while more {
                self.budget.header(pairs.len() as u64 * 12, &self.at)?;
                let block = self.block()?.ok_or_else(|| self.truncated())?;
                old_pairs(&block[..504], &mut pairs).map_err(|reason| self.refused(reason))?;
                more = block[504] != 0;
            }
            return Ok(Some((pairs, size)));
        }
        match (sparse.major, sparse.minor) {
            (Some(1), Some(0)) => {
                let size = sparse.real_size.ok_or_else(|| self.refused("its sparse map has no size"))?;
                let (mut lines, mut read) = (Lines::default(), 0);
                loop {
                    read += BLOCK_BYTES as u64;
                    self.budget.header(read, &self.at)?;
                    *stored = stored.checked_sub(BLOCK_BYTES as u64).ok_or_else(|| self.refused("its sparse map is cut off"))?;
                    let block = self.block()?.ok_or_else(|| self.truncated())?;
                    if let Some(pairs) = lines.take(&block).map_err(|reason| self.refused(reason))? {
                        return Ok(Some((pairs, size)));
                    }
                }
            }
            (None | Some(0), None | Some(0 | 1)) if sparse.is_mapped => {
                let size = sparse.real_size.ok_or_else(|| self.refused("its sparse map has no size"))?;
                Ok(Some((sparse.map.clone(), size)))
            }
            (None, None) => Ok(None),
            _ => Err(self.refused("its sparse map is of an unknown form")),
        }
    }

    /// Reads what a header of a header holds.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, UnpackError> {
        let size = header.size().ok().and_then(|size| u64::try_from(size).ok());
        let size = size.ok_or_else(|| self.refused("its size is not possible"))?;
        self.budget.header(size, &self.at)?;
        self.budget.metadata(size as usize, &self.at)?;
        let mut content = vec![0; size as usize];
        if self.fill(&mut content)? < content.len() {
            return Err(self.truncated());
        }
        self.skip(size.next_multiple_of(BLOCK_BYTES as u64) - size)?;
        Ok(content)
    }

    /// Gives so many bytes to `sink`.
    fn data(&mut self, mut length: u64, sink: &mut impl FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), UnpackError> {
        let mut buffer = vec![0; length.min(128 << 10) as usize];
        while length > 0 {
            let wanted = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            let read = self.some(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(self.truncated());
            }
            length -= read as u64;
            self.written(sink(Piece::Data(&buffer[..read])))?;
        }
        Ok(())
    }

    fn skip(&mut self, length: u64) -> Result<(), UnpackError> {
        self.data(length, &mut |_| Ok(()))
    }

    /// Reads a block; nothing at the end of the input.
    fn block(&mut self) -> Result<Option<Block>, UnpackError> {
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            0 => Ok(None),
            BLOCK_BYTES => Ok(Some(block)),
            _ => Err(self.truncated()),
        }
    }

    /// Reads until `buffer` is full or the input ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.some(&mut buffer[filled..])? {
                0 => break,
                length => filled += length,
            }
        }
        Ok(filled)
    }

    fn some(&mut self, buffer: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            match self.input.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(UnpackError::Read { entry: self.at.clone(), source }),
                Ok(length) => {
                    self.offset += length as u64;
                    return Ok(length);
                }
            }
        }
    }

    fn truncated(&self) -> UnpackError {
        UnpackError::Truncated { entry: self.at.clone() }
    }
}
