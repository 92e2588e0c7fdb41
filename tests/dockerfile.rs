//! A release and the documented Dockerfile, built by the same daemon, are the same image where it
//! counts: every path under `/app`, rocheuser, and the config.
//!
//! Red when: a mode, an owner, a byte of the program or a field of the config differs from what
//! `docker build` makes of `fixtures/documented`.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::harness::{Daemon, Project, Roche, Tag, files, fixture, image, on_every_daemon, unique};

const FIELDS: [&str; 9] = ["User", "WorkingDir", "Env", "ExposedPorts", "Cmd", "Entrypoint", "Labels", "Volumes", "Healthcheck"];

on_every_daemon!(a_release_equals_the_documented_dockerfile_on_debian);
fn a_release_equals_the_documented_dockerfile_on_debian(daemon: &Daemon) {
    compare(daemon, "debian");
}

on_every_daemon!(a_release_equals_the_documented_dockerfile_on_busybox);
fn a_release_equals_the_documented_dockerfile_on_busybox(daemon: &Daemon) {
    compare(daemon, "busybox");
}

fn compare(daemon: &Daemon, runtime: &str) {
    let project = Project::hello(&unique());
    let released = daemon.tag();
    let runtime_image = image(&format!("runtime-{runtime}"));
    Roche::release(daemon, project.root()).args(["-r", &runtime_image]).tag(&released).run().succeeds();
    let built = docker_build(daemon, &project, runtime, &runtime_image);

    let (ours, theirs) = (files(daemon, &released.name, "/app"), files(daemon, &built.name, "/app"));
    let paths = |files: &BTreeMap<String, _>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(paths(&ours), paths(&theirs));
    for (path, expected) in &theirs {
        let entry = &ours[path];
        assert_eq!(format!("{:o}", entry.mode), format!("{:o}", expected.mode), "the mode of {path}");
        assert_eq!(entry.owner, expected.owner, "the owner of {path}");
        assert_eq!(entry.group, expected.group, "the group of {path}");
        assert!(
            entry.content == expected.content,
            "the content of {path}: {} and {} bytes",
            entry.content.len(),
            expected.content.len()
        );
    }
    for (table, file) in [("user", "/etc/passwd"), ("group", "/etc/group")] {
        let count = |image: &Tag| {
            let text = files(daemon, &image.name, file)[file].content.clone();
            String::from_utf8(text).unwrap().lines().filter(|line| line.starts_with("rocheuser:")).count()
        };
        assert_eq!((count(&released), count(&built)), (1, 1), "the {table} rocheuser, in {file}");
    }
    let config = |image: &Tag| daemon.inspect(&image.name)["Config"].clone();
    let (ours, theirs) = (config(&released), config(&built));
    for field in FIELDS {
        assert_eq!(plain(&ours[field]), plain(&theirs[field]), "the config's {field}");
    }
}

fn docker_build(daemon: &Daemon, project: &Project, runtime: &str, runtime_image: &str) -> Tag {
    let context = tempfile::tempdir().unwrap();
    fs::copy(fixture(&format!("documented/{runtime}.Dockerfile")), context.path().join("Dockerfile")).unwrap();
    fs::copy(project.path("functions.rs"), context.path().join("functions.rs")).unwrap();
    daemon.build(context.path(), &[("BUILD", &image("build")), ("RUNTIME", runtime_image)])
}

/// A field without the difference between empty and absent, which docker itself does not keep.
fn plain(value: &Value) -> Value {
    let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty);
    if empty { Value::Null } else { value.clone() }
}
