//! Merge and diff: trees put together and taken apart.

use roche_engine::op::{Diff, Edge, Merge, Mkdir, Mkfile, Mount};

use super::draft::{Draft, shell};
use super::{Scenario, scenario, tree};

const MERGE: &[&str] = &["mergeop"];
const DIFF: &[&str] = &["diffop"];
const BOTH: &[&str] = &["mergeop", "diffop"];

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "merge puts trees beside one another",
            |d| {
                let inputs = vec![one(d), two(d)];
                d.add(Merge { inputs })
            },
            tree("d 0700 0:0 d\n f 0600 0:0 d/both \"two\"\n f 0644 0:0 d/one \"1\"\n f 0644 0:0 d/two \"2\""),
        )
        .needs(MERGE),
        scenario(
            "the later tree of a merge wins",
            |d| {
                let inputs = vec![two(d), one(d)];
                d.add(Merge { inputs })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/both \"one\"\n f 0644 0:0 d/one \"1\"\n f 0644 0:0 d/two \"2\""),
        )
        .needs(MERGE),
        scenario(
            "a merged file replaces a folder",
            |d| {
                let file = d.file(None, [Mkfile::new("/d", 0o644, "file").into()]);
                let inputs = vec![one(d), file];
                d.add(Merge { inputs })
            },
            tree(r#"f 0644 0:0 d "file""#),
        )
        .needs(MERGE),
        scenario(
            "a merged folder replaces a file",
            |d| {
                let file = d.file(None, [Mkfile::new("/d", 0o644, "file").into()]);
                let inputs = vec![file, two(d)];
                d.add(Merge { inputs })
            },
            tree("d 0700 0:0 d\n f 0600 0:0 d/both \"two\"\n f 0644 0:0 d/two \"2\""),
        )
        .needs(MERGE),
        scenario(
            "what an input of a merge removed from its own base removes nothing below",
            |d| {
                let base = one(d);
                let removed = d.script_over(Some(base), "rm /out/d/one; echo kept >/out/kept");
                let inputs = vec![two(d), removed];
                d.add(Merge { inputs })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/both \"one\"\n f 0644 0:0 d/two \"2\"\n f 0644 0:0 kept \"kept\\n\""),
        )
        .needs(MERGE),
        scenario(
            "steps run over a merge",
            |d| {
                let inputs = vec![one(d), two(d)];
                let merged = d.add(Merge { inputs });
                d.script_over(Some(merged), "cat /out/d/both >/out/seen; rm -r /out/d")
            },
            tree(r#"f 0644 0:0 seen "two""#),
        )
        .needs(MERGE),
        scenario(
            "diff takes what a step added and changed",
            |d| {
                let base = one(d);
                let upper = d.script_over(Some(base), "echo new >/out/d/new; echo x >>/out/d/both");
                d.add(Diff { lower: Some(base), upper: Some(upper) })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/both \"onex\\n\"\n f 0644 0:0 d/new \"new\\n\""),
        )
        .needs(DIFF),
        scenario(
            "diff of a tree and itself is empty",
            |d| {
                let base = one(d);
                d.add(Diff { lower: Some(base), upper: Some(base) })
            },
            tree(""),
        )
        .needs(DIFF),
        scenario(
            "diff to nothing is the tree",
            |d| {
                let base = one(d);
                d.add(Diff { lower: None, upper: Some(base) })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/both \"one\"\n f 0644 0:0 d/one \"1\""),
        )
        .needs(DIFF),
        scenario(
            "diff of trees that are not related takes what is not equal",
            |d| {
                let (lower, upper) = (one(d), two(d));
                let diff = d.add(Diff { lower: Some(lower), upper: Some(upper) });
                let root = d.busybox();
                d.step(shell(root, "cp -a /in/. /out/").mount(Mount::readonly("/in", diff)), None)
            },
            tree("d 0700 0:0 d\n f 0600 0:0 d/both \"two\"\n f 0644 0:0 d/two \"2\""),
        )
        .needs(DIFF),
        scenario(
            "a merged diff removes what the step removed",
            |d| {
                let base = one(d);
                let upper = d.script_over(Some(base), "rm /out/d/one; echo new >/out/new");
                let diff = d.add(Diff { lower: Some(base), upper: Some(upper) });
                let other = d.file(Some(base), [Mkfile::new("/other", 0o644, "o").into()]);
                d.add(Merge { inputs: vec![other, diff] })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/both \"one\"\n f 0644 0:0 new \"new\\n\"\n f 0644 0:0 other \"o\""),
        )
        .needs(BOTH),
        scenario(
            "a merged diff removes what was in a folder and nothing else",
            |d| {
                let base = one(d);
                let upper = d.script_over(Some(base), "rm -r /out/d; mkdir /out/d; echo new >/out/d/new");
                let diff = d.add(Diff { lower: Some(base), upper: Some(upper) });
                let other = d.file(Some(base), [Mkfile::new("/d/other", 0o644, "o").into()]);
                d.add(Merge { inputs: vec![other, diff] })
            },
            tree("d 0755 0:0 d\n f 0644 0:0 d/new \"new\\n\"\n f 0644 0:0 d/other \"o\""),
        )
        .needs(BOTH)
        .own(
            "embedded",
            "a folder that was removed and made again hides all that lies below it",
            tree("d 0755 0:0 d\n f 0644 0:0 d/new \"new\\n\""),
        ),
    ]
}

fn one(d: &mut Draft) -> Edge {
    let files =
        [Mkdir::new("/d", 0o755).into(), Mkfile::new("/d/both", 0o644, "one").into(), Mkfile::new("/d/one", 0o644, "1").into()];
    d.file(None, files)
}

fn two(d: &mut Draft) -> Edge {
    let files =
        [Mkdir::new("/d", 0o700).into(), Mkfile::new("/d/both", 0o600, "two").into(), Mkfile::new("/d/two", 0o644, "2").into()];
    d.file(None, files)
}
