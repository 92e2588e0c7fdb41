//! Images that want to mislead or exhaust whoever looks into them: nothing of theirs reaches the terminal, and none takes more
//! than its limits.
//!
//! Red when: a name's control characters come through; a path is listed outside of the image; a layer that is damaged or no layer is
//! listed as if it were whole; a bomb goes off; a path that is no image is taken for one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;

use roche_engine::Digest;
use roche_engine::oci::{Compression, compress};
use serde_json::{Value, json};

use super::{DEAD, SECOND, Table, shell};
use crate::harness::{Ended, Roche, Tar, config, docker_archive, head, layout, list_of_crates, mebibytes, program, summed};

fn roche(dir: &Path) -> Roche {
    Roche::new(dir).env("DOCKER_HOST", DEAD).arg("contents")
}

/// Whether standard output holds something that a terminal obeys.
fn is_printable(ended: &Ended) -> bool {
    let odd = |c: char| {
        c.is_control() && c != '\n'
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    std::str::from_utf8(&ended.stdout).is_ok_and(|text| !text.chars().any(odd))
}

fn one(tar: Tar) -> Vec<Vec<u8>> {
    vec![tar.end()]
}

#[test]
fn names_of_files_are_escaped() {
    let mut table = Table::new("names in layers");
    let dir = tempfile::tempdir().unwrap();
    let names: [(&[u8], &str); 14] = [
        (b"\x1b[2Jcleared", r"/\u{1b}[2Jcleared"),
        (b"\x1b]0;title\x07", r"/\u{1b}]0;title\u{7}"),
        (b"\x1bP1$r\x1b\\", r"/\u{1b}P1$r\u{1b}\\"),
        (b"two\nlines", r"/two\nlines"),
        (b"over\rwritten", r"/over\rwritten"),
        (b"back\x08\x08", r"/back\u{8}\u{8}"),
        (b"tab\there", r"/tab\there"),
        (b"\x7fdelete", r"/\u{7f}delete"),
        (b"\xff\xfe", r"/\xff\xfe"),
        (b"\xc3", r"/\xc3"),
        ("\u{9b}31m".as_bytes(), r"/\u{9b}31m"),
        ("\u{202e}gpj.exe".as_bytes(), r"/\u{202e}gpj.exe"),
        ("zero\u{200b}width".as_bytes(), r"/zero\u{200b}width"),
        (b"back\\slash", r"/back\\slash"),
    ];
    for (name, shown) in names {
        let tar = Tar::default().file(name, "x").entry(b'2', b"link", 0o777, name, b"");
        docker_archive(&dir.path().join("a.tar"), &one(tar), json!({}));
        for flags in [&["-q"][..], &["--all"], &["--json"]] {
            let ended = roche(dir.path()).args(flags).arg("a.tar").run();
            let holds = if flags == ["--json"] { "\"findings\"" } else { shown };
            table.succeeds(name, flags[0], &ended, &[holds.as_bytes()], SECOND);
            table.rule(name, flags[0], &ended, is_printable(&ended), "standard output is not printable");
        }
    }
    table.end();
}

#[test]
fn texts_of_the_config_are_escaped() {
    let mut table = Table::new("texts in configs");
    let dir = tempfile::tempdir().unwrap();
    let hostile = "\u{1b}[2J\u{202e}\r\nx\u{7}";
    let configs = [
        ("user", json!({"config": {"User": hostile}})),
        ("workdir", json!({"config": {"WorkingDir": hostile}})),
        ("command", json!({"config": {"Cmd": [hostile], "Entrypoint": [hostile]}})),
        ("variable", json!({"config": {"Env": [format!("A{hostile}={hostile}"), hostile]}})),
        ("secret variable", json!({"config": {"Env": [format!("A{hostile}_PASSWORD={hostile}")]}})),
        ("label", json!({"config": {"Labels": {hostile: hostile}}})),
        ("port", json!({"config": {"ExposedPorts": {hostile: {}}, "Volumes": {hostile: {}}, "StopSignal": hostile}})),
        ("platform", json!({"os": hostile, "architecture": hostile, "variant": hostile})),
        ("history", json!({"history": [{"created_by": hostile}]})),
        ("wrong types", json!({"config": {"User": 1, "Env": "x", "Cmd": {}, "Labels": [], "ExposedPorts": 7}})),
    ];
    for (input, more) in configs {
        docker_archive(&dir.path().join("a.tar"), &one(Tar::default().file("f", "x")), more);
        docker_archive(&dir.path().join("b.tar"), &one(Tar::default().file("f", "x")), json!({}));
        for flags in [&["contents", "a.tar"][..], &["contents", "--json", "a.tar"], &["diff", "a.tar", "b.tar"]] {
            let ended = Roche::new(dir.path()).env("DOCKER_HOST", DEAD).args(flags).run();
            table.succeeds(input, &flags[..2].join(" "), &ended, &[], SECOND);
            table.rule(input, &flags[..2].join(" "), &ended, is_printable(&ended), "standard output is not printable");
        }
    }
    table.end();
}

/// A config that lists other layers than the image has.
fn wrong(more: Value) -> Value {
    json!({"rootfs": {"type": "layers", "diff_ids": [more]}})
}

#[test]
fn layers_that_are_none_are_refused() {
    let mut table = Table::new("hostile layers");
    let dir = tempfile::tempdir().unwrap();
    let file = || Tar::default().file("f", "x");
    let raw = |bytes: Vec<u8>| Tar(bytes);
    let long_path = ["n".repeat(200).as_str(); 30].join("/");
    let negative = {
        let mut head = head(b'0', b"f", 0o644, b"", 0);
        head[124] = 0xff;
        summed(head)
    };
    let huge = {
        let mut head = head(b'0', b"f", 0o644, b"", 0);
        head[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        summed(head)
    };
    let refused: Vec<(&str, Tar, i32)> = vec![
        ("../up", Tar::default().file("../up", "x"), 9),
        ("a/../../up", Tar::default().file("a/../../up", "x"), 9),
        ("no name", Tar::default().file("", "x"), 9),
        ("file as root", Tar::default().file("./", "x").file(".", "x"), 9),
        ("hard link to nowhere", file().hardlink("h", "missing"), 9),
        ("hard link out", file().hardlink("h", "../../etc/passwd"), 9),
        ("hard link to itself", file().hardlink("h", "h"), 9),
        ("hard link to a folder", Tar::default().folder("d").hardlink("h", "d"), 9),
        ("hard link to the root", file().hardlink("h", "/"), 9),
        ("link loop in a parent", Tar::default().symlink("a", b"b").symlink("b", b"a").file("a/x", "x"), 9),
        ("empty link", Tar::default().symlink("l", b""), 9),
        ("file as a parent", file().file("f/x", "x"), 9),
        ("whiteout of no name", file().file(".wh.", ""), 9),
        ("whiteout of ..", file().file("d/.wh...", ""), 9),
        ("folder named as a whiteout", Tar::default().file(".wh.d/x", "x"), 9),
        ("name of 256 bytes", Tar::default().file("n".repeat(256), "x"), 9),
        ("path of 6000 bytes", Tar::default().file(&long_path, "x"), 9),
        ("unknown type", Tar::default().entry(b'Z', b"z", 0o644, b"", b""), 9),
        (
            "impossible device",
            {
                let mut head = head(b'3', b"dev", 0o644, b"", 0);
                head[329..337].copy_from_slice(b"7777777\0");
                raw(summed(head))
            },
            9,
        ),
        ("negative size", raw(negative), 9),
        ("size past the end of time", raw(huge), 10),
        (
            "wrong checksum",
            {
                let mut tar = file();
                tar.0[0] ^= 1;
                tar
            },
            9,
        ),
        (
            "cut in a file",
            {
                let mut tar = Tar::default().file("f", &"x".repeat(2000));
                tar.0.truncate(1000);
                tar
            },
            9,
        ),
        ("pax record cut", Tar::default().entry(b'x', b"p", 0o644, b"", b"99 path=x\n").file("f", "x"), 9),
        ("pax with NUL in a path", Tar::default().pax(&[(b"path", b"a\0b")]).file("f", "x"), 9),
        ("pax size of no number", Tar::default().pax(&[(b"size", b"many")]).file("f", "x"), 9),
        ("pax owner of 2^40", Tar::default().pax(&[(b"uid", b"1099511627776")]).file("f", "x"), 9),
        ("pax of 2 MiB", Tar::default().pax(&[(b"comment", &vec![b'x'; 2 << 20])]).file("f", "x"), 10),
        ("2000 folders in each other", Tar::default().file(["d"; 2000].join("/"), "x"), 10),
        (
            "sparse file of 1 PiB",
            Tar::default()
                .pax(&[
                    (b"GNU.sparse.major", b"0"),
                    (b"GNU.sparse.minor", b"1"),
                    (b"GNU.sparse.size", b"1125899906842624"),
                    (b"GNU.sparse.map", b"0,1"),
                ])
                .file("f", "x"),
            10,
        ),
        (
            "sparse map that overlaps",
            Tar::default().pax(&[(b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,1,0,1")]).file("f", "xx"),
            9,
        ),
        ("noise", raw(vec![0xa5; 4096]), 9),
        ("text", raw(b"no archive".repeat(100)), 9),
    ];
    for (input, tar, code) in refused {
        // Cut ones get no end, which would complete them.
        let bytes = if input.starts_with("cut") { tar.0 } else { tar.end() };
        docker_archive(&dir.path().join("a.tar"), &[bytes], json!({}));
        let ended = roche(dir.path()).arg("a.tar").run();
        table.fails(input, "layer", &ended, &[code], &["layer 1 of 1"], SECOND);
    }
    table.end();
}

#[test]
fn lists_of_crates_that_lie_are_refused_and_the_rest_is_shown() {
    let mut table = Table::new("hostile lists of crates");
    let dir = tempfile::tempdir().unwrap();
    let package = |name: &str| json!({"name": name, "version": "1.0.0\u{1b}[2J", "source": "x"});
    let many = |count: usize| list_of_crates(&json!({"packages": vec![package("a"); count]}));
    let zeros = {
        let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        (0..64).for_each(|_| packed.write_all(&[b' '; 1 << 20]).unwrap());
        packed.finish().unwrap()
    };
    let whole = list_of_crates(&json!({"packages": [package("a")]}));
    let refused: Vec<(&str, Vec<u8>, &str)> = vec![
        ("64 MiB of spaces", zeros, "more than 4194304 bytes"),
        ("1,000,000 packages", many(1_000_000), "more than 4194304 bytes"),
        (
            "20,001 packages",
            list_of_crates(&json!({"packages": vec![json!({"name": "", "version": "", "source": ""}); 20_001]})),
            "more than 20000 packages",
        ),
        ("no zlib", b"PK\x03\x04".to_vec(), "malformed"),
        ("zlib cut short", whole[..whole.len() / 2].to_vec(), "malformed"),
        ("no JSON", list_of_crates(&json!("a")), "malformed"),
        ("other JSON", list_of_crates(&json!({"packages": {"a": 1}})), "malformed"),
        (
            "a package that is not there",
            list_of_crates(&json!({"packages": [{"name": "a", "version": "1", "source": "x", "dependencies": [7]}]})),
            "malformed",
        ),
        ("nested without end", list_of_crates(&json!({"packages": [], "x": "["})), "crates in"),
    ];
    for (input, section, said) in refused {
        let tar = Tar::default().entry(b'0', b"bin/x", 0o755, b"", &program(&section)).file("f", "x");
        docker_archive(&dir.path().join("a.tar"), &one(tar), json!({}));
        for (flags, word) in [(&["--all"][..], said), (&["--json"], if said == "crates in" { "packages" } else { said })] {
            let ended = roche(dir.path()).args(flags).arg("a.tar").run();
            // Lines are wrapped, and a list that is empty is one.
            let flat = ended.stdout_text().split_whitespace().collect::<Vec<_>>().join(" ");
            table.rule(input, flags[0], &ended, flat.contains(word), "the reason is not said");
            table.succeeds(input, flags[0], &ended, &[b"/f"], SECOND);
            table.rule(input, flags[0], &ended, is_printable(&ended), "standard output is not printable");
            table.rule(input, flags[0], &ended, ended.peak_memory_bytes < mebibytes(128), "it takes 128 MiB");
        }
    }
    // What is no program with a list says nothing.
    let silent: Vec<(&str, Vec<u8>)> = vec![
        ("an empty section", program(b"")),
        ("ELF and nothing else", b"\x7fELF".to_vec()),
        ("ELF of ones", [b"\x7fELF\x02\x01".as_slice(), &[0xff; 4096]].concat()),
        ("a program cut short", program(&whole)[..100].to_vec()),
    ];
    for (input, bytes) in silent {
        docker_archive(&dir.path().join("a.tar"), &one(Tar::default().entry(b'0', b"x", 0o755, b"", &bytes)), json!({}));
        let ended = roche(dir.path()).arg("a.tar").run();
        table.succeeds(input, "text", &ended, &[b"/x"], SECOND);
        table.rule(input, "text", &ended, !ended.stdout_text().contains("crates"), "a list is shown");
    }
    let names = list_of_crates(&json!({"packages": [package("\u{1b}]0;title\u{7}\u{202e}"), package(&"n".repeat(5000))]}));
    docker_archive(&dir.path().join("a.tar"), &one(Tar::default().entry(b'0', b"x", 0o755, b"", &program(&names))), json!({}));
    docker_archive(&dir.path().join("b.tar"), &one(Tar::default()), json!({}));
    for line in [
        &["contents", "--all", "a.tar"][..],
        &["contents", "--json", "a.tar"],
        &["diff", "--all", "a.tar", "b.tar"],
        &["diff", "--json", "a.tar", "b.tar"],
    ] {
        let ended = Roche::new(dir.path()).env("DOCKER_HOST", DEAD).args(line).run();
        table.succeeds("hostile names", &line[..2].join(" "), &ended, &[b"1.0.0"], SECOND);
        table.rule("hostile names", &line[..2].join(" "), &ended, is_printable(&ended), "standard output is not printable");
    }
    table.end();
}

#[test]
fn what_is_odd_stays_inside() {
    let mut table = Table::new("odd layers");
    let dir = tempfile::tempdir().unwrap();
    let contained: Vec<(&str, Vec<Vec<u8>>, &str)> = vec![
        ("absolute name", one(Tar::default().file("/etc/x", "x")), "/etc\n/etc/x\n"),
        (".. inside", one(Tar::default().file("a/../b", "x")), "/b\n"),
        ("link out, and a file behind it", one(Tar::default().symlink("l", b"../../..").file("l/x", "x")), "/l\n/x\n"),
        ("absolute link, and a file behind it", one(Tar::default().symlink("l", b"/etc").file("l/x", "x")), "/etc\n/etc/x\n/l\n"),
        ("device 0:0", one(Tar::default().file("f", "x").entry(b'3', b"null", 0o666, b"", b"")), "/f\n"),
        ("pipe", one(Tar::default().entry(b'6', b"p", 0o644, b"", b"")), "/p\n"),
        ("twice the same", one(Tar::default().file("f", "x").file("f", "yy")), "/f\n"),
        ("whiteout of what is not there", one(Tar::default().file(".wh.nothing", "").file("f", "x")), "/f\n"),
        ("whiteout of its own file", one(Tar::default().file("f", "x").file(".wh.f", "")), "/f\n"),
        (
            "opaque root",
            vec![Tar::default().file("old", "x").end(), Tar::default().file(".wh..wh..opq", "").file("new", "x").end()],
            "/new\n",
        ),
        ("AUFS' own files", one(Tar::default().folder(".wh..wh.plnk").file(".wh..wh.aufs", "").file("f", "x")), "/f\n"),
        ("no entry", one(Tar::default()), ""),
        ("no layer", vec![], ""),
    ];
    for (input, layers, expected) in contained {
        docker_archive(&dir.path().join("a.tar"), &layers, json!({}));
        let ended = roche(dir.path()).args(["-q", "a.tar"]).run();
        table.succeeds(input, "layer", &ended, &[], SECOND);
        table.rule(input, "layer", &ended, ended.stdout_text() == expected, "it lists something else");
        for flags in [&["--all"][..], &["--json"], &["--layer", "1"]] {
            let ended = roche(dir.path()).args(flags).arg("a.tar").run();
            let code = if layers.is_empty() && flags[0] == "--layer" { 2 } else { 0 };
            table.rule(input, flags[0], &ended, ended.status.code() == Some(code), "it is not listed");
        }
    }
    table.end();
}

#[test]
fn archives_and_layouts_that_lie_are_refused() {
    let mut table = Table::new("hostile archives");
    let dir = tempfile::tempdir().unwrap();
    let layer = Tar::default().file("f", "x").end();
    let good = config(std::slice::from_ref(&layer), json!({})).to_string();
    let name = format!("{}.json", Digest::of(good.as_bytes()).hex());
    let list = |config: &str, layers: Value| json!([{"Config": config, "RepoTags": null, "Layers": layers}]).to_string();
    let archive = |list: &str| {
        Tar::default().file(&name, &good).entry(b'0', b"l.tar", 0o644, b"", &layer).file("manifest.json", list).end()
    };
    let other = Digest::of(b"other").to_string();
    let archives: Vec<(&str, Vec<u8>, &[i32])> = vec![
        ("empty file", vec![], &[9]),
        ("zeros", vec![0; 10240], &[9]),
        ("text", b"hello\n".repeat(200), &[9]),
        (
            "gzip",
            {
                let mut bytes = vec![0x1f, 0x8b, 8];
                bytes.resize(1024, 0);
                bytes
            },
            &[9],
        ),
        ("a tar of something", Tar::default().file("f", "x").end(), &[9]),
        ("manifest.json is no JSON", archive("{"), &[9]),
        ("manifest.json is an object", archive("{}"), &[9]),
        ("no image in it", archive("[]"), &[9]),
        ("two images in it", archive(&format!("[{0},{0}]", list(&name, json!(["l.tar"])).trim_matches(['[', ']']))), &[9]),
        ("config is missing", archive(&list("none.json", json!(["l.tar"]))), &[9]),
        ("config is another", archive(&list(&format!("{}.json", Digest::of(b"other").hex()), json!(["l.tar"]))), &[9]),
        ("config leads out", archive(&list("../../../etc/passwd", json!(["l.tar"]))), &[9]),
        ("layer is missing", archive(&list(&name, json!(["none.tar"]))), &[9]),
        ("layer leads out", archive(&list(&name, json!(["/etc/passwd"]))), &[9]),
        ("too few layers", archive(&list(&name, json!([]))), &[9]),
        ("too many layers", archive(&list(&name, json!(["l.tar", "l.tar"]))), &[9]),
        (
            "a layer's link leads out",
            Tar::default()
                .file(&name, &good)
                .symlink("l.tar", b"../../../../../../etc/passwd")
                .file("manifest.json", &list(&name, json!(["l.tar"])))
                .end(),
            &[9],
        ),
        ("manifest.json of 5 MiB", archive(&" ".repeat(5 << 20)), &[10]),
    ];
    for (input, bytes, codes) in archives {
        fs::write(dir.path().join("a.tar"), bytes).unwrap();
        let ended = roche(dir.path()).arg("a.tar").run();
        table.fails(input, "archive", &ended, codes, &["a.tar"], SECOND);
    }
    docker_archive(&dir.path().join("a.tar"), std::slice::from_ref(&layer), wrong(json!(other)));
    table.fails("diff id of another layer", "archive", &roche(dir.path()).arg("a.tar").run(), &[9], &["was expected"], SECOND);
    docker_archive(&dir.path().join("a.tar"), std::slice::from_ref(&layer), wrong(json!("sha256:0")));
    table.fails("diff id is none", "archive", &roche(dir.path()).arg("a.tar").run(), &[9], &["malformed"], SECOND);

    let digest = Digest::of(&layer);
    let blob = move |dir: &Path| dir.join("l/blobs/sha256").join(digest.hex());
    type Break = Box<dyn Fn(&Path)>;
    let breaks: Vec<(&str, Break, &[i32])> = vec![
        ("blob is missing", Box::new(move |dir| fs::remove_file(blob(dir)).unwrap()), &[9]),
        ("blob is another", Box::new(move |dir| fs::write(blob(dir), vec![b'x'; 2048]).unwrap()), &[9]),
        (
            "blob is cut",
            Box::new(move |dir| fs::File::options().write(true).open(blob(dir)).unwrap().set_len(700).unwrap()),
            &[9],
        ),
        (
            "blob is longer",
            Box::new(move |dir| fs::File::options().append(true).open(blob(dir)).unwrap().write_all(&[0; 512]).unwrap()),
            &[9],
        ),
        (
            "blob is a folder",
            Box::new(move |dir| {
                fs::remove_file(blob(dir)).unwrap();
                fs::create_dir(blob(dir)).unwrap();
            }),
            &[9],
        ),
        (
            "blob is a pipe",
            Box::new(move |dir| {
                fs::remove_file(blob(dir)).unwrap();
                shell(dir, &format!("mkfifo {}", blob(dir).display()));
            }),
            &[9],
        ),
        ("index is missing", Box::new(|dir| fs::remove_file(dir.join("l/index.json")).unwrap()), &[2, 9]),
        ("index is no JSON", Box::new(|dir| fs::write(dir.join("l/index.json"), "{").unwrap()), &[9]),
        (
            "index is empty",
            Box::new(|dir| fs::write(dir.join("l/index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).unwrap()),
            &[9],
        ),
        ("version 2", Box::new(|dir| fs::write(dir.join("l/oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap()), &[9]),
    ];
    for (input, change, codes) in breaks {
        let _ = fs::remove_dir_all(dir.path().join("l"));
        layout(&dir.path().join("l"), std::slice::from_ref(&layer), None, json!({}));
        change(dir.path());
        table.fails(input, "layout", &roche(dir.path()).arg("l").run(), codes, &[], SECOND);
    }
    table.end();
}

#[test]
fn bombs_do_not_go_off() {
    let mut table = Table::new("bombs");
    let dir = tempfile::tempdir().unwrap();
    // More than 1 GiB of zeros in less than 1 MiB.
    let size = (1 << 30) + (64 << 20);
    let tar = head(b'0', b"zeros", 0o644, b"", size);
    let mut packed = Vec::new();
    compress((&tar[..]).chain(std::io::repeat(0).take(size)), &mut packed, Compression::Zstd, NonZeroUsize::MIN).unwrap();
    assert!(packed.len() < 1 << 20);
    layout(&dir.path().join("l"), &[b"any".to_vec()], Some(&[packed]), json!({}));
    let ended = roche(dir.path()).arg("l").run();
    table.fails("zstd of zeros", "time", &ended, &[10], &["layer 1 of 1", "2000 times"], SECOND * 5);
    let peak = ended.peak_memory_bytes;
    table.rule("zstd of zeros", "memory", &ended, peak <= mebibytes(160), &format!("it took {peak} bytes"));
    table.end();
}

#[test]
fn paths_and_names_that_are_no_image() {
    let mut table = Table::new("what is no image");
    let dir = tempfile::tempdir().unwrap();
    shell(dir.path(), "mkdir folder; mkfifo pipe.tar; ln -s loop.tar loop.tar; : > secret.tar; chmod 0 secret.tar");
    for (input, codes) in [
        ("./missing", &[2][..]),
        ("/nonexistent/image.tar", &[2]),
        ("missing.tar", &[2]),
        ("oci-layout://missing", &[2]),
        ("oci-layout://", &[2, 9]),
        ("./folder", &[2, 9]),
        ("pipe.tar", &[2, 9]),
        ("loop.tar", &[2]),
        ("/dev/null", &[2, 9]),
        ("/dev/zero", &[2, 9]),
        ("", &[2]),
        ("x/UPPER", &[2]),
        ("a b", &[2]),
        ("a:\u{1b}[2J", &[2]),
        ("a@sha256:0", &[2]),
        ("-x", &[2]),
    ] {
        let ended = roche(dir.path()).args(["--", input]).run();
        table.fails(input, "contents", &ended, codes, &[], SECOND);
        let ended = Roche::new(dir.path()).env("DOCKER_HOST", DEAD).args(["diff", "--", input, input]).run();
        table.fails(input, "diff", &ended, codes, &[], SECOND);
    }
    let ended = roche(dir.path()).arg("named:1").run();
    table.fails("a daemon that is not there", "DOCKER_HOST", &ended, &[5], &["/nonexistent/docker.sock"], SECOND);
    docker_archive(&dir.path().join("a.tar"), &one(Tar::default().file("f", "x")), json!({}));
    for flags in [
        &["--layer", "0"][..],
        &["--layer", "2"],
        &["--layer", "-1"],
        &["--depth", "x"],
        &["--platform", "x"],
        &["--json", "-q"],
        &["--all", "--depth", "2"],
    ] {
        let ended = roche(dir.path()).args(flags).arg("a.tar").run();
        table.fails(flags.join(" "), "flags", &ended, &[2], &[], SECOND);
    }
    table.end();
}
