//! Pairs the vertices of two documents, from their targets downwards.
//!
//! Invariant: a vertex is paired at most once, and the targets always are. A vertex is a *root* of the difference where its own op,
//! its inputs left out, is another one than its partner's, or where it has no partner; what is no root and has another digest
//! merely follows.

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Action, Document, Mount, Op, Vertex};

/// Inputs of a vertex that are compared one by one; those of one with more are paired in order.
const COMPARED: usize = 100;

/// Two graphs beside each other.
pub(super) struct Pairs<'a> {
    was: &'a Document,
    is: &'a Document,
    /// Partners in the old document, by ids of the new one.
    partners: BTreeMap<usize, usize>,
}

/// A root of the difference.
#[derive(Clone, Copy, Debug)]
pub(super) enum Root<'a> {
    /// It does something else.
    Changed(&'a Vertex, &'a Vertex),
    /// It was not there.
    Came(&'a Vertex),
    /// It is not there any more.
    Went(&'a Vertex),
}

impl<'a> Pairs<'a> {
    /// Pairs two documents; ids that lead nowhere are left alone.
    pub(super) fn of(was: &'a Document, is: &'a Document) -> Self {
        let mut pairs = Self { was, is, partners: BTreeMap::new() };
        let mut waiting = vec![(was.target.vertex, is.target.vertex)];
        let mut taken = BTreeSet::new();
        while let Some((a, b)) = waiting.pop() {
            if was.vertices.get(a).is_none() || is.vertices.get(b).is_none() {
                continue;
            }
            if pairs.partners.contains_key(&b) || taken.contains(&a) {
                continue;
            }
            pairs.partners.insert(b, a);
            taken.insert(a);
            waiting.extend(pairs.inputs(a, b));
        }
        pairs
    }

    /// Pairs the inputs of a pair: those with the same digest, then those that do the same kind of thing, also across a vertex
    /// that was put between, then what is left in order.
    fn inputs(&self, a: usize, b: usize) -> Vec<(usize, usize)> {
        let (mut old, mut new) = (distinct(self.was, a), distinct(self.is, b));
        if old.len().max(new.len()) > COMPARED {
            return old.into_iter().zip(new).collect();
        }
        let (was, is) = (&self.was.vertices, &self.is.vertices);
        let alike = |a: usize, b: usize| role(&was[a]) == role(&is[b]);
        let mut found = Vec::new();
        let mut take = |same: &dyn Fn(usize, usize) -> Option<(usize, usize)>| {
            new.retain(|b| {
                let partner = old.iter().enumerate().find_map(|(at, a)| Some((at, same(*a, *b)?)));
                if let Some((at, pair)) = partner {
                    old.remove(at);
                    found.push(pair);
                }
                partner.is_none()
            });
        };
        take(&|a, b| (was[a].digest.is_some() && was[a].digest == is[b].digest).then_some((a, b)));
        take(&|a, b| alike(a, b).then_some((a, b)));
        take(&|a, b| distinct(self.is, b).into_iter().find(|b| alike(a, *b)).map(|b| (a, b)));
        take(&|a, b| distinct(self.was, a).into_iter().find(|a| alike(*a, b)).map(|a| (a, b)));
        found.extend(old.into_iter().zip(new).filter(|(a, b)| kind(&was[*a]) == kind(&is[*b])));
        found
    }

    /// Returns a vertex's partner in the old document.
    pub(super) fn partner(&self, id: usize) -> Option<&'a Vertex> {
        self.was.vertices.get(*self.partners.get(&id)?)
    }

    /// Returns the roots: those of the new document, inputs first, then what went.
    pub(super) fn roots(&self) -> Vec<Root<'a>> {
        let mut roots = Vec::new();
        for vertex in &self.is.vertices {
            match self.partner(vertex.id) {
                None => roots.push(Root::Came(vertex)),
                Some(was) if self.is_root(was, vertex) => roots.push(Root::Changed(was, vertex)),
                Some(_) => {}
            }
        }
        let kept: BTreeSet<usize> = self.partners.values().copied().collect();
        roots.extend(self.was.vertices.iter().filter(|vertex| !kept.contains(&vertex.id)).map(Root::Went));
        roots
    }

    /// Returns the vertices that changed and are no roots, inputs first.
    pub(super) fn followers(&self) -> Vec<&'a Vertex> {
        let follows = |vertex: &&Vertex| {
            self.partner(vertex.id).is_some_and(|was| was.digest != vertex.digest && !self.is_root(was, vertex))
        };
        self.is.vertices.iter().filter(follows).collect()
    }

    fn is_root(&self, was: &Vertex, is: &Vertex) -> bool {
        if (&was.digest, was.digest.is_some()) == (&is.digest, true) {
            return false;
        }
        // What a document leaves out of an op is still in its digest.
        let digest = |document: &Document, id: usize| document.vertices.get(id).and_then(|vertex| vertex.digest.clone());
        let same_inputs = was.inputs.len() == is.inputs.len()
            && was.inputs.iter().zip(&is.inputs).all(|(a, b)| {
                let (a, b) = (digest(self.was, a.vertex), digest(self.is, b.vertex));
                a.is_some() && a == b
            });
        own(was) != own(is) || (same_inputs && was.digest.is_some() && is.digest.is_some())
    }
}

/// Returns the vertices that a vertex takes in, each once.
fn distinct(document: &Document, id: usize) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let mut ids = Vec::new();
    for edge in document.vertices.get(id).into_iter().flat_map(|vertex| &vertex.inputs) {
        // Inputs come first; what says otherwise is no graph.
        if edge.vertex < id && seen.insert(edge.vertex) {
            ids.push(edge.vertex);
        }
    }
    ids
}

/// Says what kind of thing a vertex does: its kind, and the first word of its name, which says what with.
fn role(vertex: &Vertex) -> (u8, &str) {
    (kind(vertex), vertex.name.split(' ').next().unwrap_or_default())
}

fn kind(vertex: &Vertex) -> u8 {
    match vertex.op {
        Op::Source { .. } => 0,
        Op::Exec { .. } => 1,
        Op::File { .. } => 2,
        Op::Merge => 3,
        Op::Diff => 4,
        Op::Build => 5,
    }
}

/// Returns what a vertex does by itself, its inputs left out.
fn own(vertex: &Vertex) -> (Op, Option<String>) {
    let mut op = vertex.op.clone();
    match &mut op {
        Op::Exec { mounts, .. } => {
            mounts.iter_mut().for_each(|Mount { source, .. }| forget(source));
        }
        Op::File { actions } => {
            for action in actions {
                if let Action::Copy { from, .. } = action {
                    forget(from);
                }
            }
        }
        _ => {}
    }
    (op, vertex.platform.clone())
}

/// Keeps that there is an input, and which of its results, not which vertex it is.
fn forget(edge: &mut Option<crate::document::Edge>) {
    if let Some(edge) = edge {
        edge.vertex = 0;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A document of vertices: a name, what it does, and its inputs.
    fn document(vertices: &[(&str, Value, &[usize])]) -> Document {
        let mut digests: Vec<String> = Vec::new();
        let mut told: Vec<Value> = Vec::new();
        for (id, (name, op, inputs)) in vertices.iter().enumerate() {
            let below: Vec<&str> = inputs.iter().map(|input| digests[*input].as_str()).collect();
            let digest = roche_engine::Digest::of(format!("{op}{below:?}").as_bytes()).to_string();
            let edges: Vec<Value> = inputs.iter().map(|input| json!({ "vertex": input, "output": 0 })).collect();
            let mut vertex = json!({ "id": id, "name": name, "digest": digest, "inputs": edges });
            vertex.as_object_mut().unwrap().extend(op.as_object().unwrap().clone());
            told.push(vertex);
            digests.push(digest);
        }
        let document = json!({
            "schemaVersion": 1, "resolved": true, "unresolved": [], "image": {"names": [], "platform": "", "config": {}},
            "function": [], "bases": [], "stages": [], "vertices": told, "contents": [], "notices": [],
            "target": {"vertex": vertices.len() - 1, "output": 0},
        });
        serde_json::from_value(document).unwrap()
    }

    fn source(of: &str) -> Value {
        json!({ "kind": "source", "identifier": of })
    }

    fn exec(arg: &str) -> Value {
        json!({ "kind": "exec", "args": [arg], "env": [], "cwd": "/", "user": "", "network": "none", "mounts": [] })
    }

    /// The names of the roots, with a sign, and of what follows.
    fn compared(was: &Document, is: &Document) -> (Vec<String>, Vec<String>) {
        let pairs = Pairs::of(was, is);
        let root = |root: Root<'_>| match root {
            Root::Changed(_, is) => format!("~{}", is.name),
            Root::Came(is) => format!("+{}", is.name),
            Root::Went(was) => format!("-{}", was.name),
        };
        let followers = pairs.followers().into_iter().map(|vertex| vertex.name.clone()).collect();
        (pairs.roots().into_iter().map(root).collect(), followers)
    }

    #[test]
    fn a_change_has_one_root_and_what_stands_on_it_follows() {
        let graph = |base: &str, arg: &str| {
            document(&[
                ("build image", source(base), &[]),
                ("function f", exec("f"), &[]),
                ("compile it", exec(arg), &[0, 1]),
                ("image files", exec("copy"), &[2]),
            ])
        };
        let was = graph("a", "make");
        assert_eq!(compared(&was, &was), (vec![], vec![]));
        let (roots, followers) = compared(&was, &graph("b", "make"));
        assert_eq!((roots, followers), (vec!["~build image".into()], vec!["compile it".into(), "image files".into()]));
        let (roots, followers) = compared(&was, &graph("a", "other"));
        assert_eq!((roots, followers), (vec!["~compile it".into()], vec!["image files".into()]));
        let (roots, _) = compared(&was, &graph("b", "other"));
        assert_eq!(roots, ["~build image", "~compile it"]);
    }

    #[test]
    fn a_vertex_put_between_two_is_new_and_the_two_stay_a_pair() {
        let was = document(&[("compile it", exec("make"), &[]), ("image files", exec("copy"), &[0])]);
        let is =
            document(&[("compile it", exec("make"), &[]), ("test it", exec("test"), &[0]), ("image files", exec("copy"), &[1])]);
        assert_eq!(compared(&was, &is), (vec!["+test it".into()], vec!["image files".into()]));
        assert_eq!(compared(&is, &was), (vec!["-test it".into()], vec!["image files".into()]));
    }

    #[test]
    fn edges_that_lead_nowhere_or_in_circles_end() {
        let mut was = document(&[("a x", exec("a"), &[]), ("b x", exec("b"), &[0])]);
        was.vertices[0].inputs = vec![crate::document::Edge { vertex: 1, output: 0 }];
        was.vertices[1].inputs.push(crate::document::Edge { vertex: 999, output: 0 });
        let is = document(&[("a x", exec("a"), &[])]);
        assert_eq!(compared(&was, &is).0.len(), 2);
        was.target.vertex = 999;
        assert_eq!(compared(&was, &is).0, ["+a x", "-a x", "-b x"]);
    }
}
