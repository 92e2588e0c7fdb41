//! `roche verify`: two releases from nothing, and whether they are the same.
//!
//! 1. What a release reads is copied into two folders of other names ([`workplace`]).
//! 2. Each is released to an archive with no step taken from a cache; on the embedded engine, with
//!    a store that is empty. Base images are found once, so that a tag that moves is no difference.
//! 3. Equal digests are the answer; where they differ, [`compare`] names the files.
//!
//! Invariant: the user's folder is only read, and nothing of what was built is kept, whatever ends
//! the work.

mod compare;
mod workplace;

use std::path::Path;

use roche_engine::oci::Reference;
use roche_frontend::project::Project;
use roche_frontend::release;

use crate::args::{OutputArgs, ReleaseArgs, SolveArgs, VerifyArgs};
use crate::build::{Build, Built};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::lock::Pins;
use crate::outputs::Request;
use crate::progress::Display;
use crate::release::Decided;
use crate::{backend, contents, note};
use workplace::Workplace;

/// Differences that are named.
const NAMED: usize = 20;

const DIGEST: &str = "containerimage.digest";

/// Releases twice, and compares.
pub(crate) async fn run(args: &VerifyArgs, environment: &Environment) -> Result<(), Failure> {
    let args = &as_release(args);
    crate::release::flags(args).validate()?;
    let display = Display::resolve(args.output.progress, args.output.quiet, environment)?;
    let narrate = !args.output.quiet && display != Display::RawJson;
    let project = Project::read(&environment.folder)?;
    if narrate {
        project.notices.iter().for_each(|notice| note(notice));
    }
    let workplace = Workplace::make(environment)?;
    let mut pins = Pins::read(&project, &args.pins)?;
    let mut digests = Vec::new();
    for (name, word) in [("first", "the first"), ("second", "the second")] {
        if narrate {
            note(&format!("{word} release from nothing"));
        }
        let environment = workplace.copy(&project, name, environment)?;
        let archive = workplace.archive(name);
        let built = released(args, &archive, &environment, &mut pins, narrate).await?;
        let digest = built.exported.response.get(DIGEST).cloned();
        digests.push(digest.ok_or_else(|| Failure::say(Exit::Daemon, "the image was written without a digest"))?);
    }
    if digests[0] == digests[1] {
        drop(workplace);
        if narrate {
            note("both releases are the same");
        }
        return crate::result_line(digests[0].as_ref());
    }
    let differences = differences(&workplace, environment).await?;
    let said = format!("two releases of the same files differ: {} and {}", digests[0], digests[1]);
    let mut failure = Failure::say(Exit::Integrity, said);
    let more = differences.len().saturating_sub(NAMED);
    for difference in differences.into_iter().take(NAMED) {
        failure = failure.caused_by(difference);
    }
    if more > 0 {
        failure = failure.caused_by(format!("{more} more differences"));
    }
    Err(failure.hint(
        "look for times, random numbers and the order of files in what the build runs: build scripts, macros, cargo's flags",
    ))
}

/// What `roche release` would be told.
fn as_release(args: &VerifyArgs) -> ReleaseArgs {
    ReleaseArgs {
        buildimage: args.buildimage.clone(),
        runtime: args.runtime.clone(),
        // A name is no part of an image, and nobody need be asked for one.
        tag: if args.tag.is_empty() { vec!["verify".to_owned()] } else { args.tag.clone() },
        label: args.label.clone(),
        entrypoint: args.entrypoint.clone(),
        tzdata: args.tzdata,
        pins: args.pins.clone(),
        output: OutputArgs { quiet: args.quiet, progress: args.progress, ..OutputArgs::default() },
        solve: SolveArgs { no_cache: true, ..args.solve.clone() },
        ..ReleaseArgs::default()
    }
}

/// Releases the project in the environment's folder to an archive.
async fn released(
    args: &ReleaseArgs,
    archive: &Path,
    environment: &Environment,
    pins: &mut Pins,
    narrate: bool,
) -> Result<Built, Failure> {
    let project = Project::read(&environment.folder)?;
    let backend = backend::find(&args.solve, pins.offline, environment)?;
    let unnamed = || Ok::<Vec<_>, _>(Vec::new());
    let release = release::resolve(&crate::release::flags(args), &environment.variables, backend.embedded, &project, &unnamed)?;
    let mut request = Request::parse(&args.output, &args.solve, environment)?;
    request.write_archive(archive);
    let names: &[Reference] = &release.tags;
    let is_embedded = backend.embedded;
    let build = Build::new(&args.output, request, names, environment, backend).untold();
    let decided = Decided { project: &project, release: &release, pins, args, environment, narrate };
    let built = decided.made(build).await;
    let built = built.map_err(|failure| match failure.exit {
        Exit::Daemon if !is_embedded => failure.hint("a daemon that writes no archives can be passed over: --builder embedded"),
        _ => failure,
    })?;
    pins.keep(&built.planned.bases, &release.platform);
    Ok(built)
}

/// Reads both archives, and says what differs.
async fn differences(workplace: &Workplace, environment: &Environment) -> Result<Vec<String>, Failure> {
    let [first, second] = ["first", "second"].map(|name| workplace.archive(name));
    let first = contents::examined(first.as_os_str(), None, environment).await?;
    let second = contents::examined(second.as_os_str(), None, environment).await?;
    Ok(compare::between(&first, &second))
}
