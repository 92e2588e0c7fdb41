//! Digests of the machine's files, each file read once and not again until it changes.
//!
//! Invariant: content decides. What is remembered of a file holds while device, inode, size, and
//! the times of its last change of content and of anything at all (`ctime`, which no program can
//! set) are the same. A clock that ticks may have given two changes one time, so a file that
//! changed within two seconds of the look at it is never remembered (git calls such files racily
//! clean).

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use roche_engine::Digest;
use sha2::{Digest as _, Sha256};

use super::{HostError, at};

/// How long a file must have rested before it is remembered.
const REST_NS: i64 = 2_000_000_000;

/// How many files are remembered before those that were not asked for are forgotten; a toolchain
/// has about 200.
const LIMIT: usize = 4000;

/// How much of a file is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// A file by device and inode.
pub(super) type FileId = (u64, u64);

/// What is remembered of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) size_bytes: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) digest: Digest,
}

/// The digests of files, known and computed.
#[derive(Debug)]
pub(super) struct Digests {
    known: BTreeMap<FileId, Known>,
    /// The files that were asked for.
    used: BTreeMap<FileId, Known>,
    /// Files that changed later are not remembered.
    rested_ns: i64,
    /// Whether something else is known than at the start.
    changed: bool,
}

impl Digests {
    /// Starts with what was remembered; `now` is the time before any file is looked at.
    pub(super) fn new(known: BTreeMap<FileId, Known>, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
        Self { known, used: BTreeMap::new(), rested_ns: now.saturating_sub(REST_NS), changed: false }
    }

    /// Returns the digests of files in their order; those that are not known are read, several at
    /// a time.
    pub(super) fn of(&mut self, files: &[PathBuf]) -> Result<Vec<Digest>, HostError> {
        let stats = files.iter().map(|file| file.metadata().map_err(at(file))).collect::<Result<Vec<_>, _>>()?;
        let unknown: Vec<usize> = (0..files.len()).filter(|&i| self.known(&stats[i]).is_none()).collect();
        for (i, known) in read_all(files, &unknown)? {
            if known.mtime_ns.max(known.ctime_ns) <= self.rested_ns {
                self.known.insert(id(&stats[i]), known);
                self.changed = true;
            }
            self.used.insert(id(&stats[i]), known);
        }
        let found = stats.iter().map(|stat| {
            let known =
                self.known(stat).or_else(|| self.used.get(&id(stat)).copied()).expect("what was not known was read above");
            self.used.insert(id(stat), known);
            known.digest
        });
        Ok(found.collect())
    }

    fn known(&self, stat: &Metadata) -> Option<Known> {
        let known = self.known.get(&id(stat))?;
        (state(stat, known.digest) == *known).then_some(*known)
    }

    /// Returns what may be remembered, and whether it is more than was remembered before.
    pub(super) fn settled(mut self) -> (BTreeMap<FileId, Known>, bool) {
        if self.known.len() > LIMIT {
            self.known.retain(|id, _| self.used.contains_key(id));
        }
        (self.known, self.changed)
    }
}

fn id(stat: &Metadata) -> FileId {
    (stat.dev(), stat.ino())
}

fn state(stat: &Metadata, digest: Digest) -> Known {
    let ns = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
    Known {
        size_bytes: stat.size(),
        mtime_ns: ns(stat.mtime(), stat.mtime_nsec()),
        ctime_ns: ns(stat.ctime(), stat.ctime_nsec()),
        digest,
    }
}

/// Reads the files with these indices on every processor.
fn read_all(files: &[PathBuf], indices: &[usize]) -> Result<Vec<(usize, Known)>, HostError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&i) = indices.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push((i, read(&files[i])?));
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(indices.len());
    let results: Vec<Result<Vec<(usize, Known)>, HostError>> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().expect("reading a file does not panic")).collect()
    });
    Ok(results.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
}

fn read(path: &Path) -> Result<Known, HostError> {
    let mut file = File::open(path).map_err(at(path))?;
    let before = file.metadata().map_err(at(path))?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece).map_err(at(path))? {
            0 => break,
            length => hash.update(&piece[..length]),
        }
    }
    let digest = Digest::from_sha256(hash.finalize().into());
    let known = state(&before, digest);
    if state(&file.metadata().map_err(at(path))?, digest) != known {
        let reason = "changed while it was read: wait until the toolchain is installed".to_owned();
        return Err(HostError::Unusable { path: path.to_owned(), reason });
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn later(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn far() -> SystemTime {
        later(4_000_000_000)
    }

    #[test]
    fn what_rested_is_read_once_and_again_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "one").unwrap();
        let mut digests = Digests::new(BTreeMap::new(), far());
        let files = [file.clone(), file.clone()];
        assert_eq!(digests.of(&files).unwrap(), [Digest::of(b"one"), Digest::of(b"one")]);
        let (mut known, _) = digests.settled();
        // A wrong digest that was remembered shows that the file is not read.
        known.values_mut().for_each(|known| known.digest = Digest::of(b"remembered"));
        assert_eq!(Digests::new(known.clone(), far()).of(&files[..1]).unwrap(), [Digest::of(b"remembered")]);
        let times = std::fs::metadata(&file).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(times).unwrap();
        assert_eq!(Digests::new(known, far()).of(&files[..1]).unwrap(), [Digest::of(b"two")]);
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "one").unwrap();
        let ctime = std::fs::metadata(&file).unwrap().ctime();
        for (seconds, remembered) in [(1, false), (5, true)] {
            let mut digests = Digests::new(BTreeMap::new(), later(u64::try_from(ctime).unwrap() + seconds));
            digests.of(std::slice::from_ref(&file)).unwrap();
            assert_eq!(digests.settled().1, remembered);
        }
    }

    #[test]
    fn what_is_no_longer_used_is_forgotten_once_there_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "one").unwrap();
        let known = Known { size_bytes: 1, mtime_ns: 0, ctime_ns: 0, digest: Digest::of(b"") };
        for (others, remembered) in [(10, 11), (LIMIT as u64, 1)] {
            let others = (0..others).map(|i| ((u64::MAX, i), known)).collect();
            let mut digests = Digests::new(others, far());
            digests.of(std::slice::from_ref(&file)).unwrap();
            assert_eq!(digests.settled().0.len(), remembered);
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = Digests::new(BTreeMap::new(), far()).of(&["/dev/null/x".into()]).unwrap_err();
        assert!(error.to_string().starts_with("/dev/null/x: "), "{error}");
    }
}
