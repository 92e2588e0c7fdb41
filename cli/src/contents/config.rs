//! An image's config, as far as people ask for it.
//!
//! Invariant: whatever the config holds, it is text here; what is of another form than the specification's is passed over. The
//! value of a variable that looks like a secret is gone.

use std::collections::BTreeMap;

use roche_frontend::project::secrets::is_secret_variable;
use serde_json::{Map, Value};

/// What stands for a value that is not shown.
pub(crate) const HIDDEN: &str = "(hidden)";

/// What a container of the image starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) user: String,
    pub(crate) workdir: String,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) ports: Vec<String>,
    pub(crate) volumes: Vec<String>,
    /// Names and values; those of secrets are [`HIDDEN`].
    pub(crate) env: BTreeMap<String, String>,
    /// The names of variables that look like secrets.
    pub(crate) secrets: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) stop_signal: String,
    /// The config's own object, with secrets hidden.
    pub(crate) value: Value,
}

impl Settings {
    /// Reads an image's config.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let mut config = document.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
        let text =
            |config: &Map<String, Value>, key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |config: &Map<String, Value>, key: &str| -> Vec<String> {
            let items = config.get(key).and_then(Value::as_array).into_iter().flatten();
            items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let keys = |config: &Map<String, Value>, key: &str| -> Vec<String> {
            config.get(key).and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
        };
        let (mut env, mut secrets) = (BTreeMap::new(), Vec::new());
        for line in list(&config, "Env") {
            let (name, value) = line.split_once('=').unwrap_or((&line, ""));
            let is_secret = is_secret_variable(name, value);
            if is_secret {
                secrets.push(name.to_owned());
            }
            env.insert(name.to_owned(), if is_secret { HIDDEN.to_owned() } else { value.to_owned() });
        }
        if let Some(Value::Array(lines)) = config.get_mut("Env") {
            for line in lines {
                let name = line.as_str().and_then(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
                if let Some(name) = name.filter(|name| secrets.contains(name)) {
                    *line = Value::from(format!("{name}={HIDDEN}"));
                }
            }
        }
        let labels = config.get("Labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        Self {
            user: text(&config, "User"),
            workdir: text(&config, "WorkingDir"),
            entrypoint: list(&config, "Entrypoint"),
            command: list(&config, "Cmd"),
            ports: keys(&config, "ExposedPorts"),
            volumes: keys(&config, "Volumes"),
            env,
            secrets,
            labels,
            stop_signal: text(&config, "StopSignal"),
            value: Value::Object(config),
        }
    }
}

/// Returns what made a layer, without the values of build arguments that look like secrets, and the names of these.
pub(crate) fn without_secrets(created_by: &str) -> (String, Vec<String>) {
    let mut secrets = Vec::new();
    let words: Vec<String> = created_by
        .split(' ')
        .map(|word| match word.split_once('=') {
            Some((name, value)) if is_secret_variable(name.trim_start_matches(['"', '\'']), value) => {
                secrets.push(name.to_owned());
                format!("{name}={HIDDEN}")
            }
            _ => word.to_owned(),
        })
        .collect();
    (words.join(" "), secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_is_read_whatever_it_holds() {
        let config = br#"{"config": {"User": "me", "WorkingDir": 7, "Env": ["A=b=c", "DB_PASSWORD=x", 3, "bare"],
            "ExposedPorts": {"80/tcp": {}}, "Labels": {"k": "v", "n": null}, "Cmd": null, "Entrypoint": ["/x", "y"]}}"#;
        let settings = Settings::read(config);
        assert_eq!((settings.user.as_str(), settings.workdir.as_str()), ("me", ""));
        assert_eq!(
            (settings.ports, settings.entrypoint, settings.command),
            (vec!["80/tcp".to_owned()], vec!["/x".to_owned(), "y".to_owned()], vec![])
        );
        let env = [("A", "b=c"), ("DB_PASSWORD", HIDDEN), ("bare", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!((settings.env, settings.secrets), (env.into(), vec!["DB_PASSWORD".to_owned()]));
        assert_eq!(settings.labels.len(), 1);
        assert!(!settings.value.to_string().contains("\"DB_PASSWORD=x\""), "{}", settings.value);
        for odd in ["", "[]", "{}", r#"{"config": null}"#, r#"{"config": {"Env": {}}}"#] {
            assert!(Settings::read(odd.as_bytes()).env.is_empty(), "{odd}");
        }
    }

    #[test]
    fn build_arguments_in_the_history_keep_their_names_alone() {
        let (shown, secrets) = without_secrets("|2 NPM_TOKEN=abc DEBUG=1 /bin/sh -c make");
        assert_eq!((shown.as_str(), secrets), ("|2 NPM_TOKEN=(hidden) DEBUG=1 /bin/sh -c make", vec!["NPM_TOKEN".to_owned()]));
    }
}
