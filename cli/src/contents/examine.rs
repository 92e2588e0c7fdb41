//! What is worth a look in an image: files with rights, files that anybody may change, secrets.
//!
//! Invariant: every layer is judged, not only what is shown at last: what a later layer removes can still be read. A file's
//! content is looked into only where its name asks for it, and never kept.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use roche_engine::oci::contents::{Contents, Look};
use roche_engine::oci::image::Config;
use roche_engine::oci::layer::{Kind, Node};
use roche_frontend::project::secrets::{Verdict, is_looked_into, verdict_of};

use super::config::{Settings, without_secrets};
use super::programs::{self, Programs};

/// Something that is worth a look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    /// A path, or the name of a variable.
    pub(crate) what: Vec<u8>,
    /// The layer that it is in, the lowest being 0; none for the config.
    pub(crate) layer: Option<usize>,
    /// More about it.
    pub(crate) detail: String,
    /// Whether a later layer hides it; it can still be read.
    pub(crate) is_hidden: bool,
}

/// What a finding is about, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FindingKind {
    /// A file that looks like a secret.
    Secret,
    /// A variable of the config that looks like a secret.
    Variable,
    /// A build argument in the history that looks like a secret.
    Argument,
    /// A program that runs as its owner.
    Setuid,
    /// A program that runs as its group.
    Setgid,
    /// A program with capabilities.
    Capabilities,
    /// A file or folder that anybody may change.
    WorldWritable,
}

impl FindingKind {
    /// Every kind with its name for programs and its heading for people.
    pub(crate) const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::Secret, "secret", "looks like a secret"),
        (Self::Variable, "secretVariable", "variables that look like secrets"),
        (Self::Argument, "secretArgument", "build arguments that look like secrets"),
        (Self::Setuid, "setuid", "runs as its owner (setuid)"),
        (Self::Setgid, "setgid", "runs as its group (setgid)"),
        (Self::Capabilities, "capabilities", "runs with capabilities"),
        (Self::WorldWritable, "worldWritable", "anybody may write"),
    ];
}

/// What is looked into while layers are read.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Private keys.
    keys: BTreeSet<(usize, Vec<u8>)>,
    /// The texts of passwd and group, by layer and path.
    tables: BTreeMap<(usize, Vec<u8>), Vec<u8>>,
    /// Programs that say what they were made of.
    pub(super) programs: Programs,
}

/// How much of a table or of what may be a key is looked at.
const LOOK_BYTES: usize = 64 << 10;

const PASSWD: &[u8] = b"etc/passwd";
const GROUP: &[u8] = b"etc/group";

impl Look for Looks {
    fn wants(&self, path: &[u8], first: &[u8]) -> usize {
        if path == PASSWD || path == GROUP || is_looked_into(&String::from_utf8_lossy(name(path))) {
            LOOK_BYTES
        } else {
            programs::wants(first)
        }
    }

    fn take(&mut self, layer: usize, path: &[u8], start: &[u8]) {
        if path == PASSWD || path == GROUP {
            self.tables.insert((layer, path.to_vec()), start.to_vec());
        } else if programs::wants(start) > 0 {
            self.programs.take(layer, path, start);
        } else if matches!(verdict_of(&String::from_utf8_lossy(name(path)), start), Verdict::LeaveOut(_)) {
            self.keys.insert((layer, path.to_vec()));
        }
    }
}

impl Looks {
    /// Returns the names that an image has for its users and groups.
    pub(crate) fn owners(&self, contents: &Contents) -> Owners {
        let table = |path: &[u8]| {
            let layer = contents.at(path)?.layer;
            self.tables.get(&(layer, path.to_vec()))
        };
        Owners { users: ids(table(PASSWD)), groups: ids(table(GROUP)) }
    }
}

/// The names of users and groups.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    pub(crate) users: BTreeMap<u32, String>,
    pub(crate) groups: BTreeMap<u32, String>,
}

/// Reads `name:x:id:…`; the first name of an id counts, as for the C library.
fn ids(table: Option<&Vec<u8>>) -> BTreeMap<u32, String> {
    const MAX_NAME: usize = 32;
    let text = String::from_utf8_lossy(table.map_or(&[][..], Vec::as_slice));
    let mut ids = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(Ok(id))) = (fields.next(), fields.nth(1).map(str::parse)) {
            let is_name = !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
            if is_name {
                ids.entry(id).or_insert_with(|| name.to_owned());
            }
        }
    }
    ids
}

/// Judges an image.
pub(crate) fn findings(contents: &Contents, settings: &Settings, config: &Config, looks: &Looks) -> Vec<Finding> {
    let mut found = Vec::new();
    for (layer, tree) in contents.layers().iter().enumerate() {
        let mut secret_folders: HashSet<&[u8]> = HashSet::new();
        for (path, node) in &tree.nodes {
            let reason = secret(path, node, &mut secret_folders, looks.keys.contains(&(layer, path.clone())));
            if let Some(reason) = reason {
                let is_hidden = contents.at(path).is_none_or(|shown| shown.layer != layer);
                let detail = reason.to_owned();
                found.push(Finding { kind: FindingKind::Secret, what: path.clone(), layer: Some(layer), detail, is_hidden });
            }
        }
    }
    for shown in contents.files().filter(|shown| shown.link.is_none()) {
        for (kind, detail) in rights(shown.node) {
            let (what, layer) = (shown.path.to_vec(), Some(shown.layer));
            found.push(Finding { kind, what, layer, detail, is_hidden: false });
        }
    }
    for name in &settings.secrets {
        let (what, detail) = (name.clone().into_bytes(), "in the config".to_owned());
        found.push(Finding { kind: FindingKind::Variable, what, layer: None, detail, is_hidden: false });
    }
    for step in &config.history {
        for name in without_secrets(&step.created_by).1 {
            let (what, detail) = (name.into_bytes(), "in the history".to_owned());
            found.push(Finding { kind: FindingKind::Argument, what, layer: None, detail, is_hidden: false });
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Says what a file is taken for, by its name and the folders that it is in.
fn secret<'a>(path: &'a [u8], node: &Node, folders: &mut HashSet<&'a [u8]>, is_key: bool) -> Option<&'static str> {
    let parent = &path[..path.len() - name(path).len()];
    let parent = parent.strip_suffix(b"/").unwrap_or(parent);
    // A folder's name and its parent's decide; what is deeper in a folder of secrets is one of them.
    let start = parent.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    match node.kind {
        Kind::Folder { .. } => {
            let inside = [name(path), b"/x"].concat();
            let is_secret = folders.contains(parent)
                || matches!(verdict_of(&String::from_utf8_lossy(&inside), b""), Verdict::LeaveOut(_)) && !path.is_empty();
            if is_secret {
                folders.insert(path);
            }
            None
        }
        Kind::File { size_bytes: 1.., .. } | Kind::Hardlink { .. } => {
            if folders.contains(parent) {
                return Some("in a folder of secrets");
            }
            let start_of_key: &[u8] = if is_key { b"PRIVATE KEY-----" } else { b"" };
            match verdict_of(&String::from_utf8_lossy(&path[start..]), start_of_key) {
                Verdict::LeaveOut(reason) => Some(reason),
                Verdict::Admit => None,
            }
        }
        _ => None,
    }
}

/// Returns the rights of a node that are worth a look.
fn rights(node: &Node) -> Vec<(FindingKind, String)> {
    let mut found = Vec::new();
    let (is_file, is_folder) = (matches!(node.kind, Kind::File { .. }), node.is_folder());
    if is_file && node.mode & 0o4000 != 0 {
        found.push((FindingKind::Setuid, String::new()));
    }
    if is_file && node.mode & 0o2000 != 0 {
        found.push((FindingKind::Setgid, String::new()));
    }
    if let Some(value) = node.xattrs.get(&b"security.capability"[..]) {
        found.push((FindingKind::Capabilities, capabilities(value)));
    }
    // A sticky folder, such as /tmp, protects what is in it; links have no modes.
    if node.mode & 0o002 != 0 && (is_file || is_folder && node.mode & 0o1000 == 0) {
        found.push((FindingKind::WorldWritable, String::new()));
    }
    found
}

/// Reads a file's capabilities (linux/capability.h, `vfs_cap_data`), in getcap's words.
fn capabilities(value: &[u8]) -> String {
    const NAMES: [&str; 41] = [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ];
    let word = |at: usize| value.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let Some(magic) = word(0) else { return "malformed".to_owned() };
    let (permitted, inheritable) = match (magic >> 24, value.len()) {
        (1, 12) => (u64::from(word(4).unwrap_or(0)), u64::from(word(8).unwrap_or(0))),
        (2, 20) | (3, 24) => {
            let both = |low: usize, high: usize| u64::from(word(low).unwrap_or(0)) | u64::from(word(high).unwrap_or(0)) << 32;
            (both(4, 12), both(8, 16))
        }
        _ => return "malformed".to_owned(),
    };
    let is_effective = magic & 1 != 0;
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for bit in 0..64 {
        let (has, inherits) = (permitted >> bit & 1 == 1, inheritable >> bit & 1 == 1);
        if has || inherits {
            let flags = [("e", is_effective), ("i", inherits), ("p", has)];
            let flags = flags.iter().filter(|(_, set)| *set).map(|(flag, _)| *flag).collect();
            let name = NAMES.get(bit).map_or_else(|| format!("cap_{bit}"), |name| format!("cap_{name}"));
            groups.entry(flags).or_default().push(name);
        }
    }
    let groups: Vec<String> = groups.iter().map(|(flags, names)| format!("{}={flags}", names.join(","))).collect();
    groups.join(" ")
}

/// Returns the last name of a path.
fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_as_getcap_does() {
        let second = |flags: u8, low: u32, high: u32| {
            let words = [u32::from(flags) | 0x0200_0000, low, 0, high, 0];
            words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
        };
        assert_eq!(capabilities(&second(1, 1 << 10, 0)), "cap_net_bind_service=ep");
        assert_eq!(capabilities(&second(0, 1 << 13 | 1 << 12, 1 << 6)), "cap_net_admin,cap_net_raw,cap_perfmon=p");
        assert_eq!(capabilities(&second(0, 0, 1 << 31)), "cap_63=p");
        for odd in [&b""[..], b"\0", &[9; 20], &second(1, 1, 0)[..19]] {
            assert_eq!(capabilities(odd), "malformed", "{odd:?}");
        }
    }

    #[test]
    fn secrets_are_found_by_name_folder_and_content() {
        let file = Node {
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime_ns: 0,
            xattrs: BTreeMap::new(),
            kind: Kind::File { size_bytes: 1, digest: roche_engine::Digest::of(b"x") },
        };
        let folder = Node { kind: Kind::Folder { opaque: false }, ..file.clone() };
        let mut folders = HashSet::new();
        for path in [&b"root"[..], b"root/.ssh", b"root/.ssh/deep", b"app", b"app/.env.d"] {
            assert_eq!(secret(path, &folder, &mut folders, false), None);
        }
        let mut judge = |path: &'static [u8], is_key| secret(path, &file, &mut folders, is_key).is_some();
        for path in [&b"app/.env"[..], b"root/.ssh/config", b"root/.ssh/deep/x", b"id_rsa", b"root/.docker/config.json"] {
            assert!(judge(path, false), "{}", path.escape_ascii());
        }
        for path in [&b"app/env"[..], b"app/.env.d/x", b"etc/ssl/ca.pem", b"app/config.json"] {
            assert_eq!(judge(path, false), path == b"app/.env.d/x", "{}", path.escape_ascii());
        }
        assert!(judge(b"etc/ssl/tls.pem", true));
        let empty = Node { kind: Kind::File { size_bytes: 0, digest: roche_engine::Digest::of(b"") }, ..file.clone() };
        assert_eq!(secret(b"app/.env", &empty, &mut HashSet::new(), false), None, "an empty file holds no secret");
    }

    #[test]
    fn rights_are_found_where_they_mean_something() {
        let node = |mode, kind| Node { mode, uid: 0, gid: 0, mtime_ns: 0, xattrs: BTreeMap::new(), kind };
        let file = Kind::File { size_bytes: 1, digest: roche_engine::Digest::of(b"x") };
        let folder = Kind::Folder { opaque: false };
        let kinds = |node: Node| rights(&node).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(node(0o6755, file.clone())), [FindingKind::Setuid, FindingKind::Setgid]);
        assert_eq!(kinds(node(0o666, file)), [FindingKind::WorldWritable]);
        assert_eq!(kinds(node(0o777, folder.clone())), [FindingKind::WorldWritable]);
        assert!(kinds(node(0o1777, folder.clone())).is_empty() && kinds(node(0o2755, folder)).is_empty());
        assert!(kinds(node(0o777, Kind::Symlink { target: b"x".to_vec() })).is_empty());
    }

    #[test]
    fn owners_are_named_by_the_first_entry() {
        let table = b"root:x:0:0::/:/bin/sh\ntoor:x:0:0::/:\nme\x1b[m:x:7:7::\nbad\nu:x:5:\n".to_vec();
        assert_eq!(ids(Some(&table)), BTreeMap::from([(0, "root".to_owned()), (5, "u".to_owned())]));
        assert!(ids(None).is_empty());
    }
}
