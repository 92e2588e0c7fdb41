//! `roche init`: a function that builds.

use crate::args::InitArgs;
use crate::environment::Environment;
use crate::error::{self, Exit, Failure};
use crate::files;

/// The function that a new project starts with: the first example.
const FUNCTION: &str = include_str!("../../examples/hello/functions.rs");

/// Writes `functions.rs` into a new folder, or into the current one; an existing file is kept.
pub(crate) fn run(args: &InitArgs, environment: &Environment) -> Result<(), Failure> {
    if let Some(name) = &args.name {
        files::named_in_a_line(name.as_os_str())?;
    }
    let folder = args.name.as_ref().map_or_else(|| environment.folder.clone(), |name| environment.folder.join(name));
    std::fs::create_dir_all(&folder).map_err(|error| error::unwritable(&folder, &error))?;
    let path = folder.join("functions.rs");
    files::create(&path, FUNCTION.as_bytes()).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::say(Exit::Project, format!("{} exists, and is left as it is", path.display()))
                .hint("roche init NAME makes a new folder")
        } else {
            error::unwritable(&path, &error)
        }
    })?;
    let shown = path.strip_prefix(&environment.folder).unwrap_or(&path);
    crate::result_line(shown.as_os_str())?;
    let enter = args.name.as_ref().map(|name| format!("cd {} && ", name.display())).unwrap_or_default();
    crate::note(&format!("next: {enter}roche release -t hello"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_function_that_is_there_is_kept_and_an_odd_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let environment = Environment {
            variables: BTreeMap::new(),
            folder: folder.path().to_owned(),
            stderr_terminal: false,
            stdout_terminal: false,
        };
        let init = |name: &str| run(&InitArgs { name: Some(name.into()) }, &environment).map_err(|failure| failure.exit);
        assert_eq!(init("new\nline"), Err(Exit::Usage));
        assert_eq!(init("hello"), Ok(()));
        assert_eq!(init("hello"), Err(Exit::Project));
        let written: Vec<_> =
            std::fs::read_dir(folder.path().join("hello")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(written, ["functions.rs"]);
    }
}
