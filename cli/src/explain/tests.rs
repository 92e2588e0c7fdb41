//! Explanations of releases with the machine's own toolchain, as the frontend really plans them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use roche_engine::Digest;
use roche_engine::op::Platform;
use roche_engine::solver::{HostEntry, HostNode, HostTree};
use roche_frontend::host::{Certificates, Toolchain, Zones};
use roche_frontend::plan::{BaseImage, Host, plan, plan_on_host};
use roche_frontend::project::Project;
use roche_frontend::release::{self, Flags};
use roche_frontend::vendor::Vendored;

use super::causes::Kind;
use super::*;
use crate::document::{Material, Op, Setting, Subject};

/// A machine and a project on it.
#[derive(Clone)]
struct Machine {
    version: &'static str,
    toolchain: &'static str,
    crates: &'static str,
    certificates: Option<&'static str>,
    zones: Option<&'static str>,
    files: Vec<(&'static str, &'static str)>,
    build: &'static str,
    runtime: &'static str,
    runtime_content: &'static str,
    entrypoint: Option<&'static str>,
    roche: &'static str,
}

const MACHINE: Machine = Machine {
    version: "rustc 1.95.0",
    toolchain: "t",
    crates: "c",
    certificates: Some("pem"),
    zones: None,
    files: Vec::new(),
    build: "host",
    runtime: "scratch",
    runtime_content: "r",
    entrypoint: None,
    roche: "0.1.0",
};

impl Machine {
    /// The record of a release that succeeded.
    fn record(&self) -> Document {
        let folder = tempfile::tempdir().unwrap();
        let files = if self.files.is_empty() { vec![("functions.rs", "one\ntwo\n")] } else { self.files.clone() };
        files.iter().for_each(|(path, text)| std::fs::write(folder.path().join(path), text).unwrap());
        let project = Project::read(folder.path()).unwrap();
        let flags = Flags {
            tags: vec!["t".to_owned()],
            build_image: Some(self.build.to_owned()),
            runtime: Some(self.runtime.to_owned()),
            entrypoint: self.entrypoint.map(str::to_owned),
            tzdata: self.zones.is_some(),
            ..Flags::default()
        };
        let mut release = release::resolve(&flags, &BTreeMap::new(), true, &project, &|| panic!("a tag was given")).unwrap();
        release.platform = Platform::new("linux", "amd64");
        let image = |name: &str, content: &str| BaseImage {
            reference: name.parse().unwrap(),
            digest: Some(Digest::of(content.as_bytes())),
            config: br#"{"os":"linux","architecture":"amd64","config":{"Env":["A=b"]}}"#.to_vec(),
        };
        let node = HostNode::Bind("/x/rustc".into());
        let toolchain = Toolchain {
            tree: HostTree {
                digest: Digest::of(self.toolchain.as_bytes()),
                entries: vec![HostEntry { path: "/toolchain/bin/rustc".to_owned(), node }],
            },
            target: "x86_64-unknown-linux-gnu".to_owned(),
            version: self.version.to_owned(),
            env: vec!["PATH=/toolchain/bin".to_owned()],
            notices: Vec::new(),
        };
        let crates = Vendored { dir: PathBuf::new(), root: Digest::of(self.crates.as_bytes()), files: 1, size_bytes: 1 };
        let certificates = self.certificates.map(|data| Certificates { path: "/c.pem".into(), data: data.into() });
        let zones = self.zones.map(|data| Zones { path: "/z".into(), digest: Digest::of(data.as_bytes()), entries: Vec::new() });
        let runtime = (self.runtime != "scratch").then(|| image(self.runtime, self.runtime_content));
        let plan = if self.build == "host" {
            let (certificates, zones) = (certificates.as_ref(), zones.as_ref());
            let host = Host { toolchain: &toolchain, crates: &crates, certificates, zones };
            plan_on_host(&project, &release, &host, runtime.as_ref()).unwrap()
        } else {
            plan(&project, &release, &image(self.build, "b"), runtime.as_ref()).unwrap()
        };
        let (definition, unresolved, unknown) = (plan.definition(), Vec::new(), BTreeSet::new());
        let subject = Subject { project: &project, release: &release, plan: &plan, definition, unresolved, unknown };
        let mut document = subject.document();
        for (file, (_, text)) in document.function.iter_mut().zip(&files) {
            file.text = Some((*text).to_owned());
        }
        let setting = |name: &str, value: &str, from: &str| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
            from: from.to_owned(),
            by: None,
        };
        let material = |name: &str, version: Option<&str>, content: &str| {
            let digest = Digest::of(content.as_bytes()).to_string();
            (name.to_owned(), Material { version: version.map(str::to_owned), digest })
        };
        let mut materials = BTreeMap::new();
        if self.build == "host" {
            materials.extend([material("toolchain", Some(self.version), self.toolchain), material("crates", None, self.crates)]);
            materials.extend(self.certificates.map(|data| material("certificates", None, data)));
            materials.extend(self.zones.map(|data| material("timeZones", None, data)));
        }
        let full = |name: &str| name.parse::<roche_engine::oci::Reference>().map_or(name.to_owned(), |name| name.to_string());
        let named = |name: &str| if ["host", "scratch"].contains(&name) { name.to_owned() } else { full(name) };
        document.release = Some(Ran {
            id: "01234567".to_owned(),
            when: "2026-01-01T00:00:00Z".to_owned(),
            roche: self.roche.to_owned(),
            settings: vec![
                setting("build image", &named(self.build), "flag"),
                setting("runtime image", &named(self.runtime), "flag"),
                setting("platform", "linux/amd64", "default"),
                setting("entrypoint", release.entrypoint.name(), if self.entrypoint.is_some() { "flag" } else { "default" }),
                setting("time zones", if self.zones.is_some() { "yes" } else { "no" }, "flag"),
            ],
            materials,
            ..Ran::default()
        });
        document
    }
}

/// The kinds of the causes, and their sentences.
fn told(was: &Document, is: &Document) -> Vec<(Kind, String)> {
    let explanation = explain(Some(was), is).unwrap();
    explanation.causes.into_iter().map(|cause| (cause.kind, cause.text)).collect()
}

#[test]
fn every_change_of_a_machine_is_named_and_nothing_else() {
    let with = |change: fn(&mut Machine)| {
        let mut machine = MACHINE;
        change(&mut machine);
        machine
    };
    let onto = with(|machine| machine.runtime = "debian:12");
    let image = with(|machine| (machine.build, machine.runtime) = ("rust:1", "debian:12"));
    type Change = fn(&mut Machine);
    type Row<'a> = (&'a str, &'a Machine, Change, &'a [(Kind, &'a str)]);
    let table: [Row<'_>; 20] = [
        ("nothing", &MACHINE, |_| (), &[]),
        ("nothing on an image", &onto, |_| (), &[]),
        (
            "a newer toolchain",
            &MACHINE,
            |m| (m.version, m.toolchain) = ("rustc 1.96.0", "u"),
            &[(Kind::Toolchain, "toolchain is rustc 1.96.0 instead of rustc 1.95.0")],
        ),
        ("other files of it", &onto, |m| m.toolchain = "u", &[(Kind::Toolchain, "toolchain rustc 1.95.0 changed, from ")]),
        ("crates", &MACHINE, |m| m.crates = "d", &[(Kind::Crates, "crates changed, from ")]),
        ("certificates", &MACHINE, |m| m.certificates = Some("new"), &[(Kind::Certificates, "authorities changed, from ")]),
        (
            "certificates went",
            &MACHINE,
            |m| m.certificates = None,
            &[(Kind::Certificates, "no certificate authorities any more")],
        ),
        ("time zones", &MACHINE, |m| m.zones = Some("z"), &[(Kind::Setting, "--tzdata: time zones yes instead of no")]),
        (
            "an edit",
            &MACHINE,
            |m| m.files = vec![("functions.rs", "one\nTWO\n")],
            &[(Kind::File, "functions.rs changed at line 2")],
        ),
        ("an edit on an image", &onto, |m| m.files = vec![("functions.rs", "1\ntwo\n")], &[(Kind::File, "changed at line 1")]),
        (
            "a library",
            &MACHINE,
            |m| m.files = vec![("functions.rs", "one\ntwo\n"), ("lib.rs", "x")],
            &[(Kind::File, "lib.rs came")],
        ),
        (
            "a library on an image",
            &onto,
            |m| m.files = vec![("functions.rs", "one\ntwo\n"), ("lib.rs", "x")],
            &[(Kind::File, "lib.rs came")],
        ),
        ("the entrypoint", &onto, |m| m.entrypoint = Some("direct"), &[(Kind::Setting, "direct instead of script")]),
        ("onto an image", &MACHINE, |m| m.runtime = "debian:12", &[(Kind::Image, "the runtime image is debian:12")]),
        ("another image", &onto, |m| m.runtime = "debian:13", &[(Kind::Image, "the runtime image is debian:13")]),
        ("the image moved", &onto, |m| m.runtime_content = "s", &[(Kind::Image, "debian:12 moved from ")]),
        ("no image", &image, |m| m.runtime = "scratch", &[(Kind::Image, "the runtime image is scratch")]),
        ("a build image", &onto, |m| m.build = "rust:1", &[(Kind::Image, "the build image is rust:1")]),
        ("no build image", &image, |m| m.build = "host", &[(Kind::Image, "the build image is host")]),
        (
            "two at once",
            &onto,
            |m| (m.toolchain, m.files) = ("u", vec![("functions.rs", "1\ntwo\n")]),
            &[(Kind::File, "at line 1"), (Kind::Toolchain, "changed, from ")],
        ),
    ];
    for (what, was, change, expected) in table {
        let mut is = was.clone();
        change(&mut is);
        let told = told(&was.record(), &is.record());
        let right = told.len() == expected.len()
            && told.iter().zip(expected).all(|((kind, text), (expected, words))| kind == expected && text.contains(words));
        assert!(right, "{what}: {told:#?}");
        println!(
            "{what:24} {}",
            if told.is_empty() {
                "nothing".to_owned()
            } else {
                told.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" + ")
            }
        );
    }
}

#[test]
fn steps_of_another_roche_are_its_own() {
    let was = Machine { build: "rust:1", runtime: "debian:12", ..MACHINE };
    let mut is = Machine { roche: "0.2.0", files: vec![("functions.rs", "1\n")], ..was.clone() }.record();
    let was = was.record();
    // As a later roche would have it: another script, and so other digests from there on.
    let steps = is.vertices.iter().position(|vertex| vertex.name.starts_with("steps")).unwrap();
    let mut other = BTreeSet::from([steps]);
    for (id, vertex) in is.vertices.iter_mut().enumerate() {
        if let (true, Op::File { actions }) = (id == steps, &mut vertex.op)
            && let Some(crate::document::Action::Mkfile { content, .. }) = actions.first_mut()
        {
            content.digest = Digest::of(b"another script").to_string();
        }
        if id == steps || vertex.inputs.iter().any(|input| other.contains(&input.vertex)) {
            other.insert(id);
            vertex.digest = Some(Digest::of(format!("another {id}").as_bytes()).to_string());
        }
    }
    let told = told(&was, &is);
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(
        told[0].1.contains("functions.rs") && told[1].1 == "roche 0.2.0 instead of 0.1.0: steps compile.sh, runtime.sh",
        "{told:#?}"
    );
}

#[test]
fn a_document_that_is_no_record_is_not_explained() {
    let mut plan = MACHINE.record();
    plan.release = None;
    assert!(explain(Some(&MACHINE.record()), &plan).is_none());
    assert!(explain(None, &plan).is_none());
    let mut large = MACHINE.record();
    large.function = vec![large.function[0].clone(); FEW + 1];
    assert!(explain(None, &large).is_none());
}
