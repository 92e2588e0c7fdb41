//! What does a plan cost to show?
//!
//! - a whole `roche release --dry-run` of a function whose images are locked, as a process; its
//!   registry is not there, so that one that is asked after all would show;
//! - the document of a release with 10,000 more vertices, from the graph to JSON and to a page.
//!
//! Medians of [`RUNS`]. Needs nothing: `cargo bench -p roche --bench plan`.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![allow(dead_code, unused_imports, reason = "the program's own modules, of which a part is measured")]

#[path = "../cli/src/document/mod.rs"]
mod document;
#[path = "../cli/src/dry_run/html/mod.rs"]
mod html;
#[path = "../cli/src/text.rs"]
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use document::{Document, Subject};
use roche_engine::Digest;
use roche_engine::op::{Edge, Exec, Merge, Metadata, Op, Platform};
use roche_frontend::plan::{BaseImage, Plan};
use roche_frontend::release::{Flags, Release, host_platform};
use roche_frontend::{Project, plan, release};

/// Runs that are counted; one before them is not.
const RUNS: usize = 15;

const VERTICES: usize = 10_000;

/// An image's config.
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"]}}"#;

fn main() {
    let folder = tempfile::tempdir().expect("a folder is made");
    fs::write(folder.path().join("functions.rs"), "pub fn handler() -> tide::Server<()> { tide::new() }\n")
        .expect("it is written");
    lock(folder.path());
    println!("{:<44}{:>12}{:>12}", "", "median ms", "size kB");
    for form in ["text", "json", "html", "llb"] {
        let run = || {
            let mut roche = Command::new(env!("CARGO_BIN_EXE_roche"));
            roche.args(["release", "-b", "127.0.0.1:1/b:1", "-r", "127.0.0.1:1/r:1", "-t", "a:1", "--frozen"]);
            roche.arg(format!("--dry-run={form}")).current_dir(folder.path()).stdin(Stdio::null());
            let output = roche.env("DOCKER_HOST", "unix:///nonexistent").output().expect("roche runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout.len()
        };
        report(&format!("roche release --dry-run={form}, locked"), run);
    }

    let project = Project::read(folder.path()).expect("a project");
    let flags = Flags { tags: vec!["a:1".to_owned()], ..Flags::default() };
    let release = release::resolve(&flags, &BTreeMap::new(), false, &project, &|| Ok(Vec::new())).expect("a release");
    let plan = grown(&project, &release);
    let subject = || {
        let (project, release, plan, definition) = (&project, &release, &plan, plan.definition());
        Subject { project, release, plan, definition, unresolved: Vec::new(), unknown: BTreeSet::new() }
    };
    report(&format!("{VERTICES} more vertices to json"), || subject().document().json().len());
    report(&format!("{VERTICES} more vertices to html"), || html::render(&subject().document()).len());
}

fn lock(folder: &Path) {
    let mut text = "version = 1\n".to_owned();
    for image in ["b", "r"] {
        let digest = Digest::of(image.as_bytes());
        let config = serde_json::to_string(CONFIG).expect("text is JSON");
        let (name, platform) = (format!("127.0.0.1:1/{image}:1"), host_platform());
        text +=
            &format!("[[image]]\nreference = \"{name}\"\nplatform = \"{platform}\"\ndigest = \"{digest}\"\nconfig = {config}\n");
    }
    fs::write(folder.join("roche.lock"), text).expect("the lock is written");
}

/// The plan of a release with a chain and a fan of steps behind it.
fn grown(project: &Project, release: &Release) -> Plan {
    let base = |name: &str| BaseImage {
        reference: name.parse().expect("a reference"),
        digest: Some(Digest::of(name.as_bytes())),
        config: CONFIG.into(),
    };
    let mut plan = plan::plan(project, release, &base("b:1"), Some(&base("r:1"))).expect("a plan");
    let (mut last, mut arms) = (plan.target, Vec::new());
    for number in 0..VERTICES {
        let root: Edge = if number % 2 == 0 { last } else { plan.target };
        let exec = Exec::new(root, "/", &["step", &number.to_string()]);
        let op = Op::on(Platform::new("linux", "amd64"), exec);
        let vertex = plan.graph.add(op, Metadata::named(format!("step {number}"))).expect("its input is there");
        plan.stages[number % 2].vertices.push(vertex);
        if number % 2 == 0 { last = vertex.into() } else { arms.push(Edge::from(vertex)) }
    }
    arms.push(last);
    plan.target = plan.graph.add(Merge { inputs: arms }, Metadata::named("all")).expect("its inputs are there").into();
    plan
}

fn report(what: &str, run: impl Fn() -> usize) {
    let size = run();
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("{what:<44}{:>12.1}{:>12.1}", times[RUNS / 2].as_secs_f64() * 1e3, size as f64 / 1e3);
}

/// What the modules' own tests ask for.
mod dry_run {
    pub(crate) mod tests {
        use crate::document::Document;

        pub(crate) fn document(_: usize) -> Document {
            unreachable!("a bench runs no tests")
        }
    }
}
