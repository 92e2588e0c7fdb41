//! A machine that is no Linux: no release can be compiled by its own toolchain, because the steps
//! of such a release run on the embedded engine alone.
//!
//! Invariant: there is no [`Machine`], so nothing that needs one can be reached.

use std::collections::BTreeMap;

use roche_engine::solver::JobOptions;
use roche_frontend::plan::{BaseImage, Plan};
use roche_frontend::project::Project;
use roche_frontend::release::Release;

use crate::document::Material;
use crate::environment::Environment;
use crate::error::{Exit, Failure};

/// A toolchain that steps can use; there is none.
pub(crate) enum Machine {}

impl Machine {
    /// Refuses to compile here.
    pub(crate) async fn look(_: bool, _: &Environment, _: bool, _: bool) -> Result<Self, Failure> {
        Err(Failure::say(Exit::Usage, "-b host compiles with the embedded engine, which needs Linux")
            .hint("name a build image, and a daemon that has it: roche release -b IMAGE --addr tcp://HOST:PORT"))
    }

    /// What a job needs to see of the machine.
    pub(crate) fn resources(&self) -> JobOptions {
        match *self {}
    }

    /// What a record says of the machine.
    pub(crate) fn materials(&self) -> BTreeMap<String, Material> {
        match *self {}
    }

    /// Plans a release on the machine.
    pub(crate) fn plan(&self, _: &Project, _: &Release, _: Option<&BaseImage>) -> Result<Plan, Failure> {
        match *self {}
    }
}
