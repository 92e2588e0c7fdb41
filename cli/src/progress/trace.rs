//! Progress folded into the state of each vertex.
//!
//! Invariant: whatever the order and the number of messages, a vertex has one number, the time it
//! was first started and the sum of its runs; of its output the last 64 KiB are kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, SystemTime};

use roche_engine::solver::{LogProgress, Progress, StatusProgress, VertexProgress};
use roche_engine::{Definition, Digest, Vertex};

/// Bytes of a vertex's output that are kept for the report of a failure.
const TAIL: usize = 64 * 1024;

/// A line without an end is cut after this many bytes.
const LINE: usize = 1024 * 1024;

/// Everything that is known of a job's vertices.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// In the order in which they were first heard of.
    pub(crate) vertices: Vec<VertexTrace>,
    index: BTreeMap<Digest, usize>,
}

/// What is known of one vertex.
#[derive(Debug)]
pub(crate) struct VertexTrace {
    /// From 1, in the order of appearance.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) started: Option<SystemTime>,
    pub(crate) completed: Option<SystemTime>,
    pub(crate) cached: bool,
    pub(crate) error: String,
    /// Time of the runs that completed.
    elapsed: Duration,
    /// Runs that were counted, by their starts, and their ends.
    runs: BTreeMap<SystemTime, SystemTime>,
    /// Parts that are pulled, sent or written, by id.
    pub(crate) statuses: BTreeMap<String, StatusProgress>,
    tail: VecDeque<u8>,
    /// Whether the end was told; a vertex may end several times.
    ended: bool,
    /// What came after the last end of a line, by stream.
    partial: BTreeMap<i64, Vec<u8>>,
}

impl VertexTrace {
    fn new(number: usize) -> Self {
        Self {
            number,
            name: String::new(),
            started: None,
            completed: None,
            cached: false,
            error: String::new(),
            elapsed: Duration::ZERO,
            runs: BTreeMap::new(),
            statuses: BTreeMap::new(),
            tail: VecDeque::new(),
            ended: false,
            partial: BTreeMap::new(),
        }
    }

    /// Says whether the vertex runs now.
    pub(crate) fn running(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    /// Says whether it started to do something and was not cached.
    fn ran(&self) -> bool {
        self.started.is_some() && !self.cached
    }

    /// Says of a vertex that takes something in whether it ran: of such a one a start is no mere question.
    pub(crate) fn ran_by_itself(&self, vertex: &Vertex) -> bool {
        self.ran() && !vertex.op.kind.inputs().is_empty()
    }

    /// Returns how long the vertex ran, up to `now` where it still does.
    pub(crate) fn elapsed(&self, now: SystemTime) -> Duration {
        let current = self.started.filter(|_| self.completed.is_none()).and_then(|started| now.duration_since(started).ok());
        self.elapsed + current.unwrap_or_default()
    }

    /// Returns the starts and ends of the runs; one that goes on has no end.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (SystemTime, Option<SystemTime>)> {
        let current = self.started.filter(|started| !self.runs.contains_key(started)).map(|started| (started, None));
        self.runs.iter().map(|(started, completed)| (*started, Some(*completed))).chain(current)
    }

    /// Returns the last lines of the vertex's output, at most `lines`.
    pub(crate) fn tail(&self, lines: usize) -> Vec<String> {
        let (head, rest) = self.tail.as_slices();
        let text = String::from_utf8_lossy(&[head, rest].concat()).into_owned();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// What a message changed, in the order in which it is worth telling.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A vertex, by position, started.
    Started(usize),
    /// A vertex wrote a line.
    Line { vertex: usize, at: Duration, line: Vec<u8> },
    /// A part of a vertex completed.
    Status { vertex: usize, id: String },
    /// A vertex completed, was found in the cache or failed.
    Completed(usize),
    /// A warning about a vertex.
    Warning { vertex: usize, text: String },
}

impl Trace {
    /// Takes a message in and returns what it changed.
    pub(crate) fn fold(&mut self, progress: Progress) -> Vec<Change> {
        let mut changes = Vec::new();
        // The end of a vertex is told after what it wrote.
        let mut completed: Vec<usize> = Vec::new();
        for vertex in progress.vertices {
            let position = self.position(vertex.digest);
            let wrote = progress.logs.iter().any(|log| log.vertex == vertex.digest)
                || progress.statuses.iter().any(|status| status.vertex == vertex.digest);
            let (started, done) = self.vertices[position].update(vertex);
            changes.extend(started.then_some(Change::Started(position)));
            if done && (wrote || self.vertices[position].partial.values().any(|rest| !rest.is_empty())) {
                completed.push(position);
            } else if done {
                changes.push(Change::Completed(position));
            }
        }
        for status in progress.statuses {
            let vertex = self.position(status.vertex);
            let done = status.completed.is_some();
            let id = status.id.clone();
            let before = self.vertices[vertex].statuses.insert(id.clone(), status);
            if done && before.is_none_or(|before| before.completed.is_none()) {
                changes.push(Change::Status { vertex, id });
            }
        }
        for log in progress.logs {
            let vertex = self.position(log.vertex);
            for (at, line) in self.vertices[vertex].log(&log) {
                changes.push(Change::Line { vertex, at, line });
            }
        }
        for warning in progress.warnings {
            let vertex = self.position(warning.vertex);
            changes.push(Change::Warning { vertex, text: warning.short });
        }
        for position in completed {
            let at = self.vertices[position].elapsed;
            changes.extend(self.vertices[position].unended().into_iter().map(|line| Change::Line { vertex: position, at, line }));
            changes.push(Change::Completed(position));
        }
        changes
    }

    /// Returns the lines that were never ended, once there is no more progress to come.
    pub(crate) fn last_lines(&mut self) -> Vec<Change> {
        let lines = self.vertices.iter_mut().enumerate().flat_map(|(vertex, state)| {
            let at = state.elapsed;
            state.unended().into_iter().map(move |line| Change::Line { vertex, at, line })
        });
        lines.collect()
    }

    /// Returns what is known of a vertex.
    pub(crate) fn vertex(&self, digest: Digest) -> Option<&VertexTrace> {
        self.index.get(&digest).map(|&position| &self.vertices[position])
    }

    /// Returns when the work started by the solver's clock: the caller's own start, unless that is another clock's.
    pub(crate) fn start(&self, started: SystemTime, duration: Duration) -> SystemTime {
        let first = self.vertices.iter().flat_map(VertexTrace::runs).map(|(started, _)| started).min();
        first.filter(|first| *first < started || *first > started + duration).unwrap_or(started)
    }

    /// Returns the vertices of a definition that were executed, inputs first.
    ///
    /// Daemons say of a vertex without inputs that it started and completed where only its cache key was computed: such a
    /// vertex was executed if it was not cached and something that needs its result was executed. Of one with inputs they say
    /// so only where it ran, and the `embedded` engine of every vertex.
    pub(crate) fn executed<'d>(&self, definition: &'d Definition, embedded: bool) -> Vec<(&'d Vertex, &VertexTrace)> {
        let mut needed = BTreeSet::from([definition.target().vertex]);
        let mut executed = Vec::new();
        for vertex in definition.vertices().collect::<Vec<_>>().into_iter().rev() {
            let Some(trace) = self.vertex(vertex.digest).filter(|trace| trace.ran()) else { continue };
            if embedded || needed.contains(&vertex.digest) || trace.ran_by_itself(vertex) {
                executed.push((vertex, trace));
                needed.extend(vertex.op.kind.inputs().iter().map(|edge| edge.vertex));
            }
        }
        executed.reverse();
        executed
    }

    fn position(&mut self, digest: Digest) -> usize {
        *self.index.entry(digest).or_insert_with(|| {
            let number = self.vertices.len() + 1;
            self.vertices.push(VertexTrace::new(number));
            number - 1
        })
    }
}

impl VertexTrace {
    /// Returns whether the vertex started and whether it ended by this message.
    fn update(&mut self, progress: VertexProgress) -> (bool, bool) {
        if !progress.name.is_empty() {
            self.name = progress.name;
        }
        let was_started = self.started.is_some();
        if progress.started.is_some() {
            // A vertex that starts again is not done any more.
            if progress.started != self.started {
                self.completed = None;
            }
            self.started = progress.started;
        }
        if let (Some(started), Some(completed)) = (progress.started.or(self.started), progress.completed) {
            self.completed = Some(completed);
            if self.runs.insert(started, completed).is_none() {
                self.elapsed += completed.duration_since(started).unwrap_or_default();
            }
        }
        self.cached |= progress.cached;
        if !progress.error.is_empty() {
            self.error = progress.error;
        }
        let ended = self.completed.is_some() && !self.ended;
        self.ended |= ended;
        (!was_started && self.started.is_some(), ended)
    }

    /// Takes output in and returns the lines that it ends, with the time since the start.
    fn log(&mut self, log: &LogProgress) -> Vec<(Duration, Vec<u8>)> {
        self.tail.extend(&log.data[log.data.len().saturating_sub(TAIL)..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        let at = match (log.timestamp, self.started) {
            (Some(now), Some(started)) => now.duration_since(started).unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let mut lines = Vec::new();
        // Two streams, however many a daemon counts.
        let partial = self.partial.entry(if log.stream == 2 { 2 } else { 1 }).or_default();
        for piece in log.data.split_inclusive(|&byte| byte == b'\n') {
            let ended = piece.ends_with(b"\n");
            for part in piece.chunks(LINE) {
                partial.extend_from_slice(part);
                if partial.len() >= LINE {
                    lines.push((at, std::mem::take(partial)));
                }
            }
            if ended {
                partial.pop();
                lines.push((at, std::mem::take(partial)));
            }
        }
        lines
    }

    /// Takes the last lines, which have no end, of both streams.
    fn unended(&mut self) -> Vec<Vec<u8>> {
        self.partial.values_mut().map(std::mem::take).filter(|rest| !rest.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn vertex(digest: Digest, started: Option<SystemTime>, completed: Option<SystemTime>) -> Progress {
        let vertex = VertexProgress {
            digest,
            inputs: Vec::new(),
            name: "v".into(),
            cached: false,
            started,
            completed,
            error: String::new(),
        };
        Progress { vertices: vec![vertex], ..Progress::default() }
    }

    fn log(digest: Digest, data: &[u8]) -> Progress {
        Progress {
            logs: vec![LogProgress { vertex: digest, stream: 2, data: data.to_vec(), timestamp: at(11) }],
            ..Progress::default()
        }
    }

    #[test]
    fn a_step_that_started_was_executed_and_a_source_where_that_needs_it() {
        use roche_engine::Graph;
        use roche_engine::op::{Exec, Metadata, Source};
        let mut graph = Graph::new();
        let source = graph.add(Source::image("docker.io/library/a:1"), Metadata::named("source")).unwrap();
        let one = graph.add(Exec::new(source, "/", &["one"]), Metadata::named("one")).unwrap();
        let two = graph.add(Exec::new(one, "/", &["two"]), Metadata::named("two")).unwrap();
        let definition = graph.definition(two.into());
        let executed = |ran: &[Digest], embedded| {
            let mut trace = Trace::default();
            for digest in [source, one, two] {
                let mut told = vertex(digest, at(10), at(11));
                told.vertices[0].cached = !ran.contains(&digest);
                trace.fold(told);
            }
            trace.executed(&definition, embedded).into_iter().map(|(vertex, _)| vertex.name()).collect::<Vec<_>>()
        };
        assert!(executed(&[source], false).is_empty(), "only its cache key was computed");
        assert_eq!(executed(&[source], true), ["source"]);
        // The step gave what it gave before, so that what takes it in was found.
        assert_eq!(executed(&[source, one], false), ["source", "one"]);
        assert_eq!(executed(&[source, one, two], false), ["source", "one", "two"]);
    }

    #[test]
    fn a_vertex_that_completes_twice_is_told_once_and_timed_once() {
        let digest = Digest::of(b"v");
        let mut trace = Trace::default();
        assert_eq!(trace.fold(vertex(digest, at(10), None)), [Change::Started(0)]);
        assert_eq!(trace.fold(vertex(digest, at(10), at(12))), [Change::Completed(0)]);
        assert_eq!(trace.fold(vertex(digest, at(10), at(12))), []);
        assert_eq!(trace.vertices[0].elapsed(SystemTime::UNIX_EPOCH), Duration::from_secs(2));
    }

    #[test]
    fn lines_are_put_together_across_messages_and_the_last_needs_no_end() {
        let digest = Digest::of(b"v");
        let mut trace = Trace::default();
        trace.fold(vertex(digest, at(10), None));
        assert_eq!(trace.fold(log(digest, b"he")), []);
        let line = |text: &[u8]| Change::Line { vertex: 0, at: Duration::from_secs(1), line: text.to_vec() };
        assert_eq!(trace.fold(log(digest, b"llo\nwor")), [line(b"hello")]);
        let changes = trace.fold(vertex(digest, at(10), at(12)));
        assert!(matches!(&changes[..], [Change::Line { line, .. }, Change::Completed(0)] if line == b"wor"), "{changes:?}");
    }

    #[test]
    fn no_line_is_lost_for_want_of_an_end() {
        let digest = Digest::of(b"v");
        let mut trace = Trace::default();
        let both = |data: &[u8]| {
            let log = |stream| LogProgress { vertex: digest, stream, data: data.to_vec(), timestamp: None };
            Progress { logs: vec![log(1), log(2)], ..Progress::default() }
        };
        trace.fold(both(b"early"));
        assert_eq!(trace.fold(vertex(digest, at(1), at(2))).len(), 4);
        trace.fold(both(b"late"));
        assert_eq!(trace.last_lines().len(), 2);
        assert_eq!(trace.last_lines(), []);
    }

    #[test]
    fn a_flood_is_cut_into_lines_and_its_tail_is_bounded() {
        let digest = Digest::of(b"v");
        let mut trace = Trace::default();
        let changes = trace.fold(log(digest, &vec![b'x'; 5 * LINE]));
        assert_eq!(changes.len(), 5);
        assert_eq!(trace.vertices[0].tail.len(), TAIL);
    }
}
