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
use crate::{logins, mirrors, note};

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
    pub(crate) async fn open(backend: Option<&'a Backend>, environment: &'a Environment, narrate: bool) -> Result<Self, Failure> {
        let credentials = Arc::new(logins::credentials(environment));
        let options = JobOptions { credentials: Some(credentials), ..JobOptions::default() };
        let (progress, _) = progress_channel(1);
        let mut job = None;
        if let Some(daemon) = backend.filter(|backend| !backend.embedded) {
            match daemon.solver.open(options, progress).await {
                Ok(open) => job = Some(open),
                Err(error @ Error::Connect { .. }) if narrate => note(&format!("{error}; asking the registries instead")),
                Err(Error::Connect { .. }) => {}
                Err(error) => return Err(daemon.failure(error)),
            }
        }
        Ok(Self { backend, job, registry: Registry::new(&mirrors::registries(environment)?)?, environment })
    }

    /// Returns what tells the daemon that answers from others.
    pub(crate) fn identity(&self) -> Option<Digest> {
        self.job.as_ref().map(|job| job.identity())
    }

    /// Finds an image; a registry has this long to answer.
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
            (Some(job), None) => job.resolve_image(&image.reference, platform, mode).await?,
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

/// Takes a back end for one that may be missing: where none is reachable, the registries are asked.
pub(crate) fn reachable(backend: Result<Backend, Failure>) -> Result<Option<Backend>, Failure> {
    match backend {
        Err(failure) if failure.exit == Exit::Unreachable => Ok(None),
        backend => backend.map(Some),
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
