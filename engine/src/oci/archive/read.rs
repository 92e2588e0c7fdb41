//! Finds the files of a tar without unpacking it.
//!
//! Invariant: a place lies within the archive, and what is hostile costs no more memory than the
//! limits say. A symbolic link within the archive is another name of its file, as docker writes layers that occur twice; other
//! links, devices and names that lead upwards are passed over.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use super::BLOCK_BYTES;

/// The most entries of an archive.
const MAX_ENTRIES: usize = 100_000;
/// The longest name, and the longest head of pax.
const MAX_HEAD_BYTES: u64 = 64 << 10;

/// Returns where the content of each regular file begins and how long it is, by the file's name. Of
/// files with one name the last counts.
pub(in crate::oci) fn places(archive: &mut (impl Read + Seek)) -> io::Result<BTreeMap<String, (u64, u64)>> {
    let end = archive.seek(SeekFrom::End(0))?;
    let (mut places, mut links) = (BTreeMap::new(), Vec::new());
    let (mut at, mut count) = (0, 0);
    // What a head of its own says of the entry that follows.
    let (mut long_name, mut long_size) = (None, None);
    while end - at >= BLOCK_BYTES as u64 {
        archive.seek(SeekFrom::Start(at))?;
        let mut head = [0; BLOCK_BYTES];
        archive.read_exact(&mut head)?;
        if head.iter().all(|byte| *byte == 0) {
            return Ok(with_links(places, links));
        }
        if at == 0 && is_compressed(&head) {
            return Err(invalid("it is compressed; decompress it first"));
        }
        if !is_summed_up(&head) {
            return Err(invalid(&format!("it is no tar, or damaged at byte {at}")));
        }
        count += 1;
        if count > MAX_ENTRIES {
            return Err(invalid(&format!("it has more than {MAX_ENTRIES} entries")));
        }
        let own_size = size_of(&head).ok_or_else(|| invalid(&format!("the size at byte {at} is no number")))?;
        let kind = head[156];
        let is_head = matches!(kind, b'x' | b'g' | b'L' | b'K');
        let size = if is_head { own_size } else { long_size.take().unwrap_or(own_size) };
        let begins = at + BLOCK_BYTES as u64;
        let ends = begins.checked_add(size).filter(|ends| *ends <= end);
        let ends = ends.ok_or_else(|| invalid(&format!("it ends within the entry at byte {at}")))?;
        if is_head && size > MAX_HEAD_BYTES {
            return Err(invalid(&format!("the head at byte {at} is larger than {} KiB", MAX_HEAD_BYTES >> 10)));
        }
        match kind {
            b'x' | b'L' => {
                let mut content = vec![0; usize::try_from(size).expect("a head is small")];
                archive.read_exact(&mut content)?;
                if kind == b'L' {
                    long_name = Some(text(&content));
                } else {
                    let records = pax(&content).ok_or_else(|| invalid(&format!("the pax head at byte {at} is malformed")))?;
                    long_name = records.get("path").map(|name| (*name).to_owned()).or(long_name);
                    let size = records.get("size").map(|size| size.parse().map_err(|_| invalid("a size of pax is no number")));
                    long_size = size.transpose()?;
                }
            }
            b'g' | b'K' => {}
            kind => {
                let name = long_name.take().unwrap_or_else(|| name_of(&head));
                match (kind, inside(&name)) {
                    (b'0' | 0 | b'7', Some(name)) => drop(places.insert(name, (begins, size))),
                    (b'2', Some(name)) => links.push((name, text(&head[157..257]))),
                    _ => {}
                }
            }
        }
        at = ends.next_multiple_of(BLOCK_BYTES as u64).min(end);
    }
    if at < end { Err(invalid("it ends within an entry's head")) } else { Ok(with_links(places, links)) }
}

/// Gives files the names that links to them have; a link to a link leads nowhere.
fn with_links(mut places: BTreeMap<String, (u64, u64)>, links: Vec<(String, String)>) -> BTreeMap<String, (u64, u64)> {
    let found = |(name, target): (String, String)| {
        let mut parts: Vec<&str> = name.split('/').collect();
        parts.pop();
        for part in target.split('/') {
            match part {
                "" if target.starts_with('/') => return None,
                "" | "." => {}
                ".." => drop(parts.pop()?),
                part => parts.push(part),
            }
        }
        Some((places.get(&parts.join("/")).copied()?, name))
    };
    let links: Vec<_> = links.into_iter().filter_map(found).collect();
    for (place, name) in links {
        places.entry(name).or_insert(place);
    }
    places
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn is_compressed(head: &[u8; BLOCK_BYTES]) -> bool {
    head.starts_with(&[0x1f, 0x8b])
        || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd])
        || head.starts_with(b"\xfd7zXZ")
        || head.starts_with(b"BZh")
}

fn is_summed_up(head: &[u8; BLOCK_BYTES]) -> bool {
    let sum: u64 = head.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { 32 } else { u64::from(*byte) }).sum();
    octal(&head[148..156]) == Some(sum)
}

/// Reads octal digits, or the binary number that GNU tar writes where they do not suffice.
pub(super) fn size_of(head: &[u8; BLOCK_BYTES]) -> Option<u64> {
    let field = &head[124..136];
    match field[0] {
        0x80 if field[1..4] == [0; 3] => Some(u64::from_be_bytes(field[4..].try_into().ok()?)),
        128.. => None,
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches([' ', '\0']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn name_of(head: &[u8; BLOCK_BYTES]) -> String {
    let name = text(&head[..100]);
    let prefix = if head[257..263] == *b"ustar\0" { text(&head[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

/// Reads the records of pax: `length key=value`, each ended by a line break.
fn pax(mut content: &[u8]) -> Option<BTreeMap<&str, &str>> {
    let mut records = BTreeMap::new();
    while content.first().is_some_and(|byte| *byte != 0) {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
        let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        // Values of other keys, such as extended attributes, may be no text.
        if let (Ok(key), Ok(value)) = (std::str::from_utf8(&record[..equals]), std::str::from_utf8(&record[equals + 1..])) {
            records.insert(key, value);
        }
        content = &content[length..];
    }
    Some(records)
}

/// Brings a name into one form; none where it leads out of the archive.
fn inside(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    (!parts.contains(&"..") && !name.starts_with('/') && !parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::header;
    use super::*;

    /// An archive of entries: kind, name, content.
    fn tar(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, name, content) in entries {
            bytes.extend(header(name, 0o644, content.len() as u64, *kind));
            bytes.extend(*content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<(String, (u64, u64))>> {
        Ok(places(&mut io::Cursor::new(bytes))?.into_iter().collect())
    }

    #[test]
    fn files_are_found_by_every_form_of_their_name() {
        let long = "d/".repeat(60) + "f";
        let record = format!("134 path={long}\n");
        assert_eq!(record.len(), 134 - 3);
        let record = format!("131 path={long}\n");
        for bytes in [
            tar(&[(b'0', "./a", b"x"), (b'x', "p", record.as_bytes()), (b'0', "cut", b"yz")]),
            tar(&[(b'g', "g", b"9 k=vvvv\n"), (0, "a", b"x"), (b'L', "l", long.as_bytes()), (b'0', "cut", b"yz")]),
        ] {
            let found = read(&bytes).unwrap();
            let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["a", long.as_str()]);
            let (start, size) = found[1].1;
            assert_eq!(&bytes[start as usize..][..size as usize], b"yz");
        }
    }

    #[test]
    fn what_is_no_file_within_is_passed_over() {
        let bytes = tar(&[
            (b'0', "../up", b"x"),
            (b'0', "/absolute", b"x"),
            (b'0', "a/../b", b"x"),
            (b'2', "link", b""),
            (b'1', "hard", b""),
            (b'3', "device", b""),
            (b'5', "folder/", b""),
            (b'0', "twice", b"one"),
            (b'0', "twice", b"two"),
        ]);
        let found = read(&bytes).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(&bytes[found[0].1.0 as usize..][..3], b"two");
    }

    #[test]
    fn a_link_within_is_another_name() {
        let mut bytes = Vec::new();
        for (name, target) in [
            ("b/layer.tar", "../a/layer.tar"),
            ("c", "./a/layer.tar"),
            ("d/e", "../../a/layer.tar"),
            ("f", "/a/layer.tar"),
            ("g", "c"),
            ("a/layer.tar", "c"),
        ] {
            let mut head = header(name, 0o777, 0, b'2');
            head[157..157 + target.len()].copy_from_slice(target.as_bytes());
            head[148..156].copy_from_slice(b"        ");
            let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(head);
        }
        bytes.extend(tar(&[(b'0', "a/layer.tar", b"x")]));
        let found = read(&bytes).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a/layer.tar", "b/layer.tar", "c"]);
        assert!(found.iter().all(|(_, place)| *place == found[0].1));
    }

    #[test]
    fn what_is_damaged_or_too_much_is_refused() {
        let good = tar(&[(b'0', "a", b"content")]);
        let mut flipped = good.clone();
        flipped[0] ^= 1;
        let mut negative = good.clone();
        negative[124] = 0xff;
        let mut huge = good.clone();
        huge[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        for head in [&mut negative, &mut huge] {
            let sum: u32 =
                head[..512].iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
            head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let big = vec![b'x'; MAX_HEAD_BYTES as usize + 1];
        let many = vec![(b'0', "a", &b""[..]); MAX_ENTRIES + 1];
        for (bytes, expected) in [
            (flipped, "damaged at byte 0"),
            (negative, "no number"),
            (huge, "ends within the entry"),
            (good[..700].to_vec(), ""),
            (good[..515].to_vec(), "ends within the entry"),
            (good[..100].to_vec(), "ends within an entry's head"),
            (tar(&[(b'L', "l", &big)]), "larger than"),
            (tar(&[(b'x', "x", b"999 path=x\n")]), "malformed"),
            (tar(&[(b'x', "x", b"10 size=x\n"), (b'0', "a", b"")]), "no number"),
            (tar(&many), "more than"),
            ([&[0x1f, 0x8b, 8][..], &[0; 600]].concat(), "compressed"),
        ] {
            match read(&bytes) {
                Err(error) => assert!(error.to_string().contains(expected) && !expected.is_empty(), "{expected}: {error}"),
                Ok(_) => assert!(expected.is_empty(), "{expected}"),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise_than_with_an_error(
            changes in proptest::collection::vec((0..2048usize, 0..=255u8), 1..8),
            cut in 0..2560usize,
        ) {
            let mut bytes = tar(&[(b'x', "x", b"10 path=x\n"), (b'0', "a", b"content")]);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            for head in [0, 1024] {
                let head = &mut bytes[head..head + 512];
                let spaces = 8 * 32 - head[148..156].iter().map(|byte| i64::from(*byte)).sum::<i64>();
                let sum = head.iter().map(|byte| i64::from(*byte)).sum::<i64>() + spaces;
                head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
            bytes.truncate(cut);
            for (start, size) in places(&mut io::Cursor::new(&bytes)).unwrap_or_default().into_values() {
                assert!(start + size <= bytes.len() as u64);
            }
        }
    }
}
