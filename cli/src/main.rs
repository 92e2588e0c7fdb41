//! `roche`: releases Rust functions as container images, and shows what will be in them.
//!
//! Only this crate reads the environment, the clock and the terminal, and only it decides exit
//! codes. A command is one file with one function that reads top to bottom:
//!
//! 1. [`args`] parses the arguments, [`environment`] reads the surroundings.
//! 2. The frontend reads the project and plans; [`backend`] finds the engine's solver, [`build`]
//!    drives it.
//! 3. [`progress`] shows the work, [`report`] what came of it, [`error`] what went wrong.

mod args;
mod attributes;
mod backend;
mod bases;
mod build;
#[cfg(target_os = "linux")]
mod cache;
mod columns;
mod contents;
mod diff;
#[cfg(target_os = "linux")]
mod doctor;
mod document;
mod dry_run;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/embedded.rs")]
mod embedded;
mod environment;
mod error;
mod explain;
mod files;
mod forecast;
mod gains;
mod history;
#[cfg_attr(not(target_os = "linux"), path = "elsewhere/host.rs")]
mod host;
mod init;
mod interrupt;
mod listing;
mod lock;
mod logins;
mod outputs;
mod prepare;
mod progress;
mod record;
mod registries;
mod release;
mod report;
mod require_cached;
mod sbom;
mod text;
mod verify;

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Command};
use clap::Parser as _;
use environment::Environment;
use error::{Exit, Failure};

/// How long the work has to let go after a signal.
const LET_GO: Duration = Duration::from_millis(1000);

fn main() -> ExitCode {
    // The embedded engine starts this program anew for what needs namespaces of its own.
    #[cfg(target_os = "linux")]
    roche_engine::local::worker_main();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => return told(message),
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = std::io::stderr().lock().write_all(failure.render().as_bytes());
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Prints help and version on standard output, and what is wrong with the arguments on standard
/// error.
fn told(message: clap::Error) -> ExitCode {
    if !message.use_stderr() {
        return match write_stdout(message.render().to_string().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => ExitCode::from(failure.exit as u8),
        };
    }
    // The message quotes the arguments as they are; parsed once more from printable ones it can
    // neither move the cursor nor make up lines of its own.
    let printable = std::env::args_os().map(|arg| text::one_line(&arg.to_string_lossy()));
    let message = Cli::try_parse_from(printable).err().unwrap_or(message);
    let _ = message.print();
    ExitCode::from(Exit::Usage as u8)
}

fn run(command: &Command) -> Result<(), Failure> {
    // What is typed wrong is said before anything is read.
    if let Command::Release(args) = command {
        release::flags(args).validate()?;
    }
    let environment = Environment::read()?;
    match command {
        Command::Init(args) => init::run(args, &environment),
        Command::Release(args) => block_on(release::run(args, &environment)),
        Command::Verify(args) => block_on(verify::run(args, &environment)),
        Command::Lock(args) => block_on(lock::run(args, &environment)),
        Command::Prepare(args) => block_on(prepare::run(args, &environment)),
        Command::Contents(args) => block_on(contents::run(args, &environment)),
        Command::Diff(args) => block_on(diff::run(args, &environment)),
        Command::History(args) => history::run(args, &environment),
        Command::Explain(args) => explain::run(args, &environment),
        #[cfg(target_os = "linux")]
        Command::Cache(args) => block_on(cache::run(args, &environment)),
        #[cfg(target_os = "linux")]
        Command::Doctor => block_on(doctor::run(&environment)),
        Command::Build(args) => Err(replaced("build", "roche release", args)),
        Command::Gen(args) => Err(replaced("gen", "roche release --dry-run=dockerfile", args)),
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::say(Exit::Resource, format!("the process cannot start its threads: {error}")))?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = work => result,
            exit = interrupt::wait() => Err(interrupt::failure(exit)),
        }
    });
    // Dropping the work told the solver and the helpers to stop; what they still clean up is
    // waited for, what hangs is not.
    runtime.shutdown_timeout(LET_GO);
    result
}

/// Points from a command of older versions to the same line in today's words.
fn replaced(command: &str, instead: &str, args: &args::ReplacedArgs) -> Failure {
    let rest: Vec<_> = args.rest.iter().map(|arg| arg.to_string_lossy()).collect();
    let line = format!("{instead} {}", rest.join(" "));
    Failure::say(Exit::Usage, format!("there is no `roche {command}` any more")).hint(line.trim_end())
}

/// Prints the result byte for byte; a reader that has gone is an honest failure of the command.
///
/// Where standard output was closed before the start, Rust's runtime has opened `/dev/null` in its
/// place, just as Python and Node do for a child whose output nobody wants: the two cannot be told
/// apart, and so the result goes nowhere and that is no failure.
pub(crate) fn result_line(line: &OsStr) -> Result<(), Failure> {
    write_stdout(&[line.as_encoded_bytes(), b"\n"].concat())
}

/// Writes to standard output, whole or with an error.
pub(crate) fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let written = || -> std::io::Result<()> {
        // As a file of its own: the library's handle takes a descriptor that cannot be written
        // for one that nobody wants to read.
        #[cfg(unix)]
        let mut out = std::fs::File::from(std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?);
        #[cfg(not(unix))]
        let mut out = std::io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    };
    written().map_err(|error| {
        let exit = if error::exhausted(&error) { Exit::Resource } else { Exit::Usage };
        Failure::say(exit, format!("standard output cannot be written: {error}"))
    })
}

/// Says something that is no failure.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text::one_line(text));
}
