//! The runtime stage: what the release adds to the runtime image, brought in by one copy.
//!
//! Invariants: no step runs in the runtime image. Everything that the image gains is laid out in
//! an empty tree first and enters by a single copy with a fixed time, so that folders get that
//! time as well (a copy of single files would leave the clock's in the folder above them).
//!
//! The step's root is the builder's tree, writable and thrown away: BuildKit takes the checksum of
//! every file of a read-only root, which for a toolchain costs seconds at each edit. For the same
//! reason the image is copied from the small tree and not from the builder's.

use roche_engine::op::{Copy, Edge, Exec, File, Metadata, Mount, Network, Op, Platform};
use roche_engine::{Digest, Graph, GraphError};

use super::builder::PROJECT;
use super::config::ImageConfig;
use super::{MOUNTS, TIME_NS};
use crate::release::Entrypoint;

/// The step's script.
pub(crate) const SCRIPT: (&str, &str) = ("runtime.sh", include_str!("runtime.sh"));

/// The user that the service runs as.
pub(crate) const USER: &str = "rocheuser";

/// The service's folder in the image.
pub(crate) const FOLDER: &str = "/app";

/// The files in it.
pub(crate) const FILES: [&str; 3] = ["Cargo.toml", "roche-service", "run.sh"];

/// The vertices that were added.
pub(crate) struct Runtime {
    /// Lays out everything that the image gains.
    pub(crate) overlay: Edge,
    /// Lays everything into the image; output 0 is the image's tree.
    pub(crate) image: Digest,
}

/// Adds the vertices between the compiled service and the image. `runtime` is absent where the
/// image stands on nothing.
pub(crate) fn add(
    graph: &mut Graph,
    platform: &Platform,
    builder: Edge,
    scripts: Digest,
    config: &ImageConfig,
    runtime: Option<Digest>,
    entrypoint: Entrypoint,
) -> Result<Runtime, GraphError> {
    let (there, out) = (format!("{MOUNTS}/runtime"), format!("{MOUNTS}/out"));
    let exec = super::run(builder, scripts, SCRIPT.0, &[PROJECT, &there, &out, entrypoint.name()]);
    let mut exec = exec.mount(Mount::bind(&out, None));
    exec.mounts.extend(runtime.map(|runtime| Mount::readonly(&there, runtime)));
    let exec = Exec { env: config.env_with_path(), network: Network::None, ..exec }.ordered();
    let output = exec.output(&out).expect("the mount was added above and is writable");
    let overlay = graph.add(Op::on(platform.clone(), exec), Metadata::named("lay out what the image gains"))?;
    let overlay = Edge::new(overlay, output);
    let copy = Copy { contents_only: true, timestamp_ns: TIME_NS, ..Copy::new(overlay, "/", "/") };
    let image = graph.add(File::chain(runtime.map(Edge::from), [copy.into()]), Metadata::named("image files"))?;
    Ok(Runtime { overlay, image })
}
