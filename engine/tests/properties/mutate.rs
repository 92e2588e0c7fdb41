//! Bytes that are nearly definitions, and what decoding them may do.

use bollard_buildkit_proto::pb;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message as _;
use roche_engine::{Definition, Digest};

/// One change to a run of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Where it starts.
    pub(crate) at: Index,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Set(u8),
    Flip(u8),
    Insert(Vec<u8>),
    Remove(usize),
    Repeat(usize),
}

/// One to eight changes.
pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
    let kind = prop_oneof![
        any::<u8>().prop_map(Kind::Set),
        (0..8_u8).prop_map(|bit| Kind::Flip(1 << bit)),
        proptest::collection::vec(any::<u8>(), 1..12).prop_map(Kind::Insert),
        (1..40_usize).prop_map(Kind::Remove),
        (1..200_usize).prop_map(Kind::Repeat),
    ];
    proptest::collection::vec((any::<Index>(), kind).prop_map(|(at, kind)| Change { at, kind }), 1..8)
}

pub(crate) fn apply(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for Change { at, kind } in changes {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let start = at.index(bytes.len());
        let end = |len: usize| (start + len).min(bytes.len());
        match kind {
            Kind::Set(value) => bytes[start] = *value,
            Kind::Flip(bit) => bytes[start] ^= bit,
            Kind::Insert(more) => drop(bytes.splice(start..start, more.iter().copied())),
            Kind::Remove(len) => drop(bytes.drain(start..end(*len))),
            Kind::Repeat(len) => {
                let again = bytes[start..end(*len)].to_vec();
                drop(bytes.splice(start..start, again));
            }
        }
    }
    bytes
}

/// Decodes; what is taken for a definition must then be one in every way.
pub(crate) fn survive(bytes: &[u8]) {
    let Ok(definition) = Definition::decode(bytes) else { return };
    for vertex in definition.vertices() {
        assert_eq!(vertex.digest, Digest::of(&vertex.encoded));
        let _ = (vertex.name(), vertex.op.kind.inputs());
    }
    let _ = definition.caps();
    let again = definition.encode();
    assert_eq!(Definition::decode(&again).as_ref(), Ok(&definition));
}

/// Encodes `definition` with `op` in the place of its op `which`. The digests that depend on it
/// are put right, for else every change would end as an unknown input.
pub(crate) fn with_op(mut definition: pb::Definition, which: usize, op: Vec<u8>) -> Vec<u8> {
    let mut renamed: Vec<(String, String)> = Vec::new();
    let mut op = Some(op);
    for (i, bytes) in definition.def.iter_mut().enumerate() {
        let before = Digest::of(bytes).to_string();
        if i == which {
            *bytes = op.take().expect("one op is replaced once");
        }
        for (old, new) in &renamed {
            replace(bytes, old.as_bytes(), new.as_bytes());
        }
        renamed.push((before, Digest::of(bytes).to_string()));
    }
    for (old, new) in renamed {
        if let Some(metadata) = definition.metadata.remove(&old) {
            definition.metadata.insert(new, metadata);
        }
    }
    definition.encode_to_vec()
}

/// Digests have one length, so that no length prefix changes.
fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    for at in 0..bytes.len().saturating_sub(old.len() - 1) {
        if bytes[at..].starts_with(old) {
            bytes[at..at + old.len()].copy_from_slice(new);
        }
    }
}
