//! `roche explain`: why a release is another one than the release before it.
//!
//! 1. Two records are read: the last two of the project, or those that are named.
//! 2. [`pair`] holds their graphs against each other, [`causes`] finds what is behind the difference.
//! 3. [`text`] says it for people; `--json` writes it for programs.
//!
//! Invariant: what merely followed is never given as a cause.

mod causes;
mod lines;
mod pair;
mod roots;
mod text;

use serde::Serialize;

use crate::args::ExplainArgs;
use crate::columns;
use crate::document::{Document, Ran, VERSION, Vertex};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::history::{self, Listed};
use crate::record::Records;
use causes::{Cause, Comparison};

/// Files and images that a release has at most; a record with more is none of ours.
const FEW: usize = 100;

/// Everything that there is to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation<'a> {
    schema_version: u32,
    release: Side<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Side<'a>>,
    causes: Vec<Cause>,
    /// Vertices that changed because something beneath them did.
    followed: Vec<Step<'a>>,
}

/// One of the two releases.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Side<'a> {
    id: &'a str,
    when: &'a str,
    names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A vertex of the later release.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    vertex: usize,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
}

/// Explains a release.
pub(crate) fn run(args: &ExplainArgs, environment: &Environment) -> Result<(), Failure> {
    let records = history::records(environment)?;
    let all = history::names(&records)?;
    let project = history::project(environment)?;
    let own: Vec<_> = all.iter().filter(|name| name.project == project).cloned().collect();
    let (was, is) = match &args.ids[..] {
        [] => {
            let Some(is) = history::newest::<Document>(&records, &own, 1).pop() else { return Err(history::none(environment)) };
            (before(&records, &own, &is.name), is)
        }
        [id] => {
            let is = find(&records, &own, &all, id)?;
            (before(&records, &all, &is.name), is)
        }
        [was, is, ..] => (Some(find(&records, &own, &all, was)?), find(&records, &own, &all, is)?),
    };
    let explanation = explain(was.as_ref().map(|was| &was.document), &is.document);
    let Some(explanation) = explanation else {
        let id = &is.name.id;
        return Err(Failure::say(
            Exit::Configuration,
            format!("the record of {id}, or the one before it, is none that roche wrote"),
        )
        .hint("name two others: roche history"));
    };
    let out = if args.json {
        let json = serde_json::to_string_pretty(&explanation).expect("an explanation is always JSON");
        crate::text::json(&format!("{json}\n"))
    } else {
        text::render(&explanation, columns::width(environment))
    };
    crate::write_stdout(out.as_bytes())
}

/// Returns the project's release before this one: the newest that was planned, where one was.
fn before(records: &Records, names: &[crate::record::Name], this: &crate::record::Name) -> Option<Listed<Document>> {
    let at = names.iter().position(|name| name == this).map_or(names.len(), |at| at + 1);
    let mut unplanned = None;
    for name in names[at..].iter().filter(|name| name.project == this.project) {
        let Some(listed) = history::newest::<Document>(records, std::slice::from_ref(name), 1).pop() else { continue };
        if !listed.document.vertices.is_empty() {
            return Some(listed);
        }
        unplanned = unplanned.or(Some(listed));
    }
    unplanned
}

/// Finds a release by its id or the start of it, among the project's own first.
fn find(
    records: &Records,
    own: &[crate::record::Name],
    all: &[crate::record::Name],
    id: &str,
) -> Result<Listed<Document>, Failure> {
    let of = |names: &[crate::record::Name]| -> Vec<crate::record::Name> {
        names.iter().filter(|name| name.id.starts_with(id)).cloned().collect()
    };
    let own = of(own);
    let found = if own.is_empty() { of(all) } else { own };
    let usage = |what: &str| Failure::say(Exit::Usage, format!("{id:?} {what}")).hint("list them: roche history --all");
    match &found[..] {
        _ if id.is_empty() => Err(usage("is no release")),
        [] => Err(usage("is no release that there is a record of")),
        [name] => {
            let refused = |why: String| Failure::say(Exit::Configuration, why).hint("name another one: roche history");
            let document: Document = records.read(name).map_err(refused)?;
            Ok(Listed { name: name.clone(), document })
        }
        _ => Err(usage("is the start of several releases' ids")),
    }
}

/// Compares two documents; none where one is a plan, and no record.
fn explain<'a>(was: Option<&'a Document>, is: &'a Document) -> Option<Explanation<'a>> {
    let sane = |document: &Document| document.function.len().max(document.bases.len()) <= FEW;
    let release = side(is).filter(|_| sane(is) && was.is_none_or(sane))?;
    let Some(was) = was else {
        return Some(Explanation { schema_version: VERSION, release, against: None, causes: Vec::new(), followed: Vec::new() });
    };
    let comparison = Comparison::of(was, is)?;
    let step = |vertex: &'a Vertex| Step {
        vertex: vertex.id,
        name: &vertex.name,
        state: causes::state(vertex),
        duration_ms: vertex.outcome.as_ref().and_then(|outcome| outcome.duration_ms),
    };
    Some(Explanation {
        schema_version: VERSION,
        release,
        against: Some(side(was)?),
        causes: comparison.causes(),
        followed: comparison.pairs.followers().into_iter().map(step).collect(),
    })
}

fn side(document: &Document) -> Option<Side<'_>> {
    let Ran { id, when, result, error, .. } = document.release.as_ref()?;
    Some(Side {
        id,
        when,
        names: &document.image.names,
        digest: result.as_ref().and_then(|made| made.best()),
        error: error.as_ref().map(|failed| failed.message.as_str()),
    })
}

#[cfg(test)]
mod tests;
