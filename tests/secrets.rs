//! No byte of an environment file or a look-alike secret leaves the machine with a release.
//!
//! Red when: a folder is sent instead of the function file, or the list of what is left out loses
//! a name; when the plan, the metadata or a log quotes such a file. Each search is proved on a text
//! that has to be found: the function's own.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::{Daemon, Ended, Project, Roche, Trace, contains, on_every_daemon, unique};

/// The function's project with a secret in every file that is none of the release's business. All
/// of them hold `secret`, made when the test runs, so that no key stands in the source.
fn project(text: &str, secret: &str) -> Project {
    let key = ["OPENSSH", "PRIVATE", "KEY"].join(" ");
    Project::empty()
        .file("src/functions.rs", Project::function(text))
        .file(".env", format!("TOKEN={secret}-1\n"))
        .file(".env.local", format!("TOKEN={secret}-2\n"))
        .file("prod.env", format!("TOKEN={secret}-3\n"))
        .file(".rocherc", format!("SECRET_KEY={secret}-4\n"))
        .file("id_rsa", format!("-----BEGIN {key}-----\n{secret}-5\n-----END {key}-----\n"))
        .file("src/.env", format!("TOKEN={secret}-6\n"))
        .file("src/credentials.json", format!("{{\"token\": \"{secret}-7\"}}\n"))
        .file("src/.env.swp", format!("TOKEN={secret}-8\n"))
}

on_every_daemon!(no_secret_of_the_folder_leaves_the_machine);
fn no_secret_of_the_folder_leaves_the_machine(daemon: &Daemon) {
    // Longer than a machine word, so that the program holds them as they are.
    let (text, secret) = (format!("the function of {}", unique()), format!("secret{}", unique()));
    let (project, tag) = (project(&text, &secret), daemon.tag());
    let stamp = tempfile::NamedTempFile::new().unwrap();

    let release = |progress: &str| {
        let line = ["--progress", progress, "--no-cache", "--metadata-file", "metadata.json", "--iidfile", "iid"];
        Roche::release(daemon, project.root()).tag(&tag).args(line).run().succeeds()
    };
    let streams = [release("plain"), release("rawjson")];

    assert!(contains(daemon, &tag.name, &text), "the search does not find the function's own text in the image");
    assert!(!contains(daemon, &tag.name, &secret), "in the image");
    for ended in &streams {
        check_streams(ended, &secret);
    }
    let log = Trace::of(&streams[1].stderr).log;
    assert!(!holds(&log, &secret), "in a step's output");
    for file in ["metadata.json", "iid"] {
        assert!(!holds(&fs::read(project.path(file)).unwrap(), &secret), "in {file}");
    }
    let search = |text: &str| changed_files_with(daemon.folder(), stamp.path(), text);
    assert_ne!(search(&text), "", "the search does not find the function's own text in the daemon's data");
    assert_eq!(search(&secret), "", "in the daemon's data or log");
}

on_every_daemon!(no_secret_of_the_folder_is_in_the_plan);
fn no_secret_of_the_folder_is_in_the_plan(daemon: &Daemon) {
    let (text, secret) = (format!("the function of {}", unique()), format!("secret{}", unique()));
    let (project, tag) = (project(&text, &secret), daemon.tag());
    for form in ["llb", "json", "dot", "text"] {
        let ended = Roche::release(daemon, project.root()).tag(&tag).arg(format!("--dry-run={form}")).run().succeeds();
        assert!(form != "llb" || holds(&ended.stdout, &text), "the definition holds the function");
        assert!(!holds(&ended.stdout, &secret), "in --dry-run={form}");
        check_streams(&ended, &secret);
    }
}

on_every_daemon!(one_notice_names_what_was_left_out);
fn one_notice_names_what_was_left_out(daemon: &Daemon) {
    let (project, tag) = (project("some text", "some secret"), daemon.tag());
    let ended = Roche::release(daemon, project.root()).tag(&tag).run().succeeds();
    let notices: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("left out")).collect();
    assert_eq!(notices.len(), 1, "{}", ended.story());
    for name in [".env", ".env.local", "prod.env", "id_rsa", "credentials.json", ".env.swp"] {
        assert!(notices[0].contains(name), "{name} is not named in: {}", notices[0]);
    }
    assert!(!notices[0].contains("functions.rs"), "{}", notices[0]);
}

fn check_streams(ended: &Ended, secret: &str) {
    assert!(!ended.stderr.contains(secret) && !holds(&ended.stdout, secret), "on a stream\n{}", ended.story());
}

fn holds(data: &[u8], text: &str) -> bool {
    data.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The files below a folder that changed after `stamp` and hold a text, one a line.
fn changed_files_with(folder: &Path, stamp: &Path, text: &str) -> String {
    // grep ends with 1 where it finds nothing; files may go while they are looked for.
    let script =
        "find \"$1\" -xdev -type f -cnewer \"$2\" -size -64M -print0 | xargs -0 -r grep -laF -e \"$3\" -- 2>/dev/null; :";
    let found = Command::new("bash").args(["-c", script, "-"]).arg(folder).arg(stamp).arg(text).output().unwrap();
    assert!(found.status.success(), "{} was not searched", folder.display());
    String::from_utf8(found.stdout).unwrap()
}
