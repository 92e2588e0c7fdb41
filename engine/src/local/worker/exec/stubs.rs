//! Mount points that a step's root lacks: made before the step, removed after it where they are
//! still empty. BuildKit's `executor/stubs.go`.
//!
//! Invariant: what stood in the tree before is never removed, nor is anything with content; a folder
//! that the step itself left alone has the times that it had before.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, OFlags, Stat, Timespec, Timestamps};
use rustix::io;

use super::super::inside::{self, Leaf, join};
use super::super::mounting;

/// Names from a root down; none of them is a link.
type Names = Vec<Vec<u8>>;

/// The mount points that were made for a step.
#[derive(Debug, Default)]
pub(super) struct Stubs {
    /// What was missing, the deepest first for each mount point.
    missing: Vec<Names>,
    /// The folders that they were made in.
    folders: Vec<Folder>,
}

/// A folder that gained a stub.
#[derive(Debug)]
struct Folder {
    names: Names,
    /// Its times before anything was made.
    before: Timestamps,
    /// When it was changed last before the step.
    after: Option<(i64, i64)>,
}

/// A mount point.
pub(super) struct Point<'a> {
    /// Its path.
    pub(super) target: &'a str,
    /// What it is.
    pub(super) leaf: Leaf,
    /// Whether it goes away again.
    pub(super) stub: bool,
    /// Whether it is in the root itself, not in what another mount puts there.
    pub(super) bare: bool,
}

impl Stubs {
    /// Makes mount points; parents go away again too where `recursive`.
    pub(super) fn make(root: BorrowedFd<'_>, points: &[Point<'_>], recursive: bool) -> Self {
        let mut stubs = Self::default();
        for point in points.iter().filter(|point| point.stub) {
            // What cannot be resolved cannot be mounted on either: that is said there.
            let Ok(names) = inside::resolve(root, point.target.as_bytes()) else { continue };
            stubs.find(root, names, recursive);
        }
        for point in points.iter().filter(|point| point.bare) {
            // As above.
            let _ = inside::make(root, point.target.as_bytes(), point.leaf, None);
        }
        for folder in &mut stubs.folders {
            folder.after = stat(root, &folder.names).ok().map(|stat| changed(&stat));
        }
        stubs
    }

    fn find(&mut self, root: BorrowedFd<'_>, names: Names, recursive: bool) {
        for len in (0..=names.len()).rev() {
            match stat(root, &names[..len]) {
                Err(io::Errno::NOENT | io::Errno::NOTDIR) if recursive || len == names.len() => {
                    self.missing.push(names[..len].to_vec());
                }
                Err(io::Errno::NOENT | io::Errno::NOTDIR) => {}
                Err(_) => return,
                Ok(stat) => {
                    if len < names.len() && !self.folders.iter().any(|folder| folder.names == names[..len]) {
                        let names = names[..len].to_vec();
                        self.folders.push(Folder { names, before: times(&stat), after: None });
                    }
                    return;
                }
            }
        }
    }

    /// Removes what is still empty.
    pub(super) fn remove(&self, root: BorrowedFd<'_>) {
        for names in &self.missing {
            // A stub that stays is untidy, not wrong: the step's result is what counts.
            let _ = remove(root, names);
        }
        for folder in &self.folders {
            let untouched = stat(root, &folder.names).is_ok_and(|stat| Some(changed(&stat)) == folder.after);
            if untouched && resolves(root, &folder.names) {
                let _ = set_times(root, &folder.names, &folder.before);
            }
        }
    }
}

fn remove(root: BorrowedFd<'_>, names: &[Vec<u8>]) -> io::Result<()> {
    let Some((name, above)) = names.split_last() else { return Ok(()) };
    let found = stat(root, names)?;
    let flags = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => AtFlags::REMOVEDIR,
        FileType::RegularFile if found.st_size == 0 => AtFlags::empty(),
        _ => return Ok(()),
    };
    if !resolves(root, above) {
        return Ok(());
    }
    let folder = mounting::within(root, join(above).as_slice(), OFlags::PATH | OFlags::DIRECTORY)?;
    let before = times(&rustix::fs::fstat(&folder)?);
    // A folder that is not empty stays: the kernel says so.
    rustix::fs::unlinkat(&folder, OsStr::from_bytes(name), flags)?;
    set_times(root, above, &before)
}

/// Says whether names still are what they were: no link was put in their way.
fn resolves(root: BorrowedFd<'_>, names: &[Vec<u8>]) -> bool {
    inside::resolve(root, &join(names)).is_ok_and(|now| now == names)
}

fn set_times(root: BorrowedFd<'_>, names: &[Vec<u8>], times: &Timestamps) -> io::Result<()> {
    let folder = mounting::within(root, join(names).as_slice(), OFlags::RDONLY | OFlags::DIRECTORY)?;
    rustix::fs::futimens(folder.as_fd(), times)
}

fn stat(root: BorrowedFd<'_>, names: &[Vec<u8>]) -> io::Result<Stat> {
    rustix::fs::fstat(mounting::within(root, join(names).as_slice(), OFlags::PATH | OFlags::NOFOLLOW)?)
}

fn changed(stat: &Stat) -> (i64, i64) {
    let modified = times(stat).last_modification;
    (modified.tv_sec, modified.tv_nsec)
}

fn times(stat: &Stat) -> Timestamps {
    // The fields' types differ between architectures; nanoseconds are below a thousand million.
    #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
    let time = |s, ns| Timespec { tv_sec: s, tv_nsec: ns as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn points<'a>(targets: &[&'a str]) -> Vec<Point<'a>> {
        targets.iter().map(|target| Point { target, leaf: Leaf::Folder, stub: true, bare: true }).collect()
    }

    fn made(targets: &[&str], recursive: bool, step: impl FnOnce(&std::path::Path)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc/there")).unwrap();
        let root = mounting::place(folder.path()).unwrap();
        let stubs = Stubs::make(root.as_fd(), &points(targets), recursive);
        step(folder.path());
        stubs.remove(root.as_fd());
        folder
    }

    #[test]
    fn empty_mount_points_vanish_with_their_parents_and_what_stood_there_stays() {
        let tree = made(&["/a/b/c", "/a/b/d", "/etc/there", "/etc/x"], true, |tree| assert!(tree.join("a/b/d").is_dir()));
        assert!(!tree.path().join("a").exists() && !tree.path().join("etc/x").exists());
        assert!(tree.path().join("etc/there").exists());
    }

    #[test]
    fn without_recursion_parents_stay() {
        let tree = made(&["/a/b"], false, |_| {});
        assert!(tree.path().join("a").exists() && !tree.path().join("a/b").exists());
    }

    #[test]
    fn what_the_step_filled_stays() {
        let tree = made(&["/a/b"], true, |tree| fs::write(tree.join("a/file"), "x").unwrap());
        assert!(tree.path().join("a/file").exists() && !tree.path().join("a/b").exists());
    }

    #[test]
    fn a_link_put_in_the_way_leads_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("b")).unwrap();
        made(&["/a/b"], true, |tree| {
            fs::remove_dir_all(tree.join("a")).unwrap();
            symlink(outside.path(), tree.join("a")).unwrap();
            fs::create_dir_all(tree.join("other/b")).unwrap();
        });
        assert!(outside.path().join("b").exists());
    }

    #[test]
    fn a_folder_that_the_step_left_alone_keeps_its_times() {
        let before = |tree: &tempfile::TempDir| fs::metadata(tree.path().join("etc")).unwrap().mtime_nsec();
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        let root = mounting::place(folder.path()).unwrap();
        let was = before(&folder);
        let stubs = Stubs::make(root.as_fd(), &points(&["/etc/x"]), true);
        assert_ne!(before(&folder), was);
        stubs.remove(root.as_fd());
        assert_eq!(before(&folder), was);
    }
}
