//! One 512-byte header of a tar archive: V7, ustar, GNU and star.
//!
//! Invariant: a block is only taken apart once its checksum has been found right; no field is read beyond its bounds.

/// The size of headers and the unit of everything in an archive.
pub(super) const BLOCK_BYTES: usize = 512;

/// A block.
pub(super) type Block = [u8; BLOCK_BYTES];

/// A header whose checksum is right.
pub(super) struct Header<'a>(&'a Block);

impl<'a> Header<'a> {
    /// Checks a block.
    pub(super) fn new(block: &'a Block) -> Result<Self, &'static str> {
        let header = Self(block);
        let noted = header.number(148..156).map_err(|_| "its checksum is no number")?;
        let blank = |(i, byte): (usize, &u8)| if (148..156).contains(&i) { b' ' } else { *byte };
        let bytes = || block.iter().enumerate().map(blank);
        let unsigned: i64 = bytes().map(i64::from).sum();
        // Old programs summed signed characters.
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        if noted == unsigned || noted == signed { Ok(header) } else { Err("its checksum is wrong") }
    }

    /// Returns the letter of the type.
    pub(super) fn letter(&self) -> u8 {
        self.0[156]
    }

    /// Returns the name, with what ustar and star put in front of it.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = self.text(0..100);
        let prefix = match (&self.0[257..265], &self.0[508..512]) {
            (b"ustar\x0000", b"tar\0") => self.text(345..476),
            (b"ustar\x0000", _) => self.text(345..500),
            _ => &[],
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Returns what a link says.
    pub(super) fn link(&self) -> &'a [u8] {
        self.text(157..257)
    }

    /// Returns the mode, whatever bits it has.
    pub(super) fn mode(&self) -> Result<i64, &'static str> {
        self.number(100..108)
    }

    /// Returns the owner.
    pub(super) fn uid(&self) -> Result<i64, &'static str> {
        self.number(108..116)
    }

    /// Returns the group.
    pub(super) fn gid(&self) -> Result<i64, &'static str> {
        self.number(116..124)
    }

    /// Returns the size of the content that follows.
    pub(super) fn size(&self) -> Result<i64, &'static str> {
        self.number(124..136)
    }

    /// Returns the time in seconds.
    pub(super) fn mtime(&self) -> Result<i64, &'static str> {
        self.number(136..148)
    }

    /// Returns a device's numbers; V7 has none.
    pub(super) fn device(&self) -> Result<(i64, i64), &'static str> {
        if &self.0[257..262] == b"ustar" { Ok((self.number(329..337)?, self.number(337..345)?)) } else { Ok((0, 0)) }
    }

    /// Returns GNU's sparse map of this header: the bytes of its pairs, whether more follow in blocks of their own, the real size.
    pub(super) fn sparse(&self) -> Result<(&'a [u8], bool, i64), &'static str> {
        Ok((&self.0[386..482], self.0[482] != 0, self.number(483..495)?))
    }

    fn text(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        let field = &self.0[range];
        &field[..field.iter().position(|&byte| byte == 0).unwrap_or(field.len())]
    }

    fn number(&self, range: std::ops::Range<usize>) -> Result<i64, &'static str> {
        number(&self.0[range])
    }
}

/// Reads a number: octal digits, or GNU's base 256 where the first bit is set.
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    if field.first().is_some_and(|first| first & 0x80 != 0) {
        return base_256(field).ok_or("a number is too large");
    }
    let is_pad = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_pad(byte)).unwrap_or(field.len());
    let digits = &field[start..];
    let end = digits.iter().position(is_pad).unwrap_or(digits.len());
    if !digits[end..].iter().all(is_pad) {
        return Err("a number is followed by something else");
    }
    digits[..end].iter().try_fold(0i64, |number, digit| match digit {
        b'0'..=b'7' => number.checked_mul(8).map(|number| number | i64::from(digit - b'0')).ok_or("a number is too large"),
        _ => Err("a number has digits that are not octal"),
    })
}

/// Reads two's complement, big-endian, without the first bit.
fn base_256(field: &[u8]) -> Option<i64> {
    let first = i64::from(field[0] & 0x7f);
    let first = if first & 0x40 == 0 { first } else { first - 0x80 };
    field[1..].iter().try_fold(first, |number, byte| number.checked_mul(256).map(|number| number | i64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_written() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o77777777)),
            (b"\x80\0\0\0\0\0\x01\0", Some(256)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xfe\x00", Some(-512)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000644\0", None),
            (b"12 34\0\0\0", None),
            (b"0x1f\0\0\0\0", None),
        ] {
            assert_eq!(number(field).ok(), value, "{field:?}");
        }
    }
}
