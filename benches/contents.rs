//! Is an image listed at the speed of reading it?
//!
//! One image of 600 MB, as an archive of uncompressed layers, and as a layout under gzip and zstd: `roche contents` (which
//! decompresses, checks two digests, hashes every file and lays the layers on each other) against what does less: `cat`, and the
//! format's own program with `tar -t` behind it. Whole processes in turn, medians, with warm caches.
//!
//! Run by `cargo bench --bench contents`; needs tar, gzip and zstd.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use std::fs::{self, File};
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use roche_engine::Digest;
use roche_engine::oci::{Compression, compress};
use serde_json::{Value, json};

/// Runs of each command that are counted; one before them is not.
const RUNS: usize = 5;
/// Files of the image, in three layers.
const FILES: usize = 6000;
/// Bytes of each.
const FILE_BYTES: usize = 100_000;

fn main() {
    let folder = tempfile::tempdir().expect("a folder is made");
    let layers: Vec<PathBuf> = (0..3).map(|number| layer(folder.path(), number)).collect();
    let bytes: u64 = layers.iter().map(|layer| layer.metadata().expect("it is there").len()).sum();
    println!("{:.0} MB in {FILES} files and {} layers; medians of {RUNS} runs\n", bytes as f64 / 1e6, layers.len());
    println!("{:<28} {:>9} {:>10}", "", "seconds", "MB/s");
    let show = |name: &str, script: &str| {
        let seconds = median(script).as_secs_f64();
        println!("{name:<28} {seconds:>9.2} {:>10.0}", bytes as f64 / 1e6 / seconds);
    };
    let roche = env!("CARGO_BIN_EXE_roche");
    for (compression, program) in [(Compression::None, "cat"), (Compression::Gzip, "gzip -dc"), (Compression::Zstd, "zstd -dc")] {
        let layout = folder.path().join(program.split(' ').next().expect("a word"));
        let blobs = write_layout(&layout, &layers, compression);
        let each = |command: &str| blobs.iter().map(|blob| format!("{command} < {}", blob.display())).collect::<Vec<_>>();
        show(&format!("{program}: roche contents"), &format!("{roche} contents -q {} > /dev/null", layout.display()));
        show(&format!("{program}: alone"), &each(&format!("{program} > /dev/null")).join(" && "));
        let listed: Vec<String> = each(program).iter().map(|line| format!("{line} | tar -t > /dev/null")).collect();
        show(&format!("{program}: with tar -t"), &listed.join(" && "));
        println!();
    }
}

/// Runs a shell's line several times.
fn median(script: &str) -> Duration {
    let mut times: Vec<Duration> = (0..=RUNS)
        .map(|_| {
            let begun = Instant::now();
            let output = Command::new("bash").args(["-o", "pipefail", "-c", script]).output().expect("bash runs");
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            begun.elapsed()
        })
        .skip(1)
        .collect();
    times.sort();
    times[RUNS / 2]
}

/// A layer whose content shrinks to about a third, as programs do.
fn layer(folder: &Path, number: usize) -> PathBuf {
    let files = folder.join(format!("files{number}"));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ number as u64;
    for i in 0..FILES / 3 {
        let place = files.join(format!("usr/lib/{}", i % 50));
        fs::create_dir_all(&place).expect("the folder is made");
        let mut content = Vec::with_capacity(FILE_BYTES);
        while content.len() < FILE_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            content.extend_from_slice(&state.to_le_bytes());
            content.extend_from_slice(b"common text of programs");
        }
        content.truncate(FILE_BYTES);
        fs::write(place.join(format!("file{i}")), content).expect("the file is written");
    }
    let tar = folder.join(format!("layer{number}.tar"));
    let made = Command::new("tar").arg("-C").arg(&files).arg("-cf").arg(&tar).arg("usr").status().expect("tar runs");
    assert!(made.success(), "tar failed");
    fs::remove_dir_all(files).expect("the files are removed");
    tar
}

/// Writes a layout; returns its layers' blobs.
fn write_layout(path: &Path, layers: &[PathBuf], compression: Compression) -> Vec<PathBuf> {
    let store = path.join("blobs/sha256");
    fs::create_dir_all(&store).expect("the folder is made");
    let put = |kind: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.join(digest.hex()), bytes).expect("the blob is written");
        json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest.to_string(), "size": bytes.len()})
    };
    let (mut blobs, mut diff_ids, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
    for layer in layers {
        let mut content = Vec::new();
        File::open(layer).and_then(|mut file| file.read_to_end(&mut content)).expect("the layer is read");
        diff_ids.push(Digest::of(&content).to_string());
        let mut blob = Vec::new();
        compress(&content[..], &mut blob, compression, NonZeroUsize::MIN).expect("memory takes it");
        descriptors.push(put("layer.v1.tar", &blob));
        blobs.push(store.join(Digest::of(&blob).hex()));
    }
    let config: Value = json!({"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = put("config.v1+json", config.to_string().as_bytes());
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": descriptors});
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    fs::write(path.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).expect("it is written");
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("it is written");
    blobs
}
