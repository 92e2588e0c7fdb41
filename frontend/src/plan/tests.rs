use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use roche_engine::op::{OpKind, Platform};

use super::*;
use crate::release::Flags;

fn base(reference: &str, config: &str) -> BaseImage {
    let digest = Some(Digest::of(reference.as_bytes()));
    BaseImage { reference: reference.parse().unwrap(), digest, config: config.as_bytes().to_vec() }
}

fn project(dir: &Path, files: &[(&str, &str)]) -> Project {
    for (path, text) in files {
        std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
        std::fs::write(dir.join(path), text).unwrap();
    }
    Project::read(dir).unwrap()
}

fn release(project: &Project, runtime: &str) -> Release {
    let mut release = crate::release::resolve(
        &Flags { tags: vec!["t".to_owned()], runtime: Some(runtime.to_owned()), ..Flags::default() },
        &BTreeMap::new(),
        false,
        project,
        &|| panic!("a tag was given"),
    )
    .unwrap();
    release.platform = Platform::new("linux", "amd64");
    release
}

fn plan_of(project: &Project, runtime: &str) -> Plan {
    let build =
        base("quay.io/b:1", r#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin","A=b"],"User":"builder"}}"#);
    let image = base("quay.io/r:1", r#"{"os":"linux","architecture":"amd64"}"#);
    plan(project, &release(project, runtime), &build, Some(&image)).unwrap()
}

/// When these digests change, every user's cache is lost: say so in the commit.
#[test]
fn digests_are_frozen() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan_of(&project(dir.path(), &[("functions.rs", "fn"), ("lib.rs", "lib")]), "r");
    let vertices: Vec<String> =
        plan.definition().vertices().map(|vertex| format!("{} {}", vertex.digest.short(), vertex.name())).collect();
    assert_eq!(
        vertices,
        [
            "bbf4b5fab158 build image quay.io/b:1",
            "33ba0055bddb steps compile.sh, runtime.sh",
            "bcd6bfbdf4d4 function functions.rs, lib.rs",
            "f9ec9a2e49fa compile roche-service",
            "90e1b0a46eed test lib.rs",
            "8688da744a40 runtime image quay.io/r:1",
            "0cbc90627d11 make what the runtime image lacks",
            "44496ee5bafe lay out what the image gains",
            "861178f97273 image files",
        ]
    );
}

#[test]
fn two_folders_give_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = plan_of(&project(one.path(), &[("functions.rs", "fn"), ("lib.rs", "lib")]), "r");
    let two = plan_of(&project(&two.path().join("deep/er"), &[("src/functions.rs", "fn"), ("src/lib.rs", "lib")]), "r");
    assert_eq!(one.definition().encode(), two.definition().encode());
    assert_eq!(one.config, two.config);
}

#[test]
fn an_edit_changes_the_function_and_what_follows_alone() {
    let dir = tempfile::tempdir().unwrap();
    let digests = |text: &str| -> Vec<Digest> {
        let plan = plan_of(&project(dir.path(), &[("functions.rs", text)]), "r");
        plan.stages.iter().flat_map(|stage| stage.vertices.clone()).collect()
    };
    let (before, after) = (digests("one"), digests("two"));
    let same: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a == b).collect();
    assert_eq!(same, [true, true, false, false, true, false, false, false]);
}

#[test]
fn only_ops_that_old_daemons_have_are_used() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("functions.rs", "fn"), ("lib.rs", "lib")]);
    for runtime in ["r", "scratch"] {
        let caps: BTreeSet<String> = plan_of(&project, runtime).definition().caps().into_iter().collect();
        let expected = ["exec.meta.base", "exec.meta.network", "exec.mount.bind", "file.base", "source.image"];
        let all = expected.iter().chain(&["constraints", "meta.description", "platform"]).map(|&cap| cap.to_owned()).collect();
        assert!(caps.is_subset(&all), "{caps:?}");
    }
}

#[test]
fn steps_have_no_network_and_the_build_image_s_environment() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan_of(&project(dir.path(), &[("functions.rs", "fn"), ("lib.rs", "lib")]), "r");
    let definition = plan.definition();
    let execs: Vec<_> = definition
        .vertices()
        .filter_map(|vertex| match &vertex.op.kind {
            OpKind::Exec(exec) => Some(exec),
            _ => None,
        })
        .collect();
    assert_eq!(execs.len(), 3);
    assert!(execs.iter().all(|exec| exec.network == roche_engine::op::Network::None
        && exec.env.starts_with(&["PATH=/bin".to_owned(), "A=b".to_owned()])));
    // cargo runs as the build image's user, what reads all of an image as root.
    assert_eq!(execs.iter().map(|exec| exec.user.as_str()).collect::<Vec<_>>(), ["builder", "builder", ""]);
}

#[test]
fn scratch_has_no_runtime_image() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan_of(&project(dir.path(), &[("functions.rs", "fn")]), "scratch");
    assert_eq!(plan.bases.len(), 1);
    assert_eq!(plan.stages[1].vertices.len(), 3);
    assert!(String::from_utf8(plan.config).unwrap().contains(r#""Cmd":["/app/roche-service"]"#));
}

#[test]
fn an_image_without_a_digest_is_named_by_its_tag() {
    let image = BaseImage { digest: None, ..base("quay.io/b:1", "") };
    assert_eq!(image.pinned().to_string(), "quay.io/b:1");
    assert!(base("quay.io/b:1", "").pinned().to_string().starts_with("quay.io/b:1@sha256:"));
}

#[test]
fn odd_base_images_are_refused_or_named() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("functions.rs", "fn")]);
    let with = |config: &str| plan(&project, &release(&project, "r"), &base("b:1", config), Some(&base("r:1", "")));
    assert!(matches!(with(r#"{"os":"windows"}"#), Err(PlanError::Image { .. })));
    assert!(matches!(with("[]"), Err(PlanError::Image { .. })));
    let plan = with(r#"{"os":"linux","architecture":"s390x","config":{"OnBuild":["RUN x"]}}"#).unwrap();
    assert_eq!(plan.notices.len(), 2);
}

#[test]
fn a_folder_that_the_runtime_image_may_have_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path(), &[("functions.rs", "fn")]);
    for (runtime, mode) in [("r", None), ("scratch", Some(0o755))] {
        let plan = plan_of(&project, runtime);
        let folder = plan.contents.iter().find(|entry| entry.path == "/app").unwrap();
        assert_eq!((folder.kind, folder.mode), (EntryKind::Folder, mode), "{runtime}");
    }
}

#[test]
fn contents_name_every_path_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan_of(&project(dir.path(), &[("functions.rs", "fn")]), "r");
    let lines: Vec<String> = plan.contents.iter().map(|entry| format!("{} {}", entry.path, entry.owner.unwrap_or("-"))).collect();
    assert_eq!(
        lines,
        [
            "/app -",
            "/app/Cargo.toml rocheuser",
            "/app/roche-service rocheuser",
            "/app/run.sh rocheuser",
            "/etc/group root",
            "/etc/passwd root"
        ]
    );
}
