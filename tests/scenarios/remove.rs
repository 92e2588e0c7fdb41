//! What rm removes, and when it fails.

use roche_engine::op::{Edge, Mkfile, Rm};

use super::draft::Draft;
use super::{Expect, Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "rm removes a file",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/one.txt").into()])
            },
            tree("d 0755 0:0 dir\n f 0644 0:0 dir/in \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm removes a folder with all that is in it",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/dir").into()])
            },
            tree("f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm of a pattern removes what matches",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm { wildcard: true, ..Rm::new("/*.txt") }.into()])
            },
            tree("d 0755 0:0 dir\n f 0644 0:0 dir/in \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm of a pattern reaches into folders",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm { wildcard: true, ..Rm::new("/*/i?") }.into()])
            },
            tree("d 0755 0:0 dir\n f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm of a pattern that matches nothing removes nothing",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm { wildcard: true, ..Rm::new("/*.none") }.into(), Rm::new("/dir").into()])
            },
            tree("f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm without wildcard takes a pattern as a name",
            |d| {
                let base = d.script("touch '/out/*' /out/a");
                d.file(Some(base), [Rm::new("/*").into()])
            },
            tree("f 0644 0:0 a \"\""),
        ),
        scenario(
            "rm of what is missing fails",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/missing").into()])
            },
            fails(None, "missing"),
        )
        .own(
            "docker20",
            "it takes what is missing as removed",
            tree(
                "d 0755 0:0 dir\n f 0644 0:0 dir/in \"\"\n f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir",
            ),
        ),
        scenario(
            "rm of what is missing may be allowed",
            |d| {
                let base = base(d);
                let missing = Rm { allow_not_found: true, ..Rm::new("/missing") };
                d.file(Some(base), [missing.into(), Rm::new("/dir").into()])
            },
            tree("f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm of a link leaves what it points at",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/link").into()])
            },
            tree("d 0755 0:0 dir\n f 0644 0:0 dir/in \"\"\n f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\""),
        )
        .own(
            "docker20",
            "it follows the link and removes the folder",
            tree("f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "rm of a link that leads nowhere removes it or fails",
            |d| {
                let base = d.script("ln -s nowhere /out/link");
                d.file(Some(base), [Rm::new("/link").into()])
            },
            // BuildKit looks for what the link points at first.
            Expect::OneOf(vec![fails(None, "link"), tree("")]),
        )
        .own("docker20", "it takes what is missing as removed", tree("l 0:0 link -> nowhere")),
        scenario(
            "rm through a link to a folder removes the file there",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/link/in").into()])
            },
            tree("d 0755 0:0 dir\n f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\"\n l 0:0 link -> dir"),
        ),
        scenario(
            "a path that was removed can be made again",
            |d| {
                let base = base(d);
                d.file(Some(base), [Rm::new("/dir").into(), Mkfile::new("/dir", 0o600, "file").into()])
            },
            tree("f 0600 0:0 dir \"file\"\n l 0:0 link -> dir\n f 0644 0:0 one.txt \"\"\n f 0644 0:0 two.txt \"\""),
        ),
    ]
}

fn base(d: &mut Draft) -> Edge {
    d.script("mkdir /out/dir; touch /out/dir/in /out/one.txt /out/two.txt; ln -s dir /out/link")
}
