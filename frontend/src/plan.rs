//! The plan: the graph of a release with everything that people and exporters are told of it.
//!
//! Invariant: equal project bytes, parameters and base images give equal bytes; nothing of the
//! user's machine (paths, times, names of folders) enters an op.

mod contents;
mod on_host;

use std::collections::BTreeMap;

use roche_engine::oci::Reference;
use roche_engine::op::{Edge, Platform};
use roche_engine::solver::HostTree;
use roche_engine::{Definition, Digest, Graph, GraphError};

use crate::project::Project;
use crate::release::{Entrypoint, Release, Runtime};
use crate::shown;
use crate::stage::config::ImageConfig;
use crate::stage::{self, builder, runtime};

pub use crate::stage::host::{Host, ZONES_LOCAL};
pub use on_host::plan_on_host;

/// An image that a plan stands on, as far as it is known without its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseImage {
    /// The image as it was named.
    pub reference: Reference,
    /// Its manifest's or index's digest; absent where only a store without manifests has it.
    pub digest: Option<Digest>,
    /// Its OCI config (JSON); empty where it is not known.
    pub config: Vec<u8>,
}

impl BaseImage {
    /// Returns the reference by which the graph names the image: with the digest, if there is one.
    pub fn pinned(&self) -> Reference {
        match self.digest {
            Some(digest) => self.reference.clone().with_digest(digest),
            None => self.reference.clone(),
        }
    }
}

/// A release as a graph.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph.
    pub graph: Graph,
    /// The image's tree in it.
    pub target: Edge,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The image's OCI config (JSON) without `rootfs`.
    pub config: Vec<u8>,
    /// What the release adds to the runtime image. Shared objects that the runtime lacks come on
    /// top; which ones is decided in the step that lays everything out.
    pub contents: Vec<Entry>,
    /// The tree with everything that the image gains over its base; absent where that is not one
    /// tree.
    pub overlay: Option<Edge>,
    /// The images that the plan stands on: the build image, then the runtime image if there is one.
    pub bases: Vec<BaseImage>,
    /// The files of this machine that steps read, by the names of local sources; none where
    /// everything comes out of images.
    pub host_trees: BTreeMap<String, HostTree>,
    /// What the user should know, one line each.
    pub notices: Vec<String>,
}

/// A stage and its vertices, inputs first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// `builder` or `runtime`.
    pub name: &'static str,
    /// The vertices.
    pub vertices: Vec<Digest>,
}

/// A file or folder that the image gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its absolute path.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits. Where absent, a file has the build image's and a folder the runtime
    /// image's, if that has it.
    pub mode: Option<u32>,
    /// Its owner's name; absent for a folder that keeps the runtime image's, if that has it.
    pub owner: Option<&'static str>,
    /// Its size in bytes, where it is known before the build.
    pub size_bytes: Option<u64>,
    /// The vertex that makes it.
    pub vertex: Digest,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A base image's config is nonsense.
    #[error("{image}: {reason}")]
    Image {
        /// The image.
        image: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The release names a runtime image and none was given.
    #[error("the runtime image was not looked up")]
    NoRuntime,
    /// The graph refused a vertex.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Makes the plan of a release. `runtime` is the looked-up runtime image; it is not used where
/// the release stands on nothing.
pub fn plan(project: &Project, release: &Release, build: &BaseImage, runtime: Option<&BaseImage>) -> Result<Plan, PlanError> {
    let runtime = match release.runtime {
        Runtime::Image(_) => Some(runtime.ok_or(PlanError::NoRuntime)?),
        Runtime::Scratch(_) => None,
    };
    let platform = &release.platform;
    let mut notices = Vec::new();
    let build_config = config(build, platform, &mut notices)?;
    let runtime_config = runtime.map_or_else(|| Ok(ImageConfig::default()), |image| config(image, platform, &mut notices))?;

    let mut graph = Graph::new();
    let build_image = stage::image(&mut graph, platform, build, "build image")?;
    let scripts = stage::scripts(&mut graph, &[builder::SCRIPT, runtime::SCRIPT])?;
    let built = builder::add(&mut graph, platform, build_image, scripts, &build_config, project)?;
    let service = *built.last().expect("the builder stage has vertices");
    let runtime_image = runtime.map(|image| stage::image(&mut graph, platform, image, "runtime image")).transpose()?;
    let added = runtime::add(&mut graph, platform, service.into(), scripts, &build_config, runtime_image, release.entrypoint)?;

    let stages = vec![
        Stage { name: "builder", vertices: [build_image, scripts].into_iter().chain(built).collect() },
        Stage {
            name: "runtime",
            vertices: runtime_image.into_iter().chain([added.gained, added.overlay.vertex, added.image]).collect(),
        },
    ];
    Ok(Plan {
        graph,
        target: added.image.into(),
        stages,
        config: runtime_config.release(platform, &release.labels, release.entrypoint),
        contents: contents::from_image(added.overlay.vertex, runtime.is_some()),
        overlay: Some(added.overlay),
        bases: std::iter::once(build).chain(runtime).cloned().collect(),
        host_trees: BTreeMap::new(),
        notices,
    })
}

impl Plan {
    /// Returns what a solver is given.
    pub fn definition(&self) -> Definition {
        self.graph.definition(self.target)
    }
}

/// Reads a base image's config and says what is odd about it.
pub(crate) fn config(image: &BaseImage, platform: &Platform, notices: &mut Vec<String>) -> Result<ImageConfig, PlanError> {
    let name = image.reference.familiar();
    let fail = |reason: String| PlanError::Image { image: name.clone(), reason };
    let config = ImageConfig::parse(&image.config).map_err(fail)?;
    if !config.os().is_empty() && config.os() != platform.os {
        return Err(fail(format!("is for {}, not for {}", shown::text(config.os()), platform.os)));
    }
    if !config.architecture().is_empty() && config.architecture() != platform.architecture {
        notices.push(format!(
            "{name} is for {}, not for {platform}: its programs must be emulated",
            shown::text(config.architecture())
        ));
    }
    if config.has_on_build() {
        notices.push(format!("{name} has ONBUILD instructions, which are not run"));
    }
    Ok(config)
}

impl std::fmt::Display for Entrypoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Script => "./run.sh",
            Self::Direct => "/app/roche-service",
        })
    }
}

#[cfg(test)]
mod tests;
