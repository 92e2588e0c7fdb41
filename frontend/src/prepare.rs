//! `roche prepare`: the plan of a build image, any image with a Rust toolchain plus the service's
//! project under `/app-build` with its dependencies compiled.
//!
//! Invariant: the crates' root is in the graph, so a definition names everything that the image
//! is made of, although the crates themselves travel as a local source.

use std::collections::BTreeMap;

use roche_engine::Graph;
use roche_engine::oci::Reference;
use roche_engine::op::{Copy, File, FileActionKind, Metadata, Platform, Source};

use crate::plan::{self, BaseImage, Entry, EntryKind, Plan, PlanError, Stage};
use crate::release::{Checked, Flags, Image, ReleaseError};
use crate::stage::{self, TIME_NS, builder};
use crate::template;
use crate::vendor::{CARGO_CONFIG, FOLDER, Vendored};

const SCRIPT: (&str, &str) = ("prepare.sh", include_str!("stage/prepare.sh"));

/// The name under which the definition asks for [`Vendored::dir`]; every file in it may be sent,
/// for cargo checks that none is missing.
pub const LOCAL: &str = FOLDER;

/// A build image with every parameter decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// The image with the Rust toolchain.
    pub from: Image,
    /// The build image's names, each with a tag, at least one.
    pub tags: Vec<Reference>,
    /// What it runs on.
    pub platform: Platform,
    /// The labels that come on top of the toolchain image's.
    pub labels: BTreeMap<String, String>,
}

impl Prepare {
    /// Decides a build image: `from` is `--from`; of the flags, tags, platform and labels count.
    pub fn resolve(from: &str, flags: &Flags) -> Result<Self, ReleaseError> {
        let from = crate::release::toolchain_image(from, crate::release::Origin::Flag("--from"))?;
        let Checked { tags, platform, labels, .. } = flags.check()?;
        if tags.is_empty() {
            let reason = "a build image needs a name".to_owned();
            return Err(ReleaseError::Usage { parameter: "--tag".to_owned(), reason });
        }
        Ok(Self { from, tags, platform, labels })
    }
}

/// Makes the plan of a build image out of the looked-up toolchain image and the crates' root.
pub fn plan(prepare: &Prepare, base: &BaseImage, crates: &Vendored) -> Result<Plan, PlanError> {
    let mut notices = Vec::new();
    let platform = &prepare.platform;
    let config = plan::config(base, platform, &mut notices)?;
    let root = crates.root.hex();

    let mut graph = Graph::new();
    let image = stage::image(&mut graph, platform, base, "toolchain image")?;
    // The root in the hint: two different folders never meet in a daemon's store.
    let local = Source::local(LOCAL).attr("local.sharedkeyhint", root.as_str());
    let local = graph.add(local, Metadata::named(format!("crates {}", crates.root.short())))?;
    let mut kinds = files(&root);
    let dest = format!("{}/{FOLDER}", builder::PROJECT);
    kinds.push(Copy { contents_only: true, make_parents: true, timestamp_ns: TIME_NS, ..Copy::new(local, "/", &dest) }.into());
    let project = graph.add(File::chain(Some(image.into()), kinds), Metadata::named("service template and crates"))?;
    let scripts = stage::scripts(&mut graph, &[SCRIPT])?;
    let exec = stage::run(project, scripts, SCRIPT.0, &[builder::PROJECT]);
    let mut step = builder::step(platform, &config, exec);
    if let roche_engine::op::OpKind::Exec(exec) = &mut step.kind {
        // The project is root's, whoever the toolchain image's user is.
        exec.user.clear();
    }
    let compile = graph.add(step, Metadata::named("compile dependencies"))?;

    let entry = |path: &str, kind, mode, size_bytes| {
        let path = format!("{}/{path}", builder::PROJECT);
        Entry { path, kind, mode: Some(mode), owner: Some("root"), size_bytes, vertex: project }
    };
    let mut contents: Vec<Entry> = template::FILES
        .iter()
        .map(|file| entry(file.path, EntryKind::File, file.mode, Some(file.data.len() as u64)))
        .chain([entry(FOLDER, EntryKind::Folder, 0o755, Some(crates.size_bytes))])
        .collect();
    contents.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Plan {
        graph,
        target: compile.into(),
        stages: vec![Stage { name: "prepare", vertices: vec![image, local, project, scripts, compile] }],
        config: config.prepare(platform, &prepare.labels),
        contents,
        overlay: None,
        bases: vec![base.clone()],
        host_trees: BTreeMap::new(),
        notices,
    })
}

/// Lays out the template's files; `root` stands beside the crates that it names.
fn files(root: &str) -> Vec<FileActionKind> {
    let file = |path: &str, data: &[u8]| stage::file(&format!("{}/{path}", builder::PROJECT), 0o644, data);
    let mut kinds = stage::template(builder::PROJECT);
    kinds.push(file(".cargo/config.toml", CARGO_CONFIG.as_bytes()));
    kinds.push(file("vendor.sha256", format!("{root}\n").as_bytes()));
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use roche_engine::Digest;

    fn base() -> BaseImage {
        let config = br#"{"os":"linux","architecture":"amd64","config":{"User":"joe","Env":["PATH=/bin"],"WorkingDir":"/w"}}"#;
        BaseImage { reference: "rust:1".parse().unwrap(), digest: Some(Digest::of(b"rust")), config: config.to_vec() }
    }

    fn crates(content: &str) -> Vendored {
        Vendored { dir: "/somewhere".into(), root: Digest::of(content.as_bytes()), files: 1, size_bytes: 1 }
    }

    fn prepare() -> Prepare {
        let flags = Flags { tags: vec!["b".to_owned()], platform: Some("linux/amd64".to_owned()), ..Flags::default() };
        Prepare::resolve("rust:1", &flags).unwrap()
    }

    #[test]
    fn other_crates_are_another_definition_and_another_place_is_not() {
        let one = plan(&prepare(), &base(), &crates("one")).unwrap().definition().encode();
        let elsewhere = Vendored { dir: "/else".into(), ..crates("one") };
        assert_eq!(one, plan(&prepare(), &base(), &elsewhere).unwrap().definition().encode());
        assert_ne!(one, plan(&prepare(), &base(), &crates("two")).unwrap().definition().encode());
    }

    #[test]
    fn the_image_is_root_s_and_stands_in_the_project() {
        let plan = plan(&prepare(), &base(), &crates("one")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&plan.config).unwrap();
        assert_eq!(config["config"], serde_json::json!({ "Env": ["PATH=/bin"], "WorkingDir": "/app-build" }));
        assert_eq!(config["history"].as_array().unwrap().len(), 2);
        assert_eq!(plan.stages[0].vertices.len(), 5);
    }

    #[test]
    fn a_name_and_an_image_are_asked_for() {
        assert!(Prepare::resolve("rust:1", &Flags::default()).is_err());
        let flags = Flags { tags: vec!["b".to_owned()], ..Flags::default() };
        assert!(Prepare::resolve("scratch", &flags).is_err());
        assert!(Prepare::resolve("A b", &flags).is_err());
    }
}
