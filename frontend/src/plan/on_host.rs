//! The plan of a release without a build image.
//!
//! Invariant: what a plan says of this machine is the digest of its toolchain and the bytes of its
//! certificates, never where they are.

use std::collections::BTreeMap;

use roche_engine::Graph;

use super::{BaseImage, Host, Plan, PlanError, Stage, config, contents};
use crate::project::Project;
use crate::release::{Release, Runtime};
use crate::stage::config::ImageConfig;
use crate::stage::{self, onto};
use crate::{host, shown};

/// Makes the plan of a release that is compiled by this machine's own toolchain; `runtime` is the
/// looked-up runtime image, which is not used where the release stands on nothing.
///
/// The solver is given [`Plan::host_trees`], the crates under
/// [`vendor::FOLDER`](crate::vendor::FOLDER) and, where they are asked for, the time zones under
/// [`ZONES_LOCAL`](super::ZONES_LOCAL).
pub fn plan_on_host(
    project: &Project,
    release: &Release,
    host: &Host<'_>,
    runtime: Option<&BaseImage>,
) -> Result<Plan, PlanError> {
    let runtime = match release.runtime {
        Runtime::Image(_) => Some(runtime.ok_or(PlanError::NoRuntime)?),
        Runtime::Scratch(_) => None,
    };
    let platform = &release.platform;
    let mut notices = host.toolchain.notices.clone();
    let config = runtime.map_or_else(|| Ok(ImageConfig::default()), |image| config(image, platform, &mut notices))?;

    let mut graph = Graph::new();
    let (built, service) = stage::host::build(&mut graph, platform, host, project)?;
    let (vertices, overlay, image, contents) = match runtime {
        Some(runtime) => {
            let runtime = stage::image(&mut graph, platform, runtime, "runtime image")?;
            let added = onto::image(&mut graph, platform, host, service, runtime, release.entrypoint)?;
            (added.vertices, added.overlay, added.image, contents::onto(added.overlay.vertex, host))
        }
        None => {
            notices.push(certificates(host));
            let (overlay, image) = stage::host::image(&mut graph, host, service)?;
            (vec![overlay.vertex, image], overlay, image, contents::on_nothing(overlay.vertex, host))
        }
    };
    Ok(Plan {
        graph,
        target: image.into(),
        stages: vec![Stage { name: "builder", vertices: built }, Stage { name: "runtime", vertices }],
        config: config.release(platform, &release.labels, release.entrypoint),
        contents,
        overlay: Some(overlay),
        bases: runtime.into_iter().cloned().collect(),
        host_trees: BTreeMap::from([(host::LOCAL.to_owned(), host.toolchain.tree.clone())]),
        notices,
    })
}

/// Says where the image's certificate authorities come from.
fn certificates(host: &Host<'_>) -> String {
    match host.certificates {
        Some(found) => format!("the image's certificate authorities are this machine's, {}", shown::path(&found.path)),
        None => "the image has no certificate authorities, because this machine has none: TLS clients will fail".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use roche_engine::Digest;
    use roche_engine::op::{Network, OpKind, Platform};
    use roche_engine::solver::{HostEntry, HostNode, HostTree};

    use super::*;
    use crate::host::{Certificates, Toolchain, Zone, Zones};
    use crate::plan::EntryKind;
    use crate::release::{Flags, host_platform};
    use crate::vendor::Vendored;

    fn toolchain(content: &str) -> Toolchain {
        let node = HostNode::Bind("/home/x/bin/rustc".into());
        let entries = vec![HostEntry { path: "/toolchain/bin/rustc".to_owned(), node }];
        Toolchain {
            tree: HostTree { digest: Digest::of(content.as_bytes()), entries },
            target: "x86_64-unknown-linux-gnu".to_owned(),
            version: "rustc 1.95.0".to_owned(),
            env: vec!["PATH=/toolchain/bin:/usr/bin".to_owned()],
            notices: vec!["compiled here".to_owned()],
        }
    }

    fn project(dir: &Path, files: &[(&str, &str)]) -> Project {
        for (path, text) in files {
            std::fs::write(dir.join(path), text).unwrap();
        }
        Project::read(dir).unwrap()
    }

    fn release(project: &Project, runtime: &str) -> Release {
        let flags = Flags { tags: vec!["t".to_owned()], runtime: Some(runtime.to_owned()), ..Flags::default() };
        let mut release =
            crate::release::resolve(&flags, &BTreeMap::new(), true, project, &|| panic!("a tag was given")).unwrap();
        assert_eq!(release.platform, host_platform());
        release.platform = Platform::new("linux", "amd64");
        release
    }

    /// Plans the files on nothing, with the given content of the toolchain.
    fn plan_of(files: &[(&str, &str)], content: &str) -> Plan {
        plan_with("scratch", files, content, None, None)
    }

    fn plan_with(
        runtime: &str,
        files: &[(&str, &str)],
        content: &str,
        certificates: Option<&Certificates>,
        zones: Option<&Zones>,
    ) -> Plan {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path(), files);
        let crates = Vendored { dir: dir.path().to_owned(), root: Digest::of(b"crates"), files: 1, size_bytes: 1 };
        let toolchain = toolchain(content);
        let host = Host { toolchain: &toolchain, crates: &crates, certificates, zones };
        let config = br#"{"os":"linux","architecture":"amd64","config":{"Env":["A=b"]}}"#.to_vec();
        let image = BaseImage { reference: "quay.io/r:1".parse().unwrap(), digest: Some(Digest::of(b"r")), config };
        plan_on_host(&project, &release(&project, runtime), &host, Some(&image)).unwrap()
    }

    const BOTH: [(&str, &str); 2] = [("functions.rs", "fn"), ("lib.rs", "lib")];

    /// When these digests change, every user's cache is lost: say so in the commit.
    #[test]
    fn digests_are_frozen() {
        let plan = plan_of(&BOTH, "toolchain");
        let vertices: Vec<String> =
            plan.definition().vertices().map(|vertex| format!("{} {}", vertex.digest.short(), vertex.name())).collect();
        assert_eq!(
            vertices,
            [
                "32aba0009637 rustc 1.95.0",
                "dbc4ac2c197e crates 7282bed9a11a",
                "1d3a3910c1de service template",
                "bbe652505f64 compile dependencies",
                "683d3edae3a1 forget the template's function",
                "295f15f5ac52 function functions.rs, lib.rs",
                "906d12c2bb18 compile roche-service",
                "eb58fb82adc6 test lib.rs",
                "bc282691526f lay out what the image gains",
                "017ce5338537 image files",
            ]
        );
        let stages: Vec<Digest> = plan.stages.iter().flat_map(|stage| stage.vertices.clone()).collect();
        assert_eq!(stages, plan.definition().vertices().map(|vertex| vertex.digest).collect::<Vec<_>>());
    }

    #[test]
    fn onto_an_image_nothing_runs_again_for_an_edit_but_the_compiler() {
        let plan = |text: &str| plan_with("quay.io/r:1", &[("functions.rs", text)], "toolchain", None, None);
        let (before, after) = (plan("one"), plan("two"));
        let names = |plan: &Plan| plan.definition().vertices().map(|vertex| (vertex.digest, vertex.name())).collect::<Vec<_>>();
        let (before_names, after_names) = (names(&before), names(&after));
        let changed: Vec<&str> =
            after_names.iter().filter(|vertex| !before_names.contains(vertex)).map(|(_, name)| name.as_str()).collect();
        let expected = ["function functions.rs", "compile roche-service", "lay out what the image gains", "image files"];
        assert_eq!(changed, expected);
        let staged: BTreeSet<Digest> = before.stages.iter().flat_map(|stage| stage.vertices.clone()).collect();
        assert_eq!(staged, before_names.iter().map(|(digest, _)| *digest).collect());
        assert!(String::from_utf8(before.config).unwrap().contains(r#""Env":["A=b","PATH="#));
        assert_eq!(before.bases.len(), 1);
    }

    #[test]
    fn an_edit_and_another_toolchain_change_what_follows_them_alone() {
        let digests = |text: &str, content: &str| -> Vec<Digest> {
            let plan = plan_of(&[("functions.rs", text)], content);
            plan.stages.iter().flat_map(|stage| stage.vertices.clone()).collect()
        };
        let before = digests("one", "toolchain");
        let same = |after: Vec<Digest>| before.iter().zip(&after).map(|(a, b)| u8::from(a == b)).collect::<Vec<_>>();
        assert_eq!(same(digests("two", "toolchain")), [1, 1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(same(digests("one", "other")), [0, 1, 1, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn steps_run_cargo_offline_over_a_tree_that_they_cannot_write() {
        let plan = plan_of(&BOTH, "toolchain");
        let definition = plan.definition();
        let execs: Vec<_> = definition
            .vertices()
            .filter_map(|vertex| if let OpKind::Exec(exec) = &vertex.op.kind { Some(exec) } else { None })
            .collect();
        let commands: Vec<&str> = execs.iter().map(|exec| exec.args[1].as_str()).collect();
        assert_eq!(commands, ["build", "clean", "build", "test"]);
        for exec in execs {
            assert!(exec.network == Network::None && exec.args[0] == "cargo" && exec.args.contains(&"--offline".to_owned()));
            let mounts: Vec<(&str, bool)> = exec.mounts.iter().map(|mount| (mount.target.as_str(), mount.readonly)).collect();
            assert_eq!(mounts, [("/", true), ("/app-build", false), ("/tmp", false), ("/vendor", true)]);
            assert!(exec.env.contains(&"SOURCE_DATE_EPOCH=0".to_owned()) && exec.env[0].starts_with("PATH=/toolchain/bin"));
        }
    }

    #[test]
    fn nothing_of_the_machine_s_folders_is_in_the_definition() {
        let plan = plan_of(&BOTH, "toolchain");
        let bytes = plan.definition().encode();
        assert!(!String::from_utf8_lossy(&bytes).contains("/home/x"));
        assert_eq!(plan.host_trees[host::LOCAL].entries.len(), 1);
    }

    #[test]
    fn certificates_and_time_zones_come_where_there_are_any_and_are_told() {
        let has = |plan: &Plan, path: &str| plan.contents.iter().any(|entry| entry.path == path);
        let bare = plan_of(&BOTH, "toolchain");
        assert!(!has(&bare, "/etc/ssl/certs/ca-certificates.crt") && bare.notices[1].contains("no certificate authorities"));
        let certificates = Certificates { path: PathBuf::from("/etc/ssl/cert.pem"), data: b"pem".to_vec() };
        let zone = |path: &str, kind, size_bytes| Zone { path: path.to_owned(), kind, mode: 0o755, size_bytes };
        let entries = vec![zone("", EntryKind::Folder, None), zone("/UTC", EntryKind::File, Some(114))];
        let zones = Zones { path: PathBuf::from("/zones"), digest: Digest::of(b"zones"), entries };
        let full = plan_with("scratch", &BOTH, "toolchain", Some(&certificates), Some(&zones));
        for path in ["/etc/ssl", "/etc/ssl/certs/ca-certificates.crt", "/usr/share/zoneinfo", "/usr/share/zoneinfo/UTC"] {
            assert!(has(&full, path), "{path}");
        }
        assert!(full.notices[1].ends_with("/etc/ssl/cert.pem"), "{:?}", full.notices);
        assert_eq!(full.definition().vertices().len(), bare.definition().vertices().len() + 1);
    }
}
