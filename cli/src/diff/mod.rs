//! `roche diff`: how two images differ.
//!
//! 1. Both are found and read as `roche contents` does it.
//! 2. [`compare`] compares what they show and what they start with.
//! 3. [`text`] or [`json`] shows the difference.
//!
//! Invariant: content decides, never times: two images with the same files differ in nothing.

mod compare;
mod crates;
mod json;
mod text;

use crate::args::DiffArgs;
use crate::columns;
use crate::contents::examined;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use compare::Difference;
pub(crate) use compare::{ConfigChange, config, differing};

/// Shows how two images differ.
pub(crate) async fn run(args: &DiffArgs, environment: &Environment) -> Result<(), Failure> {
    let was = examined(&args.old, args.platform.as_deref(), environment).await?;
    let is = examined(&args.new, args.platform.as_deref(), environment).await?;
    let difference = Difference::between(&was, &is);
    let shown = if args.json {
        json::render(&was, &is, &difference)
    } else {
        text::render(&was, &is, &difference, args.all, columns::width(environment))
    };
    crate::write_stdout(shown.as_bytes())?;
    match args.exit_code && !difference.is_none() {
        true => Err(Failure::silent(Exit::Build)),
        false => Ok(()),
    }
}
