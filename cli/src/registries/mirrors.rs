//! Mirrors of Docker Hub, where docker's daemon has them set: `registry-mirrors` in its `daemon.json`.
//!
//! Invariant: the user's own file stands before the system's, and a mirror that is not spoken to over
//! https is not used.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::environment::Environment;
use crate::error::{Exit, Failure};
use crate::note;

/// The registry that docker has mirrors of.
const HUB: &str = "docker.io";

/// The system's file; a user's is in the folder of his configurations.
const SYSTEM: &str = "/etc/docker/daemon.json";

/// Reads the mirrors of each registry that has some.
pub(super) fn configured(environment: &Environment) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let xdg = environment.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let configs = xdg.or_else(|| Some(environment.home()?.join(".config")));
    let files = configs.map(|configs| configs.join("docker/daemon.json")).into_iter().chain([SYSTEM.into()]);
    let (mirrors, unused) = find(files)?;
    for mirror in unused {
        note(&format!("the mirror {mirror} is not used: mirrors are spoken to over https"));
    }
    Ok(if mirrors.is_empty() { BTreeMap::new() } else { [(HUB.to_owned(), mirrors)].into() })
}

/// Reads the first file that is there; returns its mirrors, and those that cannot be used.
fn find(files: impl Iterator<Item = PathBuf>) -> Result<(Vec<String>, Vec<String>), Failure> {
    for file in files {
        match std::fs::read(&file) {
            Ok(bytes) => return parse(&file, &bytes),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            // Root's own file is of no concern to others.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(wrong(&file, &error.to_string())),
        }
    }
    Ok(Default::default())
}

fn parse(file: &Path, bytes: &[u8]) -> Result<(Vec<String>, Vec<String>), Failure> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Default::default());
    }
    let config: Value = serde_json::from_slice(bytes).map_err(|error| wrong(file, &error.to_string()))?;
    let mirrors = match config.get("registry-mirrors") {
        None | Some(Value::Null) => return Ok(Default::default()),
        Some(mirrors) => mirrors.as_array().ok_or_else(|| wrong(file, "registry-mirrors is no list"))?,
    };
    let mirrors: Option<Vec<&str>> = mirrors.iter().map(Value::as_str).collect();
    let mirrors = mirrors.ok_or_else(|| wrong(file, "registry-mirrors has something that is no text"))?;
    let (usable, unused): (Vec<&str>, Vec<&str>) = mirrors.into_iter().partition(|mirror| place(mirror).is_some());
    Ok((usable.into_iter().filter_map(place).collect(), unused.into_iter().map(str::to_owned).collect()))
}

/// Returns a mirror's `host[:port][/prefix]`.
fn place(mirror: &str) -> Option<String> {
    let place = mirror.strip_prefix("https://")?.trim_end_matches('/');
    (!place.is_empty()).then(|| place.to_owned())
}

fn wrong(file: &Path, reason: &str) -> Failure {
    Failure::say(Exit::Configuration, format!("{}: {reason}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(Vec<String>, Vec<String>), (Exit, String)> {
        let folder = tempfile::tempdir().unwrap();
        let files = ["none.json", "daemon.json", "other.json"].map(|name| folder.path().join(name));
        std::fs::write(&files[1], text).unwrap();
        std::fs::write(&files[2], r#"{"registry-mirrors":["https://second"]}"#).unwrap();
        find(files.into_iter()).map_err(|failure| (failure.exit, failure.render()))
    }

    #[test]
    fn mirrors_are_those_of_the_first_file_that_is_there() {
        let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let text = r#"{"debug":true,"registry-mirrors":["https://m.example/","http://plain","https://m:5000/hub","https://"]}"#;
        assert_eq!(read(text), Ok((strings(&["m.example", "m:5000/hub"]), strings(&["http://plain", "https://"]))));
        for none in ["", " \n", "{}", r#"{"registry-mirrors":null}"#, r#"{"registry-mirrors":[]}"#] {
            assert_eq!(read(none), Ok((vec![], vec![])), "{none:?}");
        }
        // A home that is a file holds none either.
        assert_eq!(find(["/etc/passwd/daemon.json".into()].into_iter()).unwrap(), (vec![], vec![]));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_named() {
        for text in ["{", r#"{"registry-mirrors":"https://m"}"#, r#"{"registry-mirrors":[1]}"#] {
            let (exit, said) = read(text).unwrap_err();
            assert!(exit == Exit::Configuration && said.contains("daemon.json: "), "{text}: {said}");
        }
    }
}
