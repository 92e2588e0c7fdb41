//! What steps find mounted, and which mounts are outputs.

use roche_engine::op::{CacheSharing, Copy, Edge, Mkdir, Mkfile, Mount, MountKind};

use super::draft::{Draft, shell};
use super::{Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "a read-only mount shows its tree and cannot be written",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "cat /in/f >/out/a; ! echo x 2>/dev/null >/in/new; ! rm /in/f 2>/dev/null");
                d.step(exec.mount(Mount::readonly("/in", base)), None)
            },
            tree(r#"f 0644 0:0 a "base\n""#),
        ),
        scenario(
            "a writable mount's output is its tree with the changes",
            |d| {
                let base = base(d);
                d.script_over(Some(base), "echo new >/out/new; echo more >>/out/f")
            },
            tree("f 0644 0:0 f \"base\\nmore\\n\"\n f 0644 0:0 new \"new\\n\"\n d 0755 0:0 sub\n f 0600 0:0 sub/g \"g\""),
        ),
        scenario(
            "a step leaves the tree that it writes over as it was",
            |d| {
                let base = base(d);
                let changed = d.script_over(Some(base), "echo more >>/out/f");
                d.file(None, [Copy::new(base, "/f", "/base").into(), Copy::new(changed, "/f", "/changed").into()])
            },
            tree("f 0644 0:0 base \"base\\n\"\n f 0644 0:0 changed \"base\\nmore\\n\""),
        ),
        scenario(
            "a writable mount without an output throws its changes away",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "echo new >/in/new; cat /in/new >/out/a").mount(Mount::discarded("/in", base));
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "new\n""#),
        ),
        scenario(
            "two outputs are two trees",
            |d| {
                let root = d.busybox();
                let exec = shell(root, "echo 1 >/one/f; echo 2 >/two/f").mount(Mount::bind("/one", None));
                let exec = exec.mount(Mount::bind("/two", None)).ordered();
                let outputs = [exec.output("/one"), exec.output("/two")].map(|output| output.expect("both are writable"));
                let vertex = d.run(exec).vertex;
                let copies = outputs.map(|output| Copy::new(Edge::new(vertex, output), "/f", &format!("/f{output}")).into());
                d.file(None, copies)
            },
            tree("f 0644 0:0 f0 \"1\\n\"\n f 0644 0:0 f1 \"2\\n\""),
        ),
        scenario(
            "two mounts of one tree are changed apart",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "echo a >/a/f; cat /b/f >/b/seen; cat /a/f >/a/seen");
                let exec = exec.mount(Mount::bind("/a", Some(base))).mount(Mount::bind("/b", Some(base))).ordered();
                let outputs = [exec.output("/a"), exec.output("/b")].map(|output| output.expect("both are writable"));
                let vertex = d.run(exec).vertex;
                let copies =
                    outputs.map(|output| Copy::new(Edge::new(vertex, output), "/seen", &format!("/seen{output}")).into());
                d.file(None, copies)
            },
            tree("f 0644 0:0 seen0 \"a\\n\"\n f 0644 0:0 seen1 \"base\\n\""),
        ),
        scenario(
            "a selector mounts a folder of the tree, and the output is the whole tree",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "ls -A /sub >/sub/seen").mount(Mount::bind("/sub", Some(base)).selector("/sub")).ordered();
                let output = exec.output("/sub").expect("it is writable");
                Edge::new(d.run(exec).vertex, output)
            },
            tree("f 0644 0:0 f \"base\\n\"\n d 0755 0:0 sub\n f 0600 0:0 sub/g \"g\"\n f 0644 0:0 sub/seen \"g\\nseen\\n\""),
        ),
        scenario(
            "a selector mounts one file",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "cat /etc/hostfile >/out/a").mount(Mount::readonly("/tmp/file", base).selector("/f"));
                let mut exec = exec.mount(Mount::readonly("/etc/passwd", base).selector("/sub/g"));
                exec.args[2] = "cat /tmp/file /etc/passwd >/out/a".to_owned();
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "base\ng""#),
        ),
        scenario(
            "a selector that names nothing fails",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let exec = shell(root, "true").mount(Mount::readonly("/in", base).selector("/missing"));
                d.step(exec, None)
            },
            fails(None, "missing"),
        ),
        scenario(
            "a selector cannot leave the tree by a link",
            |d| {
                let root = d.busybox();
                let base = d.script("mkdir /out/etc; echo mine >/out/etc/hostname; ln -s ../../../etc /out/link");
                let exec = shell(root, "cat /in/hostname >/out/a").mount(Mount::readonly("/in", base).selector("/link"));
                d.step(exec, None)
            },
            tree(r#"f 0644 0:0 a "mine\n""#),
        ),
        scenario(
            "mounts lie over one another by their paths",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let inner = d.file(None, [Mkfile::new("/inner", 0o644, "i").into()]);
                let exec = shell(root, "ls -A /in /in/sub >/out/a");
                d.step(exec.mount(Mount::readonly("/in/sub", inner)).mount(Mount::readonly("/in", base)), None)
            },
            tree(r#"f 0644 0:0 a "/in:\nf\nsub\n\n/in/sub:\ninner\n""#),
        ),
        scenario(
            "a mount within an output is not in the output",
            |d| {
                let (root, inner) = (d.busybox(), base(d));
                let base = d.file(None, [Mkdir::new("/deep", 0o755).into(), Mkfile::new("/deep/own", 0o644, "o").into()]);
                let exec = shell(root, "ls -A /out/deep >/out/seen").mount(Mount::readonly("/out/deep", inner));
                d.step(exec, Some(base))
            },
            tree("d 0755 0:0 deep\n f 0644 0:0 deep/own \"o\"\n f 0644 0:0 seen \"f\\nsub\\n\""),
        ),
        scenario(
            "a tmpfs is empty, can be written, and is not in the tree",
            |d| {
                let (root, base) = (d.busybox(), d.file(None, [Mkdir::new("/t", 0o700).into()]));
                let exec = shell(root, "ls -A /out/t >/out/seen; echo x >/out/t/x; cat /out/t/x >>/out/seen; rm /out/t/x");
                d.step(exec.mount(Mount::tmpfs("/out/t", 0)), Some(base))
            },
            tree("f 0644 0:0 seen \"x\\n\"\n d 0700 0:0 t"),
        ),
        scenario(
            "a tmpfs holds no more than it may",
            |d| {
                let root = d.busybox();
                let exec =
                    shell(root, "! head -c 300000 /dev/zero 2>/dev/null >/t/x; test $(wc -c </t/x) -le 65536; echo full >/out/a");
                d.step(exec.mount(Mount::tmpfs("/t", 65536)), None)
            },
            tree(r#"f 0644 0:0 a "full\n""#),
        )
        .needs(&["exec.mount.tmpfs.size"]),
        scenario(
            "a cache mount lives on from step to step and is not in the tree",
            |d| cached(d, "ls -A /out/c >/out/seen; echo first >/out/c/f"),
            tree("f 0644 0:0 seen \"\"\n d 0700 0:0 t\n d 0755 0:0 c"),
        )
        .then(
            |d| cached(d, "cat /out/c/f >/out/seen; echo second >>/out/c/f"),
            tree("f 0644 0:0 seen \"first\\n\"\n d 0700 0:0 t\n d 0755 0:0 c"),
        )
        .then(
            |d| cached(d, "cat /out/c/f >/out/seen"),
            tree("f 0644 0:0 seen \"first\\nsecond\\n\"\n d 0700 0:0 t\n d 0755 0:0 c"),
        ),
        scenario(
            "a cache mount starts as the tree that it names",
            |d| {
                let (root, base) = (d.busybox(), base(d));
                let mut mount = Mount::cache("/c", &d.unique(), CacheSharing::Locked);
                if let MountKind::Cache { source, .. } = &mut mount.kind {
                    *source = Some(base);
                }
                d.step(shell(root, &format!("cat /c/f >/out/a; echo more >>/c/f # {}", d.unique())).mount(mount), None)
            },
            tree(r#"f 0644 0:0 a "base\n""#),
        ),
        scenario(
            "private cache mounts of one id are apart while both are used",
            |d| one_at_a_time(d, CacheSharing::Private),
            tree("f 0644 0:0 one \"one\\n\"\n f 0644 0:0 two \"two\\n\""),
        ),
        scenario(
            "locked cache mounts of one id are used one after the other",
            |d| one_at_a_time(d, CacheSharing::Locked),
            tree("f 0644 0:0 one \"one\\n\"\n f 0644 0:0 two \"two\\n\""),
        ),
    ]
}

fn base(d: &mut Draft) -> Edge {
    let files =
        [Mkfile::new("/f", 0o644, "base\n").into(), Mkdir::new("/sub", 0o755).into(), Mkfile::new("/sub/g", 0o600, "g").into()];
    d.file(None, files)
}

/// Runs a script with the scenario's own cache in `/out/c`.
fn cached(d: &mut Draft, script: &str) -> Edge {
    let root = d.busybox();
    let unique = d.unique();
    let exec = shell(root, &format!("{script} # {unique}")).mount(Mount::cache("/out/c", &unique, CacheSharing::Shared));
    let base = d.file(None, [Mkdir::new("/t", 0o700).into(), Mkdir::new("/c", 0o755).into()]);
    d.step(exec, Some(base))
}

/// Runs two steps that fail where both see one folder at the same time.
fn one_at_a_time(d: &mut Draft, sharing: CacheSharing) -> Edge {
    let root = d.busybox();
    let id = d.unique();
    let copies = ["one", "two"].map(|name| {
        let script = format!("! test -e /c/busy; touch /c/busy; sleep 1; rm /c/busy; echo {name} >/out/{name} # {id}");
        let made = d.step(shell(root, &script).mount(Mount::cache("/c", &id, sharing)), None);
        Copy::new(made, &format!("/{name}"), &format!("/{name}")).into()
    });
    d.file(None, copies)
}
