//! Disks that are full: a release whose cache, or whose output, is on a file system that is too small.
//!
//! Red when: the exit code is not 10; the message does not name the place and what to do; the cache
//! does not verify, on the disk that is still full; an old output is gone or changed; anything half
//! written is left; the same command fails once there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Campaign, Site, Stand, all_in, cells};

const CARGO: &str = "[ \"$1\" = build ] || exit 0
mkdir -p target/release/deps
for i in 1 2 3 4; do head -c 300000 /dev/zero >target/release/deps/$i; done
exec build-service";

const PATIENCE: Duration = Duration::from_secs(120);

/// Room enough for anything here.
const ROOM: u64 = 256 << 20;

/// The smallest disk.
const LEAST: u64 = 64 << 10;

/// What stood at the archive's place.
const OLD: &[u8] = b"an old output";

/// A small disk; it is gone with the value.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("{options},mode=0755"), "disk"]).arg(&path).status();
        assert!(mounted.unwrap().success(), "a small disk is mounted by root alone");
        Self { path }
    }

    fn resize(&self, options: &str) {
        let mounted = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.path).status();
        assert!(mounted.unwrap().success(), "the disk was not made larger");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps no place by it.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// What a folder takes, in bytes and in files.
fn taken(folder: &Path) -> (u64, u64) {
    let counted = |option: &str| {
        let counted = Command::new("du").args(["-s", option]).arg(folder).output().unwrap();
        String::from_utf8(counted.stdout).unwrap().split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    (counted("--block-size=1"), counted("--inodes"))
}

/// `count` distinct numbers between two, evenly.
fn spread(from: u64, to: u64, count: usize) -> impl Iterator<Item = u64> {
    let count = count as u64;
    assert!(to > from + count, "there are not {count} numbers between {from} and {to}");
    (0..count).map(move |i| from + (to - from) * (2 * i + 1) / (2 * count))
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let site = Site::new(CARGO);
    let whole = site.stand("whole");
    let clean = whole.made(site.release(&whole).within(PATIENCE).run());
    let (cache_bytes, cache_files) = taken(&whole.cache());
    // The room that the cache sets aside for itself is none that it needs.
    let cache_bytes = cache_bytes - fs::metadata(whole.cache().join("roche/reserve")).map_or(0, |reserve| reserve.len());
    let archive_bytes = clean.1.len() as u64;
    let mut campaign = Campaign::start("a full disk");

    let mut cell = |what: &str, small: String, roomy: String, place: fn(&Stand) -> PathBuf| {
        campaign.cell(format!("{what}, {small}"), |_| {
            let stand = if what.starts_with("cache") { site.stand("cell") } else { site.copy(&whole, "cell") };
            let disk = Disk::mount(place(&stand), &small);
            fs::write(stand.archive(), OLD).unwrap();

            let ended = site.release(&stand).within(PATIENCE).run();
            if let Err(reason) = ended.check_failure(10, &[place(&stand).to_str().unwrap()]) {
                panic!("{reason}\n{}", ended.story());
            }
            let remedy = ["free some space", "make room", "roche cache prune"].iter().any(|text| ended.stderr.contains(text));
            assert!(remedy, "no remedy\n{}", ended.story());
            assert_eq!(fs::read(stand.archive()).unwrap(), OLD, "the old output");
            assert_eq!(all_in(&stand.out()), [stand.archive()], "left beside the old output");
            site.verify(&stand, None);

            disk.resize(&roomy);
            let made = stand.made(site.release(&stand).within(PATIENCE).run());
            assert!(made == clean, "another image once there is room");
            site.verify(&stand, None);
            format!("10, {}", ended.error().chars().take(60).collect::<String>())
        });
    };
    for bytes in spread(LEAST, cache_bytes * 95 / 100, cells(5, 50)) {
        cell("cache on the disk", format!("size={}k", bytes >> 10), format!("size={ROOM}"), Stand::cache);
    }
    for files in spread(2, cache_files * 95 / 100, cells(1, 10)) {
        cell("cache on the disk", format!("nr_inodes={files}"), "nr_inodes=100000".to_owned(), Stand::cache);
    }
    for bytes in spread(LEAST, archive_bytes * 99 / 100, cells(2, 50)) {
        cell("output on the disk", format!("size={}k", bytes >> 10), format!("size={ROOM}"), Stand::out);
    }
    campaign.finish();
    site.nothing_is_left(&whole);
}
