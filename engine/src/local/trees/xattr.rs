//! Extended attributes of files, folders and of links themselves.
//!
//! Invariant: what is read is content, the same on every machine: overlayfs' own marks and labels that the machine puts on files
//! (SELinux, IMA) are left out, and a file's capabilities are in the form that names no user namespace.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

pub(crate) use crate::oci::layer::xattrs::{Xattrs, is_content};

/// The largest value, and the largest list of names, that Linux has.
const LONGEST: usize = 64 << 10;

/// Returns the attributes of an open file or folder.
pub(crate) fn of_file(file: BorrowedFd<'_>) -> io::Result<Xattrs> {
    read(|list| rustix::fs::flistxattr(file, list), |name, value| rustix::fs::fgetxattr(file, name, value))
}

/// Returns the attributes of an entry that is not opened: a link, a device, a pipe.
pub(crate) fn of_entry(folder: BorrowedFd<'_>, name: &[u8]) -> io::Result<Xattrs> {
    let path = beneath_proc(folder, name);
    let found = read(|list| rustix::fs::llistxattr(&path[..], list), |name, value| rustix::fs::lgetxattr(&path[..], name, value));
    match found {
        // Without /proc; such entries carry attributes next to never.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Xattrs::new()),
        found => found,
    }
}

/// Returns the value of one attribute of an open file or folder.
pub(crate) fn value(file: BorrowedFd<'_>, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = [0; 256];
    match rustix::fs::fgetxattr(file, name, &mut value) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute of an entry, for a link the link's own. Says whether the file system took it.
pub(crate) fn set(folder: BorrowedFd<'_>, name: &[u8], attribute: &[u8], value: &[u8]) -> io::Result<bool> {
    match rustix::fs::lsetxattr(&beneath_proc(folder, name)[..], attribute, value, XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL | Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Names an entry of an open folder by a path: attributes have no calls that take a folder and a name.
fn beneath_proc(folder: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let name = if name.is_empty() { b"." } else { name };
    [format!("/proc/self/fd/{}/", folder.as_raw_fd()).as_bytes(), name].concat()
}

fn read(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Xattrs> {
    let mut xattrs = Xattrs::new();
    let names = match whole(&list) {
        Err(Errno::NOTSUP) => return Ok(xattrs),
        names => names?,
    };
    for name in names.split(|&byte| byte == 0).filter(|name| is_content(name)) {
        match whole(|buffer| get(name, buffer)) {
            Ok(value) => drop(xattrs.insert(name.to_vec(), portable(name, value))),
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

/// Reads all of a value: most are short, so that a small buffer is tried first.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut short = [0; 512];
    match read(&mut short) {
        Ok(length) => Ok(short[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut long = vec![0; LONGEST];
            let length = read(&mut long)?;
            long.truncate(length);
            Ok(long)
        }
        Err(error) => Err(error),
    }
}

/// Turns capabilities of revision 3 (linux/capability.h), which name the user namespace's root, into revision 2.
fn portable(name: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    if name == b"security.capability" && value.len() == 24 && value[3] == 3 {
        value[3] = 2;
        value.truncate(20);
    }
    value
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn capabilities_name_no_user_namespace() {
        let third = [&[1, 0, 0, 3][..], &[7; 16], &[9, 0, 0, 0]].concat();
        assert_eq!(portable(b"security.capability", third.clone()), [&[1, 0, 0, 2][..], &[7; 16]].concat());
        assert_eq!(portable(b"user.x", third.clone()), third);
    }

    #[test]
    fn what_is_set_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "").unwrap();
        let open = std::fs::File::open(folder.path()).unwrap();
        let long = vec![b'x'; 2000];
        if !set(open.as_fd(), b"f", b"user.long", &long).unwrap() {
            return; // This file system has none.
        }
        assert!(set(open.as_fd(), b"f", b"user.short", b"").unwrap());
        assert!(set(open.as_fd(), b"f", b"user.overlay.opaque", b"y").unwrap());
        let file = std::fs::File::open(&path).unwrap();
        let found = of_file(file.as_fd()).unwrap();
        assert_eq!(found, Xattrs::from([(b"user.long".to_vec(), long), (b"user.short".to_vec(), Vec::new())]));
        assert_eq!(of_entry(open.as_fd(), b"f").unwrap(), found);
        assert_eq!(value(file.as_fd(), "user.overlay.opaque").unwrap().as_deref(), Some(&b"y"[..]));
        assert!(!set(open.as_fd(), b"missing", b"user.a", b"").unwrap());
    }
}
