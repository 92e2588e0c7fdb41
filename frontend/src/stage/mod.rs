//! The stages of a release: each grows the graph by a few vertices.
//!
//! Invariant: only ops that every supported daemon has (image, exec, file with copy, mkdir and
//! mkfile), and no op depends on what an image contains; what has to be decided by content is
//! decided by the scripts inside the steps.

pub(crate) mod builder;
pub(crate) mod config;
pub(crate) mod runtime;

use roche_engine::op::{Metadata, Op, Platform, Source};
use roche_engine::{Digest, Graph, GraphError};

use crate::plan::BaseImage;

/// Every time that the release writes: the epoch.
pub(crate) const TIME_NS: Option<i64> = Some(0);

/// Where execs see the trees that they are given.
pub(crate) const MOUNTS: &str = "/run/roche";

/// Adds an image as a source, by its digest where that is known.
pub(crate) fn image(graph: &mut Graph, platform: &Platform, image: &BaseImage, role: &str) -> Result<Digest, GraphError> {
    let name = format!("{role} {}", image.reference.familiar());
    let source = Source::image(&image.pinned().to_string());
    graph.add(Op::on(platform.clone(), source), Metadata::named(name))
}
