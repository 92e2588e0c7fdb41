//! As much of ELF as says which loader a program needs (`elf(5)`).

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A program segment's type: what a loader links.
const DYNAMIC: u64 = 2;
/// A program segment's type: the loader's path.
const INTERPRETER: u64 = 3;
/// No description of a segment is longer; there are 65535 at most.
const SEGMENT_MAX: u64 = 64;
/// No path is longer.
const PATH_MAX: u64 = 4096;

/// What a file is to a loader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Elf {
    /// No ELF file.
    Other,
    /// An object that is linked by a linker, or a static program.
    Static,
    /// A shared object, or a program that names its loader.
    Dynamic {
        /// The loader.
        loader: Option<PathBuf>,
    },
}

/// The places of what is read, which differ with the width of addresses.
struct Shape {
    wide: bool,
    big: bool,
}

impl Shape {
    /// Reads a number of `bytes` bytes.
    fn number(&self, data: &[u8], offset: usize, bytes: usize) -> Option<u64> {
        let data = data.get(offset..offset + bytes)?;
        let step = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        Some(if self.big { data.iter().fold(0, step) } else { data.iter().rev().fold(0, step) })
    }

    /// Reads an address or an offset: `narrow` and `wide` are its places.
    fn word(&self, data: &[u8], narrow: usize, wide: usize) -> Option<u64> {
        if self.wide { self.number(data, wide, 8) } else { self.number(data, narrow, 4) }
    }

    fn half(&self, data: &[u8], narrow: usize, wide: usize) -> Option<u64> {
        self.number(data, if self.wide { wide } else { narrow }, 2)
    }
}

/// Reads what a file is.
pub(super) fn read(path: &Path) -> io::Result<Elf> {
    let file = File::open(path)?;
    let mut header = [0; 64];
    let length = fill(&file, &mut header, 0)?;
    let header = &header[..length];
    if length < 52 || header[..4] != *b"\x7fELF" {
        return Ok(Elf::Other);
    }
    let shape = Shape { wide: header[4] == 2, big: header[5] == 2 };
    let table = || Some((shape.word(header, 28, 32)?, shape.half(header, 42, 54)?, shape.half(header, 44, 56)?));
    let Some((table, size, count)) = table() else { return Ok(Elf::Other) };
    let size = usize::try_from(size.clamp(1, SEGMENT_MAX)).expect("it is small");
    let mut segments = vec![0; size * usize::try_from(count).unwrap_or(0)];
    let length = fill(&file, &mut segments, table)?;
    let (mut dynamic, mut loader) = (false, None);
    for segment in segments[..length].chunks_exact(size) {
        match shape.number(segment, 0, 4) {
            Some(DYNAMIC) => dynamic = true,
            Some(INTERPRETER) => {
                let (Some(offset), Some(size)) = (shape.word(segment, 4, 8), shape.word(segment, 16, 32)) else { continue };
                let mut name = vec![0; usize::try_from(size.min(PATH_MAX)).unwrap_or(0)];
                let length = fill(&file, &mut name, offset)?;
                let name = name[..length].split(|&byte| byte == 0).next().unwrap_or_default();
                loader = Some(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
            }
            _ => {}
        }
    }
    // A static program that is independent of its address has a dynamic segment, and no needs.
    Ok(if loader.is_some() || dynamic { Elf::Dynamic { loader } } else { Elf::Static })
}

/// Reads from `offset` until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    // Beyond what the kernel counts to there is nothing to read.
    while done < buffer.len() && i64::try_from(offset).is_ok_and(|offset| offset < i64::MAX - i64::from(u32::MAX)) {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            length => done += length,
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_names_its_loader_or_is_static() {
        let loader = match read(Path::new("/proc/self/exe")).unwrap() {
            Elf::Dynamic { loader: Some(loader) } => loader,
            other => panic!("{other:?}"),
        };
        assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
    }

    #[test]
    fn numbers_are_read_in_both_orders_and_widths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elf");
        // A 32-bit file of the other byte order with one segment, the loader's path.
        let mut bytes = vec![0; 52 + 32];
        bytes[..6].copy_from_slice(b"\x7fELF\x01\x02");
        bytes[31] = 52;
        bytes[43] = 32;
        bytes[45] = 1;
        bytes[52 + 3] = 3;
        bytes[52 + 7] = 84;
        bytes[52 + 19] = 5;
        bytes.extend(b"/ld\0\0");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), Elf::Dynamic { loader: Some("/ld".into()) });
        bytes[52 + 3] = 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path).unwrap(), Elf::Static);
    }

    #[test]
    fn what_is_cut_short_or_no_elf_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("elf");
        let whole = std::fs::read("/proc/self/exe").unwrap();
        for length in [0, 3, 4, 51, 52, 63, 64, 100, 500] {
            std::fs::write(&path, &whole[..length]).unwrap();
            read(&path).unwrap();
        }
        std::fs::write(&path, "#!/bin/sh\n".repeat(10)).unwrap();
        assert_eq!(read(&path).unwrap(), Elf::Other);
        std::fs::write(&path, [b"\x7fELF\x02\x01".as_slice(), &[0xff; 90]].concat()).unwrap();
        read(&path).unwrap();
    }
}
