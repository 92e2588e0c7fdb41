//! Runs the vertices of definitions: each once, as soon as its inputs are there, side by side.
//!
//! Invariant: within one job a vertex runs once however many definitions hold it, unless it failed;
//! the first failure ends everything that the job runs, at once, and is what its caller is told.
//! Nothing here recurses, so the depth of a graph is no limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::report::{Report, Reporter};
use super::result::Ref;
use crate::op::Edge;
use crate::{Definition, Digest, Error, Vertex};

/// The outputs of a vertex by their index.
pub(super) type Outputs = BTreeMap<u32, Ref>;

/// What a vertex came to.
pub(super) struct Operated {
    pub(super) outputs: Outputs,
    /// Whether nothing had to run for it.
    pub(super) cached: bool,
}

/// Does what one vertex asks for.
#[async_trait]
pub(super) trait Operate: Send + Sync + 'static {
    /// `inputs` are those of [`crate::op::OpKind::inputs`], in their order.
    async fn operate(&self, vertex: &Vertex, inputs: &[Ref], report: &Report) -> Result<Operated, Error>;
}

/// The vertices of one job.
pub(super) struct Scheduler<O> {
    operator: Arc<O>,
    reporter: Reporter,
    state: Mutex<State>,
    failure: Arc<Failure>,
}

#[derive(Default)]
struct State {
    vertices: HashMap<Digest, watch::Receiver<Progressed>>,
    tasks: JoinSet<()>,
}

/// How far a vertex is.
#[derive(Clone)]
enum Progressed {
    Running,
    Done(Arc<Outputs>),
    /// It failed, or what it stands on did; the job's [`Failure`] says why.
    Failed,
}

/// The first failure of a job, until somebody is told of it.
#[derive(Default)]
struct Failure {
    error: Mutex<Option<Error>>,
    happened: Notify,
}

impl Failure {
    /// Keeps the first failure; what follows from it is not of interest.
    fn set(&self, error: Error) {
        self.cell().get_or_insert(error);
        self.happened.notify_one();
    }

    /// Waits for a failure that nobody was told of.
    async fn next(&self) -> Error {
        loop {
            if let Some(error) = self.take() {
                return error;
            }
            self.happened.notified().await;
        }
    }

    fn take(&self) -> Option<Error> {
        self.cell().take()
    }

    fn cell(&self) -> MutexGuard<'_, Option<Error>> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O: Operate> Scheduler<O> {
    pub(super) fn new(operator: Arc<O>, reporter: Reporter) -> Self {
        Self { operator, reporter, state: Mutex::default(), failure: Arc::default() }
    }

    /// Solves a definition and returns the result at its target.
    pub(super) async fn solve(&self, definition: &Definition) -> Result<Ref, Error> {
        let fresh = self.start(definition);
        self.reporter.announce(&fresh).await;
        let target = definition.target();
        let solved = tokio::select! {
            // Not what waits for it: that may be behind something that takes long.
            error = self.failure.next() => Err(error),
            outputs = self.wait(target.vertex) => match outputs {
                Some(outputs) => return output(&outputs, target),
                // Another solve of the job was told why, or the job was cancelled.
                None => Err(self.failure.take().unwrap_or(Error::Cancelled)),
            },
        };
        self.stop().await;
        solved
    }

    /// Ends everything that runs and waits until it has let go.
    pub(super) async fn stop(&self) {
        self.take().shutdown().await;
    }

    /// Takes all that runs; nobody is told of its end any more.
    pub(super) fn take(&self) -> JoinSet<()> {
        let mut state = self.lock();
        state.vertices.clear();
        std::mem::take(&mut state.tasks)
    }

    /// Starts the vertices that are not known yet and returns them.
    fn start(&self, definition: &Definition) -> Vec<Arc<Vertex>> {
        let mut state = self.lock();
        let mut fresh = Vec::new();
        for vertex in definition.shared_vertices() {
            if state.vertices.contains_key(&vertex.digest) {
                continue;
            }
            let inputs: Vec<_> =
                vertex.op.kind.inputs().into_iter().map(|edge| (edge, state.vertices[&edge.vertex].clone())).collect();
            let (tell, progressed) = watch::channel(Progressed::Running);
            state.vertices.insert(vertex.digest, progressed);
            state.tasks.spawn(run(
                Arc::clone(&self.operator),
                self.reporter.clone(),
                Arc::clone(vertex),
                inputs,
                tell,
                Arc::clone(&self.failure),
            ));
            fresh.push(Arc::clone(vertex));
        }
        fresh
    }

    async fn wait(&self, vertex: Digest) -> Option<Arc<Outputs>> {
        let progressed = self.lock().vertices.get(&vertex).cloned()?;
        ended(progressed).await
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the inputs of a vertex, has it done and tells how it went.
async fn run<O: Operate>(
    operator: Arc<O>,
    reporter: Reporter,
    vertex: Arc<Vertex>,
    inputs: Vec<(Edge, watch::Receiver<Progressed>)>,
    tell: watch::Sender<Progressed>,
    failure: Arc<Failure>,
) {
    let mut refs = Vec::with_capacity(inputs.len());
    for (edge, progressed) in inputs {
        let Some(outputs) = ended(progressed).await else {
            tell.send_replace(Progressed::Failed);
            return;
        };
        match output(&outputs, edge) {
            Ok(snapshot) => refs.push(snapshot),
            Err(error) => return fail(&tell, &failure, error),
        }
    }
    let report = reporter.start(&vertex).await;
    match operator.operate(&vertex, &refs, &report).await {
        Ok(operated) => {
            report.completed(operated.cached).await;
            tell.send_replace(Progressed::Done(Arc::new(operated.outputs)));
        }
        Err(error) => {
            report.failed(&error).await;
            fail(&tell, &failure, error);
        }
    }
}

fn fail(tell: &watch::Sender<Progressed>, failure: &Failure, error: Error) {
    failure.set(error);
    tell.send_replace(Progressed::Failed);
}

/// Waits for a vertex; nothing where it failed or was cancelled (its sender is gone without a word).
async fn ended(mut progressed: watch::Receiver<Progressed>) -> Option<Arc<Outputs>> {
    match &*progressed.wait_for(|state| !matches!(state, Progressed::Running)).await.ok()? {
        Progressed::Done(outputs) => Some(Arc::clone(outputs)),
        Progressed::Failed | Progressed::Running => None,
    }
}

fn output(outputs: &Outputs, edge: Edge) -> Result<Ref, Error> {
    let missing = || Error::Integrity(format!("{} has no output {}", edge.vertex, edge.output));
    outputs.get(&edge.output).cloned().ok_or_else(missing)
}

#[cfg(test)]
mod tests;
