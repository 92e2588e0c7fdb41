//! What steps do to the trees below them: removals, replacements, renames.

use roche_engine::op::{Copy, Edge, Mkdir, Mkfile, Rm};

use super::draft::{Draft, bare_shell, shell};
use super::{Scenario, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("a file that a step removes is gone", |d| over(d, "rm /out/f"), tree("d 0755 0:0 d\n f 0644 0:0 d/x \"x\\n\"\n f 0644 0:0 d/y \"y\\n\"")),
        scenario("a folder that a step removes is gone", |d| over(d, "rm -r /out/d"), tree(r#"f 0644 0:0 f "f\n""#)),
        scenario("a file in a folder that a step removes is gone", |d| over(d, "rm /out/d/x"), tree("d 0755 0:0 d\n f 0644 0:0 d/y \"y\\n\"\n f 0644 0:0 f \"f\\n\"")),
        scenario(
            "what a step removes stays gone in the steps after it",
            |d| {
                let one = over(d, "rm /out/d/x /out/f");
                let two = d.script_over(Some(one), "ls -A /out/d >/out/seen");
                d.script_over(Some(two), "echo back >/out/f")
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/y \"y\\n\"\n f 0644 0:0 f \"back\\n\"\n f 0644 0:0 seen \"y\\n\""),
        ),
        scenario(
            "a folder that is removed and made again is empty",
            |d| over(d, "rm -r /out/d; mkdir -m 700 /out/d; echo z >/out/d/z"),
            tree("d 0700 0:0 d\n f 0644 0:0 d/z \"z\\n\"\n f 0644 0:0 f \"f\\n\""),
        ),
        scenario(
            "a folder that is made again stays empty under two more steps",
            |d| {
                let one = over(d, "rm -r /out/d; mkdir /out/d");
                let two = d.script_over(Some(one), "touch /out/d/two");
                d.script_over(Some(two), "ls -A /out/d >/out/seen")
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/two \"\"\n f 0644 0:0 f \"f\\n\"\n f 0644 0:0 seen \"two\\n\""),
        ),
        scenario(
            "a file takes a folder's place",
            |d| over(d, "rm -r /out/d; echo now >/out/d"),
            tree("f 0644 0:0 d \"now\\n\"\n f 0644 0:0 f \"f\\n\""),
        ),
        scenario(
            "a folder takes a file's place",
            |d| over(d, "rm /out/f; mkdir /out/f; echo in >/out/f/in"),
            tree("d 0755 0:0 d\n f 0644 0:0 d/x \"x\\n\"\n f 0644 0:0 d/y \"y\\n\"\n d 0755 0:0 f\n f 0644 0:0 f/in \"in\\n\""),
        ),
        scenario(
            "a link takes a folder's place",
            |d| over(d, "mv /out/d /out/e; ln -s e /out/d"),
            tree("l 0:0 d -> e\n d 0755 0:0 e\n f 0644 0:0 e/x \"x\\n\"\n f 0644 0:0 e/y \"y\\n\"\n f 0644 0:0 f \"f\\n\""),
        ),
        scenario(
            "a folder from below can be renamed",
            |d| over(d, "mv /out/d /out/e; rm /out/e/x"),
            tree("d 0755 0:0 e\n f 0644 0:0 e/y \"y\\n\"\n f 0644 0:0 f \"f\\n\""),
        ),
        scenario(
            "a file from below can be renamed over another",
            |d| over(d, "mv /out/d/x /out/f"),
            tree("d 0755 0:0 d\n f 0644 0:0 d/y \"y\\n\"\n f 0644 0:0 f \"x\\n\""),
        ),
        scenario(
            "a change of mode alone is kept, with the content",
            |d| over(d, "chmod 4711 /out/f; chmod 1777 /out/d"),
            tree("d 1777 0:0 d\n f 0644 0:0 d/x \"x\\n\"\n f 0644 0:0 d/y \"y\\n\"\n f 4711 0:0 f \"f\\n\""),
        ),
        scenario(
            "a change of owner alone is kept, with the content",
            |d| over(d, "chown 5:6 /out/f; chown 7 /out/d"),
            tree("d 0755 7:0 d\n f 0644 0:0 d/x \"x\\n\"\n f 0644 0:0 d/y \"y\\n\"\n f 0644 5:6 f \"f\\n\""),
        )
        .needs_uids(),
        scenario(
            "a change of time alone is kept",
            |d| over(d, "rm -r /out/d; touch -d @1000000000 /out/f"),
            tree(r#"f 0644 0:0 f "f\n" @1000000000"#),
        ),
        scenario(
            "a new name of a file from below is the same file",
            |d| over(d, "rm -r /out/d; ln /out/f /out/g; echo more >>/out/g"),
            tree("f 0644 0:0 f \"f\\nmore\\n\"\n h g = f"),
        ),
        scenario(
            "one of two names of a file from below can be removed",
            |d| {
                let base = d.script("echo x >/out/a; ln /out/a /out/b");
                d.script_over(Some(base), "rm /out/a; echo y >>/out/b")
            },
            tree(r#"f 0644 0:0 b "x\ny\n""#),
        ),
        scenario(
            "file actions remove and replace what a step made",
            |d| {
                let base = over(d, "mkdir /out/d/deep; touch /out/d/deep/f");
                let actions = [
                    Rm::new("/d").into(),
                    Mkdir::new("/d", 0o700).into(),
                    Rm::new("/f").into(),
                    Mkfile::new("/d/new", 0o644, "n").into(),
                ];
                d.file(Some(base), actions)
            },
            tree("d 0700 0:0 d\n f 0644 0:0 d/new \"n\""),
        ),
        scenario(
            "a step sees what file actions removed from its root as gone",
            |d| {
                let root = d.busybox();
                let root = d.file(Some(root), [Rm::new("/etc/nsswitch.conf").into(), Rm::new("/sbin").into()]);
                d.step(shell(root, "ls /etc | grep -v -e host -e resolv -e mtab >/out/etc; ! test -e /sbin"), None)
            },
            tree(r#"f 0644 0:0 etc "group\npasswd\n""#),
        ),
        scenario(
            "an image's files can be removed by a step and the rest copied",
            |d| {
                let root = d.busybox();
                let root = d.run(bare_shell(root, "rm -r /usr /sbin /lib /lib64; mv /etc/passwd /etc/moved; ls / >/dev/null"));
                d.file(None, [Copy { contents_only: true, ..Copy::new(root, "/etc", "/etc") }.into()])
            },
            tree(
                "d 0755 0:0 etc\n f 0644 0:0 etc/group \"root:x:0:\\n\"\n f 0644 0:0 etc/moved \"root:x:0:0:root:/root:/bin/sh\\n\"
                 f 0644 0:0 etc/nsswitch.conf \"passwd: files\\ngroup: files\\nhosts: files dns\\n\"",
            ),
        ),
        scenario(
            "forty steps that each remove and make a file are one tree",
            |d| {
                let mut edge = d.script("echo 0 >/out/f0");
                for i in 1..40 {
                    edge = d.script_over(Some(edge), &format!("rm /out/f{}; echo {i} >/out/f{i}", i - 1));
                }
                edge
            },
            tree(r#"f 0644 0:0 f39 "39\n""#),
        ),
    ]
}

/// Runs a script over a file and a folder of two files.
fn over(d: &mut Draft, script: &str) -> Edge {
    let base = d.script("mkdir /out/d; echo f >/out/f; echo x >/out/d/x; echo y >/out/d/y");
    d.script_over(Some(base), script)
}
