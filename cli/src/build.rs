//! One build on a back end: what `release` and `prepare` have in common.
//!
//! 1. The job is opened with its outputs, caches and credentials.
//! 2. The command plans on the job's base images.
//! 3. The definition is solved, the outputs are written, the report is told.
//!
//! Invariant: on SIGINT and SIGTERM the solver has been told to stop before the process ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roche_engine::Definition;
use roche_engine::oci::Reference;
use roche_engine::solver::{ArchiveDest, ArchiveFormat, Exported, FileInfo, Job, JobOptions, Solved};
use roche_frontend::plan::{BaseImage, EntryKind, Plan};
use tokio::sync::mpsc;

use crate::args::{OutputArgs, SolveArgs};
use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::Failure;
use crate::outputs::{self, Output};
use crate::progress::{self, Display, Trace};
use crate::report::{self, AddedFile, Report};
use crate::{interrupt, logins};

/// How long the solver has to let go after a signal.
const CANCEL: Duration = Duration::from_millis(1500);

/// A build, ready to run.
pub(crate) struct Build<'a> {
    args: &'a OutputArgs,
    environment: &'a Environment,
    backend: Backend,
    names: &'a [Reference],
    outputs: Vec<Output>,
    display: Display,
    caches: JobOptions,
    no_cache: bool,
}

/// What a command planned.
pub(crate) struct Planned {
    /// What is solved.
    pub(crate) definition: Definition,
    /// The image's config.
    pub(crate) config: Vec<u8>,
    /// The images that it stands on.
    pub(crate) bases: Vec<BaseImage>,
    /// Paths of the image that the report lists with their sizes.
    pub(crate) added: Vec<String>,
    /// A tree all of whose files the image gains, where only a step decides which.
    pub(crate) overlay: Option<Definition>,
}

impl Planned {
    /// Takes from a plan what a build needs.
    pub(crate) fn of(plan: &Plan) -> Self {
        let files = plan.contents.iter().filter(|entry| entry.kind == EntryKind::File);
        Self {
            definition: plan.definition(),
            config: plan.config.clone(),
            bases: plan.bases.clone(),
            added: files.map(|entry| entry.path.clone()).collect(),
            overlay: plan.overlay.map(|edge| plan.graph.definition(edge)),
        }
    }
}

/// What a build came to.
struct Built {
    planned: Planned,
    added: Vec<AddedFile>,
    exported: Exported,
}

impl<'a> Build<'a> {
    /// Decides everything that can be decided before a daemon is asked.
    pub(crate) fn new(
        args: &'a OutputArgs,
        solve: &SolveArgs,
        mut outputs: Vec<Output>,
        names: &'a [Reference],
        folder: Option<&str>,
        environment: &'a Environment,
        backend: Backend,
    ) -> Result<Self, Failure> {
        if outputs.is_empty() {
            outputs.push(if backend.has_store {
                Output::Store
            } else {
                let file = PathBuf::from(format!("{}.oci.tar", folder.unwrap_or("image")));
                Output::Archive { format: ArchiveFormat::Oci, dest: ArchiveDest::File(file) }
            });
        }
        let cache = |flag: &str, texts: &[String]| texts.iter().map(|text| outputs::cache(flag, text)).collect::<Result<Vec<_>, _>>();
        let caches = JobOptions {
            cache_imports: cache("--cache-from", &solve.cache_from)?,
            cache_exports: cache("--cache-to", &solve.cache_to)?,
            ..JobOptions::default()
        };
        let display = Display::resolve(args.progress, args.quiet, environment)?;
        Ok(Self { args, environment, backend, names, outputs, display, caches, no_cache: solve.no_cache })
    }

    /// Runs the build; `plan` is called once the job is open.
    pub(crate) async fn run<P>(self, resources: JobOptions, plan: P) -> Result<(), Failure>
    where
        P: AsyncFnOnce(&mut dyn Job) -> Result<Planned, Failure>,
    {
        let started = Instant::now();
        let options = JobOptions {
            exports: self.outputs.iter().map(|output| output.export(self.names)).collect(),
            credentials: Some(Arc::new(logins::credentials(self.environment))),
            cache_imports: self.caches.cache_imports.clone(),
            cache_exports: self.caches.cache_exports.clone(),
            ..resources
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        let shown = tokio::spawn(progress::show(self.display, receiver));
        let result = tokio::select! {
            result = self.work(options, sender, plan) => result,
            exit = interrupt::wait() => Err(interrupt::failure(exit)),
        };
        // The senders went with the work; what is left is drawn and the vertices are known.
        let trace = match tokio::time::timeout(CANCEL, shown).await {
            Ok(Ok(trace)) => trace,
            _ => Trace::default(),
        };
        match result {
            Ok(built) => self.finish(built, &trace, started.elapsed()),
            Err(failure) => Err(report::explain(failure, &trace, self.display, self.environment)),
        }
    }

    async fn work<P>(&self, options: JobOptions, progress: mpsc::UnboundedSender<roche_engine::solver::Progress>, plan: P) -> Result<Built, Failure>
    where
        P: AsyncFnOnce(&mut dyn Job) -> Result<Planned, Failure>,
    {
        let mut job = self.backend.solver.open(options, progress).await.map_err(|error| self.backend.failure(error))?;
        let planned = plan(&mut *job).await?;
        let definition = if self.no_cache { planned.definition.without_cache() } else { planned.definition.clone() };
        let solved = job.solve(&definition).await?;
        let mut added = added_files(&mut *job, &solved, &planned.added).await?;
        if let Some(overlay) = &planned.overlay {
            let tree = job.solve(overlay).await?;
            added.extend(overlaid_files(&mut *job, &tree).await?.into_iter().filter(|file| !planned.added.contains(&file.path)));
            added.sort_by(|a, b| a.path.cmp(&b.path));
        }
        let exported = job.export(solved, planned.config.clone()).await?;
        Ok(Built { planned, added, exported })
    }

    fn finish(self, built: Built, trace: &Trace, elapsed: Duration) -> Result<(), Failure> {
        let report = Report {
            names: self.names,
            outputs: &self.outputs,
            backend: &self.backend,
            bases: &built.planned.bases,
            definition: &built.planned.definition,
            added: &built.added,
            exported: &built.exported,
            trace,
            elapsed,
        };
        report.tell(self.args, self.environment)
    }
}

/// Reads the sizes of the files that the image gained, a folder at a time.
async fn added_files(job: &mut dyn Job, solved: &Solved, paths: &[String]) -> Result<Vec<AddedFile>, Failure> {
    let mut added = Vec::new();
    let mut folder: Option<(String, Vec<FileInfo>)> = None;
    for path in paths {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if folder.as_ref().is_none_or(|(open, _)| open != parent) {
            let inside = if parent.is_empty() { "/" } else { parent };
            folder = Some((parent.to_owned(), job.read_dir(solved, inside).await?));
        }
        let info = folder.as_ref().and_then(|(_, files)| files.iter().find(|info| info.name == name));
        added.extend(info.map(|info| AddedFile { path: path.clone(), info: info.clone() }));
    }
    Ok(added)
}

/// Lists the files of a tree, folder by folder.
async fn overlaid_files(job: &mut dyn Job, tree: &Solved) -> Result<Vec<AddedFile>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for info in job.read_dir(tree, if folder.is_empty() { "/" } else { &folder }).await? {
            let path = format!("{folder}/{}", info.name);
            if info.is_dir() {
                folders.push(path);
            } else {
                files.push(AddedFile { path, info });
            }
        }
    }
    Ok(files)
}
