//! Stacks of layers as one tree.
//!
//! Invariant: workers are in a user namespace in every mode, also root's, and there the kernel keeps
//! overlayfs from `trusted.*` attributes; so overlays are always mounted with `userxattr`, and the
//! mark of an opaque folder is [`OPAQUE`] in every mode.

use std::fmt::Write;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io;

use super::mounting;
use super::protocol::{Doing, Failure, Upper};

/// The attribute, with value `y`, of folders that hide what is below them.
pub(super) const OPAQUE: &str = "user.overlay.opaque";

/// Options of one mount fit into one page, the last byte of which is 0.
const PAGE: usize = 4095;

/// Mounts a stack at `target` (absolute). The working directory is the engine's root folder before
/// and after. Without an upper there are two layers at least.
///
/// Returns whether the machine allows overlays at all; nothing is mounted where it does not.
pub(super) fn mount(root: BorrowedFd<'_>, target: &Path, layers: &[u64], upper: Option<&str>) -> Result<bool, Failure> {
    let doing = || format!("mounting the layers {}", numbers(layers));
    let options = options(layers, upper);
    if options.len() > PAGE {
        return Err(Failure::new(doing(), format!("{} layers are more than one mount can hold", layers.len())));
    }
    // Short paths: hundreds of layers fit.
    rustix::process::chdir("layers").doing(doing)?;
    let mounted = mounting::overlay(target, &options);
    rustix::process::fchdir(root).doing(doing)?;
    match mounted {
        Ok(()) => Ok(true),
        Err(error) if refused(error) => Ok(false),
        Err(error) => Err(Failure::io(doing(), error)),
    }
}

/// Makes the folders that an upper needs. An overlay's root is that of its upper: it takes on mode and
/// owner of `top`, the layer below.
pub(super) fn prepare(upper: &Upper, top: Option<u64>) -> Result<(), Failure> {
    for name in ["fs", "overlay"] {
        let path = format!("{}/{name}", upper.work);
        match rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(io::Errno::EXIST) => {}
            Err(error) => return Err(Failure::io(format!("making {path}"), error)),
        }
    }
    let Some(top) = top else { return Ok(()) };
    let path = format!("{}/fs", upper.work);
    let doing = || format!("making {path}");
    let root = fs::metadata(format!("layers/{top}/fs")).doing(doing)?;
    std::os::unix::fs::chown(&path, Some(root.uid()), Some(root.gid())).doing(doing)?;
    fs::set_permissions(&path, root.permissions()).doing(doing)
}

/// Removes what overlayfs kept beside the upper's files; no step can reach it.
pub(super) fn tidy(upper: &Upper) -> Result<(), Failure> {
    let path = format!("{}/overlay", upper.work);
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Failure::io(format!("removing {path}"), error)),
        _ => Ok(()),
    }
}

/// Writes the mount's options. `volatile`: whoever keeps the upper syncs it; unmounting does not
/// have to write out the whole file system first.
fn options(layers: &[u64], upper: Option<&str>) -> String {
    let mut options = String::from("userxattr,index=off,xino=off,lowerdir=");
    for (i, layer) in layers.iter().rev().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(options, "{}{layer}/fs", if i == 0 { "" } else { ":" });
    }
    if let Some(upper) = upper {
        let _ = write!(options, ",upperdir={upper}/fs,workdir={upper}/overlay,volatile");
    }
    options
}

/// Says whether an error means that overlays cannot be had here: by the kernel's configuration, by
/// its age, by a security module, or by the file system that the layers are on.
fn refused(error: io::Errno) -> bool {
    matches!(
        error,
        io::Errno::NODEV | io::Errno::PERM | io::Errno::ACCESS | io::Errno::INVAL | io::Errno::NOSYS | io::Errno::OPNOTSUPP
    )
}

fn numbers(layers: &[u64]) -> String {
    layers.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_layer_comes_first() {
        assert_eq!(options(&[1, 22, 3], None), "userxattr,index=off,xino=off,lowerdir=3/fs:22/fs:1/fs");
        assert!(options(&[1], Some("../work/x")).ends_with("=1/fs,upperdir=../work/x/fs,workdir=../work/x/overlay,volatile"));
    }

    #[test]
    fn hundreds_of_layers_fit() {
        let layers: Vec<u64> = (100_000..100_390).collect();
        assert!(options(&layers, Some("../work/0123456789abcdef0123456789abcdef")).len() <= PAGE);
    }
}
