//! Progress as BuildKit's status messages, one JSON object a line, as
//! `docker buildx build --progress rawjson` prints them.
//!
//! The shape is the JSON form of `SolveStatus` in BuildKit's `client/graph.go`.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roche_engine::solver::Progress;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::text;

/// Writes a message as a line.
pub(crate) fn line(progress: &Progress) -> Vec<u8> {
    let mut message = Map::new();
    let mut put = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            message.insert(key.to_owned(), Value::Array(values));
        }
    };
    put(
        "vertexes",
        progress
            .vertices
            .iter()
            .map(|vertex| {
                object([
                    ("digest", json!(vertex.digest.to_string())),
                    ("inputs", json!(vertex.inputs.iter().map(ToString::to_string).collect::<Vec<_>>())),
                    ("name", json!(vertex.name)),
                    ("started", timestamp(vertex.started)),
                    ("completed", timestamp(vertex.completed)),
                    ("cached", json!(vertex.cached)),
                    ("error", json!(vertex.error)),
                ])
            })
            .collect(),
    );
    put(
        "statuses",
        progress
            .statuses
            .iter()
            .map(|status| {
                let mut value = object([
                    ("id", json!(status.id)),
                    ("vertex", json!(status.vertex.to_string())),
                    ("name", json!(status.name)),
                    ("total", json!(status.total)),
                    ("timestamp", timestamp(status.timestamp)),
                    ("started", timestamp(status.started)),
                    ("completed", timestamp(status.completed)),
                ]);
                // The one number that BuildKit writes even where it is zero.
                value["current"] = json!(status.current);
                value
            })
            .collect(),
    );
    put(
        "logs",
        progress
            .logs
            .iter()
            .map(|log| {
                object([
                    ("vertex", json!(log.vertex.to_string())),
                    ("stream", json!(log.stream)),
                    ("data", json!(STANDARD.encode(&log.data))),
                    ("timestamp", timestamp(log.timestamp)),
                ])
            })
            .collect(),
    );
    put(
        "warnings",
        progress
            .warnings
            .iter()
            .map(|warning| {
                object([
                    ("vertex", json!(warning.vertex.to_string())),
                    ("level", json!(warning.level)),
                    ("short", json!(STANDARD.encode(&warning.short))),
                    ("detail", json!(warning.detail.iter().map(|line| STANDARD.encode(line)).collect::<Vec<_>>())),
                    ("url", json!(warning.url)),
                ])
            })
            .collect(),
    );
    let mut line = text::json(&Value::Object(message).to_string());
    line.push('\n');
    line.into_bytes()
}

/// Makes an object, leaving out what is empty, as Go's `omitempty` does.
fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let filled = fields.into_iter().filter(|(_, value)| match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(_) => true,
    });
    Value::Object(filled.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn timestamp(time: Option<SystemTime>) -> Value {
    time.and_then(|time| OffsetDateTime::from(time).format(&Rfc3339).ok()).map_or(Value::Null, Value::String)
}

#[cfg(test)]
mod tests {
    use roche_engine::Digest;
    use roche_engine::solver::{LogProgress, VertexProgress};

    use super::*;

    #[test]
    fn a_message_is_one_line_without_empty_fields() {
        let vertex = Digest::of(b"v");
        let progress = Progress {
            vertices: vec![VertexProgress {
                digest: vertex,
                inputs: Vec::new(),
                name: "a\nb\u{9b}\u{202e}".into(),
                cached: true,
                started: Some(SystemTime::UNIX_EPOCH),
                completed: None,
                error: String::new(),
            }],
            logs: vec![LogProgress { vertex, stream: 1, data: b"\x1b\n".to_vec(), timestamp: None }],
            ..Progress::default()
        };
        let line = line(&progress);
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        assert!(line.is_ascii(), "what a terminal would obey is escaped");
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            value["vertexes"][0],
            json!({"digest": vertex.to_string(), "name": "a\nb\u{9b}\u{202e}", "cached": true, "started": "1970-01-01T00:00:00Z"})
        );
        assert_eq!(value["logs"][0]["data"], "Gwo=");
        assert!(value.get("statuses").is_none());
    }
}
