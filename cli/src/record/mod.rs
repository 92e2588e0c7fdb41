//! The record that a release leaves: its plan, what came of every vertex, and what was made.
//!
//! 1. [`Recorder::begin`] takes what was decided, before any back end is asked.
//! 2. The release tells it the back end, the plan and the result as they come.
//! 3. [`Recorder::end`] writes everything down once, as a [`Document`] under the plan's schema.
//!
//! Invariants: every release that was decided leaves a record, also one that fails or is interrupted; no release fails for want
//! of one. Of the project the record holds the files that are in the graph, of the environment no value.

mod outcome;
mod settings;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use roche_engine::solver::Exported;
use roche_engine::{Definition, Digest};
use roche_frontend::project::Project;
use roche_frontend::release::Release;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::args::ReleaseArgs;
use crate::backend::Backend;
use crate::document::{
    BackEnd, Document, Edge, Failed, Image, Made, Material, Ran, SourceFile, Subject, Unresolved, VERSION, Written, source_file,
};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::outputs::Output;
use crate::progress::Trace;
use crate::report::AddedFile;
use crate::{bases, gains, note, report, text};
use outcome::Course;
use settings::settings;

pub(crate) use store::{Key, Name, Records};

/// The largest file of a project whose text is kept.
const TEXT_BYTES: usize = 256 << 10;

/// How many records tell what a back end has solved.
const RECENT: usize = 20;

/// A trace that is read while it grows.
pub(crate) type SharedTrace = Arc<Mutex<Trace>>;

/// Looks at a trace.
pub(crate) fn look(trace: &SharedTrace) -> MutexGuard<'_, Trace> {
    trace.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes the record of one release.
pub(crate) struct Recorder<'a> {
    environment: &'a Environment,
    root: &'a Path,
    narrate: bool,
    when: SystemTime,
    clock: Instant,
    trace: SharedTrace,
    /// Empty once the record is written.
    state: Mutex<Option<State>>,
}

struct State {
    document: Document,
    function: Vec<SourceFile>,
    definition: Option<Definition>,
    release: Ran,
}

impl<'a> Recorder<'a> {
    /// Takes what was decided. Dropped without an end, the release was interrupted.
    pub(crate) fn begin(
        project: &'a Project,
        release: &Release,
        args: &ReleaseArgs,
        environment: &'a Environment,
        narrate: bool,
    ) -> Self {
        let function: Vec<SourceFile> = std::iter::once(&project.function).chain(&project.lib).map(with_text).collect();
        let ran = decided(project, release, args, environment);
        let state = State { document: unplanned(release, function.clone()), function, definition: None, release: ran };
        Self {
            environment,
            root: &project.root,
            narrate,
            when: SystemTime::now(),
            clock: Instant::now(),
            trace: SharedTrace::default(),
            state: Mutex::new(Some(state)),
        }
    }

    /// The trace that the release's progress is folded into.
    pub(crate) fn trace(&self) -> SharedTrace {
        Arc::clone(&self.trace)
    }

    /// Takes the back end.
    pub(crate) fn back_end(&self, backend: &Backend) {
        self.change(|state| {
            state.release.back_end = Some(BackEnd {
                name: backend.solver.name(),
                origin: backend.origin.clone(),
                embedded: backend.embedded,
                identity: None,
            });
        });
    }

    /// Takes what tells the back end from others of its name.
    pub(crate) fn identified(&self, identity: Digest) {
        self.change(|state| {
            if let Some(back_end) = &mut state.release.back_end {
                back_end.identity = Some(identity.to_string());
            }
        });
    }

    /// Takes what of the machine goes into the release.
    pub(crate) fn materials(&self, materials: BTreeMap<String, Material>) {
        self.change(|state| state.release.materials = materials);
    }

    /// Takes the plan.
    pub(crate) fn planned(&self, subject: &Subject<'_>) {
        self.change(|state| {
            state.document = subject.document();
            state.document.function = state.function.clone();
            state.definition = Some(subject.definition.clone());
            let project = Key::project(self.root);
            gains::learn(&mut state.document, &state.release, &project, self.environment);
        });
    }

    /// Takes what the image gained; says where that is not what was planned.
    pub(crate) fn gained(&self, added: &[AddedFile]) -> Vec<String> {
        let mut differences = Vec::new();
        self.change(|state| {
            let facts = gains::facts(&state.document.contents, added);
            differences = gains::differences(&state.document.contents, &facts);
            state.document.contents = facts;
            state.release.differences = differences.clone();
        });
        differences
    }

    /// Takes what was made.
    pub(crate) fn made(&self, exported: &Exported, outputs: &[Output]) {
        let said = |key: &str| exported.response.get(key).cloned();
        let (digest, image_id) = (said(report::DIGEST), said(report::CONFIG_DIGEST));
        let outputs = outputs.iter().map(written).collect();
        self.change(|state| state.release.result = Some(Made { digest, image_id, outputs }));
    }

    /// Writes the record of a release that has ended.
    pub(crate) fn end(&self, result: &Result<(), Failure>) {
        // What is typed wrong is no release.
        if result.as_ref().is_err_and(|failure| failure.exit == Exit::Usage) {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.as_ref().is_some_and(|state| state.definition.is_none()) {
                *state = None;
            }
        }
        let failed = result.as_ref().err().map(|failure| {
            let message = failure.message().strip_suffix(report::ABOVE).unwrap_or(failure.message());
            Failed { exit_code: Some(failure.exit as u8), message: text::one_line(message) }
        });
        self.write(failed);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(state);
        }
    }

    fn write(&self, failed: Option<Failed>) {
        let Some(state) = self.state.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let Some(records) = Records::of(self.environment) else {
            return self.note("no record of this release is kept: there is no home folder, and XDG_STATE_HOME is not set");
        };
        let (name, document) = self.document(state, failed);
        let json = text::json(&serde_json::to_string(&document).expect("a document is always JSON"));
        if let Err(error) = records.keep(&name, json.as_bytes()) {
            self.note(&format!("no record of this release is kept: {}: {error}", records.folder().display()));
        }
    }

    /// Puts together what is known.
    fn document(&self, state: State, failed: Option<Failed>) -> (Name, Document) {
        let State { mut document, definition, mut release, .. } = state;
        let duration = self.clock.elapsed();
        if let Some(definition) = &definition {
            let trace = look(&self.trace);
            let embedded = release.back_end.as_ref().is_some_and(|back_end| back_end.embedded);
            let (started, succeeded) = (self.when, failed.is_none());
            let course = Course { definition, trace: &trace, embedded, succeeded, started, duration };
            let outcomes = course.outcomes();
            for (vertex, told) in definition.vertices().zip(&mut document.vertices) {
                told.outcome = outcomes.get(&vertex.digest).cloned();
            }
        } else if let Some(failed) = &failed {
            document.unresolved.iter_mut().for_each(|unresolved| unresolved.reason = failed.message.clone());
        }
        let when = OffsetDateTime::from(self.when);
        let when = when.replace_millisecond(when.millisecond()).unwrap_or(when);
        let back_end = release.back_end.as_ref().map_or("", |back_end| back_end.identity.as_ref().unwrap_or(&back_end.name));
        // Of releases that start at one time, no two are of one process.
        let salt = std::process::id().to_string();
        let name = Name::new(when, Key::project(self.root), Key::back_end(back_end), &salt);
        release.id = name.id.clone();
        release.when = when.format(&Rfc3339).unwrap_or_default();
        release.duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        release.error = failed;
        document.release = Some(release);
        (name, document)
    }

    fn note(&self, text: &str) {
        if self.narrate {
            note(text);
        }
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        self.write(Some(Failed { exit_code: None, message: "interrupted".to_owned() }));
    }
}

/// Collects the vertices that a back end has the results of, or had, by the newest records: those that ran there or were found
/// in its cache. `back_end` is its identity.
pub(crate) fn solved(environment: &Environment, back_end: &str) -> BTreeSet<Digest> {
    let Some(records) = Records::of(environment) else { return BTreeSet::new() };
    let key = Key::back_end(back_end);
    let names = records.list().unwrap_or_default().into_iter().filter(|name| name.back_end == key);
    let documents = names.take(RECENT).filter_map(|name| records.read::<brief::Document>(&name).ok());
    let vertices = documents.flat_map(|document| document.vertices);
    let solved = vertices.filter(|vertex| vertex.outcome.as_ref().is_some_and(|outcome| outcome.is_solved()));
    solved.filter_map(|vertex| vertex.digest?.parse().ok()).collect()
}

/// What questions over many records need of each.
pub(crate) mod brief {
    use serde::Deserialize;

    use crate::document::Ran;

    /// A record without its plan.
    #[derive(Debug, Deserialize)]
    pub(crate) struct Document {
        /// The image.
        pub(crate) image: Image,
        /// The vertices.
        pub(crate) vertices: Vec<Vertex>,
        /// The release; a plan has none, and is no record.
        pub(crate) release: Ran,
    }

    /// The image's names.
    #[derive(Debug, Deserialize)]
    pub(crate) struct Image {
        /// Full references with tags.
        pub(crate) names: Vec<String>,
    }

    /// A vertex by its digest.
    #[derive(Debug, Deserialize)]
    pub(crate) struct Vertex {
        /// Its digest.
        pub(crate) digest: Option<String>,
        /// What came of it.
        pub(crate) outcome: Option<Outcome>,
    }

    /// What came of a vertex.
    #[derive(Debug, Deserialize)]
    pub(crate) struct Outcome {
        /// `cached`, `unchanged`, `ran`, `failed` or `cancelled`.
        pub(crate) state: String,
    }

    impl Outcome {
        /// Says whether the vertex's result was there in the end.
        pub(crate) fn is_solved(&self) -> bool {
            matches!(self.state.as_str(), "cached" | "unchanged" | "ran")
        }
    }
}

/// The document of a release that ends before it is planned.
fn unplanned(release: &Release, function: Vec<SourceFile>) -> Document {
    let images = bases::build(release).into_iter().chain(bases::runtime(release));
    let mut unresolved: Vec<Unresolved> =
        images.map(|image| Unresolved { image: image.reference.familiar(), reason: "interrupted".to_owned() }).collect();
    if unresolved.is_empty() {
        unresolved.push(Unresolved { image: roche_frontend::release::HOST.to_owned(), reason: "interrupted".to_owned() });
    }
    Document {
        schema_version: VERSION,
        resolved: false,
        unresolved,
        image: Image {
            names: release.tags.iter().map(ToString::to_string).collect(),
            platform: release.platform.to_string(),
            config: serde_json::json!({}),
        },
        function,
        bases: Vec::new(),
        stages: Vec::new(),
        vertices: Vec::new(),
        target: Edge { vertex: 0, output: 0 },
        contents: Vec::new(),
        notices: Vec::new(),
        definition: None,
        release: None,
    }
}

fn with_text(file: &roche_frontend::project::SourceFile) -> SourceFile {
    let text = (file.data.len() <= TEXT_BYTES).then(|| String::from_utf8(file.data.clone()).ok()).flatten();
    SourceFile { text, ..source_file(file) }
}

fn written(output: &Output) -> Written {
    let place = output.place().map(|place| place.display().to_string());
    let kind = match output {
        Output::Store => "store",
        Output::Registry => "registry",
        Output::Archive { .. } => "archive",
        Output::Layout { .. } => "layout",
        Output::Folder { .. } => "folder",
    };
    Written { kind: kind.to_owned(), place }
}

/// What is known of a release before it starts.
pub(crate) fn decided(project: &Project, release: &Release, args: &ReleaseArgs, environment: &Environment) -> Ran {
    Ran {
        roche: env!("CARGO_PKG_VERSION").to_owned(),
        folder: project.folder().map(str::to_owned),
        settings: settings(release, args, environment),
        ..Ran::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_back_end_has_solved_is_read_off_its_newest_records() {
        let state = tempfile::tempdir().unwrap();
        let variables = BTreeMap::from([("XDG_STATE_HOME".to_owned(), state.path().to_str().unwrap().to_owned())]);
        let environment =
            Environment { variables, folder: state.path().to_owned(), stderr_terminal: false, stdout_terminal: false };
        let records = Records::of(&environment).unwrap();
        let vertex = |text: &str| Digest::of(text.as_bytes()).to_string();
        let keep = |second: usize, back_end: &str, told: &[(&str, &str)]| {
            let when = OffsetDateTime::from_unix_timestamp(1_700_000_000 + second as i64).unwrap();
            let name = Name::new(when, Key::project(Path::new("/a")), Key::back_end(back_end), "1");
            let vertices: Vec<_> = told
                .iter()
                .map(|(name, state)| serde_json::json!({"digest": vertex(name), "outcome": {"state": state}}))
                .collect();
            let release = serde_json::to_value(Ran::default()).unwrap();
            let record =
                serde_json::json!({"schemaVersion": 1, "image": {"names": []}, "vertices": vertices, "release": release});
            records.keep(&name, record.to_string().as_bytes()).unwrap();
        };
        keep(0, "one", &[("too old", "ran")]);
        let told = [("ran", "ran"), ("cached", "cached"), ("failed", "failed"), ("same", "unchanged"), ("never", "cancelled")];
        keep(1, "one", &told);
        keep(2, "two", &[("of another", "ran")]);
        (3..2 + RECENT).for_each(|second| keep(second, "one", &[]));
        let expected: BTreeSet<Digest> = ["ran", "cached", "same"].map(|name| Digest::of(name.as_bytes())).into();
        assert_eq!(solved(&environment, "one"), expected);
        assert_eq!(solved(&environment, "three"), BTreeSet::new());
    }
}
