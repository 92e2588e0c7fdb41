//! What holds for every op, every graph and every run of bytes.
//!
//! `ROCHE_SOAK=N` runs N cases of each property instead of the default.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a test is told by the environment how long to run")]

mod arbitrary;
mod mutate;

use std::path::Path;

use bollard_buildkit_proto::pb;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::Config;
use prost::Message as _;
use roche_engine::llb::DecodeError;
use roche_engine::op::{Edge, Exec, FileInput, Metadata, Op, OpKind, Source};
use roche_engine::{Definition, Digest, Graph};

use arbitrary::{Recipe, metadata, recipes};

/// The number of cases of a property: `usual`, or what `ROCHE_SOAK` says.
fn cases(usual: u32) -> Config {
    let soak = std::env::var("ROCHE_SOAK").ok().map(|n| n.parse().expect("ROCHE_SOAK is a number of cases"));
    // Failing cases are printed; nothing is written beside the sources.
    Config { cases: soak.unwrap_or(usual), failure_persistence: None, ..Config::default() }
}

/// Grows a graph by `recipes`, each op over vertices before it, and returns what was added.
fn grow(recipes: &[(Recipe, Metadata)]) -> (Graph, Vec<Edge>) {
    let mut graph = Graph::new();
    let mut edges = Vec::new();
    for (recipe, metadata) in recipes {
        let op = recipe.op(&edges);
        edges.push(Edge::new(graph.add(op, metadata.clone()).unwrap(), recipe.output));
    }
    (graph, edges)
}

/// Every recorded definition that has bytes.
fn recorded() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let definitions = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "pb"));
    let read: Vec<_> = definitions.map(|path| std::fs::read(path).unwrap()).filter(|bytes| !bytes.is_empty()).collect();
    assert!(read.len() > 100, "{} recorded definitions", read.len());
    read
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn decoding_what_was_encoded_gives_the_same_definition(recipes in recipes()) {
        let (graph, edges) = grow(&recipes);
        let definition = graph.definition(*edges.last().unwrap());
        let bytes = definition.encode();
        let read = Definition::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &definition);
        prop_assert_eq!(read.encode(), bytes);
    }

    #[test]
    fn equal_ops_have_equal_digests_and_unequal_ones_have_not(recipes in recipes(), metadata in metadata()) {
        let (mut graph, _) = grow(&recipes);
        let before: Vec<(Op, Digest)> = graph.vertices().map(|vertex| (vertex.op.clone(), vertex.digest)).collect();
        for (op, digest) in &before {
            prop_assert_eq!(graph.add(op.clone(), metadata.clone()).unwrap(), *digest);
        }
        prop_assert_eq!(graph.vertices().count(), before.len());
        for (i, (op, digest)) in before.iter().enumerate() {
            for (other_op, other_digest) in &before[..i] {
                prop_assert_ne!(op, other_op);
                prop_assert_ne!(digest, other_digest);
            }
        }
    }

    #[test]
    fn unrelated_vertices_never_change_a_definition(wanted in recipes(), unrelated in recipes()) {
        let (graph, edges) = grow(&wanted);
        let target = *edges.last().unwrap();
        let alone = graph.definition(target).encode();

        let mut crowded = Graph::new();
        let mut strangers = Vec::new();
        let mut own = Vec::new();
        for i in 0..wanted.len().max(unrelated.len()) {
            if let Some((recipe, metadata)) = unrelated.get(i) {
                // Another constraint, so that none of these ops is one of the wanted.
                let mut op = recipe.op(&strangers);
                op.constraints.push("unrelated".to_owned());
                strangers.push(Edge::new(crowded.add(op, metadata.clone()).unwrap(), recipe.output));
            }
            if let Some((recipe, metadata)) = wanted.get(i) {
                own.push(Edge::new(crowded.add(recipe.op(&own), metadata.clone()).unwrap(), recipe.output));
            }
        }
        prop_assert_eq!(crowded.definition(target).encode(), alone);
    }

    #[test]
    fn a_vertex_keeps_the_bytes_that_were_read(recipes in recipes(), extra in 100..1000_u32) {
        let (graph, _) = grow(&recipes);
        for vertex in graph.vertices().filter(|vertex| vertex.op.kind.inputs().is_empty()) {
            // A field that nobody knows: part of the digest, gone from the op.
            let mut bytes = vertex.encoded.to_vec();
            prost::encoding::uint32::encode(extra, &7, &mut bytes);
            let mut other = Graph::new();
            let digest = other.add_encoded(&bytes, Metadata::default()).unwrap();
            prop_assert_eq!(digest, Digest::of(&bytes));
            prop_assert_ne!(digest, vertex.digest);
            prop_assert_eq!(&other.vertex(digest).unwrap().op, &vertex.op);
            prop_assert_eq!(&*other.vertex(digest).unwrap().encoded, &bytes[..]);
        }
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        mutate::survive(&bytes);
    }

    #[test]
    fn mutated_definitions_never_panic(which in any::<prop::sample::Index>(), changes in mutate::changes()) {
        let recorded = recorded_once();
        mutate::survive(&mutate::apply(which.get::<Vec<u8>>(recorded), &changes));
    }

    #[test]
    fn definitions_with_mutated_ops_never_panic(which in any::<prop::sample::Index>(), changes in mutate::changes()) {
        let definition = pb::Definition::decode(&**which.get(recorded_once())).unwrap();
        let which = changes[0].at.index(definition.def.len());
        let op = mutate::apply(&definition.def[which], &changes);
        mutate::survive(&mutate::with_op(definition, which, op));
    }
}

fn recorded_once() -> &'static [Vec<u8>] {
    static RECORDED: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
    RECORDED.get_or_init(recorded)
}

/// A definition of one image and one exec, taken apart.
fn image_and_exec() -> pb::Definition {
    let mut graph = Graph::new();
    let image = graph.add(Source::image("docker.io/library/busybox:latest"), Metadata::default()).unwrap();
    let run = graph.add(Exec::new(image, "/", &["true"]), Metadata::named("run")).unwrap();
    pb::Definition::decode(&*graph.definition(run.into()).encode()).unwrap()
}

/// Why the definition is refused in which `change` was made to the exec.
fn refused(change: impl FnOnce(&mut pb::Op)) -> DecodeError {
    let definition = image_and_exec();
    let mut op = pb::Op::decode(&*definition.def[1]).unwrap();
    change(&mut op);
    Definition::decode(&mutate::with_op(definition, 1, op.encode_to_vec())).unwrap_err()
}

fn exec_of(op: &mut pb::Op) -> &mut pb::ExecOp {
    match &mut op.op {
        Some(pb::op::Op::Exec(exec)) => exec,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_index_outside_its_list_is_refused() {
    for index in [1, 7, i64::MAX, -2, i64::MIN] {
        let error = refused(|op| exec_of(op).mounts[0].input = index);
        assert_eq!(error, DecodeError::Index { what: "input", index });
    }
    for index in [-2, i64::MIN, i64::from(u32::MAX) + 1] {
        let error = refused(|op| exec_of(op).mounts[0].output = index);
        assert_eq!(error, DecodeError::Index { what: "output", index });
    }
    assert_eq!(refused(|op| op.inputs[0].index = -1), DecodeError::Index { what: "output", index: -1 });
}

#[test]
fn an_action_that_takes_a_later_result_is_refused() {
    let rm = |input| pb::FileAction {
        input,
        secondary_input: -1,
        output: 0,
        action: Some(pb::file_action::Action::Rm(pb::FileActionRm::default())),
    };
    for index in [1, 2, 3, i64::MAX] {
        let error = refused(|op| op.op = Some(pb::op::Op::File(pb::FileOp { actions: vec![rm(index)] })));
        assert_eq!(error, DecodeError::Index { what: "action input", index });
    }
}

#[test]
fn an_unknown_op_is_refused() {
    let error = refused(|op| op.op = None);
    assert!(matches!(error, DecodeError::UnknownOp(_)), "{error}");
}

#[test]
fn an_unknown_enumeration_value_is_refused() {
    assert_eq!(refused(|op| exec_of(op).network = 9), DecodeError::Value { what: "network mode", value: 9 });
    assert_eq!(refused(|op| exec_of(op).mounts[0].mount_type = 77), DecodeError::Value { what: "mount type", value: 77 });
}

#[test]
fn a_digest_that_is_none_is_refused() {
    let error = refused(|op| op.inputs[0].digest = "sha256:short".to_owned());
    assert!(matches!(error, DecodeError::Digest(_)), "{error}");
}

#[test]
fn an_input_that_is_not_there_is_refused() {
    let stranger = Digest::of(b"elsewhere");
    let error = refused(|op| op.inputs[0].digest = stranger.to_string());
    assert!(matches!(error, DecodeError::Graph(_)), "{error}");
    assert!(error.to_string().contains(&stranger.to_string()), "{error}");
}

#[test]
fn a_missing_target_is_refused() {
    let decode = |change: fn(&mut pb::Definition)| {
        let mut definition = image_and_exec();
        change(&mut definition);
        Definition::decode(&definition.encode_to_vec())
    };
    assert_eq!(Definition::decode(&[]), Err(DecodeError::Target));
    // The last entry is an op, not a target.
    assert_eq!(decode(|definition| drop(definition.def.pop())), Err(DecodeError::Target));
    // The target's vertex is not there.
    assert_eq!(decode(|definition| drop(definition.def.remove(1))), Err(DecodeError::Target));
    // The target names nothing.
    assert_eq!(decode(|definition| definition.def[2].clear()), Err(DecodeError::Target));
}

#[test]
fn two_metadata_entries_for_one_vertex_are_refused() {
    let definition = image_and_exec();
    let exec = Digest::of(&definition.def[1]);
    let mut bytes = definition.encode_to_vec();
    let again = pb::Definition {
        metadata: [(exec.to_string(), pb::OpMetadata { ignore_cache: true, ..Default::default() })].into(),
        ..Default::default()
    };
    again.encode(&mut bytes).unwrap();
    assert_eq!(Definition::decode(&bytes), Err(DecodeError::Metadata(exec)));
}

#[test]
fn the_kinds_that_are_generated_are_all_there_are() {
    // Where a kind is added this stops compiling, and `arbitrary` needs it too.
    let _ = |kind: OpKind, input: FileInput| {
        match kind {
            OpKind::Source(_) | OpKind::Exec(_) | OpKind::File(_) | OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Build(_) => {}
        }
        match input {
            FileInput::Scratch | FileInput::Edge(_) | FileInput::Action(_) => {}
        }
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..200 {
        let recipes = recipes().new_tree(&mut runner).unwrap().current();
        let (graph, _) = grow(&recipes);
        for vertex in graph.vertices() {
            let shown = format!("{:?}", vertex.op.kind);
            seen.insert(shown.split('(').next().unwrap().to_owned());
            for mount in ["Bind {", "Cache {", "Tmpfs {", "Secret {", "Ssh {", "Copy(", "Mkdir(", "Mkfile(", "Rm(", "Symlink("] {
                if shown.contains(mount) {
                    seen.insert(mount.to_owned());
                }
            }
        }
    }
    assert_eq!(seen.len(), 16, "{seen:?}");
}
