//! What came of each vertex, out of what a solver told.
//!
//! Invariant: a vertex of a release that succeeded has one of `cached`, `unchanged` and `ran`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use roche_engine::{Definition, Digest};

use crate::document::Outcome;
use crate::progress::Trace;
use crate::progress::trace::VertexTrace;

/// What is known of a release's course.
pub(super) struct Course<'a> {
    pub(super) definition: &'a Definition,
    pub(super) trace: &'a Trace,
    /// Whether the solver was roche's own engine, which looks at every vertex.
    pub(super) embedded: bool,
    pub(super) succeeded: bool,
    /// When the release started, by the clock of this machine.
    pub(super) started: SystemTime,
    pub(super) duration: Duration,
}

impl Course<'_> {
    /// Returns the outcome of every vertex.
    pub(super) fn outcomes(&self) -> BTreeMap<Digest, Outcome> {
        let start = self.trace.start(self.started, self.duration);
        let states = self.states();
        let outcome = |(digest, state): (Digest, &'static str)| {
            let trace = self.trace.vertex(digest).filter(|trace| trace.started.is_some() && state != "cancelled");
            let at = trace.and_then(|trace| trace.started).map(|at| at.duration_since(start).unwrap_or_default());
            let (started_ms, duration_ms) = match (state, at) {
                ("ran" | "failed" | "unchanged" | "cached", Some(at)) => {
                    (Some(millis(at)), trace.map(|trace| millis(trace.elapsed(start + self.duration))))
                }
                _ => (None, None),
            };
            (digest, Outcome { state: state.to_owned(), started_ms, duration_ms })
        };
        states.into_iter().map(outcome).collect()
    }

    /// Goes from the target to its inputs. A daemon that looks for results only as they are needed says of a source that it
    /// started and completed where only its cache key was computed: it ran if something that ran needed it.
    fn states(&self) -> BTreeMap<Digest, &'static str> {
        let mut needed = BTreeSet::from([self.definition.target().vertex]);
        let mut states = BTreeMap::new();
        let vertices: Vec<_> = self.definition.vertices().collect();
        for vertex in vertices.iter().rev() {
            let trace = self.trace.vertex(vertex.digest);
            let asked =
                self.embedded || needed.contains(&vertex.digest) || trace.is_some_and(|trace| trace.ran_by_itself(vertex));
            let state = if asked { self.state(trace) } else { "cached" };
            if state != "cached" {
                needed.extend(vertex.op.kind.inputs().iter().map(|edge| edge.vertex));
            }
            states.insert(vertex.digest, state);
        }
        let mut moved = BTreeSet::new();
        for vertex in vertices {
            let behind = vertex.op.kind.inputs().iter().any(|edge| moved.contains(&edge.vertex));
            let state = states.get_mut(&vertex.digest).expect("every vertex has a state");
            if *state == "ran" || behind {
                moved.insert(vertex.digest);
            }
            // What it stands on had to run, and came out as it was known.
            if *state == "cached" && behind {
                *state = "unchanged";
            }
        }
        states
    }

    fn state(&self, trace: Option<&VertexTrace>) -> &'static str {
        match trace {
            Some(trace) if trace.cached => "cached",
            Some(trace) if !trace.error.is_empty() && trace.error.ends_with("context canceled") => "cancelled",
            Some(trace) if !trace.error.is_empty() => "failed",
            Some(trace) if trace.started.is_some() && (self.succeeded || trace.completed.is_some()) => "ran",
            // Of a release that is done, what was never spoken of was not needed.
            _ if self.succeeded => "cached",
            _ => "cancelled",
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use roche_engine::Graph;
    use roche_engine::op::{Exec, Metadata, Source};
    use roche_engine::solver::{Progress, VertexProgress};

    use super::*;

    /// A source, and a chain of two steps on it.
    fn chain() -> (Definition, [Digest; 3]) {
        let mut graph = Graph::new();
        let source = graph.add(Source::image("docker.io/library/a:1"), Metadata::named("source")).unwrap();
        let one = graph.add(Exec::new(source, "/", &["one"]), Metadata::named("one")).unwrap();
        let two = graph.add(Exec::new(one, "/", &["two"]), Metadata::named("two")).unwrap();
        (graph.definition(two.into()), [source, one, two])
    }

    /// What is told of a vertex: nothing, that it is cached, that it ran, or why it failed.
    fn told(digests: [Digest; 3], told: [&str; 3]) -> Trace {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut trace = Trace::default();
        for (digest, told) in digests.into_iter().zip(told).filter(|(_, told)| !told.is_empty()) {
            let (cached, error) = (told == "cached", if matches!(told, "cached" | "ran") { "" } else { told });
            let (name, error) = (String::new(), error.to_owned());
            let vertex = VertexProgress { digest, inputs: Vec::new(), name, cached, started: at(1), completed: at(3), error };
            trace.fold(Progress { vertices: vec![vertex], ..Progress::default() });
        }
        trace
    }

    fn states(told_of: [&str; 3], embedded: bool, succeeded: bool) -> [String; 3] {
        let (definition, digests) = chain();
        let trace = told(digests, told_of);
        let (started, duration) = (SystemTime::UNIX_EPOCH, Duration::from_secs(10));
        let course = Course { definition: &definition, trace: &trace, embedded, succeeded, started, duration };
        let outcomes = course.outcomes();
        digests.map(|digest| outcomes[&digest].state.clone())
    }

    #[test]
    fn a_daemon_s_source_ran_where_it_was_needed_and_a_step_where_it_started() {
        assert_eq!(states(["ran", "", "cached"], false, true), ["cached", "cached", "cached"]);
        assert_eq!(states(["ran", "ran", "cached"], false, true), ["ran", "ran", "unchanged"]);
        assert_eq!(states(["ran", "cached", "ran"], false, true), ["cached", "cached", "ran"]);
        assert_eq!(states(["ran", "ran", "ran"], false, true), ["ran", "ran", "ran"]);
        assert_eq!(states(["", "", ""], false, true), ["cached", "cached", "cached"]);
    }

    #[test]
    fn the_embedded_engine_finds_results_behind_what_ran() {
        assert_eq!(states(["ran", "cached", "cached"], true, true), ["ran", "unchanged", "unchanged"]);
        assert_eq!(states(["cached", "ran", "cached"], true, true), ["cached", "ran", "unchanged"]);
        assert_eq!(states(["cached", "cached", "cached"], true, true), ["cached", "cached", "cached"]);
    }

    #[test]
    fn what_never_came_to_run_is_cancelled() {
        assert_eq!(states(["cached", "exit code: 1", ""], false, false), ["cached", "failed", "cancelled"]);
        assert_eq!(states(["ran", "x: context canceled", ""], true, false), ["ran", "cancelled", "cancelled"]);
        assert_eq!(states(["", "", ""], true, false), ["cancelled", "cancelled", "cancelled"]);
    }

    #[test]
    fn times_count_from_the_start_whatever_the_solver_s_clock_says() {
        let (definition, digests) = chain();
        let trace = told(digests, ["cached", "ran", "ran"]);
        for started in [0, 5_000_000] {
            let started = SystemTime::UNIX_EPOCH + Duration::from_secs(started);
            let duration = Duration::from_secs(10);
            let course = Course { definition: &definition, trace: &trace, embedded: true, succeeded: true, started, duration };
            let outcome = &course.outcomes()[&digests[1]];
            let expected = if started == SystemTime::UNIX_EPOCH { 1000 } else { 0 };
            assert_eq!((outcome.started_ms, outcome.duration_ms), (Some(expected), Some(2000)));
        }
    }
}
