//! The graph: vertices by their digests, petgraph behind one type.
//!
//! Invariant: the graph only grows, by [`Graph::add`] and [`Graph::add_encoded`]; a vertex's
//! inputs are in the graph before it, so the order of insertion is a topological order and no
//! walk needs recursion.

use std::collections::HashMap;
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::Digest;
use crate::llb::{self, DecodeError};
use crate::op::{Edge, Metadata, Op};

/// An op in a graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// The sha256 of [`Vertex::encoded`].
    pub digest: Digest,
    /// What the vertex does.
    pub op: Op,
    /// The op as `pb.Op` bytes; for a decoded vertex these are the bytes that were read, so it
    /// keeps its digest even where they hold fields that [`Op`] has no place for.
    pub encoded: Box<[u8]>,
    /// What is known beside the op.
    pub metadata: Metadata,
}

impl Vertex {
    /// Returns the name that progress shows: the given one, else the op's summary.
    pub fn name(&self) -> String {
        self.metadata.name().map_or_else(|| self.op.kind.summary(), str::to_owned)
    }
}

/// Says why a vertex was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An input is not in the graph.
    #[error("{op} takes {input} as an input, which is not in the graph; add inputs first")]
    UnknownInput {
        /// The op's summary.
        op: String,
        /// The input.
        input: Digest,
    },
    /// An op lacks what every solver asks for.
    #[error("{op} is incomplete: {missing}")]
    Incomplete {
        /// The op's summary.
        op: String,
        /// What it lacks.
        missing: &'static str,
    },
}

/// A directed acyclic graph of content-addressed vertices.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Edges point from an input to the vertex that takes it in; the weight is the output.
    dag: DiGraph<Arc<Vertex>, u32>,
    /// Never iterated: its order is not stable.
    index: HashMap<Digest, NodeIndex>,
}

impl Graph {
    /// Makes an empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a vertex and returns its digest; an equal op that is there already stays one vertex,
    /// and takes on `metadata` as well.
    ///
    /// ```
    /// use roche_engine::op::{Exec, Metadata, Op, Platform, Source};
    /// use roche_engine::Graph;
    ///
    /// # fn main() -> Result<(), roche_engine::GraphError> {
    /// let platform = Platform::new("linux", "amd64");
    /// let mut graph = Graph::new();
    /// let image = Source::image("docker.io/library/alpine:3.20");
    /// let image = graph.add(Op::on(platform.clone(), image), Metadata::default())?;
    /// let run = Exec::new(image, "/", &["true"]);
    /// let run = graph.add(Op::on(platform, run), Metadata::named("nothing much"))?;
    /// assert_eq!(graph.definition(run.into()).vertices().count(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn add(&mut self, op: impl Into<Op>, metadata: Metadata) -> Result<Digest, GraphError> {
        let op = op.into();
        if let Some(missing) = llb::missing(&op) {
            return Err(GraphError::Incomplete { op: op.kind.summary(), missing });
        }
        let inputs = op.kind.inputs();
        let encoded = llb::encode_op(&op, &inputs).into_boxed_slice();
        self.insert(Vertex { digest: Digest::of(&encoded), op, encoded, metadata }, &inputs)
    }

    /// Adds a vertex by its `pb.Op` bytes, which it keeps.
    pub fn add_encoded(&mut self, encoded: &[u8], metadata: Metadata) -> Result<Digest, DecodeError> {
        let op = llb::decode_op(encoded)?;
        Ok(self.add_decoded(Vertex { digest: Digest::of(encoded), op, encoded: encoded.into(), metadata })?)
    }

    /// Adds a vertex whose digest and op are those of its bytes.
    pub(crate) fn add_decoded(&mut self, vertex: Vertex) -> Result<Digest, GraphError> {
        let inputs = vertex.op.kind.inputs();
        self.insert(vertex, &inputs)
    }

    fn insert(&mut self, vertex: Vertex, inputs: &[Edge]) -> Result<Digest, GraphError> {
        let digest = vertex.digest;
        if let Some(&node) = self.index.get(&digest) {
            Arc::make_mut(&mut self.dag[node]).metadata.absorb(vertex.metadata);
            return Ok(digest);
        }
        let known = |edge: &Edge| match self.index.get(&edge.vertex) {
            Some(&node) => Ok((node, edge.output)),
            None => Err(GraphError::UnknownInput { op: vertex.op.kind.summary(), input: edge.vertex }),
        };
        let inputs = inputs.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        let node = self.dag.add_node(Arc::new(vertex));
        for (input, output) in inputs {
            self.dag.add_edge(input, node, output);
        }
        self.index.insert(digest, node);
        Ok(digest)
    }

    /// Returns a vertex.
    pub fn vertex(&self, digest: Digest) -> Option<&Vertex> {
        self.index.get(&digest).map(|&node| &*self.dag[node])
    }

    /// Returns all vertices, inputs before what takes them in.
    pub fn vertices(&self) -> impl Iterator<Item = &Vertex> {
        self.dag.node_weights().map(|vertex| &**vertex)
    }

    /// Returns the vertices that take in an output of `digest`, in the order of insertion.
    pub fn dependents(&self, digest: Digest) -> Vec<Digest> {
        let Some(&node) = self.index.get(&digest) else { return Vec::new() };
        let mut nodes: Vec<NodeIndex> = self.dag.neighbors_directed(node, Direction::Outgoing).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.into_iter().map(|node| self.dag[node].digest).collect()
    }

    /// Cuts out what `target` needs, in the order of insertion.
    ///
    /// # Panics
    /// Where `target` was never added to this graph.
    pub fn definition(&self, target: Edge) -> Definition {
        let root = *self.index.get(&target.vertex).expect("the target was returned by this graph's add");
        let mut needed = vec![false; self.dag.node_count()];
        let mut pending = vec![root];
        while let Some(node) = pending.pop() {
            if !std::mem::replace(&mut needed[node.index()], true) {
                pending.extend(self.dag.neighbors_directed(node, Direction::Incoming));
            }
        }
        let nodes = self.dag.node_indices().filter(|node| needed[node.index()]);
        Definition { vertices: nodes.map(|node| Arc::clone(&self.dag[node])).collect(), target }
    }
}

/// What a solver is given: a target and every vertex that it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    vertices: Vec<Arc<Vertex>>,
    target: Edge,
}

impl Definition {
    /// Returns the vertices, inputs before what takes them in.
    pub fn vertices(&self) -> impl ExactSizeIterator<Item = &Vertex> {
        self.vertices.iter().map(|vertex| &**vertex)
    }

    /// Returns the vertices in the same order, to be kept.
    #[cfg(target_os = "linux")]
    pub(crate) fn shared_vertices(&self) -> &[Arc<Vertex>] {
        &self.vertices
    }

    /// Returns the output that is asked for.
    pub fn target(&self) -> Edge {
        self.target
    }

    /// Encodes the definition as `pb.Definition` bytes, the same for equal definitions.
    pub fn encode(&self) -> Vec<u8> {
        llb::encode_definition(self)
    }

    /// Decodes `pb.Definition` bytes. Every vertex keeps its bytes and so its digest.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        llb::decode_definition(bytes)
    }

    /// Returns the capabilities that a solver needs for the whole, sorted.
    pub fn caps(&self) -> Vec<String> {
        let mut caps: Vec<String> = self
            .vertices()
            .flat_map(|v| v.op.kind.caps().into_iter().map(str::to_owned).chain(v.metadata.caps.iter().map(|c| c.to_string())))
            .collect();
        caps.sort_unstable();
        caps.dedup();
        caps
    }

    /// Returns the same definition in which no vertex may be taken from a cache.
    pub fn without_cache(&self) -> Self {
        let mut definition = self.clone();
        for vertex in &mut definition.vertices {
            Arc::make_mut(vertex).metadata.ignore_cache = true;
        }
        definition
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Exec, Merge, Mount, Platform, Source};

    fn exec(root: Digest, arg: &str) -> Op {
        Op::on(Platform::new("linux", "amd64"), Exec::new(root, "/", &[arg]))
    }

    fn image(graph: &mut Graph) -> Digest {
        graph.add(Source::image("docker.io/library/a:1"), Metadata::default()).unwrap()
    }

    #[test]
    fn equal_ops_are_one_vertex_and_share_metadata() {
        let mut graph = Graph::new();
        let root = image(&mut graph);
        let first = graph.add(exec(root, "x"), Metadata::default()).unwrap();
        let second = graph.add(exec(root, "x"), Metadata::named("named later")).unwrap();
        assert_eq!(first, second);
        assert_eq!(graph.vertices().count(), 2);
        assert_eq!(graph.vertex(first).unwrap().name(), "named later");
    }

    #[test]
    fn an_unknown_input_is_refused() {
        let mut graph = Graph::new();
        let stranger = Digest::of(b"elsewhere");
        let error = graph.add(exec(stranger, "x"), Metadata::default()).unwrap_err();
        assert!(matches!(error, GraphError::UnknownInput { input, .. } if input == stranger));
    }

    #[test]
    fn an_exec_without_arguments_is_refused() {
        let mut graph = Graph::new();
        let root = image(&mut graph);
        let error = graph.add(Exec::new(root, "/", &[]), Metadata::default()).unwrap_err();
        assert!(error.to_string().contains("no arguments"), "{error}");
    }

    #[test]
    fn unrelated_vertices_never_change_a_definition() {
        let mut graph = Graph::new();
        let root = image(&mut graph);
        let wanted = graph.add(exec(root, "wanted"), Metadata::default()).unwrap();
        let before = graph.definition(wanted.into()).encode();
        graph.add(exec(wanted, "later"), Metadata::default()).unwrap();
        graph.add(exec(root, "beside"), Metadata::default()).unwrap();
        assert_eq!(graph.definition(wanted.into()).encode(), before);
    }

    #[test]
    fn dependents_are_listed_once_each() {
        let mut graph = Graph::new();
        let root = image(&mut graph);
        let a = graph.add(exec(root, "a"), Metadata::default()).unwrap();
        let twice = Exec::new(root, "/", &["b"]).mount(Mount::readonly("/other", root));
        let b = graph.add(twice, Metadata::default()).unwrap();
        let m = graph.add(Merge { inputs: vec![root.into(), root.into()] }, Metadata::default()).unwrap();
        assert_eq!(graph.dependents(root), [a, b, m]);
        assert!(graph.dependents(m).is_empty());
    }

    #[test]
    fn a_chain_and_a_fan_of_100_000_fit_a_small_stack() {
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(|| {
                let mut graph = Graph::new();
                let root = image(&mut graph);
                let mut last = root;
                for i in 0..100_000 {
                    last = graph.add(exec(last, &i.to_string()), Metadata::default()).unwrap();
                }
                let definition = graph.definition(last.into());
                assert_eq!(definition.vertices().len(), 100_001);
                assert_eq!(Definition::decode(&definition.encode()).unwrap().target(), last.into());

                let mut fan = Graph::new();
                let root = image(&mut fan);
                let arms =
                    (0..100_000).map(|i| Edge::from(fan.add(exec(root, &i.to_string()), Metadata::default()).unwrap())).collect();
                let all = fan.add(Merge { inputs: arms }, Metadata::default()).unwrap();
                assert_eq!(fan.definition(all.into()).vertices().len(), 100_002);
                assert_eq!(fan.dependents(root).len(), 100_000);
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
