//! `roche history`: the releases that there are records of.
//!
//! Invariant: what is no record is passed over with a note, and ends nothing.

use std::fmt::Write as _;
use std::time::Duration;

use roche_engine::oci::Reference;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::args::HistoryArgs;
use crate::columns::{WIDE, cut, left, right, width};
use crate::document::{Document, Made};
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::record::{Key, Name, Records, brief};
use crate::text::{one_line, seconds};
use crate::{note, text, write_stdout};

/// A record that was read.
pub(crate) struct Listed<T> {
    /// What its file is called.
    pub(crate) name: Name,
    /// What it says.
    pub(crate) document: T,
}

/// Lists releases, the newest first.
pub(crate) fn run(args: &HistoryArgs, environment: &Environment) -> Result<(), Failure> {
    let records = records(environment)?;
    let project = project(environment)?;
    let names: Vec<Name> = names(&records)?.into_iter().filter(|name| args.all || name.project == project).collect();
    let listed: Vec<Listed<brief::Document>> = newest(&records, &names, usize::MAX);
    let out = if args.json {
        let releases: Vec<Value> = listed.iter().map(|listed| object(&listed.document)).collect();
        let json = serde_json::to_string_pretty(&json!({ "schemaVersion": 1, "releases": releases }));
        text::json(&format!("{}\n", json.expect("a JSON value is always written")))
    } else if args.quiet {
        listed.iter().map(|listed| format!("{}\n", listed.name.id)).collect()
    } else {
        if listed.is_empty() {
            note(none(environment).message());
        }
        let width = width(environment);
        listed.iter().map(|listed| entry(&listed.document, args.all, width)).collect()
    };
    write_stdout(out.as_bytes())
}

/// Returns the user's records.
pub(crate) fn records(environment: &Environment) -> Result<Records, Failure> {
    Records::of(environment).ok_or_else(|| {
        Failure::say(
            Exit::Configuration,
            "there is no folder for records: there is no home folder, and XDG_STATE_HOME is not set",
        )
        .hint("set one of them: export XDG_STATE_HOME=/var/lib/me")
    })
}

/// Lists all records, the newest first.
pub(crate) fn names(records: &Records) -> Result<Vec<Name>, Failure> {
    records.list().map_err(|error| {
        Failure::say(Exit::Configuration, format!("{} cannot be read: {error}", records.folder().display()))
            .hint("make it a folder that you can read, or keep records in another one: export XDG_STATE_HOME=FOLDER")
    })
}

/// Returns the key of the project in the current folder.
pub(crate) fn project(environment: &Environment) -> Result<Key, Failure> {
    let folder = environment.folder.canonicalize().map_err(|error| {
        Failure::say(Exit::Project, format!("the current folder cannot be read: {error}")).hint("cd to a folder that exists")
    })?;
    Ok(Key::project(&roche_frontend::project::root(&folder)))
}

/// Reads the newest records of a list, so many of them; what is no record is passed over.
pub(crate) fn newest<T: DeserializeOwned>(records: &Records, names: &[Name], count: usize) -> Vec<Listed<T>> {
    let read = |name: &Name| match records.read(name) {
        Ok(document) => Some(Listed { name: name.clone(), document }),
        Err(why) => {
            note(&why);
            None
        }
    };
    names.iter().filter_map(read).take(count).collect()
}

/// Says that there are no releases.
pub(crate) fn none(environment: &Environment) -> Failure {
    let folder = environment.folder.display();
    Failure::say(Exit::Project, format!("there is no record of a release of {folder}"))
        .hint("release it: roche release; or list every project's: roche history --all")
}

/// Writes a time as people read it: RFC 3339 to the second, with a space.
pub(crate) fn when(text: &str) -> String {
    let whole = text.split('.').next().unwrap_or(text).trim_end_matches('Z');
    format!("{}Z", whole.replacen('T', " ", 1))
}

/// Writes an image's name as people do, without what is the same for all.
pub(crate) fn familiar(name: &str) -> String {
    name.parse::<Reference>().map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Counts vertices by what came of them.
fn counts(document: &brief::Document) -> [(&'static str, usize); 5] {
    ["ran", "unchanged", "cached", "failed", "cancelled"].map(|state| {
        let is = |vertex: &&brief::Vertex| vertex.outcome.as_ref().is_some_and(|outcome| outcome.state == state);
        (state, document.vertices.iter().filter(is).count())
    })
}

fn object(document: &brief::Document) -> Value {
    let counts = counts(document).into_iter().map(|(state, count)| (state.to_owned(), json!(count)));
    let mut release = serde_json::to_value(&document.release).expect("a release is always JSON");
    release["names"] = json!(document.image.names);
    release["vertices"] = Value::Object(counts.collect());
    release
}

/// Renders a release: a line of facts, and one of what was made or why not.
fn entry(document: &brief::Document, all: bool, width: usize) -> String {
    let release = &document.release;
    let counts: Vec<String> =
        counts(document).iter().filter(|(_, count)| *count > 0).map(|(state, count)| format!("{count} {state}")).collect();
    let counts = if counts.is_empty() { "not planned".to_owned() } else { counts.join(", ") };
    let time = seconds(Duration::from_millis(release.duration_ms));
    let back_end = release.back_end.as_ref().map(|back_end| one_line(&back_end.name)).unwrap_or_default();
    let names = document.image.names.first().map(|name| familiar(name)).unwrap_or_default();
    let made = match (&release.error, release.result.as_ref().and_then(Made::best)) {
        (Some(error), _) => format!("failed: {}", error.message),
        (None, Some(digest)) => format!("{names}  {}", Document::short(digest)),
        (None, None) => names,
    };
    let made = match &release.folder {
        Some(folder) if all => format!("{folder}: {made}"),
        _ => made,
    };
    let id = one_line(&release.id);
    let mut lines = Vec::new();
    if width >= WIDE {
        let facts = format!("{id}  {}  {}  {}  ", when(&one_line(&release.when)), right(&time, 7), left(&counts, 18));
        lines.push(format!("{facts}{back_end}"));
        lines.push(format!("          {}", one_line(&made)));
    } else {
        lines.extend([format!("{id}  {time}"), when(&one_line(&release.when)), counts, one_line(&made)]);
    }
    lines.into_iter().fold(String::new(), |mut out, line| {
        let _ = writeln!(out, "{}", cut(line.trim_end(), width));
        out
    })
}
