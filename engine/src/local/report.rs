//! What the embedded solver tells of its work: BuildKit's status deltas.

use std::sync::Arc;

use super::store::Clock;
use crate::op::Edge;
use crate::solver::{LogProgress, Progress, ProgressSender, StatusProgress, VertexProgress};
use crate::{Digest, Error, Vertex};

/// Sends the progress of a job.
#[derive(Clone)]
pub(super) struct Reporter {
    sender: ProgressSender,
    clock: Clock,
}

impl Reporter {
    pub(super) fn new(sender: ProgressSender, clock: Clock) -> Self {
        Self { sender, clock }
    }

    /// Names vertices that will run, or will be found in the cache.
    pub(super) async fn announce(&self, vertices: &[Arc<Vertex>]) {
        let vertices: Vec<_> = vertices.iter().map(|vertex| named(vertex)).collect();
        if !vertices.is_empty() {
            self.sender.send(Progress { vertices, ..Progress::default() }).await;
        }
    }

    /// Says that a vertex has started.
    pub(super) async fn start(&self, vertex: &Vertex) -> Report {
        self.begin(named(vertex)).await
    }

    /// Says that work has started that is no vertex of a definition: pulling, exporting.
    pub(super) async fn start_named(&self, name: &str) -> Report {
        let digest = Digest::of(name.as_bytes());
        self.begin(VertexProgress {
            digest,
            inputs: Vec::new(),
            name: name.to_owned(),
            cached: false,
            started: None,
            completed: None,
            error: String::new(),
        })
        .await
    }

    async fn begin(&self, mut vertex: VertexProgress) -> Report {
        vertex.started = Some((self.clock)());
        let report = Report { reporter: self.clone(), vertex };
        report.say(report.vertex.clone()).await;
        report
    }
}

fn named(vertex: &Vertex) -> VertexProgress {
    let mut inputs: Vec<Digest> = vertex.op.kind.inputs().iter().map(|edge: &Edge| edge.vertex).collect();
    inputs.dedup();
    VertexProgress {
        digest: vertex.digest,
        inputs,
        name: vertex.name(),
        cached: false,
        started: None,
        completed: None,
        error: String::new(),
    }
}

/// Sends the progress of one vertex.
#[derive(Clone)]
pub(super) struct Report {
    reporter: Reporter,
    vertex: VertexProgress,
}

impl Report {
    /// The vertex's name.
    pub(super) fn name(&self) -> &str {
        &self.vertex.name
    }

    /// Passes on what a process wrote; waits where the reader of progress is slow.
    pub(super) async fn log(&self, stream: i64, data: Vec<u8>) {
        let log = LogProgress { vertex: self.vertex.digest, stream, data, timestamp: Some((self.reporter.clock)()) };
        self.reporter.sender.send(Progress { logs: vec![log], ..Progress::default() }).await;
    }

    /// Says how far a part of the vertex is, in bytes; the last word says `done`.
    pub(super) async fn part(&self, id: &str, current: u64, total: u64, done: bool) {
        let now = Some((self.reporter.clock)());
        let status = StatusProgress {
            id: id.to_owned(),
            vertex: self.vertex.digest,
            name: String::new(),
            current: i64::try_from(current).unwrap_or(i64::MAX),
            total: i64::try_from(total).unwrap_or(i64::MAX),
            timestamp: now,
            started: self.vertex.started,
            completed: if done { now } else { None },
        };
        self.reporter.sender.send(Progress { statuses: vec![status], ..Progress::default() }).await;
    }

    pub(super) async fn completed(&self, cached: bool) {
        self.say(VertexProgress { cached, completed: Some((self.reporter.clock)()), ..self.vertex.clone() }).await;
    }

    pub(super) async fn failed(&self, error: &Error) {
        let vertex = self.vertex.clone();
        self.say(VertexProgress { completed: Some((self.reporter.clock)()), error: error.to_string(), ..vertex }).await;
    }

    async fn say(&self, vertex: VertexProgress) {
        self.reporter.sender.send(Progress { vertices: vec![vertex], ..Progress::default() }).await;
    }
}
