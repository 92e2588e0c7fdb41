//! The store: layers, blobs, cache records and cache folders under one folder, shared by any number
//! of processes.
//!
//! 1. [`Store::open`] makes or opens the folder; its index ([`index`]) is made anew where it is lost.
//! 2. What is being made lies in `work/` ([`WorkDir`], [`BlobWriter`]) under a lock of its maker;
//!    what is finished is renamed to its place ([`Store::commit_layer`], [`BlobWriter::commit`]).
//! 3. [`CacheKey`]s lead to [`Record`]s: lists of layers. [`Store::fact`]s are what was found out.
//!    A [`Peek`] looks at both and leaves everything as it is.
//! 4. [`Store::collect`] removes what was used least recently, [`Store::verify`] looks at all of it.
//!
//! ```text
//! root/
//!   index.db            what is there, how large, last used when, held by whom
//!   blobs/sha256/HEX    files by the digest of their content
//!   blobs/partial/HEX   what came of a download that broke off
//!   layers/N/           fs/ (files), tree (what fs/ stands for), meta (what the index needs)
//!   caches/HEX/         fs/ (files), meta
//!   work/RANDOM         a folder or file that is being made or removed, locked by who does it
//!   reserve             room for the index on a full disk
//!   locks/              open (shared by all that have the store open), leases, single flights
//! ```
//!
//! Invariant: what a handle has returned or put stays, in every process, until the handle is
//! dropped or its process is killed. What has its final name is complete and never written again.

mod blob;
mod cache;
mod collect;
#[cfg(test)]
mod crash;
mod fact;
mod fault;
mod hold;
mod index;
mod layer;
mod lock;
mod partial;
mod peek;
mod reconcile;
mod record;
mod reserve;
mod usage;
mod verify;
mod work;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use blob::BlobWriter;
pub use collect::{Collected, Limits};
pub use fact::Subject;
pub use layer::{LayerNumber, Snapshot};
pub use lock::FileLock;
pub use partial::{Partial, PartialBlob};
pub use peek::{Look, Peek};
pub use record::{CacheKey, Record, RecordAbout};
pub use usage::{Entry, EntryKind};
pub use verify::{CheckLayer, Damage, Verified};
pub use work::{Remove, WorkDir};

use hold::Lease;
use index::Index;
use lock::Locked;

use crate::{Digest, Error};

/// Tells the time; the engine has no clock of its own.
pub type Clock = fn() -> SystemTime;

/// How long the processes that have the store open are given to let go of a lost index.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often they are asked.
const ASK: Duration = Duration::from_millis(20);

/// An open store. All its calls wait for the disk, so asynchronous callers make them from threads
/// that may wait.
///
/// A handle is a lease: one is opened for each job, and dropped at its end.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    mode: String,
    clock: Clock,
    index: Index,
    lease: Lease,
    /// The shared lock that says: this index is in use.
    _open: Locked,
}

impl Store {
    /// Opens the store in the folder `root`, which is made where it is missing.
    ///
    /// `mode` says what the user's rights let layers hold (`root`, `range`, `single`): layers,
    /// records, facts and cache folders of another mode are not used. Blobs are shared by all.
    ///
    /// Fails where the folder belongs to another user, or a newer version has written the index.
    pub fn open(root: &Path, mode: &str, clock: Clock) -> Result<Self, Error> {
        let root = make_folders(root)?;
        reserve::keep(&root);
        let (index, open) = open_index(&root, clock)?;
        let lease = Lease::new(&root)?;
        Ok(Self { root, mode: mode.to_owned(), clock, index, lease, _open: open })
    }

    /// Returns the store's folder, as an absolute path without links.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the mode that the store was opened with.
    pub fn mode(&self) -> &str {
        &self.mode
    }

    /// Takes the lock of a name where nobody holds it: what many need is made by one.
    pub fn try_lock(&self, name: &str) -> Result<Option<FileLock>, Error> {
        let path = self.lock_path(name);
        FileLock::take(&path).map_err(|error| fault::file(&path, error))
    }

    /// Takes the lock of a name, whoever has to be waited for; the wait cannot be broken off.
    pub fn lock(&self, name: &str) -> Result<FileLock, Error> {
        let path = self.lock_path(name);
        FileLock::wait(&path).map_err(|error| fault::file(&path, error))
    }

    fn lock_path(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(Digest::of(name.as_bytes()).hex())
    }

    fn now_ms(&self) -> i64 {
        milliseconds((self.clock)())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A lease that is left behind is dead with its lock.
        let _ = self.lease.end(&self.index);
    }
}

/// Counts from 1970; a clock before that is taken for it.
fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The reverse of [`milliseconds`].
fn time(milliseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0))
}

fn make_folders(root: &Path) -> Result<PathBuf, Error> {
    let failed = |error| fault::file(root, error);
    let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    make(root).map_err(failed)?;
    let root = root.canonicalize().map_err(failed)?;
    check_owner(&root)?;
    for folder in ["blobs/sha256", "blobs/partial", "layers", "caches", "work", "locks"] {
        make(&root.join(folder)).map_err(failed)?;
    }
    Ok(root)
}

/// Refuses a folder of another user: files of two users in one store would each shut the other out.
fn check_owner(root: &Path) -> Result<(), Error> {
    let owner = fs::metadata(root).map_err(|error| fault::file(root, error))?.uid();
    let user = rustix::process::geteuid().as_raw();
    if owner == user {
        return Ok(());
    }
    Err(fault::unusable(root, format!("belongs to user {owner}, not to user {user}; name a cache folder of your own")))
}

/// Opens the index, which is first made anew from the files where it is lost: alone, so that no
/// process goes on with one that nobody else sees.
fn open_index(root: &Path, clock: Clock) -> Result<(Index, Locked), Error> {
    let path = root.join("index.db");
    let gate = root.join("locks/open");
    let failed = |error| fault::file(&gate, error);
    let open = || lock::open(&gate);
    for _ in 0..PATIENCE.as_millis() / ASK.as_millis() {
        let in_use = open().and_then(Locked::shared).map_err(failed)?;
        if let Some(index) = Index::open(&path)? {
            return Ok((index, in_use));
        }
        drop(in_use);
        if let Some(_alone) = open().and_then(Locked::try_exclusive).map_err(failed)? {
            // Somebody else may have been here first.
            if Index::open(&path)?.is_none() {
                Index::create(&path, |tx| reconcile::adopt(tx, root, milliseconds(clock())))?;
            }
        } else {
            std::thread::sleep(ASK);
        }
    }
    Err(fault::unusable(&path, "lost, while another process still uses it; wait until that has ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands still, for tests in which time does not matter.
    pub(super) fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    pub(super) fn opened(root: &Path) -> Store {
        Store::open(root, "single", noon).unwrap()
    }

    /// Commits a layer with one file, as a worker would have left it.
    pub(super) fn layer(store: &Store, text: &str) -> LayerNumber {
        let work = store.allocate_work().unwrap();
        fs::create_dir(work.path().join("fs")).unwrap();
        fs::write(work.path().join("fs/file"), text).unwrap();
        fs::write(work.path().join("tree"), format!("tree of {text}")).unwrap();
        store.commit_layer(work, &Digest::of(text.as_bytes()), 4096).unwrap()
    }

    #[test]
    fn the_folders_are_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(&folder.path().join("a/cache"));
        for path in [store.root(), &store.root().join("layers"), &store.root().join("work")] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700, "{}", path.display());
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            // The root folder is one.
            let error = Store::open(Path::new("/"), "single", noon).unwrap_err().to_string();
            return assert!(error.contains("belongs to user 0"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(12345), None).unwrap();
        let error = Store::open(folder.path(), "root", noon).unwrap_err().to_string();
        assert!(error.contains("belongs to user 12345, not to user 0"), "{error}");
    }

    #[test]
    fn many_open_an_empty_folder_at_once() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for i in 0..8 {
                let root = folder.path();
                scope.spawn(move || {
                    let store = opened(root);
                    let layer = layer(&store, &i.to_string());
                    assert!(store.layer_path(layer).exists());
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path().join("layers")).unwrap().count(), 8);
    }

    #[test]
    fn a_lost_index_is_found_again_from_the_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        let digest = store.put(b"blob").unwrap();
        let kept = layer(&store, "kept");
        let torn = layer(&store, "torn");
        store.cache_folder("cargo").unwrap();
        drop(store);
        fs::write(folder.path().join(format!("layers/{torn}/tree")), "other").unwrap();
        fs::write(folder.path().join("layers/strange"), "").unwrap();
        fs::remove_file(folder.path().join("index.db")).unwrap();

        let store = opened(folder.path());
        assert!(store.contains(&digest).unwrap());
        assert_eq!(store.layer_contents(&[kept]).unwrap(), [Digest::of(b"kept")]);
        assert_eq!(layer(&store, "kept"), kept, "found by its content");
        assert!(store.tree(torn).is_err());
        assert!(layer(&store, "new") > kept);
        assert_eq!(store.usage().unwrap().iter().filter(|entry| entry.kind == EntryKind::Cache).count(), 1);
    }

    #[test]
    fn an_index_of_an_older_version_or_of_other_tables_is_made_anew_from_the_files() {
        for spoil in ["PRAGMA user_version = 1", "DROP TABLE facts; DROP TABLE holds"] {
            let folder = tempfile::tempdir().unwrap();
            let store = opened(folder.path());
            let digest = store.put(b"blob").unwrap();
            let kept = layer(&store, "kept");
            store.index.write(|tx| Ok(tx.execute_batch(spoil)?)).unwrap();
            drop(store);
            // Tables that are not there are met in use, once.
            let _ = Store::open(folder.path(), "single", noon).map(|store| store.contains(&digest));
            let store = opened(folder.path());
            assert!(store.contains(&digest).unwrap(), "{spoil}");
            assert_eq!(layer(&store, "kept"), kept, "{spoil}");
            let version = store.index.read(|tx| Ok(tx.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))?));
            assert_eq!(version.unwrap(), 2);
        }
    }

    #[test]
    fn an_index_that_another_process_uses_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let store = opened(folder.path());
        fs::remove_file(folder.path().join("index.db")).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| opened(folder.path()));
            std::thread::sleep(ASK * 5);
            assert!(!folder.path().join("index.db").exists());
            drop(store);
            second.join().unwrap();
        });
    }

    #[test]
    fn a_name_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (opened(folder.path()), opened(folder.path()));
        let held = one.lock("vertex a").unwrap();
        assert!(other.try_lock("vertex a").unwrap().is_none());
        assert!(other.try_lock("vertex b").unwrap().is_some());
        drop(held);
        assert!(other.try_lock("vertex a").unwrap().is_some());
    }
}
