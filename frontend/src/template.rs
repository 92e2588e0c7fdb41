//! The service that a function is compiled into: the cargo project that stands under
//! `/app-build` in a build image.
//!
//! Invariant: the list is every file of `frontend/template`, and links are not files: the one
//! that the project has ([`LINK`]) is made in the step, because old daemons have no op for it.

/// A file of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateFile {
    /// Its path in the project.
    pub path: &'static str,
    /// Its permission bits.
    pub mode: u32,
    /// Its bytes.
    pub data: &'static [u8],
}

macro_rules! files {
    ($($path:literal $mode:literal),* $(,)?) => {
        &[$(TemplateFile { path: $path, mode: $mode, data: include_bytes!(concat!("../template/", $path)) }),*]
    };
}

/// The files, sorted by path.
pub const FILES: &[TemplateFile] = files![
    "Cargo.lock" 0o644,
    "Cargo.toml" 0o644,
    "run.sh" 0o755,
    "runtime/Cargo.toml" 0o644,
    "runtime/crates/linux-aarch64.z" 0o644,
    "runtime/crates/linux-x86_64.z" 0o644,
    "runtime/crates/made-of" 0o644,
    "runtime/src/crates.rs" 0o644,
    "runtime/src/lib.rs" 0o644,
    "src/app/functions.rs" 0o644,
    "src/main.rs" 0o644,
];

/// The link of the template: where it is and what it says. A function that is put at either
/// place is the function.
pub const LINK: (&str, &str) = ("src/functions.rs", "app/functions.rs");

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            match path.symlink_metadata().unwrap().is_dir() {
                true if path.ends_with("target") => {}
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }

    #[test]
    fn every_file_of_the_template_is_listed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("template");
        let mut found = Vec::new();
        walk(&root, &mut found);
        let mut found: Vec<String> =
            found.iter().map(|path| path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned()).collect();
        found.sort();
        let mut listed: Vec<&str> = FILES.iter().map(|file| file.path).chain([LINK.0]).collect();
        assert!(FILES.is_sorted_by_key(|file| file.path));
        listed.sort_unstable();
        assert_eq!(found, listed);
        assert_eq!(root.join(LINK.0).read_link().unwrap(), Path::new(LINK.1));
    }

    #[test]
    fn the_lock_names_no_other_registry_than_crates_io() {
        let lock = FILES.iter().find(|file| file.path == "Cargo.lock").unwrap();
        let lock = std::str::from_utf8(lock.data).unwrap();
        let sources: std::collections::BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
        assert_eq!(
            sources.into_iter().collect::<Vec<_>>(),
            [r#"source = "registry+https://github.com/rust-lang/crates.io-index""#]
        );
    }
}
