//! Several actions in one op, and many vertices in one graph.

use roche_engine::op::{Copy, Edge, File, FileAction, FileInput, Mkdir, Mkfile, Mount, Rm};

use super::draft::{Draft, shell};
use super::{Scenario, fails, scenario, tree};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "each action of a chain sees what those before it did",
            |d| {
                let actions = [
                    Mkdir::new("/a", 0o755).into(),
                    Mkfile::new("/a/one", 0o644, "1").into(),
                    Mkfile::new("/a/two", 0o644, "2").into(),
                    Rm::new("/a/one").into(),
                    Mkdir::new("/a/one", 0o700).into(),
                ];
                d.file(None, actions)
            },
            tree("d 0755 0:0 a\n d 0700 0:0 a/one\n f 0644 0:0 a/two \"2\""),
        ),
        scenario(
            "actions fork from one before them, and the op has two outputs",
            |d| {
                let left = forked(d, 0);
                let right = forked(d, 1);
                let copies = [Copy::new(left, "/", "/left").into(), Copy::new(right, "/", "/right").into()];
                d.file(None, copies)
            },
            tree(
                "d 0755 0:0 left\n f 0644 0:0 left/base \"b\"\n f 0644 0:0 left/l \"l\"
                 d 0755 0:0 right\n f 0644 0:0 right/base \"b\"\n f 0644 0:0 right/r \"r\"",
            ),
        ),
        scenario(
            "copy takes from an action of its own op",
            |d| {
                let file =
                    FileAction { input: FileInput::Scratch, output: None, kind: Mkfile::new("/made", 0o640, "inside").into() };
                let copy = FileAction {
                    input: FileInput::Scratch,
                    output: Some(0),
                    kind: Copy::new(FileInput::Action(0), "/made", "/copied").into(),
                };
                d.add(File { actions: vec![file, copy] })
            },
            tree(r#"f 0640 0:0 copied "inside""#),
        ),
        scenario(
            "a failing action fails the op whatever came before it",
            |d| {
                d.file(
                    None,
                    [Mkfile::new("/a", 0o644, "").into(), Mkfile::new("/no/parent", 0o644, "").into(), Rm::new("/a").into()],
                )
            },
            fails(None, "parent"),
        ),
        scenario(
            "an op leaves its input as it is",
            |d| {
                let base = d.file(None, [Mkfile::new("/a", 0o644, "old").into()]);
                let changed = d.file(Some(base), [Mkfile::new("/a", 0o644, "new").into()]);
                d.file(None, [Copy::new(changed, "/a", "/changed").into(), Copy::new(base, "/a", "/base").into()])
            },
            tree("f 0644 0:0 base \"old\"\n f 0644 0:0 changed \"new\""),
        ),
        scenario(
            "twenty steps of one input each are one after another",
            |d| {
                let mut edge = d.script("echo 0 >/out/log");
                for i in 1..20 {
                    edge = d.script_over(Some(edge), &format!("echo {i} >>/out/log"));
                }
                edge
            },
            tree("f 0644 0:0 log 50 9cfbaaab688d"),
        ),
        scenario(
            "twenty vertices are the inputs of one",
            |d| {
                let files: Vec<Edge> =
                    (0..20).map(|i| d.file(None, [Mkfile::new("/f", 0o644, format!("{i}\n")).into()])).collect();
                let copies = files.iter().enumerate().map(|(i, &file)| Copy::new(file, "/f", &format!("/f{i:02}")).into());
                let all = d.add(File::chain(None, copies));
                let root = d.busybox();
                d.step(shell(root, "cat /in/f* >/out/all").mount(Mount::readonly("/in", all)), None)
            },
            tree("f 0644 0:0 all 50 9cfbaaab688d"),
        ),
    ]
}

/// One file, and two files that come after it on paths of their own.
fn forked(d: &mut Draft, output: u32) -> Edge {
    let action = |input, output, path, text| FileAction { input, output, kind: Mkfile::new(path, 0o644, text).into() };
    let file = File {
        actions: vec![
            action(FileInput::Scratch, None, "/base", "b"),
            action(FileInput::Action(0), Some(0), "/l", "l"),
            action(FileInput::Action(0), Some(1), "/r", "r"),
        ],
    };
    Edge::new(d.add(file).vertex, output)
}
