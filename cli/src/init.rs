//! `roche init`: a function that builds.

use std::fs::OpenOptions;
use std::io::Write as _;

use crate::args::InitArgs;
use crate::environment::Environment;
use crate::error::{self, Exit, Failure};

/// The function that a new project starts with: the first example.
const FUNCTION: &str = include_str!("../../examples/hello/functions.rs");

/// Writes `functions.rs` into a new folder, or into the current one; an existing file is kept.
pub(crate) fn run(args: &InitArgs, environment: &Environment) -> Result<(), Failure> {
    let folder = args.name.as_ref().map_or_else(|| environment.folder.clone(), |name| environment.folder.join(name));
    std::fs::create_dir_all(&folder).map_err(|error| error::unwritable(&folder, &error))?;
    let path = folder.join("functions.rs");
    let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::say(Exit::Project, format!("{} exists, and is left as it is", path.display())).hint("roche init NAME makes a new folder")
        } else {
            error::unwritable(&path, &error)
        }
    })?;
    file.write_all(FUNCTION.as_bytes()).map_err(|error| error::unwritable(&path, &error))?;
    let shown = path.strip_prefix(&environment.folder).unwrap_or(&path);
    crate::result_line(&shown.display().to_string())?;
    let enter = args.name.as_ref().map(|name| format!("cd {} && ", name.display())).unwrap_or_default();
    crate::note(&format!("next: {enter}roche release -t hello"));
    Ok(())
}
