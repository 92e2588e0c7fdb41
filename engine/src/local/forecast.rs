//! What a job would do for a definition: every vertex is looked up as a job looks it up, and nothing is
//! made.
//!
//! 1. Inputs come first. A vertex whose inputs' contents are known has a cache key, and with that a
//!    result or none.
//! 2. One that has a result is cached, and what it holds is known to what takes it in.
//! 3. One that has none runs, and so does what is behind it, for all that is known.
//!
//! Invariant: the questions are those of the job itself (`image::there`, `operate::recorded`, …), asked
//! of a [`Look`] that marks and holds nothing.

use std::collections::HashMap;

use super::folder::{checksum, folder_content, offered};
use super::image::{There, layout_image, not_here, pinned_image, there};
use super::key::cache_key;
use super::operate::{host_tree, image_reference, merged, output_numbers, platform_of, recorded, sides};
use super::result::Ref;
use super::schedule::Outputs;
use super::store::Look;
use crate::forecast::{Cause, Expected, Forecast, Found};
use crate::oci::Image;
use crate::op::{Diff, OpKind, Source};
use crate::solver::JobOptions;
use crate::{Definition, Digest, Error, Vertex};

/// Foretells what becomes of each vertex; `offline` says that no address is asked.
///
/// Fails where the store cannot be read. What a job would fail for is told as the vertex's cause.
pub(super) fn forecast(
    store: &impl Look,
    options: &JobOptions,
    offline: bool,
    definition: &Definition,
) -> Result<Forecast, Error> {
    let mut forecaster = Forecaster { store, options, offline, known: HashMap::new() };
    let mut forecast = Forecast::new();
    for vertex in definition.vertices() {
        let expected = match forecaster.look(vertex)? {
            Looked::There(found, outputs) => {
                forecaster.known.insert(vertex.digest, outputs);
                Expected::Cached(found)
            }
            Looked::Runs(cause) => Expected::Runs(cause),
        };
        forecast.insert(vertex.digest, expected);
    }
    Ok(forecast)
}

/// What a look at a vertex found.
enum Looked {
    There(Found, Outputs),
    Runs(Cause),
}

struct Forecaster<'a, L> {
    store: &'a L,
    options: &'a JobOptions,
    offline: bool,
    /// The outputs of the vertices that are cached. Never iterated.
    known: HashMap<Digest, Outputs>,
}

impl<L: Look> Forecaster<'_, L> {
    fn look(&self, vertex: &Vertex) -> Result<Looked, Error> {
        let looked = match &vertex.op.kind {
            OpKind::Source(source) => self.source(vertex, source),
            _ if self.ignores(vertex) => return Ok(Looked::Runs(Cause::IgnoresCache)),
            _ => match self.inputs(vertex) {
                Ok(inputs) => self.op(vertex, &inputs),
                Err(cause) => return Ok(Looked::Runs(cause)),
            },
        };
        match looked {
            // The job fails for want of the store as well, and says so better.
            Err(error @ Error::Store { .. }) => Err(error),
            Err(error) => Ok(Looked::Runs(Cause::Fails(error.to_string()))),
            looked => looked,
        }
    }

    /// Merges and stacked differences only lay out what is there: they have no result to ignore.
    fn ignores(&self, vertex: &Vertex) -> bool {
        vertex.metadata.ignore_cache && matches!(vertex.op.kind, OpKind::Exec(_) | OpKind::File(_))
    }

    /// What a vertex takes in, or why that is not known.
    fn inputs(&self, vertex: &Vertex) -> Result<Vec<Ref>, Cause> {
        let inputs = vertex.op.kind.inputs().into_iter().map(|edge| {
            let outputs = self.known.get(&edge.vertex).ok_or(Cause::Behind(edge.vertex))?;
            let lost = || Cause::Fails(format!("{} has no output {}", edge.vertex, edge.output));
            outputs.get(&edge.output).cloned().ok_or_else(lost)
        });
        inputs.collect()
    }

    fn op(&self, vertex: &Vertex, inputs: &[Ref]) -> Result<Looked, Error> {
        match &vertex.op.kind {
            OpKind::Exec(_) | OpKind::File(_) => self.keyed(vertex, inputs, b""),
            OpKind::Merge(_) => Ok(laid_out(Ref::of(self.store, &merged(inputs)?)?)),
            OpKind::Diff(diff) => self.diff(vertex, diff, inputs),
            OpKind::Source(_) | OpKind::Build(_) => Err(super::operate::unsupported("the build op")),
        }
    }

    fn diff(&self, vertex: &Vertex, diff: &Diff, inputs: &[Ref]) -> Result<Looked, Error> {
        let (lower, upper) = sides(diff, inputs)?;
        match upper.strip_prefix(lower) {
            Some(over) => Ok(laid_out(Ref::of(self.store, over)?)),
            None => self.keyed(vertex, inputs, b""),
        }
    }

    fn source(&self, vertex: &Vertex, source: &Source) -> Result<Looked, Error> {
        match source.scheme() {
            "docker-image" => {
                let reference = image_reference(source)?;
                if reference.digest().is_none() {
                    return if self.offline { Err(not_here(&reference)) } else { Ok(Looked::Runs(Cause::Asked)) };
                }
                match pinned_image(self.store, &reference, &platform_of(vertex))? {
                    Some(image) => match self.image(&image)? {
                        Looked::Runs(Cause::Layers { .. }) if self.offline => Err(not_here(&reference)),
                        looked => Ok(looked),
                    },
                    None if self.offline => Err(not_here(&reference)),
                    None => Ok(Looked::Runs(Cause::UnknownImage)),
                }
            }
            "oci-layout" => self.image(&layout_image(&self.options.oci_layouts, source, &platform_of(vertex))?.1),
            "local" => match host_tree(self.options, source)? {
                Some(tree) => Ok(Looked::There(Found::Here, [(0, Ref::Host(tree.clone()))].into())),
                None => {
                    let (content, _) = folder_content(source, offered(self.options, vertex, source)?)?;
                    self.keyed(vertex, &[], content.to_string().as_bytes())
                }
            },
            "http" | "https" if self.offline => Err(super::operate::unsupported("the network, which is not to be used")),
            "http" | "https" => match checksum(source)? {
                Some(content) => self.keyed(vertex, &[], content.to_string().as_bytes()),
                None => Ok(Looked::Runs(Cause::Asked)),
            },
            scheme => Err(super::operate::unsupported(&format!("sources of the kind {scheme}"))),
        }
    }

    fn image(&self, image: &Image) -> Result<Looked, Error> {
        Ok(match there(self.store, image)? {
            There::All(tree) => Looked::There(Found::Layers, [(0, tree)].into()),
            There::Lacks(missing) => Looked::Runs(Cause::Layers { missing, of: image.config.diff_ids.len() }),
        })
    }

    /// Looks up what is kept by its key.
    fn keyed(&self, vertex: &Vertex, inputs: &[Ref], content: &[u8]) -> Result<Looked, Error> {
        if vertex.metadata.ignore_cache {
            return Ok(Looked::Runs(Cause::IgnoresCache));
        }
        let found = recorded(self.store, &cache_key(vertex, inputs, content), &output_numbers(&vertex.op.kind))?;
        Ok(found.map_or(Looked::Runs(Cause::New), |outputs| Looked::There(Found::Recorded, outputs)))
    }
}

fn laid_out(tree: Ref) -> Looked {
    Looked::There(Found::Inputs, [(0, tree)].into())
}

#[cfg(test)]
mod tests;
