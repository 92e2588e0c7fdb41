//! What a release says it made is what it made: stdout, files with digests, labels, tags, outputs.
//!
//! Red when: the digest on stdout, in the metadata or in the iidfile is another one than the
//! daemon's; a tag or label is lost; an archive lacks files; a failing write leaves a file behind.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Daemon, Ended, Project, Roche, on_docker26, on_every_daemon};

on_every_daemon!(stdout_is_the_reference_and_the_digest_that_the_daemon_knows);
fn stdout_is_the_reference_and_the_digest_that_the_daemon_knows(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    let (reference, digest) = ended.reference_and_digest();
    assert_eq!(reference, tag.name);
    assert_eq!(daemon.inspect(&tag.name)["Id"], digest.as_str(), "{}", ended.story());
    let labelled = ended.stderr.to_lowercase().contains("image id");
    assert_eq!(labelled, !daemon.has_manifests(), "an image id is called one, and nothing else is\n{}", ended.story());
}

on_every_daemon!(quiet_prints_the_digest_alone);
fn quiet_prints_the_digest_alone(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let loud = Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    let quiet = Roche::release(daemon, project.root()).tag(&tag).arg("-q").run().succeeds();
    assert_eq!(quiet.stdout_text(), format!("{}\n", loud.digest()), "{}", quiet.story());
}

on_every_daemon!(metadata_and_iidfile_agree_with_stdout);
fn metadata_and_iidfile_agree_with_stdout(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let ended = Roche::release(daemon, project.root())
        .tag(&tag)
        .args(["--metadata-file", "metadata.json", "--iidfile", "iid"])
        .run()
        .succeeds();
    let metadata: Value = serde_json::from_slice(&fs::read(project.path("metadata.json")).unwrap()).unwrap();
    let digest = ended.digest();
    assert_eq!(metadata["image.name"], tag.name.as_str(), "{metadata}");
    if daemon.has_manifests() {
        assert_eq!(metadata["containerimage.digest"], digest.as_str(), "{metadata}");
        assert_eq!(metadata["containerimage.descriptor"]["digest"], digest.as_str(), "{metadata}");
    } else {
        assert_eq!(metadata["containerimage.config.digest"], digest.as_str(), "{metadata}");
        assert_eq!(metadata.get("containerimage.digest"), None, "an image id is no manifest digest: {metadata}");
    }
    let iid = fs::read_to_string(project.path("iid")).unwrap();
    // Other tests may have made the very same image under other names.
    let names = daemon.inspect(iid.trim())["RepoTags"].as_array().cloned().unwrap_or_default();
    assert!(names.contains(&Value::from(tag.name.as_str())), "docker knows the iid {iid} as {names:?}");
}

on_every_daemon!(every_tag_and_label_arrives);
fn every_tag_and_label_arrives(daemon: &Daemon) {
    let (project, first, second) = (Project::example("hello"), daemon.tag(), daemon.tag());
    let labels = ["--label", "org.example.team=checkout", "--label", "note=a=b c", "--label", "empty="];
    let ended = Roche::release(daemon, project.root()).tag(&first).tag(&second).args(labels).run().succeeds();
    assert_eq!(ended.reference_and_digest().0, first.name, "the first tag is the one on stdout");
    let image = daemon.inspect(&second.name);
    assert_eq!(image["Id"], daemon.inspect(&first.name)["Id"]);
    let expected = serde_json::json!({"org.example.team": "checkout", "note": "a=b c", "empty": ""});
    assert_eq!(image["Config"]["Labels"], expected);
}

on_every_daemon!(the_same_inputs_give_the_same_image_without_a_cache);
fn the_same_inputs_give_the_same_image_without_a_cache(daemon: &Daemon) {
    let (project, tag) = (Project::hello("again and again"), daemon.tag());
    let first = Roche::release(daemon, project.root()).tag(&tag).run().succeeds().digest();
    let second = Roche::release(daemon, project.root()).tag(&tag).arg("--no-cache").run().succeeds();
    assert_eq!(second.digest(), first, "{}", second.story());
}

on_every_daemon!(a_tar_holds_the_images_files);
fn a_tar_holds_the_images_files(daemon: &Daemon) {
    let project = Project::example("hello");
    let tag = daemon.tag();
    let to_file = Roche::release(daemon, project.root()).tag(&tag).args(["-o", "type=tar,dest=out.tar"]).run().succeeds();
    assert_eq!(to_file.stdout_text(), "out.tar\n", "{}", to_file.story());
    let listed = listed(&fs::read(project.path("out.tar")).unwrap());
    for path in ["app/run.sh", "app/roche-service", "app/Cargo.toml", "etc/passwd"] {
        assert!(listed.contains(path), "{path} is missing: {listed:?}");
    }
    let to_stdout = Roche::release(daemon, project.root()).tag(&tag).args(["-o", "-"]).run();
    assert_eq!(to_stdout.status.code(), Some(0), "{}", to_stdout.stderr);
    assert!(self::listed(&to_stdout.stdout).contains("app/run.sh"), "stdout is the tar");
    assert!(!daemon.has_image(&tag.name), "an output that is named replaces the store");
}

on_docker26!(an_oci_archive_holds_the_image_that_it_names);
fn an_oci_archive_holds_the_image_that_it_names(daemon: &Daemon) {
    let (project, tag) = (Project::example("hello"), daemon.tag());
    let line = ["-o", "type=oci,dest=image.tar", "--metadata-file", "metadata.json"];
    Roche::release(daemon, project.root()).tag(&tag).args(line).run().succeeds();
    let archive = fs::read(project.path("image.tar")).unwrap();
    let metadata: Value = serde_json::from_slice(&fs::read(project.path("metadata.json")).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().expect("an archive has a manifest").replace(':', "/");
    let listed = listed(&archive);
    assert!(listed.contains("index.json") && listed.contains(&format!("blobs/{digest}")), "{listed:?}");
}

on_every_daemon!(an_output_that_cannot_be_written_is_an_error_and_leaves_nothing);
fn an_output_that_cannot_be_written_is_an_error_and_leaves_nothing(daemon: &Daemon) {
    let project = Project::example("hello").file("folder/keep", "");
    let code = |ended: &Ended| ended.status.code().unwrap_or(-1);
    let tag = daemon.tag();
    let dest = ["-o", "type=tar,dest=folder"];
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(dest).run();
    assert!([2, 10].contains(&code(&ended)), "a folder as the archive\n{}", ended.story());
    let dest = ["-o", "type=tar,dest=functions.rs"];
    let before = fs::read(project.path("functions.rs")).unwrap();
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(dest).run();
    assert!([2, 10].contains(&code(&ended)), "an input as the archive\n{}", ended.story());
    assert_eq!(fs::read(project.path("functions.rs")).unwrap(), before);
    let dest = ["-o", "type=tar,dest=/dev/full"];
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(dest).run();
    assert!([2, 10].contains(&code(&ended)), "a full device as the archive\n{}", ended.story());
    let left: BTreeSet<_> = fs::read_dir(project.root()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["folder", "functions.rs", "README.md"].map(Into::into).into(), "something was left behind");
}

/// The names in a tar, without `./` in front and `/` behind.
fn listed(tar: &[u8]) -> BTreeSet<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), tar).unwrap();
    let output = Command::new("tar").arg("-tf").arg(file.path()).output().unwrap();
    assert!(output.status.success(), "tar cannot read it: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().map(|name| name.trim_start_matches("./").trim_end_matches('/').to_string()).collect()
}
