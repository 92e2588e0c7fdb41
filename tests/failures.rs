//! The failure table: each exit code provoked for real, with its message.
//!
//! A row is an arrangement, the code and what the message has to say; the rules that hold for all
//! (one error, a hint, nothing on stdout, no panic, no escape sequence) are
//! [`Ended::check_failure`]'s. `tests/run -- --nocapture failure` prints the table.
//!
//! Red when: a failing step ends with 0; an error is mapped to another code, loses its hint or its
//! cause; a cancelled release leaves its step running.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::harness::{
    Daemon, Ended, Fault, Project, Proxy, Roche, Sleeping, image, on_docker20, on_every_daemon, registry, unique,
};

/// What may pass between a cause and the end: the contract's two seconds, with slack for a busy
/// machine.
const PROMPT: Duration = Duration::from_secs(10);

struct Row {
    what: &'static str,
    code: i32,
    says: Vec<String>,
    provoke: Box<dyn Fn(&Daemon) -> Ended>,
}

fn row(what: &'static str, code: i32, says: &[&str], provoke: impl Fn(&Daemon) -> Ended + 'static) -> Row {
    Row { what, code, says: says.iter().map(ToString::to_string).collect(), provoke: Box::new(provoke) }
}

/// Provokes every row, prints the table, and fails with all rows that broke a rule.
fn check(daemon: &Daemon, rows: Vec<Row>) {
    let mut broken = Vec::new();
    println!("\n{:<45} {:>4} {:>7}  message ({})", "cause", "code", "seconds", daemon.name);
    for row in rows {
        let ended = (row.provoke)(daemon);
        let says: Vec<&str> = row.says.iter().map(String::as_str).collect();
        let message = ended.lines("error: ").join(" / ");
        println!("{:<45} {:>4} {:>7.1}  {message}", row.what, ended.status.code().unwrap_or(-1), ended.elapsed.as_secs_f32());
        if let Err(reason) = ended.check_failure(row.code, &says) {
            broken.push(format!("{}: {reason}\n{}", row.what, ended.story()));
        }
    }
    assert!(broken.is_empty(), "{} rows are broken\n{}", broken.len(), broken.join("\n"));
}

fn hello() -> Project {
    Project::hello("hello")
}

/// A release of `project` to a tag that nothing gets.
fn release(daemon: &Daemon, project: &Project, args: &[&str]) -> Ended {
    let tag = daemon.tag();
    let ended = Roche::release(daemon, project.root()).tag(&tag).args(args).run();
    assert!(!daemon.has_image(&tag.name), "there is an image all the same\n{}", ended.story());
    ended
}

on_every_daemon!(steps_that_fail_give_1);
fn steps_that_fail_give_1(daemon: &Daemon) {
    check(
        daemon,
        vec![
            row("the function does not compile", 1, &["E0425", "no_such_name", "101"], |d| {
                let source = "pub fn handler() -> tide::Server<()> { no_such_name() }\n";
                release(d, &Project::empty().file("functions.rs", source), &[])
            }),
            row("the same, with plain progress", 1, &["E0425", "no_such_name", "101"], |d| {
                let source = "pub fn handler() -> tide::Server<()> { no_such_name() }\n";
                release(d, &Project::empty().file("functions.rs", source), &["--progress", "plain"])
            }),
            row("a test fails", 1, &["this_test_fails", "101"], |d| {
                let lib = "pub mod functions;\n#[test]\nfn this_test_fails() { assert_eq!(1, 2) }\n";
                release(d, &hello().file("lib.rs", lib), &[])
            }),
            row("the build image has no /app-build", 1, &["/app-build", "roche prepare"], |d| {
                release(d, &hello(), &["-b", &image("toolchain")])
            }),
        ],
    );
}

#[test]
fn what_is_typed_wrong_gives_2() {
    // No daemon is there to be asked: the verdict comes before any I/O.
    let typed = |args: &[&str]| {
        let project = hello();
        Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock").args(args).run()
    };
    let mut broken = Vec::new();
    for (args, says) in [
        (vec!["release", "-t", "Upper:1"], "Upper:1"),
        (vec!["release", "-t", "a//b"], "a//b"),
        (vec!["release", "-t", ""], "-t"),
        (vec!["release", "-t", "x:1\nRUN id"], "x:1"),
        (vec!["release", "-t", "x:$(id)"], "x:$(id)"),
        (vec!["release", "-t", "x:{{.ID}}"], "x:{{.ID}}"),
        (vec!["release", "-b", "x\nRUN id", "-t", "x:1"], "-b"),
        (vec!["release", "--no-such-flag"], "--no-such-flag"),
        (vec!["release", "--progress", "loud", "-t", "x:1"], "loud"),
        (vec!["build", "-t", "x:1"], "roche release -t x:1"),
        (vec!["gen", "-t", "x:1"], "roche release --dry-run"),
    ] {
        let ended = typed(&args);
        if let Err(reason) = ended.check_failure(2, &[says]) {
            broken.push(format!("{reason}\n{}", ended.story()));
        }
    }
    assert!(broken.is_empty(), "{} rows are broken\n{}", broken.len(), broken.join("\n"));
}

on_every_daemon!(projects_that_are_none_give_3);
fn projects_that_are_none_give_3(daemon: &Daemon) {
    check(
        daemon,
        vec![
            row("no function file", 3, &["shop/functions.rs", "shop/src/functions.rs"], |d| release(d, &Project::empty(), &[])),
            row("the function file is empty", 3, &["functions.rs", "empty"], |d| {
                release(d, &Project::empty().file("functions.rs", ""), &[])
            }),
            row("the function file points outside", 3, &["functions.rs", "out of the project"], |d| {
                let (project, other) = (Project::empty(), hello());
                std::os::unix::fs::symlink(other.path("functions.rs"), project.path("functions.rs")).unwrap();
                release(d, &project, &[])
            }),
        ],
    );
}

on_every_daemon!(configuration_that_is_wrong_gives_4);
fn configuration_that_is_wrong_gives_4(daemon: &Daemon) {
    let untagged = |d: &Daemon, config: Option<&str>| {
        let project = hello();
        let call = Roche::release(d, project.root());
        match config {
            Some(config) => call.home_file(".docker/config.json", config).run(),
            None => call.run(),
        }
    };
    // "mallory:-" in base64.
    let several = r#"{"auths": {"one.invalid": {"auth": "bWFsbG9yeTot"}, "two.invalid": {"auth": "bWFsbG9yeTot"}}}"#;
    check(
        daemon,
        vec![
            row("a malformed .rocherc", 4, &[".rocherc", "2"], |d| {
                release(d, &hello().file(".rocherc", "runtime_image=x\nno equals sign\n"), &[])
            }),
            row("a malformed docker config", 4, &["config.json"], move |d| untagged(d, Some("{"))),
            row("several logins and no tag", 4, &["one.invalid", "two.invalid", "-t"], move |d| untagged(d, Some(several))),
            row("no login and no tag", 4, &["-t", "docker login"], move |d| untagged(d, None)),
        ],
    );
}

on_every_daemon!(back_ends_that_are_not_there_give_5);
fn back_ends_that_are_not_there_give_5(daemon: &Daemon) {
    let at = |host: String| {
        let project = hello();
        let call = Roche::new(project.root()).env("DOCKER_HOST", host).args(["release", "-t", "x.invalid/x:1"]);
        call.build_image(&image("build")).runtime(&image("runtime-busybox")).within(PROMPT).run()
    };
    let answering = move |daemon: &Daemon, bytes| {
        let proxy = Proxy::start(daemon, Fault::Answer(bytes));
        at(proxy.host())
    };
    check(
        daemon,
        vec![
            row("the socket does not exist", 5, &["/nonexistent/docker.sock", "DOCKER_HOST"], move |_| {
                at("unix:///nonexistent/docker.sock".into())
            }),
            row("nobody listens on the socket", 5, &["left.sock", "DOCKER_HOST"], move |_| {
                let project = Project::empty();
                drop(UnixListener::bind(project.path("left.sock")).unwrap());
                at(format!("unix://{}", project.path("left.sock").display()))
            }),
            row("nobody listens on the port", 5, &["127.0.0.1:1", "DOCKER_HOST"], move |_| at("tcp://127.0.0.1:1".into())),
            row("no permission", 5, &["permission denied", "docker.sock"], |d| {
                let project = hello();
                let call = Roche::new(project.root()).on(d).args(["release", "-t", "x.invalid/x:1"]);
                call.build_image(&image("build")).runtime(&image("runtime-busybox")).as_nobody().within(PROMPT).run()
            }),
            row("a web server answers", 5, &["docker.sock"], move |d| {
                answering(d, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            }),
            row("something else answers", 5, &["docker.sock"], move |d| answering(d, b"220 mail.invalid ESMTP\r\n")),
            row("something else answers the flag's address", 5, &["docker.sock", "--addr"], |d| {
                let (project, proxy) = (hello(), Proxy::start(d, Fault::Answer(b"220 mail.invalid ESMTP\r\n")));
                let call = Roche::new(project.root()).args(["release", "-t", "x.invalid/x:1", "--addr", &proxy.host()]);
                call.build_image(&image("build")).runtime(&image("runtime-busybox")).within(PROMPT * 3).run()
            }),
        ],
    );
}

on_every_daemon!(a_daemon_that_dies_in_a_step_gives_6);
fn a_daemon_that_dies_in_a_step_gives_6(daemon: &Daemon) {
    let sleeping = Sleeping::image(daemon);
    check(
        daemon,
        vec![row("the daemon dies in a step", 6, &[], move |d| {
            let (project, proxy, tag) = (Project::hello(&unique()), Proxy::start(d, Fault::Never), d.tag());
            let mut call =
                Roche::release(d, project.root()).env("DOCKER_HOST", proxy.host()).tag(&tag).arg("-b").arg(&sleeping.tag.name);
            call = call.args(["--progress", "plain"]);
            let mut running = call.start();
            sleeping.wait_for_the_step(&mut running);
            proxy.cut();
            let ended = running.ends_within(PROMPT);
            sleeping.assert_gone_within(PROMPT);
            assert!(!d.has_image(&tag.name));
            ended
        })],
    );
}

on_docker20!(an_exporter_that_the_daemon_lacks_gives_6);
fn an_exporter_that_the_daemon_lacks_gives_6(daemon: &Daemon) {
    check(
        daemon,
        vec![row("an OCI archive from dockerd 20.10", 6, &["oci"], |d| {
            let project = hello();
            let ended = release(d, &project, &["-o", "type=oci,dest=image.tar"]);
            assert!(!project.path("image.tar").exists());
            ended
        })],
    );
}

on_every_daemon!(images_that_cannot_be_had_give_8);
fn images_that_cannot_be_had_give_8(daemon: &Daemon) {
    check(
        daemon,
        vec![
            row("no such build image", 8, &["no-such-build", "-b"], |d| {
                release(d, &hello(), &["-b", &format!("{}/no-such-build:1", registry())])
            }),
            row("no such runtime image", 8, &["no-such-runtime"], |d| {
                release(d, &hello(), &["-r", &format!("{}/no-such-runtime:1", registry())])
            }),
            row("no such tag", 8, &["no-such-tag"], |d| {
                release(d, &hello(), &["-b", &format!("{}/build:no-such-tag", registry())])
            }),
            row("nobody is the registry", 8, &["127.0.0.1:1/build"], |d| release(d, &hello(), &["-b", "127.0.0.1:1/build:1"])),
        ],
    );
}

on_every_daemon!(signals_cancel_the_step_too);
fn signals_cancel_the_step_too(daemon: &Daemon) {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        for progress in ["plain", "rawjson"] {
            let sleeping = Sleeping::image(daemon);
            let (project, tag) = (Project::hello(&unique()), daemon.tag());
            let call = Roche::release(daemon, project.root()).tag(&tag).args(["-b", &sleeping.tag.name, "--progress", progress]);
            let mut running = call.start();
            sleeping.wait_for_the_step(&mut running);

            running.signal(signal);
            let ended = running.ends_within(PROMPT);

            println!(
                "{:<45} {:>4} {:>7.1}  {}",
                format!("SIG{signal}, {progress}"),
                code,
                ended.waited.as_secs_f32(),
                ended.error()
            );
            if let Err(reason) = ended.check_failure(code, &["cancelled"]) {
                panic!("SIG{signal}: {reason}\n{}", ended.story());
            }
            sleeping.assert_gone_within(PROMPT);
            assert!(!daemon.has_image(&tag.name));
        }
    }
}

#[test]
fn a_function_file_that_would_block_is_refused_at_once() {
    let project = Project::empty();
    let made = std::process::Command::new("mkfifo").arg(project.path("functions.rs")).status().unwrap();
    assert!(made.success() && fs::metadata(project.path("functions.rs")).is_ok());
    let call = Roche::new(project.root()).env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    call.args(["release", "-t", "x:1"]).within(Duration::from_secs(5)).run().fails(3, &["functions.rs"]);
}
