//! A content-addressed build graph, its LLB encoding, and solvers for it.
//!
//! How a graph becomes a result:
//!
//! 1. Ops ([`op`]) are plain data; [`Graph::add`] turns one into a [`Vertex`] named by the sha256
//!    of its encoding ([`llb`]).
//! 2. [`Graph::definition`] cuts out what a target needs: a [`Definition`], the unit that solvers
//!    take.
//! 3. A [`Solver`](solver::Solver) opens a [`Job`](solver::Job), which resolves images, solves
//!    definitions and exports a result; [`buildkit`] drives BuildKit daemons.
//!    [`Solver::forecast`](solver::Solver::forecast) says beforehand what would run ([`forecast`]).
//! 4. While it works it sends [`Progress`](solver::Progress): BuildKit's status deltas.
//!
//! # Words
//!
//! They are BuildKit's (`docs/dev/README.md` there).
//!
//! | word | meaning |
//! |---|---|
//! | op | what a vertex does: source, exec, file, merge, diff, build |
//! | vertex | an op in a graph, named by its digest |
//! | edge | one output of one vertex |
//! | digest | the sha256 of content |
//! | definition | a target edge with every vertex that it needs, as bytes |
//! | source | content that enters the graph: an image, a local folder, a git remote, a file |
//! | mount | a place in an exec's file tree |
//! | solver | what turns a definition into a result |
//! | job | one build on a solver |
//! | session | the services that a client offers a daemon during a job |
//! | exporter | what turns a result into an image, an archive or files |
//! | frontend | what turns a user's project into a definition |

pub mod buildkit;
pub mod digest;
mod error;
pub mod forecast;
mod graph;
pub mod llb;
#[cfg(target_os = "linux")]
pub mod local;
pub mod oci;
pub mod op;
pub mod solver;
pub mod text;

pub use digest::Digest;
pub use error::Error;
pub use graph::{Definition, Graph, GraphError, Vertex};
