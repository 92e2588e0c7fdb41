//! What copy brings along, and where it puts it.

use roche_engine::op::{Copy, Edge, Mkdir, Mkfile, Owner};

use super::draft::Draft;
use super::{Scenario, fails, scenario, tree};

const DAY_NS: i64 = 1_700_000_000_000_000_000;

/// All of [`source`] in the folder `t`.
const ALL: &str = r#"d 0755 0:0 t
    f 0644 0:0 t/a.txt "a\n"
    f 0600 0:0 t/b.txt "b\n"
    d 0750 0:0 t/sub
    f 0755 0:0 t/sub/c "c\n"
    l 0:0 t/sub/up -> ../a.txt
    l 0:0 t/link -> sub"#;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "copy of a file keeps mode and content",
            |d| onto(d, None, |s| Copy::new(s, "/b.txt", "/x")),
            tree(r#"f 0600 0:0 x "b\n""#),
        ),
        scenario(
            "copy of a file to a path that ends in a slash puts it in the folder",
            |d| onto(d, Some("/dst"), |s| Copy::new(s, "/b.txt", "/dst/")),
            tree("d 0700 0:0 dst\n f 0600 0:0 dst/b.txt \"b\\n\""),
        ),
        scenario(
            "copy of a file to an existing folder puts it in the folder",
            |d| onto(d, Some("/dst"), |s| Copy::new(s, "/b.txt", "/dst")),
            tree("d 0700 0:0 dst\n f 0600 0:0 dst/b.txt \"b\\n\""),
        ),
        scenario(
            "copy of a folder to a new path gives it the new name",
            |d| onto(d, None, |s| Copy::new(s, "/sub", "/t")),
            tree("d 0750 0:0 t\n f 0755 0:0 t/c \"c\\n\"\n l 0:0 t/up -> ../a.txt"),
        ),
        scenario(
            "copy of a folder to an existing folder puts it in the folder",
            |d| onto(d, Some("/dst"), |s| Copy::new(s, "/sub", "/dst")),
            tree("d 0700 0:0 dst\n d 0750 0:0 dst/sub\n f 0755 0:0 dst/sub/c \"c\\n\"\n l 0:0 dst/sub/up -> ../a.txt"),
        ),
        scenario(
            "copy of a folder's content to an existing folder leaves the folder's mode",
            |d| onto(d, Some("/dst"), |s| Copy { contents_only: true, ..Copy::new(s, "/sub", "/dst") }),
            tree("d 0700 0:0 dst\n f 0755 0:0 dst/c \"c\\n\"\n l 0:0 dst/up -> ../a.txt"),
        ),
        scenario(
            "copy of the root's content takes everything",
            |d| onto(d, None, |s| Copy { contents_only: true, ..Copy::new(s, "/", "/t") }),
            tree(ALL),
        ),
        scenario(
            "copy without make_parents fails where a parent is missing",
            |d| onto(d, None, |s| Copy::new(s, "/b.txt", "/p/q/x")),
            fails(None, "p/q"),
        ),
        scenario(
            "copy with make_parents makes folders of mode 0755",
            |d| onto(d, None, |s| Copy { make_parents: true, ..Copy::new(s, "/b.txt", "/p/q/x") }),
            tree("d 0755 0:0 p\n d 0755 0:0 p/q\n f 0600 0:0 p/q/x \"b\\n\""),
        ),
        scenario("copy of what is missing fails", |d| onto(d, None, |s| Copy::new(s, "/missing", "/x")), fails(None, "missing")),
        scenario(
            "copy sets the mode of files and folders",
            |d| onto(d, None, |s| Copy { mode: Some(0o711), ..Copy::new(s, "/sub", "/t") }),
            tree("d 0711 0:0 t\n f 0711 0:0 t/c \"c\\n\"\n l 0:0 t/up -> ../a.txt"),
        ),
        scenario(
            "copy sets the owner by number, of links too",
            |d| onto(d, None, |s| Copy { owner: Some(Owner::ids(5, 6)), ..Copy::new(s, "/sub", "/t") }),
            tree("d 0750 5:6 t\n f 0755 5:6 t/c \"c\\n\"\n l 5:6 t/up -> ../a.txt"),
        ),
        scenario(
            "copy sets the owner by name, looked up in an image",
            |d| {
                let users = d.users();
                let source = source(d);
                let owner = Some(Owner::named("app", "app", users));
                d.file(None, [Copy { owner, ..Copy::new(source, "/b.txt", "/x") }.into()])
            },
            tree(r#"f 0600 1234:2345 x "b\n""#),
        ),
        scenario(
            "copy with make_parents gives parents the owner and the time to the copy alone",
            |d| {
                onto(d, None, |s| Copy {
                    make_parents: true,
                    owner: Some(Owner::ids(5, 6)),
                    timestamp_ns: Some(DAY_NS),
                    ..Copy::new(s, "/b.txt", "/p/x")
                })
            },
            tree("d 0755 5:6 p\n f 0600 5:6 p/x \"b\\n\" @1700000000"),
        ),
        scenario(
            "copy keeps owners where none is given",
            |d| {
                let owner = Some(Owner::ids(77, 78));
                let folder = Mkdir { owner: owner.clone(), ..Mkdir::new("/o", 0o755) };
                let file = Mkfile { owner, ..Mkfile::new("/o/f", 0o644, "x") };
                let base = d.file(None, [folder.into(), file.into()]);
                d.file(None, [Copy::new(base, "/o", "/p").into()])
            },
            tree("d 0755 77:78 p\n f 0644 77:78 p/f \"x\""),
        ),
        scenario(
            "copy keeps times where none is given",
            |d| {
                let file = Mkfile { timestamp_ns: Some(DAY_NS), ..Mkfile::new("/f", 0o644, "x") };
                let base = d.file(None, [file.into()]);
                d.file(None, [Copy::new(base, "/f", "/g").into()])
            },
            tree(r#"f 0644 0:0 g "x" @1700000000"#),
        ),
        scenario(
            "copy dates folders, files and links",
            |d| onto(d, None, |s| Copy { timestamp_ns: Some(DAY_NS), ..Copy::new(s, "/sub", "/t") }),
            tree("d 0750 0:0 t @1700000000\n f 0755 0:0 t/c \"c\\n\" @1700000000\n l 0:0 t/up -> ../a.txt @1700000000"),
        ),
        scenario(
            "copy over a file replaces content, mode and owner",
            |d| {
                let source = source(d);
                let old = Mkfile { owner: Some(Owner::ids(5, 6)), ..Mkfile::new("/x", 0o777, "a longer content") };
                d.file(None, [old.into(), Copy::new(source, "/b.txt", "/x").into()])
            },
            tree(r#"f 0600 0:0 x "b\n""#),
        ),
        scenario(
            "copy of a folder merges with what is there and leaves the folder's mode",
            |d| {
                let source = source(d);
                let kept = Mkfile::new("/sub/kept", 0o644, "kept");
                let actions = [
                    Mkdir::new("/sub", 0o700).into(),
                    kept.into(),
                    Mkfile::new("/sub/c", 0o644, "old").into(),
                    Copy::new(source, "/sub", "/").into(),
                ];
                d.file(None, actions)
            },
            tree("d 0700 0:0 sub\n f 0755 0:0 sub/c \"c\\n\"\n f 0644 0:0 sub/kept \"kept\"\n l 0:0 sub/up -> ../a.txt"),
        ),
        scenario(
            "copy keeps names of one file as names of one file",
            |d| {
                let base = d.script("mkdir /out/d; echo x >/out/d/one; ln /out/d/one /out/d/two");
                d.file(None, [Copy::new(base, "/d", "/e").into()])
            },
            tree("d 0755 0:0 e\n f 0644 0:0 e/one \"x\\n\"\n h e/two = e/one"),
        ),
        scenario(
            "copy of a file that has another name elsewhere is a file",
            |d| {
                let base = d.script("mkdir /out/d; echo x >/out/d/one; ln /out/d/one /out/other");
                d.file(None, [Copy::new(base, "/d", "/e").into()])
            },
            tree("d 0755 0:0 e\n f 0644 0:0 e/one \"x\\n\""),
        ),
        scenario(
            "copy keeps setuid, setgid and sticky bits and fifos",
            |d| {
                let base = d.script("cd /out; mkdir d; chmod 3777 d; echo x >d/s; chmod 6755 d/s; mkfifo -m 620 d/p");
                d.file(None, [Copy::new(base, "/d", "/e").into()])
            },
            tree("d 3777 0:0 e\n p 0620 0:0 e/p\n f 6755 0:0 e/s \"x\\n\""),
        )
        .own("docker20", "it leaves fifos out", tree("d 3777 0:0 e\n f 6755 0:0 e/s \"x\\n\"")),
        scenario(
            "copy reads an image's files",
            |d| {
                let image = d.busybox();
                d.file(None, [Copy::new(image, "/etc/passwd", "/etc/").into()])
            },
            tree("d 0755 0:0 etc\n f 0644 0:0 etc/passwd \"root:x:0:0:root:/root:/bin/sh\\n\""),
        ),
    ]
}

/// Copies from [`source`] onto scratch, where `folder` is made first.
pub(super) fn onto(d: &mut Draft, folder: Option<&str>, copy: fn(Edge) -> Copy) -> Edge {
    let source = source(d);
    match folder {
        Some(folder) => d.file(None, [Mkdir::new(folder, 0o700).into(), copy(source).into()]),
        None => d.file(None, [copy(source).into()]),
    }
}

/// Two files, a folder with a file and a link, and a link to the folder.
pub(super) fn source(d: &mut Draft) -> Edge {
    d.script(
        "cd /out; echo a >a.txt; echo b >b.txt; chmod 600 b.txt; mkdir -m 750 sub; echo c >sub/c; chmod 755 sub/c
        ln -s ../a.txt sub/up; ln -s sub link",
    )
}
