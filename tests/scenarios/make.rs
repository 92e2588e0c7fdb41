//! Folders, files and links that file actions make.

use roche_engine::op::{Mkdir, Mkfile, Owner, Symlink, User};

use super::{Scenario, fails, scenario, tree};

const DAY: i64 = 1_700_000_000;
const DAY_NS: i64 = DAY * 1_000_000_000;
const UMASK: &str = "dockerd has the umask 022, and its BuildKit takes that off";
const SYMLINK: &[&str] = &["file.symlink.create"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("mkdir makes a folder with its mode", |d| d.file(None, [Mkdir::new("/a", 0o751).into()]), tree("d 0751 0:0 a")),
        scenario("mkdir takes permission bits alone", |d| d.file(None, [Mkdir::new("/a", 0o7755).into()]), tree("d 0755 0:0 a")),
        scenario(
            "mkdir and mkfile let everybody write where they are told to",
            |d| d.file(None, [Mkdir::new("/a", 0o777).into(), Mkfile::new("/b", 0o666, "").into()]),
            tree("d 0777 0:0 a\n f 0666 0:0 b \"\""),
        )
        .own("docker20", UMASK, tree("d 0755 0:0 a\n f 0644 0:0 b \"\""))
        .own("docker26", UMASK, tree("d 0755 0:0 a\n f 0644 0:0 b \"\"")),
        scenario(
            "mkdir makes parents with the same mode",
            |d| d.file(None, [Mkdir { make_parents: true, ..Mkdir::new("/a/b/c", 0o700) }.into()]),
            tree("d 0700 0:0 a\n d 0700 0:0 a/b\n d 0700 0:0 a/b/c"),
        ),
        scenario("mkdir without a parent fails", |d| d.file(None, [Mkdir::new("/a/b", 0o755).into()]), fails(None, "a/b")),
        scenario(
            "mkdir leaves an existing folder as it is",
            |d| d.file(None, [Mkdir::new("/a", 0o755).into(), Mkdir::new("/a", 0o700).into()]),
            tree("d 0755 0:0 a"),
        ),
        scenario(
            "mkdir with make_parents leaves an existing folder as it is",
            |d| {
                let again = Mkdir { make_parents: true, owner: Some(Owner::ids(7, 8)), ..Mkdir::new("/a", 0o700) };
                d.file(None, [Mkdir::new("/a", 0o751).into(), again.into()])
            },
            tree("d 0751 0:0 a"),
        ),
        scenario(
            "mkdir over a file fails",
            |d| {
                let folder = Mkdir { make_parents: true, ..Mkdir::new("/a", 0o755) };
                d.file(None, [Mkfile::new("/a", 0o644, "").into(), folder.into()])
            },
            fails(None, "a"),
        ),
        scenario(
            "mkdir gives parents the owner and the time to the last alone",
            |d| {
                let owner = Some(Owner::ids(1234, 2345));
                let folder = Mkdir { make_parents: true, owner, timestamp_ns: Some(DAY_NS), ..Mkdir::new("/a/b", 0o755) };
                d.file(None, [folder.into()])
            },
            tree("d 0755 1234:2345 a\n d 0755 1234:2345 a/b @1700000000"),
        ),
        scenario(
            "mkdir follows a link to a folder in its path",
            |d| {
                let base = d.script("mkdir /out/real; ln -s real /out/link");
                d.file(Some(base), [Mkdir::new("/link/a", 0o755).into()])
            },
            tree("d 0755 0:0 real\n d 0755 0:0 real/a\n l 0:0 link -> real"),
        ),
        scenario(
            "an owner is looked up by name in an image",
            |d| {
                let users = d.users();
                let owner = Some(Owner::named("app", "staff", users));
                d.file(None, [Mkdir { owner, ..Mkdir::new("/a", 0o755) }.into()])
            },
            tree("d 0755 1234:50 a"),
        ),
        scenario(
            "a user that the image does not know is root, and the group is kept",
            |d| {
                let users = d.users();
                let owner = Some(Owner::named("nobody-here", "app", users));
                d.file(None, [Mkdir { owner, ..Mkdir::new("/a", 0o755) }.into()])
            },
            tree("d 0755 0:2345 a"),
        ),
        scenario(
            "a user by number alone is the group too",
            |d| {
                let owner = Some(Owner { user: Some(User::Id(1234)), group: None });
                d.file(None, [Mkfile { owner, ..Mkfile::new("/a", 0o644, "") }.into()])
            },
            tree(r#"f 0644 1234:1234 a """#),
        ),
        scenario(
            "mkfile writes content, mode, owner and time",
            |d| {
                let file = Mkfile::new("/a", 0o640, "hello\n");
                d.file(None, [Mkfile { owner: Some(Owner::ids(5, 6)), timestamp_ns: Some(DAY_NS), ..file }.into()])
            },
            tree(r#"f 0640 5:6 a "hello\n" @1700000000"#),
        ),
        scenario(
            "mkfile takes permission bits alone",
            |d| {
                let file = Mkfile { owner: Some(Owner::ids(5, 6)), ..Mkfile::new("/a", 0o6755, "x") };
                d.file(None, [file.into()])
            },
            tree(r#"f 0755 5:6 a "x""#),
        ),
        scenario("mkfile writes an empty file", |d| d.file(None, [Mkfile::new("/a", 0, "").into()]), tree(r#"f 0000 0:0 a """#)),
        scenario(
            "mkfile writes every byte",
            |d| d.file(None, [Mkfile::new("/a", 0o644, (0..=255).collect::<Vec<u8>>()).into()]),
            tree("f 0644 0:0 a 256 40aff2e9d2d8"),
        ),
        scenario(
            "mkfile writes a megabyte",
            |d| d.file(None, [Mkfile::new("/a", 0o644, vec![b'x'; 1 << 20]).into()]),
            tree("f 0644 0:0 a 1048576 8f990ba0b577"),
        ),
        scenario(
            "mkfile over a file replaces its content and leaves its mode",
            |d| d.file(None, [Mkfile::new("/a", 0o600, "long content").into(), Mkfile::new("/a", 0o755, "new").into()]),
            tree(r#"f 0600 0:0 a "new""#),
        ),
        scenario(
            "mkfile over a folder fails",
            |d| d.file(None, [Mkdir::new("/a", 0o755).into(), Mkfile::new("/a", 0o644, "").into()]),
            fails(None, "a"),
        ),
        scenario("mkfile without a parent fails", |d| d.file(None, [Mkfile::new("/a/b", 0o644, "").into()]), fails(None, "a/b")),
        scenario(
            "mkfile over a link writes what it points at",
            |d| {
                let base = d.script("echo old >/out/real; ln -s real /out/link");
                d.file(Some(base), [Mkfile::new("/link", 0o600, "new").into()])
            },
            tree("f 0644 0:0 real \"new\"\n l 0:0 link -> real"),
        ),
        scenario(
            "mkfile over a link out of the tree stays in the tree",
            |d| {
                let base = d.script("mkdir /out/tmp; ln -s ../../../tmp/escaped /out/link");
                d.file(Some(base), [Mkfile::new("/link", 0o600, "new").into()])
            },
            tree("d 0755 0:0 tmp\n f 0600 0:0 tmp/escaped \"new\"\n l 0:0 link -> ../../../tmp/escaped"),
        ),
        scenario(
            "mkfile of a path with dots stays in the tree",
            |d| d.file(None, [Mkfile::new("/../../a", 0o644, "x").into()]),
            tree(r#"f 0644 0:0 a "x""#),
        ),
        scenario(
            "mkfile dates a file 1970",
            |d| d.file(None, [Mkfile { timestamp_ns: Some(0), ..Mkfile::new("/a", 0o644, "") }.into()]),
            tree(r#"f 0644 0:0 a "" @0"#),
        ),
        scenario(
            "mkfile dates a file 2100",
            |d| d.file(None, [Mkfile { timestamp_ns: Some(4_102_444_800_000_000_000), ..Mkfile::new("/a", 0o644, "") }.into()]),
            tree(r#"f 0644 0:0 a "" @4102444800"#),
        ),
        scenario(
            "symlink makes links with their owner and time",
            |d| {
                let owned = Symlink { owner: Some(Owner::ids(5, 6)), timestamp_ns: Some(DAY_NS), ..Symlink::new("b", "/c") };
                d.file(None, [Symlink::new("/no/where", "/a").into(), owned.into()])
            },
            tree("l 0:0 a -> /no/where\n l 5:6 c -> b @1700000000"),
        )
        .needs(SYMLINK),
        scenario(
            "symlink over a file fails",
            |d| d.file(None, [Mkfile::new("/a", 0o644, "").into(), Symlink::new("b", "/a").into()]),
            fails(None, "a"),
        )
        .needs(SYMLINK),
    ]
}
