//! Progress in the rawjson form, as buildx prints it, read back.

use std::collections::BTreeMap;

use serde_json::Value;

/// All that a build said of itself.
#[derive(Default)]
pub(crate) struct Trace {
    /// The vertices, by digest.
    pub(crate) vertices: BTreeMap<String, Vertex>,
    /// What all steps wrote, in the order in which it came.
    pub(crate) log: Vec<u8>,
}

/// A vertex in its last state.
#[derive(Debug, Default)]
pub(crate) struct Vertex {
    /// What people are shown.
    pub(crate) name: String,
    /// Whether its result came from a cache. (The layers of such a result may be fetched later on.)
    pub(crate) cached: bool,
    /// Its inputs.
    inputs: Vec<String>,
    /// Whether it completed.
    pub(crate) completed: bool,
    /// Why it failed, if it did.
    pub(crate) error: String,
}

impl Trace {
    /// Reads standard error; every line that starts as an object has to be one.
    #[track_caller]
    pub(crate) fn of(stderr: &str) -> Self {
        let mut trace = Self::default();
        for line in stderr.lines().filter(|line| line.starts_with('{')) {
            let message: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the rawjson line {line}"));
            for vertex in list(&message["vertexes"]) {
                let known = trace.vertices.entry(text(&vertex["digest"])).or_default();
                known.name = text(&vertex["name"]);
                known.cached |= vertex["cached"].as_bool().unwrap_or(false);
                known.inputs.extend(list(&vertex["inputs"]).iter().map(text));
                known.completed |= vertex["completed"].is_string();
                known.error = text(&vertex["error"]);
            }
            for log in list(&message["logs"]) {
                trace.log.extend(decode_base64(&text(&log["data"])));
            }
        }
        assert!(!trace.vertices.is_empty(), "no vertex in the rawjson progress:\n{stderr}");
        trace
    }

    /// The vertices that a definition gave, without what daemon and client do beside it.
    pub(crate) fn of_the_definition(&self) -> impl Iterator<Item = (&String, &Vertex)> {
        const OWN: [&str; 8] =
            ["exporting", "[internal]", "[auth]", "pushing", "importing cache", "preparing", "resolve ", "sending"];
        self.vertices.iter().filter(|(_, vertex)| !OWN.iter().any(|start| vertex.name.starts_with(start)))
    }

    /// The names of the vertices whose work was done, and not taken from a cache.
    ///
    /// Of a vertex that has no inputs (an image, a constant file) a daemon computes the cache key
    /// and says no more, neither that it was cached nor that it was not, where nothing asks for its
    /// result. So it counts as done only where one that takes it was done too.
    pub(crate) fn done(&self) -> Vec<&str> {
        let done = |vertex: &Vertex| !vertex.cached;
        let needed = |digest: &String| self.vertices.values().any(|v| v.inputs.contains(digest) && done(v));
        let vertices = self.of_the_definition().filter(|(digest, v)| done(v) && (!v.inputs.is_empty() || needed(digest)));
        vertices.map(|(_, v)| v.name.as_str()).collect()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}

/// Decodes standard base64.
fn decode_base64(text: &str) -> Vec<u8> {
    let six_bits = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{:?} is no base64", char::from(other)),
    };
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'=').map(six_bits).collect();
    let mut data = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let bits = group.iter().fold(0u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        data.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    data
}

#[test]
fn base64_is_decoded_with_any_padding() {
    for (text, data) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYmE=", "fooba")] {
        assert_eq!(decode_base64(text), data.as_bytes(), "{text}");
    }
}
