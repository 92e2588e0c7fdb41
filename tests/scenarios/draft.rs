//! What scenarios write their graphs with.
//!
//! Invariant: but for [`Draft::unique`], a scenario's graph is the same in every run and on every
//! back end.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use roche_engine::op::{Edge, Exec, File, FileActionKind, Metadata, Mkfile, Mount, Op, Platform, Source};
use roche_engine::solver::LocalDir;
use roche_engine::{Definition, Graph};

use crate::harness::image;

/// A graph that is written, and what its job is told.
pub(super) struct Draft {
    graph: Graph,
    /// A word that no other run and no other back end has.
    unique: String,
    folder: PathBuf,
    pub(super) locals: BTreeMap<String, LocalDir>,
    pub(super) secrets: BTreeMap<String, Vec<u8>>,
}

impl Draft {
    /// Starts an empty graph; local folders are made in `folder`.
    pub(super) fn new(folder: &Path, unique: &str) -> Self {
        Self {
            graph: Graph::new(),
            unique: unique.to_owned(),
            folder: folder.to_owned(),
            locals: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    /// The definition of `target`.
    pub(super) fn definition(&self, target: Edge) -> Definition {
        self.graph.definition(target)
    }

    /// A word that no other run and no other back end has; the rounds of a scenario share it.
    pub(super) fn unique(&self) -> String {
        self.unique.clone()
    }

    /// Adds an op.
    pub(super) fn add(&mut self, op: impl Into<Op>) -> Edge {
        self.graph.add(op, Metadata::default()).expect("a scenario's graph is sound").into()
    }

    /// Adds a step.
    pub(super) fn run(&mut self, exec: Exec) -> Edge {
        self.run_with(exec, Metadata::default())
    }

    /// Adds a step with what is known of it beside its op.
    pub(super) fn run_with(&mut self, exec: Exec, metadata: Metadata) -> Edge {
        self.graph.add(Op::on(platform(), exec), metadata).expect("a scenario's graph is sound").into()
    }

    /// Adds file actions on `base`, one after another.
    pub(super) fn file<const N: usize>(&mut self, base: Option<Edge>, kinds: [FileActionKind; N]) -> Edge {
        self.add(File::chain(base, kinds))
    }

    /// An image.
    pub(super) fn image(&mut self, reference: &str) -> Edge {
        self.add(Op::on(platform(), Source::image(reference)))
    }

    /// BusyBox: `sh` and the rest, the user root alone.
    pub(super) fn busybox(&mut self) -> Edge {
        self.image(&image("runtime-busybox"))
    }

    /// Debian without more than it needs: GNU's tools and perl.
    pub(super) fn debian(&mut self) -> Edge {
        self.image(&image("runtime-debian"))
    }

    /// BusyBox with the user `app` (1234) and the groups `app` (2345) and `staff` (50), where `app`
    /// is a member of both.
    pub(super) fn users(&mut self) -> Edge {
        let base = self.busybox();
        let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:app:/home/app:/bin/sh\n";
        let group = "root:x:0:\napp:x:2345:\nstaff:x:50:app\n";
        let files = [Mkfile::new("/etc/passwd", 0o644, passwd).into(), Mkfile::new("/etc/group", 0o644, group).into()];
        self.file(Some(base), files)
    }

    /// Runs a shell script over BusyBox; its result is what it leaves in `/out`, empty at first.
    pub(super) fn script(&mut self, script: &str) -> Edge {
        self.script_over(None, script)
    }

    /// The same with `base` in `/out` at first.
    pub(super) fn script_over(&mut self, base: Option<Edge>, script: &str) -> Edge {
        let root = self.busybox();
        self.step(shell(root, script), base)
    }

    /// Adds a step with `base` in `/out`; its result is what it leaves there.
    pub(super) fn step(&mut self, exec: Exec, base: Option<Edge>) -> Edge {
        let exec = exec.mount(Mount::bind("/out", base)).ordered();
        let output = exec.output("/out").expect("it is a writable mount");
        Edge::new(self.run(exec).vertex, output)
    }

    /// Makes a folder on the client and adds it to the job as `name`.
    pub(super) fn local(&mut self, name: &str, fill: fn(&Path)) {
        let path = self.folder.join(name);
        if !path.exists() {
            std::fs::create_dir(&path).expect("a folder is made");
            fill(&path);
        }
        self.locals.insert(name.to_owned(), folder(path));
    }

    /// Gives the job a secret.
    pub(super) fn secret(&mut self, id: &str, value: &str) {
        self.secrets.insert(id.to_owned(), value.into());
    }
}

/// A folder of the client's, of which nothing is held back.
pub(super) fn folder(path: PathBuf) -> LocalDir {
    LocalDir { path, admits: Arc::new(|_, _| true), content: None }
}

/// A shell script over `root`, whose first failing command fails it; it can write to `/tmp` and to
/// what is mounted.
pub(super) fn shell(root: Edge, script: &str) -> Exec {
    bare_shell(root, script).readonly_root().mount(Mount::tmpfs("/tmp", 0))
}

/// A shell script over `root`, which is output 0.
pub(super) fn bare_shell(root: Edge, script: &str) -> Exec {
    let mut exec = Exec::new(root, "/", &["/bin/sh", "-ec", script]);
    exec.env.push("PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    exec
}

fn platform() -> Platform {
    Platform::new("linux", "amd64")
}
