//! Function files that are none, that lead elsewhere, or that may not be read.
//!
//! Red when: a link is followed out of the project, a FIFO or a device is opened, a file that cannot
//! be read is skipped for the next place, or an environment file is shipped under another name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{SECOND, Table, contains, plan, roche, shell};
use crate::harness::{Ended, Project, mebibytes, unique};

/// Where a function file may stand.
const PLACES: [&str; 2] = ["functions.rs", "src/functions.rs"];

/// Both a plan and a release: the project is read before a daemon is asked.
fn refused(table: &mut Table, what: &str, place: &str, project: &Project, codes: &[i32], says: &[&str]) -> [Ended; 2] {
    let ended = [plan(project.root(), "llb").run(), roche(project.root()).args(["release", "-t", "x:1"]).run()];
    for (ended, how) in ended.iter().zip(["plan", "release"]) {
        table.fails(what, &format!("{place}, {how}"), ended, codes, says, SECOND);
        let modest = ended.peak_memory_bytes < mebibytes(64);
        table.rule(what, &format!("{place}, {how}"), ended, modest, "took more than 64 MiB");
    }
    ended
}

/// A project with a folder `src` and no function.
fn bare() -> Project {
    let project = Project::empty();
    fs::create_dir(project.path("src")).unwrap();
    project
}

#[test]
fn no_function_file_names_both_places() {
    let mut table = Table::new("no function file");
    refused(&mut table, "an empty folder", "", &Project::empty(), &[3], &["shop/functions.rs", "shop/src/functions.rs"]);
    refused(&mut table, "an empty src", "", &bare(), &[3], &["shop/functions.rs", "shop/src/functions.rs"]);
    let near = Project::empty().file("Functions.rs", "x").file("functions.rs~", "x").file("function.rs", "x").file("src", "x");
    refused(&mut table, "names that are near", "", &near, &[3], &["shop/functions.rs", "shop/src/functions.rs"]);
    table.end();
}

#[test]
fn what_is_no_file_is_no_function() {
    let mut table = Table::new("function files that are none");
    for place in PLACES {
        let rows = [
            ("empty", format!(": > {place}")),
            ("a folder", format!("mkdir {place}")),
            ("a FIFO", format!("mkfifo {place}")),
            ("a character device", format!("mknod {place} c 1 5")),
            ("a block device", format!("mknod {place} b 7 200")),
            ("a link to /dev/zero", format!("ln -s /dev/zero {place}")),
            ("a link to /dev/stdin", format!("ln -s /dev/stdin {place}")),
            ("a link to /proc/self/environ", format!("ln -s /proc/self/environ {place}")),
            ("a dangling link", format!("ln -s gone.rs {place}")),
            ("a dangling link to outside", format!("ln -s /gone.rs {place}")),
            ("a link to itself", format!("ln -s functions.rs {place}")),
            ("a loop of links", format!("ln -s a.rs {place}; ln -s functions.rs $(dirname {place})/a.rs")),
            ("a link to a FIFO", format!("mkfifo $(dirname {place})/a; ln -s a {place}")),
            ("a link to a folder", format!("mkdir $(dirname {place})/a; ln -s a {place}")),
        ];
        for (what, made) in rows {
            let project = bare();
            shell(project.root(), &made);
            refused(&mut table, what, place, &project, &[3], &["functions.rs"]);
        }
        let project = bare();
        let _listener = UnixListener::bind(project.path(place)).unwrap();
        refused(&mut table, "a socket", place, &project, &[3], &["functions.rs"]);
    }
    for (what, made) in [
        ("a folder", "mkdir lib.rs"),
        ("a FIFO", "mkfifo lib.rs"),
        ("a dangling link", "ln -s gone lib.rs"),
        ("a link to /dev/zero", "ln -s /dev/zero lib.rs"),
        ("a loop of links", "ln -s lib.rs lib.rs"),
    ] {
        let project = Project::hello("x");
        shell(project.root(), made);
        refused(&mut table, what, "lib.rs", &project, &[3], &["lib.rs"]);
    }
    table.end();
}

#[test]
fn a_link_to_outside_is_never_read() {
    let mut table = Table::new("links to outside");
    let secret = unique();
    let outside = Project::empty().file("functions.rs", format!("{}// {secret}\n", Project::function("x")));
    let target = outside.path("functions.rs");
    let (file, folder) = (target.display(), outside.root().display());
    let rows = [
        ("absolute", "functions.rs", format!("ln -s {file} functions.rs")),
        ("absolute", "src/functions.rs", format!("ln -s {file} src/functions.rs")),
        ("relative", "functions.rs", "cp -r ../shop ../other; ln -s ../other/functions.rs functions.rs".into()),
        ("by way of the project", "functions.rs", format!("ln -s {file} a.rs; ln -s a.rs functions.rs")),
        ("by way of a folder's link", "functions.rs", format!("ln -s {folder} a; ln -s a/functions.rs functions.rs")),
        ("the folder", "src", format!("rmdir src; ln -s {folder} src")),
        (
            "out and in again",
            "functions.rs",
            format!("cp {file} a.rs; ln -s {folder}/back functions.rs; ln -sf $PWD/a.rs {folder}/back"),
        ),
        ("lib.rs", "lib.rs", format!("echo 'fn x() {{}}' > functions.rs; ln -s {file} lib.rs")),
    ];
    for (what, place, made) in rows {
        let project = bare();
        if what == "relative" {
            fs::create_dir(project.path("../other")).unwrap();
            fs::copy(&target, project.path("../other/functions.rs")).unwrap();
            symlink("../other/functions.rs", project.path("functions.rs")).unwrap();
        } else {
            shell(project.root(), &made);
        }
        // A link that leaves and comes back may be refused or followed: what it holds is the project's.
        if what == "out and in again" {
            let ended = plan(project.root(), "llb").run();
            table.rule(what, place, &ended, matches!(ended.status.code(), Some(0 | 3)), "not 0 or 3");
            continue;
        }
        for ended in refused(&mut table, what, place, &project, &[3], &[]) {
            let kept = !contains(&ended.stdout, secret.as_bytes()) && !ended.stderr.contains(&secret);
            table.rule(what, place, &ended, kept, "the outside file was read");
        }
    }
    table.end();
}

#[test]
fn a_link_within_the_project_works() {
    let mut table = Table::new("links within the project");
    for (what, made) in [
        ("beside it", "mv functions.rs real.rs; ln -s real.rs functions.rs"),
        ("below it", "mkdir -p a/b; mv functions.rs a/b/real.rs; ln -s a/b/real.rs functions.rs"),
        ("absolute", "mv functions.rs real.rs; ln -s $PWD/real.rs functions.rs"),
        ("from src", "mkdir src; mv functions.rs real.rs; ln -s ../real.rs src/functions.rs"),
        ("two links", "mv functions.rs real.rs; ln -s real.rs a.rs; ln -s ./a.rs functions.rs"),
        ("a folder's link", "mkdir code; mv functions.rs code; ln -s code src"),
    ] {
        let text = unique();
        let project = Project::hello(&text);
        shell(project.root(), made);
        table.succeeds(what, "a link", &plan(project.root(), "llb").run(), &[text.as_bytes()], SECOND);
    }
    table.end();
}

#[test]
fn a_link_that_is_swapped_during_the_read_never_leads_out() {
    let (inside, secret) = (unique(), unique());
    let outside = Project::hello(&secret);
    let project = Project::empty().file("real.rs", Project::function(&inside));
    symlink("real.rs", project.path("functions.rs")).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let next = project.path("next");
            while !over.load(Ordering::Relaxed) {
                for target in [&outside.path("functions.rs"), &project.path("real.rs")] {
                    symlink(target, &next).unwrap();
                    fs::rename(&next, project.path("functions.rs")).unwrap();
                }
            }
        });
        let mut taken = 0;
        let mut wrong = None;
        for _ in 0..40 {
            let ended = plan(project.root(), "llb").run();
            let leaked = contains(&ended.stdout, secret.as_bytes());
            let in_tree = ended.status.code() == Some(0) && contains(&ended.stdout, inside.as_bytes());
            taken += usize::from(in_tree);
            if leaked || !(in_tree || ended.status.code() == Some(3)) {
                wrong = Some(ended);
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        if let Some(ended) = wrong {
            panic!("neither the project's bytes nor 3\n{}", ended.story());
        }
        println!("the link was swapped: {taken} of 40 plans took the project's bytes, the others refused");
    });
}

#[test]
fn what_may_not_be_read_is_not_skipped() {
    let mut table = Table::new("unreadable");
    let rows: &[(&str, &[&str], &str, i32)] = &[
        ("functions.rs", &["functions.rs"], "functions.rs", 3),
        ("functions.rs", &["functions.rs", "src/functions.rs"], "functions.rs, before src", 3),
        ("src/functions.rs", &["src/functions.rs"], "src/functions.rs", 3),
        ("src", &["src/functions.rs"], "src", 3),
        ("lib.rs", &["functions.rs", "lib.rs"], "lib.rs", 3),
        (".rocherc", &["functions.rs", ".rocherc"], ".rocherc", 4),
    ];
    for (locked, files, channel, code) in rows {
        let project = files.iter().fold(Project::empty(), |project, file| {
            project.file(file, if *file == ".rocherc" { "# empty\n".to_string() } else { Project::function("x") })
        });
        fs::set_permissions(project.path(locked), fs::Permissions::from_mode(0o000)).unwrap();
        for (how, call) in
            [("plan", plan(project.root(), "llb")), ("release", roche(project.root()).args(["release", "-t", "x:1"]))]
        {
            let ended = call.as_nobody().run();
            table.fails("mode 0, as nobody", &format!("{channel}, {how}"), &ended, &[*code], &[locked, "ermission"], SECOND);
        }
    }
    table.end();
}

#[test]
fn an_environment_file_under_the_functions_name_gives_11() {
    let mut table = Table::new("secrets under the function's name");
    for name in [".env", ".env.local", "prod.env", ".rocherc", "id_rsa", ".netrc", ".npmrc", "credentials.json", "x.tfstate"] {
        for place in ["functions.rs", "src/functions.rs", "lib.rs"] {
            let secret = unique();
            let project = bare().file(name, format!("# runtime_image={secret}\n"));
            if place == "lib.rs" {
                project.write("functions.rs", Project::function("x"));
            }
            symlink(project.path(name), project.path(place)).unwrap();
            for ended in refused(&mut table, name, place, &project, &[11], &[name]) {
                let kept = !contains(&ended.stdout, secret.as_bytes()) && !ended.stderr.contains(&secret);
                table.rule(name, place, &ended, kept, "the secret was shown");
            }
        }
    }
    table.end();
}
