//! What a function file may hold: every byte is kept, or it is refused with 10.
//!
//! Red when: text is decoded, trimmed or given other line ends on its way into the definition; a
//! file that is too large is read to its end, or cut.

use std::fs::File;

use super::{SECOND, Table, plan, roche};
use crate::harness::{Daemon, Project, Roche, mebibytes, on_docker26};

/// The most that a function file may hold, in bytes.
const LIMIT: u64 = 4 << 20;

#[test]
fn every_byte_is_kept() {
    let mut table = Table::new("contents");
    let every: Vec<u8> = (0..=255).collect();
    let rows: &[(&str, &[u8])] = &[
        ("a byte order mark", b"\xef\xbb\xbffn marked() {}\n"),
        ("CRLF", b"fn a() {}\r\n\r\nfn b() {}\r\n"),
        ("CR alone", b"fn a() {}\rfn b() {}\r"),
        ("NUL", b"// a\0b\0\0\n"),
        ("not UTF-8", b"// \xff\xfe\xc3\x28\n"),
        ("no line end", b"fn last() {}"),
        ("line ends alone", b"\n\n\n\n"),
        ("spaces at the end", b"fn a() {}   \n\t\t\n  "),
        ("escapes", b"// \x1b[31m\x1b]0;x\x07\n"),
        ("bidi", "// \u{202e}\u{2066}\n".as_bytes()),
        ("template words", b"// {{.ID}} $(id) ${HOME} `id` %s\n"),
        ("a shell's here-document end", b"EOF\nid\n'\"\\\n"),
        ("every byte", &every),
        ("UTF-16", b"\xff\xfef\0n\0 \0a\0(\0)\0{\0}\0\n\0"),
    ];
    for (what, content) in rows {
        for place in ["functions.rs", "src/functions.rs", "lib.rs"] {
            let project = Project::empty().file("functions.rs", "fn first() {}\n");
            if place == "src/functions.rs" {
                std::fs::remove_file(project.path("functions.rs")).unwrap();
            }
            project.write(place, content);
            table.succeeds(what, place, &plan(project.root(), "llb").run(), &[content], SECOND);
        }
    }
    let large = Project::function("x") + &"// 64 bytes of a comment, which a large function file has many\n".repeat(60_000);
    assert!((large.len() as u64) < LIMIT);
    let ended = plan(Project::empty().file("functions.rs", &large).root(), "llb").run();
    table.rule(
        "just below the limit",
        "functions.rs",
        &ended,
        super::contains(&ended.stdout, large.as_bytes()),
        "bytes were lost",
    );
    table.end();
}

#[test]
fn what_is_too_large_gives_10() {
    let mut table = Table::new("sizes");
    for (what, size) in [("the limit and a byte", LIMIT + 1), ("100 MB", 100_000_000), ("a sparse TiB", 1 << 40)] {
        for place in ["functions.rs", "src/functions.rs", "lib.rs"] {
            let project = sized(place, size);
            for (how, call) in
                [("plan", plan(project.root(), "llb")), ("release", roche(project.root()).args(["release", "-t", "x:1"]))]
            {
                let ended = call.run();
                let channel = format!("{place}, {how}");
                table.fails(what, &channel, &ended, &[10], &[place], SECOND);
                table.rule(what, &channel, &ended, ended.peak_memory_bytes < mebibytes(64), "took more than 64 MiB");
            }
        }
    }
    table.end();
}

on_docker26!(what_is_too_large_is_refused_before_it_is_sent);
fn what_is_too_large_is_refused_before_it_is_sent(daemon: &Daemon) {
    let project = sized("functions.rs", LIMIT + 1);
    let tag = daemon.tag();
    Roche::release(daemon, project.root()).tag(&tag).run().fails(10, &["functions.rs"]);
    assert!(!daemon.has_image(&tag.name), "there is an image all the same");
}

/// A project with a sparse file of so many bytes.
fn sized(place: &str, size_bytes: u64) -> Project {
    let project = Project::empty().file(place, "");
    if place == "lib.rs" {
        project.write("functions.rs", Project::function("x"));
    }
    File::options().write(true).open(project.path(place)).unwrap().set_len(size_bytes).unwrap();
    project
}
