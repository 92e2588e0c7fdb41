//! What images gain: facts after a release, what they teach the next plan, and whether plan and fact
//! agree.
//!
//! Invariants: a fact comes out of the tree that was solved. What is learned comes from a release on
//! the same base images, names that release, and takes the place of nothing that a plan knows.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::document::{Base, Blob, Document, Entry, Ran};
use crate::environment::Environment;
use crate::record::{Key, Records};
use crate::report::AddedFile;

/// How many records are looked at.
const RECENT: usize = 20;

/// The user that the service's files belong to, and one of them.
const USER: (&str, &str) = ("rocheuser", "/app/run.sh");

/// The file that a compiler writes.
const COMPILED: &str = "/app/roche-service";

/// Settings that decide which files there are.
const SETTINGS: [&str; 3] = ["entrypoint", "platform", "time zones"];

/// Returns what an image gained, in the order of the paths.
pub(crate) fn facts(planned: &[Entry], added: &[AddedFile]) -> Vec<Entry> {
    let by_path: BTreeMap<&str, &Entry> = planned.iter().map(|entry| (entry.path.as_str(), entry)).collect();
    let user = added.iter().find(|file| file.path == USER.1).map(|file| file.info.uid);
    // A folder that the base image has is in the tree because something lies in it.
    let onto_nothing = by_path.contains_key("/etc");
    let mut facts: Vec<Entry> = Vec::new();
    for AddedFile { path, info } in added {
        let plan = by_path.get(path.as_str());
        if info.is_dir() && plan.is_none() && !onto_nothing {
            continue;
        }
        let kind = match info.mode & 0o170_000 {
            0o040_000 => "folder",
            0o120_000 => "symlink",
            _ => "file",
        };
        facts.push(Entry {
            path: path.clone(),
            kind: kind.to_owned(),
            owner: Some(match info.uid {
                0 => "root".to_owned(),
                uid if Some(uid) == user => USER.0.to_owned(),
                uid => uid.to_string(),
            }),
            vertex: plan.or(by_path.get(USER.1)).map_or(0, |entry| entry.vertex),
            mode: Some(format!("{:04o}", info.mode & 0o7777)),
            size_bytes: (kind == "file").then_some(info.size_bytes),
            learned_from: None,
        });
    }
    facts.sort_by(|a, b| a.path.cmp(&b.path));
    facts
}

/// Says where an image is not what was planned; where the plan says nothing, anything is right.
pub(crate) fn differences(planned: &[Entry], facts: &[Entry]) -> Vec<String> {
    let by_path = |entries: &[Entry]| -> BTreeMap<String, Entry> {
        entries.iter().map(|entry| (entry.path.clone(), entry.clone())).collect()
    };
    let (planned, facts) = (by_path(planned), by_path(facts));
    let mut said = Vec::new();
    for (path, plan) in &planned {
        let Some(fact) = facts.get(path) else {
            said.push(format!("{path} was planned and is not there"));
            continue;
        };
        let size = |entry: &Entry| entry.size_bytes.map(|bytes| bytes.to_string());
        for (what, plan, fact) in [
            ("kind", Some(plan.kind.clone()), Some(fact.kind.clone())),
            ("owner", plan.owner.clone(), fact.owner.clone()),
            ("mode", plan.mode.clone(), fact.mode.clone()),
            ("size", size(plan), size(fact)),
        ] {
            if let (Some(plan), Some(fact)) = (plan, fact)
                && plan != fact
            {
                said.push(format!("{path} has {what} {fact}, planned was {plan}"));
            }
        }
    }
    said.extend(facts.keys().filter(|path| !planned.contains_key(*path)).map(|path| format!("{path} was not planned")));
    said
}

/// Completes a plan with what the newest release on the same base images found in its image; `settings`
/// are those of the release that is planned.
pub(crate) fn learn(document: &mut Document, now: &Ran, project: &Key, environment: &Environment) {
    let incomplete = document.contents.iter().any(|entry| entry.mode.is_none() || needs_size(entry));
    if !incomplete || !document.resolved {
        return;
    }
    let Some(records) = Records::of(environment) else { return };
    let mut names = records.list().unwrap_or_default();
    // This project's first, each newest first.
    names.sort_by_key(|name| name.project != *project);
    let lesson = names
        .iter()
        .take(RECENT)
        .filter_map(|name| records.read::<Lesson>(name).ok())
        .find(|lesson| lesson.is_about(document, now));
    let Some(lesson) = lesson else { return };
    let same = lesson.definition.is_some() && lesson.definition == document.definition;
    let vertex = document.contents.first().map_or(0, |entry| entry.vertex);
    for fact in lesson.contents {
        let from = Some(lesson.release.id.clone());
        match document.contents.iter_mut().find(|entry| entry.path == fact.path) {
            Some(entry) if entry.kind == fact.kind => {
                let known = (entry.mode.is_some(), entry.size_bytes.is_some());
                entry.mode = entry.mode.take().or(fact.mode);
                entry.owner = entry.owner.take().or(fact.owner);
                if same || entry.path != COMPILED {
                    entry.size_bytes = entry.size_bytes.or(fact.size_bytes);
                }
                if known != (entry.mode.is_some(), entry.size_bytes.is_some()) {
                    entry.learned_from = from;
                }
            }
            Some(_) => {}
            // What a step found missing in the base image.
            None if !document.bases.is_empty() => document.contents.push(Entry { vertex, learned_from: from, ..fact }),
            None => {}
        }
    }
    document.contents.sort_by(|a, b| a.path.cmp(&b.path));
}

fn needs_size(entry: &Entry) -> bool {
    entry.kind == "file" && entry.size_bytes.is_none()
}

/// What is taken of a record.
#[derive(Debug, Deserialize)]
struct Lesson {
    bases: Vec<Base>,
    contents: Vec<Entry>,
    definition: Option<Blob>,
    release: Ran,
}

impl Lesson {
    /// Says whether the release's files follow from the same images and settings.
    fn is_about(&self, document: &Document, now: &Ran) -> bool {
        let known = self.bases.iter().all(|base| base.digest.is_some() || base.config_digest.is_some());
        let of = |ran: &Ran| SETTINGS.map(|name| ran.setting(name).map(|setting| setting.value.clone()));
        self.release.result.is_some()
            && self.release.roche == now.roche
            && known
            && self.bases == document.bases
            && of(&self.release) == of(now)
    }
}

#[cfg(test)]
mod tests {
    use roche_engine::solver::FileInfo;

    use super::*;

    fn entry(path: &str, kind: &str, mode: Option<&str>, size_bytes: Option<u64>) -> Entry {
        let (owner, mode) = (if path.starts_with("/app/") { "rocheuser" } else { "root" }, mode.map(str::to_owned));
        Entry {
            path: path.to_owned(),
            kind: kind.to_owned(),
            owner: Some(owner.to_owned()),
            vertex: 7,
            mode,
            size_bytes,
            learned_from: None,
        }
    }

    fn added(path: &str, mode: u32, uid: u32, size_bytes: u64) -> AddedFile {
        let name = path.rsplit('/').next().unwrap().to_owned();
        AddedFile { path: path.to_owned(), info: FileInfo { name, mode, uid, gid: uid, size_bytes, link_name: String::new() } }
    }

    #[test]
    fn facts_have_names_for_owners_and_no_folders_of_the_base() {
        let planned = [entry("/app", "folder", None, None), entry("/app/run.sh", "file", None, None)];
        let tree = [
            added("/lib", 0o040_755, 0, 0),
            added("/lib/libgcc_s.so.1", 0o100_755, 0, 9),
            added("/app", 0o040_755, 0, 0),
            added("/app/run.sh", 0o100_700, 101, 31),
        ];
        let facts = facts(&planned, &tree);
        let expected = [
            entry("/app", "folder", Some("0755"), None),
            entry("/app/run.sh", "file", Some("0700"), Some(31)),
            entry("/lib/libgcc_s.so.1", "file", Some("0755"), Some(9)),
        ];
        assert_eq!(facts, expected);
        assert_eq!(differences(&planned, &facts), ["/lib/libgcc_s.so.1 was not planned"]);
    }

    #[test]
    fn each_difference_is_said() {
        let planned =
            [entry("/a", "file", Some("0644"), Some(1)), entry("/b", "file", None, None), entry("/c", "file", None, None)];
        let facts = [
            entry("/a", "symlink", Some("0777"), None),
            Entry { owner: Some("5".to_owned()), ..entry("/b", "file", Some("0600"), Some(2)) },
        ];
        let expected = [
            "/a has kind symlink, planned was file",
            "/a has mode 0777, planned was 0644",
            "/b has owner 5, planned was root",
            "/c was planned and is not there",
        ];
        assert_eq!(differences(&planned, &facts), expected);
        assert!(differences(&facts, &facts).is_empty());
    }
}
