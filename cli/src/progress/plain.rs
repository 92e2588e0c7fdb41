//! Progress line by line, in the form that `docker buildx build --progress plain` has.
//!
//! `#N` numbers a vertex; a heading names it whenever the output turns to another vertex.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::trace::{Change, Trace, VertexTrace};
use crate::text;

/// Remembers which vertex the output is about.
#[derive(Default)]
pub(crate) struct Printer {
    current: Option<usize>,
}

impl Printer {
    /// Returns what there is to print of the changes.
    pub(crate) fn print(&mut self, trace: &Trace, changes: &[Change], colour: bool) -> String {
        let mut out = String::new();
        for change in changes {
            let position = match change {
                Change::Started(vertex) | Change::Completed(vertex) => *vertex,
                Change::Line { vertex, .. } | Change::Status { vertex, .. } | Change::Warning { vertex, .. } => *vertex,
            };
            let vertex = &trace.vertices[position];
            if self.current != Some(position) {
                if self.current.is_some() {
                    out.push('\n');
                }
                let _ = writeln!(out, "#{} {}", vertex.number, text::one_line(&vertex.name));
                self.current = Some(position);
            }
            let number = vertex.number;
            match change {
                Change::Started(_) => {}
                Change::Line { at, line, .. } => {
                    for line in String::from_utf8_lossy(line).trim_end_matches('\r').split('\r') {
                        let _ = writeln!(out, "#{number} {:.3} {}", at.as_secs_f64(), text::printable(line, colour));
                    }
                }
                Change::Status { id, .. } => {
                    let _ = writeln!(out, "#{number} {}", status(vertex, id));
                }
                Change::Warning { text: warning, .. } => {
                    let _ = writeln!(out, "#{number} WARN: {}", text::one_line(warning));
                }
                Change::Completed(_) => {
                    let _ = writeln!(out, "#{number} {}", outcome(vertex));
                    self.current = Some(position);
                }
            }
        }
        out
    }
}

/// Says how a vertex ended.
fn outcome(vertex: &VertexTrace) -> String {
    if !vertex.error.is_empty() {
        return if vertex.error.ends_with("context canceled") {
            "CANCELED".into()
        } else {
            format!("ERROR: {}", text::one_line(&vertex.error))
        };
    }
    if vertex.cached {
        return "CACHED".into();
    }
    format!("DONE {}", text::seconds(vertex.elapsed(SystemTime::UNIX_EPOCH)))
}

/// Says how far a part of a vertex is.
fn status(vertex: &VertexTrace, id: &str) -> String {
    let status = &vertex.statuses[id];
    let mut line = text::one_line(id);
    let amount = |value: i64| text::size(u64::try_from(value).unwrap_or_default());
    if status.total > 0 {
        let _ = write!(line, " {} / {}", amount(status.current), amount(status.total));
    } else if status.current > 0 {
        let _ = write!(line, " {}", amount(status.current));
    }
    let elapsed = status.started.zip(status.completed).and_then(|(started, completed)| completed.duration_since(started).ok());
    let _ = write!(line, " {} done", text::seconds(elapsed.unwrap_or_default()));
    line
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roche_engine::Digest;
    use roche_engine::solver::{LogProgress, Progress, VertexProgress};

    use super::*;

    #[test]
    fn two_vertices_are_printed_under_their_headings() {
        let at = |seconds: u64| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let vertex = |name: &str, cached, completed| VertexProgress {
            digest: Digest::of(name.as_bytes()),
            inputs: Vec::new(),
            name: name.into(),
            cached,
            started: at(1),
            completed,
            error: String::new(),
        };
        let log =
            LogProgress { vertex: Digest::of(b"compile"), stream: 2, data: b"one\r\ntwo\x1b[2J\n".to_vec(), timestamp: at(2) };
        let messages = [
            Progress { vertices: vec![vertex("image", true, at(1)), vertex("compile", false, None)], ..Progress::default() },
            Progress { logs: vec![log], ..Progress::default() },
            Progress { vertices: vec![vertex("compile", false, at(4))], ..Progress::default() },
        ];
        let (mut trace, mut printer, mut out) = (Trace::default(), Printer::default(), String::new());
        for message in messages {
            let changes = trace.fold(message);
            out += &printer.print(&trace, &changes, false);
        }
        assert_eq!(out, "#1 image\n#1 CACHED\n\n#2 compile\n#2 1.000 one\n#2 1.000 two\n#2 DONE 3.0s\n");
    }
}
