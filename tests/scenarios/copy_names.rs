//! How copy reads names: patterns, links, include and exclude.

use roche_engine::op::{Copy, Mkdir, Mkfile};

use super::copy::{onto, source};
use super::{Scenario, fails, scenario, tree};

const PATTERNS: &[&str] = &["file.copy.includeexcludepatterns"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "copy of a pattern takes what matches",
            |d| onto(d, None, |s| Copy { wildcard: true, ..Copy::new(s, "/*.txt", "/t/") }),
            tree("d 0755 0:0 t\n f 0644 0:0 t/a.txt \"a\\n\"\n f 0600 0:0 t/b.txt \"b\\n\""),
        ),
        scenario(
            "copy of a pattern in a folder takes what matches",
            |d| onto(d, None, |s| Copy { wildcard: true, ..Copy::new(s, "/s*/[a-c]", "/t/") }),
            tree("d 0755 0:0 t\n f 0755 0:0 t/c \"c\\n\""),
        ),
        scenario(
            "copy of a pattern that matches nothing fails",
            |d| onto(d, None, |s| Copy { wildcard: true, ..Copy::new(s, "/*.none", "/t/") }),
            fails(None, ".none"),
        ),
        scenario(
            "copy of a pattern that matches nothing may be allowed",
            |d| {
                onto(d, Some("/dst"), |s| Copy { wildcard: true, allow_empty_wildcard: true, ..Copy::new(s, "/*.none", "/dst/") })
            },
            tree("d 0700 0:0 dst"),
        ),
        scenario(
            "copy without wildcard takes a pattern as a name",
            |d| {
                let base = d.script("echo star >'/out/*'; echo a >/out/a");
                d.file(None, [Copy::new(base, "/*", "/x").into()])
            },
            tree(r#"f 0644 0:0 x "star\n""#),
        ),
        scenario("copy of a link copies the link", |d| onto(d, None, |s| Copy::new(s, "/link", "/x")), tree("l 0:0 x -> sub")),
        scenario(
            "copy with follow_symlink copies what the link points at",
            |d| onto(d, None, |s| Copy { follow_symlink: true, ..Copy::new(s, "/sub/up", "/x") }),
            tree(r#"f 0644 0:0 x "a\n""#),
        ),
        scenario(
            "copy with follow_symlink copies the folder that a link points at",
            |d| onto(d, None, |s| Copy { follow_symlink: true, ..Copy::new(s, "/link", "/x") }),
            tree("d 0750 0:0 x\n f 0755 0:0 x/c \"c\\n\"\n l 0:0 x/up -> ../a.txt"),
        ),
        scenario(
            "copy follows links in the folders of its source",
            |d| onto(d, None, |s| Copy::new(s, "/link/c", "/x")),
            tree(r#"f 0755 0:0 x "c\n""#),
        ),
        scenario(
            "a link out of the source stays in the source",
            |d| {
                let base = d.script("mkdir /out/etc; echo mine >/out/etc/hostname; ln -s ../../../../etc/hostname /out/link");
                d.file(None, [Copy { follow_symlink: true, ..Copy::new(base, "/link", "/x") }.into()])
            },
            tree(r#"f 0644 0:0 x "mine\n""#),
        ),
        scenario(
            "a path with dots stays in the source",
            |d| onto(d, None, |s| Copy::new(s, "/../../a.txt", "/x")),
            tree(r#"f 0644 0:0 x "a\n""#),
        ),
        scenario(
            "copy through a link to a folder follows it in the target",
            |d| {
                let source = source(d);
                let base = d.script("mkdir /out/real; ln -s real /out/link");
                d.file(Some(base), [Copy::new(source, "/a.txt", "/link/x").into()])
            },
            tree("l 0:0 link -> real\n d 0755 0:0 real\n f 0644 0:0 real/x \"a\\n\""),
        ),
        scenario(
            "copy through an absolute link stays in the target",
            |d| {
                let source = source(d);
                let base = d.script("mkdir /out/tmp; ln -s /tmp /out/link");
                d.file(Some(base), [Copy::new(source, "/a.txt", "/link/x").into()])
            },
            tree("l 0:0 link -> /tmp\n d 0755 0:0 tmp\n f 0644 0:0 tmp/x \"a\\n\""),
        ),
        scenario(
            "copy of a file onto a link writes what it points at",
            |d| {
                let source = source(d);
                let base = d.script("echo old >/out/real; ln -s real /out/link");
                d.file(Some(base), [Copy::new(source, "/b.txt", "/link").into()])
            },
            tree("f 0600 0:0 real \"b\\n\"\n l 0:0 link -> real"),
        ),
        scenario(
            "copy of a folder onto a file fails",
            |d| {
                let source = source(d);
                d.file(None, [Mkfile::new("/x", 0o644, "").into(), Copy::new(source, "/sub", "/x").into()])
            },
            fails(None, "x"),
        ),
        scenario(
            "copy of a folder over a file of the same name fails",
            |d| {
                let source = source(d);
                let file = Mkfile::new("/d/sub", 0o644, "");
                d.file(None, [Mkdir::new("/d", 0o755).into(), file.into(), Copy::new(source, "/sub", "/d").into()])
            },
            fails(None, "sub"),
        ),
        scenario(
            "copy with always_replace puts a folder in a file's place",
            |d| {
                let source = source(d);
                let copy = Copy { always_replace: true, ..Copy::new(source, "/sub", "/d") };
                d.file(None, [Mkdir::new("/d", 0o755).into(), Mkfile::new("/d/sub", 0o644, "").into(), copy.into()])
            },
            tree("d 0755 0:0 d\n d 0750 0:0 d/sub\n f 0755 0:0 d/sub/c \"c\\n\"\n l 0:0 d/sub/up -> ../a.txt"),
        )
        .needs(&["file.copy.alwaysreplaceexistingdestpaths"]),
        scenario(
            "copy reads a mode in chmod's words",
            |d| onto(d, None, |s| Copy { mode_text: "u=rw,go+x".to_owned(), ..Copy::new(s, "/a.txt", "/x") }),
            tree(r#"f 0655 0:0 x "a\n""#),
        )
        .needs(&["file.symlink.create"]),
        scenario(
            "copy of a folder with required paths that are there",
            |d| onto(d, None, |s| Copy { required: vec!["c".to_owned()], ..Copy::new(s, "/sub", "/t") }),
            tree("d 0750 0:0 t\n f 0755 0:0 t/c \"c\\n\"\n l 0:0 t/up -> ../a.txt"),
        )
        .needs(&["file.copy.requiredpaths"]),
        scenario(
            "copy of included patterns takes folders as far as they are needed",
            |d| onto(d, None, |s| Copy { include: vec!["sub/c".to_owned()], ..Copy::new(s, "/", "/t") }),
            tree("d 0755 0:0 t\n d 0750 0:0 t/sub\n f 0755 0:0 t/sub/c \"c\\n\""),
        )
        .needs(PATTERNS),
        scenario(
            "copy leaves out what is excluded",
            |d| onto(d, None, |s| Copy { exclude: vec!["*.txt".to_owned(), "sub/up".to_owned()], ..Copy::new(s, "/", "/t") }),
            tree("d 0755 0:0 t\n l 0:0 t/link -> sub\n d 0750 0:0 t/sub\n f 0755 0:0 t/sub/c \"c\\n\""),
        )
        .needs(PATTERNS),
        scenario(
            "copy takes back with an exclamation mark what is excluded",
            |d| onto(d, None, |s| Copy { exclude: vec!["**".to_owned(), "!**/c".to_owned()], ..Copy::new(s, "/", "/t") }),
            tree("d 0755 0:0 t\n d 0750 0:0 t/sub\n f 0755 0:0 t/sub/c \"c\\n\""),
        )
        .needs(PATTERNS),
    ]
}
