//! Is the embedded engine fast and small?
//!
//! Each part runs its commands in turn, whole processes, and prints medians, CPU seconds of the whole
//! machine, the most memory that a command's processes held together, and ratios beside their aims:
//!
//! - (a) `steps`: what does a step cost beside its program? A chain of distinct `/bin/true`, divided
//!   by their number; as root, as a user with one id, and on both daemons.
//! - (b) `wide`: do small steps that need nothing of each other run side by side? 200 of them, and one
//!   that has all their trees mounted, on the engine and on both daemons.
//! - (c) `noop`: what does `roche release` cost where nothing has changed, from the machine's own
//!   toolchain and from images?
//! - (d) `pull`: how long until an image of 600 MB is there as files, from the registry and an empty
//!   store? Beside `skopeo copy` and `umoci unpack`.
//! - (e) `export`: how long until a layer of 500 MB is an archive? Beside `skopeo copy` of the same
//!   layer, uncompressed, from an OCI layout.
//! - (f) `memory`: does the size of a layer show in the memory? A file of 2 GB zeros and one of 1 GB
//!   random bytes, made, packed, pushed, pulled and unpacked.
//!
//! Needs root, `apt install skopeo umoci` and the daemons and images of `tests/run`:
//! `tests/setup/daemons start && tests/setup/images`, then `. $ROCHE_TEST_STATE/env` and
//! `tests/setup/build-image`; run by `cargo bench --bench embedded`, or `-- steps` and so on for parts.
//! It takes 10 GB below the temporary folder.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod graphs;
mod measure;
mod solve;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use graphs::Steps;
use measure::{Cost, Done, attempted, head, in_turn, row, timed};
use roche_engine::oci::{Blob, Blobs, Compression, Descriptor, Hashing, Image, Layer, Named, layout};
use solve::{CONFIG, SOLVE};
use tempfile::TempDir;

/// Steps of the chain, and runs of it.
const CHAIN: (usize, usize) = (50, 7);
/// Steps of the wide graph, and runs of it.
const WIDE: (usize, usize) = (200, 5);
/// Runs of a release.
const NOOP: usize = 9;
/// Runs of what takes seconds.
const LARGE: usize = 3;
/// An ordinary user without ranges of ids.
const NOBODY: u32 = 65534;

const FUNCTION: &str = "pub fn handler() -> tide::Server<()> {
    let mut api = tide::new();
    api.at(\"/\").get(|_| async { Ok(\"Hello!\") });
    api
}
";

fn main() {
    roche_engine::local::worker_main();
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == SOLVE) {
        return solve::main(&args[1..]);
    }
    let bench = Bench::new();
    let parts: [(&str, Part); 6] = [
        ("steps", Bench::steps),
        ("wide", Bench::wide),
        ("noop", Bench::noop),
        ("pull", Bench::pull),
        ("export", Bench::export),
        ("memory", Bench::memory),
    ];
    let all = !parts.iter().any(|(name, _)| args.iter().any(|arg| arg == name));
    for (_, part) in parts.iter().filter(|(name, _)| all || args.iter().any(|arg| arg == name)) {
        part(&bench);
    }
}

type Part = fn(&Bench);

struct Bench {
    folder: TempDir,
    /// A copy of this program that every user may run.
    program: PathBuf,
    registry: String,
    /// The daemons' names and sockets.
    daemons: [(&'static str, String); 2],
}

impl Bench {
    fn new() -> Self {
        let variable = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; see the head of benches/embedded/main.rs"))
        };
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is this user's");
        let program = folder.path().join("embedded");
        fs::copy(std::env::current_exe().expect("this program has a path"), &program).expect("the program can be copied");
        Self {
            folder,
            program,
            registry: variable("ROCHE_TEST_REGISTRY"),
            daemons: [
                ("dockerd 20.10", format!("docker:{}", variable("ROCHE_TEST_DOCKER20"))),
                ("dockerd 26.1", format!("docker:{}", variable("ROCHE_TEST_DOCKER26"))),
            ],
        }
    }

    fn steps(&self) {
        let (count, runs) = CHAIN;
        let (root, nobody) = (self.empty("root"), self.empty("nobody"));
        std::os::unix::fs::chown(&nobody, Some(NOBODY), Some(NOBODY)).expect("root may");
        let chain = |solver: &str, uid: u32| {
            let graphs = [self.busybox().image(self.path()), self.busybox().chain(self.path(), count)];
            let mut command = self.solving(solver, "none", &graphs);
            if uid != 0 {
                command.uid(uid).gid(uid);
            }
            timed(&mut command).phase("solve")
        };
        let [mine, single, older, newer] = in_turn(
            runs,
            [
                &mut || chain(&embedded(&root), 0),
                &mut || chain(&embedded(&nobody), NOBODY),
                &mut || unwatched(chain(&self.daemons[0].1, 0)),
                &mut || unwatched(chain(&self.daemons[1].1, 0)),
            ],
        );
        head(&format!("(a) a chain of {count} steps, {runs} runs"));
        let figure = |cost: Cost, aim: &str| format!("{:.2} ms a step{aim}", cost.wall * 1000.0 / count as f64);
        row("the engine, root", mine, &figure(mine, ", at most 10"));
        row("the engine, one id", single, &figure(single, ", at most 10"));
        for ((name, _), cost) in self.daemons.iter().zip([older, newer]) {
            row(name, cost, &format!("{}; root's ratio {:.2}", figure(cost, ""), mine.wall / cost.wall));
        }
        remove(&[&root, &nobody]);
    }

    fn wide(&self) {
        let (count, runs) = WIDE;
        let root = self.empty("wide");
        let wide = |solver: &str| {
            let graphs = [self.busybox().image(self.path()), self.busybox().wide(self.path(), count)];
            self.solving(solver, "none", &graphs)
        };
        let solve = |solver: &str| timed(&mut wide(solver)).phase("solve");
        let [older, newer] = &self.daemons;
        let [mine, theirs] = in_turn(runs, [&mut || solve(&embedded(&root)), &mut || unwatched(solve(&newer.1))]);
        head(&format!("(b) {count} steps side by side, {runs} runs"));
        row("the engine", mine, "");
        let ratio = |cost: Cost| format!("ratio {:.2}, at most 0.5", mine.wall / cost.wall);
        row(newer.0, theirs, &ratio(theirs));
        // It takes minutes, and may end with "flightcontrol: exceeded retry timeout".
        match attempted(&mut wide(&older.1)) {
            Ok(done) => row(older.0, unwatched(done.phase("solve")), &format!("{}, one run", ratio(done.phase("solve")))),
            Err(said) => {
                println!("    {:34} fails: {}", older.0, said.lines().find(|line| line.contains("failed")).unwrap_or(&said))
            }
        }
        remove(&[&root]);
    }

    fn noop(&self) {
        let (project, cache) = (self.empty("hello"), self.empty("cache"));
        fs::write(project.join("functions.rs"), FUNCTION).expect("the function can be written");
        let release = |images: &[String]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_roche"));
            command.current_dir(&project).env("XDG_CACHE_HOME", &cache).args(["release", "--builder", "embedded"]);
            command.args(["-t", "bench/noop:1", "-o", "type=oci,dest=image.tar"]).args(images);
            timed(&mut command)
        };
        let again = |images: &[String]| {
            let done = release(images);
            let steps = done.stderr.lines().find_map(|line| line.trim_start().strip_prefix("steps"));
            let words: Vec<&str> = steps.unwrap_or_default().split_whitespace().collect();
            assert!(words.len() > 2 && words[0] == words[2], "something was done again:\n{}", done.stderr);
            done.cost
        };
        let host = ["-b".to_owned(), "host".to_owned()];
        let images = ["-b", "build:1", "-r", "runtime-debian:1"];
        let images = images.map(|word| if word.starts_with('-') { word.to_owned() } else { self.image(word) });
        for arguments in [&host[..], &images] {
            release(arguments);
        }
        let [host, images] = in_turn(NOOP, [&mut || again(&host), &mut || again(&images)]);
        head(&format!("(c) a release that changes nothing, {NOOP} runs"));
        for (name, cost) in [("from the machine's toolchain", host), ("from images", images)] {
            row(name, cost, &format!("{:.0} ms, below 100", cost.wall * 1000.0));
        }
        remove(&[&project, &cache]);
    }

    fn pull(&self) {
        let image = self.image("toolchain:1");
        let graph = [Steps::on(&image).image(self.path())];
        // Nothing is removed in between: for a minute ext4 steps around the inodes of what was.
        let made = std::cell::Cell::new(0);
        let folder = |name: &str| self.path().join(format!("{name}-{}", made.get()));
        let [mine, copied, unpacked] = in_turn(
            LARGE,
            [
                &mut || {
                    made.set(made.get() + 1);
                    timed(&mut self.solving(&embedded(&folder("store")), "none", &graph)).cost
                },
                &mut || {
                    let from = format!("docker://{image}");
                    let to = format!("oci:{}:image", folder("layout").display());
                    timed(Command::new("skopeo").args(["copy", "-q", "--src-tls-verify=false", &from, &to])).cost
                },
                &mut || {
                    let layout = format!("{}:image", folder("layout").display());
                    timed(Command::new("umoci").args(["unpack", "--image", &layout]).arg(folder("bundle"))).cost
                },
            ],
        );
        for run in 1..=made.get() {
            made.set(run);
            remove(&[&folder("store"), &folder("layout"), &folder("bundle")]);
        }
        head(&format!("(d) pull and unpack of toolchain:1, {LARGE} runs"));
        row("the engine", mine, &format!("ratio {:.2}, at most 0.33", mine.wall / (copied.wall + unpacked.wall)));
        row("skopeo copy", copied, "");
        row("umoci unpack", unpacked, "");
    }

    fn export(&self) {
        let store = self.path().join("store");
        let graph = [Steps::on(&self.image("toolchain:1")).copied(self.path(), "/usr")];
        let solved = |export: &str| timed(&mut self.solving(&embedded(&store), export, &graph));
        let [tar, layout, out] = ["layer.tar", "layout", "out.tar"].map(|name| self.path().join(name));
        solved(&format!("tar:{}", tar.display()));
        let size_bytes = self.uncompressed(&tar, &layout);
        let export = |kind: &str| {
            // The blob of a layer is made once in a store.
            remove(&[&store]);
            let done = solved(&format!("{kind}:{}", out.display()));
            remove(&[&out]);
            done.phase("export")
        };
        let skopeo = |to: &str| {
            let (from, to) = (format!("oci:{}:layer", layout.display()), format!("{to}:{}:bench/layer:1", out.display()));
            let done = timed(Command::new("skopeo").args(["copy", "-q", &from, &to]));
            remove(&[&out]);
            done.cost
        };
        let [oci, skopeo_oci, docker, skopeo_docker] = in_turn(
            LARGE,
            [&mut || export("oci"), &mut || skopeo("oci-archive"), &mut || export("archive"), &mut || skopeo("docker-archive")],
        );
        head(&format!("(e) a layer of {} MB to an archive, {LARGE} runs", size_bytes / 1_000_000));
        row("the engine, oci", oci, &format!("ratio {:.2}", oci.wall / skopeo_oci.wall));
        row("skopeo copy, oci-archive", skopeo_oci, "");
        row("the engine, docker", docker, &format!("ratio {:.2}", docker.wall / skopeo_docker.wall));
        row("skopeo copy, docker-archive", skopeo_docker, "");
        remove(&[&store, &tar, &layout]);
    }

    /// Makes an OCI layout of a layer's tar as it is; returns the tar's size.
    fn uncompressed(&self, tar: &Path, into: &Path) -> u64 {
        let mut reading = Hashing::new(fs::File::open(tar).expect("the tar was made"));
        std::io::copy(&mut reading, &mut std::io::sink()).expect("the tar can be read");
        let (_, digest, size_bytes) = reading.finish();
        let blob = Descriptor::new(Compression::None.media_type(), digest, size_bytes);
        let image = Image::assemble(CONFIG, vec![Layer { diff_id: digest, blob }]).expect("the config is one");
        let named = [Named { image: &image, names: &["docker.io/bench/layer:layer".to_owned()], created: None }];
        layout::write(into, &named, &Tar(tar.to_owned())).expect("the layout is written");
        size_bytes
    }

    fn memory(&self) {
        head("(f) memory, whatever a layer's size");
        for (name, script) in [
            ("2 GB of zeros", "truncate -s 2G /out/zeros"),
            ("1 GB of random bytes", "dd if=/dev/urandom of=/out/noise bs=1M count=1024 2>&1"),
        ] {
            let [store, out] = ["store", "out.tar"].map(|name| self.path().join(name));
            let solved = |graph: PathBuf, export: &str| timed(&mut self.solving(&embedded(&store), export, &[graph]));
            let image = self.image(&format!("bench:{}", script.len()));
            let made = self.busybox().made(self.path(), script);
            let figure = |cost: Cost| format!("{} MB, below 256", cost.peak_bytes / 1_000_000);
            let show = |what: &str, done: Done| row(&format!("{name}, {what}"), done.cost, &figure(done.cost));
            show("made and pushed", solved(made.clone(), &format!("registry:{image}")));
            show("an OCI archive", solved(made.clone(), &format!("oci:{}", out.display())));
            show("a docker archive", solved(made, &format!("archive:{}", out.display())));
            remove(&[&store, &out]);
            show("pulled", solved(Steps::on(&image).image(self.path()), "none"));
            remove(&[&store]);
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn empty(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir(&path).expect("the folder can be made");
        path
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    fn busybox(&self) -> Steps {
        Steps::on(&self.image("runtime-busybox:1"))
    }

    fn solving(&self, solver: &str, export: &str, graphs: &[PathBuf]) -> Command {
        let mut command = Command::new(&self.program);
        command.args([SOLVE, solver, export]).args(graphs);
        command
    }
}

fn embedded(root: &Path) -> String {
    format!("embedded:{}", root.display())
}

/// What a daemon holds is not its client's.
fn unwatched(cost: Cost) -> Cost {
    Cost { peak_bytes: 0, ..cost }
}

/// Removes files and folders, where they are there.
fn remove(paths: &[&PathBuf]) {
    for path in paths {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        if let Err(error) = removed {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display());
        }
    }
}

/// The one layer of an image.
struct Tar(PathBuf);

impl Blobs for Tar {
    fn open(&self, _: &Descriptor) -> std::io::Result<Box<dyn Blob>> {
        Ok(Box::new(fs::File::open(&self.0)?))
    }
}
