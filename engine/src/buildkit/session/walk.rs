//! Walks an offered folder in the order that daemons need: depth first, parents before children,
//! siblings by the bytes of their names.
//!
//! Invariants: an entry is only told of, and a folder only entered, where the filter and
//! [`LocalDir::admits`] let it through; a folder that has no match itself is told of as soon as
//! something in it has. The walk keeps no tree: its memory is one listing for each level, and one
//! file descriptor for each of the innermost [`OPEN_LEVELS`].

use std::io::{self, Read as _};
use std::ops::ControlFlow;

use bollard_buildkit_proto::fsutil::types::Stat;
use sha2::{Digest as _, Sha256};

use super::beneath::{Dir, Listed, Meta, shown};
use super::followlinks::follow_links;
use super::glob::GlobError;
use super::mode;
use super::patterns::{Matched, Patterns};
use crate::Error;
use crate::solver::LocalDir;

/// How many levels of folders are kept open at once.
const OPEN_LEVELS: usize = 64;

/// Which files of a folder a daemon wants (`fsutil`'s `FilterOpt`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    include: Patterns,
    exclude: Patterns,
}

impl Filter {
    /// Reads patterns; `follow` are paths that are included together with what they link to.
    pub(crate) fn new(
        root: &LocalDir,
        mut include: Vec<String>,
        exclude: &[String],
        follow: &[String],
    ) -> Result<Self, FilterError> {
        if !follow.is_empty() {
            let dir = Dir::root(&root.path).map_err(|source| Error::File { path: root.path.clone(), source })?;
            let targets =
                follow_links(&dir, follow).map_err(|(path, source)| Error::File { path: shown(&root.path, &path), source })?;
            if let Some(targets) = targets {
                include.extend(targets);
                if include.iter().any(|path| path == ".") {
                    include.clear();
                }
            }
        }
        Ok(Self { include: Patterns::new(&include)?, exclude: Patterns::new(exclude)? })
    }
}

/// Why a filter cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilterError {
    /// The daemon's patterns break the grammar.
    #[error(transparent)]
    Pattern(#[from] GlobError),
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] Error),
}

/// An entry that is to be sent.
#[derive(Debug)]
pub(crate) struct Found {
    /// The index of its folder among what was found; nothing for those of the root.
    pub(crate) parent: Option<u32>,
    /// Its name.
    pub(crate) name: String,
    /// What the daemon is told.
    pub(crate) stat: Stat,
}

/// One folder on the way to where the walk is.
struct Level {
    dir: Option<Dir>,
    meta: Meta,
    name: String,
    entries: std::vec::IntoIter<Listed>,
    /// Where the folder's own path ends in the walk's path.
    path_len: usize,
    include: Matched,
    exclude: Matched,
    /// Its index, once it was told of.
    index: Option<u32>,
}

impl Level {
    fn new(dir: Dir, name: String, path_len: usize, include: Matched, exclude: Matched) -> io::Result<Self> {
        let (meta, entries) = (dir.meta()?, dir.list()?.into_iter());
        Ok(Self { dir: Some(dir), meta, name, entries, path_len, include, exclude, index: None })
    }
}

/// Tells `emit` of every entry, in order, until it breaks off.
pub(crate) fn walk(root: &LocalDir, filter: &Filter, emit: &mut dyn FnMut(Found) -> ControlFlow<()>) -> Result<(), Error> {
    let mut walk = Walk { root, filter, emit, count: 0, path: String::new(), levels: Vec::new(), buffer: vec![0; 64 << 10] };
    match walk.run() {
        Ok(ControlFlow::Continue(()) | ControlFlow::Break(())) => Ok(()),
        Err(source) => Err(Error::File { path: shown(&root.path, &walk.path), source }),
    }
}

struct Walk<'a> {
    root: &'a LocalDir,
    filter: &'a Filter,
    emit: &'a mut dyn FnMut(Found) -> ControlFlow<()>,
    count: u32,
    /// The path of the entry that is being looked at.
    path: String,
    levels: Vec<Level>,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    fn run(&mut self) -> io::Result<ControlFlow<()>> {
        let dir = Dir::root(&self.root.path)?;
        let level = Level::new(dir, String::new(), 0, Matched::default(), Matched::default())?;
        self.levels.push(level);
        while let Some(level) = self.levels.last_mut() {
            self.path.truncate(level.path_len);
            match level.entries.next() {
                Some(entry) => {
                    if self.entry(entry)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                None => self.pop()?,
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn entry(&mut self, entry: Listed) -> io::Result<ControlFlow<()>> {
        let (name, valid) = match entry.name {
            Ok(name) => (name, true),
            Err(shown) => (shown, false),
        };
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(&name);

        let level = self.levels.last().expect("an entry belongs to a level");
        let dir = level.dir.as_ref().expect("the innermost level is open");
        let kind = match entry.kind {
            Some(kind) => kind,
            None if valid => match skip_vanished(dir.stat(&name))? {
                Some(meta) => meta.mode & mode::TYPE,
                None => return Ok(ControlFlow::Continue(())),
            },
            None => 0,
        };
        // Sockets have no content and no meaning elsewhere.
        if kind & (mode::SOCKET | mode::IRREGULAR) != 0 {
            return Ok(ControlFlow::Continue(()));
        }
        let is_dir = kind & mode::DIR != 0;
        let Some((wanted, include, exclude)) = self.verdict(level, is_dir) else { return Ok(ControlFlow::Continue(())) };
        if !(wanted || is_dir) || !(self.root.admits)(&self.path, &shown(&self.root.path, &self.path)) {
            return Ok(ControlFlow::Continue(()));
        }
        if !valid {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the name is not UTF-8; rename or exclude it"));
        }

        if is_dir {
            let opened = match dir.dir(&name) {
                // What is not wanted itself need not be readable.
                Err(error) if !wanted && error.kind() == io::ErrorKind::PermissionDenied => None,
                other => skip_vanished(other)?,
            };
            let Some(child) = opened else { return Ok(ControlFlow::Continue(())) };
            let level = Level::new(child, name, self.path.len(), include, exclude)?;
            return Ok(self.push(level, wanted));
        }
        let Some(stat) = skip_vanished(stat(dir, &name, kind, &mut self.buffer))? else { return Ok(ControlFlow::Continue(())) };
        self.tell(name, stat)
    }

    /// Returns whether the entry at `self.path` is wanted itself, and which patterns matched;
    /// nothing where it is not and nothing in it can be.
    fn verdict(&self, level: &Level, is_dir: bool) -> Option<(bool, Matched, Matched)> {
        let mut wanted = true;
        let (mut included, mut excluded) = (Matched::default(), Matched::default());
        if !self.filter.include.is_empty() {
            let (hit, matched) = self.filter.include.matches(&self.path, &level.include);
            if !hit {
                if !is_dir || !self.filter.include.may_match_inside(&self.path, false) {
                    return None;
                }
                wanted = false;
            }
            included = matched;
        }
        if !self.filter.exclude.is_empty() {
            let (hit, matched) = self.filter.exclude.matches(&self.path, &level.exclude);
            if hit {
                if !is_dir || !self.filter.exclude.may_match_inside(&self.path, true) {
                    return None;
                }
                wanted = false;
            }
            excluded = matched;
        }
        Some((wanted, included, excluded))
    }

    /// Enters a folder; beyond [`OPEN_LEVELS`] an outer one is closed until the walk is back.
    fn push(&mut self, level: Level, wanted: bool) -> ControlFlow<()> {
        self.levels.push(level);
        if self.levels.len() > OPEN_LEVELS {
            let far = self.levels.len() - 1 - OPEN_LEVELS;
            self.levels[far].dir = None;
        }
        if wanted { self.tell_levels() } else { ControlFlow::Continue(()) }
    }

    fn pop(&mut self) -> io::Result<()> {
        let closed = self.levels.pop();
        if let (Some(Level { dir: Some(dir), .. }), Some(level)) = (closed, self.levels.last_mut())
            && level.dir.is_none()
        {
            level.dir = Some(dir.parent(level.meta.identity)?);
        }
        Ok(())
    }

    /// Tells of every folder on the way that was not told of yet.
    fn tell_levels(&mut self) -> ControlFlow<()> {
        let untold = self.levels.iter().skip(1).rposition(|level| level.index.is_some()).map_or(1, |told| told + 2);
        for i in untold..self.levels.len() {
            let level = &self.levels[i];
            let stat = Stat {
                path: self.path[..level.path_len].to_owned(),
                mode: level.meta.mode,
                mod_time: FIXED_TIME_NS,
                ..Stat::default()
            };
            let found = Found { parent: self.levels[i - 1].index, name: level.name.clone(), stat };
            self.levels[i].index = Some(self.count);
            self.count += 1;
            (self.emit)(found)?;
        }
        ControlFlow::Continue(())
    }

    fn tell(&mut self, name: String, mut stat: Stat) -> io::Result<ControlFlow<()>> {
        if self.tell_levels().is_break() {
            return Ok(ControlFlow::Break(()));
        }
        stat.path.clone_from(&self.path);
        self.count += 1;
        let parent = self.levels.last().and_then(|level| level.index);
        Ok((self.emit)(Found { parent, name, stat }))
    }
}

/// Files come and go while a folder is walked: one that went is one that is not there.
fn skip_vanished<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what the daemon is told of an entry that is no folder. Only regular files are opened.
fn stat(dir: &Dir, name: &str, kind: u32, buffer: &mut [u8]) -> io::Result<Stat> {
    if kind == 0 {
        let (mut file, meta) = dir.read(name)?;
        let (mut hash, mut size_bytes) = (Sha256::new(), 0);
        loop {
            let read = read(&mut file, buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            size_bytes += read as i64;
        }
        let mod_time = content_time_ns(&hash.finalize().into());
        return Ok(Stat { mode: meta.mode, size: size_bytes, mod_time, ..Stat::default() });
    }
    if kind == mode::SYMLINK {
        let linkname = dir.link(name)?;
        return Ok(Stat {
            mode: mode::SYMLINK | 0o777,
            size: linkname.len() as i64,
            mod_time: FIXED_TIME_NS,
            linkname,
            ..Stat::default()
        });
    }
    let meta = dir.stat(name)?;
    let (devmajor, devminor) = meta.device;
    Ok(Stat { mode: meta.mode, mod_time: FIXED_TIME_NS, devmajor, devminor, ..Stat::default() })
}

/// Reads once, again after a signal.
pub(super) fn read(file: &mut std::fs::File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// The time of everything that has no content: 1980-01-01.
const FIXED_TIME_NS: i64 = 315_532_800 * 1_000_000_000;

/// Returns the time that a file is sent with, in nanoseconds since 1970: a function of its content.
///
/// A daemon keeps what was sent before and asks for a file only where size, mode or time differ
/// (`fsutil`'s `sameFile`); with the file's own time, an edit that keeps size and time would never
/// arrive. So the time is 60 bits of the sha256, spread over 1980 to 2020: two contents have the
/// same with a probability of 2⁻⁶⁰, and the same content has the same on every machine. The price:
/// to a step that reads a local source directly, times say nothing of age. A graph should copy out
/// of the source with a fixed timestamp before a tool looks at times.
pub(super) fn content_time_ns(sha256: &[u8; 32]) -> i64 {
    const FORTY_YEARS_NS: u64 = 40 * 365 * 86_400 * 1_000_000_000;
    let (head, _) = sha256.split_at(8);
    let number = u64::from_be_bytes(head.try_into().expect("8 bytes"));
    FIXED_TIME_NS + 1 + (number % FORTY_YEARS_NS).cast_signed()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn local(path: &Path) -> LocalDir {
        LocalDir { path: path.to_owned(), admits: Arc::new(|_, _| true), content: None }
    }

    fn found(local: &LocalDir, filter: &Filter) -> Vec<(Option<u32>, Stat)> {
        let mut all = Vec::new();
        walk(local, filter, &mut |found| {
            assert!(found.stat.path.ends_with(&found.name));
            all.push((found.parent, found.stat));
            ControlFlow::Continue(())
        })
        .expect("a walk");
        all
    }

    fn paths(local: &LocalDir, include: &[&str], exclude: &[&str], follow: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let filter = Filter::new(local, owned(include), &owned(exclude), &owned(follow)).expect("a filter");
        found(local, &filter).into_iter().map(|(_, stat)| stat.path).collect()
    }

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
            std::fs::write(path, file).expect("a file");
        }
        dir
    }

    #[test]
    fn parents_come_first_and_siblings_by_their_bytes() {
        let dir = tree(&["a.b", "a/z", "a/b/c", "a-b", "ab", "A", "a0", "é", "~"]);
        let expected = ["A", "a", "a/b", "a/b/c", "a/z", "a-b", "a.b", "a0", "ab", "~", "é"];
        assert_eq!(paths(&local(dir.path()), &[], &[], &[]), expected);
        let all = found(&local(dir.path()), &Filter::default());
        assert_eq!(all[3].0, Some(2));
        assert_eq!(all[5].0, None);
    }

    #[test]
    fn filters_are_fsutils() {
        let dir = tree(&["src/main.rs", "src/bin/x.rs", "target/debug/x", "target/keep/y", "Cargo.toml", "docs/a.md"]);
        let local = local(dir.path());
        assert_eq!(paths(&local, &["src/bin"], &[], &[]), ["src", "src/bin", "src/bin/x.rs"]);
        assert_eq!(paths(&local, &["**/*.rs"], &[], &[]), ["src", "src/bin", "src/bin/x.rs", "src/main.rs"]);
        assert_eq!(paths(&local, &["src/*"], &["**/bin"], &[]), ["src", "src/main.rs"]);
        assert_eq!(
            paths(&local, &[], &["target", "!target/keep", "docs", "src"], &[]),
            ["Cargo.toml", "target", "target/keep", "target/keep/y"]
        );
        assert_eq!(paths(&local, &["nothing"], &[], &[]), [""; 0]);
        assert_eq!(paths(&local, &[], &["**"], &[]), [""; 0]);
    }

    #[test]
    fn what_is_not_admitted_is_neither_told_of_nor_entered() {
        let dir = tree(&[".env", "a/.env", "a/b", "secret/x/y"]);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let admits = {
            let (asked, root) = (Arc::clone(&asked), dir.path().to_owned());
            Arc::new(move |path: &str, full: &Path| {
                assert_eq!(full, root.join(path));
                asked.lock().expect("a lock").push(path.to_owned());
                !path.ends_with(".env") && path != "secret"
            })
        };
        let local = LocalDir { path: dir.path().to_owned(), admits, content: None };
        assert_eq!(paths(&local, &["**", "**/.env", "secret/x/y"], &["!**/.env"], &[".env"]), ["a", "a/b"]);
        assert_eq!(*asked.lock().expect("a lock"), [".env", "a", "a/.env", "a/b", "secret"]);
    }

    #[test]
    fn times_are_a_function_of_content() {
        let dir = tree(&["a", "b/a"]);
        std::fs::write(dir.path().join("b/a"), "a").expect("a file");
        let times =
            |dir: &Path| found(&local(dir), &Filter::default()).into_iter().map(|(_, stat)| stat.mod_time).collect::<Vec<_>>();
        let before = times(dir.path());
        assert_eq!(before[0], before[2]);
        assert_eq!(before[1], FIXED_TIME_NS);
        assert!(before[0] > FIXED_TIME_NS && before[0] < 1_600_000_000_000_000_000);
        let path = dir.path().join("a");
        let modified = std::fs::metadata(&path).and_then(|found| found.modified()).expect("a time");
        std::fs::write(&path, "b").expect("a file");
        std::fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(modified)).expect("a time");
        assert_ne!(times(dir.path())[0], before[0]);
    }

    #[cfg(unix)]
    #[test]
    fn special_files_are_never_opened_and_links_never_followed() {
        let dir = tree(&["f"]);
        let at = |name: &str| dir.path().join(name);
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
        std::os::unix::fs::symlink("/etc", at("link")).expect("a link");
        std::fs::hard_link(at("f"), at("g")).expect("a hard link");
        let all = found(&local(dir.path()), &Filter::default());
        let seen: Vec<_> =
            all.iter().map(|(_, stat)| (stat.path.as_str(), stat.mode & mode::TYPE, stat.size, stat.linkname.as_str())).collect();
        assert_eq!(seen, [("f", 0, 1, ""), ("g", 0, 1, ""), ("link", mode::SYMLINK, 4, "/etc"), ("pipe", mode::PIPE, 0, "")]);
        assert!(all.iter().all(|(_, stat)| (stat.uid, stat.gid) == (0, 0)));
    }

    #[cfg(unix)]
    #[test]
    fn ten_thousand_nested_folders_are_walked() {
        const DEPTH: usize = 10_000;
        let dir = tempfile::tempdir().expect("a folder");
        let mut open = Dir::root(dir.path()).expect("a folder");
        for _ in 0..DEPTH {
            open.make_dir("d").expect("a folder");
            open.create("e").expect("a file");
            open = open.dir("d").expect("a folder");
        }
        let mut count = 0;
        walk(&local(dir.path()), &Filter::default(), &mut |found| {
            assert_eq!(
                found.parent,
                if count == 0 || found.stat.path == "e" { None } else { Some(found.stat.path.len() as u32 / 2 - 1) }
            );
            count += 1;
            ControlFlow::Continue(())
        })
        .expect("a walk");
        assert_eq!(count, 2 * DEPTH);
        // std's own removal opens one descriptor for each level.
        drop(open);
        let path = dir.keep();
        assert!(std::process::Command::new("rm").arg("-rf").arg(path).status().expect("rm runs").success());
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf8_is_an_error_unless_it_is_left_out() {
        use std::os::unix::ffi::OsStrExt as _;
        let dir = tree(&["a"]);
        std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"x\xff")), "").expect("a file");
        let error =
            walk(&local(dir.path()), &Filter::default(), &mut |_| ControlFlow::Continue(())).map_err(|error| error.to_string());
        assert!(error.is_err_and(|text| text.contains("not UTF-8")));
        assert_eq!(paths(&local(dir.path()), &[], &["x*"], &[]), ["a"]);
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = walk(&local(Path::new("/no/such/folder")), &Filter::default(), &mut |_| ControlFlow::Continue(()));
        assert!(matches!(error, Err(Error::File { path, .. }) if path == Path::new("/no/such/folder")));
    }
}
