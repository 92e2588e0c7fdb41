//! What a release adds to its runtime image, path by path.
//!
//! Invariant: what is said of a path is so in the image. What only a base image's files or a compiler
//! decide is left out, not guessed.

use roche_engine::Digest;

use super::{Entry, EntryKind, Host};
use crate::stage::{host, runtime};
use crate::template;

/// The paths where a build image compiles; its files have the modes and sizes that they have there.
pub(super) fn from_image(vertex: Digest, runtime: bool) -> Vec<Entry> {
    let list = List(vertex);
    let files = runtime::FILES.map(|name| Entry { mode: None, ..list.service(name, 0) });
    list.around(runtime, files)
}

/// The paths where this machine compiles onto a runtime image.
pub(super) fn onto(vertex: Digest, on: &Host<'_>) -> Vec<Entry> {
    let list = List(vertex);
    list.around(true, list.services(on))
}

/// The paths where this machine compiles and the image stands on nothing.
pub(super) fn on_nothing(vertex: Digest, on: &Host<'_>) -> Vec<Entry> {
    let list = List(vertex);
    let mut entries = list.around(false, list.services(on));
    entries.retain(|entry| !entry.path.starts_with("/etc/"));
    entries.extend(host::SYSTEM.map(|(path, text)| list.file(path, text.len())));
    if let Some(certificates) = on.certificates {
        entries.extend(["/etc/ssl", "/etc/ssl/certs"].map(|path| list.folder(path, Some(0o755))));
        entries.push(list.file(host::AUTHORITIES, certificates.data.len()));
    }
    if let Some(zones) = on.zones {
        entries.extend(["/usr", "/usr/share"].map(|path| list.folder(path, Some(0o755))));
        entries.extend(zones.entries.iter().map(|zone| Entry {
            path: format!("{}{}", host::ZONES, zone.path),
            kind: zone.kind,
            mode: Some(zone.mode),
            owner: Some("root"),
            size_bytes: zone.size_bytes,
            vertex,
        }));
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

/// Makes the entries of a vertex.
struct List(Digest);

impl List {
    /// The service's files, and what every release has beside them.
    fn around(&self, runtime: bool, files: [Entry; 3]) -> Vec<Entry> {
        // A folder that the runtime image has stays as it is.
        let mode = (!runtime).then_some(0o755);
        let mut entries = vec![self.folder(runtime::FOLDER, mode)];
        entries.extend(files);
        entries.extend((!runtime).then(|| self.folder("/etc", mode)));
        entries.extend(["/etc/group", "/etc/passwd"].map(|path| Entry { size_bytes: None, ..self.file(path, 0) }));
        entries
    }

    /// The service's files where this machine compiles it.
    fn services(&self, on: &Host<'_>) -> [Entry; 3] {
        host::files(&on.toolchain.target).map(|(_, name, mode)| {
            let kept = template::FILES.iter().find(|file| file.path == name);
            Entry { size_bytes: kept.map(|file| file.data.len() as u64), ..self.service(name, mode) }
        })
    }

    fn service(&self, name: &str, mode: u32) -> Entry {
        let (path, kind) = (format!("{}/{name}", runtime::FOLDER), EntryKind::File);
        Entry { path, kind, mode: Some(mode), owner: Some(runtime::USER), size_bytes: None, vertex: self.0 }
    }

    fn file(&self, path: &str, size: usize) -> Entry {
        let (path, kind, size_bytes) = (path.to_owned(), EntryKind::File, Some(size as u64));
        Entry { path, kind, mode: Some(0o644), owner: Some("root"), size_bytes, vertex: self.0 }
    }

    fn folder(&self, path: &str, mode: Option<u32>) -> Entry {
        // Who decides the mode decides the owner.
        let owner = mode.map(|_| "root");
        Entry { path: path.to_owned(), kind: EntryKind::Folder, mode, owner, size_bytes: None, vertex: self.0 }
    }
}
