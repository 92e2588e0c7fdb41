//! Headers as Go's `archive/tar` writes them in the PAX format, byte for byte.
//!
//! Invariant: a PAX header stands in front exactly where ustar's fields cannot hold something.

use std::collections::BTreeMap;

/// The unit of everything in an archive.
pub(super) const BLOCK_BYTES: usize = 512;

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    File = b'0' as isize,
    Hardlink = b'1' as isize,
    Symlink = b'2' as isize,
    Char = b'3' as isize,
    Block = b'4' as isize,
    Folder = b'5' as isize,
    Fifo = b'6' as isize,
}

/// What a header says.
pub(super) struct Header<'a> {
    pub(super) name: Vec<u8>,
    pub(super) link: &'a [u8],
    pub(super) letter: Letter,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) mtime_s: i64,
    pub(super) device: Option<(u32, u32)>,
    pub(super) xattrs: Vec<(&'a [u8], &'a [u8])>,
}

impl Header<'_> {
    /// The entry of a whiteout: an empty file without mode or owner, dated 1970.
    pub(super) fn whiteout(name: &[u8]) -> Self {
        Header {
            name: name.to_vec(),
            link: &[],
            letter: Letter::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime_s: 0,
            device: None,
            xattrs: Vec::new(),
        }
    }

    /// Returns the header's blocks.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut records = self.records();
        // A long name is split over ustar's two fields, but only where nothing else needs a PAX header.
        let split = split(&self.name).filter(|_| records.keys().all(|key| key == b"path"));
        if split.is_some() {
            records.clear();
        }
        let mut bytes = Vec::new();
        if !records.is_empty() {
            let records: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
            bytes.extend(extension(&self.name, records.len() as u64));
            bytes.extend_from_slice(&records);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        let (prefix, name) = split.unwrap_or((&[], &self.name));
        let mut block = [0; BLOCK_BYTES];
        text(&mut block[0..100], &ascii(name));
        octal(&mut block[100..108], i64::from(self.mode));
        octal(&mut block[108..116], i64::from(self.uid));
        octal(&mut block[116..124], i64::from(self.gid));
        octal(&mut block[124..136], i64::try_from(self.size).unwrap_or(0));
        octal(&mut block[136..148], self.mtime_s);
        block[156] = self.letter as u8;
        text(&mut block[157..257], &ascii(self.link));
        let (major, minor) = self.device.unwrap_or((0, 0));
        octal(&mut block[329..337], i64::from(major));
        octal(&mut block[337..345], i64::from(minor));
        text(&mut block[345..500], prefix);
        finish(&mut block);
        bytes.extend_from_slice(&block);
        bytes
    }

    /// Returns what ustar's fields cannot hold, by key.
    fn records(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        let mut put = |key: &[u8], value: &[u8]| drop(records.insert(key.to_vec(), value.to_vec()));
        if !self.name.is_ascii() || self.name.len() > 100 {
            put(b"path", &self.name);
        }
        if !self.link.is_ascii() || self.link.len() > 100 {
            put(b"linkpath", self.link);
        }
        for (key, number, width) in [
            (&b"uid"[..], i64::from(self.uid), 8),
            (b"gid", i64::from(self.gid), 8),
            (b"size", i64::try_from(self.size).unwrap_or(i64::MAX), 12),
            (b"mtime", self.mtime_s, 12),
        ] {
            if !fits(number, width) {
                put(key, number.to_string().as_bytes());
            }
        }
        for (name, value) in &self.xattrs {
            put(&[b"SCHILY.xattr.", *name].concat(), value);
        }
        records
    }
}

/// Returns the header of a PAX header.
fn extension(name: &[u8], size: u64) -> [u8; BLOCK_BYTES] {
    let cut = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let mut place = ascii(&[&name[..cut], b"PaxHeaders.0/", &name[cut..]].concat());
    place.truncate(100);
    while place.last() == Some(&b'/') {
        place.pop();
    }
    let mut block = [0; BLOCK_BYTES];
    text(&mut block[0..100], &place);
    for range in [100..108, 108..116, 116..124, 136..148] {
        octal(&mut block[range], 0);
    }
    octal(&mut block[124..136], i64::try_from(size).unwrap_or(0));
    block[156] = b'x';
    finish(&mut block);
    block
}

/// Writes ustar's magic and the checksum.
fn finish(block: &mut [u8; BLOCK_BYTES]) {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: i64 = block.iter().map(|&byte| i64::from(byte)).sum();
    octal(&mut block[148..155], sum);
}

/// Splits a name so that the end fits ustar's name and the start its prefix.
fn split(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= 100 || !name.is_ascii() {
        return None;
    }
    // A folder's own slash is no place to split; Go looks for it only in names that are short enough.
    let end = if name.len() > 156 { 156 } else { name.len() - usize::from(name.ends_with(b"/")) };
    let slash = name[..end].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (!prefix.is_empty() && prefix.len() <= 155 && !rest.is_empty() && rest.len() <= 100).then_some((prefix, rest))
}

/// Writes a record; its length counts its own digits.
fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() > rest.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Leaves out what is not ASCII.
fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect()
}

fn text(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
    if text.len() > field.len() && field[length - 1] == b'/' {
        // Some readers take what ends in a slash for a folder.
        let kept = field[..length - 1].iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
        field[kept] = 0;
    }
}

/// Writes octal digits with a NUL at the end; 0 where there is no room, since a record has the number then.
fn octal(field: &mut [u8], number: i64) {
    let number = if fits(number, field.len()) { number } else { 0 };
    let digits = format!("{number:0width$o}\0", width = field.len() - 1);
    field.copy_from_slice(digits.as_bytes());
}

fn fits(number: i64, width: usize) -> bool {
    number >= 0 && number < 1 << ((width - 1) * 3)
}
