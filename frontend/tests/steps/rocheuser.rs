//! `rocheuser.rs`, which must do what `runtime.sh` does for a static service.

use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;

use super::*;

/// The program, compiled for this machine as it is.
static PROGRAM: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("rocheuser");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stage/rocheuser.rs");
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let output =
        Command::new(rustc).args(["--edition", "2021", "-D", "warnings", "-o"]).args([&program, &source]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (dir, program)
});

/// Runs the program over a runtime with `files`; returns the case's folder and what was said.
fn made(files: &[(&str, &str)], entrypoint: &str) -> (tempfile::TempDir, PathBuf, Output) {
    let (outer, root) = tree(&[("out/", ""), ("ids/", ""), ("runtime/", "")]);
    add(&root.join("runtime"), files);
    let output = rocheuser(&root, entrypoint);
    (outer, root, output)
}

fn rocheuser(root: &Path, entrypoint: &str) -> Output {
    let places = ["runtime", "out", "ids"].map(|place| root.join(place));
    Command::new(&PROGRAM.1).args(places).arg(entrypoint).env_clear().output().unwrap()
}

/// Runs `runtime.sh` over the same runtime; returns what it said, and the case's `script` folder.
fn scripted(root: &Path, entrypoint: &str) -> Output {
    let project = root.join("project");
    add(&project, &[("run.sh", ""), ("Cargo.toml", ""), ("target/release/", "")]);
    let mut header = vec![0; 64];
    header[..5].copy_from_slice(b"\x7fELF\x02");
    fs::write(project.join("target/release/roche-service"), header).unwrap();
    let [runtime, out, gives] = ["runtime", "script", "gives"].map(|place| root.join(place));
    [&out, &gives].into_iter().for_each(|place| fs::create_dir(place).unwrap());
    run(&["/bin/sh"], "runtime.sh", &[&project, &runtime, &out, &gives, Path::new(entrypoint)], &[])
}

#[test]
fn users_are_those_that_the_script_makes() {
    let cases: [&[(&str, &str)]; 9] = [
        &[],
        &[("etc/passwd", ""), ("etc/group", "")],
        &[("etc/passwd", "root:x:0:0::/:\na:x:100:100::/:\n"), ("etc/group", "root:x:0:\na:x:100:")],
        &[("etc/passwd", "root:x:0:0::/:\n\nb"), ("etc/group", "staff:x:100:\nrocheuser:x:7:")],
        &[("etc/passwd", "x:x:5:5::/:\nrocheuser:x:8:9::/home:/bin/sh"), ("etc/group", "root:x:0:")],
        &[("etc/passwd", "->../store/p"), ("store/p", "root:x:0:0::/:\n"), ("etc/group", "->/gone")],
        &[("app/old", "kept"), ("etc/other", "kept")],
        &[("bin/sh", "->busybox"), ("bin/busybox", "x")],
        &[("etc/passwd", "rocheuser:x:1:2:\nrocheuser:x:3:4:\n")],
    ];
    for files in cases {
        let (_outer, root, output) = made(files, "direct");
        assert!(output.status.success(), "{files:?} {}", stderr(&output));
        let script = scripted(&root, "direct");
        assert!(script.status.success(), "{files:?} {}", stderr(&script));
        for file in ["etc/passwd", "etc/group"] {
            let read = |place: &str| fs::read_to_string(root.join(place).join(file)).unwrap();
            assert_eq!(read("out"), read("script"), "{files:?}");
            assert_eq!(read("ids"), read("gives"), "{files:?}");
            assert_eq!(root.join("out").join(file).metadata().unwrap().mode() & 0o7777, 0o644);
        }
        assert_eq!(list(&root.join("out")), ["etc/group", "etc/passwd"]);
        assert!(root.join("out/app").is_dir());
    }
}

#[test]
fn the_user_s_own_lines_are_where_names_are_looked_up() {
    let files = [("etc/passwd", "rocheuser:x:8:9::/home:/bin/sh"), ("etc/group", "nine:x:9:")];
    let (_outer, root, output) = made(&files, "direct");
    assert!(output.status.success(), "{}", stderr(&output));
    let read = |file: &str| fs::read_to_string(root.join("ids/etc").join(file)).unwrap();
    assert_eq!((read("passwd"), read("group")), ("rocheuser:x:8:9::/home:/bin/sh\n".to_owned(), "rocheuser:x:9:\n".to_owned()));
}

#[test]
fn what_the_script_refuses_is_refused_in_the_same_words() {
    let full: String = (100..=999).map(|id| format!("u{id}:x:{id}:{id}::/:\n")).collect();
    let cases: [(&[(&str, &str)], &str); 6] = [
        (&[("etc", "->usr/etc"), ("usr/etc/x", "")], "direct"),
        (&[("app", "->/srv")], "direct"),
        (&[("etc/passwd", "->loop"), ("etc/loop", "->passwd")], "direct"),
        (&[("etc/passwd", &full)], "direct"),
        (&[("bin/x", "")], "script"),
        (&[("bin/sh", "->/nowhere")], "script"),
    ];
    for (files, entrypoint) in cases {
        let (_outer, root, output) = made(files, entrypoint);
        assert_eq!(output.status.code(), Some(1), "{files:?}");
        assert_eq!(stderr(&output), stderr(&scripted(&root, entrypoint)), "{files:?}");
    }
}

#[test]
fn folders_keep_the_image_s_mode() {
    let (_outer, root) = tree(&[("out/", ""), ("ids/", ""), ("runtime/app/", ""), ("runtime/etc/", "")]);
    fs::set_permissions(root.join("runtime/app"), fs::Permissions::from_mode(0o1700)).unwrap();
    assert!(rocheuser(&root, "direct").status.success());
    let mode = |place: &str| root.join("out").join(place).metadata().unwrap().mode() & 0o7777;
    assert_eq!((mode("app"), mode("etc")), (0o1700, 0o755));
}
