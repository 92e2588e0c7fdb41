//! The stages of a release: each grows the graph by a few vertices.
//!
//! Invariant: only ops that every supported daemon has (image, exec, file with copy, mkdir and
//! mkfile), and no op depends on what an image contains; what has to be decided by content is
//! decided by the scripts inside the steps.

pub(crate) mod builder;
pub(crate) mod config;
pub(crate) mod host;
pub(crate) mod onto;
pub(crate) mod runtime;

use roche_engine::op::{Edge, Exec, File, FileActionKind, Metadata, Mkdir, Mkfile, Mount, Op, Platform, Source};
use roche_engine::{Digest, Graph, GraphError};

use crate::plan::BaseImage;
use crate::template;

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

/// Adds a tree with the steps' scripts. As files and not as arguments: what a daemon says of a
/// step that failed repeats its arguments.
pub(crate) fn scripts(graph: &mut Graph, scripts: &[(&str, &str)]) -> Result<Digest, GraphError> {
    let names: Vec<&str> = scripts.iter().map(|&(name, _)| name).collect();
    let files = scripts.iter().map(|(name, text)| file(&format!("/{name}"), 0o644, text.as_bytes()));
    graph.add(File::chain(None::<Edge>, files), Metadata::named(format!("steps {}", names.join(", "))))
}

/// Runs a script out of the tree that [`scripts`] gave.
pub(crate) fn run(root: impl Into<Edge>, scripts: Digest, name: &str, args: &[&str]) -> Exec {
    let place = format!("{MOUNTS}/steps");
    let script = format!("{place}/{name}");
    let args: Vec<&str> = ["/bin/sh", &script].into_iter().chain(args.iter().copied()).collect();
    Exec::new(root, "/", &args).mount(Mount::readonly(&place, scripts))
}

/// Makes a file with the release's time.
pub(crate) fn file(path: &str, mode: u32, data: &[u8]) -> FileActionKind {
    Mkfile { path: path.to_owned(), mode, data: data.to_vec(), owner: None, timestamp_ns: TIME_NS }.into()
}

/// Makes a folder with the release's time, and those above it.
pub(crate) fn folder(path: &str) -> FileActionKind {
    Mkdir { path: path.to_owned(), mode: 0o755, make_parents: true, owner: None, timestamp_ns: TIME_NS }.into()
}

/// Lays out the files of the service template under `root`, a folder's path or nothing.
pub(crate) fn template(root: &str) -> Vec<FileActionKind> {
    let folders =
        ["", "/.cargo", "/runtime", "/runtime/crates", "/runtime/src", "/src", "/src/app"].map(|path| format!("{root}{path}"));
    let folders = folders.iter().filter(|path| !path.is_empty()).map(|path| folder(path));
    let files = template::FILES.iter().map(|template| file(&format!("{root}/{}", template.path), template.mode, template.data));
    folders.chain(files).collect()
}
