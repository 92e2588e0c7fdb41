//! Steps on this machine, in the mode that the user who runs the tests has.
//!
//! The test program is its own worker: a constructor looks for the worker's name before the harness
//! starts. The machine's own programs are bound into the steps' roots.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use tokio::io::AsyncReadExt;

use super::*;
use crate::local::ids::{self, Identity, Ids};
use crate::local::trees::disk::Disk;
use crate::local::trees::ledger::Ledger;
use crate::local::trees::scan::scan;
use crate::local::trees::view::View;

mod confinement;
mod life;
mod mounts;
mod processes;

/// Runs before the harness, which would take the worker's name for its own.
#[used]
// SAFETY: the C library calls what is listed here once, before `main`, in the only thread.
#[unsafe(link_section = ".init_array")]
static WORKER: extern "C" fn() = {
    extern "C" fn worker() {
        main_if_worker();
    }
    worker
};

/// A root folder with one layer, and workers over it.
struct Bench {
    root: tempfile::TempDir,
    workers: Workers,
}

/// What came of a step.
#[derive(Debug)]
struct Ran {
    ended: Ended,
    out: String,
    err: String,
}

fn identity() -> Identity {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let environment = read("/proc/self/environ");
    let path = environment.split('\0').find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or_default();
    let facts = ids::Facts {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        passwd: &read("/etc/passwd"),
        subuid: &read("/etc/subuid"),
        subgid: &read("/etc/subgid"),
        path: &path.split(':').map(PathBuf::from).collect::<Vec<_>>(),
    };
    ids::find(&facts)
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in ["layers", "work", "caches"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let workers = Workers::new(root.path(), identity());
        let bench = Self { root, workers };
        let layer = bench.layer(1);
        fs::create_dir(layer.join("etc")).unwrap();
        fs::write(layer.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:5:6::/home/app:/bin/sh\n").unwrap();
        fs::write(layer.join("etc/group"), "root:x:0:\napp:x:6:\nextra:x:7:app\n").unwrap();
        fs::create_dir_all(layer.join("data/deep")).unwrap();
        fs::write(layer.join("data/deep/file"), "one").unwrap();
        bench.describe(1);
        bench
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn layer(&self, number: u64) -> PathBuf {
        let path = self.path(&format!("layers/{number}/fs"));
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Writes a layer's tree.
    fn describe(&self, number: u64) {
        let folder = fs::File::open(self.layer(number)).unwrap();
        let disk = Disk::from(&self.workers.identity.ids);
        let tree = scan(folder.as_fd(), &View::default(), &disk, &Ledger::default()).unwrap();
        fs::write(self.path(&format!("layers/{number}/tree")), tree.encode()).unwrap();
    }

    /// Says whether the machine's overlays show what changed; where layers are copied, results are
    /// whole trees.
    async fn overlays(&self) -> bool {
        self.workers.probe().await.is_empty()
    }

    fn single(&self) -> bool {
        self.workers.identity.ids == Ids::Single
    }

    /// Returns a writable root over layers, whose changes go to `work/NAME`.
    fn writable(&self, target: &str, layers: &[u64], work: &str) -> Mount {
        fs::create_dir_all(self.path(&format!("work/{work}"))).unwrap();
        // A second step may go on where the first one stopped.
        let _ = fs::remove_file(self.path(&format!("work/{work}/tree")));
        let upper = Some(Upper { work: format!("work/{work}"), output: true });
        mount(target, Source::Layers { layers: layers.to_vec(), upper })
    }

    /// Returns a step that runs a script over layer 1, whose changes go to `work/out`.
    fn script(&self, script: &str) -> Exec {
        self.step(&["sh", "-c", script])
    }

    fn step(&self, args: &[&str]) -> Exec {
        let mut mounts = vec![self.writable("/", &[1], "out")];
        mounts.extend(programs());
        Exec {
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            cwd: "/".to_owned(),
            remove_stubs_recursive: true,
            mounts,
            ..Exec::default()
        }
    }

    async fn run(&self, exec: Exec) -> Ran {
        self.try_run(exec).await.unwrap()
    }

    async fn try_run(&self, exec: Exec) -> Result<Ran, Failure> {
        let mut worker = self.workers.spawn(Work::Exec(exec)).await?;
        let (mut stdout, mut stderr) = (worker.stdout.take().unwrap(), worker.stderr.take().unwrap());
        let (mut out, mut err) = (String::new(), String::new());
        let (answer, _, _) = tokio::join!(worker.answer(), stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
        match answer? {
            Answer::Exec(ended) => Ok(Ran { ended, out, err }),
            other => panic!("{other:?}"),
        }
    }

    /// Runs a script that must succeed and returns what it wrote.
    async fn said(&self, script: &str) -> String {
        let ran = self.run(self.script(script)).await;
        assert_eq!(ran.ended.status, 0, "{ran:?}");
        ran.out
    }

    /// Returns the names in the changes of `work/out`.
    fn changed(&self) -> BTreeSet<String> {
        names(&self.path("work/out/fs"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Files of mapped ids are not the user's to remove.
        let workers = self.workers.clone();
        let remove = async move {
            let paths = ["layers", "work", "caches"].map(str::to_owned).to_vec();
            workers.spawn(Work::Remove { paths }).await.unwrap().answer().await.unwrap();
        };
        std::thread::scope(|scope| {
            scope.spawn(|| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(remove));
        });
    }
}

fn mount(target: &str, source: Source) -> Mount {
    Mount { target: target.to_owned(), source, readonly: false, selector: String::new() }
}

/// Mounts the machine's programs and libraries.
fn programs() -> Vec<Mount> {
    let folders = ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|folder| Path::new(folder).exists());
    let bind = |folder: &&str| {
        let entries = vec![HostEntry { path: "/".to_owned(), node: HostNode::Bind(PathBuf::from(folder)) }];
        Mount { readonly: true, ..mount(folder, Source::Host { entries }) }
    };
    folders.map(bind).collect()
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}
