//! Turns a Rust function project into a build graph.
//!
//! How a folder becomes a plan:
//!
//! 1. [`Project::read`] finds the function file, reads it and what belongs to it, once.
//! 2. [`release::resolve`] decides every parameter ([`Release`]) out of flags, environment,
//!    `.rocherc` and defaults.
//! 3. The caller looks the base images up ([`BaseImage`]); this crate opens no socket.
//! 4. [`plan`](plan::plan) grows the [`Graph`](roche_engine::Graph) stage by stage: the builder
//!    (build image, function, compile, test) and the runtime (runtime image, what it lacks, the
//!    image's files), and writes the image config beside it ([`Plan`]).
//!
//! Everything after step 1 is pure. [`prepare`] does the same for build images, whose crates
//! [`vendor`](vendor::vendor) brings together with the user's cargo. [`host`] finds this machine's
//! own toolchain, for releases that need no build image ([`plan_on_host`](plan::plan_on_host)).
//! [`crates`] reads what a released program was made of.

pub mod crates;
pub mod host;
pub mod plan;
pub mod prepare;
pub mod project;
pub mod release;
mod shown;
mod stage;
pub mod template;
pub mod vendor;

pub use plan::{BaseImage, Plan, PlanError};
pub use project::{Project, ProjectError, SourceFile};
pub use release::{Flags, Release, ReleaseError};
