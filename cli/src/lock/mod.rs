//! `roche lock`, and what a release takes from `roche.lock`: the digests of its base images.
//!
//! Invariant: an image that is in the lock is the locked one, whatever its tag says now; only
//! `roche lock` writes the file, whole or not at all.
//!
//! | | locked | not locked |
//! |---|---|---|
//! | no flag | the locked one | asked for |
//! | `--locked` | the locked one | refused |
//! | `--offline` | the locked one, no registry is asked | refused; unresolved in a dry run |

mod file;

use std::collections::BTreeSet;
use std::time::Duration;

use roche_engine::op::Platform;
use roche_engine::solver::{Job, ResolveMode};
use roche_frontend::Flags;
use roche_frontend::plan::BaseImage;
use roche_frontend::project::Project;
use roche_frontend::release::{self, Image};
use serde_json::Value;

use crate::args::{LockArgs, PinArgs, SolveArgs};
use crate::bases::{self, Absent, Bases};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{backend, files, note};
pub(crate) use file::{Lock, Locked};

/// How long a registry has to answer.
const REGISTRY: Duration = Duration::from_secs(60);

/// The file's name, in the project's folder.
pub(crate) const FILE: &str = "roche.lock";

/// What is to be done about an image that is not locked.
pub(crate) const HINT: &str = "roche lock, with the same -b, -r and --platform";

/// What the lock and the flags about it mean for a release.
pub(crate) struct Pins {
    lock: Lock,
    locked: bool,
    /// Whether no registry may be asked.
    pub(crate) offline: bool,
}

impl Pins {
    /// Reads the project's lock.
    pub(crate) fn read(project: &Project, args: &PinArgs) -> Result<Self, Failure> {
        let lock = Lock::read(&project.root.join(FILE))?;
        Ok(Self { lock, locked: args.locked || args.frozen, offline: args.offline || args.frozen })
    }

    /// Locks what was found for as long as this is kept, so that a tag that moves is the same image.
    pub(crate) fn keep(&mut self, bases: &[BaseImage], platform: &Platform) {
        for base in bases {
            let (reference, platform) = (base.reference.to_string(), platform.to_string());
            if let (Some(digest), None) = (base.digest, self.lock.find(&reference, &platform)) {
                let config = String::from_utf8_lossy(&base.config).into_owned();
                self.lock.put(reference, platform, Locked { digest, config });
            }
        }
    }

    /// Returns the locked image. Where there is none and `--locked` says that there must be, that is
    /// refused.
    pub(crate) fn pinned(&self, image: &Image, platform: &Platform) -> Result<Option<BaseImage>, Failure> {
        let name = image.reference.familiar();
        match self.lock.find(&image.reference.to_string(), &platform.to_string()) {
            Some(Locked { digest, config }) => {
                let (reference, digest, config) = (image.reference.clone(), Some(*digest), config.clone().into_bytes());
                Ok(Some(BaseImage { reference, digest, config }))
            }
            None if self.locked => Err(Failure::say(
                Exit::Configuration,
                format!("{FILE} has no {name} for {platform}, and --locked lets nothing be added to it"),
            )
            .hint(HINT)),
            None => Ok(None),
        }
    }

    /// Finds an image for a release: the locked one, whose config has to be what the lock says, or
    /// the one that the solver knows.
    pub(crate) async fn base(
        &self,
        job: &dyn Job,
        image: &Image,
        platform: &Platform,
        mode: ResolveMode,
    ) -> Result<BaseImage, Failure> {
        let Some(base) = self.pinned(image, platform)? else {
            if self.offline {
                let name = image.reference.familiar();
                return Err(Failure::say(
                    Exit::Configuration,
                    format!("{FILE} has no {name} for {platform}, and --offline asks no registry for it"),
                )
                .hint(HINT));
            }
            return crate::release::base(job, image, platform, mode).await;
        };
        if self.offline {
            return Ok(base);
        }
        let pinned = Image { reference: base.pinned(), origin: image.origin.clone() };
        let found = crate::release::base(job, &pinned, platform, ResolveMode::Default).await?;
        if stated(&found.config) != stated(&base.config) {
            let name = image.reference.familiar();
            return Err(
                Failure::say(Exit::Integrity, format!("{name} has another config than {FILE} says")).hint("roche lock --update")
            );
        }
        Ok(base)
    }
}

/// Reads what a config states, without what a release's image does not take over.
fn stated(config: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(config).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        for gone in ["rootfs", "container", "container_config", "id", "parent"] {
            map.remove(gone);
        }
    }
    value
}

/// Writes the lock.
pub(crate) async fn run(args: &LockArgs, environment: &Environment) -> Result<(), Failure> {
    let solve = SolveArgs { addr: args.addr.clone(), builder: args.builder.clone(), ..SolveArgs::default() };
    let project = Project::read(&environment.folder)?;
    let backend = backend::find(&solve, false, environment);
    let embedded = backend.as_ref().is_ok_and(|backend| backend.embedded);
    let release = release::resolve(&flags(args), &environment.variables, embedded, &project, &|| Ok(Vec::new()))?;
    let path = project.root.join(FILE);
    let old = Lock::read(&path)?;
    let platforms: BTreeSet<Platform> = match args.update {
        true => old.platforms().into_iter().chain([release.platform.clone()]).collect(),
        false => BTreeSet::from([release.platform.clone()]),
    };
    let mut new = if args.update { Lock::default() } else { old.clone() };
    let mut found = BTreeSet::new();
    // Another one's image of that name would be locked.
    let backend = Absent::Fails.reachable(backend)?;
    let bases = Bases::open(backend.as_ref(), environment, Absent::Fails).await?;
    for platform in &platforms {
        for image in bases::build(&release).into_iter().chain(bases::runtime(&release)) {
            let (reference, shown) = (image.reference.to_string(), platform.to_string());
            let locked = match new.find(&reference, &shown) {
                Some(locked) => locked.clone(),
                None => ask(&bases, image, platform, args.update).await?,
            };
            found.insert(format!("{reference}@{}", locked.digest));
            match old.find(&reference, &shown) {
                Some(before) if before.digest == locked.digest => {}
                Some(before) => {
                    note(&format!("{reference} for {shown} moves from {} to {}", before.digest.short(), locked.digest.short()))
                }
                None => note(&format!("{reference} for {shown} is locked to {}", locked.digest.short())),
            }
            new.put(reference, shown, locked);
        }
    }
    bases.end().await;
    if new != old || !path.exists() {
        files::replace(&path, new.text().as_bytes())?;
    }
    let lines: String = found.iter().map(|line| format!("{line}\n")).collect();
    crate::write_stdout(lines.as_bytes())
}

/// What the command line says of the release. A lock knows no names, and one has to be there.
fn flags(args: &LockArgs) -> Flags {
    Flags {
        build_image: args.buildimage.clone(),
        runtime: args.runtime.clone(),
        platform: args.platform.clone(),
        tags: vec!["locked".to_owned()],
        ..Flags::default()
    }
}

/// Asks for an image that is to be locked.
async fn ask(bases: &Bases<'_>, image: &Image, platform: &Platform, update: bool) -> Result<Locked, Failure> {
    let mode = if update { ResolveMode::Pull } else { ResolveMode::Default };
    let found = bases.find(image, platform, mode, REGISTRY).await;
    let base = found.map_err(|error| crate::release::image_failure(error, image))?;
    let name = image.reference.familiar();
    let digest = base.digest.ok_or_else(|| {
        Failure::say(Exit::Registry, format!("{name} has no digest: only the daemon's own store has it"))
            .hint(format!("push it to a registry: docker push {name}"))
    })?;
    Ok(Locked { digest, config: stated(&base.config).to_string() })
}
