//! The builder stage: the function is put into the build image's project and compiled there.

use roche_engine::op::{Edge, Exec, File, Metadata, Mount, Network, Op, Platform};
use roche_engine::{Digest, Graph, GraphError};

use super::MOUNTS;
use super::config::ImageConfig;
use crate::project::{Project, SourceFile};

/// Where the service's cargo project stands in a build image.
pub(crate) const PROJECT: &str = "/app-build";

/// The step's script.
pub(crate) const SCRIPT: (&str, &str) = ("compile.sh", include_str!("compile.sh"));

/// Adds the vertices between the build image and the compiled service; returns them in order.
/// The last one's output 0 is the build image's tree with the service.
pub(crate) fn add(
    graph: &mut Graph,
    platform: &Platform,
    image: Digest,
    scripts: Digest,
    config: &ImageConfig,
    project: &Project,
) -> Result<Vec<Digest>, GraphError> {
    let function = function(graph, project)?;
    let place = format!("{MOUNTS}/function");
    let compile = super::run(image, scripts, SCRIPT.0, &[&place, PROJECT]);
    let compile = compile.mount(Mount::readonly(&place, function));
    let compile = graph.add(step(platform, config, compile), Metadata::named("compile roche-service"))?;
    let mut vertices = vec![function, compile];
    if project.lib.is_some() {
        let test = Exec::new(compile, PROJECT, &["cargo", "test", "--lib", "--release"]);
        vertices.push(graph.add(step(platform, config, test), Metadata::named("test lib.rs"))?);
    }
    Ok(vertices)
}

/// Adds the function's files as a tree of their own. Paths are the same wherever they stood.
fn function(graph: &mut Graph, project: &Project) -> Result<Digest, GraphError> {
    let file = |path: &str, file: &SourceFile| super::file(path, 0o644, &file.data);
    let lib = project.lib.as_ref().map(|lib| file("/lib.rs", lib));
    let name = if lib.is_some() { "function functions.rs, lib.rs" } else { "function functions.rs" };
    let files = std::iter::once(file("/functions.rs", &project.function)).chain(lib);
    graph.add(File::chain(None::<Edge>, files), Metadata::named(name))
}

/// Runs a step as the build image says: its environment, its user, no network.
pub(crate) fn step(platform: &Platform, config: &ImageConfig, exec: Exec) -> Op {
    let mut env = config.env_with_path();
    for (name, value) in [("CARGO_NET_OFFLINE", "true"), ("CARGO_TERM_COLOR", "always"), ("CARGO_TERM_PROGRESS_WHEN", "never")] {
        super::config::set(&mut env, name, value);
    }
    let exec = Exec { env, user: config.user(), network: Network::None, ..exec };
    Op::on(platform.clone(), exec.ordered())
}
