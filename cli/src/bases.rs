//! Who knows base images before a release: the back end where one answers, else their registries.

use std::sync::Arc;
use std::time::Duration;

use roche_engine::Error;
use roche_engine::oci::registry::Registry;
use roche_engine::op::Platform;
use roche_engine::solver::{Job, JobOptions, ResolveMode, progress_channel};
use roche_frontend::plan::BaseImage;
use roche_frontend::release::{BuildImage, Image, Release, Runtime};

use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::{logins, mirrors, note};

/// An open job, or the registries.
pub(crate) struct Bases<'a> {
    job: Option<Box<dyn Job>>,
    registry: Registry,
    environment: &'a Environment,
}

impl<'a> Bases<'a> {
    /// Opens a job on the back end, if it answers.
    pub(crate) async fn open(
        backend: Result<Backend, Failure>,
        environment: &'a Environment,
        narrate: bool,
    ) -> Result<Self, Failure> {
        let credentials = Arc::new(logins::credentials(environment));
        let options = JobOptions { credentials: Some(credentials), ..JobOptions::default() };
        let (progress, _) = progress_channel(1);
        let job = match backend {
            Ok(backend) => match backend.solver.open(options, progress).await {
                Ok(job) => Some(job),
                Err(error @ Error::Connect { .. }) => {
                    if narrate {
                        note(&format!("{error}; asking the registries instead"));
                    }
                    None
                }
                Err(error) => return Err(backend.failure(error)),
            },
            Err(failure) if failure.exit == Exit::Unreachable => None,
            Err(failure) => return Err(failure),
        };
        Ok(Self { job, registry: Registry::new(&mirrors::registries(environment)?)?, environment })
    }

    /// Finds an image; a registry has this long to answer.
    pub(crate) async fn find(
        &self,
        image: &Image,
        platform: &Platform,
        mode: ResolveMode,
        within: Duration,
    ) -> Result<BaseImage, Error> {
        let found = match &self.job {
            Some(job) => job.resolve_image(&image.reference, platform, mode).await?,
            None => {
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
