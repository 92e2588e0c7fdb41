//! OCI layouts as one file: a deterministic tar, and the places of files in one that is read.
//!
//! Invariant: the same images under the same names are the same bytes: entries are sorted, owned by
//! nobody, and of the year 1970. A blob is written only if it is what its descriptor names.
//!
//! The order and the modes are those of containerd's `images/archive`, which BuildKit's exporters
//! `oci` and `docker` write with.

mod read;

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read, Write};

use super::descriptor::Descriptor;
use super::hashing::Hashing;
use super::image::Blobs;
use super::layout::{Named, blob_path, index_of, layout_file};
pub(super) use read::places;

const BLOCK_BYTES: usize = 512;
/// How much of a blob is read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// What fits into a number of octal digits; larger ones are written as GNU tar does.
const MAX_OCTAL: u64 = 0o77_777_777_777;

/// Writes images as an OCI layout. Nothing is synced; see [`place`](super::place).
pub fn write(out: &mut dyn Write, images: &[Named<'_>], blobs: &dyn Blobs) -> io::Result<()> {
    write_entries(out, entries(images)?, blobs)
}

/// What stands in an archive under a name.
pub(super) enum Entry {
    Folder,
    File { bytes: Vec<u8>, mode: u32 },
    Blob(Descriptor),
}

/// Returns the entries of a layout, by their names.
pub(super) fn entries(images: &[Named<'_>]) -> io::Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    entries.insert("blobs/".to_owned(), Entry::Folder);
    entries.insert("blobs/sha256/".to_owned(), Entry::Folder);
    for Named { image, .. } in images {
        for layer in &image.manifest.layers {
            entries.insert(blob_path(layer.digest), Entry::Blob(layer.clone()));
        }
        for (digest, bytes) in
            [(image.manifest.config.digest, &image.config_bytes), (image.descriptor.digest, &image.manifest_bytes)]
        {
            entries.insert(blob_path(digest), Entry::File { bytes: bytes.clone(), mode: 0o444 });
        }
    }
    entries.insert("index.json".to_owned(), Entry::File { bytes: index_of(images).encode(), mode: 0o644 });
    entries.insert("oci-layout".to_owned(), Entry::File { bytes: layout_file(), mode: 0o444 });
    Ok(entries)
}

/// Writes entries in the order of their names, and the end of the archive.
pub(super) fn write_entries(out: &mut dyn Write, entries: BTreeMap<String, Entry>, blobs: &dyn Blobs) -> io::Result<()> {
    for (name, entry) in entries {
        match entry {
            Entry::Folder => out.write_all(&header(&name, 0o755, 0, b'5'))?,
            Entry::File { bytes, mode } => {
                out.write_all(&header(&name, mode, bytes.len() as u64, b'0'))?;
                out.write_all(&bytes)?;
                pad(out, bytes.len() as u64)?;
            }
            Entry::Blob(descriptor) => {
                out.write_all(&header(&name, 0o444, descriptor.size_bytes, b'0'))?;
                copy_blob(blobs, &descriptor, out)?;
                pad(out, descriptor.size_bytes)?;
            }
        }
    }
    out.write_all(&[0; 2 * BLOCK_BYTES])?;
    out.flush()
}

/// Copies a blob, and checks it on the way.
pub(super) fn copy_blob(blobs: &dyn Blobs, descriptor: &Descriptor, out: &mut dyn Write) -> io::Result<()> {
    let blob = blobs
        .open(descriptor)
        .map_err(|error| io::Error::new(error.kind(), format!("blob {} cannot be read: {error}", descriptor.digest)))?;
    let blob = BufReader::with_capacity(BUFFER_BYTES, blob.take(descriptor.size_bytes.saturating_add(1)));
    let mut blob = Hashing::new(blob);
    // What is too long must not reach the archive, whose head says the size already.
    let mut copied = io::copy(&mut blob.by_ref().take(descriptor.size_bytes), out)?;
    copied += io::copy(&mut blob, &mut io::sink())?;
    let (_, digest, _) = blob.finish();
    if (digest, copied) != (descriptor.digest, descriptor.size_bytes) {
        let what = format!("blob {}: {digest} in {copied} bytes was read in its place", descriptor.digest);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(())
}

/// Returns the head of an entry, in the format that POSIX calls ustar.
fn header(name: &str, mode: u32, size: u64, kind: u8) -> [u8; BLOCK_BYTES] {
    let mut head = [0; BLOCK_BYTES];
    let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
    assert!(name.len() <= 100, "names in a layout are short");
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size <= MAX_OCTAL {
        put(124, format!("{size:011o}\0").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    // The sum is of a head whose own sum is spaces.
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(329, b"0000000\0");
    put(337, b"0000000\0");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    head
}

/// Fills the last block.
fn pad(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size % BLOCK_BYTES as u64).expect("less than a block");
    out.write_all(&[0; BLOCK_BYTES][..(BLOCK_BYTES - rest) % BLOCK_BYTES])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::oci::image::tests::image;

    fn archive(names: &[&str]) -> io::Result<Vec<u8>> {
        let (image, blobs) = image(&[b"one", b"two", b"one"]);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut out = Vec::new();
        write(&mut out, &[Named { image: &image, names: &names, created: None }], &blobs)?;
        Ok(out)
    }

    #[test]
    fn entries_are_sorted_and_each_blob_stands_once() {
        let bytes = archive(&["docker.io/library/a:1"]).unwrap();
        assert_eq!(bytes, archive(&["docker.io/library/a:1"]).unwrap());
        let found = places(&mut io::Cursor::new(&bytes)).unwrap();
        let (image, _) = image(&[b"one", b"two", b"one"]);
        let mut expected: Vec<String> =
            [Digest::of(b"one"), Digest::of(b"two"), image.descriptor.digest, image.manifest.config.digest].map(blob_path).into();
        expected.extend(["index.json".to_owned(), "oci-layout".to_owned()]);
        expected.sort();
        assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
        for (name, (start, size)) in found {
            let content = &bytes[start as usize..(start + size) as usize];
            if let Some(hex) = name.strip_prefix("blobs/sha256/") {
                assert_eq!(Digest::of(content).hex(), hex);
            }
        }
    }

    /// GNU tar reads what is written.
    #[cfg(unix)]
    #[test]
    fn tar_lists_the_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive(&["docker.io/library/a:1"]).unwrap()).unwrap();
        let Ok(listed) = std::process::Command::new("tar").args(["--utc", "-tvf"]).arg(&path).output() else { return };
        let text = String::from_utf8(listed.stdout).unwrap();
        assert!(listed.status.success() && listed.stderr.is_empty(), "{}", String::from_utf8_lossy(&listed.stderr));
        assert!(text.starts_with("drwxr-xr-x 0/0               0 1970-01-01 00:00 blobs/\n"), "{text}");
        assert!(text.contains("-r--r--r-- 0/0               3 1970-01-01 00:00 blobs/sha256/"), "{text}");
    }

    #[test]
    fn a_blob_that_is_something_else_is_not_written() {
        let (image, mut blobs) = image(&[b"one"]);
        for other in [&b"eno"[..], b"o", b"one more"] {
            blobs.0.insert(Digest::of(b"one"), other.to_vec());
            let named = Named { image: &image, names: &[], created: None };
            let error = write(&mut Vec::new(), &[named], &blobs).unwrap_err();
            assert!(error.to_string().contains("in its place"), "{error}");
        }
        blobs.0.clear();
        let named = Named { image: &image, names: &[], created: None };
        assert!(write(&mut Vec::new(), &[named], &blobs).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn sizes_past_8_gib_are_written_and_read() {
        for size in [MAX_OCTAL, MAX_OCTAL + 1, 1 << 50] {
            let head = header("x", 0o644, size, b'0');
            assert_eq!(read::size_of(&head), Some(size));
        }
    }
}
