//! A project, a build image without a compiler and a runtime image, for releases by the embedded
//! engine that take well under a second.
//!
//! Invariant: whatever runs or is mounted for a site is known by its own copy of the program, by a
//! word in its steps' environment and by its folder's name.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::remains::{all_in, gone, mounts_of, processes_of};
use super::{Ended, OwnRegistry, Project, Roche, busybox, copy_program, fixture, layer, unique};

/// How long the kernel may take to end what belonged to a process that is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many layers of padding the build image has.
const PADDING: u32 = 10;

/// Where releases of one kind start from.
pub(crate) struct Site {
    folder: TempDir,
    /// Where the images are.
    pub(crate) registry: OwnRegistry,
    build: String,
    runtime: String,
    mark: String,
}

/// A cache, an output folder and a folder for temporary files.
pub(crate) struct Stand {
    root: PathBuf,
}

impl Site {
    /// Makes the images; `cargo` is the build image's cargo, a script without its first line.
    pub(crate) fn new(cargo: &str) -> Self {
        Self::with_files(cargo, |_| ())
    }

    /// The same with more files in the build image.
    pub(crate) fn with_files(cargo: &str, fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("the folder is opened");
        let mark = format!("ROCHE_TEST_MARK={}", unique());
        let registry = OwnRegistry::start();
        let tools = tools(cargo, fill);
        let mut layers = vec![tools];
        layers.extend((0..PADDING).map(|i| {
            layer(|root| {
                // Names that layers share, so that they hide one another, and some of their own.
                for file in 0..12 {
                    let folder = root.join(format!("opt/{}", if file % 2 == 0 { "shared".into() } else { format!("own{i}") }));
                    fs::create_dir_all(&folder).expect("a folder is made");
                    let text = format!("{i} {file}\n").repeat(2000);
                    fs::write(folder.join(format!("file{file}")), text).expect("a file is written");
                }
            })
        }));
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let build = registry.image("build", &layers, &[path, &mark]);
        let base = layer(busybox);
        let runtime = registry.image("runtime", &[base, layers.swap_remove(3)], &[path]);
        fs::create_dir(folder.path().join("shop")).expect("a folder is made");
        let site = Self { folder, registry, build, runtime, mark };
        copy_program(Path::new(env!("CARGO_BIN_EXE_roche")), &site.program());
        site.write("functions.rs", &Project::function("hello"));
        site.write("lib.rs", "pub mod functions;\n");
        site
    }

    /// The site's own copy of the program.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.path().join("roche")
    }

    /// The project's folder.
    pub(crate) fn project(&self) -> PathBuf {
        self.folder.path().join("shop")
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.project().join(name), text).expect("a file is written");
    }

    /// A stand with an empty cache, in a folder that is made here.
    pub(crate) fn stand(&self, name: &str) -> Stand {
        Stand::new(&self.folder.path().join(name))
    }

    /// A stand with all that another one's cache and outputs hold.
    pub(crate) fn copy(&self, stand: &Stand, name: &str) -> Stand {
        let to = self.folder.path().join(name);
        assert!(Command::new("cp").arg("-a").arg(&stand.root).arg(&to).status().expect("cp runs").success());
        Stand::new(&to)
    }

    /// The release of the project to an archive and a file with the image's digest, with progress in
    /// the rawjson form.
    pub(crate) fn release(&self, stand: &Stand) -> Roche {
        let call = Roche::new(&self.project()).args(["release", "--builder", "embedded"]);
        let call = call.env("BUILDKIT_PROGRESS", "rawjson").args([
            "-b",
            &self.build,
            "-r",
            &self.runtime,
            "-t",
            "example.invalid/shop:1",
            "-o",
        ]);
        let call = call.arg(format!("type=oci,dest={}", stand.archive().display()));
        self.set(call.arg("--iidfile").arg(stand.out().join("id")), stand)
    }

    /// `roche verify` of the project.
    pub(crate) fn twice(&self, stand: &Stand) -> Roche {
        let call = Roche::new(&self.project()).args(["verify", "--builder", "embedded", "-b", &self.build, "-r", &self.runtime]);
        self.set(call, stand)
    }

    /// `roche cache verify`, which must find nothing damaged.
    #[track_caller]
    pub(crate) fn verify(&self, stand: &Stand, user: Option<u32>) {
        let mut call = self.set(Roche::new(&self.project()).args(["cache", "verify"]), stand);
        if let Some(user) = user {
            call = call.user(user);
        }
        let verified = call.run().succeeds();
        let (said, nothing) = (verified.stdout_text(), verified.stderr.contains("nothing is cached yet"));
        assert!(said.contains(", 0 damaged") || nothing, "{}", verified.story());
    }

    /// The build image and the runtime image.
    pub(crate) fn images(&self) -> (&str, &str) {
        (&self.build, &self.runtime)
    }

    /// A call of the program in the project, with a stand's cache and home.
    pub(crate) fn call(&self, stand: &Stand) -> Roche {
        self.set(Roche::new(&self.project()), stand)
    }

    fn set(&self, call: Roche, stand: &Stand) -> Roche {
        let call = call.env("XDG_CACHE_HOME", stand.cache()).env("TMPDIR", stand.temporary());
        call.env("HOME", &stand.root).program(&self.program())
    }

    /// Fails the test where a process or a mount is left.
    #[track_caller]
    pub(crate) fn nothing_runs(&self, stand: &Stand) {
        gone("processes", PATIENCE, || processes_of(&self.program(), &self.mark));
        gone("mounts", PATIENCE, || mounts_of(&stand.root));
    }

    /// Fails the test where a process, a mount or a temporary file is left, after a release that
    /// ended by itself. (What was fetched of a blob is kept for the next one.)
    #[track_caller]
    pub(crate) fn nothing_is_left(&self, stand: &Stand) {
        self.nothing_runs(stand);
        let store = stand.cache().join("roche");
        for folder in [stand.temporary(), store.join("work"), store.join("mnt")] {
            assert_eq!(all_in(&folder), Vec::<PathBuf>::new(), "left in {}", folder.display());
        }
        let strange = |path: &&PathBuf| ![stand.archive(), stand.out().join("id")].contains(*path);
        assert_eq!(all_in(&stand.out()).iter().find(strange), None, "left beside the outputs");
        let files: Vec<PathBuf> = ["functions.rs", "lib.rs"].iter().map(|name| self.project().join(name)).collect();
        assert_eq!(all_in(&self.project()), files, "left in the project");
    }
}

/// The layer of a build image without a compiler: BusyBox, the service's project, a script as cargo, and what `fill` adds.
pub(crate) fn tools(cargo: &str, fill: impl FnOnce(&Path)) -> Vec<u8> {
    layer(|root| {
        busybox(root);
        let tiny = fixture("tiny-build");
        for (from, to) in [("app-build", "."), ("build-service", "usr/local/bin/")] {
            fs::create_dir_all(root.join("usr/local/bin")).expect("a folder is made");
            let copied = Command::new("cp").arg("-r").arg(tiny.join(from)).arg(root.join(to)).status();
            assert!(copied.expect("cp runs").success());
        }
        let script = root.join("usr/local/bin/cargo");
        fs::write(&script, format!("#!/bin/sh\n{cargo}\n")).expect("the script is written");
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("the script's mode is set");
        fill(root);
    })
}

impl Stand {
    /// Makes the folders.
    fn new(root: &Path) -> Self {
        let stand = Self { root: root.to_owned() };
        for folder in [stand.cache(), stand.out(), stand.temporary()] {
            fs::create_dir_all(folder).expect("a folder is made");
        }
        stand
    }

    /// Another stand below this one.
    pub(crate) fn beside(&self, name: &str) -> Self {
        Self::new(&self.root.join("others").join(name))
    }

    /// The folder of caches, `roche` in it being the engine's.
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// The home of whoever releases.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.clone()
    }

    /// The folder of outputs.
    pub(crate) fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// The folder of temporary files.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What was fetched of blobs that are not complete.
    pub(crate) fn partial(&self) -> Vec<PathBuf> {
        all_in(&self.cache().join("roche/blobs/partial"))
    }

    /// The image's archive.
    pub(crate) fn archive(&self) -> PathBuf {
        self.out().join("image.tar")
    }

    /// What a release that succeeded has made: the digest that it tells, and the archive's bytes.
    #[track_caller]
    pub(crate) fn made(&self, ended: Ended) -> (String, Vec<u8>) {
        ended.succeeds();
        let id = fs::read_to_string(self.out().join("id")).expect("the digest is told");
        (id, fs::read(self.archive()).expect("the archive is there"))
    }

    /// Gives all of it to a user.
    pub(crate) fn give(&self, user: u32) {
        let owner = format!("{user}:{user}");
        assert!(Command::new("chown").args(["-R", &owner]).arg(&self.root).status().expect("chown runs").success());
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
