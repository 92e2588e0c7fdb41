//! Outputs that cannot be written, or must not be: 2 or 10, and nothing is lost.
//!
//! Red when: a folder, a device or an input of the release is written to; a write that failed is
//! taken for one that did not; an archive is poured onto a terminal.

use std::fs;
use std::time::Duration;

use super::{Table, script};
use crate::harness::{Daemon, Project, Roche, on_docker26};

on_docker26!(what_cannot_be_an_output_gives_2_or_10);
fn what_cannot_be_an_output_gives_2_or_10(daemon: &Daemon) {
    let mut table = Table::new("outputs");
    let rows: &[(&str, &str)] = &[
        ("a folder", "--output=type=tar,dest=folder"),
        ("a folder", "--output=type=oci,dest=folder"),
        ("a folder", "--metadata-file=folder"),
        ("a folder", "--iidfile=folder"),
        ("the project", "--output=type=tar,dest=."),
        ("/dev/full", "--output=type=tar,dest=/dev/full"),
        ("/dev/full", "--output=type=oci,dest=/dev/full"),
        ("/dev/full", "--metadata-file=/dev/full"),
        ("/dev/full", "--iidfile=/dev/full"),
        ("the function file", "--output=type=tar,dest=functions.rs"),
        ("the function file", "--output=type=oci,dest=./folder/../functions.rs"),
        ("the function file", "--metadata-file=functions.rs"),
        ("the function file", "--iidfile=functions.rs"),
        ("a link to the function file", "--output=type=tar,dest=link"),
        ("a link to the function file", "--metadata-file=link"),
        ("a link to the function file", "--iidfile=link"),
        (".rocherc", "--output=type=tar,dest=.rocherc"),
        (".rocherc", "--iidfile=.rocherc"),
        (".rocherc", "--metadata-file=.rocherc"),
        ("in a folder that is not there", "--output=type=tar,dest=none/image.tar"),
        ("in a folder that is not there", "--metadata-file=none/metadata.json"),
        ("in a folder that is not there", "--iidfile=none/iid"),
        ("below a file", "--output=type=tar,dest=functions.rs/image.tar"),
        ("a file as a folder", "--output=type=local,dest=functions.rs"),
    ];
    for (what, output) in rows {
        let project = Project::hello("outputs").file("folder/kept", "kept").file(".rocherc", "# kept\n");
        std::os::unix::fs::symlink("functions.rs", project.path("link")).unwrap();
        let channel = output.split_once(",dest").map_or(output.split('=').next().unwrap(), |(kind, _)| kind);
        let ended = Roche::release(daemon, project.root()).args(["-t", "x.invalid/x:1", output]).run();
        // A folder that is not there may be made instead.
        if *what == "in a folder that is not there" && ended.status.code() == Some(0) {
            let made = project.path("none").is_dir();
            table.rule(what, channel, &ended, made, "exit code 0, and there is no file");
        } else {
            table.fails(what, channel, &ended, &[2, 10], &[], Duration::from_secs(60));
        }
        let kept = fs::read(project.path("functions.rs")).ok() == Some(Project::function("outputs").into_bytes())
            && fs::read(project.path(".rocherc")).ok() == Some(b"# kept\n".to_vec())
            && fs::read(project.path("folder/kept")).ok() == Some(b"kept".to_vec())
            && project.path("link").is_symlink();
        table.rule(what, channel, &ended, kept, "a file of the project has changed");
        let names: Vec<_> = fs::read_dir(project.root()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let partial = names.len() > 4 && !project.path("none").exists();
        table.rule(what, channel, &ended, !partial, &format!("partial work was left: {names:?}"));
    }
    table.end();
}

on_docker26!(an_archive_is_not_poured_onto_a_terminal);
fn an_archive_is_not_poured_onto_a_terminal(daemon: &Daemon) {
    let project = Project::hello("outputs");
    for output in ["type=tar,dest=-", "type=oci,dest=-", "-"] {
        // script gives the program a terminal, on which all of its streams are one.
        let line = format!(
            "export DOCKER_HOST={}; script -qec '\"$ROCHE\" release -t x.invalid/x:1 -o {output}' /dev/null",
            daemon.host()
        );
        let ended = script(project.root(), &line, &[]);
        assert_eq!(ended.status.code(), Some(2), "{output}\n{}", ended.story());
        let shown = ended.stdout_text();
        assert!(shown.contains("error: ") && !shown.contains('\0'), "{output}\n{}", ended.story());
    }
}
