//! `roche prepare`: from an image with a Rust toolchain to a build image.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use roche_engine::solver::{Job, JobOptions, LocalDir, ResolveMode};
use roche_frontend::prepare::{self, Prepare};
use roche_frontend::release::Flags;
use roche_frontend::vendor::{self, Vendored};
use tempfile::TempDir;

use crate::args::PrepareArgs;
use crate::build::{Build, Planned};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::outputs::Request;
use crate::progress::Display;
use crate::{backend, interrupt, note};

/// Lines of cargo's that are shown where it fails.
const CARGO_LINES: usize = 10;

/// Makes a build image.
pub(crate) async fn run(args: &PrepareArgs, environment: &Environment) -> Result<(), Failure> {
    let flags = Flags { tags: args.tag.clone(), platform: args.solve.platform.clone(), ..Flags::default() };
    let prepare = Prepare::resolve(&args.from, &flags)?;
    let mut request = Request::parse(&args.output, &args.solve, environment)?;
    let backend = backend::find(&args.solve, false, environment)?;
    request.settle(&args.output, backend.has_store, None, &[], environment)?;
    let narrate = !args.output.quiet && request.display != Display::RawJson;
    let build = Build::new(&args.output, request, &prepare.tags, environment, backend);

    if narrate {
        note("fetching the service's crates with cargo");
    }
    let (work, crates) = tokio::task::spawn_blocking(fetch)
        .await
        .map_err(|error| Failure::say(Exit::Resource, format!("the crates could not be fetched: {error}")))??;
    // Crates come from registries, not from the user's folder, and cargo checks that no file of
    // one is missing: none is held back.
    let local = LocalDir { path: crates.dir.clone(), admits: Arc::new(|_, _| true), content: Some(crates.root) };
    let resources = JobOptions { locals: BTreeMap::from([(prepare::LOCAL.to_owned(), local)]), ..JobOptions::default() };
    let mode = if args.solve.pull { ResolveMode::Pull } else { ResolveMode::Default };
    build
        .run(resources, async |job: &dyn Job| {
            let base = crate::release::base(job, &prepare.from, &prepare.platform, mode).await?;
            let plan = prepare::plan(&prepare, &base, &crates)?;
            Ok(Planned::of(&plan, &args.solve))
        })
        .await?;
    drop(work);
    Ok(())
}

/// Fetches the crates into a folder that lives as long as what is returned.
fn fetch() -> Result<(TempDir, Vendored), Failure> {
    let work =
        tempfile::tempdir().map_err(|error| Failure::say(Exit::Resource, format!("no temporary folder can be made: {error}")))?;
    let crates = fetch_into(work.path(), false)?;
    Ok((work, crates))
}

/// Fetches the crates into an empty folder; `offline` leaves cargo with what it has already.
pub(crate) fn fetch_into(folder: &Path, offline: bool) -> Result<Vendored, Failure> {
    Ok(vendor::vendor(folder, &mut |folder, args| cargo(folder, args, offline))?)
}

/// Runs the user's cargo in a folder; a signal ends it.
fn cargo(folder: &Path, args: &[&str], offline: bool) -> Result<Vec<u8>, String> {
    let mut command = tokio::process::Command::new("cargo");
    command.args(args).current_dir(folder).stdin(Stdio::null()).kill_on_drop(true);
    if offline {
        command.env("CARGO_NET_OFFLINE", "true");
    }
    let output = tokio::runtime::Handle::current().block_on(async {
        tokio::select! {
            output = command.output() => output,
            _ = interrupt::wait() => Err(std::io::ErrorKind::Interrupted.into()),
        }
    });
    let output = output.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "cargo was not found in PATH; install Rust, https://rustup.rs".to_owned(),
        _ => format!("cargo cannot be run: {error}"),
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    Err(lines[lines.len().saturating_sub(CARGO_LINES)..].join("\n"))
}
