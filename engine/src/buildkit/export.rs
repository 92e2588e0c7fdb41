//! Exports in daemons' words: which exporter writes an output, and what it is told.
//!
//! | daemon | [`Export::Store`] | [`Export::Registry`] | archives | folder |
//! |---|---|---|---|---|
//! | dockerd, its own store | `moby` | `moby`, then dockerd's own push | `tar` | `local` |
//! | dockerd, containerd's store | `moby` | `image` with `push` | `oci`, `docker`, `tar` | `local` |
//! | buildkitd | `image` with `store` | `image` with `push` | `oci`, `docker`, `tar` | `local` |
//!
//! dockerd's own store has no manifests: what its exporter calls `containerimage.digest` is the
//! image's id, the digest of its config, and [`response`] says so. A push gives a manifest.

use std::collections::BTreeMap;

use crate::Error;
use crate::solver::{ArchiveFormat, Export};

/// The digest of an image's manifest or index.
pub(super) const DIGEST: &str = "containerimage.digest";
/// The digest of an image's config, which is dockerd's image id.
pub(super) const CONFIG_DIGEST: &str = "containerimage.config.digest";
/// The names of an image, joined by commas.
const IMAGE_NAME: &str = "image.name";
/// Has an exporter write OCI's media types. Daemons' defaults differ by age and exporter, and an
/// image has to have the same digest wherever it goes.
const OCI: &str = "oci-mediatypes";
/// The capability of taking several exporters in one solve.
pub(super) const MULTIPLE: &str = "exporter.multiple";

/// Which exporters a daemon has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exporters {
    /// dockerd with its own image store.
    DockerStore,
    /// dockerd with containerd's image store.
    ContainerdStore,
    /// buildkitd.
    Standalone,
}

/// One exporter, and the output that it writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exporter {
    pub(super) kind: &'static str,
    pub(super) attrs: BTreeMap<String, String>,
    pub(super) export: Export,
}

/// What is asked of a daemon for a job's outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The exporters. Their order is the order of their ids in a session.
    pub(super) exporters: Vec<Exporter>,
    /// Names that dockerd pushes afterwards.
    pub(super) pushes: Vec<String>,
}

/// Chooses exporters; `daemon` is its name for errors.
pub(super) fn plan(exports: &[Export], exporters: Exporters, daemon: &str) -> Result<Plan, Error> {
    let mut stored = Vec::new();
    let mut pushed = Vec::new();
    let mut files = Vec::new();
    for export in exports {
        match export {
            Export::Store { names } => stored.extend(names.iter().cloned()),
            Export::Registry { names } => pushed.extend(names.iter().cloned()),
            Export::Archive { format, .. } if exporters == Exporters::DockerStore && *format != ArchiveFormat::Tar => {
                let format = if *format == ArchiveFormat::Oci { "oci" } else { "docker" };
                let missing = vec![format!("exporter {format} (dockerd has it with the containerd image store alone)")];
                return Err(Error::Unsupported { solver: daemon.to_owned(), missing });
            }
            Export::Archive { format: ArchiveFormat::Tar, .. } => files.push(exporter("tar", [], export)),
            Export::Archive { format: ArchiveFormat::Oci, names, .. } => {
                files.push(exporter("oci", [name(names), yes(OCI)], export))
            }
            Export::Archive { format: ArchiveFormat::Docker, names, .. } => {
                files.push(exporter("docker", [name(names), yes(OCI)], export))
            }
            Export::Layout { .. } => {
                let missing = vec!["an OCI layout as a folder (the embedded engine writes it)".to_owned()];
                return Err(Error::Unsupported { solver: daemon.to_owned(), missing });
            }
            Export::Folder { .. } => files.push(exporter("local", [], export)),
        }
    }
    let mut plan = Plan::default();
    let unique = |names: &mut Vec<String>| {
        names.sort_unstable();
        names.dedup();
    };
    unique(&mut stored);
    unique(&mut pushed);
    let store = Export::Store { names: stored.clone() };
    let registry = Export::Registry { names: pushed.clone() };
    let wants_store = exports.iter().any(|export| matches!(export, Export::Store { .. }));
    match exporters {
        Exporters::DockerStore => {
            if wants_store || !pushed.is_empty() {
                let mut names = [stored, pushed.clone()].concat();
                unique(&mut names);
                plan.exporters.push(exporter("moby", [name(&names)], &store));
                plan.pushes = pushed;
            }
        }
        Exporters::ContainerdStore | Exporters::Standalone => {
            let kind = if exporters == Exporters::ContainerdStore { "moby" } else { "image" };
            if wants_store && stored == pushed {
                plan.exporters.push(exporter(kind, [name(&stored), yes("push"), yes("store"), yes(OCI)], &registry));
            } else {
                if wants_store {
                    plan.exporters.push(exporter(kind, [name(&stored), yes("store"), yes(OCI)], &store));
                }
                if !pushed.is_empty() {
                    plan.exporters.push(exporter("image", [name(&pushed), yes("push"), no("store"), yes(OCI)], &registry));
                }
            }
        }
    }
    plan.exporters.extend(files);
    Ok(plan)
}

fn exporter<const N: usize>(kind: &'static str, attrs: [(String, String); N], export: &Export) -> Exporter {
    let attrs = attrs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Exporter { kind, attrs, export: export.clone() }
}

fn name(names: &[String]) -> (String, String) {
    ("name".to_owned(), names.join(","))
}

fn yes(key: &str) -> (String, String) {
    (key.to_owned(), "true".to_owned())
}

fn no(key: &str) -> (String, String) {
    (key.to_owned(), "false".to_owned())
}

impl Plan {
    /// Returns the names of the images that are stored or pushed, sorted.
    pub(super) fn names(&self) -> Vec<String> {
        let images = self.exporters.iter().filter(|e| matches!(e.export, Export::Store { .. } | Export::Registry { .. }));
        let names = images.filter_map(|exporter| exporter.attrs.get("name"));
        let mut names: Vec<String> = names.flat_map(|names| names.split(',').map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Calls digests by what they are (see the module's header), and names every image: dockerd's own
/// store names none, and of several exporters only the last one's answer is kept.
pub(super) fn response(mut response: BTreeMap<String, String>, exporters: Exporters, plan: &Plan) -> BTreeMap<String, String> {
    let names = plan.names();
    if !names.is_empty() {
        response.insert(IMAGE_NAME.to_owned(), names.join(","));
    }
    if exporters == Exporters::DockerStore
        && let Some(id) = response.remove(DIGEST)
    {
        response.insert(CONFIG_DIGEST.to_owned(), id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solver::ArchiveDest;

    fn store(names: &[&str]) -> Export {
        Export::Store { names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn registry(names: &[&str]) -> Export {
        Export::Registry { names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    fn archive(format: ArchiveFormat) -> Export {
        Export::Archive { format, names: vec!["h/x:1".to_owned()], dest: ArchiveDest::Stdout }
    }

    /// `kind key=value …` for each exporter.
    fn planned(exports: &[Export], exporters: Exporters) -> Vec<String> {
        let plan = plan(exports, exporters, "daemon").unwrap();
        let line = |exporter: &Exporter| {
            let attrs = exporter.attrs.iter().map(|(key, value)| format!(" {key}={value}"));
            format!("{}{}", exporter.kind, attrs.collect::<String>())
        };
        plan.exporters.iter().map(line).collect()
    }

    #[test]
    fn each_daemon_is_asked_in_its_own_words() {
        let both = [store(&["h/x:2", "h/x:1"]), registry(&["h/x:1"])];
        assert_eq!(planned(&both, Exporters::DockerStore), ["moby name=h/x:1,h/x:2"]);
        assert_eq!(
            planned(&both, Exporters::ContainerdStore),
            [
                "moby name=h/x:1,h/x:2 oci-mediatypes=true store=true",
                "image name=h/x:1 oci-mediatypes=true push=true store=false"
            ]
        );
        assert_eq!(
            planned(&both, Exporters::Standalone),
            [
                "image name=h/x:1,h/x:2 oci-mediatypes=true store=true",
                "image name=h/x:1 oci-mediatypes=true push=true store=false"
            ]
        );
    }

    #[test]
    fn equal_names_need_one_exporter() {
        let both = [store(&["h/x:1", "h/x:1"]), registry(&["h/x:1"])];
        assert_eq!(planned(&both, Exporters::ContainerdStore), ["moby name=h/x:1 oci-mediatypes=true push=true store=true"]);
    }

    #[test]
    fn what_dockerd_pushes_itself_is_stored_first() {
        let plan = plan(&[registry(&["h/x:1"])], Exporters::DockerStore, "daemon").unwrap();
        assert_eq!(plan.exporters[0].kind, "moby");
        assert_eq!(plan.pushes, ["h/x:1"]);
    }

    #[test]
    fn an_exporter_that_is_not_there_is_unsupported() {
        for format in [ArchiveFormat::Oci, ArchiveFormat::Docker] {
            let error = plan(&[archive(format)], Exporters::DockerStore, "daemon").unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        }
        assert_eq!(planned(&[archive(ArchiveFormat::Tar)], Exporters::DockerStore), ["tar"]);
        assert_eq!(planned(&[archive(ArchiveFormat::Oci)], Exporters::Standalone), ["oci name=h/x:1 oci-mediatypes=true"]);
        assert!(planned(&[], Exporters::Standalone).is_empty());
    }

    #[test]
    fn an_image_id_is_not_called_a_manifest() {
        let plan = plan(&[store(&["h/x:1"])], Exporters::DockerStore, "daemon").unwrap();
        let said = BTreeMap::from([(DIGEST.to_owned(), "sha256:x".to_owned())]);
        let read = response(said.clone(), Exporters::DockerStore, &plan);
        assert_eq!(read.get(DIGEST), None);
        assert_eq!(read.get(CONFIG_DIGEST).map(String::as_str), Some("sha256:x"));
        assert_eq!(read.get(IMAGE_NAME).map(String::as_str), Some("h/x:1"));
        assert_eq!(response(said, Exporters::Standalone, &plan).get(DIGEST).map(String::as_str), Some("sha256:x"));
    }
}
