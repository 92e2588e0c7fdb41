//! What a step's process is given, and how its end is read.

use roche_engine::op::{Copy, Edge, Exec, Mount};

use super::draft::{Draft, bare_shell, shell};
use super::{Expect, Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario("a step's files are its output", |d| d.script("echo hello >/out/a"), tree(r#"f 0644 0:0 a "hello\n""#)),
        scenario("a step that ends with 3 fails with 3", |d| d.script("echo x >/out/a; exit 3"), fails(3, "3")),
        scenario(
            "a step whose last command a signal ends fails with 128 and the signal",
            |d| d.script("sh -c 'kill -9 $$'; true"),
            fails(137, "137"),
        ),
        scenario(
            "a command that is not there fails",
            |d| {
                let root = d.busybox();
                d.run(Exec::new(root, "/", &["/no/such/command"]))
            },
            // runc ends with 1 where it cannot start a process, shells with 127.
            Expect::OneOf(vec![fails(1, "/no/such/command"), fails(127, "/no/such/command")]),
        ),
        scenario(
            "a file that is no program fails",
            |d| {
                let root = d.busybox();
                d.run(Exec::new(root, "/", &["/etc/passwd"]))
            },
            Expect::OneOf(vec![fails(1, "/etc/passwd"), fails(126, "/etc/passwd")]),
        ),
        scenario(
            "a command is looked up in the PATH of its environment",
            |d| {
                let root = d.busybox();
                let script =
                    "mkdir -p /opt/own; printf '#!/bin/sh\\necho found >/out/a\\n' >/opt/own/tool; chmod 755 /opt/own/tool";
                let root = d.run(bare_shell(root, script));
                let mut exec = Exec::new(root, "/", &["tool"]).readonly_root();
                exec.env.push("PATH=/nowhere:/opt/own".to_owned());
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "found\n""#),
        ),
        scenario(
            "a step has the environment that it names, in its order",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "tr '\\0' '\\n' </proc/1/environ | grep -e ^PATH= -e ^[ABC]= >/out/env");
                exec.env = ["PATH=/bin:/usr/bin", "B=two words", "A=", "C=\u{e4}=x"].map(str::to_owned).to_vec();
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 env "PATH=/bin:/usr/bin\nB=two words\nA=\nC=\xc3\xa4=x\n""#),
        ),
        scenario(
            "arguments are passed as they are",
            |d| {
                let root = d.busybox();
                let script = "for a in \"$@\"; do printf '[%s]' \"$a\"; done >/out/args";
                let exec = Exec::new(root, "/", &["/bin/sh", "-c", script, "sh", "", "a b", "$HOME", "*", "\n"]).readonly_root();
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 args "[][a b][$HOME][*][\n]""#),
        ),
        scenario(
            "a step runs in its working directory",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "pwd >/out/pwd");
                exec.cwd = "/etc".to_owned();
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 pwd "/etc\n""#),
        ),
        scenario(
            "a working directory that is missing is made",
            |d| {
                let root = d.busybox();
                let mut exec = bare_shell(root, "pwd >here; id -u >>here");
                exec.cwd = "/made/deep".to_owned();
                let root = d.run(exec);
                d.file(None, [Copy::new(root, "/made", "/made").into()])
            },
            tree("d 0755 0:0 made\n d 0755 0:0 made/deep\n f 0644 0:0 made/deep/here \"/made/deep\\n0\\n\""),
        ),
        scenario(
            "a step has the umask 022",
            |d| d.script("umask >/out/umask; mkdir /out/d"),
            tree("d 0755 0:0 d\n f 0644 0:0 umask \"0022\\n\""),
        ),
        scenario("a step has no standard input", |d| d.script("cat >/out/in"), tree(r#"f 0644 0:0 in """#)),
        scenario(
            "what a step leaves running is ended with it",
            |d| d.script("(sleep 1000; echo late >/out/late) & echo x >/out/a"),
            tree(r#"f 0644 0:0 a "x\n""#),
        ),
        scenario(
            "a step's processes are its own alone",
            |d| {
                d.script("ps -o pid,comm | awk '$1 == 1 { print $2 }' >/out/first; test $(ls -d /proc/[0-9]* | wc -l) -lt 9; echo $$ >/out/pid")
            },
            tree("f 0644 0:0 first \"sh\\n\"\n f 0644 0:0 pid \"1\\n\""),
        ),
        scenario(
            "a user is looked up by name in the step's root, with its groups",
            |d| user(d, "app", "id -u; id -g; id -G"),
            tree(r#"f 0644 1234:2345 id "1234\n2345\n2345 50\n""#),
        )
        .needs_uids(),
        scenario(
            "a user by number has the group that passwd gives it",
            |d| user(d, "1234", "id -u; id -g"),
            tree(r#"f 0644 1234:2345 id "1234\n2345\n""#),
        )
        .needs_uids(),
        scenario(
            "a user by number that passwd does not know has group 0",
            |d| user(d, "4321", "id -u; id -g"),
            tree(r#"f 0644 4321:0 id "4321\n0\n""#),
        )
        .needs_uids(),
        scenario(
            "a user may name its group",
            |d| user(d, "app:staff", "id -u; id -g"),
            tree(r#"f 0644 1234:50 id "1234\n50\n""#),
        )
        .needs_uids(),
        scenario(
            "a user and group by number need no passwd",
            |d| user(d, "65534:65533", "id -u; id -g; id -G"),
            tree(r#"f 0644 65534:65533 id "65534\n65533\n65533\n""#),
        )
        .needs_uids(),
        scenario("a user that is not known fails", |d| user(d, "nobody-here", "id"), fails(None, "nobody-here")),
        scenario(
            "a user without rights cannot write to root's folder",
            |d| {
                let root = d.users();
                let mut exec = shell(root, "echo x >/out/a");
                exec.user = "app".to_owned();
                d.step(exec, None)
            },
            fails(1, "1"),
        )
        .needs_uids(),
        scenario(
            "an exit code that is called valid is a success",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "echo x >/out/a; exit 7");
                exec.valid_exit_codes = vec![0, 7];
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "x\n""#),
        )
        .needs(&["exec.validexitcode"]),
        scenario(
            "success is a failure where only another exit code is called valid",
            |d| {
                let root = d.busybox();
                let mut exec = shell(root, "echo x >/out/a");
                exec.valid_exit_codes = vec![7];
                d.step(exec, None)
            },
            fails(0, "0"),
        )
        .needs(&["exec.validexitcode"]),
        scenario(
            "a root that is read-only cannot be written",
            |d| {
                d.script("! echo x 2>/dev/null >/etc/x; ! mkdir /new 2>/dev/null; touch /etc/passwd 2>/out/why || true; cat /out/why | grep -o Read-only >/out/said; rm /out/why")
            },
            tree(r#"f 0644 0:0 said "Read-only\n""#),
        ),
        scenario(
            "a root that can be written is an output with all that was in it",
            |d| {
                let root = d.busybox();
                let root = d.run(bare_shell(root, "echo x >/etc/new; rm /etc/nsswitch.conf"));
                d.file(None, [Copy::new(root, "/etc", "/etc").into()])
            },
            tree(
                "d 0755 0:0 etc\n f 0644 0:0 etc/group \"root:x:0:\\n\"\n f 0644 0:0 etc/new \"x\\n\"
                 f 0644 0:0 etc/passwd \"root:x:0:0:root:/root:/bin/sh\\n\"",
            ),
        ),
        scenario(
            "a root may be a step's own tree",
            |d| {
                let image = d.busybox();
                let root = d.file(None, [Copy { make_parents: true, ..Copy::new(image, "/bin/busybox", "/bin/sh") }.into()]);
                let exec = Exec::new(root, "/", &["/bin/sh", "-c", "echo hello >/out/a"]).readonly_root();
                d.step(exec.mount(Mount::tmpfs("/tmp", 0)), None)
            },
            tree(r#"f 0644 0:0 a "hello\n""#),
        ),
    ]
}

/// Runs a script as a user, in a folder where everybody may write.
fn user(d: &mut Draft, user: &str, script: &str) -> Edge {
    let root = d.users();
    let everybody = d.script("mkdir -m 777 /out/w");
    let mut exec = shell(root, &format!("({script}) >/out/id")).mount(Mount::bind("/out", Some(everybody)).selector("/w"));
    exec.user = user.to_owned();
    let exec = exec.ordered();
    let output = exec.output("/out").expect("it is a writable mount");
    let whole = Edge::new(d.run(exec).vertex, output);
    d.file(None, [Copy::new(whole, "/w/id", "/id").into()])
}
