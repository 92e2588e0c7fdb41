//! Who knows base images before a release: the back end where one answers, else their registries.

use std::sync::Arc;
use std::time::Duration;

use roche_engine::oci::registry::Registry;
use roche_engine::op::Platform;
use roche_engine::solver::{Job, JobOptions, ResolveMode, progress_channel};
use roche_engine::{Digest, Error};
use roche_frontend::plan::BaseImage;
use roche_frontend::release::{BuildImage, Image, Release, Runtime};

use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{logins, note, registries};

/// A daemon asks the registry on its part, and tries again.
const TURNS: u32 = 5;

/// An open job, or the registries.
pub(crate) struct Bases<'a> {
    backend: Option<&'a Backend>,
    job: Option<Box<dyn Job>>,
    registry: Registry,
    environment: &'a Environment,
}

impl<'a> Bases<'a> {
    /// Opens a job on the back end, if there is one and it answers. The embedded engine knows no more than
    /// the registries do but what is in its cache, which is looked at and left as it is.
    pub(crate) async fn open(
        backend: Option<&'a Backend>,
        environment: &'a Environment,
        absent: Absent,
    ) -> Result<Self, Failure> {
        let credentials = Arc::new(logins::credentials(environment));
        let options = JobOptions { credentials: Some(credentials), ..JobOptions::default() };
        let (progress, _) = progress_channel(1);
        let mut job = None;
        if let Some(daemon) = backend.filter(|backend| !backend.embedded) {
            match daemon.solver.open(options, progress).await {
                Ok(open) => job = Some(open),
                Err(error @ Error::Connect { .. }) => absent.take(daemon.failure(error))?,
                Err(error) => return Err(daemon.failure(error)),
            }
        }
        Ok(Self { backend, job, registry: Registry::new(&registries::options(environment)?)?, environment })
    }

    /// Returns what tells the daemon that answers from others.
    pub(crate) fn identity(&self) -> Option<Digest> {
        self.job.as_ref().map(|job| job.identity())
    }

    /// Finds an image; a registry has this long to answer, and a daemon [`TURNS`] times as long.
    pub(crate) async fn find(
        &self,
        image: &Image,
        platform: &Platform,
        mode: ResolveMode,
        within: Duration,
    ) -> Result<BaseImage, Error> {
        let known = match (&self.job, self.backend) {
            (None, Some(backend)) => backend.solver.known_image(&image.reference, platform).await?,
            _ => None,
        };
        let found = match (&self.job, known) {
            (_, Some(known)) => known,
            (Some(job), None) => {
                let within = within * TURNS;
                let asked = tokio::time::timeout(within, job.resolve_image(&image.reference, platform, mode)).await;
                asked.unwrap_or_else(|_| {
                    let reason = format!("the daemon has not resolved it within {} s", within.as_secs());
                    Err(Error::Registry { reference: image.reference.familiar(), reason, transient: true })
                })?
            }
            (None, None) => {
                let credentials = logins::credentials(self.environment);
                self.registry.resolve(&image.reference, platform, Some(&credentials), within).await?
            }
        };
        Ok(BaseImage { reference: image.reference.clone(), digest: found.digest, config: found.config })
    }

    /// Waits until the back end has let go.
    pub(crate) async fn end(self) {
        if let Some(job) = self.job {
            job.cancel().await;
        }
    }
}

/// What becomes of a back end that cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Absent {
    /// It is an error.
    Fails,
    /// The registries are asked instead, and that is said.
    IsSaid,
    /// The registries are asked instead.
    IsPassedOver,
}

impl Absent {
    fn take(self, failure: Failure) -> Result<(), Failure> {
        match self {
            Self::Fails => return Err(failure),
            Self::IsSaid => note(&format!("{}; asking the registries instead", failure.message())),
            Self::IsPassedOver => {}
        }
        Ok(())
    }

    /// Takes a back end for one that may be missing.
    pub(crate) fn reachable(self, backend: Result<Backend, Failure>) -> Result<Option<Backend>, Failure> {
        match backend {
            Err(failure) if failure.exit == Exit::Unreachable => self.take(failure).map(|()| None),
            backend => backend.map(Some),
        }
    }
}

/// Returns the image that a release compiles in, where it compiles in one.
pub(crate) fn build(release: &Release) -> Option<&Image> {
    match &release.build_image {
        BuildImage::Image(image) => Some(image),
        BuildImage::Host(_) => None,
    }
}

/// Returns the image that a release runs in, where it stands on one.
pub(crate) fn runtime(release: &Release) -> Option<&Image> {
    match &release.runtime {
        Runtime::Image(image) => Some(image),
        Runtime::Scratch(_) => None,
    }
}
