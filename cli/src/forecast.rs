//! What is foretold of a release: which of its steps will run, and why.
//!
//! 1. The embedded engine knows: it looks every vertex up as a release does
//!    ([`Solver::forecast`](roche_engine::solver::Solver::forecast)).
//! 2. A daemon does not say what it has. What an earlier release on record solved there is likely to
//!    be there still; of the rest nothing is known.
//! 3. [`Outlook::tell`] writes it into the plan, [`Outlook::refuse`] is `--require-cached`.
//!
//! Invariant: `cached` is said where it holds, never where it is likely; a plan is shown whatever its
//! forecast comes to, and none is made below a base image that is not resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use roche_engine::forecast::{Cause, Expected, Forecast, Found};
use roche_engine::solver::JobOptions;
use roche_engine::{Definition, Digest};

use crate::backend::Backend;
use crate::document::{self, Document};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::record::{self, Records};

/// How long a daemon has to say who it is.
const DAEMON: Duration = Duration::from_millis(500);

/// How many steps a refusal names.
const NAMED: usize = 5;

/// What is known of a definition before it is solved.
pub(crate) enum Outlook {
    /// The embedded engine's word.
    Exact(Forecast),
    /// What a daemon solved before.
    Recorded(BTreeSet<Digest>),
    /// Nothing, and why.
    Unknown(String),
}

impl Outlook {
    /// Asks the back end, and of a daemon the records. `identity` tells daemons of one address apart;
    /// where it is not known yet, it is asked for.
    pub(crate) async fn of(
        backend: &Backend,
        definition: &Definition,
        resources: &JobOptions,
        identity: Option<Digest>,
        environment: &Environment,
    ) -> Self {
        match backend.solver.forecast(definition, resources).await {
            Ok(Some(forecast)) => return Self::Exact(forecast),
            Ok(None) => {}
            Err(error) => return Self::Unknown(error.to_string()),
        }
        let none = || Self::Unknown("no release on record ran on this daemon".to_owned());
        // A daemon is asked who it is only where that can be of use.
        if Records::of(environment).and_then(|records| records.list().ok()).is_none_or(|names| names.is_empty()) {
            return none();
        }
        let identity = match identity {
            Some(identity) => identity,
            None => match tokio::time::timeout(DAEMON, backend.solver.identity()).await {
                Ok(Ok(identity)) => identity,
                Ok(Err(_)) | Err(_) => return Self::Unknown("the daemon does not say which one it is".to_owned()),
            },
        };
        let solved = record::solved(environment, &identity.to_string());
        if solved.is_empty() { none() } else { Self::Recorded(solved) }
    }

    /// Writes the forecast into a plan, but for what is below an image that is not resolved.
    pub(crate) fn tell(&self, document: &mut Document, definition: &Definition) {
        let ids: BTreeMap<Digest, usize> = definition.vertices().enumerate().map(|(id, vertex)| (vertex.digest, id)).collect();
        let names: Vec<String> = document.vertices.iter().map(|vertex| vertex.name.clone()).collect();
        let behind = |digest: &Digest| ids.get(digest).map(|&id| (id, names[id].as_str()));
        for (vertex, told) in definition.vertices().zip(&mut document.vertices) {
            if told.digest.is_some() {
                told.forecast = Some(self.vertex(vertex, &behind));
            }
        }
    }

    fn vertex<'a>(
        &self,
        vertex: &roche_engine::Vertex,
        behind: &dyn Fn(&Digest) -> Option<(usize, &'a str)>,
    ) -> document::Forecast {
        let say =
            |state: &str, reason: &str| document::Forecast { state: state.to_owned(), reason: reason.to_owned(), behind: None };
        // Old daemons find what takes nothing in, told or not.
        let ignores = vertex.metadata.ignore_cache && !vertex.op.kind.inputs().is_empty();
        match self {
            Self::Exact(forecast) => match forecast.get(&vertex.digest) {
                Some(Expected::Cached(found)) => say("cached", here(*found)),
                Some(Expected::Runs(cause)) => document::Forecast {
                    behind: if let Cause::Behind(digest) = cause { behind(digest).map(|(id, _)| id) } else { None },
                    ..say("run", &why(cause, behind))
                },
                None => say("unknown", "it is not in the forecast"),
            },
            Self::Recorded(_) | Self::Unknown(_) if ignores => say("run", &why(&Cause::IgnoresCache, behind)),
            Self::Recorded(solved) if solved.contains(&vertex.digest) => {
                say("likely", "a release on record has had its result on this daemon")
            }
            Self::Recorded(_) => say("unknown", "no release on record had it on this daemon"),
            Self::Unknown(reason) => say("unknown", reason),
        }
    }

    /// Refuses a definition of which a vertex would run: `--require-cached`.
    pub(crate) fn refuse(&self, definition: &Definition) -> Result<(), Failure> {
        let Self::Exact(forecast) = self else { return Ok(()) };
        let ids: BTreeMap<Digest, (usize, String)> =
            definition.vertices().enumerate().map(|(id, vertex)| (vertex.digest, (id, vertex.name()))).collect();
        let behind = |digest: &Digest| ids.get(digest).map(|(id, name)| (*id, name.as_str()));
        let mut named = Vec::new();
        let mut following = Vec::new();
        for vertex in definition.vertices() {
            let (id, name) = &ids[&vertex.digest];
            match &forecast[&vertex.digest] {
                Expected::Cached(_) => {}
                Expected::Runs(Cause::Behind(_)) => following.push(id + 1),
                Expected::Runs(cause) => named.push(format!("step {} {name}: {}", id + 1, why(cause, &behind))),
            }
        }
        let (runs, all) = (named.len() + following.len(), ids.len());
        if runs == 0 {
            return Ok(());
        }
        let mut failure =
            Failure::say(Exit::Policy, format!("{runs} of {all} steps would run, and --require-cached lets none run"));
        let more = named.len().saturating_sub(NAMED);
        for cause in named.into_iter().take(NAMED) {
            failure = failure.caused_by(cause);
        }
        if more > 0 {
            failure = failure.caused_by(format!("and {more} more"));
        }
        if !following.is_empty() {
            failure = failure.caused_by(format!(
                "behind {}: {}",
                if runs - following.len() == 1 { "it" } else { "them" },
                numbers(&following)
            ));
        }
        Err(failure.hint(HINT))
    }
}

/// What helps where a step would have to run.
pub(crate) const HINT: &str = "release once without --require-cached; roche release --dry-run says what will run and why";

/// Why a vertex need not run.
fn here(found: Found) -> &'static str {
    match found {
        Found::Recorded => "its result is in the cache",
        Found::Layers => "all its layers are in the cache",
        Found::Here => "these files of the machine are used where they are",
        Found::Inputs => "it only lays out what it takes in",
    }
}

/// Why a vertex runs.
fn why<'a>(cause: &Cause, behind: &dyn Fn(&Digest) -> Option<(usize, &'a str)>) -> String {
    match cause {
        Cause::New => "the cache has no result of it".to_owned(),
        Cause::Behind(digest) => match behind(digest) {
            Some((id, name)) => format!("behind {} {name}, which runs", id + 1),
            None => "behind a step that runs".to_owned(),
        },
        Cause::IgnoresCache => "--no-cache".to_owned(),
        Cause::UnknownImage => "the cache does not have the image".to_owned(),
        Cause::Layers { missing, of } => format!("the cache lacks {missing} of {of} layers"),
        Cause::Asked => "what it names may have changed, so it is asked every time".to_owned(),
        Cause::Fails(reason) => format!("it fails: {reason}"),
    }
}

/// Writes ascending numbers down, runs of them as `4-7`.
pub(crate) fn numbers(numbers: &[usize]) -> String {
    let mut out = String::new();
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run = rest.iter().zip(first..).take_while(|(number, expected)| *number == expected).count();
        let separator = if out.is_empty() { "" } else { ", " };
        let last = first + run - 1;
        let _ = match run {
            1 => write!(out, "{separator}{first}"),
            2 => write!(out, "{separator}{first}, {last}"),
            _ => write!(out, "{separator}{first}-{last}"),
        };
        rest = &rest[run..];
    }
    out
}

#[cfg(test)]
mod tests {
    use roche_engine::Graph;
    use roche_engine::op::{Exec, Metadata, Source};

    use super::*;

    /// A source, a step on it and a step on that.
    fn chain() -> (Definition, [Digest; 3]) {
        let mut graph = Graph::new();
        let source = graph.add(Source::image("docker.io/library/a:1"), Metadata::named("source")).unwrap();
        let one = graph.add(Exec::new(source, "/", &["one"]), Metadata::named("one")).unwrap();
        let two = graph.add(Exec::new(one, "/", &["two"]), Metadata::named("two")).unwrap();
        (graph.definition(two.into()), [source, one, two])
    }

    fn exact(expected: [Expected; 3]) -> (Definition, Outlook) {
        let (definition, digests) = chain();
        (definition, Outlook::Exact(digests.into_iter().zip(expected).collect()))
    }

    fn states(outlook: &Outlook, definition: &Definition) -> Vec<String> {
        let names: BTreeMap<Digest, usize> = definition.vertices().enumerate().map(|(id, vertex)| (vertex.digest, id)).collect();
        let behind = |digest: &Digest| names.get(digest).map(|&id| (id, "NAME"));
        let told = definition.vertices().map(|vertex| outlook.vertex(vertex, &behind));
        told.map(|told| format!("{}: {}", told.state, told.reason)).collect()
    }

    #[test]
    fn the_engine_s_word_is_passed_on_with_the_number_of_what_is_behind() {
        let (_, digests) = chain();
        let (definition, outlook) =
            exact([Expected::Cached(Found::Layers), Expected::Runs(Cause::New), Expected::Runs(Cause::Behind(digests[1]))]);
        let expected =
            ["cached: all its layers are in the cache", "run: the cache has no result of it", "run: behind 2 NAME, which runs"];
        assert_eq!(states(&outlook, &definition), expected);
    }

    #[test]
    fn of_a_daemon_nothing_is_certain_but_what_is_told_to_run() {
        let (definition, digests) = chain();
        let recorded = Outlook::Recorded([digests[0], digests[1]].into());
        let said = |outlook: &Outlook, definition: &Definition| -> Vec<String> {
            states(outlook, definition).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect()
        };
        assert_eq!(said(&recorded, &definition), ["likely", "likely", "unknown"]);
        assert_eq!(said(&recorded, &definition.without_cache()), ["likely", "run", "run"]);
        assert_eq!(said(&Outlook::Unknown("why".to_owned()), &definition), ["unknown"; 3]);
        recorded.refuse(&definition).unwrap();
    }

    #[test]
    fn a_refusal_names_what_would_run_and_counts_what_follows() {
        let (_, digests) = chain();
        let cached = || Expected::Cached(Found::Recorded);
        let (definition, outlook) = exact([cached(), cached(), cached()]);
        outlook.refuse(&definition).unwrap();
        let (definition, outlook) = exact([cached(), Expected::Runs(Cause::New), Expected::Runs(Cause::Behind(digests[1]))]);
        let failure = outlook.refuse(&definition).unwrap_err();
        assert_eq!(failure.exit, Exit::Policy);
        let said = failure.render();
        assert!(said.starts_with("error: 2 of 3 steps would run, and --require-cached lets none run\n"), "{said}");
        assert!(said.contains("caused by: step 2 one: the cache has no result of it\ncaused by: behind it: 3\n"), "{said}");
        assert!(!said.contains("source"), "{said}");
    }

    #[test]
    fn numbers_are_written_as_runs() {
        assert_eq!(numbers(&[]), "");
        assert_eq!(numbers(&[3]), "3");
        assert_eq!(numbers(&[1, 2, 4, 5, 6, 9]), "1, 2, 4-6, 9");
    }
}
