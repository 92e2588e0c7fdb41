//! The records of a PAX header (POSIX.1-2001, pax Interchange Format): `LENGTH KEY=VALUE\n`.
//!
//! Invariant: a header is taken whole or not at all, and no record overrides a field with something that the field cannot be.

use std::collections::BTreeMap;

/// What a PAX header, or GNU's long names, say of the next entry.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<i64>,
    pub(super) uid: Option<i64>,
    pub(super) gid: Option<i64>,
    pub(super) mtime_ns: Option<i64>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Sparse,
}

/// What GNU tar's records say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    /// The file's length with its holes.
    pub(super) real_size: Option<i64>,
    /// Offsets and lengths in turn.
    pub(super) map: Vec<i64>,
    /// Whether there is a map, even one of no pairs.
    pub(super) is_mapped: bool,
}

impl Overrides {
    /// Reads the records of one header.
    pub(super) fn read(mut records: &[u8]) -> Result<Self, &'static str> {
        let mut overrides = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records).ok_or("a pax record is malformed")?;
            overrides.take(key, value)?;
            records = rest;
        }
        Ok(overrides)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) {
                return Err("an extended attribute's name is impossible");
            }
            self.xattrs.insert(name.to_vec(), value.to_vec());
            return Ok(());
        }
        let set = |field: &mut Option<i64>| -> Result<(), &'static str> {
            *field = if value.is_empty() { None } else { Some(decimal(value).ok_or("a pax record holds no number")?) };
            Ok(())
        };
        let text = || {
            if value.contains(&0) { Err("a path contains NUL") } else { Ok(Some(value.to_vec()).filter(|text| !text.is_empty())) }
        };
        match key {
            b"path" | b"GNU.sparse.name" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            b"size" => set(&mut self.size)?,
            b"uid" => set(&mut self.uid)?,
            b"gid" => set(&mut self.gid)?,
            b"mtime" => self.mtime_ns = if value.is_empty() { None } else { Some(time_ns(value).ok_or("a time is malformed")?) },
            b"GNU.sparse.major" => set(&mut self.sparse.major)?,
            b"GNU.sparse.minor" => set(&mut self.sparse.minor)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => set(&mut self.sparse.real_size)?,
            b"GNU.sparse.numblocks" => self.sparse.is_mapped = true,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                // Pairs, an offset first: anything else is caught when the map is checked.
                if self.sparse.map.len().is_multiple_of(2) != (key == b"GNU.sparse.offset") {
                    return Err("a sparse map has no pairs");
                }
                self.sparse.is_mapped = true;
                self.sparse.map.push(decimal(value).ok_or("a sparse map holds no number")?);
            }
            b"GNU.sparse.map" => {
                self.sparse.is_mapped = true;
                let numbers = value.split(|&byte| byte == b',').filter(|number| !(number.is_empty() && value.is_empty()));
                self.sparse.map = numbers.map(decimal).collect::<Option<_>>().ok_or("a sparse map holds no number")?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Cuts the first record off.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&records[..space])?).ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    (equals > 0).then_some((&record[..equals], &record[equals + 1..], rest))
}

/// Reads decimal digits, with a `-` where the number is negative.
pub(super) fn decimal(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads seconds with a fraction; what is finer than a nanosecond is cut off, what no clock has becomes the last that one has.
fn time_ns(text: &[u8]) -> Option<i64> {
    let (seconds, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut digits = [b'0'; 9];
    let length = fraction.len().min(9);
    digits[..length].copy_from_slice(&fraction[..length]);
    let nanoseconds = decimal(&digits)?;
    let nanoseconds = if text.starts_with(b"-") { -nanoseconds } else { nanoseconds };
    Some(decimal(seconds)?.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds() {
        for (text, time) in [
            ("1.5", Some(1_500_000_000)),
            ("-1.5", Some(-1_500_000_000)),
            ("-0.25", Some(-250_000_000)),
            ("1700000000.1234567891", Some(1_700_000_000_123_456_789)),
            ("9223372036854775807", Some(i64::MAX)),
            ("1e9", None),
            ("", None),
            (".5", None),
            ("1.x", None),
        ] {
            assert_eq!(time_ns(text.as_bytes()), time, "{text}");
        }
    }

    #[test]
    fn records_are_cut_by_their_length() {
        let overrides = Overrides::read(b"11 path=a\nb\n12 size=123\n19 SCHILY.xattr.a==\n").unwrap_err();
        assert_eq!(overrides, "a pax record is malformed");
        let overrides = Overrides::read(b"12 path=a\nb\n12 size=123\n21 SCHILY.xattr.a=\0=\n8 uid=7\n7 uid=\n").unwrap();
        assert_eq!((overrides.path.as_deref(), overrides.size, overrides.uid), (Some(&b"a\nb"[..]), Some(123), None));
        assert_eq!(overrides.xattrs[&b"a"[..]], b"\0=");
        for bad in
            ["5 a=b", "x a=b\n", "6a=bc\n", "6 abc\n", "5 =b\n", "3 a\n", "99 a=b\n", "-6 a=b\n", "0 a=b\n", "2 ", " a=b\n"]
        {
            assert!(Overrides::read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
