//! What may be reused for a vertex: the key of its cached result.
//!
//! Invariant: a key is made of content alone. Inputs enter by what they hold and not by how they
//! were made, so that a step whose inputs came out the same is not run again.
//!
//! | what | in the vertex's digest | in the cache key |
//! |---|---|---|
//! | the op, with its platform and constraints | yes | yes, without the inputs' digests |
//! | which vertices the inputs are | yes | no |
//! | what the inputs hold: paths, bytes, owners, modes, links, devices, attributes | no | yes |
//! | the inputs' times of change | no | no |
//! | metadata: names, groups | no | no |
//! | proxies, extra hosts' addresses, caches' names | yes | no |
//! | what secrets hold, progress, the number of processors | no | no |

use super::result::Ref;
use super::store::CacheKey;
use crate::op::{MountKind, OpKind};
use crate::{Vertex, llb};

/// Changes when an op's execution changes what it makes: old results are no longer found.
const GENERATION: &str = "op 1";

/// The field of `pb.Op` that names inputs.
const INPUTS: u64 = 1;

/// Makes the key of a vertex whose inputs are there; `content` is what a source is, outside the op.
pub(super) fn cache_key(vertex: &Vertex, inputs: &[Ref], content: &[u8]) -> CacheKey {
    let op = without_inputs(&plain(vertex));
    let inputs: Vec<String> = inputs.iter().map(|input| input.content().to_string()).collect();
    let parts = [&op[..], content].into_iter().chain(inputs.iter().map(String::as_bytes));
    CacheKey::of(GENERATION, parts)
}

/// Encodes an op without what does not change its result: the addresses of extra hosts, the names of
/// caches, proxies. An op with fields that are not known here stays as it was encoded.
fn plain(vertex: &Vertex) -> Vec<u8> {
    let mut op = vertex.op.clone();
    let inputs = op.kind.inputs();
    if let OpKind::Exec(exec) = &mut op.kind
        && *llb::encode_op(&vertex.op, &inputs) == *vertex.encoded
    {
        exec.proxy_env = None;
        exec.extra_hosts.iter_mut().for_each(|(_, address)| address.clear());
        for mount in &mut exec.mounts {
            if let MountKind::Cache { id, .. } = &mut mount.kind {
                id.clear();
            }
        }
        return llb::encode_op(&op, &inputs);
    }
    vertex.encoded.to_vec()
}

/// Leaves the inputs' fields out of an op's bytes, everything else being as it was encoded.
///
/// The bytes were decoded before, so that what does not parse cannot come here; should it, the op
/// counts as it is.
fn without_inputs(encoded: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(encoded.len());
    let mut rest = encoded;
    while !rest.is_empty() {
        let Some(length) = field(rest) else { return encoded.to_vec() };
        let (field, after) = rest.split_at(length);
        if !matches!(varint(field), Some((key, _)) if key >> 3 == INPUTS) {
            kept.extend_from_slice(field);
        }
        rest = after;
    }
    kept
}

/// Returns the length of the first field (protobuf's "Encoding": key, then a value by its type).
fn field(bytes: &[u8]) -> Option<usize> {
    let (key, start) = varint(bytes)?;
    let end = match key & 7 {
        0 => start + varint(&bytes[start..])?.1,
        1 => start + 8,
        2 => {
            let (length, prefix) = varint(&bytes[start..])?;
            (start + prefix).checked_add(usize::try_from(length).ok()?)?
        }
        5 => start + 4,
        _ => return None,
    };
    (end <= bytes.len()).then_some(end)
}

/// Reads a varint and returns it with its length.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Exec, Metadata, Mount, Platform, Source};
    use crate::{Digest, Graph};

    fn holding(text: &str) -> Ref {
        Ref::Layers { layers: Vec::new(), content: Digest::of(text.as_bytes()) }
    }

    fn exec(image: &str, arg: &str) -> Vertex {
        let mut graph = Graph::new();
        let image = graph.add(Source::image(image), Metadata::default()).unwrap();
        let op = Exec::new(image, "/", &[arg]).mount(Mount::readonly("/in", image));
        let exec = graph.add(crate::op::Op::on(Platform::new("linux", "amd64"), op), Metadata::default()).unwrap();
        graph.vertex(exec).unwrap().clone()
    }

    #[test]
    fn inputs_count_by_what_they_hold_and_not_by_how_they_were_made() {
        let (one, other) = (exec("docker.io/library/a:1", "x"), exec("docker.io/library/b:1", "x"));
        assert_ne!(one.digest, other.digest);
        assert_eq!(cache_key(&one, &[holding("tree")], b""), cache_key(&other, &[holding("tree")], b""));
        assert_ne!(cache_key(&one, &[holding("tree")], b""), cache_key(&one, &[holding("other")], b""));
    }

    #[test]
    fn the_op_and_a_sources_content_count() {
        let (one, other) = (exec("docker.io/library/a:1", "x"), exec("docker.io/library/a:1", "y"));
        assert_ne!(cache_key(&one, &[], b""), cache_key(&other, &[], b""));
        assert_ne!(cache_key(&one, &[], b""), cache_key(&one, &[], b"content"));
    }

    #[test]
    fn only_the_inputs_are_left_out() {
        let vertex = exec("docker.io/library/a:1", "x");
        let without = without_inputs(&vertex.encoded);
        assert!(without.len() < vertex.encoded.len() && vertex.encoded.ends_with(&without));
        for cut in 1..vertex.encoded.len() {
            without_inputs(&vertex.encoded[..cut]);
        }
        assert_eq!(without_inputs(&[0xff; 12]), [0xff; 12]);
    }
}
