//! `roche doctor`: which back ends are here, what each can do, and how to mend what is missing.

use std::fmt::Write as _;

use roche_engine::local::{Local, Refusal};
use roche_engine::solver::{JobOptions, progress_channel};

use crate::args::SolveArgs;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::host::Machine;
use crate::text;
use crate::{backend, embedded};

/// Looks at the machine and says what it finds; fails where nothing can build.
pub(crate) async fn run(environment: &Environment) -> Result<(), Failure> {
    let mut said = String::new();
    let mut usable = false;

    match backend::daemon(&SolveArgs::default(), environment) {
        Ok(daemon) => {
            let (progress, _) = progress_channel(1);
            let name = format!("{} ({})", daemon.solver.name(), daemon.origin);
            match daemon.solver.open(JobOptions::default(), progress).await {
                Ok(job) => {
                    job.cancel().await;
                    usable = true;
                    line(&mut said, "ok", "daemon", &name);
                }
                Err(error) => line(&mut said, "no", "daemon", &format!("{name}: {error}")),
            }
        }
        Err(failure) => line(&mut said, "no", "daemon", failure.message()),
    }

    let local = Local::new(embedded::options(environment)?);
    let probed = local.probe().await?;
    let engine = format!("steps run as {}, cache in {}", probed.ids, environment.cache()?.display());
    let fatal = probed.refusals.iter().any(|refusal| refusal.fatal);
    line(&mut said, if fatal { "no" } else { "ok" }, "embedded engine", &engine);
    for Refusal { what, remedy, .. } in &probed.refusals {
        line(&mut said, "", "", what);
        line(&mut said, "", "mend", remedy);
    }

    match Machine::toolchain(environment).await {
        Ok(toolchain) => {
            usable |= !fatal;
            line(&mut said, "ok", "host toolchain", &format!("{} for {}", toolchain.version, toolchain.target));
        }
        Err(failure) => {
            line(&mut said, "no", "host toolchain", failure.message());
            failure.hints().iter().for_each(|hint| line(&mut said, "", "mend", hint));
        }
    }
    crate::write_stdout(said.as_bytes())?;
    if usable {
        return Ok(());
    }
    Err(Failure::say(Exit::Unreachable, "nothing here can build a release").hint("mend one of the lines that say no"))
}

fn line(said: &mut String, mark: &str, what: &str, text: &str) {
    let _ = writeln!(said, "{mark:2}  {what:16}{}", text::one_line(text));
}
