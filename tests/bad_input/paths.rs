//! Odd paths: exact bytes, or exit 2.
//!
//! Red when: a path is printed as it is, is taken for a flag or a pattern, loses a byte on its way to
//! a file, or gets into the plan.

use std::fs;
use std::time::Duration;

use super::{SECOND, Table, contains, plan, raw, roche};
use crate::harness::{Daemon, Project, Roche, on_every_daemon};

/// Names that a file system takes.
const NAMES: &[&[u8]] = &[
    b"with space",
    b" ",
    b"quo'te",
    b"quo\"te",
    b"\"quoted\"",
    b"new\nline",
    b"end\n",
    "\u{1f980}".as_bytes(),
    "\u{202e}evil".as_bytes(),
    b"-t",
    b"--tag",
    b"-",
    b"--",
    b"not\xffutf8",
    b"tab\there",
    b"back\\slash",
    b"$(id)",
    b"`id`",
    b"{{.ID}}",
    b"esc\x1b[31m",
    b"*",
    b"a?b",
    b"[a]",
    b"a:b",
    b"a;b",
    b"#",
    b"%s",
    b"~",
    b"\x7f",
    b"a=b",
];

#[test]
fn the_folder_of_a_project_may_have_any_name() {
    let mut table = Table::new("folders of projects");
    let plain = plan(Project::hello("x").root(), "llb").run().succeeds().stdout;
    for name in NAMES {
        let project = Project::empty();
        let folder = project.path("above").join(raw(name));
        fs::create_dir_all(&folder).unwrap();

        let ended = roche(&folder).args(["release", "-t", "x:1"]).run();
        table.fails(name, "folder, no function", &ended, &[3], &["functions.rs"], SECOND);

        fs::write(folder.join("functions.rs"), Project::function("x")).unwrap();
        let ended = plan(&folder, "llb").run();
        table.succeeds(name, "folder", &ended, &[], SECOND);
        table.rule(name, "folder", &ended, ended.stdout == plain, "the folder's name has changed the definition");

        let ended = roche(&folder).args(["release", "--dry-run"]).env("DOCKER_USERNAME", "mallory").run();
        // Where a name holds nothing legal, no tag can be made.
        if ended.status.code() == Some(0) {
            table.succeeds(name, "folder, no tag", &ended, &[b"mallory/"], SECOND);
            let odd = ended.stdout.iter().any(|byte| *byte != b'\n' && !(b' '..0x7f).contains(byte));
            table.rule(name, "folder, no tag", &ended, !odd, "the plan holds the folder's odd bytes");
        } else {
            table.fails(name, "folder, no tag", &ended, &[4, 2], &["-t"], SECOND);
        }
    }
    table.end();
}

on_every_daemon!(an_output_may_have_any_name);
fn an_output_may_have_any_name(daemon: &Daemon) {
    let mut table = Table::new("names of outputs");
    let minute = Duration::from_secs(60);
    let release = |project: &Project| Roche::release(daemon, project.root()).args(["-t", "x.invalid/x:1"]);
    for name in NAMES {
        let project = Project::hello("odd names");
        let output = [b"--output=type=tar,dest=".as_slice(), name].concat();
        let ended = release(&project).arg(raw(&output)).run();
        // `-` is standard output.
        if name == b"-" {
            table.succeeds(name, "-o dest=", &ended, &[b"run.sh"], minute);
            continue;
        }
        if ended.status.code() == Some(2) {
            table.fails(name, "-o dest=", &ended, &[2], &[], minute);
            let left = fs::read_dir(project.root()).unwrap().count();
            table.rule(name, "-o dest=", &ended, left == 1, "it is refused, and a file was left all the same");
        } else {
            let written = fs::read(project.root().join(raw(name))).unwrap_or_default();
            let exact = contains(&written, b"app/run.sh") && fs::read_dir(project.root()).unwrap().count() == 2;
            table.rule(name, "-o dest=", &ended, exact, "the archive is not at exactly this name");
            table.rule(name, "-o dest=", &ended, ended.status.code() == Some(0), "not 0 or 2");
        }

        for flag in ["--iidfile=", "--metadata-file="] {
            let project = Project::hello("odd names");
            let argument = [flag.as_bytes(), name].concat();
            // The image goes into the daemon's store: an archive of files has no digest.
            let tag = daemon.tag();
            let ended = Roche::release(daemon, project.root()).tag(&tag).arg(raw(&argument)).run();
            if ended.status.code() == Some(2) {
                table.fails(name, flag, &ended, &[2], &[], minute);
            } else {
                let written = fs::read(project.root().join(raw(name))).unwrap_or_default();
                table.rule(name, flag, &ended, !written.is_empty(), "the file is not at exactly this name");
                table.rule(name, flag, &ended, ended.status.code() == Some(0), "not 0 or 2");
            }
        }
    }
    table.end();
}
