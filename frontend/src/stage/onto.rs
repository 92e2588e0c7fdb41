//! A service that this machine compiled, put onto a runtime image.
//!
//! Invariants: nothing runs in the runtime image, and no step needs a shell: what has to be decided
//! by the image's content is decided by a small static program, compiled by the same toolchain.
//! No step changes an owner, which one with a single uid cannot: rocheuser's files get theirs by a
//! copy op that looks the name up. An edit of the function repeats neither step.

use roche_engine::op::{Copy, Edge, Exec, File, FileActionKind, Metadata, Mount, Network, Op, Owner, Platform};
use roche_engine::{Digest, Graph, GraphError};

use super::host::{self, Host, SCRATCH};
use super::runtime::{FOLDER, USER};
use super::{MOUNTS, TIME_NS};
use crate::host::STATIC;
use crate::release::Entrypoint;

/// The program's source.
const SOURCE: (&str, &str) = ("rocheuser.rs", include_str!("rocheuser.rs"));

/// The vertices that were added, in order; the last two lay out what the image gains and put it
/// into the image.
pub(crate) struct Onto {
    pub(crate) vertices: Vec<Digest>,
    pub(crate) overlay: Edge,
    pub(crate) image: Digest,
}

/// Adds the vertices between the compiled service and the image over `runtime`.
pub(crate) fn image(
    graph: &mut Graph,
    platform: &Platform,
    host: &Host<'_>,
    built: Edge,
    runtime: Digest,
    entrypoint: Entrypoint,
) -> Result<Onto, GraphError> {
    let sources = super::scripts(graph, &[SOURCE])?;
    let program = program(graph, platform, host, sources)?;
    let (there, out, ids) = (format!("{MOUNTS}/runtime"), format!("{MOUNTS}/out"), format!("{MOUNTS}/ids"));
    let mut exec = Exec::new(program, "/", &["/rocheuser", &there, &out, &ids, entrypoint.name()]);
    exec.mounts =
        vec![Mount::discarded("/", program), Mount::readonly(&there, runtime), Mount::bind(&out, None), Mount::bind(&ids, None)];
    let exec = Exec { network: Network::None, ..exec }.ordered();
    let output = |target: &str| exec.output(target).expect("the mount was added above and is writable");
    let (out, ids) = (output(&out), output(&ids));
    let user = graph.add(Op::on(platform.clone(), exec), Metadata::named("make rocheuser"))?;
    let owner = Some(Owner::named(USER, USER, Edge::new(user, ids)));
    let copies = host::files(&host.toolchain.target).map(|(from, name, mode)| -> FileActionKind {
        let (owner, mode) = (owner.clone(), Some(mode));
        Copy { owner, mode, timestamp_ns: TIME_NS, ..Copy::new(built, &from, &format!("{FOLDER}/{name}")) }.into()
    });
    let overlay = File::chain(Some(Edge::new(user, out)), copies);
    let overlay = graph.add(overlay, Metadata::named("lay out what the image gains"))?;
    let copy = Copy { contents_only: true, timestamp_ns: TIME_NS, ..Copy::new(overlay, "/", "/") };
    let image = graph.add(File::chain(Some(runtime.into()), [copy.into()]), Metadata::named("image files"))?;
    Ok(Onto { vertices: vec![sources, program.vertex, runtime, user, overlay, image], overlay: overlay.into(), image })
}

/// Adds the step that compiles the program; its output holds nothing else.
fn program(graph: &mut Graph, platform: &Platform, host: &Host<'_>, sources: Digest) -> Result<Edge, GraphError> {
    let toolchain = host::toolchain(graph, host)?;
    let (place, out) = (format!("{MOUNTS}/steps"), format!("{MOUNTS}/out"));
    let (source, program) = (format!("{place}/{}", SOURCE.0), format!("{out}/rocheuser"));
    let target = host.toolchain.target.as_str();
    let args = ["rustc", "--edition", "2021", "-O", "--target", target, "-C", STATIC, "-o", &program, &source];
    let exec = Exec::new(toolchain, "/", &args).readonly_root().mount(Mount::readonly(&place, sources));
    let exec = exec.mount(Mount::bind(&out, None)).mount(Mount::tmpfs(SCRATCH, 0));
    let exec = Exec { env: host::env(host.toolchain), network: Network::None, ..exec }.ordered();
    let output = exec.output(&out).expect("the mount was added above and is writable");
    let vertex = graph.add(Op::on(platform.clone(), exec), Metadata::named("compile rocheuser.rs"))?;
    Ok(Edge::new(vertex, output))
}
