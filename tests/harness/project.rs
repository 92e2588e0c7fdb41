//! Function projects in folders of their own.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

/// A project's folder; it goes with the value.
pub(crate) struct Project {
    _parent: TempDir,
    root: PathBuf,
}

impl Project {
    /// An empty folder named `shop`.
    pub(crate) fn empty() -> Self {
        let parent = tempfile::tempdir().expect("a temporary folder is made");
        // Other users get in: one test runs the program as nobody.
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).expect("the folder's mode is set");
        let root = parent.path().join("shop");
        fs::create_dir(&root).expect("the project's folder is made");
        Self { _parent: parent, root }
    }

    /// `functions.rs` alone, which answers `/` with a text.
    pub(crate) fn hello(text: &str) -> Self {
        Self::empty().file("functions.rs", Self::function(text))
    }

    /// A copy of one of the examples.
    pub(crate) fn example(name: &str) -> Self {
        let project = Self::empty();
        let from = repository().join("examples").join(name).join(".");
        let copied = Command::new("cp").arg("-r").arg(from).arg(&project.root).status().expect("cp runs");
        assert!(copied.success(), "examples/{name} was not copied");
        project
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    /// Writes a file of a project that is in use.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the folders are made");
        fs::write(path, content).expect("the file is written");
    }

    /// Dates a file.
    pub(crate) fn date(&self, path: &str, seconds_since_1970: u64) {
        let time = UNIX_EPOCH + Duration::from_secs(seconds_since_1970);
        File::options().write(true).open(self.path(path)).and_then(|f| f.set_modified(time)).expect("the file is dated");
    }

    /// The project's folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path in it.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The source of a function that answers `/` with a text.
    pub(crate) fn function(text: &str) -> String {
        format!(
            "pub fn handler() -> tide::Server<()> {{\n    let mut app = tide::new();\n    \
             app.at(\"/\").get(|_| async {{ Ok({text:?}) }});\n    app\n}}\n"
        )
    }
}

/// A path in `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// The project's own repository.
pub(super) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// Small letters and digits that no other call has given, in this run or another one.
pub(crate) fn unique() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    format!("u{:x}p{:x}n{call}", now.as_micros(), process::id())
}
