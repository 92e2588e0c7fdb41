//! `--require-cached` on a daemon: a release is broken off at the first step that a daemon runs.
//!
//! A daemon does not say beforehand what it has. It says of a vertex that it started, and of one that it
//! found that it was cached. Of a vertex without inputs it also says that it started where only its cache
//! key was computed (an image's tag was looked up, a file's content was hashed), and says it once more
//! where the vertex really runs; of one with inputs, only where it runs.
//!
//! Invariant: nothing is exported before the daemon has said of the target how it came to be, and of all
//! that is below it that it did not run.

use std::collections::BTreeMap;
use std::time::Duration;

use roche_engine::solver::{Progress, ProgressReceiver, progress_channel};
use roche_engine::{Definition, Digest};
use tokio::sync::watch;

use crate::error::{Exit, Failure};
use crate::forecast::HINT;

/// How long a daemon may take to say what it did, once it has done it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a daemon says of the vertices while it solves.
pub(crate) struct Watch {
    heard: watch::Receiver<Heard>,
}

/// What was said until now.
#[derive(Debug, Default)]
struct Heard {
    vertices: BTreeMap<Digest, Said>,
}

/// What was said of a vertex.
#[derive(Debug, Default)]
struct Said {
    /// Whether it started to do something.
    started: bool,
    has_inputs: bool,
    cached: bool,
    completed: bool,
    /// Whether layers of an image were fetched.
    fetched: bool,
}

impl Said {
    fn ran(&self) -> bool {
        self.fetched || (self.has_inputs && self.started)
    }
}

impl Heard {
    fn hear(&mut self, progress: &Progress) {
        for vertex in &progress.vertices {
            let said = self.vertices.entry(vertex.digest).or_default();
            said.has_inputs |= !vertex.inputs.is_empty();
            said.cached |= vertex.cached;
            said.completed |= vertex.completed.is_some();
            said.started |= vertex.started.is_some() && !vertex.cached;
        }
        for status in progress.statuses.iter().filter(|status| status.total > 0) {
            self.vertices.entry(status.vertex).or_default().fetched = true;
        }
    }

    /// The first vertex of a definition that runs.
    fn ran(&self, definition: &Definition) -> Option<String> {
        let mut vertices = definition.vertices();
        vertices.find(|vertex| self.vertices.get(&vertex.digest).is_some_and(Said::ran)).map(roche_engine::Vertex::name)
    }

    /// Whether all is said of a vertex.
    fn is_done(&self, vertex: Digest) -> bool {
        self.vertices.get(&vertex).is_some_and(|said| said.cached || said.completed)
    }
}

impl Watch {
    /// Listens to progress on its way.
    pub(crate) fn on(mut progress: ProgressReceiver, limit_bytes: u32) -> (Self, ProgressReceiver) {
        let (tell, heard) = watch::channel(Heard::default());
        let (onwards, passed) = progress_channel(limit_bytes);
        tokio::spawn(async move {
            while let Some(message) = progress.recv().await {
                tell.send_modify(|heard| heard.hear(&message));
                onwards.send(message).await;
            }
        });
        (Self { heard }, passed)
    }

    /// Waits until a vertex of a definition runs; where none does, for ever.
    pub(crate) async fn refusal(&self, definition: &Definition) -> Failure {
        let mut heard = self.heard.clone();
        match heard.wait_for(|heard| heard.ran(definition).is_some()).await {
            Ok(heard) => refused(&heard.ran(definition).expect("it was waited for")),
            Err(_) => std::future::pending().await,
        }
    }

    /// Makes sure, once a definition is solved, that nothing of it ran.
    pub(crate) async fn settle(&self, definition: &Definition) -> Result<(), Failure> {
        let target = definition.target().vertex;
        let mut heard = self.heard.clone();
        let done = tokio::time::timeout(PATIENCE, heard.wait_for(|heard| heard.is_done(target))).await;
        let said = matches!(done, Ok(Ok(_)));
        drop(done);
        if let Some(name) = self.heard.borrow().ran(definition) {
            return Err(refused(&name));
        }
        if said {
            return Ok(());
        }
        Err(Failure::say(Exit::Policy, "the daemon does not say whether a step ran, and --require-cached lets none run")
            .hint(HINT))
    }
}

fn refused(name: &str) -> Failure {
    Failure::say(Exit::Policy, format!("step {name:?} is not cached on the daemon, and --require-cached lets none run"))
        .hint(HINT)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use roche_engine::Graph;
    use roche_engine::op::{Exec, Metadata, Source};
    use roche_engine::solver::{StatusProgress, VertexProgress};

    use super::*;

    /// A source and a step on it.
    fn graph() -> (Definition, [Digest; 2]) {
        let mut graph = Graph::new();
        let source = graph.add(Source::image("docker.io/library/a:1"), Metadata::named("source")).unwrap();
        let step = graph.add(Exec::new(source, "/", &["step"]), Metadata::named("step")).unwrap();
        (graph.definition(step.into()), [source, step])
    }

    fn vertex(digest: Digest, inputs: &[Digest], cached: bool, started: Option<u64>, completed: bool) -> Progress {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let vertex = VertexProgress {
            digest,
            inputs: inputs.to_vec(),
            name: String::new(),
            cached,
            started: started.map(at),
            completed: completed.then(|| at(9)),
            error: String::new(),
        };
        Progress { vertices: vec![vertex], ..Progress::default() }
    }

    fn heard(messages: &[Progress]) -> Heard {
        let mut heard = Heard::default();
        messages.iter().for_each(|message| heard.hear(message));
        heard
    }

    #[test]
    fn a_source_s_cache_key_is_no_run_and_a_step_that_starts_is() {
        let (definition, [source, step]) = graph();
        let key = [vertex(source, &[], false, Some(1), false), vertex(source, &[], false, Some(1), true)];
        assert_eq!(heard(&key).ran(&definition), None);
        let announced = vertex(step, &[source], false, None, false);
        let cached = vertex(step, &[source], true, Some(2), true);
        let found = heard(&[&key[..], &[announced.clone(), cached]].concat());
        assert_eq!(found.ran(&definition), None);
        assert!(found.is_done(step));
        let runs = heard(&[&key[..], &[announced, vertex(step, &[source], false, Some(2), false)]].concat());
        assert_eq!(runs.ran(&definition).as_deref(), Some("step"));
        assert!(!runs.is_done(step));
        let other = heard(&[vertex(Digest::of(b"exporting"), &[source], false, Some(1), false)]);
        assert_eq!(other.ran(&definition), None, "what is in no definition is nobody's step");
    }

    #[test]
    fn an_image_whose_layers_are_fetched_runs() {
        let (definition, [source, _]) = graph();
        let status = |total| StatusProgress {
            id: "sha256:1".to_owned(),
            vertex: source,
            name: String::new(),
            current: 0,
            total,
            timestamp: None,
            started: None,
            completed: None,
        };
        let fetches = |total| Progress { statuses: vec![status(total)], ..Progress::default() };
        assert_eq!(heard(&[fetches(0)]).ran(&definition), None);
        assert_eq!(heard(&[fetches(7)]).ran(&definition).as_deref(), Some("source"));
    }

    #[tokio::test]
    async fn a_release_waits_for_the_word_on_its_target() {
        let (definition, [source, step]) = graph();
        let (sender, receiver) = progress_channel(1 << 20);
        let (watch, mut passed) = Watch::on(receiver, 1 << 20);
        let settling = watch.settle(&definition);
        tokio::pin!(settling);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut settling).await.is_err());
        sender.send(vertex(step, &[source], true, Some(2), true)).await;
        settling.await.unwrap();
        assert!(passed.recv().await.is_some(), "progress is passed on");
        sender.send(vertex(step, &[source], false, Some(3), false)).await;
        assert_eq!(watch.refusal(&definition).await.exit, Exit::Policy);
    }
}
