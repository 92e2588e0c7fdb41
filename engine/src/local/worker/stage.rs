//! The stage: where a worker mounts what its work needs, seen by nobody else.
//!
//! Invariant: everything stands under `mnt` in the engine's root folder, in the worker's own mount
//! namespace, and is gone with it. The working directory is the engine's root folder.

use std::fs;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags};
use rustix::mount::MountAttrFlags as Attr;

use super::inside::{self, Leaf};
use super::mounting::{self, Attrs};
use super::overlay;
use super::protocol::{Doing, Failure, HostEntry, HostNode, Mount, Source, Upper};

/// What no mount but the root of a step allows.
pub(super) const STRICT: Attrs = Attr::MOUNT_ATTR_NODEV.union(Attr::MOUNT_ATTR_NOSUID);

/// A worker's stage.
pub(super) struct Stage {
    /// The engine's root folder.
    root: OwnedFd,
    /// The same, as an absolute path.
    path: PathBuf,
    /// How many places there are.
    places: usize,
    /// Whether overlays were refused and layers copied.
    pub(super) copied: bool,
}

impl Stage {
    /// Opens a stage in the engine's root folder, which becomes the working directory.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let doing = || format!("opening a stage in {}", path.display());
        mounting::make_private().doing(doing)?;
        let root = mounting::place(path).doing(doing)?;
        rustix::process::fchdir(&root).doing(doing)?;
        match fs::create_dir("mnt") {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(Failure::io(doing(), error)),
            _ => {}
        }
        let memory = mounting::create("tmpfs", &[("mode", "0700")], STRICT).doing(doing)?;
        mounting::attach(memory.as_fd(), mounting::place("mnt").doing(doing)?.as_fd()).doing(doing)?;
        Ok(Self { root, path: path.to_owned(), places: 0, copied: false })
    }

    /// Takes away everything that was mounted.
    pub(super) fn close(self) -> Result<(), Failure> {
        mounting::detach("mnt").doing(|| "closing the stage")
    }

    /// Makes an empty folder.
    pub(super) fn folder(&mut self) -> Result<PathBuf, Failure> {
        let path = self.next();
        fs::create_dir(&path).doing(|| "making a folder for a mount")?;
        Ok(path)
    }

    /// Makes a file in memory.
    pub(super) fn file(&mut self, bytes: &[u8], mode: u32) -> Result<PathBuf, Failure> {
        let path = self.next();
        let doing = || "writing a file in memory";
        let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&path).doing(doing)?;
        file.write_all(bytes).doing(doing)?;
        file.set_permissions(fs::Permissions::from_mode(mode & 0o7777)).doing(doing)?;
        Ok(path)
    }

    fn next(&mut self) -> PathBuf {
        self.places += 1;
        PathBuf::from(format!("mnt/{}", self.places))
    }

    /// Puts a mount's source on the stage and opens it, at the selector.
    ///
    /// A read-only root can be written to as well, in memory, so that mount points can be made; its
    /// mount is made read-only afterwards.
    pub(super) fn source(&mut self, mount: &Mount) -> Result<OwnedFd, Failure> {
        let doing = || format!("mounting {}", mount.target);
        let path = match &mount.source {
            Source::Layers { layers, upper } => match upper {
                Some(upper) if !mount.readonly => self.stack(layers, Some(upper))?,
                None if !mount.readonly => return Err(Failure::new(doing(), "a writable snapshot needs an upper folder")),
                _ if mount.target == "/" => {
                    let work = self.folder()?.to_string_lossy().into_owned();
                    self.stack(layers, Some(&Upper { work, output: false }))?
                }
                _ => self.stack(layers, None)?,
            },
            Source::Host { entries } => self.host(entries)?,
            Source::Cache { folder, start } => {
                let doing = || format!("making {folder}");
                fs::create_dir_all(folder).doing(doing)?;
                let path = PathBuf::from(folder);
                if fs::read_dir(&path).doing(doing)?.next().is_none() {
                    let start: Vec<PathBuf> = start.iter().map(|layer| PathBuf::from(format!("layers/{layer}/fs"))).collect();
                    super::flatten::flatten(&start, &path)?;
                }
                path
            }
            Source::Tmpfs { size_bytes } => {
                let size = size_bytes.to_string();
                let options = [("mode", "1777"), ("size", size.as_str())];
                let memory = mounting::create("tmpfs", &options[..if *size_bytes == 0 { 1 } else { 2 }], STRICT).doing(doing)?;
                let path = self.folder()?;
                mounting::attach(memory.as_fd(), mounting::place(&path).doing(doing)?.as_fd()).doing(doing)?;
                path
            }
            Source::Secret { bytes, mode, uid, gid } => {
                let path = self.file(bytes, *mode)?;
                std::os::unix::fs::chown(&path, Some(*uid), Some(*gid)).doing(doing)?;
                path
            }
        };
        let place = mounting::place(&path).doing(doing)?;
        if mount.selector.is_empty() {
            return Ok(place);
        }
        mounting::within(place.as_fd(), mount.selector.as_str(), OFlags::PATH)
            .doing(|| format!("mounting {:?} of the source at {}", mount.selector, mount.target))
    }

    /// Puts a stack of layers on the stage.
    pub(super) fn stack(&mut self, layers: &[u64], upper: Option<&Upper>) -> Result<PathBuf, Failure> {
        if let Some(upper) = upper {
            overlay::prepare(upper, layers.last().copied())?;
        }
        match (layers, upper) {
            ([], None) => return self.folder(),
            ([], Some(upper)) => return Ok(PathBuf::from(format!("{}/fs", upper.work))),
            ([layer], None) => return Ok(PathBuf::from(format!("layers/{layer}/fs"))),
            _ => {}
        }
        let path = self.folder()?;
        let over = upper.map(|upper| format!("../{}", upper.work));
        if overlay::mount(self.root.as_fd(), &self.path.join(&path), layers, over.as_deref())? {
            return Ok(path);
        }
        self.copied = true;
        let path = upper.map_or(path, |upper| PathBuf::from(format!("{}/fs", upper.work)));
        let layers: Vec<PathBuf> = layers.iter().map(|layer| PathBuf::from(format!("layers/{layer}/fs"))).collect();
        super::flatten::flatten(&layers, &path)?;
        Ok(path)
    }

    /// Puts files and folders of the machine into a tree in memory.
    fn host(&mut self, entries: &[HostEntry]) -> Result<PathBuf, Failure> {
        let path = self.folder()?;
        let memory = mounting::create("tmpfs", &[("mode", "0755")], STRICT).doing(|| "mounting a host tree")?;
        let place = mounting::place(&path).doing(|| "mounting a host tree")?;
        mounting::attach(memory.as_fd(), place.as_fd()).doing(|| "mounting a host tree")?;
        let tree = mounting::place(&path).doing(|| "mounting a host tree")?;
        for entry in entries {
            let doing = || format!("putting {} into the host tree", entry.path);
            match &entry.node {
                HostNode::Bind(source) => {
                    let doing = || format!("binding {} into the host tree", source.display());
                    let leaf = if fs::metadata(source).doing(doing)?.is_dir() { Leaf::Folder } else { Leaf::File };
                    let bound = mounting::copy(CWD, source).doing(doing)?;
                    // Read-only first: nothing is ever made in the machine's own folders.
                    mounting::restrict(bound.as_fd(), STRICT | Attr::MOUNT_ATTR_RDONLY, true).doing(doing)?;
                    let place = inside::make(tree.as_fd(), entry.path.as_bytes(), leaf, None).doing(doing)?;
                    mounting::attach(bound.as_fd(), place.as_fd()).doing(doing)?;
                }
                HostNode::Symlink(target) => {
                    let (above, name) = entry.path.rsplit_once('/').unwrap_or(("", &entry.path));
                    let above = inside::make(tree.as_fd(), above.as_bytes(), Leaf::Folder, None).doing(doing)?;
                    rustix::fs::symlinkat(target.as_str(), above, name).doing(doing)?;
                }
            }
        }
        Ok(path)
    }
}
