//! `roche release --dry-run`: the plan of a release, and nothing built.
//!
//! 1. The base images are resolved: by the back end where one answers, else by their registries.
//! 2. The release is planned on them, exactly as a release does.
//! 3. What will run of it is foretold ([`forecast`](crate::forecast)).
//! 4. What is known of it is written down once ([`Subject::document`]), and [`text`], [`dot`],
//!    [`mermaid`] or [`html`] shows that; `json` is the document itself, `llb` the definition's bytes,
//!    and [`dockerfile`] says the graph in another language.
//!
//! Invariant: no digest is shown that a solve would not have. Below a base image that could not be
//! resolved there is none, and the first line says so.

mod dockerfile;
mod dot;
mod html;
mod mermaid;
mod text;

use std::collections::BTreeSet;
use std::time::Duration;

use roche_engine::solver::JobOptions;
use roche_engine::{Digest, Error};
use roche_frontend::plan::{BaseImage, Plan};
use roche_frontend::project::Project;
use roche_frontend::release::Release;

use crate::args::{Form, ReleaseArgs};
use crate::backend::Backend;
use crate::bases::{self, Absent, Bases};
use crate::columns::width;
use crate::document::{Subject, Unresolved};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::forecast::Outlook;
use crate::host::Machine;
use crate::lock::{self, Pins};
use crate::record::{self, Key};
use crate::{build, gains};

/// How long whoever is asked for an image has to answer.
const REGISTRY: Duration = Duration::from_secs(1);

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
    pins: &Pins,
    backend: Result<Backend, Failure>,
    args: &ReleaseArgs,
    environment: &Environment,
) -> Result<(), Failure> {
    if form == Form::Dockerfile && bases::build(release).is_none() {
        return Err(Failure::say(
            Exit::Usage,
            "a Dockerfile takes its toolchain from an image, and this release has this machine's",
        )
        .hint("roche release --dry-run=dockerfile -b IMAGE -r IMAGE"));
    }
    let (images, backend) = resolve(release, pins, backend, args, environment).await?;
    let (plan, resources) = match &images.build {
        Some(build) => (roche_frontend::plan::plan(project, release, build, images.runtime.as_ref())?, JobOptions::default()),
        None => {
            let machine = Machine::look(release.tzdata, environment, !args.output.quiet, pins.offline).await?;
            (machine.plan(project, release, images.runtime.as_ref())?, machine.resources())
        }
    };
    let unknown = unknown(&plan, &images);
    let definition = build::submitted(&plan, plan.target, &args.solve);
    let subject = Subject { project, release, plan: &plan, definition, unresolved: images.unresolved, unknown };
    let mut document = subject.document();
    let decided = record::decided(project, release, args, environment);
    gains::learn(&mut document, &decided, &Key::project(&project.root), environment);
    if let Some(backend) = backend.filter(|_| !matches!(form, Form::Llb | Form::Dockerfile)) {
        let outlook = Outlook::of(&backend, &subject.definition, &resources, images.identity, environment).await;
        outlook.tell(&mut document, &subject.definition);
    }
    let bytes = match form {
        Form::Text => text::render(&document, width(environment)).into_bytes(),
        Form::Json => document.json().into_bytes(),
        Form::Dot => dot::render(&document).into_bytes(),
        Form::Mermaid => mermaid::render(&document).into_bytes(),
        Form::Html => html::render(&document).into_bytes(),
        Form::Dockerfile => dockerfile::render(&subject)?.into_bytes(),
        Form::Llb => match subject.unresolved.first() {
            None => subject.definition.encode(),
            Some(Unresolved { image, reason }) => {
                return Err(Failure::say(
                    Exit::Registry,
                    format!("{image} is not resolved, so the plan has no LLB yet: {reason}"),
                )
                .hint(match pins.offline {
                    true => lock::HINT,
                    false => "start the back end that knows the image, or name one that can be pulled, with -b and -r",
                }));
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
    unresolved: Vec<Unresolved>,
    /// The daemon's, where it was asked for an image.
    identity: Option<Digest>,
}

/// Resolves the base images as the release would: the locked ones need nobody, the others the back
/// end, or their registries where none answers. Returns the back end, too, if there is one.
async fn resolve(
    release: &Release,
    pins: &Pins,
    backend: Result<Backend, Failure>,
    args: &ReleaseArgs,
    environment: &Environment,
) -> Result<(Images, Option<Backend>), Failure> {
    let mut pinned = Vec::new();
    for image in bases::build(release).into_iter().chain(bases::runtime(release)) {
        pinned.push((image, pins.pinned(image, &release.platform)?));
    }
    let asks = !pins.offline && pinned.iter().any(|(_, base)| base.is_none());
    // One that cannot be used is no matter of a plan that asks nobody.
    let absent = if args.output.quiet { Absent::IsPassedOver } else { Absent::IsSaid };
    let backend = if asks { absent.reachable(backend)? } else { backend.ok() };
    let asked = if asks { Some(Bases::open(backend.as_ref(), environment, absent).await?) } else { None };
    let mut unresolved = Vec::new();
    let mut resolved = Vec::new();
    for (image, base) in pinned {
        if let Some(base) = base {
            resolved.push(base);
            continue;
        }
        let answer = match &asked {
            None => Err(format!("it is not in {}, and --offline asks no registry", lock::FILE)),
            Some(bases) => match bases.find(image, &release.platform, crate::release::mode(args), REGISTRY).await {
                Ok(base) => Ok(base),
                Err(error @ Error::Registry { .. }) => Err(error.to_string()),
                Err(error) => return Err(error.into()),
            },
        };
        resolved.push(answer.unwrap_or_else(|reason| {
            unresolved.push(Unresolved { image: image.reference.familiar(), reason });
            BaseImage { reference: image.reference.clone(), digest: None, config: Vec::new() }
        }));
    }
    let identity = asked.as_ref().and_then(Bases::identity);
    if let Some(bases) = asked {
        bases.end().await;
    }
    let mut resolved = resolved.into_iter();
    let build = bases::build(release).and_then(|_| resolved.next());
    Ok((Images { build, runtime: resolved.next(), unresolved, identity }, backend))
}

/// Collects the vertices that stand on a base image that is not resolved.
fn unknown(plan: &Plan, images: &Images) -> BTreeSet<Digest> {
    let names: BTreeSet<&str> = images.unresolved.iter().map(|unresolved| unresolved.image.as_str()).collect();
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

#[cfg(test)]
mod tests;
