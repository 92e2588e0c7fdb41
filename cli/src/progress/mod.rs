//! What is shown while a solver works.
//!
//! 1. The solver sends [`Progress`](roche_engine::solver::Progress) messages.
//! 2. [`trace`] folds them into the state of each vertex.
//! 3. [`plain`], [`tty`] or [`rawjson`] shows what changed, on standard error.
//!
//! The folded [`Trace`] is what the report at the end is read off, and the record; [`chrome`] writes it as a file.

pub(crate) mod chrome;
mod plain;
mod rawjson;
pub(crate) mod trace;
mod tty;

use std::io::Write;
use std::time::{Duration, SystemTime};

use roche_engine::solver::ProgressReceiver;

pub(crate) use trace::Trace;

use crate::args::ProgressMode;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::record::{self, SharedTrace};

/// How progress is shown, with nothing left to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Display {
    /// Live, on a terminal.
    Tty { colour: bool },
    /// Line by line.
    Plain { colour: bool },
    /// JSON, one object a line.
    RawJson,
    /// Not at all.
    Quiet,
}

impl Display {
    /// Decides how progress is shown: the flag, then `BUILDKIT_PROGRESS`, then the terminal.
    pub(crate) fn resolve(flag: Option<ProgressMode>, quiet: bool, environment: &Environment) -> Result<Self, Failure> {
        let colour = environment.colour();
        let mode = match (flag, environment.variable("BUILDKIT_PROGRESS")) {
            (Some(mode), _) => mode,
            (None, _) if quiet => ProgressMode::Quiet,
            (None, None) => ProgressMode::Auto,
            (None, Some(name)) => <ProgressMode as clap::ValueEnum>::from_str(name, false).map_err(|_| {
                Failure::say(Exit::Usage, format!("BUILDKIT_PROGRESS is {name:?}, which is no way to show progress"))
                    .hint("use auto, tty, plain, rawjson or quiet")
            })?,
        };
        Ok(match mode {
            ProgressMode::Auto if environment.stderr_terminal && environment.variable("TERM") != Some("dumb") => {
                Self::Tty { colour }
            }
            // Asked for by name, but nothing can be drawn over: line by line is honest.
            ProgressMode::Tty if environment.stderr_terminal => Self::Tty { colour },
            ProgressMode::Auto | ProgressMode::Plain | ProgressMode::Tty => Self::Plain { colour },
            ProgressMode::Rawjson => Self::RawJson,
            ProgressMode::Quiet => Self::Quiet,
        })
    }
}

/// Shows messages until the solver sends no more; what they amount to is in `trace`.
pub(crate) async fn show(display: Display, mut progress: ProgressReceiver, trace: SharedTrace) {
    let mut plain = plain::Printer::default();
    let mut live = tty::Screen::default();
    let mut redraw = tokio::time::interval(Duration::from_millis(100));
    loop {
        let message = tokio::select! {
            message = progress.recv() => message,
            _ = redraw.tick(), if matches!(display, Display::Tty { .. }) => {
                if let Display::Tty { colour } = display {
                    write(live.draw(&record::look(&trace), SystemTime::now(), colour).as_bytes());
                }
                continue;
            }
        };
        let Some(message) = message else { break };
        if display == Display::RawJson {
            write(&rawjson::line(&message));
        }
        let mut trace = record::look(&trace);
        let changes = trace.fold(message);
        if let Display::Plain { colour } = display {
            write(plain.print(&trace, &changes, colour).as_bytes());
        }
    }
    let mut trace = record::look(&trace);
    if let Display::Plain { colour } = display {
        let changes = trace.last_lines();
        write(plain.print(&trace, &changes, colour).as_bytes());
    }
    if let Display::Tty { colour } = display {
        write(live.finish(&trace, SystemTime::now(), colour).as_bytes());
    }
}

/// Writes to standard error; where nobody reads it any more, the release still goes on.
fn write(bytes: &[u8]) {
    if !bytes.is_empty() {
        let _ = std::io::stderr().lock().write_all(bytes);
    }
}
