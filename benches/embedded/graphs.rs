//! The graphs that the solvers are given, as files of LLB.
//!
//! Invariant: a graph that is to be solved anew says so in its ops, so no solver has met it before.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use roche_engine::op::{Copy, Edge, Exec, File, FileActionKind, FileInput, Metadata, Mount, Op, Platform, Source};
use roche_engine::{Digest, Graph};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A graph that is put together over an image.
pub(crate) struct Steps {
    graph: Graph,
    image: Edge,
}

impl Steps {
    /// Starts with the image's tree.
    pub(crate) fn on(image: &str) -> Self {
        let mut graph = Graph::new();
        let image = add(&mut graph, Op::on(platform(), Source::image(image))).into();
        Self { graph, image }
    }

    /// The image alone.
    pub(crate) fn image(self, folder: &Path) -> PathBuf {
        let image = self.image;
        self.write(folder, image)
    }

    /// A step for each of `count`, over the one before it.
    pub(crate) fn chain(mut self, folder: &Path, count: usize) -> PathBuf {
        let unique = unique();
        let mut last = self.image;
        for number in 0..count {
            let step = Exec::new(last, "/", &["/bin/true", &unique, &number.to_string()]);
            last = add(&mut self.graph, Op::on(platform(), step)).into();
        }
        self.write(folder, last)
    }

    /// `count` steps over the image, and one that has all their trees mounted.
    pub(crate) fn wide(mut self, folder: &Path, count: usize) -> PathBuf {
        let unique = unique();
        let mut all = Exec::new(self.image, "/", &["/bin/true", &unique]);
        for number in 0..count {
            let step = Exec::new(self.image, "/", &["/bin/true", &unique, &number.to_string()]);
            let step = add(&mut self.graph, Op::on(platform(), step));
            all = all.mount(Mount::readonly(&format!("/mnt/{number:03}"), step));
        }
        let all = add(&mut self.graph, Op::on(platform(), all.ordered())).into();
        self.write(folder, all)
    }

    /// A layer on nothing that holds what the image has at `path`.
    pub(crate) fn copied(mut self, folder: &Path, path: &str) -> PathBuf {
        let copy = Copy::new(FileInput::Edge(self.image), path, "/");
        let file = File::chain(None, [FileActionKind::Copy(copy)]);
        let copied = add(&mut self.graph, Op::on(platform(), file)).into();
        self.write(folder, copied)
    }

    /// A layer on nothing that holds what `script` puts into /out.
    pub(crate) fn made(mut self, folder: &Path, script: &str) -> PathBuf {
        let step = Exec::new(self.image, "/", &["/bin/sh", "-ec", script, &unique()]);
        let step = step.readonly_root().mount(Mount::bind("/out", None));
        let made = add(&mut self.graph, Op::on(platform(), step)).into();
        self.write(folder, made)
    }

    fn write(self, folder: &Path, target: Edge) -> PathBuf {
        let path = folder.join(format!("{}.llb", MADE.fetch_add(1, Ordering::Relaxed)));
        fs::write(&path, self.graph.definition(target).encode()).expect("the graph can be written");
        path
    }
}

fn add(graph: &mut Graph, op: Op) -> Digest {
    graph.add(op, Metadata::default()).expect("the op is complete and its inputs are in the graph")
}

fn platform() -> Platform {
    Platform::new("linux", "amd64")
}

/// A word that no other graph has, of this run or another.
fn unique() -> String {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    format!("{}-{}", since.as_nanos(), MADE.load(Ordering::Relaxed))
}
