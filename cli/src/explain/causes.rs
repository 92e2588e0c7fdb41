//! What made a release another one than the release before it.
//!
//! 1. What both records say outright is compared: files, images, toolchain, settings, back end.
//! 2. The roots of the graphs' difference are laid at the door of one of these, or of roche's own steps ([`super::roots`]).
//! 3. Vertices that are the same and ran all the same had a reason that is not in the graph: the cache.
//!
//! Invariant: a root is never left out; where there is no cause, nothing that a release is made of has changed.

use std::collections::BTreeSet;

use serde::Serialize;

use super::lines::{self, Range};
use super::pair::Pairs;
use crate::document::{Base, Document, Outcome, Ran, Setting, SourceFile, Vertex};
use crate::history::familiar;

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
    pub(super) fn new(kind: Kind, what: &str, text: String) -> Self {
        Self { kind, what: what.to_owned(), was: None, is: None, by: None, lines: Vec::new(), text }
    }

    pub(super) fn values(self, was: Option<&str>, is: Option<&str>) -> Self {
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
        let unplanned = |document: &Document| document.vertices.is_empty();
        if unplanned(self.was) || unplanned(self.is) {
            let which = if unplanned(self.is) { "this release" } else { "the release before" };
            if causes.is_empty() {
                let text = format!("{which} ended before it was planned: its images and steps are not known");
                causes.push(Cause::new(Kind::Unfinished, "plan", text));
            }
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
            // Digests of two kinds: the same image has both.
            (known, _) => {
                let (by_then, by_now) = if known.is_some() { ("digest", "image id") } else { ("image id", "digest") };
                let text = format!("the {role} {} is known by its {by_now} now, and was by its {by_then}", name(is));
                return Some(Cause { by: Some(is.decided()), ..Cause::new(Kind::Image, role, text) });
            }
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
            if was.value == is.value || (what == "entrypoint" && was.from == "default" && is.from == "default") {
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
    familiar(&setting.value)
}

fn base<'a>(document: &'a Document, reference: &str) -> Option<&'a Base> {
    document.bases.iter().find(|base| base.reference == reference)
}
