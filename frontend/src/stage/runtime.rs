//! The runtime stage: what the release adds to the runtime image, brought in by one copy.
//!
//! Invariants: no step runs in the runtime image. Everything that the image gains is laid out in
//! an empty tree first and enters by a single copy with a fixed time, so that folders get that
//! time as well (a copy of single files would leave the clock's in the folder above them).
//!
//! No step changes an owner, which one with a single uid cannot: the service's files get theirs by a
//! copy op that looks the name up.
//!
//! The step's root is the builder's tree, writable and thrown away: BuildKit takes the checksum of
//! every file of a read-only root, which for a toolchain costs seconds at each edit. For the same
//! reason the image is copied from the small tree and not from the builder's.

use roche_engine::op::{Copy, Edge, Exec, File, FileActionKind, Metadata, Mount, Network, Op, Owner, Platform};
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
    /// Finds out what the image gains, and as whom the service runs in it.
    pub(crate) gained: Digest,
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
    let [there, out, service] = ["runtime", "out", "service"].map(|name| format!("{MOUNTS}/{name}"));
    let exec = super::run(builder, scripts, SCRIPT.0, &[PROJECT, &there, &out, &service, entrypoint.name()]);
    let mut exec = exec.mount(Mount::bind(&out, None)).mount(Mount::bind(&service, None));
    exec.mounts.extend(runtime.map(|runtime| Mount::readonly(&there, runtime)));
    let exec = Exec { env: config.env_with_path(), network: Network::None, ..exec }.ordered();
    let output = |target: &str| exec.output(target).expect("the mount was added above and is writable");
    let (out, service) = (output(&out), output(&service));
    let gained = graph.add(Op::on(platform.clone(), exec), Metadata::named("make what the runtime image lacks"))?;
    let service = Edge::new(gained, service);
    let owner = Some(Owner::named(USER, USER, service));
    let copies = FILES.map(|name| -> FileActionKind {
        let copy = Copy::new(service, &format!("/{name}"), &format!("{FOLDER}/{name}"));
        Copy { owner: owner.clone(), timestamp_ns: TIME_NS, ..copy }.into()
    });
    let overlay = File::chain(Some(Edge::new(gained, out)), copies);
    let overlay = Edge::from(graph.add(overlay, Metadata::named("lay out what the image gains"))?);
    let copy = Copy { contents_only: true, timestamp_ns: TIME_NS, ..Copy::new(overlay, "/", "/") };
    let image = graph.add(File::chain(runtime.map(Edge::from), [copy.into()]), Metadata::named("image files"))?;
    Ok(Runtime { gained, overlay, image })
}
