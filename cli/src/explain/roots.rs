//! Which roots of two graphs' difference are consequences of what was found, and what ran though nothing in it changed.
//!
//! Invariant: a root is laid to roche itself unless a cause accounts for all that differs in it.

use std::collections::{BTreeMap, BTreeSet};

use super::causes::{Cause, Comparison, Kind, state};
use super::pair::Root;
use crate::document::{Action, Op, Ran, Vertex};

impl<'a> Comparison<'a> {
    /// Finds roots that none of the causes until here answers for.
    pub(super) fn roche(&self, causes: &[Cause]) -> Option<Cause> {
        let roots = self.pairs.roots();
        let named = self.named();
        let unanswered = roots.iter().filter(|root| !self.answered(root, causes, &named));
        let steps: BTreeSet<&str> = unanswered.map(Root::name).collect();
        let (was, is) = (self.before.roche.as_str(), self.now.roche.as_str());
        let config = causes.is_empty() && self.was.image.config != self.is.image.config;
        if steps.is_empty() && !config {
            return None;
        }
        let steps: Vec<&str> = steps.into_iter().collect();
        let what = if steps.is_empty() { "what it says in the image's config".to_owned() } else { steps.join(", ") };
        let text = if was == is {
            format!("roche itself changed, though both say {is}: {what}")
        } else {
            format!("roche {is} instead of {was}: {what}")
        };
        Some(Cause::new(Kind::Roche, "roche", text).values(Some(was), Some(is)))
    }

    /// Says whether a root is a consequence of a cause that was found.
    fn answered(&self, root: &Root<'_>, causes: &[Cause], named: &BTreeSet<&str>) -> bool {
        let caused = |kind: Kind| causes.iter().any(|cause| cause.kind == kind);
        let about = |what: &str| causes.iter().any(|cause| cause.what == what);
        let renamed = |role: &str| causes.iter().any(|cause| cause.what == role && cause.by.is_some() && self.renamed(role));
        let host = |ran: &Ran| ran.setting("build image").is_some_and(|setting| setting.value == roche_frontend::release::HOST);
        if host(self.before) != host(self.now) {
            // The two ways to compile have hardly a vertex in common.
            return true;
        }
        let machine = caused(Kind::Toolchain) || caused(Kind::Crates) || caused(Kind::TimeZones);
        match root {
            // Another way to compile, or another ground to stand on, is another graph.
            Root::Came(_) | Root::Went(_) if renamed("build image") || renamed("runtime image") => true,
            Root::Came(vertex) | Root::Went(vertex) => match &vertex.op {
                Op::Exec { args, .. } if args.iter().any(|arg| arg == "test") => about("lib.rs"),
                Op::Source { identifier, .. } if identifier.starts_with("local://") => about("time zones"),
                _ => false,
            },
            Root::Changed(was, is) => match (&was.op, &is.op) {
                _ if was.platform != is.platform && about("platform") => true,
                (Op::Source { identifier, .. }, Op::Source { .. }) => {
                    if identifier.starts_with("local://") {
                        machine
                    } else {
                        caused(Kind::Image) || about("platform")
                    }
                }
                (Op::File { actions: was }, Op::File { actions: is }) => {
                    let changed = contents(was, named) != contents(is, named);
                    !changed
                        && (caused(Kind::File) || caused(Kind::Certificates) || caused(Kind::TimeZones) || about("time zones"))
                        || (caused(Kind::Image) && (renamed("build image") || renamed("runtime image")))
                }
                (Op::Exec { args: a, env: e, mounts: m, .. }, Op::Exec { args: b, env: f, mounts: n, .. }) => {
                    let by_args = a == b || about("entrypoint") || renamed("runtime image") || caused(Kind::Toolchain);
                    let by_env = e == f || caused(Kind::Image) || caused(Kind::Toolchain);
                    let by_mounts = m == n || renamed("runtime image") || renamed("build image");
                    let something = a != b || e != f || m != n || caused(Kind::Image);
                    by_args && by_env && by_mounts && something
                }
                _ => false,
            },
        }
    }

    fn renamed(&self, role: &str) -> bool {
        let value = |ran: &'a Ran| ran.setting(role).map(|setting| &setting.value);
        value(self.before) != value(self.now)
    }

    /// Returns the digests of what users and machines bring, which steps lay out as it is.
    fn named(&self) -> BTreeSet<&'a str> {
        let files = self.was.function.iter().chain(&self.is.function).map(|file| file.digest.as_str());
        let materials = self.before.materials.values().chain(self.now.materials.values());
        files.chain(materials.map(|material| material.digest.as_str())).collect()
    }

    /// Finds out why vertices ran that are the same as before.
    pub(super) fn again(&self, causes: &[Cause]) -> Vec<Cause> {
        let mut causes_here = Vec::new();
        let no_cache = self.now.setting("cache").is_some_and(|cache| cache.value == "no");
        let known: BTreeMap<&str, &Vertex> =
            self.was.vertices.iter().filter_map(|vertex| Some((vertex.digest.as_deref()?, vertex))).collect();
        let ran_alike: Vec<(&Vertex, &Vertex)> = self
            .is
            .vertices
            .iter()
            .filter(|vertex| self.is_work(vertex) && state(vertex).is_some_and(|state| state == "ran" || state == "failed"))
            .filter_map(|vertex| Some((*known.get(vertex.digest.as_deref()?)?, vertex)))
            .collect();
        if no_cache {
            let text = "--no-cache had every step run again".to_owned();
            causes_here.push(Cause { by: Some("--no-cache".to_owned()), ..Cause::new(Kind::NoCache, "cache", text) });
            return causes_here;
        }
        let list = |done: bool| -> Vec<&str> {
            let was_done = |was: &Vertex| matches!(state(was), Some("ran" | "cached" | "unchanged"));
            ran_alike.iter().filter(|(was, _)| was_done(was) == done).map(|(_, is)| is.name.as_str()).collect()
        };
        let (gone, undone) = (list(true), list(false));
        // Another back end has a cache of its own, and an image without a digest moves unseen.
        let unseen = self.was.bases.iter().chain(&self.is.bases).any(|base| base.digest.is_none());
        let moved = causes.iter().any(|cause| cause.kind == Kind::BackEnd || (cause.kind == Kind::Image && unseen));
        if !gone.is_empty() && !moved {
            let text = if gone.len() == self.is.vertices.len() {
                "the cache had nothing of it any more".to_owned()
            } else {
                format!("the cache had them no more: {}", gone.join(", "))
            };
            causes_here.push(Cause::new(Kind::Cache, &gone.join(", "), text));
        }
        if !undone.is_empty() {
            let text = format!("the release before ended before they were done: {}", undone.join(", "));
            causes_here.push(Cause::new(Kind::Unfinished, &undone.join(", "), text));
        }
        causes_here
    }

    /// Says whether a vertex that runs does work that a cache saves. Daemons let sources and small files run whenever somebody
    /// needs them.
    fn is_work(&self, vertex: &Vertex) -> bool {
        let embedded = self.now.back_end.as_ref().is_some_and(|back_end| back_end.embedded);
        embedded || matches!(vertex.op, Op::Exec { .. })
    }
}

impl Root<'_> {
    /// Returns what people call the vertex.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Changed(_, vertex) | Self::Came(vertex) | Self::Went(vertex) => &vertex.name,
        }
    }
}

/// Returns the files that actions make and where, but for what is known by these digests.
fn contents<'a>(actions: &'a [Action], named: &BTreeSet<&str>) -> Vec<(&'a str, &'a str)> {
    let file = |action: &'a Action| match action {
        Action::Mkfile { path, content, .. } if !named.contains(content.digest.as_str()) => {
            Some((path.as_str(), content.digest.as_str()))
        }
        Action::Symlink { path, target, .. } => Some((path.as_str(), target.as_str())),
        _ => None,
    };
    actions.iter().filter_map(file).collect()
}
