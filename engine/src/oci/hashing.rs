//! Hashes and counts bytes while they pass.
//!
//! Invariant: what is reported is of exactly the bytes that the other side took or gave.

use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// A reader or writer with the sha256 and the number of the bytes that passed it.
pub struct Hashing<T> {
    inner: T,
    hash: Sha256,
    size_bytes: u64,
}

impl<T> Hashing<T> {
    /// Begins with nothing passed.
    pub fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new(), size_bytes: 0 }
    }

    /// Returns how many bytes passed.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Ends with what was wrapped, and the digest and number of the bytes.
    pub fn finish(self) -> (T, Digest, u64) {
        (self.inner, Digest::from_sha256(self.hash.finalize().into()), self.size_bytes)
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.pass(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_either_way_is_hashed() {
        let mut reader = Hashing::new(&b"abc"[..]);
        let mut writer = Hashing::new(Vec::new());
        io::copy(&mut reader, &mut writer).unwrap();
        assert_eq!(reader.size_bytes(), 3);
        let (_, read, _) = reader.finish();
        let (bytes, written, size) = writer.finish();
        assert_eq!((bytes.as_slice(), read, written, size), (&b"abc"[..], Digest::of(b"abc"), Digest::of(b"abc"), 3));
    }

    #[test]
    fn what_the_other_side_did_not_take_is_not_hashed() {
        let mut room = [0; 2];
        let mut writer = Hashing::new(&mut room[..]);
        assert_eq!(writer.write(b"abc").unwrap(), 2);
        assert_eq!(writer.finish().1, Digest::of(b"ab"));
    }
}
