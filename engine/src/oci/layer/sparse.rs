//! The maps of sparse files, in GNU tar's four forms.
//!
//! A map names the pieces of a file that are in the archive; between them the file is zero. Invariant: a [`Map`] is in order,
//! without overlaps and inside the file, and its pieces are exactly the bytes that the archive has.

use super::header::number;
use super::pax::decimal;

/// The pieces of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// Offset and length of each piece.
    pub(super) pieces: Vec<(u64, u64)>,
    /// The file's length with its holes.
    pub(super) real_size: u64,
}

impl Map {
    /// Checks pairs of offset and length against the file's size and the bytes that the archive has.
    pub(super) fn new(pairs: &[i64], real_size: i64, stored: u64) -> Result<Self, &'static str> {
        let broken = "its sparse map is impossible";
        let real_size = u64::try_from(real_size).map_err(|_| broken)?;
        let (chunks, rest) = pairs.as_chunks::<2>();
        let (mut end, mut sum) = (0u64, 0u64);
        let mut pieces = Vec::with_capacity(chunks.len());
        for [offset, length] in chunks {
            let (offset, length) = (u64::try_from(*offset).map_err(|_| broken)?, u64::try_from(*length).map_err(|_| broken)?);
            if offset < end {
                return Err(broken);
            }
            end = offset.checked_add(length).ok_or(broken)?;
            sum = sum.checked_add(length).ok_or(broken)?;
            if length > 0 {
                pieces.push((offset, length));
            }
        }
        if end > real_size || sum != stored || !rest.is_empty() {
            return Err(broken);
        }
        Ok(Self { pieces, real_size })
    }
}

/// Reads pairs of 12-byte numbers, as GNU's own headers have them; the first that is empty ends them.
pub(super) fn old_pairs(bytes: &[u8], pairs: &mut Vec<i64>) -> Result<(), &'static str> {
    for pair in bytes.as_chunks::<24>().0 {
        if pair[0] == 0 {
            break;
        }
        pairs.extend([number(&pair[..12])?, number(&pair[12..])?]);
    }
    Ok(())
}

/// The map of form 1.0, which stands in front of the content: numbers in lines of their own, how many pairs first.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    numbers: Vec<i64>,
}

impl Lines {
    /// Takes the next block. Returns the pairs once they are whole.
    pub(super) fn take(&mut self, block: &[u8]) -> Result<Option<Vec<i64>>, &'static str> {
        for &byte in block {
            if byte != b'\n' {
                self.text.push(byte);
                if self.text.len() > 20 {
                    return Err("its sparse map holds no number");
                }
                continue;
            }
            self.numbers.push(decimal(&self.text).ok_or("its sparse map holds no number")?);
            self.text.clear();
            let pairs = self.numbers[0];
            if pairs.checked_mul(2).and_then(|count| count.checked_add(1)) == i64::try_from(self.numbers.len()).ok() {
                return Ok(Some(self.numbers.split_off(1)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_overlap_or_leave_the_file_are_refused() {
        assert_eq!(Map::new(&[0, 2, 5, 1, 9, 0], 9, 3).unwrap().pieces, [(0, 2), (5, 1)]);
        assert_eq!(Map::new(&[], 1 << 40, 0).unwrap().real_size, 1 << 40);
        let broken: &[(&[i64], i64, u64)] = &[
            (&[0, 2, 1, 1], 9, 3),
            (&[0, 2], 1, 2),
            (&[0, 2], 9, 3),
            (&[0, 2], 9, 1),
            (&[5, 1, 0, 2], 9, 3),
            (&[-1, 2], 9, 2),
            (&[0, -2], 9, 0),
            (&[i64::MAX, i64::MAX, i64::MAX, i64::MAX], i64::MAX, 0),
            (&[0], 9, 0),
            (&[], -1, 0),
        ];
        for (pairs, size, stored) in broken {
            assert!(Map::new(pairs, *size, *stored).is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn lines_may_cross_blocks() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"2\n0\n1"), Ok(None));
        assert_eq!(lines.take(b"0\n512\n20\n\0\0"), Ok(Some(vec![0, 10, 512, 20])));
        assert_eq!(Lines::default().take(b"0\n"), Ok(Some(Vec::new())));
        assert!(Lines::default().take(b"-1\n5\n").is_ok_and(|pairs| pairs.is_none()));
        assert!(Lines::default().take(b"x\n").is_err() && Lines::default().take(&[b'1'; 512]).is_err());
    }
}
