//! What this machine gives to a release that it compiles itself: its toolchain and the crates.
//!
//! Both are kept in the cache folder between releases: the digests of the toolchain's files, so that
//! they are not read again, and the crates, which cargo fetches once for each lock.
//!
//! Invariant: crates are in their place whole or not at all.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::SystemTime;

use roche_engine::Digest;
use roche_engine::solver::{JobOptions, LocalDir};
use roche_frontend::host::{self, Certificates, HostError, Places, Said, Toolchain, Zones};
use roche_frontend::plan::{BaseImage, Host, Plan, ZONES_LOCAL, plan_on_host};
use roche_frontend::project::Project;
use roche_frontend::release::Release;
use roche_frontend::vendor::{self, Vendored};

use crate::document::Material;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{note, prepare};

/// The variables that compilers are asked with.
const PASSED: [&str; 5] = ["CARGO_HOME", "HOME", "PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];

/// A toolchain with everything that a release needs beside it.
pub(crate) struct Machine {
    toolchain: Toolchain,
    crates: Vendored,
    certificates: Option<Certificates>,
    /// Where they are asked for.
    zones: Option<Zones>,
}

impl Machine {
    /// Looks at the machine, and has its cargo fetch what is missing; `tzdata` asks for its time zones.
    pub(crate) async fn look(tzdata: bool, environment: &Environment, narrate: bool, offline: bool) -> Result<Self, Failure> {
        let cache = environment.cache()?;
        let (folder, variables) = (environment.folder.clone(), passed(environment));
        let looking = move || {
            let toolchain = find(&cache, &folder, &variables)?;
            let certificates = host::certificates(Path::new("/"))?;
            let zones = if tzdata { Some(host::zones(Path::new("/"))?) } else { None };
            Ok(Self { toolchain, crates: crates(&cache, narrate, offline)?, certificates, zones })
        };
        let looked = tokio::task::spawn_blocking(looking).await;
        looked.unwrap_or_else(|error| Err(unreadable(&error)))
    }

    /// Looks at the toolchain alone.
    pub(crate) async fn toolchain(environment: &Environment) -> Result<Toolchain, Failure> {
        let (cache, folder, variables) = (environment.cache()?, environment.folder.clone(), passed(environment));
        let looked = tokio::task::spawn_blocking(move || find(&cache, &folder, &variables)).await;
        looked.unwrap_or_else(|error| Err(unreadable(&error)))
    }

    /// What a job needs to see of the machine.
    pub(crate) fn resources(&self) -> JobOptions {
        let local = |name: &str, path: &Path, content| {
            (name.to_owned(), LocalDir { path: path.to_owned(), admits: Arc::new(|_, _| true), content: Some(content) })
        };
        let mut locals = BTreeMap::from([local(vendor::FOLDER, &self.crates.dir, self.crates.root)]);
        locals.extend(self.zones.as_ref().map(|zones| local(ZONES_LOCAL, &zones.path, zones.digest)));
        JobOptions {
            host_trees: BTreeMap::from([(host::LOCAL.to_owned(), self.toolchain.tree.clone())]),
            locals,
            ..JobOptions::default()
        }
    }

    /// What a record says of the machine.
    pub(crate) fn materials(&self) -> BTreeMap<String, Material> {
        let material = |name: &str, version: Option<&str>, digest: Digest| {
            (name.to_owned(), Material { version: version.map(str::to_owned), digest: digest.to_string() })
        };
        let mut materials = BTreeMap::from([
            material("toolchain", Some(&self.toolchain.version), self.toolchain.tree.digest),
            material("crates", None, self.crates.root),
        ]);
        materials.extend(self.certificates.as_ref().map(|found| material("certificates", None, Digest::of(&found.data))));
        materials.extend(self.zones.as_ref().map(|zones| material("timeZones", None, zones.digest)));
        materials
    }

    /// Plans a release on the machine.
    pub(crate) fn plan(&self, project: &Project, release: &Release, runtime: Option<&BaseImage>) -> Result<Plan, Failure> {
        let (certificates, zones) = (self.certificates.as_ref(), self.zones.as_ref());
        let host = Host { toolchain: &self.toolchain, crates: &self.crates, certificates, zones };
        Ok(plan_on_host(project, release, &host, runtime)?)
    }
}

fn passed(environment: &Environment) -> BTreeMap<String, String> {
    PASSED.iter().filter_map(|&name| Some((name.to_owned(), environment.variable(name)?.to_owned()))).collect()
}

fn unreadable(error: &tokio::task::JoinError) -> Failure {
    Failure::say(Exit::Resource, format!("the toolchain could not be read: {error}"))
}

fn find(cache: &Path, project: &Path, variables: &BTreeMap<String, String>) -> Result<Toolchain, Failure> {
    fs::create_dir_all(cache).map_err(|error| crate::error::cache(cache, error))?;
    let work =
        tempfile::tempdir().map_err(|error| Failure::say(Exit::Resource, format!("no temporary folder can be made: {error}")))?;
    let digests = cache.join("toolchain.json");
    let empty = String::new();
    let places = Places {
        path: OsStr::new(variables.get("PATH").unwrap_or(&empty)),
        project,
        work: work.path(),
        cache: Some(&digests),
        now: SystemTime::now(),
    };
    Ok(host::find(&places, &mut |program, args, folder| run(program, args, folder, variables))?)
}

fn run(program: &Path, args: &[&OsStr], folder: &Path, variables: &BTreeMap<String, String>) -> Result<Said, String> {
    let mut command = std::process::Command::new(program);
    command.args(args).current_dir(folder).env_clear().envs(variables).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(Said { stdout: output.stdout, stderr: output.stderr });
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", output.status, said.trim()))
}

/// Finds the crates in the cache, or has cargo fetch them, from what it has itself where `offline`
/// says so.
fn crates(cache: &Path, narrate: bool, offline: bool) -> Result<Vendored, Failure> {
    let place = cache.join("crates").join(vendor::key().hex());
    if let Some(known) = known(&place) {
        return Ok(known);
    }
    if narrate {
        note("fetching the service's crates with cargo");
    }
    let unwritable = |error| crate::error::cache(&place, error);
    let above = cache.join("crates");
    fs::create_dir_all(&above).map_err(unwritable)?;
    let work = tempfile::Builder::new().prefix(".new-").tempdir_in(&above).map_err(unwritable)?;
    let fetched = prepare::fetch_into(work.path(), offline)?;
    let about = format!("{} {} {}\n", fetched.root, fetched.files, fetched.size_bytes);
    fs::write(work.path().join("about"), about).map_err(unwritable)?;
    match fs::rename(work.path(), &place) {
        Ok(()) => drop(work.keep()),
        // Another process was faster.
        Err(_) if known(&place).is_some() => {}
        Err(error) => return Err(unwritable(error)),
    }
    known(&place).ok_or_else(|| Failure::say(Exit::Integrity, format!("{} is not what was written there", place.display())))
}

fn known(place: &Path) -> Option<Vendored> {
    let about = fs::read_to_string(place.join("about")).ok()?;
    let mut words = about.split_whitespace();
    let root: Digest = words.next()?.parse().ok()?;
    let (files, size_bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let dir: PathBuf = place.join(vendor::FOLDER);
    dir.is_dir().then_some(Vendored { dir, root, files, size_bytes })
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        let exit = match &error {
            HostError::File { source, .. } if crate::error::exhausted(source) => Exit::Resource,
            _ => Exit::Configuration,
        };
        let failure = Self::new(exit, &error);
        error.hints().into_iter().fold(failure, Self::hint)
    }
}
