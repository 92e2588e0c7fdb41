//! What came of a build: the report, the result line, the files that the flags asked for.
//!
//! Invariant: standard output gets the result alone; the files are written before it, so who sees
//! the result finds them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use roche_engine::Definition;
use roche_engine::oci::Reference;
use roche_engine::solver::{Exported, FileInfo};
use roche_frontend::plan::BaseImage;
use serde_json::{Map, Value};

use crate::args::OutputArgs;
use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::listing::{Line, listed};
use crate::outputs::Output;
use crate::progress::trace::VertexTrace;
use crate::progress::{Display, Trace};
use crate::{files, text};

/// What a failure says of the lines that were shown; records are read without them.
pub(crate) const ABOVE: &str = "; its last lines are above";

/// Lines of a failed step that are shown again at the end.
const FAILURE_LINES: usize = 40;

pub(crate) const DIGEST: &str = "containerimage.digest";
pub(crate) const CONFIG_DIGEST: &str = "containerimage.config.digest";
const DESCRIPTOR: &str = "containerimage.descriptor";

/// A file or folder of the image that it did not have from its base.
pub(crate) struct AddedFile {
    pub(crate) path: String,
    pub(crate) info: FileInfo,
}

/// Everything that the report speaks of.
pub(crate) struct Report<'a> {
    pub(crate) names: &'a [Reference],
    pub(crate) outputs: &'a [Output],
    pub(crate) backend: &'a Backend,
    pub(crate) bases: &'a [BaseImage],
    pub(crate) definition: &'a Definition,
    pub(crate) added: &'a [AddedFile],
    pub(crate) differences: Option<&'a [String]>,
    pub(crate) exported: &'a Exported,
    pub(crate) trace: &'a Trace,
    pub(crate) display: Display,
    pub(crate) elapsed: Duration,
}

impl Report<'_> {
    /// Writes the files that were asked for, tells the report and prints the result.
    pub(crate) fn tell(&self, args: &OutputArgs, environment: &Environment) -> Result<(), Failure> {
        if let Some(file) = &args.metadata_file {
            let json = serde_json::to_vec_pretty(&self.metadata()).expect("a JSON value is always written");
            files::replace(&environment.folder.join(file), &[json, b"\n".to_vec()].concat())?;
        }
        if let Some(file) = &args.iidfile {
            let (_, digest) = self.digest()?;
            files::replace(&environment.folder.join(file), digest.as_bytes())?;
        }
        if !args.quiet && self.display != Display::RawJson {
            let _ = std::io::stderr().lock().write_all(self.text()?.as_bytes());
        }
        if self.outputs.iter().any(Output::is_stdout) {
            return Ok(());
        }
        crate::result_line(&self.result(args.quiet)?)
    }

    /// The one line of standard output: the digest, the file, or the name with its digest.
    fn result(&self, quiet: bool) -> Result<OsString, Failure> {
        let in_store = self.outputs.iter().any(|output| matches!(output, Output::Store | Output::Registry));
        if quiet && (in_store || self.exported.response.contains_key(DIGEST)) {
            return Ok(self.digest()?.1.into());
        }
        if in_store {
            let name = self.names.first().map(ToString::to_string).unwrap_or_default();
            return Ok(format!("{name}@{}", self.digest()?.1).into());
        }
        Ok(self.outputs.iter().find_map(Output::place).map(OsString::from).unwrap_or_default())
    }

    /// The manifest's digest; where the store has no manifests, the image's id.
    pub(crate) fn digest(&self) -> Result<(&'static str, &str), Failure> {
        let response = &self.exported.response;
        let manifest = response.get(DIGEST).map(|digest| ("digest", digest.as_str()));
        manifest.or_else(|| response.get(CONFIG_DIGEST).map(|digest| ("image id", digest.as_str()))).ok_or_else(|| {
            Failure::say(Exit::Daemon, format!("{} wrote the image but did not say its digest", self.backend.solver.name()))
        })
    }

    fn metadata(&self) -> Value {
        let response = &self.exported.response;
        let mut metadata = Map::new();
        for key in [DIGEST, CONFIG_DIGEST] {
            metadata.extend(response.get(key).map(|value| (key.to_owned(), Value::String(value.clone()))));
        }
        let descriptor = response.get(DESCRIPTOR).and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        metadata
            .extend(descriptor.and_then(|json| serde_json::from_slice(&json).ok()).map(|value| (DESCRIPTOR.to_owned(), value)));
        let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
        metadata.insert("image.name".to_owned(), Value::String(names.join(",")));
        Value::Object(metadata)
    }

    fn text(&self) -> Result<String, Failure> {
        let mut rows: Vec<(&str, String)> = Vec::new();
        rows.extend(self.names.iter().map(|name| ("image", name.to_string())));
        if let Ok((label, digest)) = self.digest() {
            rows.push((label, digest.to_owned()));
        }
        rows.extend(self.outputs.iter().map(|output| {
            let place = match output {
                Output::Store => format!("the image store of {}", self.backend.solver.name()),
                Output::Registry => "the registry".to_owned(),
                other => other.place().map_or_else(|| "standard output".to_owned(), |file| file.display().to_string()),
            };
            ("written to", place)
        }));
        rows.push(("built by", format!("{} ({})", self.backend.solver.name(), self.backend.origin)));
        rows.extend(self.bases.iter().map(|base| {
            let digest =
                base.digest.map_or_else(|| " (as the daemon has it)".to_owned(), |digest| format!("@{}", digest.short()));
            ("base", format!("{}{digest}", base.reference.familiar()))
        }));
        rows.push(("steps", self.steps()));
        let files = self.added.iter().filter(|file| !file.info.is_dir());
        let added: Vec<(String, String)> =
            listed(files.collect(), |file| &file.path, |file| file.info.size_bytes).into_iter().map(shown).collect();
        let width = added.iter().map(|(path, _)| path.chars().count()).max().unwrap_or_default();
        rows.extend(added.into_iter().map(|(path, size)| ("added", format!("{path:width$}  {size}"))));
        match self.differences {
            None => {}
            Some([]) => rows.push(("contents", "as planned".to_owned())),
            Some(differences) => rows.extend(differences.iter().map(|difference| ("contents", difference.clone()))),
        }
        rows.push(("time", text::seconds(self.elapsed)));

        let mut out = String::from("\n");
        let mut last = "";
        for (label, value) in rows {
            let _ = writeln!(out, "{:>10}  {}", if label == last { "" } else { label }, text::one_line(&value));
            last = label;
        }
        Ok(out)
    }

    /// How many vertices were cached, and which ran.
    fn steps(&self) -> String {
        let total = self.definition.vertices().len();
        let ran = self.trace.executed(self.definition, self.backend.embedded);
        let mut said = format!("{} of {total} cached", total - ran.len());
        for (i, (vertex, trace)) in ran.iter().enumerate() {
            let separator = if i == 0 { "; ran " } else { ", " };
            let _ = write!(said, "{separator}{} {}", vertex.name(), text::seconds(trace.elapsed(SystemTime::UNIX_EPOCH)));
        }
        said
    }
}

/// Shows files that the image gained with their size.
fn shown(line: Line<&AddedFile>) -> (String, String) {
    match line {
        Line::One(file) => (file.path.clone(), text::size(file.info.size_bytes)),
        Line::Many(folder, files, bytes) => (format!("{folder}/"), format!("{}, {files} files", text::size(bytes))),
    }
}

/// Shows the last lines of the step that failed, and points the failure to them.
pub(crate) fn explain(failure: Failure, trace: &Trace, display: Display, environment: &Environment) -> Failure {
    let lines = last_lines(&failure, trace, display, environment.colour());
    let failure = exhausted(failure, trace);
    let Some(lines) = lines else { return failure };
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
    failure.adding(ABOVE)
}

/// A step that failed for want of room says so in its own words, in those of the C library: that is no
/// fault of what is built.
fn exhausted(mut failure: Failure, trace: &Trace) -> Failure {
    let full = |line: &String| {
        let line = line.to_lowercase();
        line.contains("no space left on device") || line.contains("disk quota exceeded")
    };
    if failed(&failure, trace).is_some_and(|step| step.tail(FAILURE_LINES).iter().any(full)) {
        failure.exit = Exit::Resource;
        return failure.caused_by("the step had no space left to write to");
    }
    failure
}

/// The step that failed, where one did.
fn failed<'a>(failure: &Failure, trace: &'a Trace) -> Option<&'a VertexTrace> {
    if failure.exit != Exit::Build {
        return None;
    }
    match failure.vertex {
        Some(digest) => trace.vertex(digest),
        None => trace.vertices.iter().find(|vertex| !vertex.error.is_empty() && !vertex.error.ends_with("context canceled")),
    }
}

/// The last lines of the step that failed, where it wrote any and standard error is for people.
fn last_lines(failure: &Failure, trace: &Trace, display: Display, colour: bool) -> Option<String> {
    if display == Display::RawJson {
        return None;
    }
    let vertex = failed(failure, trace)?;
    let lines = vertex.tail(FAILURE_LINES);
    if lines.is_empty() {
        return None;
    }
    let mut out = format!("\n--- {} ---\n", text::one_line(&vertex.name));
    for line in lines {
        let _ = writeln!(out, "{}", text::printable(line.rsplit('\r').next().unwrap_or_default(), colour));
    }
    out.push_str("---\n");
    Some(out)
}

#[cfg(test)]
mod tests {
    use roche_engine::solver::{LogProgress, Progress, VertexProgress};
    use roche_engine::{Digest, Error};

    use super::*;

    #[test]
    fn a_step_that_found_the_disk_full_is_a_matter_of_room() {
        for (wrote, exit) in [
            ("error: could not write output: No space left on device (os error 28)", Exit::Resource),
            ("write /x: disk quota exceeded", Exit::Resource),
            ("there is space left on this device", Exit::Build),
        ] {
            let digest = Digest::of(b"step");
            let data = format!("{wrote}\nand more\n").into_bytes();
            let mut trace = Trace::default();
            let logs = vec![LogProgress { vertex: digest, stream: 2, data, timestamp: None }];
            trace.fold(Progress { logs, ..Progress::default() });
            let step = Error::Step { vertex: Some(digest), name: "x".into(), exit_code: Some(1), reason: "".into(), hint: None };
            assert_eq!(exhausted(Failure::from(step), &trace).exit, exit, "{wrote}");
            assert_eq!(exhausted(Failure::say(Exit::Usage, "other"), &trace).exit, Exit::Usage);
        }
    }

    #[test]
    fn the_last_lines_are_those_of_the_step_that_failed() {
        let vertex = |name: &str| VertexProgress {
            digest: Digest::of(name.as_bytes()),
            inputs: Vec::new(),
            name: name.into(),
            cached: false,
            started: None,
            completed: None,
            error: "failed".into(),
        };
        let log = |name: &str| LogProgress {
            vertex: Digest::of(name.as_bytes()),
            stream: 2,
            data: format!("{name} wrote\n").into_bytes(),
            timestamp: None,
        };
        let mut trace = Trace::default();
        trace.fold(Progress {
            vertices: ["first", "second", "silent"].map(vertex).into(),
            logs: ["first", "second"].map(log).into(),
            ..Progress::default()
        });
        let shown = |vertex: Option<&str>, display| {
            let vertex = vertex.map(|name| Digest::of(name.as_bytes()));
            let failure =
                Failure::from(Error::Step { vertex, name: "x".into(), exit_code: Some(1), reason: "".into(), hint: None });
            last_lines(&failure, &trace, display, false)
        };
        assert_eq!(shown(Some("second"), Display::Quiet).unwrap(), "\n--- second ---\nsecond wrote\n---\n");
        assert_eq!(shown(None, Display::Quiet).unwrap(), "\n--- first ---\nfirst wrote\n---\n");
        for (vertex, display) in
            [(Some("silent"), Display::Quiet), (Some("unknown"), Display::Quiet), (Some("second"), Display::RawJson)]
        {
            assert_eq!(shown(vertex, display), None, "{vertex:?}");
        }
    }
}
