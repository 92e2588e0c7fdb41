//! `roche release --dry-run`: the plan of a release, and nothing built.
//!
//! 1. The base images are resolved: by the back end where one answers, else by their registries.
//! 2. The release is planned on them, exactly as a release does.
//! 3. [`text`], [`json`] or [`dot`] shows the plan; `llb` is the definition's bytes.
//!
//! Invariant: no digest is shown that a solve would not have. Below a base image that could not be
//! resolved there is none, and the first line says so.

mod dot;
mod json;
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use roche_engine::oci::registry::Registry;
use roche_engine::op::Platform;
use roche_engine::solver::{Job, JobOptions, ResolveMode, progress_channel};
use roche_engine::{Definition, Digest, Error, Vertex};
use roche_frontend::plan::{BaseImage, Plan};
use roche_frontend::project::Project;
use roche_frontend::release::{BuildImage, Image, Release, Runtime};

use crate::args::{Form, ReleaseArgs};
use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::host::Machine;
use crate::{build, logins, mirrors, note};

/// How long a registry has to answer.
const REGISTRY: Duration = Duration::from_secs(1);

/// A plan, and what is not known of it.
pub(crate) struct DryRun<'a> {
    pub(crate) plan: &'a Plan,
    /// What a release would submit.
    pub(crate) definition: Definition,
    pub(crate) release: &'a Release,
    /// Base images without a digest or config, and why.
    pub(crate) unresolved: Vec<(String, String)>,
    /// Vertices whose digests are not known, because a base image's is not.
    unknown: BTreeSet<Digest>,
}

impl DryRun<'_> {
    /// Returns a vertex's digest, where a solve would have the same.
    pub(crate) fn digest(&self, vertex: &Vertex) -> Option<Digest> {
        (!self.unknown.contains(&vertex.digest)).then_some(vertex.digest)
    }
}

/// Refuses what can be refused before anything is read.
pub(crate) fn check(form: Form, environment: &Environment) -> Result<(), Failure> {
    if form == Form::Llb && environment.stdout_terminal {
        return Err(Failure::say(Exit::Usage, "the plan's LLB is bytes, and standard output is a terminal")
            .hint("roche release --dry-run=llb > plan.llb"));
    }
    Ok(())
}

/// Shows the plan.
pub(crate) async fn run(
    form: Form,
    project: &Project,
    release: &Release,
    backend: Result<Backend, Failure>,
    args: &ReleaseArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    let images = resolve(release, backend, args, environment).await?;
    let plan = match &images.build {
        Some(build) => roche_frontend::plan::plan(project, release, build, images.runtime.as_ref())?,
        None => Machine::look(release.tzdata, environment, false).await?.plan(project, release, images.runtime.as_ref())?,
    };
    let unknown = unknown(&plan, &images);
    let definition = build::submitted(&plan, plan.target, &args.solve);
    let dry_run = DryRun { plan: &plan, definition, release, unresolved: images.unresolved, unknown };
    let bytes = match form {
        Form::Text => text::render(&dry_run).into_bytes(),
        Form::Json => json::render(&dry_run).into_bytes(),
        Form::Dot => dot::render(&dry_run).into_bytes(),
        Form::Llb => match dry_run.unresolved.first() {
            None => dry_run.definition.encode(),
            Some((image, reason)) => {
                return Err(Failure::say(
                    Exit::Registry,
                    format!("{image} is not resolved, so the plan has no LLB yet: {reason}"),
                )
                .hint("start the back end that knows the image, or name one that can be pulled, with -b and -r"));
            }
        },
    };
    crate::write_stdout(&bytes)
}

/// The base images, as far as they are known.
struct Images {
    /// None where the machine's own toolchain compiles.
    build: Option<BaseImage>,
    runtime: Option<BaseImage>,
    unresolved: Vec<(String, String)>,
}

/// Resolves the base images as the release would, and by their registries where no back end
/// answers.
async fn resolve(
    release: &Release,
    backend: Result<Backend, Failure>,
    args: &ReleaseArgs,
    environment: &Environment,
) -> Result<Images, Failure> {
    let (progress, _) = progress_channel(1);
    let credentials = logins::credentials(environment);
    let options =
        JobOptions { credentials: Some(std::sync::Arc::new(logins::credentials(environment))), ..JobOptions::default() };
    let job = match backend {
        Ok(backend) => match backend.solver.open(options, progress).await {
            Ok(job) => Some(job),
            Err(error @ Error::Connect { .. }) => {
                if !args.output.quiet {
                    note(&format!("{error}; asking the registries instead"));
                }
                None
            }
            Err(error) => return Err(backend.failure(error)),
        },
        Err(failure) if failure.exit == Exit::Unreachable => None,
        Err(failure) => return Err(failure),
    };
    let registry = Registry::new(&mirrors::registries(environment)?)?;
    let mut unresolved = Vec::new();
    let mut resolved = Vec::new();
    let build = match &release.build_image {
        BuildImage::Image(image) => Some(image),
        BuildImage::Host(_) => None,
    };
    let runtime = match &release.runtime {
        Runtime::Image(image) => Some(image),
        Runtime::Scratch(_) => None,
    };
    for image in build.into_iter().chain(runtime) {
        let answer = match &job {
            Some(job) => ask(&**job, image, &release.platform, crate::release::mode(args)).await,
            None => {
                let answer = registry.resolve(&image.reference, &release.platform, Some(&credentials), REGISTRY).await;
                answer.map(|found| BaseImage { reference: image.reference.clone(), digest: found.digest, config: found.config })
            }
        };
        resolved.push(match answer {
            Ok(base) => base,
            Err(error @ Error::Registry { .. }) => {
                unresolved.push((image.reference.familiar(), error.to_string()));
                BaseImage { reference: image.reference.clone(), digest: None, config: Vec::new() }
            }
            Err(error) => return Err(error.into()),
        });
    }
    if let Some(job) = job {
        job.cancel().await;
    }
    let mut resolved = resolved.into_iter();
    let build = build.and_then(|_| resolved.next());
    Ok(Images { build, runtime: resolved.next(), unresolved })
}

async fn ask(job: &dyn Job, image: &Image, platform: &Platform, mode: ResolveMode) -> Result<BaseImage, Error> {
    let found = job.resolve_image(&image.reference, platform, mode).await?;
    Ok(BaseImage { reference: image.reference.clone(), digest: found.digest, config: found.config })
}

/// Collects the vertices that stand on a base image that is not resolved.
fn unknown(plan: &Plan, images: &Images) -> BTreeSet<Digest> {
    let names: BTreeSet<&str> = images.unresolved.iter().map(|(name, _)| name.as_str()).collect();
    let bases = images.build.iter().chain(&images.runtime);
    let sources: BTreeSet<String> =
        bases.filter(|base| names.contains(base.reference.familiar().as_str())).map(|base| base.reference.to_string()).collect();
    let mut unknown = BTreeSet::new();
    for vertex in plan.graph.vertices() {
        let is_source =
            matches!(&vertex.op.kind, roche_engine::op::OpKind::Source(source) if sources.contains(source.reference()));
        if is_source || vertex.op.kind.inputs().iter().any(|edge| unknown.contains(&edge.vertex)) {
            unknown.insert(vertex.digest);
        }
    }
    unknown
}
