//! `roche release`: from the function in a folder to an image.

use std::collections::BTreeSet;
use std::path::PathBuf;

use roche_engine::op::Platform;
use roche_engine::solver::{Job, JobOptions, ResolveMode};
use roche_frontend::plan::{BaseImage, Plan};
use roche_frontend::project::Project;
use roche_frontend::release::{self, BuildImage, Flags, Image, Release, Runtime};

use crate::args::ReleaseArgs;
use crate::backend::Backend;
use crate::build::{Build, Built, Planned};
use crate::document::Subject;
use crate::environment::Environment;
use crate::error::Failure;
use crate::host::Machine;
use crate::lock::Pins;
use crate::logins::Logins;
use crate::outputs::{self, Request};
use crate::progress::Display;
use crate::record::Recorder;
use crate::sbom::{self, Wanted};
use crate::{backend, dry_run, note};

/// A release whose settings are decided.
#[derive(Clone, Copy)]
pub(crate) struct Decided<'a> {
    pub(crate) project: &'a Project,
    pub(crate) release: &'a Release,
    pub(crate) pins: &'a Pins,
    pub(crate) args: &'a ReleaseArgs,
    pub(crate) environment: &'a Environment,
    /// Whether the user is told what is going on.
    pub(crate) narrate: bool,
}

/// Releases the function in the current folder, or shows the plan of its release.
pub(crate) async fn run(args: &ReleaseArgs, environment: &Environment) -> Result<(), Failure> {
    let flags = flags(args);
    let mut request = Request::parse(&args.output, &args.solve, environment)?;
    let wanted = args.sbom.iter().map(|text| Wanted::parse(text)).collect::<Result<Vec<_>, _>>()?;
    request.told = wanted.iter().map(|wanted| wanted.file.clone()).collect();
    if let Some(form) = args.dry_run {
        outputs::refuse_in_dry_run(&args.output, !wanted.is_empty())?;
        dry_run::check(form, environment)?;
    }
    let project = Project::read(&environment.folder)?;
    let pins = Pins::read(&project, &args.pins)?;
    let logins = Logins::look_up(flags.tags.is_empty() && environment.variable("DOCKER_USERNAME").is_none(), environment).await;
    let backend = backend::find(&args.solve, pins.offline, environment);
    let embedded = backend.as_ref().is_ok_and(|backend| backend.embedded);
    let release = release::resolve(&flags, &environment.variables, embedded, &project, &|| logins.tell())?;
    let narrate = !args.output.quiet && request.display != Display::RawJson;
    if narrate {
        project.notices.iter().for_each(|notice| note(notice));
    }
    if let Some(form) = args.dry_run {
        return dry_run::run(form, &project, &release, &pins, backend, args, environment).await;
    }

    let recorder = Recorder::begin(&project, &release, args, environment, narrate);
    let decided = Decided { project: &project, release: &release, pins: &pins, args, environment, narrate };
    let released = decided.released(request, wanted, backend, &recorder).await;
    recorder.end(&released);
    released
}

impl Decided<'_> {
    /// Releases to the outputs that the request names.
    async fn released(
        &self,
        mut request: Request,
        wanted: Vec<Wanted>,
        backend: Result<Backend, Failure>,
        recorder: &Recorder<'_>,
    ) -> Result<(), Failure> {
        let Self { project, release, args, environment, .. } = *self;
        let backend = backend?;
        if let Some(notice) = backend.notice.as_ref().filter(|_| self.narrate) {
            note(notice);
        }
        request.settle(&args.output, backend.has_store, project.folder(), &inputs(project, environment), environment)?;
        let sbom = sbom::Request::new(wanted, &release.platform.architecture, environment)?;
        let build = Build::new(&args.output, request, &release.tags, environment, backend).with_sbom(sbom);
        self.made(build.recorded(recorder).require_cached(args.require_cached)).await.map(drop)
    }

    /// Builds it: with its build image, or with this machine's own toolchain.
    pub(crate) async fn made(&self, build: Build<'_>) -> Result<Built, Failure> {
        let Self { project, release, pins, args, environment, narrate } = *self;
        let recorder = build.recorder();
        let planned = |job: &dyn Job, plan: &Plan| {
            let planned = Planned::of(plan, &args.solve);
            if let Some(recorder) = recorder {
                recorder.identified(job.identity());
                let (definition, unresolved, unknown) = (planned.definition.clone(), Vec::new(), BTreeSet::new());
                recorder.planned(&Subject { project, release, plan, definition, unresolved, unknown });
            }
            planned
        };
        match &release.build_image {
            BuildImage::Image(image) => {
                build
                    .run(JobOptions::default(), async |job: &dyn Job| {
                        Ok(planned(job, &plan(job, image, project, release, pins, mode(args)).await?))
                    })
                    .await
            }
            BuildImage::Host(_) => {
                let machine = Machine::look(release.tzdata, environment, narrate, pins.offline).await?;
                if let Some(recorder) = recorder {
                    recorder.materials(machine.materials());
                }
                build
                    .run(machine.resources(), async |job: &dyn Job| {
                        let runtime = runtime(job, release, pins, mode(args)).await?;
                        Ok(planned(job, &machine.plan(project, release, runtime.as_ref())?))
                    })
                    .await
            }
        }
    }
}

/// Asks the solver for the base images that are not locked and plans on all.
pub(crate) async fn plan(
    job: &dyn Job,
    build_image: &Image,
    project: &Project,
    release: &Release,
    pins: &Pins,
    mode: ResolveMode,
) -> Result<Plan, Failure> {
    let (build, runtime) =
        tokio::try_join!(pins.base(job, build_image, &release.platform, mode), runtime(job, release, pins, mode))?;
    Ok(roche_frontend::plan::plan(project, release, &build, runtime.as_ref())?)
}

/// Asks the solver for the runtime image, where the release stands on one.
async fn runtime(job: &dyn Job, release: &Release, pins: &Pins, mode: ResolveMode) -> Result<Option<BaseImage>, Failure> {
    match &release.runtime {
        Runtime::Image(image) => pins.base(job, image, &release.platform, mode).await.map(Some),
        Runtime::Scratch(_) => Ok(None),
    }
}

pub(crate) async fn base(job: &dyn Job, image: &Image, platform: &Platform, mode: ResolveMode) -> Result<BaseImage, Failure> {
    let resolved = job.resolve_image(&image.reference, platform, mode).await.map_err(|error| image_failure(error, image))?;
    Ok(BaseImage { reference: image.reference.clone(), digest: resolved.digest, config: resolved.config })
}

/// Says who named an image that cannot be had.
pub(crate) fn image_failure(error: roche_engine::Error, image: &Image) -> Failure {
    let registry = matches!(error, roche_engine::Error::Registry { .. });
    let failure = Failure::from(error);
    if !registry {
        return failure;
    }
    failure
        .hint(format!("{} was named by {}", image.reference.familiar(), image.origin))
        .hint("name images that can be pulled: roche release -b IMAGE -r IMAGE; roche prepare makes a build image")
}

/// The release's own files, which no output may overwrite.
fn inputs(project: &Project, environment: &Environment) -> Vec<PathBuf> {
    let files = std::iter::once(&project.function).chain(&project.lib);
    files.map(|file| environment.folder.join(&file.path)).collect()
}

pub(crate) fn mode(args: &ReleaseArgs) -> ResolveMode {
    if args.solve.pull { ResolveMode::Pull } else { ResolveMode::Default }
}

/// What the command line says of the release.
pub(crate) fn flags(args: &ReleaseArgs) -> Flags {
    Flags {
        build_image: args.buildimage.clone(),
        runtime: args.runtime.clone(),
        tags: args.tag.clone(),
        platform: args.solve.platform.clone(),
        labels: args.label.clone(),
        entrypoint: args.entrypoint.clone(),
        tzdata: args.tzdata,
    }
}
