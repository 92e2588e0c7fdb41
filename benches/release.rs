//! Is a release cheaper than what people do without it?
//!
//! Each comparison runs its commands in turn, whole processes on the same daemon, and prints the
//! medians and the ratios:
//!
//! - (a) nothing changed: `roche release`, `docker build` of the documented Dockerfile, and a
//!   minimal client that resolves the two images, submits the same definition and does nothing else;
//!   and that client without the resolving, which so cannot notice that a tag has moved. The vertices
//!   that the daemon reports are counted, so that a release that does not ask the daemon shows.
//! - (b) one line changed: `roche release` on a build image of `roche prepare`, and `docker build`
//!   of the documented Dockerfile on a build image with the original's single-crate service.
//!   CPU seconds are those of the whole machine, because the steps run in the daemon's containers.
//!
//! Needs the daemons and images of `tests/run`: `tests/setup/daemons start && tests/setup/images`,
//! then `. $ROCHE_TEST_STATE/env` and `tests/setup/build-image`; run by `cargo bench --bench release`,
//! or `-- same` for (a) alone, `-- edit` for (b).

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use roche_engine::buildkit::{Address, Buildkit, Protocol};
use roche_engine::oci::Reference;
use roche_engine::op::Platform;
use roche_engine::solver::{Export, JobOptions, ResolveMode, Solver as _};
use roche_engine::{Definition, Digest};

/// Runs of each command that are counted; one before them is not.
const RUNS: usize = 9;

const MINIMAL: &str = "--minimal-client";

const FUNCTION: &str = "pub fn handler() -> tide::Server<()> {
    let mut api = tide::new();
    api.at(\"/\").get(|_| async { Ok(\"Hello, NUMBER!\") });
    api
}
";

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == MINIMAL) {
        minimal_client(&args[at + 1..]);
        return;
    }
    let only = |part: &str| args.iter().any(|arg| arg == part);
    for daemon in ["ROCHE_TEST_DOCKER20", "ROCHE_TEST_DOCKER26"] {
        Bench::new(daemon).run(!only("edit"), !only("same"));
    }
}

struct Bench {
    daemon: &'static str,
    socket: PathBuf,
    registry: String,
    folder: tempfile::TempDir,
    edits: usize,
}

impl Bench {
    fn new(daemon: &'static str) -> Self {
        let variable =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; see the head of benches/release.rs"));
        let bench = Self {
            daemon,
            socket: variable(daemon).into(),
            registry: variable("ROCHE_TEST_REGISTRY"),
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
            edits: 0,
        };
        bench.write_dockerfile("Dockerfile", "build:1");
        bench
    }

    fn run(mut self, same: bool, edit: bool) {
        println!("\n{} ({RUNS} runs each, in turn; medians)", self.daemon);
        if same {
            self.no_change();
        }
        if edit {
            self.one_line();
        }
    }

    fn no_change(&mut self) {
        self.edit();
        let llb = self.folder.path().join("plan.llb");
        let plan = checked(self.roche().arg("--dry-run=llb"));
        fs::write(&llb, &plan.stdout).expect("the plan can be written");
        let vertices = Definition::decode(&plan.stdout).expect("the plan is LLB").vertices().len();
        let mut release = || {
            let done = timed(self.roche().args(["--progress", "rawjson"]));
            let progress = String::from_utf8_lossy(&done.output.stderr).into_owned();
            assert!(digests(&progress) >= vertices, "the daemon reported fewer than {vertices} vertices:\n{progress}");
            done
        };
        let mut docker = || timed(&mut self.docker_build("Dockerfile"));
        let client = |images: &[String]| {
            let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
            timed(command.arg(MINIMAL).arg(&self.socket).arg(&llb).arg("bench/minimal:1").args(images))
        };
        let mut minimal = || client(&[self.image("build:1"), self.image("runtime-debian:1")]);
        let mut pinned = || client(&[]);
        let [release, docker, minimal, pinned] = in_turn([&mut release, &mut docker, &mut minimal, &mut pinned]);
        println!("(a) nothing changed, {vertices} vertices reported by the daemon");
        row("roche release", release, None);
        row("docker build", docker, Some(("roche / docker build, at most 0.5", release.wall / docker.wall)));
        row("minimal client", minimal, Some(("roche / minimal client, at most 1.1", release.wall / minimal.wall)));
        row("minimal client, pinned", pinned, Some(("roche / pinned client", release.wall / pinned.wall)));
    }

    fn one_line(&mut self) {
        self.single_crate_image();
        self.write_dockerfile("Dockerfile.single", "build-single:1");
        let mut rows = Vec::new();
        for _ in 0..=RUNS {
            self.edit();
            let release = timed(&mut self.roche());
            self.edit();
            let docker = timed(&mut self.docker_build("Dockerfile.single"));
            rows.push((release, docker));
        }
        rows.remove(0);
        let release = median(rows.iter().map(|(release, _)| release.cost));
        let docker = median(rows.iter().map(|(_, docker)| docker.cost));
        println!("(b) one line changed");
        row("roche release", release, None);
        row("docker build, single crate", docker, Some(("roche / docker build, at most 0.4", release.wall / docker.wall)));
    }

    /// Writes a function that no run has seen.
    fn edit(&mut self) {
        self.edits += 1;
        let unique = format!("{} of {}", self.edits, std::process::id());
        fs::write(self.folder.path().join("functions.rs"), FUNCTION.replace("NUMBER", &unique))
            .expect("the function can be written");
    }

    fn roche(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roche"));
        command.current_dir(self.folder.path()).env("DOCKER_HOST", format!("unix://{}", self.socket.display()));
        command.arg("release").args([
            "-t",
            &self.tag("roche"),
            "-b",
            &self.image("build:1"),
            "-r",
            &self.image("runtime-debian:1"),
        ]);
        command
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("/usr/bin/docker");
        command.arg("-H").arg(format!("unix://{}", self.socket.display())).env("DOCKER_BUILDKIT", "1");
        command
    }

    fn docker_build(&self, file: &str) -> Command {
        let mut command = self.docker();
        command.current_dir(self.folder.path()).args(["build", "-q", "-t", &self.tag("docker"), "-f", file, "."]);
        command
    }

    /// A name of its own for every edit: an image that loses its name is collected as garbage, and
    /// dockerd 26.1 may fail a build beside that ("parent snapshot … does not exist").
    fn tag(&self, name: &str) -> String {
        format!("bench/{name}:{}", self.edits)
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry)
    }

    fn write_dockerfile(&self, file: &str, build: &str) {
        let (build, runtime) = (self.image(build), self.image("runtime-debian:1"));
        let text = format!(
            "FROM {build} AS builder\nCOPY functions.rs /app-build/src/app/\nRUN cd /app-build && touch src/app/functions.rs && cargo build --release --offline\n\
             FROM {runtime}\nRUN groupadd -r rocheuser && useradd -r -g rocheuser rocheuser\nWORKDIR /app\n\
             COPY --from=builder --chown=rocheuser /app-build/run.sh /app-build/Cargo.toml /app-build/target/release/roche-service ./\n\
             USER rocheuser\nENV PORT 8080\nEXPOSE 8080\nCMD [\"./run.sh\"]\n"
        );
        fs::write(self.folder.path().join(file), text).expect("the Dockerfile can be written");
    }

    /// Makes the build image with the original's single crate: the vendored crates are those of
    /// the prepared build image.
    fn single_crate_image(&self) {
        let context = tempfile::tempdir().expect("a temporary folder can be made");
        let single = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/single-crate");
        checked(Command::new("cp").arg("-r").arg(single).arg(context.path().join("single")));
        let dockerfile = format!(
            "FROM {} AS prepared\nFROM {}\nCOPY --from=prepared /app-build/vendor /app-build/vendor\nCOPY --from=prepared /app-build/.cargo /app-build/.cargo\n\
             COPY --from=prepared /app-build/run.sh /app-build/run.sh\nCOPY single/ /app-build/\nWORKDIR /app-build\nRUN cargo build --release --offline\n",
            self.image("build:1"),
            self.image("toolchain:1")
        );
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("the Dockerfile can be written");
        checked(self.docker().current_dir(context.path()).args(["build", "-t", &self.image("build-single:1"), "."]));
    }
}

/// Submits a definition, whose images it resolves, and stores the result under a name.
fn minimal_client(args: &[String]) {
    let [socket, llb, name, images @ ..] = args else { panic!("{MINIMAL} SOCKET LLB NAME [IMAGE]...") };
    let definition = Definition::decode(&fs::read(llb).expect("the definition can be read")).expect("it is LLB");
    let runtime = tokio::runtime::Runtime::new().expect("the runtime starts");
    runtime.block_on(async {
        let solver = Buildkit::new(Address::unix(socket, Protocol::Docker));
        let options = JobOptions { exports: vec![Export::Store { names: vec![name.clone()] }], ..JobOptions::default() };
        // Dropped at once: nobody looks at this client's progress.
        let (progress, _) = roche_engine::solver::progress_channel(1);
        let job = solver.open(options, progress).await.expect("the daemon is there");
        let platform = Platform::new("linux", "amd64");
        let images: Vec<Reference> = images.iter().map(|image| image.parse().expect("it is a reference")).collect();
        let resolved = images.iter().map(|image| job.resolve_image(image, &platform, ResolveMode::Default));
        futures_util::future::try_join_all(resolved).await.expect("the images are there");
        let solved = job.solve(&definition).await.expect("the definition is solved");
        job.export(solved, b"{\"os\":\"linux\",\"architecture\":\"amd64\"}".to_vec()).await.expect("the image is stored");
    });
    runtime.shutdown_background();
}

/// What a run took.
#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
}

struct Done {
    cost: Cost,
    output: Output,
}

fn timed(command: &mut Command) -> Done {
    let (cpu, start) = (machine_cpu(), Instant::now());
    let output = checked(command);
    let wall = start.elapsed();
    Done { cost: Cost { wall: wall.as_secs_f64(), cpu: (machine_cpu() - cpu).as_secs_f64() }, output }
}

fn checked(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}

/// Runs each command in turn, once uncounted, and returns the medians.
fn in_turn<const N: usize>(mut commands: [&mut dyn FnMut() -> Done; N]) -> [Cost; N] {
    let mut costs: [Vec<Cost>; N] = std::array::from_fn(|_| Vec::new());
    for run in 0..=RUNS {
        for (command, costs) in commands.iter_mut().zip(&mut costs) {
            let done = command();
            if run > 0 {
                costs.push(done.cost);
            }
        }
    }
    costs.map(|costs| median(costs.into_iter()))
}

fn median(costs: impl Iterator<Item = Cost>) -> Cost {
    let (mut walls, mut cpus): (Vec<f64>, Vec<f64>) = costs.map(|cost| (cost.wall, cost.cpu)).unzip();
    let middle = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Cost { wall: middle(&mut walls), cpu: middle(&mut cpus) }
}

fn row(name: &str, cost: Cost, ratio: Option<(&str, f64)>) {
    let ratio = ratio.map(|(what, value)| format!("  {what}: {value:.2}")).unwrap_or_default();
    println!("    {name:28} {:7.3} s wall {:7.2} s CPU{ratio}", cost.wall, cost.cpu);
}

/// Counts the vertices that a stream of status messages speaks of.
fn digests(progress: &str) -> usize {
    let messages = progress.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let digests = messages.flat_map(|message| message["vertexes"].as_array().cloned().unwrap_or_default());
    let unique: std::collections::BTreeSet<Digest> =
        digests.filter_map(|vertex| vertex["digest"].as_str()?.parse().ok()).collect();
    unique.len()
}

/// Time that the machine's processors were busy since it started (`/proc/stat`).
fn machine_cpu() -> Duration {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat can be read");
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, irq, softirq, in hundredths of a second; idle and iowait are not work.
    Duration::from_millis(10 * [0, 1, 2, 5, 6].iter().map(|&i| fields[i]).sum::<u64>())
}
