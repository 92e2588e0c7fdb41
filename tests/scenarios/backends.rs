//! The solvers that the list runs on.
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
use roche_engine::solver::{ArchiveDest, ArchiveFormat, Export, JobOptions, Solver, progress_channel};
use roche_engine::{Definition, Error};
use tokio::runtime::Runtime;

use super::tree::Tree;
use super::{Kind, Outcome};
use crate::harness::Daemon;

/// What an image must say of itself; a tar holds none of it.
const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;
/// How much progress is kept until it is read.
const PROGRESS_BYTES: u32 = 1 << 20;
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

/// Solves a definition and reads its tree; the folder is for files on the way.
type Solve = dyn Fn(&Definition, JobOptions, &Path) -> Outcome + Send + Sync;

/// A column of the table.
pub(super) struct Backend {
    /// Its name there.
    pub(super) name: &'static str,
    /// How many scenarios run side by side.
    pub(super) lanes: usize,
    /// The capabilities that it is known to lack.
    pub(super) lacks: &'static [&'static str],
    /// Whether steps have one uid alone.
    pub(super) single_uid: bool,
    /// Calls a solver in this process, or a program that has one.
    pub(super) solve: Box<Solve>,
    /// Counts a scenario that runs on a daemon.
    pub(super) tally: Option<Daemon>,
}

// The embedded engine starts its own program anew for what needs namespaces, and here that is the
// tests': it is caught before their harness has a thread.
#[used]
#[unsafe(link_section = ".init_array")]
static WORKER: extern "C" fn() = {
    extern "C" fn start() {
        roche_engine::local::worker_main();
    }
    start
};

/// The embedded engine, with a store of its own in `root`.
fn embedded(root: &Path) -> Backend {
    let options = LocalOptions {
        keep_storage: KeepStorage::All,
        root: root.to_owned(),
        path: env::var_os("PATH").unwrap_or_default(),
        clock: SystemTime::now,
        engine: None,
        registries: RegistryOptions::default(),
        offline: false,
    };
    let solve = in_process(Arc::new(Local::new(options)));
    // As root, which the tests are; an ordinary user's one uid is a matter of the engine's own tests.
    Backend { name: "embedded", lanes: 4, lacks: LACKS_EMBEDDED, single_uid: false, solve, tally: None }
}

/// All back ends; the embedded engine keeps its store in `root`.
pub(super) fn all(root: &Path) -> Vec<Backend> {
    // The old daemon's BuildKit is not safe with two builds at once.
    let mut all = vec![daemon(Daemon::docker20(), "docker20", 1, LACKS_20), daemon(Daemon::docker26(), "docker26", 4, LACKS_26)];
    all.push(embedded(root));
    if let Some(socket) = env::var_os("ROCHE_TEST_BUILDKITD") {
        let solver = Arc::new(Buildkit::new(Address::unix(socket, Protocol::Buildkit)));
        let solve = in_process(solver);
        all.push(Backend { name: "buildkitd", lanes: 4, lacks: LACKS_NEWEST, single_uid: false, solve, tally: None });
    }
    all
}

fn daemon(daemon: Daemon, name: &'static str, lanes: usize, lacks: &'static [&'static str]) -> Backend {
    let solver = Arc::new(Buildkit::new(Address::unix(&daemon.socket, Protocol::Docker)));
    Backend { name, lanes, lacks, single_uid: false, solve: in_process(solver), tally: Some(daemon) }
}

/// Solves by a solver of this process.
fn in_process(solver: Arc<dyn Solver>) -> Box<Solve> {
    Box::new(move |definition, options, folder| RUNTIME.block_on(outcome(&*solver, definition, options, folder)))
}

async fn outcome(solver: &dyn Solver, definition: &Definition, mut options: JobOptions, folder: &Path) -> Outcome {
    let archive = folder.join("tree.tar");
    let dest = ArchiveDest::File(archive.clone());
    options.exports = vec![Export::Archive { format: ArchiveFormat::Tar, names: Vec::new(), dest }];
    match tokio::time::timeout(PATIENCE, export(solver, definition, options)).await {
        Ok(Ok(())) => {
            let tree = fs::read(&archive).map_err(|error| error.to_string()).and_then(|tar| Tree::of_tar(&tar));
            // The next round writes its own.
            let _ = fs::remove_file(&archive);
            tree.map_or_else(|message| Outcome::Failure { kind: Kind::Other("tar".to_owned()), message }, Outcome::Tree)
        }
        Ok(Err(error)) => Outcome::Failure { kind: kind(&error), message: error.to_string() },
        Err(_) => Outcome::Failure { kind: Kind::Other("time".to_owned()), message: format!("no end after {PATIENCE:?}") },
    }
}

async fn export(solver: &dyn Solver, definition: &Definition, options: JobOptions) -> Result<(), Error> {
    let (progress, mut receiver) = progress_channel(PROGRESS_BYTES);
    let reader = tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    let job = solver.open(options, progress).await?;
    let result = match job.solve(definition).await {
        Ok(solved) => job.export(solved, CONFIG.to_vec()).await.map(drop),
        Err(error) => {
            job.cancel().await;
            Err(error)
        }
    };
    reader.abort();
    result
}

fn kind(error: &Error) -> Kind {
    match error {
        Error::Step { exit_code, .. } => Kind::Step(*exit_code),
        Error::Registry { .. } => Kind::Registry,
        Error::Unsupported { missing, .. } => Kind::Unsupported(missing.clone()),
        other => Kind::Other(format!("{other:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned()),
    }
}
