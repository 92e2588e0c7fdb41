//! What made a release another one than the release before it.
//!
//! 1. What both records say outright is compared: files, images, toolchain, settings, back end.
//! 2. The roots of the graphs' difference are laid at the door of one of these; what nobody answers for, roche's own steps do.
//! 3. Vertices that are the same and ran all the same had a reason that is not in the graph: the cache.
//!
//! Invariant: a root is never left out; where there is no cause, nothing that a release is made of has changed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::lines::{self, Range};
use super::pair::{Pairs, Root};
use crate::document::{Action, Base, Document, Op, Outcome, Ran, Setting, SourceFile, Vertex};

/// Why two releases differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cause {
    pub(super) kind: Kind,
    /// What it is about: a file, `build image`, `label`, …
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) was: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) is: Option<String>,
    /// Who decided it, where somebody did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by: Option<String>,
    /// Where a file changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lines: Vec<Range>,
    /// The cause in a sentence.
    pub(super) text: String,
}

/// The kinds of causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Kind {
    /// A file of the project.
    File,
    /// A base image.
    Image,
    /// The machine's toolchain.
    Toolchain,
    /// The crates.
    Crates,
    /// The machine's certificate authorities.
    Certificates,
    /// The machine's time zones.
    TimeZones,
    /// A setting that steps depend on.
    Setting,
    /// A setting that the image's config or name depends on, and no step.
    Config,
    /// roche itself.
    Roche,
    /// What builds.
    BackEnd,
    /// `--no-cache`.
    NoCache,
    /// A result that was known and is not any more.
    Cache,
    /// A step that was not done the last time.
    Unfinished,
}

impl Cause {
    fn new(kind: Kind, what: &str, text: String) -> Self {
        Self { kind, what: what.to_owned(), was: None, is: None, by: None, lines: Vec::new(), text }
    }

    fn values(self, was: Option<&str>, is: Option<&str>) -> Self {
        Self { was: was.map(str::to_owned), is: is.map(str::to_owned), ..self }
    }
}

/// Two records of releases.
pub(super) struct Comparison<'a> {
    pub(super) was: &'a Document,
    pub(super) is: &'a Document,
    pub(super) before: &'a Ran,
    pub(super) now: &'a Ran,
    pub(super) pairs: Pairs<'a>,
}

impl<'a> Comparison<'a> {
    /// Compares two documents that have releases.
    pub(super) fn of(was: &'a Document, is: &'a Document) -> Option<Self> {
        let (before, now) = (was.release.as_ref()?, is.release.as_ref()?);
        Some(Self { was, is, before, now, pairs: Pairs::of(was, is) })
    }

    /// Finds the causes, the nearest to the user's hand first.
    pub(super) fn causes(&self) -> Vec<Cause> {
        let mut causes = self.files();
        causes.extend(["build image", "runtime image"].iter().filter_map(|role| self.image(role)));
        causes.extend(self.materials());
        causes.extend(self.settings());
        causes.extend(self.back_end());
        if self.was.vertices.is_empty() || self.is.vertices.is_empty() {
            return causes;
        }
        causes.extend(self.roche(&causes));
        causes.extend(self.again(&causes));
        causes
    }

    fn files(&self) -> Vec<Cause> {
        let (was, is) = (&self.was.function, &self.is.function);
        let mut causes = Vec::new();
        for file in is {
            let name = base_name(&file.path);
            match was.iter().find(|old| base_name(&old.path) == name) {
                None => causes.push(Cause::new(Kind::File, name, format!("{name} came")).values(None, Some(&file.digest))),
                Some(old) if old.digest != file.digest => causes.push(changed(name, old, file)),
                Some(_) => {}
            }
        }
        let gone = was.iter().filter(|old| !is.iter().any(|file| base_name(&file.path) == base_name(&old.path)));
        causes.extend(gone.map(|old| {
            let name = base_name(&old.path);
            Cause::new(Kind::File, name, format!("{name} went")).values(Some(&old.digest), None)
        }));
        causes
    }

    /// Compares who is what the function is compiled in, or what the image stands on.
    fn image(&self, role: &str) -> Option<Cause> {
        let (was, is) = (self.before.setting(role)?, self.now.setting(role)?);
        if was.value != is.value {
            let by = is.decided();
            let text = format!("the {role} is {}, named by {by}, instead of {}, named by {}", name(is), name(was), was.decided());
            let cause = Cause::new(Kind::Image, role, text).values(Some(&was.value), Some(&is.value));
            return Some(Cause { by: Some(by), ..cause });
        }
        let (old, new) = (base(self.was, &was.value)?, base(self.is, &is.value)?);
        let (old_digest, new_digest, of) = match (&old.digest, &new.digest) {
            (Some(old), Some(new)) => (old, new, ""),
            // Nobody but the back end knows such an image, and it has only its config's digest.
            (None, None) => (old.config_digest.as_ref()?, new.config_digest.as_ref()?, " (image ids)"),
            (Some(old), None) => (old, new.config_digest.as_ref()?, ""),
            (None, Some(new)) => (old.config_digest.as_ref()?, new, ""),
        };
        if old_digest == new_digest {
            return None;
        }
        let (from, to) = (Document::short(old_digest), Document::short(new_digest));
        let text = format!("the {role} {} moved from {from} to {to}{of}", name(is));
        let cause = Cause::new(Kind::Image, role, text).values(Some(old_digest), Some(new_digest));
        Some(Cause { by: Some(is.decided()), ..cause })
    }

    fn materials(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (name, kind, what) in [
            ("toolchain", Kind::Toolchain, "toolchain"),
            ("crates", Kind::Crates, "crates"),
            ("certificates", Kind::Certificates, "certificate authorities"),
            ("timeZones", Kind::TimeZones, "time zones"),
        ] {
            let (was, is) = (self.before.materials.get(name), self.now.materials.get(name));
            let text = match (was, is) {
                (Some(was), Some(is)) if was.digest == is.digest => continue,
                (Some(was), Some(is)) if was.version != is.version => {
                    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "another one".to_owned());
                    format!("this machine's {what} is {} instead of {}", version(&is.version), version(&was.version))
                }
                (Some(was), Some(is)) => {
                    let (from, to) = (Document::short(&was.digest), Document::short(&is.digest));
                    let version = is.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
                    format!("this machine's {what}{version} changed, from {from} to {to}")
                }
                // Which of the two compiles is a matter of the build image, and --tzdata is a setting.
                (None, Some(_)) if name == "certificates" && !self.before.materials.is_empty() => {
                    "this machine has certificate authorities now".to_owned()
                }
                (Some(_), None) if name == "certificates" && !self.now.materials.is_empty() => {
                    "this machine has no certificate authorities any more".to_owned()
                }
                _ => continue,
            };
            let digest = |material: Option<&crate::document::Material>| material.map(|material| material.digest.clone());
            let (was, is) = (digest(was), digest(is));
            causes.push(Cause::new(kind, name, text).values(was.as_deref(), is.as_deref()));
        }
        causes
    }

    /// Compares the other settings. A release that stands on nothing is started directly: that is no decision of its own.
    fn settings(&self) -> Vec<Cause> {
        let mut causes = Vec::new();
        for (what, flag) in [("platform", "--platform"), ("entrypoint", "--entrypoint"), ("time zones", "--tzdata")] {
            let (Some(was), Some(is)) = (self.before.setting(what), self.now.setting(what)) else { continue };
            if was.value == is.value || (was.from == "default" && is.from == "default") {
                continue;
            }
            let text = format!("{flag}: {what} {} instead of {}", is.value, was.value);
            let cause = Cause::new(Kind::Setting, what, text).values(Some(&was.value), Some(&is.value));
            causes.push(Cause { by: Some(is.decided()), ..cause });
        }
        for (what, says) in [("label", "a label changes the image's config, and no step"), ("tag", "a name changes no step")] {
            let all = |ran: &'a Ran| -> BTreeSet<&'a str> {
                ran.settings.iter().filter(|setting| setting.name == what).map(|setting| setting.value.as_str()).collect()
            };
            let (was, is) = (all(self.before), all(self.now));
            let list =
                |from: &BTreeSet<&str>, less: &BTreeSet<&str>| from.difference(less).copied().collect::<Vec<_>>().join(", ");
            let (gone, come) = (list(&was, &is), list(&is, &was));
            let text = match (gone.is_empty(), come.is_empty()) {
                (true, true) => continue,
                (false, false) => format!("{what} {come} instead of {gone}: {says}"),
                (true, false) => format!("{what} {come} came: {says}"),
                (false, true) => format!("{what} {gone} went: {says}"),
            };
            let some = |list: &str| (!list.is_empty()).then(|| list.to_owned());
            let by = self.now.setting(what).or(self.before.setting(what)).map(Setting::decided);
            causes.push(Cause { was: some(&gone), is: some(&come), by, ..Cause::new(Kind::Config, what, text) });
        }
        causes
    }

    fn back_end(&self) -> Option<Cause> {
        let (was, is) = (self.before.back_end.as_ref()?, self.now.back_end.as_ref()?);
        let same = match (&was.identity, &is.identity) {
            // One daemon may have several addresses.
            (Some(was), Some(is)) => was == is,
            _ => was.name == is.name,
        };
        if same {
            return None;
        }
        let text = if was.name == is.name {
            format!("another back end answered as {}: it has a cache of its own", is.name)
        } else {
            format!("built by {} ({}) instead of {}: it has a cache of its own", is.name, is.origin, was.name)
        };
        let cause = Cause::new(Kind::BackEnd, "back end", text).values(Some(&was.name), Some(&is.name));
        Some(Cause { by: Some(is.origin.clone()), ..cause })
    }

    /// Finds roots that none of the causes until here answers for.
    fn roche(&self, causes: &[Cause]) -> Option<Cause> {
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
    fn again(&self, causes: &[Cause]) -> Vec<Cause> {
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
        let moved = causes.iter().any(|cause| cause.kind == Kind::BackEnd || cause.kind == Kind::Image);
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

/// Returns a vertex's state, where it has one.
pub(super) fn state(vertex: &Vertex) -> Option<&str> {
    vertex.outcome.as_ref().map(|Outcome { state, .. }| state.as_str())
}

fn changed(name: &str, was: &SourceFile, is: &SourceFile) -> Cause {
    let lines = match (&was.text, &is.text) {
        (Some(was), Some(is)) => lines::compare(was, is),
        _ => Vec::new(),
    };
    let text = if lines.is_empty() { format!("{name} changed") } else { format!("{name} {}", lines::told(&lines)) };
    Cause { lines, ..Cause::new(Kind::File, name, text).values(Some(&was.digest), Some(&is.digest)) }
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the name of an image as people write it.
fn name(setting: &Setting) -> String {
    setting.value.parse::<roche_engine::oci::Reference>().map_or_else(|_| setting.value.clone(), |reference| reference.familiar())
}

fn base<'a>(document: &'a Document, reference: &str) -> Option<&'a Base> {
    document.bases.iter().find(|base| base.reference == reference)
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
