//! Every kind of output of the embedded engine, as the programs take it that people have.
//!
//! Red when: skopeo, umoci, podman or docker refuses an output; two outputs of one release show
//! different files or another config; the config is not the one that is documented.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use roche_engine::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Daemon, Ended, Project, Roche, image, registry, unique, with_cargo};

/// How long podman's service may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);
/// What docker puts into a container's root beside the image's files.
const DOCKERS: [&str; 8] = [".dockerenv", "dev", "etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "proc", "sys"];

/// One release in every form that there is.
struct Released {
    folder: TempDir,
    name: String,
    digest: String,
}

/// Type and permissions, owner, and content: of a file its digest, of a link its target.
type Files = BTreeMap<PathBuf, (u32, u32, u32, String)>;

impl Released {
    fn new() -> Self {
        let daemon = Daemon::docker20();
        let build = with_cargo(&daemon, "build-service");
        daemon.run(["push", "-q", &build.name]);
        let (project, folder) = (Project::hello(&unique()), tempfile::tempdir().unwrap());
        let name = format!("{}/t/{}:1", registry(), unique());
        let outputs =
            ["type=oci,dest=oci.tar", "type=docker,dest=docker.tar", "type=oci,tar=false,dest=layout", "type=tar,dest=files.tar"];
        let mut release = Roche::embedded(project.root(), folder.path()).args(["--push", "-t", &name, "-b", &build.name]);
        for output in outputs {
            let (kind, file) = output.split_once("dest=").unwrap();
            release = release.arg("-o").arg(format!("{kind}dest={}", folder.path().join(file).display()));
        }
        let ended = release.args(["-r", &image("runtime-debian")]).run().succeeds();
        Self { digest: ended.digest(), name, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The image as skopeo names it, in every form.
    fn forms(&self) -> Vec<(&'static str, String)> {
        let file = |name: &str| self.path(name).display().to_string();
        vec![
            ("OCI archive", format!("oci-archive:{}", file("oci.tar"))),
            ("docker archive", format!("docker-archive:{}", file("docker.tar"))),
            ("OCI layout", format!("oci:{}:1", file("layout"))),
            ("registry", format!("docker://{}", self.name)),
        ]
    }

    /// What umoci unpacks of a layout.
    fn unpacked(&self, layout: &str) -> Files {
        let bundle = self.path(&format!("{layout}.bundle"));
        run("umoci", ["unpack", "--image", &format!("{}:1", self.path(layout).display()), bundle.to_str().unwrap()]);
        let files = files(&bundle.join("rootfs"));
        fs::remove_dir_all(bundle).unwrap();
        files
    }
}

#[test]
fn every_program_shows_the_same_image_in_every_form() {
    let released = Released::new();
    let expected = released.unpacked("layout");
    assert!(expected.len() > 500 && expected.contains_key(Path::new("app/run.sh")), "{} files", expected.len());
    for (i, (form, name)) in released.forms().iter().enumerate() {
        let config: Value = serde_json::from_str(&run("skopeo", inspect(&["--config", name]))).unwrap();
        documented(&config["config"], form);
        let copy = format!("copy{i}");
        let to = format!("oci:{}:1", released.path(&copy).display());
        run("skopeo", ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", name, &to]);
        assert_same(&released.unpacked(&copy), &expected, form);
        // A docker archive has no manifest of its own, and skopeo makes one up.
        if *form != "docker archive" {
            let inspected: Value = serde_json::from_str(&run("skopeo", inspect(&[name]))).unwrap();
            assert_eq!(inspected["Digest"], released.digest.as_str(), "{form}");
        }
    }
    let root = released.path("root");
    fs::create_dir(&root).unwrap();
    run("tar", ["--numeric-owner", "-C", root.to_str().unwrap(), "-xpf", released.path("files.tar").to_str().unwrap()]);
    assert_same(&files(&root), &expected, "tar");

    let podman = Podman::new();
    for archive in ["oci.tar", "docker.tar"] {
        podman.run(&["load", "-q", "-i", released.path(archive).to_str().unwrap()]);
        assert_same(&podman.unpacked(&released.name, archive), &expected, archive);
    }

    for daemon in [Daemon::docker20(), Daemon::docker26()] {
        daemon.test("accepted::every_program_shows_the_same_image_in_every_form", |daemon| {
            // The old daemon reads no OCI layouts.
            let archives = if daemon.has_manifests() { &["docker.tar", "oci.tar"][..] } else { &["docker.tar"] };
            for archive in archives {
                daemon.run(["load", "-q", "-i", released.path(archive).to_str().unwrap()]);
                loaded(daemon, &released, &expected, &format!("{archive} on {}", daemon.name));
            }
            daemon.run(["pull", "-q", &released.name]);
            loaded(daemon, &released, &expected, &format!("registry on {}", daemon.name));
        });
    }
}

/// Checks what docker has of a release, and removes it.
fn loaded(daemon: &Daemon, released: &Released, expected: &Files, form: &str) {
    documented(&daemon.inspect(&released.name)["Config"], form);
    let container = daemon.run(["create", &released.name]);
    let root = tempfile::tempdir().unwrap();
    let archive = released.path("export.tar");
    daemon.run(["export", "-o", archive.to_str().unwrap(), &container]);
    daemon.run(["rm", &container]);
    daemon.run(["image", "rm", "--force", &released.name]);
    run("tar", ["--numeric-owner", "-C", root.path().to_str().unwrap(), "-xpf", archive.to_str().unwrap()]);
    let images = |files: &Files| {
        let own = |path: &Path| DOCKERS.iter().any(|dockers| path.starts_with(dockers));
        files.iter().filter(|(path, _)| !own(path)).map(|(path, file)| (path.clone(), file.clone())).collect::<Files>()
    };
    assert_same(&images(&files(root.path())), &images(expected), form);
}

#[test]
fn an_image_is_loaded_into_the_engine_that_is_there() {
    let project = Project::hello(&unique());
    let docker20 = Daemon::docker20();
    let build = with_cargo(&docker20, "build-service");
    docker20.run(["push", "-q", &build.name]);
    let cache = tempfile::tempdir().unwrap();
    let release = |name: &str, runtime: &Path| -> Ended {
        let line = ["-t", name, "-b", &build.name, "-r", &image("runtime-busybox")].map(str::to_owned);
        Roche::embedded(project.root(), cache.path()).args(line).env("XDG_RUNTIME_DIR", runtime).run().succeeds()
    };
    for daemon in [docker20, Daemon::docker26()] {
        daemon.test("accepted::an_image_is_loaded_into_the_engine_that_is_there", |daemon| {
            let (tag, runtime) = (daemon.tag(), tempfile::tempdir().unwrap());
            symlink(&daemon.socket, runtime.path().join("docker.sock")).unwrap();
            let ended = release(&tag.name, runtime.path());
            documented(&daemon.inspect(&tag.name)["Config"], &daemon.name);
            assert!(ended.stderr.contains("the image store of"), "{}", ended.story());
        });
    }
    let podman = Podman::new();
    let _service = podman.serve();
    let name = format!("{}/t/{}:1", registry(), unique());
    release(&name, podman.folder.path());
    assert!(podman.unpacked(&name, "podman").contains_key(Path::new("app/run.sh")));
}

/// A podman with a store of its own.
struct Podman {
    folder: TempDir,
}

impl Podman {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("podman");
        for (option, name) in [("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.folder.path().join(name));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.folder.path());
        command.env("XDG_RUNTIME_DIR", self.folder.path()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        succeeds(self.command().args(args))
    }

    /// Checks that it has an image, and returns the files that its containers have; the image goes.
    #[track_caller]
    fn unpacked(&self, name: &str, form: &str) -> Files {
        let found: Value = serde_json::from_str(&self.run(&["image", "inspect", name])).unwrap();
        documented(&found[0]["Config"], form);
        let files = files(Path::new(&self.run(&["image", "mount", name])));
        self.run(&["image", "rm", "--force", name]);
        files
    }

    /// Starts its service where the embedded engine looks for it.
    fn serve(&self) -> Service {
        let socket = self.folder.path().join("podman/podman.sock");
        fs::create_dir(socket.parent().unwrap()).unwrap();
        let mut command = self.command();
        command.args(["system", "service", "--time", "0"]).arg(format!("unix://{}", socket.display()));
        let log = self.folder.path().join("service.log");
        let mut service = Service(command.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap());
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&socket).is_err() {
            let ended = service.0.try_wait().unwrap();
            let waits = ended.is_none() && started.elapsed() < PATIENCE;
            assert!(waits, "podman's service does not listen ({ended:?}):\n{}", fs::read_to_string(&log).unwrap());
            thread::sleep(Duration::from_millis(20));
        }
        service
    }
}

/// Podman's service; it ends with the value.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn inspect<'a>(args: &[&'a str]) -> Vec<&'a str> {
    [&["--insecure-policy", "inspect", "--tls-verify=false"], args].concat()
}

/// Checks an image's config against what is documented.
#[track_caller]
fn documented(config: &Value, form: &str) {
    assert_eq!(config["User"], "rocheuser", "{form}: {config}");
    assert_eq!(config["WorkingDir"], "/app", "{form}: {config}");
    assert_eq!(config["ExposedPorts"], json!({"8080/tcp": {}}), "{form}: {config}");
    assert_eq!(config["Cmd"], json!(["./run.sh"]), "{form}: {config}");
    let env = config["Env"].as_array().unwrap_or_else(|| panic!("{form}: {config}"));
    assert!(env.contains(&json!("PORT=8080")), "{form}: {config}");
}

#[track_caller]
fn assert_same(found: &Files, expected: &Files, form: &str) {
    let missing = |a: &Files, b: &Files| -> Vec<_> {
        a.iter()
            .filter(|(path, file)| b.get(*path) != Some(file))
            .take(20)
            .map(|(path, file)| format!("{path:?} {file:?}"))
            .collect()
    };
    let (more, less) = (missing(found, expected), missing(expected, found));
    assert!(more.is_empty() && less.is_empty(), "{form}:\n+ {}\n- {}", more.join("\n+ "), less.join("\n- "));
}

/// All that is below a folder.
fn files(root: &Path) -> Files {
    let mut found = Files::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let (path, metadata) = (folder.join(entry.file_name()), entry.metadata().unwrap());
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                String::new()
            } else if metadata.is_symlink() {
                fs::read_link(entry.path()).unwrap().display().to_string()
            } else if metadata.is_file() {
                Digest::of(&fs::read(entry.path()).unwrap()).to_string()
            } else {
                metadata.rdev().to_string()
            };
            found.insert(path, (metadata.mode(), metadata.uid(), metadata.gid(), content));
        }
    }
    found
}

#[track_caller]
fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> String {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    succeeds(command.env("HOME", "/nonexistent").env("TMPDIR", std::env::temp_dir()))
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed ({}):\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
