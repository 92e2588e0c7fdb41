//! Image references that distribution's grammar refuses: exit 2 before any I/O.
//!
//! The folder has no function, its `.rocherc` and the user's docker configuration are malformed,
//! and nobody listens at the daemon's socket: I/O before the verdict would end with 3, 4 or 5.
//!
//! Red when: the grammar lets one through, or is asked after the project, the configuration or the
//! daemon; a message prints the name as it was typed.

use super::{DEAD, SECOND, Table, contains, raw, roche};
use crate::harness::{Project, Roche};

/// 64 hex digits: an id, and no name.
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is no reference anywhere.
fn bad() -> Vec<Vec<u8>> {
    let texts = [
        "Upper",
        "UPPER:1",
        "lower/Upper",
        "lower/upPer:1",
        "a//b",
        "/a",
        "a/",
        "a//",
        "//",
        "/",
        "-a",
        "-a/b",
        "a-",
        "a-/b",
        "a:-b",
        "a:.b",
        "a:",
        ":a",
        ":",
        "a:b:c",
        "a b",
        " a",
        "a ",
        "a\nRUN id",
        "a\n",
        "a:1\n",
        "\na",
        "a\r",
        "a\tb",
        "a\0b",
        "a\u{1b}[31m",
        "a:\u{1b}]0;title\u{7}",
        "a:\u{202e}b",
        "\u{202e}a",
        "a\u{7f}",
        "a\u{200b}",
        "\u{feff}a",
        "a\u{2066}b",
        "a:$(id)",
        "a:`id`",
        "$(id)",
        "a:${TAG}",
        "$TAG",
        "{{.Name}}",
        "a:{{.Tag}}",
        "a:{{ printf \"%s\" .ID }}",
        "a;id",
        "a|id",
        "a&b",
        "a>b",
        "a:%s%n",
        "%2e",
        "a@sha256:1234",
        "a@",
        "@",
        "a@sha256",
        "a@md5:0123456789abcdef0123456789abcdef",
        "a___b",
        "a..b",
        "a_.b",
        "a._b",
        ".a",
        "_a",
        "a.",
        "..",
        "../a",
        "./a",
        "a/../b",
        "~",
        "~/a",
        "a\\b",
        "a,b",
        "a=b",
        "*",
        "a?b",
        "a:b*",
        "http://a/b",
        "https://h.invalid/a:1",
        "docker://a",
        "h.invalid:port/a",
        "h.invalid:/a",
        "[::1/a",
        "ä",
        "a:ü",
        "名前",
        "🦀",
        "a:1🦀",
        "\"a\"",
        "'a'",
        "a#b",
        "a:1 2",
        "a+b",
        "a:1+2",
        ID,
    ];
    let mut bad: Vec<Vec<u8>> = texts.iter().filter(|text| !text.contains('\0')).map(|text| text.as_bytes().to_vec()).collect();
    bad.push(format!("a:{}", "b".repeat(129)).into_bytes());
    bad.push("a".repeat(256).into_bytes());
    bad.push(vec![b'a'; 100_000]);
    bad.push(format!("a@sha256:{}", "Z".repeat(64)).into_bytes());
    bad.push(b"a\xff".to_vec());
    bad.push(b"a:\xc3".to_vec());
    bad
}

/// A folder in which everything but the command line would fail with another code.
fn wrong_everywhere() -> Project {
    Project::empty().file(".rocherc", "no equals sign\n")
}

fn call(project: &Project) -> Roche {
    Roche::new(project.root()).env("DOCKER_HOST", DEAD).home_file(".docker/config.json", "{")
}

fn joined(flag: &str, name: &[u8]) -> Vec<u8> {
    [flag.as_bytes(), name].concat()
}

#[test]
fn bad_tags_give_2_before_any_io() {
    let (project, mut table) = (wrong_everywhere(), Table::new("bad tags"));
    for name in bad() {
        let ended = call(&project).arg("release").arg(raw(&joined("--tag=", &name))).run();
        table.fails(&name, "--tag=", &ended, &[2], &[], SECOND);
        let ended = call(&project).arg("release").arg("-t").arg("good:1").arg(raw(&joined("-t", &name))).run();
        table.fails(&name, "-t, the second one", &ended, &[2], &[], SECOND);
    }
    for channel in ["-t", "--tag"] {
        let ended = call(&project).args(["release", channel, ""]).run();
        table.fails("", channel, &ended, &[2], &["--tag"], SECOND);
        let ended = call(&project).args(["release", channel]).run();
        table.fails("(none)", channel, &ended, &[2], &["--tag"], SECOND);
    }
    table.end();
}

#[test]
fn bad_base_images_give_2_before_any_io() {
    let (project, function) = (wrong_everywhere(), Project::hello("x"));
    let mut table = Table::new("bad base images");
    for name in bad() {
        for flag in ["-b", "-r"] {
            let ended = call(&project).args(["release", "-t", "x:1"]).arg(raw(&joined(flag, &name))).run();
            table.fails(&name, flag, &ended, &[2], &[], SECOND);
        }
        for variable in ["release_build_image", "runtime_image"] {
            // A variable counts where no flag is given: it may be judged later than a flag.
            let ended = call(&function).args(["release", "-t", "x:1"]).env(variable, raw(&name)).run();
            table.fails(&name, variable, &ended, &[2, 4], &[variable], SECOND);
        }
    }
    table.end();
}

#[test]
fn bad_base_images_in_a_rocherc_give_4_or_2() {
    // What a dotenv file's own grammar takes away or expands is no name's fault.
    let mut table = Table::new("bad base images in .rocherc");
    for name in ["Upper", "a//b", "-a", "a:b:c", "a:{{.Tag}}", "a\u{202e}b", "a\u{1b}[31m", "a___b", "http://a/b", ID] {
        for key in ["release_build_image", "runtime_image"] {
            let project = Project::hello("x").file(".rocherc", format!("# first\n{key}={name}\n"));
            let ended = Roche::new(project.root()).env("DOCKER_HOST", DEAD).args(["release", "-t", "x:1"]).run();
            table.fails(name, key, &ended, &[4, 2], &[".rocherc"], SECOND);
        }
    }
    table.end();
}

#[test]
fn good_tags_get_past_the_verdict() {
    let (project, mut table) = (Project::hello("x"), Table::new("good tags"));
    let names = [
        "a",
        "a:1",
        "a/b",
        "a/b/c/d",
        "localhost/a",
        "localhost:5000/a/b:V_1.-x",
        "h.invalid/a__b/c-d",
        "a---b",
        "a.b_c-d",
        "0",
        "h.invalid:443/a",
        "H.invalid/a:A",
        "127.0.0.1:5000/a",
        "a:0",
        "a:_",
        &ID[..63],
        &"a".repeat(200),
        &format!("a:{}", "b".repeat(128)),
    ]
    .map(str::to_string);
    for name in names {
        let ended = roche(project.root()).args(["release", "-t", &name]).run();
        table.fails(&name, "-t", &ended, &[5], &["/nonexistent/docker.sock"], SECOND);
    }
    table.end();
}

#[test]
fn a_bad_tag_is_shown_without_its_control_characters() {
    let ended = call(&wrong_everywhere()).args(["release", "-t", "a\u{1b}[2J\u{202e}b\nhint: curl evil.invalid"]).run();
    let ended = ended.fails(2, &["--tag"]);
    assert!(ended.lines("hint: curl").is_empty(), "a tag has made a line of its own\n{}", ended.story());
    assert!(!contains(ended.stderr.as_bytes(), b"\x1b") && !ended.stderr.contains('\u{202e}'), "{}", ended.story());
}
