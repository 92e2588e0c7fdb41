//! Compresses layers: the same bytes on every machine, whatever the number of threads.
//!
//! Invariant: a layer's compressed bytes depend on its content and the kind of compression alone.
//! The input is cut into blocks of 1 MiB, each is compressed as if nothing stood before it, and
//! they are written in order.
//!
//! - gzip is one member: raw deflate blocks, each ended by a sync flush, an empty last block, and
//!   the checksums combined. Readers that know one member alone read it all.
//! - zstd is a frame a block; the format says that frames in a row are one stream.
//!
//! Decompression is in [`decompress`](super::decompress).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use flate2::{Compress, Crc, FlushCompress};

use super::descriptor::{
    DOCKER_LAYER, DOCKER_LAYER_FOREIGN_GZIP, DOCKER_LAYER_GZIP, DOCKER_LAYER_ZSTD, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD,
};
use super::hashing::Hashing;
use crate::Digest;

/// What is compressed on its own. Another size gives other bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// How hard gzip tries: what zlib and Go do by default.
const GZIP_LEVEL: u32 = 6;
/// How hard zstd tries: its own default.
const ZSTD_LEVEL: i32 = 3;
/// A gzip member's head without a name, a time and a system (RFC 1952, section 2.3).
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The empty block that ends a deflate stream (RFC 1951, section 3.2.6).
const DEFLATE_END: [u8; 2] = [3, 0];

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, which everything reads.
    Gzip,
    /// zstd: smaller and faster; docker reads it since 23.0.
    Zstd,
}

impl Compression {
    /// Returns the OCI media type of a layer that is compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => OCI_LAYER,
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
        }
    }

    /// Says how a layer of a media type, OCI's or docker's, is said to be compressed; none for what
    /// is no layer that can be read, such as an encrypted one.
    pub fn of(media_type: &str) -> Option<Self> {
        // Layers that may not be distributed only differ in that name.
        match media_type.replacen(".nondistributable.", ".", 1).as_str() {
            OCI_LAYER | DOCKER_LAYER => Some(Self::None),
            OCI_LAYER_GZIP | DOCKER_LAYER_GZIP | DOCKER_LAYER_FOREIGN_GZIP => Some(Self::Gzip),
            OCI_LAYER_ZSTD | DOCKER_LAYER_ZSTD => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// What a layer became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// The digest of the compressed bytes, which names the blob.
    pub digest: Digest,
    /// The number of compressed bytes.
    pub size_bytes: u64,
    /// The digest of the bytes before, which an image's config names.
    pub diff_id: Digest,
    /// The number of bytes before.
    pub diff_bytes: u64,
}

/// Compresses all that `reader` gives, on `threads` threads beside the caller's.
///
/// Blocks; holds two blocks a thread. The writer is flushed, not synced.
pub fn compress(
    reader: impl Read,
    writer: impl Write,
    compression: Compression,
    threads: NonZeroUsize,
) -> io::Result<Compressed> {
    let (mut input, mut output) = (Hashing::new(reader), Hashing::new(writer));
    match compression {
        Compression::None => {
            io::copy(&mut input, &mut output)?;
        }
        Compression::Gzip => {
            output.write_all(&GZIP_HEAD)?;
            let mut sum = Crc::new();
            in_blocks(&mut input, threads, deflated, |(block, crc)| {
                sum.combine(&crc);
                output.write_all(&block)
            })?;
            output.write_all(&DEFLATE_END)?;
            output.write_all(&sum.sum().to_le_bytes())?;
            output.write_all(&sum.amount().to_le_bytes())?;
        }
        Compression::Zstd => {
            let mut any = false;
            in_blocks(&mut input, threads, framed, |frame| {
                any = true;
                output.write_all(&frame)
            })?;
            if !any {
                output.write_all(&framed(&[])?)?;
            }
        }
    }
    output.flush()?;
    let ((_, diff_id, diff_bytes), (_, digest, size_bytes)) = (input.finish(), output.finish());
    Ok(Compressed { digest, size_bytes, diff_id, diff_bytes })
}

/// Compresses one block into deflate blocks that end at a byte, and sums it up.
fn deflated(block: &[u8]) -> io::Result<(Vec<u8>, Crc)> {
    let mut crc = Crc::new();
    crc.update(block);
    let mut deflate = Compress::new(flate2::Compression::new(GZIP_LEVEL), false);
    // More than deflate ever adds, so that one call does it: where its output is cut decides what
    // its next bytes are.
    let mut output = Vec::with_capacity(block.len() + block.len() / 8 + 1024);
    deflate.compress_vec(block, &mut output, FlushCompress::Sync)?;
    if deflate.total_in() != block.len() as u64 || output.len() == output.capacity() {
        return Err(io::Error::other("deflate made a block larger than its bound"));
    }
    Ok((output, crc))
}

/// Compresses one block into a frame.
fn framed(block: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::compress(block, ZSTD_LEVEL)
}

/// Reads blocks, has threads `pack` them, and hands them to `write` in the order of the input.
fn in_blocks<P: Send>(
    input: &mut impl Read,
    threads: NonZeroUsize,
    pack: impl Fn(&[u8]) -> io::Result<P> + Sync,
    mut write: impl FnMut(P) -> io::Result<()>,
) -> io::Result<()> {
    let (jobs, queue) = mpsc::channel::<(Vec<u8>, mpsc::Sender<io::Result<P>>)>();
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        // Threads end once this is dropped, on every way out.
        let jobs = jobs;
        for _ in 0..threads.get() {
            scope.spawn(|| {
                loop {
                    let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((block, done)) = job else { return };
                    // Nobody waits any more where the writer failed.
                    let _ = done.send(pack(&block));
                }
            });
        }
        let mut packing = VecDeque::new();
        let mut next = |packed: mpsc::Receiver<io::Result<P>>| {
            write(packed.recv().map_err(|_| io::Error::other("a compressing thread broke off"))??)
        };
        loop {
            let mut block = Vec::with_capacity(BLOCK_BYTES);
            if input.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)? == 0 {
                break;
            }
            let (done, packed) = mpsc::channel();
            jobs.send((block, done)).expect("the queue outlives the scope");
            packing.push_back(packed);
            if packing.len() >= threads.get() * 2
                && let Some(packed) = packing.pop_front()
            {
                next(packed)?;
            }
        }
        packing.into_iter().try_for_each(next)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::decompress::{Decompressor, Limits};

    /// Bytes that are neither random nor all alike.
    fn content(size: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if state >> 62 == 0 { (state >> 40) as u8 } else { b"layer content "[(state >> 33) as usize % 14] }
        };
        (0..size).map(next).collect()
    }

    fn threads(count: usize) -> NonZeroUsize {
        NonZeroUsize::new(count).unwrap()
    }

    /// Gives one byte, then two, and so on.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn bytes_depend_on_content_alone_and_come_back() {
        let all = content(BLOCK_BYTES + 12345);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            for size in [0, 1, BLOCK_BYTES, all.len()] {
                let content = &all[..size];
                let mut first = Vec::new();
                let told = compress(content, &mut first, compression, threads(1)).unwrap();
                let expected = Compressed {
                    digest: Digest::of(&first),
                    size_bytes: first.len() as u64,
                    diff_id: Digest::of(content),
                    diff_bytes: size as u64,
                };
                assert_eq!(told, expected);
                let mut again = Vec::new();
                compress(Dribble(content, 0), &mut again, compression, threads(3)).unwrap();
                assert!(again == first, "{compression:?} of {size} bytes on three threads");
                let mut back = Vec::new();
                let mut reader = Decompressor::new(first.as_slice(), Limits::default()).unwrap();
                reader.read_to_end(&mut back).unwrap();
                assert!(back == content, "{compression:?} of {size} bytes");
            }
        }
    }

    #[test]
    fn what_deflate_cannot_shrink_fits_its_bound() {
        let mut noise = vec![0; BLOCK_BYTES];
        let mut state = 7u64;
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        assert!(deflated(&noise).unwrap().0.len() < BLOCK_BYTES + 2048);
    }

    #[test]
    fn gzip_is_one_member() {
        let content = content(BLOCK_BYTES + 5);
        let mut packed = Vec::new();
        compress(content.as_slice(), &mut packed, Compression::Gzip, threads(2)).unwrap();
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == content, "a reader of one member reads it all");
    }

    /// These bytes are in registries under these digests: a codec that gives others makes every
    /// layer be pushed again.
    #[test]
    fn digests_are_frozen() {
        let content = content(BLOCK_BYTES + 5);
        let digest = |compression| compress(content.as_slice(), io::sink(), compression, threads(2)).unwrap().digest.short();
        let found = [Compression::None, Compression::Gzip, Compression::Zstd].map(digest);
        assert_eq!(found, ["2bfaed882d2b", "46531721f652", "3d06a994a3ba"]);
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        let content = content(4 * BLOCK_BYTES);
        let mut room = vec![0; 1000];
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            compress(content.as_slice(), room.as_mut_slice(), compression, threads(2)).unwrap_err();
        }
    }

    #[test]
    fn media_types_say_how_layers_are_compressed() {
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            assert_eq!(Compression::of(compression.media_type()), Some(compression));
        }
        for (media_type, expected) in [
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Some(Compression::Gzip)),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", None),
            ("application/vnd.wasm.content.layer.v1+wasm", None),
            ("", None),
        ] {
            assert_eq!(Compression::of(media_type), expected, "{media_type}");
        }
    }
}
