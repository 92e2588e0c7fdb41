//! Decompresses layers, whatever they are compressed with, up to a limit.
//!
//! Invariant: however small the input, no more comes out than [`Limits`] allow, and no more memory
//! is used than a window of 128 MiB.
//!
//! The first bytes decide, as in docker and containerd; media types are often wrong.

use std::io::{self, BufReader, Chain, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// What is read at once.
const BUFFER_BYTES: usize = 64 << 10;
/// The largest window of a zstd frame, as a power of two: what the format asks decoders to bear
/// is 8 MiB, what `zstd --long` makes 128 MiB.
const WINDOW_LOG: u32 = 27;

/// How much may come out of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that come out.
    pub max_bytes: u64,
    /// How many bytes may come out for one that goes in; asked once [`Limits::free_bytes`] came.
    pub max_ratio: u64,
    /// What may come out at any ratio: a file of zeros shrinks without end, and is none the worse.
    pub free_bytes: u64,
}

impl Default for Limits {
    /// 64 GiB, and 1:2000 beyond 1 GiB. gzip never reaches that ratio.
    fn default() -> Self {
        Self { max_bytes: 64 << 30, max_ratio: 2000, free_bytes: 1 << 30 }
    }
}

/// A reader of what a layer was before it was compressed.
///
/// Past a limit it fails with [`io::ErrorKind::FileTooLarge`], which
/// [`Error::is_exhausted`](crate::Error::is_exhausted) knows; for content that is damaged or ends
/// early with another kind.
pub struct Decompressor<R: Read> {
    decoder: Decoder<R>,
    limits: Limits,
    output_bytes: u64,
}

/// The first bytes, which were read already, and the rest.
type Input<R> = BufReader<Counted<Chain<Cursor<Vec<u8>>, R>>>;

enum Decoder<R: Read> {
    Plain(Input<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Zstd(zstd::Decoder<'static, Input<R>>),
}

/// Counts what is read.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl<R: Read> Decompressor<R> {
    /// Reads the first bytes and chooses the decoder.
    pub fn new(mut reader: R, limits: Limits) -> io::Result<Self> {
        let mut first = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut first)?;
        // zstd's skippable frames begin with one of sixteen numbers.
        let is_zstd = first == ZSTD || matches!(first[..], [0x50..=0x5f, 0x2a, 0x4d, 0x18]);
        let is_gzip = first.starts_with(&GZIP);
        let input = Counted { inner: Cursor::new(first).chain(reader), bytes: 0 };
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        let decoder = if is_gzip {
            Decoder::Gzip(Box::new(MultiGzDecoder::new(input)))
        } else if is_zstd {
            let mut decoder = zstd::Decoder::with_buffer(input)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Decoder::Zstd(decoder)
        } else {
            Decoder::Plain(input)
        };
        Ok(Self { decoder, limits, output_bytes: 0 })
    }

    fn input_bytes(&self) -> u64 {
        let input = match &self.decoder {
            Decoder::Plain(input) => input,
            Decoder::Gzip(decoder) => decoder.get_ref(),
            Decoder::Zstd(decoder) => decoder.get_ref(),
        };
        input.get_ref().bytes
    }
}

impl<R: Read> Read for Decompressor<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = match &mut self.decoder {
            Decoder::Plain(input) => input.read(buffer),
            Decoder::Gzip(decoder) => decoder.read(buffer),
            Decoder::Zstd(decoder) => decoder.read(buffer),
        }?;
        self.output_bytes += count as u64;
        let Limits { max_bytes, max_ratio, free_bytes } = self.limits;
        let refused = |what: String| Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        if self.output_bytes > max_bytes {
            return refused(format!("the layer has more than {max_bytes} bytes when decompressed; use another image"));
        }
        if self.output_bytes > free_bytes && self.output_bytes > self.input_bytes().saturating_mul(max_ratio) {
            let what = format!("the layer grows more than {max_ratio} times when decompressed, which real ones do not");
            return refused(format!("{what}; use another image"));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::Error;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(content: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(content, 1).unwrap()
    }

    fn read(packed: &[u8], limits: Limits) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Decompressor::new(packed, limits)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn several_members_and_frames_are_one_layer() {
        let skippable = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
        for packed in [
            [gzip(b"ab"), gzip(b""), gzip(b"c")].concat(),
            [zstd(b"ab"), zstd(b"c")].concat(),
            [skippable.to_vec(), zstd(b"a"), skippable.to_vec(), zstd(b"bc")].concat(),
            b"abc".to_vec(),
        ] {
            assert_eq!(read(&packed, Limits::default()).unwrap(), b"abc", "{packed:?}");
        }
        assert_eq!(read(b"", Limits::default()).unwrap(), b"");
    }

    #[test]
    fn what_is_damaged_or_cut_is_refused() {
        let content: Vec<u8> = (0..2000u32).flat_map(u32::to_le_bytes).collect();
        for packed in [gzip(&content), zstd(&content)] {
            for end in [5, packed.len() / 2, packed.len() - 1] {
                let error = read(&packed[..end], Limits::default()).unwrap_err();
                assert!(!Error::is_exhausted(&error), "{error}");
            }
            let followed = [packed.as_slice(), b"rubbish"].concat();
            read(&followed, Limits::default()).unwrap_err();
        }
        let mut wrong_sum = gzip(&content);
        let at = wrong_sum.len() - 5;
        wrong_sum[at] ^= 1;
        read(&wrong_sum, Limits::default()).unwrap_err();
    }

    #[test]
    fn bombs_end_at_a_limit() {
        let zeros = vec![0; 4 << 20];
        let absolute = Limits { max_bytes: 1 << 20, ..Limits::default() };
        let ratio = Limits { free_bytes: 1 << 20, max_ratio: 10, ..Limits::default() };
        for packed in [gzip(&zeros), zstd(&zeros)] {
            for limits in [absolute, ratio] {
                let error = read(&packed, limits).unwrap_err();
                assert!(Error::is_exhausted(&error), "{error}");
            }
            assert_eq!(read(&packed, Limits::default()).unwrap().len(), zeros.len());
        }
        assert!(Error::is_exhausted(&read(&zeros, absolute).unwrap_err()));
    }

    #[test]
    fn a_window_without_bounds_is_refused() {
        // A frame head that asks for a window of 2 GiB (RFC 8878, section 3.1.1.1.2).
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0, 0, 0];
        read(&head, Limits::default()).unwrap_err();
    }
}
