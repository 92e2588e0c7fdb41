//! Where the content of files ends that are only listed.
//!
//! Invariant: nothing of a file is kept but its size and digest; of those that are looked at, as much is lent as was asked for,
//! and never of two files at a time.

use std::io;

use sha2::{Digest as _, Sha256};

use crate::Digest;
use crate::oci::layer::entries::Piece;
use crate::oci::layer::read::hash_zeros;
use crate::oci::layer::{Kind, Node, Sink};

/// Looks into files while they pass.
pub trait Look {
    /// Says how many bytes of the file at `path` (without a leading `/`), which begins with `first`, are of interest.
    fn wants(&self, path: &[u8], first: &[u8]) -> usize;

    /// Takes these bytes of a file of the layer with this number, the lowest being 0; fewer where the file has no more.
    fn take(&mut self, layer: usize, path: &[u8], start: &[u8]);
}

/// Looks into nothing.
impl Look for () {
    fn wants(&self, _: &[u8], _: &[u8]) -> usize {
        0
    }

    fn take(&mut self, _: usize, _: &[u8], _: &[u8]) {}
}

/// A sink that forgets.
pub(super) struct Listing<'a> {
    layer: usize,
    look: &'a mut dyn Look,
    hashed_bytes: &'a mut u64,
}

impl<'a> Listing<'a> {
    /// A sink for one layer, which adds to `hashed_bytes` how long its files are, holes counted.
    pub(super) fn new(layer: usize, look: &'a mut dyn Look, hashed_bytes: &'a mut u64) -> Self {
        Self { layer, look, hashed_bytes }
    }
}

impl Sink for Listing<'_> {
    fn file<E>(
        &mut self,
        path: &[u8],
        content: impl FnOnce(&mut dyn FnMut(Piece<'_>) -> io::Result<()>) -> Result<(), E>,
    ) -> io::Result<Result<Kind, E>> {
        let (mut hash, mut size_bytes, mut start, mut wanted) = (Sha256::new(), 0, Vec::new(), 0);
        let look = &*self.look;
        let result = content(&mut |piece| {
            match piece {
                Piece::Data(bytes) => {
                    if size_bytes == 0 {
                        wanted = look.wants(path, bytes);
                    }
                    start.extend_from_slice(&bytes[..bytes.len().min(wanted - start.len())]);
                    hash.update(bytes);
                    size_bytes += bytes.len() as u64;
                }
                Piece::Hole(length) => {
                    let room = (wanted - start.len()) as u64;
                    start.resize(start.len() + length.min(room) as usize, 0);
                    hash_zeros(&mut hash, length);
                    size_bytes += length;
                }
            }
            Ok(())
        });
        *self.hashed_bytes += size_bytes;
        if wanted > 0 && result.is_ok() {
            self.look.take(self.layer, path, &start);
        }
        Ok(result.map(|()| Kind::File { size_bytes, digest: Digest::from_sha256(hash.finalize().into()) }))
    }

    fn folder(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn special(&mut self, _: &[u8], _: &Kind) -> io::Result<()> {
        Ok(())
    }

    fn link(&mut self, _: &[u8], _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(&mut self, _: &[u8], _: &Node) -> io::Result<()> {
        Ok(())
    }

    fn finish_folder(&mut self, _: &[u8], _: &Node) -> io::Result<()> {
        Ok(())
    }
}
