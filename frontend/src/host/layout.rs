//! The tree: files and folders of the machine at the places where the tools look for them.
//!
//! Invariant: every link on the way to a file is a link in the tree too, so a tool that follows
//! it inside finds what it would find outside; a sysroot stands at [`Sysroot::place`], and no path
//! in the tree says where the user has it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use roche_engine::Digest;
use roche_engine::solver::{HostEntry, HostNode, HostTree};

use super::ask::Closure;
use super::digests::Digests;
use super::{HostError, at};

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Where Rust's own files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sysroot {
    /// The folder on the machine, without links on the way.
    pub(super) host: PathBuf,
    /// The folder in the tree.
    pub(super) place: String,
}

impl Sysroot {
    /// Returns where a path of the machine stands in the tree.
    pub(super) fn place_of(&self, host: &Path) -> Result<String, HostError> {
        let text = |path: &Path| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| HostError::Unusable { path: host.to_owned(), reason: "is not UTF-8".to_owned() })
        };
        match host.strip_prefix(&self.host) {
            Ok(rest) if rest.as_os_str().is_empty() => Ok(self.place.clone()),
            Ok(rest) => Ok(format!("{}/{}", self.place, text(rest)?)),
            Err(_) => text(host),
        }
    }

    /// Splits an absolute path into the folder that it starts from and the parts that follow: the
    /// sysroot's own place on the machine is no part of the tree.
    fn split<'a>(&self, path: &'a Path) -> (PathBuf, &'a Path) {
        match path.strip_prefix(&self.host) {
            Ok(rest) => (self.host.clone(), rest),
            Err(_) => (PathBuf::from("/"), path),
        }
    }
}

/// Makes the tree of a closure's files.
pub(super) fn tree(closure: &Closure, digests: &mut Digests) -> Result<HostTree, HostError> {
    let mut layout = Layout { sysroot: &closure.sysroot, nodes: BTreeMap::new() };
    for path in &closure.paths {
        layout.add(path)?;
    }
    layout.settle(digests)
}

/// Takes the digest of a folder, whatever its place.
pub(super) fn folder(folder: &Path, digests: &mut Digests) -> Result<Digest, HostError> {
    digest(&[HostEntry { path: String::new(), node: HostNode::Bind(folder.to_owned()) }], digests)
}

struct Layout<'a> {
    sysroot: &'a Sysroot,
    nodes: BTreeMap<String, HostNode>,
}

impl Layout<'_> {
    /// Adds the file or folder that an absolute path leads to, with every link on the way.
    fn add(&mut self, path: &Path) -> Result<(), HostError> {
        let (mut place, rest) = self.sysroot.split(path);
        let mut pending = parts(rest);
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                place.pop();
                continue;
            }
            let next = place.join(&part);
            if !next.symlink_metadata().map_err(at(&next))?.is_symlink() {
                place = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return Err(HostError::Unusable { path: path.to_owned(), reason: "is a circle of links".to_owned() });
            }
            let target = next.read_link().map_err(at(&next))?;
            self.nodes.insert(self.sysroot.place_of(&next)?, HostNode::Symlink(self.said(&target)?));
            if target.is_absolute() {
                let (start, rest) = self.sysroot.split(&target);
                place = start;
                pending.extend(parts(rest));
            } else {
                pending.extend(parts(&target));
            }
        }
        let is_new = self.nodes.insert(self.sysroot.place_of(&place)?, HostNode::Bind(place.clone())).is_none();
        if is_new && place.is_dir() { self.add_linked(&place) } else { Ok(()) }
    }

    /// Adds what the links in a folder lead to; those that lead nowhere do so in the tree as well.
    fn add_linked(&mut self, folder: &Path) -> Result<(), HostError> {
        let mut links = Vec::new();
        walk(folder, &mut |path, kind| links.extend(matches!(kind, Kind::Link(_)).then(|| path.to_owned())))?;
        for link in links {
            match self.add(&link) {
                Err(HostError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Returns what a link says in the tree.
    fn said(&self, target: &Path) -> Result<String, HostError> {
        if target.is_absolute() { self.sysroot.place_of(target) } else { Ok(target.to_string_lossy().into_owned()) }
    }

    /// Leaves out what lies in folders that are there as a whole, and takes the digest.
    fn settle(self, digests: &mut Digests) -> Result<HostTree, HostError> {
        let folders: BTreeSet<&str> =
            self.nodes.iter().filter_map(|(path, node)| is_folder(node).then_some(path.as_str())).collect();
        let covered = |path: &str| path.match_indices('/').any(|(i, _)| folders.contains(&path[..i]));
        let entries: Vec<HostEntry> = self
            .nodes
            .iter()
            .filter(|(path, _)| !covered(path))
            .map(|(path, node)| HostEntry { path: path.clone(), node: node.clone() })
            .collect();
        let digest = digest(&entries, digests)?;
        Ok(HostTree { digest, entries })
    }
}

fn is_folder(node: &HostNode) -> bool {
    matches!(node, HostNode::Bind(path) if path.is_dir())
}

/// Takes the digest over the path, whether it can be run, and the digest of every file, and the
/// path and text of every link. Other permission bits and all times are the installer's.
fn digest(entries: &[HostEntry], digests: &mut Digests) -> Result<Digest, HostError> {
    let (mut lines, mut files) = (Vec::new(), Vec::new());
    let mut file = |place: String, path: &Path| -> Result<(), HostError> {
        let executable = path.metadata().map_err(at(path))?.permissions().mode() & 0o111 != 0;
        files.push((format!("{place}\0{}", if executable { "755" } else { "644" }), path.to_owned()));
        Ok(())
    };
    for HostEntry { path: place, node } in entries {
        match node {
            HostNode::Symlink(target) => lines.push(format!("{place}\0link {target}\n")),
            HostNode::Bind(path) if path.is_dir() => {
                let mut inside = Vec::new();
                walk(path, &mut |path, kind| inside.push((path.to_owned(), kind)))?;
                for (inner, kind) in inside {
                    let rest = inner
                        .strip_prefix(path)
                        .unwrap_or(&inner)
                        .to_str()
                        .ok_or_else(|| HostError::Unusable { path: inner.clone(), reason: "is not UTF-8".to_owned() })?;
                    let place = format!("{place}/{rest}");
                    match kind {
                        Kind::Link(target) => lines.push(format!("{place}\0link {}\n", target.to_string_lossy())),
                        Kind::File => file(place, &inner)?,
                    }
                }
            }
            HostNode::Bind(path) => file(place.clone(), path)?,
        }
    }
    let (heads, paths): (Vec<String>, Vec<PathBuf>) = files.into_iter().unzip();
    let contents = digests.of(&paths)?;
    lines.extend(heads.iter().zip(contents).map(|(head, content)| format!("{head} {}\n", content.hex())));
    lines.sort_unstable();
    Ok(Digest::of(lines.concat().as_bytes()))
}

/// What lies in a folder.
enum Kind {
    File,
    Link(PathBuf),
}

/// Visits everything in a folder but folders.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, Kind)) -> Result<(), HostError> {
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in folder.read_dir().map_err(at(&folder))? {
            let path = entry.map_err(at(&folder))?.path();
            let kind = path.symlink_metadata().map_err(at(&path))?.file_type();
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_symlink() {
                let target = path.read_link().map_err(at(&path))?;
                visit(&path, Kind::Link(target));
            } else if kind.is_file() {
                visit(&path, Kind::File);
            } else {
                let reason = "is neither a file nor a folder nor a link".to_owned();
                return Err(HostError::Unusable { path, reason });
            }
        }
    }
    Ok(())
}

/// Returns the parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::time::SystemTime;

    fn digests() -> Digests {
        Digests::new(BTreeMap::new(), SystemTime::UNIX_EPOCH)
    }

    /// A machine with a sysroot of its own in `root/home/x`, and the usual links.
    fn machine(root: &Path) -> Sysroot {
        for folder in ["usr/bin", "usr/lib/gcc", "etc/alternatives", "home/x/bin", "home/x/lib/rustlib/t/lib"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink(root.join("etc/alternatives/cc"), root.join("usr/bin/cc")).unwrap();
        symlink(root.join("usr/bin/gcc-12"), root.join("etc/alternatives/cc")).unwrap();
        for (file, text) in [
            ("usr/bin/gcc-12", "gcc"),
            ("usr/lib/gcc/crt.o", "crt"),
            ("home/x/bin/rustc", "rustc"),
            ("home/x/lib/rustlib/t/lib/a", "a"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        Sysroot { host: root.join("home/x"), place: "/toolchain".to_owned() }
    }

    fn closure(root: &Path, sysroot: Sysroot, paths: &[&str]) -> Closure {
        let paths = paths.iter().map(|path| root.join(path)).collect();
        Closure { sysroot, paths, target: String::new(), version: String::new(), env: Vec::new() }
    }

    /// Shows entries with `root` as `ROOT`.
    fn shown(root: &Path, tree: &HostTree) -> Vec<String> {
        let line = |entry: &HostEntry| match &entry.node {
            HostNode::Bind(path) => format!("{} = {}", entry.path, path.display()),
            HostNode::Symlink(target) => format!("{} -> {target}", entry.path),
        };
        tree.entries.iter().map(|entry| line(entry).replace(root.to_str().unwrap(), "ROOT")).collect()
    }

    #[test]
    fn links_on_the_way_are_links_in_the_tree_and_the_sysroot_has_its_place() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let sysroot = machine(&root);
        let paths = ["usr/bin/cc", "lib/gcc/../gcc/crt.o", "home/x/bin/../bin/rustc", "home/x/lib/rustlib/t"];
        let tree = tree(&closure(&root, sysroot, &paths), &mut digests()).unwrap();
        assert_eq!(
            shown(&root, &tree),
            [
                "ROOT/etc/alternatives/cc -> ROOT/usr/bin/gcc-12",
                "ROOT/lib -> usr/lib",
                "ROOT/usr/bin/cc -> ROOT/etc/alternatives/cc",
                "ROOT/usr/bin/gcc-12 = ROOT/usr/bin/gcc-12",
                "ROOT/usr/lib/gcc/crt.o = ROOT/usr/lib/gcc/crt.o",
                "/toolchain/bin/rustc = ROOT/home/x/bin/rustc",
                "/toolchain/lib/rustlib/t = ROOT/home/x/lib/rustlib/t",
            ]
        );
    }

    #[test]
    fn what_links_of_a_folder_lead_to_comes_along() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let sysroot = machine(&root);
        let folder = root.join("home/x/lib/rustlib/t/lib");
        symlink(root.join("usr/lib/gcc/crt.o"), folder.join("out")).unwrap();
        symlink("a", folder.join("in")).unwrap();
        symlink("nowhere", folder.join("lost")).unwrap();
        let tree = tree(&closure(&root, sysroot, &["home/x/lib/rustlib/t"]), &mut digests()).unwrap();
        assert_eq!(
            shown(&root, &tree),
            ["ROOT/usr/lib/gcc/crt.o = ROOT/usr/lib/gcc/crt.o", "/toolchain/lib/rustlib/t = ROOT/home/x/lib/rustlib/t"]
        );
    }

    #[test]
    fn the_digest_is_of_paths_links_contents_and_what_can_be_run_alone() {
        let of = |change: &dyn Fn(&Path)| {
            let root = tempfile::tempdir().unwrap();
            let root = root.path().canonicalize().unwrap();
            let sysroot = machine(&root);
            change(&root);
            tree(&closure(&root, sysroot, &["home/x/bin/rustc", "home/x/lib/rustlib/t"]), &mut digests()).unwrap().digest
        };
        let mode =
            |root: &Path, mode| fs::set_permissions(root.join("home/x/bin/rustc"), fs::Permissions::from_mode(mode)).unwrap();
        let plain = of(&|root| mode(root, 0o755));
        assert_eq!(plain, of(&|root| mode(root, 0o700)), "another folder and another umask");
        let changes: [&dyn Fn(&Path); 4] = [
            &|root| mode(root, 0o644),
            &|root| fs::write(root.join("home/x/bin/rustc"), "other").unwrap(),
            &|root| fs::write(root.join("home/x/lib/rustlib/t/lib/b"), "").unwrap(),
            &|root| symlink("a", root.join("home/x/lib/rustlib/t/lib/b")).unwrap(),
        ];
        let digests: BTreeSet<Digest> = changes
            .iter()
            .map(|change| {
                of(&|root| {
                    mode(root, 0o755);
                    change(root);
                })
            })
            .chain([plain])
            .collect();
        assert_eq!(digests.len(), 5);
    }

    #[test]
    fn circles_and_what_is_missing_are_errors() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let sysroot = machine(&root);
        symlink("two", root.join("one")).unwrap();
        symlink("one", root.join("two")).unwrap();
        let error = tree(&closure(&root, sysroot.clone(), &["one"]), &mut digests()).unwrap_err();
        assert!(error.to_string().contains("circle"), "{error}");
        assert!(matches!(tree(&closure(&root, sysroot, &["gone"]), &mut digests()), Err(HostError::File { .. })));
    }
}
