//! The content of files, copied as cheaply as the file system lets it be.
//!
//! Invariant: the copy reads the same as the source; holes stay holes where the file system tells them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use rustix::fs::SeekFrom as Sought;
use rustix::io::Errno;

/// Copies the whole of `from` into the empty file `to`.
pub(super) fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(&*to, &*from).is_ok() {
        return Ok(());
    }
    let size = from.metadata()?.len();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(&*from, Sought::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&*from, Sought::Hole(start)).unwrap_or(size).min(size);
        range(from, to, start, end)?;
        at = end;
    }
    to.set_len(size)
}

/// Copies the bytes from `start` to `end`.
fn range(from: &mut File, to: &mut File, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let wanted = usize::try_from(end - read_at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&*from, Some(&mut read_at), &*to, Some(&mut write_at), wanted) {
            Ok(0) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::XDEV | Errno::PERM | Errno::IO | Errno::OPNOTSUPP | Errno::INVAL) => {
                from.seek(SeekFrom::Start(read_at))?;
                to.seek(SeekFrom::Start(write_at))?;
                return io::copy(&mut from.take(end - read_at), to).map(drop);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn holes_stay_holes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("from");
        let mut from = File::create_new(&path).unwrap();
        from.write_all(b"start").unwrap();
        from.seek(SeekFrom::Start(4 << 20)).unwrap();
        from.write_all(b"end").unwrap();
        from.set_len(8 << 20).unwrap();
        let mut to = File::create_new(folder.path().join("to")).unwrap();
        copy(&mut File::open(&path).unwrap(), &mut to).unwrap();
        assert!(std::fs::read(&path).unwrap() == std::fs::read(folder.path().join("to")).unwrap());
        assert!(to.metadata().unwrap().blocks() <= from.metadata().unwrap().blocks());
        let mut empty = File::create_new(folder.path().join("empty")).unwrap();
        copy(&mut File::open("/dev/null").unwrap(), &mut empty).unwrap();
        assert_eq!(empty.metadata().unwrap().len(), 0);
    }
}
