//! What an image contains: the files of its layers, and what they show together.
//!
//! 1. [`OpenImage`] is an image whose layers can be read: from a layout, an archive, a registry.
//! 2. [`read`] takes the layers one after the other: `stream` decompresses and checks a blob on a thread of its own, `listing` is
//!    where files' content ends, `overlay` puts the layer on those before it.
//! 3. [`Contents`] answers: what is shown, which layer it is of, and what of lower layers is lost and still takes room.
//!
//! Invariant: every blob has been checked against its digest before anything of it is returned; memory grows with paths alone,
//! and ends at [`Limits`].

mod listing;
mod open;
mod overlay;
mod stream;
#[cfg(test)]
mod tests;

pub use listing::Look;
pub use open::{LayerFile, OpenImage};
pub use overlay::{Contents, Lost, Shown};

use super::layer::{self, UnpackError, read};
use crate::Error;
use crate::text::shown;
use listing::Listing;
use overlay::Overlay;

/// What an image may cost, all its layers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most files, folders and links.
    pub entries: u64,
    /// The most bytes of paths, link targets and attributes; a file's attributes count for each of its names.
    pub path_bytes: u64,
    /// The most bytes of decompressed layers, or of the files in them where those are longer: holes are hashed as well.
    pub content_bytes: u64,
}

impl Default for Limits {
    /// A million entries with 256 MiB of paths, and 64 GiB of content.
    fn default() -> Self {
        Self { entries: 1_000_000, path_bytes: 256 << 20, content_bytes: 64 << 30 }
    }
}

/// Reads all layers of an image. Blocks; `look` is shown the start of those files that it wants.
///
/// Fails with [`Error::Integrity`] for content that is not what its digest says, or no layer; past a limit with
/// [`Error::Resource`]; else with what the image's own place fails with.
pub fn read(image: &OpenImage, limits: Limits, look: &mut dyn Look) -> Result<Contents, Error> {
    let mut left = limits;
    let mut overlay = Overlay::default();
    for (number, file) in image.layers.iter().enumerate() {
        let failed = |failure: UnpackError| failed(image, number, failure);
        let blob = image.open(number).map_err(|source| failed(UnpackError::Read { entry: "the start".to_owned(), source }))?;
        let costs = layer::Limits {
            entries: left.entries,
            metadata_bytes: left.path_bytes,
            content_bytes: left.content_bytes,
            ..layer::Limits::default()
        };
        let mut hashed_bytes = 0;
        let sink = Listing::new(number, look, &mut hashed_bytes);
        let (tree, passed) = stream::checked(blob, file, left.content_bytes, |tar| read::read(tar, &overlay, sink, &costs));
        // A parse that ended early is explained by the blob, if that is damaged; else it tells itself.
        let tree = match (tree, passed) {
            (Ok(tree), Ok(passed)) => {
                wrong(&passed, file).map_or(Ok(()), |what| Err(Error::Integrity(format!("{}: {what}", name(image, number)))))?;
                left.content_bytes = left.content_bytes.saturating_sub(passed.content_bytes.max(hashed_bytes));
                tree
            }
            (Err(failure), _) => return Err(failed(failure)),
            (Ok(_), Err(source)) => return Err(failed(UnpackError::Read { entry: "the end".to_owned(), source })),
        };
        left.entries = left.entries.saturating_sub(tree.nodes.len() as u64);
        left.path_bytes = left.path_bytes.saturating_sub(tree.nodes.iter().map(|(path, node)| cost(path, node)).sum());
        overlay.add(tree);
    }
    Ok(overlay.finish())
}

/// Returns what of the metadata's limit a node takes.
fn cost(path: &[u8], node: &layer::Node) -> u64 {
    let attributes = layer::xattrs::cost_bytes(&node.xattrs);
    let target = match &node.kind {
        layer::Kind::Symlink { target: text } | layer::Kind::Hardlink { to: text } => text.len(),
        _ => 0,
    };
    (path.len() + attributes + target) as u64
}

/// Says what a blob is instead of what it should be.
fn wrong(passed: &stream::Passed, file: &LayerFile) -> Option<String> {
    let (blob, size_bytes) = passed.blob;
    if let Some(expected) = file.digest.filter(|expected| (*expected, file.size_bytes) != passed.blob) {
        let bytes = file.size_bytes;
        return Some(format!("the blob {expected} in {bytes} bytes was expected, and {blob} in {size_bytes} bytes came"));
    }
    let diff_id = passed.content.filter(|actual| *actual != file.diff_id);
    diff_id.map(|actual| format!("the decompressed layer {} was expected, and {actual} came", file.diff_id))
}

fn name(image: &OpenImage, number: usize) -> String {
    format!("{}: layer {} of {}", shown(&image.place), number + 1, image.layers.len())
}

/// Says what is wrong with a layer, by what it means for the caller.
fn failed(image: &OpenImage, number: usize, failure: UnpackError) -> Error {
    use std::io::ErrorKind as Kind;
    let name = name(image, number);
    match failure {
        limit @ UnpackError::Limit { .. } => Error::Resource(format!("{name}: {limit}; use another image")),
        UnpackError::Read { entry, source } => match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) if Error::is_exhausted(&source) => Error::Resource(format!("{name}: {source}")),
            Err(source) if source.kind() == Kind::NotFound => Error::Integrity(format!("{name}: its blob is missing")),
            Err(source)
                if matches!(source.kind(), Kind::InvalidData | Kind::InvalidInput | Kind::UnexpectedEof | Kind::Other) =>
            {
                Error::Integrity(format!("{name}: {}", UnpackError::Read { entry, source }))
            }
            Err(source) => Error::File { path: image.place.clone().into(), source },
        },
        refused => Error::Integrity(format!("{name}: {refused}")),
    }
}
