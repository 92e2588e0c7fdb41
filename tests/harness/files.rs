//! The files of images, read without running them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Daemon, unique};

/// A file, folder or link of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `st_mode`: type and permission bits.
    pub(crate) mode: u32,
    /// The owner's name, by the image's own `/etc/passwd`, or its number.
    pub(crate) owner: String,
    /// The group's name, by the image's own `/etc/group`, or its number.
    pub(crate) group: String,
    /// A file's content, or where a link points.
    pub(crate) content: Vec<u8>,
}

/// Every path of an image at and below `path`, which is absolute. Fails where there is none.
#[track_caller]
pub(crate) fn files(daemon: &Daemon, image: &str, path: &str) -> BTreeMap<String, Entry> {
    let copy = Copy::of(daemon, image);
    let users = names(&copy.text("/etc/passwd"));
    let groups = names(&copy.text("/etc/group"));
    let tree = copy.tree(path).unwrap_or_else(|| panic!("{image} has no {path}"));
    let parent = Path::new(path).parent().unwrap_or(Path::new("/"));
    let mut entries = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for found in fs::read_dir(tree.path().join(&folder)).expect("the copy is readable").flatten() {
            let relative = folder.join(found.file_name());
            let metadata = found.metadata().expect("the copy is readable");
            let content = if metadata.is_dir() {
                folders.push(relative.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(found.path()).expect("a link").to_string_lossy().into_owned().into_bytes()
            } else {
                fs::read(found.path()).expect("a file")
            };
            let name = |names: &BTreeMap<u32, String>, id: u32| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
            let (owner, group) = (name(&users, metadata.uid()), name(&groups, metadata.gid()));
            let entry = Entry { mode: metadata.mode(), owner, group, content };
            entries.insert(parent.join(relative).to_string_lossy().into_owned(), entry);
        }
    }
    entries
}

/// Whether any layer, config or manifest of an image holds a text; layers are unpacked for it.
#[track_caller]
pub(crate) fn contains(daemon: &Daemon, image: &str, text: &str) -> bool {
    let folder = tempfile::tempdir().expect("a temporary folder is made");
    let archive = folder.path().join("image.tar");
    daemon.run(["save", "-o", archive.to_str().expect("a temporary path is text"), image]);
    // A file's content lies in a tar as it is: what is unpacked is the archive and the compression.
    let script = "tar -xf image.tar && rm image.tar && find . -type f | while read -r f; do
        if gzip -t \"$f\" 2>/dev/null; then gzip -dc <\"$f\" >\"$f.raw\"; fi; done
        test -n \"$(find . -size +1M)\" || exit 9
        grep -rqaF -e \"$1\" .";
    let searched = Command::new("bash").args(["-c", script, "-", text]).current_dir(folder.path()).output().expect("bash runs");
    match searched.status.code() {
        Some(0) => true,
        Some(1) => false,
        code => panic!("the image was not searched ({code:?}): {}", String::from_utf8_lossy(&searched.stderr)),
    }
}

/// A container that is never started, to copy from.
struct Copy<'a> {
    daemon: &'a Daemon,
    name: String,
}

impl<'a> Copy<'a> {
    #[track_caller]
    fn of(daemon: &'a Daemon, image: &str) -> Self {
        let copy = Self { daemon, name: format!("roche-{}", unique()) };
        daemon.run(["create", "--name", &copy.name, image, "/never-started"]);
        copy
    }

    /// Unpacks a path with owners and modes; `None` where the image lacks it.
    fn tree(&self, path: &str) -> Option<TempDir> {
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        let mut docker = self.daemon.docker();
        docker.args(["cp", &format!("{}:{path}", self.name), "-"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut docker = docker.spawn().expect("docker runs");
        let stream = docker.stdout.take().expect("piped");
        let unpacked =
            Command::new("tar").args(["--numeric-owner", "-xpf", "-"]).current_dir(folder.path()).stdin(stream).output();
        let copied = docker.wait().expect("docker runs").success();
        (unpacked.expect("tar runs").status.success() && copied).then_some(folder)
    }

    /// A file's text, empty where there is none.
    fn text(&self, path: &str) -> String {
        let name = Path::new(path).file_name().expect("a file's path");
        self.tree(path).and_then(|tree| fs::read_to_string(tree.path().join(name)).ok()).unwrap_or_default()
    }
}

impl Drop for Copy<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.docker().args(["rm", "--force", &self.name]).output();
    }
}

/// Ids and names of a passwd or group file; the first name of an id counts.
fn names(table: &str) -> BTreeMap<u32, String> {
    let mut names = BTreeMap::new();
    for line in table.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            names.entry(id).or_insert_with(|| name.to_string());
        }
    }
    names
}
