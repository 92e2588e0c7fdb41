//! Live progress on a terminal: a line a vertex, the last lines of what runs below it.
//!
//! Invariant: a frame never has more rows than the terminal, so that what is drawn can be drawn
//! over; the last frame stays and is complete.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::trace::{Trace, VertexTrace};
use crate::text;

/// Lines of output shown below a vertex that runs.
const LOG_ROWS: usize = 6;

/// What stands on the terminal.
#[derive(Default)]
pub(crate) struct Screen {
    rows: usize,
}

impl Screen {
    /// Returns what draws the present state over the last one.
    pub(crate) fn draw(&mut self, trace: &Trace, now: SystemTime, colour: bool) -> String {
        let (width, height) = terminal_size();
        let mut lines = frame(trace, now, colour, width, true);
        // The newest rows are the ones that matter.
        lines.drain(..lines.len().saturating_sub(height.saturating_sub(1).max(1)));
        self.replace(&lines)
    }

    /// Returns what leaves the whole state on the terminal.
    pub(crate) fn finish(&mut self, trace: &Trace, now: SystemTime, colour: bool) -> String {
        let (width, _) = terminal_size();
        let lines = frame(trace, now, colour, width, false);
        self.replace(&lines)
    }

    fn replace(&mut self, lines: &[String]) -> String {
        let mut out = String::new();
        if self.rows > 0 {
            let _ = write!(out, "\u{1b}[{}A", self.rows);
        }
        out.push_str("\r\u{1b}[J");
        for line in lines {
            out.push_str(line);
            out.push('\n');
        }
        self.rows = lines.len();
        out
    }
}

fn frame(trace: &Trace, now: SystemTime, colour: bool, width: usize, logs: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for vertex in trace.vertices.iter().filter(|vertex| vertex.started.is_some()) {
        lines.push(heading(vertex, now, colour, width));
        if logs && vertex.running() {
            lines.extend(vertex.tail(LOG_ROWS).iter().map(|line| {
                let text = fit(&text::printable(line.rsplit('\r').next().unwrap_or_default(), false), width.saturating_sub(6));
                if colour { format!("    \u{1b}[2m{text}\u{1b}[0m") } else { format!("    {text}") }
            }));
        }
    }
    lines
}

fn heading(vertex: &VertexTrace, now: SystemTime, colour: bool, width: usize) -> String {
    let (mark, outcome, sgr) = if !vertex.error.is_empty() {
        ("x", "ERROR".to_owned(), "31")
    } else if vertex.cached {
        ("=", "CACHED".to_owned(), "36")
    } else if vertex.running() {
        (">", text::seconds(vertex.elapsed(now)), "33")
    } else {
        ("+", text::seconds(vertex.elapsed(now)), "32")
    };
    let room = width.saturating_sub(outcome.len() + 5).max(8);
    let name = fit(&text::one_line(&vertex.name), room);
    let gap = room.saturating_sub(name.chars().count());
    let line = format!(" {mark} {name}{:gap$} {outcome}", "");
    if colour { format!("\u{1b}[{sgr}m{line}\u{1b}[0m") } else { line }
}

/// Cuts text to a number of columns.
fn fit(text: &str, columns: usize) -> String {
    let text = text::untabbed(text);
    if text.chars().count() <= columns {
        return text;
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

/// Returns the terminal's columns and rows; 80 and 24 where it does not say.
fn terminal_size() -> (usize, usize) {
    let size = terminal_size::terminal_size_of(std::io::stderr());
    size.map_or((80, 24), |(width, height)| (usize::from(width.0).max(20), usize::from(height.0).max(2)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roche_engine::Digest;
    use roche_engine::solver::{LogProgress, Progress, VertexProgress};

    use super::*;

    fn trace() -> Trace {
        let start = SystemTime::UNIX_EPOCH;
        let vertex = |name: &str, cached, completed| VertexProgress {
            digest: Digest::of(name.as_bytes()),
            inputs: Vec::new(),
            name: name.into(),
            cached,
            started: Some(start),
            completed,
            error: String::new(),
        };
        let mut trace = Trace::default();
        trace.fold(Progress {
            vertices: vec![vertex("image", true, Some(start)), vertex("compile a service with a long name", false, None)],
            logs: vec![LogProgress {
                vertex: Digest::of(b"compile a service with a long name"),
                stream: 2,
                data: b"Compiling x\n".to_vec(),
                timestamp: None,
            }],
            ..Progress::default()
        });
        trace
    }

    #[test]
    fn a_frame_has_a_line_a_vertex_and_the_output_of_what_runs() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        let lines = frame(&trace(), now, false, 30, true);
        assert_eq!(lines, [" = image               CACHED", " > compile a service wi… 1.5s", "    Compiling x"]);
    }

    #[test]
    fn tabs_do_not_make_a_row_wider_than_the_terminal() {
        assert_eq!(fit("a\tb\tc", 12), "a       b  …");
        assert_eq!(fit("a\tb", 12), "a       b");
    }

    #[test]
    fn a_frame_is_drawn_over_the_one_before() {
        let mut screen = Screen::default();
        screen.draw(&trace(), SystemTime::UNIX_EPOCH, false);
        assert!(screen.finish(&trace(), SystemTime::UNIX_EPOCH, false).starts_with("\u{1b}[3A\r\u{1b}[J"));
    }
}
