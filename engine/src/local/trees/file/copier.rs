//! Copies one file or folder (`copier` of `tonistiigi/fsutil/copy`).
//!
//! Folders are merged, files replaced. Invariant: a copy has the owner, mode, time and attributes of its source but for what the
//! rules say; times of folders are set when nothing more is put into them; names of one file stay names of one file.

use std::collections::HashMap;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::modes::Modes;
use super::place::Place;
use super::{FileError, Source, content, root};
use crate::buildkit::{Matched, Patterns};
use crate::local::trees::tree::{Kind, Node};
use crate::local::trees::xattr::Xattrs;
use crate::local::trees::{beneath, path, xattr};

/// What copies differ in from their sources, and what is copied.
pub(super) struct Rules {
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: ModeRule,
    pub(super) time_ns: Option<i64>,
    /// All where there are none.
    pub(super) include: Option<Patterns>,
    pub(super) exclude: Option<Patterns>,
    /// Whether something excluded may hold something that is not.
    pub(super) has_exceptions: bool,
    /// Whether a file gives way to a folder and the reverse.
    pub(super) replace: bool,
}

/// The modes of copies.
pub(super) enum ModeRule {
    Keep,
    Set(u32),
    Change(Modes),
}

/// One copy at work.
pub(super) struct Copier<'c, 'p> {
    place: &'c mut Place<'p>,
    source: &'c Source<'c>,
    rules: &'c Rules,
    /// The copies of files that have several names.
    linked: HashMap<(u64, u64), Vec<u8>>,
    /// The folders above, outermost first.
    parents: Vec<Parent>,
}

/// A folder whose content is being copied.
struct Parent {
    from: Vec<u8>,
    to: Vec<u8>,
    /// Whether it is in the target: one that only holds what a pattern may bring in is made when that comes.
    is_made: bool,
    /// Whether it was made for something in it.
    is_made_late: bool,
}

/// What stands in the source.
struct Seen {
    stat: Stat,
    kind: FileType,
    /// The device that it is or stands for.
    device: Option<Kind>,
    owner: (u32, u32),
    mode: u32,
}

/// What the patterns say of what is in a folder.
#[derive(Default)]
struct Judged {
    included: Matched,
    excluded: Matched,
}

impl<'c, 'p> Copier<'c, 'p> {
    pub(super) fn new(place: &'c mut Place<'p>, source: &'c Source<'c>, rules: &'c Rules) -> Self {
        Self { place, source, rules, linked: HashMap::new(), parents: Vec::new() }
    }

    /// Copies `from` to `to`. A folder that is there already keeps its mode and owner.
    pub(super) fn copy(&mut self, from: &[u8], to: &[u8]) -> Result<(), FileError> {
        self.entry(from, "", to, &Judged::default())
    }

    /// Copies what is at `inside` of the copy as a whole.
    fn entry(&mut self, from: &[u8], inside: &str, to: &[u8], parent: &Judged) -> Result<(), FileError> {
        let is_top = inside.is_empty();
        let (mut include, mut excluded, mut judged) = (true, false, Judged::default());
        if !is_top {
            if let Some(patterns) = &self.rules.include {
                (include, judged.included) = patterns.matches(inside, &parent.included);
            }
            if let Some(patterns) = &self.rules.exclude {
                (excluded, judged.excluded) = patterns.matches(inside, &parent.excluded);
                include &= !excluded;
            }
            if excluded && self.rules.include.is_none() && !self.rules.has_exceptions {
                return Ok(());
            }
        }
        let seen = self.seen(from)?;
        // The layer of a difference, where it is mounted alone, shows what it takes away.
        if matches!(seen.device, Some(Kind::Char { major: 0, minor: 0 })) {
            return Ok(());
        }
        let is_folder = seen.kind == FileType::Directory;
        if !include && !is_folder {
            return Ok(());
        }
        let before = self.place.stat(to)?.map(|stat| beneath::kind(&stat));
        if include {
            let merges = is_folder && before == Some(FileType::Directory);
            if self.rules.replace && before.is_some() && !merges {
                self.place.remove(to)?;
            }
            self.make_parents(is_top)?;
        }
        if is_folder {
            let made = self.folder((from, inside, to), &seen, include, excluded && !self.rules.has_exceptions, &judged)?;
            // A folder that was there, and that the copy is about, only gets the time.
            return match include {
                true if made || !is_top => self.finish(&seen, from, to),
                true => self.place.set_time(to, self.time(&seen)),
                false => Ok(()),
            };
        }
        match self.place.stat(to)?.map(|stat| beneath::kind(&stat)) {
            Some(FileType::Directory) => {
                return Err(FileError::refused(to, "a folder cannot be replaced by a file: remove it first"));
            }
            Some(_) => self.place.remove(to)?,
            None => {}
        }
        self.file(&seen, from, to)?;
        self.finish(&seen, from, to)
    }

    /// Copies a folder's content, and makes the folder where it is included. Says whether it was made.
    fn folder(
        &mut self,
        (from, inside, to): (&[u8], &str, &[u8]),
        seen: &Seen,
        include: bool,
        is_closed: bool,
        judged: &Judged,
    ) -> Result<bool, FileError> {
        let made = include && self.make_folder(seen, to)?;
        self.parents.push(Parent { from: from.to_vec(), to: to.to_vec(), is_made: include, is_made_late: false });
        if !is_closed {
            let folder = beneath::folder(self.source.root, from).map_err(FileError::system("read", from))?;
            let names = beneath::names(folder.as_fd()).map_err(FileError::system("read", from))?;
            drop(folder);
            for name in names {
                let text = String::from_utf8_lossy(&name);
                let inside = if inside.is_empty() { text.into_owned() } else { format!("{inside}/{text}") };
                self.entry(&path::join(from, &name), &inside, &path::join(to, &name), judged)?;
            }
        }
        let parent = self.parents.pop().expect("it was pushed above");
        if parent.is_made_late {
            self.place.set_time(to, self.time(seen))?;
        }
        Ok(made)
    }

    /// Makes the folders above that wait for something in them.
    fn make_parents(&mut self, is_top: bool) -> Result<(), FileError> {
        for i in 0..self.parents.len() {
            if is_top || self.parents[i].is_made {
                continue;
            }
            let (from, to) = (self.parents[i].from.clone(), self.parents[i].to.clone());
            let seen = self.seen(&from)?;
            if self.make_folder(&seen, &to)? {
                self.finish(&seen, &from, &to)?;
                self.parents[i].is_made_late = true;
            }
            self.parents[i].is_made = true;
        }
        Ok(())
    }

    /// Makes a folder where there is none. Says whether there was none.
    fn make_folder(&mut self, seen: &Seen, to: &[u8]) -> Result<bool, FileError> {
        match self.place.stat(to)?.map(|stat| beneath::kind(&stat)) {
            None => self.place.make_folder(to, seen.mode).map(|()| true),
            Some(FileType::Directory) => Ok(false),
            Some(_) => Err(FileError::system("copy a folder to", to)(Errno::NOTDIR.into())),
        }
    }

    /// Copies what is no folder to where nothing is.
    fn file(&mut self, seen: &Seen, from: &[u8], to: &[u8]) -> Result<(), FileError> {
        if let Some(device) = &seen.device {
            return self.place.make_node(to, device);
        }
        match seen.kind {
            FileType::RegularFile => {
                if seen.stat.st_nlink > 1 {
                    let identity = (seen.stat.st_dev, seen.stat.st_ino);
                    if let Some(first) = self.linked.get(&identity) {
                        return self.place.make_link(to, first);
                    }
                    self.linked.insert(identity, to.to_vec());
                }
                let mut source = beneath::file(self.source.root, from).map_err(FileError::system("open", from))?;
                let mut target = self.place.make_file(to)?;
                content::copy(&mut source, &mut target).map_err(FileError::system("write", to))
            }
            FileType::Symlink => {
                let target = root::read_link(self.source.root, from).map_err(FileError::system("read", from))?;
                self.place.make_symlink(to, &target)
            }
            FileType::Fifo => self.place.make_node(to, &Kind::Fifo),
            // A socket is nothing without who listens on it; BuildKit leaves an empty file as well.
            _ => self.place.make_file(to).map(drop),
        }
    }

    /// Gives a copy owner, mode, attributes and time.
    fn finish(&mut self, seen: &Seen, from: &[u8], to: &[u8]) -> Result<(), FileError> {
        self.place.set_owner(to, self.rules.owner.unwrap_or(seen.owner))?;
        let is_folder = seen.kind == FileType::Directory;
        if seen.kind != FileType::Symlink {
            let mode = match &self.rules.mode {
                ModeRule::Keep => seen.mode,
                ModeRule::Set(mode) => mode & 0o7777,
                ModeRule::Change(modes) => modes.apply(seen.mode, is_folder),
            };
            self.place.set_mode(to, mode)?;
        }
        let xattrs = self.xattrs(seen, from)?;
        self.place.set_xattrs(to, &xattrs)?;
        self.place.set_time(to, self.time(seen))
    }

    fn time(&self, seen: &Seen) -> i64 {
        self.rules.time_ns.unwrap_or_else(|| beneath::mtime_ns(&seen.stat))
    }

    /// Looks at something in the source, and at what its layers and notes say of it.
    fn seen(&self, path: &[u8]) -> Result<Seen, FileError> {
        let stat = beneath::stat(self.source.root, path).map_err(FileError::system("look at", path))?;
        let stat = stat.ok_or_else(|| FileError::missing("copy", path))?;
        let kind = beneath::kind(&stat);
        let (said, noted) = (self.source.view.node(path), self.source.ledger.of(path));
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let is_device = |node: &&Node| matches!(node.kind, Kind::Char { .. } | Kind::Block { .. });
        let device = match kind {
            FileType::CharacterDevice => Some(Kind::Char { major, minor }),
            FileType::BlockDevice => Some(Kind::Block { major, minor }),
            FileType::RegularFile if stat.st_size == 0 => match noted {
                Some(noted) => noted.device.clone(),
                None => said.filter(is_device).map(|node| node.kind.clone()),
            },
            _ => None,
        };
        let owner = self.place.disk.owner(&stat, said, noted);
        Ok(Seen { kind, device, owner, mode: stat.st_mode & 0o7777, stat })
    }

    /// Returns the attributes of something in the source.
    fn xattrs(&self, seen: &Seen, path: &[u8]) -> Result<Xattrs, FileError> {
        let read = || {
            if matches!(seen.kind, FileType::RegularFile | FileType::Directory) {
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
                xattr::of_file(beneath::open(self.source.root, path, flags)?.as_fd())
            } else {
                let folder = beneath::folder(self.source.root, path::parent(path).unwrap_or_default())?;
                rustix::fs::statat(&folder, path::name(path), AtFlags::SYMLINK_NOFOLLOW)?;
                xattr::of_entry(folder.as_fd(), path::name(path))
            }
        };
        let mut xattrs = read().map_err(FileError::system("read the attributes of", path))?;
        if let Some(noted) = self.source.ledger.of(path) {
            xattrs.extend(noted.xattrs.clone());
        }
        Ok(xattrs)
    }
}
