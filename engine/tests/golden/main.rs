//! Definitions recorded from BuildKit's own Go client (`tests/golden`) against our encoder.
//!
//! 1. What is decoded and encoded again is the recorded bytes.
//! 2. What is built with this crate, from the Go expression in `NAME.txt`, is the recorded bytes:
//!    one function per graph, named as the graph, with its vertices in the recorded order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exec;
mod file;
mod metadata;
mod mount;
mod shape;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use roche_engine::op::{Edge, Exec, Metadata, Op, OpKind, Platform, Source};
use roche_engine::{Definition, Digest, Graph};

/// Recorded graphs that no function builds, and why.
const NOT_BUILT: &[(&str, &str)] = &[("scratch", "Go writes no bytes for an empty tree; a target names a vertex here")];

/// Builds a recorded graph and returns its target.
type Build = fn(&mut Sketch) -> Edge;

/// A recorded graph's name and the function that builds it.
type Case = (&'static str, Build);

/// Lists functions as [`Case`]s.
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        pub(crate) const CASES: &[$crate::Case] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use cases;

/// A graph in the making, for `linux/amd64` where the Go client sets a platform.
#[derive(Default)]
struct Sketch(Graph);

impl Sketch {
    fn add(&mut self, op: impl Into<Op>) -> Digest {
        self.with(op, Metadata::default())
    }

    fn with(&mut self, op: impl Into<Op>, metadata: Metadata) -> Digest {
        self.0.add(op, metadata).unwrap()
    }

    /// Docker Hub's official image `name`, as the Go client completes the name.
    fn image(&mut self, name: &str) -> Digest {
        self.add(image(name))
    }

    fn run(&mut self, exec: Exec) -> Digest {
        self.add(amd64(exec.ordered()))
    }
}

fn amd64(kind: impl Into<OpKind>) -> Op {
    Op::on(Platform::new("linux", "amd64"), kind)
}

fn image(name: &str) -> Op {
    amd64(Source::image(&format!("docker.io/library/{name}:latest")))
}

/// Runs one argument in `/`, as most of the recorded execs do.
fn exec(root: Digest, arg: &str) -> Exec {
    Exec::new(root, "/", &[arg])
}

/// Metadata of a vertex that asks for a capability beside those of its op.
fn needs(cap: &'static str) -> Metadata {
    Metadata { caps: vec![cap.into()], ..Metadata::default() }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

/// Every recorded definition, by name.
fn recorded() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    all.sort();
    assert!(all.len() > 100, "{} recorded definitions", all.len());
    all
}

/// Every function that builds a recorded graph, by the graph's name.
fn built() -> Vec<(String, Build)> {
    let lists = [exec::CASES, file::CASES, metadata::CASES, mount::CASES, shape::CASES, source::CASES];
    lists.into_iter().flatten().map(|&(name, build)| (name.replace('_', "-"), build)).collect()
}

#[test]
fn what_go_wrote_is_what_we_write_after_decoding_it() {
    let mut failed = Vec::new();
    for (name, bytes) in recorded().into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let read = Definition::decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut graph = Graph::new();
        for vertex in read.vertices() {
            let digest = graph.add(vertex.op.clone(), vertex.metadata.clone()).unwrap();
            assert_eq!(graph.vertex(digest).unwrap().encoded, vertex.encoded, "{name}: {:?}", vertex.op);
        }
        if graph.definition(read.target()).encode() != bytes {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn what_go_wrote_is_what_our_expression_builds() {
    let mut failed = Vec::new();
    for (name, build) in built() {
        let mut sketch = Sketch::default();
        let target = build(&mut sketch);
        let ours = sketch.0.definition(target);
        let bytes = std::fs::read(folder().join(format!("{name}.pb"))).unwrap_or_else(|error| panic!("{name}: {error}"));
        if ours.encode() != bytes {
            let theirs = Definition::decode(&bytes).unwrap();
            let other = theirs.vertices().zip(ours.vertices()).find(|(theirs, ours)| theirs != ours);
            let shown = other.map(|(theirs, ours)| {
                format!("recorded {:?} {:?}\nbuilt {:?} {:?}", theirs.op, theirs.metadata, ours.op, ours.metadata)
            });
            failed.push(format!("{name}: {}\n", shown.unwrap_or_default()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_recorded_graph_is_built_once_or_says_why_not() {
    let names: Vec<String> = built().into_iter().map(|(name, _)| name).collect();
    let mut accounted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(accounted.len(), names.len(), "a graph is built twice");
    for (name, reason) in NOT_BUILT {
        assert!(accounted.insert(name), "{name} is built, and should not be: {reason}");
    }
    let recorded = recorded();
    assert_eq!(accounted, recorded.iter().map(|(name, _)| name.as_str()).collect());
}
