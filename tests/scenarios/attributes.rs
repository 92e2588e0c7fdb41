//! What a tree keeps of a file: modes, owners, names, times, links, devices, extended attributes.

use roche_engine::op::{Copy, Edge, Mkfile, Owner};

use super::draft::{Draft, shell};
use super::{Expect, Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "setuid, setgid and sticky bits are kept",
            |d| d.script("cd /out; for m in 4755 2755 6711; do echo x >f$m; chmod $m f$m; done; mkdir -m 3777 d"),
            tree("d 3777 0:0 d\n f 2755 0:0 f2755 \"x\\n\"\n f 4755 0:0 f4755 \"x\\n\"\n f 6711 0:0 f6711 \"x\\n\""),
        ),
        scenario(
            "a file without any permission is kept with its content",
            |d| d.script("echo x >/out/f; chmod 0 /out/f; mkdir /out/d; echo y >/out/d/g; chmod 0 /out/d"),
            tree("d 0000 0:0 d\n f 0644 0:0 d/g \"y\\n\"\n f 0000 0:0 f \"x\\n\""),
        ),
        scenario(
            "owners and groups are kept, of links too",
            |d| d.script("cd /out; echo x >f; mkdir d; ln -s f l; chown 1:2 f; chown 65534:65533 d; chown -h 5:6 l"),
            tree("d 0755 65534:65533 d\n f 0644 1:2 f \"x\\n\"\n l 5:6 l -> f"),
        )
        .needs_uids(),
        scenario(
            "owners that no step has made are kept through steps",
            |d| {
                let owner = Some(Owner::ids(1234, 2345));
                let base = d.file(None, [Mkfile { owner, ..Mkfile::new("/f", 0o640, "x") }.into()]);
                d.script_over(Some(base), "touch /out/g")
            },
            tree("f 0640 1234:2345 f \"x\"\n f 0644 0:0 g \"\""),
        ),
        scenario(
            "an id of 31 bits is kept by file actions",
            |d| {
                let owner = Some(Owner::ids(2_000_000_000, 2_000_000_001));
                d.file(None, [Mkfile { owner, ..Mkfile::new("/f", 0o644, "x") }.into()])
            },
            tree(r#"f 0644 2000000000:2000000001 f "x""#),
        ),
        scenario(
            "a file with three names is one file",
            |d| d.script("cd /out; mkdir d; echo x >a; ln a b; ln a d/c"),
            tree("f 0644 0:0 a \"x\\n\"\n h b = a\n d 0755 0:0 d\n h d/c = a"),
        ),
        scenario(
            "a link with two names is kept",
            |d| {
                let root = d.debian();
                d.step(shell(root, "cd /out; ln -s nowhere a; ln -P a b"), None)
            },
            tree("l 0:0 a -> nowhere\n l 0:0 b -> nowhere"),
        ),
        scenario(
            "links are kept whatever they say",
            |d| d.script("cd /out; ln -s /abs a; ln -s ../../up b; ln -s self self; ln -s 'two words' c; ln -s . dot"),
            tree("l 0:0 a -> /abs\n l 0:0 b -> ../../up\n l 0:0 c -> two\\x20words\n l 0:0 dot -> .\n l 0:0 self -> self"),
        ),
        scenario("a fifo is kept", |d| d.script("mkfifo -m 620 /out/p"), tree("p 0620 0:0 p")),
        scenario(
            "a character device is kept or refused",
            |d| d.script("mknod -m 666 /out/null c 1 3"),
            // A step on BuildKit has the right to make it.
            Expect::OneOf(vec![tree("c 0666 0:0 null 1:3"), fails(1, "1")]),
        ),
        scenario(
            "a file with holes is as long as it says",
            |d| d.script("truncate -s 8388608 /out/f; echo end >>/out/f"),
            tree("f 0644 0:0 f 8388612 8c96a1ef8d2d"),
        ),
        scenario(
            "a large file is kept",
            |d| d.script("yes 0123456789abcde | head -c 20000000 >/out/f"),
            tree("f 0644 0:0 f 20000000 dfca50383227"),
        ),
        scenario(
            "names of 255 bytes are kept, and paths of many",
            |d| {
                let name = "n".repeat(255);
                d.script(&format!("cd /out; for i in 1 2 3 4; do mkdir {name}; cd {name}; done; echo x >{name}"))
            },
            tree({
                let paths: Vec<String> = (1..6).map(|depth| vec!["n".repeat(255); depth].join("/")).collect();
                let folders: String = paths[..4].iter().map(|path| format!("d 0755 0:0 {path}\n")).collect();
                format!("{folders}f 0644 0:0 {} \"x\\n\"", paths[4])
            }),
        ),
        scenario(
            "names of any bytes are kept",
            |d| {
                d.script(
                    r#"cd /out; b=$(printf 'line\nbreak'); u=$(printf '\377\376'); a=$(printf '\303\244')
                    for n in 'two words' "$b" "$u" "$a" -dash 'back\slash' "quote'\""; do echo >"./$n"; done"#,
                )
            },
            tree(
                r#"f 0644 0:0 -dash "\n"
                f 0644 0:0 \xc3\xa4 "\n"
                f 0644 0:0 \xff\xfe "\n"
                f 0644 0:0 back\\slash "\n"
                f 0644 0:0 line\nbreak "\n"
                f 0644 0:0 quote\'\" "\n"
                f 0644 0:0 two\x20words "\n""#,
            ),
        ),
        scenario(
            "a name that is not UTF-8 can be copied",
            |d| {
                let base = d.script("mkdir /out/d; echo x >\"/out/d/$(printf '\\377')\"");
                d.file(None, [Copy::new(base, "/d", "/e").into()])
            },
            tree("d 0755 0:0 e\n f 0644 0:0 e/\\xff \"x\\n\""),
        ),
        scenario(
            "times of 1970 and of 2100 are kept",
            |d| d.script("cd /out; touch -d @0 a; touch -d @1 b; touch -d @4102444800 c; mkdir d; touch -h -d @1000000000 d"),
            tree("f 0644 0:0 a \"\" @0\n f 0644 0:0 b \"\" @1\n f 0644 0:0 c \"\" @4102444800\n d 0755 0:0 d @1000000000"),
        ),
        scenario(
            "a link's own time is kept",
            |d| d.script("cd /out; ln -s nowhere l; touch -h -d @1000000000 l"),
            tree("l 0:0 l -> nowhere @1000000000"),
        ),
        scenario(
            "a folder's time stays though files are made below it",
            |d| {
                let base = d.script("mkdir -p /out/d/e; touch -d @1000000000 /out/d");
                d.script_over(Some(base), "echo x >/out/d/e/f")
            },
            tree("d 0755 0:0 d @1000000000\n d 0755 0:0 d/e\n f 0644 0:0 d/e/f \"x\\n\""),
        ),
        scenario(
            "a user's extended attributes are kept, of files and folders",
            |d| perl(d, &[("user.one", "value"), ("user.two", "")]),
            tree("d 0755 0:0 d user.one=\"value\" user.two=\"\"\n f 0644 0:0 f \"\" user.one=\"value\" user.two=\"\""),
        ),
        scenario(
            "extended attributes are copied",
            |d| {
                let base = perl(d, &[("user.one", "value")]);
                d.file(None, [Copy::new(base, "/f", "/g").into(), Copy::new(base, "/d", "/e").into()])
            },
            tree("d 0755 0:0 e user.one=\"value\"\n f 0644 0:0 g \"\" user.one=\"value\""),
        ),
        scenario(
            "a file's capabilities are kept",
            |d| {
                let root = d.debian();
                let script = "use strict; open(my $f, '>', '/out/f'); close $f;
                    my $v = pack('V5', 0x02000001, 1 << 10, 0, 0, 0); my $p = '/out/f'; my $n = 'security.capability';
                    syscall(188, $p, $n, $v, length $v, 0) == 0 or die \"setxattr: $!\"";
                let mut exec = shell(root, "");
                exec.args = ["perl", "-e", script].map(str::to_owned).to_vec();
                d.step(exec, None)
            },
            tree(
                r#"f 0644 0:0 f "" security.capability="\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00""#,
            ),
        ),
        scenario("an empty tree is a tree", |d| d.script("true"), tree("")),
        scenario(
            "a thousand files are seen by the step after them",
            |d| {
                let base = d.script("cd /out; seq 1000 | xargs touch");
                d.script_over(Some(base), "cd /out; n=$(ls | wc -l); seq 1000 | xargs rm; echo $n >count")
            },
            tree(r#"f 0644 0:0 count "1000\n""#),
        ),
    ]
}

/// Makes a file and a folder with extended attributes, by perl.
fn perl(d: &mut Draft, attributes: &[(&str, &str)]) -> Edge {
    let root = d.debian();
    let mut script = "use strict; open(my $f, '>', '/out/f'); close $f; mkdir '/out/d';".to_owned();
    for (name, value) in attributes {
        script += &format!(
            "for my $p ('/out/f', '/out/d') {{ my ($q, $n, $v) = ($p, '{name}', '{value}');
            syscall(188, $q, $n, $v, length $v, 0) == 0 or die \"setxattr: $!\" }}"
        );
    }
    let mut exec = shell(root, "");
    exec.args = ["perl", "-e", &script].map(str::to_owned).to_vec();
    d.step(exec, None)
}
