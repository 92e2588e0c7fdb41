//! File ops: an op's actions as worker tasks, as few as there can be.
//!
//! Actions that change the tree of the action before them, which nobody else looks at, are done by
//! one worker and give one layer, as BuildKit's `solver/llbsolver/ops/file.go` does for a chain. What
//! somebody else reads in between becomes a layer of its own.

use std::collections::BTreeMap;
use std::ops::Range;

use super::operate::Operator;
use super::report::Report;
use super::result::Ref;
use super::schedule::Outputs;
use super::worker::{Answer, Files, Input, Upper, Work};
use crate::op::{File, FileActionKind, FileInput, Owner, User};
use crate::{Error, Vertex};

impl Operator {
    /// Does the actions of a file op and returns its outputs.
    pub(super) async fn files(&self, vertex: &Vertex, file: &File, inputs: &[Ref], report: &Report) -> Result<Outputs, Error> {
        let edges = vertex.op.kind.inputs();
        let mut made: BTreeMap<usize, Ref> = BTreeMap::new();
        let mut outputs = Outputs::new();
        for run in runs(file) {
            let tree = |input: FileInput, made: &BTreeMap<usize, Ref>| match input {
                FileInput::Scratch => Some(Ref::scratch()),
                FileInput::Edge(edge) => edges.iter().position(|known| *known == edge).map(|i| inputs[i].clone()),
                FileInput::Action(action) => made.get(&action).cloned(),
            };
            let missing = || Error::Integrity(format!("{:?} names an input that is not there", vertex.name()));
            let base = tree(file.actions[run.start].input, &made).ok_or_else(missing)?;
            let mut trees = Vec::new();
            for action in &file.actions[run.clone()] {
                for input in looked_at(&action.kind) {
                    let named = match input {
                        FileInput::Scratch => continue,
                        FileInput::Edge(edge) => Input::Edge { vertex: edge.vertex.to_string(), output: edge.output },
                        FileInput::Action(action) => Input::Action(action),
                    };
                    let layers = tree(input, &made).ok_or_else(missing)?;
                    let layers: Vec<u64> = layers.layers()?.iter().map(|layer| layer.number()).collect();
                    if !trees.iter().any(|(known, _)| *known == named) {
                        trees.push((named, layers));
                    }
                }
            }
            let base = base.layers()?.to_vec();
            let numbers = base.iter().map(|layer| layer.number()).collect();
            let begun = self.begin(base).await?;
            let task = Files {
                base: numbers,
                upper: Upper { work: begun.work.name(), output: true },
                op: vertex.encoded.to_vec(),
                actions: run.clone().collect(),
                trees,
            };
            let copied = match self.run_logged(Work::Files(task), report).await?.0 {
                Answer::Changed { copied } => copied,
                Answer::Refused { reason } => {
                    let (vertex, name) = (Some(vertex.digest), vertex.name());
                    return Err(Error::Step { vertex, name, exit_code: None, reason: reason.into(), hint: None });
                }
                _ => return Err(super::run::nonsense("changing files")),
            };
            let result = self.finish(begun, copied).await?;
            let last = run.end - 1;
            if let Some(number) = file.actions[last].output {
                outputs.insert(number, result.clone());
            }
            made.insert(last, result);
        }
        Ok(outputs)
    }
}

/// The trees that an action reads beside the one that it changes.
fn looked_at(kind: &FileActionKind) -> Vec<FileInput> {
    let (from, owner) = match kind {
        FileActionKind::Copy(copy) => (Some(copy.from), &copy.owner),
        FileActionKind::Mkdir(mkdir) => (None, &mkdir.owner),
        FileActionKind::Mkfile(mkfile) => (None, &mkfile.owner),
        FileActionKind::Symlink(link) => (None, &link.owner),
        FileActionKind::Rm(_) => return Vec::new(),
    };
    let Owner { user, group } = owner.clone().unwrap_or_default();
    let names = [user, group].into_iter().flatten().filter_map(|user| match user {
        User::Name { passwd, .. } => Some(passwd),
        User::Id(_) => None,
    });
    from.into_iter().chain(names).collect()
}

/// Cuts the actions into those that one worker does.
fn runs(file: &File) -> Vec<Range<usize>> {
    let count = file.actions.len();
    let mut readers = vec![0_usize; count];
    let mut read = |input: FileInput, weight: usize| {
        if let FileInput::Action(action) = input
            && let Some(readers) = readers.get_mut(action)
        {
            *readers += weight;
        }
    };
    for action in &file.actions {
        read(action.input, 1);
        // Whoever reads and does not change needs a tree that stands still.
        looked_at(&action.kind).into_iter().for_each(|input| read(input, 2));
    }
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, action) in file.actions.iter().enumerate() {
        let goes_on =
            i > 0 && action.input == FileInput::Action(i - 1) && readers[i - 1] == 1 && file.actions[i - 1].output.is_none();
        match runs.last_mut() {
            Some(run) if goes_on => run.end = i + 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Copy, FileAction, Mkdir};

    fn mkdir(input: FileInput, output: Option<u32>) -> FileAction {
        FileAction { input, output, kind: Mkdir::new("/x", 0o755).into() }
    }

    fn copy(input: FileInput, from: FileInput, output: Option<u32>) -> FileAction {
        FileAction { input, output, kind: Copy::new(from, "/x", "/y").into() }
    }

    #[test]
    #[expect(clippy::single_range_in_vec_init, reason = "a list of one run")]
    fn a_chain_is_one_run_and_what_others_read_stands_still() {
        use FileInput::{Action, Scratch};
        let table = [
            (vec![mkdir(Scratch, None), mkdir(Action(0), None), mkdir(Action(1), Some(0))], vec![0..3]),
            (vec![mkdir(Scratch, Some(0)), mkdir(Action(0), Some(1))], vec![0..1, 1..2]),
            (vec![mkdir(Scratch, None), copy(Scratch, Action(0), Some(0))], vec![0..1, 1..2]),
            (vec![mkdir(Scratch, None), mkdir(Action(0), Some(0)), mkdir(Action(0), Some(1))], vec![0..1, 1..2, 2..3]),
            (vec![], vec![]),
        ];
        for (actions, expected) in table {
            assert_eq!(runs(&File { actions: actions.clone() }), expected, "{actions:?}");
        }
    }
}
