//! A process that solves definitions and says what each took: so that a solver's start, threads and
//! memory are in the figures.
//!
//! Invariant: a phase ends when its result is there; what is printed is one line a phase.

use std::fs;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use roche_engine::Definition;
use roche_engine::buildkit::{Address, Buildkit, Protocol};
use roche_engine::local::{KeepStorage, Local, LocalOptions};
use roche_engine::oci::RegistryOptions;
use roche_engine::solver::{ArchiveDest, ArchiveFormat, Export, JobOptions, Solver, progress_channel};

use crate::measure::machine_cpu;

/// The first argument of such a process.
pub(crate) const SOLVE: &str = "--solve";

/// What an image must say of itself.
pub(crate) const CONFIG: &[u8] =
    br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]},"history":[]}"#;

/// How much progress is kept until it is read.
const PROGRESS_BYTES: u32 = 1 << 20;

/// Solves `embedded:FOLDER|docker:SOCKET none|oci:FILE|archive:FILE|tar:FILE|registry:NAME LLB...`,
/// in one job.
pub(crate) fn main(args: &[String]) {
    let [solver, export, definitions @ ..] = args else { panic!("{SOLVE} SOLVER EXPORT LLB...") };
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    runtime.block_on(async {
        let exports = exports(export);
        let solver = solver_of(solver);
        let (progress, mut receiver) = progress_channel(PROGRESS_BYTES);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        let begun = begin();
        let options = JobOptions { exports, ..JobOptions::default() };
        let job = solver.open(options, progress).await.expect("the job is opened");
        say("open", begun);
        let mut result = None;
        for file in definitions {
            let bytes = fs::read(file).expect("the definition can be read");
            let definition = Definition::decode(&bytes).expect("it is LLB");
            let begun = begin();
            result = Some(job.solve(&definition).await.unwrap_or_else(|error| panic!("{file}: {error}")));
            say("solve", begun);
        }
        let result = result.expect("there is a definition");
        let begun = begin();
        if export == "none" {
            job.cancel().await;
        } else {
            job.export(result, CONFIG.to_vec()).await.unwrap_or_else(|error| panic!("{export}: {error}"));
        }
        say("export", begun);
    });
}

fn exports(named: &str) -> Vec<Export> {
    let (kind, value) = named.split_once(':').unwrap_or((named, ""));
    let archive = |format| vec![Export::Archive { format, names: Vec::new(), dest: ArchiveDest::File(PathBuf::from(value)) }];
    match kind {
        "oci" => archive(ArchiveFormat::Oci),
        "archive" => archive(ArchiveFormat::Docker),
        "tar" => archive(ArchiveFormat::Tar),
        "registry" => vec![Export::Registry { names: vec![value.to_owned()] }],
        _ => Vec::new(),
    }
}

fn solver_of(named: &str) -> Box<dyn Solver> {
    match named.split_once(':') {
        Some(("embedded", root)) => Box::new(Local::new(LocalOptions {
            root: root.into(),
            path: std::env::var_os("PATH").unwrap_or_default(),
            clock: SystemTime::now,
            engine: None,
            registries: RegistryOptions::default(),
            offline: false,
            keep_storage: KeepStorage::default(),
        })),
        Some(("docker", socket)) => Box::new(Buildkit::new(Address::unix(socket, Protocol::Docker))),
        _ => panic!("{named:?} is no solver"),
    }
}

fn begin() -> (Instant, f64) {
    (Instant::now(), machine_cpu())
}

fn say(phase: &str, (start, cpu): (Instant, f64)) {
    println!("{phase} {} {}", start.elapsed().as_secs_f64(), machine_cpu() - cpu);
}
