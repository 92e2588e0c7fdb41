//! Work on trees that needs no process: file ops, unpacking, packing; and keeping what a step left.
//!
//! Invariant: a layer counts once its `tree` is written; files and tree are on the disk by then.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::overlay;
use super::protocol::{Answer, Doing, Failure, Files, Input, Task, Upper};
use super::stage::Stage;
use crate::llb;
use crate::local::ids::Ids;
use crate::local::trees::disk::{Disk, Marks};
use crate::local::trees::file::{self, Source, Target};
use crate::local::trees::ledger::Ledger;
use crate::local::trees::pack::pack;
use crate::local::trees::scan::scan;
use crate::local::trees::since::since;
use crate::local::trees::tree::Tree;
use crate::local::trees::unpack::{Limits, unpack};
use crate::local::trees::view::View;
use crate::op::{FileActionKind, FileInput, OpKind};

/// Does actions of a file op.
pub(super) fn files(task: &Task, files: &Files) -> Result<Answer, Failure> {
    let doing = || "reading a file op";
    let op = llb::decode_op(&files.op).map_err(|error| Failure::new(doing(), error))?;
    let OpKind::File(op) = op.kind else { return Err(Failure::new(doing(), "it is no file op")) };
    let disk = Disk::from(&task.ids);
    let mut stage = Stage::open(&task.root)?;
    let below = trees(&files.base)?;
    let root = open(&stage.stack(&files.base, Some(&files.upper))?)?;
    let mut read = Vec::new();
    for (input, layers) in &files.trees {
        read.push((input, trees(layers)?, open(&stage.stack(layers, None)?)?));
    }
    let find = |wanted: FileInput| {
        let named = match wanted {
            FileInput::Scratch => return None,
            FileInput::Edge(edge) => Input::Edge { vertex: edge.vertex.to_string(), output: edge.output },
            FileInput::Action(action) => Input::Action(action),
        };
        read.iter().find(|(input, ..)| **input == named)
    };
    let mut ledger = Ledger::default();
    for action in files.actions.iter().filter_map(|&i| op.actions.get(i)) {
        let done = file::owner(action.kind.owner(), |input| find(input).map(|(_, _, folder)| folder.as_fd())).and_then(|owner| {
            let from = match &action.kind {
                FileActionKind::Copy(copy) => Some(copy.from),
                _ => None,
            };
            let empty = (View::default(), Ledger::default());
            let found = from.and_then(find);
            let view = found.map_or(empty.0, |(_, trees, _)| View::new(trees));
            let source = found.map(|(_, _, folder)| Source { root: folder.as_fd(), view: &view, ledger: &empty.1 });
            let mut target = Target { root: root.as_fd(), disk, ledger: &mut ledger };
            file::perform(&action.kind, &mut target, source.as_ref(), owner)
        });
        match done {
            Ok(()) => {}
            Err(error) if error.is_exhausted() => {
                return Err(Failure { exhausted: true, ..Failure::new("changing files", error) });
            }
            Err(error) => return Ok(Answer::Refused { reason: error.to_string() }),
        }
    }
    let copied = stage.copied;
    drop((root, read));
    stage.close()?;
    keep(&files.upper, &below, disk, &ledger)?;
    Ok(Answer::Changed { copied })
}

/// Unpacks a layer's tar from the standard input.
pub(super) fn unpack_layer(task: &Task, into: &str, below: &[u64]) -> Result<Answer, Failure> {
    rustix::process::chdir(&task.root).doing(|| "unpacking a layer")?;
    let fs = format!("{into}/fs");
    fs::create_dir(&fs).doing(|| format!("making {fs}"))?;
    let folder = open(Path::new(&fs))?;
    let below = trees(below)?;
    let tar = std::io::stdin().lock();
    let tree = unpack(tar, folder.as_fd(), &View::new(&below), &Disk::from(&task.ids), &Limits::default())
        .map_err(|error| Failure { exhausted: error.is_exhausted(), ..Failure::new("unpacking a layer", error) })?;
    write_tree(into, &tree)?;
    Ok(Answer::Done)
}

/// Writes a layer, or what layers show together, to the standard output as a tar.
pub(super) fn pack_layers(
    task: &Task,
    layers: &[u64],
    merged: bool,
    without: Option<&[u64]>,
    latest_s: Option<i64>,
) -> Result<Answer, Failure> {
    let mut stage = Stage::open(&task.root)?;
    let trees = trees(layers)?;
    let tree = match without {
        Some(lower) => since(&View::new(&trees).merged(), &View::new(&self::trees(lower)?)),
        None if merged => View::new(&trees).merged(),
        None => trees.into_iter().next().unwrap_or_else(Tree::new),
    };
    let path = if merged || layers.is_empty() { stage.stack(layers, None)? } else { format!("layers/{}/fs", layers[0]).into() };
    let folder = open(&path)?;
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    pack(&tree, folder.as_fd(), &mut out, latest_s)
        .map_err(|error| Failure { exhausted: error.is_exhausted(), ..Failure::new("packing a layer", error) })?;
    out.flush().doing(|| "packing a layer")?;
    Ok(Answer::Done)
}

/// Reads what an unmounted upper holds, and writes that beside it. The working directory is the
/// engine's root folder.
pub(super) fn keep(upper: &Upper, below: &[Tree], disk: Disk, ledger: &Ledger) -> Result<(), Failure> {
    overlay::tidy(upper)?;
    if !upper.output {
        return Ok(());
    }
    let folder = open(Path::new(&format!("{}/fs", upper.work)))?;
    let tree = scan(folder.as_fd(), &View::new(below), &disk, ledger)
        .map_err(|error| Failure { exhausted: error.is_exhausted(), ..Failure::new("reading what has changed", error) })?;
    write_tree(&upper.work, &tree)
}

fn write_tree(work: &str, tree: &Tree) -> Result<(), Failure> {
    let path = format!("{work}/tree");
    let doing = || format!("writing {path}");
    let mut file = File::options().write(true).create_new(true).open(&path).doing(doing)?;
    file.write_all(&tree.encode()).doing(doing)?;
    // One call for the files, their folders and the tree.
    rustix::fs::syncfs(&file).doing(doing)
}

/// Reads the trees of layers.
pub(super) fn trees(layers: &[u64]) -> Result<Vec<Tree>, Failure> {
    let read = |layer: &u64| {
        let path = format!("layers/{layer}/tree");
        let bytes = fs::read(&path).doing(|| format!("reading {path}"))?;
        Tree::decode(&bytes).map_err(|error| Failure::new(format!("reading {path}"), error))
    };
    layers.iter().map(read).collect()
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).doing(|| format!("opening {}", path.display()))
}

impl From<&Ids> for Disk {
    fn from(ids: &Ids) -> Self {
        let last = |ranges: &[crate::local::ids::IdRange]| {
            ranges.iter().map(|range| range.inside + (range.count - 1)).max().unwrap_or(0)
        };
        let (last_uid, last_gid) = match ids {
            Ids::Root => (u32::MAX - 1, u32::MAX - 1),
            Ids::Range { uids, gids } => (last(uids), last(gids)),
            Ids::Single => (0, 0),
        };
        Self { last_uid, last_gid, marks: Marks::User }
    }
}
