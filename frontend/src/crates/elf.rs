//! As much of ELF as finds a section by its name (`elf(5)`), in a program that is in memory.
//!
//! Invariant: what lies outside of the program is not there, whatever the headers say.

use std::ops::Range;

/// A section without bytes in the file.
const NOBITS: u64 = 8;
/// Says that the number is too large for its place, and stands in the first section's header.
const ELSEWHERE: u64 = 0xffff;

/// Returns the bytes of the first section of a name.
pub(super) fn section<'a>(program: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let shape = Shape::of(program)?;
    let (table, size, count, names) = if shape.wide { (0x28, 0x3a, 0x3c, 0x3e) } else { (0x20, 0x2e, 0x30, 0x32) };
    let table = usize::try_from(shape.word(program, table)?).ok().filter(|at| *at > 0)?;
    let size = usize::from(u16::try_from(shape.number(program, size, 2)?).ok()?);
    let (count, names) = (shape.number(program, count, 2)?, shape.number(program, names, 2)?);
    if size < if shape.wide { 64 } else { 40 } {
        return None;
    }
    let headers = program.get(table..)?;
    let first = Header::read(&shape, headers)?;
    let count = if count == 0 { first.size } else { count };
    let names = if names == ELSEWHERE { first.link } else { names };
    let header = |number: u64| {
        let at = usize::try_from(number).ok()?.checked_mul(size)?;
        Header::read(&shape, headers.get(at..)?)
    };
    let names = program.get(header(names)?.range()?)?;
    let is_named = |header: &Header| {
        let text = usize::try_from(header.name).ok().and_then(|at| names.get(at..)).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    };
    // The table ends with the file, whatever it says of itself.
    let found = (0..count).map_while(header).find(is_named)?;
    if found.kind == NOBITS { Some(&[]) } else { program.get(found.range()?) }
}

/// The widths and the byte order of a program's numbers.
struct Shape {
    wide: bool,
    big: bool,
}

impl Shape {
    fn of(program: &[u8]) -> Option<Self> {
        let start = program.get(..6).filter(|start| start.starts_with(b"\x7fELF"))?;
        matches!((start[4], start[5]), (1 | 2, 1 | 2)).then_some(Self { wide: start[4] == 2, big: start[5] == 2 })
    }

    fn number(&self, bytes: &[u8], at: usize, length: usize) -> Option<u64> {
        let bytes = bytes.get(at..at + length)?;
        let step = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        Some(if self.big { bytes.iter().fold(0, step) } else { bytes.iter().rev().fold(0, step) })
    }

    /// Reads an address, an offset or a size.
    fn word(&self, bytes: &[u8], at: usize) -> Option<u64> {
        self.number(bytes, at, if self.wide { 8 } else { 4 })
    }
}

/// What is used of a section's header.
struct Header {
    name: u64,
    kind: u64,
    offset: u64,
    size: u64,
    link: u64,
}

impl Header {
    fn read(shape: &Shape, bytes: &[u8]) -> Option<Self> {
        let (offset, size, link) = if shape.wide { (24, 32, 40) } else { (16, 20, 24) };
        Some(Self {
            name: shape.number(bytes, 0, 4)?,
            kind: shape.number(bytes, 4, 4)?,
            offset: shape.word(bytes, offset)?,
            size: shape.word(bytes, size)?,
            link: shape.number(bytes, link, 4)?,
        })
    }

    fn range(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset).ok()?;
        Some(start..start.checked_add(usize::try_from(self.size).ok()?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of sections alone: the first is empty, the second holds the names, the third `text`.
    fn program(wide: bool, big: bool, text: &[u8]) -> Vec<u8> {
        let names = b"\0.names\0.dep-v0\0";
        let (head, entry) = if wide { (64, 64) } else { (52, 40) };
        let mut bytes = vec![0; head];
        bytes[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(wide), 1 + u8::from(big)]);
        let texts = bytes.len() + names.len();
        bytes.extend_from_slice(names);
        bytes.extend_from_slice(text);
        let table = bytes.len();
        bytes.resize(table + 3 * entry, 0);
        let mut put = |at: usize, length: usize, number: usize| {
            let number = number.to_be_bytes();
            let mut number = number[number.len() - length..].to_vec();
            if !big {
                number.reverse();
            }
            bytes[at..at + length].copy_from_slice(&number);
        };
        let word = if wide { 8 } else { 4 };
        let (places, fields) = if wide { ([0x28, 0x3a, 0x3c, 0x3e], [24, 32]) } else { ([0x20, 0x2e, 0x30, 0x32], [16, 20]) };
        for (at, length, number) in [(0, word, table), (1, 2, entry), (2, 2, 3), (3, 2, 1)] {
            put(places[at], length, number);
        }
        for (number, name, offset, size) in [(1, 1, head, names.len()), (2, 8, texts, text.len())] {
            let header = table + number * entry;
            put(header, 4, name);
            put(header + 4, 4, 1);
            put(header + fields[0], word, offset);
            put(header + fields[1], word, size);
        }
        bytes
    }

    #[test]
    fn a_section_is_found_by_its_whole_name_in_every_shape() {
        for (wide, big) in [(false, false), (false, true), (true, false), (true, true)] {
            let program = program(wide, big, b"list");
            assert_eq!(section(&program, ".dep-v0"), Some(&b"list"[..]), "{wide} {big}");
            assert_eq!(section(&program, ".dep"), None, "{wide} {big}");
            assert_eq!(section(&program, ".names").unwrap().len(), 16);
        }
    }

    #[test]
    fn numbers_that_are_too_large_for_their_place_stand_in_the_first_header() {
        let mut program = program(true, false, b"list");
        let table = program.len() - 3 * 64;
        program[0x3c..0x40].copy_from_slice(&[0, 0, 0xff, 0xff]);
        program[table + 32] = 3;
        program[table + 40] = 1;
        assert_eq!(section(&program, ".dep-v0"), Some(&b"list"[..]));
    }

    #[test]
    fn nothing_outside_of_the_program_is_read() {
        let whole = program(true, false, b"list");
        // The end of the last header is nothing that is used.
        for length in 0..whole.len() - 20 {
            let cut = section(&whole[..length], ".dep-v0");
            assert!(cut.is_none(), "{length}");
        }
        // Every field that can lead out, led out.
        for at in (0x28..0x40).chain(whole.len() - 128..whole.len()) {
            for value in [0xff, 0x7f, 0x80] {
                let mut odd = whole.clone();
                odd[at] = value;
                let _ = section(&odd, ".dep-v0");
                odd[at..].fill(value);
                let _ = section(&odd, ".dep-v0");
            }
        }
        assert_eq!(section(b"#!/bin/sh\n", ".dep-v0"), None);
        assert_eq!(section(&std::fs::read("/proc/self/exe").unwrap_or_default(), ".no-such-section"), None);
    }

    #[test]
    fn a_huge_count_ends_with_the_file() {
        let mut program = program(true, false, b"list");
        let table = program.len() - 3 * 64;
        program[0x3c..0x3e].fill(0);
        program[table + 32..table + 40].fill(0xff);
        assert_eq!(section(&program, ".other"), None);
    }
}
