//! LLB: the bytes in which BuildKit's daemons and clients exchange graphs.
//!
//! Invariant: [`encode_op`] emits exactly what BuildKit's Go client emits for the same op, so
//! vertices have the digests that Go clients give them and caches are shared; decoding keeps the
//! bytes, so what was read is never re-encoded. Source: `solver/pb/ops.proto` and
//! `client/llb/{exec,fileop,source,merge,diff,marshal}.go`.

mod decode;
mod encode;

pub(crate) use decode::{decode_definition, decode_op};
pub(crate) use encode::{encode_definition, encode_op};

use crate::op::{Op, OpKind};

/// Says why bytes are not a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protobuf of the expected message.
    #[error("the bytes are not LLB: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// A vertex has no op, or one that is not known.
    #[error("vertex {0} has no op that is known here")]
    UnknownOp(crate::Digest),
    /// An index points outside the list that it indexes.
    #[error("{what} {index} is out of range")]
    Index {
        /// What the index counts.
        what: &'static str,
        /// Its value.
        index: i64,
    },
    /// An enumeration has a value that is not known.
    #[error("{what} {value} is not known")]
    Value {
        /// The enumeration.
        what: &'static str,
        /// The value.
        value: i64,
    },
    /// A digest is not one.
    #[error(transparent)]
    Digest(#[from] crate::digest::DigestError),
    /// A vertex has more than one metadata entry.
    #[error("vertex {0} has two metadata entries")]
    Metadata(crate::Digest),
    /// The last entry does not name the one output that is asked for.
    #[error("the last entry of the definition does not name a target")]
    Target,
    /// The vertices do not make a graph.
    #[error(transparent)]
    Graph(#[from] crate::graph::GraphError),
}

/// Says what an op lacks that every solver asks for.
pub(crate) fn missing(op: &Op) -> Option<&'static str> {
    match &op.kind {
        OpKind::Exec(exec) if exec.args.is_empty() => Some("it has no arguments"),
        OpKind::Exec(exec) if exec.cwd.is_empty() => Some("it has no working directory"),
        OpKind::File(file) if file.actions.is_empty() => Some("it has no action"),
        OpKind::Merge(merge) if merge.inputs.len() < 2 => Some("a merge takes at least two trees"),
        _ => None,
    }
}
