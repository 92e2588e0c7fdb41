//! Image configs: what a base says, and what the release's image says.
//!
//! Invariant: equal inputs give equal bytes (keys are sorted, the only time is the epoch), and
//! what is not understood is kept. The shape is the OCI image specification's `config.md` with
//! Docker's additions (`OnBuild`, `Healthcheck`, `ArgsEscaped`).

use std::collections::BTreeMap;

use roche_engine::op::Platform;
use serde_json::{Map, Value, json};

use super::builder::PROJECT;
use super::runtime::{FOLDER, USER};
use crate::release::Entrypoint;

/// What a process gets where an image names no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EPOCH: &str = "1970-01-01T00:00:00Z";
const PORT: &str = "8080";

/// An image's config as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ImageConfig(Map<String, Value>);

impl ImageConfig {
    /// Reads an image config; no bytes at all are a config that says nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let map: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|error| format!("its config is not a JSON object: {error}"))?;
        match map.get("config") {
            None | Some(Value::Null | Value::Object(_)) => Ok(Self(map)),
            Some(_) => Err("its config's `config` is not a JSON object".to_owned()),
        }
    }

    fn config(&self, key: &str) -> Option<&Value> {
        self.0.get("config")?.get(key)
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns the operating system; empty where it is not said.
    pub(crate) fn os(&self) -> &str {
        self.text("os")
    }

    /// Returns the architecture; empty where it is not said.
    pub(crate) fn architecture(&self) -> &str {
        self.text("architecture")
    }

    /// Returns whether the image has instructions for images that are built on it.
    pub(crate) fn has_on_build(&self) -> bool {
        self.config("OnBuild").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
    }

    /// Returns the user that processes run as; empty is root.
    pub(crate) fn user(&self) -> String {
        self.config("User").and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    /// Returns the environment as `NAME=value`, in the image's order.
    fn env(&self) -> Vec<String> {
        let list = self.config("Env").and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Returns the environment that a process gets: the image's, with a PATH.
    pub(crate) fn env_with_path(&self) -> Vec<String> {
        let mut env = self.env();
        if !env.iter().any(|pair| pair.starts_with("PATH=")) {
            set(&mut env, "PATH", DEFAULT_PATH);
        }
        env
    }

    /// Makes the config of the release's image out of its runtime image's.
    pub(crate) fn release(self, platform: &Platform, labels: &BTreeMap<String, String>, entrypoint: Entrypoint) -> Vec<u8> {
        let mut env = self.env_with_path();
        set(&mut env, "PORT", PORT);
        let by = ["roche release: rocheuser, the shared objects that the runtime lacks, /app"];
        self.derive(platform, &by, |config| {
            config.insert("Env".to_owned(), json!(env));
            config.insert("User".to_owned(), json!(USER));
            config.insert("WorkingDir".to_owned(), json!(FOLDER));
            config.insert("Cmd".to_owned(), json!([entrypoint.command()]));
            object(config, "ExposedPorts").insert(format!("{PORT}/tcp"), json!({}));
            label(config, labels);
        })
    }

    /// Makes the config of a build image out of its toolchain image's.
    pub(crate) fn prepare(self, platform: &Platform, labels: &BTreeMap<String, String>) -> Vec<u8> {
        let by = ["roche prepare: the service template and its crates", "roche prepare: the compiled dependencies"];
        self.derive(platform, &by, |config| {
            // The project is root's, so a release compiles as root.
            config.remove("User");
            config.insert("WorkingDir".to_owned(), json!(PROJECT));
            label(config, labels);
        })
    }

    /// Makes the config of an image with one more layer for each of `layers`, which say what made them.
    fn derive(mut self, platform: &Platform, layers: &[&str], change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
        let base_layers = self.0.get("rootfs").and_then(|rootfs| rootfs["diff_ids"].as_array()).map_or(0, Vec::len);
        // The exporter knows the layers; what ran to make the base is not the image's.
        for gone in ["rootfs", "container", "container_config", "id", "parent"] {
            self.0.remove(gone);
        }
        self.0.insert("created".to_owned(), json!(EPOCH));
        let said = [("os", &platform.os), ("architecture", &platform.architecture), ("variant", &platform.variant)];
        if self.os().is_empty() {
            self.0.extend(
                said.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key.to_owned(), json!(value))),
            );
        }
        let history = self.0.entry("history").or_insert_with(|| json!([]));
        if !history.is_array() {
            *history = json!([]);
        }
        if let Some(history) = history.as_array_mut() {
            let told = history.iter().filter(|step| step["empty_layer"] != json!(true)).count();
            // A history may be left out, and one that is there has to tell of every layer.
            history.extend((told..base_layers).map(|_| json!({ "created": EPOCH })));
            let entry = |by: &&str| json!({ "created": EPOCH, "created_by": by, "comment": "roche" });
            history.extend(layers.iter().map(entry));
        }
        let config = object(&mut self.0, "config");
        config.remove("OnBuild");
        change(config);
        let mut bytes = Vec::new();
        write_sorted(&Value::Object(self.0), &mut bytes);
        bytes
    }
}

/// Sets a variable in a list of `NAME=value`, in its place where it is there.
pub(crate) fn set(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name)) {
        Some(there) => *there = pair,
        None => env.push(pair),
    }
}

fn label(config: &mut Map<String, Value>, labels: &BTreeMap<String, String>) {
    if !labels.is_empty() {
        object(config, "Labels").extend(labels.iter().map(|(key, value)| (key.clone(), json!(value))));
    }
}

/// Returns the object under `key`, made where there is none.
fn object<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made an object above")
}

/// Writes JSON with sorted keys, however `serde_json` was compiled.
fn write_sorted(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            out.push(b'{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                out.extend(Value::from(key.as_str()).to_string().bytes());
                out.push(b':');
                write_sorted(value, out);
            }
            out.push(b'}');
        }
        Value::Array(list) => {
            out.push(b'[');
            for (i, value) in list.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_sorted(value, out);
            }
            out.push(b']');
        }
        plain => out.extend(plain.to_string().bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(base: Value, entrypoint: Entrypoint) -> Value {
        let config = ImageConfig::parse(base.to_string().as_bytes()).unwrap();
        let labels = BTreeMap::from([("b".to_owned(), "new".to_owned())]);
        serde_json::from_slice(&config.release(&Platform::new("linux", "amd64"), &labels, entrypoint)).unwrap()
    }

    #[test]
    fn the_release_s_settings_stand_on_the_base_s() {
        let image = release(
            json!({
                "architecture": "arm64", "os": "linux", "variant": "v8", "created": "2020-02-02T00:00:00Z", "author": "kept",
                "rootfs": { "type": "layers", "diff_ids": ["sha256:x"] },
                "history": [{ "created_by": "base" }],
                "config": {
                    "User": "nobody", "Env": ["PATH=/bin", "PORT=1", "A=b=c"], "Entrypoint": ["/tini", "--"], "Cmd": ["sh"],
                    "ExposedPorts": { "9/udp": {} }, "Labels": { "a": "kept", "b": "old" }, "OnBuild": ["RUN x"],
                    "Healthcheck": { "Test": ["NONE"] }, "ArgsEscaped": true, "Unknown": 1
                }
            }),
            Entrypoint::Script,
        );
        assert_eq!(
            image,
            json!({
                "architecture": "arm64", "os": "linux", "variant": "v8", "created": EPOCH, "author": "kept",
                "history": [{ "created_by": "base" }, { "created": EPOCH, "comment": "roche",
                    "created_by": "roche release: rocheuser, the shared objects that the runtime lacks, /app" }],
                "config": {
                    "User": "rocheuser", "WorkingDir": "/app", "Env": ["PATH=/bin", "PORT=8080", "A=b=c"],
                    "Entrypoint": ["/tini", "--"], "Cmd": ["./run.sh"], "ExposedPorts": { "9/udp": {}, "8080/tcp": {} },
                    "Labels": { "a": "kept", "b": "new" }, "Healthcheck": { "Test": ["NONE"] }, "ArgsEscaped": true, "Unknown": 1
                }
            })
        );
    }

    #[test]
    fn a_base_that_says_nothing_gets_the_platform_and_a_path() {
        let image = release(json!({ "config": null, "history": null }), Entrypoint::Direct);
        assert_eq!((&image["os"], &image["architecture"]), (&json!("linux"), &json!("amd64")));
        assert_eq!(image["config"]["Env"], json!([format!("PATH={DEFAULT_PATH}"), "PORT=8080"]));
        assert_eq!(image["config"]["Cmd"], json!(["/app/roche-service"]));
        assert_eq!(image["history"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_history_tells_of_every_layer_of_the_base() {
        let steps = |history: Value| {
            let base = json!({ "rootfs": { "type": "layers", "diff_ids": ["a", "b"] }, "history": history });
            let image = release(base, Entrypoint::Script);
            image["history"].as_array().unwrap().iter().filter(|step| step["empty_layer"] != json!(true)).count()
        };
        for history in [json!(null), json!([]), json!([{ "empty_layer": true }, {}]), json!([{}, {}])] {
            assert_eq!(steps(history.clone()), 3, "{history}");
        }
    }

    #[test]
    fn keys_are_sorted_and_texts_escaped() {
        let mut bytes = Vec::new();
        write_sorted(&json!({ "b": [1, { "z": null, "a\"": "\n" }], "a": {} }), &mut bytes);
        assert_eq!(String::from_utf8(bytes).unwrap(), r#"{"a":{},"b":[1,{"a\"":"\n","z":null}]}"#);
    }

    #[test]
    fn what_is_no_config_is_refused() {
        assert!(ImageConfig::parse(b"[]").is_err());
        assert!(ImageConfig::parse(b"{\"config\":1}").is_err());
        assert!(ImageConfig::parse(b"nonsense").is_err());
        assert_eq!(ImageConfig::parse(b"").unwrap(), ImageConfig::default());
    }
}
