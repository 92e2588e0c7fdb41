//! One build on a back end: what `release` and `prepare` have in common.
//!
//! 1. The job is opened with its outputs, caches and credentials.
//! 2. The command plans on the job's base images.
//! 3. The definition is solved, the outputs are written, the report is told.
//!
//! Invariant: dropping a build cancels it on the solver.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::try_join_all;
use roche_engine::oci::Reference;
use roche_engine::op::Edge;
use roche_engine::solver::{Exported, FileInfo, Job, JobOptions, ProgressSender, Solved, progress_channel};
use roche_engine::{Definition, Error};
use roche_frontend::plan::{BaseImage, EntryKind, Plan};

use crate::args::{OutputArgs, SolveArgs};
use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::forecast::Outlook;
use crate::outputs::Request;
use crate::progress::chrome::Traced;
use crate::progress::{self, Display, Trace};
use crate::record::{self, Recorder};
use crate::report::{self, AddedFile, Report};
use crate::require_cached::Watch;
use crate::sbom::{self, Materials};
use crate::{files, logins, note};

/// Progress that may wait to be shown; a daemon that floods us waits for the terminal.
const PROGRESS_BYTES: u32 = 32 << 20;
/// How many paths are listed of what an image gains, and how long each may be.
const GAINED: usize = 100_000;
const PATH_BYTES: usize = 4096;
/// How many folders of it a solver is asked for at once.
const FOLDERS_AT_ONCE: usize = 32;

/// A build, ready to run.
pub(crate) struct Build<'a> {
    args: &'a OutputArgs,
    /// What the flags ask for, settled.
    request: Request,
    names: &'a [Reference],
    environment: &'a Environment,
    backend: Backend,
    /// What keeps a record of it, where one is kept.
    recorder: Option<&'a Recorder<'a>>,
    /// Whether no step may run.
    require_cached: bool,
    /// Which bills of materials are written.
    sbom: sbom::Request,
    /// Whether the user is told of the result.
    is_told: bool,
}

/// What a command planned.
pub(crate) struct Planned {
    /// What is solved.
    pub(crate) definition: Definition,
    /// The image's config.
    pub(crate) config: Vec<u8>,
    /// What the user should know.
    pub(crate) notices: Vec<String>,
    /// The images that it stands on.
    pub(crate) bases: Vec<BaseImage>,
    /// Paths of the image that the report lists with their sizes.
    pub(crate) added: Vec<String>,
    /// A tree all of whose files the image gains, where only a step decides which.
    pub(crate) overlay: Option<Definition>,
}

impl Planned {
    /// Takes from a plan what a build needs.
    pub(crate) fn of(plan: &Plan, solve: &SolveArgs) -> Self {
        let files = plan.contents.iter().filter(|entry| entry.kind == EntryKind::File);
        Self {
            definition: submitted(plan, plan.target, solve),
            notices: plan.notices.clone(),
            config: plan.config.clone(),
            bases: plan.bases.clone(),
            added: files.map(|entry| entry.path.clone()).collect(),
            overlay: plan.overlay.map(|edge| submitted(plan, edge, solve)),
        }
    }
}

/// Cuts out of a plan what a solver is given for one of its edges.
pub(crate) fn submitted(plan: &Plan, target: Edge, solve: &SolveArgs) -> Definition {
    let definition = plan.graph.definition(target);
    if solve.no_cache { definition.without_cache() } else { definition }
}

/// What a build came to.
pub(crate) struct Built {
    pub(crate) planned: Planned,
    added: Vec<AddedFile>,
    /// Where the image is not what was planned; absent where nobody planned its files.
    differences: Option<Vec<String>>,
    /// What the program is made of, where somebody asked.
    materials: Option<Materials>,
    pub(crate) exported: Exported,
}

impl<'a> Build<'a> {
    /// Takes what was decided before a daemon is asked.
    pub(crate) fn new(
        args: &'a OutputArgs,
        request: Request,
        names: &'a [Reference],
        environment: &'a Environment,
        backend: Backend,
    ) -> Self {
        let sbom = sbom::Request::default();
        Self { args, request, names, environment, backend, recorder: None, require_cached: false, sbom, is_told: true }
    }

    /// Has a record of the build kept.
    pub(crate) fn recorded(self, recorder: &'a Recorder<'a>) -> Self {
        recorder.back_end(&self.backend);
        Self { recorder: Some(recorder), ..self }
    }

    /// Returns what keeps a record of it.
    pub(crate) fn recorder(&self) -> Option<&'a Recorder<'a>> {
        self.recorder
    }

    /// Says whether no step may run.
    pub(crate) fn require_cached(self, require_cached: bool) -> Self {
        Self { require_cached, ..self }
    }

    /// Asks for bills of materials.
    pub(crate) fn with_sbom(self, sbom: sbom::Request) -> Self {
        Self { sbom, ..self }
    }

    /// Keeps the result for the caller alone: no report, nothing on standard output.
    pub(crate) fn untold(self) -> Self {
        Self { is_told: false, ..self }
    }

    /// Runs the build; `plan` is called once the job is open.
    pub(crate) async fn run<P>(self, resources: JobOptions, plan: P) -> Result<Built, Failure>
    where
        P: AsyncFnOnce(&dyn Job) -> Result<Planned, Failure>,
    {
        let (when, started) = (SystemTime::now(), Instant::now());
        let options = JobOptions {
            exports: self.request.outputs.iter().map(|output| output.export(self.names)).collect(),
            credentials: Some(Arc::new(logins::credentials(self.environment))),
            cache_imports: self.request.cache_imports.clone(),
            cache_exports: self.request.cache_exports.clone(),
            ..resources
        };
        let (sender, receiver) = progress_channel(PROGRESS_BYTES);
        let (watch, receiver) = if self.require_cached && !self.backend.embedded {
            let (watch, receiver) = Watch::on(receiver, PROGRESS_BYTES);
            (Some(watch), receiver)
        } else {
            (None, receiver)
        };
        let trace = self.recorder.map(Recorder::trace).unwrap_or_default();
        let shown = tokio::spawn(progress::show(self.request.display, receiver, Arc::clone(&trace)));
        let result = self.work(options, sender, watch.as_ref(), plan).await;
        // The senders went with the work; what is left is drawn and the vertices are known.
        let _ = shown.await;
        let trace = record::look(&trace);
        let written = self.write_trace(&trace, when, started.elapsed());
        match result {
            Ok(built) if self.is_told => written.and_then(|()| self.finish(built, &trace, started.elapsed())),
            Ok(built) => Ok(built),
            Err(failure) => {
                if let Err(unwritten) = written {
                    note(unwritten.message());
                }
                Err(report::explain(failure, &trace, self.request.display, self.environment))
            }
        }
    }

    /// Writes the file that `--trace` asks for, also of a build that failed.
    fn write_trace(&self, trace: &Trace, started: SystemTime, duration: Duration) -> Result<(), Failure> {
        let Some(file) = &self.args.trace else { return Ok(()) };
        let name = if self.recorder.is_some() { "roche release" } else { "roche prepare" };
        let json = Traced { name, trace, started, duration }.json();
        files::replace(&self.environment.folder.join(file), json.as_bytes())
    }

    async fn work<P>(
        &self,
        options: JobOptions,
        progress: ProgressSender,
        watch: Option<&Watch>,
        plan: P,
    ) -> Result<Built, Failure>
    where
        P: AsyncFnOnce(&dyn Job) -> Result<Planned, Failure>,
    {
        let job = self.backend.solver.open(options.clone(), progress).await.map_err(|error| self.backend.failure(error))?;
        let planned = plan(&*job).await?;
        if self.require_cached
            && let Some(forecast) = self.backend.solver.forecast(&planned.definition, &options).await?
        {
            Outlook::Exact(forecast).refuse(&planned.definition)?;
        }
        let solving = solve(&*job, &planned);
        let solved = match watch {
            None => solving.await,
            Some(watch) => {
                let solved = tokio::select! {
                    refusal = watch.refusal(&planned.definition) => Err(refusal),
                    solved = solving => solved,
                };
                match solved {
                    Ok(solved) => watch.settle(&planned.definition).await.map(|()| solved),
                    refused => refused,
                }
            }
        };
        let (solved, added, gained) = match solved {
            Err(refused) if refused.exit == Exit::Policy => {
                // Nothing goes on once the refusal is told.
                job.cancel().await;
                return Err(refused);
            }
            solved => solved?,
        };
        // Before the image is anywhere: one whose materials cannot be told is not released.
        let materials = match self.sbom.is_asked() {
            true => Some(Materials::read(&*job, &gained, &added, &self.sbom.architecture).await?),
            false => None,
        };
        let exported = job.export(solved, planned.config.clone()).await?;
        let mut differences = None;
        if let Some(recorder) = self.recorder {
            recorder.made(&exported, &self.request.outputs);
            differences = Some(recorder.gained(&added));
        }
        Ok(Built { planned, added, differences, materials, exported })
    }

    fn finish(self, built: Built, trace: &Trace, elapsed: Duration) -> Result<Built, Failure> {
        // Not before: live progress would draw over them.
        if !self.args.quiet && self.request.display != Display::RawJson {
            built.planned.notices.iter().for_each(|notice| note(notice));
        }
        let report = Report {
            names: self.names,
            outputs: &self.request.outputs,
            backend: &self.backend,
            bases: &built.planned.bases,
            definition: &built.planned.definition,
            added: &built.added,
            differences: built.differences.as_deref(),
            exported: &built.exported,
            trace,
            display: self.request.display,
            elapsed,
        };
        if let Some(materials) = &built.materials {
            let digest = report.digest().ok().map(|(_, digest)| digest);
            self.sbom.write(self.names, digest, materials, &self.environment.folder)?;
        }
        report.tell(self.args, self.environment)?;
        Ok(built)
    }
}

/// Solves what was planned, and lists what the image gains; returns the tree that has it, too.
async fn solve(job: &dyn Job, planned: &Planned) -> Result<(Solved, Vec<AddedFile>, Solved), Failure> {
    let Some(overlay) = &planned.overlay else {
        let solved = job.solve(&planned.definition).await?;
        let added = added_files(job, &solved, &planned.added).await?;
        return Ok((solved.clone(), added, solved));
    };
    // What the image gains is listed while the image is put together from it.
    let tree = job.solve(overlay).await?;
    let solving = async { Ok(job.solve(&planned.definition).await?) };
    let (solved, added) = tokio::try_join!(solving, overlaid_files(job, &tree))?;
    Ok((solved, added, tree))
}

/// Reads the sizes of the files that the image gained, a folder at a time.
async fn added_files(job: &dyn Job, solved: &Solved, paths: &[String]) -> Result<Vec<AddedFile>, Failure> {
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

/// Lists the files and folders of a tree, a few folders at a time.
async fn overlaid_files(job: &dyn Job, tree: &Solved) -> Result<Vec<AddedFile>, Failure> {
    const DOING: &str = "listing what the image gains";
    let mut files = Vec::new();
    let mut folders = vec![String::new()];
    while !folders.is_empty() {
        let some = folders.split_off(folders.len().saturating_sub(FOLDERS_AT_ONCE));
        let listings = some.iter().map(|folder| job.read_dir(tree, if folder.is_empty() { "/" } else { folder }));
        let listings = try_join_all(listings).await?;
        for (folder, listing) in some.iter().zip(listings) {
            for info in listing {
                if matches!(info.name.as_str(), "" | "." | "..") || info.name.contains('/') {
                    let reason = format!("{:?} in {folder}/ is no file's name", info.name);
                    return Err(Error::Daemon { doing: DOING.to_owned(), reason }.into());
                }
                let path = format!("{folder}/{}", info.name);
                if path.len() > PATH_BYTES || files.len() >= GAINED {
                    let limits = format!("{GAINED} paths of at most {PATH_BYTES} bytes");
                    return Err(Error::Resource(format!("{DOING}: there are more than {limits}; make fewer files")).into());
                }
                if info.is_dir() {
                    folders.push(path.clone());
                }
                files.push(AddedFile { path, info });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
