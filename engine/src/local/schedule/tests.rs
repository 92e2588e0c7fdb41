//! The scheduler over an operator that counts its calls and does what a test tells it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::*;
use crate::Graph;
use crate::op::{Exec, Metadata, Mount, Op, Source};
use crate::solver::progress_channel;

/// A wait that no test comes to the end of.
const LONG: Duration = Duration::from_secs(600);
/// What a busy machine is given before a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Fake {
    calls: Mutex<BTreeMap<String, usize>>,
    running: AtomicUsize,
    /// Vertices that fail, by name.
    failing: Vec<&'static str>,
    /// Vertices that take longer than the test.
    slow: Vec<&'static str>,
}

#[async_trait]
impl Operate for Fake {
    async fn operate(&self, vertex: &Vertex, inputs: &[Ref], _report: &Report) -> Result<Operated, Error> {
        let name = vertex.name();
        assert_eq!(inputs.len(), vertex.op.kind.inputs().len());
        *self.calls.lock().unwrap().entry(name.clone()).or_default() += 1;
        let _running = Running::of(&self.running);
        if self.failing.contains(&name.as_str()) {
            return Err(Error::Integrity(name));
        }
        if self.slow.contains(&name.as_str()) {
            tokio::time::sleep(LONG).await;
        }
        tokio::task::yield_now().await;
        Ok(Operated { outputs: [(0, Ref::scratch())].into(), cached: false })
    }
}

/// Counts calls that have not come to an end, cancelled ones as well.
struct Running<'a>(&'a AtomicUsize);

impl<'a> Running<'a> {
    fn of(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A graph of vertices by name.
#[derive(Default)]
struct Draft {
    graph: Graph,
    edges: BTreeMap<String, Edge>,
}

impl Draft {
    /// Adds a vertex that is made from others.
    fn add(&mut self, name: &str, inputs: &[&str]) -> Edge {
        let inputs: Vec<Edge> = inputs.iter().map(|input| self.edges[*input]).collect();
        let edge = self.graph.add(op(name, &inputs), Metadata::named(name)).unwrap().into();
        self.edges.insert(name.to_owned(), edge);
        edge
    }

    fn definition(&self, target: &str) -> Definition {
        self.graph.definition(self.edges[target])
    }
}

fn op(name: &str, inputs: &[Edge]) -> Op {
    let Some((first, others)) = inputs.split_first() else { return Source::image(name).into() };
    let step = Exec::new(*first, "/", &[name]);
    others.iter().enumerate().fold(step, |step, (i, input)| step.mount(Mount::readonly(&format!("/{i}"), *input))).into()
}

fn scheduler(fake: Fake) -> Scheduler<Fake> {
    let (sender, mut receiver) = progress_channel(1 << 20);
    tokio::spawn(async move { while receiver.recv().await.is_some() {} });
    Scheduler::new(Arc::new(fake), Reporter::new(sender, || SystemTime::UNIX_EPOCH))
}

fn calls(scheduler: &Scheduler<Fake>, name: &str) -> usize {
    scheduler.operator.calls.lock().unwrap().get(name).copied().unwrap_or_default()
}

/// Two steps on one base, and one on both; the long one is named first or last.
fn diamond(order: [&str; 2]) -> Definition {
    let mut draft = Draft::default();
    draft.add("base", &[]);
    draft.add("left", &["base"]);
    draft.add("right", &["base"]);
    draft.add("top", &order);
    draft.definition("top")
}

const ORDERS: [[&str; 2]; 2] = [["left", "right"], ["right", "left"]];

#[tokio::test]
async fn a_vertex_that_two_need_runs_once() {
    let scheduler = scheduler(Fake::default());
    for order in ORDERS {
        scheduler.solve(&diamond(order)).await.unwrap();
    }
    for name in ["base", "left", "right"] {
        assert_eq!(calls(&scheduler, name), 1, "{name}");
    }
    // Named by what they take in, so two of them.
    assert_eq!(calls(&scheduler, "top"), 2);
}

#[tokio::test]
async fn two_solves_of_one_job_share_their_vertices() {
    let scheduler = scheduler(Fake::default());
    let (one, other) = (diamond(ORDERS[0]), diamond(ORDERS[1]));
    let (one, other) = tokio::join!(scheduler.solve(&one), scheduler.solve(&other));
    one.and(other).unwrap();
    assert_eq!(calls(&scheduler, "base"), 1);
}

#[tokio::test]
async fn what_failed_is_what_the_caller_is_told() {
    for order in ORDERS {
        for failing in ["base", "left", "right", "top"] {
            let scheduler = scheduler(Fake { failing: vec![failing], ..Fake::default() });
            for _ in 0..2 {
                let failed = scheduler.solve(&diamond(order)).await;
                assert!(matches!(&failed, Err(Error::Integrity(name)) if name == failing), "{order:?}: {failed:?}");
            }
            assert_eq!(calls(&scheduler, failing), 2, "a failure is not kept");
        }
    }
}

#[tokio::test]
async fn a_failure_ends_what_takes_long_beside_it() {
    for order in ORDERS {
        let scheduler = scheduler(Fake { failing: vec!["right"], slow: vec!["left"], ..Fake::default() });
        let failed = tokio::time::timeout(PATIENCE, scheduler.solve(&diamond(order))).await;
        assert!(matches!(&failed, Ok(Err(Error::Integrity(name))) if name == "right"), "{order:?}: {failed:?}");
        assert_eq!(scheduler.operator.running.load(Ordering::SeqCst), 0, "something still runs");
        assert_eq!(calls(&scheduler, "top"), 0);
    }
}

#[tokio::test]
async fn a_job_that_is_stopped_is_cancelled() {
    let scheduler = scheduler(Fake { slow: vec!["base"], ..Fake::default() });
    let definition = diamond(ORDERS[0]);
    let (ended, ()) = tokio::join!(scheduler.solve(&definition), async {
        while scheduler.operator.running.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        scheduler.stop().await;
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    assert_eq!(scheduler.operator.running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_depth_of_a_graph_is_no_limit() {
    let mut draft = Draft::default();
    let mut below = "0".to_owned();
    draft.add(&below, &[]);
    for i in 1..20_000 {
        let name = i.to_string();
        draft.add(&name, &[&below]);
        below = name;
    }
    let scheduler = scheduler(Fake::default());
    scheduler.solve(&draft.definition(&below)).await.unwrap();
    assert_eq!(calls(&scheduler, &below), 1);
}

#[tokio::test]
async fn an_output_that_a_vertex_does_not_have_is_an_error() {
    let mut draft = Draft::default();
    let base = draft.add("base", &[]);
    let scheduler = scheduler(Fake::default());
    let missing = scheduler.solve(&draft.graph.definition(Edge::new(base.vertex, 1))).await;
    assert!(matches!(missing, Err(Error::Integrity(_))), "{missing:?}");
}
