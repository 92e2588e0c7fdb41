//! The runtime stage: what the release adds to the runtime image, brought in by copies alone.
//!
//! Invariant: no step runs in the runtime image. Everything is laid out in an empty tree first
//! and enters the image as one copy with a fixed time, so that folders get that time as well
//! (a copy of single files would leave the clock's in the folder above them).

use roche_engine::op::{
    Copy, Edge, Exec, File, FileAction, FileActionKind, FileInput, Metadata, Mkdir, Mount, Network, Op, Owner, Platform, User,
};
use roche_engine::{Digest, Graph, GraphError};

use super::builder::PROJECT;
use super::config::ImageConfig;
use super::{MOUNTS, TIME_NS};
use crate::release::Entrypoint;

const SCRIPT: &str = include_str!("runtime.sh");

/// The user that the service runs as.
pub(crate) const USER: &str = "rocheuser";

/// The service's folder in the image.
pub(crate) const FOLDER: &str = "/app";

/// What is copied from the builder stage: path under its project, name in the image, mode where
/// the build image does not decide it.
pub(crate) const FILES: [(&str, &str); 3] =
    [("run.sh", "run.sh"), ("Cargo.toml", "Cargo.toml"), ("target/release/roche-service", "roche-service")];

/// The vertices that were added.
pub(crate) struct Runtime {
    /// Makes passwd, group and the shared objects that the runtime lacks.
    pub(crate) prepare: Digest,
    /// Lays everything into the image; output 0 is the image's tree.
    pub(crate) image: Digest,
}

/// Adds the vertices between the compiled service and the image. `runtime` is absent where the
/// image stands on nothing.
pub(crate) fn add(
    graph: &mut Graph,
    platform: &Platform,
    builder: Edge,
    config: &ImageConfig,
    runtime: Option<Digest>,
    entrypoint: Entrypoint,
) -> Result<Runtime, GraphError> {
    let (there, out) = (format!("{MOUNTS}/runtime"), format!("{MOUNTS}/out"));
    let service = format!("{PROJECT}/target/release/roche-service");
    let entrypoint = match entrypoint {
        Entrypoint::Script => "script",
        Entrypoint::Direct => "direct",
    };
    let script = ["/bin/sh", "-c", SCRIPT, "runtime.sh", &service, &there, &out, entrypoint];
    let mut exec = Exec::new(builder, "/", &script);
    // The builder's tree is looked at and left as it is.
    exec.mounts = vec![Mount::readonly("/", builder), Mount::bind(&out, None)];
    exec.mounts.extend(runtime.map(|runtime| Mount::readonly(&there, runtime)));
    let exec = Exec { env: config.env_with_path(), network: Network::None, ..exec }.ordered();
    let output = exec.output(&out).expect("the mount was added above and is writable");
    let prepare = graph.add(Op::on(platform.clone(), exec), Metadata::named("rocheuser and shared objects"))?;
    let image = graph.add(image_files(builder, Edge::new(prepare, output), runtime), Metadata::named("image files"))?;
    Ok(Runtime { prepare, image })
}

/// Lays out the release's files in an empty tree, then copies that over the runtime image.
fn image_files(builder: Edge, prepared: Edge, runtime: Option<Digest>) -> File {
    // `user` alone also gives the user's own group, as in Dockerfile's `COPY --chown=user`.
    let owner = Owner { user: Some(User::Name { name: USER.to_owned(), passwd: prepared.into() }), group: None };
    let mut kinds: Vec<FileActionKind> = vec![
        tree(prepared).into(),
        Mkdir { path: FOLDER.to_owned(), mode: 0o755, make_parents: true, owner: None, timestamp_ns: TIME_NS }.into(),
    ];
    for (path, name) in FILES {
        kinds.push(
            Copy {
                owner: Some(owner.clone()),
                follow_symlink: true,
                timestamp_ns: TIME_NS,
                ..Copy::new(builder, &format!("{PROJECT}/{path}"), &format!("{FOLDER}/{name}"))
            }
            .into(),
        );
    }
    let mut file = File::chain(None, kinds);
    let laid_out = file.actions.len() - 1;
    file.actions[laid_out].output = None;
    let input = runtime.map_or(FileInput::Scratch, FileInput::from);
    file.actions.push(FileAction { input, output: Some(0), kind: tree(FileInput::Action(laid_out)).into() });
    file
}

/// Copies a whole tree onto another: folders that both have are merged.
fn tree(from: impl Into<FileInput>) -> Copy {
    Copy { contents_only: true, timestamp_ns: TIME_NS, ..Copy::new(from, "/", "/") }
}
