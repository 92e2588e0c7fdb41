//! What the tests are written with.
//!
//! - [`Daemon`]: a real dockerd, and questions about its images and containers.
//! - [`Roche`]: one call of the program, hermetic; [`Ended`] is what came of it.
//! - [`Project`]: a function project in a folder of its own.
//! - [`PrivateRegistry`]: a registry that asks for a password.
//! - [`Tar`] and what stands beside it: images made by hand.
//! - [`Tunnel`]: a proxy in front of a registry.
//! - [`Proxy`]: stands between the program and a daemon, and breaks things.
//! - [`Trace`]: progress in the rawjson form, read back.
//! - [`OwnRegistry`]: a registry in the test itself, which counts.
//! - [`Site`]: a project, images and a cache for releases by the embedded engine.
//! - [`Campaign`]: many cells of one kind, drawn from a seed.
//! - [`Browser`]: a page in a browser without a window.
//! - [`against_schema`]: what a validator says of a document.
//!
//! A test that needs a daemon is a function of `&Daemon` and one macro line:
//!
//! ```ignore
//! on_every_daemon!(an_edit_is_served);
//! fn an_edit_is_served(daemon: &Daemon) {
//!     let project = Project::hello("first");
//!     let tag = daemon.tag();
//!     Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
//!     assert_eq!(daemon.serve(&tag.name, &[]).get("/").body, "first");
//! }
//! ```
//!
//! It then runs as `theme::an_edit_is_served::docker20` and `…::docker26`.

mod archive;
mod browser;
mod build_image;
mod campaign;
mod container;
mod daemon;
mod ended;
mod files;
mod http;
mod own_registry;
mod private_registry;
mod process;
mod project;
mod proxy;
mod remains;
mod roche;
mod schema;
mod site;
mod trace;
mod tunnel;

pub(crate) use archive::{Tar, config, docker_archive, head, layout, list_of_crates, program, summed};
pub(crate) use browser::Browser;
pub(crate) use build_image::{Sleeping, dated_2100, with_cargo};
pub(crate) use campaign::{Campaign, Random, cells};
pub(crate) use container::Container;
pub(crate) use daemon::{Daemon, Tag, count, image, registry};
pub(crate) use ended::Ended;
pub(crate) use files::{Entry, contains, files};
pub(crate) use http::request;
pub(crate) use own_registry::{OwnRegistry, busybox, layer};
pub(crate) use private_registry::PrivateRegistry;
pub(crate) use process::{mebibytes, processes};
pub(crate) use project::{Project, fixture, unique};
pub(crate) use proxy::{Fault, Proxy};
pub(crate) use remains::all_in;
pub(crate) use roche::{Roche, Running, copy_program};
pub(crate) use schema::against_schema;
pub(crate) use site::{Site, Stand, tools};
pub(crate) use trace::Trace;
pub(crate) use tunnel::Tunnel;

/// Makes `#[test]`s of a function of `&Daemon`: one for each daemon that tests run on.
macro_rules! on_every_daemon {
    ($name:ident) => {
        mod $name {
            #[test]
            fn docker20() {
                crate::harness::Daemon::docker20().test(concat!(module_path!(), "::docker20"), super::$name);
            }
            #[test]
            fn docker26() {
                crate::harness::Daemon::docker26().test(concat!(module_path!(), "::docker26"), super::$name);
            }
        }
    };
}

/// The same for what only a daemon with the containerd image store can do.
macro_rules! on_docker26 {
    ($name:ident) => {
        mod $name {
            #[test]
            fn docker26() {
                crate::harness::Daemon::docker26().test(concat!(module_path!(), "::docker26"), super::$name);
            }
        }
    };
}

/// The same for what only the old daemon does.
macro_rules! on_docker20 {
    ($name:ident) => {
        mod $name {
            #[test]
            fn docker20() {
                crate::harness::Daemon::docker20().test(concat!(module_path!(), "::docker20"), super::$name);
            }
        }
    };
}

pub(crate) use {on_docker20, on_docker26, on_every_daemon};
