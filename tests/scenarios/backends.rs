//! The solvers that the list runs on.
//!
//! The embedded engine stands there three times, as root, as a user with ranges of ids and as one
//! who has no id but its own: `embedded`, `embedded-subuid` and `embedded-1uid`.
//!
//! `ROCHE_TEST_BUILDKITD` names the socket of a buildkitd and adds a column: the newest BuildKit has
//! capabilities that no dockerd of the tests has.
//!
//! Invariant: nothing else in the list knows one solver from another; a back end is told a
//! definition and a job's options, and gives an [`Outcome`].

use std::env;
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use roche_engine::buildkit::{Address, Buildkit, Protocol};
use roche_engine::local::{KeepStorage, Local, LocalOptions};
use roche_engine::oci::RegistryOptions;
use roche_engine::solver::{ArchiveDest, ArchiveFormat, Export, Job, JobOptions, Solved, Solver, progress_channel};
use roche_engine::{Definition, Error};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::ordinary::{self, Ordinary};
use super::tree::Tree;
use super::{Kind, Outcome};
use crate::harness::Daemon;

/// What an image must say of itself; a tar holds none of it.
const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
/// How much progress is kept until it is read.
const PROGRESS_BYTES: u32 = 1 << 20;
/// How many files of a result's top folder are read one by one, and how large they may be.
const READ_FILES: usize = 2;
const READ_BYTES: u64 = 64 << 10;
/// How long one definition may take; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(300);

/// BuildKit's newest line.
const LACKS_NEWEST: &[&str] = &[];
/// BuildKit 0.13, of dockerd 26.1.
const LACKS_26: &[&str] =
    &["exec.validexitcode", "file.copy.alwaysreplaceexistingdestpaths", "file.copy.requiredpaths", "file.symlink.create"];
/// BuildKit 0.8, of dockerd 20.10.
const LACKS_20: &[&str] = &[
    "diffop",
    "exec.meta.ulimit",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.symlink.create",
    "mergeop",
];

/// What the embedded engine refuses by name.
const LACKS_EMBEDDED: &[&str] = &[];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("the runtime starts"));

/// Solves a definition, whose tree becomes the archive at a path, in a folder for files on the way.
type Solve = dyn Fn(&Definition, JobOptions, &Path) -> Result<(), Failed> + Send + Sync;

/// Why there is no tree.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Failed {
    kind: Kind,
    message: String,
}

/// A column of the table.
pub(super) struct Backend {
    /// Its name there.
    pub(super) name: &'static str,
    /// How scenarios name it where it does something its own way.
    pub(super) solver: &'static str,
    /// How many scenarios run side by side.
    pub(super) lanes: usize,
    /// The capabilities that it is known to lack.
    pub(super) lacks: &'static [&'static str],
    /// Whether steps have one uid alone.
    pub(super) single_uid: bool,
    /// The daemon, where it is one.
    pub(super) daemon: Option<Daemon>,
    /// Calls a solver in this process, or a program that has one.
    solve: Box<Solve>,
}

impl Backend {
    /// Solves a definition and reads its tree; the folder is for files on the way.
    pub(super) fn outcome(&self, definition: &Definition, options: JobOptions, folder: &Path) -> Outcome {
        let archive = folder.join("tree.tar");
        let Failed { kind, message } = match (self.solve)(definition, options, &archive) {
            Ok(()) => match fs::read(&archive).map_err(|error| error.to_string()).and_then(|tar| Tree::of_tar(&tar)) {
                Ok(tree) => {
                    // The next round writes its own.
                    let _ = fs::remove_file(&archive);
                    return Outcome::Tree(tree);
                }
                Err(message) => Failed { kind: Kind::Other("tar".to_owned()), message },
            },
            Err(failed) => failed,
        };
        Outcome::Failure { kind, message }
    }
}

// The embedded engine starts its own program anew for what needs namespaces, and here that is the
// tests': it is caught before their harness has a thread. An ordinary user's engine is as well.
#[used]
#[unsafe(link_section = ".init_array")]
static WORKER: extern "C" fn() = {
    extern "C" fn start() {
        roche_engine::local::worker_main();
        ordinary::solve_if_asked();
    }
    start
};

/// All back ends; the embedded engine keeps its stores in `root`.
pub(super) fn all(root: &Path) -> Vec<Backend> {
    // The old daemon's BuildKit is not safe with two builds at once.
    let mut all = vec![daemon(Daemon::docker20(), "docker20", 1, LACKS_20), daemon(Daemon::docker26(), "docker26", 4, LACKS_26)];
    let store = root.join("root");
    let solve = move |definition: &Definition, options, archive: &Path| solve_embedded(&store, definition, options, archive);
    all.push(embedded("embedded", Box::new(solve)));
    all.push(ordinary("embedded-subuid", Ordinary::new(root, "nobody:500000000:65536\n")));
    all.push(Backend { single_uid: true, ..ordinary("embedded-1uid", Ordinary::new(root, "")) });
    if let Some(socket) = env::var_os("ROCHE_TEST_BUILDKITD") {
        let solve = by(Arc::new(Buildkit::new(Address::unix(socket, Protocol::Buildkit))));
        let name = "buildkitd";
        all.push(Backend { name, solver: name, lanes: 4, lacks: LACKS_NEWEST, single_uid: false, daemon: None, solve });
    }
    all
}

fn daemon(daemon: Daemon, name: &'static str, lanes: usize, lacks: &'static [&'static str]) -> Backend {
    let solve = by(Arc::new(Buildkit::new(Address::unix(&daemon.socket, Protocol::Docker))));
    Backend { name, solver: name, lanes, lacks, single_uid: false, daemon: Some(daemon), solve }
}

fn embedded(name: &'static str, solve: Box<Solve>) -> Backend {
    Backend { name, solver: "embedded", lanes: 4, lacks: LACKS_EMBEDDED, single_uid: false, daemon: None, solve }
}

fn ordinary(name: &'static str, user: Ordinary) -> Backend {
    embedded(name, Box::new(move |definition, options, archive| user.solve(definition, options, archive)))
}

/// Solves by a solver of this process.
fn by(solver: Arc<dyn Solver>) -> Box<Solve> {
    Box::new(move |definition, options, archive| RUNTIME.block_on(outcome(&*solver, definition, options, archive)))
}

/// Solves by the embedded engine of this process, with its store in `root`.
pub(super) fn solve_embedded(root: &Path, definition: &Definition, options: JobOptions, archive: &Path) -> Result<(), Failed> {
    let solver = Local::new(LocalOptions {
        keep_storage: KeepStorage::All,
        root: root.to_owned(),
        path: env::var_os("PATH").unwrap_or_default(),
        clock: SystemTime::now,
        engine: None,
        registries: RegistryOptions::default(),
        offline: false,
    });
    RUNTIME.block_on(outcome(&solver, definition, options, archive))
}

async fn outcome(solver: &dyn Solver, definition: &Definition, mut options: JobOptions, archive: &Path) -> Result<(), Failed> {
    let dest = ArchiveDest::File(archive.to_owned());
    options.exports = vec![Export::Archive { format: ArchiveFormat::Tar, names: Vec::new(), dest }];
    let slow = || Failed { kind: Kind::Other("time".to_owned()), message: format!("no end after {PATIENCE:?}") };
    let solved = tokio::time::timeout(PATIENCE, export(solver, definition, options, archive)).await.map_err(|_| slow())?;
    solved.map_err(|error| Failed { kind: kind(&error), message: message(&error) })
}

/// Reads some files of a result one by one.
async fn read(job: &dyn Job, result: &Solved) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let mut files = Vec::new();
    for info in job.read_dir(result, "/").await? {
        let is_file = info.mode & 0o170_000 == 0o100_000;
        if is_file && info.size_bytes <= READ_BYTES && info.name.is_ascii() && files.len() < READ_FILES {
            let content = job.read_file(result, &info.name, READ_BYTES).await?;
            if info.size_bytes > 0 {
                let refused = job.read_file(result, &info.name, info.size_bytes - 1).await;
                assert!(matches!(refused, Err(Error::Resource(_))), "{}: {refused:?}", info.name);
            }
            files.push((info.name, content));
        }
    }
    Ok(files)
}

/// Fails where a file that was read is another one in the archive.
fn compare(read: &[(String, Vec<u8>)], archive: &Path) -> Result<(), Error> {
    let tar = fs::read(archive).map_err(|source| Error::File { path: archive.to_owned(), source })?;
    let tree = Tree::of_tar(&tar).map_err(Error::Integrity)?;
    match read.iter().find(|(name, content)| !tree.holds(name, content)) {
        Some((name, content)) => Err(Error::Integrity(format!("{name} was read as {:?}", content.escape_ascii().to_string()))),
        None => Ok(()),
    }
}

async fn export(solver: &dyn Solver, definition: &Definition, options: JobOptions, archive: &Path) -> Result<(), Error> {
    let (progress, mut receiver) = progress_channel(PROGRESS_BYTES);
    let reader = tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let job = solver.open(options, progress).await?;
    let result = match job.solve(definition).await {
        Ok(solved) => {
            let read = read(&*job, &solved).await?;
            job.export(solved, CONFIG.to_vec()).await.and_then(|_| compare(&read, archive))
        }
        Err(error) => {
            job.cancel().await;
            Err(error)
        }
    };
    reader.abort();
    result
}

/// What a failure says, and what to do about it.
fn message(error: &Error) -> String {
    match error {
        Error::Step { hint: Some(hint), .. } => format!("{error}; {hint}"),
        error => error.to_string(),
    }
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Step { exit_code, .. } => Kind::Step(*exit_code),
        Error::Registry { .. } => Kind::Registry,
        Error::Unsupported { missing, .. } => Kind::Unsupported(missing.clone()),
        other => Kind::Other(format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()),
    }
}
