//! A trace as a file in Chrome's trace event format, which Perfetto and `chrome://tracing` open.
//!
//! Invariant: events of one lane never overlap, so that what ran side by side is seen side by side. Times count from the start.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::trace::{Trace, VertexTrace};
use crate::text;

/// The lane of the command as a whole.
const WHOLE: usize = 0;

/// What a trace is of.
pub(crate) struct Traced<'a> {
    /// What was done, such as `roche release`.
    pub(crate) name: &'a str,
    pub(crate) trace: &'a Trace,
    /// When it started, by the clock of this machine.
    pub(crate) started: SystemTime,
    pub(crate) duration: Duration,
}

impl Traced<'_> {
    /// Writes the trace down: an object with `traceEvents`, one line each.
    pub(crate) fn json(&self) -> String {
        let start = self.trace.start(self.started, self.duration);
        let micros = |at: SystemTime| whole_micros(at.duration_since(start).unwrap_or_default());
        let mut runs: Vec<(u64, u64, &VertexTrace)> = Vec::new();
        for vertex in &self.trace.vertices {
            // What was going on when the work was ended has the end of the work.
            let ended = start + self.duration;
            runs.extend(vertex.runs().map(|(from, to)| (micros(from), micros(to.unwrap_or(ended)).max(micros(from)), vertex)));
        }
        runs.sort_by_key(|(from, to, vertex)| (*from, *to, vertex.number));
        let mut lanes: Vec<u64> = Vec::new();
        let mut events = vec![named("process_name", WHOLE, "roche"), named("thread_name", WHOLE, "command")];
        events.push(event(self.name, WHOLE, 0, whole_micros(self.duration), "command", json!({})));
        for (from, to, vertex) in runs {
            let lane = lanes.iter().position(|free| *free <= from).unwrap_or(lanes.len());
            if lane == lanes.len() {
                lanes.push(0);
                events.push(named("thread_name", lane + 1, &format!("steps {}", lane + 1)));
            }
            // Viewers draw what takes no time as a mark that covers what follows at once.
            let length = (to - from).max(1);
            lanes[lane] = from + length;
            let state = state(vertex);
            let name = if state == "cached" { format!("{} (cached)", vertex.name) } else { vertex.name.clone() };
            let mut args = json!({ "number": vertex.number, "state": state });
            if !vertex.error.is_empty() {
                args["error"] = json!(text::one_line(&vertex.error));
            }
            events.push(event(&name, lane + 1, from, length, state, args));
        }
        let lines: Vec<String> = events.iter().map(Value::to_string).collect();
        let about = json!({ "program": format!("roche {}", env!("CARGO_PKG_VERSION")) });
        let file = format!("{{\"displayTimeUnit\":\"ms\",\"otherData\":{about},\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"));
        text::json(&file)
    }
}

fn state(vertex: &VertexTrace) -> &'static str {
    match (vertex.cached, vertex.error.is_empty()) {
        (_, false) => "failed",
        (true, true) => "cached",
        (false, true) if vertex.completed.is_none() => "cancelled",
        (false, true) => "ran",
    }
}

fn named(what: &str, lane: usize, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": 1, "tid": lane, "args": { "name": name } })
}

fn event(name: &str, lane: usize, from: u64, length: u64, category: &str, args: Value) -> Value {
    let name = text::one_line(name);
    json!({ "ph": "X", "name": name, "cat": category, "pid": 1, "tid": lane, "ts": from, "dur": length, "args": args })
}

fn whole_micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use roche_engine::Digest;
    use roche_engine::solver::{Progress, VertexProgress};

    use super::*;

    fn vertex(name: &str, cached: bool, from: u64, to: Option<u64>) -> Progress {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let (digest, inputs) = (Digest::of(name.as_bytes()), Vec::new());
        let (started, completed, error) = (Some(at(from)), to.map(at), String::new());
        let vertex = VertexProgress { digest, inputs, name: name.to_owned(), cached, started, completed, error };
        Progress { vertices: vec![vertex], ..Progress::default() }
    }

    #[test]
    fn what_ran_side_by_side_is_in_lanes_of_its_own() {
        let mut trace = Trace::default();
        for told in [
            vertex("a\u{1b}[2J", false, 1000, Some(2000)),
            vertex("b", false, 1500, Some(1800)),
            vertex("c", true, 2000, Some(2000)),
            vertex("d", false, 2000, None),
        ] {
            trace.fold(told);
        }
        let (started, duration) = (SystemTime::UNIX_EPOCH + Duration::from_millis(900), Duration::from_millis(1600));
        let json = Traced { name: "roche release", trace: &trace, started, duration }.json();
        assert!(json.is_ascii() && !json.contains('\u{1b}'), "{json}");
        let file: Value = serde_json::from_str(&json).unwrap();
        let events = file["traceEvents"].as_array().unwrap().iter().filter(|event| event["ph"] == "X");
        let seen: Vec<_> = events
            .map(|event| {
                let number = |key: &str| event[key].as_u64().unwrap();
                (event["name"].as_str().unwrap(), number("tid"), number("ts"), number("dur"), event["cat"].as_str().unwrap())
            })
            .collect();
        let expected = [
            ("roche release", 0, 0, 1_600_000, "command"),
            ("a", 1, 100_000, 1_000_000, "ran"),
            ("b", 2, 600_000, 300_000, "ran"),
            ("c (cached)", 1, 1_100_000, 1, "cached"),
            ("d", 2, 1_100_000, 500_000, "cancelled"),
        ];
        assert_eq!(seen, expected);
    }
}
