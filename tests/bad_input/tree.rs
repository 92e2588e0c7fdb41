//! What lies beside the function: it is neither opened nor counted.
//!
//! Red when: the whole tree is read for a release of one file, a FIFO in it is opened, or a deep tree
//! is walked by recursion.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::Duration;

use super::{SECOND, SLACK, Table, plan, roche, script, shell};
use crate::harness::{Project, mebibytes};

#[test]
fn fifos_and_huge_files_are_never_opened() {
    let project = Project::hello("x");
    let plain = plan(project.root(), "llb").run().succeeds().stdout;
    shell(
        project.root(),
        "mkfifo fifo; mkdir -p src/deep; mkfifo src/deep/fifo src/data; ln -s /dev/zero zero; mknod null c 1 3",
    );
    shell(project.root(), "ln -s . loop; ln -s loop src/loop; ln -s /proc proc");
    for huge in ["huge.bin", "src/huge.rs", "Cargo.lock"] {
        let file = File::create(project.path(huge)).unwrap();
        file.set_len(1 << 40).unwrap();
    }
    let read_at = |name: &str| fs::metadata(project.path(name)).map(|m| (m.atime(), m.atime_nsec())).unwrap();
    let before = ["huge.bin", "src/huge.rs", "Cargo.lock"].map(read_at);
    // Whoever opens a FIFO for reading lets a writer's open return.
    let writers: Vec<_> = ["fifo", "src/deep/fifo", "src/data"]
        .map(|name| {
            std::process::Command::new("bash").args(["-c", "exec 3>\"$0\"", name]).current_dir(project.root()).spawn().unwrap()
        })
        .into();

    let planned = plan(project.root(), "llb").run();
    let released = roche(project.root()).args(["release", "-t", "x:1"]).run();

    let mut opened = false;
    for mut writer in writers {
        opened |= writer.try_wait().unwrap().is_some();
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
    assert!(!opened, "a FIFO was opened\n{}", planned.story());
    assert_eq!(before, ["huge.bin", "src/huge.rs", "Cargo.lock"].map(read_at), "a huge file was read\n{}", planned.story());
    assert!(planned.elapsed < SECOND * SLACK && planned.peak_memory_bytes < mebibytes(64), "{}", planned.story());
    assert_eq!(planned.succeeds().stdout, plain, "what lies beside the function has changed the definition");
    assert!(released.elapsed < SECOND * SLACK, "{}", released.story());
    released.fails(5, &["/nonexistent/docker.sock"]);
}

#[test]
fn a_hundred_thousand_files_cost_nothing() {
    let mut table = Table::new("many files");
    let project = Project::hello("x");
    let plain = plan(project.root(), "llb").run().succeeds().stdout;
    for (what, folder) in [("beside it", project.root().to_path_buf()), ("in src", project.path("src"))] {
        fs::create_dir_all(&folder).unwrap();
        for index in 0..100_000 {
            File::create(folder.join(format!("file{index}"))).unwrap();
        }
        let ended = plan(project.root(), "llb").run();
        table.succeeds(what, "100,000 files", &ended, &[], SECOND);
        table.rule(what, "100,000 files", &ended, ended.stdout == plain, "the definition has changed");
        let modest = ended.peak_memory_bytes < mebibytes(64);
        table.rule(what, "100,000 files", &ended, modest, &format!("took {} bytes, more than 64 MiB", ended.peak_memory_bytes));
    }
    table.end();
}

#[test]
fn ten_thousand_nested_folders_are_no_stack_overflow() {
    let mut table = Table::new("deep folders");
    let project = Project::hello("x");
    let plain = plan(project.root(), "llb").run().succeeds().stdout;
    let deep = "perl -e 'for (1..10000) { mkdir \"d\" or die; chdir \"d\" or die }'";
    shell(project.root(), deep);
    let ended = plan(project.root(), "llb").run();
    table.succeeds("10,000 below it", "folders", &ended, &[], SECOND);
    table.rule("10,000 below it", "folders", &ended, ended.stdout == plain, "the definition has changed");

    // In a folder whose path no system call takes: a release, or 3.
    let inside = "exec perl -e 'for (1..10000) { chdir \"d\" or die } open(F, \">functions.rs\") or die; print F \"fn x() {}\\n\"; \
                  close F; exec $ENV{ROCHE}, \"release\", \"-t\", \"x:1\", \"--dry-run=llb\"'";
    let ended = script(project.root(), inside, &[]);
    if ended.status.code() == Some(0) {
        table.succeeds("10,000 above it", "folders", &ended, &[b"fn x() {}"], SECOND);
    } else {
        let refused = ended.status.code() == Some(3) && ended.stdout.is_empty() && ended.lines("error: ").len() == 1;
        table.rule("10,000 above it", "folders", &ended, refused, "not a release and not 3");
    }
    // The temporary folder's own removal keeps a file open for each folder.
    shell(project.root(), "rm -rf d");
    table.end();
}

#[test]
fn a_folder_that_is_gone_or_closed_gives_3() {
    let mut table = Table::new("the current folder");
    let project = Project::empty();
    let gone = "mkdir gone; cd gone; rmdir ../gone; exec \"$ROCHE\" release -t x:1 --dry-run";
    table.fails("removed", "current folder", &script(project.root(), gone, &[]), &[3], &[], SECOND);
    let gone = "mkdir gone; cd gone; rmdir ../gone; exec \"$ROCHE\" release -t a//b";
    table.fails("removed, bad tag", "current folder", &script(project.root(), gone, &[]), &[2], &[], SECOND);
    symlink("/nonexistent", project.path("src")).unwrap();
    let ended = plan(project.root(), "json").run();
    table.fails("src is a dangling link", "current folder", &ended, &[3], &["functions.rs"], Duration::from_secs(1));
    table.end();
}
