use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncBufReadExt;

use super::*;
use crate::local::worker::spawn::Worker;

/// Starts a step that has started others, one of which has left its session; they all sleep.
async fn sleeping(bench: &Bench, marker: &str) -> Worker {
    let script = format!("sleep {marker} & setsid sleep {marker} & echo ready; exec sleep {marker}");
    let mut worker = bench.workers.spawn(Work::Exec(bench.script(&script))).await.unwrap();
    let mut line = String::new();
    tokio::io::BufReader::new(worker.stdout.as_mut().unwrap()).read_line(&mut line).await.unwrap();
    assert_eq!(line, "ready\n");
    let start = Instant::now();
    // The shell says so before its children have become what they are to be.
    while alive(marker).len() < 3 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", alive(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker
}

/// Returns the processes with an argument.
fn alive(marker: &str) -> Vec<String> {
    let folders = fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let lines = folders.filter_map(|folder| fs::read_to_string(folder.join("cmdline")).ok());
    lines.filter(|line| line.split('\0').any(|arg| arg == marker)).collect()
}

async fn gone(marker: &str) {
    let start = Instant::now();
    while !alive(marker).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", alive(marker));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn cancelling_ends_every_process_before_it_returns() {
    let bench = Bench::new();
    let worker = sleeping(&bench, "100001.25").await;
    worker.cancel().await;
    assert!(alive("100001.25").is_empty());
}

#[tokio::test]
async fn dropping_a_worker_ends_every_process() {
    let bench = Bench::new();
    drop(sleeping(&bench, "100002.25").await);
    gone("100002.25").await;
}

#[tokio::test]
async fn killing_the_keeper_ends_every_process() {
    let bench = Bench::new();
    let worker = sleeping(&bench, "100003.25").await;
    let pid = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    gone("100003.25").await;
    let failure = worker.answer().await.unwrap_err();
    assert!(failure.to_string().contains("ended without an answer (signal: 9"), "{failure}");
}

#[tokio::test]
async fn what_a_step_leaves_running_ends_with_it() {
    let bench = Bench::new();
    let ran = bench.run(bench.script("setsid sleep 100004.25 >/dev/null 2>&1 & exit 0")).await;
    assert_eq!(ran.ended.status, 0);
    assert!(alive("100004.25").is_empty());
}

#[tokio::test]
async fn mounts_of_a_worker_are_seen_by_nobody_else() {
    let bench = Bench::new();
    let worker = sleeping(&bench, "100005.25").await;
    let root = bench.root.path().to_str().unwrap();
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(root));
    assert!(names(&bench.path("mnt")).is_empty());
    worker.cancel().await;
}

#[tokio::test]
async fn removal_takes_what_other_ids_own_and_follows_no_link() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "").unwrap();
    let script =
        if bench.single() { "mkdir -p /gone/x; chmod 0 /gone" } else { "mkdir -p /gone/x; chown -R 5:5 /gone; chmod 0 /gone" };
    bench.said(script).await;
    std::os::unix::fs::symlink(outside.path(), bench.path("work/link")).unwrap();
    let paths = vec!["work/out".to_owned(), "work/none".to_owned()];
    assert_eq!(bench.workers.spawn(Work::Remove { paths }).await.unwrap().answer().await.unwrap(), Answer::Done);
    assert!(!bench.path("work/out").exists() && outside.path().join("kept").exists());
}

#[tokio::test]
async fn a_root_folder_that_is_not_there_is_an_error_that_names_it() {
    let bench = Bench::new();
    let workers = Workers::new(Path::new("/no/such/cache"), identity());
    let failure = workers.spawn(Work::Exec(bench.script(":"))).await.unwrap().answer().await.unwrap_err();
    assert!(failure.to_string().contains("/no/such/cache"), "{failure}");
}

#[tokio::test]
async fn many_workers_run_at_once() {
    let bench = Bench::new();
    let step = |i: usize| {
        let mut exec = bench.script(&format!("echo {i}"));
        exec.mounts[0] = bench.writable("/", &[1], &format!("out{i}"));
        bench.run(exec)
    };
    for (i, ran) in futures_util::future::join_all((0..16).map(step)).await.into_iter().enumerate() {
        assert_eq!(ran.out, format!("{i}\n"));
    }
}
