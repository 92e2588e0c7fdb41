//! Tests: processes that are killed in the middle, and disks that are full.
//!
//! The test binary starts itself as the process that works, told by an environment variable.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::tests::layer;
use super::*;

const ROOT: &str = "STORE_THAT_A_KILLED_PROCESS_WORKS_ON";

#[expect(clippy::disallowed_methods, reason = "the process that is killed is told its folder so")]
fn root_of_child() -> Option<PathBuf> {
    std::env::var_os(ROOT).map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "files of the test are of today")]
fn opened(root: &Path) -> Store {
    Store::open(root, "single", SystemTime::now).unwrap()
}

fn remove(path: &Path) -> std::io::Result<()> {
    fs::remove_dir_all(path)
}

fn check(_: LayerNumber, folder: &Path, tree: &[u8]) -> Result<(), String> {
    let text = fs::read_to_string(folder.join("fs/file")).map_err(|error| error.to_string())?;
    if tree == format!("tree of {text}").as_bytes() { Ok(()) } else { Err(format!("{text:?}")) }
}

/// Does all that is ever done with a store, a little different each time.
fn work(root: &Path) {
    for round in 0_u32.. {
        let store = opened(root);
        let text = format!("{} {}", std::process::id() % 7, round % 11);
        let layers = ["base", &text].map(|text| layer(&store, text));
        let record = Record { outputs: vec![layers.to_vec()], about: RecordAbout::default() };
        let key = CacheKey::of("exec", [text.as_bytes()]);
        store.record(&key, &record).unwrap();
        let blob = store.put(&text.as_bytes().repeat(1 + 10_000 * (round as usize % 5))).unwrap();
        store.set_fact("blob", text.as_bytes(), b"value", Subject::Blob(blob)).unwrap();
        let content = text.as_bytes().repeat(20_000);
        if let Partial::Open(mut partial) = store.partial(&Digest::of(&content)).unwrap() {
            let rest = usize::try_from(partial.offset()).unwrap();
            content[rest..].chunks(7000).for_each(|part| partial.write_all(part).unwrap());
            partial.commit(&store).unwrap();
        }
        store.cache_folder(&text).unwrap();
        assert!(store.lookup(&key).unwrap().is_some());
        drop(store);
        let limits = Limits { max_bytes: u64::from(round % 3) * 200_000, keep_newer: Duration::ZERO };
        opened(root).collect(&limits, &remove).unwrap();
    }
}

#[test]
fn a_process_that_is_to_be_killed() {
    if let Some(root) = root_of_child() {
        work(&root);
    }
}

fn child(root: &Path) -> Child {
    let name = "local::store::crash::a_process_that_is_to_be_killed";
    let mut child = Command::new("/proc/self/exe");
    child.args(["--exact", name, "--nocapture"]).env(ROOT, root).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_store_whose_processes_are_killed_opens_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = [0; 50];
    getrandom::fill(&mut random).unwrap();
    let mut seen = 0;
    for delay in random {
        // Two at a time: one is often killed while the other waits for it.
        let mut children = [child(folder.path()), child(folder.path())];
        std::thread::sleep(Duration::from_millis(20 + u64::from(delay)));
        for child in &mut children {
            assert!(child.try_wait().unwrap().is_none(), "it failed before it was killed");
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let store = opened(folder.path());
        let verified = store.verify(&check, false, &remove).unwrap();
        assert_eq!(verified.damaged, [], "after {delay} ms");
        seen += verified.layers;
        assert!(store.usage().unwrap().iter().all(|entry| !entry.held), "the dead hold nothing");
    }
    let store = opened(folder.path());
    assert!(seen > 50, "hardly anything was done: {seen} layers were seen");
    store.collect(&Limits { max_bytes: 0, keep_newer: Duration::ZERO }, &remove).unwrap();
    for (place, left) in [("work", 0), ("layers", 0), ("blobs/sha256", 0), ("blobs/partial", 0), ("caches", 0)] {
        assert_eq!(fs::read_dir(folder.path().join(place)).unwrap().count(), left, "{place}");
    }
    let locks = fs::read_dir(folder.path().join("locks")).unwrap().count();
    assert_eq!(locks, 2, "open and this handle's lease");
}

/// Mounts a small disk that only this thread sees.
fn small_disk(at: &Path) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: only this thread gets a view of the mounts of its own; its open files stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    mount("none", at, "tmpfs", MountFlags::empty(), Some(c"size=8m,mode=700")).unwrap();
}

#[test]
fn a_full_disk_is_said_so_and_shows_nothing_half_written() {
    if !rustix::process::geteuid().is_root() {
        // Only root may mount; the special file is as full for everybody.
        let error = fs::write("/dev/full", "x").unwrap_err();
        return assert!(fault::is_full(&fault::file(Path::new("/dev/full"), error)));
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    std::thread::spawn(move || {
        small_disk(&root);
        let store = opened(&root);
        let small = store.put(b"small").unwrap();
        let first = layer(&store, "first");
        let free = || rustix::fs::statvfs(&root).unwrap().f_bfree;
        let before = free();
        let mut writer = store.writer().unwrap();
        let full = writer.write_all(&vec![7; 9 << 20]).unwrap_err();
        assert!(fault::is_full(&fault::file(&root, full)));
        drop(writer);
        // A program that another test starts has the unfinished blob open until it is executed.
        let started = Instant::now();
        while free() < before {
            assert!(started.elapsed() < Duration::from_secs(30), "an unfinished blob was not removed");
            std::thread::sleep(Duration::from_millis(1));
        }
        // To the last byte, so that neither a layer nor the index has room.
        let mut filler = fs::File::create(root.join("filler")).unwrap();
        while filler.write(&[7; 4096]).is_ok_and(|written| written > 0) {}
        let about = RecordAbout { name: "x".repeat(5000), ..RecordAbout::default() };
        let record = Record { outputs: vec![vec![first]], about };
        let keys = (0_u8..200).map(|i| CacheKey::of("many", [&[i][..]]));
        let failure = keys.map(|key| store.record(&key, &record)).find_map(Result::err);
        assert!(failure.as_ref().is_some_and(fault::is_full), "{failure:?}");
        let refused = store.put(&[1; 300_000]).unwrap_err();
        assert!(fault::is_full(&refused), "{refused}");
        let work = store.allocate_work();
        assert!(work.as_ref().err().is_none_or(fault::is_full), "{work:?}");
        drop(work);
        // A disk that is full of something else can still be cleared of what is in the store.
        let other = opened(&root);
        let all = Limits { max_bytes: 0, keep_newer: Duration::ZERO };
        assert_eq!(other.collect(&all, &remove).unwrap().layers, 0, "the other handle holds them");
        drop(other);
        filler.set_len(0).unwrap();
        assert!(store.contains(&small).unwrap());
        layer(&store, "second");
        drop(store);
        let store = opened(&root);
        let verified = store.verify(&check, false, &remove).unwrap();
        assert_eq!((verified.blobs, verified.layers, verified.damaged), (1, 2, vec![]));
        assert_eq!(fs::read_dir(root.join("work")).unwrap().count(), 0);
    })
    .join()
    .unwrap();
}
